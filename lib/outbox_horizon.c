/* outbox_horizon.c: up to which row one may look where writers write side by side.
 *
 * A sequence hands out its numbers before they are committed, so a lower one may come to be seen later than a higher one.
 * To look at the higher one, and to pass it on, would be to have the lower one overtaken. So:
 *
 *	1. Read the highest number there is to be seen: S. Every number up to S was handed out before.
 *	2. Read who holds a lock on the table with which one inserts: W.
 *	3. Once each of W has ended, all rows up to S that will ever be there are there.
 *
 * An INSERT locks its table before it takes a number, and keeps the lock until its transaction has ended and is seen to
 * have: who took a number up to S either is among W or had ended before W was read. Those who came later have numbers
 * beyond S. This holds for two-phase commits as well, which keep their locks, but under another name once the server was
 * started again: whatever is prepared is added to W.
 *
 * So nobody is kept from writing, and only those are waited for who write to this table: a report that runs for hours in
 * the same database holds nothing up. What it takes is that the number comes from the sequence within the INSERT (or
 * behind a LOCK TABLE), and that no connection has numbers in stock: outbox_server_check() sees to the latter. */
#include "outbox_table.h"

#include <inttypes.h>
#include <stdio.h>

/* Looked after again when as much of the time has passed as they have taken so far, within these. */
#define LOOK_MIN_US 2000
#define LOOK_MAX_US 500000
#define TELL_AFTER_US 5000000

static const char find_writers[] =
	"SELECT l.virtualtransaction, l.pid FROM pg_locks l WHERE l.locktype = 'relation' AND l.granted AND "
	"l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') AND "
	"l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND "
	"l.pid IS DISTINCT FROM pg_backend_pid() AND (l.relation = to_regclass(?) OR "
	"l.relation IN (SELECT relid FROM pg_partition_tree(to_regclass(?))))";

struct watching {
	const struct buf *before; /* who is waited for; NULL: whoever is there */
	struct buf now;
	int64_t pid; /* of one of them; 0: a prepared transaction */
};

void outbox_horizon_release(struct outbox_horizon *horizon)
{
	buf_release(&horizon->writers);
}

static bool was_there(const struct buf *writers, struct evbus_slice name)
{
	for (const char *at = writers->data, *end = at + writers->len; at < end; at += strlen(at) + 1)
		if (strlen(at) == name.len && !memcmp(at, name.data, name.len))
			return true;
	return false;
}

static enum evbus_code take_writer(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	struct watching *watching = context;
	struct evbus_slice name = columns[0].bytes;
	bool prepared = columns[1].kind == VALUE_NULL;
	(void)count;

	if (watching->before && !prepared && !was_there(watching->before, name))
		return EVBUS_OK;
	watching->pid = prepared ? 0 : columns[1].integer;
	TRY(buf_add(&watching->now, name.data, name.len, err));
	return buf_add(&watching->now, "", 1, err);
}

static enum evbus_code watch(struct evbus_outbox *outbox, struct watching *watching, struct evbus_err *err)
{
	char place[OUTBOX_PLACE_MAX_BYTES];

	outbox_quoted(outbox, place);
	struct query query = {
		.sql = find_writers, ARGS(value_text(place), value_text(place)), .row = take_writer, .context = watching
	};
	return outbox_read(outbox, &query, err);
}

/* Somebody may have forgotten a transaction, and wonder. */
static void tell(struct evbus_outbox *outbox, int64_t pid)
{
	const struct evbus_options *options = &outbox->bus->options;
	char who[64] = "a prepared transaction (see pg_prepared_xacts)", text[256];

	if (outbox->horizon.told || os_monotonic_us() - outbox->horizon.since_us < TELL_AFTER_US || !options->notice)
		return;
	if (pid)
		snprintf(who, sizeof who, "the transaction of process %" PRId64, pid);
	snprintf(
		text, sizeof text,
		"outbox '%.80s': %s has written to the table and is open: new rows wait for its end, as it may have an "
		"earlier one",
		outbox->name, who);
	options->notice(options->notice_context, text);
	outbox->horizon.told = true;
}

/* Who writes now, and, of those that are waited for, who still does. None: the horizon is where it was to be. */
static enum evbus_code look_at_writers(struct evbus_outbox *outbox, struct evbus_err *err)
{
	struct outbox_horizon *horizon = &outbox->horizon;
	struct watching watching = { .before = horizon->writers.len ? &horizon->writers : NULL };
	enum evbus_code code = watch(outbox, &watching, err);

	if (!code && watching.now.len)
		tell(outbox, watching.pid);
	if (!code && !watching.now.len)
		horizon->safe = horizon->next;
	if (code) {
		buf_release(&watching.now);
		return code;
	}
	buf_release(&horizon->writers);
	horizon->writers = watching.now;
	return EVBUS_OK;
}

void outbox_wait_for_writers(struct evbus_outbox *outbox)
{
	int64_t wait_us = os_monotonic_us() - outbox->horizon.since_us;

	if (!outbox->horizon.writers.len)
		return;
	wait_us = wait_us < LOOK_MIN_US ? LOOK_MIN_US : wait_us > LOOK_MAX_US ? LOOK_MAX_US : wait_us;
	if (outbox_now_us(outbox) + wait_us < outbox->soonest_us)
		outbox->soonest_us = outbox_now_us(outbox) + wait_us;
}

enum evbus_code outbox_look_ahead(struct evbus_outbox *outbox, int64_t *safe, struct evbus_err *err)
{
	struct outbox_horizon *horizon = &outbox->horizon;
	int64_t last = INT64_MIN;
	struct query query = { .sql = outbox->sql[OUTBOX_SQL_LAST_SEQ], .row = outbox_take_integer, .context = &last };

	if (horizon->writers.len)
		TRY(look_at_writers(outbox, err));
	TRY(outbox_read(outbox, &query, err));
	/* Rows are gone, and numbers may be handed out again (TRUNCATE RESTART IDENTITY). */
	if (last < horizon->safe) {
		horizon->safe = INT64_MIN;
		horizon->writers.len = 0;
	}
	if (!horizon->writers.len && last > horizon->safe) {
		horizon->next = last;
		horizon->since_us = os_monotonic_us();
		horizon->told = false;
		TRY(look_at_writers(outbox, err));
	}
	*safe = horizon->safe;
	return EVBUS_OK;
}
