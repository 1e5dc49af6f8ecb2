/* store/keys.c: the rows of the index of event keys. */
#include "store/keys.h"
#include "base/os.h"
#include "store_helpers.h"

TestSuite(store_keys, .init = setup, .fini = teardown, .timeout = 60);

static const char log_id[] = "0123456789abcdef0123456789abcdef";

static struct key_name name_of(const char *tenant, const char *key)
{
	return (struct key_name){ { tenant, strlen(tenant) }, { key, strlen(key) } };
}

static struct key_place place_at(int32_t partition, uint64_t offset)
{
	struct key_place place = { .found = true, .partition_id = partition, .offset = offset,
				   .published_at = "2026-01-29T12:00:00.123456Z" };

	memcpy(place.log_id, log_id, sizeof place.log_id);
	return place;
}

static bool add(struct store *store, const char *topic, struct key_name name, struct key_place place,
		struct key_place *other)
{
	cr_assert_eq(table_begin(store, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(store_keys_add(store, topic, &name, &place, other, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(table_commit(store, &err), EVBUS_OK, "%s", err.text);
	return !other->found;
}

static struct key_place find(struct store *store, const char *topic, struct key_name name)
{
	struct key_place place;

	cr_assert_eq(store_keys_find(store, topic, &name, 1, &place, &err), EVBUS_OK, "%s", err.text);
	return place;
}

Test(store_keys, are_not_there_before_there_is_a_store_and_looking_makes_none)
{
	struct store *store = open_store("state.db");
	struct key_progress progress[3];
	uint64_t count = 7;

	cr_assert_not(find(store, "t", name_of("", "k")).found);
	cr_assert_eq(store_key_progress(store, "t", progress, 3, &err), EVBUS_OK);
	cr_assert(!progress[0].found && !progress[2].found);
	cr_assert_eq(store_keys_count(store, "t", &count, &err), EVBUS_OK);
	cr_assert_eq(count, 0);
	cr_assert(!stored_is_there("state.db"));
	store_close(store);
}

Test(store_keys, are_given_back_by_topic_tenant_and_key)
{
	struct store *store = open_store("state.db");
	struct key_place other, found;

	cr_assert(add(store, "t", name_of("", "k"), place_at(0, 1), &other));
	cr_assert(add(store, "t", name_of("x", "k"), place_at(3, 18446744073709551), &other));
	cr_assert(add(store, "u", name_of("", "k"), place_at(0, 2), &other));
	found = find(store, "t", name_of("x", "k"));
	cr_assert(found.found && found.partition_id == 3 && found.offset == 18446744073709551);
	cr_assert_str_eq(found.log_id, log_id);
	cr_assert_str_eq(found.published_at, "2026-01-29T12:00:00.123456Z");
	cr_assert_eq(find(store, "t", name_of("", "k")).offset, 1);
	cr_assert_eq(find(store, "u", name_of("", "k")).offset, 2);
	cr_assert_not(find(store, "u", name_of("x", "k")).found);
	cr_assert_not(find(store, "t", name_of("", "K")).found);
	store_close(store);
}

Test(store_keys, that_are_there_stay_until_they_are_replaced)
{
	struct store *store = open_store("state.db");
	struct key_place other, moved = place_at(0, 9);
	struct key_name name = name_of("", "k");

	cr_assert(add(store, "t", name, place_at(0, 1), &other));
	cr_assert(add(store, "t", name_of("x", "k"), place_at(0, 2), &other));
	cr_assert(add(store, "t", name, place_at(0, 1), &other));
	cr_assert_not(add(store, "t", name, moved, &other));
	cr_assert_eq(other.offset, 1);
	cr_assert_eq(find(store, "t", name).offset, 1);
	cr_assert_eq(table_begin(store, &err), EVBUS_OK);
	cr_assert_eq(store_keys_replace(store, "t", &name, &moved, &err), EVBUS_OK);
	cr_assert_eq(table_commit(store, &err), EVBUS_OK);
	cr_assert_eq(find(store, "t", name).offset, 9);
	cr_assert_eq(find(store, "t", name_of("x", "k")).offset, 2, "that of another tenant stays");
	store_close(store);
}

Test(store_keys, are_found_many_at_a_time_in_the_order_of_the_question)
{
	struct store *store = open_store("state.db");
	struct key_name names[KEYS_FIND_MAX];
	struct key_place places[KEYS_FIND_MAX], other;
	char texts[KEYS_FIND_MAX][8];

	for (unsigned i = 0; i < KEYS_FIND_MAX; i++) {
		snprintf(texts[i], sizeof texts[i], "k%u", i);
		names[i] = name_of(i % 2 ? "x" : "", texts[i]);
		if (i % 3 == 0)
			cr_assert(add(store, "t", names[i], place_at(0, i), &other));
	}
	for (unsigned count = 0; count <= KEYS_FIND_MAX; count++) {
		memset(places, 0xff, sizeof places);
		cr_assert_eq(store_keys_find(store, "t", names, count, places, &err), EVBUS_OK, "%s", err.text);
		for (unsigned i = 0; i < count; i++) {
			cr_assert_eq(places[i].found, i % 3 == 0, "%u of %u", i, count);
			cr_assert(!places[i].found || places[i].offset == i);
		}
	}
	/* One that is asked for twice is found twice. */
	names[1] = names[0];
	cr_assert_eq(store_keys_find(store, "t", names, 2, places, &err), EVBUS_OK);
	cr_assert(places[0].found && places[1].found);
	store_close(store);
}

Test(store_keys, may_hold_whatever_stands_in_a_line)
{
	static const char *const texts[] = { "'", "''; DROP TABLE event_keys; --", "\\u0000", "a\\u0000b", "%", "_",
					     "\\\"", "é漢😀", " ", "NULL", "0", "00", "1e0", "?" };
	struct store *store = open_store("state.db");
	struct key_place other;
	char longest[1025] = "";
	uint64_t count;

	memset(longest, 'x', 1024);
	for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++)
		cr_assert(add(store, "t", name_of(texts[i], texts[i]), place_at(0, i), &other), "%s", texts[i]);
	cr_assert(add(store, "t", name_of("", longest), place_at(0, 99), &other));
	for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++)
		cr_assert_eq(find(store, "t", name_of(texts[i], texts[i])).offset, i, "%s", texts[i]);
	cr_assert_eq(find(store, "t", name_of("", longest)).offset, 99);
	longest[1023] = 'y';
	cr_assert_not(find(store, "t", name_of("", longest)).found);
	cr_assert_eq(store_keys_count(store, "t", &count, &err), EVBUS_OK);
	cr_assert_eq(count, sizeof texts / sizeof *texts + 1);
	store_close(store);
}

static void set_progress(struct store *store, const char *topic, int32_t partition, uint64_t to)
{
	struct key_progress progress = { .found = true, .indexed_to = to, .fingerprint = "9ae0daaf" };

	memcpy(progress.log_id, log_id, sizeof progress.log_id);
	cr_assert_eq(table_begin(store, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(store_key_progress_set(store, topic, partition, &progress, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(table_commit(store, &err), EVBUS_OK);
}

Test(store_keys, have_their_progress_by_partition)
{
	struct store *store = open_store("state.db");
	struct key_progress progress[3];

	set_progress(store, "t", 2, 5);
	set_progress(store, "t", 2, 7);
	set_progress(store, "t", 9, 1);
	set_progress(store, "u", 0, 1);
	cr_assert_eq(store_key_progress(store, "t", progress, 3, &err), EVBUS_OK);
	cr_assert(!progress[0].found && !progress[1].found && progress[2].found);
	cr_assert_eq(progress[2].indexed_to, 7);
	cr_assert_str_eq(progress[2].fingerprint, "9ae0daaf");
	cr_assert_str_eq(progress[2].log_id, log_id);
	store_close(store);
}

Test(store_keys, of_one_topic_can_be_removed)
{
	struct store *store = open_store("state.db");
	struct key_progress progress[1];
	struct key_place other;

	cr_assert(add(store, "t", name_of("", "k"), place_at(0, 1), &other));
	cr_assert(add(store, "u", name_of("", "k"), place_at(0, 1), &other));
	set_progress(store, "t", 0, 5);
	set_progress(store, "u", 0, 5);
	cr_assert_eq(table_begin(store, &err), EVBUS_OK);
	cr_assert_eq(store_keys_clear(store, "t", &err), EVBUS_OK);
	cr_assert_eq(table_commit(store, &err), EVBUS_OK);
	cr_assert_not(find(store, "t", name_of("", "k")).found);
	cr_assert(find(store, "u", name_of("", "k")).found);
	cr_assert_eq(store_key_progress(store, "t", progress, 1, &err), EVBUS_OK);
	cr_assert_not(progress[0].found);
	cr_assert_eq(store_key_progress(store, "u", progress, 1, &err), EVBUS_OK);
	cr_assert(progress[0].found);
	store_close(store);
}

/* Each search is one of the index: of 32 pairs none walks through a topic. */
Test(store_keys, are_searched_for_and_not_walked_through)
{
	ONLY_SQLITE("it is about how fast SQLite searches");
	struct store *store = open_store("state.db");
	struct key_name names[KEYS_FIND_MAX];
	struct key_place places[KEYS_FIND_MAX], other;
	char text[16];

	cr_assert_eq(table_begin(store, &err), EVBUS_OK);
	for (unsigned i = 0; i < 50000; i++) {
		struct key_place place = place_at(0, i);
		snprintf(text, sizeof text, "k%u", i);
		struct key_name name = name_of("", text);
		cr_assert_eq(store_keys_add(store, "t", &name, &place, &other, &err), EVBUS_OK);
	}
	cr_assert_eq(table_commit(store, &err), EVBUS_OK);
	for (unsigned i = 0; i < KEYS_FIND_MAX; i++)
		names[i] = name_of("", i % 2 ? "k49999" : "none");
	int64_t start = os_now_us();
	for (int i = 0; i < 500; i++)
		cr_assert_eq(store_keys_find(store, "t", names, KEYS_FIND_MAX, places, &err), EVBUS_OK);
	/* A walk takes 10 ms, a search 0.1 ms. */
	cr_assert_lt(os_now_us() - start, 2000000);
	store_close(store);
}

/* ---- what is not as it must be --------------------------------------------------------------------------------- */

/* Neither found nor missing: what is missing would be published. */
Test(store_keys, that_are_damaged_are_named)
{
	static const char *const changes[] = { "record_offset = 'x'", "record_offset = 7.5", "partition_id = -1",
					       "published_at = 'a time that is longer than one is'",
					       /* What Postgres takes ends here. */
					       "log_id = x'00'" };
	size_t last = sizeof changes / sizeof *changes - stored_on_server();
	struct store *store = open_store("state.db");
	struct key_name name = name_of("", "k");
	struct key_place place = place_at(0, 9), other;
	char text[200];

	for (size_t i = 0; i < last; i++) {
		cr_assert(add(store, "t", name, place, &other));
		snprintf(text, sizeof text, "UPDATE event_keys SET %s", changes[i]);
		sql("state.db", text);
		cr_assert_eq(store_keys_find(store, "t", &name, 1, &place, &err), EVBUS_IO, "%s", changes[i]);
		cr_assert(strstr(err.text, "evbus verify --rebuild-keys"), "%s", err.text);
		cr_assert_eq(table_begin(store, &err), EVBUS_OK, "%s", err.text);
		cr_assert_eq(store_keys_add(store, "t", &name, &place, &other, &err), EVBUS_IO, "%s", changes[i]);
		cr_assert_not(other.found);
		table_rollback(store);
		sql("state.db", "DELETE FROM event_keys");
	}
	store_close(store);
}

/* A server may say only in the end what it would not do. */
static enum evbus_code clear(struct store *store)
{
	cr_assert_eq(table_begin(store, &err), EVBUS_OK, "%s", err.text);
	enum evbus_code code = store_keys_clear(store, "t", &err);
	if (!code)
		return table_commit(store, &err);
	table_rollback(store);
	return code;
}

Test(store_keys, without_one_of_their_tables_are_not_removed_from_the_other)
{
	static const char *const tables[] = { "event_keys", "key_progress" };
	struct store *store = open_store("state.db");
	struct key_progress progress = { .indexed_to = 1 };
	struct key_place other;
	char text[100];

	cr_assert(add(store, "t", name_of("", "k"), place_at(0, 1), &other));
	for (int i = 0; i < 2; i++) {
		snprintf(text, sizeof text, "ALTER TABLE %s RENAME TO away", tables[i]);
		sql("state.db", text);
		cr_assert_eq(clear(store), EVBUS_CONFIG);
		cr_assert(strstr(err.text, tables[i]), "%s", err.text);
		snprintf(text, sizeof text, "ALTER TABLE away RENAME TO %s", tables[i]);
		sql("state.db", text);
		cr_assert(find(store, "t", name_of("", "k")).found);
	}
	cr_assert_eq(table_begin(store, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(store_key_progress_set(store, "t", 0, &progress, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(store_keys_clear(store, "t", &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(table_commit(store, &err), EVBUS_OK, "%s", err.text);
	cr_assert_not(find(store, "t", name_of("", "k")).found);
	store_close(store);
}
