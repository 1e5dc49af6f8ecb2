/* recover.c and those who call it: a page and a log that do not belong together, because somebody copied, restored,
 * replaced or removed one of them. Nothing that was acknowledged is cut, and what cannot be decided is refused. */
#include "log_helpers.h"

TestSuite(recover_page, .init = enter, .fini = leave, .timeout = 60);

static struct log_writer writer;

static void start(uint64_t count)
{
	must_open(&writer);
	for (uint64_t n = 0; n < count; n++)
		cr_assert_eq(publish(&writer, n), EVBUS_OK, "%s", err.text);
}

static void assert_told_what_to_do(void)
{
	cr_assert(strstr(err.text, "put the log back, or, if this is meant, remove 't/partition=0.lock'"), "%s",
		  err.text);
}

/* Everybody refuses: a writer that has it open (if open), a new one, and what stands there stays. */
static void assert_refused(bool open, uint64_t n)
{
	CLEANUP(buf_release) struct buf before = load(LIVE);
	struct log_writer other;

	for (int i = 0; i < 2 && open; i++) {
		cr_assert_eq(publish(&writer, n), EVBUS_CONFLICT, "%d: %s", i, err.text);
		assert_told_what_to_do();
	}
	cr_assert_eq(open_writer(&other), EVBUS_CONFLICT, "%s", err.text);
	assert_told_what_to_do();
	assert_file(LIVE, &before);
	remove_torn();
}

static void copy(const char *from, const char *to)
{
	char command[128];

	snprintf(command, sizeof command, "cp -a %s %s", from, to);
	cr_assert_eq(system(command), 0); /* NOLINT(cert-env33-c) */
}

/* ---- copies ---- */

static int syncs;

static int count_sync(int fd)
{
	syncs++;
	return real_os.fdatasync(fd);
}

Test(recover_page, is_not_taken_for_its_own_by_a_live_copy_of_the_directory)
{
	struct control_view view;

	start(5);
	append_only(&writer, 5);
	copy("../../bus", "../../copy");
	cr_assert_eq(publish(&writer, 6), EVBUS_OK);
	writer_close(&writer);
	assert_log(7);
	root_close(&root);
	cr_assert(!chdir(scratch));
	cr_assert_eq(root_open(&root, "copy", false, &err), EVBUS_OK);
	open_topic("t", NULL);
	cr_assert_eq(read_view(&view), CONTROL_NONE);
	os.fdatasync = count_sync;
	assert_log(6);
	cr_assert_eq(syncs, 1);
	must_open(&writer);
	cr_assert_eq(syncs, 2);
	cr_assert_eq(publish(&writer, 6), EVBUS_OK);
	writer_close(&writer);
	assert_log(7);
}

Test(recover_page, newer_than_a_log_that_was_restored_in_place_is_refused)
{
	start(5);
	CLEANUP(buf_release) struct buf backup = load(LIVE);
	cr_assert_eq(publish(&writer, 5), EVBUS_OK);
	CLEANUP(buf_release) struct buf whole = load(LIVE);
	store_buf(LIVE, &backup);
	assert_refused(true, 6);
	writer_close(&writer);
	assert_refused(false, 0);
	static struct reading reading;
	read_log(&reading);
	cr_assert_eq(reading.code, EVBUS_CONFLICT);
	/* Put back, it goes on. */
	store_buf(LIVE, &whole);
	must_publish(6, 1);
	assert_log(7);
}

Test(recover_page, newer_than_a_log_that_was_restored_by_another_file_is_refused)
{
	start(5);
	CLEANUP(buf_release) struct buf backup = load(LIVE);
	cr_assert_eq(publish(&writer, 5), EVBUS_OK);
	replace(LIVE, backup.data, backup.len);
	assert_refused(true, 6);
	writer_close(&writer);
	assert_refused(false, 0);
	/* If that is meant. */
	cr_assert(!unlink(LOCK));
	must_publish(5, 1);
	assert_log(6);
}

Test(recover_page, with_a_log_that_was_replaced_by_an_equal_one_is_refused)
{
	start(5);
	CLEANUP(buf_release) struct buf same_bytes = load(LIVE);
	replace(LIVE, same_bytes.data, same_bytes.len);
	assert_refused(true, 5);
	/* It is read all the same. */
	assert_log(5);
	writer_close(&writer);
}

Test(recover_page, and_log_both_replaced_are_noticed_by_who_has_them_open)
{
	start(5);
	CLEANUP(buf_release) struct buf same_bytes = load(LIVE);
	replace(LIVE, same_bytes.data, same_bytes.len);
	cr_assert(!unlink(LOCK));
	cr_assert_eq(publish(&writer, 5), EVBUS_CONFLICT, "%s", err.text);
	assert_told_what_to_do();
	writer_close(&writer);
}

Test(recover_page, with_a_log_that_was_removed_is_refused)
{
	static struct reading reading;

	start(3);
	cr_assert(!rename(LIVE, "kept"));
	read_log(&reading);
	cr_assert_eq(reading.code, EVBUS_CONFLICT, "%s", err.text);
	cr_assert_eq(publish(&writer, 3), EVBUS_CONFLICT, "%s", err.text);
	cr_assert_eq(publish(&writer, 3), EVBUS_CONFLICT, "%s", err.text);
	cr_assert(access(LIVE, F_OK), "a log that was removed is not made anew");
	cr_assert(!rename("kept", LIVE));
	cr_assert_eq(publish(&writer, 3), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	assert_log(4);
}

Test(recover_page, of_a_topic_that_was_moved_away_or_made_anew_is_refused)
{
	static const struct evbus_topic_options none;
	struct topic other;
	bool created;

	start(3);
	cr_assert(!rename("../t", "../moved"));
	cr_assert_eq(publish(&writer, 3), EVBUS_CONFLICT, "%s", err.text);
	cr_assert(strstr(err.text, "topic 't' was removed while it was open"), "%s", err.text);
	cr_assert_eq(topic_create(&root, "t", &none, &other, &created, &err), EVBUS_OK);
	topic_close(&other);
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(publish(&writer, 3), EVBUS_CONFLICT, "%s", err.text);
		cr_assert(strstr(err.text, "removed and made again"), "%s", err.text);
	}
	writer_close(&writer);
	cr_assert(!is_there("../t/" LIVE) && is_there("../moved/" LIVE));
}

/* ---- a log that is shorter or longer than the page says ---- */

Test(recover_page, with_unsynced_lines_that_were_cut_by_hand_fails_who_waits_for_them)
{
	CLEANUP(group_release) struct group group = { 0 };
	struct mark mark;
	struct control_view view;

	start(3);
	CLEANUP(buf_release) struct buf durable = load(LIVE);
	add_event(&group, &writer, 3, 0);
	writer.alone = false; /* nobody gets in between who is */
	cr_assert_eq(writer_append(&writer, &group, UINT64_MAX, &mark, &err), EVBUS_OK);
	store_buf(LIVE, &durable);
	struct log_writer other;
	must_open(&other);
	cr_assert_eq(publish(&other, 3), EVBUS_OK, "%s", err.text);
	cr_assert(read_view(&view) == CONTROL_OURS && view.end.epoch == 2 && view.durable.epoch == 2);
	/* Somebody else's event stands at its offset now. */
	cr_assert_eq(writer_commit(&writer, &mark, &group, &err), EVBUS_IO);
	cr_assert(strstr(err.text, "the event is not in it"), "%s", err.text);
	writer_close(&other);
	writer_close(&writer);
	assert_log(4);
}

Test(recover_page, made_anew_fails_who_waits_for_lines_that_are_gone)
{
	CLEANUP(group_release) struct group group = { 0 };
	struct log_writer other;
	struct mark mark;

	start(3);
	CLEANUP(buf_release) struct buf durable = load(LIVE);
	add_event(&group, &writer, 77, 0);
	cr_assert_eq(writer_append(&writer, &group, UINT64_MAX, &mark, &err), EVBUS_OK);
	cr_assert(!unlink(LOCK));
	store_buf(LIVE, &durable);
	must_open(&other);
	cr_assert_eq(publish(&other, 3), EVBUS_OK, "%s", err.text);
	cr_assert_eq(publish(&other, 4), EVBUS_OK, "%s", err.text);
	cr_assert_eq(writer_commit(&writer, &mark, &group, &err), EVBUS_IO);
	writer_close(&other);
	writer_close(&writer);
	assert_log(5);
}

/* Whether the lines are in the live segment, or in one that was rolled since. */
Test(recover_page, made_anew_acknowledges_lines_that_are_still_there)
{
	CLEANUP(group_release) struct group group = { 0 };
	struct log_writer other;
	struct mark mark;

	for (int rolled = 0; rolled < 2; rolled++) {
		open_rolling(rolled ? 500 : 5000);
		start(3);
		group_clear(&group);
		add_event(&group, &writer, 3, 0);
		cr_assert_eq(writer_append(&writer, &group, UINT64_MAX, &mark, &err), EVBUS_OK);
		cr_assert(!unlink(LOCK));
		must_open(&other);
		for (uint64_t n = 4; n < 12; n++)
			cr_assert_eq(publish(&other, n), EVBUS_OK, "%s", err.text);
		cr_assert_eq(writer_commit(&writer, &mark, &group, &err), EVBUS_OK, "%s", err.text);
		writer_close(&other);
		writer_close(&writer);
		assert_log(12);
		cr_assert(!fchdir(root.fd));
		scratch_remove("rolling");
	}
}

Test(recover_page, older_than_the_log_adopts_what_was_written_since)
{
	start(3);
	writer_close(&writer);
	cr_assert(!rename(LOCK, "older"));
	must_publish(3, 4);
	cr_assert(!rename("older", LOCK));
	must_publish(7, 1);
	assert_log(8);
	char name[256];
	cr_assert_eq(torn_copies(name), 0);
}

Test(recover_page, older_than_the_log_and_put_back_under_open_writers_loses_nothing)
{
	struct log_writer other;

	start(3);
	cr_assert(!rename(LOCK, "older"));
	must_open(&other);
	for (uint64_t n = 3; n < 6; n++)
		cr_assert_eq(publish(&other, n), EVBUS_OK, "%s", err.text);
	cr_assert(!rename("older", LOCK));
	cr_assert_eq(publish(&other, 6), EVBUS_OK, "%s", err.text);
	cr_assert_eq(publish(&writer, 7), EVBUS_OK, "%s", err.text);
	writer_close(&other);
	writer_close(&writer);
	assert_log(8);
}

/* Who was about to cut wrote the one cell before that, and the other one after it. */
Test(recover_page, older_than_the_log_and_put_back_between_two_cells_is_mended)
{
	struct control_view view;

	for (unsigned later = 0; later < 2; later++) {
		unlink(LIVE);
		unlink(LOCK);
		start(3);
		writer_close(&writer);
		CLEANUP(buf_release) struct buf file = load(LIVE);
		struct cell end = cell_at(&file, file.len), durable = end;
		end.epoch += later == 0;
		durable.epoch += later == 1;
		struct control control;
		cr_assert_eq(control_open(&topic, 0, true, &control, &err), EVBUS_OK, "%s", err.text);
		cr_assert_eq(control_init(&control, later ? &end : &durable, &err), EVBUS_OK);
		cr_assert_eq(set_cell(&control, later ? CONTROL_DURABLE : CONTROL_END, later ? &durable : &end),
			     EVBUS_OK);
		control_close(&control);
		must_publish(3, 2);
		cr_assert(read_view(&view) == CONTROL_OURS && view.end.epoch == view.durable.epoch);
		assert_log(5);
	}
}

/* It names a file that is an older segment by now, and says nothing of the live one. */
Test(recover_page, of_before_a_roll_says_nothing_of_what_came_behind_it)
{
	open_rolling(400);
	start(2);
	cr_assert(!rename(LOCK, "older"));
	for (uint64_t n = 2; n < 12; n++)
		cr_assert_eq(publish(&writer, n), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	cr_assert(!unlink(LOCK) && !rename("older", LOCK));
	assert_log(12);
	must_publish(12, 1);
	assert_log(13);
}

/* ---- another boot ---- */

Test(recover_page, of_another_boot_while_a_writer_is_there_is_refused)
{
	struct log_writer other;

	start(3);
	restart_machine();
	cr_assert_eq(open_writer(&other), EVBUS_UNAVAILABLE);
	cr_assert(strstr(err.text, "a file bus belongs to one machine"), "%s", err.text);
	writer_close(&writer);
	must_publish(3, 1);
	assert_log(4);
}

/* A log of the same topic that went another way: longer, and every line of it is good. pad: of its first event. */
static void assert_other_log_refused(size_t pad)
{
	CLEANUP(buf_release) struct buf file = { 0 };

	start(3);
	writer_close(&writer);
	cr_assert(!rename(LIVE, "kept") && !unlink(LOCK));
	must_open(&writer);
	cr_assert_eq(publish_group(&writer, 4, 1, false, pad), EVBUS_OK);
	cr_assert_eq(publish_group(&writer, 5, 5, false, 0), EVBUS_OK);
	writer_close(&writer);
	file = load(LIVE);
	cr_assert(!rename("kept", LIVE) && !unlink(LOCK));
	must_publish(3, 1);
	restart_machine();
	replace(LIVE, file.data, file.len);
	cr_assert_neq(open_writer(&writer), EVBUS_OK);
	assert_file(LIVE, &file);
}

Test(recover_page, of_another_boot_with_a_log_that_is_not_the_acknowledged_one_is_refused)
{
	assert_other_log_refused(999);
}

Test(recover_page, of_another_boot_with_another_log_whose_lines_are_as_long_is_refused)
{
	assert_other_log_refused(0);
	cr_assert_eq(err.code, EVBUS_CONFLICT);
	cr_assert(strstr(err.text, "is not the log that was acknowledged"), "%s", err.text);
}

/* Each byte of each acknowledged line is damaged once, the machine is started anew, and the log is told to be damaged
 * at this line, by who reads and by who publishes. */
Test(recover_page, of_another_boot_with_a_damaged_line_below_durable_is_refused_and_the_line_is_named)
{
	static struct reading reading;
	char named[64];

	start(4);
	writer_close(&writer);
	restart_machine();
	CLEANUP(buf_release) struct buf whole = load(LIVE);
	for (size_t at = 0; at < whole.len; at++) {
		CLEANUP(buf_release) struct buf file = { 0 };
		add(&file, whole.data, whole.len);
		file.data[at] ^= 1;
		store_buf(LIVE, &file);
		size_t line = 0;
		while (line < 3 && line_at(&whole, line + 1) <= at)
			line++;
		snprintf(named, sizeof named, "damaged at offset %zu, byte %zu", line, line_at(&whole, line));
		read_log(&reading);
		cr_assert(reading.code == EVBUS_IO && reading.count == line && strstr(err.text, named), "%zu: %s", at,
			  err.text);
		cr_assert_eq(open_writer(&writer), EVBUS_IO, "%zu", at);
		cr_assert(strstr(err.text, named), "%zu: %s", at, err.text);
		assert_file(LIVE, &file);
	}
}

Test(recover_page, of_another_boot_with_a_shorter_log_is_refused_by_writers_and_told_to_readers)
{
	static struct reading reading;

	start(4);
	writer_close(&writer);
	restart_machine();
	CLEANUP(buf_release) struct buf whole = load(LIVE);
	cr_assert(!truncate(LIVE, (off_t)line_at(&whole, 3)));
	cr_assert_eq(open_writer(&writer), EVBUS_CONFLICT);
	assert_told_what_to_do();
	read_log(&reading);
	cr_assert_eq(reading.code, EVBUS_CONFLICT);
}
