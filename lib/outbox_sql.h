/* outbox_sql.h: what the files that make the statements of an outbox share. */
#ifndef EVBUS_OUTBOX_SQL_H
#define EVBUS_OUTBOX_SQL_H

#include "outbox_table.h"

/* A statement that is being made. */
struct sql_maker {
	struct evbus_outbox *outbox;
	const struct store_driver *driver;
	struct buf out;
	struct evbus_err *err;
};

void sql_release(struct sql_maker *maker);
CHECKED enum evbus_code sql_add(struct sql_maker *maker, const char *text);
CHECKED enum evbus_code sql_add_column(struct sql_maker *maker, const char *prefix, const char *name);
/* What the table has for a column of ours, or NULL. */
CHECKED enum evbus_code sql_add_one(struct sql_maker *maker, const char *prefix, enum outbox_column column);
/* A text with {words}; see outbox_sql.c. */
CHECKED enum evbus_code sql_expand(struct sql_maker *maker, const char *text);
/* Hands the text over, and begins another. */
CHECKED enum evbus_code sql_finish(struct sql_maker *maker, char **sql);

/* ---- outbox_sql_make.c ----------------------------------------------------------------------------------------- */

/* What makes the table, and its indices. */
CHECKED enum evbus_code sql_make_table(struct sql_maker *maker);

#endif
