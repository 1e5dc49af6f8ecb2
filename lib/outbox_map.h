/* outbox_map.h: what the table of an outbox, its columns and its states are called. */
#ifndef EVBUS_OUTBOX_MAP_H
#define EVBUS_OUTBOX_MAP_H

#include "base/err.h"

enum outbox_column {
	OUTBOX_SEQ,
	OUTBOX_ID,
	OUTBOX_TENANT,
	OUTBOX_TOPIC,
	OUTBOX_TYPE,
	OUTBOX_EVENT_KEY,
	OUTBOX_PARTITION_KEY,
	OUTBOX_PAYLOAD,
	OUTBOX_STATE,
	OUTBOX_ATTEMPTS,
	OUTBOX_DUE,
	OUTBOX_ERROR,
	OUTBOX_OWNER,
	OUTBOX_EXPIRES,
	OUTBOX_CREATED,
	OUTBOX_SENT_AT,
	OUTBOX_RECEIPT,
	OUTBOX_HISTORY,
	OUTBOX_COLUMNS,
};

/* A set of columns. */
#define OUTBOX_BIT(column) (1u << (column))

#define OUTBOX_NAME_MAX_BYTES 63u

struct outbox_map {
	char schema[OUTBOX_NAME_MAX_BYTES + 1];                     /* "": none */
	char table[OUTBOX_NAME_MAX_BYTES + 1];
	char columns[OUTBOX_COLUMNS][OUTBOX_NAME_MAX_BYTES + 1];
	uint32_t named;                                             /* columns whose names were given */
	char topic[EVBUS_TOPIC_MAX_BYTES + 1];                      /* a template, "crm.{type}"; "": a column has it */
	char states[EVBUS_OUTBOX_STATES][OUTBOX_NAME_MAX_BYTES + 1];
};

/* text: "OURS=THEIRS,…", or NULL for our own names. OURS: table, a column, or state.STATE. THEIRS: letters, digits and
 * "_"; for the table also schema.table; for the topic also a template of topic characters and {column}, in quotes or
 * not; for a state also "-", ":", "." and blanks within. EVBUS_USAGE names the word and the words there are. */
CHECKED enum evbus_code outbox_map_parse(const char *text, struct outbox_map *map, struct evbus_err *err);

/* Our name of a column. */
const char *outbox_column_name(enum outbox_column column);

/* The next part of a template: literal text, or the name of a column within braces. false: there is no further one. */
bool outbox_template_next(const char **at, struct evbus_slice *part, bool *column);

#endif
