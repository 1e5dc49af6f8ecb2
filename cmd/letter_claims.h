/* letter_claims.h: that nobody else tries letters of the same groups. */
#ifndef LETTER_CLAIMS_H
#define LETTER_CLAIMS_H

#include "cmd.h"

struct claims {
	struct call *call;
	struct evbus *bus;
	struct claim {
		char *group;         /* NULL: of outboxes */
		struct evbus_claim *held;
	} *items;
	size_t count;
};

/* Takes the claim of a group (data NULL: of outboxes) unless it is ours already. *name: the group's, which lives as long as
 * the claims. EVBUS_AGAIN names who has it. */
CHECKED enum evbus_code claims_take(struct claims *claims, struct evbus_slice group, const char **name);
void claims_release(struct claims *claims);

#endif
