/* runs.c, and verify.c with it: what is found by threads side by side is what is found line by line. */
#include "log/runs.h"

#include "base/crc32c.h"
#include "faulty.h"
#include "log/verify.h"
#include "log_helpers.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define CHUNK ((uint64_t)256 * 1024)
#define RECORDS 5000u

static pthread_t caller;
static atomic_int reads_beside; /* by another thread */

static ssize_t watched_pread(int fd, void *data, size_t len, off_t at)
{
	if (!pthread_equal(pthread_self(), caller))
		atomic_fetch_add(&reads_beside, 1);
	return real_os.pread(fd, data, len, at);
}

static struct buf whole; /* the log before anything happens to it */

/* Lines of many lengths, some longer than a chunk. */
static void enter_log(void)
{
	struct log_writer writer;
	cpu_set_t set;

	if (!sched_getaffinity(0, sizeof set, &set) && CPU_COUNT(&set) < 2)
		cr_skip_test("with one processor all is done line by line");
	enter();
	must_open(&writer);
	for (uint64_t n = 0; n < RECORDS; n += 50)
		cr_assert_eq(publish_group(&writer, n, 50, false, n % 1000 ? 1300 + n % 900 : 20000), EVBUS_OK, "%s",
			     err.text);
	cr_assert_eq(publish_group(&writer, RECORDS, 1, false, 600000), EVBUS_OK, "%s", err.text);
	cr_assert_eq(publish_group(&writer, RECORDS + 1, 5, true, 300), EVBUS_OK, "%s", err.text);
	for (uint64_t n = 6; n < 1000; n += 50)
		cr_assert_eq(publish_group(&writer, RECORDS + n, 50, false, 100), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	whole = load(LIVE);
	caller = pthread_self();
	atomic_store(&reads_beside, 0);
	os.pread = watched_pread;
}

static void leave_log(void)
{
	buf_release(&whole);
	leave();
}

TestSuite(runs, .init = enter_log, .fini = leave_log, .timeout = 120);

/* ---- the runs -------------------------------------------------------------------------------------------------- */

static uint64_t assert_run(const struct run *run, uint64_t least)
{
	uint64_t lines = 0;

	cr_assert(run->begin >= least && run->end >= run->begin && run->end <= whole.len);
	if (!run->count)
		return run->end;
	cr_assert(!run->begin || whole.data[run->begin - 1] == '\n');
	cr_assert_eq(whole.data[run->end - 1], '\n');
	for (uint64_t at = run->begin; at < run->end; at++)
		lines += whole.data[at] == '\n';
	cr_assert_eq(lines, run->count);
	cr_assert_leq(run->first_us, run->last_us);
	return run->end;
}

Test(runs, come_in_the_order_of_the_file_and_hold_all_but_what_lies_over_ends)
{
	int fd = open(LIVE, O_RDONLY);
	struct runs *runs = runs_open(fd, whole.len);
	uint64_t end = 0, chunks = 0, records = 0;
	struct run run;

	cr_assert_not_null(runs);
	for (; runs_next(runs, &run); chunks++) {
		end = assert_run(&run, end);
		cr_assert(run.begin / CHUNK == chunks || !run.count);
		records += run.count;
	}
	cr_assert_eq(chunks, (whole.len + CHUNK - 1) / CHUNK);
	cr_assert(records > RECORDS - chunks && records < RECORDS + 1000, "%ju", (uintmax_t)records);
	cr_assert_gt(atomic_load(&reads_beside), 0);
	runs_close(runs);
	cr_assert_null(runs_open(fd, (uint64_t)1 << 20), "little is not worth while");
	close(fd);
}

Test(runs, may_be_left_at_any_time)
{
	int fd = open(LIVE, O_RDONLY);
	struct run run;

	for (unsigned wanted = 0; wanted < 20; wanted++) {
		struct runs *runs = runs_open(fd, whole.len);
		cr_assert_not_null(runs);
		for (unsigned i = 0; i < wanted; i++)
			cr_assert(runs_next(runs, &run));
		runs_close(runs);
	}
	close(fd);
}

/* ---- what is found --------------------------------------------------------------------------------------------- */

static struct buf findings;

static void on_finding(struct log_verify *verify, enum evbus_severity severity, const char *what, uint64_t offset,
		       uint64_t byte, const char *text)
{
	char line[512];

	(void)verify;
	/* Tells how many seconds it is ahead now. */
	if (!strcmp(what, "clock"))
		return;
	int len = snprintf(line, sizeof line, "%d %s at %ju, byte %ju: %s\n", (int)severity, what, (uintmax_t)offset,
			   (uintmax_t)byte, text);
	add(&findings, line, (size_t)len);
}

static enum evbus_code on_progress(struct log_verify *verify, struct evbus_err *error)
{
	(void)verify;
	(void)error;
	return EVBUS_OK;
}

static enum evbus_code on_record(struct log_verify *verify, const struct line *line, uint64_t byte,
				 struct evbus_err *error)
{
	(void)verify;
	(void)line;
	(void)byte;
	(void)error;
	return EVBUS_OK;
}

static struct log_verify look(bool by_lines)
{
	struct log_verify verify = {
		.topic = &topic, .finding = on_finding, .progress = on_progress, .record = by_lines ? on_record : NULL
	};

	findings.len = 0;
	cr_assert_eq(log_verify(&verify, &err), EVBUS_OK, "%s", err.text);
	add(&findings, "", 1);
	return verify;
}

/* Returns whether there was anything. */
static bool assert_same(const char *what, uint64_t at)
{
	struct log_verify lines = look(true);
	CLEANUP(buf_release) struct buf expected = findings;

	findings = (struct buf){ 0 };
	struct log_verify runs = look(false);
	cr_assert_str_eq(findings.data, expected.data, "%s at %ju", what, (uintmax_t)at);
	cr_assert(lines.records == runs.records && lines.bytes == runs.bytes, "%s at %ju: %ju and %ju records", what,
		  (uintmax_t)at, (uintmax_t)lines.records, (uintmax_t)runs.records);
	bool any = findings.len > 1;
	buf_release(&findings);
	return any;
}

Test(runs, of_a_log_that_is_whole_have_no_findings)
{
	cr_assert(!assert_same("nothing", 0));
	cr_assert_gt(atomic_load(&reads_beside), 0);
}

static uint64_t dice;

static uint64_t roll(uint64_t below)
{
	dice = dice * 6364136223846793005u + 1442695040888963407u;
	return (dice >> 33) % below;
}

/* Half of the places are about the end of a chunk. */
static uint64_t some_place(void)
{
	uint64_t chunk = 1 + roll(whole.len / CHUNK - 1);

	return roll(2) ? roll(whole.len) : chunk * CHUNK - 3 + roll(6);
}

static uint64_t line_of(uint64_t at)
{
	while (at && whole.data[at - 1] != '\n')
		at--;
	return at;
}

static uint64_t line_end(uint64_t at)
{
	const char *newline = memchr(whole.data + at, '\n', whole.len - at);

	return (uint64_t)(newline + 1 - whole.data);
}

static void write_parts(uint64_t one, uint64_t from, uint64_t to, uint64_t rest)
{
	CLEANUP(buf_release) struct buf file = { 0 };

	add(&file, whole.data, one);
	add(&file, whole.data + from, to - from);
	add(&file, whole.data + rest, whole.len - rest);
	store_buf(LIVE, &file);
}

static void flip(uint64_t at, char to)
{
	char was = whole.data[at];

	whole.data[at] = to;
	store_buf(LIVE, &whole);
	whole.data[at] = was;
}

Test(runs, find_each_kind_of_damage_where_it_is)
{
	unsigned times = getenv("EVBUS_TEST_QUICK") ? 4 : 20, found = 0;

	for (unsigned i = 0; i < times; i++) {
		uint64_t at = some_place(), line = line_of(at), next = line_end(at);
		flip(at, whole.data[at] ^ 1);
		found += assert_same("a bit that is another", at);
		flip(at, '\n');
		found += assert_same("a newline", at);
		flip(next - 1, ' ');
		found += assert_same("a newline less", at);
		write_parts(line, next, next, next);
		found += assert_same("a line less", at);
		write_parts(next, line, next, next);
		found += assert_same("a line twice", at);
	}
	cr_assert_gt(found, times * 4);
	cr_assert_gt(atomic_load(&reads_beside), 0);
}

/* With the right checksum. */
static void change(uint64_t line, const char *member, size_t skip, char to)
{
	uint64_t end = line_end(line) - 1;
	char *at = memmem(whole.data + line, end - line, member, strlen(member)), sum[9];

	cr_assert_not_null(at);
	at[strlen(member) + skip] = to;
	snprintf(sum, sizeof sum, "%08x", crc32c(0, whole.data + line + LINE_MEMBERS_AT, end - line - LINE_MEMBERS_AT));
	memcpy(whole.data + line + LINE_CRC_AT, sum, 8);
	store_buf(LIVE, &whole);
}

Test(runs, find_what_is_in_the_wrong_order)
{
	for (unsigned i = 0; i < 8; i++) {
		uint64_t line = line_of(some_place());
		CLEANUP(buf_release) struct buf kept = { 0 };
		add(&kept, whole.data, whole.len);
		/* The year. */
		change(line, "\"published_at_utc\":\"", 0, '1');
		cr_assert(assert_same("an earlier time", line));
		change(line, "\"published_at_utc\":\"", 0, '3');
		cr_assert(assert_same("a later time", line));
		change(line, "\"offset\":\"", 0, '9');
		cr_assert(assert_same("another offset", line));
		memcpy(whole.data, kept.data, kept.len);
	}
}

Test(runs, find_nothing_in_batches_and_each_that_is_broken)
{
	struct log_writer writer;

	must_open(&writer);
	for (uint64_t n = RECORDS + 1006; n < RECORDS + 20000; n += 500)
		cr_assert_eq(publish_group(&writer, n, 500, true, 300), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	buf_release(&whole);
	whole = load(LIVE);
	cr_assert(!assert_same("nothing", 0));
	for (unsigned i = 0; i < 8; i++) {
		uint64_t at = whole.len - 1 - roll(whole.len / 3);
		write_parts(line_of(at), line_end(at), line_end(at), line_end(at));
		cr_assert(assert_same("a line of a batch less", at));
	}
}

Test(runs, end_where_the_file_was_cut)
{
	for (unsigned i = 0; i < 6; i++) {
		uint64_t at = i % 2 ? some_place() : line_of(some_place());
		store(LIVE, whole.data, at);
		cr_assert(assert_same("a cut", at));
	}
}

static enum evbus_code stop(struct log_verify *verify, struct evbus_err *error)
{
	return verify->bytes ? err_set(error, EVBUS_AGAIN, EINTR, "stopped") : EVBUS_OK;
}

Test(runs, end_when_the_caller_wants_no_more)
{
	struct log_verify verify = { .topic = &topic, .finding = on_finding, .progress = stop };

	cr_assert_eq(log_verify(&verify, &err), EVBUS_AGAIN);
	cr_assert_lt(verify.bytes, whole.len / 2);
}

/* ---- without ---------------------------------------------------------------------------------------------------- */

Test(runs, are_done_without_where_there_is_no_memory_or_no_thread)
{
	pthread_attr_t attributes;

	faulty_begin(1, ENOMEM);
	faulty.scope = FAULTY_MEMORY;
	cr_assert_null(runs_open(0, whole.len));
	faulty_end();
	os.pread = watched_pread;
	cr_assert(!pthread_attr_init(&attributes) && !pthread_attr_setstacksize(&attributes, (size_t)1 << 46) &&
		  !pthread_setattr_default_np(&attributes));
	cr_assert_null(runs_open(0, whole.len));
	cr_assert(!assert_same("nothing", 0));
	cr_assert_eq(atomic_load(&reads_beside), 0);
}
