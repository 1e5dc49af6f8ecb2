/* table.h: what the files of the store's tables are written with. */
#ifndef EVBUS_STORE_TABLE_H
#define EVBUS_STORE_TABLE_H

#include "store/driver.h"
#include "store/store.h"

#include <string.h>

/* Finds no rows where there is no store yet. */
CHECKED enum evbus_code table_read(struct store *store, struct query *query, struct evbus_err *err);

/* Makes the store if need be; its schema is ours until the transaction ends. After a failed table_write it is still to
 * be rolled back; after table_commit, failed or not, it is over. */
CHECKED enum evbus_code table_begin(struct store *store, struct evbus_err *err);
CHECKED enum evbus_code table_write(struct store *store, struct query *query, struct evbus_err *err);
CHECKED enum evbus_code table_commit(struct store *store, struct evbus_err *err);
void table_rollback(struct store *store);

/* Connects to a server, as reading would. */
CHECKED enum evbus_code table_reach(struct store *store, struct evbus_err *err);
/* Of a server that was reached: see driver.h. Claims: the first one that was taken by this handle. */
uint64_t table_session(const struct store *store);
void table_unclaim(struct store *store, const char *name);
struct evbus_claim **table_claims(struct store *store);

/* For what is said differently to each database; NULL as long as none was found or made. */
const struct store_driver *table_driver(const struct store *store);
CHECKED enum evbus_code table_in_danger(struct store *store, bool *danger, struct evbus_err *err);

/* See driver.h; only where it is a server. */
CHECKED enum evbus_code table_listen(struct store *store, const char *channel, struct evbus_err *err);
int table_heard(struct store *store, bool *told);

static inline struct value value_text(const char *text)
{
	return (struct value){ .kind = VALUE_TEXT, .bytes = { text, strlen(text) } };
}

/* false: it is no text, or does not fit with its NUL. */
static inline bool value_take_text(const struct value *value, char *text, size_t size)
{
	if (value->kind != VALUE_TEXT || value->bytes.len >= size || memchr(value->bytes.data, 0, value->bytes.len))
		return false;
	memcpy(text, value->bytes.data, value->bytes.len);
	text[value->bytes.len] = '\0';
	return true;
}

static inline struct value value_integer(int64_t integer)
{
	return (struct value){ .kind = VALUE_INTEGER, .integer = integer };
}

/* data NULL is NULL. */
static inline struct value value_slice(struct evbus_slice text)
{
	return (struct value){ .kind = text.data ? VALUE_TEXT : VALUE_NULL, .bytes = text };
}

#endif
