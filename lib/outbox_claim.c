/* outbox_claim.c: taking rows that may be published now.
 *
 * A row may go if it is due and the row before it of its key, if one is not done, goes with it in the same batch. That
 * question is asked of the database for each row, within the transaction that takes it, and the answer is one step in an
 * index; so nothing that is only remembered can break an order.
 *
 * What is remembered is where to look: rows up to `scanned_to` were leased, waiting or blocked when they were last seen,
 * and are passed over for a while. A hundred thousand rows behind one that waits are then looked at once in that while,
 * and not for every batch of the others. When nothing is found behind, the whole is looked at again before the answer is
 * that there is nothing.
 *
 * The lock is the application's: a transaction looks at no more than OUTBOX_SCAN_MAX rows, and where there was
 * nothing to take, further rows are looked at without one. */
#include "outbox_table.h"

#include "base/os.h"
#include "delivery/retry.h"

#include <errno.h>
#include <inttypes.h>

#define RESCAN_US INT64_C(1000000)
#define RESCAN_COST 20               /* at most a twentieth of the time goes into looking again */
#define BATCH_BYTES (16u * 1024 * 1024)

/* ---- looking --------------------------------------------------------------------------------------------------- */

struct scanning {
	struct evbus_outbox *outbox;
	struct outbox_open *rows;
	size_t count;
};

/* "…:30000": of whom we do not know how long its leases are, we judge by our own. */
static int64_t lease_of(struct evbus_slice owner)
{
	char digits[20];
	size_t len = 0;

	while (len < owner.len && len < sizeof digits - 1 && owner.data[owner.len - len - 1] >= '0' &&
	       owner.data[owner.len - len - 1] <= '9')
		len++;
	if (!len || len == owner.len || owner.data[owner.len - len - 1] != ':')
		return 0;
	memcpy(digits, owner.data + owner.len - len, len);
	digits[len] = '\0';
	return strtoll(digits, NULL, 10);
}

static enum evbus_code take_open(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	struct scanning *scanning = context;
	struct evbus_outbox *outbox = scanning->outbox;
	const struct value *owner = &columns[4];
	size_t own_len = strlen(outbox->owner);

	if (count != 7 || columns[0].kind != VALUE_INTEGER)
		return err_set(err, EVBUS_CONFIG, 0, "the column '%s' of the outbox '%s' has something that is no number",
			       outbox->map.columns[OUTBOX_SEQ], outbox->name);
	struct outbox_open *row = &scanning->rows[scanning->count++];
	*row = (struct outbox_open){
		.seq = columns[0].integer,
		.state = outbox_state_of(outbox, &columns[1]),
		.attempts = columns[2].integer,
		.due_us = outbox_time(&columns[3]),
		.expires_us = outbox_time(&columns[5]),
		.lease_ms = owner->kind == VALUE_TEXT ? lease_of(owner->bytes) : 0,
		.own = owner->kind == VALUE_TEXT && own_len && owner->bytes.len > own_len &&
		       !memcmp(owner->bytes.data, outbox->owner, own_len),
		.before = columns[6].integer,
	};
	return EVBUS_OK;
}

enum evbus_code outbox_scan(struct evbus_outbox *outbox, int64_t after, int64_t up_to, size_t most,
			    struct outbox_open *rows, size_t *count, struct evbus_err *err)
{
	struct scanning scanning = { .outbox = outbox, .rows = rows };
	struct query query = { .sql = outbox->sql[OUTBOX_SQL_SCAN],
			       ARGS(value_integer(after), value_integer(up_to), value_integer((int64_t)most)),
			       .row = take_open,
			       .context = &scanning };

	TRY(outbox_read(outbox, &query, err));
	for (size_t i = 0; i < scanning.count && !outbox_has_counts(outbox); i++) {
		const struct outbox_count *kept = outbox_counts_find(outbox, rows[i].seq);
		rows[i].attempts = kept ? kept->attempts : 0;
		rows[i].due_us = kept ? kept->due_us : 0;
	}
	*count = scanning.count;
	return EVBUS_OK;
}

bool outbox_is_due(const struct outbox_open *row, const struct evbus_retry *retry, int64_t lease_ms, int64_t now_us)
{
	if (row->state == EVBUS_OUTBOX_PENDING) {
		/* Before the first attempt, a due time is the application's wish and not a backoff. */
		if (!row->due_us || row->due_us <= now_us || !row->attempts || !retry)
			return row->due_us <= now_us;
		return retry_is_due(retry, row->attempts, row->due_us, now_us);
	}
	int64_t lease = (row->lease_ms ? row->lease_ms : lease_ms) * 1000;
	return row->own || row->expires_us <= now_us || row->expires_us - now_us > lease;
}

int64_t outbox_waits_until(const struct outbox_open *row)
{
	return row->state == EVBUS_OUTBOX_PENDING ? row->due_us : row->expires_us;
}

/* ---- taking ---------------------------------------------------------------------------------------------------- */

struct claiming {
	struct evbus_outbox *outbox;
	struct outbox_batch *batch;
	struct outbox_open *rows;  /* OUTBOX_SCAN_MAX of them */
	size_t count, most;
	int64_t up_to, now_us;
	struct value lease[OUTBOX_COLUMNS];
	char expires[28];
};

/* The job + 1 of a row in the batch, 0 where it is not in it. They came in the order of seq. */
static size_t find_job(const struct outbox_batch *batch, int64_t seq)
{
	size_t low = 0, high = batch->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (batch->jobs[middle].held.row.seq < seq)
			low = middle + 1;
		else
			high = middle;
	}
	return low < batch->count && batch->jobs[low].held.row.seq == seq ? low + 1 : 0;
}

static bool may_go(const struct claiming *claiming, const struct outbox_open *row)
{
	const struct outbox_batch *batch = claiming->batch;

	return outbox_is_due(row, &batch->options->retry, batch->lease_ms, claiming->now_us) &&
	       (!row->before || find_job(batch, row->before));
}

static enum evbus_code add_job(struct outbox_batch *batch, struct outbox_job **job, struct evbus_err *err)
{
	if (batch->count == batch->size) {
		size_t size = batch->size ? 2 * batch->size : 64;
		struct outbox_job *jobs = os.realloc(batch->jobs, size * sizeof *jobs);
		if (!jobs)
			return err_set(err, EVBUS_IO, ENOMEM, "cannot claim rows");
		batch->jobs = jobs;
		batch->size = size;
	}
	*job = &batch->jobs[batch->count];
	**job = (struct outbox_job){ .fate = OUTBOX_UNTRIED };
	return EVBUS_OK;
}

static enum evbus_code take(struct claiming *claiming, const struct outbox_open *row, struct evbus_err *err)
{
	struct evbus_outbox *outbox = claiming->outbox;
	struct outbox_batch *batch = claiming->batch;
	struct outbox_job *job = NULL;
	bool found, changed = true;

	TRY(add_job(batch, &job, err));
	TRY(outbox_get(outbox, row->seq, &job->held, &found, err));
	if (!found)
		return err_set(err, EVBUS_BUG, 0, "a row of the outbox '%s' is not there", outbox->name);
	job->behind = row->before ? find_job(batch, row->before) : 0;
	job->from = row->state;
	batch->count++;
	batch->bytes += job->held.row.payload.len;
	if (!outbox_has_leases(outbox))
		return EVBUS_OK;
	job->from = EVBUS_OUTBOX_PROCESSING;
	return outbox_update(outbox, OUTBOX_SQL_CLAIM, claiming->lease, row->seq, row->state, batch->owner, &changed,
			     err);
}

static bool is_full(const struct claiming *claiming)
{
	const struct outbox_batch *batch = claiming->batch;

	return batch->count >= batch->options->batch || batch->bytes >= BATCH_BYTES;
}

static void note_waiting(struct claiming *claiming, const struct outbox_open *row)
{
	struct evbus_outbox *outbox = claiming->outbox;
	const struct outbox_batch *batch = claiming->batch;

	if (!outbox_is_due(row, &batch->options->retry, batch->lease_ms, claiming->now_us) &&
	    outbox_waits_until(row) < outbox->soonest_us)
		outbox->soonest_us = outbox_waits_until(row);
}

/* Of what was read: takes what may go, up to a full batch, and says where it is then. */
static enum evbus_code take_rows(struct claiming *claiming, struct evbus_err *err)
{
	for (size_t i = 0; i < claiming->count && !is_full(claiming); i++) {
		const struct outbox_open *row = &claiming->rows[i];
		if (may_go(claiming, row))
			TRY(take(claiming, row, err));
		else
			note_waiting(claiming, row);
		claiming->outbox->scanned_to = row->seq;
	}
	return EVBUS_OK;
}

static enum evbus_code read_rows(struct claiming *claiming, struct evbus_err *err)
{
	TRY(outbox_scan(claiming->outbox, claiming->outbox->scanned_to, claiming->up_to, claiming->most,
			claiming->rows, &claiming->count, err));
	/* Not before: what others wrote while we waited for the lock would seem to come from a clock that is ahead. */
	claiming->now_us = os_now_us();
	return EVBUS_OK;
}

static void release_jobs(struct outbox_batch *batch)
{
	for (size_t i = 0; i < batch->count; i++)
		outbox_held_release(&batch->jobs[i].held);
	batch->count = batch->bytes = 0;
}

/* One transaction. Nothing to take: nothing was written. */
static enum evbus_code take_some(struct claiming *claiming, struct evbus_err *err)
{
	struct evbus_outbox *outbox = claiming->outbox;
	int64_t from = outbox->scanned_to;

	TRY(outbox_begin(outbox, err));
	enum evbus_code code = read_rows(claiming, err);
	if (!code)
		code = take_rows(claiming, err);
	if (!code && (!claiming->batch->count || !outbox_has_leases(outbox))) {
		outbox->within = false;
		table_rollback(outbox->store);
		return EVBUS_OK;
	}
	code = outbox_end(outbox, code, err);
	if (code) {
		release_jobs(claiming->batch);
		outbox->scanned_to = from;
	}
	return code;
}

/* Without a lock: goes up to a row for which one is worth taking. */
static enum evbus_code look_around(struct claiming *claiming, bool *worth, struct evbus_err *err)
{
	TRY(read_rows(claiming, err));
	*worth = false;
	for (size_t i = 0; i < claiming->count; i++) {
		*worth = may_go(claiming, &claiming->rows[i]);
		if (*worth)
			return EVBUS_OK;
		note_waiting(claiming, &claiming->rows[i]);
		claiming->outbox->scanned_to = claiming->rows[i].seq;
	}
	return EVBUS_OK;
}

static void begin_anew(struct evbus_outbox *outbox)
{
	outbox->scanned_to = INT64_MIN;
	outbox->soonest_us = INT64_MAX;
}

static enum evbus_code search(struct claiming *claiming, struct evbus_err *err)
{
	struct evbus_outbox *outbox = claiming->outbox;
	bool whole = outbox->scanned_to == INT64_MIN, look = outbox->idle, worth = true;

	for (;;) {
		if (look)
			TRY(look_around(claiming, &worth, err));
		else
			TRY(take_some(claiming, err));
		if (claiming->batch->count)
			return EVBUS_OK;
		if (claiming->count < claiming->most && !(look && worth)) {
			if (whole)
				return EVBUS_OK;
			whole = true;
			begin_anew(outbox);
		}
		/* Where there was nothing to take, there may be much of it. */
		look = !(look && worth);
		claiming->most = look ? OUTBOX_SCAN_MAX : claiming->batch->options->batch;
		if (claiming->most > OUTBOX_SCAN_MAX)
			claiming->most = OUTBOX_SCAN_MAX;
	}
}

static int64_t monotonic_us(void)
{
	struct timespec now = { 0 };

	(void)os.clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void prepare(struct claiming *claiming)
{
	struct outbox_batch *batch = claiming->batch;

	claiming->up_to = batch->options->up_to_seq ? batch->options->up_to_seq : INT64_MAX;
	claiming->most = batch->options->batch < OUTBOX_SCAN_MAX ? batch->options->batch : OUTBOX_SCAN_MAX;
	evbus_time_format(batch->now_us + batch->lease_ms * 1000, claiming->expires);
	claiming->lease[OUTBOX_STATE] = outbox_state_value(claiming->outbox, EVBUS_OUTBOX_PROCESSING);
	claiming->lease[OUTBOX_OWNER] = value_text(batch->owner);
	claiming->lease[OUTBOX_EXPIRES] = value_text(claiming->expires);
}

enum evbus_code outbox_claim(struct evbus_outbox *outbox, struct outbox_batch *batch, struct evbus_err *err)
{
	struct claiming claiming = { .outbox = outbox, .batch = batch };
	CLEANUP(free_cleanup) struct outbox_open *rows = os.realloc(NULL, OUTBOX_SCAN_MAX * sizeof *rows);
	int64_t start = monotonic_us();
	bool again = start >= outbox->rescan_at_us;

	if (!rows)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot claim rows");
	claiming.rows = rows;
	prepare(&claiming);
	if (again)
		begin_anew(outbox);
	TRY(search(&claiming, err));
	outbox->idle = !batch->count;
	int64_t cost = (monotonic_us() - start) * RESCAN_COST;
	if (again || outbox->idle)
		outbox->rescan_at_us = start + (cost > RESCAN_US ? cost : RESCAN_US);
	return EVBUS_OK;
}
