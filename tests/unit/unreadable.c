/* What cannot be looked at is not taken for what is not there, was replaced, cut back or damaged: whichever call fails,
 * the failure is told as what it is. */
#include "faulty.h"
#include "log_helpers.h"

TestSuite(unreadable, .init = enter, .fini = leave, .timeout = 60);

/* The at-th call fails in what is done. Whether there was one. */
static bool fails_at(unsigned at, int number, enum evbus_code (*act)(void))
{
	faulty_begin(at, number);
	faulty.plausible = true;
	enum evbus_code code = act();
	faulty_end();
	bool failed = faulty.failed != NULL;
	cr_assert(code == EVBUS_OK || (code == EVBUS_IO && err.sys_errno == number), "call %u, %s: %d: %s", at,
		  faulty.failed, (int)code, err.text);
	cr_assert(code == EVBUS_OK || failed, "%s", err.text);
	return failed;
}

static void sweep(int number, enum evbus_code (*act)(void))
{
	unsigned at = 1;

	while (fails_at(at, number, act))
		at++;
	cr_assert_gt(at, 2u);
}

static enum evbus_code list(void)
{
	char **names;
	enum evbus_code code = topic_names(&root, NULL, &names, &err);

	if (code)
		return code;
	cr_assert(!strcmp(names[0], "another") && !strcmp(names[1], "t") && !names[2]);
	free(names);
	code = topic_unusable(&root, NULL, &names, &err);
	if (!code)
		free(names);
	return code;
}

static enum evbus_code list_headless(void)
{
	char **names;
	enum evbus_code code = topic_unusable(&root, NULL, &names, &err);

	if (code)
		return code;
	cr_assert(names[0] && !strcmp(names[0], "t") && !names[1]);
	free(names);
	return code;
}

Test(unreadable, topic_is_not_left_out_of_a_list)
{
	must_publish(0, 1);
	open_topic("another", NULL);
	cr_assert(!fchdir(root.fd) && !mkdir("no_topic", 0700));
	sweep(EIO, list);
	sweep(EMFILE, list);
	cr_assert(!unlink("t/topic.json"));
	sweep(EIO, list_headless);
}

static enum evbus_code check_place(void)
{
	return topic_check_in_place(&topic, "read", &err);
}

Test(unreadable, topic_was_not_replaced)
{
	sweep(EIO, check_place);
}

/* It was removed, and the log is there: a new one must not be made for it. */
Test(unreadable, log_does_not_get_another_id)
{
	struct evbus_topic_options none = { 0 };
	struct topic made;
	bool created;
	unsigned at = 0;

	must_publish(0, 1);
	cr_assert(!unlink("topic.json"));
	do {
		faulty_begin(++at, EIO);
		enum evbus_code code = topic_create(&root, "t", &none, &made, &created, &err);
		faulty_end();
		cr_assert(code == EVBUS_IO || code == EVBUS_CONFLICT || code == EVBUS_CANTCREATE, "call %u: %d", at,
			  (int)code);
		cr_assert(access("topic.json", F_OK), "call %u, %s", at, faulty.failed);
	} while (faulty.failed);
	cr_assert_gt(at, 5u);
}

static enum evbus_code publish_one(void)
{
	struct log_writer writer;
	enum evbus_code code = open_writer(&writer);

	if (code)
		return code;
	code = publish(&writer, 1);
	writer_close(&writer);
	return code;
}

Test(unreadable, event_was_not_cut_back)
{
	must_publish(0, 1);
	sweep(EIO, publish_one);
}

static void on_finding(void *context, const struct evbus_finding *finding)
{
	(void)context;
	cr_assert_fail("%s: %s", finding->what, finding->text);
}

static enum evbus_code verify(void)
{
	struct evbus_verify_options options = { .partition_id = EVBUS_PARTITION_ALL, .finding = on_finding };
	struct evbus_verify_result result;
	struct evbus *bus;
	enum evbus_code code = evbus_open("../../bus", NULL, &bus, &err);

	if (code)
		return code;
	code = evbus_verify(bus, "t", &options, &result, &err);
	evbus_close(bus);
	return code;
}

/* What the disk does not give is told as damage; what the system lacks is not. */
Test(unreadable, log_is_not_damaged_where_there_is_no_memory_or_descriptor)
{
	must_publish(0, 3);
	sweep(ENOMEM, verify);
	sweep(EMFILE, verify);
}

static struct cursor cursor;

static enum evbus_code refresh(void)
{
	return cursor_refresh(&cursor, &err);
}

/* A page that was put back knows of less than was read, and the log has to be looked at to see that it still stands. */
Test(unreadable, records_that_were_read_are_not_taken_for_gone)
{
	static struct reading reading;
	struct control control;

	must_publish(0, 5);
	CLEANUP(buf_release) struct buf file = load(LIVE);
	struct cell older = cell_at(&file, line_at(&file, 3));
	cr_assert_eq(cursor_open(&topic, 0, 4096, &cursor, &err), EVBUS_OK, "%s", err.text);
	read_on(&cursor, &reading);
	cr_assert_eq(reading.count, 5);
	make_page(&older, &older);
	/* Else what stands behind the end of the page would be believed. */
	cr_assert_eq(control_open(&topic, 0, true, &control, &err), EVBUS_OK, "%s", err.text);
	set_flag(&control, CONTROL_SYNCING, true);
	control_close(&control);
	sweep(EIO, refresh);
	sweep(EMFILE, refresh);
	sweep(ENOMEM, refresh);
	cr_assert_eq(cursor.durable.next, 5);
	cr_assert(!truncate(LIVE, (off_t)line_at(&file, 4)));
	cr_assert_eq(refresh(), EVBUS_CONFLICT);
	cr_assert_eq(refresh(), EVBUS_CONFLICT, "it stays so");
	cursor_close(&cursor);
}

static enum evbus_code publish_and_roll(void)
{
	struct log_writer writer;
	enum evbus_code code = open_writer(&writer);

	for (uint64_t n = 0; n < 4 && !code; n++)
		code = publish(&writer, n);
	writer_close(&writer);
	return code;
}

/* Whichever lock it is. */
Test(unreadable, lock_is_named)
{
	unsigned at = 0, told = 0;

	do {
		open_rolling(300);
		faulty_begin(++at, ENOLCK);
		faulty.scope = FAULTY_CALLS;
		enum evbus_code code = publish_and_roll();
		faulty_end();
		bool lock = code && faulty.failed && !strcmp(faulty.failed, "lock");
		cr_assert(!lock || strstr(err.text, "cannot lock 'rolling/partition=0.jsonl'") ||
				  strstr(err.text, "cannot lock 'partition=0.lock'"),
			  "call %u: %s", at, err.text);
		told += lock;
		cr_assert(!fchdir(root.fd));
		scratch_remove("rolling");
	} while (faulty.failed);
	cr_assert_gt(told, 5u);
}
