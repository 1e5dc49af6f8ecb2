/* torture_cast.c: publishers, followers, applications, drainers and consumers, in the library and as programs. Whoever is
 * killed goes on, when it comes again, where the one before it was. */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>

struct shared *shared;
unsigned publish_outputs, tail_outputs;
const char *const group_names[GROUPS] = { "library", "command", "bare", "coprocess" };

enum fate fate_of(unsigned event)
{
	static const enum fate fates[] = { [3] = FLAKY, [9] = POISON, [15] = REFUSED };

	return event % 20 < sizeof fates / sizeof *fates ? fates[event % 20] : GOOD;
}

/* ---- idempotent publishers ------------------------------------------------------------------------------------- */

static void note_once(const struct evbus_record *receipt)
{
	unsigned event = (unsigned)number_at(receipt->payload.data + sizeof "{\"id\":\"" - 1);
	uint64_t offset, none = 0;

	CHECK(event < ONCE_MAX && decimal_parse(receipt->offset, &offset), "a receipt for what?");
	uint64_t place = place_of(receipt->partition_id, offset) + 1;
	if (!atomic_compare_exchange_strong(&shared->once_places[event], &none, place))
		CHECK(none == place, "event %u of '" ONCE "' has two places", event);
}

static void publish_once(unsigned index)
{
	const struct evbus_publisher_options options = { .idempotent = true };
	const struct evbus_record *receipt;
	struct evbus *bus = open_bus();
	struct evbus_publisher *publisher;
	char payload[64];

	CHECK_OK(evbus_publisher_open(bus, &options, &publisher, ERR));
	while (!atomic_load(&notes->stop)) {
		unsigned first = atomic_load(&shared->once_next[index]);
		for (unsigned i = first; i < first + 10 && i < ONCE_MAX; i++) {
			struct evbus_event event = { .topic = ONCE, .partition_id = (int32_t)(i + index) % 2 };
			event.payload.data = payload;
			event.payload.len = (size_t)snprintf(payload, sizeof payload, "{\"id\":\"%u\"}", i);
			CHECK_OK(evbus_publisher_add(publisher, &event, ERR));
		}
		CHECK_OK(evbus_publisher_flush(publisher, ERR));
		while ((receipt = evbus_publisher_next(publisher)))
			note_once(receipt);
		atomic_store(&shared->once_next[index], first + 10);
		pause_us(20000);
	}
	evbus_publisher_close(publisher);
	evbus_close(bus);
}

/* ---- applications ---------------------------------------------------------------------------------------------- */

static void insert_row(sqlite3 *db, unsigned app, unsigned row)
{
	static const char *const types[] = { "good", "flaky", "poison", "refused" };
	char statement[300];
	unsigned event = app * ROWS_MAX + row;

	snprintf(statement, sizeof statement,
		 "INSERT INTO outbox (id, topic, event_type, partition_key, payload) VALUES "
		 "('%u', '" WORK "', 't', 'k%u-%u', '{\"id\":\"%u\",\"type\":\"%s\"}')",
		 event, app, row % 7, event, types[fate_of(event)]);
	run_sql(db, statement);
}

/* Transactions of 1 to 4 rows; a third of them is rolled back. Of one that it is killed in, nobody knows. */
static void run_application(unsigned app)
{
	uint64_t dice = run.seed ^ atomic_fetch_add(&notes->counters[0], 1) << 20;
	sqlite3 *db = open_db("app.db");

	while (!atomic_load(&notes->stop)) {
		unsigned count = 1 + (unsigned)(random_next(&dice) % 4);
		unsigned first = atomic_fetch_add(&shared->next_row[app], count);
		_Atomic unsigned char *known = &shared->known[app * ROWS_MAX + first];
		bool back = random_next(&dice) % 3 == 0;
		CHECK(first + count < ROWS_MAX, "too many rows");
		for (unsigned i = 0; i < count; i++)
			atomic_store(&known[i], back ? ROLLED_BACK : PERHAPS);
		run_sql(db, "BEGIN IMMEDIATE; INSERT INTO own VALUES (1)");
		for (unsigned i = 0; i < count; i++)
			insert_row(db, app, first + i);
		run_sql(db, back ? "ROLLBACK" : "COMMIT");
		for (unsigned i = 0; i < count && !back; i++)
			atomic_store(&known[i], COMMITTED);
		pause_us((int64_t)(random_next(&dice) % 120000));
	}
	sqlite3_close(db);
}

/* ---- consumers in the library ---------------------------------------------------------------------------------- */

static void handle(struct evbus_consumer *consumer, struct evbus_delivery *delivery)
{
	unsigned event = (unsigned)number_at(delivery->record->payload.data + sizeof "{\"id\":\"" - 1);
	enum fate fate = fate_of(event);

	CHECK(event < APPS * ROWS_MAX && delivery->attempt <= RETRIES + 1, "event %u is tried for the %uth time", event,
	      delivery->attempt);
	CHECK(delivery->attempt - 1 <= atomic_load(&shared->attempts[event]),
	      "event %u has attempts that were never made", event);
	pause_us(500);
	atomic_fetch_add(&shared->attempts[event], 1);
	if (fate == POISON || (fate == FLAKY && delivery->attempt == 1)) {
		CHECK_OK(evbus_consumer_failed(consumer, delivery, EVBUS_REASON_RETRIES, SLICE("poison"), NULL, ERR));
	} else if (fate == REFUSED) {
		CHECK_OK(evbus_consumer_refused(consumer, delivery, EVBUS_REASON_REFUSED, SLICE("no"), ERR));
	} else {
		atomic_fetch_add(&shared->effects[event], 1);
		CHECK_OK(evbus_consumer_done(consumer, delivery, ERR));
	}
}

static void consume(unsigned index)
{
	struct evbus *bus = open_bus();
	const struct evbus_consumer_options options = { .group = group_names[LIBRARY],
							.topic = WORK,
							.partition_id = EVBUS_PARTITION_ALL,
							.follow = !atomic_load(&shared->finish),
							.inbox = true,
							.retry = { RETRIES, DELAY_MS, 2, CAP_MS },
							.concurrency = index % 2 ? 3 : 1 };
	struct evbus_consumer *consumer;
	struct evbus_delivery *delivery;

	CHECK_OK(evbus_consumer_open(bus, &options, &consumer, ERR));
	while (!evbus_consumer_finished(consumer) && !(options.follow && atomic_load(&notes->stop))) {
		CHECK_OK(evbus_consumer_next(consumer, 100, &delivery, ERR));
		if (delivery)
			handle(consumer, delivery);
	}
	evbus_consumer_close(consumer);
	evbus_close(bus);
}

/* ---- programs -------------------------------------------------------------------------------------------------- */

/* Lines for the publishers, which are all one after the other at the other end of a FIFO. */
static void feed(unsigned index)
{
	char line[64];
	int fd = open("fifo", O_RDWR);
	(void)index;

	CHECK(fd >= 0, "cannot open the FIFO");
	for (unsigned i = 0;; i++) {
		int len = snprintf(line, sizeof line, "{\"id\":\"s%u\"}\n", i);
		CHECK(write(fd, line, (size_t)len) == len, "cannot write to the FIFO");
		pause_us(2000);
	}
}

#define CONSUME "consume %s -q -t " WORK " -g %s --retry-max 2 --retry-delay 40ms --retry-cap 60ms %s"

static void consume_words(char words[400], enum group group, bool follow)
{
	static const char *const how[] = { [COMMAND] = "--inbox -- sh command",
					   [BARE] = "--commit-every 1 -- sh bare",
					   [COPROCESS] =
						   "--inbox --coprocess --commit-every 1 --window 4 -- sh coprocess" };

	snprintf(words, 400, CONSUME, follow ? "-f" : "", group_names[group], how[group]);
}

static void start_program(struct actor *actor)
{
	char words[400], out[40];

	switch (actor->kind) {
	case KIND_PUBLISH:
		snprintf(out, sizeof out, "out.publish.%u", publish_outputs++);
		actor->pid =
			program_start("fifo", out, "publish -t " SHELL " --format {partition_id}/{offset}/{/id}\\n");
		return;
	case KIND_TAIL:
		snprintf(out, sizeof out, "out.tail.%u", tail_outputs++);
		actor->pid = program_start(NULL, out,
					   "tail -f -o -5 -p 0 -t " WORK " --format {partition_id}/{offset}/{/id}\\n");
		return;
	case KIND_DRAINER:
		actor->pid = program_start(
			NULL, NULL,
			"outbox-drain -q -f --interval 20ms --batch 20 --lease 300ms --outbox sqlite:app.db");
		return;
	default:
		consume_words(words, (enum group)(actor->kind - KIND_CONSUMER), true);
		actor->pid = program_start(NULL, NULL, words);
	}
}

void actor_start(struct actor *actor)
{
	void (*const bodies[])(unsigned) = { [KIND_WRITER] = write_events,
					     [KIND_ONCE] = publish_once,
					     [KIND_FOLLOWER] = follow_events,
					     [KIND_APP] = run_application,
					     [KIND_CONSUMER] = consume };

	if (actor->kind < sizeof bodies / sizeof *bodies && bodies[actor->kind])
		actor->pid = child_start(bodies[actor->kind], actor->index);
	else
		start_program(actor);
}

/* ---- before and after ------------------------------------------------------------------------------------------ */

static void write_text(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	CHECK(file && fputs(text, file) >= 0 && !fclose(file), "cannot write '%s'", path);
}

/* An attempt is one line of FILE.tried, an effect one of FILE.done. */
#define HANDLER(file)                                                                                                  \
	"echo $EVENT_ID >>" file ".tried\n"                                                                            \
	"case $EVENT_TYPE$EVENT_ATTEMPT in poison*|flaky1) exit 3;; refused*) exit 65;; esac\n"                        \
	"echo $EVENT_ID >>" file ".done\n"

static const char coprocess[] =
	"while IFS= read -r line; do id=${line#*\\\"id\\\":\\\"}; id=${id%%\\\"*}\n"
	"echo $id >>coprocess.tried\n"
	"case $line in *:\\\"flaky\\\"*) [ -e flaky.$id ] || { : >flaky.$id; echo retry; continue; };;\n"
	"*:\\\"poison\\\"*) echo retry; continue;; *:\\\"refused\\\"*) echo dead; continue;; esac\n"
	"echo $id >>coprocess.done; echo ok; done\n";

static void make(const char *topic, unsigned partitions, uint64_t segment_max_bytes)
{
	const struct evbus_topic_options options = { .partitions = partitions, .segment_max_bytes = segment_max_bytes };
	struct evbus *bus = open_bus();
	bool created;

	CHECK_OK(evbus_topic_create(bus, topic, &options, &created, ERR));
	evbus_close(bus);
}

void cast_prepare(void)
{
	shared = notes_share(sizeof *shared);
	make_topic(1, 50000);
	make(WORK, WORK_PARTITIONS, 20000);
	make(ONCE, 2, 30000);
	make(SHELL, 1, 0);
	write_text("command", HANDLER("command"));
	write_text("bare", HANDLER("bare"));
	write_text("coprocess", coprocess);
	sqlite3 *db = open_db("app.db");
	run_sql(db, "PRAGMA journal_mode = WAL; CREATE TABLE own (n)");
	sqlite3_close(db);
	program_must(0, NULL, NULL, "outbox-init -q --outbox sqlite:app.db");
	CHECK(mkfifo("fifo", 0600) == 0, "cannot make a FIFO");
	child_start(feed, 0);
}

void cast_finish(void)
{
	char words[400];
	struct evbus *bus = open_bus();
	struct evbus_partition_info info;

	program_must(0, NULL, NULL, "outbox-drain -q --lease 5s --outbox sqlite:app.db");
	atomic_store(&shared->finish, true);
	child_join(child_start(consume, 0));
	for (enum group group = COMMAND; group < GROUPS; group++) {
		consume_words(words, group, false);
		int status = program_run(NULL, NULL, "%s", words);
		CHECK(status == 0 || status == 1, "evbus %s: status %d: %s", words, status, program_read("said"));
	}
	/* The last of the writers may have been killed before its sync: only a writer can do it for him. */
	struct evbus_err err;
	CHECK(try_one(bus, WRITERS, 0, &err) == EVBUS_OK, "%s", err.text);
	CHECK_OK(evbus_topic_describe(bus, TOPIC, 0, &info, ERR));
	atomic_store(&notes->goal, number_at(info.next_offset));
	evbus_close(bus);
}
