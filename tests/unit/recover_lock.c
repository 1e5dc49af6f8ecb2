/* recover.c and those who call it: a lock file, or a log, that somebody removes, truncates, replaces or makes anew between
 * any two calls of a writer that has it open. */
#include "faulty.h"
#include "log_helpers.h"

TestSuite(recover_lock, .init = enter, .fini = leave, .timeout = 60);

static struct log_writer writer;

static void start(uint64_t count)
{
	must_open(&writer);
	for (uint64_t n = 0; n < count; n++)
		cr_assert_eq(publish(&writer, n), EVBUS_OK, "%s", err.text);
}

static struct buf older_page;

static void remove_lock(void)
{
	unlink(LOCK);
}

static void truncate_lock(void)
{
	cr_assert(!truncate(LOCK, 0) || errno == ENOENT);
}

static void shorten_lock(void)
{
	cr_assert(!truncate(LOCK, 100) || errno == ENOENT);
}

static void recreate_lock(void)
{
	unlink(LOCK);
	store(LOCK, "", 0);
}

static void copy_lock(void)
{
	replace(LOCK, older_page.data, older_page.len);
}

static void overwrite_lock(void)
{
	store(LOCK, older_page.data, older_page.len);
}

static void fill_lock_with_junk(void)
{
	char junk[4096];

	memset(junk, 0xa5, sizeof junk);
	store(LOCK, junk, sizeof junk);
}

static void (*const disturb[])(void) = { remove_lock, truncate_lock,  shorten_lock,       recreate_lock,
					 copy_lock,   overwrite_lock, fill_lock_with_junk };
#define DISTURBANCES (sizeof disturb / sizeof *disturb)

/* Two that publish in turn, or one alone beside another one: at one of their calls, something happens to the lock file. Nobody dies here and no sync
 * fails, so every event is acknowledged, whatever becomes of the page. Returns the number of calls. */
static unsigned disturbed_run(unsigned at, void (*what)(void), bool alone)
{
	struct log_writer other;

	unlink(LOCK);
	unlink(LIVE);
	start(2);
	must_open(&other);
	buf_release(&older_page);
	older_page = load(LOCK);
	cr_assert_eq(publish(&other, 2), EVBUS_OK);
	faulty_begin(at, 0);
	faulty.instead = what;
	for (uint64_t n = 3; n < 6; n++)
		cr_assert_eq(publish(alone || n % 2 ? &writer : &other, n), EVBUS_OK, "call %u: %s", at, err.text);
	faulty_end();
	writer_close(&writer);
	writer_close(&other);
	assert_log(6);
	return faulty.calls;
}

static void disturb_all(size_t from, size_t to)
{
	unsigned states = 0;

	for (size_t i = 2 * from; i < 2 * to; i++)
		for (unsigned at = 1, calls = 1; at <= calls; at++, states++)
			calls = disturbed_run(at, disturb[i / 2], i % 2);
	buf_release(&older_page);
	cr_assert_gt(states, 75 * (to - from), "%u", states);
}

Test(recover_lock, file_that_is_removed_or_truncated_between_any_two_calls_loses_nothing)
{
	disturb_all(0, 3);
}

Test(recover_lock, file_that_is_made_anew_or_replaced_between_any_two_calls_loses_nothing)
{
	disturb_all(3, DISTURBANCES);
}

Test(recover_lock, file_that_is_replaced_between_any_two_calls_loses_nothing_on_a_disk_either)
{
	leave();
	enter_disk();
	for (unsigned at = 1; at < 60; at += 7)
		disturbed_run(at, disturb[at % DISTURBANCES], at % 2);
	buf_release(&older_page);
}

/* A page from before a roll is put in the place of ours while we sync, and the sync fails: that is no reason to crash, nor
 * to cut what was acknowledged. */
static int overwrite_and_fail(int fd)
{
	(void)fd;
	overwrite_lock();
	errno = EIO;
	return -1;
}

Test(recover_lock, file_from_before_a_roll_in_a_sync_that_fails_loses_nothing)
{
	static struct reading reading;

	open_rolling(400);
	start(2);
	older_page = load(LOCK);
	for (uint64_t n = 2; n < 8; n++)
		cr_assert_eq(publish(&writer, n), EVBUS_OK, "%s", err.text);
	os.fdatasync = overwrite_and_fail;
	cr_assert_eq(publish(&writer, 8), EVBUS_IO);
	os = real_os;
	cr_assert_eq(publish(&writer, 9), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	buf_release(&older_page);
	read_log(&reading);
	cr_assert(reading.code == EVBUS_OK && reading.count >= 9 && reading.n[reading.count - 1] == 9, "%s", err.text);
	for (uint64_t i = 0; i < 8; i++)
		cr_assert_eq(reading.n[i], i);
}

static struct buf other_log;

static void replace_log(void)
{
	replace(LIVE, other_log.data, other_log.len);
}

/* The file that took the log's place is left alone, whenever that happened. */
Test(recover_lock, file_of_a_log_that_is_replaced_between_any_two_calls_leaves_the_other_log_alone)
{
	unsigned calls = 20;

	for (unsigned at = 1; at <= calls; at++) {
		unlink(LIVE);
		unlink(LOCK);
		start(3);
		buf_release(&other_log);
		other_log = load(LIVE);
		faulty_begin(at, 0);
		faulty.instead = replace_log;
		enum evbus_code code = publish(&writer, 3);
		faulty_end();
		calls = faulty.calls > calls ? faulty.calls : calls;
		cr_assert(code == EVBUS_OK || code == EVBUS_CONFLICT, "call %u: %d %s", at, code, err.text);
		if (faulty.calls >= at)
			cr_assert_eq(publish(&writer, 4), EVBUS_CONFLICT, "call %u: %s", at, err.text);
		if (faulty.calls >= at)
			assert_file(LIVE, &other_log);
		writer_close(&writer);
		if (faulty.calls < at)
			break;
	}
	buf_release(&other_log);
}

/* ---- over and over: nobody goes on for ever ---- */

static const char *lost_at;

static void lose(const char *name)
{
	if (!strcmp(name, lost_at))
		unlink(LOCK);
}

static void lose_at(const char *name)
{
	lost_at = name;
	os.point = lose;
	unlink(LOCK);
}

static void assert_given_up(enum evbus_code code)
{
	os.point = real_os.point;
	cr_assert_eq(code, EVBUS_AGAIN, "%s", err.text);
	cr_assert_str_eq(err.text, "the files of 't/" LIVE "' are being replaced");
}

Test(recover_lock, file_that_is_removed_whenever_the_log_is_opened_is_given_up)
{
	must_publish(0, 3);
	lose_at("recover/locked");
	assert_given_up(open_writer(&writer));
	must_publish(3, 1);
	assert_log(4);
}

Test(recover_lock, file_that_is_removed_whenever_it_was_made_is_given_up_and_nothing_is_appended)
{
	start(3);
	lose_at("wake/begins");
	assert_given_up(publish(&writer, 3));
	assert_log(3);
	cr_assert_eq(publish(&writer, 3), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	assert_log(4);
}

Test(recover_lock, file_that_is_removed_whenever_it_was_made_is_given_up_and_nothing_is_acknowledged)
{
	CLEANUP(group_release) struct group group = { 0 };
	struct mark mark;

	start(3);
	add_event(&group, &writer, 3, 0);
	writer.alone = false; /* who is looks no more before he syncs */
	cr_assert_eq(writer_append(&writer, &group, UINT64_MAX, &mark, &err), EVBUS_OK, "%s", err.text);
	lose_at("wake/begins");
	assert_given_up(writer_commit(&writer, &mark, &group, &err));
	writer_close(&writer);
	must_publish(4, 1);
	assert_log(5);
}

Test(recover_lock, file_that_is_removed_whenever_it_was_made_is_given_up_by_who_settles)
{
	struct control_view view;

	start(3);
	append_only(&writer, 3);
	lose_at("wake/begins");
	assert_given_up(writer_settle(&writer, &view, &err));
	cr_assert_eq(writer_settle(&writer, &view, &err), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	assert_log(4);
}

/* The page is of a segment that is not there: a reader does not look for it for ever. */
Test(recover_lock, file_that_never_fits_the_log_is_told_to_readers)
{
	static struct reading reading;
	struct control_view view;

	must_publish(0, 3);
	cr_assert_eq(read_view(&view), CONTROL_OURS);
	struct cell later = view.end;
	later.base = later.next = 100;
	make_page(&later, &later);
	read_log(&reading);
	cr_assert_eq(reading.code, EVBUS_CONFLICT);
	cr_assert_str_eq(err.text, "'t/" LIVE "' and its control page do not fit together");
	make_page(&view.end, &view.end);
	assert_log(3);
}
