/* ahead.c, and scan.c with it: what a thread reads ahead is what stands in the file, and its failures are the reader's. */
#include "log/ahead.h"
#include "faulty.h"
#include "log/scan.h"
#include "log/verify.h"
#include "log_helpers.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

#define FILE_NAME "lines"
#define FILE_BYTES ((size_t)12 << 20)
#define CHUNK ((size_t)65536)

static int file = -1;
static struct buf content;
static pthread_t caller;
static atomic_int reads_beside; /* by another thread */
static atomic_bool takes_signals; /* which does not block them all */
static atomic_ullong fails_from; /* its reads from this byte on */

static ssize_t watched_pread(int fd, void *data, size_t len, off_t at)
{
	sigset_t blocked;

	if (pthread_equal(pthread_self(), caller))
		return real_os.pread(fd, data, len, at);
	atomic_fetch_add(&reads_beside, 1);
	pthread_sigmask(SIG_SETMASK, NULL, &blocked);
	if (!sigismember(&blocked, SIGTERM) || !sigismember(&blocked, SIGALRM) || !sigismember(&blocked, SIGUSR1))
		atomic_store(&takes_signals, true);
	if ((unsigned long long)at + len > atomic_load(&fails_from)) {
		errno = EIO;
		return -1;
	}
	return real_os.pread(fd, data, len, at);
}

static void watch(void)
{
	caller = pthread_self();
	atomic_store(&reads_beside, 0);
	atomic_store(&fails_from, ULLONG_MAX);
	os.pread = watched_pread;
}

static void add_text_line(size_t len)
{
	cr_assert_eq(buf_reserve(&content, len + 1, &err), EVBUS_OK);
	memset(content.data + content.len, 'a' + (int)(content.len % 26), len);
	content.data[content.len + len] = '\n';
	content.len += len + 1;
}

/* Lines of many lengths, some longer than the gap and some than what is read at once; the last is not whole. */
static void enter_file(void)
{
	cpu_set_t set;
	static const size_t lens[] = { 400, 0, 1, 417, 4095, 4096, 4097, 90, 70000, 12, 3000, 1500000, 800 };

	if (!sched_getaffinity(0, sizeof set, &set) && CPU_COUNT(&set) < 2)
		cr_skip_test("with one processor nothing is read ahead");
	enter();
	content = (struct buf){ 0 };
	for (size_t i = 0; content.len < FILE_BYTES; i++)
		add_text_line(lens[i % 13 < 11 || i % 1300 == 11 ? i % 13 : 0]);
	content.len--;
	store_buf(FILE_NAME, &content);
	file = open(FILE_NAME, O_RDWR);
	cr_assert(file >= 0);
	watch();
}

static void leave_file(void)
{
	close(file);
	buf_release(&content);
	leave();
}

TestSuite(ahead, .init = enter_file, .fini = leave_file, .timeout = 60);

static void begin(struct scan *scan, uint64_t from, uint64_t limit)
{
	scan_init(scan, file, FILE_NAME, from, limit, CHUNK);
	scan->reads_ahead = true;
}

/* The lines up to byte `end`, against a plain walk over what was written. */
static void assert_lines(struct scan *scan, uint64_t end)
{
	struct evbus_slice text;
	enum scan_what what;

	while (scan->at < end) {
		uint64_t at = scan->at;
		cr_assert_eq(scan_next(scan, &text, &what, &err), EVBUS_OK, "%s", err.text);
		const char *newline = memchr(content.data + at, '\n', content.len - at);
		size_t len = newline ? (size_t)(newline - content.data) - at : content.len - at;
		cr_assert_eq(what, newline ? SCAN_LINE : SCAN_PARTIAL, "at byte %ju", (uintmax_t)at);
		cr_assert(text.len == len && !memcmp(text.data, content.data + at, len), "at byte %ju", (uintmax_t)at);
		cr_assert_eq(scan->at, at + len + (newline != NULL));
	}
}

static void assert_end(struct scan *scan)
{
	struct evbus_slice text;
	enum scan_what what;

	cr_assert_eq(scan_next(scan, &text, &what, &err), EVBUS_OK);
	cr_assert_eq(what, SCAN_END);
	cr_assert_null(scan->ahead);
}

Test(ahead, gives_what_stands_in_the_file_from_any_byte_on)
{
	for (uint64_t from = 0; from < 3; from++) {
		CLEANUP(scan_release) struct scan scan;
		int before = atomic_load(&reads_beside);
		begin(&scan, from * 4099, content.len);
		assert_lines(&scan, content.len);
		assert_end(&scan);
		cr_assert_gt(atomic_load(&reads_beside), before);
	}
	cr_assert(!atomic_load(&takes_signals));
}

Test(ahead, is_not_begun_for_little_nor_where_nobody_asked_for_it)
{
	CLEANUP(scan_release) struct scan little, plain;

	begin(&little, 0, (uint64_t)8 << 20);
	assert_lines(&little, (uint64_t)7 << 20);
	scan_init(&plain, file, FILE_NAME, 0, content.len, CHUNK);
	assert_lines(&plain, content.len);
	cr_assert_eq(atomic_load(&reads_beside), 0);
}

Test(ahead, goes_on_where_the_limit_has_grown_or_another_place_is_looked_for)
{
	CLEANUP(scan_release) struct scan scan;
	uint64_t half = (uint64_t)9 << 20;

	begin(&scan, 0, half);
	assert_lines(&scan, half - 2000000);
	cr_assert_not_null(scan.ahead);
	scan.limit = content.len;
	assert_lines(&scan, content.len);
	scan_seek(&scan, 0, content.len);
	assert_lines(&scan, half);
	cr_assert_not_null(scan.ahead);
	scan_seek(&scan, 401, content.len);
	cr_assert_null(scan.ahead);
	assert_lines(&scan, content.len);
	assert_end(&scan);
}

Test(ahead, tells_of_a_read_that_failed_where_it_failed_and_the_next_call_tries_again)
{
	CLEANUP(scan_release) struct scan scan;
	uint64_t bad = (uint64_t)5 << 20;
	struct evbus_slice text;
	enum scan_what what;
	enum evbus_code code;

	atomic_store(&fails_from, bad);
	begin(&scan, 0, content.len);
	while ((code = scan_next(&scan, &text, &what, &err)) == EVBUS_OK)
		cr_assert(text.data[text.len] == '\n' && scan.at <= bad);
	cr_assert(code == EVBUS_IO && err.sys_errno == EIO && strstr(err.text, "cannot read 'lines'"), "%s", err.text);
	/* All that came before was given, but for the chunk with the bad byte and the line that goes on in it. */
	cr_assert_gt(scan.at, bad - ((uint64_t)1 << 20));
	atomic_store(&fails_from, ULLONG_MAX);
	assert_lines(&scan, content.len);
}

Test(ahead, ends_where_the_file_does_that_was_cut_meanwhile)
{
	CLEANUP(scan_release) struct scan scan;
	struct evbus_slice text;
	enum scan_what what = SCAN_LINE;

	begin(&scan, 0, content.len);
	assert_lines(&scan, (uint64_t)1 << 20);
	cr_assert_not_null(scan.ahead);
	cr_assert(!ftruncate(file, (off_t)6 << 20));
	while (what == SCAN_LINE)
		cr_assert_eq(scan_next(&scan, &text, &what, &err), EVBUS_OK);
	cr_assert_eq(what, SCAN_PARTIAL);
	cr_assert_eq(scan.at, (uint64_t)6 << 20);
	assert_end(&scan);
}

Test(ahead, ends_in_the_middle_of_a_line_long_before_it_should)
{
	CLEANUP(scan_release) struct scan scan;
	struct evbus_slice text;
	enum scan_what what = SCAN_LINE;

	cr_assert(!ftruncate(file, (off_t)2 << 20));
	begin(&scan, 0, content.len);
	while (what == SCAN_LINE)
		cr_assert_eq(scan_next(&scan, &text, &what, &err), EVBUS_OK);
	cr_assert_eq(what, SCAN_PARTIAL);
	cr_assert_eq(scan.at, (uint64_t)2 << 20);
	assert_end(&scan);
	cr_assert_gt(atomic_load(&reads_beside), 0);
}

Test(ahead, is_done_without_where_no_thread_can_be_made)
{
	CLEANUP(scan_release) struct scan scan;
	pthread_attr_t attributes;

	cr_assert(!pthread_attr_init(&attributes) && !pthread_attr_setstacksize(&attributes, (size_t)1 << 46) &&
		  !pthread_setattr_default_np(&attributes));
	begin(&scan, 0, content.len);
	assert_lines(&scan, content.len);
	cr_assert_eq(atomic_load(&reads_beside), 0);
}

/* Each allocation in turn: a failure is told, or made up for, and no byte is lost. */
Test(ahead, loses_nothing_where_memory_is_short)
{
	unsigned calls = UINT_MAX;

	for (unsigned at = 1; at <= calls; at++) {
		CLEANUP(scan_release) struct scan scan;
		struct evbus_slice text;
		enum scan_what what = SCAN_LINE;
		enum evbus_code code = EVBUS_OK;

		begin(&scan, 0, content.len);
		faulty_begin(at, ENOMEM);
		faulty.scope = FAULTY_MEMORY;
		while (code == EVBUS_OK && what == SCAN_LINE)
			code = scan_next(&scan, &text, &what, &err);
		unsigned made = faulty.calls;
		faulty_end();
		cr_assert(code == EVBUS_OK || err.sys_errno == ENOMEM);
		assert_lines(&scan, content.len);
		cr_assert_eq(scan.at, content.len);
		if (made < at)
			break;
		cr_assert_lt(at, 100);
	}
}

Test(ahead, may_be_left_at_any_time)
{
	for (uint64_t end = 300000; end < content.len; end += 1999993) {
		CLEANUP(scan_release) struct scan scan;
		begin(&scan, 0, content.len);
		assert_lines(&scan, end);
	}
}

Test(ahead, is_closed_by_a_forked_child_where_there_is_no_thread)
{
	CLEANUP(scan_release) struct scan scan;
	int status;

	begin(&scan, 0, content.len);
	assert_lines(&scan, (uint64_t)2 << 20);
	cr_assert_not_null(scan.ahead);
	usleep(100000); /* until it has read all that it may, and waits */
	pid_t child = fork();
	if (child == 0) {
		alarm(20);
		scan_release(&scan);
		_exit(0);
	}
	cr_assert(waitpid(child, &status, 0) == child && status == 0, "%#x", (unsigned)status);
	assert_lines(&scan, content.len);
}

/* ---- a log that is long enough for it ---- */

static struct {
	uint64_t offset, byte;
	int count;
} found;

static void on_finding(struct log_verify *verify, enum evbus_severity severity, const char *what, uint64_t offset,
		       uint64_t byte, const char *text)
{
	(void)verify;
	(void)text;
	cr_assert(severity == EVBUS_DAMAGE && !strcmp(what, "checksum"), "%s: %s", what, text);
	found.offset = offset;
	found.byte = byte;
	found.count++;
}

static enum evbus_code on_progress(struct log_verify *verify, struct evbus_err *error)
{
	(void)verify;
	(void)error;
	return EVBUS_OK;
}

static void publish_much(uint64_t count, size_t pad)
{
	struct log_writer writer;

	must_open(&writer);
	for (uint64_t n = 0; n < count; n += 500)
		cr_assert_eq(publish_group(&writer, n, 500, false, pad), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
}

Test(ahead, finds_damage_at_its_place_in_a_long_log)
{
	static struct reading reading;
	struct log_verify verify = { .topic = &topic, .finding = on_finding, .progress = on_progress };
	CLEANUP(cursor_close) struct cursor cursor;

	publish_much(7000, 1500);
	CLEANUP(buf_release) struct buf log = load(LIVE);
	size_t byte = line_at(&log, 6000);
	flip_payload(6000);
	cr_assert_eq(log_verify(&verify, &err), EVBUS_OK, "%s", err.text);
	cr_assert(found.count == 1 && found.offset == 6000 && found.byte == byte, "%ju", (uintmax_t)found.offset);
	cr_assert_eq(verify.records, 6999);
	cr_assert_gt(atomic_load(&reads_beside), 0);

	atomic_store(&reads_beside, 0);
	cr_assert_eq(cursor_open(&topic, 0, CHUNK, &cursor, &err), EVBUS_OK);
	cursor.reads_ahead = true;
	read_on(&cursor, &reading);
	cr_assert(reading.code == EVBUS_IO && reading.count == 6000 && reading.bytes == byte, "%s", err.text);
	cr_assert_gt(atomic_load(&reads_beside), 0);
	flip_payload(6000);
	cr_assert_eq(cursor_seek(&cursor, 100, &err), EVBUS_OK);
	read_on(&cursor, &reading);
	cr_assert(reading.code == EVBUS_OK && reading.count == 6900, "%s", err.text);
}
