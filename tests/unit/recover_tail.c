/* recover.c: what is done with a log that was cut anywhere in its last lines, whatever stands behind the cut, and
 * whatever the page says of it (the table of recoveries). What is expected is worked out here from the bytes that were
 * written, without the library's reading of them. */
#include "faulty.h"
#include "log_helpers.h"

TestSuite(recover_tail, .init = enter, .fini = leave, .timeout = 60);

#define LINES_MAX 16u
#define DURABLE_LINES 4u
#define END_LINES 5u

/* The log as it was written. A batch counts as a whole: `unit` says with which line the last whole one ends. */
static struct buf whole;
static size_t begins[LINES_MAX + 1];
static size_t unit[LINES_MAX + 1];
static size_t line_count;
static struct buf foreign; /* two good lines of another log, further on */
static size_t foreign_second;

static void write_log(bool ends_with_batch)
{
	struct log_writer writer;

	must_open(&writer);
	for (uint64_t n = 0; n < END_LINES; n++)
		cr_assert_eq(publish(&writer, n), EVBUS_OK, "%s", err.text);
	cr_assert_eq(publish_group(&writer, END_LINES, 3, true, 0), EVBUS_OK, "%s", err.text);
	line_count = END_LINES + 3;
	for (int i = 0; i < 2 && !ends_with_batch; i++)
		cr_assert_eq(publish(&writer, line_count++), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	whole = load(LIVE);
	for (size_t i = 0; i <= line_count; i++) {
		begins[i] = line_at(&whole, i);
		unit[i] = i > END_LINES && i < END_LINES + 3 ? END_LINES : i;
	}
}

static void write_foreign(void)
{
	struct line_body body = { .payload = SLICE("{\"n\":500}") };
	uint32_t split;

	for (uint64_t offset = 500; offset < 502; offset++) {
		foreign_second = foreign.len;
		cr_assert_eq(line_add(&foreign, &body, offset, os_now_us() + 1000000, &split, &err), EVBUS_OK);
	}
}

/* ---- what stands behind the cut ---- */

enum tail {
	NOTHING,
	ZEROS,
	GARBAGE,
	GARBAGE_LINES,
	HOLE, /* and the rest as it was written */
	FLIPPED, /* one byte is another, and the rest as it was written */
	FOREIGN,
	FOREIGN_ON_ITS_LINE,
	TWO_FOREIGN,
	AN_EARLIER_LINE,
	TAILS,
};

static void add_tail(struct buf *file, enum tail tail)
{
	static const char zeros[70], garbage[] = "\x80\xff{\"crc32c\":\"00000000\",\"offset\":\"7\"\x01\x02 and so on";
	static const char garbage_lines[] = "}\n\n{\"crc32c\":\"\n\"}}\nxyz\n\n ";
	size_t at = file->len;

	switch (tail) {
	case ZEROS:
		add(file, zeros, sizeof zeros);
		break;
	case GARBAGE:
		add(file, garbage, sizeof garbage - 1);
		break;
	case GARBAGE_LINES:
		add(file, garbage_lines, sizeof garbage_lines - 1);
		break;
	case HOLE:
	case FLIPPED:
		add(file, whole.data + at, whole.len - at);
		if (tail == HOLE)
			memset(file->data + at, 0, file->len - at < 40 ? file->len - at : 40);
		else if (at < file->len)
			file->data[at] ^= 4;
		break;
	case FOREIGN_ON_ITS_LINE:
		add(file, "\n", 1);
		add(file, foreign.data, foreign_second);
		break;
	case FOREIGN:
	case TWO_FOREIGN:
		add(file, foreign.data, tail == FOREIGN ? foreign_second : foreign.len);
		break;
	case AN_EARLIER_LINE:
		add(file, whole.data + begins[2], begins[3] - begins[2]);
		break;
	default:
		break;
	}
}

/* ---- what has to come of it ---- */

/* How many lines the file has from its beginning on that are those that were written. */
static size_t good_lines(const struct buf *file)
{
	size_t count = 0;

	while (count < line_count && begins[count + 1] <= file->len &&
	       !memcmp(file->data + begins[count], whole.data + begins[count], begins[count + 1] - begins[count]))
		count++;
	return count;
}

static bool is_good_line(const char *text, size_t len)
{
	for (size_t i = 0; i < line_count; i++)
		if (len == begins[i + 1] - begins[i] && !memcmp(text, whole.data + begins[i], len))
			return true;
	return (len == foreign_second && !memcmp(text, foreign.data, len)) ||
	       (len == foreign.len - foreign_second && !memcmp(text, foreign.data + foreign_second, len));
}

/* Whether text ends with the n-th line that was written, and something else stands before it. */
static bool ends_with_line(const char *text, size_t len, size_t n)
{
	size_t own = n < line_count ? begins[n + 1] - begins[n] : SIZE_MAX;

	return own < len && !memcmp(text + len - own, whole.data + begins[n], own);
}

/* Whether a good line stands at byte `at`, where the n-th line begins, or behind it; or, where the newline before it is
 * gone, at the end of another. */
static bool has_good_line(const struct buf *file, size_t at, size_t n)
{
	for (; at < file->len; n++) {
		const char *newline = memchr(file->data + at, '\n', file->len - at);
		if (!newline)
			return false;
		size_t end = (size_t)(newline + 1 - file->data);
		if (is_good_line(file->data + at, end - at) || ends_with_line(file->data + at, end - at, n) ||
		    ends_with_line(file->data + at, end - at, n + 1))
			return true;
		at = end;
	}
	return false;
}

enum page {
	NO_PAGE,
	OTHER_LOG,
	COPIED,
	CUT_SHORT,
	OURS, /* durable after 4 lines, end after 5 */
	OURS_SYNCING,
	HALTED,
	OTHER_BOOT, /* durable after 4 lines */
	OTHER_BOOT_EMPTY, /* nothing was durable yet */
};

static size_t durable_bytes(enum page page)
{
	return page >= OURS && page != OTHER_BOOT_EMPTY ? begins[DURABLE_LINES] : 0;
}

static enum evbus_code expected_code(const struct buf *file, enum page page)
{
	size_t good = good_lines(file);

	if (page < OURS)
		return has_good_line(file, begins[good], good) ? EVBUS_IO : EVBUS_OK;
	if (file->len < durable_bytes(page))
		return EVBUS_CONFLICT;
	return begins[good] < durable_bytes(page) ? EVBUS_IO : EVBUS_OK;
}

/* ---- one state ---- */

static void copy_page(void)
{
	CLEANUP(buf_release) struct buf page = load(LOCK);

	replace(LOCK, page.data, page.len);
}

static void put_page(enum page page)
{
	struct cell durable = cell_at(&whole, durable_bytes(page)), end = cell_at(&whole, begins[END_LINES]);
	struct control control;
	char id = topic.log_id[0];

	unlink(LOCK);
	if (page == NO_PAGE)
		return;
	boot = 'a';
	os.boot_id = other_boot_id;
	if (page == OTHER_LOG)
		topic.log_id[0] ^= 1;
	make_page(page == OTHER_BOOT_EMPTY ? &durable : &end, &durable);
	topic.log_id[0] = id;
	if (page == OTHER_BOOT || page == OTHER_BOOT_EMPTY)
		boot = 'b';
	if (page == COPIED)
		copy_page();
	if (page == CUT_SHORT)
		cr_assert(!truncate(LOCK, 100));
	if (page != OURS_SYNCING && page != HALTED)
		return;
	cr_assert_eq(control_open(&topic, 0, true, &control, &err), EVBUS_OK);
	set_flag(&control, page == HALTED ? CONTROL_HALT : CONTROL_SYNCING, true);
	control_close(&control);
}

static char what[64]; /* the state, for messages */

/* By the page, as long as it knows of all that stands there. */
static size_t readable(const struct buf *file, enum page page, size_t kept)
{
	bool left_behind = page == OURS && file->len > begins[END_LINES];

	return page >= OURS && page <= HALTED && !left_behind ? durable_bytes(page) : kept;
}

/* What a reader sees before anybody recovered is what is there afterwards. */
static void check_reader(const struct buf *file, enum page page, enum evbus_code code, size_t kept)
{
	static struct reading reading;

	read_log(&reading);
	cr_assert(reading.bytes <= file->len && !memcmp(file->data, whole.data, reading.bytes), "%s", what);
	if (code != EVBUS_OK) {
		cr_assert(reading.code == EVBUS_IO || reading.code == EVBUS_CONFLICT, "%s: %d", what, reading.code);
		return;
	}
	cr_assert_eq(reading.code, EVBUS_OK, "%s: %s", what, err.text);
	cr_assert_eq(reading.bytes, readable(file, page, kept), "%s: %ju of %zu", what, (uintmax_t)reading.bytes, kept);
}

static void check_torn(const struct buf *file, size_t kept)
{
	char name[256];
	int copies = torn_copies(name);

	cr_assert_eq(copies, kept < file->len, "%s: %d copies", what, copies);
	if (copies == 0)
		return;
	struct buf rest = { .data = file->data + kept, .len = file->len - kept };
	assert_file(name, &rest);
	cr_assert(!unlink(name));
}

static void check_recovered(const struct buf *file, enum page page, size_t kept, size_t lines)
{
	struct buf good = { .data = file->data, .len = kept };
	struct log_writer writer;
	struct control_view view;

	cr_assert_eq(open_writer(&writer), EVBUS_OK, "%s: %s", what, err.text);
	writer_close(&writer);
	assert_file(LIVE, &good);
	check_torn(file, page == HALTED ? file->len : kept);
	cr_assert_eq(read_view(&view), CONTROL_OURS, "%s", what);
	cr_assert(view.end.bytes == kept && view.end.next == lines && !view.syncing && !view.halt, "%s", what);
	cr_assert(view.durable.bytes == kept && view.durable.next == lines, "%s", what);
	/* Once more: there is nothing to be done. */
	must_open(&writer);
	assert_file(LIVE, &good);
	check_torn(&good, kept);
	/* And publishing goes on: looked at now and then, for it takes longest. */
	static unsigned states;
	bool look = states++ % 4 == 0;
	if (look)
		cr_assert_eq(publish(&writer, lines), EVBUS_OK, "%s: %s", what, err.text);
	writer_close(&writer);
	if (look)
		assert_log(lines + 1);
}

static void check_refused(const struct buf *file, enum page page, enum tail tail, enum evbus_code code, size_t good)
{
	struct log_writer writer;
	char named[64];

	snprintf(named, sizeof named, "--cut-at %zu", good);
	for (int i = 0; i < 2; i++) {
		/* A whole line of another place below what is durable is another log rather than damage. */
		enum evbus_code found = open_writer(&writer);
		cr_assert(found == code || (found == EVBUS_CONFLICT && tail == AN_EARLIER_LINE), "%s: %s", what,
			  err.text);
		cr_assert(strstr(err.text, found == EVBUS_CONFLICT ? "put the log back" : "damaged"), "%s: %s", what,
			  err.text);
		cr_assert(page >= OURS || strstr(err.text, named), "%s: %s", what, err.text);
		assert_file(LIVE, file);
		check_torn(file, file->len);
	}
}

static void check_state(enum page page, enum tail tail, size_t cut)
{
	CLEANUP(buf_release) struct buf file = { 0 };

	snprintf(what, sizeof what, "page %d, tail %d, cut at %zu", page, tail, cut);
	add(&file, whole.data, cut);
	add_tail(&file, tail);
	store_buf(LIVE, &file);
	put_page(page);
	size_t good = good_lines(&file);
	size_t lines = page == HALTED ? DURABLE_LINES : unit[good];
	enum evbus_code code = expected_code(&file, page);
	check_reader(&file, page, code, begins[lines]);
	if (code == EVBUS_OK)
		check_recovered(&file, page, begins[lines], lines);
	else
		check_refused(&file, page, tail, code, good);
}

static bool begins_line(size_t byte)
{
	size_t i = 0;

	while (i < line_count && begins[i] < byte)
		i++;
	return begins[i] == byte;
}

static void sweep(enum page page, size_t step)
{
	size_t states = 0;

	write_foreign();
	for (int layout = 0; layout < 2; layout++) {
		unlink(LIVE);
		unlink(LOCK);
		write_log(layout == 0);
		/* The second differs only behind the batch. */
		size_t from = layout == 0 ? DURABLE_LINES - 1 : END_LINES + 1;
		for (size_t cut = begins[from]; cut <= whole.len; cut++) {
			if ((cut - begins[from]) % (step * sweep_step()) && !begins_line(cut))
				continue;
			for (int tail = 0; tail < TAILS; tail++, states++)
				check_state(page, (enum tail)tail, cut);
		}
		buf_release(&whole);
	}
	buf_release(&foreign);
	cr_assert_gt(states, 5000 / (step * sweep_step()));
}

Test(recover_tail, is_cut_where_no_good_line_follows_and_refused_where_one_does_without_a_page)
{
	sweep(NO_PAGE, 1);
}

Test(recover_tail, is_adopted_behind_the_end_and_never_cut_below_durable_with_the_page_of_this_boot)
{
	sweep(OURS, 1);
}

Test(recover_tail, is_kept_as_far_as_it_is_correct_with_the_page_of_another_boot)
{
	sweep(OTHER_BOOT, 1);
}

Test(recover_tail, is_kept_as_far_as_it_is_correct_where_nothing_was_durable_before_a_restart)
{
	sweep(OTHER_BOOT_EMPTY, 7);
}

Test(recover_tail, is_written_again_and_synced_after_a_leader_died_in_a_sync)
{
	sweep(OURS_SYNCING, 7);
}

Test(recover_tail, is_cut_to_what_is_durable_where_the_halt_mark_stands)
{
	sweep(HALTED, 7);
}

Test(recover_tail, is_judged_without_a_page_where_the_page_is_of_another_log)
{
	sweep(OTHER_LOG, 11);
}

Test(recover_tail, is_judged_without_a_page_where_the_page_was_copied)
{
	sweep(COPIED, 11);
}

Test(recover_tail, is_judged_without_a_page_where_the_page_was_cut_short)
{
	sweep(CUT_SHORT, 11);
}

/* ---- cut by hand meanwhile ---- */

static void cut_by_hand(void)
{
	cr_assert(!truncate(LIVE, (off_t)whole.len));
}

/* Just before the at-th call. */
static bool copied_while_it_is_cut(unsigned at, unsigned *told)
{
	struct log_writer writer;
	char name[256];

	unlink(LIVE);
	unlink(LOCK);
	remove_torn();
	must_publish(0, 3);
	whole = load(LIVE);
	add(&whole, "{\"off", 6);
	store_buf(LIVE, &whole);
	whole.len -= 6;
	faulty_begin(at, EIO);
	faulty.instead = cut_by_hand;
	enum evbus_code code = open_writer(&writer);
	faulty_end();
	if (code) {
		cr_assert(code == EVBUS_IO && err.sys_errno == EIO, "call %u: %s", at, err.text);
		cr_assert(strstr(err.text, "cannot copy what is cut off to 'partition=0.torn-3-"), "%s", err.text);
		cr_assert_eq(torn_copies(name), 0, "call %u", at);
		must_open(&writer);
		++*told;
	}
	cr_assert_eq(publish(&writer, 3), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	assert_log(4);
	buf_release(&whole);
	return faulty.failed != NULL;
}

Test(recover_tail, that_is_cut_by_hand_while_it_is_copied_is_told_and_leaves_no_copy)
{
	unsigned at = 1, told = 0;

	while (copied_while_it_is_cut(at, &told))
		at++;
	cr_assert_gt(told, 0u);
}

static void cut_a_line_by_hand(void)
{
	cr_assert(!truncate(LIVE, (off_t)line_at(&whole, 2)));
}

/* A leader died in his sync, and somebody shortens the file between any two calls of who finishes for him. */
static bool written_again_while_it_is_cut(unsigned at, unsigned *told)
{
	struct log_writer writer;
	struct control control;

	unlink(LIVE);
	unlink(LOCK);
	must_publish(0, 3);
	whole = load(LIVE);
	struct cell durable = cell_at(&whole, line_at(&whole, 1)), end = cell_at(&whole, whole.len);
	make_page(&end, &durable);
	cr_assert_eq(control_open(&topic, 0, true, &control, &err), EVBUS_OK, "%s", err.text);
	set_flag(&control, CONTROL_SYNCING, true);
	control_close(&control);
	faulty_begin(at, EIO);
	faulty.instead = cut_a_line_by_hand;
	enum evbus_code code = open_writer(&writer);
	faulty_end();
	buf_release(&whole);
	if (!code)
		writer_close(&writer);
	if (code && strstr(err.text, "became shorter while it was recovered")) {
		cr_assert(code == EVBUS_IO && err.sys_errno == 0, "call %u: %s", at, err.text);
		++*told;
	}
	return faulty.failed != NULL;
}

Test(recover_tail, that_is_cut_by_hand_while_it_is_written_again_is_told_without_the_error_of_another_call)
{
	unsigned at = 1, told = 0;

	while (written_again_while_it_is_cut(at, &told))
		at++;
	cr_assert_gt(told, 0u);
}
