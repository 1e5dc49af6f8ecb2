/* letter_row.h: all that is known of a dead letter, as a line of JSON or TSV. */
#ifndef LETTER_ROW_H
#define LETTER_ROW_H

#include "out.h"

struct letter_rows {
	struct table table;
	bool payload;
	char *scratch;
	size_t size;
};

void letter_rows_begin(struct letter_rows *rows, const char *format, bool payload);
CHECKED enum evbus_code letter_rows_add(struct letter_rows *rows, struct call *call, const struct evbus_letter *letter);
void letter_rows_release(struct letter_rows *rows);

/* The history as one JSON array on one line, in the scratch; data NULL where it is none, whoever wrote it. */
CHECKED enum evbus_code letter_history(struct letter_rows *rows, struct call *call, struct evbus_slice history,
				       struct evbus_slice *array);

#endif
