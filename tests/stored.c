#include "stored.h"

#include "store/table.h"

#include "unit/scratch.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <time.h>

#define STATEMENT_MAX_BYTES 4096

static char result[65536];

static const char *server(void)
{
	return getenv("EVBUS_TEST_STORE");
}

bool stored_on_server(void)
{
	return server();
}

static const char *file_of(const char *path)
{
	static const char scheme[] = "sqlite:";

	return strncmp(path, scheme, strlen(scheme)) ? path : path + strlen(scheme);
}

static char of_case[48];

/* Before a case begins, so that its children have the same; each case is a process. */
__attribute__((constructor)) static void name_case(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(of_case, sizeof of_case, "%jx_%lx_%x", (uintmax_t)now.tv_sec, now.tv_nsec, (unsigned)getpid());
}

static const char *schema_of(const char *path)
{
	static char name[64];

	snprintf(name, sizeof name, "c%s_%s", of_case, file_of(path));
	for (char *at = name; *at; at++)
		if (*at == '/' || *at == '.')
			*at = '_';
	return name;
}

const char *stored_url(const char *path)
{
	static char url[256];

	if (!server())
		return path;
	snprintf(url, sizeof url, "%s?schema=%s", server(), schema_of(path));
	return url;
}

static enum evbus_code add_row(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	size_t len = 0;

	(void)context;
	(void)err;
	for (size_t i = 0; i < count; i++) {
		const struct value *column = &columns[i];
		size_t room = sizeof result - len;
		if (column->kind == VALUE_INTEGER)
			len += (size_t)snprintf(result + len, room, "%" PRId64, column->integer);
		else if (column->kind != VALUE_NULL)
			len += (size_t)snprintf(result + len, room, "%.*s", (int)column->bytes.len, column->bytes.data);
		cr_assert_lt(len, sizeof result);
	}
	return EVBUS_OK;
}

static void run(struct store *store, const char *statement)
{
	struct query query = { .sql = statement, .row = add_row };
	struct evbus_err err;

	cr_assert_eq(table_write(store, &query, &err), EVBUS_OK, "%s: %s", statement, err.text);
}

/* The end of a statement: the next ";" that stands in nothing that is quoted. */
static const char *end_of(const char *at)
{
	for (const char *close; *at && *at != ';'; at = close + 1) {
		close = *at == '\'' || *at == '"'    ? strchr(at + 1, *at)
			: *at == '$' && at[1] == '$' ? strstr(at + 2, "$$")
						     : at;
		cr_assert_not_null(close);
		close += *close == '$';
	}
	return at;
}

/* As an application would: in a database that evbus is a guest of. What a case says as SQLite understands it stands in the
 * schema `public`: tests/servers/dialect.sql. */
static void sql_on_server(const char *path, const char *statements)
{
	struct store_options options = { .guest = true };
	char modules[PATH_MAX], statement[STATEMENT_MAX_BYTES];
	struct evbus_err err;
	struct store *store;

	scratch_find_modules(modules);
	options.module_dir = modules;
	cr_assert_eq(store_open(AT_FDCWD, stored_url(path), &options, &store, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(table_begin(store, &err), EVBUS_OK, "%s", err.text);
	snprintf(statement, sizeof statement, "SET LOCAL search_path TO %s, public", schema_of(path));
	run(store, statement);
	for (const char *at = statements, *end; *at; at = *end ? end + 1 : end) {
		end = end_of(at);
		cr_assert_lt(snprintf(statement, sizeof statement, "%.*s", (int)(end - at), at), (int)sizeof statement);
		if (statement[strspn(statement, " ")])
			run(store, statement);
	}
	cr_assert_eq(table_commit(store, &err), EVBUS_OK, "%s: %s", statements, err.text);
	store_close(store);
}

static int take_row(void *context, int count, char **values, char **names)
{
	size_t len = 0;

	(void)context;
	(void)names;
	for (int i = 0; i < count; i++)
		len += (size_t)snprintf(result + len, sizeof result - len, "%s", values[i] ? values[i] : "");
	return 0;
}

const char *stored_sql_in_file(const char *path, const char *statements)
{
	sqlite3 *db;
	char *message = NULL;

	result[0] = '\0';
	cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
	sqlite3_busy_timeout(db, 5000);
	int rc = sqlite3_exec(db, statements, take_row, NULL, &message);
	cr_assert_eq(rc, SQLITE_OK, "%s: %s", statements, message);
	sqlite3_close(db);
	return result;
}

const char *stored_sql(const char *path, const char *statements)
{
	if (!server())
		return stored_sql_in_file(file_of(path), statements);
	result[0] = '\0';
	sql_on_server(path, statements);
	return result;
}

bool stored_is_there(const char *path)
{
	char statement[200];

	if (!server())
		return !access(file_of(path), F_OK);
	snprintf(statement, sizeof statement, "SELECT count(*) FROM pg_namespace WHERE nspname = '%s'",
		 schema_of(path));
	return strcmp(stored_sql(path, statement), "0") != 0;
}

void stored_empty(const char *path)
{
	char name[PATH_MAX];

	if (server()) {
		const char *schema = schema_of(path);
		snprintf(name, sizeof name, "DROP SCHEMA IF EXISTS %s CASCADE; CREATE SCHEMA %s", schema, schema);
		stored_sql(path, name);
		return;
	}
	unlink(file_of(path));
	snprintf(name, sizeof name, "%s-journal", file_of(path));
	unlink(name);
}

void stored_refuse(const char *path, const char *what, const char *table, const char *when, const char *text)
{
	static const char of_file[] = "CREATE TRIGGER no BEFORE %s ON %s WHEN %s BEGIN SELECT RAISE(ABORT, '%s'); END";
	static const char of_server[] = "CREATE TRIGGER no BEFORE %s ON %s FOR EACH ROW WHEN (%s) "
					"EXECUTE FUNCTION refuse('%s')";
	char statement[500];

	snprintf(statement, sizeof statement, server() ? of_server : of_file, what, table, when, text);
	stored_sql(path, statement);
}

void stored_allow(const char *path, const char *table)
{
	char statement[100];

	snprintf(statement, sizeof statement, server() ? "DROP TRIGGER no ON %s" : "DROP TRIGGER no", table);
	stored_sql(path, statement);
}
