/* What the tests of keys have in common: short ways to publish, to store and to look up k0, k1, … in the topic `t`. */
#ifndef EVBUS_TESTS_KEYS_HELPERS_H
#define EVBUS_TESTS_KEYS_HELPERS_H

#include "delivery/keys.h"
#include "log_helpers.h"
#include "store/table.h"
#include "stored.h"

static struct store *rows;
static struct keys *keys;
static char modules[PATH_MAX];

/* The topic as backends have it, which is another handle than that of the log. The working directory is the topic's. */
static struct backend *files;
static struct backend_topic *home_topic;

static inline void close_home(void)
{
	backend_topic_close(&home_topic);
	home_topic = NULL;
	if (files)
		backend_file.close(files);
	files = NULL;
}

static inline struct backend_topic *home(void)
{
	struct backend_options options = { .file_mode = 0600, .dir_mode = 0700, .notice = take_notice };

	if (home_topic && !strcmp(home_topic->name, topic.name) && !strcmp(home_topic->log_id, topic.log_id))
		return home_topic;
	close_home();
	cr_assert_eq(backend_file.open("..", "..", &options, &files, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(backend_file.ready(files, false, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(backend_file.topic_open(files, topic.name, &home_topic, &err), EVBUS_OK, "%s", err.text);
	return home_topic;
}

static inline void open_rows(void)
{
	struct store_options options = { .module_dir = modules };

	cr_assert_eq(store_open(root.fd, stored_url("state.db"), &options, &rows, &err), EVBUS_OK, "%s", err.text);
}

static inline void setup(void)
{
	enter();
	scratch_find_modules(modules);
	open_rows();
	(void)home();
}

static inline void teardown(void)
{
	keys_close(keys, false);
	keys = NULL;
	store_close(rows);
	close_home();
	leave();
}

/* ---- short ways ------------------------------------------------------------------------------------------------ */

static inline void open_keys(void)
{
	cr_assert_eq(keys_open(home(), rows, &keys, &err), EVBUS_OK, "%s", err.text);
}

static inline void close_keys(void)
{
	keys_close(keys, false);
	keys = NULL;
}

/* What is known is stored, and nothing is in mind. */
static inline void store_keys(void)
{
	open_keys();
	cr_assert_eq(keys_save(keys, &err), EVBUS_OK, "%s", err.text);
	close_keys();
}

static inline void add_named(struct group *group, const struct log_writer *writer, const char *tenant, const char *name)
{
	struct line_body body = { .payload = SLICE("{\"n\":1}"), .event_key = { name, strlen(name) } };

	if (tenant)
		body.tenant_id = (struct evbus_slice){ tenant, strlen(tenant) };
	cr_assert_eq(group_add(group, &body, writer->expected.next + group_count(group), os_now_us(), &err), EVBUS_OK);
}

/* Publishes k<first> … k<first + count - 1>. */
static inline void publish_keys(int32_t partition, unsigned first, unsigned count)
{
	CLEANUP(group_release) struct group group = { 0 };
	struct log_writer writer;
	struct mark mark;
	char name[32];

	cr_assert_eq(writer_open(&topic, partition, NULL, &writer, &err), EVBUS_OK, "%s", err.text);
	for (unsigned i = 0; i < count; i++) {
		snprintf(name, sizeof name, "k%u", first + i);
		add_named(&group, &writer, NULL, name);
	}
	cr_assert_eq(writer_append(&writer, &group, UINT64_MAX, &mark, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(writer_commit(&writer, &mark, &group, &err), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
}

struct found {
	int32_t partition;
	uint64_t offset;
};

static inline enum evbus_code on_first(void *context, size_t i, int32_t partition, const struct line *line,
				struct evbus_err *why)
{
	struct found *found = context;

	(void)why;
	found[i] = (struct found){ partition, line->offset };
	return EVBUS_OK;
}

/* Where a name stands, within the lock; partition -1: nowhere. */
static inline struct found look_up(const char *tenant, const char *text)
{
	struct key_name name = { { tenant, strlen(tenant) }, { text, strlen(text) } };
	struct found found = { -1, 0 };

	cr_assert_eq(keys_find(keys, &name, 1, on_first, &found, &err), EVBUS_OK, "%s", err.text);
	return found;
}

static inline void enter_keys(void)
{
	if (!keys)
		open_keys();
	cr_assert_eq(keys_enter(keys, NULL, 0, NULL, &err), EVBUS_OK, "%s", err.text);
}

/* A publisher of its own finds exactly k<first> … k<end - 1> of k0 … k<of - 1>, each at its own number. */
static inline void assert_found(unsigned first, unsigned end, unsigned of)
{
	char name[32];

	enter_keys();
	for (unsigned i = 0; i < of; i++) {
		snprintf(name, sizeof name, "k%u", i);
		struct found found = look_up("", name);
		bool expected = i >= first && i < end;
		cr_assert_eq(found.partition, expected ? 0 : -1, "%s", name);
		cr_assert(!expected || found.offset == i, "%s stands at %ju", name, (uintmax_t)found.offset);
	}
	keys_leave(keys);
	close_keys();
}

/* ---- a row of k5 in the store, right or wrong ------------------------------------------------------------------ */

__attribute__((unused)) static const struct key_name name_of_k5 = { { "", 0 }, { "k5", 2 } };

static inline void put_row(const struct key_place *place)
{
	struct key_place other;

	cr_assert_eq(table_begin(rows, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(store_keys_add(rows, topic.name, &name_of_k5, place, &other, &err), EVBUS_OK, "%s", err.text);
	if (other.found)
		cr_assert_eq(store_keys_replace(rows, topic.name, &name_of_k5, place, &err), EVBUS_OK);
	cr_assert_eq(table_commit(rows, &err), EVBUS_OK);
}

static inline struct key_place place_at(uint64_t offset, const char *log_id)
{
	struct key_place place = { .found = true, .offset = offset, .published_at = "2026-01-01T00:00:00.000000Z" };

	snprintf(place.log_id, sizeof place.log_id, "%s", log_id);
	return place;
}

/* ---- the log, behind the library's back ------------------------------------------------------------------------ */

/* The log as it was, in the place of the one that there is: cp -a of a copy. */
static inline void restore_log(const struct buf *copy)
{
	replace(LIVE, copy->data, copy->len);
	unlink(LOCK);
}

/* Killed between its write and its word of it. */
static inline void write_behind_the_end(void)
{
	CLEANUP(group_release) struct group group = { 0 };
	struct log_writer writer;

	must_open(&writer);
	add_named(&group, &writer, NULL, "k1");
	cr_assert(os_write_at(writer.fd, group.lines.data, group.lines.len, writer.expected.bytes));
	writer_close(&writer);
}

#endif
