/* program.h: the real program, run as a shell would run it, and killed at a call that one chooses. */
#ifndef EVBUS_TESTS_FAULT_PROGRAM_H
#define EVBUS_TESTS_FAULT_PROGRAM_H

#include "fault.h"

/* evbus with these words, which are parted by blanks, on the bus ./bus; the files are its stdin and stdout (NULL: there is
 * none), stderr goes to ./said. It is killed with the test. */
pid_t program_start(const char *in, const char *out, const char *words);
/* Runs it to its end; the exit status. A signal that ended it fails the test. */
int program_run(const char *in, const char *out, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* It has to end with that. */
void program_must(int status, const char *in, const char *out, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* The first bytes of a file as a text. */
const char *program_read(const char *path);

struct traced {
	bool killed;
	unsigned calls; /* that it came to */
	int status; /* how it ended, where it was not killed */
};

enum traced_calls {
	CALLS_THAT_CHANGE, /* anything outside of the process: between two of them a kill leaves the same */
	CALLS_ALL, /* also when one is left: where memory is shared, that makes a difference */
};

/* Whether this may be done here. */
bool program_may_trace(void);
/* Runs it and kills it, with all its threads, when it comes to its n-th call of the system, before that is done. 0: not
 * at all. Handlers are not counted. */
struct traced program_trace(unsigned n, enum traced_calls which, const char *in, const char *out, const char *words);

/* The same, but it is stopped (SIGSTOP) when its n-th call that changes something is done, and not traced any more. 0: it
 * ended before that, with 0 or 75. It must have one thread only. */
pid_t program_stop(unsigned n, const char *in, const char *out, const char *words);

#endif
