/* claim.h: that one process at a time consumes a partition for a group.
 *
 * Where the store is on a server, machines share it, and the claim is a lock of the server's, which ends with the
 * connection of the store that took it. Else it is a lock on <state dir>/claims/<group>/<topic>=<partition_id>, which the kernel takes back when its holder dies.
 * Deleting the file of a claim that is held gives it away to the next one who asks; a free one's may go at any time. */
#ifndef EVBUS_STORE_CLAIM_H
#define EVBUS_STORE_CLAIM_H

#include "store/store.h"

struct evbus_claim {
	pid_t pid;
	int fd;                    /* -1: it is on a server */
	struct store *store;       /* there; NULL: it was closed */
	struct evbus_claim *next;  /* of the same store */
	uint64_t session;          /* that took it */
	unsigned renewals;
	char place[];              /* below the state directory, or the name of the lock */
};

#define CLAIM_PLACE_MAX (sizeof "claims/" + 2u * EVBUS_TOPIC_MAX_BYTES + sizeof "/=2147483647")

/* file_mode: of what is made, 0 for 0600; directories add x where this has r. EVBUS_AGAIN names the process that has
 * it, which may be our own. partition_id -1: the claim is not of a partition, but of the group's dead letters.
 * EVBUS_USAGE: group or topic is not a name. Ends with evbus_claim_release(). */
CHECKED enum evbus_code claim_take(int state_dir, mode_t file_mode, const char *group, const char *topic,
				   int32_t partition_id, struct evbus_claim **claim, struct evbus_err *err);

/* The same with one look, for who asks again and again: does not wait to learn who has just taken it. */
CHECKED enum evbus_code claim_try(int state_dir, mode_t file_mode, const char *group, const char *topic,
				  int32_t partition_id, struct evbus_claim **claim, struct evbus_err *err);

/* On the server of the store, which may be closed before the claim is released. once: as claim_try(). */
CHECKED enum evbus_code claim_take_shared(struct store *store, const char *group, const char *topic,
					  int32_t partition_id, bool once, struct evbus_claim **claim,
					  struct evbus_err *err);
/* Within a transaction of the store: takes those claims again that went with an earlier connection. EVBUS_CONFLICT:
 * somebody else has one of them now. */
CHECKED enum evbus_code claims_renew(struct store *store, struct evbus_err *err);
/* How often that was done: whoever had it in between is gone, but may have left something. */
unsigned claim_renewals(const struct evbus_claim *claim);
/* The store is being closed, and the connection with it. */
void claims_forget(struct store *store);

/* EVBUS_CONFLICT: its file is no longer where it was, so somebody else may have taken the partition. */
CHECKED enum evbus_code claim_check(const struct evbus_claim *claim, int state_dir, struct evbus_err *err);

#endif
