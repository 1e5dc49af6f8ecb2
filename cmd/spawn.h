/* spawn.h: starting a command for events: looking it up, and running it quickly. */
#ifndef SPAWN_H
#define SPAWN_H

#include "cmd.h"

#include <signal.h>
#include <sys/types.h>

struct program {
	const char *const *argv;     /* the caller's */
	char *path;                  /* what is executed */
	const char **script;         /* the same for a script that does not say what runs it: /bin/sh PATH ARG... */
	sigset_t reset;              /* signals that we handle or ignore, and it shall not */
};

/* Looks argv[0] up. EVBUS_CONFIG: it is not there, or cannot be executed. */
CHECKED enum evbus_code program_find(struct call *call, const char *const *argv, struct program *program);
void program_cleanup(struct program *program);

/* A child in a process group of its own; pid 0: there is none. The pipes are ours, and never block us. */
struct child {
	pid_t pid;
	int pidfd;                   /* can be read once it has ended */
	int in;                      /* to its stdin */
	int out;                     /* from its stdout; -1: that is ours */
	int err;                     /* from its stderr */
};

enum spawn_stdout { STDOUT_OURS, STDOUT_PIPE };

/* Starts it and returns once it has begun to run. It is sent SIGTERM when the calling thread ends, has the default
 * signals and none of our descriptors. EVBUS_CONFIG: it cannot be executed; EVBUS_AGAIN: not now, for want of memory or
 * processes. */
CHECKED enum evbus_code spawn(struct call *call, const struct program *program, char *const *environment,
			      enum spawn_stdout out, struct child *child);

/* Signals its group. Its number is not given to others until it is reaped. */
void child_signal(const struct child *child, int number);
/* Waits for it to end, closes all that is open, and returns its exit status, or 128 + signal (*signal_number, else 0). */
int child_reap(struct child *child, int *signal_number);
/* Waits for it to end by itself, and then ends it and what it started: SIGTERM, a second later SIGKILL. */
enum child_ended { ENDED_BY_ITSELF, ENDED_BY_SIGTERM, ENDED_BY_SIGKILL };
enum child_ended child_end(struct child *child, int64_t wait_ms, int *status, int *signal_number);
void child_close(int *fd);
/* Whether there is something to be read of its stdout, or its end. */
bool child_has_written(const struct child *child);

#define KILL_MS 1000                 /* from SIGTERM to SIGKILL */

#define NEVER INT64_MAX
/* What poll() is to wait for, until a time (monotonic_ms()). */
int timeout_to(int64_t until);

#define STOP_MS 10000                /* what commands may take once we were asked to stop */

/* Being asked to stop, by a signal or by ourselves. */
struct stop {
	int64_t at_ms;               /* when; NEVER: not yet */
	bool at_once;                /* by a second signal */
};
/* Looks for signals; stop_fd() cannot be read any more until the next one. */
void stop_look(struct stop *stop);
void stop_now(struct stop *stop);

/* Whether an exit status says that the command is wrong (64, 78, 126, 127). */
bool status_is_wrong_command(int status);

#endif
