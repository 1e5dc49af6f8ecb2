/* power_states.h: the power goes at each change of a recording (disk.h), and every state that is left is checked.
 *
 * EVBUS_TEST_STATES=N makes at least N states of each test, for the night. A failure tells which state it was, and
 * EVBUS_TEST_STATE=N with the same seed and counts makes this one alone. */
#ifndef EVBUS_TESTS_FAULT_POWER_STATES_H
#define EVBUS_TESTS_FAULT_POWER_STATES_H

#include "disk.h"
#include "fault.h"

struct states {
	void (*ready)(const char *path); /* makes of the files what they would be on a real disk; may be NULL */
	void (*check)(const char *path, size_t changes); /* what was promised until so many changes were made counts */
	unsigned drawn; /* states of each moment, besides the regular ones */
	unsigned parts; /* how often states_check() will be called, about */
	unsigned every; /* of how many states one is made; 0: all are */
	const char *before; /* what was done first, for the message; "" */
};

/* Begins a test: a directory ./live, to be recorded; nothing of it is yet. */
void states_begin(void);
/* All moments of the recording from a change on. */
void states_check(const struct states *states, size_t first);
/* The power goes, and once more while `recover` works on what is left: `count` times. It runs in a process of its own,
 * may promise more things, and must forget those that were promised behind `changes`. */
void states_check_twice(const struct states *states, size_t first, unsigned count,
			void (*recover)(const char *path, size_t changes));
/* Says `ran N of N`. */
void states_end(const char *what);

/* ---- who was killed first ---- */

/* Runs `act` in a process that is killed at its n-th change. */
void states_run_killed(size_t n, void (*act)(void), bool *killed);
/* Records `prepare`, then `act` in a process that is killed at its n-th change (syncs count), then `resume`. 0: it is not
 * killed. Returns the number of changes when `act` had ended; *killed: it did not come to its end. */
size_t states_record_killed(size_t n, void (*prepare)(void), void (*act)(void), void (*resume)(void), bool *killed);

void empty_directory(const char *path);

#endif
