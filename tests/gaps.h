/* gaps.h: a bus in memory that has the manners of a server, for tests: offsets begin with 101 and two are left out behind
 * each record, lines are made as they are read, and a fingerprint is the log id alone. */
#ifndef EVBUS_TESTS_GAPS_H
#define EVBUS_TESTS_GAPS_H

#include "evbus.h"

#define GAPS_FIRST 101u
#define GAPS_STEP 3u
#define GAPS_MESSAGE_MAX_BYTES 1000000u

/* The call so many from now that reads, or finds a place to read from, fails with EVBUS_IO; 0: none does. */
extern unsigned gaps_fail;

/* A topic that is opened shows no more partitions than this, until it is 0. */
extern uint32_t gaps_shown;

/* Every second record says that it was published so much earlier: on a server times may go back. */
extern int64_t gaps_late_us;

/* To be called once, with a bus of "memory:NAME" that nothing was done with. The store is state.db in the working
 * directory, by the module that lies in `modules`, a path that lives on. */
void gaps_wrap(struct evbus *bus, const char *modules);

#endif
