/* keys_index.c: keys with a store that is older or newer than the log, or of another one. */
#include "keys_helpers.h"

TestSuite(keys_store, .init = setup, .fini = teardown, .timeout = 60);

/* ---- the store, older and newer -------------------------------------------------------------------------------- */

Test(keys_store, that_the_store_has_at_a_record_that_does_not_bear_them_do_not_count)
{
	publish_keys(0, 0, 3);
	store_keys();
	for (uint64_t offset = 0; offset < 6; offset++) {
		struct key_place place = place_at(offset, topic.log_id);
		put_row(&place);
		assert_found(0, 3, 7);
	}
	struct key_place place = place_at(1, topic.log_id);
	place.partition_id = 9;
	put_row(&place);
	assert_found(0, 3, 7);
}

Test(keys_store, that_the_store_has_of_another_log_do_not_count)
{
	publish_keys(0, 0, 6);
	struct key_place place = place_at(5, "0123456789abcdef0123456789abcdef");
	put_row(&place);
	assert_found(0, 6, 7);
	store_keys();
	assert_found(0, 6, 7);
}

static void put_k5_right_among(unsigned count)
{
	struct key_place place = place_at(2, topic.log_id);

	publish_keys(0, 0, count);
	put_row(&place);
	store_keys();
	cr_assert_eq(store_keys_find(rows, topic.name, &name_of_k5, 1, &place, &err), EVBUS_OK);
	cr_assert(place.found && place.offset == 5);
	assert_found(0, count, count + 1);
}

/* The row of a key that is in the log after all is put right when it is stored. */
Test(keys_store, with_a_wrong_place_in_the_store_get_their_right_one)
{
	put_k5_right_among(6);
}

/* Many are stored together. */
Test(keys_store, with_a_wrong_place_among_many_get_their_right_one)
{
	put_k5_right_among(2 * KEYS_FIND_MAX + 10);
}

Test(keys_store, that_the_log_lost_when_it_was_restored_are_not_there)
{
	publish_keys(0, 0, 4);
	CLEANUP(buf_release) struct buf copy = load(LIVE);
	publish_keys(0, 4, 4);
	store_keys();
	restore_log(&copy);
	assert_found(0, 4, 10);
	/* k20 … k23 take the places of k4 … k7, and the log is as long again. */
	publish_keys(0, 20, 4);
	assert_found(0, 4, 10);
	publish_keys(0, 30, 4);
	assert_found(0, 4, 10);
	store_keys();
	assert_found(0, 4, 10);
	enter_keys();
	cr_assert_eq(look_up("", "k21").offset, 5);
	cr_assert_eq(look_up("", "k33").offset, 11);
	keys_leave(keys);
}

Test(keys_store, come_back_at_another_place_after_the_log_was_restored)
{
	publish_keys(0, 0, 4);
	CLEANUP(buf_release) struct buf copy = load(LIVE);
	publish_keys(0, 10, 6);
	publish_keys(0, 4, 4);
	store_keys();
	restore_log(&copy);
	publish_keys(0, 4, 4);
	assert_found(0, 8, 10);
	store_keys();
	assert_found(0, 8, 10);
}

Test(keys_store, are_found_with_a_store_that_is_older_than_the_log_and_with_none)
{
	OF_FILES;
	publish_keys(0, 0, 4);
	store_keys();
	store_close(rows);
	cr_assert(!chdir("..") && !rename("state.db", "old.db") && !fchdir(topic.fd));
	open_rows();
	assert_found(0, 4, 6);
	publish_keys(0, 4, 4);
	store_keys();
	store_close(rows);
	cr_assert(!chdir("..") && !rename("old.db", "state.db") && !fchdir(topic.fd));
	open_rows();
	assert_found(0, 8, 10);
}

Test(keys_store, of_a_topic_that_was_removed_are_gone_with_it)
{
	publish_keys(0, 0, 4);
	store_keys();
	cr_assert(!chdir(".."));
	scratch_remove("t");
	open_topic("t", NULL);
	assert_found(0, 0, 6);
	publish_keys(0, 0, 2);
	assert_found(0, 2, 6);
	store_keys();
	assert_found(0, 2, 6);
}

Test(keys_store, of_a_partition_that_a_topic_has_no_more_are_gone_with_it)
{
	const struct evbus_topic_options two = { .partitions = 2 };

	open_topic("two", &two);
	publish_keys(1, 0, 1);
	store_keys();
	cr_assert(!chdir(".."));
	scratch_remove("two");
	open_topic("two", NULL);
	assert_found(0, 0, 1);
}

/* ---- making the rows anew -------------------------------------------------------------------------------------- */

Test(keys_store, are_made_anew_from_the_log)
{
	struct key_place place = place_at(2, topic.log_id);
	uint64_t count;
	bool fitted;

	publish_keys(0, 0, 4);
	store_keys();
	put_row(&place);
	cr_assert_eq(keys_rebuild(home(), rows, NULL, &count, &fitted, &err), EVBUS_OK, "%s", err.text);
	cr_assert(count == 4 && fitted);
	cr_assert_eq(store_keys_find(rows, topic.name, &name_of_k5, 1, &place, &err), EVBUS_OK);
	cr_assert_not(place.found);
	assert_found(0, 4, 6);
}

Test(keys_store, that_are_made_anew_tell_whether_the_rows_were_of_this_log)
{
	uint64_t count;
	bool fitted;

	publish_keys(0, 0, 2);
	CLEANUP(buf_release) struct buf copy = load(LIVE);
	publish_keys(0, 2, 2);
	store_keys();
	restore_log(&copy);
	cr_assert_eq(keys_rebuild(home(), rows, NULL, &count, &fitted, &err), EVBUS_OK, "%s", err.text);
	cr_assert(count == 2 && !fitted);
	cr_assert_eq(keys_rebuild(home(), rows, NULL, &count, &fitted, &err), EVBUS_OK, "%s", err.text);
	cr_assert(count == 2 && fitted);
}
