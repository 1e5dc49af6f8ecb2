/* The power goes, at every change that was made on the way to the disk, and leaves what a disk may leave. Then the log
 * is read, recovered, written to and read again, and in some of the states the power goes once more while it recovers. */
#include "disk.h"
#include "fault.h"

#include "../../lib/log/control.c"
#include "log/cursor.h"
#include "log/writer.h"

#include <criterion/criterion.h>
#include <sys/stat.h>
#include <sys/wait.h>

TestSuite(power, .timeout = 600);

#define EVENTS_MAX 256u
#define REGULAR_VARIANTS 6u              /* of each moment, besides those that are drawn; disk_build.c */

/* What the client was told, and when: by the number of changes made until then. */
struct event {
	uint64_t offset;                 /* UINT64_MAX: no receipt */
	size_t acked_at;
	unsigned batch;                  /* events with the same number other than 0 are an atomic batch */
};

static struct event events[EVENTS_MAX];
static unsigned event_count;
static struct root root;
static struct topic topic;
static struct log_writer writers[2];
static uint64_t states, expected;
static unsigned boot;

/* ---- the client ---- */

static int other_boot(char id[36])
{
	char text[37];

	snprintf(text, sizeof text, "%036u", boot);
	memcpy(id, text, 36);
	return 0;
}

static void restart_machine(void)
{
	boot++;
	os.boot_id = other_boot;
}

static void open_log(const char *path, uint64_t segment_max_bytes)
{
	const struct evbus_topic_options options = { .segment_max_bytes = segment_max_bytes };
	bool created;

	root = (struct root){ .fd = -1, .file_mode = 0600, .dir_mode = 0700 };
	topic = (struct topic){ .fd = -1 };
	CHECK_OK(root_open(&root, path, true, ERR));
	CHECK_OK(topic_create(&root, TOPIC, &options, &topic, &created, ERR));
}

static void close_log(void)
{
	topic_close(&topic);
	root_close(&root);
}

static void add_event(struct group *group, uint64_t offset, unsigned n, size_t pad)
{
	char payload[8192];
	int len = snprintf(payload, sizeof payload, "{\"n\":%u,\"pad\":\"%0*d\"}", n, (int)pad, 0);
	const struct line_body body = { .payload = { payload, (size_t)len } };

	CHECK_OK(group_add(group, &body, offset, os_now_us(), ERR));
}

/* Publishes events that are numbered on; false: it failed. */
static bool publish(struct log_writer *writer, unsigned count, bool atomic, size_t pad)
{
	CLEANUP(group_release) struct group group = { .atomic = atomic };
	unsigned first = event_count;
	struct evbus_err err;
	struct mark mark = { 0 };

	for (unsigned i = 0; i < count; i++) {
		CHECK(event_count < EVENTS_MAX, "too many events");
		add_event(&group, writer->expected.next + i, event_count, pad);
		events[event_count++] = (struct event){ UINT64_MAX, 0, atomic ? first + 1 : 0 };
	}
	enum evbus_code code = writer_append(writer, &group, UINT64_MAX, &mark, &err);
	if (!code)
		code = writer_commit(writer, &mark, &group, &err);
	for (unsigned i = 0; i < count && !code; i++) {
		events[first + i].offset = mark.first + i;
		events[first + i].acked_at = disk_changes();
	}
	return !code;
}

/* ---- the oracle ---- */

struct image {
	unsigned n[EVENTS_MAX];
	uint64_t count;
};

static void read_log(struct image *image, const char *when)
{
	CLEANUP(cursor_close) struct cursor cursor = { .fd = -1, .control = { .fd = -1 } };
	struct line line;
	bool got = true;

	image->count = 0;
	CHECK_OK(cursor_open(&topic, 0, 65536, &cursor, ERR));
	while (got) {
		struct evbus_err err = { 0 };
		enum evbus_code code = cursor_next(&cursor, UINT64_MAX, &line, &got, &err);
		CHECK(!code, "%s: reading fails with %d: %s", when, (int)code, err.text);
		if (!got)
			break;
		CHECK(line.offset == image->count && image->count < EVENTS_MAX, "%s: offset %ju at %ju", when,
		      (uintmax_t)line.offset, (uintmax_t)image->count);
		image->n[image->count++] = (unsigned)number_at(line.payload.data + 5);
	}
}

/* Whether all that was acknowledged until then is where it was, in order, and batches are whole. */
static void check_image(const struct image *image, size_t changes, const char *when)
{
	for (unsigned n = 0; n < event_count; n++) {
		const struct event *event = &events[n];
		if (event->offset == UINT64_MAX || event->acked_at > changes)
			continue;
		CHECK(event->offset < image->count && image->n[event->offset] == n,
		      "%s: event %u was acknowledged at offset %ju and is not there", when, n, (uintmax_t)event->offset);
	}
	for (uint64_t i = 0; i < image->count; i++) {
		unsigned n = image->n[i], batch = n < event_count ? events[n].batch : 0;
		CHECK(n < event_count && (i == 0 || n > image->n[i - 1]), "%s: event %u at offset %ju", when, n,
		      (uintmax_t)i);
		if (!batch)
			continue;
		unsigned first = batch - 1;
		CHECK(i >= n - first && image->n[i - (n - first)] == first, "%s: a batch has no beginning", when);
		CHECK(i + 1 == image->count ? n + 1 == event_count || events[n + 1].batch != batch :
					      n + 1 == event_count || events[n + 1].batch != batch || image->n[i + 1] == n + 1,
		      "%s: a batch has no end", when);
	}
}

static void check_prefix(const struct image *before, const struct image *after)
{
	CHECK(after->count >= before->count && !memcmp(before->n, after->n, before->count * sizeof *before->n),
	      "what a reader saw is gone");
}

/* A real disk keeps the inodes of its files, and the control page goes by them: it is told those that the copies have. */
static void mend_page(const char *path)
{
	CLEANUP(os_close_cleanup) int fd = open(path, O_RDWR | O_CLOEXEC);
	struct page page;
	struct statx stx;

	if (fd < 0 || pread(fd, &page, sizeof page, 0) != (ssize_t)sizeof page ||
	    page.head.checksum != head_checksum(&page.head))
		return;
	struct control control = { .fd = fd, .birth_s = 0 };
	CHECK(!statx(fd, "", AT_EMPTY_PATH, STATX_BTIME | STATX_INO, &stx), "statx fails");
	CHECK_OK(identify(&control, path, ERR));
	/* Was it the page of the file that it lay in? Else it is a page of none. */
	if (disk_built_inode(page.head.ino) != stx.stx_ino)
		return;
	page.head.dev = control.id.dev;
	page.head.ino = control.id.ino;
	page.head.birth_s = control.birth_s;
	page.head.birth_ns = control.birth_ns;
	page.head.checksum = head_checksum(&page.head);
	for (int i = 0; i < 4; i++) {
		struct page_copy *copy = &page.cell[i / 2].copy[i % 2];
		if (copy->checksum != copy_checksum(&page.head, copy))
			continue;
		copy->cell.ino = disk_built_inode(copy->cell.ino);
		copy->checksum = copy_checksum(&page.head, copy);
	}
	CHECK(pwrite(fd, &page, sizeof page, 0) == (ssize_t)sizeof page, "cannot write the page");
}

/* What is there, read, recovered, written to, read. changes: receipts that were given until then count. again: this is
 * recorded, and the power will go once more. */
static void check_bus(const char *path, size_t changes, bool again)
{
	static struct image seen, recovered, after;
	struct log_writer writer;
	unsigned events_before = event_count;
	char bus[64];
	struct stat st;

	restart_machine();
	snprintf(bus, sizeof bus, "%s/bus/" TOPIC "/partition=0.lock", path);
	mend_page(bus);
	snprintf(bus, sizeof bus, "%s/bus/" TOPIC "/topic.json", path);
	bool there = !stat(bus, &st);
	snprintf(bus, sizeof bus, "%s/bus", path);
	open_log(bus, 0);
	if (there) {
		read_log(&seen, "at first");
		check_image(&seen, changes, "at first");
	}
	CHECK_OK(writer_open(&topic, 0, &writer, ERR));
	read_log(&recovered, "after recovery");
	check_image(&recovered, changes, "after recovery");
	if (there)
		check_prefix(&seen, &recovered);
	CHECK(publish(&writer, 1, false, 20), "publishing fails after recovery");
	if (!again)
		events[event_count - 1].acked_at = 0;
	read_log(&after, "after publishing");
	check_image(&after, changes, "after publishing");
	check_prefix(&recovered, &after);
	CHECK(after.count == recovered.count + 1, "publishing after recovery added %ju",
	      (uintmax_t)(after.count - recovered.count));
	writer_close(&writer);
	close_log();
	event_count = again ? event_count : events_before;
}

/* ---- states ---- */

static void empty(const char *path)
{
	if (!access(path, F_OK))
		run_remove(path);
	CHECK(!mkdir(path, 0700), "cannot make '%s'", path);
}

static const char *twice = "";           /* where the first crash was */

static void check_state(size_t changes, unsigned variant, uint64_t seed, const char *path)
{
	snprintf(run.where, sizeof run.where, "%safter change %zu, variant %u, drawn by %ju: ", twice, changes, variant,
		 (uintmax_t)seed);
	empty(path);
	disk_build(changes, variant, seed, path);
	check_bus(path, changes, false);
	states++;
	run.where[0] = '\0';
}

/* All moments from the first on, each in every regular variant and in some that are drawn. */
static void check_states(size_t first, unsigned drawn, const char *path)
{
	size_t end = disk_changes();

	for (size_t i = first; i <= end; i++) {
		unsigned variants = disk_uncertain(i) ? REGULAR_VARIANTS + drawn : 1;
		expected += variants;
		for (unsigned variant = 0; variant < variants; variant++)
			check_state(i, variant, run.seed * 1000003 + i * 1009 + variant, path);
	}
}

/* In a child, which has the memory to itself: the recovery of a state is recorded, and the power goes in it. */
static void crash_in_recovery(size_t changes, unsigned variant, uint64_t seed)
{
	static char first[96];

	snprintf(first, sizeof first, "change %zu, variant %u, drawn by %ju, then ", changes, variant, (uintmax_t)seed);
	twice = first;
	empty("again");
	disk_build(changes, variant, seed, "again");
	for (unsigned n = 0; n < event_count; n++) {
		if (events[n].acked_at > changes)
			events[n].offset = UINT64_MAX;
		events[n].acked_at = 0;
	}
	mend_page("again/bus/" TOPIC "/partition=0.lock");
	disk_record("again");
	size_t begin = disk_changes();
	check_bus("again", 0, true);
	disk_stop();
	check_states(begin, 2, "once more");
}

struct tally {
	uint64_t states, expected;
};

static void crash_twice(struct tally *tally, unsigned count)
{
	uint64_t random = run.seed;
	size_t end = disk_changes();

	for (unsigned i = 0; i < count; i++) {
		size_t changes = 1 + random_next(&random) % end;
		unsigned variant = (unsigned)(random_next(&random) % (REGULAR_VARIANTS + 4));
		uint64_t seed = random_next(&random);
		pid_t child = fork();
		CHECK(child >= 0, "cannot fork");
		if (!child) {
			states = expected = 0;
			crash_in_recovery(changes, variant, seed);
			tally->states += states;
			tally->expected += expected;
			_exit(0);
		}
		int status;
		CHECK(waitpid(child, &status, 0) == child && status == 0,
		      "a second crash: %s", notes->why);
	}
}

static void begin(void)
{
	run_begin(IN_MEMORY);
	notes_new(1, 1, 0, 1);
	CHECK(!mkdir("live", 0700), "cannot make a directory");
	disk_record("live");
	event_count = 0;
	states = expected = 0;
}

static void end(const char *what)
{
	struct tally *tally = notes_share(sizeof *tally);

	disk_stop();
	check_states(0, run_count(40, 4), "state");
	crash_twice(tally, run_count(40, 4));
	run_ran(what, states + tally->states, expected + tally->expected);
	run_end();
}

/* ---- what happened before ---- */

Test(power, goes_while_single_events_are_published)
{
	begin();
	open_log("live/bus", 0);
	CHECK_OK(writer_open(&topic, 0, &writers[0], ERR));
	for (unsigned i = 0; i < 6; i++)
		CHECK(publish(&writers[0], 1, false, 10 + 100 * i), "cannot publish");
	writer_close(&writers[0]);
	close_log();
	end("single events");
}

Test(power, goes_while_groups_and_atomic_batches_are_published)
{
	begin();
	open_log("live/bus", 0);
	CHECK_OK(writer_open(&topic, 0, &writers[0], ERR));
	for (unsigned i = 0; i < 6; i++)
		CHECK(publish(&writers[0], 2 + i, i % 2, 300), "cannot publish");
	writer_close(&writers[0]);
	close_log();
	end("groups and batches");
}

Test(power, goes_while_segments_are_rolled)
{
	begin();
	open_log("live/bus", 4096);
	CHECK_OK(writer_open(&topic, 0, &writers[0], ERR));
	for (unsigned i = 0; i < 8; i++)
		CHECK(publish(&writers[0], 2, i % 3 == 2, 600), "cannot publish");
	writer_close(&writers[0]);
	close_log();
	end("rolls");
}

/* Each sync in turn fails: what it should have covered is given up, its offsets are used again. */
Test(power, goes_after_a_sync_failed)
{
	begin();
	open_log("live/bus", 0);
	CHECK_OK(writer_open(&topic, 0, &writers[0], ERR));
	CHECK_OK(writer_open(&topic, 0, &writers[1], ERR));
	for (unsigned i = 0; i < 8; i++) {
		disk_fail_syncs(0, i % 2);
		bool done = publish(&writers[i / 2 % 2], 1 + i % 3, false, 200);
		CHECK(done == (i % 2 == 0), "publishing with a failed sync: %d", done);
	}
	writer_close(&writers[0]);
	writer_close(&writers[1]);
	close_log();
	end("failed syncs");
}

/* The writer is killed between its append and its sync, or its lock file is removed: the next one recovers. */
Test(power, goes_after_writers_came_and_went)
{
	begin();
	for (unsigned i = 0; i < 4; i++) {
		open_log("live/bus", 0);
		CHECK_OK(writer_open(&topic, 0, &writers[0], ERR));
		CHECK(publish(&writers[0], 1 + i, i == 2, 150), "cannot publish");
		writer_close(&writers[0]);
		if (i % 2)
			CHECK(!os.unlinkat(topic.fd, "partition=0.lock", 0), "cannot remove the lock file");
		close_log();
	}
	end("writers that came and went");
}
