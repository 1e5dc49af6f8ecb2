/* recover.h: what is done when a partition is opened for writing, or its page turns out not to fit its log. */
#ifndef EVBUS_LOG_RECOVER_H
#define EVBUS_LOG_RECOVER_H

#include "log/writer.h"

/* Brings page and log together; both locks are held and writer->fd is the live segment. `first`: nobody else has the
 * partition open for writing. Sets writer->base. Repeatable from any point at which it was killed. Codes: EVBUS_CONFLICT
 * the log was cut, restored or replaced; EVBUS_IO it is damaged; EVBUS_UNAVAILABLE another machine writes it. */
CHECKED enum evbus_code recover(struct log_writer *writer, bool first, struct evbus_err *err);

/* With both locks held: copies what stands from byte `at` of the live file on to partition=N.torn-…, and says so.
 * offset: of the first line of it; what: "of an interrupted write". */
CHECKED enum evbus_code recover_save_tail(struct log_writer *writer, uint64_t at, uint64_t size, uint64_t offset,
					  const char *what, struct evbus_err *err);

/* Cuts the live segment at a line that is damaged, after copying the rest (evbus verify --repair --cut-at). */
CHECKED enum evbus_code recover_cut(const struct topic *topic, int32_t partition, uint64_t offset, uint64_t byte,
				    struct evbus_err *err);

#endif
