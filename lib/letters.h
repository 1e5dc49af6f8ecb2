/* letters.h: dead letters of groups, which lie in the store, and of outboxes, which are FAILED rows there: one kind of
 * thing to those who list them and change them. */
#ifndef EVBUS_LETTERS_H
#define EVBUS_LETTERS_H

#include "outbox.h"
#include "store/letters.h"

/* Where letters are looked for. */
struct letter_sources {
	struct evbus *bus;
	struct evbus_outbox *const *outboxes;
	size_t count;
};

#define SOURCE_STORE 0u /* and n + 1 is the outbox n */

struct letter_id {
	size_t source;
	int64_t number; /* the id in the store, or the seq in the outbox */
};

/* Opens the store. EVBUS_USAGE: two outboxes have the same name, so that an id could mean either. */
CHECKED enum evbus_code letter_sources_open(const struct letter_sources *sources, struct evbus_err *err);
/* EVBUS_USAGE: it is no id of a letter. EVBUS_NONE: it is in an outbox that is not among those given. */
CHECKED enum evbus_code letter_id_parse(const struct letter_sources *sources, const char *text, struct letter_id *id,
					struct evbus_err *err);
enum evbus_code letter_none(const struct letter_sources *sources, struct letter_id id, struct evbus_err *err);

bool letter_state_parse(struct evbus_slice name, enum evbus_letter_state *state);

/* A letter of the store. */
CHECKED enum evbus_code letter_of_store(const struct letter_row *row, struct evbus_letter *letter,
					struct evbus_err *err);

/* ---- letters of outboxes (letters_outbox.c) -------------------------------------------------------------------- */

struct outbox_letter {
	struct evbus_letter letter;
	int64_t created_us, updated_us; /* -1: not known */
	char created_at[28], updated_at[28];
	struct page decision; /* what resolved_by lies in */
};
void outbox_letter_release(struct outbox_letter *letter);

/* The letter that a FAILED row is, with what was decided about it. */
CHECKED enum evbus_code letter_of_outbox(struct evbus *bus, struct evbus_outbox *outbox,
					 const struct evbus_outbox_row *row, struct outbox_letter *letter,
					 struct evbus_err *err);

/* Calls row for the row of this seq; *there: there is one. */
CHECKED enum evbus_code outbox_row(struct evbus_outbox *outbox, int64_t seq,
				   enum evbus_code (*row)(void *context, const struct evbus_outbox_row *row,
							  struct evbus_err *err),
				   void *context, bool *there, struct evbus_err *err);

#endif
