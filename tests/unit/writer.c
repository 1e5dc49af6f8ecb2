/* writer.c: appending; what happens when a write, or any other call, fails; clocks; rolling. */
#include "faulty.h"
#include "log/verify.h"
#include "log_helpers.h"

#include <pthread.h>

TestSuite(writer, .init = enter, .fini = leave, .timeout = 60);

static struct log_writer writer;

/* ---- appending ---- */

Test(writer, gives_dense_offsets_to_several_writers_in_turn)
{
	struct log_writer other;

	must_open(&writer);
	must_open(&other);
	for (uint64_t n = 0; n < 50; n++)
		cr_assert_eq(publish(n % 3 ? &writer : &other, n), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	writer_close(&other);
	assert_log(50);
}

static enum evbus_code append_expecting(uint64_t expect, uint64_t n)
{
	CLEANUP(group_release) struct group group = { 0 };
	struct mark mark;

	add_event(&group, &writer, n, 0);
	enum evbus_code code = writer_append(&writer, &group, expect, &mark, &err);
	return code ? code : writer_commit(&writer, &mark, &group, &err);
}

Test(writer, appends_only_at_the_offset_that_is_expected)
{
	must_open(&writer);
	cr_assert_eq(append_expecting(1, 0), EVBUS_CONFLICT);
	cr_assert(strstr(err.text, "the next offset of 't/partition=0.jsonl' is 0, not 1"), "%s", err.text);
	cr_assert_eq(append_expecting(0, 0), EVBUS_OK);
	cr_assert_eq(append_expecting(0, 1), EVBUS_CONFLICT);
	cr_assert_eq(append_expecting(1, 1), EVBUS_OK);
	writer_close(&writer);
	assert_log(2);
}

Test(writer, keeps_what_it_acknowledged_on_a_disk)
{
	leave();
	enter_disk();
	for (uint64_t n = 0; n < 20; n += 5)
		must_publish(n, 5);
	assert_log(20);
}

Test(writer, refuses_a_partition_that_is_not_there)
{
	cr_assert_eq(writer_open(&topic, 1, NULL, &writer, &err), EVBUS_NONE);
	cr_assert_eq(writer_open(&topic, -1, NULL, &writer, &err), EVBUS_NONE);
	cr_assert(!is_there("partition=1.jsonl") && !is_there("partition=-1.jsonl"));
}

/* ---- batches ---- */

static void count_batches(const struct buf *file, int *lines, int *members)
{
	struct line line;

	*lines = *members = 0;
	for (size_t at = 0; at < file->len; ++*lines) {
		size_t end = at + (size_t)((char *)memchr(file->data + at, '\n', file->len - at) - (file->data + at));
		cr_assert_null(line_parse((struct evbus_slice){ file->data + at, end - at }, &line));
		*members += line.batch.data != NULL;
		at = end + 1;
	}
}

Test(writer, marks_each_line_of_a_batch_with_its_first_and_last_offset)
{
	int lines, members;

	must_open(&writer);
	cr_assert_eq(publish(&writer, 0), EVBUS_OK);
	cr_assert_eq(publish_group(&writer, 1, 3, true, 0), EVBUS_OK);
	cr_assert_eq(publish_group(&writer, 4, 1, true, 0), EVBUS_OK);
	writer_close(&writer);
	CLEANUP(buf_release) struct buf file = load(LIVE);
	cr_assert(strstr(file.data, "\"batch\":\"1-3\"") && strstr(file.data, "\"batch\":\"4-4\""));
	count_batches(&file, &lines, &members);
	cr_assert(lines == 5 && members == 4);
	assert_log(5);
}

/* A batch grows by its marks when it is written, and the segment has room for it without them, but not with them. */
Test(writer, rolls_before_a_batch_whatever_its_marks_add)
{
	uint64_t next = 0;

	open_rolling(4000);
	must_open(&writer);
	for (size_t pad = 0; pad < 400; pad++) {
		cr_assert_eq(publish_group(&writer, next, 5, true, pad), EVBUS_OK, "%zu: %s", pad, err.text);
		next += 5;
	}
	writer_close(&writer);
	assert_log(next);
}

/* ---- clocks ---- */

static int64_t fake_us;

static int fake_clock(clockid_t clock, struct timespec *now)
{
	(void)clock;
	*now = (struct timespec){ fake_us / 1000000, fake_us % 1000000 * 1000 };
	return 0;
}

Test(writer, clamps_a_clock_that_goes_back_and_says_so_once)
{
	os.clock_gettime = fake_clock;
	fake_us = 4070908800000000; /* 2099 */
	must_open(&writer);
	cr_assert_eq(publish(&writer, 0), EVBUS_OK);
	notices = 0;
	fake_us = 1769688000000000;
	cr_assert_eq(publish(&writer, 1), EVBUS_OK);
	cr_assert(notices == 1 && strstr(noticed, "the clock is ") && strstr(noticed, " s behind the last record"),
		  "%s", noticed);
	cr_assert_eq(publish(&writer, 2), EVBUS_OK);
	cr_assert_eq(notices, 1);
	writer_close(&writer);
	assert_log(3);
}

/* Events are encoded when they come; the clock may go back between two of a group, also where it stays behind the time of
 * the first. */
Test(writer, never_lets_times_decrease_within_a_group)
{
	static const int64_t steps[][2] = { { -120000000, 5000000 }, { 300000, -100000 } };
	CLEANUP(group_release) struct group group = { 0 };
	struct mark mark;

	os.clock_gettime = fake_clock;
	must_open(&writer);
	for (uint64_t n = 0; n < 12; n++) {
		if (n % 6 == 0)
			fake_us = 1769688000000000 + (int64_t)n * 100000000;
		add_event(&group, &writer, n, 0);
		fake_us += steps[n / 6][n % 2];
		if (n % 6 < 5)
			continue;
		cr_assert_eq(writer_append(&writer, &group, UINT64_MAX, &mark, &err), EVBUS_OK);
		cr_assert_eq(writer_commit(&writer, &mark, &group, &err), EVBUS_OK);
		group_clear(&group);
	}
	writer_close(&writer);
	assert_log(12);
}

/* A publisher may predict anew while it fills a group, and the first prediction come true all the same. */
Test(writer, gives_dense_offsets_whatever_was_predicted_for_each_event)
{
	static const uint64_t predicted[][3] = { { 0, 5, 6 }, { 0, 0, 1 }, { 0, 2, 2 },
						 { 7, 1, 2 }, { 0, 1, 2 }, { 2, 1, 0 } };
	CLEANUP(group_release) struct group group = { 0 };
	struct mark mark;

	must_open(&writer);
	for (uint64_t i = 0; i < 6; i++) {
		group_clear(&group);
		for (uint64_t j = 0; j < 3; j++) {
			char payload[32];
			int len = snprintf(payload, sizeof payload, "{\"n\":%d}", (int)(3 * i + j));
			struct line_body body = { .payload = { payload, (size_t)len } };
			cr_assert_eq(group_add(&group, &body, 3 * i + predicted[i][j], os_now_us(), &err), EVBUS_OK);
		}
		cr_assert_eq(writer_append(&writer, &group, UINT64_MAX, &mark, &err), EVBUS_OK);
		cr_assert_eq(writer_commit(&writer, &mark, &group, &err), EVBUS_OK);
	}
	writer_close(&writer);
	assert_log(18);
}

/* ---- a write that fails ---- */

static size_t write_at_most; /* so many bytes of the write that fails are done */
static int write_errno;
static bool write_once;
static uint64_t live_inode;

static ssize_t failing_pwrite(int fd, const void *data, size_t len, off_t at)
{
	static bool was_short;
	struct stat st;

	if (fstat(fd, &st) || st.st_ino != live_inode || !write_errno)
		return real_os.pwrite(fd, data, len, at);
	if (!was_short && write_at_most) {
		was_short = true;
		return real_os.pwrite(fd, data, len < write_at_most ? len : write_at_most, at);
	}
	was_short = false;
	errno = write_errno;
	if (write_once)
		write_errno = 0;
	return -1;
}

static void fail_writes(size_t at_most, int number)
{
	live_inode = inode(LIVE);
	write_at_most = at_most;
	write_errno = number;
	write_once = true;
	os.pwrite = failing_pwrite;
}

Test(writer, cuts_back_a_write_of_which_any_number_of_bytes_was_done)
{
	static const int numbers[] = { ENOSPC, EIO, EDQUOT, EFBIG };
	char name[256];

	must_open(&writer);
	for (uint64_t n = 0; n < 3; n++)
		cr_assert_eq(publish(&writer, n), EVBUS_OK);
	CLEANUP(buf_release) struct buf before = load(LIVE);
	for (size_t bytes = 0; bytes < 360; bytes++) {
		fail_writes(bytes, numbers[bytes % 4]);
		cr_assert_eq(publish_group(&writer, 50, 3, bytes % 2, 0), EVBUS_IO, "%zu", bytes);
		cr_assert(strstr(err.text, "cannot write to 't/partition=0.jsonl'") &&
				  strstr(err.text, strerror(numbers[bytes % 4])),
			  "%s", err.text);
		os.pwrite = real_os.pwrite;
		assert_file(LIVE, &before);
	}
	assert_log(3);
	cr_assert_eq(publish(&writer, 3), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	assert_log(4);
	cr_assert_eq(torn_copies(name), 0);
}

static int no_ftruncate(int fd, off_t size)
{
	(void)fd;
	(void)size;
	errno = EIO;
	return -1;
}

/* The next writer finds more than `end` says: what is whole may stay, for it was never acknowledged; the rest goes. */
Test(writer, that_cannot_cut_back_leaves_it_to_the_next)
{
	static struct reading reading;
	struct log_writer other;

	must_open(&writer);
	for (uint64_t n = 0; n < 3; n++)
		cr_assert_eq(publish(&writer, n), EVBUS_OK);
	must_open(&other);
	for (size_t bytes = 1; bytes < 300; bytes += 13) {
		read_log(&reading);
		uint64_t before = reading.count;
		fail_writes(bytes, ENOSPC);
		os.ftruncate = no_ftruncate;
		cr_assert_eq(publish_group(&writer, 50, 3, true, 0), EVBUS_IO);
		cr_assert(strstr(err.text, "nor cut back what was written"), "%s", err.text);
		os = real_os;
		read_log(&reading);
		cr_assert_eq(reading.count, before);
		cr_assert_eq(publish(&other, before), EVBUS_OK, "%s", err.text);
		read_log(&reading);
		cr_assert(reading.count == before + 1 && reading.n[before] == before);
	}
	writer_close(&writer);
	writer_close(&other);
}

static ssize_t one_byte_pwrite(int fd, const void *data, size_t len, off_t at)
{
	static unsigned calls;

	if (calls++ % 3 == 0) {
		errno = EINTR;
		return -1;
	}
	return real_os.pwrite(fd, data, len < 7 ? len : 7, at);
}

static ssize_t short_pread(int fd, void *data, size_t len, off_t at)
{
	static unsigned calls;

	if (calls++ % 3 == 0) {
		errno = EINTR;
		return -1;
	}
	return real_os.pread(fd, data, len < 100 ? len : 100, at);
}

Test(writer, goes_on_after_short_transfers_and_interruptions)
{
	os.pwrite = one_byte_pwrite;
	os.pread = short_pread;
	must_publish(0, 10);
	must_publish(10, 10);
	assert_log(20);
}

/* ---- any call that fails ---- */

static int found;

static void on_finding(struct log_verify *verify, enum evbus_severity severity, const char *what, uint64_t offset,
		       uint64_t byte, const char *text)
{
	(void)verify;
	(void)what;
	(void)offset;
	(void)byte;
	(void)text;
	found += severity == EVBUS_DAMAGE;
}

static enum evbus_code on_progress(struct log_verify *verify, struct evbus_err *error)
{
	(void)verify;
	(void)error;
	return EVBUS_OK;
}

static void assert_whole(void)
{
	struct log_verify verify = { .topic = &topic, .finding = on_finding, .progress = on_progress };

	found = 0;
	cr_assert_eq(log_verify(&verify, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(found, 0);
}

#define EVENTS 12u

/* A writer that rolls every few records, and a reader, each of whose calls may fail. The event at an acknowledged
 * offset is known afterwards. Returns how many groups were acknowledged. */
static int faulty_run(uint64_t at_offset[EVENTS * 2])
{
	CLEANUP(group_release) struct group group = { 0 };
	struct mark mark;
	int acknowledged = 0;

	bool opened = !open_writer(&writer);
	if (!opened && open_writer(&writer)) /* the fault is over by then */
		return 0;
	for (uint64_t i = 0; i < EVENTS; i++) {
		uint64_t count = i % 4 == 3 ? 2 : 1;
		group_clear(&group);
		group.atomic = count > 1;
		for (uint64_t j = 0; j < count; j++) {
			struct line_body body = { .payload = i % 2 ? SLICE("{\"n\":1}") : SLICE("{\"n\":2}") };
			if (group_add(&group, &body, writer.expected.next + j, os_now_us(), &err))
				return acknowledged;
		}
		if (writer_append(&writer, &group, UINT64_MAX, &mark, &err) ||
		    writer_commit(&writer, &mark, &group, &err)) {
			cr_assert(strlen(err.text) > 10, "%s", err.text);
			continue;
		}
		acknowledged++;
		for (uint64_t j = 0; j < count; j++)
			at_offset[mark.first + j] = i % 2 ? 1 : 2;
	}
	return acknowledged;
}

/* What a reader is given is right, or it fails; it is never short without saying so. */
static void faulty_read(uint64_t records)
{
	static struct reading reading;

	read_log(&reading);
	cr_assert(reading.code || reading.count >= records, "%ju of %ju", (uintmax_t)reading.count, (uintmax_t)records);
}

static unsigned faulty_state(unsigned at, int number)
{
	static struct reading reading;
	uint64_t at_offset[EVENTS * 2] = { 0 }, records = 0;

	open_rolling(500);
	int files = open_files();
	faulty_begin(at, number);
	int acknowledged = faulty_run(at_offset);
	for (size_t i = 0; i < EVENTS * 2; i++)
		records += at_offset[i] != 0;
	if (!faulty.failed)
		faulty_read(records);
	faulty_end();
	unsigned calls = faulty.calls;
	writer_close(&writer);
	cr_assert_eq(open_files(), files, "call %u, %s: a descriptor leaks", at, faulty.failed);
	cr_assert(acknowledged >= (int)EVENTS - 1 || !strcmp(faulty.failed, "realloc"), "call %u, %s: %d acknowledged",
		  at, faulty.failed, acknowledged);
	/* The next call works. */
	must_open(&writer);
	cr_assert_eq(publish(&writer, 3), EVBUS_OK, "call %u, %s: %s", at, faulty.failed, err.text);
	writer_close(&writer);
	read_log(&reading);
	cr_assert_eq(reading.code, EVBUS_OK, "call %u, %s: %s", at, faulty.failed, err.text);
	cr_assert(reading.count > records && reading.n[reading.count - 1] == 3, "call %u", at);
	for (size_t i = 0; i < EVENTS * 2; i++)
		cr_assert(!at_offset[i] || reading.n[i] == at_offset[i], "call %u, %s: offset %zu", at, faulty.failed,
			  i);
	assert_whole();
	cr_assert(!fchdir(root.fd));
	topic_close(&topic);
	scratch_remove("rolling");
	return calls;
}

static void sweep_faults(int number, unsigned step)
{
	unsigned calls = faulty_state(0, number);

	cr_assert_gt(calls, 300u);
	for (unsigned at = 1; at <= calls; at += step)
		faulty_state(at, number);
	open_topic("t", NULL);
}

Test(writer, survives_an_io_error_in_any_one_call)
{
	sweep_faults(EIO, 1);
}

Test(writer, survives_a_full_disk_at_any_one_call)
{
	sweep_faults(ENOSPC, 3);
}

/* As if the process had died at that call: what it did before is all that there is. */
static unsigned dead_state(unsigned at)
{
	uint64_t at_offset[EVENTS * 2] = { 0 };
	static struct reading reading;

	open_rolling(500);
	int files = open_files();
	faulty_begin(at, EIO);
	faulty.from_on = true;
	faulty_run(at_offset);
	faulty_end();
	unsigned calls = faulty.calls;
	writer_close(&writer);
	cr_assert_eq(open_files(), files, "call %u, %s: a descriptor leaks", at, faulty.failed);
	read_log(&reading);
	cr_assert_eq(reading.code, EVBUS_OK, "call %u: %s", at, err.text);
	uint64_t seen = reading.count;
	must_open(&writer);
	cr_assert_eq(publish(&writer, 3), EVBUS_OK, "call %u: %s", at, err.text);
	writer_close(&writer);
	read_log(&reading);
	cr_assert(reading.code == EVBUS_OK && reading.count > seen, "call %u: %s", at, err.text);
	for (size_t i = 0; i < EVENTS * 2; i++)
		cr_assert(!at_offset[i] || reading.n[i] == at_offset[i], "call %u: offset %zu", at, i);
	assert_whole();
	cr_assert(!fchdir(root.fd));
	topic_close(&topic);
	scratch_remove("rolling");
	return calls;
}

Test(writer, survives_when_every_call_fails_from_any_one_on)
{
	unsigned calls = dead_state(0);

	cr_assert_gt(calls, 300u);
	for (unsigned at = 1; at <= calls; at++)
		dead_state(at);
	open_topic("t", NULL);
}
