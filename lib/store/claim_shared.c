/* claim_shared.c: claims where machines share a store: locks that a session of its server has.
 *
 * The connection that has them is the one by which the store is written. So whatever is written was written under the
 * claim if the session is the one that took it, or if the claim was taken again in the same transaction. A session may
 * take the same lock twice: a second claim by the same handle is refused here. */
#include "store/claim_shared.h"

#include "store/table.h"

#include "base/os.h"
#include "event/subject.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define TRIES_MAX 20

static enum evbus_code take_number(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	(void)count;
	(void)err;
	*(int64_t *)context = columns[0].integer;
	return EVBUS_OK;
}

struct holder {
	char text[128];
};

static enum evbus_code take_holder(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	struct holder *holder = context;

	(void)count;
	(void)err;
	snprintf(holder->text, sizeof holder->text, "%.*s", (int)columns[0].bytes.len,
		 columns[0].bytes.data ? columns[0].bytes.data : "");
	return EVBUS_OK;
}

static bool is_ours(struct store *store, const char *place)
{
	for (const struct evbus_claim *claim = *table_claims(store); claim; claim = claim->next)
		if (!strcmp(claim->place, place))
			return true;
	return false;
}

/* *taken false: another session has it. */
static enum evbus_code lock(struct store *store, const char *place, bool *taken, struct evbus_err *err)
{
	int64_t got = 0;
	struct query query = { .sql = table_driver(store)->claim,
			       ARGS(value_text(place)),
			       .row = take_number,
			       .context = &got };

	TRY(table_write(store, &query, err));
	*taken = got;
	return EVBUS_OK;
}

static enum evbus_code find_holder(struct store *store, const char *place, struct holder *holder, struct evbus_err *err)
{
	struct query query = { .sql = table_driver(store)->claim_holder,
			       ARGS(value_text(place)),
			       .row = take_holder,
			       .context = holder };

	holder->text[0] = '\0';
	return table_write(store, &query, err);
}

/* A holder that cannot be found has just let go, or has just taken it. */
static enum evbus_code keep_trying(struct store *store, const char *place, int tries, bool *taken,
				   struct holder *holder, struct evbus_err *err)
{
	const struct timespec pause = { .tv_nsec = 5000000 };

	*taken = false;
	snprintf(holder->text, sizeof holder->text, "this process (pid %d)", (int)getpid());
	if (is_ours(store, place))
		return EVBUS_OK;
	for (int i = 0; i < tries; i++) {
		if (i)
			nanosleep(&pause, NULL);
		TRY(lock(store, place, taken, err));
		if (*taken)
			return EVBUS_OK;
		TRY(find_holder(store, place, holder, err));
		if (holder->text[0])
			return EVBUS_OK;
	}
	snprintf(holder->text, sizeof holder->text, "another process");
	return EVBUS_OK;
}

enum evbus_code claim_take_shared(struct store *store, const char *group, const char *topic, int32_t partition_id,
				  bool once, struct evbus_claim **claim, struct evbus_err *err)
{
	char place[CLAIM_PLACE_MAX];
	struct holder holder;
	bool taken;

	TRY(subject_check_name("group", group, err));
	TRY(subject_check_name("topic", topic, err));
	snprintf(place, sizeof place, "claims/%s/%s=%" PRId32, group, topic, partition_id);
	TRY(table_reach(store, err));
	struct evbus_claim *new = os.realloc(NULL, sizeof *new + strlen(place) + 1);
	if (!new)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot claim '%s'", place);
	enum evbus_code code = keep_trying(store, place, once ? 1 : TRIES_MAX, &taken, &holder, err);
	if (code || !taken) {
		free(new);
		return code ? code : claim_held(group, topic, partition_id, holder.text, err);
	}
	*new = (struct evbus_claim){ .pid = getpid(), .fd = -1, .store = store, .next = *table_claims(store),
				     .session = table_session(store) };
	memcpy(new->place, place, strlen(place) + 1);
	*table_claims(store) = new;
	*claim = new;
	return EVBUS_OK;
}

static enum evbus_code renew(struct evbus_claim *claim, struct evbus_err *err)
{
	bool taken;

	TRY(lock(claim->store, claim->place, &taken, err));
	if (!taken)
		return err_set(err, EVBUS_CONFLICT, 0,
			       "the claim '%s' went with the connection to the store, and somebody else has it now",
			       claim->place);
	claim->session = table_session(claim->store);
	claim->renewals++;
	return EVBUS_OK;
}

enum evbus_code claims_renew(struct store *store, struct evbus_err *err)
{
	for (struct evbus_claim *claim = *table_claims(store); claim; claim = claim->next)
		if (claim->session != table_session(store))
			TRY(renew(claim, err));
	return EVBUS_OK;
}

unsigned claim_renewals(const struct evbus_claim *claim)
{
	return claim->renewals;
}

void claims_forget(struct store *store)
{
	for (struct evbus_claim *claim = *table_claims(store); claim; claim = claim->next)
		claim->store = NULL;
}

void claim_release_shared(struct evbus_claim *claim)
{
	if (!claim->store)
		return;
	struct evbus_claim **at = table_claims(claim->store);
	while (*at != claim)
		at = &(*at)->next;
	*at = claim->next;
	/* Of another session there is nothing to give back. */
	if (claim->session == table_session(claim->store))
		table_unclaim(claim->store, claim->place);
}
