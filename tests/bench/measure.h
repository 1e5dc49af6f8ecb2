/* measure.h: what the programs of this folder have in common: a clock, an event, processes, and how a result is told. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stddef.h>

#define EVENT_MAX_BYTES 512
#define BLOCK_BYTES (1024u * 1024)

/* Ends the program with 74: what, and errno. */
_Noreturn void die(const char *what);

/* Seconds. */
double now(void);

/* Zeroed, and one with the processes that are forked later. */
void *shared(size_t size);

/* About 300 bytes, told apart by the number; of each hundred one is an order.cancelled. Returns the length. */
size_t event_make(char event[EVENT_MAX_BYTES], size_t number);

/* work(0…n-1), each in a process of its own, all at once. Returns the seconds until the last has ended. */
double in_processes(size_t n, void (*work)(size_t i, void *context), void *context);

/* Prints "count seconds p50_us p99_us more". times: in seconds, one for each of count, sorted here; NULL: none were taken. */
void tell(size_t count, double seconds, double *times, unsigned long more);

/* ---- from one process to another: how long until the other one has it ---- */

struct wakes;

/* Forks a process that calls ready once, then receive for each of count events. Returns when ready has returned. */
struct wakes *wakes_begin(size_t count, void (*ready)(void *context), void (*receive)(void *context), void *context);

/* Just before an event is sent; after it, until the other one has it. */
void wakes_send(struct wakes *wakes);
void wakes_wait(struct wakes *wakes);

/* Tells, and ends the process. */
void wakes_end(struct wakes *wakes);

/* A command: of the words behind the name of the program, the first is its name, and so many more follow. */
struct work {
	const char *name;
	int args_min, args_max;
	void (*run)(char **args); /* what is behind the name, ends with NULL */
};

/* Runs the one that is asked for; 64 if there is none. works ends with a name that is NULL. */
int run_one(const struct work *works, int argc, char **argv);

#endif
