/* store.c: from a URL to a database with our tables in it. */
#include "store/claim.h"
#include "store/file.h"
#include "store/schema.h"
#include "store/server.h"
#include "store/table.h"

#include "base/module.h"
#include "base/os.h"

#include <assert.h>
#include <errno.h>
#include <unistd.h>

struct scheme {
	const char *prefix;
	const char *module;
	const char *dev_package;   /* what the module is built with */
	bool server;               /* there is no file: the URL goes to the driver as it is */
};

static const struct scheme schemes[] = {
	{ "sqlite:", "sqlite", "libsqlite3-dev", false },
	{ "postgresql://", "postgres", "libpq-dev", true },
	{ "postgres://", "postgres", "libpq-dev", true },
};

/* The last of those that have the same module is the one that counts. */
const char *store_kind(size_t index, bool *there)
{
	for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
		bool last = i + 1 == sizeof schemes / sizeof *schemes || strcmp(schemes[i].module, schemes[i + 1].module);
		if (last && index-- == 0) {
			*there = module_is_there(NULL, schemes[i].module);
			return schemes[i].module;
		}
	}
	return NULL;
}

struct store {
	const struct scheme *scheme;
	int dir;                   /* the caller's */
	char *path;                /* as given, or absolute where it was relative to the working directory; or a URL */
	char *shown;               /* for messages: without what is secret */
	struct store_options options;
	pid_t pid;
	char *resolved;            /* of a guest: where the links lead */
	struct store_file file;    /* from here on only while db is not NULL */
	struct db *db;
	int64_t version;           /* of the tables, as far as we know */
	struct evbus_claim *claims;
};

/* ---- the URL --------------------------------------------------------------------------------------------------- */

/* A plain path is one of the first kind. */
static const struct scheme *find_scheme(const char *url, const char **path)
{
	for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
		size_t len = strlen(schemes[i].prefix);
		if (strncmp(url, schemes[i].prefix, len) == 0) {
			*path = schemes[i].server ? url : url + len;
			return &schemes[i];
		}
	}
	*path = url;
	return &schemes[0];
}

/* A URL may carry a password: of one that is not understood no more than the scheme is repeated. */
static enum evbus_code check_path(const char *path, bool is_url, const char *what, struct evbus_err *err)
{
	size_t len = strlen(path);
	const char *colon = strchr(path, ':');

	/* A plain path with a colon before the first slash looks like a URL: ./a:b is one that does not. */
	if (colon && path != colon && is_url && !memchr(path, '/', (size_t)(colon - path)))
		return err_set(err, EVBUS_CONFIG, 0,
			       "there is no %s of the kind '%.*s': use sqlite:FILE, the path of a file, or "
			       "postgresql://HOST/DATABASE",
			       what, (int)(colon - path), path);
	if (!len || path[len - 1] == '/')
		return err_set(err, EVBUS_CONFIG, 0, "the %s '%s' names no file: use sqlite:FILE", what, path);
	if (path[0] == '/' && path[1] == '/' && path[2] != '/')
		return err_set(err, EVBUS_CONFIG, 0,
			       "the %s 'sqlite:%s' names a host: write sqlite:%s, or sqlite:%s for a path from the root",
			       what, path, path + 2, path + 1);
	return EVBUS_OK;
}

/* The store is opened when it is needed: the working directory may have changed by then. */
static enum evbus_code keep_path(int dir, const char *path, char **kept, struct evbus_err *err)
{
	CLEANUP(free_cleanup) char *cwd = NULL;

	if (dir == AT_FDCWD && path[0] != '/' && !(cwd = getcwd(NULL, 0)))
		return err_set(err, EVBUS_IO, errno, "cannot tell the working directory");
	size_t size = (cwd ? strlen(cwd) + 1 : 0) + strlen(path) + 1;
	char *text = os.realloc(NULL, size);
	if (!text)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open a store");
	snprintf(text, size, "%s%s%s", cwd ? cwd : "", cwd ? "/" : "", path);
	*kept = text;
	return EVBUS_OK;
}

static enum evbus_code keep_place(int dir, const char *place, struct store *store, struct evbus_err *err)
{
	/* Of a URL nothing is relative. */
	TRY(keep_path(store->scheme->server ? -1 : dir, place, &store->path, err));
	store->shown = os.realloc(NULL, strlen(store->path) + 1);
	if (!store->shown) {
		free(store->path);
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open a store");
	}
	if (store->scheme->server)
		server_show(store->path, store->shown);
	else
		memcpy(store->shown, store->path, strlen(store->path) + 1);
	return EVBUS_OK;
}

bool store_is_on_server(const char *url)
{
	const char *path;

	return find_scheme(url, &path)->server;
}

static void forget_place(struct store *store)
{
	/* There may be a password in it. */
	if (store->scheme->server)
		explicit_bzero(store->path, strlen(store->path));
	free(store->path);
	free(store->shown);
}

enum evbus_code store_open(int dir, const char *url, const struct store_options *options, struct store **store,
			   struct evbus_err *err)
{
	struct store opened = { .pid = getpid(), .file.dir = -1 };
	const char *path;

	opened.scheme = find_scheme(url, &path);
	if (!opened.scheme->server)
		TRY(check_path(path, path == url, options && options->guest ? "outbox" : "store", err));
	if (options)
		opened.options = *options;
	if (!opened.options.file_mode)
		opened.options.file_mode = 0600;
	opened.dir = path[0] == '/' ? AT_FDCWD : dir;
	TRY(keep_place(opened.dir, path, &opened, err));
	struct store *kept = os.realloc(NULL, sizeof *kept);
	if (!kept) {
		forget_place(&opened);
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open a store");
	}
	*kept = opened;
	*store = kept;
	return EVBUS_OK;
}

static void disconnect(struct store *store)
{
	/* In a forked child it is a copy of the parent's connection: closing it rolls the parent's journal back. */
	if (store->db && store->pid == getpid())
		store->db->driver->close(store->db);
	store->db = NULL;
	store_file_release(&store->file);
}

void store_close(struct store *store)
{
	if (!store)
		return;
	claims_forget(store);
	disconnect(store);
	forget_place(store);
	free(store->resolved);
	free(store);
}

/* ---- connecting ------------------------------------------------------------------------------------------------ */

static void say_made(const struct store *store)
{
	char text[512];

	if (!store->options.notice)
		return;
	snprintf(text, sizeof text, "made the %s '%s'", store->options.guest ? "database" : "store", store->shown);
	store->options.notice(store->options.notice_context, text);
}

static enum evbus_code open_db(struct store *store, struct evbus_err *err)
{
	const struct evbus_module *module;
	char path[PATH_MAX];

	if (!store->scheme->server) {
		TRY(store_file_path(&store->file, path, err));
		TRY(store_file_check_beside(&store->file, err));
	}
	TRY(module_load(store->options.module_dir, "store", store->scheme->module, store->scheme->dev_package, &module,
			err));
	const struct store_driver *driver = module->ops;
	return driver->open(store->scheme->server ? store->path : path, store->options.guest, &store->db, err);
}

/* Nothing of a guest's database is ours to be strict about. What is not there leads nowhere. */
static const char *follow_links(struct store *store)
{
	if (!store->options.guest)
		return store->path;
	free(store->resolved);
	store->resolved = realpath(store->path, NULL);
	return store->resolved ? store->resolved : store->path;
}

static enum evbus_code connect_db(struct store *store, bool create, struct evbus_err *err)
{
	bool made;

	store->version = 0;
	if (store->scheme->server)
		return open_db(store, err);
	TRY(store_file_open(store->dir, follow_links(store), create, store->options.file_mode, &store->file, &made,
			    err));
	if (made)
		say_made(store);
	enum evbus_code code = open_db(store, err);
	if (code)
		store_file_release(&store->file);
	return code;
}

static enum evbus_code check_handle(const struct store *store, struct evbus_err *err)
{
	if (store->pid != getpid())
		return err_set(err, EVBUS_BUG, 0,
			       "the store '%s' was opened by another process: open it again after a fork",
			       store->shown);
	if (!store->db || store->scheme->server)
		return EVBUS_OK;
	TRY(store_file_check(&store->file, store->path, err));
	return store_file_check_beside(&store->file, err);
}

static enum evbus_code prepare_tables(struct store *store, struct evbus_err *err)
{
	if (!store->scheme->server)
		return store_file_sync_names(&store->file, err);
	if (store->options.no_create)
		return err_set(err, EVBUS_NONE, 0, "there is no store '%s'", store->shown);
	return EVBUS_OK;
}

static enum evbus_code make_tables(struct store *store, bool write, bool *ready, struct evbus_err *err)
{
	if (store->version != SCHEMA_VERSION)
		TRY(schema_version(store->db, store->shown, &store->version, err));
	bool made = !store->version;
	if (made && !write)
		return EVBUS_OK;
	if (made)
		TRY(prepare_tables(store, err));
	if (store->version != SCHEMA_VERSION)
		TRY(schema_migrate(store->db, store->shown, err));
	if (made && store->scheme->server)
		say_made(store);
	store->version = SCHEMA_VERSION;
	*ready = true;
	return EVBUS_OK;
}

/* *ready: there is a database with tables of ours in it; always so where they may be made. */
static enum evbus_code make_ready(struct store *store, bool write, bool *ready, struct evbus_err *err)
{
	*ready = false;
	TRY(check_handle(store, err));
	if (!store->db) {
		enum evbus_code code = connect_db(store, write && !store->options.no_create, err);
		if (code == EVBUS_NONE && !write)
			return EVBUS_OK;
		TRY(code);
	}
	if (!store->options.guest)
		return make_tables(store, write, ready, err);
	*ready = true;
	return EVBUS_OK;
}

enum evbus_code store_place(struct store *store, struct buf *place, struct evbus_err *err)
{
	char path[PATH_MAX];
	bool ready;

	TRY(make_ready(store, false, &ready, err));
	place->len = 0;
	if (store->scheme->server)
		return store->db->driver->place(store->db, place, err);
	if (store->db)
		TRY(store_file_path(&store->file, path, err));
	else
		snprintf(path, sizeof path, "%s", store->path);
	TRY(buf_add(place, store->scheme->prefix, strlen(store->scheme->prefix), err));
	return buf_add(place, path, strlen(path), err);
}

/* ---- what tables are written with ------------------------------------------------------------------------------ */

enum evbus_code table_read(struct store *store, struct query *query, struct evbus_err *err)
{
	bool ready;

	TRY(make_ready(store, false, &ready, err));
	return ready ? store->db->driver->query(store->db, query, err) : EVBUS_OK;
}

/* Within the transaction, so that a process which lives through an upgrade of the store does not write to it. */
static enum evbus_code still_ours(struct store *store, struct evbus_err *err)
{
	TRY(check_handle(store, err));
	if (store->options.guest)
		return EVBUS_OK;
	return schema_version_again(store->db, store->shown, &store->version, err);
}

enum evbus_code table_begin(struct store *store, struct evbus_err *err)
{
	bool ready;

	TRY(make_ready(store, true, &ready, err));
	assert(ready);
	TRY(store->db->driver->begin(store->db, err));
	enum evbus_code code = still_ours(store, err);
	if (!code)
		code = claims_renew(store, err);
	if (code)
		table_rollback(store);
	return code;
}

enum evbus_code table_reach(struct store *store, struct evbus_err *err)
{
	bool ready;

	return make_ready(store, false, &ready, err);
}

uint64_t table_session(const struct store *store)
{
	return store->db->driver->session(store->db);
}

void table_unclaim(struct store *store, const char *name)
{
	store->db->driver->unclaim(store->db, name);
}

struct evbus_claim **table_claims(struct store *store)
{
	return &store->claims;
}

enum evbus_code table_write(struct store *store, struct query *query, struct evbus_err *err)
{
	return store->db->driver->query(store->db, query, err);
}

enum evbus_code table_commit(struct store *store, struct evbus_err *err)
{
	return store->db->driver->commit(store->db, err);
}

const struct store_driver *table_driver(const struct store *store)
{
	return store->db ? store->db->driver : NULL;
}

enum evbus_code table_in_danger(struct store *store, bool *danger, struct evbus_err *err)
{
	bool ready;

	*danger = false;
	TRY(make_ready(store, false, &ready, err));
	return ready ? store->db->driver->in_danger(store->db, danger, err) : EVBUS_OK;
}

enum evbus_code table_listen(struct store *store, const char *channel, struct evbus_err *err)
{
	bool ready;

	TRY(make_ready(store, false, &ready, err));
	return ready ? store->db->driver->listen(store->db, channel, err) : EVBUS_OK;
}

int table_heard(struct store *store, bool *told)
{
	return store->db ? store->db->driver->heard(store->db, told) : -1;
}

void table_rollback(struct store *store)
{
	store->db->driver->rollback(store->db);
}
