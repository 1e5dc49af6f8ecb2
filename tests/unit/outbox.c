/* An outbox: its table, rows that are added, lists and counts. */
#include "outbox_helpers.h"

TestSuite(outbox, .init = setup, .fini = teardown, .timeout = 60);

/* ---- making it ------------------------------------------------------------------------------------------------- */

Test(outbox, init_makes_database_table_and_indices_and_says_so_once)
{
	bool made = false, wal = true;

	cr_assert_eq(evbus_outbox_init(outbox, &made, &wal, &err), EVBUS_OK, "%s", err.text);
	cr_assert(made && !wal);
	cr_assert_eq(evbus_outbox_init(outbox, &made, &wal, &err), EVBUS_OK, "%s", err.text);
	cr_assert(!made);
	cr_assert_eq(count_of("SELECT COUNT(*) FROM sqlite_master WHERE name LIKE 'outbox_evbus_%'"), 2);
	sql("DROP INDEX outbox_evbus_failed");
	cr_assert_eq(evbus_outbox_init(outbox, &made, &wal, &err), EVBUS_OK, "%s", err.text);
	cr_assert(made);
}

Test(outbox, an_insert_of_four_columns_is_enough)
{
	init(outbox);
	sql("INSERT INTO outbox (id, topic, event_type, payload) VALUES ('1', 'orders', 't', '{}')");
	cr_assert_str_eq(sql("SELECT seq, state, attempts, next_attempt_at, lease_owner, sent_at FROM outbox"),
			 "1|PENDING|0|-|-|-");
	cr_assert_eq(
		count_of("SELECT created_at GLOB '20[0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]."
			 "[0-9][0-9][0-9][0-9][0-9][0-9]Z' FROM outbox"),
		1);
}

Test(outbox, the_table_takes_no_state_that_there_is_not)
{
	sqlite3 *db;

	init(outbox);
	insert("1", NULL, "{}");
	db = open_app();
	cr_assert_eq(sqlite3_exec(db, "UPDATE outbox SET state = 'GONE'", NULL, NULL, NULL), SQLITE_CONSTRAINT);
	sqlite3_close(db);
}

Test(outbox, seq_is_never_given_out_twice)
{
	init(outbox);
	insert("1", NULL, "{}");
	sql("DELETE FROM outbox");
	insert("2", NULL, "{}");
	cr_assert_eq(count_of("SELECT seq FROM outbox"), 2);
}

Test(outbox, without_a_database_or_a_table_it_says_what_to_run)
{
	int64_t seq;

	cr_assert_eq(evbus_outbox_last_seq(outbox, &seq, &err), EVBUS_NONE);
	cr_assert(strstr(err.text, "'app.db'") && strstr(err.text, "outbox-init"), "%s", err.text);
	cr_assert_eq(access("app.db", F_OK), -1);
	sql("CREATE TABLE own (x)");
	cr_assert_eq(evbus_outbox_last_seq(outbox, &seq, &err), EVBUS_NONE);
	cr_assert_eq(drain_by(outbox), EVBUS_NONE);
	cr_assert_eq(evbus_outbox_begin(outbox, &err), EVBUS_NONE);
	cr_assert_str_eq(sql("SELECT name FROM sqlite_master"), "own");
}

Test(outbox, init_names_the_columns_that_a_table_lacks)
{
	bool made, wal;

	sql("CREATE TABLE outbox (id TEXT, body TEXT, status TEXT, topic TEXT)");
	cr_assert_eq(evbus_outbox_init(outbox, &made, &wal, &err), EVBUS_CONFLICT);
	cr_assert(strstr(err.text, "seq, payload, state") && strstr(err.text, "--map"), "%s", err.text);
	cr_assert_str_eq(sql("SELECT COUNT(*) FROM sqlite_master"), "1");
}

Test(outbox, init_makes_a_table_of_other_names)
{
	struct evbus_outbox *mapped =
		open_with(APP, "table=events,payload=body,topic='crm.{event_type}',state.SENT=COMPLETED", false);

	init(mapped);
	cr_assert_str_eq(
		evbus_outbox_insert_sql(mapped),
		"INSERT INTO \"events\" (\"id\", \"event_type\", \"body\") VALUES (:id, :event_type, :payload)");
	sql("INSERT INTO events (id, event_type, body) VALUES ('1', 'made', '{}')");
	cr_assert_eq(drain_by(mapped), EVBUS_OK, "%s", err.text);
	cr_assert_str_eq(receipts, "crm.made/0 ");
	cr_assert_str_eq(sql("SELECT state FROM events"), "COMPLETED");
	evbus_outbox_close(mapped);
}

Test(outbox, the_statement_for_applications_runs_as_it_is)
{
	sqlite3 *db;
	sqlite3_stmt *statement;

	cr_assert_str_eq(evbus_outbox_insert_sql(outbox), "INSERT INTO \"outbox\" (\"id\", \"topic\", \"event_type\", "
							  "\"payload\") VALUES (:id, :topic, :event_type, :payload)");
	init(outbox);
	db = open_app();
	cr_assert_eq(sqlite3_prepare_v2(db, evbus_outbox_insert_sql(outbox), -1, &statement, NULL), SQLITE_OK);
	cr_assert_eq(sqlite3_bind_parameter_count(statement), 4);
	for (int i = 1; i <= 4; i++)
		sqlite3_bind_text(statement, i, "x", 1, SQLITE_STATIC);
	cr_assert_eq(sqlite3_step(statement), SQLITE_DONE);
	sqlite3_finalize(statement);
	sqlite3_close(db);
}

Test(outbox, is_named_after_its_file_or_as_it_is_told)
{
	const struct evbus_outbox_options named = { .name = "crm" };
	struct evbus_outbox *other = NULL;

	cr_assert_str_eq(evbus_outbox_name(outbox), "app.db");
	cr_assert_eq(evbus_outbox_open(bus, "sqlite:a/b/c.db", &named, &other, &err), EVBUS_OK);
	cr_assert_str_eq(evbus_outbox_name(other), "crm");
	evbus_outbox_close(other);
	other = open_with("sqlite:a/b/c.db", NULL, false);
	cr_assert_str_eq(evbus_outbox_name(other), "c.db");
	evbus_outbox_close(other);
	other = open_with(NULL, NULL, false);
	cr_assert_str_eq(evbus_outbox_name(other), "outbox");
	evbus_outbox_close(other);
}

Test(outbox, has_one_place_wherever_it_is_opened_from)
{
	char wanted[200];
	const char *place;
	struct evbus_outbox *other;

	init(outbox);
	snprintf(wanted, sizeof wanted, "sqlite:%s/app.db#outbox", scratch);
	cr_assert_eq(outbox_place(outbox, &place, &err), EVBUS_OK);
	cr_assert_str_eq(place, wanted);
	cr_assert(!symlink("app.db", "link.db"));
	other = open_with("sqlite:./link.db", NULL, false);
	cr_assert_eq(outbox_place(other, &place, &err), EVBUS_OK);
	cr_assert_str_eq(place, wanted);
	evbus_outbox_close(other);
	other = open_with("app.db", "table=events", false);
	cr_assert_eq(outbox_place(other, &place, &err), EVBUS_OK);
	cr_assert(strstr(place, "/app.db#events"));
	evbus_outbox_close(other);
}

/* ---- adding ---------------------------------------------------------------------------------------------------- */

static enum evbus_code add(const char *id, const char *payload)
{
	const struct evbus_outbox_row row = {
		.id = text(id), .topic = IS("orders"), .event_type = IS("t"), .payload = text(payload)
	};

	return evbus_outbox_add(outbox, &row, &err);
}

Test(outbox, a_row_is_added_with_what_is_set)
{
	const struct evbus_outbox_row row = { .id = IS("1"),
					      .tenant_id = IS("T"),
					      .topic = IS("orders"),
					      .event_type = IS("made"),
					      .event_key = IS("K"),
					      .partition_key = IS("P"),
					      .payload = IS("{\"a\":1.10}") };

	init(outbox);
	cr_assert_eq(evbus_outbox_add(outbox, &row, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(add("2", "{}"), EVBUS_OK);
	cr_assert_str_eq(
		sql("SELECT id, tenant_id, topic, event_type, event_key, partition_key, payload, state FROM outbox"),
		"1|T|orders|made|K|P|{\"a\":1.10}|PENDING 2|-|orders|t|-|-|{}|PENDING");
}

Test(outbox, id_and_type_are_taken_from_the_payload_where_they_are_not_given)
{
	const struct evbus_outbox_row row = { .topic = IS("orders"),
					      .payload = IS("{\"event_id\":\"a\\u0062\",\"type\":\"made\"}") };

	init(outbox);
	cr_assert_eq(evbus_outbox_add(outbox, &row, &err), EVBUS_OK, "%s", err.text);
	cr_assert_str_eq(sql("SELECT id, event_type FROM outbox"), "ab|made");
	cr_assert_eq(add(NULL, "{\"x\":1}"), EVBUS_DATA);
	cr_assert(strstr(err.text, "no id"), "%s", err.text);
}

Test(outbox, what_is_no_event_is_not_added)
{
	init(outbox);
	cr_assert_eq(add("1", "{\"a\":}"), EVBUS_DATA);
	cr_assert_eq(err.column, 6);
	cr_assert_eq(add("1", "[]"), EVBUS_DATA);
	cr_assert_eq(add("1", ""), EVBUS_DATA);
	cr_assert_eq(add("1", "{\n}"), EVBUS_DATA);
	cr_assert_eq(err.column, 2);
	cr_assert_eq(add("\xff", "{}"), EVBUS_DATA);
	cr_assert_str_eq(sql("SELECT COUNT(*) FROM outbox"), "0");
}

Test(outbox, an_id_that_is_there_is_named)
{
	init(outbox);
	cr_assert_eq(add("it's", "{}"), EVBUS_OK);
	cr_assert_eq(add("it's", "{}"), EVBUS_CONFLICT);
	cr_assert_str_eq(err.text, "the id 'it's' is in the outbox 'app.db' already");
}

Test(outbox, rows_between_begin_and_end_are_there_together_or_not_at_all)
{
	init(outbox);
	cr_assert_eq(evbus_outbox_begin(outbox, &err), EVBUS_OK);
	cr_assert_eq(add("1", "{}"), EVBUS_OK);
	cr_assert_eq(add("2", "{}"), EVBUS_OK);
	cr_assert_eq(evbus_outbox_end(outbox, false, &err), EVBUS_OK);
	cr_assert_str_eq(sql("SELECT COUNT(*) FROM outbox"), "0");
	cr_assert_eq(evbus_outbox_begin(outbox, &err), EVBUS_OK);
	cr_assert_eq(add("1", "{}"), EVBUS_OK);
	cr_assert_eq(add("1", "{}"), EVBUS_CONFLICT);
	cr_assert_eq(add("3", "{}"), EVBUS_OK);
	cr_assert_eq(evbus_outbox_end(outbox, true, &err), EVBUS_OK);
	cr_assert_str_eq(sql("SELECT id FROM outbox"), "1 3");
	cr_assert_eq(evbus_outbox_end(outbox, true, &err), EVBUS_USAGE);
}

Test(outbox, while_rows_are_added_nothing_else_is_done)
{
	init(outbox);
	cr_assert_eq(evbus_outbox_begin(outbox, &err), EVBUS_OK);
	cr_assert_eq(evbus_outbox_begin(outbox, &err), EVBUS_BUG);
	cr_assert_eq(drain_by(outbox), EVBUS_BUG);
	cr_assert_eq(evbus_outbox_end(outbox, true, &err), EVBUS_OK);
	cr_assert_eq(drain_by(outbox), EVBUS_OK);
}

Test(outbox, without_a_url_the_table_is_in_the_store_and_made_by_the_first_row)
{
	struct evbus_outbox *own = open_with(NULL, NULL, false);
	const struct evbus_outbox_row row = {
		.id = IS("1"), .topic = IS("orders"), .event_type = IS("t"), .payload = IS("{}")
	};

	cr_assert_eq(drain_by(own), EVBUS_NONE);
	cr_assert_eq(evbus_outbox_begin(own, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(evbus_outbox_add(own, &row, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(evbus_outbox_end(own, true, &err), EVBUS_OK);
	cr_assert_str_eq(sql_in("bus/.evbus/state.db", "SELECT id FROM outbox"), "1");
	cr_assert_str_eq(sql_in("bus/.evbus/state.db", "SELECT COUNT(*) FROM dlq"), "0");
	cr_assert_eq(drain_by(own), EVBUS_OK, "%s", err.text);
	cr_assert_str_eq(receipts, "orders/0 ");
	evbus_outbox_close(own);
}

Test(outbox, where_rows_make_their_topics_another_one_is_refused)
{
	struct evbus_outbox *mapped = open_with(APP, "topic=crm.{type}", false);
	struct evbus_outbox_row row = {
		.id = IS("1"), .topic = IS("crm.made"), .event_type = IS("made"), .payload = IS("{}")
	};

	init(mapped);
	cr_assert_eq(evbus_outbox_add(mapped, &row, &err), EVBUS_OK, "%s", err.text);
	row.id = text("2");
	row.topic = text("crm.paid");
	cr_assert_eq(evbus_outbox_add(mapped, &row, &err), EVBUS_USAGE);
	cr_assert(strstr(err.text, "'crm.made'"), "%s", err.text);
	row.topic = text(NULL);
	cr_assert_eq(evbus_outbox_add(mapped, &row, &err), EVBUS_OK, "%s", err.text);
	cr_assert_str_eq(sql("SELECT id FROM outbox"), "1 2");
	evbus_outbox_close(mapped);
}

Test(outbox, no_value_becomes_a_part_of_a_statement)
{
	const char evil[] = "'); DROP TABLE outbox; --";
	const struct evbus_outbox_row row = { .id = text(evil),
					      .tenant_id = text(evil),
					      .topic = IS("orders"),
					      .event_type = text(evil),
					      .event_key = text(evil),
					      .partition_key = text(evil),
					      .payload = IS("{\"a\":\"'); DROP TABLE outbox; --\"}") };
	struct evbus_outbox_counts counts;

	init(outbox);
	cr_assert_eq(evbus_outbox_add(outbox, &row, &err), EVBUS_OK, "%s", err.text);
	drain();
	cr_assert_eq(result.sent, 1);
	cr_assert_eq(evbus_outbox_count(outbox, &counts, &err), EVBUS_OK);
	cr_assert_eq(counts.rows[EVBUS_OUTBOX_SENT], 1);
}

/* ---- lists and counts ------------------------------------------------------------------------------------------ */

static char listed[65536];

static enum evbus_code take_row(void *context, const struct evbus_outbox_row *row, struct evbus_err *e)
{
	size_t len = strlen(listed);
	(void)context;
	(void)e;

	snprintf(listed + len, sizeof listed - len, "%s%.*s", len ? " " : "", (int)row->id.len, row->id.data);
	if (row->behind)
		snprintf(listed + strlen(listed), 20, "+%d", (int)row->behind);
	return EVBUS_OK;
}

static const char *list(struct evbus_outbox_filter filter)
{
	listed[0] = '\0';
	cr_assert_eq(evbus_outbox_list(outbox, &filter, take_row, NULL, &err), EVBUS_OK, "%s", err.text);
	return listed;
}

/* e1 SENT, e2 FAILED, e3 (k) waits, e4 (k), e5 (k), e6 (l) leased, e7 (l), e8. */
static void fill_all_states(void)
{
	init(outbox);
	fill(8, 0);
	sql("UPDATE outbox SET state = 'SENT' WHERE id = 'e1'; UPDATE outbox SET state = 'FAILED' WHERE id = 'e2';"
	    "UPDATE outbox SET partition_key = 'k' WHERE id IN ('e3', 'e4', 'e5');"
	    "UPDATE outbox SET partition_key = 'l', tenant_id = 'T' WHERE id IN ('e6', 'e7');"
	    "UPDATE outbox SET attempts = 1, next_attempt_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+20 seconds') "
	    "WHERE id = 'e3';"
	    "UPDATE outbox SET state = 'PROCESSING', lease_owner = 'h:1:x:30000', lease_expires_at = "
	    "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+20 seconds') WHERE id = 'e6'");
}

Test(outbox, lists_by_state_topic_tenant_and_number)
{
	fill_all_states();
	cr_assert_str_eq(list((struct evbus_outbox_filter){ .state = -1 }), "e1 e2 e3+2 e4 e5 e6+1 e7 e8");
	cr_assert_str_eq(list((struct evbus_outbox_filter){ .state = EVBUS_OUTBOX_PENDING }), "e3+2 e4 e5 e7 e8");
	cr_assert_str_eq(list((struct evbus_outbox_filter){ .state = EVBUS_OUTBOX_PROCESSING }), "e6+1");
	cr_assert_str_eq(list((struct evbus_outbox_filter){ .state = EVBUS_OUTBOX_SENT }), "e1");
	cr_assert_str_eq(list((struct evbus_outbox_filter){ .state = EVBUS_OUTBOX_FAILED }), "e2");
	cr_assert_str_eq(list((struct evbus_outbox_filter){ .state = -1, .blocked = true }), "e3+2 e6+1");
	cr_assert_str_eq(list((struct evbus_outbox_filter){ .state = EVBUS_OUTBOX_PENDING, .blocked = true }), "e3+2");
	cr_assert_str_eq(list((struct evbus_outbox_filter){ .state = -1, .tenant = "T" }), "e6+1 e7");
	cr_assert_str_eq(list((struct evbus_outbox_filter){ .state = -1, .topic = "orders.>" }), "");
	cr_assert_str_eq(list((struct evbus_outbox_filter){ .state = -1, .topic = "*", .max = 2 }), "e1 e2");
	cr_assert_str_eq(list((struct evbus_outbox_filter){ .state = -1, .seq = 4 }), "e4");
	cr_assert_str_eq(list((struct evbus_outbox_filter){ .state = -1, .seq = 40 }), "");
}

Test(outbox, counts_by_state_what_waits_and_what_could_be_claimed)
{
	struct evbus_outbox_counts counts;

	fill_all_states();
	sql("UPDATE outbox SET created_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-90 seconds') WHERE id = 'e8';"
	    "UPDATE outbox SET created_at = '2020-01-01T00:00:00.000000Z' WHERE id <> 'e8'");
	cr_assert_eq(evbus_outbox_count(outbox, &counts, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(counts.rows[EVBUS_OUTBOX_PENDING], 5);
	cr_assert_eq(counts.rows[EVBUS_OUTBOX_PROCESSING], 1);
	cr_assert_eq(counts.rows[EVBUS_OUTBOX_SENT], 1);
	cr_assert_eq(counts.rows[EVBUS_OUTBOX_FAILED], 1);
	cr_assert_eq(counts.waiting, 1);
	cr_assert_eq(counts.claimable, 1);
	cr_assert(counts.oldest_due_s >= 90 && counts.oldest_due_s < 100, "%d", (int)counts.oldest_due_s);
	sql("DELETE FROM outbox WHERE id = 'e8'");
	cr_assert_eq(evbus_outbox_count(outbox, &counts, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(counts.claimable, 0);
	cr_assert_eq(counts.oldest_due_s, -1);
}

Test(outbox, all_rows_of_a_key_could_be_claimed_together)
{
	struct evbus_outbox_counts counts;

	init(outbox);
	fill(10, 1);
	cr_assert_eq(evbus_outbox_count(outbox, &counts, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(counts.claimable, 10);
}

struct busy {
	int rows, writes;
};

static enum evbus_code write_meanwhile(void *context, const struct evbus_outbox_row *row, struct evbus_err *e)
{
	struct busy *busy = context;
	char id[40];
	(void)e;

	cr_assert_eq(row->seq, busy->rows + 1);
	if (busy->rows++ % 100 == 0 && busy->rows < 1000) {
		snprintf(id, sizeof id, "n%d", busy->rows);
		insert(id, NULL, "{}");
		busy->writes++;
	}
	return EVBUS_OK;
}

Test(outbox, nobody_is_kept_waiting_while_rows_are_given_out)
{
	const struct evbus_outbox_filter all = { .state = -1 };
	struct busy busy = { 0 };

	init(outbox);
	fill(950, 0);
	cr_assert_eq(evbus_outbox_list(outbox, &all, write_meanwhile, &busy, &err), EVBUS_OK, "%s", err.text);
	cr_assert(busy.rows >= 950 && busy.writes >= 9);
}

Test(outbox, large_rows_are_given_out_a_few_at_a_time)
{
	init(outbox);
	sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12) INSERT INTO outbox (id, "
	    "topic, "
	    "event_type, payload) SELECT i, 'orders', 't', '{\"a\":\"' || printf('%.*c', 1000000, 'x') || '\"}' FROM "
	    "n");
	cr_assert_str_eq(list((struct evbus_outbox_filter){ .state = -1 }), "1 2 3 4 5 6 7 8 9 10 11 12");
}

Test(outbox, last_seq_is_the_highest_that_is_there)
{
	int64_t seq = -1;

	init(outbox);
	cr_assert_eq(evbus_outbox_last_seq(outbox, &seq, &err), EVBUS_OK);
	cr_assert_eq(seq, INT64_MIN);
	fill(7, 0);
	cr_assert_eq(evbus_outbox_last_seq(outbox, &seq, &err), EVBUS_OK);
	cr_assert_eq(seq, 7);
}

Test(outbox, what_the_callback_fails_of_comes_up)
{
	const struct evbus_outbox_filter bad = { .state = EVBUS_OUTBOX_STATES },
					 wrong = { .state = -1, .topic = "a..b" };

	init(outbox);
	cr_assert_eq(evbus_outbox_list(outbox, &bad, take_row, NULL, &err), EVBUS_USAGE);
	cr_assert_eq(evbus_outbox_list(outbox, &wrong, take_row, NULL, &err), EVBUS_USAGE);
}

Test(outbox, in_a_forked_child_every_call_fails)
{
	int64_t seq;
	int status;

	init(outbox);
	fill(1, 0);
	pid_t child = fork();
	if (!child)
		_exit(evbus_outbox_last_seq(outbox, &seq, &err) == EVBUS_BUG && drain_by(outbox) == EVBUS_BUG ? 0 : 1);
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert_eq(status, 0);
	drain();
	cr_assert_eq(result.sent, 1);
}
