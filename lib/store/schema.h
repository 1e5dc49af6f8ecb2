/* schema.h: the tables of the store, and their versions. */
#ifndef EVBUS_STORE_SCHEMA_H
#define EVBUS_STORE_SCHEMA_H

#include "store/driver.h"

#define SCHEMA_VERSION 3

/* 0 where there are no tables of ours. EVBUS_CONFIG where they are of a newer version; name is for the message. */
CHECKED enum evbus_code schema_version(struct db *db, const char *name, int64_t *version, struct evbus_err *err);

/* The same where there were some. */
CHECKED enum evbus_code schema_version_again(struct db *db, const char *name, int64_t *version, struct evbus_err *err);

/* Brings the tables to SCHEMA_VERSION, from nothing or from an older one, in one transaction. */
CHECKED enum evbus_code schema_migrate(struct db *db, const char *name, struct evbus_err *err);

#endif
