/* power_bus.h: what tests of a bus with a store have in common, after a power cut. */
#ifndef EVBUS_TESTS_FAULT_POWER_BUS_H
#define EVBUS_TESTS_FAULT_POWER_BUS_H

#include "power_log.h"

#include <sqlite3.h>

#define BUS_PARTITIONS 2

/* The bus in path/bus. */
struct evbus *bus_open(const char *path);
/* As states.ready. */
void bus_ready(const char *path);

/* What was promised at `changes` changes. */
#define NEVER SIZE_MAX
static inline bool was_promised(size_t at, size_t changes)
{
	return at <= changes;
}

/* For states_check_twice(): of `count` promises those that were made are there from the beginning, the others never. */
void promises_keep(size_t *at, size_t count, size_t changes);

/* Reads the topic through the bus: each record once, with the number that its id "eN" says. */
void bus_read(struct evbus *bus, void (*record)(void *context, const struct evbus_record *record, uint64_t n),
	      void *context);

sqlite3 *database_open(const char *path);
void database_run(sqlite3 *db, const char *sql);
/* The number that a statement gives; with parameter 1 bound to n. */
int64_t database_ask(sqlite3 *db, const char *sql, int64_t n);
void database_check(sqlite3 *db); /* PRAGMA integrity_check */

#endif
