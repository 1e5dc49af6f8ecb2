/* letter_batch.h: changing many letters in few transactions, and printing what came of each.
 *
 * A transaction costs a sync or two, and a million of them hours. A letter is printed when its change is durable, so what
 * is to be printed is kept until then: of at most BATCH_MAX letters. */
#ifndef LETTER_BATCH_H
#define LETTER_BATCH_H

#include "letters.h"

#define BATCH_MAX 256u

struct batch {
	struct letters *letters;
	struct table *table;
	enum evbus_letter_change change;
	enum evbus_letter_state after;     /* what it becomes */
	bool dry_run;
	struct batch_row {
		struct evbus_letter letter;
		struct evbus_slice result;
		char *memory;
		bool to_change;
	} rows[BATCH_MAX];
	size_t count;
	size_t changed, refused;           /* so far */
};

/* to_change false: the letter is only printed, in its place. */
CHECKED enum evbus_code batch_add(struct batch *batch, const struct evbus_letter *letter, bool to_change,
				  struct evbus_slice result);
CHECKED enum evbus_code batch_flush(struct batch *batch);
void batch_release(struct batch *batch);

#endif
