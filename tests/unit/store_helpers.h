/* What the tests of the store have in common: a scratch directory to work in, and short ways to put and get. */
#ifndef EVBUS_TESTS_STORE_HELPERS_H
#define EVBUS_TESTS_STORE_HELPERS_H

#include "scratch.h"
#include "store/table.h"
#include "stored.h"

#include <fcntl.h>
#include <sqlite3.h>

static char modules[PATH_MAX];     /* where the build puts them */
static char scratch[64];
static char made[256];             /* the last notice */
static int notices;
static struct evbus_err err;

static inline void setup(void)
{
	scratch_find_modules(modules);
	scratch_enter(scratch);
}

static inline void teardown(void)
{
	scratch_leave(scratch);
}

static inline void take_notice(void *context, const char *text)
{
	(void)context;
	notices++;
	snprintf(made, sizeof made, "%s", text);
}

static inline struct store *open_with(int dir, const char *url, bool no_create, mode_t mode)
{
	struct store_options options = {
		.no_create = no_create, .file_mode = mode, .module_dir = modules, .notice = take_notice
	};
	struct store *store = NULL;

	cr_assert_eq(store_open(dir, stored_url(url), &options, &store, &err), EVBUS_OK, "%s", err.text);
	return store;
}

static inline struct store *open_store(const char *url)
{
	return open_with(AT_FDCWD, url, false, 0);
}

static inline struct evbus_checkpoint checkpoint(const char *group, const char *topic, int32_t partition_id, int next)
{
	struct evbus_checkpoint c = { .partition_id = partition_id,
				      .offset_kind = "file_line",
				      .log_id = "0123456789abcdef0123456789abcdef",
				      .fingerprint = "9ae0daaf",
				      .updated_at_utc = "2026-01-29T12:00:00.123456Z" };

	snprintf(c.group, sizeof c.group, "%s", group);
	snprintf(c.topic, sizeof c.topic, "%s", topic);
	snprintf(c.next_offset, sizeof c.next_offset, "%d", next);
	return c;
}

static inline enum evbus_code put(struct store *store, const char *group, const char *topic, int32_t partition_id,
				  int next)
{
	struct evbus_checkpoint c = checkpoint(group, topic, partition_id, next);

	return store_checkpoint_put(store, &c, 1, &err);
}

/* The position of group g on topic t, or -1 for none. */
static inline int position(struct store *store, int32_t partition_id)
{
	struct evbus_checkpoint c;
	enum evbus_code code = store_checkpoint_get(store, "g", "t", partition_id, &c, &err);

	cr_assert(code == EVBUS_OK || code == EVBUS_NONE, "%d %s", code, err.text);
	return code ? -1 : (int)strtol(c.next_offset, NULL, 10);
}

static inline enum evbus_code get_code(const char *url)
{
	struct evbus_checkpoint c;
	struct store *store = open_store(url);
	enum evbus_code code = store_checkpoint_get(store, "g", "t", 0, &c, &err);

	store_close(store);
	return code;
}

static inline enum evbus_code put_code(const char *url)
{
	struct store *store = open_store(url);
	enum evbus_code code = put(store, "g", "t", 0, 1);

	store_close(store);
	return code;
}

/* Behind the store's back. */
static inline const char *sql(const char *path, const char *text)
{
	return stored_sql(path, text);
}

static inline int take_word(void *to, int count, char **values, char **names)
{
	(void)count;
	(void)names;
	snprintf(to, 32, "%s", values[0]);
	return 0;
}

static inline void assert_whole(const char *path)
{
	char said[32] = "";
	sqlite3 *db;

	if (stored_on_server())
		return;
	cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
	cr_assert_eq(sqlite3_exec(db, "PRAGMA integrity_check", take_word, said, NULL), SQLITE_OK);
	cr_assert_str_eq(said, "ok");
	sqlite3_close(db);
}

#endif
