/* letters.h: which dead letters a command is about, and going through them. */
#ifndef LETTERS_H
#define LETTERS_H

#include "letter_ids.h"
#include "out.h"
#include "sources.h"

/* struct letter_args letters; for LETTER_OPTS. */
struct letter_args {
	const char *topic, *group, *source, *type, *tenant, *reason;
	struct duration older_than, newer_than;
	struct list id;
};

#define LETTER_OPTS                                                                                                \
	OPT('t', letters.topic, "TOPIC", "only of this topic, or a pattern: * for one token, > for the rest"),     \
		OPT('g', letters.group, "GROUP", "only of this group"),                                            \
		OPT(0, letters.source, "NAME", "only from here: store, or the name of an outbox"),                 \
		OPT(0, letters.type, "PATTERN", "only events of this type"),                                       \
		OPT(0, letters.tenant, "ID", "only events of this tenant"),                                        \
		OPT(0, letters.reason, "REASON",                                                                   \
		    "only these: refused, retries, timeout, signal, not_json, too_large, backend",                 \
		    .words = "refused|retries|timeout|signal|not_json|too_large|backend"),                         \
		OPT(0, letters.older_than, "DURATION", "only what has been a letter for longer", .unset = -1),     \
		OPT(0, letters.newer_than, "DURATION", "only what became a letter within this time", .unset = -1), \
		OPT(0, letters.id, "ID", "this one; may be repeated")
#define IDS_FROM_OPT                                                                                               \
	OPT(0, ids_from, "FILE",                                                                                   \
	    "those in what dlq-list or a dry run printed, or one id a line; - for standard input")

#define STATE_BIT(state) (1u << (state))
#define ANY_STATE ((1u << EVBUS_LETTER_STATES) - 1)

struct letters {
	struct call *call;
	struct sources sources;
	struct letter_ids ids;
	struct evbus_letter_filter filter;
	bool by_id;                  /* only those of ids, though it may be empty */
	bool enough;                 /* set by a callback that wants no more */
	size_t given;                /* how many were given out */
	char by[128];                /* who changes them: "root@host" */
};

/* operands are ids too. ids_from: a file of ids, or NULL. */
CHECKED enum evbus_code letters_open(struct letters *letters, struct call *call, const struct letter_args *args,
				     const struct source_args *sources, const char *ids_from);
void letters_close(struct letters *letters);

typedef enum evbus_code letter_callback(void *context, const struct evbus_letter *letter, struct evbus_err *err);

/* Gives out those of these states (bits, or ANY_STATE) that are there at the start: state after state, oldest first. Ends
 * early, without a failure, where `enough` was set or a signal came. The callback may change letters and look at
 * others. */
CHECKED enum evbus_code letters_each(struct letters *letters, unsigned states, letter_callback *callback,
				     void *context);

/* One by its id, as it is now; EVBUS_NONE. */
CHECKED enum evbus_code letters_one(struct letters *letters, const char *id, letter_callback *callback, void *context);

/* EVBUS_USAGE where nothing was said about which, and there are several of these states. */
CHECKED enum evbus_code letters_check_choice(struct letters *letters, unsigned states, bool all);

CHECKED enum evbus_code letters_change_one(struct letters *letters, const char *id, enum evbus_letter_change change,
				       enum evbus_reason reason, struct evbus_slice result);
/* codes: of each, EVBUS_OK, EVBUS_CONFLICT or EVBUS_NONE. */
CHECKED enum evbus_code letters_change_all(struct letters *letters, const char *const *ids, size_t count,
					   enum evbus_letter_change change, enum evbus_code *codes);

/* What dlq-retry and dlq-discard print: a line for each letter. */
struct change {
	const struct evbus_letter *letter;
	enum evbus_letter_state after;
	int64_t returns;
	struct evbus_slice result;
};
void change_table(struct table *table, const char *format);
void change_row(struct table *table, const struct change *change);
/* The end of the table, whatever code ended it; then that code, or EVBUS_NO where something was not done. */
CHECKED enum evbus_code changes_end(const struct letters *letters, struct table *table, enum evbus_code code,
				    size_t undone, bool dry_run);

/* A text of a letter as a JSON string, in memory for free(). Absent, it stays so. */
CHECKED enum evbus_code letters_quote(struct call *call, struct evbus_slice text, char **memory,
				      struct evbus_slice *quoted);

/* Where it comes from: its group, or its outbox. */
struct evbus_slice letter_origin(const struct evbus_letter *letter);

#endif
