/* Dead letters of groups: listing and changing them. */
#include "letters_helpers.h"

#include "event/history.h"

#include <sys/resource.h>
#include <time.h>

TestSuite(letters, .init = open_bus, .fini = close_bus, .timeout = 120);

Test(letters, has_all_that_was_put)
{
	struct letter_row row = letter_at("7", "2026-01-02T00:00:00.000000Z");

	row.partition_id = 3;
	row.tenant_id = SLICE("A");
	row.event_id = SLICE("e");
	row.correlation_id = SLICE("c");
	row.partition_key = SLICE("k");
	row.returns = 2;
	cr_assert_eq(put_row(&row), 1);
	const struct evbus_letter *l = letter("1");
	cr_assert_str_eq(l->id, "1");
	cr_assert(l->state == EVBUS_LETTER_DEAD && l->reason == EVBUS_REASON_RETRIES && l->partition_id == 3 &&
		  l->attempts == 1 && l->returns == 2);
	IS(l->source, "store");
	IS(l->group, "g");
	IS(l->tenant_id, "A");
	IS(l->topic, "orders");
	IS(l->event_id, "e");
	IS(l->event_type, "order.made");
	IS(l->correlation_id, "c");
	IS(l->partition_key, "k");
	IS(l->offset, "7");
	IS(l->offset_kind, "file_line");
	IS(l->published_at_utc, PUBLISHED);
	IS(l->payload, "{}");
	IS(l->error, "no");
	IS(l->history, "[" ATTEMPT("1", PUBLISHED) "]");
	IS(l->created_at, "2026-01-02T00:00:00.000000Z");
	IS(l->updated_at, "2026-01-02T00:00:00.000000Z");
	cr_assert(!l->resolved_by.data && !l->result.data);
}

/* ---- lists ----------------------------------------------------------------------------------------------------- */

Test(letters, of_a_store_that_is_not_there_are_none_and_make_none)
{
	const char *id = "1";
	struct evbus_letter_filter filter = any;

	cr_assert_str_eq(list(&any), "");
	filter.ids = &id;
	filter.id_count = 1;
	cr_assert_eq(list_code(&filter), EVBUS_NONE);
	cr_assert_eq(change("1", EVBUS_LETTER_DISCARD), EVBUS_NONE);
	cr_assert_str_eq(err.text, "there is no dead letter '1' in the store");
	cr_assert(!stored_is_there("state.db"));
}

Test(letters, come_oldest_first_over_many_pages)
{
	char expected[4096] = "";

	put_letters(600);
	for (int i = 1; i <= 600; i++)
		snprintf(expected + strlen(expected), sizeof expected - strlen(expected), "%d ", i);
	cr_assert_str_eq(list(&any), expected);
}

Test(letters, come_in_pages_that_are_bounded_in_bytes)
{
	CLEANUP(page_release) struct page page = { 0 };
	char *payload = calloc(3, 1 << 20), offset[8];

	for (int i = 0; i < 6; i++) {
		snprintf(offset, sizeof offset, "%d", i);
		struct letter_row row = letter_at(offset, PUBLISHED);
		row.payload = (struct evbus_slice){ payload, 3 << 20 };
		put_row(&row);
	}
	cr_assert_eq(letters_page(bus->store, NULL, 0, 100, &page, &err), EVBUS_OK, "%s", err.text);
	cr_assert(page.count == 2 && page.bytes <= PAGE_BYTES);
	cr_assert_str_eq(list(&any), "1 2 3 4 5 6 ");
	free(payload);
}

static void put_many_kinds(void)
{
	struct letter_row a = letter_at("0", "2026-01-01T00:00:00.000000Z");
	struct letter_row b = letter_at("1", "2026-01-02T00:00:00.000000Z");
	struct letter_row c = letter_at("2", "2026-01-03T00:00:00.000000Z");
	struct letter_row d = letter_at("3", "2026-01-04T00:00:00.000000Z");

	a.tenant_id = SLICE("A");
	b.tenant_id = SLICE("B");
	c.tenant_id = SLICE("AA");
	a.topic = SLICE("crm.deals");
	b.topic = SLICE("crm.deals.won");
	b.event_type = SLICE("deal.won");
	c.event_type = (struct evbus_slice){ NULL, 0 };
	b.reason = SLICE("timeout");
	c.group = SLICE("h");
	put_row(&a);
	put_row(&b);
	put_row(&c);
	put_row(&d);
	set("state = 'QUEUED'", 2);
	set("state = 'RETRIED'", 3);
}

Test(letters, are_filtered_by_each_of_the_filters_and_by_all_together)
{
	int64_t second;

	put_many_kinds();
	cr_assert(clock_parse_exact("2026-01-02T00:00:00.000000Z", &second));
#define FILTERED(expected, ...)                                                                                        \
	do {                                                                                                           \
		struct evbus_letter_filter filter = { .reason = -1, .state = -1, __VA_ARGS__ };                        \
		cr_assert_str_eq(list(&filter), expected, "%s: %s", #__VA_ARGS__, listed);                             \
	} while (0)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverride-init"
	FILTERED("1 2 ", .topic = "crm.>");
	FILTERED("1 ", .topic = "crm.deals");
	FILTERED("1 ", .topic = "crm.*");
	FILTERED("1 2 4 ", .group = "g");
	FILTERED("2 ", .type = "deal.*");
	FILTERED("1 4 ", .type = "order.>");
	FILTERED("1 ", .tenant = "A");
	FILTERED("3 ", .tenant = "AA");
	FILTERED("", .tenant = "");
	FILTERED("", .tenant = "a");
	FILTERED("2 ", .reason = EVBUS_REASON_TIMEOUT);
	FILTERED("1 4 ", .state = EVBUS_LETTER_DEAD);
	FILTERED("2 ", .state = EVBUS_LETTER_QUEUED);
	FILTERED("", .state = EVBUS_LETTER_DISCARDED);
	FILTERED("1 ", .older_than_us = second);
	FILTERED("3 4 ", .newer_than_us = second);
	FILTERED("2 ", .older_than_us = second + 1, .newer_than_us = second - 1);
	FILTERED("1 2 ", .max = 2);
	FILTERED("2 ", .max = 1, .reason = EVBUS_REASON_TIMEOUT);
	FILTERED("", .group = "h", .tenant = "A");
	FILTERED("4 ", .group = "g", .topic = "orders", .type = "order.made", .state = EVBUS_LETTER_DEAD,
		 .newer_than_us = second);
	FILTERED("", .tenant = "' OR 1=1 --", .group = "' OR 1=1 --");
#pragma GCC diagnostic pop
}

Test(letters, are_refused_a_filter_that_means_nothing)
{
	struct evbus_letter_filter filter = any;

	put_letters(1);
	filter.topic = "crm.";
	cr_assert_eq(list_code(&filter), EVBUS_USAGE);
	filter.topic = NULL;
	filter.outbox = "app.db";
	cr_assert_eq(list_code(&filter), EVBUS_NONE);
	cr_assert_str_eq(err.text, "the outbox 'app.db' is not among those given: name it with --outbox");
	filter.outbox = NULL;
	filter.state = EVBUS_LETTER_STATES;
	cr_assert_eq(list_code(&filter), EVBUS_USAGE);
}

Test(letters, are_found_by_id_oldest_first_and_each_once)
{
	static const char *const ids[] = { "3", "1", "3", "2" };
	static const char *const unknown[] = { "1", "9", "2" };
	struct evbus_letter_filter filter = any;

	put_letters(4);
	filter.ids = ids;
	filter.id_count = 4;
	cr_assert_str_eq(list(&filter), "1 2 3 ");
	filter.max = 2;
	cr_assert_str_eq(list(&filter), "1 2 ");
	filter.max = 0;
	set("state = 'DISCARDED'", 2);
	filter.state = EVBUS_LETTER_DEAD;
	cr_assert_str_eq(list(&filter), "1 3 ");
	filter.id_count = 0;
	cr_assert_str_eq(list(&filter), "");
	filter.ids = unknown;
	filter.id_count = 3;
	cr_assert_eq(list_code(&filter), EVBUS_NONE);
	cr_assert_str_eq(err.text, "there is no dead letter '9' in the store");
	cr_assert_str_eq(listed, "");
}

Test(letters, have_ids_of_one_form)
{
	static const char *const bad[] = { "",
					   "0",
					   "-1",
					   "1x",
					   "x",
					   "01",
					   " 1",
					   "1 ",
					   "+1",
					   "0x1",
					   "9223372036854775808",
					   ":1",
					   "99999999999999999999",
					   "app.db:",
					   "app.db:x",
					   "app.db:0" };

	put_letters(1);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		cr_assert_eq(change(bad[i], EVBUS_LETTER_DISCARD), EVBUS_USAGE, "%s", bad[i]);
	cr_assert_eq(change("x", EVBUS_LETTER_DISCARD), EVBUS_USAGE);
	cr_assert_str_eq(err.text, "'x' is not the id of a dead letter: they look like 17, or app.db:17 in an outbox");
	cr_assert_eq(change("app.db:17", EVBUS_LETTER_DISCARD), EVBUS_NONE);
	cr_assert_str_eq(err.text, "the dead letter 'app.db:17' is in the outbox 'app.db', which is not among those "
				   "given: name it with --outbox");
	cr_assert_eq(change("9223372036854775807", EVBUS_LETTER_DISCARD), EVBUS_NONE);
}

/* ---- what happens meanwhile ------------------------------------------------------------------------------------ */

static enum evbus_code interfere(void *context, const struct evbus_letter *l, struct evbus_err *e)
{
	struct letter_row row = letter_at("1000", PUBLISHED);

	TRY(take_id(context, l, e));
	if (strcmp(l->id, "1") != 0)
		return EVBUS_OK;
	/* While a letter is given out nothing is locked: another one comes, one dies again, one is changed. */
	put_row(&row);
	sql("state.db", "INSERT INTO inbox VALUES ('g', '', 't', 'e', '')");
	set("updated_at = '2027-01-01T00:00:00.000000Z', attempts = 9", 300);
	cr_assert_eq(change("301", EVBUS_LETTER_DISCARD), EVBUS_OK, "%s", err.text);
	return EVBUS_OK;
}

Test(letters, that_come_or_change_during_a_list_are_not_in_it)
{
	put_letters(302);
	listed[0] = '\0';
	cr_assert_eq(evbus_letter_list(bus, NULL, 0, &any, interfere, NULL, &err), EVBUS_OK, "%s", err.text);
	cr_assert(strstr(listed, " 299 302 "), "%s", listed);
	cr_assert_null(strstr(listed, "303"));
	cr_assert(strstr(list(&any), " 299 300 301 302 303 "), "%s", listed);
}

Test(letters, are_listed_though_the_clock_went_back)
{
	put_letters(2);
	set("updated_at = '2200-01-01T00:00:00.000000Z'", 2);
	cr_assert_str_eq(list(&any), "1 2 ");
}

Test(letters, are_no_longer_listed_when_the_callback_fails)
{
	for (enum evbus_code code = EVBUS_NO; code <= EVBUS_USAGE; code += EVBUS_USAGE - EVBUS_NO) {
		put_letters(2);
		cr_assert_eq(evbus_letter_list(bus, NULL, 0, &any, stop, &code, &err), code);
		cr_assert_str_eq(err.text, "enough");
	}
}

Test(letters, of_a_newer_evbus_are_refused)
{
	put_letters(1);
	store_close(bus->store);
	sql("state.db", "UPDATE evbus_schema SET version = version + 1");
	bus->store = open_store("sqlite:state.db");
	cr_assert_eq(list_code(&any), EVBUS_CONFIG);
	cr_assert_eq(change("1", EVBUS_LETTER_DISCARD), EVBUS_CONFIG);
}

Test(letters, that_are_damaged_are_named)
{
	put_letters(1);
	set("state = 'LOST'", 1);
	cr_assert_eq(list_code(&any), EVBUS_IO);
	cr_assert_str_eq(err.text, "the dead letter '1' is damaged: evbus did not write it so");
	set("state = 'DEAD', reason = 'mood'", 1);
	cr_assert_eq(list_code(&any), EVBUS_IO);
}

/* ---- many ------------------------------------------------------------------------------------------------------ */

/* A sanitizer keeps what was freed. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define SANITIZED true
#else
#define SANITIZED false
#endif

static void put_many(int count)
{
	struct letter_row row = letter_at("x", PUBLISHED);
	char payload[909], text[800];

	snprintf(payload, sizeof payload, "{\"x\":\"%0900d\"}", 0);
	row.payload = slice_of(payload);
	put_row(&row);
	snprintf(text, sizeof text,
		 "UPDATE dlq SET id = 0; "
		 "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
		 "INSERT INTO dlq SELECT i, CASE WHEN i %% 1000 > 0 THEN 'RETRIED' ELSE 'DEAD' END, 'g', NULL, 't', 0, "
		 "i, "
		 "'file_line', 'l', '', NULL, NULL, NULL, NULL, payload, "
		 "'retries', '', 1, '[]', 0, '2026-01-02T00:00:00.000000Z', '2026-01-02T00:00:00.000000Z', NULL, "
		 "NULL FROM n, dlq; DELETE FROM dlq WHERE id = 0",
		 count);
	sql("state.db", text);
}

static enum evbus_code count_one(void *context, const struct evbus_letter *l, struct evbus_err *e)
{
	(void)e;
	cr_assert_eq(l->payload.len, 908);
	++*(int *)context;
	return EVBUS_OK;
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static long memory_kb(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_maxrss;
}

static void list_many(const char *what, const struct evbus_letter_filter *filter, int expected)
{
	int count = 0;
	double start = seconds();

	cr_assert_eq(evbus_letter_list(bus, NULL, 0, filter, count_one, &count, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(count, expected);
	cr_log_info("%s: %.2f s", what, seconds() - start);
}

Test(letters, need_no_more_memory_than_a_page_however_many_there_are)
{
	int many = stored_on_server() ? 20000 : 100000;
	char(*texts)[8] = calloc((size_t)many, sizeof *texts);
	const char **ids = calloc((size_t)many, sizeof *ids);
	struct evbus_letter_filter dead = { .reason = -1, .state = EVBUS_LETTER_DEAD }, by_id = any;

	put_many(many);
	for (int i = 0; i < many; i++) {
		snprintf(texts[i], sizeof texts[i], "%d", (i * 7919 + 1) % many + 1);
		ids[i] = texts[i];
	}
	by_id.ids = ids;
	by_id.id_count = (size_t)many / 5;
	long before = memory_kb();
	list_many("all", &any, many);
	list_many("dead", &dead, many / 1000);
	list_many("by id", &by_id, many / 5);
	long grown = memory_kb() - before;
	cr_log_info("%ld KiB", grown);
	cr_assert(grown < (stored_on_server() ? 10000 : 20000) || SANITIZED, "%ld KiB", grown);
	free(texts);
	free(ids);
}
