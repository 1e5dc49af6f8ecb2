/* commit.c: a sync that fails is final, and one whose leader died is not believed. */
#include "faulty.h"
#include "log_helpers.h"

#include <pthread.h>

TestSuite(commit, .init = enter, .fini = leave, .timeout = 60);

static struct log_writer writer;

static void start(uint64_t count)
{
	must_open(&writer);
	for (uint64_t n = 0; n < count; n++)
		cr_assert_eq(publish(&writer, n), EVBUS_OK, "%s", err.text);
}

/* What is appended and waits. */
struct waiting {
	struct log_writer writer;
	struct group group;
	struct mark mark;
	enum evbus_code code;
	struct evbus_err err;
};

static void append_waiting(struct waiting *waiting, uint64_t n)
{
	*waiting = (struct waiting){ 0 };
	must_open(&waiting->writer);
	add_event(&waiting->group, &waiting->writer, n, 0);
	cr_assert_eq(writer_append(&waiting->writer, &waiting->group, UINT64_MAX, &waiting->mark, &err), EVBUS_OK, "%s",
		     err.text);
}

static enum evbus_code commit_waiting(struct waiting *waiting)
{
	waiting->code = writer_commit(&waiting->writer, &waiting->mark, &waiting->group, &waiting->err);
	return waiting->code;
}

static void end_waiting(struct waiting *waiting)
{
	group_release(&waiting->group);
	writer_close(&waiting->writer);
}

/* ---- a sync that fails ---- */

static int syncs, failing; /* the number of syncs, and of those to come that fail */

static int fail_syncs(int fd)
{
	syncs++;
	if (failing > 0) {
		failing--;
		errno = EIO;
		return -1;
	}
	return real_os.fdatasync(fd);
}

static void assert_flags_clear(void)
{
	struct control_view view;

	cr_assert(read_view(&view) == CONTROL_OURS && !view.halt && !view.syncing);
}

Test(commit, that_fails_cuts_off_what_it_should_have_covered_and_the_next_publish_works)
{
	struct control_view view;

	start(3);
	CLEANUP(buf_release) struct buf durable = load(LIVE);
	os.fdatasync = fail_syncs;
	failing = 1;
	cr_assert_eq(publish(&writer, 77), EVBUS_IO);
	cr_assert(strstr(err.text, "cannot sync 't/partition=0.jsonl': what was not acknowledged is cut off") &&
			  strstr(err.text, strerror(EIO)),
		  "%s", err.text);
	assert_file(LIVE, &durable);
	cr_assert(read_view(&view) == CONTROL_OURS && view.end.epoch == 2 && view.durable.epoch == 2);
	cr_assert(view.end.bytes == durable.len && view.durable.next == 3);
	assert_flags_clear();
	assert_log(3);
	cr_assert_eq(publish(&writer, 3), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	assert_log(4);
	char name[256];
	cr_assert_eq(torn_copies(name), 0);
}

Test(commit, that_fails_fails_everybody_who_waited_also_after_others_have_taken_their_offsets)
{
	struct waiting waiting[3];

	start(3);
	for (uint64_t i = 0; i < 3; i++)
		append_waiting(&waiting[i], 100 + i);
	os.fdatasync = fail_syncs;
	failing = 1;
	cr_assert_eq(commit_waiting(&waiting[1]), EVBUS_IO);
	cr_assert_eq(commit_waiting(&waiting[0]), EVBUS_IO);
	cr_assert(strstr(waiting[0].err.text, "the event is not in it"), "%s", waiting[0].err.text);
	for (uint64_t n = 3; n < 9; n++)
		cr_assert_eq(publish(&writer, n), EVBUS_OK, "%s", err.text);
	cr_assert_eq(commit_waiting(&waiting[2]), EVBUS_IO);
	cr_assert_eq(commit_waiting(&waiting[0]), EVBUS_IO);
	for (int i = 0; i < 3; i++)
		end_waiting(&waiting[i]);
	writer_close(&writer);
	assert_log(9);
}

Test(commit, that_fails_fails_who_waited_also_when_an_older_page_was_put_back_that_knows_of_no_cut)
{
	struct waiting waiting;

	start(3);
	CLEANUP(buf_release) struct buf page = load(LOCK);
	append_waiting(&waiting, 100);
	os.fdatasync = fail_syncs;
	failing = 1;
	cr_assert_eq(publish(&writer, 101), EVBUS_IO);
	store_buf(LOCK, &page);
	cr_assert_eq(publish(&writer, 3), EVBUS_OK, "%s", err.text);
	cr_assert_eq(publish(&writer, 4), EVBUS_OK, "%s", err.text);
	cr_assert_eq(commit_waiting(&waiting), EVBUS_IO);
	end_waiting(&waiting);
	writer_close(&writer);
	assert_log(5);
}

/* The leader is in its sync until the others wait for it; then the sync fails. */
static volatile int waiters;

static int fail_when_all_wait(int fd)
{
	if (failing == 0)
		return real_os.fdatasync(fd);
	failing = 0;
	for (int i = 0; i < 5000 && waiters < 3; i++)
		usleep(1000);
	usleep(20000);
	errno = EIO;
	return -1;
}

static void *wait_in_thread(void *context)
{
	__sync_fetch_and_add(&waiters, 1);
	commit_waiting(context);
	return NULL;
}

Test(commit, that_fails_wakes_and_fails_threads_that_wait_for_it)
{
	struct waiting waiting[4];
	pthread_t threads[4];

	start(3);
	for (uint64_t i = 0; i < 4; i++)
		append_waiting(&waiting[i], 100 + i);
	os.fdatasync = fail_when_all_wait;
	failing = 1;
	for (int i = 0; i < 4; i++)
		cr_assert(!pthread_create(&threads[i], NULL, wait_in_thread, &waiting[i]));
	for (int i = 0; i < 4; i++)
		cr_assert(!pthread_join(threads[i], NULL));
	for (int i = 0; i < 4; i++) {
		cr_assert_eq(waiting[i].code, EVBUS_IO, "%d", waiting[i].code);
		end_waiting(&waiting[i]);
	}
	cr_assert_eq(publish(&writer, 3), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	assert_log(4);
}

/* ---- and the cut that fails, too ---- */

static bool no_cuts;

static int fail_cuts(int fd, off_t size)
{
	if (!no_cuts)
		return real_os.ftruncate(fd, size);
	errno = EIO;
	return -1;
}

Test(commit, that_fails_and_cannot_be_cut_back_halts_publishing_and_not_reading)
{
	struct control_view view;

	start(3);
	os.fdatasync = fail_syncs;
	os.ftruncate = fail_cuts;
	failing = 1;
	no_cuts = true;
	cr_assert_eq(publish(&writer, 77), EVBUS_IO);
	cr_assert(strstr(noticed, "stays halted"), "%s", noticed);
	cr_assert(read_view(&view) == CONTROL_OURS && view.halt);
	struct log_writer other;
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(publish(&writer, 78), EVBUS_IO);
		cr_assert_eq(open_writer(&other), EVBUS_IO);
		assert_log(3);
	}
	/* Whoever comes once it can be done finishes it. */
	no_cuts = false;
	must_open(&other);
	assert_flags_clear();
	cr_assert_eq(publish(&other, 3), EVBUS_OK, "%s", err.text);
	cr_assert_eq(publish(&writer, 4), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	writer_close(&other);
	assert_log(5);
}

Test(commit, that_fails_and_whose_cut_cannot_be_synced_stays_halted_until_it_can)
{
	struct control_view view;

	start(3);
	os.fdatasync = fail_syncs;
	failing = 4;
	cr_assert_eq(publish(&writer, 77), EVBUS_IO);
	cr_assert(read_view(&view) == CONTROL_OURS && view.halt);
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(publish(&writer, 78), EVBUS_IO, "%s", err.text);
		assert_log(3);
	}
	cr_assert_eq(failing, 0);
	cr_assert_eq(publish(&writer, 3), EVBUS_OK, "%s", err.text);
	assert_flags_clear();
	writer_close(&writer);
	assert_log(4);
}

/* The descriptor that told of the failure is not asked again: it would say that all is well. */
static ino_t failed_inode;
static int failed_fd = -1, asked_again;

static int remember_failure(int fd)
{
	struct stat st;

	cr_assert(!fstat(fd, &st));
	if (failed_fd < 0) {
		failed_fd = fd;
		failed_inode = st.st_ino;
		errno = EIO;
		return -1;
	}
	asked_again += fd == failed_fd && st.st_ino == failed_inode && !failing;
	return real_os.fdatasync(fd);
}

Test(commit, that_fails_syncs_the_cut_by_another_descriptor)
{
	start(2);
	os.fdatasync = remember_failure;
	cr_assert_eq(publish(&writer, 77), EVBUS_IO);
	cr_assert_geq(failed_fd, 0);
	cr_assert_eq(asked_again, 0);
	os = real_os;
	writer_close(&writer);
	assert_log(2);
}

/* ---- a leader that died ---- */

/* What the survivor does with the live file, in its order: w (written again) and s (synced). */
static char done[256];
static uint64_t live_inode;
static uint64_t written_from, written_to;

static bool is_live(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && st.st_ino == live_inode;
}

static ssize_t note_pwrite(int fd, const void *data, size_t len, off_t at)
{
	if (is_live(fd) && strlen(done) + 1 < sizeof done) {
		done[strlen(done)] = 'w';
		written_from = (uint64_t)at < written_from ? (uint64_t)at : written_from;
		written_to = (uint64_t)at + len > written_to ? (uint64_t)at + len : written_to;
	}
	return real_os.pwrite(fd, data, len, at);
}

static int note_sync(int fd)
{
	if (is_live(fd) && strlen(done) + 1 < sizeof done)
		done[strlen(done)] = 's';
	return real_os.fdatasync(fd);
}

static void note_from_here(void)
{
	live_inode = inode(LIVE);
	memset(done, 0, sizeof done);
	written_from = UINT64_MAX;
	written_to = 0;
	os.pwrite = note_pwrite;
	os.fdatasync = note_sync;
}

static int die_in_sync(int fd)
{
	(void)fd;
	_exit(0);
}

static ssize_t die_in_pwrite(int fd, const void *data, size_t len, off_t at)
{
	(void)fd;
	(void)data;
	(void)len;
	(void)at;
	_exit(0);
}

static int die_behind_sync(int fd)
{
	int result = real_os.fdatasync(fd);

	os.pwrite = die_in_pwrite;
	return result;
}

static void publish_and_die(uint64_t n, int (*sync)(int fd))
{
	pid_t child = fork();
	if (!child) {
		struct log_writer mine;
		if (open_writer(&mine))
			_exit(1);
		os.fdatasync = sync;
		if (publish(&mine, n))
			_exit(2);
		_exit(3);
	}
	cr_assert_eq(wait_for(child), 0);
}

/* Whether or not it synced: nobody has heard of it. The survivor writes the bytes again before it syncs them. */
static void assert_written_again(int (*sync)(int fd), bool open)
{
	struct control_view view;

	start(3);
	CLEANUP(buf_release) struct buf before = load(LIVE);
	if (!open)
		writer_close(&writer);
	publish_and_die(3, sync);
	cr_assert(read_view(&view) == CONTROL_OURS && view.syncing && view.durable.next == 3 && view.end.next == 4);
	CLEANUP(buf_release) struct buf after = load(LIVE);
	assert_log(3);
	note_from_here();
	if (!open)
		must_open(&writer);
	cr_assert_eq(publish(&writer, 4), EVBUS_OK, "%s", err.text);
	cr_assert(written_from == before.len && written_to > after.len, "%ju", (uintmax_t)written_from);
	const char *again = strchr(done, 'w');
	cr_assert(again && strchr(again, 's'), "%s", done);
	if (open)
		cr_assert_str_eq(done, "wws", "%s", done); /* its own line, the dead one's and its own again, sync */
	writer_close(&writer);
	os = real_os;
	assert_flags_clear();
	assert_log(5);
}

Test(commit, whose_leader_died_in_the_sync_is_done_again_from_the_bytes_by_who_has_it_open)
{
	assert_written_again(die_in_sync, true);
}

Test(commit, whose_leader_died_in_the_sync_is_done_again_from_the_bytes_by_who_opens_it)
{
	assert_written_again(die_in_sync, false);
}

Test(commit, whose_leader_died_behind_the_sync_is_done_again_from_the_bytes)
{
	assert_written_again(die_behind_sync, true);
}

/* The older page does not say that somebody was syncing what stands behind its end. */
Test(commit, whose_leader_died_in_the_sync_is_done_again_from_the_bytes_also_where_an_older_page_was_put_back)
{
	start(3);
	CLEANUP(buf_release) struct buf before = load(LIVE);
	CLEANUP(buf_release) struct buf page = load(LOCK);
	publish_and_die(3, die_in_sync);
	store_buf(LOCK, &page);
	note_from_here();
	cr_assert_eq(publish(&writer, 4), EVBUS_OK, "%s", err.text);
	cr_assert_eq(written_from, before.len, "%ju", (uintmax_t)written_from);
	cr_assert_eq(strncmp(done, "ws", 2), 0, "%s", done);
	writer_close(&writer);
	os = real_os;
	assert_log(5);
}

/* ---- a kill at each call ---- */

static void die(void)
{
	_exit(7);
}

/* A child publishes two events and is killed at its at-th call; it says what was acknowledged. */
static int publish_until_killed(unsigned at, uint64_t next, bool atomic)
{
	int told[2];
	char c;
	int acknowledged = 0;

	cr_assert(!pipe(told));
	pid_t child = fork();
	if (!child) {
		struct log_writer mine;
		faulty_begin(at, 0);
		faulty.instead = die;
		if (open_writer(&mine))
			_exit(1);
		for (uint64_t i = 0; i < 2; i++)
			if (publish_group(&mine, next + i * 2, 2, atomic, 0) || write(told[1], "+", 1) != 1)
				_exit(2);
		_exit(0);
	}
	close(told[1]);
	while (read(told[0], &c, 1) == 1)
		acknowledged += 2;
	close(told[0]);
	int status = wait_for(child);
	cr_assert(status == 7 || status == 0, "%u: %d", at, status);
	return status ? acknowledged : -1;
}

/* With a survivor that has it open, or without one. */
static void sweep_kills(bool survivor, bool atomic)
{
	static struct reading reading;
	unsigned at = 1;
	int acknowledged;

	do {
		unlink(LIVE);
		unlink(LOCK);
		start(2);
		if (!survivor)
			writer_close(&writer);
		acknowledged = publish_until_killed(at, 2, atomic);
		read_log(&reading);
		cr_assert_eq(reading.code, EVBUS_OK, "%u: %s", at, err.text);
		uint64_t seen = reading.count;
		cr_assert_geq(seen, 2 + (uint64_t)(acknowledged > 0 ? acknowledged : 0), "%u", at);
		if (!survivor)
			must_open(&writer);
		cr_assert_eq(publish(&writer, 1000), EVBUS_OK, "%u: %s", at, err.text);
		writer_close(&writer);
		read_log(&reading);
		cr_assert_eq(reading.code, EVBUS_OK, "%u: %s", at, err.text);
		cr_assert(reading.count > seen && reading.n[reading.count - 1] == 1000, "%u", at);
		for (uint64_t i = 0; i + 1 < reading.count; i++)
			cr_assert_eq(reading.n[i], i, "%u", at);
		cr_assert(!atomic || reading.count % 2 == 1, "%u: half a batch", at);
		at++;
	} while (acknowledged >= 0);
	cr_assert_gt(at, 40u);
}

Test(commit, survives_a_kill_at_each_call_of_another_writer)
{
	sweep_kills(true, false);
	sweep_kills(true, true);
}

Test(commit, survives_a_kill_at_each_call_of_the_only_writer)
{
	sweep_kills(false, false);
	sweep_kills(false, true);
}
