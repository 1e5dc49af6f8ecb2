/* damage.h: a log of 64 acknowledged lines that something happens to, and what a reader, verify and a publisher make of it.
 *
 * The files are made once. Each state is written over them in place, for a control page is that of its own inode, and put
 * back after it. Of each state the readers' part comes first, for they write nothing. */
#ifndef EVBUS_TESTS_DAMAGE_H
#define EVBUS_TESTS_DAMAGE_H

#include "fault.h"

#include "base/buf.h"

#define LINES 64u
#define LIVE "bus/" TOPIC "/partition=0.jsonl"
#define PAGE "bus/" TOPIC "/partition=0.lock"
#define TOPIC_JSON "bus/" TOPIC "/topic.json"
#define OLDER "bus/" TOPIC "/partition=0/00000000000000000000.jsonl"

enum shape {
	ONE_SEGMENT,
	TWO_SEGMENTS, /* the older one in OLDER */
};

enum page {
	PAGE_OF_THIS_BOOT,
	PAGE_OF_ANOTHER_BOOT,
	NO_PAGE,
	PAGES,
};

struct whole {
	struct buf live, older, page, topic_json;
	unsigned sealed; /* lines in the older segment */
	struct evbus_slice lines[LINES]; /* within live or older, each with its newline */
};
extern struct whole whole;

void damage_begin(enum shape shape);
void damage_end(void);

/* The line that a byte of the live or the older file belongs to, and the byte where it begins. */
unsigned damage_line_at(const struct buf *file, size_t byte, size_t *begins);

struct hurt {
	const char *path; /* the file that is written over */
	struct evbus_slice with;
	enum page page;
	unsigned line; /* the first that is damaged: a failure names its offset and byte; LINES: any */
	size_t byte;
	bool may_end; /* what is damaged at the end may be taken for an interrupted write */
	bool is_harmless; /* nothing else will do */
};

enum verdict {
	HARMLESS, /* everything reads as it was written */
	DETECTED,
	INTERRUPTED, /* only where it may end: taken for an interrupted write */
	VERDICTS,
};

/* Fails the test where a wrong line was given out, one is missing without a word, or bytes went without a copy.
 * run.where says which state it is. */
enum verdict damage_judge(const struct hurt *hurt);

/* The same, counted and named: `what` was done to hurt->path. */
void damage_try(const struct hurt *hurt, const char *what, size_t at);
extern uint64_t verdicts[VERDICTS];
/* Says how many there were of each verdict, and that all of them were tried; then counts anew. */
void damage_tell(const char *what, uint64_t of);

/* With EVBUS_TEST_QUICK only some of the places, others with each seed: the first, the distance, and how many of `of`. */
size_t damage_first(void);
size_t damage_step(void);
uint64_t damage_share(uint64_t of);

struct buf buf_of_file(const char *path);
void file_put(const char *path, struct evbus_slice content);

#endif
