/* recover.c: recovery that is itself interrupted, that runs out of disk, or that has much to look at. What it decides
 * is in recover_tail.c and recover_page.c. */
#include "log/extent.h"
#include "faulty.h"
#include "log_helpers.h"

TestSuite(recover, .init = enter, .fini = leave, .timeout = 60);

static struct log_writer writer;

#define TORN "{\"crc32c\":\"01234567\",\"off"

/* What a crash may leave: four durable records, one that was appended, one that was only written, and half a line. */
enum state {
	SAME_BOOT,
	SYNCING,
	HALTED,
	OTHER_BOOT,
	NO_PAGE,
	STATES,
};

static struct buf whole;

static void make_state(enum state state)
{
	struct control control;

	remove_torn();
	unlink(LIVE);
	unlink(LOCK);
	os = real_os;
	boot = 'a';
	os.boot_id = other_boot_id;
	must_publish(0, 6);
	buf_release(&whole);
	whole = load(LIVE);
	add(&whole, TORN, sizeof TORN - 1);
	store_buf(LIVE, &whole);
	struct cell durable = cell_at(&whole, line_at(&whole, 4)), end = cell_at(&whole, line_at(&whole, 5));
	unlink(LOCK);
	if (state == NO_PAGE)
		return;
	make_page(&end, &durable);
	if (state == OTHER_BOOT)
		restart_machine();
	if (state != SYNCING && state != HALTED)
		return;
	cr_assert_eq(control_open(&topic, 0, true, &control, &err), EVBUS_OK);
	set_flag(&control, state == HALTED ? CONTROL_HALT : CONTROL_SYNCING, true);
	control_close(&control);
}

/* The torn line is gone, and what was cut is kept, once or more often. */
static void assert_recovered(enum state state, unsigned at, uint64_t records)
{
	char name[256];

	CLEANUP(buf_release) struct buf live = load(LIVE);
	cr_assert(live.len == line_at(&whole, records) && !memcmp(live.data, whole.data, live.len), "state %d, call %u",
		  state, at);
	cr_assert(torn_copies(name) || state == HALTED, "state %d, call %u", state, at);
	assert_log(records);
}

static bool interrupted(enum state state, unsigned at, bool from_on, int number)
{
	make_state(state);
	int files = open_files();
	faulty_begin(at, number);
	faulty.from_on = from_on;
	enum evbus_code code = open_writer(&writer);
	faulty_end();
	if (code == EVBUS_OK)
		writer_close(&writer);
	else
		cr_assert_gt(strlen(err.text), 10u);
	cr_assert_eq(open_files(), files, "state %d, call %u, %s: a descriptor leaks", state, at, faulty.failed);
	bool failed = faulty.failed != NULL;
	/* A sync that failed is final, also here. A page that cannot be read is none: all is written again. */
	const char *once = failed && !from_on ? faulty.failed : "";
	bool cut = state == HALTED ? strcmp(once, "pread") != 0 : state <= SYNCING && !strcmp(once, "fdatasync");
	static struct reading reading;
	read_log(&reading);
	uint64_t records = cut || (state == HALTED && reading.count == 4) ? 4 : 6;
	/* Readers in between see what stays. */
	cr_assert(reading.code == EVBUS_OK && reading.count >= 4 && reading.count <= records, "state %d, call %u: %ju",
		  state, at, (uintmax_t)reading.count);
	must_open(&writer);
	assert_recovered(state, at, records);
	cr_assert_eq(publish(&writer, records), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	assert_log(records + 1);
	return failed;
}

static void sweep(bool from_on, int number)
{
	for (int state = 0; state < STATES; state++) {
		unsigned at = 1;
		while (interrupted((enum state)state, at, from_on, number))
			at++;
		cr_assert_gt(at, 20u);
	}
	buf_release(&whole);
}

Test(recover, that_was_killed_at_any_call_is_done_again_with_the_same_result)
{
	sweep(true, EIO);
}

Test(recover, in_which_any_call_fails_is_done_again_with_the_same_result)
{
	sweep(false, EIO);
}

Test(recover, that_has_no_room_for_a_copy_cuts_nothing)
{
	char name[256];

	sweep(false, ENOSPC);
	make_state(NO_PAGE);
	faulty_begin(1, ENOSPC);
	faulty.from_on = true;
	cr_assert_neq(open_writer(&writer), EVBUS_OK);
	faulty_end();
	assert_file(LIVE, &whole);
	cr_assert_eq(torn_copies(name), 0);
	buf_release(&whole);
}

/* A page of another boot alone knows that the last line was acknowledged. */
Test(recover, that_cannot_read_the_page_does_not_do_without_it)
{
	must_publish(0, 6);
	CLEANUP(buf_release) struct buf damaged = load(LIVE);
	damaged.data[damaged.len - 10] ^= 1;
	store_buf(LIVE, &damaged);
	restart_machine();
	unsigned at = 0;
	do {
		faulty_begin(++at, EIO);
		cr_assert_neq(open_writer(&writer), EVBUS_OK, "call %u, %s", at, faulty.failed);
		faulty_end();
		assert_file(LIVE, &damaged);
	} while (faulty.failed);
	cr_assert_gt(at, 20u);
	cr_assert(strstr(err.text, "damaged at offset 5"), "%s", err.text);
}

/* ---- copies of what was cut ---- */

static int64_t fake_us = 1769688000123456;

static int fake_clock(clockid_t clock, struct timespec *now)
{
	(void)clock;
	*now = (struct timespec){ fake_us / 1000000, fake_us % 1000000 * 1000 };
	return 0;
}

Test(recover, names_copies_by_offset_time_and_number_and_says_so)
{
	static const char *const expected[] = { "partition=0.torn-1-20260129T120000Z-0",
						"partition=0.torn-1-20260129T120000Z-1",
						"partition=0.torn-1-20260129T120000Z-2" };

	must_publish(0, 1);
	os.clock_gettime = fake_clock;
	for (int i = 0; i < 3; i++) {
		int fd = open(LIVE, O_WRONLY | O_APPEND);
		cr_assert(fd >= 0 && write(fd, &"torn"[i], 4u - (size_t)i) == 4 - i && !close(fd));
		must_open(&writer);
		writer_close(&writer);
		CLEANUP(buf_release) struct buf copy = load(expected[i]);
		cr_assert(copy.len == 4u - (size_t)i && !memcmp(copy.data, &"torn"[i], copy.len));
		cr_assert(strstr(noticed, "of an interrupted write off 't/partition=0.jsonl' at offset 1; kept as "
					  "'t/partition=0.torn-1-"),
			  "%s", noticed);
	}
}

static uint64_t synced[64];
static size_t synced_count;

static int note_sync(int fd)
{
	struct stat st;

	cr_assert(!fstat(fd, &st) && synced_count < 64);
	synced[synced_count++] = st.st_ino;
	return real_os.fsync(fd);
}

static bool cut_too_soon;
static uint64_t live_inode;

static int check_cut(int fd, off_t size)
{
	struct stat st;
	char name[256];

	cr_assert(!fstat(fd, &st));
	if (st.st_ino == live_inode && torn_copies(name)) {
		bool copied = false, named = false;
		for (size_t i = 0; i < synced_count; i++) {
			copied = copied || synced[i] == inode(name);
			named = named || (copied && synced[i] == inode("."));
		}
		cut_too_soon = !named;
	} else if (st.st_ino == live_inode)
		cut_too_soon = true;
	return real_os.ftruncate(fd, size);
}

Test(recover, syncs_the_copy_and_its_name_before_it_cuts)
{
	make_state(NO_PAGE);
	live_inode = inode(LIVE);
	os.fsync = note_sync;
	os.ftruncate = check_cut;
	must_open(&writer);
	os.fsync = real_os.fsync;
	os.ftruncate = real_os.ftruncate;
	writer_close(&writer);
	cr_assert_not(cut_too_soon);
	cr_assert_gt(synced_count, 3u);
	buf_release(&whole);
}

/* ---- logs that are larger than what is looked at ---- */

static uint64_t read_below; /* the lowest byte of the live file that was read, but for its first lines */

static ssize_t note_pread(int fd, void *data, size_t len, off_t at)
{
	struct stat st;

	cr_assert(!fstat(fd, &st));
	if (st.st_ino == live_inode && at > 100000 && (uint64_t)at < read_below)
		read_below = (uint64_t)at;
	return real_os.pread(fd, data, len, at);
}

static void write_large(uint64_t count, size_t pad)
{
	must_open(&writer);
	for (uint64_t n = 0; n < count; n += 8)
		cr_assert_eq(publish_group(&writer, n, 8, n % 16, pad), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
}

/* 12 MiB: a line that is damaged early on keeps nobody from publishing, and one in the last 4 MiB does. */
Test(recover, looks_at_the_last_4_mib)
{
	write_large(1200, 10000);
	CLEANUP(buf_release) struct buf file = load(LIVE);
	cr_assert_gt(file.len, 3 * UNSYNCED_MAX_BYTES - 1000000);
	file.data[line_at(&file, 100) + 500] ^= 1;
	add(&file, TORN, sizeof TORN - 1);
	for (int i = 0; i < 2; i++) {
		store_buf(LIVE, &file);
		cr_assert(i ? !unlink(LOCK) : (restart_machine(), true));
		live_inode = inode(LIVE);
		read_below = UINT64_MAX;
		os.pread = note_pread;
		must_open(&writer);
		os.pread = real_os.pread;
		writer_close(&writer);
		cr_assert(read_below > file.len - UNSYNCED_MAX_BYTES - 200000, "%ju of %zu", (uintmax_t)read_below,
			  file.len);
		cr_assert(read_below < file.len - UNSYNCED_MAX_BYTES + 200000);
	}
	file.data[line_at(&file, 1100) + 500] ^= 1;
	store_buf(LIVE, &file);
	cr_assert(!unlink(LOCK));
	cr_assert_eq(open_writer(&writer), EVBUS_IO);
	cr_assert(strstr(err.text, "is damaged at offset 1100, byte"), "%s", err.text);
}

/* A flipped bit anywhere in a log of 3 MiB and a restart: never cut, always named. */
Test(recover, of_a_3_mib_log_with_one_flipped_bit_after_a_restart_cuts_nothing)
{
	write_large(320, 10000);
	CLEANUP(buf_release) struct buf file = load(LIVE);
	restart_machine();
	int fd = open(LIVE, O_RDWR);
	char name[256];
	for (size_t i = 0; i < 100; i++) {
		size_t at = i * 7919 * 211 % file.len;
		char flipped = (char)(file.data[at] ^ (1 << i % 8));
		cr_assert_eq(pwrite(fd, &flipped, 1, (off_t)at), 1);
		cr_assert_eq(open_writer(&writer), EVBUS_IO, "byte %zu: %s", at, err.text);
		cr_assert_not_null(strstr(err.text, "damaged at offset"));
		cr_assert_eq(pwrite(fd, file.data + at, 1, (off_t)at), 1);
	}
	close(fd);
	assert_file(LIVE, &file);
	cr_assert_eq(torn_copies(name), 0);
	must_publish(320, 1);
	assert_log(321);
}

/* Without a page; whatever becomes of the line breaks, no line that can be read is taken for an interrupted write. */
Test(recover, of_a_log_whose_line_breaks_were_changed_cuts_nothing)
{
	char name[256];

	must_publish(0, 4);
	CLEANUP(buf_release) struct buf log = load(LIVE);
	for (int i = 0; i < 4; i++) {
		CLEANUP(buf_release) struct buf file = { 0 };
		size_t begin = line_at(&log, 3), end = begin - 1;
		add(&file, log.data, i == 0 ? end : begin);
		if (i == 3)
			file.data[end] ^= 1;
		add(&file, "\xef\xbb\xbf", i == 1 ? 3 : 0);
		add(&file, log.data + begin, log.len - begin - (i == 2));
		add(&file, "\r\n", i == 2 ? 2 : 0);
		store_buf(LIVE, &file);
		unlink(LOCK);
		cr_assert_eq(open_writer(&writer), EVBUS_IO, "%d: %s", i, err.text);
		cr_assert_not_null(strstr(err.text, i == 0 || i == 3 ? "damaged at offset 2" : "damaged at offset 3"), "%d: %s",
				   i, err.text);
		assert_file(LIVE, &file);
		cr_assert_eq(torn_copies(name), 0);
	}
}

/* A tail of zeros that is longer than all that can be unsynced. */
Test(recover, of_a_log_with_16_mib_of_zeros_behind_it_keeps_the_log)
{
	struct stat st;

	must_publish(0, 10);
	CLEANUP(buf_release) struct buf file = load(LIVE);
	cr_assert(!truncate(LIVE, 16 << 20) && !unlink(LOCK));
	assert_log(10);
	must_publish(10, 1);
	assert_log(11);
	char name[256];
	cr_assert_eq(torn_copies(name), 1);
	cr_assert(!stat(name, &st) && (size_t)st.st_size == (16u << 20) - file.len);
}

/* ---- what is unsynced stays within bounds ---- */

Test(recover, has_at_most_4_mib_to_recover)
{
	CLEANUP(group_release) struct group group = { 0 };
	struct control_view view;
	struct mark mark;
	uint64_t most = 0;

	must_open(&writer);
	for (uint64_t n = 0; n < 60; n++) {
		group_clear(&group);
		add_event(&group, &writer, n, 300000);
		cr_assert_eq(writer_append(&writer, &group, UINT64_MAX, &mark, &err), EVBUS_OK, "%s", err.text);
		cr_assert_eq(read_view(&view), CONTROL_OURS);
		most = view.end.bytes - view.durable.bytes > most ? view.end.bytes - view.durable.bytes : most;
	}
	cr_assert(most <= UNSYNCED_MAX_BYTES && most > 3000000, "%ju", (uintmax_t)most);
	cr_assert_eq(writer_commit(&writer, &mark, &group, &err), EVBUS_OK);
	writer_close(&writer);
	assert_log(60);
}
