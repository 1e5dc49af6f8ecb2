/* What changes a store or an outbox is killed at each of its calls (scenes.h). */
#include "scenes.h"

#include <criterion/criterion.h>

/* ---- consuming ------------------------------------------------------------------------------------------------- */

/* Event 1 fails at first, event 2 always is a dead letter. */
#define HANDLER                                                                                                        \
	"case $EVENT_TYPE$EVENT_ATTEMPT in t11) echo $EVENT_ID >>tried; exit 1;; t2*) exit 65;; esac\n"                \
	"echo $EVENT_ID >>effects\n"
/* The same, which learns from a file that it has seen an event. */
#define COPROCESS                                                                                                      \
	"while IFS= read -r line; do id=${line#*\\\"id\\\":\\\"}; id=${id%%\\\"*}\n"                                   \
	"case $line in *:\\\"t1\\\"*) [ -e failed.$id ] || { : >failed.$id; echo $id >>tried; echo retry; continue; "  \
	"};;\n"                                                                                                        \
	"*:\\\"t2\\\"*) echo dead; continue;; esac\n"                                                                  \
	"echo $id >>effects; echo ok; done\n"
#define CONSUME "consume -q -t " TOPIC " -g g --retry-delay 1ms --retry-cap 1ms "

static void prepare_consume(unsigned round)
{
	write_file("handler", HANDLER);
	write_file("coprocess", COPROCESS);
	prepare_published(round);
}

static int64_t checkpoint(void)
{
	bool made = access(STATE_DB, F_OK) == 0 &&
		    ask_db(STATE_DB, "SELECT count(*) FROM sqlite_master WHERE name = 'checkpoints'") == 1;

	return made ? ask_db(STATE_DB, "SELECT max(next_offset + 0) FROM checkpoints") : 0;
}

static int64_t letters(unsigned round, unsigned i)
{
	return ask_db(STATE_DB, "SELECT count(*) FROM dlq WHERE event_id = '%u-%u'", round, i);
}

/* Each kill may repeat one effect. Returns how many events took effect. */
static unsigned check_effects(unsigned round, unsigned kills)
{
	unsigned repeated = 0, done = 0;

	for (unsigned i = 0; i < EVENTS; i++) {
		unsigned count = in_file("effects", round, i);
		repeated += count > 1 ? count - 1 : 0;
		done += count > 0;
	}
	CHECK(repeated <= kills, "%u effects are repeated", repeated);
	return done;
}

static void killed_consume(unsigned round)
{
	int64_t next = checkpoint() - (int64_t)(round - 1) * EVENTS;

	check_effects(round, 0);
	for (unsigned i = 0; i < next; i++)
		CHECK(i == 2 ? letters(round, i) == 1 : in_file("effects", round, i) >= 1,
		      "the checkpoint passed event %u", i);
}

static void done_consume(unsigned round)
{
	CHECK(checkpoint() == round * (int64_t)EVENTS, "the checkpoint is %lld", (long long)checkpoint());
	CHECK(check_effects(round, 1) == EVENTS - 1 && !in_file("effects", round, 2),
	      "not those took effect that should");
	CHECK(in_file("tried", round, 1) <= 2, "a first attempt was made %u times", in_file("tried", round, 1));
	for (unsigned i = 0; i < EVENTS; i++)
		CHECK(letters(round, i) == (i == 2), "event %u has %lld letters", i, (long long)letters(round, i));
	CHECK(ask_db(STATE_DB, "SELECT count(*) FROM retries") == 0, "there are retries left");
}

/* ---- checkpoints ----------------------------------------------------------------------------------------------- */

static void prepare_checkpoint(unsigned round)
{
	if (round == 1)
		prepare_published(1);
	program_must(0, NULL, NULL, "checkpoint-set -q -g g -t " TOPIC " -o 1");
}

static void prepare_saved(unsigned round)
{
	if (round == 1)
		prepare_published(1);
	program_must(0, NULL, NULL, "checkpoint-set -q -g g -t " TOPIC " -o 3");
	program_must(0, NULL, "saved", "checkpoint-list -q --format json");
	program_must(0, NULL, NULL, "checkpoint-set -q -g g -t " TOPIC " -o 1");
}

static void killed_checkpoint(unsigned round)
{
	(void)round;
	CHECK(checkpoint() == 1 || checkpoint() == 3, "the checkpoint is %lld", (long long)checkpoint());
}

static void done_checkpoint(unsigned round)
{
	(void)round;
	CHECK(checkpoint() == 3, "the checkpoint is %lld", (long long)checkpoint());
}

static void killed_remove(unsigned round)
{
	(void)round;
	CHECK(checkpoint() == 1 || checkpoint() == -1, "the checkpoint is %lld", (long long)checkpoint());
}

static void done_remove(unsigned round)
{
	(void)round;
	CHECK(checkpoint() == -1, "the checkpoint is %lld", (long long)checkpoint());
}

/* ---- outboxes -------------------------------------------------------------------------------------------------- */

#define APP "--outbox sqlite:app.db"

static void add_rows(unsigned round, const char *journal)
{
	char statement[300];

	if (access("app.db", F_OK) == 0) {
		sqlite3 *db = open_db("app.db");
		for (unsigned i = 0; i < EVENTS; i++) {
			snprintf(statement, sizeof statement,
				 "INSERT INTO outbox (id, topic, event_type, partition_key, payload) VALUES "
				 "('%u-%u', '" TOPIC "', 't', 'k', '{\"id\":\"%u-%u\"}')",
				 round, i, round, i);
			run_sql(db, statement);
		}
		sqlite3_close(db);
		return;
	}
	sqlite3 *db = open_db("app.db");
	snprintf(statement, sizeof statement, "PRAGMA journal_mode = %s; CREATE TABLE own (n)", journal);
	run_sql(db, statement);
	sqlite3_close(db);
	program_must(0, NULL, NULL, "outbox-init -q " APP);
	add_rows(round, journal);
}

static void prepare_rows(unsigned round)
{
	add_rows(round, "DELETE");
}

static void prepare_rows_wal(unsigned round)
{
	add_rows(round, "WAL");
}

static void prepare_stored_rows(unsigned round)
{
	write_ids("in", round, EVENTS);
	if (round == 1)
		program_must(0, NULL, NULL, "outbox-init -q");
	program_must(0, "in", NULL, "outbox-add -q -t " TOPIC);
}

/* Its rows, and those in the other state. */
static void check_sent(const char *path, unsigned round)
{
	CHECK(ask_db(path, "SELECT count(*) FROM outbox WHERE state = 'SENT' AND attempts = 0") ==
		      round * (int64_t)EVENTS,
	      "some rows are not sent");
	check_db(path);
}

/* Its lease is over. */
static void end_lease(const char *path)
{
	sqlite3 *db = open_db(path);

	run_sql(db, "UPDATE outbox SET lease_expires_at = '2026-01-01T00:00:00.000000Z' WHERE state = 'PROCESSING'");
	sqlite3_close(db);
	check_db(path);
}

static void killed_drain(unsigned round)
{
	for (unsigned i = 0; i < EVENTS; i++)
		CHECK(on_log(TOPIC, round, i) <= 1 && (!i || on_log(TOPIC, round, i) <= on_log(TOPIC, round, i - 1)),
		      "event %u is there twice, or before its time", i);
	end_lease(access("app.db", F_OK) ? STATE_DB : "app.db");
}

static void done_drain(unsigned round)
{
	done_once(round);
	check_sent("app.db", round);
}

static void done_stored_drain(unsigned round)
{
	done_once(round);
	check_sent(STATE_DB, round);
}

static void prepare_adding(unsigned round)
{
	if (round == 1)
		program_must(0, NULL, NULL, "outbox-init -q " APP);
	write_ids("in", round, EVENTS);
}

static int64_t rows_of(unsigned round)
{
	return ask_db("app.db", "SELECT count(*) FROM outbox WHERE id LIKE '%u-%%'", round);
}

static void killed_adding(unsigned round)
{
	CHECK(rows_of(round) == 0 || rows_of(round) == EVENTS, "half of the rows are there");
}

static void done_adding(unsigned round)
{
	CHECK(rows_of(round) == EVENTS, "there are %lld rows", (long long)rows_of(round));
	check_db("app.db");
}

static void done_table(unsigned round)
{
	(void)round;
	CHECK(ask_db("app.db", "SELECT count(*) FROM outbox") == 0, "there is no table");
	check_db("app.db");
}

/* ---- dead letters ---------------------------------------------------------------------------------------------- */

static void prepare_letters(unsigned round)
{
	write_file("refuse", "exit 65\n");
	write_file("take", "echo $EVENT_ID >>effects\n");
	prepare_published(round);
	program_must(1, NULL, NULL, "consume -q -t " TOPIC " -g g -- sh refuse");
}

static int64_t letters_in(const char *state, unsigned round)
{
	return ask_db(STATE_DB, "SELECT count(*) FROM dlq WHERE state = '%s' AND event_id LIKE '%u-%%'", state, round);
}

static void check_letters(const char *state, unsigned round, bool all)
{
	int64_t dead = letters_in("DEAD", round), other = letters_in(state, round);

	CHECK(dead + other == EVENTS && (!all || !dead), "%lld letters are DEAD and %lld %s", (long long)dead,
	      (long long)other, state);
}

static void killed_queue(unsigned round)
{
	check_letters("QUEUED", round, false);
}

static void done_queue(unsigned round)
{
	check_letters("QUEUED", round, true);
	program_must(0, NULL, NULL, "consume -q -t " TOPIC " -g g -- sh take");
	check_letters("RETRIED", round, true);
}

static void killed_discard(unsigned round)
{
	check_letters("DISCARDED", round, false);
}

static void done_discard(unsigned round)
{
	check_letters("DISCARDED", round, true);
}

static void killed_retry(unsigned round)
{
	check_letters("RETRIED", round, false);
	CHECK((int64_t)EVENTS - letters_in("DEAD", round) <= (int64_t)check_effects(round, 0),
	      "a letter is RETRIED that was not");
}

static void done_retry(unsigned round)
{
	check_letters("RETRIED", round, true);
	CHECK(check_effects(round, 1) == EVENTS, "some letters took no effect");
}

static void done_republish(unsigned round)
{
	unsigned repeated = 0;

	check_letters("RETRIED", round, true);
	for (unsigned i = 0; i < EVENTS; i++) {
		CHECK(on_log(TOPIC, round, i) >= 2, "event %u was not published again", i);
		repeated += on_log(TOPIC, round, i) - 2;
	}
	CHECK(repeated <= EVENTS, "%u were published three times", repeated);
	program_must(0, NULL, NULL, "checkpoint-set -q -g g -t " TOPIC " -o end");
}

/* Letters that were retried, rows that were sent, the inbox and the keys of all that. */
static void prepare_sweep(unsigned round)
{
	prepare_letters(round);
	program_must(0, NULL, NULL, "dlq-discard -q -g g --all");
	add_rows(1000 + round, "DELETE");
	program_must(0, NULL, NULL, "outbox-drain -q " APP);
	program_must(0, NULL, NULL, "consume -q --inbox -t " TOPIC " -g other -- true");
}

static void done_sweep(unsigned round)
{
	(void)round;
	CHECK(ask_db("app.db", "SELECT count(*) FROM outbox") == 0, "there are rows left");
	CHECK(ask_db(STATE_DB, "SELECT (SELECT count(*) FROM dlq) + (SELECT count(*) FROM inbox)") == 0,
	      "there are letters or inbox rows left");
	check_db("app.db");
}

/* ---- keys ------------------------------------------------------------------------------------------------------ */

static void prepare_keys(unsigned round)
{
	write_ids("in", round, EVENTS);
	program_must(0, "in", NULL, "publish -q --idempotent -t " TOPIC);
}

static void done_keys(unsigned round)
{
	CHECK(ask_db(STATE_DB, "SELECT count(*) FROM event_keys") == round * (int64_t)EVENTS, "not all keys are there");
	program_must(0, "in", NULL, "publish -q --idempotent -t " TOPIC);
}

/* ---- the scenes ------------------------------------------------------------------------------------------------ */

static const struct scene scenes[] = {
	{ .name = "consume",
	  .every = 2,
	  .prepare = prepare_consume,
	  .words = CONSUME "-- sh handler",
	  .status = 0,
	  .other_status = 1,
	  .killed = killed_consume,
	  .done = done_consume },
	{ .name = "consume --inbox",
	  .every = 2,
	  .prepare = prepare_consume,
	  .words = CONSUME "--inbox -- sh handler",
	  .status = 0,
	  .other_status = 1,
	  .killed = killed_consume,
	  .done = done_consume },
	{ .name = "consume --coprocess",
	  .every = 2,
	  .prepare = prepare_consume,
	  .words = CONSUME "--coprocess --inbox --commit-every 1 --window 1 -- sh coprocess",
	  .status = 0,
	  .other_status = 1,
	  .killed = killed_consume,
	  .done = done_consume },
	{ .name = "checkpoint-set",
	  .prepare = prepare_checkpoint,
	  .words = "checkpoint-set -q -g g -o 3 -t " TOPIC,
	  .killed = killed_checkpoint,
	  .done = done_checkpoint },
	{ .name = "checkpoint-set --from-file",
	  .prepare = prepare_saved,
	  .words = "checkpoint-set -q --from-file saved",
	  .killed = killed_checkpoint,
	  .done = done_checkpoint },
	{ .name = "checkpoint-remove",
	  .prepare = prepare_checkpoint,
	  .words = "checkpoint-remove -q -g g -t " TOPIC,
	  .other_status = 66,
	  .killed = killed_remove,
	  .done = done_remove },
	{ .name = "outbox-init", .fresh = true, .words = "outbox-init -q " APP, .done = done_table },
	{ .name = "outbox-add",
	  .prepare = prepare_adding,
	  .in = "in",
	  .words = "outbox-add -q -t " TOPIC " " APP,
	  .other_status = 76,
	  .killed = killed_adding,
	  .done = done_adding },
	{ .name = "outbox-drain",
	  .receipts = true,
	  .prepare = prepare_rows,
	  .words = "outbox-drain" RECEIPT APP,
	  .killed = killed_drain,
	  .done = done_drain },
	{ .name = "outbox-drain, WAL",
	  .receipts = true,
	  .all = true,
	  .every = 7,
	  .prepare = prepare_rows_wal,
	  .words = "outbox-drain" RECEIPT APP,
	  .killed = killed_drain,
	  .done = done_drain },
	{ .name = "outbox-drain of the store",
	  .receipts = true,
	  .prepare = prepare_stored_rows,
	  .words = "outbox-drain" RECEIPT,
	  .killed = killed_drain,
	  .done = done_stored_drain },
	{ .name = "dlq-retry",
	  .prepare = prepare_letters,
	  .words = "dlq-retry -q -g g --all",
	  .killed = killed_queue,
	  .done = done_queue },
	{ .name = "dlq-retry --republish",
	  .every = 3,
	  .prepare = prepare_letters,
	  .words = "dlq-retry -q -g g --all --republish",
	  .done = done_republish },
	{ .name = "dlq-retry -- COMMAND",
	  .every = 2,
	  .prepare = prepare_letters,
	  .words = "dlq-retry -q -g g --all -- sh take",
	  .killed = killed_retry,
	  .done = done_retry },
	{ .name = "dlq-discard",
	  .prepare = prepare_letters,
	  .words = "dlq-discard -q -g g --all",
	  .killed = killed_discard,
	  .done = done_discard },
	{ .name = "sweep",
	  .prepare = prepare_sweep,
	  .words = "sweep -q --sent-older-than 0s --inbox-older-than 0s --dlq-older-than 0s " APP,
	  .done = done_sweep },
	{ .name = "verify --rebuild-keys",
	  .every = 4,
	  .prepare = prepare_keys,
	  .words = "verify -q --rebuild-keys",
	  .done = done_keys },
};

TestSuite(kill_each_store, .init = scenes_begin, .fini = run_end, .timeout = 600);

Test(kill_each_store, call_of_what_changes_a_store_leaves_one_that_is_whole_and_goes_on)
{
	for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++)
		scene_run(&scenes[i], 67);
}
