/* power_log.c: a client of a log, and the oracle that compares what is left with what it was told. */
#include "power_log.h"

#include "../../lib/log/control.c"
#include "log/cursor.h"

#include <criterion/criterion.h>
#include <sys/stat.h>

#define EVENTS_MAX 256u
#define LOOKS_MAX 64u

/* What the client was told, and when: by the number of changes made until then. */
struct event {
	uint64_t offset; /* UINT64_MAX: no receipt */
	size_t acked_at;
	unsigned batch; /* events with the same number other than 0 are an atomic batch */
};

/* What a reader saw, and when. */
struct look {
	uint64_t count;
	size_t at;
};

struct image {
	unsigned n[EVENTS_MAX];
	uint64_t count;
};

/* In memory that is shared with those who are killed. */
struct promises {
	struct event events[EVENTS_MAX];
	unsigned event_count;
	struct look looks[LOOKS_MAX];
	unsigned look_count;
};

static struct promises *promised;
struct topic log_topic;
static struct root log_root;
static unsigned boot;

/* ---- the client ---- */

void log_begin(void)
{
	if (!promised)
		promised = notes_share(sizeof *promised);
	memset(promised, 0, sizeof *promised);
}

static int other_boot(char id[36])
{
	char text[37];

	snprintf(text, sizeof text, "%036u", boot);
	memcpy(id, text, 36);
	return 0;
}

void restart_machine(void)
{
	boot++;
	os.boot_id = other_boot;
}

void log_open(const char *path, const struct evbus_topic_options *options)
{
	bool created;

	log_root = (struct root){ .fd = -1, .file_mode = 0600, .dir_mode = 0700 };
	log_topic = (struct topic){ .fd = -1 };
	CHECK_OK(root_open(&log_root, path, true, ERR));
	CHECK_OK(topic_create(&log_root, TOPIC, options, &log_topic, &created, ERR));
}

void log_close(void)
{
	topic_close(&log_topic);
	root_close(&log_root);
}

static void add_event(struct group *group, uint64_t offset, unsigned n, size_t pad)
{
	char payload[8192];
	int len = snprintf(payload, sizeof payload, "{\"n\":%u,\"pad\":\"%0*d\"}", n, (int)pad, 0);
	const struct line_body body = { .payload = { payload, (size_t)len } };

	CHECK_OK(group_add(group, &body, offset, os_now_us(), ERR));
}

/* Adds events that are numbered on; returns the first one's number. */
static unsigned add_events(struct group *group, const struct log_writer *writer, unsigned count, size_t pad)
{
	unsigned first = promised->event_count;

	for (unsigned i = 0; i < count; i++) {
		CHECK(promised->event_count < EVENTS_MAX, "too many events");
		add_event(group, writer->expected.next + i, promised->event_count, pad);
		promised->events[promised->event_count++] =
			(struct event){ UINT64_MAX, 0, group->atomic ? first + 1 : 0 };
	}
	return first;
}

bool log_publish(struct log_writer *writer, unsigned count, bool atomic, size_t pad)
{
	CLEANUP(group_release) struct group group = { .atomic = atomic };
	struct evbus_err err;
	struct mark mark = { 0 };

	unsigned first = add_events(&group, writer, count, pad);
	enum evbus_code code = writer_append(writer, &group, UINT64_MAX, &mark, &err);
	if (!code)
		code = writer_commit(writer, &mark, &group, &err);
	for (unsigned i = 0; i < count && !code; i++) {
		promised->events[first + i].offset = mark.first + i;
		promised->events[first + i].acked_at = disk_changes();
	}
	return !code;
}

void log_must_publish(struct log_writer *writer, unsigned count, bool atomic, size_t pad)
{
	CHECK(log_publish(writer, count, atomic, pad), "cannot publish");
}

void log_append(struct log_writer *writer, size_t pad)
{
	CLEANUP(group_release) struct group group = { 0 };
	struct mark mark;

	add_events(&group, writer, 1, pad);
	/* Who leads has to commit. */
	writer->alone = false;
	CHECK_OK(writer_append(writer, &group, UINT64_MAX, &mark, ERR));
}

/* ---- the oracle ---- */

static void read_log(struct image *image, const char *when)
{
	CLEANUP(cursor_close) struct cursor cursor = { .fd = -1, .control = { .fd = -1 } };
	struct line line;
	bool got = true;

	image->count = 0;
	CHECK_OK(cursor_open(&log_topic, 0, 65536, &cursor, ERR));
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

/* Whether n stands in a batch, and the batch is whole around it. */
static void check_batch(const struct image *image, uint64_t i, const char *when)
{
	const struct event *events = promised->events;
	unsigned n = image->n[i], batch = events[n].batch, first = batch - 1;

	if (!batch)
		return;
	CHECK(i >= n - first && image->n[i - (n - first)] == first, "%s: a batch has no beginning", when);
	bool last = n + 1 == promised->event_count || events[n + 1].batch != batch;
	CHECK(last || (i + 1 < image->count && image->n[i + 1] == n + 1), "%s: a batch has no end", when);
}

/* Whether all that was acknowledged or seen until then is where it was, in order, and batches are whole. */
static void check_image(const struct image *image, size_t changes, const char *when)
{
	for (unsigned n = 0; n < promised->event_count; n++) {
		const struct event *event = &promised->events[n];
		if (event->offset == UINT64_MAX || event->acked_at > changes)
			continue;
		CHECK(event->offset < image->count && image->n[event->offset] == n,
		      "%s: event %u was acknowledged at offset %ju and is not there", when, n,
		      (uintmax_t)event->offset);
	}
	for (unsigned i = 0; i < promised->look_count; i++)
		CHECK(promised->looks[i].at > changes || promised->looks[i].count <= image->count,
		      "%s: a reader saw %ju events, and %ju are there", when, (uintmax_t)promised->looks[i].count,
		      (uintmax_t)image->count);
	for (uint64_t i = 0; i < image->count; i++) {
		unsigned n = image->n[i];
		CHECK(n < promised->event_count && (i == 0 || n > image->n[i - 1]), "%s: event %u at offset %ju", when,
		      n, (uintmax_t)i);
		check_batch(image, i, when);
	}
}

static void check_prefix(const struct image *before, const struct image *after)
{
	CHECK(after->count >= before->count && !memcmp(before->n, after->n, before->count * sizeof *before->n),
	      "what a reader saw is gone");
}

void mend_page(const char *path)
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
		uint32_t before = copy->checksum;
		if (before != cell_checksum(page.head.page_id, &copy->cell))
			continue;
		copy->cell.ino = disk_built_inode(copy->cell.ino);
		copy->checksum = cell_checksum(page.head.page_id, &copy->cell);
		if (i / 2 == CONTROL_DURABLE && page.flag[CONTROL_SYNCING] == before)
			page.flag[CONTROL_SYNCING] = copy->checksum;
	}
	CHECK(pwrite(fd, &page, sizeof page, 0) == (ssize_t)sizeof page, "cannot write the page");
}

void log_look(void)
{
	static struct image image;

	read_log(&image, "while the power is on");
	CHECK(promised->look_count < LOOKS_MAX, "too many looks");
	promised->looks[promised->look_count++] = (struct look){ image.count, disk_changes() };
}

void log_go_on(const char *path, unsigned count, size_t pad)
{
	struct log_writer writer;

	log_open(path, NULL);
	CHECK_OK(writer_open(&log_topic, 0, NULL, &writer, ERR));
	log_look();
	for (unsigned i = 0; i < count; i++)
		log_must_publish(&writer, 1, false, pad);
	writer_close(&writer);
	log_look();
	log_close();
}

/* ---- after a cut ---- */

static bool has_topic(const char *bus)
{
	char path[96];
	struct stat st;

	snprintf(path, sizeof path, "%s/" TOPIC "/topic.json", bus);
	return !stat(path, &st);
}

/* What is there, read, recovered, written to, read. */
static void check_bus(const char *path, size_t changes)
{
	static struct image seen, recovered, after;
	struct log_writer writer;
	char bus[64];

	restart_machine();
	snprintf(bus, sizeof bus, "%s/bus", path);
	seen.count = 0;
	bool there = has_topic(bus);
	log_open(bus, NULL);
	if (there)
		read_log(&seen, "at first");
	check_image(&seen, changes, "at first");
	CHECK_OK(writer_open(&log_topic, 0, NULL, &writer, ERR));
	read_log(&recovered, "after recovery");
	check_image(&recovered, changes, "after recovery");
	check_prefix(&seen, &recovered);
	if (disk_is_recording())
		log_look();
	CHECK(log_publish(&writer, 1, false, 20), "publishing fails after recovery");
	read_log(&after, "after publishing");
	check_image(&after, changes, "after publishing");
	check_prefix(&recovered, &after);
	CHECK(after.count == recovered.count + 1, "publishing after recovery added %ju",
	      (uintmax_t)(after.count - recovered.count));
	writer_close(&writer);
	log_close();
}

void log_ready(const char *path)
{
	char page[96];

	snprintf(page, sizeof page, "%s/bus/" TOPIC "/partition=0.lock", path);
	mend_page(page);
}

void log_check(const char *path, size_t changes)
{
	unsigned before = promised->event_count;

	check_bus(path, changes);
	promised->event_count = before;
}

void log_recover(const char *path, size_t changes)
{
	static struct promises own;

	own = *promised;
	promised = &own;
	for (unsigned n = 0; n < promised->event_count; n++) {
		if (promised->events[n].acked_at > changes)
			promised->events[n].offset = UINT64_MAX;
		promised->events[n].acked_at = 0;
	}
	for (unsigned i = 0; i < promised->look_count; i++) {
		if (promised->looks[i].at > changes)
			promised->looks[i].count = 0;
		promised->looks[i].at = 0;
	}
	check_bus(path, 0);
}
