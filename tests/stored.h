/* stored.h: where a case of the store has its rows: in files of SQLite; or, where EVBUS_TEST_STORE is the URL of a Postgres,
 * in a schema of its own there for each of those files. */
#ifndef EVBUS_TESTS_STORED_H
#define EVBUS_TESTS_STORED_H

#include <criterion/criterion.h>
#include <stdbool.h>

bool stored_on_server(void);

/* Where the store is that a case has in this file, "sqlite:" before it or not. Until the next call. */
const char *stored_url(const char *path);
bool stored_is_there(const char *path);
/* Nothing is there then, but, on a server, an empty schema. */
void stored_empty(const char *path);

/* Behind its back. The columns of the last row, one behind the other; until the next call. */
const char *stored_sql(const char *path, const char *statements);
/* Of a file of SQLite, wherever the store is. */
const char *stored_sql_in_file(const char *path, const char *statements);

/* From now on the database refuses to INSERT, UPDATE or DELETE rows of the table, with this text. when: a condition, of the
 * row new or old, or "1 = 1". */
void stored_refuse(const char *path, const char *what, const char *table, const char *when, const char *text);
void stored_allow(const char *path, const char *table);

#define ONLY_SQLITE(why)                                                                                               \
	do {                                                                                                           \
		if (stored_on_server())                                                                                \
			cr_skip_test(why);                                                                             \
	} while (0)

#define OF_FILES ONLY_SQLITE("it is about the files of SQLite")
#define OF_PLANS ONLY_SQLITE("it is about what SQLite plans")
#define OF_TYPES ONLY_SQLITE("columns of Postgres have a type, and take nothing else")

#endif
