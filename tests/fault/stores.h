/* stores.h: databases of the store and of applications, looked at from outside. */
#ifndef EVBUS_TESTS_FAULT_STORES_H
#define EVBUS_TESTS_FAULT_STORES_H

#include "fault.h"

#include <sqlite3.h>

#define STATE_DB "bus/.evbus/state.db"

/* Waits as long as a minute for those who write. */
sqlite3 *open_db(const char *path);
void run_sql(sqlite3 *db, const char *statement);
/* The one number that it gives; -1: it gives nothing. */
int64_t ask_in(sqlite3 *db, const char *statement);
int64_t ask_db(const char *path, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* PRAGMA integrity_check */
void check_db(const char *path);

#endif
