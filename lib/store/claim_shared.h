/* claim_shared.h: what the two kinds of claims have of each other. */
#ifndef EVBUS_STORE_CLAIM_SHARED_H
#define EVBUS_STORE_CLAIM_SHARED_H

#include "store/claim.h"

/* EVBUS_AGAIN, with who has it. */
CHECKED enum evbus_code claim_held(const char *group, const char *topic, int32_t partition_id, const char *who,
				   struct evbus_err *err);

/* Gives the lock back, where there is still a connection. */
void claim_release_shared(struct evbus_claim *claim);

#endif
