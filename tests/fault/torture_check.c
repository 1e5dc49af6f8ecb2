/* torture_check.c: what must hold between what they did, the logs and the store. */
#include "torture.h"

#define EVENTS_ALL (APPS * ROWS_MAX)

/* ---- while they run -------------------------------------------------------------------------------------------- */

/* Never less than before; key names what is meant. */
static void never_back(const char *key, uint64_t value)
{
	static struct {
		char key[80];
		uint64_t value;
	} seen[64];
	unsigned i = 0;

	while (i < 64 && seen[i].key[0] && strcmp(seen[i].key, key) != 0)
		i++;
	CHECK(i < 64, "too many of them");
	snprintf(seen[i].key, sizeof seen[i].key, "%s", key);
	CHECK(seen[i].value <= value, "%s went back from %llu to %llu", key, (unsigned long long)seen[i].value,
	      (unsigned long long)value);
	seen[i].value = value;
}

static int take_checkpoint(void *context, int count, char **values, char **names)
{
	char key[80];
	(void)context;
	(void)count;
	(void)names;

	snprintf(key, sizeof key, "checkpoint of %s on %s", values[0], values[1]);
	never_back(key, number_at(values[2]));
	return 0;
}

static void check_ends(void)
{
	static const struct {
		const char *topic;
		int32_t partitions;
	} topics[] = { { TOPIC, 1 }, { WORK, WORK_PARTITIONS }, { ONCE, 2 }, { SHELL, 1 } };
	struct evbus *bus = open_bus();
	struct evbus_partition_info info;
	char key[80];

	for (size_t t = 0; t < sizeof topics / sizeof *topics; t++)
		for (int32_t p = 0; p < topics[t].partitions; p++) {
			CHECK_OK(evbus_topic_describe(bus, topics[t].topic, p, &info, ERR));
			snprintf(key, sizeof key, "end of %s/%d", topics[t].topic, p);
			never_back(key, number_at(info.next_offset));
		}
	evbus_close(bus);
}

/* What is to be tried again is due within the bound of its attempt. One that is dead is kept, with no time, until the
 * checkpoint is beyond it. Between noting the attempt and drawing the delay a busy machine may let others run: some are
 * later by that, none by a second. */
#define RETRIES_THAT                                                                                           \
	"SELECT count(*) FROM (SELECT (julianday(next_attempt_at) - "                                          \
	"julianday(json_extract(history, '$[#-1].at'))) * 86400000 AS delay, min(%d, %d << (attempts - 1)) AS " \
	"most, attempts FROM retries WHERE next_attempt_at LIKE '2%%') WHERE "

static int64_t retries_that(sqlite3 *db, const char *are)
{
	char statement[600];
	int len = snprintf(statement, sizeof statement, RETRIES_THAT, CAP_MS, DELAY_MS);

	snprintf(statement + len, sizeof statement - (size_t)len, "%s", are);
	return ask_in(db, statement);
}

static void check_delays(sqlite3 *db)
{
	static int64_t seen, late;

	CHECK(retries_that(db, "delay < -2 OR delay > most + 1000 OR attempts > 2") == 0,
	      "retries are due beyond their bounds");
	seen += retries_that(db, "true");
	late += retries_that(db, "delay > most + 2");
	CHECK(late * 10 <= seen + 20, "%lld of %lld retries are due beyond their bounds", (long long)late,
	      (long long)seen);
}

void check_progress(void)
{
	check_ends();
	/* The first of those who make it may have been killed over it. */
	if (access(STATE_DB, F_OK) || !ask_db(STATE_DB, "SELECT count(*) FROM sqlite_master WHERE name = 'retries'"))
		return;
	sqlite3 *db = open_db(STATE_DB);
	CHECK(sqlite3_exec(db, "SELECT group_name, topic || '/' || partition_id, next_offset FROM checkpoints",
			   take_checkpoint, NULL, NULL) == SQLITE_OK,
	      "%s", sqlite3_errmsg(db));
	check_delays(db);
	sqlite3_close(db);
}

/* ---- the logs -------------------------------------------------------------------------------------------------- */

static void on_finding(void *context, const struct evbus_finding *finding)
{
	(void)context;
	CHECK(finding->severity == EVBUS_NOTE, "damage: %s", finding->text);
}

static void check_verify(struct evbus *bus)
{
	const struct evbus_verify_options options = { .deep = true,
						      .partition_id = EVBUS_PARTITION_ALL,
						      .finding = on_finding };
	struct evbus_verify_result result;

	CHECK_OK(evbus_verify(bus, NULL, &options, &result, ERR));
	CHECK(result.damages == 0 && result.topics == 4, "%llu damages in %llu topics",
	      (unsigned long long)result.damages, (unsigned long long)result.topics);
}

/* Each record of a topic, and what its id's digits say; returns how many there are. */
static uint64_t each_record(struct evbus *bus, const char *topic,
			    void (*take)(const struct evbus_record *record, uint64_t offset, unsigned event))
{
	const struct evbus_selection all = { .topic = topic, .partition_id = EVBUS_PARTITION_ALL };
	const struct evbus_record *record;
	struct evbus_reader *reader;
	uint64_t count = 0, offset;

	CHECK_OK(evbus_reader_open(bus, &all, &reader, ERR));
	for (;; count++) {
		CHECK_OK(evbus_reader_next(reader, 0, &record, ERR));
		if (!record)
			break;
		const char *digits = record->payload.data + sizeof "{\"id\":\"" - 1;
		CHECK(decimal_parse(record->offset, &offset), "no offset");
		take(record, offset, (unsigned)number_at(digits + (*digits == 's')));
	}
	evbus_reader_close(reader);
	return count;
}

static uint64_t *once_seen;

static void take_once(const struct evbus_record *record, uint64_t offset, unsigned event)
{
	uint64_t place = place_of(record->partition_id, offset) + 1;

	CHECK(event < ONCE_MAX && !once_seen[event], "event %u of '" ONCE "' is there twice", event);
	once_seen[event] = place;
}

static void check_once(struct evbus *bus)
{
	unsigned acked = 0;

	once_seen = notes_share(ONCE_MAX * sizeof *once_seen);
	each_record(bus, ONCE, take_once);
	for (unsigned i = 0; i < ONCE_MAX; i++) {
		uint64_t place = atomic_load(&shared->once_places[i]);
		CHECK(!place || place == once_seen[i], "event %u of '" ONCE "' is not where its receipt says", i);
		acked += place != 0;
	}
	CHECK(acked > 10, "hardly anything was published idempotently");
}

/* ---- what the programs printed --------------------------------------------------------------------------------- */

#define SHELL_MAX 400000u
static unsigned *shell_at, *work_at; /* events by offset, + 1; of work the partition 0 */
static uint64_t shell_count;

static void take_shell(const struct evbus_record *record, uint64_t offset, unsigned event)
{
	(void)record;
	CHECK(offset < SHELL_MAX && offset == shell_count, "a hole");
	CHECK(!shell_count || event + 1 > shell_at[offset - 1], "event s%u is there twice, or before its time", event);
	shell_at[shell_count++] = event + 1;
}

/* Lines PARTITION/OFFSET/ID, of which the last may have no end. */
static unsigned check_output(const char *path, const unsigned *at, bool dense)
{
	unsigned long long offset, next = 0;
	unsigned count = 0, event;
	char line[100];
	int lane;
	FILE *file = fopen(path, "r");

	CHECK(file, "'%s' is not there", path);
	for (; fgets(line, sizeof line, file) && strchr(line, '\n'); count++, next = offset + 1) {
		CHECK(sscanf(line, "%d/%llu/%*[s]%u", &lane, &offset, &event) == 3 ||
			      sscanf(line, "%d/%llu/%u", &lane, &offset, &event) == 3,
		      "'%s' says %s", path, line);
		CHECK(lane == 0 && offset < SHELL_MAX && at[offset] == event + 1, "'%s' says %s, and that is not so",
		      path, line);
		CHECK(!dense || !next || offset == next, "'%s' leaves out what is before %s", path, line);
	}
	fclose(file);
	return count;
}

static void check_outputs(struct evbus *bus)
{
	unsigned receipts = 0, lines = 0;
	char path[40];

	shell_at = notes_share(SHELL_MAX * sizeof *shell_at);
	each_record(bus, SHELL, take_shell);
	for (unsigned i = 0; i < publish_outputs; i++) {
		snprintf(path, sizeof path, "out.publish.%u", i);
		receipts += check_output(path, shell_at, false);
	}
	for (unsigned i = 0; i < tail_outputs; i++) {
		snprintf(path, sizeof path, "out.tail.%u", i);
		lines += check_output(path, work_at, true);
	}
	CHECK(receipts > 10 && lines > 5, "%u receipts and %u records were printed", receipts, lines);
}

/* ---- outboxes -------------------------------------------------------------------------------------------------- */

static unsigned char *on_work; /* by event: how often */
static int64_t *seq_of; /* by event: its row, 0: there is none */
static unsigned last_of_key[APPS][7]; /* event + 1 */

static void take_work(const struct evbus_record *record, uint64_t offset, unsigned event)
{
	CHECK(event < EVENTS_ALL && ++on_work[event] == 1, "event %u is on the log twice", event);
	CHECK(seq_of[event], "event %u is on the log, and its row was never committed", event);
	unsigned *last = &last_of_key[event / ROWS_MAX][event % ROWS_MAX % 7];
	CHECK(!*last || seq_of[*last - 1] < seq_of[event], "event %u overtook another of its key", event);
	*last = event + 1;
	if (record->partition_id == 0 && offset < SHELL_MAX)
		work_at[offset] = event + 1;
}

static int take_row(void *context, int count, char **values, char **names)
{
	(void)context;
	(void)count;
	(void)names;
	CHECK(!strcmp(values[2], "SENT") && !strcmp(values[3], "0"), "row %s is %s after %s attempts", values[0],
	      values[2], values[3]);
	seq_of[number_at(values[1])] = (int64_t)number_at(values[0]);
	return 0;
}

static void check_outbox(struct evbus *bus)
{
	unsigned committed = 0, back = 0;

	on_work = notes_share(EVENTS_ALL);
	seq_of = notes_share(EVENTS_ALL * sizeof *seq_of);
	work_at = notes_share(SHELL_MAX * sizeof *work_at);
	check_db("app.db");
	sqlite3 *db = open_db("app.db");
	CHECK(sqlite3_exec(db, "SELECT seq, id, state, attempts FROM outbox", take_row, NULL, NULL) == SQLITE_OK, "%s",
	      sqlite3_errmsg(db));
	sqlite3_close(db);
	each_record(bus, WORK, take_work);
	for (unsigned i = 0; i < EVENTS_ALL; i++) {
		unsigned known = atomic_load(&shared->known[i]);
		CHECK(on_work[i] == (seq_of[i] != 0), "event %u is not on the log", i);
		CHECK(known != COMMITTED || seq_of[i], "event %u was committed, and its row is gone", i);
		CHECK(known != ROLLED_BACK || !seq_of[i], "event %u was rolled back, and its row is there", i);
		committed += known == COMMITTED;
		back += known == ROLLED_BACK;
	}
	CHECK(committed > 10 && back > 3, "%u rows were committed, and %u rolled back", committed, back);
}

/* ---- consumers ------------------------------------------------------------------------------------------------- */

static uint32_t *attempts, *effects; /* of the group that is looked at */

static void count_file(const char *name, const char *what, uint32_t *counts)
{
	char path[40], line[40];

	snprintf(path, sizeof path, "%s.%s", name, what);
	FILE *file = fopen(path, "r");
	CHECK(file, "'%s' is not there", path);
	memset(counts, 0, EVENTS_ALL * sizeof *counts);
	while (fgets(line, sizeof line, file)) {
		uint64_t event = number_at(line);
		CHECK(strchr(line, '\n') && event < EVENTS_ALL, "'%s' says %s", path, line);
		counts[event]++;
	}
	fclose(file);
}

static void load_group(enum group group)
{
	if (group != LIBRARY) {
		count_file(group_names[group], "tried", attempts);
		count_file(group_names[group], "done", effects);
		return;
	}
	for (unsigned i = 0; i < EVENTS_ALL; i++) {
		attempts[i] = atomic_load(&shared->attempts[i]);
		effects[i] = atomic_load(&shared->effects[i]);
	}
}

/* Returns the attempts that were made more often than they had to be. */
static unsigned check_event(const char *group, unsigned event)
{
	static const unsigned tries[] = { [GOOD] = 1, [FLAKY] = 2, [POISON] = RETRIES + 1, [REFUSED] = 1 };
	enum fate fate = fate_of(event);
	bool takes_effect = fate == GOOD || fate == FLAKY;

	if (!on_work[event]) {
		CHECK(!attempts[event] && !effects[event], "%s: event %u is not on the log, and was handled", group,
		      event);
		return 0;
	}
	CHECK(attempts[event] >= tries[fate], "%s: event %u was tried %u times", group, event, attempts[event]);
	CHECK(takes_effect ? effects[event] >= 1 : effects[event] == 0, "%s: event %u took effect %u times", group,
	      event, effects[event]);
	return attempts[event] - tries[fate];
}

static int64_t ask_group(const char *group, const char *what)
{
	return ask_db(STATE_DB, "SELECT count(*) FROM %s AND group_name = '%s'", what, group);
}

static void check_group(enum group group, unsigned kills)
{
	const char *name = group_names[group];
	unsigned repeated = 0, poison = 0, refused = 0, done = 0, each = group == COPROCESS ? WINDOW : 1;

	load_group(group);
	for (unsigned i = 0; i < EVENTS_ALL; i++) {
		repeated += check_event(name, i);
		poison += on_work[i] && fate_of(i) == POISON;
		refused += on_work[i] && fate_of(i) == REFUSED;
		done += on_work[i] && fate_of(i) != POISON && fate_of(i) != REFUSED;
	}
	fprintf(stderr, "%s: %u events done, %u dead, %u kills, %u attempts repeated\n", name, done, poison + refused,
		kills, repeated);
	CHECK(repeated <= each * kills, "%s: %u attempts were repeated, with %u kills", name, repeated, kills);
	int64_t letters = ask_group(name, "dlq WHERE state = 'DEAD'"), all = ask_group(name, "dlq WHERE 1"),
		retried = ask_group(name, "dlq WHERE reason = 'retries' AND attempts = 3 AND event_type = 'poison'"),
		dead = ask_group(name, "dlq WHERE reason = 'refused' AND event_type = 'refused'");
	CHECK(letters == poison + refused && all == letters && retried == poison && dead == refused,
	      "%s: %lld letters, %lld of them DEAD, %lld retried and %lld refused; there should be %u and %u", name,
	      (long long)all, (long long)letters, (long long)retried, (long long)dead, poison, refused);
	CHECK(ask_group(name, "retries WHERE 1") == 0, "%s: there are retries left", name);
	CHECK(ask_group(name, "inbox WHERE 1") == (group == BARE ? 0 : done), "%s: the inbox has %lld events", name,
	      (long long)ask_group(name, "inbox WHERE 1"));
}

static void check_checkpoints(struct evbus *bus)
{
	struct evbus_partition_info info;

	for (int32_t lane = 0; lane < (int32_t)WORK_PARTITIONS; lane++) {
		CHECK_OK(evbus_topic_describe(bus, WORK, lane, &info, ERR));
		CHECK(ask_db(STATE_DB,
			     "SELECT count(*) FROM checkpoints WHERE topic = '" WORK
			     "' AND partition_id = %d AND next_offset = '%s'",
			     lane, info.next_offset) == GROUPS,
		      "not all checkpoints of partition %d are at its end, %s", lane, info.next_offset);
	}
}

void check_all(const unsigned kills[KINDS])
{
	struct evbus *bus = open_bus();

	check_progress();
	check_verify(bus);
	check_db(STATE_DB);
	check_everything();
	check_once(bus);
	check_outbox(bus);
	check_outputs(bus);
	attempts = notes_share(EVENTS_ALL * sizeof *attempts);
	effects = notes_share(EVENTS_ALL * sizeof *effects);
	for (enum group group = LIBRARY; group < GROUPS; group++)
		check_group(group, kills[KIND_CONSUMER + group]);
	check_checkpoints(bus);
	evbus_close(bus);
}
