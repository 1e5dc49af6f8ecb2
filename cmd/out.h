/* out.h: everything that goes to stdout, and progress on stderr.
 *
 * There is one stdout, so there is no handle. Output is gathered and written 256 KiB at a time: call out_flush() before
 * waiting for input or for further records, so that nobody waits for what is already there. main flushes at the end. A
 * failed write fails every later call; the code is EVBUS_IO, and main knows what EPIPE means for the command. */
#ifndef OUT_H
#define OUT_H

#include "cmd.h"

/* ---- records --------------------------------------------------------------------------------------------------- */

/* How records and receipts are printed from now on; JSON where it was not called. */
CHECKED enum evbus_code out_format(struct call *call, struct record_format format);
/* The same for receipts of the bus of this URL, which may be a target. */
CHECKED enum evbus_code out_format_of(struct call *call, struct record_format format, const char *url);

/* A line each. A receipt is a record of which only the position is printed; other formats than json and tsv print it
 * as they print a record. */
CHECKED enum evbus_code out_record(struct call *call, const struct evbus_record *record);
/* A receipt as a text in JSON. */
void receipt_text(const struct evbus_record *receipt, char *text, size_t size);
CHECKED enum evbus_code out_receipt(struct call *call, const struct evbus_record *receipt);

/* What stands before record->members where a record is printed in JSON; lives until the next call. */
struct evbus_slice record_prefix(const struct evbus_record *record);

CHECKED enum evbus_code out_flush(struct call *call);

/* ---- anything else --------------------------------------------------------------------------------------------- */

/* A failure of these shows in the next call of out_flush(), at the latest in main. out_data() is for what others wrote:
 * where stdout is a terminal its control characters but the tab are printed as \u001b. */
void out_bytes(const char *data, size_t len);
void out_data(const char *data, size_t len);
/* The bytes of the payload, also where it is no JSON object. */
void out_payload(const struct evbus_record *record);
/* The same with the escapes of Postgres' COPY, for a column of TSV. */
void out_copy(const char *data, size_t len);
void out_text(const char *text);
void out_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* What was to be printed cannot be made: fails as a failed write does. */
void out_fail(int sys_errno);
/* For main: flushes and closes. */
CHECKED enum evbus_code out_finish(struct call *call);
/* Whether the reader of stdout has gone away. */
bool out_is_closed(void);
/* Whether stdout is a pipe that nobody can read any more; we need not have written, for commands write to it as well. */
bool out_has_no_reader(void);
bool out_is_terminal(void);

/* text as what stands between the quotes of a JSON string, piece by piece. Texts come from files, databases and other
 * programs and may have been cut within a character: what is not UTF-8 becomes U+FFFD, so that it is JSON whatever it is. */
void json_escape(struct evbus_slice text, void (*put)(void *context, const char *data, size_t len), void *context);

/* ---- lists ----------------------------------------------------------------------------------------------------- */

enum column_kind {
	TEXT,
	DIGITS,                      /* text in JSON, aligned to the right in a table: offsets */
	NUMBER,
	BOOLEAN,
};

struct column {
	const char *name;            /* "next_offset" */
	enum column_kind kind;
};

#define COLUMNS_MAX 32u

/* A list: cells from left to right, row after row; a row ends with its last column.
 *
 *	static const struct column columns[] = { { "topic", TEXT }, { "records", NUMBER } };
 *	CLEANUP(table_cleanup) struct table table = { .count = 0 };
 *
 *	table_start(&table, columns, COUNT(columns), args->format);
 *	for (…) {
 *		table_text(&table, topic);
 *		table_number(&table, records);
 *	}
 *	return table_end(&table, call);
 */
struct table {
	const struct column *columns;
	size_t count;
	size_t column;               /* of the next cell */
	enum table_format { TABLE_ALIGNED, TABLE_JSON, TABLE_TSV } format;
	bool no_memory;
	bool begun;                  /* TABLE_ALIGNED: the header is printed */
	size_t widths[COLUMNS_MAX];
	char *cells;                 /* TABLE_ALIGNED: cells that are kept back until the widths are known */
	size_t len, size;
};

void table_start(struct table *table, const struct column *columns, size_t count, const char *format);
void table_text(struct table *table, const char *text);    /* NULL: null */
void table_slice(struct table *table, struct evbus_slice text);    /* data NULL: null */
void table_json(struct table *table, struct evbus_slice value);    /* a JSON value, in JSON as it stands */
void table_number(struct table *table, int64_t number);
void table_boolean(struct table *table, bool value);
void table_null(struct table *table);
/* Prints what was kept back for alignment. */
CHECKED enum evbus_code table_end(struct table *table, struct call *call);
void table_cleanup(struct table *table);

/* ---- progress -------------------------------------------------------------------------------------------------- */

/* Shows bytes, rate and time left where stderr is a terminal, at most five times a second: call it as often as you
 * like. Nothing is shown with --quiet or --log json. */
void progress_show(struct call *call, const struct evbus_progress *progress);
/* Whether it would show anything. */
bool progress_is_wanted(const struct call *call);
/* Takes it off the screen; whatever else is printed does so too. */
void progress_clear(void);

#endif
