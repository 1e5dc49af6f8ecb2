/* segment.c: the files of a partition, and rolling, killed at every call. */
#include "faulty.h"
#include "log/verify.h"
#include "log_helpers.h"

TestSuite(segment, .init = enter, .fini = leave, .timeout = 60);

static struct log_writer writer;

/* ---- names ---- */

Test(segment, names_are_twenty_digits_and_everything_else_is_ignored)
{
	static const char *const others[] = { "1.jsonl",
					      "00000000000000000001.jsonl.bak",
					      "0000000000000000000x.jsonl",
					      "00000000000000000001",
					      "99999999999999999999.jsonl",
					      ".jsonl",
					      "+0000000000000000001.jsonl",
					      "000000000000000000001.jsonl" };
	static const uint64_t bases[] = { 0, 7, 10, 18446744073709551614u };
	char path[SEGMENT_PATH_MAX];
	struct segments found;

	segment_live_path(1023, path);
	cr_assert_str_eq(path, "partition=1023.jsonl");
	segment_path(3, 42, path);
	cr_assert_str_eq(path, "partition=3/00000000000000000042.jsonl");
	cr_assert_eq(segments_list(&topic, 0, &found, &err), EVBUS_OK);
	cr_assert_eq(found.count, 0);
	cr_assert(!mkdir("partition=0", 0700));
	for (int i = 3; i >= 0; i--) {
		segment_path(0, bases[i], path);
		store(path, "", 0);
	}
	for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
		snprintf(path, sizeof path, "partition=0/%s", others[i]);
		store(path, "", 0);
	}
	cr_assert_eq(segments_list(&topic, 0, &found, &err), EVBUS_OK);
	cr_assert(found.count == 4 && !memcmp(found.bases, bases, sizeof bases));
	segments_release(&found);
}

/* ---- the line before a byte ---- */

Test(segment, gives_the_line_before_any_byte_where_one_ends_and_refuses_the_others)
{
	CLEANUP(buf_release) struct buf buf = { 0 };
	struct line line;
	uint64_t at = 0;
	bool found;

	must_open(&writer);
	for (uint64_t n = 0; n < 10; n++)
		cr_assert_eq(publish_group(&writer, n, 1, false, n % 3 * 3000 + (n == 5 ? 1100000 : 0)), EVBUS_OK);
	writer_close(&writer);
	CLEANUP(buf_release) struct buf file = load(LIVE);
	int fd = open(LIVE, O_RDONLY);
	cr_assert_eq(segment_line_before(fd, "x", 0, &buf, &line, &found, &err), EVBUS_OK);
	cr_assert_not(found);
	for (uint64_t n = 0; n < 10; n++) {
		uint64_t end = line_at(&file, n + 1);
		cr_assert_eq(segment_line_before(fd, "x", end, &buf, &line, &found, &err), EVBUS_OK, "%s", err.text);
		cr_assert(found && line.offset == n && line.text.len == end - at - 1);
		cr_assert_eq(segment_line_before(fd, "x", end - 1, &buf, &line, &found, &err), EVBUS_IO);
		cr_assert(strstr(err.text, "damaged"), "%s", err.text);
		at = end;
	}
	cr_assert_eq(segment_line_before(fd, "x", file.len + 1, &buf, &line, &found, &err), EVBUS_IO);
	close(fd);
}

/* ---- rolling ---- */

static void no_finding(struct log_verify *verify, enum evbus_severity severity, const char *what, uint64_t offset,
		       uint64_t byte, const char *text)
{
	(void)verify;
	cr_assert(severity == EVBUS_NOTE, "%s at offset %ju, byte %ju: %s", what, (uintmax_t)offset, (uintmax_t)byte,
		  text);
}

static enum evbus_code no_progress(struct log_verify *verify, struct evbus_err *error)
{
	(void)verify;
	(void)error;
	return EVBUS_OK;
}

static void assert_whole(uint64_t count)
{
	struct log_verify verify = { .topic = &topic, .finding = no_finding, .progress = no_progress };

	assert_log(count);
	cr_assert_eq(log_verify(&verify, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(verify.records, count);
}

static size_t older_count(void)
{
	CLEANUP(segments_release) struct segments older = { 0 };

	cr_assert_eq(segments_list(&topic, 0, &older, &err), EVBUS_OK);
	return older.count;
}

static int no_exchange_errno;

static int no_exchange(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	if (flags) {
		errno = no_exchange_errno;
		return -1;
	}
	return real_os.renameat2(from_dir, from, to_dir, to, flags);
}

static void assert_rolls(void)
{
	CLEANUP(buf_release) struct buf all = { 0 };

	open_rolling(400);
	must_publish(0, 40);
	cr_assert_geq(older_count(), 12u);
	assert_whole(40);
	/* What one gets by cat: offset = line index. */
	cr_assert_eq(system("cat partition=0/*.jsonl partition=0.jsonl >all"), 0); /* NOLINT(cert-env33-c) */
	all = load("all");
	cr_assert_eq(line_at(&all, 40), all.len);
}

Test(segment, is_rolled_before_it_grows_beyond_its_size_and_read_across)
{
	assert_rolls();
}

Test(segment, is_rolled_where_files_cannot_be_exchanged)
{
	os.renameat2 = no_exchange;
	no_exchange_errno = EINVAL;
	assert_rolls();
	scratch_remove("../rolling");
	no_exchange_errno = ENOSYS;
	assert_rolls();
}

Test(segment, holds_a_line_that_is_larger_than_itself)
{
	open_rolling(400);
	must_open(&writer);
	for (uint64_t n = 0; n < 6; n++)
		cr_assert_eq(publish_group(&writer, n, 1, false, n % 2 * 5000), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	assert_whole(6);
}

Test(segment, that_is_there_already_is_not_rolled_over)
{
	open_rolling(400);
	must_open(&writer);
	for (uint64_t n = 0; n < 3; n++)
		cr_assert_eq(publish(&writer, n), EVBUS_OK);
	cr_assert(!mkdir("partition=0", 0700));
	store("partition=0/00000000000000000000.jsonl", "x", 1);
	CLEANUP(buf_release) struct buf before = load(LIVE);
	cr_assert_neq(publish(&writer, 3), EVBUS_OK);
	assert_file(LIVE, &before);
	cr_assert(!unlink("partition=0/00000000000000000000.jsonl"));
	cr_assert_eq(publish(&writer, 3), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	assert_whole(4);
}

/* ---- rolls that were killed ---- */

enum after {
	AS_IT_IS, /* the next writer comes */
	NO_PAGE, /* the lock file was removed meanwhile */
	RESTARTED, /* the machine was started anew */
	SURVIVOR, /* another writer has it open all the time */
	AFTERS,
};

static void die(void)
{
	_exit(7);
}

static bool roll_until_killed(unsigned at, uint64_t *next)
{
	int told[2];
	char c;

	cr_assert(!pipe(told));
	pid_t child = fork();
	if (!child) {
		struct log_writer mine;
		if (open_writer(&mine))
			_exit(1);
		faulty_begin(at, 0);
		faulty.instead = die;
		if (publish(&mine, *next) || write(told[1], "+", 1) != 1)
			_exit(2);
		_exit(0);
	}
	close(told[1]);
	if (read(told[0], &c, 1) == 1)
		++*next;
	close(told[0]);
	int status = wait_for(child);
	cr_assert(status == 7 || status == 0, "%u: %d", at, status);
	return status == 7;
}

/* Three events fill the segment, and the fourth rolls it. */
static bool killed_roll(unsigned at, enum after after)
{
	static struct reading reading;
	uint64_t next = 3;

	boot = 'a';
	os.boot_id = other_boot_id;
	open_rolling(400);
	must_publish(0, 3);
	if (after == SURVIVOR)
		must_open(&writer);
	bool killed = roll_until_killed(at, &next);
	if (after == NO_PAGE)
		unlink(LOCK);
	if (after == RESTARTED)
		restart_machine();
	read_log(&reading);
	cr_assert(reading.code == EVBUS_OK && reading.count >= next, "call %u: %s", at, err.text);
	uint64_t seen = reading.count;
	if (after != SURVIVOR)
		must_open(&writer);
	for (uint64_t i = 0; i < 4; i++)
		cr_assert_eq(publish(&writer, 1000 + i), EVBUS_OK, "call %u: %s", at, err.text);
	writer_close(&writer);
	read_log(&reading);
	cr_assert(reading.code == EVBUS_OK && reading.count >= seen + 4, "call %u: %s", at, err.text);
	for (uint64_t i = 0; i < reading.count; i++)
		cr_assert(reading.n[i] == i || (i >= seen && reading.n[i] >= 1000), "call %u: offset %ju", at,
			  (uintmax_t)i);
	struct log_verify verify = { .topic = &topic, .finding = no_finding, .progress = no_progress };
	cr_assert_eq(log_verify(&verify, &err), EVBUS_OK, "%s", err.text);
	cr_assert(!fchdir(root.fd));
	topic_close(&topic);
	scratch_remove("rolling");
	return killed;
}

static void sweep_killed_rolls(void)
{
	for (int after = 0; after < AFTERS; after++) {
		unsigned at = 1;
		while (killed_roll(at, (enum after)after))
			at++;
		cr_assert_gt(at, 40u);
	}
	open_topic("t", NULL);
}

Test(segment, whose_roll_was_killed_at_any_call_loses_nothing)
{
	sweep_killed_rolls();
}

Test(segment, whose_roll_was_killed_at_any_call_loses_nothing_where_files_cannot_be_exchanged)
{
	os.renameat2 = no_exchange;
	no_exchange_errno = EINVAL;
	sweep_killed_rolls();
}

Test(segment, that_is_left_empty_by_a_roll_that_did_not_happen_is_removed)
{
	must_publish(0, 3);
	cr_assert(!mkdir("partition=0", 0700));
	store("partition=0/00000000000000000000.jsonl", "", 0);
	assert_whole(3);
	restart_machine();
	assert_whole(3);
	must_publish(3, 1);
	cr_assert_eq(older_count(), 0u);
	assert_whole(4);
}

/* Nor is it one, if what follows begins further on. */
Test(segment, that_was_emptied_is_no_roll_that_did_not_happen)
{
	static const char path[] = "partition=0/00000000000000000000.jsonl";

	for (int paged = 1; paged >= 0; paged--) {
		open_topic(paged ? "paged" : "bare", &(struct evbus_topic_options){ .segment_max_bytes = 400 });
		must_publish(0, 4);
		cr_assert_eq(older_count(), 1u);
		store(path, "", 0);
		cr_assert(paged || !unlink(LOCK));
		cr_assert_eq(open_writer(&writer), EVBUS_IO, "%s", err.text);
		cr_assert(strstr(err.text, path) && strstr(err.text, "the records from offset 0 to "), "%s", err.text);
		cr_assert(is_there(path));
	}
}

/* ---- what a roll that was killed must have synced by its successor ---- */

static uint64_t synced[64];
static size_t synced_count;

static int note_fsync(int fd)
{
	struct stat st;

	cr_assert(!fstat(fd, &st) && synced_count < 64);
	synced[synced_count++] = st.st_ino;
	return real_os.fsync(fd);
}

static bool was_synced(const char *path)
{
	for (size_t i = 0; i < synced_count; i++)
		if (synced[i] == inode(path))
			return true;
	return false;
}

static int die_in_fsync(int fd)
{
	(void)fd;
	_exit(7);
}

static int exchange_and_die(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	if (real_os.renameat2(from_dir, from, to_dir, to, flags))
		_exit(1);
	os.fsync = die_in_fsync;
	return 0;
}

Test(segment, whose_roll_was_killed_has_its_names_synced_by_who_goes_on)
{
	open_rolling(400);
	must_publish(0, 3);
	pid_t child = fork();
	if (!child) {
		must_open(&writer);
		os.renameat2 = exchange_and_die;
		_exit(publish(&writer, 3) != EVBUS_OK);
	}
	cr_assert_eq(wait_for(child), 7);
	assert_log(3);
	os.fsync = note_fsync;
	must_publish(3, 1);
	cr_assert(was_synced("."));
	cr_assert(was_synced("partition=0"));
	os = real_os;
	assert_whole(4);
}

/* ---- the time of the last record ---- */

static int clock_that_went_back(clockid_t clock, struct timespec *now)
{
	int result = real_os.clock_gettime(clock, now);

	now->tv_sec -= 3600;
	return result;
}

/* The only record of it is in the older segment. */
static void roll_by_hand(bool paged)
{
	must_publish(0, 3);
	CLEANUP(buf_release) struct buf file = load(LIVE);
	struct cell end = cell_at(&file, file.len);
	cr_assert_eq(segment_roll(&topic, 0, 0, &err), EVBUS_OK, "%s", err.text);
	end = (struct cell){
		.epoch = 1, .base = end.next, .ino = inode(LIVE), .next = end.next, .time_us = end.time_us
	};
	cr_assert(!unlink(LOCK));
	if (paged)
		make_page(&end, &end);
}

static bool time_is_kept(unsigned at, int number, bool paged)
{
	char name[32];

	snprintf(name, sizeof name, "%d-%d-%u", paged, number, at);
	open_topic(name, NULL);
	roll_by_hand(paged);
	if (paged)
		restart_machine();
	os.clock_gettime = clock_that_went_back;
	faulty_begin(at, number);
	enum evbus_code code = open_writer(&writer);
	faulty_end();
	if (code)
		must_open(&writer);
	cr_assert_eq(publish(&writer, 3), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	os = real_os;
	assert_whole(4);
	return faulty.failed != NULL;
}

Test(segment, whose_last_line_cannot_be_read_now_is_not_damaged_and_its_time_is_kept)
{
	for (int i = 0; i < 4; i++) {
		unsigned at = 1;
		while (time_is_kept(at, i & 1 ? EIO : ENOMEM, i & 2))
			at += sweep_step();
		cr_assert_gt(at, 20u);
	}
}
