/* input.h: events as they come in from files and pipes: one a line, or one object after the other.
 *
 * Whoever reads takes item after item until ITEM_END. ITEM_WAIT comes between two items when all that has arrived was
 * given out and reading on would block: that is the moment to do what should not wait for further events.
 *
 *	TRY(input_init(&input, call, payload_max_bytes, false));
 *	TRY(input_open(&input, call, "events.jsonl"));
 *	do
 *		TRY(input_next(&input, call, &item));
 *	while (item.kind != ITEM_END);
 *
 * Memory is bounded whatever comes in: what is longer than an event may be is a bad item, given out in pieces. */
#ifndef INPUT_H
#define INPUT_H

#include "cmd.h"

enum item_kind {
	ITEM_EVENT,
	ITEM_BAD,                    /* no event can be told apart here */
	ITEM_REST,                   /* a further piece of the bad item before it */
	ITEM_WAIT,                   /* call input_wait() before the next item; a signal to stop shows so as well */
	ITEM_END,
};

/* The slices live until the next call on the input. */
struct item {
	enum item_kind kind;
	struct evbus_slice event;    /* on one line, without the blanks around it */
	struct evbus_slice raw;      /* as it stands in the file: the line, or the object */
	size_t event_at;             /* where in raw the event begins */
	uint64_t line, column;       /* where raw begins, counted from 1 */
	const char *fault;           /* what is wrong with ITEM_BAD */
	size_t fault_at;             /* and where in raw */
	bool more;                   /* of a bad item: pieces follow */
};

/* What is open while an object is passed over. */
struct nesting {
	char closing[EVBUS_DEPTH_MAX];
	size_t depth;
	bool in_string, escaped;
};

struct input {
	const char *name;            /* for messages */
	int fd;
	bool objects;                /* one object after the other, over as many lines as they like */
	bool at_end, skipping;
	char *data;
	size_t size;
	size_t begin, scanned, end;  /* data from begin to end was read and not given out */
	size_t item_max_bytes;
	char too_long[80];
	char *joined;                /* an object without its newlines */
	struct nesting nesting;
	uint64_t base;               /* how many bytes came before data[0] */
	uint64_t line, line_at;      /* the line in which begin stands, and how many bytes came before it */
	uint64_t left;               /* a file is read as far as it reached when it was opened */
	uint64_t bytes;              /* read so far, from all files */
};

/* payload_max_bytes: what a payload may have; a line gets some room more, for blanks and the members of a record. */
CHECKED enum evbus_code input_init(struct input *input, struct call *call, uint32_t payload_max_bytes, bool objects);
void input_release(struct input *input);

/* path: "-" for stdin. input_close() before the next. */
CHECKED enum evbus_code input_open(struct input *input, struct call *call, const char *path);
void input_close(struct input *input);

CHECKED enum evbus_code input_next(struct input *input, struct call *call, struct item *item);
void input_wait(const struct input *input);

/* The line and column, in bytes from 1, of a byte of raw. */
void item_place(const struct item *item, size_t at, uint64_t *line, uint64_t *column);

/* Sets call->err to EVBUS_DATA, "FILE:LINE:COLUMN: reason", for a byte of raw. */
enum evbus_code item_fail(struct call *call, const struct input *input, const struct item *item, size_t at,
			  const char *reason);
/* The same, for what call->err says of an event that the library refused. from: where in item->event begins what it was
 * given. */
enum evbus_code item_refused(struct call *call, const struct input *input, const struct item *item, const char *from);

#endif
