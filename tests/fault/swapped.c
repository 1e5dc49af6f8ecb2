/* What is no file of ours is exchanged with each file of a bus, and back, while it is published to, read and consumed
 * from: links, FIFOs, directories, other names of files elsewhere. Whoever meets one is told so and goes on afterwards;
 * nobody waits for a FIFO, nothing outside of the bus is written, no receipt is a lie. */
#include "fault.h"

#include "log/segment.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <sys/wait.h>

#define WRITERS 2u
#define LATE (WRITERS + 1)
#define EVENTS 200000u
#define STATE "bus/.evbus"
#define HELD_MAX_US 3000
#define STUCK_US 20000000

static void setup(void)
{
	run_begin(IN_MEMORY);
}

TestSuite(swapped, .init = setup, .fini = run_end, .timeout = 300);

/* ---- things ---- */

static const char *const places[] = {
	"bus/" TOPIC,
	"bus/" TOPIC "/topic.json",
	"bus/" TOPIC "/partition=0.jsonl",
	"bus/" TOPIC "/partition=0.lock",
	"bus/" TOPIC "/partition=0",
	"bus/" TOPIC "/partition=0/00000000000000000000.jsonl",
	"bus/" TOPIC "/keys.lock",
	STATE,
	STATE "/state.db",
	STATE "/state.db-journal",
	STATE "/claims",
	STATE "/claims/g",
	STATE "/claims/g/" TOPIC "=0",
};
#define PLACES (sizeof places / sizeof *places)

enum thing {
	LINK_TO_FILE,
	LINK_TO_DIRECTORY,
	LINK_TO_NOTHING,
	LINK_TO_ITSELF,
	PIPE,
	OTHER, /* a directory for a file, a file for a directory */
	HARD_LINK,
	THINGS,
};

static const char outside_text[] = "what is outside\n";

static void make_file(const char *path)
{
	FILE *file = fopen(path, "w");

	CHECK(file && fputs(outside_text, file) >= 0 && !fclose(file), "%s: %s", path, strerror(errno));
}

/* A directory that has all names in it that a bus could look for. */
static void make_outside(void)
{
	static const char names[][32] = {
		"file",     "topic.json",       "partition=0.jsonl", "partition=0.lock",          "keys.lock",
		"state.db", "state.db-journal", "orders=0",          "00000000000000000000.jsonl"
	};
	char path[PATH_MAX];

	CHECK(!mkdir("outside", 0700), "mkdir: %s", strerror(errno));
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		snprintf(path, sizeof path, "outside/%s", names[i]);
		make_file(path);
	}
}

static unsigned check_outside(void)
{
	DIR *dir = opendir("outside");
	char path[PATH_MAX], text[64];
	unsigned files = 0;

	CHECK(dir, "outside: %s", strerror(errno));
	for (struct dirent *entry; (entry = readdir(dir));) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "outside/%s", entry->d_name);
		FILE *file = fopen(path, "r");
		size_t len = file ? fread(text, 1, sizeof text, file) : 0;
		CHECK(len == sizeof outside_text - 1 && !memcmp(text, outside_text, len), "'%s' was written to", path);
		fclose(file);
		files++;
	}
	closedir(dir);
	return files;
}

static void make_thing(const char *place, enum thing thing)
{
	struct stat st;
	char file[PATH_MAX + 64], dir[PATH_MAX + 64];

	snprintf(file, sizeof file, "%s/outside/file", run.dir);
	snprintf(dir, sizeof dir, "%s/outside", run.dir);
	/* SQLite removes its journal now and then. */
	CHECK(!mknod(place, S_IFREG | 0600, 0) || errno == EEXIST, "'%s': %s", place, strerror(errno));
	CHECK(!lstat(place, &st), "'%s': %s", place, strerror(errno));
	if (thing == OTHER && S_ISDIR(st.st_mode)) {
		make_file("thing");
		return;
	}
	int failed = thing == LINK_TO_FILE        ? symlink(file, "thing")
		     : thing == LINK_TO_DIRECTORY ? symlink(dir, "thing")
		     : thing == LINK_TO_NOTHING   ? symlink("nothing", "thing")
		     : thing == LINK_TO_ITSELF    ? symlink("thing", "thing")
		     : thing == PIPE              ? mkfifo("thing", 0600)
		     : thing == OTHER             ? mkdir("thing", 0700)
						  : link(file, "thing");
	CHECK(!failed, "thing %d: %s", thing, strerror(errno));
}

/* ---- who meets them ---- */

enum { WRITE, WRITE_ONCE, READ, CONSUME, ROLES };
static const char *const roles[ROLES] = { "publishes", "publishes once", "reads", "consumes" };

static _Atomic uint64_t *turn_of(unsigned role)
{
	return &notes->counters[role];
}
static _Atomic uint64_t *refused_to(unsigned role)
{
	return &notes->counters[ROLES + role];
}

/* Whoever meets a thing is told what it is, or what is not there; a bus that works says EVBUS_OK. */
static void judge(unsigned role, enum evbus_code code, const struct evbus_err *err)
{
	bool allowed = code == EVBUS_OK || code == EVBUS_CONFLICT || code == EVBUS_NONE || code == EVBUS_AGAIN ||
		       code == EVBUS_IO || code == EVBUS_CANTCREATE || code == EVBUS_PERMISSION;

	CHECK(allowed, "who %s is told %d: %s", roles[role], (int)code, err->text);
	CHECK(!code || *err->text, "who %s is told nothing, with %d", roles[role], (int)code);
	if (code && getenv("EVBUS_TEST_TELL"))
		fprintf(stderr, "who %s: %d: %s\n", roles[role], (int)code, err->text);
	atomic_fetch_add(turn_of(role), 1);
	atomic_fetch_add(refused_to(role), code != EVBUS_OK);
}

static enum evbus_code with_bus(unsigned role, uint64_t turn, struct evbus *bus, struct evbus_err *err);

static void play(unsigned role)
{
	struct evbus_err err = { 0 };
	struct evbus *bus = open_bus();

	for (uint64_t turn = 1; turn < EVENTS && !atomic_load(&notes->stop); turn++) {
		judge(role, with_bus(role, turn, bus, &err), &err);
		/* Handles that live long, and such that do not. */
		if (turn % 8 == 0) {
			evbus_close(bus);
			bus = open_bus();
		}
	}
	evbus_close(bus);
}

static enum evbus_code publish_once(uint64_t turn, struct evbus *bus, struct evbus_err *err)
{
	struct evbus_publisher_options options = { .idempotent = true, .event_key_from = "/event" };
	const struct evbus_record *receipt;
	struct evbus_publisher *publisher;
	char payload[PAYLOAD_MAX];
	struct evbus_event event = { .topic = TOPIC, .partition_id = EVBUS_PARTITION_ANY };

	event.payload = (struct evbus_slice){ payload, payload_make(payload, WRITE_ONCE, turn, 0, 1) };
	atomic_store(&notes->submitted[WRITE_ONCE], turn + 1);
	enum evbus_code code = evbus_publisher_open(bus, &options, &publisher, err);
	if (code)
		return code;
	code = evbus_publisher_add(publisher, &event, err);
	if (!code)
		code = evbus_publisher_flush(publisher, err);
	while ((receipt = evbus_publisher_next(publisher)))
		note_receipt(WRITE_ONCE, turn, receipt);
	evbus_publisher_close(publisher);
	return code;
}

static enum evbus_code read_all(struct evbus *bus, struct evbus_err *err)
{
	struct evbus_selection selection = { .topic = TOPIC, .partition_id = EVBUS_PARTITION_ALL };
	const struct evbus_record *record;
	struct evbus_reader *reader;
	unsigned writer, at, of;
	uint64_t event, next = 0, offset;
	enum evbus_code code = evbus_reader_open(bus, &selection, &reader, err);

	if (code)
		return code;
	while (!(code = evbus_reader_next(reader, 0, &record, err)) && record) {
		CHECK(payload_parse(record->payload, &writer, &event, &at, &of), "a reader got the payload %.*s",
		      (int)record->payload.len, record->payload.data);
		CHECK(decimal_parse(record->offset, &offset) && offset == next++, "a reader got offset %.*s, not %llu",
		      (int)record->offset.len, record->offset.data, (unsigned long long)next - 1);
	}
	evbus_reader_close(reader);
	return code;
}

static enum evbus_code consume_some(struct evbus *bus, struct evbus_err *err)
{
	struct evbus_consumer_options options = {
		.group = "g", .topic = TOPIC, .partition_id = EVBUS_PARTITION_ALL, .retry = { 2, 1, 2, 5 }
	};
	struct evbus_consumer *consumer;
	struct evbus_delivery *delivery;
	enum evbus_code code = evbus_consumer_open(bus, &options, &consumer, err);

	if (code)
		return code;
	for (int i = 0; !code && i < 20 && !evbus_consumer_finished(consumer); i++) {
		code = evbus_consumer_next(consumer, 0, &delivery, err);
		if (!code && delivery)
			code = evbus_consumer_done(consumer, delivery, err);
	}
	if (!code)
		code = evbus_consumer_commit(consumer, err);
	evbus_consumer_close(consumer);
	return code;
}

static enum evbus_code with_bus(unsigned role, uint64_t turn, struct evbus *bus, struct evbus_err *err)
{
	switch (role) {
	case WRITE:
		return try_one(bus, WRITE, turn, err);
	case WRITE_ONCE:
		return publish_once(turn, bus, err);
	case READ:
		return read_all(bus, err);
	default:
		return consume_some(bus, err);
	}
}

/* ---- swapping ---- */

/* SQLite opens its journal by its path, each time, and does not look what it opens: what comes between our look and its
 * open is not noticed. Before that it is: tests/cli/filetypes.sh. */
static bool is_noticed(const char *place, enum thing thing)
{
	if (!strcmp(place, STATE "/state.db-journal"))
		return thing != PIPE && thing != HARD_LINK;
	/* And its directory, to sync it. */
	return strcmp(place, STATE) != 0 || (thing != LINK_TO_DIRECTORY && thing != PIPE);
}
#define NOT_NOTICED 4u

static uint64_t seen[ROLES];
static int64_t seen_us[ROLES];

static void check_alive(const char *place, enum thing thing)
{
	for (unsigned role = 0; role < ROLES; role++) {
		uint64_t turn = atomic_load(turn_of(role));
		if (turn != seen[role] || !seen_us[role]) {
			seen[role] = turn;
			seen_us[role] = now_us();
		}
		CHECK(now_us() - seen_us[role] < STUCK_US, "who %s hangs since thing %d was put in the place of '%s'",
		      roles[role], thing, place);
	}
	child_check();
}

static void exchange(const char *place)
{
	CHECK(!renameat2(AT_FDCWD, place, AT_FDCWD, "thing", RENAME_EXCHANGE), "'%s': %s", place, strerror(errno));
}

static void swap(const char *place, enum thing thing, uint64_t *dice)
{
	make_thing(place, thing);
	exchange(place);
	pause_us((int64_t)(random_next(dice) % HELD_MAX_US));
	exchange(place);
	run_remove("thing");
	check_alive(place, thing);
	pause_us((int64_t)(random_next(dice) % HELD_MAX_US));
}

static void join(unsigned role, pid_t child)
{
	siginfo_t ended = { 0 };

	for (int64_t begun_us = now_us(); !ended.si_pid; pause_us(1000)) {
		CHECK(!waitid(P_PID, (id_t)child, &ended, WEXITED | WNOHANG | WNOWAIT), "waitid: %s", strerror(errno));
		CHECK(now_us() - begun_us < STUCK_US, "who %s hangs at the end", roles[role]);
	}
	child_join(child);
}

/* By hand, and once: what is exchanged in the middle of a roll is rolled. */
static void roll(void)
{
	struct root root = { .fd = -1, .file_mode = 0600, .dir_mode = 0700 };
	struct topic topic;

	CHECK_OK(root_open(&root, "bus", false, ERR));
	CHECK_OK(topic_open(&root, TOPIC, &topic, ERR));
	CHECK_OK(segment_roll(&topic, 0, 0, ERR));
	topic_close(&topic);
	root_close(&root);
}

static void make_bus(void)
{
	make_topic(1, 0);
	struct evbus *bus = open_bus();
	for (uint64_t event = 0; event < 40; event++)
		CHECK_OK(try_one(bus, LATE, event, ERR));
	roll();
	CHECK_OK(publish_once(0, bus, ERR));
	CHECK_OK(consume_some(bus, ERR));
	evbus_close(bus);
}

Test(swapped, in_while_all_are_at_work_are_told_of_and_nothing_outside_is_written)
{
	unsigned rounds = run_count(15, 1), ran = 0;
	uint64_t dice = run.seed;
	pid_t children[ROLES];

	notes_new(LATE + 1, EVENTS, 0, 1);
	make_outside();
	unsigned files = check_outside();
	make_bus();
	for (unsigned role = 0; role < ROLES; role++)
		children[role] = child_start(play, role);
	for (unsigned round = 0; round < rounds; round++)
		for (size_t place = 0; place < PLACES; place++)
			for (int thing = 0; thing < THINGS; thing++)
				if (is_noticed(places[place], (enum thing)thing)) {
					swap(places[place], (enum thing)thing, &dice);
					ran++;
				}
	CHECK(check_outside() == files, "something was made outside");
	for (unsigned role = 0; role < ROLES; role++)
		seen[role] = atomic_load(refused_to(role));
	atomic_store(&notes->stop, true);
	for (unsigned role = 0; role < ROLES; role++)
		join(role, children[role]);
	for (unsigned role = 0; role < ROLES; role++)
		CHECK(seen[role] && seen[role] < atomic_load(turn_of(role)), "who %s was refused %llu of %llu times",
		      roles[role], (unsigned long long)seen[role], (unsigned long long)atomic_load(turn_of(role)));
	struct evbus *bus = open_bus();
	CHECK_OK(try_one(bus, LATE, 40, ERR));
	CHECK_OK(consume_some(bus, ERR));
	evbus_close(bus);
	check_everything();
	run_ran("swapped in and out", ran, (uint64_t)rounds * (13 * 7 - NOT_NOTICED));
}
