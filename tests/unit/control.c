/* control.c: nobody sees half of a cell, and no bit of the page can be wrong without being harmless or noticed. */
#include "faulty.h"
#include "log_helpers.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

TestSuite(control, .init = enter, .fini = leave, .timeout = 60);

static struct control control;

/* Whose members all follow from one number. */
static struct cell cell_of(uint64_t n)
{
	return (struct cell){ n * 3, n * 5, n * 7, n * 11, n * 13, (int64_t)(n * 17) };
}

static bool is_cell(const struct cell *cell)
{
	struct cell expected = cell_of(cell->epoch / 3);

	return !memcmp(cell, &expected, sizeof expected);
}

static void open_page(uint64_t n)
{
	struct cell cell = cell_of(n);

	cr_assert_eq(control_open(&topic, 0, true, &control, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(control_init(&control, &cell, &err), EVBUS_OK, "%s", err.text);
}

static enum control_state state_of(struct control_view *view)
{
	enum control_state state;

	cr_assert_eq(control_read(&control, &state, view, &err), EVBUS_OK, "%s", err.text);
	return state;
}

/* ---- the page ---- */

Test(control, page_holds_what_was_set)
{
	struct control_view view;
	struct cell cell = cell_of(2);

	open_page(1);
	cr_assert_eq(state_of(&view), CONTROL_OURS);
	cr_assert(is_cell(&view.end) && is_cell(&view.durable) && !view.syncing && !view.halt);
	uint64_t page_id = view.page_id;
	cr_assert_eq(set_cell(&control, CONTROL_END, &cell), EVBUS_OK);
	set_flag(&control, CONTROL_HALT, true);
	cr_assert_eq(state_of(&view), CONTROL_OURS);
	cr_assert(view.end.epoch == 6 && view.durable.epoch == 3 && view.halt && !view.syncing &&
		  view.page_id == page_id);
	cr_assert_eq(set_cell(&control, CONTROL_DURABLE, &cell), EVBUS_OK);
	set_flag(&control, CONTROL_HALT, false);
	set_flag(&control, CONTROL_SYNCING, true);
	cr_assert_eq(state_of(&view), CONTROL_OURS);
	cr_assert(view.durable.epoch == 6 && !view.halt && view.syncing);
	cr_assert_eq(control_init(&control, &cell, &err), EVBUS_OK);
	cr_assert_eq(state_of(&view), CONTROL_OURS);
	cr_assert(view.page_id != page_id && !view.syncing);
	control_close(&control);
}

/* A power cut: the selector reached the disk before the copy that it means. */
Test(control, page_of_another_boot_has_the_copy_before_where_the_last_one_is_not_there)
{
	struct control_view view;
	struct cell cell = cell_of(2);

	open_page(1);
	cr_assert_eq(set_cell(&control, CONTROL_DURABLE, &cell), EVBUS_OK);
	cr_assert_eq(pwrite(control.fd, "torn", 4, 136 + 120 + 56 + 8), 4);
	cr_assert_eq(state_of(&view), CONTROL_NONE);
	control_close(&control);
	restart_machine();
	cr_assert_eq(control_open(&topic, 0, true, &control, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(state_of(&view), CONTROL_OTHER_BOOT);
	cr_assert(is_cell(&view.durable) && view.durable.epoch == 3);
	cr_assert_eq(pwrite(control.fd, "torn", 4, 136 + 120 + 8), 4);
	cr_assert_eq(state_of(&view), CONTROL_NONE);
	control_close(&control);
}

Test(control, page_is_none_in_an_empty_short_or_foreign_file)
{
	struct control_view view;
	char junk[4096];

	cr_assert_eq(control_open(&topic, 0, false, &control, &err), EVBUS_NONE);
	open_page(1);
	CLEANUP(buf_release) struct buf page = load(LOCK);
	memset(junk, 0x5a, sizeof junk);
	for (size_t len = 0; len < page.len; len += 7) {
		store(LOCK, page.data, len);
		enum control_state state = state_of(&view);
		cr_assert_eq(state == CONTROL_OURS, len >= 376, "%zu", len);
		store(LOCK, junk, len);
		cr_assert_eq(state_of(&view), CONTROL_NONE);
	}
	store_buf(LOCK, &page);
	cr_assert_eq(state_of(&view), CONTROL_OURS);
	control_close(&control);
}

Test(control, page_is_known_to_be_of_another_file_another_log_or_another_boot)
{
	struct control_view view;

	open_page(1);
	control_close(&control);
	CLEANUP(buf_release) struct buf page = load(LOCK);
	topic.log_id[31] ^= 1;
	cr_assert_eq(read_view(&view), CONTROL_NONE);
	topic.log_id[31] ^= 1;
	restart_machine();
	cr_assert_eq(read_view(&view), CONTROL_OTHER_BOOT);
	cr_assert(is_cell(&view.end) && is_cell(&view.durable));
	os = real_os;
	cr_assert_eq(read_view(&view), CONTROL_OURS);
	replace(LOCK, page.data, page.len);
	cr_assert_eq(read_view(&view), CONTROL_NONE);
}

/* ---- flipped bits ---- */

/* Either there is no page, or each cell has a value that it once had, and nothing but a flag is set. */
Test(control, page_with_any_bit_flipped_is_none_or_has_old_values)
{
	struct cell cell = cell_of(2);
	struct control_view view;
	int none = 0;

	open_page(1);
	cr_assert_eq(set_cell(&control, CONTROL_END, &cell), EVBUS_OK);
	CLEANUP(buf_release) struct buf page = load(LOCK);
	for (size_t bit = 0; bit < page.len * 8; bit++) {
		page.data[bit / 8] ^= (char)(1 << bit % 8);
		store_buf(LOCK, &page);
		page.data[bit / 8] ^= (char)(1 << bit % 8);
		enum control_state state = state_of(&view);
		none += state == CONTROL_NONE;
		cr_assert_neq(state, CONTROL_OTHER_BOOT, "bit %zu", bit);
		if (state == CONTROL_OURS)
			cr_assert((view.end.epoch == 6 || view.end.epoch == 3) && is_cell(&view.end) &&
					  view.durable.epoch == 3 && is_cell(&view.durable),
				  "bit %zu", bit);
	}
	cr_assert_gt(none, 1000);
	control_close(&control);
}

/* The same under a log: whatever bit it is, nothing acknowledged is cut or hidden, and publishing goes on. */
static void publish_with_flipped_bit(const struct buf *log, struct buf *page, size_t bit)
{
	struct log_writer writer;

	store_buf(LIVE, log);
	page->data[bit / 8] ^= (char)(1 << bit % 8);
	store_buf(LOCK, page);
	page->data[bit / 8] ^= (char)(1 << bit % 8);
	cr_assert_eq(open_writer(&writer), EVBUS_OK, "bit %zu: %s", bit, err.text);
	cr_assert_eq(publish(&writer, 3), EVBUS_OK, "bit %zu: %s", bit, err.text);
	writer_close(&writer);
	assert_log(4);
}

Test(control, page_with_any_bit_flipped_costs_nothing_that_was_acknowledged)
{
	static struct reading reading;

	must_publish(0, 3);
	CLEANUP(buf_release) struct buf log = load(LIVE), page = load(LOCK);
	for (size_t bit = 0; bit < 400 * 8u; bit++)
		publish_with_flipped_bit(&log, &page, bit);
	/* And a reader that comes first. */
	for (size_t bit = 0; bit < 400 * 8u; bit++) {
		store_buf(LIVE, &log);
		page.data[bit / 8] ^= (char)(1 << bit % 8);
		store_buf(LOCK, &page);
		page.data[bit / 8] ^= (char)(1 << bit % 8);
		read_log(&reading);
		cr_assert(reading.code == EVBUS_OK && reading.count == 3, "bit %zu: %ju", bit, (uintmax_t)reading.count);
	}
}

/* ---- cells, while they change ---- */

static atomic_bool stop;
static atomic_ulong seen;

static void *read_cells(void *context)
{
	struct control_view view;
	uint64_t end = 0, durable = 0;

	while (!stop) {
		cr_assert_eq(state_of(&view), CONTROL_OURS);
		cr_assert(is_cell(&view.end) && is_cell(&view.durable));
		cr_assert(view.end.epoch >= end && view.durable.epoch >= durable);
		end = view.end.epoch;
		durable = view.durable.epoch;
		seen++;
	}
	return context;
}

Test(control, cells_are_never_seen_half_or_older_than_before)
{
	pthread_t readers[3];

	open_page(1);
	for (int i = 0; i < 3; i++)
		cr_assert(!pthread_create(&readers[i], NULL, read_cells, NULL));
	for (uint64_t n = 2; n < 60000 || seen < 1000; n++) {
		struct cell cell = cell_of(n);
		cr_assert_eq(set_cell(&control, n % 2 ? CONTROL_END : CONTROL_DURABLE, &cell), EVBUS_OK);
	}
	stop = true;
	for (int i = 0; i < 3; i++)
		cr_assert(!pthread_join(readers[i], NULL));
	control_close(&control);
}

/* A kill between any two writes, and within one: the old value or the new one is in force. */
static size_t write_bytes; /* that are still done before the process is dead */

static ssize_t dying_pwrite(int fd, const void *data, size_t len, off_t at)
{
	size_t now = len < write_bytes ? len : write_bytes;

	write_bytes -= now;
	if (now && real_os.pwrite(fd, data, now, at) != (ssize_t)now)
		return -1;
	if (now == len)
		return (ssize_t)len;
	errno = EIO;
	return -1;
}

Test(control, cell_has_its_old_or_its_new_value_after_a_kill_at_any_byte)
{
	struct control_view view;
	bool done = false;

	open_page(1);
	for (size_t bytes = 0; !done; bytes++) {
		/* They only grow: of two copies that are whole the later one counts. */
		struct cell before = cell_of(100 + 2 * bytes), after = cell_of(101 + 2 * bytes);
		cr_assert_eq(set_cell(&control, CONTROL_END, &before), EVBUS_OK);
		write_bytes = bytes;
		os.pwrite = dying_pwrite;
		done = set_cell(&control, CONTROL_END, &after) == EVBUS_OK;
		os = real_os;
		cr_assert_eq(state_of(&view), CONTROL_OURS);
		cr_assert(!memcmp(&view.end, done ? &after : &before, sizeof before) ||
				  (!memcmp(&view.end, &after, sizeof after) && bytes > sizeof after),
			  "%zu bytes", bytes);
	}
	control_close(&control);
}

/* The copy of who was killed before he selected it is in force, and stays there until the next one is whole. */
Test(control, cell_that_was_not_selected_any_more_is_kept_until_the_next_one_is_written)
{
	struct cell second = cell_of(2), third = cell_of(3);
	struct control_view view;

	open_page(1);
	write_bytes = 2 * (sizeof(struct cell) + 8);
	os.pwrite = dying_pwrite;
	cr_assert_eq(set_cell(&control, CONTROL_END, &second), EVBUS_IO);
	/* The selector comes first, behind a read; and whatever stands there of it. */
	os = real_os;
	faulty_begin(2, EIO);
	cr_assert_eq(set_cell(&control, CONTROL_END, &third), EVBUS_IO);
	faulty_end();
	cr_assert(state_of(&view) == CONTROL_OURS && !memcmp(&view.end, &second, sizeof second));
	os.pwrite = dying_pwrite;
	for (size_t bytes = 0; bytes < 4; bytes++) {
		write_bytes = bytes;
		cr_assert_eq(set_cell(&control, CONTROL_END, &third), EVBUS_IO);
		cr_assert(strstr(err.text, "cannot write '" LOCK "'"), "%s", err.text);
		cr_assert_eq(state_of(&view), CONTROL_OURS);
		cr_assert(!memcmp(&view.end, &second, sizeof second));
	}
	os = real_os;
	cr_assert_eq(set_cell(&control, CONTROL_END, &third), EVBUS_OK);
	cr_assert(state_of(&view) == CONTROL_OURS && !memcmp(&view.end, &third, sizeof third));
	control_close(&control);
}

Test(control, page_is_none_or_whole_after_a_kill_at_any_byte_of_making_it)
{
	struct cell cell = cell_of(5);
	struct control_view view;
	bool done = false;

	cr_assert_eq(control_open(&topic, 0, true, &control, &err), EVBUS_OK);
	for (size_t bytes = 0; !done; bytes += 3) {
		write_bytes = bytes;
		os.pwrite = dying_pwrite;
		done = control_init(&control, &cell, &err) == EVBUS_OK;
		os = real_os;
		enum control_state state = state_of(&view);
		cr_assert(done ? state == CONTROL_OURS : state == CONTROL_NONE || is_cell(&view.end), "%zu bytes",
			  bytes);
	}
	control_close(&control);
}

/* ---- waiting and locks ---- */

static void *wake_later(void *context)
{
	usleep(50000);
	control_wake(&control);
	return context;
}

static int64_t now_ms(void)
{
	return os_now_us() / 1000;
}

Test(control, wakes_who_waits_and_waits_no_longer_than_asked)
{
	struct control_view view;
	pthread_t thread;

	open_page(1);
	cr_assert_eq(state_of(&view), CONTROL_OURS);
	int64_t start = now_ms();
	cr_assert(control_wait(&control, view.word, 30));
	cr_assert(now_ms() - start >= 25);
	cr_assert(!pthread_create(&thread, NULL, wake_later, NULL));
	start = now_ms();
	cr_assert(control_wait(&control, view.word, 20000));
	cr_assert(now_ms() - start < 10000);
	cr_assert(!pthread_join(thread, NULL));
	/* It has changed since. */
	start = now_ms();
	cr_assert(control_wait(&control, view.word, 20000));
	cr_assert(now_ms() - start < 10000);
	control_close(&control);
}

Test(control, waiting_on_a_file_that_was_cut_short_is_no_crash)
{
	open_page(1);
	cr_assert(!truncate(LOCK, 0));
	control_wait(&control, 0, 10);
	control_wake(&control);
	control_close(&control);
}

Test(control, locks_exclude_other_descriptors_and_die_with_theirs)
{
	struct control other;

	open_page(1);
	cr_assert_eq(control_open(&topic, 0, true, &other, &err), EVBUS_OK);
	cr_assert_eq(control_try_lock(control.fd, LOCK_SYNC, F_WRLCK, "it", &err), EVBUS_OK);
	cr_assert_eq(control_try_lock(other.fd, LOCK_SYNC, F_WRLCK, "it", &err), EVBUS_AGAIN);
	cr_assert_eq(control_try_lock(other.fd, LOCK_PRESENCE, F_WRLCK, "it", &err), EVBUS_OK);
	control_unlock(control.fd, LOCK_SYNC);
	cr_assert_eq(control_try_lock(other.fd, LOCK_SYNC, F_WRLCK, "it", &err), EVBUS_OK);
	cr_assert_eq(control_try_lock(control.fd, LOCK_PRESENCE, F_RDLCK, "it", &err), EVBUS_AGAIN);
	control_close(&other);
	cr_assert_eq(control_try_lock(control.fd, LOCK_SYNC, F_WRLCK, "it", &err), EVBUS_OK);
	cr_assert_eq(control_try_lock(control.fd, LOCK_PRESENCE, F_RDLCK, "it", &err), EVBUS_OK);
	/* A reader's descriptor cannot take one. */
	cr_assert_eq(control_open(&topic, 0, false, &other, &err), EVBUS_OK);
	cr_assert_eq(control_try_lock(other.fd, LOCK_SYNC, F_WRLCK, "it", &err), EVBUS_IO);
	cr_assert_str_eq(err.text, "cannot lock 'it': Bad file descriptor");
	cr_assert_eq(control_lock(other.fd, LOCK_SYNC, F_WRLCK, "it", NULL, &err), EVBUS_IO);
	cr_assert_str_eq(err.text, "cannot lock 'it': Bad file descriptor");
	cr_assert(control_has_writer(&other));
	control_close(&other);
	control_close(&control);
}

static int (*real_lock)(int fd, int cmd, struct flock *lock);
static unsigned signals;

static int lock_after_signals(int fd, int cmd, struct flock *lock)
{
	if (signals && cmd == F_OFD_SETLKW) {
		signals--;
		errno = EINTR;
		return -1;
	}
	return real_lock(fd, cmd, lock);
}

Test(control, locks_are_waited_for_over_signals)
{
	open_page(1);
	real_lock = os.lock;
	os.lock = lock_after_signals;
	signals = 3;
	cr_assert_eq(control_lock(control.fd, LOCK_SYNC, F_WRLCK, "it", NULL, &err), EVBUS_OK, "%s", err.text);
	os.lock = real_lock;
	cr_assert_eq(signals, 0u);
	control_close(&control);
}
