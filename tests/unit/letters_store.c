/* The table of dead letters, as consumers use it. */
#include "faulty.h"
#include "store_helpers.h"

#include "event/history.h"
#include "store/letters.h"

TestSuite(letters_store, .init = setup, .fini = teardown, .timeout = 120);

#define LOG "0123456789abcdef0123456789abcdef"
#define NOW "2026-01-29T12:00:00.123456Z"
#define LATER "2026-01-30T12:00:00.123456Z"
#define ONE "{\"attempt\":1,\"at\":\"2026-01-29T12:00:00.123456Z\",\"reason\":\"retries\",\"error\":\"no\"}"
#define INJECTION "'); DROP TABLE dlq; --\" ? $1"

/* Copies of what was found, the last of it; NULL is the word. */
struct found {
	int count;
	int64_t id, attempts, returns;
	char state[16], history[9000], reason[16], error[64], updated_at[32], created_at[32], by[64], result[64];
};

static void copy(char *to, size_t size, struct evbus_slice from)
{
	snprintf(to, size, "%.*s", from.data ? (int)from.len : 4, from.data ? from.data : "NULL");
}

static enum evbus_code take(void *context, const struct letter_row *row, struct evbus_err *e)
{
	struct found *found = context;

	(void)e;
	found->count++;
	found->id = row->id;
	found->attempts = row->attempts;
	found->returns = row->returns;
	copy(found->state, sizeof found->state, row->state);
	copy(found->history, sizeof found->history, row->history);
	copy(found->reason, sizeof found->reason, row->reason);
	copy(found->error, sizeof found->error, row->error);
	copy(found->created_at, sizeof found->created_at, row->created_at);
	copy(found->updated_at, sizeof found->updated_at, row->updated_at);
	copy(found->by, sizeof found->by, row->resolved_by);
	copy(found->result, sizeof found->result, row->result);
	return EVBUS_OK;
}

static struct letter_row row_at(const char *group, const char *offset)
{
	return (struct letter_row){ .group = { group, strlen(group) },
				    .topic = SLICE("t"),
				    .partition_id = 3,
				    .offset = { offset, strlen(offset) },
				    .offset_kind = SLICE("file_line"),
				    .log_id = SLICE(LOG),
				    .published_at = SLICE(NOW),
				    .payload = SLICE("{}"),
				    .reason = SLICE("retries"),
				    .error = SLICE("no"),
				    .attempts = 1,
				    .history = SLICE("[" ONE "]"),
				    .updated_at = SLICE(NOW) };
}

static int64_t put_letter(struct store *store, const struct letter_row *row)
{
	int64_t id = 0;

	cr_assert_eq(table_begin(store, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(letters_put(store, row, &id, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(table_commit(store, &err), EVBUS_OK, "%s", err.text);
	return id;
}

static struct found queued(struct store *store, const char *group, int64_t after)
{
	struct found found = { 0 };

	cr_assert_eq(letters_next_queued(store, group, "t", 3, LOG, after, take, &found, &err), EVBUS_OK, "%s",
		     err.text);
	return found;
}

static void queue(void)
{
	sql("state.db", "UPDATE dlq SET state = 'QUEUED'");
}

static bool succeeded(struct store *store, int64_t id)
{
	bool changed = false;

	cr_assert_eq(table_begin(store, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(letters_succeeded(store, id, "pid 7", "done", LATER, &changed, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(table_commit(store, &err), EVBUS_OK, "%s", err.text);
	return changed;
}

static bool failed(struct store *store, int64_t id)
{
	bool changed = false;

	cr_assert_eq(table_begin(store, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(
		letters_failed(store, id, "timeout", SLICE("slow"), SLICE("[" ONE "," ONE "]"), LATER, &changed, &err),
		EVBUS_OK, "%s", err.text);
	cr_assert_eq(table_commit(store, &err), EVBUS_OK, "%s", err.text);
	return changed;
}

Test(letters_store, numbers_letters_from_one_and_gives_no_number_twice)
{
	struct store *store = open_store("state.db");
	struct letter_row a = row_at("g", "0"), b = row_at("g", "1"), c = row_at("g", "2");

	cr_assert_eq(put_letter(store, &a), 1);
	cr_assert_eq(put_letter(store, &b), 2);
	sql("state.db", "DELETE FROM dlq");
	cr_assert_eq(put_letter(store, &c), 3);
	store_close(store);
}

Test(letters_store, of_an_event_is_one_with_the_attempts_of_both)
{
	struct store *store = open_store("state.db");
	struct letter_row row = row_at("g", "7");

	cr_assert_eq(put_letter(store, &row), 1);
	sql("state.db", "UPDATE dlq SET state = 'DISCARDED', resolved_by = 'me', result = 'x'");
	row.updated_at = SLICE(LATER);
	row.attempts = 6;
	row.reason = SLICE("signal");
	row.error = SLICE("killed");
	cr_assert_eq(put_letter(store, &row), 1);
	queue();
	struct found found = queued(store, "g", 0);
	cr_assert(found.attempts == 7 && found.returns == 1);
	cr_assert_str_eq(found.history, "[" ONE "," ONE "]");
	cr_assert_str_eq(found.reason, "signal");
	cr_assert_str_eq(found.error, "killed");
	cr_assert_str_eq(found.created_at, NOW);
	cr_assert_str_eq(found.updated_at, LATER);
	cr_assert_str_eq(found.by, "NULL");
	cr_assert_str_eq(found.result, "NULL");
	store_close(store);
}

Test(letters_store, of_another_group_or_log_or_offset_is_another_letter)
{
	struct store *store = open_store("state.db");
	struct letter_row row = row_at("g", "7"), other = row_at("h", "7"), next = row_at("g", "8"), new = row;

	new.log_id = SLICE("ffffffffffffffffffffffffffffffff");
	cr_assert_eq(put_letter(store, &row), 1);
	cr_assert_eq(put_letter(store, &other), 2);
	cr_assert_eq(put_letter(store, &next), 3);
	cr_assert_eq(put_letter(store, &new), 4);
	store_close(store);
}

Test(letters_store, keeps_the_latest_attempts_of_a_letter_that_dies_over_and_over)
{
	struct store *store = open_store("state.db");
	struct letter_row row = row_at("g", "7");

	for (unsigned i = 0; i < HISTORY_MAX + 5; i++) {
		char entry[200];
		snprintf(entry, sizeof entry,
			 "[{\"attempt\":%u,\"at\":\"" NOW "\",\"reason\":\"retries\",\"error\":\"\"}]", i);
		row.history = (struct evbus_slice){ entry, strlen(entry) };
		cr_assert_eq(put_letter(store, &row), 1);
	}
	queue();
	struct found found = queued(store, "g", 0);
	cr_assert_eq(found.attempts, HISTORY_MAX + 5);
	cr_assert_eq(strncmp(found.history, "[{\"attempt\":5,", 14), 0, "%s", found.history);
	cr_assert(strstr(found.history, "{\"attempt\":104,"));
	cr_assert(json_value_len((struct evbus_slice){ found.history, strlen(found.history) }) ==
		  strlen(found.history));
	store_close(store);
}

Test(letters_store, takes_empty_fields_and_a_history_that_is_not_there_yet)
{
	struct store *store = open_store("state.db");
	struct letter_row row = row_at("g", "7");

	row.error = row.history = row.payload = (struct evbus_slice){ NULL, 0 };
	cr_assert_eq(put_letter(store, &row), 1);
	row.history = SLICE("[" ONE "]");
	cr_assert_eq(put_letter(store, &row), 1);
	queue();
	cr_assert_str_eq(queued(store, "g", 0).history, "[" ONE "]");
	store_close(store);
}

Test(letters_store, are_queued_for_their_group_partition_and_log_alone)
{
	struct store *store = open_store("state.db");
	struct letter_row a = row_at("g", "0"), b = row_at("h", "0"), c = row_at("g", "1"), d = row_at("g", "2");
	struct found found = { 0 };

	c.log_id = SLICE("ffffffffffffffffffffffffffffffff");
	cr_assert_eq(queued(store, "g", 0).count, 0);
	put_letter(store, &a);
	put_letter(store, &b);
	put_letter(store, &c);
	put_letter(store, &d);
	cr_assert_eq(queued(store, "g", 0).count, 0);
	queue();
	cr_assert_eq(queued(store, "g", 0).id, 1);
	cr_assert_eq(queued(store, "g", 1).id, 4);
	cr_assert_eq(queued(store, "g", 4).count, 0);
	cr_assert_eq(letters_next_queued(store, "g", "t", 2, LOG, 0, take, &found, &err), EVBUS_OK);
	cr_assert_eq(letters_next_queued(store, "g", "u", 3, LOG, 0, take, &found, &err), EVBUS_OK);
	cr_assert_eq(found.count, 0);
	store_close(store);
}

Test(letters_store, that_are_queued_become_retried_or_dead_again_and_others_do_not_change)
{
	struct store *store = open_store("state.db");
	struct letter_row row = row_at("g", "0"), other = row_at("g", "1");

	put_letter(store, &row);
	put_letter(store, &other);
	cr_assert(!succeeded(store, 1) && !failed(store, 1) && !succeeded(store, 9) && !failed(store, 9));
	queue();
	cr_assert(failed(store, 1) && !failed(store, 1));
	cr_assert_eq(queued(store, "g", 0).id, 2);
	cr_assert(succeeded(store, 2) && !succeeded(store, 2) && !failed(store, 2));
	cr_assert_eq(queued(store, "g", 0).count, 0);
	sql("state.db", "UPDATE dlq SET state = 'QUEUED', topic = state");
	sql("state.db", "UPDATE dlq SET result = state || topic, topic = 't'");
	struct found found = queued(store, "g", 0);
	cr_assert(found.attempts == 2 && found.returns == 1);
	cr_assert_str_eq(found.history, "[" ONE "," ONE "]");
	cr_assert_str_eq(found.reason, "timeout");
	cr_assert_str_eq(found.error, "slow");
	cr_assert_str_eq(found.updated_at, LATER);
	cr_assert_str_eq(found.by, "NULL");
	cr_assert_str_eq(found.result, "QUEUEDDEAD");
	found = queued(store, "g", 1);
	cr_assert(found.attempts == 1 && found.returns == 0);
	cr_assert_str_eq(found.by, "pid 7");
	cr_assert_str_eq(found.result, "QUEUEDRETRIED");
	store_close(store);
}

/* ---- bytes ----------------------------------------------------------------------------------------------------- */

static int same;

static enum evbus_code compare(void *context, const struct letter_row *row, struct evbus_err *e)
{
	const struct letter_row *put = context;
	const struct evbus_slice *texts[][2] = { { &row->group, &put->group },
						 { &row->tenant_id, &put->tenant_id },
						 { &row->offset, &put->offset },
						 { &row->offset_kind, &put->offset_kind },
						 { &row->log_id, &put->log_id },
						 { &row->published_at, &put->published_at },
						 { &row->partition_key, &put->partition_key },
						 { &row->event_id, &put->event_id },
						 { &row->event_type, &put->event_type },
						 { &row->correlation_id, &put->correlation_id },
						 { &row->payload, &put->payload },
						 { &row->reason, &put->reason },
						 { &row->error, &put->error } };

	(void)e;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		if (!texts[i][1]->data)
			cr_assert_null(texts[i][0]->data, "%zu", i);
		else
			cr_assert(texts[i][0]->data && texts[i][0]->len == texts[i][1]->len &&
					  !memcmp(texts[i][0]->data, texts[i][1]->data, texts[i][1]->len),
				  "%zu", i);
	same++;
	return EVBUS_OK;
}

static void comes_back_as_it_was(struct letter_row *row)
{
	struct store *store = open_store("state.db");

	row->log_id = SLICE(LOG);
	put_letter(store, row);
	queue();
	cr_assert_eq(letters_next_queued(store, row->group.data, "t", 3, LOG, 0, compare, row, &err), EVBUS_OK, "%s",
		     err.text);
	cr_assert_eq(same, 1);
	store_close(store);
}

Test(letters_store, gives_back_sql_in_every_field)
{
	struct evbus_slice bad = SLICE(INJECTION);
	struct letter_row row = row_at(INJECTION, INJECTION);

	row.tenant_id = row.partition_key = row.event_id = row.event_type = row.correlation_id = bad;
	row.offset_kind = row.published_at = row.payload = row.reason = row.error = bad;
	comes_back_as_it_was(&row);
}

Test(letters_store, tells_null_from_empty)
{
	struct letter_row row = row_at("g", "0");

	row.tenant_id = row.event_id = SLICE("");
	row.payload = SLICE("");
	comes_back_as_it_was(&row);
}

Test(letters_store, gives_back_a_payload_of_any_bytes_and_a_megabyte)
{
	char *bytes = malloc(1 << 20);
	struct letter_row row = row_at("g", "0");

	cr_assert_not_null(bytes);
	for (uint32_t i = 0, x = 1; i < 1 << 20; i++)
		bytes[i] = (char)((x = x * 1664525 + 1013904223) >> 24);
	bytes[0] = bytes[1000] = '\0';
	row.payload = (struct evbus_slice){ bytes, 1 << 20 };
	row.error = row.event_id = (struct evbus_slice){ "a\0b\xff\xc0", 5 };
	comes_back_as_it_was(&row);
	free(bytes);
}

/* ---- indices --------------------------------------------------------------------------------------------------- */

static int take_plan(void *to, int count, char **values, char **names)
{
	(void)names;
	strncat(to, values[count - 1], 200);
	strncat(to, "; ", 3);
	return 0;
}

static void assert_plan(const char *statement, const char *index)
{
	char plan[1000] = "", text[1000];
	sqlite3 *db;

	snprintf(text, sizeof text, "EXPLAIN QUERY PLAN %s", statement);
	cr_assert_eq(sqlite3_open("state.db", &db), SQLITE_OK);
	cr_assert_eq(sqlite3_exec(db, text, take_plan, plan, NULL), SQLITE_OK, "%s", sqlite3_errmsg(db));
	cr_assert(strstr(plan, index) && !strstr(plan, "SCAN") && !strstr(plan, "TEMP"), "%s: %s", statement, plan);
	sqlite3_close(db);
}

Test(letters_store, are_found_by_index)
{
	OF_PLANS;
	struct store *store = open_store("state.db");
	struct letter_row row = row_at("g", "0");

	put_letter(store, &row);
	store_close(store);
	assert_plan("SELECT id, payload FROM dlq WHERE group_name = ? AND state = 'QUEUED' AND topic = ? AND "
		    "partition_id = ? AND id > ? AND log_id = ? ORDER BY id LIMIT 1",
		    "USING INDEX dlq_queued (group_name=? AND state=? AND topic=? AND partition_id=? AND id>?)");
	assert_plan("SELECT id, history FROM dlq WHERE group_name = ? AND topic = ? AND partition_id = ? AND "
		    "record_offset = ? AND log_id = ?",
		    "group_name=? AND topic=? AND partition_id=? AND record_offset=? AND log_id=?");
}

/* ---- what is not as it must be --------------------------------------------------------------------------------- */

Test(letters_store, that_are_damaged_are_named)
{
	struct store *store = open_store("state.db");
	struct letter_row row = row_at("g", "0");
	struct found found = { 0 };

	put_letter(store, &row);
	queue();
	sql("state.db", "UPDATE dlq SET attempts = -1");
	cr_assert_eq(letters_next_queued(store, "g", "t", 3, LOG, 0, take, &found, &err), EVBUS_IO);
	cr_assert_str_eq(err.text, "the dead letter '1' is damaged: evbus did not write it so");
	store_close(store);
}

Test(letters_store, whose_history_is_damaged_do_not_die_again)
{
	OF_TYPES;
	struct store *store = open_store("state.db");
	struct letter_row row = row_at("g", "0");
	int64_t id;

	put_letter(store, &row);
	sql("state.db", "UPDATE dlq SET history = x'00'");
	cr_assert_eq(table_begin(store, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(letters_put(store, &row, &id, &err), EVBUS_IO);
	cr_assert_str_eq(err.text, "the dead letter '1' is damaged: evbus did not write it so");
	table_rollback(store);
	store_close(store);
}

/* A number that was given out must not be given out again. */
Test(letters_store, without_the_number_of_the_last_one_are_not_made)
{
	static const char *const numbers[] = { "-5", /* Postgres has no more: */ "9223372036854775807", "1.5" };
	struct store *store = open_store("state.db");
	struct letter_row row = row_at("g", "0"), next = row_at("g", "1");
	size_t last = stored_on_server() ? 1 : sizeof numbers / sizeof *numbers;
	char text[100];
	int64_t id = 77;

	put_letter(store, &row);
	for (size_t i = 0; i < last; i++) {
		snprintf(text, sizeof text, "UPDATE counters SET value = %s", numbers[i]);
		sql("state.db", text);
		cr_assert_eq(table_begin(store, &err), EVBUS_OK, "%s", err.text);
		cr_assert_eq(letters_put(store, &next, &id, &err), EVBUS_IO, "%s", numbers[i]);
		cr_assert_str_eq(err.text, "the number of the last dead letter is damaged: restore the store");
		cr_assert_eq(id, 77);
		table_rollback(store);
	}
	sql("state.db", "UPDATE counters SET value = 1");
	cr_assert_eq(put_letter(store, &next), 2);
	store_close(store);
}

Test(letters_store, that_the_database_refuses_do_not_change)
{
	struct store *store = open_store("state.db");
	struct letter_row row = row_at("g", "0");
	bool changed = true;

	put_letter(store, &row);
	queue();
	stored_refuse("state.db", "UPDATE", "dlq", "1 = 1", "not today");
	cr_assert_eq(table_begin(store, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(letters_failed(store, 1, "timeout", SLICE("slow"), SLICE("[]"), LATER, &changed, &err),
		     EVBUS_CONFLICT);
	cr_assert(strstr(err.text, "' refuses the row: not today") && changed, "%s", err.text);
	table_rollback(store);
	stored_allow("state.db", "dlq");
	cr_assert(failed(store, 1));
	store_close(store);
}

/* Of both, each request for memory in turn. */
Test(letters_store, that_die_again_without_memory_are_as_they_were)
{
	struct store *store = open_store("state.db");
	struct letter_row row = row_at("g", "0");
	unsigned at = 0;
	int64_t id = 77;
	bool hit = true;

	put_letter(store, &row);
	while (hit) {
		cr_assert_eq(table_begin(store, &err), EVBUS_OK, "%s", err.text);
		faulty_begin(++at, ENOMEM);
		faulty.scope = FAULTY_MEMORY;
		enum evbus_code code = letters_put(store, &row, &id, &err);
		hit = faulty.failed != NULL;
		faulty_end();
		cr_assert_eq(code, hit ? EVBUS_IO : EVBUS_OK, "request %u: %s", at, err.text);
		cr_assert_eq(id, hit ? 77 : 1);
		cr_assert(!hit || err.sys_errno == ENOMEM, "%s", err.text);
		table_rollback(store);
	}
	cr_assert_gt(at, 2);
	queue();
	cr_assert_eq(queued(store, "g", 0).attempts, 1);
	store_close(store);
}

Test(letters_store, of_a_newer_evbus_are_refused)
{
	struct store *store = open_store("state.db");
	struct letter_row row = row_at("g", "0");
	struct found found = { 0 };

	put_letter(store, &row);
	store_close(store);
	sql("state.db", "UPDATE evbus_schema SET version = version + 1");
	store = open_store("state.db");
	cr_assert_eq(letters_next_queued(store, "g", "t", 3, LOG, 0, take, &found, &err), EVBUS_CONFIG);
	cr_assert_eq(table_begin(store, &err), EVBUS_CONFIG);
	store_close(store);
}
