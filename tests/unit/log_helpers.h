/* What the tests of the log have in common: a bus with a topic `t` in a scratch directory, short ways to publish and to
 * read, and to look at the files and to change them behind the library's back. The working directory is the topic's. */
#ifndef EVBUS_TESTS_LOG_HELPERS_H
#define EVBUS_TESTS_LOG_HELPERS_H

#include "log/cursor.h"
#include "log/recover.h"
#include "log/writer.h"
#include "scratch.h"

#include <dirent.h>
#include <errno.h>
#include <sys/wait.h>

#define LIVE "partition=0.jsonl"
#define LOCK "partition=0.lock"
#define READ_MAX 8192u

/* A sanitizer makes sweeps several times slower: they take larger steps then, and where only a quick look is meant. */
static inline unsigned sweep_step(void)
{
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
	return 5;
#else
	return getenv("EVBUS_TEST_QUICK") ? 5 : 1;
#endif
}

static char scratch[64];
static struct root root;
static struct topic topic;
static struct evbus_err err;
static struct os real_os;
static char noticed[512]; /* the last notice */
static int notices;

static inline void take_notice(void *context, const char *text)
{
	(void)context;
	notices++;
	snprintf(noticed, sizeof noticed, "%s", text);
}

/* ---- the bus ---- */

static inline void open_topic(const char *name, const struct evbus_topic_options *options)
{
	bool created;

	topic_close(&topic);
	cr_assert_eq(topic_create(&root, name, options, &topic, &created, &err), EVBUS_OK, "%s", err.text);
	cr_assert(!fchdir(topic.fd));
}

static inline void enter_at(const char *base)
{
	real_os = os;
	topic.fd = root.fd = -1;
	snprintf(scratch, sizeof scratch, "%s/evbus-unit-XXXXXX", base);
	cr_assert(mkdtemp(scratch) && !chdir(scratch));
	root = (struct root){ .fd = -1, .file_mode = 0600, .dir_mode = 0700, .notice = take_notice };
	cr_assert_eq(root_open(&root, "bus", true, &err), EVBUS_OK, "%s", err.text);
	open_topic("t", NULL);
}

/* On a memory file system, where there is one: sweeps are many small files. */
static inline void enter(void)
{
	enter_at(access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
}

static inline void enter_disk(void)
{
	enter_at("/tmp");
}

static inline void leave(void)
{
	os = real_os;
	topic_close(&topic);
	root_close(&root);
	scratch_leave(scratch);
}

/* A topic with small segments, instead of `t`. */
static inline void open_rolling(uint64_t segment_max_bytes)
{
	struct evbus_topic_options options = { .segment_max_bytes = segment_max_bytes };

	open_topic("rolling", &options);
}

/* ---- publishing ---- */

/* {"n":N}, longer by pad bytes. */
static inline void add_event(struct group *group, const struct log_writer *writer, uint64_t n, size_t pad)
{
	CLEANUP(buf_release) struct buf payload = { 0 };

	cr_assert_eq(buf_reserve(&payload, pad + 64, &err), EVBUS_OK);
	payload.len = (size_t)snprintf(payload.data, 64, pad ? "{\"n\":%llu,\"pad\":\"" : "{\"n\":%llu",
				       (unsigned long long)n);
	memset(payload.data + payload.len, 'x', pad);
	payload.len += pad;
	cr_assert_eq(buf_add(&payload, pad ? "\"}" : "}", pad ? 2 : 1, &err), EVBUS_OK);
	struct line_body body = { .payload = { payload.data, payload.len } };
	cr_assert_eq(group_add(group, &body, writer->expected.next + group_count(group), os_now_us(), &err), EVBUS_OK);
}

/* The events first, first+1, … as one group. */
static inline enum evbus_code publish_group(struct log_writer *writer, uint64_t first, uint64_t count, bool atomic,
					    size_t pad)
{
	CLEANUP(group_release) struct group group = { .atomic = atomic };
	struct mark mark;

	for (uint64_t i = 0; i < count; i++)
		add_event(&group, writer, first + i, pad);
	enum evbus_code code = writer_append(writer, &group, UINT64_MAX, &mark, &err);
	return code ? code : writer_commit(writer, &mark, &group, &err);
}

static inline enum evbus_code publish(struct log_writer *writer, uint64_t n)
{
	return publish_group(writer, n, 1, false, 0);
}

/* Appends, and leaves the rest to others. */
static inline struct mark append_only(struct log_writer *writer, uint64_t n)
{
	CLEANUP(group_release) struct group group = { 0 };
	struct mark mark;

	add_event(&group, writer, n, 0);
	cr_assert_eq(writer_append(writer, &group, UINT64_MAX, &mark, &err), EVBUS_OK, "%s", err.text);
	return mark;
}

static inline enum evbus_code open_writer(struct log_writer *writer)
{
	return writer_open(&topic, 0, NULL, writer, &err);
}

static inline void must_open(struct log_writer *writer)
{
	cr_assert_eq(open_writer(writer), EVBUS_OK, "%s", err.text);
}

/* The events first … first + count - 1, each acknowledged, by a writer of their own. */
static inline void must_publish(uint64_t first, uint64_t count)
{
	struct log_writer writer;

	must_open(&writer);
	for (uint64_t i = 0; i < count; i++)
		cr_assert_eq(publish(&writer, first + i), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
}

/* ---- reading ---- */

struct reading {
	enum evbus_code code;
	uint64_t first, count;
	uint64_t n[READ_MAX];
	uint64_t bytes; /* of the lines, with their newlines */
};

static inline uint64_t event_number(const struct line *line)
{
	cr_assert(line->payload.len > 6 && !memcmp(line->payload.data, "{\"n\":", 5));
	return strtoull(line->payload.data + 5, NULL, 10);
}

/* All that a reader sees from the cursor's place on. */
static inline void read_on(struct cursor *cursor, struct reading *reading)
{
	struct line line;
	bool got = true;

	*reading = (struct reading){ .first = cursor->next };
	while (!reading->code && got) {
		reading->code = cursor_next(cursor, UINT64_MAX, &line, &got, &err);
		if (reading->code || !got)
			break;
		cr_assert_eq(line.offset, reading->first + reading->count);
		cr_assert(reading->count < READ_MAX);
		reading->n[reading->count++] = event_number(&line);
		reading->bytes += line.text.len + 1;
	}
}

static inline void read_log(struct reading *reading)
{
	CLEANUP(cursor_close) struct cursor cursor;

	*reading = (struct reading){ 0 };
	reading->code = cursor_open(&topic, 0, 65536, &cursor, &err);
	if (reading->code == EVBUS_OK)
		read_on(&cursor, reading);
}

/* The log is whole, and the record at each offset is the event with this number. */
static inline void assert_log(uint64_t count)
{
	static struct reading reading;

	read_log(&reading);
	cr_assert_eq(reading.code, EVBUS_OK, "%s", err.text);
	cr_assert_eq(reading.count, count, "%ju records", (uintmax_t)reading.count);
	for (uint64_t i = 0; i < count; i++)
		cr_assert_eq(reading.n[i], reading.first + i);
}

/* ---- files ---- */

static inline struct buf load(const char *path)
{
	struct buf file = { 0 };
	FILE *from = fopen(path, "rb");

	cr_assert_not_null(from, "%s", path);
	for (size_t n = 1; n; file.len += n) {
		cr_assert_eq(buf_reserve(&file, 65536, &err), EVBUS_OK);
		n = fread(file.data + file.len, 1, 65536, from);
	}
	cr_assert(!fclose(from));
	return file;
}

/* In place: the file stays the same one. */
static inline void store(const char *path, const void *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	cr_assert(fd >= 0 && (len == 0 || write(fd, data, len) == (ssize_t)len) && !close(fd), "%s", path);
}

static inline void store_buf(const char *path, const struct buf *data)
{
	store(path, data->data, data->len);
}

/* Another file with this content takes the place of the one that is there, as sed -i does it. */
static inline void replace(const char *path, const void *data, size_t len)
{
	store("replacement", data, len);
	cr_assert(!rename("replacement", path));
}

static inline void add(struct buf *buf, const void *data, size_t len)
{
	cr_assert_eq(buf_add(buf, data, len, &err), EVBUS_OK);
}

static inline bool same(const struct buf *a, const struct buf *b)
{
	return a->len == b->len && (a->len == 0 || !memcmp(a->data, b->data, a->len));
}

static inline void assert_file(const char *path, const struct buf *expected)
{
	CLEANUP(buf_release) struct buf found = load(path);

	cr_assert(same(&found, expected), "'%s' has %zu bytes, not the %zu expected", path, found.len, expected->len);
}

static inline bool is_there(const char *path)
{
	struct stat st;

	return !lstat(path, &st);
}

/* Where the i-th line begins; where the file ends for as many as there are. */
static inline size_t line_at(const struct buf *file, size_t i)
{
	size_t at = 0;

	for (; i; i--) {
		const char *newline = memchr(file->data + at, '\n', file->len - at);
		cr_assert_not_null(newline);
		at = (size_t)(newline + 1 - file->data);
	}
	return at;
}

/* Damages a record in the live segment that begins at offset 0, or mends it. */
static inline void flip_payload(uint64_t offset)
{
	CLEANUP(buf_release) struct buf file = load(LIVE);
	size_t end = line_at(&file, offset + 1);

	for (char *at = file.data + line_at(&file, offset); at < file.data + end; at++)
		if (!strncmp(at, "{\"n\":", 5)) {
			at[5] ^= 1;
			break;
		}
	store_buf(LIVE, &file);
}

/* How many copies of what was cut there are, and the name of one of them. */
static inline int torn_copies(char name[256])
{
	DIR *dir = opendir(".");
	int count = 0;

	cr_assert_not_null(dir);
	for (struct dirent *entry; (entry = readdir(dir));)
		if (!strncmp(entry->d_name, "partition=0.torn-", 17)) {
			count++;
			snprintf(name, 256, "%s", entry->d_name);
		}
	closedir(dir);
	return count;
}

static inline void remove_torn(void)
{
	char name[256];

	while (torn_copies(name))
		cr_assert(!unlink(name));
}

static inline int open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	cr_assert_not_null(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static inline uint64_t inode(const char *path)
{
	struct stat st;

	cr_assert(!stat(path, &st), "%s", path);
	return st.st_ino;
}

/* ---- the page ---- */

static inline enum control_state read_view(struct control_view *view)
{
	struct control control;
	enum control_state state;

	cr_assert_eq(control_open(&topic, 0, false, &control, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(control_read(&control, &state, view, &err), EVBUS_OK, "%s", err.text);
	control_close(&control);
	return state;
}

/* The cell that means the first `bytes` of a live segment that begins at offset 0. */
static inline struct cell cell_at(const struct buf *file, size_t bytes)
{
	struct cell cell = { .epoch = 1, .ino = inode(LIVE), .bytes = bytes };
	struct line line;

	for (size_t at = 0; at < bytes; cell.next++) {
		size_t end = at + (size_t)((char *)memchr(file->data + at, '\n', file->len - at) - (file->data + at));
		cr_assert_null(line_parse((struct evbus_slice){ file->data + at, end - at }, &line));
		cell.time_us = line.time_us;
		at = end + 1;
	}
	return cell;
}

/* Whatever the page says now. */
static inline enum evbus_code set_cell(struct control *control, enum control_cell which, const struct cell *cell)
{
	struct control_view view;
	enum control_state state;

	cr_assert(control_read(control, &state, &view, &err) == EVBUS_OK && state == CONTROL_OURS, "%s", err.text);
	return control_set(control, &view, which, cell, &err);
}

static inline void set_flag(struct control *control, enum control_flag flag, bool value)
{
	struct control_view view;
	enum control_state state;

	cr_assert(control_read(control, &state, &view, &err) == EVBUS_OK && state == CONTROL_OURS, "%s", err.text);
	cr_assert_eq(control_flag(control, &view, flag, value, &err), EVBUS_OK, "%s", err.text);
}

/* A new page in the lock file of this topic. */
static inline void make_page(const struct cell *end, const struct cell *durable)
{
	struct control control;

	cr_assert_eq(control_open(&topic, 0, true, &control, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(control_init(&control, durable, &err), EVBUS_OK);
	cr_assert_eq(set_cell(&control, CONTROL_END, end), EVBUS_OK);
	control_close(&control);
}

/* From here on the machine was started anew, as far as the library can tell. */
static char boot = 'a';

static inline int other_boot_id(char id[36])
{
	memset(id, boot, 36);
	return 0;
}

static inline void restart_machine(void)
{
	boot++;
	os.boot_id = other_boot_id;
}

/* ---- processes ---- */

static inline int wait_for(pid_t child)
{
	int status;

	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFEXITED(status), "status %x", (unsigned)status);
	return WEXITSTATUS(status);
}

#endif
