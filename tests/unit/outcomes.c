/* The tables of retries and of the inbox. */
#include "store/outcomes.h"

#include "base/buf.h"
#include "store_helpers.h"

static struct store *store;

static void open_it(void)
{
	setup();
	store = open_store("s.db");
}

static void close_it(void)
{
	store_close(store);
	teardown();
}

TestSuite(outcomes, .init = open_it, .fini = close_it);

#define OK(call) cr_assert_eq((call), EVBUS_OK, "%d %s", (int)err.code, err.text)
#define NOW "2026-01-29T12:00:00.123456Z"

static const struct retry_place place = { "g", "t", 0, "log" };

static struct evbus_slice text(const char *from)
{
	return (struct evbus_slice){ from, strlen(from) };
}

static void begin(void)
{
	OK(table_begin(store, &err));
}

static void commit(void)
{
	OK(table_commit(store, &err));
}

/* ---- inbox ---- */

static void add_event(const char *group, const char *tenant, const char *topic, const char *id)
{
	struct inbox_event event = { topic, text(tenant), text(id), false };

	begin();
	OK(inbox_add(store, group, &event, 1, NOW, &err));
	commit();
}

static bool is_known(const char *group, const char *tenant, const char *topic, struct evbus_slice id)
{
	struct inbox_event event = { topic, text(tenant), id, true };

	OK(inbox_look(store, group, &event, 1, &err));
	return event.known;
}

Test(outcomes, an_inbox_that_is_not_there_knows_nothing_and_is_not_made)
{
	cr_assert(!is_known("g", "", "t", text("1")));
	cr_assert(!stored_is_there("s.db"));
}

Test(outcomes, an_inbox_goes_by_group_tenant_topic_and_id)
{
	add_event("g", "a", "t", "1");
	cr_assert(is_known("g", "a", "t", text("1")));
	cr_assert(!is_known("h", "a", "t", text("1")) && !is_known("g", "", "t", text("1")));
	cr_assert(!is_known("g", "a", "u", text("1")) && !is_known("g", "a", "t", text("")));
	cr_assert(!is_known("g", "a", "t", text("01")) && !is_known("g", "a", "t", text("A")));
}

Test(outcomes, an_inbox_takes_any_bytes_as_they_are)
{
	static const struct evbus_slice ids[] = { { "a\0b", 3 },     { "a", 1 },   { "'; DROP TABLE inbox; --", 23 },
						  { "\xc3\xa4", 2 }, { "1.0", 3 }, { "1", 1 },
						  { " 1", 2 } };

	for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
		struct inbox_event event = { "t", text(""), ids[i], false };
		cr_assert(!is_known("g", "", "t", ids[i]), "%zu", i);
		begin();
		OK(inbox_add(store, "g", &event, 1, NOW, &err));
		commit();
		cr_assert(is_known("g", "", "t", ids[i]), "%zu", i);
	}
}

Test(outcomes, an_event_that_is_in_the_inbox_stays_as_it_was)
{
	add_event("g", "", "t", "1");
	sql("s.db", "UPDATE inbox SET processed_at = 'first'");
	add_event("g", "", "t", "1");
	cr_assert_str_eq(sql("s.db", "SELECT count(*) FROM inbox WHERE processed_at = 'first'"), "1");
}

Test(outcomes, many_events_are_looked_up_at_once)
{
	struct inbox_event events[INBOX_BATCH_MAX];
	char ids[INBOX_BATCH_MAX][8];

	for (unsigned count = 0; count <= INBOX_BATCH_MAX; count++) {
		begin();
		for (unsigned i = 0; i < count; i++) {
			snprintf(ids[i], sizeof ids[i], "%u-%u", count, i);
			events[i] = (struct inbox_event){ "t", text(""), text(ids[i]), true };
			if (i % 3 == count % 3)
				OK(inbox_add(store, "g", &events[i], 1, NOW, &err));
		}
		commit();
		OK(inbox_look(store, "g", events, count, &err));
		for (unsigned i = 0; i < count; i++)
			cr_assert_eq(events[i].known, i % 3 == count % 3, "%u of %u", i, count);
	}
}

Test(outcomes, many_events_are_added_at_once)
{
	struct inbox_event events[INBOX_BATCH_MAX];
	char ids[INBOX_BATCH_MAX][8];

	for (unsigned count = 0; count <= INBOX_BATCH_MAX; count++) {
		for (unsigned i = 0; i < count; i++) {
			snprintf(ids[i], sizeof ids[i], "%u-%u", count, i);
			events[i] = (struct inbox_event){ "t", text(i % 2 ? "a" : ""), text(ids[i]), false };
		}
		begin();
		OK(inbox_add(store, "g", events + count / 2, count > 0, NOW, &err));
		OK(inbox_add(store, "g", events, count, NOW, &err));
		commit();
		OK(inbox_look(store, "g", events, count, &err));
		for (unsigned i = 0; i < count; i++)
			cr_assert(events[i].known, "%u of %u", i, count);
	}
	cr_assert_str_eq(sql("s.db", "SELECT count(*) FROM inbox"), "5050");
}

/* ---- retries ---- */

static enum evbus_code note(void *context, const struct retry_row *row, struct evbus_err *e)
{
	char line[200];
	int len = snprintf(line, sizeof line, "%.*s %lld %.*s %.*s %.*s;", (int)row->offset.len, row->offset.data,
			   (long long)row->attempts, (int)row->next_attempt_at.len, row->next_attempt_at.data,
			   (int)row->last_error.len, row->last_error.data, (int)row->history.len, row->history.data);

	return buf_add(context, line, (size_t)len, e);
}

static const char *list(const struct retry_place *of)
{
	static char kept[2000];
	CLEANUP(buf_release) struct buf rows = { 0 };

	OK(retries_list(store, of, note, &rows, &err));
	snprintf(kept, sizeof kept, "%.*s", (int)rows.len, rows.data ? rows.data : "");
	return kept;
}

static void put_retry(const struct retry_place *at, const char *offset, int64_t attempts)
{
	struct retry_row row = { text(offset), attempts, text("due"), text("it's"), text("[]") };

	begin();
	OK(retries_put(store, at, &row, &err));
	commit();
}

Test(outcomes, retries_are_listed_by_offset_of_one_partition_and_log)
{
	static const struct retry_place others[] = { { "h", "t", 0, "log" },
						     { "g", "u", 0, "log" },
						     { "g", "t", 1, "log" } };
	static const struct retry_place other_log = { "g", "t", 0, "log2" };

	cr_assert_str_eq(list(&place), "");
	cr_assert(!stored_is_there("s.db"));
	put_retry(&place, "10", 1);
	put_retry(&place, "9", 2);
	put_retry(&place, "18446744073709551614", 3);
	put_retry(&place, "100", 4);
	for (size_t i = 0; i < 3; i++)
		put_retry(&others[i], "50", 9);
	put_retry(&other_log, "60", 9);
	cr_assert_str_eq(list(&place),
			 "9 2 due it's [];10 1 due it's [];100 4 due it's [];18446744073709551614 3 due it's [];");
}

Test(outcomes, a_retry_replaces_the_one_before_also_of_another_log)
{
	static const struct retry_place other_log = { "g", "t", 0, "log2" };

	put_retry(&place, "9", 1);
	put_retry(&place, "9", 2);
	cr_assert_str_eq(list(&place), "9 2 due it's [];");
	put_retry(&other_log, "9", 7);
	cr_assert_str_eq(list(&place), "");
	cr_assert_str_eq(list(&other_log), "9 7 due it's [];");
}

Test(outcomes, a_retry_is_removed_alone)
{
	put_retry(&place, "9", 1);
	put_retry(&place, "10", 1);
	begin();
	OK(retries_remove(store, &place, text("9"), &err));
	OK(retries_remove(store, &place, text("11"), &err));
	commit();
	cr_assert_str_eq(list(&place), "10 1 due it's [];");
}

Test(outcomes, retries_are_swept_below_an_offset_and_of_other_logs)
{
	static const struct retry_place other_log = { "g", "t", 0, "log2" }, other = { "g", "t", 1, "log" };

	put_retry(&place, "9", 1);
	put_retry(&place, "10", 1);
	put_retry(&place, "100", 1);
	put_retry(&other_log, "1000", 1);
	put_retry(&other, "1", 1);
	begin();
	OK(retries_sweep(store, &place, text("10"), &err));
	commit();
	cr_assert_str_eq(list(&place), "10 1 due it's [];100 1 due it's [];");
	cr_assert_str_eq(list(&other_log), "");
	cr_assert_str_eq(list(&other), "1 1 due it's [];");
}

Test(outcomes, a_damaged_row_is_told)
{
	CLEANUP(buf_release) struct buf rows = { 0 };

	put_retry(&place, "9", 1);
	sql("s.db", "UPDATE retries SET attempts = -1");
	cr_assert_eq(retries_list(store, &place, note, &rows, &err), EVBUS_IO);
}

Test(outcomes, a_checkpoint_is_written_with_the_rest_or_not_at_all)
{
	struct evbus_checkpoint c = checkpoint("g", "t", 0, 5);
	struct inbox_event event = { "t", text(""), text("1"), false };

	begin();
	OK(outcomes_checkpoint(store, &c, &err));
	OK(inbox_add(store, "g", &event, 1, NOW, &err));
	table_rollback(store);
	cr_assert(position(store, 0) == -1 && !is_known("g", "", "t", text("1")));
	begin();
	OK(outcomes_checkpoint(store, &c, &err));
	OK(inbox_add(store, "g", &event, 1, NOW, &err));
	commit();
	cr_assert(position(store, 0) == 5 && is_known("g", "", "t", text("1")));
}

static enum evbus_code take_plan(void *context, const struct value *columns, size_t count, struct evbus_err *e)
{
	(void)e;
	cr_assert_eq(count, 4);
	snprintf((char *)context + strlen(context), 100, "%.*s;", (int)columns[3].bytes.len, columns[3].bytes.data);
	return EVBUS_OK;
}

Test(outcomes, are_found_by_an_index)
{
	OF_PLANS;
	char plan[400] = "";
	struct query query = { .sql = "EXPLAIN QUERY PLAN SELECT record_offset FROM retries WHERE group_name = 'g' AND "
				      "topic = 't' AND partition_id = 0 AND log_id = 'l' "
				      "ORDER BY length(record_offset), record_offset",
			       .row = take_plan,
			       .context = plan };

	put_retry(&place, "9", 1);
	OK(table_read(store, &query, &err));
	cr_assert(strstr(plan, "SEARCH retries USING INDEX"), "%s", plan);
}
