/* keys.c: which keys a topic holds, whatever became of who published them. */
#include "faulty.h"
#include "keys_helpers.h"

TestSuite(keys, .init = setup, .fini = teardown, .timeout = 60);

/* ---- the table ------------------------------------------------------------------------------------------------- */

Test(keys, of_a_table_are_found_in_the_order_in_which_they_were_added_also_after_it_grew)
{
	CLEANUP(key_table_release) struct key_table table = { 0 };
	size_t at = 0;

	cr_assert_null(key_table_next(&table, 1, &at));
	for (uint64_t i = 0; i < 3000; i++)
		cr_assert_eq(key_table_add(&table, 1 + i % 1000, (uint32_t)i, i, &err), EVBUS_OK);
	for (uint64_t hash = 1; hash <= 1000; hash++) {
		const struct key_slot *slot;
		at = 0;
		for (uint64_t n = 0; n < 3; n++) {
			slot = key_table_next(&table, hash, &at);
			cr_assert(slot && slot->offset == n * 1000 + hash - 1 && slot->partition == slot->offset);
		}
		cr_assert_null(key_table_next(&table, hash, &at));
	}
	key_table_clear(&table);
	at = 0;
	cr_assert_null(key_table_next(&table, 1, &at));
}

Test(keys, of_one_hash_keep_their_order_where_they_wrap_around_the_end_of_the_table)
{
	CLEANUP(key_table_release) struct key_table table = { 0 };
	const struct key_slot *slot;
	size_t at = 0;

	/* 63 is the last place of a table of 64, and of each larger one the last of its half. */
	for (uint64_t i = 0; i < 200; i++)
		cr_assert_eq(key_table_add(&table, 0xffffffffffffffffu, 0, i, &err), EVBUS_OK);
	for (uint64_t i = 0; i < 200; i++) {
		slot = key_table_next(&table, 0xffffffffffffffffu, &at);
		cr_assert(slot && slot->offset == i);
	}
}

Test(keys, have_a_hash_of_tenant_and_key_apart)
{
	cr_assert_neq(key_hash(SLICE("a"), SLICE("bc")), key_hash(SLICE("ab"), SLICE("c")));
	cr_assert_neq(key_hash(SLICE(""), SLICE("a")), key_hash(SLICE("a"), SLICE("")));
}

/* ---- the log --------------------------------------------------------------------------------------------------- */

Test(keys, are_found_in_the_log_alone_in_the_store_alone_and_half_in_each)
{
	publish_keys(0, 0, 10);
	assert_found(0, 10, 12);
	store_keys();
	assert_found(0, 10, 12);
	publish_keys(0, 10, 10);
	assert_found(0, 20, 22);
}

Test(keys, belong_to_a_tenant)
{
	CLEANUP(group_release) struct group group = { 0 };
	struct log_writer writer;
	struct mark mark;

	must_open(&writer);
	add_named(&group, &writer, "a", "k");
	add_named(&group, &writer, "b", "k");
	cr_assert_eq(writer_append(&writer, &group, UINT64_MAX, &mark, &err), EVBUS_OK);
	writer_close(&writer);
	for (int stored = 0; stored < 2; stored++) {
		enter_keys();
		cr_assert_eq(look_up("a", "k").offset, 0);
		cr_assert_eq(look_up("b", "k").offset, 1);
		cr_assert_eq(look_up("", "k").partition, -1);
		cr_assert_eq(look_up("c", "k").partition, -1);
		keys_leave(keys);
		close_keys();
		store_keys();
	}
}

Test(keys, of_plain_records_are_none)
{
	must_publish(0, 3);
	publish_keys(0, 3, 1);
	assert_found(3, 4, 5);
}

static void assert_made_durable(bool while_others_publish)
{
	CLEANUP(group_release) struct group group = { 0 };
	struct control_view view;
	struct log_writer writer;
	struct mark mark;

	publish_keys(0, 0, 1);
	open_keys();
	must_open(&writer);
	add_named(&group, &writer, NULL, "k1");
	cr_assert_eq(writer_append(&writer, &group, UINT64_MAX, &mark, &err), EVBUS_OK);
	if (!while_others_publish)
		writer_close(&writer);
	cr_assert_eq(read_view(&view), CONTROL_OURS);
	cr_assert_eq(view.durable.next, 1);
	assert_found(0, 2, 3);
	cr_assert_eq(read_view(&view), CONTROL_OURS);
	cr_assert_eq(view.durable.next, 2);
	if (while_others_publish)
		writer_close(&writer);
}

/* What a publisher left that was killed between its write and its sync will be in the log as soon as anybody publishes. */
Test(keys, that_were_appended_and_not_synced_are_made_durable_and_found)
{
	assert_made_durable(false);
}

/* Nobody opens the partition as its first writer then, and recovers it. */
Test(keys, that_others_are_about_to_sync_are_made_durable_and_found)
{
	assert_made_durable(true);
}

Test(keys, that_stand_behind_the_end_that_the_page_knows_are_found)
{
	publish_keys(0, 0, 1);
	open_keys();
	write_behind_the_end();
	assert_found(0, 2, 3);
}

Test(keys, are_found_without_a_page_and_after_a_restart_of_the_machine)
{
	publish_keys(0, 0, 1);
	write_behind_the_end();
	cr_assert(!unlink(LOCK));
	assert_found(0, 2, 3);
	restart_machine();
	assert_found(0, 2, 3);
}

Test(keys, are_found_over_all_segments_and_forgotten_with_one_that_was_removed)
{
	open_rolling(4096);
	for (unsigned i = 0; i < 60; i += 10)
		publish_keys(0, i, 10);
	assert_found(0, 60, 62);
	store_keys();
	assert_found(0, 60, 62);
	cr_assert(!unlink("partition=0/00000000000000000000.jsonl"));
	struct cursor cursor;
	cr_assert_eq(cursor_open(&topic, 0, 4096, &cursor, &err), EVBUS_OK);
	unsigned first = (unsigned)cursor.first;
	cursor_close(&cursor);
	cr_assert(first > 0 && first < 60);
	assert_found(first, 60, 62);
}

Test(keys, in_every_partition_count_and_the_first_of_two_by_its_time)
{
	struct evbus_topic_options options = { .partitions = 3 };
	struct found found;

	open_topic("three", &options);
	publish_keys(2, 7, 1);
	publish_keys(0, 7, 1);
	for (int stored = 0; stored < 3; stored++) {
		enter_keys();
		found = look_up("", "k7");
		cr_assert(found.partition == 2 && found.offset == 0, "%d/%ju", found.partition, (uintmax_t)found.offset);
		keys_leave(keys);
		close_keys();
		store_keys();
	}
}

Test(keys, that_stand_twice_keep_their_first_place_in_the_store)
{
	publish_keys(0, 0, 3);
	store_keys();
	publish_keys(0, 1, 1);
	assert_found(0, 3, 3);
	store_keys();
	assert_found(0, 3, 3);
}

/* ---- while it is open ------------------------------------------------------------------------------------------ */

Test(keys, of_others_are_found_as_they_come)
{
	open_keys();
	for (unsigned i = 0; i < 5; i++) {
		char name[32];
		publish_keys(0, i, 1);
		snprintf(name, sizeof name, "k%u", i);
		enter_keys();
		cr_assert_eq(look_up("", name).offset, i);
		keys_leave(keys);
	}
}

Test(keys, of_a_log_that_was_cut_and_written_again_while_it_was_open_are_the_new_ones)
{
	publish_keys(0, 0, 2);
	CLEANUP(buf_release) struct buf copy = load(LIVE);
	publish_keys(0, 2, 2);
	open_keys();
	enter_keys();
	cr_assert_eq(look_up("", "k3").offset, 3);
	keys_leave(keys);
	restore_log(&copy);
	publish_keys(0, 40, 2);
	enter_keys();
	cr_assert_eq(look_up("", "k3").partition, -1);
	cr_assert_eq(look_up("", "k41").offset, 3);
	keys_leave(keys);
}

/* Longer than what is kept in mind. */
Test(keys, that_are_many_go_to_the_store_on_the_way)
{
	enum { MANY = 20000 };

	open_keys();
	for (unsigned i = 0; i < MANY; i += 2000)
		publish_keys(0, i, 2000);
	enter_keys();
	cr_assert_lt(keys->recent.count, MANY);
	cr_assert_eq(look_up("", "k0").offset, 0);
	cr_assert_eq(look_up("", "k19999").offset, 19999);
	keys_leave(keys);
	keys_close(keys, true);
	keys = NULL;
	struct key_progress progress;
	cr_assert_eq(store_key_progress(rows, topic.name, &progress, 1, &err), EVBUS_OK);
	cr_assert_eq(progress.indexed_to, MANY);
	open_keys();
	cr_assert_eq(keys->recent.count, 0);
	enter_keys();
	cr_assert_eq(look_up("", "k12345").offset, 12345);
	keys_leave(keys);
}

Test(keys, that_another_one_stored_further_are_not_taken_back)
{
	struct keys *slow;
	struct key_progress progress;

	publish_keys(0, 0, 4);
	cr_assert_eq(keys_open(home(), rows, &slow, &err), EVBUS_OK);
	publish_keys(0, 4, 4);
	store_keys();
	cr_assert_eq(keys_save(slow, &err), EVBUS_OK, "%s", err.text);
	keys_close(slow, false);
	cr_assert_eq(store_key_progress(rows, topic.name, &progress, 1, &err), EVBUS_OK);
	cr_assert_eq(progress.indexed_to, 8);
	assert_found(0, 8, 10);
}

Test(keys, excludes_others_until_it_is_left_and_notices_a_lock_file_that_was_removed)
{
	CLEANUP(os_close_cleanup) int fd = -1;

	publish_keys(0, 0, 1);
	enter_keys();
	fd = open("keys.lock", O_RDWR);
	cr_assert_eq(control_try_lock(fd, LOCK_KEYS, F_WRLCK, "it", &err), EVBUS_AGAIN);
	cr_assert(keys_hold(keys));
	cr_assert(!unlink("keys.lock"));
	cr_assert_not(keys_hold(keys));
	keys_leave(keys);
	cr_assert_eq(control_try_lock(fd, LOCK_KEYS, F_WRLCK, "it", &err), EVBUS_OK);
	/* That of a file that is no more keeps nobody out. */
	enter_keys();
	cr_assert(keys_hold(keys) && is_there("keys.lock"));
	keys_leave(keys);
}

Test(keys, lets_nobody_append_who_lost_the_lock_file)
{
	CLEANUP(group_release) struct group group = { 0 };
	struct log_writer writer;
	struct mark mark;

	must_open(&writer);
	enter_keys();
	add_named(&group, &writer, NULL, "k0");
	group.held = &keys->lock;
	cr_assert(!unlink("keys.lock"));
	cr_assert_eq(writer_append(&writer, &group, UINT64_MAX, &mark, &err), EVBUS_AGAIN);
	keys_leave(keys);
	enter_keys();
	cr_assert_eq(writer_append(&writer, &group, UINT64_MAX, &mark, &err), EVBUS_OK, "%s", err.text);
	keys_leave(keys);
	writer_close(&writer);
}

/* ---- failures -------------------------------------------------------------------------------------------------- */

/* Whatever call fails, it is told, nothing is found that is not there, and the next one finds all. */
Test(keys, are_never_found_wrong_whichever_call_fails)
{
	unsigned calls = 1;

	publish_keys(0, 0, 4);
	store_keys();
	publish_keys(0, 4, 4);
	for (unsigned at = 1; at <= calls; at += sweep_step()) {
		struct keys *tried = NULL;
		struct key_name name = { { "", 0 }, { "k5", 2 } };
		struct found found = { -1, 0 };

		write_behind_the_end();
		faulty_begin(at, EIO);
		enum evbus_code code = keys_open(home(), rows, &tried, &err);
		if (!code)
			code = keys_enter(tried, NULL, 0, NULL, &err);
		if (!code)
			code = keys_find(tried, &name, 1, on_first, &found, &err);
		if (tried && tried->locked)
			keys_leave(tried);
		calls = at == 1 ? 400 : calls;
		bool happened = faulty.failed != NULL;
		keys_close(tried, false);
		faulty_end();
		cr_assert(code || (found.partition == 0 && found.offset == 5), "call %u, %s", at, faulty.failed);
		if (!happened)
			break;
	}
	enter_keys();
	cr_assert_eq(look_up("", "k5").offset, 5);
	cr_assert_eq(look_up("", "k1").offset, 1);
	keys_leave(keys);
}
