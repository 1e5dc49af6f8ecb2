/* claim.h: that one process at a time consumes a partition for a group.
 *
 * A lock on <state dir>/claims/<group>/<topic>=<partition_id>, which the kernel takes back when its holder dies.
 * Deleting the file of a claim that is held gives it away to the next one who asks; a free one's may go at any time. */
#ifndef EVBUS_STORE_CLAIM_H
#define EVBUS_STORE_CLAIM_H

#include "base/err.h"

#include <sys/types.h>

/* file_mode: of what is made, 0 for 0600; directories add x where this has r. EVBUS_AGAIN names the process that has
 * it, which may be our own. partition_id -1: the claim is not of a partition, but of the group's dead letters.
 * EVBUS_USAGE: group or topic is not a name. Ends with evbus_claim_release(). */
CHECKED enum evbus_code claim_take(int state_dir, mode_t file_mode, const char *group, const char *topic,
				   int32_t partition_id, struct evbus_claim **claim, struct evbus_err *err);

/* The same with one look, for who asks again and again: does not wait to learn who has just taken it. */
CHECKED enum evbus_code claim_try(int state_dir, mode_t file_mode, const char *group, const char *topic,
				  int32_t partition_id, struct evbus_claim **claim, struct evbus_err *err);

/* EVBUS_CONFLICT: its file is no longer where it was, so somebody else may have taken the partition. */
CHECKED enum evbus_code claim_check(const struct evbus_claim *claim, int state_dir, struct evbus_err *err);

#endif
