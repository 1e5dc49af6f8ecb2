/* An outbox with many rows: no claim goes through what is done, and none again and again through what is blocked. */
#include "outbox_helpers.h"

TestSuite(outbox_scale, .init = setup, .fini = teardown, .timeout = 120);

static int64_t cpu_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int take_plan(void *to, int count, char **values, char **names)
{
	size_t len = strlen(to);
	(void)count;
	(void)names;

	snprintf((char *)to + len, 4000 - len, "%s; ", values[3]);
	return 0;
}

static const char *plan_of(enum outbox_sql statement)
{
	static char plan[4000];
	char explain[4000];
	sqlite3 *db = open_app();

	plan[0] = '\0';
	snprintf(explain, sizeof explain, "EXPLAIN QUERY PLAN %s", outbox->sql[statement]);
	cr_assert_eq(sqlite3_exec(db, explain, take_plan, plan, NULL), SQLITE_OK, "%s", explain);
	sqlite3_close(db);
	return plan;
}

static void check_plans(void)
{
	cr_assert_str_eq(plan_of(OUTBOX_SQL_SCAN), "SEARCH o USING INDEX outbox_evbus_open (seq>? AND seq<?); ");
	cr_assert(strstr(plan_of(OUTBOX_SQL_LIST_STATE + EVBUS_OUTBOX_FAILED), "outbox_evbus_failed"));
	cr_assert(strstr(plan_of(OUTBOX_SQL_LIST_STATE + EVBUS_OUTBOX_PENDING), "outbox_evbus_open"));
	cr_assert(strstr(plan_of(OUTBOX_SQL_LIST_OPEN), "outbox_evbus_open"));
	cr_assert(strstr(plan_of(OUTBOX_SQL_COUNT_PENDING), "COVERING INDEX outbox_evbus_open"));
	cr_assert(strstr(plan_of(OUTBOX_SQL_COUNT), "COVERING INDEX"));
	cr_assert_str_eq(plan_of(OUTBOX_SQL_TAKE), "SEARCH o USING INDEX outbox_evbus_open (seq>? AND seq<?); ");
	cr_assert(strstr(plan_of(OUTBOX_SQL_CLAIM), "PRIMARY KEY (rowid>? AND rowid<?)"));
	cr_assert(strstr(plan_of(OUTBOX_SQL_SENT), "PRIMARY KEY (rowid>? AND rowid<?)"));
}

Test(outbox_scale, each_statement_finds_its_rows_by_an_index)
{
	init(outbox);
	cr_assert_eq(outbox_look(outbox, &err), EVBUS_OK);
	check_plans();
	/* The same when the application has analyzed its database with most rows done, or with none. */
	fill(5000, 50);
	sql("ANALYZE");
	check_plans();
	sql("UPDATE outbox SET state = 'SENT' WHERE seq < 4900; ANALYZE");
	check_plans();
}

static int find_table(void *to, int count, char **values, char **names)
{
	(void)count;
	(void)names;
	*(bool *)to = *(bool *)to || !strcmp(values[1], "OpenEphemeral");
	return 0;
}

/* As SQLite does for a constraint with a longer list: a row took four times as long. */
Test(outbox_scale, no_table_is_made_for_each_row_that_changes)
{
	char explain[4000];

	init(outbox);
	sqlite3 *db = open_app();
	for (enum outbox_sql sql = OUTBOX_SQL_CLAIM; sql < OUTBOX_SQLS; sql++) {
		bool found = false;
		snprintf(explain, sizeof explain, "EXPLAIN %s", outbox->sql[sql]);
		cr_assert_eq(sqlite3_exec(db, explain, find_table, &found, NULL), SQLITE_OK, "%s", explain);
		cr_assert_not(found, "%s", outbox->sql[sql]);
	}
	sqlite3_close(db);
}

/* Drains all that may go; returns the microseconds of the processor that it took, whatever else the machine does. */
static int64_t drain_all(uint64_t wanted)
{
	int64_t start = cpu_us();
	uint64_t sent = 0;

	do {
		drain();
		sent += result.sent;
	} while (result.claimed);
	cr_assert_eq(sent, wanted, "%d", (int)sent);
	return cpu_us() - start;
}

Test(outbox_scale, rows_that_are_done_cost_a_claim_nothing)
{
	init(outbox);
	fill(200000, 0);
	sql("UPDATE outbox SET state = 'SENT', sent_at = '2026-01-01T00:00:00.000000Z'");
	insert("x", NULL, "{}");
	drain();
	cr_assert_eq(result.sent, 1);
	int64_t start = cpu_us();
	for (int i = 0; i < 10; i++)
		drain();
	cr_assert_lt(cpu_us() - start, 100000);
}

/* In twice the rows it takes twice as long; were it quadratic, four times. */
Test(outbox_scale, a_hot_key_takes_no_longer_by_the_row_than_any_other)
{
	int64_t spread, hot;

	options.receipt = NULL;
	init(outbox);
	fill(20000, 5000);
	spread = drain_all(20000);
	sql("UPDATE outbox SET state = 'PENDING', id = 'hot' || id, partition_key = 'hot'");
	hot = drain_all(20000);
	cr_assert_lt(hot, 3 * spread, "%d us against %d us", (int)hot, (int)spread);
}

Test(outbox_scale, keys_that_wait_do_not_slow_down_the_others)
{
	int64_t alone, behind;

	options.receipt = NULL;
	options.retry = (struct evbus_retry){ 5, 3600000, 2.0, 3600000 };
	init(outbox);
	fill(20000, 0);
	alone = drain_all(20000);
	sql("DELETE FROM outbox");
	fill(40000, 10000);
	sql("UPDATE outbox SET attempts = 1, next_attempt_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+3000 "
	    "seconds') "
	    "WHERE seq <= 10000 + (SELECT MIN(seq) FROM outbox) - 1;"
	    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
	    "INSERT INTO outbox (id, topic, event_type, payload) SELECT 'free' || i, 'orders', 't', '{}' FROM n");
	behind = drain_all(20000);
	cr_assert_lt(behind, 3 * alone, "%d us against %d us", (int)behind, (int)alone);
	cr_assert_gt(result.next_due_ms, 1000000);
}
