/* Dead letters in the tables of applications, as they really are. */
#include "letters_helpers.h"

#include "base/os.h"
#include "outbox_table.h"

TestSuite(letters_tables, .init = open_bus, .fini = close_bus, .timeout = 120);

#define HISTORY "[" ATTEMPT("1", "2026-01-03T00:00:00.000000Z") "," ATTEMPT("2", "2026-01-04T00:00:00.000000Z") "]"

static struct evbus_outbox *outbox;

/* The application's database is SQLite's, wherever the store is. */
static void sql_of_app(const char *text)
{
	stored_sql_in_file("app.db", text);
}

static struct evbus_outbox *open_outbox(const char *url, const char *path, const char *map)
{
	struct store_options options = { .module_dir = modules, .guest = url };
	struct evbus_outbox_options named = { .map = map };
	struct evbus_outbox *opened;

	cr_assert_eq(evbus_outbox_open(bus, url, &named, &opened, &err), EVBUS_OK, "%s", err.text);
	/* The module is looked for beside the library, and there is none here. */
	store_close(opened->store);
	cr_assert_eq(store_open(AT_FDCWD, url ? path : stored_url(path), &options, &opened->store, &err), EVBUS_OK,
		     "%s", err.text);
	given = &outbox;
	given_count = 1;
	return opened;
}

/* A table as outbox-init makes it, with rows that are FAILED. */
static void make_table(int rows)
{
	char text[1000];
	bool is_new, wal;

	cr_assert_eq(evbus_outbox_init(outbox, &is_new, &wal, &err), EVBUS_OK, "%s", err.text);
	snprintf(text, sizeof text,
		 "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
		 "INSERT INTO outbox (id, topic, event_type, payload, state, attempts, last_error, history) "
		 "SELECT 'e' || i, 'orders', 'order.made', '{}', 'FAILED', 2, 'slow', '" HISTORY "' FROM n",
		 rows);
	if (outbox->url)
		sql_of_app(text);
	else
		sql("state.db", text);
}

static struct evbus_outbox_row row_seen;

static enum evbus_code take_row(void *context, const struct evbus_outbox_row *row, struct evbus_err *e)
{
	(void)context;
	(void)e;
	row_seen = *row;
	row_seen.receipt.data = row->receipt.data ? "" : NULL;
	return EVBUS_OK;
}

static const struct evbus_outbox_row *row(int64_t seq)
{
	bool there;

	cr_assert_eq(outbox_row(outbox, seq, take_row, NULL, &there, &err), EVBUS_OK, "%s", err.text);
	cr_assert(there);
	return &row_seen;
}

static void goes_through_all_changes(void)
{
	put_letters(2);
	make_table(4);
	char name[40];
	snprintf(name, sizeof name, "%s", evbus_outbox_name(outbox));
	cr_assert_str_eq(list(&any), outbox->url ? "1 2 app.db:1 app.db:2 app.db:3 app.db:4 "
						 : "1 2 outbox:1 outbox:2 outbox:3 outbox:4 ");
	char ids[4][64];
	for (int i = 0; i < 4; i++)
		snprintf(ids[i], sizeof ids[i], "%s:%d", name, i + 1);
	const struct evbus_letter *l = letter(ids[0]);
	IS(l->source, name);
	IS(l->event_id, "e1");
	IS(l->created_at, "2026-01-03T00:00:00.000000Z");
	cr_assert(l->reason == EVBUS_REASON_TIMEOUT && l->attempts == 2 && !l->group.data);
	cr_assert_eq(change(ids[0], EVBUS_LETTER_QUEUE), EVBUS_OK, "%s", err.text);
	cr_assert(row(1)->state == EVBUS_OUTBOX_PENDING && row(1)->attempts == 0 &&
		  row(1)->history.len == strlen(HISTORY));
	cr_assert_eq(change(ids[1], EVBUS_LETTER_SUCCEED), EVBUS_OK, "%s", err.text);
	cr_assert(row(2)->state == EVBUS_OUTBOX_SENT && row(2)->receipt.data);
	cr_assert_eq(change(ids[2], EVBUS_LETTER_FAIL), EVBUS_OK, "%s", err.text);
	l = letter(ids[2]);
	cr_assert(l->state == EVBUS_LETTER_DEAD && l->attempts == 3 && l->reason == EVBUS_REASON_SIGNAL);
	IS(l->error, "said so");
	cr_assert_eq(change(ids[3], EVBUS_LETTER_DISCARD), EVBUS_OK, "%s", err.text);
	l = letter(ids[3]);
	cr_assert_eq(l->state, EVBUS_LETTER_DISCARDED);
	IS(l->resolved_by, "me@here");
	cr_assert_eq(change(ids[3], EVBUS_LETTER_QUEUE), EVBUS_CONFLICT);
	cr_assert_eq(change(ids[3], EVBUS_LETTER_UNDO), EVBUS_OK, "%s", err.text);
	cr_assert_eq(letter(ids[3])->state, EVBUS_LETTER_DEAD);
	cr_assert_eq(change(ids[0], EVBUS_LETTER_QUEUE), EVBUS_CONFLICT);
	evbus_outbox_close(outbox);
}

Test(letters_tables, of_an_application_go_through_all_changes)
{
	outbox = open_outbox("sqlite:app.db", "sqlite:app.db", NULL);
	goes_through_all_changes();
}

Test(letters_tables, in_the_store_itself_go_through_all_changes)
{
	outbox = open_outbox(NULL, "sqlite:state.db", NULL);
	goes_through_all_changes();
}

Test(letters_tables, are_decided_about_wherever_the_outbox_is_opened_from)
{
	outbox = open_outbox("sqlite:app.db", "sqlite:app.db", NULL);
	make_table(1);
	cr_assert_eq(change("app.db:1", EVBUS_LETTER_DISCARD), EVBUS_OK, "%s", err.text);
	evbus_outbox_close(outbox);
	cr_assert(!mkdir("elsewhere", 0700) && !chdir("elsewhere"));
	outbox = open_outbox("sqlite:../app.db", "sqlite:../app.db", NULL);
	cr_assert_eq(letter("app.db:1")->state, EVBUS_LETTER_DISCARDED);
	evbus_outbox_close(outbox);
}

/* A table of an application that has no place for attempts, errors and histories: the store keeps them. */
static void make_bare_table(int rows)
{
	char text[400];

	snprintf(text, sizeof text,
		 "CREATE TABLE events (id INTEGER PRIMARY KEY, body TEXT, topic TEXT, kind TEXT, status TEXT); "
		 "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
		 "INSERT INTO events SELECT i, '{}', 'orders', 'order.made', 'BROKEN' FROM n",
		 rows);
	sql_of_app(text);
	outbox = open_outbox("sqlite:app.db", "sqlite:app.db",
			     "table=events,seq=id,payload=body,event_type=kind,state=status,state.FAILED=BROKEN,"
			     "state.SENT=DONE,state.PENDING=NEW");
}

static enum evbus_code fail_each(void *context, const struct evbus_letter *l, struct evbus_err *e)
{
	int *count = context;
	char id[EVBUS_LETTER_ID_MAX_BYTES];

	++*count;
	memcpy(id, l->id, sizeof id);
	TRY(evbus_letter_change(bus, given, given_count, id, EVBUS_LETTER_FAIL, EVBUS_REASON_SIGNAL, SLICE("no luck"),
				"me", e));
	/* What was given out is as it was, though the row has changed. */
	cr_assert(l->attempts == 0 || (l->error.len == 7 && !memcmp(l->error.data, "no luck", 7)));
	return EVBUS_OK;
}

Test(letters_tables, may_be_changed_while_they_are_given_out)
{
	int count = 0;

	make_bare_table(30);
	for (int64_t round = 0; round < 2; round++) {
		cr_assert_eq(evbus_letter_list(bus, given, given_count, &any, fail_each, &count, &err), EVBUS_OK, "%s",
			     err.text);
		const struct evbus_letter *l = letter("app.db:30");
		cr_assert(l->attempts == round + 1 && l->reason == EVBUS_REASON_SIGNAL);
	}
	cr_assert_eq(count, 60);
	cr_assert_eq(change("app.db:1", EVBUS_LETTER_QUEUE), EVBUS_OK, "%s", err.text);
	cr_assert_eq(row(1)->state, EVBUS_OUTBOX_PENDING);
	evbus_outbox_close(outbox);
}

static void *(*real_realloc)(void *block, size_t size);
static int blocks;

static void *count_blocks(void *block, size_t size)
{
	blocks++;
	return real_realloc(block, size);
}

Test(letters_tables, are_looked_up_by_id_without_reading_those_behind_them)
{
	const char *id = "app.db:1";
	struct evbus_letter_filter filter = any;

	outbox = open_outbox("sqlite:app.db", "sqlite:app.db", NULL);
	make_table(150);
	filter.ids = &id;
	filter.id_count = 1;
	cr_assert_str_eq(list(&filter), "app.db:1 ");
	real_realloc = os.realloc;
	os.realloc = count_blocks;
	cr_assert_str_eq(list(&filter), "app.db:1 ");
	/* Each row that is read has a block of its own. */
	cr_assert(blocks > 0 && blocks < 50, "%d", blocks);
	os.realloc = real_realloc;
	evbus_outbox_close(outbox);
}

Test(letters_tables, of_a_database_that_is_not_there_are_a_failure)
{
	outbox = open_outbox("sqlite:nothing.db", "sqlite:nothing.db", NULL);
	cr_assert_eq(list_code(&any), EVBUS_NONE);
	evbus_outbox_close(outbox);
}

/* ---- decisions that cannot be read or taken back ----------------------------------------------------------------- */

Test(letters_tables, whose_decision_is_damaged_are_neither_dead_nor_discarded)
{
	OF_TYPES;
	static const char *const changes[] = { "decided_by = x'37'", "decided_at = x'00'" };
	char text[100];

	outbox = open_outbox("sqlite:app.db", "sqlite:app.db", NULL);
	make_table(1);
	for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
		cr_assert_eq(change("app.db:1", EVBUS_LETTER_DISCARD), EVBUS_OK, "%s", err.text);
		snprintf(text, sizeof text, "UPDATE outbox_decisions SET %s", changes[i]);
		sql("state.db", text);
		cr_assert_eq(list_code(&any), EVBUS_IO, "%s", changes[i]);
		cr_assert(strstr(err.text, "the decision about row 1 of the outbox '") &&
				  strstr(err.text, "is damaged"),
			  "%s", err.text);
		cr_assert_str_eq(listed, "");
		sql("state.db", "DELETE FROM outbox_decisions");
		cr_assert_eq(letter("app.db:1")->state, EVBUS_LETTER_DEAD);
	}
	evbus_outbox_close(outbox);
}

Test(letters_tables, whose_decisions_cannot_be_read_or_removed_stay_as_they_are)
{
	outbox = open_outbox("sqlite:app.db", "sqlite:app.db", NULL);
	make_table(1);
	cr_assert_eq(change("app.db:1", EVBUS_LETTER_DISCARD), EVBUS_OK, "%s", err.text);
	stored_refuse("state.db", "DELETE", "outbox_decisions", "1 = 1", "no");
	cr_assert_eq(change("app.db:1", EVBUS_LETTER_UNDO), EVBUS_CONFLICT);
	cr_assert(strstr(err.text, "' refuses the row: no"), "%s", err.text);
	cr_assert_eq(letter("app.db:1")->state, EVBUS_LETTER_DISCARDED);
	stored_allow("state.db", "outbox_decisions");
	sql("state.db", "ALTER TABLE outbox_decisions RENAME TO away");
	cr_assert_eq(list_code(&any), EVBUS_CONFIG);
	cr_assert(strstr(err.text, "outbox_decisions") && !listed[0], "%s", err.text);
	sql("state.db", "ALTER TABLE away RENAME TO outbox_decisions");
	cr_assert_eq(change("app.db:1", EVBUS_LETTER_UNDO), EVBUS_OK, "%s", err.text);
	cr_assert_eq(letter("app.db:1")->state, EVBUS_LETTER_DEAD);
	evbus_outbox_close(outbox);
}

/* ---- sweeping -------------------------------------------------------------------------------------------------- */

Test(letters_tables, that_are_sent_and_old_are_swept)
{
	struct evbus_sweep_options options = { .dry_run = true };
	struct evbus_sweep_result result;

	outbox = open_outbox("sqlite:app.db", "sqlite:app.db", NULL);
	make_table(2500);
	sql_of_app("UPDATE outbox SET state = 'SENT', sent_at = '2026-01-01T00:00:00.000000Z' WHERE seq > 2");
	sql_of_app("UPDATE outbox SET sent_at = '2026-03-01T00:00:00.000000Z' WHERE seq = 3");
	cr_assert(clock_parse_exact("2026-02-01T00:00:00.000000Z", &options.sent_before_us));
	cr_assert_eq(evbus_sweep(bus, given, 1, &options, &result, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(result.sent, 2497);
	options.dry_run = false;
	cr_assert_eq(evbus_sweep(bus, given, 1, &options, &result, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(result.sent, 2497);
	cr_assert_eq(evbus_sweep(bus, given, 1, &options, &result, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(result.sent, 0);
	cr_assert_eq(row(3)->state, EVBUS_OUTBOX_SENT);
	cr_assert_str_eq(list(&any), "app.db:1 app.db:2 ");
	evbus_outbox_close(outbox);
}
