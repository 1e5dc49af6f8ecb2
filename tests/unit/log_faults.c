/* Any call fails while the log is in a state that is seldom: what is told is that call, nothing is acknowledged that is
 * not there, nothing is taken for damage, and whoever comes next goes on. */
#include "faulty.h"
#include "log/verify.h"
#include "log_helpers.h"

TestSuite(log_faults, .init = enter, .fini = leave, .timeout = 120);

#define FIRST 3u /* events before a scene begins, acknowledged */

struct scene {
	void (*make)(void);
	enum evbus_code (*act)(void);
	uint64_t records; /* that are there at least when it was done */
	uint64_t segment_bytes;
	bool damaged; /* which may be told; it is only read, and nobody goes on */
};

static struct log_writer writer, other;
static struct group group;
static struct mark mark;
static uint64_t needed; /* records that are seen by who reads */

static void init(void)
{
	writer.fd = writer.control.fd = other.fd = other.control.fd = -1;
	group = (struct group){ 0 };
}

static void close_writers(void)
{
	writer_close(&writer);
	writer_close(&other);
	group_release(&group);
	init();
}

/* A topic of its own, so that each call fails in the same state. */
static void begin_scene(const struct scene *scene)
{
	struct evbus_topic_options options = { .segment_max_bytes =
						       scene->segment_bytes ? scene->segment_bytes : 1000 };
	static unsigned scenes;
	char name[32];

	snprintf(name, sizeof name, "scene%u", scenes++);
	open_topic(name, &options);
	init();
	must_publish(0, FIRST);
	scene->make();
}

static void end_scene(void)
{
	close_writers();
	cr_assert(!fchdir(root.fd));
	scratch_remove(topic.name);
}

static void assert_goes_on(uint64_t least, const char *failed)
{
	static struct reading reading;

	close_writers();
	must_open(&writer);
	cr_assert_eq(publish(&writer, writer.expected.next), EVBUS_OK, "after %s: %s", failed, err.text);
	read_log(&reading);
	cr_assert_eq(reading.code, EVBUS_OK, "after %s: %s", failed, err.text);
	cr_assert_gt(reading.first + reading.count, least, "after %s: %ju", failed, (uintmax_t)reading.count);
	for (uint64_t i = 0; i < reading.count; i++)
		cr_assert_eq(reading.n[i], reading.first + i, "after %s", failed);
}

/* Of what is only a look, or wakes others, it may not depend whether it is done. Of a lock or a sync it does. */
static bool can_do_without(const char *call)
{
	static const char *const calls[] = { "fstatat", "pread", "pwrite", "realloc", "statx" };

	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
		if (!strcmp(call, calls[i]))
			return true;
	return false;
}

static bool fails_at(const struct scene *scene, unsigned at)
{
	if (!scene->damaged || at == 1)
		begin_scene(scene);
	needed = scene->records;
	faulty_begin(at, FAULTY_ANY);
	enum evbus_code code = scene->act();
	faulty_end();
	const char *failed = faulty.failed;
	bool told = failed && (code == EVBUS_IO || code == EVBUS_CANTCREATE) &&
		    (err.sys_errno == EIO || err.sys_errno == ENOMEM);
	bool damage = code == EVBUS_IO && scene->damaged && !err.sys_errno && strstr(err.text, "damaged");
	cr_assert(code == EVBUS_OK || told || damage, "call %u, %s: %d: %s", at, failed, (int)code, err.text);
	cr_assert(code || !failed || can_do_without(failed), "call %u, %s: is not told", at, failed);
	if (!scene->damaged)
		assert_goes_on(code && FIRST < scene->records ? FIRST : scene->records, failed);
	if (!scene->damaged || !failed)
		end_scene();
	return failed != NULL;
}

static void sweep(const struct scene *scene)
{
	unsigned at = 1;

	while (fails_at(scene, at))
		at += sweep_step();
	cr_assert_gt(at, 3u);
}

static void append(uint64_t n)
{
	group_clear(&group);
	add_event(&group, &writer, n, 0);
	cr_assert_eq(writer_append(&writer, &group, UINT64_MAX, &mark, &err), EVBUS_OK, "%s", err.text);
}

static void others_publish(uint64_t first, uint64_t count)
{
	must_open(&other);
	for (uint64_t i = 0; i < count; i++)
		cr_assert_eq(publish(&other, first + i), EVBUS_OK, "%s", err.text);
}

/* ---- committing ------------------------------------------------------------------------------------------------ */

static enum evbus_code commit(void)
{
	return writer_commit(&writer, &mark, &group, &err);
}

static void make_dead_leader(void)
{
	must_open(&writer);
	append(FIRST);
	set_flag(&writer.control, CONTROL_SYNCING, true);
}

Test(log_faults, of_finishing_for_a_leader_that_died)
{
	sweep(&(struct scene){ .make = make_dead_leader, .act = commit, .records = FIRST + 1 });
}

static void make_new_page(void)
{
	must_open(&writer);
	append(FIRST);
	cr_assert(!unlink(LOCK));
	others_publish(FIRST + 1, 1);
}

Test(log_faults, of_proving_an_event_under_another_page)
{
	sweep(&(struct scene){ .make = make_new_page, .act = commit, .records = FIRST + 2 });
}

static void make_new_page_and_roll(void)
{
	must_open(&writer);
	append(FIRST);
	cr_assert(!unlink(LOCK));
	others_publish(FIRST + 1, 8);
	cr_assert(is_there("partition=0"));
}

Test(log_faults, of_proving_an_event_in_a_segment_that_was_rolled)
{
	sweep(&(struct scene){ .make = make_new_page_and_roll, .act = commit, .records = FIRST + 9 });
}

/* ---- settling -------------------------------------------------------------------------------------------------- */

static enum evbus_code settle(void)
{
	struct control_view view;

	return writer_settle(&writer, &view, &err);
}

static void make_unsynced(void)
{
	must_open(&writer);
	must_open(&other);
	append_only(&other, FIRST);
}

static void make_halt(void)
{
	make_unsynced();
	set_flag(&writer.control, CONTROL_HALT, true);
}

static void make_roll(void)
{
	must_open(&writer);
	others_publish(FIRST, 8);
	cr_assert(is_there("partition=0"));
}

Test(log_faults, of_settling_what_others_have_left)
{
	sweep(&(struct scene){ .make = make_unsynced, .act = settle, .records = FIRST + 1 });
	sweep(&(struct scene){ .make = make_halt, .act = settle, .records = FIRST });
	sweep(&(struct scene){ .make = make_roll, .act = settle, .records = FIRST + 8 });
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

static enum evbus_code open_for_writing(void)
{
	return open_writer(&writer);
}

static enum evbus_code read_all(void)
{
	static struct reading reading;

	read_log(&reading);
	cr_assert(reading.code || reading.first + reading.count >= needed);
	return reading.code;
}

/* As it was at the last roll, between the exchange of the files and what the page says of it. */
static struct buf page_at_roll;

static void keep_page(const char *name)
{
	if (strcmp(name, "roll/exchanged") != 0)
		return;
	buf_release(&page_at_roll);
	page_at_roll = load(LOCK);
}

static void make_dead_roll(void)
{
	os.point = keep_page;
	others_publish(FIRST, 8);
	os.point = real_os.point;
	close_writers();
	store_buf(LOCK, &page_at_roll);
	buf_release(&page_at_roll);
}

Test(log_faults, of_finishing_a_roll)
{
	sweep(&(struct scene){ .make = make_dead_roll, .act = open_for_writing, .records = FIRST + 8 });
	sweep(&(struct scene){ .make = make_dead_roll, .act = read_all, .records = FIRST + 8 });
}

static void make_old_page(void)
{
	CLEANUP(buf_release) struct buf page = load(LOCK);

	others_publish(FIRST, 16);
	close_writers();
	store_buf(LOCK, &page);
}

static void make_old_durable(void)
{
	struct control_view before, now;

	cr_assert_eq(read_view(&before), CONTROL_OURS);
	others_publish(FIRST, 16);
	close_writers();
	cr_assert_eq(read_view(&now), CONTROL_OURS);
	cr_assert_gt(now.end.base, before.durable.next);
	make_page(&now.end, &before.durable);
}

Test(log_faults, of_finding_a_page_of_before_a_roll)
{
	sweep(&(struct scene){ .make = make_old_page, .act = open_for_writing, .records = FIRST + 16 });
	sweep(&(struct scene){ .make = make_old_page, .act = read_all, .records = FIRST + 16 });
	sweep(&(struct scene){ .make = make_old_durable, .act = open_for_writing, .records = FIRST + 16 });
}

static void append_bytes(const char *path, const char *text)
{
	FILE *file = fopen(path, "ab");

	cr_assert(file && fputs(text, file) >= 0 && !fclose(file));
}

static void make_torn(void)
{
	append_bytes(LIVE, "{\"offset\":");
	cr_assert(!unlink(LOCK));
}

Test(log_faults, of_finding_an_interrupted_write_without_a_page)
{
	sweep(&(struct scene){ .make = make_torn, .act = open_for_writing, .records = FIRST });
	sweep(&(struct scene){ .make = make_torn, .act = read_all, .records = FIRST });
}

/* More than was ever unsynced. */
static void make_big(void)
{
	must_open(&writer);
	cr_assert_eq(publish_group(&writer, FIRST, 6, false, 900000), EVBUS_OK, "%s", err.text);
	close_writers();
	cr_assert(!unlink(LOCK));
}

Test(log_faults, of_finding_where_to_begin_in_a_big_log_without_a_page)
{
	struct scene scene = { .make = make_big, .records = FIRST + 6, .segment_bytes = 1u << 30 };

	scene.act = open_for_writing;
	sweep(&scene);
	scene.act = read_all;
	sweep(&scene);
}

/* ---- damage ---------------------------------------------------------------------------------------------------- */

#define LONG_BYTES (2 * LINE_MAX_BYTES + 10)

/* In the place of the i-th line; so long that its end is not read with what tells that it is too long. */
static void put_long_line(const char *path, size_t i)
{
	CLEANUP(buf_release) struct buf file = load(path), damaged = { 0 };
	CLEANUP(free_cleanup) char *junk = malloc(LONG_BYTES);
	size_t at = line_at(&file, i), behind = line_at(&file, i + 1);

	cr_assert_not_null(junk);
	memset(junk, 'x', LONG_BYTES);
	add(&damaged, file.data, at);
	add(&damaged, junk, LONG_BYTES);
	add(&damaged, "\n", 1);
	add(&damaged, file.data + behind, file.len - behind);
	store_buf(path, &damaged);
}

static void make_long(void)
{
	put_long_line(LIVE, 1);
	cr_assert(!unlink(LOCK));
}

static void make_long_with_page(void)
{
	struct control_view view;
	struct stat st;

	cr_assert_eq(read_view(&view), CONTROL_OURS);
	put_long_line(LIVE, 1);
	cr_assert(!stat(LIVE, &st));
	view.end.bytes = (uint64_t)st.st_size;
	make_page(&view.end, &view.end);
}

static void make_long_first(void)
{
	put_long_line(LIVE, 0);
	cr_assert(!unlink(LOCK));
}

static void make_long_last(void)
{
	put_long_line(LIVE, 2);
	cr_assert(!unlink(LOCK));
}

/* The last line of the last older segment. */
static void make_long_older(void)
{
	CLEANUP(segments_release) struct segments older = { 0 };
	char path[SEGMENT_PATH_MAX];

	others_publish(FIRST, 8);
	close_writers();
	cr_assert_eq(segments_list(&topic, 0, &older, &err), EVBUS_OK);
	cr_assert_gt(older.count, 0u);
	segment_path(0, older.bases[older.count - 1], path);
	CLEANUP(buf_release) struct buf file = load(path);
	size_t lines = 0;
	for (size_t i = 0; i < file.len; i++)
		lines += file.data[i] == '\n';
	put_long_line(path, lines - 1);
	cr_assert(!unlink(LOCK));
}

Test(log_faults, of_finding_what_is_longer_than_a_line)
{
	struct scene scene = { .act = read_all, .damaged = true };

	scene.make = make_long;
	sweep(&scene);
	scene.make = make_long_first;
	sweep(&scene);
	scene.make = make_long_older;
	sweep(&scene);
	scene.make = make_long_last;
	scene.records = 2;
	sweep(&scene);
}

/* The line behind it. */
static enum evbus_code seek_past(void)
{
	CLEANUP(cursor_close) struct cursor cursor;
	struct line line;
	bool got;

	TRY(cursor_open(&topic, 0, 65536, &cursor, &err));
	TRY(cursor_seek(&cursor, 2, &err));
	TRY(cursor_next(&cursor, UINT64_MAX, &line, &got, &err));
	cr_assert(got && line.offset == 2);
	return EVBUS_OK;
}

Test(log_faults, of_going_past_what_is_longer_than_a_line)
{
	sweep(&(struct scene){ .make = make_long_with_page, .act = seek_past, .damaged = true });
}

static unsigned findings;

static void on_finding(struct log_verify *verify, enum evbus_severity severity, const char *what, uint64_t offset,
		       uint64_t byte, const char *text)
{
	(void)verify;
	(void)severity;
	cr_assert(!strcmp(what, "shape") && offset == 1 && byte > 0 && *text);
	findings++;
}

static enum evbus_code on_progress(struct log_verify *verify, struct evbus_err *error)
{
	(void)verify;
	(void)error;
	return EVBUS_OK;
}

static enum evbus_code verify(void)
{
	struct log_verify verify = { .topic = &topic, .finding = on_finding, .progress = on_progress };

	findings = 0;
	TRY(log_verify(&verify, &err));
	cr_assert_eq(findings, 1u);
	return EVBUS_OK;
}

Test(log_faults, of_verifying_what_is_longer_than_a_line)
{
	sweep(&(struct scene){ .make = make_long_with_page, .act = verify, .damaged = true });
}
