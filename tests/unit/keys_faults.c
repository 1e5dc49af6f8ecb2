/* keys.c, keys_index.c: what fails while keys are read, looked up and stored is told, and done once it fails no more. */
#include "faulty.h"
#include "keys_helpers.h"

TestSuite(keys_faults, .init = setup, .fini = teardown, .timeout = 60);

static enum evbus_code find(const char *text, struct found *found)
{
	struct key_name name = { { "", 0 }, { text, strlen(text) } };

	*found = (struct found){ -1, 0 };
	return keys_find(keys, &name, 1, on_first, found, &err);
}

/* ---- damaged records ------------------------------------------------------------------------------------------- */

/* A key that cannot be read is not one that is not there: it would be published again. */
static void assert_damaged(enum evbus_code code)
{
	cr_assert_eq(code, EVBUS_IO);
	cr_assert(strstr(err.text, "t/partition=0.jsonl") && strstr(err.text, "damaged"), "%s", err.text);
}

Test(keys_faults, of_a_damaged_record_are_neither_there_nor_missing)
{
	struct found found;

	publish_keys(0, 0, 8);
	enter_keys();
	flip_payload(5);
	assert_damaged(find("k5", &found));
	cr_assert_eq(found.partition, -1);
	flip_payload(5);
	keys_leave(keys);
	enter_keys();
	cr_assert_eq(look_up("", "k5").offset, 5);
	keys_leave(keys);
}

Test(keys_faults, behind_a_damaged_record_on_the_way_are_a_failure)
{
	struct found found;

	publish_keys(0, 0, 8);
	enter_keys();
	flip_payload(1);
	cr_assert_eq(look_up("", "k0").offset, 0);
	assert_damaged(find("k2", &found));
	flip_payload(1);
	keys_leave(keys);
	enter_keys();
	cr_assert_eq(look_up("", "k0").offset, 0);
	cr_assert_eq(look_up("", "k2").offset, 2);
	keys_leave(keys);
}

Test(keys_faults, whose_progress_ends_at_a_damaged_record_are_not_read_on)
{
	publish_keys(0, 0, 4);
	store_keys();
	publish_keys(0, 4, 4);
	flip_payload(3);
	assert_damaged(keys_open(home(), rows, &keys, &err));
	cr_assert_null(keys);
	flip_payload(3);
	assert_found(0, 8, 10);
}

Test(keys_faults, before_a_damaged_record_are_not_stored)
{
	struct key_progress progress;

	publish_keys(0, 0, 4);
	open_keys();
	flip_payload(2);
	assert_damaged(keys_save(keys, &err));
	cr_assert_eq(store_key_progress(rows, topic.name, &progress, 1, &err), EVBUS_OK, "%s", err.text);
	cr_assert_not(progress.found);
	flip_payload(2);
	cr_assert_eq(keys_save(keys, &err), EVBUS_OK, "%s", err.text);
	close_keys();
	assert_found(0, 4, 6);
}

/* ---- a log that is another one --------------------------------------------------------------------------------- */

/* What was seen of it must not become what the store says of the one that is there now. */
Test(keys_faults, of_a_log_that_was_cut_since_are_not_stored)
{
	struct key_progress progress;

	publish_keys(0, 0, 2);
	store_keys();
	CLEANUP(buf_release) struct buf copy = load(LIVE);
	publish_keys(0, 2, 2);
	open_keys();
	restore_log(&copy);
	cr_assert_eq(keys_save(keys, &err), EVBUS_CONFLICT);
	cr_assert_str_eq(err.text, "topic 't', partition 0 was cut or restored while it was open");
	publish_keys(0, 40, 2);
	cr_assert_eq(keys_save(keys, &err), EVBUS_CONFLICT, "of the same length again");
	cr_assert_eq(store_key_progress(rows, topic.name, &progress, 1, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(progress.indexed_to, 2);
	close_keys();
	store_keys();
	enter_keys();
	cr_assert(look_up("", "k2").partition == -1 && look_up("", "k41").offset == 3);
	keys_leave(keys);
}

/* ---- a store that is not as it must be --------------------------------------------------------------------------- */

static void change_store(const char *sql)
{
	struct query query = { .sql = sql };

	cr_assert_eq(table_begin(rows, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(table_write(rows, &query, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(table_commit(rows, &err), EVBUS_OK, "%s", err.text);
}

/* As many as if 20000 records had been read since. */
Test(keys_faults, that_are_too_many_for_memory_and_cannot_be_stored_stop_who_publishes)
{
	publish_keys(0, 0, 4);
	store_keys();
	open_keys();
	publish_keys(0, 4, 4);
	keys->records = 20000;
	change_store("ALTER TABLE event_keys RENAME TO away");
	cr_assert_eq(keys_enter(keys, NULL, 0, NULL, &err), EVBUS_CONFIG);
	cr_assert(strstr(err.text, "' are not as they must be: ") && strstr(err.text, "event_keys"), "%s", err.text);
	cr_assert_not(keys->locked);
	change_store("ALTER TABLE away RENAME TO event_keys");
	enter_keys();
	cr_assert_eq(look_up("", "k7").offset, 7);
	cr_assert_lt(keys->records, 4, "they are stored");
	keys_leave(keys);
	close_keys();
	assert_found(0, 8, 10);
}

/* So many are stored by one statement. */
Test(keys_faults, that_are_many_and_cannot_be_stored_can_be_later)
{
	publish_keys(0, 0, 4);
	store_keys();
	publish_keys(0, 4, 4 + KEYS_FIND_MAX);
	open_keys();
	change_store("ALTER TABLE event_keys RENAME TO away");
	cr_assert_eq(keys_save(keys, &err), EVBUS_CONFIG);
	cr_assert(strstr(err.text, "event_keys"), "%s", err.text);
	change_store("ALTER TABLE away RENAME TO event_keys");
	cr_assert_eq(keys_save(keys, &err), EVBUS_OK, "%s", err.text);
	close_keys();
	assert_found(0, 8 + KEYS_FIND_MAX, 10 + KEYS_FIND_MAX);
}

Test(keys_faults, whose_rows_cannot_be_removed_are_not_made_anew)
{
	uint64_t count = 77;
	bool fitted;

	publish_keys(0, 0, 4);
	store_keys();
	change_store("ALTER TABLE event_keys RENAME TO away");
	cr_assert_eq(keys_rebuild(home(), rows, NULL, &count, &fitted, &err), EVBUS_CONFIG);
	cr_assert(strstr(err.text, "event_keys") && count == 77, "%s", err.text);
	change_store("ALTER TABLE away RENAME TO event_keys");
	assert_found(0, 4, 6);
	cr_assert_eq(keys_rebuild(home(), rows, NULL, &count, &fitted, &err), EVBUS_OK, "%s", err.text);
	cr_assert(count == 4 && fitted);
}

/* ---- a lock file that does not stay ------------------------------------------------------------------------------- */

static int lock_and_lose(int fd, int cmd, struct flock *lock)
{
	int rc = real_os.lock(fd, cmd, lock);

	unlinkat(topic.fd, "keys.lock", 0);
	return rc;
}

Test(keys_faults, whose_lock_file_is_removed_each_time_are_given_up_in_the_end)
{
	publish_keys(0, 0, 2);
	open_keys();
	os.lock = lock_and_lose;
	cr_assert_eq(keys_enter(keys, NULL, 0, NULL, &err), EVBUS_AGAIN);
	cr_assert_str_eq(err.text, "'t/keys.lock' is being removed over and over");
	cr_assert_not(keys->locked);
	os = real_os;
	enter_keys();
	cr_assert_eq(look_up("", "k1").offset, 1);
	keys_leave(keys);
}

/* ---- each call ---------------------------------------------------------------------------------------------------- */

/* Something that is done again and again, and each time another one of its calls fails: what is told as done is done, and
 * what is not is done by the same handle when it is asked again. */
static void sweep(void (*prepare)(void), enum evbus_code (*act)(void))
{
	unsigned failures = 0;

	for (unsigned at = 1;; at += sweep_step()) {
		prepare();
		faulty_begin(at, FAULTY_ANY);
		enum evbus_code code = act();
		bool hit = faulty.failed != NULL;
		faulty_end();
		cr_assert(code == EVBUS_OK || (code == EVBUS_IO && (err.sys_errno == EIO || err.sys_errno == ENOMEM)),
			  "call %u, %s: %s", at, faulty.failed, err.text);
		failures += code != EVBUS_OK;
		/* The publisher leaves, and comes again. */
		if (code && keys && keys->locked) {
			keys_leave(keys);
			enter_keys();
		}
		if (code)
			cr_assert_eq(act(), EVBUS_OK, "after call %u, %s: %s", at, faulty.failed, err.text);
		if (keys && keys->locked)
			keys_leave(keys);
		close_keys();
		if (!hit)
			break;
	}
	cr_assert_geq(failures * sweep_step(), 3, "%u", failures);
}

/* As if it were a long time since they were read. */
static void prepare_to_enter_late(void)
{
	open_keys();
	keys->read_at_us = 0;
}

static enum evbus_code enter_late(void)
{
	return keys_enter(keys, NULL, 0, NULL, &err);
}

Test(keys_faults, are_read_before_the_lock_is_taken_whichever_call_fails)
{
	publish_keys(0, 0, 4);
	sweep(prepare_to_enter_late, enter_late);
}

static enum evbus_code find_k5(void)
{
	struct found found;

	TRY(find("k5", &found));
	cr_assert(found.partition == 0 && found.offset == 5);
	return EVBUS_OK;
}

Test(keys_faults, are_found_by_the_store_whichever_call_fails)
{
	publish_keys(0, 0, 8);
	store_keys();
	sweep(enter_keys, find_k5);
}

/* The store is of a log that was longer. */
static void prepare_a_row_behind_the_end(void)
{
	struct key_place place = place_at(20, topic.log_id);
	struct key_progress progress = { .indexed_to = 21, .fingerprint = "01234567" };

	memcpy(progress.log_id, topic.log_id, sizeof progress.log_id);
	put_row(&place);
	cr_assert_eq(table_begin(rows, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(store_key_progress_set(rows, topic.name, 0, &progress, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(table_commit(rows, &err), EVBUS_OK, "%s", err.text);
	enter_keys();
}

Test(keys_faults, are_found_beside_a_row_of_what_is_not_there_yet_whichever_call_fails)
{
	publish_keys(0, 0, 8);
	sweep(prepare_a_row_behind_the_end, find_k5);
}

/* The store has k5 at another place, which must be looked at. */
static void prepare_a_wrong_row(void)
{
	struct key_place place = place_at(2, topic.log_id);

	change_store("DELETE FROM key_progress");
	put_row(&place);
	open_keys();
}

static enum evbus_code save(void)
{
	struct key_place place;

	TRY(keys_save(keys, &err));
	TRY(store_keys_find(rows, topic.name, &name_of_k5, 1, &place, &err));
	cr_assert(place.found && place.offset == 5);
	return EVBUS_OK;
}

Test(keys_faults, are_stored_in_place_of_wrong_ones_whichever_call_fails)
{
	publish_keys(0, 0, 8);
	sweep(prepare_a_wrong_row, save);
}

static void prepare_to_rebuild(void)
{
	store_keys();
}

static enum evbus_code rebuild(void)
{
	uint64_t count = 0;
	bool fitted = false;

	TRY(keys_rebuild(home(), rows, NULL, &count, &fitted, &err));
	cr_assert(count == 8 && fitted);
	return EVBUS_OK;
}

Test(keys_faults, are_made_anew_whichever_call_fails)
{
	publish_keys(0, 0, 8);
	sweep(prepare_to_rebuild, rebuild);
}
