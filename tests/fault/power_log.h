/* power_log.h: a client of a log, what it was told, and whether what is left after a power cut agrees with that. */
#ifndef EVBUS_TESTS_FAULT_POWER_LOG_H
#define EVBUS_TESTS_FAULT_POWER_LOG_H

#include "power_states.h"

#include "log/writer.h"

#define LIVE_BUS "live/bus"

extern struct topic log_topic; /* that is open */

/* Forgets what other tests promised. */
void log_begin(void);
void log_open(const char *path, const struct evbus_topic_options *options);
void log_close(void);

/* Publishes events that are numbered on; false: it failed. */
bool log_publish(struct log_writer *writer, unsigned count, bool atomic, size_t pad);
void log_must_publish(struct log_writer *writer, unsigned count, bool atomic, size_t pad);

/* Appends one, and does not wait for its sync: the next to sync does. */
void log_append(struct log_writer *writer, size_t pad);
/* What a reader sees now is promised to stay. */
void log_look(void);
/* Opens a writer, publishes so many events and closes; a reader looks before and after it. */
void log_go_on(const char *path, unsigned count, size_t pad);

/* From now on the machine has started once more. */
void restart_machine(void);
/* A real disk keeps the inodes of its files, and the control page goes by them: it is told those that the copies have. */
void mend_page(const char *path);

/* For struct states: read, recovered, written to, read. */
void log_check(const char *path, size_t changes);
void log_ready(const char *path);
/* The same for states_check_twice(), with another event published. */
void log_recover(const char *path, size_t changes);

#endif
