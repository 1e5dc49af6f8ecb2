/* store_server.c: a store on a server, and the claims there. The server is a double: SQLite's driver with what a server's
 * has beside it, and with sessions that break when they are told to. */
#include "store/claim.h"
#include "store/driver.h"
#include "store/server.h"
#include "store_helpers.h"

#include "base/module.h"
#include "base/os.h"

#include <dlfcn.h>
#include <sys/wait.h>

TestSuite(store_server, .init = setup, .fini = teardown, .timeout = 60);

/* ---- the double ------------------------------------------------------------------------------------------------ */

#define URL "postgresql://me:secret@host/db?schema=s"
#define LOCKS_MAX 8u

struct double_db {
	struct db db;
	struct db *inner;
	uint64_t session;
};

static const struct store_driver *below;   /* SQLite's */
static struct store_driver driver;
static struct {
	char name[128];
	uint64_t session;
} locks[LOCKS_MAX];
static uint64_t sessions;
static struct double_db *dbs[8];           /* in the order in which they were opened */
static int makes, opens, releases;
static bool nobody_known;
static enum evbus_code fails;              /* what is asked next of the parts that only servers have, */
static int passes;                         /* after so many */
static int listens;

static struct double_db *of(const struct db *db)
{
	return (struct double_db *)(void *)(uintptr_t)db;
}

static void *no_memory(void *block, size_t size)
{
	(void)block;
	(void)size;
	return NULL;
}

static enum evbus_code fail_once(struct evbus_err *e)
{
	if (passes && passes--)
		return EVBUS_OK;
	enum evbus_code code = fails;
	fails = EVBUS_OK;
	return code ? err_set(e, code, 0, "as it was told") : EVBUS_OK;
}

static enum evbus_code open_double(const char *url, bool guest, struct db **db, struct evbus_err *e)
{
	char directory[PATH_MAX - 16], path[PATH_MAX];
	struct double_db *opened = malloc(sizeof *opened);

	cr_assert(opened && !strcmp(url, URL));
	cr_assert(getcwd(directory, sizeof directory));
	snprintf(path, sizeof path, "%s/server.db", directory);
	close(open(path, O_CREAT | O_RDWR, 0600));
	opened->db.driver = &driver;
	opened->session = ++sessions;
	enum evbus_code code = fail_once(e);
	if (!code)
		code = below->open(path, guest, &opened->inner, e);
	if (code) {
		free(opened);
		return code;
	}
	dbs[opens++] = opened;
	*db = &opened->db;
	return EVBUS_OK;
}

static void close_double(struct db *db)
{
	for (size_t i = 0; i < LOCKS_MAX; i++)
		if (locks[i].session == of(db)->session)
			locks[i].session = 0;
	below->close(of(db)->inner);
	free(db);
}

static int64_t take_lock(const char *name, size_t len, uint64_t session)
{
	size_t place = LOCKS_MAX;

	for (size_t i = 0; i < LOCKS_MAX; i++) {
		if (!locks[i].session)
			place = i;
		else if (strlen(locks[i].name) == len && !memcmp(locks[i].name, name, len))
			return locks[i].session == session;
	}
	snprintf(locks[place].name, sizeof locks[place].name, "%.*s", (int)len, name);
	locks[place].session = session;
	return 1;
}

static enum evbus_code query_double(struct db *db, struct query *query, struct evbus_err *e)
{
	struct value column = { .kind = VALUE_INTEGER };

	if (query->sql != driver.claim && query->sql != driver.claim_holder)
		return below->query(of(db)->inner, query, e);
	enum evbus_code code = fail_once(e);
	if (code)
		return code;
	if (query->sql == driver.claim) {
		column.integer = take_lock(query->args[0].bytes.data, query->args[0].bytes.len, of(db)->session);
	} else {
		if (nobody_known)
			return EVBUS_OK;
		column = value_text("evbus elsewhere 7");
	}
	return query->row(query->context, &column, 1, e);
}

static void unclaim_double(struct db *db, const char *name)
{
	releases++;
	for (size_t i = 0; i < LOCKS_MAX; i++)
		if (locks[i].session == of(db)->session && !strcmp(locks[i].name, name))
			locks[i].session = 0;
}

static enum evbus_code make_double(struct db *db, struct evbus_err *e)
{
	(void)db;
	makes++;
	return fail_once(e);
}

static enum evbus_code place_double(struct db *db, struct buf *place, struct evbus_err *e)
{
	(void)db;
	return buf_add(place, "postgresql://host:5432/db?schema=s", 34, e);
}

static enum evbus_code listen_double(struct db *db, const char *channel, struct evbus_err *e)
{
	(void)db;
	(void)e;
	cr_assert_str_eq(channel, "changes");
	listens++;
	return EVBUS_OK;
}

static uint64_t session_double(const struct db *db)
{
	return of(db)->session;
}

static enum evbus_code begin_double(struct db *db, struct evbus_err *e)
{
	return below->begin(of(db)->inner, e);
}

static enum evbus_code commit_double(struct db *db, struct evbus_err *e)
{
	return below->commit(of(db)->inner, e);
}

static void rollback_double(struct db *db)
{
	below->rollback(of(db)->inner);
}

/* In place of the library's. */
enum evbus_code module_load(const char *dir, const char *what, const char *name, const char *dev_package,
			    const struct evbus_module **module, struct evbus_err *e)
{
	static struct evbus_module found = { .abi = EVBUS_MODULE_ABI, .name = "postgres", .ops = &driver };
	char path[PATH_MAX + 32];

	cr_assert(!strcmp(what, "store") && !strcmp(name, "postgres") && !strcmp(dev_package, "libpq-dev"));
	snprintf(path, sizeof path, "%s/libevbus-sqlite.so", dir);
	void *handle = dlopen(path, RTLD_LOCAL | RTLD_NOW);
	const struct evbus_module *sqlite = handle ? dlsym(handle, "evbus_module") : NULL;
	if (!sqlite)
		return err_set(e, EVBUS_CONFIG, 0, "cannot load '%s'", path);
	below = sqlite->ops;
	driver = *below;
	driver.claim = "claim";
	driver.claim_holder = "holder";
	driver.open = open_double;
	driver.close = close_double;
	driver.make = make_double;
	driver.place = place_double;
	driver.session = session_double;
	driver.unclaim = unclaim_double;
	driver.listen = listen_double;
	driver.begin = begin_double;
	driver.commit = commit_double;
	driver.rollback = rollback_double;
	driver.query = query_double;
	*module = &found;
	return EVBUS_OK;
}

/* As if the connection had ended, and another one had been made. */
static void break_session(struct double_db *opened)
{
	for (size_t i = 0; i < LOCKS_MAX; i++)
		if (locks[i].session == opened->session)
			locks[i].session = 0;
	opened->session = ++sessions;
}

static enum evbus_code take(struct store *store, int32_t partition_id, struct evbus_claim **claim)
{
	return claim_take_shared(store, "g", "t", partition_id, false, claim, &err);
}

/* ---- URLs ------------------------------------------------------------------------------------------------------ */

Test(store_server, is_shown_without_anything_secret)
{
	static const char *const cases[][2] = {
		{ "postgresql://host:5432/db", "postgresql://host:5432/db" },
		{ "postgres://me@host/db?sslmode=require", "postgres://host/db" },
		{ "postgresql://me:secret@host/db?password=other", "postgresql://host/db" },
		{ "postgresql://me:s/e@c@host/db", "postgresql://host/db" },
		{ "postgresql://me:se?cret@host/db", "postgresql://" },
		{ "postgresql://host/db?application_name=a@b", "postgresql://" },
		{ "postgresql://", "postgresql://" },
	};
	char shown[128];

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		server_show(cases[i][0], shown);
		cr_expect_str_eq(shown, cases[i][1], "%s: %s", cases[i][0], shown);
	}
	cr_expect(store_is_on_server(URL) && store_is_on_server("postgres://h") && !store_is_on_server("sqlite:x") &&
		  !store_is_on_server("postgresql:x"));
}

/* ---- the store ------------------------------------------------------------------------------------------------- */

Test(store_server, is_made_by_the_first_write_which_tells_it_without_the_password)
{
	struct store *store = open_store(URL);

	cr_assert_eq(position(store, 0), -1);
	cr_assert(!makes && !notices);
	cr_assert_eq(put(store, "g", "t", 0, 1), EVBUS_OK, "%s", err.text);
	cr_assert(makes == 1 && notices == 1);
	cr_assert_str_eq(made, "made the store 'postgresql://host/db'");
	cr_assert_eq(position(store, 0), 1);
	store_close(store);
}

Test(store_server, is_not_made_where_that_is_not_wanted)
{
	struct store *store = open_with(AT_FDCWD, URL, true, 0);

	cr_assert_eq(put(store, "g", "t", 0, 1), EVBUS_NONE);
	cr_assert(strstr(err.text, "there is no store 'postgresql://host/db'"), "%s", err.text);
	cr_assert(!makes);
	store_close(store);
}

Test(store_server, is_where_its_driver_says)
{
	CLEANUP(buf_release) struct buf place = { 0 };
	struct store *store = open_store(URL);

	cr_assert_eq(store_place(store, &place, &err), EVBUS_OK);
	cr_assert(place.len == 34 && !memcmp(place.data, "postgresql://host:5432/db?schema=s", 34));
	store_close(store);
}

Test(store_server, that_cannot_be_reached_or_made_says_so_and_can_be_asked_again)
{
	struct store *store = open_store(URL);
	CLEANUP(buf_release) struct buf place = { 0 };

	fails = EVBUS_UNAVAILABLE;
	cr_assert_eq(store_place(store, &place, &err), EVBUS_UNAVAILABLE);
	cr_assert_eq(position(store, 0), -1);
	fails = EVBUS_PERMISSION;
	cr_assert_eq(put(store, "g", "t", 0, 1), EVBUS_PERMISSION);
	cr_assert_eq(put(store, "g", "t", 0, 1), EVBUS_OK, "%s", err.text);
	cr_assert_eq(makes, 2);
	store_close(store);
}

Test(store_server, is_listened_to_once_there_is_something)
{
	struct store *store = open_store(URL);

	fails = EVBUS_UNAVAILABLE;
	cr_assert_eq(table_listen(store, "changes", &err), EVBUS_UNAVAILABLE);
	cr_assert_eq(table_listen(store, "changes", &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(listens, 0);
	cr_assert_eq(put(store, "g", "t", 0, 1), EVBUS_OK, "%s", err.text);
	cr_assert_eq(table_listen(store, "changes", &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(listens, 1);
	store_close(store);
}

/* ---- claims ---------------------------------------------------------------------------------------------------- */

Test(store_server, a_claim_keeps_others_out_and_names_who_has_it)
{
	struct store *store = open_store(URL), *other = open_store(URL);
	struct evbus_claim *claim, *second;
	char pid[32];

	cr_assert_eq(take(store, 0, &claim), EVBUS_OK, "%s", err.text);
	cr_assert_eq(take(store, 0, &second), EVBUS_AGAIN);
	snprintf(pid, sizeof pid, "(pid %d)", (int)getpid());
	cr_assert(strstr(err.text, pid), "%s", err.text);
	cr_assert_eq(take(other, 0, &second), EVBUS_AGAIN);
	cr_assert(strstr(err.text, "being consumed by evbus elsewhere 7 on partition 0"), "%s", err.text);
	nobody_known = true;
	cr_assert_eq(take(other, 0, &second), EVBUS_AGAIN);
	cr_assert(strstr(err.text, "by another process"), "%s", err.text);
	cr_assert_eq(claim_take_shared(other, "g", "letters", -1, true, &second, &err), EVBUS_OK);
	evbus_claim_release(second);
	evbus_claim_release(claim);
	cr_assert_eq(releases, 2);
	cr_assert_eq(take(other, 0, &claim), EVBUS_OK, "%s", err.text);
	evbus_claim_release(claim);
	store_close(store);
	store_close(other);
}

Test(store_server, a_claim_may_outlive_its_store_and_a_fork)
{
	struct store *store = open_store(URL);
	struct evbus_claim *claim, *second;
	int status;

	cr_assert_eq(take(store, 0, &claim), EVBUS_OK, "%s", err.text);
	cr_assert_eq(take(store, 1, &second), EVBUS_OK, "%s", err.text);
	pid_t child = fork();
	if (!child) {
		evbus_claim_release(second);
		_exit(releases);
	}
	cr_assert(waitpid(child, &status, 0) == child && status == 0);
	evbus_claim_release(claim); /* which is not the first one of the list */
	cr_assert_eq(releases, 1);
	store_close(store);
	evbus_claim_release(second);
	cr_assert_eq(releases, 1);
}

Test(store_server, a_claim_wants_names)
{
	struct store *store = open_store(URL);
	struct evbus_claim *claim;

	cr_assert_eq(claim_take_shared(store, "a/b", "t", 0, true, &claim, &err), EVBUS_USAGE);
	cr_assert_eq(claim_take_shared(store, "g", "a..b", 0, true, &claim, &err), EVBUS_USAGE);
	store_close(store);
}

Test(store_server, a_claim_that_fails_is_none)
{
	struct store *store = open_store(URL), *other = open_store(URL);
	struct evbus_claim *claim, *second;

	fails = EVBUS_UNAVAILABLE;
	cr_assert_eq(take(store, 0, &claim), EVBUS_UNAVAILABLE);
	cr_assert_eq(take(store, 0, &claim), EVBUS_OK);
	cr_assert_eq(table_reach(other, &err), EVBUS_OK);
	fails = EVBUS_IO;
	cr_assert_eq(take(other, 1, &second), EVBUS_IO);
	void *(*realloc_as_it_is)(void *, size_t) = os.realloc;
	os.realloc = no_memory;
	cr_assert_eq(take(other, 1, &second), EVBUS_IO);
	os.realloc = realloc_as_it_is;
	passes = 1;
	fails = EVBUS_IO;
	cr_assert_eq(take(other, 0, &second), EVBUS_IO, "who has it cannot be asked");
	cr_assert_eq(take(other, 0, &second), EVBUS_AGAIN);
	evbus_claim_release(claim);
	store_close(store);
	store_close(other);
}

Test(store_server, a_claim_that_went_with_the_connection_is_taken_again_before_anything_is_saved)
{
	struct store *store = open_store(URL), *other = open_store(URL);
	struct evbus_claim *claim, *second;

	cr_assert_eq(put(store, "g", "t", 0, 1), EVBUS_OK, "%s", err.text);
	cr_assert_eq(take(store, 0, &claim), EVBUS_OK);
	break_session(dbs[0]);
	cr_assert_eq(put(store, "g", "t", 0, 2), EVBUS_OK, "%s", err.text);
	cr_assert(claim_renewals(claim) == 1 && claim_check(claim, -1, &err) == EVBUS_OK);
	cr_assert_eq(take(other, 0, &second), EVBUS_AGAIN);

	break_session(dbs[0]);
	cr_assert_eq(take(other, 0, &second), EVBUS_OK);
	cr_assert_eq(put(store, "g", "t", 0, 3), EVBUS_CONFLICT);
	cr_assert(strstr(err.text, "somebody else has it now"), "%s", err.text);
	cr_assert_eq(position(other, 0), 2);
	fails = EVBUS_UNAVAILABLE;
	cr_assert_eq(put(store, "g", "t", 0, 3), EVBUS_UNAVAILABLE);
	evbus_claim_release(claim); /* there is nothing to give back */
	cr_assert_eq(releases, 0);
	cr_assert_eq(put(store, "g", "t", 0, 3), EVBUS_OK, "%s", err.text);
	evbus_claim_release(second);
	store_close(store);
	store_close(other);
}
