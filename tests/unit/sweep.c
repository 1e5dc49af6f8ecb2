/* Sweeping: what is done and old goes, and nothing else. */
#include "outbox_double.h"

TestSuite(sweep, .init = give_both, .fini = close_bus, .timeout = 120);

#define OLD "2026-01-01T00:00:00.000000Z"
#define NEW "2026-03-01T00:00:00.000000Z"
#define BEFORE "2026-02-01T00:00:00.000000Z"

static struct evbus_sweep_result result;

static int64_t before(void)
{
	int64_t at_us;

	cr_assert(clock_parse_exact(BEFORE, &at_us));
	return at_us;
}

/* Of no outbox. */
static enum evbus_code sweep(int64_t inbox_before_us, int64_t letters_before_us, bool dry_run)
{
	struct evbus_sweep_options options = { .inbox_before_us = inbox_before_us,
					       .letters_before_us = letters_before_us,
					       .dry_run = dry_run };

	memset(&result, 7, sizeof result);
	return evbus_sweep(bus, NULL, 0, &options, &result, &err);
}

static enum evbus_code sweep_outboxes(const struct evbus_sweep_options *options)
{
	memset(&result, 7, sizeof result);
	return evbus_sweep(bus, both, 2, options, &result, &err);
}

static int ask(const char *text)
{
	return (int)strtol(sql("state.db", text), NULL, 10);
}

/* 2500 old rows and one new one in the inbox and among the keys; letters of each state, old and new, but for those that
 * can be retried and are old. */
static void fill(void)
{
	struct letter_row row = letter_at("0", NEW);

	for (int i = 0; i < 6; i++) {
		char offset[2] = { (char)('0' + i), 0 };
		row.offset = slice_of(offset);
		put_row(&row);
	}
	sql("state.db", "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) "
			"INSERT INTO inbox SELECT 'g', 'A', 't', 'e' || i, CASE WHEN i > 0 THEN '" OLD "' ELSE '" NEW
			"' END FROM n");
	sql("state.db", "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) "
			"INSERT INTO event_keys SELECT 't', 'A', 'k' || i, 'l', 0, i, CASE WHEN i > 0 THEN '" OLD
			"' ELSE '" NEW "' END FROM n");
	sql("state.db", "INSERT INTO key_progress VALUES ('t', 0, 'l', '2501', '')");
	sql("state.db", "UPDATE dlq SET state = 'RETRIED' WHERE id IN (3, 4); "
			"UPDATE dlq SET state = 'DISCARDED' WHERE id IN (5, 6); "
			"UPDATE dlq SET state = 'QUEUED' WHERE id = 2; "
			"UPDATE dlq SET updated_at = '" OLD "' WHERE id IN (1, 2, 3, 5); "
			"UPDATE dlq SET created_at = '" OLD "' WHERE id >= 3");
}

#define ALL                                                                                                            \
	"SELECT (SELECT COUNT(*) FROM inbox) + (SELECT COUNT(*) FROM event_keys) + (SELECT COUNT(*) FROM dlq) + "      \
	"(SELECT COUNT(*) FROM outbox_decisions)"

Test(sweep, removes_what_is_older_and_done_and_a_second_one_finds_nothing)
{
	fill();
	cr_assert_eq(sweep(before(), before(), false), EVBUS_OK, "%s", err.text);
	cr_assert(result.inbox == 2500 && result.event_keys == 2500 && result.letters == 2 && result.sent == 0);
	cr_assert_eq(ask("SELECT COUNT(*) FROM inbox WHERE event_id = 'e0'"), 1);
	cr_assert_eq(ask("SELECT COUNT(*) FROM event_keys WHERE event_key = 'k0'"), 1);
	cr_assert_eq(ask("SELECT SUM(id) FROM dlq"), 1 + 2 + 4 + 6);
	cr_assert_eq(ask("SELECT COUNT(*) FROM key_progress"), 1);
	cr_assert_eq(ask(ALL), 6);
	cr_assert_eq(sweep(before(), before(), false), EVBUS_OK, "%s", err.text);
	cr_assert(result.inbox == 0 && result.event_keys == 0 && result.letters == 0);
	cr_assert_eq(ask(ALL), 6);
}

Test(sweep, leaves_alone_what_has_no_time)
{
	fill();
	int rows = ask(ALL);
	cr_assert_eq(sweep(0, 0, false), EVBUS_OK, "%s", err.text);
	cr_assert(result.inbox == 0 && result.event_keys == 0 && result.letters == 0);
	cr_assert_eq(ask(ALL), rows);
	cr_assert_eq(sweep(0, before(), false), EVBUS_OK, "%s", err.text);
	cr_assert_eq(ask(ALL), rows - 2);
	cr_assert_eq(sweep(before(), 0, false), EVBUS_OK, "%s", err.text);
	cr_assert_eq(ask(ALL), rows - 5002);
}

Test(sweep, that_is_dry_counts_the_same_and_changes_nothing)
{
	fill();
	int rows = ask(ALL);
	cr_assert_eq(sweep(before(), before(), true), EVBUS_OK, "%s", err.text);
	cr_assert(result.inbox == 2500 && result.event_keys == 2500 && result.letters == 2);
	cr_assert_eq(ask(ALL), rows);
}

Test(sweep, makes_no_store)
{
	cr_assert_eq(sweep(before(), before(), false), EVBUS_OK, "%s", err.text);
	cr_assert_eq(sweep(before(), before(), true), EVBUS_OK, "%s", err.text);
	cr_assert(result.inbox == 0 && result.event_keys == 0 && result.letters == 0);
	cr_assert(!stored_is_there("state.db"));
}

Test(sweep, goes_up_to_a_time_exclusively)
{
	fill();
	sql("state.db", "UPDATE inbox SET processed_at = '" BEFORE "' WHERE event_id <> 'e7'");
	sql("state.db", "UPDATE event_keys SET published_at = '" BEFORE "'");
	cr_assert_eq(sweep(before(), 0, false), EVBUS_OK, "%s", err.text);
	cr_assert(result.inbox == 1 && result.event_keys == 0);
	cr_assert_eq(ask("SELECT COUNT(*) FROM inbox WHERE event_id = 'e7'"), 0);
}

/* A transaction that is larger than a thousand rows fails. */
Test(sweep, removes_a_thousand_rows_a_transaction)
{
	fill();
	stored_refuse("state.db", "DELETE", "inbox", "old.event_id = 'e1500'", "enough");
	cr_assert_eq(sweep(before(), 0, false), EVBUS_CONFLICT);
	cr_assert_eq(ask("SELECT COUNT(*) FROM inbox"), 1501);
	cr_assert_eq(result.inbox, 0x0707070707070707, "the result is not set");
	stored_allow("state.db", "inbox");
	cr_assert_eq(sweep(before(), 0, false), EVBUS_OK, "%s", err.text);
	cr_assert_eq(result.inbox, 1500);
}

/* ---- what may be retried still --------------------------------------------------------------------------------- */

static void assert_refused(const char *id, const char *state)
{
	int rows = ask(ALL);
	int64_t days = (evbus_time_now() / 1000000 - 1767225600) / 86400; /* since OLD */
	char text[500];

	for (int dry_run = 0; dry_run < 2; dry_run++) {
		cr_assert_eq(sweep(before(), before(), dry_run), EVBUS_CONFLICT, "%s", state);
		snprintf(text, sizeof text,
			 "the inbox would forget events that the dead letter '%s' of " OLD
			 " (%d days old) may run again: "
			 "retry or discard it, or keep the inbox longer than that",
			 id, (int)days);
		cr_assert_str_eq(err.text, text);
	}
	cr_assert_eq(ask(ALL), rows);
	cr_assert_eq(result.letters, 0x0707070707070707, "the result is not set");
}

Test(sweep, does_not_let_the_inbox_forget_an_event_whose_letter_can_still_be_retried)
{
	fill();
	sql("state.db", "UPDATE dlq SET created_at = '2026-01-01T00:00:00.000001Z' WHERE id = 1");
	sql("state.db", "UPDATE dlq SET created_at = '" OLD "' WHERE id = 2");
	assert_refused("2", "QUEUED");
	sql("state.db", "UPDATE dlq SET created_at = '" OLD "' WHERE id = 1");
	assert_refused("1", "DEAD");
	cr_assert_eq(sweep(0, before(), false), EVBUS_OK, "only the inbox has to know them");
	sql("state.db", "UPDATE dlq SET created_at = '" BEFORE "' WHERE id = 1");
	sql("state.db", "UPDATE dlq SET state = 'DISCARDED' WHERE id = 2");
	cr_assert_eq(sweep(before(), before(), false), EVBUS_OK, "%s", err.text);
}

Test(sweep, looks_for_the_oldest_letter_among_all_of_them)
{
	put_letters(600);
	sql("state.db", "UPDATE dlq SET created_at = '" NEW "' WHERE id <> 590");
	cr_assert_eq(sweep(before(), 0, false), EVBUS_CONFLICT);
	cr_assert(strstr(err.text, "dead letter '590' of 2026-01-02T"), "%s", err.text);
	sql("state.db", "UPDATE dlq SET created_at = 'yesterday' WHERE id = 590");
	cr_assert_eq(sweep(before(), 0, false), EVBUS_IO);
	cr_assert_str_eq(err.text, "the dead letter '590' is damaged: evbus did not write it so");
}

Test(sweep, does_not_let_the_inbox_forget_while_a_row_that_failed_can_still_be_sent)
{
	struct evbus_sweep_options options = { .sent_before_us = before(), .inbox_before_us = before() };

	add_row(&app);
	add_row(&crm)->history = SLICE("[" ATTEMPT("1", OLD) "]");
	cr_assert_eq(sweep_outboxes(&options), EVBUS_CONFLICT);
	cr_assert(strstr(err.text, "'crm:1' of " OLD), "%s", err.text);
	cr_assert(!app.swept_before_us && !crm.swept_before_us);
	cr_assert_eq(change("crm:1", EVBUS_LETTER_DISCARD), EVBUS_OK, "%s", err.text);
	cr_assert_eq(sweep_outboxes(&options), EVBUS_CONFLICT);
	cr_assert(strstr(err.text, "'app.db:1' of 2026-01-03T"), "%s", err.text);
	app.rows[0].state = EVBUS_OUTBOX_SENT;
	cr_assert_eq(sweep_outboxes(&options), EVBUS_OK, "%s", err.text);
}

/* ---- outboxes -------------------------------------------------------------------------------------------------- */

Test(sweep, removes_sent_rows_of_each_outbox)
{
	struct evbus_sweep_options options = { .sent_before_us = before() };

	cr_assert_eq(sweep_outboxes(&options), EVBUS_OK, "%s", err.text);
	cr_assert_eq(result.sent, 6);
	cr_assert(app.swept_before_us == before() && crm.swept_before_us == before() && !app.swept_dry);
	options.dry_run = true;
	cr_assert_eq(sweep_outboxes(&options), EVBUS_OK, "%s", err.text);
	cr_assert(app.swept_dry && crm.swept_dry && result.sent == 6);
	options.sent_before_us = 0;
	app.swept_before_us = 7;
	cr_assert_eq(sweep_outboxes(&options), EVBUS_OK, "%s", err.text);
	cr_assert(app.swept_before_us == 7 && result.sent == 0);
	options.sent_before_us = before();
	crm.fails = EVBUS_AGAIN;
	cr_assert_eq(sweep_outboxes(&options), EVBUS_AGAIN);
}

Test(sweep, keeps_decisions_as_long_as_the_row_is_there_to_come_back)
{
	struct evbus_sweep_options options = { .letters_before_us = before() };

	for (int i = 0; i < 600; i++)
		add_row(&app)->history = SLICE("[" ATTEMPT("1", OLD) "]");
	cr_assert_eq(change("app.db:1", EVBUS_LETTER_DISCARD), EVBUS_OK, "%s", err.text);
	sql("state.db", "WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 600) INSERT INTO "
			"outbox_decisions "
			"SELECT outbox, i, state, decided_by, decided_at FROM n, outbox_decisions");
	sql("state.db", "UPDATE outbox_decisions SET decided_at = '" OLD "' WHERE seq <> 4");
	sql("state.db",
	    "INSERT INTO outbox_decisions VALUES ('sqlite:/other.db#outbox', 1, 'DISCARDED', 'me', '" OLD "')");
	for (int i = 3; i < 600; i++)
		app.rows[i].state = EVBUS_OUTBOX_SENT;
	app.rows[0].seq = 1000;
	options.dry_run = true;
	cr_assert_eq(sweep_outboxes(&options), EVBUS_OK, "%s", err.text);
	cr_assert_eq(result.letters, 597);
	cr_assert_eq(ask("SELECT COUNT(*) FROM outbox_decisions"), 601);
	options.dry_run = false;
	cr_assert_eq(sweep_outboxes(&options), EVBUS_OK, "%s", err.text);
	cr_assert_eq(result.letters, 597);
	/* 2 and 3 are FAILED still, 4 is younger, and one is of an outbox that is not ours to ask. */
	cr_assert_eq(ask("SELECT COUNT(*) FROM outbox_decisions"), 4);
	cr_assert_eq(ask("SELECT SUM(seq) FROM outbox_decisions"), 2 + 3 + 4 + 1);
}

/* ---- the store ------------------------------------------------------------------------------------------------- */

Test(sweep, of_a_newer_evbus_is_refused)
{
	fill();
	store_close(bus->store);
	sql("state.db", "UPDATE evbus_schema SET version = version + 1");
	bus->store = open_store("sqlite:state.db");
	cr_assert_eq(sweep(before(), before(), false), EVBUS_CONFIG);
	cr_assert_eq(sweep(0, before(), true), EVBUS_CONFIG);
}

static int take_plan(void *to, int count, char **values, char **names)
{
	(void)names;
	strncat(to, values[count - 1], 200);
	strncat(to, "; ", 3);
	return 0;
}

static void assert_plan(const char *statement, const char *first, const char *second)
{
	char plan[2000] = "", text[1000];
	sqlite3 *db;

	snprintf(text, sizeof text, "EXPLAIN QUERY PLAN %s", statement);
	cr_assert_eq(sqlite3_open("state.db", &db), SQLITE_OK);
	cr_assert_eq(sqlite3_exec(db, text, take_plan, plan, NULL), SQLITE_OK, "%s", sqlite3_errmsg(db));
	cr_assert(strstr(plan, first) && strstr(plan, second) && !strstr(plan, "SCAN"), "%s: %s", statement, plan);
	sqlite3_close(db);
}

Test(sweep, finds_old_rows_by_index)
{
	OF_PLANS;
	put_letters(1);
	assert_plan(
		"DELETE FROM inbox WHERE (group_name, tenant_id, topic, event_id) IN (SELECT group_name, tenant_id, "
		"topic, event_id FROM inbox WHERE processed_at < ? LIMIT 1000)",
		"(event_id=? AND group_name=? AND tenant_id=? AND topic=?)", "inbox_age (processed_at<?)");
	assert_plan("DELETE FROM event_keys WHERE (topic, tenant_id, event_key) IN (SELECT topic, tenant_id, event_key "
		    "FROM event_keys WHERE published_at < ? LIMIT 1000)",
		    "(event_key=? AND tenant_id=? AND topic=?)", "event_keys_age (published_at<?)");
	assert_plan("DELETE FROM dlq WHERE id IN (SELECT id FROM dlq WHERE state IN ('RETRIED', 'DISCARDED') AND "
		    "updated_at < ? LIMIT 1000)",
		    "(id=?)", "dlq_age (state=? AND updated_at<?)");
}
