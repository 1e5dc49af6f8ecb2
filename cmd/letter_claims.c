/* letter_claims.c: that nobody else tries letters of the same groups. */
#include "letter_claims.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_of(const struct claim *claim, struct evbus_slice group)
{
	if (!claim->group || !group.data)
		return !claim->group && !group.data;
	return strlen(claim->group) == group.len && !memcmp(claim->group, group.data, group.len);
}

static enum evbus_code no_memory(struct claims *claims)
{
	return fail(claims->call, EVBUS_IO, "cannot claim a group: out of memory");
}

static enum evbus_code take(struct claims *claims, struct evbus_slice group, struct claim *claim)
{
	*claim = (struct claim){ .group = NULL };
	if (group.data && asprintf(&claim->group, "%.*s", (int)group.len, group.data) < 0)
		return no_memory(claims);
	enum evbus_code code = evbus_letter_claim(claims->bus, claim->group, &claim->held, &claims->call->err);
	if (code)
		free(claim->group);
	return code;
}

enum evbus_code claims_take(struct claims *claims, struct evbus_slice group, const char **name)
{
	size_t i = 0;

	while (i < claims->count && !is_of(&claims->items[i], group))
		i++;
	if (i == claims->count) {
		struct claim *larger = realloc(claims->items, (claims->count + 1) * sizeof *larger);

		if (!larger)
			return no_memory(claims);
		claims->items = larger;
		TRY(take(claims, group, &larger[i]));
		claims->count++;
	}
	*name = claims->items[i].group;
	return EVBUS_OK;
}

void claims_release(struct claims *claims)
{
	for (size_t i = 0; i < claims->count; i++) {
		evbus_claim_release(claims->items[i].held);
		free(claims->items[i].group);
	}
	free(claims->items);
}
