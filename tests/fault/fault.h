/* fault.h: what the tests with many processes share: the run (seed, directory, children), and the oracle.
 *
 * The test's own process lives through everything that happens to its children. What they did stands in memory that
 * all of them share: a writer notes which event it is about to publish and which place a receipt gave it, a reader which
 * lines it saw. A child that is killed takes none of that with it. In the end the log is read byte by byte and must
 * agree with what was noted.
 *
 * EVBUS_TEST_SEED repeats a run, EVBUS_TEST_QUICK=1 makes all counts smaller, EVBUS_TEST_DIR says where the files lie,
 * and EVBUS_TEST_TELL=1 has every failure that is allowed printed. */
#ifndef EVBUS_TESTS_FAULT_H
#define EVBUS_TESTS_FAULT_H

#include "base/os.h"
#include "log/line.h"

#include <limits.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define TOPIC "orders"
#define WRITERS_MAX 64u
#define READERS_MAX 8u
#define LANES_MAX 20u                    /* partitions */
#define BATCH_MAX 20u

/* ---- the run ---- */

enum where {
	IN_MEMORY,
	ON_DISK,                         /* beside what was built */
};

struct run {
	uint64_t seed;
	bool quick;
	bool bare;                       /* the program does without Criterion */
	pid_t parent;
	char where[320];                 /* what a failure's message begins with */
	char dir[PATH_MAX + 32];         /* the working directory; the bus is ./bus */
};
extern struct run run;

void run_begin(enum where where);
void run_end(void);
void run_remove(const char *path);
/* The default, or less where EVBUS_TEST_QUICK is set. */
unsigned run_count(unsigned full, unsigned quick);
bool run_is_on_memory(void);
/* In memory a sync takes no time, and little can happen meanwhile: from now on it takes so long. */
void run_slow_syncs(int64_t us);

/* Fails the test. In a child or a thread: leaves the text for child_check(), and ends. */
_Noreturn void run_failed(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
#define CHECK(condition, ...)                                            \
	do {                                                             \
		if (!(condition))                                        \
			run_failed(__FILE__, __LINE__, __VA_ARGS__);     \
	} while (0)
#define CHECK_OK(call)                                                                             \
	do {                                                                                       \
		struct evbus_err check_err_ = { 0 };                                               \
		enum evbus_code check_code_ = (call);                                              \
		CHECK(check_code_ == EVBUS_OK, "%s: %d: %s", #call, (int)check_code_, check_err_.text); \
	} while (0)
#define ERR (&check_err_)                /* within CHECK_OK */

/* Says `ran N of N`; fewer is a failure. */
void run_ran(const char *what, uint64_t ran, uint64_t of);
/* The same where not all can be had: fewer than `least` is a failure. */
void run_ran_most(const char *what, uint64_t ran, uint64_t of, uint64_t least);

uint64_t random_next(uint64_t *state);
/* The number that stands there, within a text that has no NUL: strtoul() may look for one. */
uint64_t number_at(const char *digits);
int64_t now_us(void);                    /* monotonic */
void pause_us(int64_t us);

/* ---- children ---- */

/* Runs `body` in a process that dies with the test. */
pid_t child_start(void (*body)(unsigned index), unsigned index);
/* It ended by itself, and well. */
void child_join(pid_t pid);
/* It is dead or dying; says by what status. */
int child_reap(pid_t pid);
/* It was reaped already. */
void child_forget(pid_t pid);
/* Fails if any child failed so far. */
void child_check(void);

/* ---- what is noted ---- */

struct seen {
	_Atomic uint64_t count;
	uint32_t *crcs;                  /* of the lines, by offset */
};

struct notes {
	char why[1024];                  /* of the first child that failed */
	atomic_int failed;
	atomic_bool stop;
	uint32_t writers, events, readers, lanes;
	_Atomic uint64_t acked;          /* in all */
	_Atomic uint64_t goal;           /* when so many lines were seen, a reader is done; 0: not known yet */
	_Atomic uint64_t submitted[WRITERS_MAX];     /* the next event of the writer, none below it is tried again */
	_Atomic uint64_t failures[128];  /* by code */
	_Atomic uint64_t reopened;       /* by readers, after a failure */
	_Atomic uint64_t counters[16];   /* the test's own */
	_Atomic int64_t ack_at_us;       /* when the last receipt came */
	_Atomic uint64_t *places;        /* by writer and event: place_of() + 1 once there is a receipt */
	struct seen seen[READERS_MAX][LANES_MAX];
};
extern struct notes *notes;

void notes_new(unsigned writers, unsigned events, unsigned readers, unsigned lanes);
/* Where there are thousands of them, they are given back: each mapping makes a fork take longer. */
void notes_free(void);
void *notes_share(size_t size);          /* zeros, for as long as the test runs */
uint64_t place_of(int32_t lane, uint64_t offset);
void note_receipt(unsigned writer, uint64_t event, const struct evbus_record *receipt);
extern void (*note_more)(unsigned writer, uint64_t event);    /* called with each receipt, if set */

/* ---- events, writers, readers ---- */

/* at, of: where it stands in its atomic batch. Returns the length; to has room for PAYLOAD_MAX. */
#define PAYLOAD_MAX 9000u
size_t payload_make(char *to, unsigned writer, uint64_t event, unsigned at, unsigned of);
size_t key_make(char *to, unsigned writer, uint64_t event);
/* What payload_make() was given; false: it was not made there. */
bool payload_parse(struct evbus_slice payload, unsigned *writer, uint64_t *event, unsigned *at, unsigned *of);

enum way {
	SINGLES,                         /* evbus_publish, or with keys a flush for each */
	STREAM,
	BATCHES,
	MIXED,                           /* by the writer's number */
};

struct plan {
	enum way way;
	bool keyed;                      /* the topic has several partitions */
	bool may_fail;                   /* with 74, 75 or 76, counted; who fails opens anew and goes on */
	unsigned pause_us;               /* between two events */
};
extern struct plan plan;

/* Children: */
void write_events(unsigned index);      /* from where submitted[writer] is to the last */
void follow_events(unsigned index);      /* as they come, until the goal is reached */

/* One event through a publisher that is opened for it; noted as everything else. */
enum evbus_code try_one(struct evbus *bus, unsigned index, uint64_t event, struct evbus_err *err);
/* The first of a writer's events, from `from` on, that belongs into a partition. */
uint64_t event_for_lane(unsigned writer, unsigned lane, uint64_t from);
struct evbus *open_bus(void);
void make_topic(unsigned lanes, uint64_t segment_max_bytes);

/* ---- the log, and the oracle ---- */

struct log_line {
	uint32_t crc, writer;
	uint64_t event, end;             /* end: byte behind it in its file */
	unsigned at, of;
	ino_t ino;
};

struct log_image {
	struct log_line *lines;
	uint64_t count;
	unsigned files;
};

/* Reads the files of a partition as they lie; whatever is not a whole, correct, contiguous line fails the test. */
void log_read(unsigned lane, struct log_image *log);

/* Everything that must hold between the log and the notes. Returns how many lines there are. */
uint64_t check_everything(void);

#endif
