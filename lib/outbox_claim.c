/* outbox_claim.c: taking rows that may be published now.
 *
 * Rows are looked at in the order of seq, and what is passed over leaves its key behind: no later row of that key is
 * taken. A pass over the table goes on from batch to batch, so that a hundred thousand rows behind one that waits are
 * not looked at for each batch of the others; it begins anew after a while, after any failure and any row that we lost,
 * and before the answer is that there is nothing.
 *
 * Why no row can overtake another of its key that is not done: that one has a lower seq, so this pass has looked at it,
 * and has either passed it over, and then the key is blocked, or taken it, and then it is done (SENT, or dead),
 * or it was refused or given back, which blocks its key too, or it was lost, which ends the pass. It cannot have come
 * later: SQLite has one writer at a time, who gets the next seq, so rows come in the order of seq; on a server no row is
 * looked at while one before it may still come (outbox_horizon.c). A dead row that is made due again does not count: it
 * had let the others go.
 *
 * In SQLite the lock is the application's: a transaction looks at no more than OUTBOX_SCAN_MAX rows, and where there was
 * nothing to take, further rows are looked at without one. On a server each row has its own (outbox_locked.c). */
#include "outbox_claim.h"

#include "delivery/retry.h"

#include <errno.h>
#include <inttypes.h>

#define RESCAN_US INT64_C(1000000)
#define RESCAN_COST 20 /* at most a twentieth of the time goes into looking again */

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

/* Numbers are as good as texts here. */
static struct evbus_slice bytes_of(const struct value *value)
{
	if (value->kind == VALUE_INTEGER)
		return (struct evbus_slice){ (const char *)&value->integer, sizeof value->integer };
	return value->bytes;
}

static uint64_t key_of(const struct value *topic, const struct value *key)
{
	return key->kind == VALUE_NULL ? 0 : key_hash(bytes_of(topic), bytes_of(key));
}

bool outbox_key_is_in(const struct key_table *keys, uint64_t key)
{
	size_t at = 0;

	return key && key_table_next(keys, key, &at);
}

enum evbus_code outbox_key_add(struct key_table *keys, uint64_t key, struct evbus_err *err)
{
	if (!key || outbox_key_is_in(keys, key))
		return EVBUS_OK;
	return key_table_add(keys, key, 0, 0, err);
}

enum evbus_code claim_read_row(const struct evbus_outbox *outbox, const struct value *columns, size_t count,
			       struct outbox_open *row, struct evbus_err *err)
{
	const struct value *owner = &columns[OUTBOX_OWNER];
	size_t own_len = strlen(outbox->owner);

	if (count != OUTBOX_COLUMNS + (outbox->server ? 1u : 0u) || columns[OUTBOX_SEQ].kind != VALUE_INTEGER)
		return err_set(err, EVBUS_CONFIG, 0,
			       "the column '%s' of the outbox '%s' has something that is no number",
			       outbox->map.columns[OUTBOX_SEQ], outbox->name);
	*row = (struct outbox_open){
		.seq = columns[OUTBOX_SEQ].integer,
		.state = outbox_state_of(outbox, &columns[OUTBOX_STATE]),
		.attempts = outbox_attempts(&columns[OUTBOX_ATTEMPTS]),
		.due_us = outbox_time(&columns[OUTBOX_DUE]),
		.expires_us = outbox_time(&columns[OUTBOX_EXPIRES]),
		.lease_ms = owner->kind == VALUE_TEXT ? lease_of(owner->bytes) : 0,
		.own = owner->kind == VALUE_TEXT && own_len && owner->bytes.len > own_len &&
		       !memcmp(owner->bytes.data, outbox->owner, own_len),
		.key = key_of(&columns[OUTBOX_TOPIC], &columns[OUTBOX_PARTITION_KEY]),
		.bytes = columns[OUTBOX_PAYLOAD].kind == VALUE_INTEGER ? columns[OUTBOX_PAYLOAD].integer : 0,
		.now_us = outbox->server ? columns[OUTBOX_COLUMNS].integer : 0,
	};
	/* Where the database takes a text for equal to one that is not: by a collation, or citext. */
	if (row->state != EVBUS_OUTBOX_PENDING && row->state != EVBUS_OUTBOX_PROCESSING)
		return err_set(err, EVBUS_CONFIG, 0,
			       "row %" PRId64
			       " of the outbox '%s' has a state that the database takes for '%s' or '%s', "
			       "and that is written otherwise: write it so",
			       row->seq, outbox->name, outbox->map.states[EVBUS_OUTBOX_PENDING],
			       outbox->map.states[EVBUS_OUTBOX_PROCESSING]);
	if (outbox_has_counts(outbox))
		return EVBUS_OK;
	const struct outbox_count *kept = outbox_counts_find(outbox, row->seq);
	row->attempts = kept ? kept->attempts : 0;
	row->due_us = kept ? kept->due_us : 0;
	return EVBUS_OK;
}

static enum evbus_code take_open(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	struct scanning *scanning = context;

	return claim_read_row(scanning->outbox, columns, count, &scanning->rows[scanning->count++], err);
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
	*count = scanning.count;
	if (outbox->server && scanning.count)
		outbox->clock_us = rows[scanning.count - 1].now_us - os_now_us();
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

bool claim_may_go(const struct claiming *claiming, const struct outbox_open *row)
{
	const struct outbox_batch *batch = claiming->batch;

	return outbox_is_due(row, &batch->options->retry, batch->lease_ms, claiming->now_us) &&
	       !outbox_key_is_in(&claiming->outbox->blocked, row->key);
}

enum evbus_code claim_pass_over(struct claiming *claiming, const struct outbox_open *row, struct evbus_err *err)
{
	struct evbus_outbox *outbox = claiming->outbox;
	const struct outbox_batch *batch = claiming->batch;

	TRY(outbox_key_add(&outbox->blocked, row->key, err));
	if (!outbox_is_due(row, &batch->options->retry, batch->lease_ms, claiming->now_us) &&
	    outbox_waits_until(row) < outbox->soonest_us)
		outbox->soonest_us = outbox_waits_until(row);
	return EVBUS_OK;
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

enum evbus_code claim_add_row(struct claiming *claiming, const struct outbox_open *row, const struct value *columns,
			      size_t count, struct evbus_err *err)
{
	struct outbox_batch *batch = claiming->batch;
	struct outbox_job *job = NULL;

	TRY(add_job(batch, &job, err));
	TRY(outbox_hold(claiming->outbox, columns, count, &job->held, err));
	job->key = row->key;
	job->from = row->state;
	batch->count++;
	return EVBUS_OK;
}

/* EVBUS_NO: it is enough. What is passed over was read as well, and the application waits meanwhile. */
static enum evbus_code take_row(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	struct claiming *claiming = context;
	struct outbox_open row;

	TRY(claim_read_row(claiming->outbox, columns, count, &row, err));
	TRY(claim_may_go(claiming, &row) ? claim_add_row(claiming, &row, columns, count, err)
					 : claim_pass_over(claiming, &row, err));
	claiming->outbox->scanned_to = row.seq;
	claiming->most--;
	claiming->bytes += columns[OUTBOX_PAYLOAD].bytes.len;
	bool enough = claiming->batch->count == claiming->batch->options->batch || claiming->bytes >= CLAIM_BYTES;
	return enough ? EVBUS_NO : EVBUS_OK;
}

static enum evbus_code take_rows(struct claiming *claiming, struct evbus_err *err)
{
	if (claiming->outbox->server)
		return claim_locked(claiming, err);
	struct query query = { .sql = claiming->outbox->sql[OUTBOX_SQL_TAKE],
			       ARGS(value_integer(claiming->outbox->scanned_to), value_integer(claiming->up_to),
				    value_integer((int64_t)claiming->most)),
			       .row = take_row,
			       .context = claiming };

	/* Not before: what others wrote while we waited for the lock would seem to come from a clock that is ahead. */
	claiming->now_us = outbox_now_us(claiming->outbox);
	claiming->bytes = 0;
	enum evbus_code code = outbox_read(claiming->outbox, &query, err);
	claiming->ended = !code && claiming->most > 0;
	return code == EVBUS_NO ? EVBUS_OK : code;
}

size_t outbox_run(const struct outbox_batch *batch, size_t first)
{
	const struct outbox_job *jobs = &batch->jobs[first];
	size_t len = 1;

	while (first + len < batch->count && jobs[len].from == jobs[0].from &&
	       jobs[len - 1].held.row.seq < jobs[len].held.row.seq &&
	       jobs[len].held.row.seq - 1 == jobs[len - 1].held.row.seq)
		len++;
	return len;
}

static enum evbus_code lease_rows(struct claiming *claiming, struct evbus_err *err)
{
	struct evbus_outbox *outbox = claiming->outbox;
	struct outbox_batch *batch = claiming->batch;

	/* By the clock by which the rows were free: to nobody does it seem longer than it is. */
	evbus_time_format(claiming->now_us + batch->lease_ms * 1000, claiming->expires);
	claiming->lease[OUTBOX_EXPIRES] = value_text(claiming->expires);
	for (size_t i = 0, len; i < batch->count; i += len) {
		struct outbox_job *jobs = &batch->jobs[i];
		len = outbox_run(batch, i);
		struct outbox_rows rows = { jobs[0].held.row.seq, jobs[len - 1].held.row.seq, jobs[0].from };
		int64_t leased;
		TRY(outbox_update(outbox, OUTBOX_SQL_CLAIM, claiming->lease, &rows, NULL, &leased, err));
		if (leased != (int64_t)len)
			return err_set(err, EVBUS_CONFIG, 0,
				       "the database of the outbox '%s' has not leased all rows that it was told to: a "
				       "trigger on its table must not keep them as they are",
				       outbox->name);
		for (size_t j = 0; j < len; j++)
			jobs[j].from = EVBUS_OUTBOX_PROCESSING;
	}
	return EVBUS_OK;
}

void outbox_release_jobs(struct outbox_batch *batch)
{
	for (size_t i = 0; i < batch->count; i++)
		outbox_held_release(&batch->jobs[i].held);
	batch->count = 0;
}

/* One transaction. Nothing to take: nothing was written. */
static enum evbus_code take_some(struct claiming *claiming, struct evbus_err *err)
{
	struct evbus_outbox *outbox = claiming->outbox;

	int64_t scanned_to = outbox->scanned_to;

	TRY(outbox_begin(outbox, err));
	enum evbus_code code = take_rows(claiming, err);
	claiming->batch->behind = !code && outbox_is_behind(outbox, claiming->batch);
	if (claiming->batch->behind)
		outbox->scanned_to = scanned_to;
	if (!code && (!claiming->batch->count || claiming->batch->behind || !outbox_has_leases(outbox))) {
		outbox->within = false;
		table_rollback(outbox->store);
		return EVBUS_OK;
	}
	if (!code)
		code = lease_rows(claiming, err);
	code = outbox_end(outbox, code, err);
	if (code)
		outbox_release_jobs(claiming->batch);
	return code;
}

/* Without a lock: goes up to a row for which one is worth taking. */
static enum evbus_code look_around(struct claiming *claiming, bool *worth, struct evbus_err *err)
{
	struct evbus_outbox *outbox = claiming->outbox;
	size_t count = 0;

	TRY(outbox_scan(outbox, outbox->scanned_to, claiming->up_to, claiming->most, claiming->rows, &count, err));
	claiming->now_us = outbox_now_us(claiming->outbox);
	claiming->ended = count < claiming->most;
	*worth = false;
	for (size_t i = 0; i < count; i++) {
		*worth = claim_may_go(claiming, &claiming->rows[i]);
		if (*worth)
			return EVBUS_OK;
		TRY(claim_pass_over(claiming, &claiming->rows[i], err));
		outbox->scanned_to = claiming->rows[i].seq;
	}
	return EVBUS_OK;
}

static void begin_anew(struct evbus_outbox *outbox)
{
	outbox->scanned_to = INT64_MIN;
	outbox->soonest_us = INT64_MAX;
	outbox->pass_ends_at_us = 0;
	key_table_clear(&outbox->blocked);
}

static enum evbus_code found_lowest(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	const struct evbus_outbox *outbox = context;

	(void)count;
	if (outbox_state_of(outbox, &columns[OUTBOX_STATE]) != EVBUS_OUTBOX_PENDING)
		return EVBUS_OK;
	return err_set(err, EVBUS_CONFIG, 0,
		       "a row of the outbox '%s' has the lowest number that there is in the column '%s', and cannot be "
		       "drained: give it another",
		       outbox->name, outbox->map.columns[OUTBOX_SEQ]);
}

enum evbus_code outbox_refuse_lowest(struct evbus_outbox *outbox, struct evbus_err *err)
{
	struct query query = { .sql = outbox->sql[OUTBOX_SQL_GET],
			       ARGS(value_integer(INT64_MIN)),
			       .row = found_lowest,
			       .context = outbox };

	return outbox_read(outbox, &query, err);
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
		if (claiming->ended && !(look && worth)) {
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

static void prepare(struct claiming *claiming)
{
	struct outbox_batch *batch = claiming->batch;

	claiming->up_to = batch->options->bounded ? batch->options->up_to_seq : INT64_MAX;
	if (claiming->outbox->server && claiming->safe < claiming->up_to)
		claiming->up_to = claiming->safe;
	claiming->most = batch->options->batch < OUTBOX_SCAN_MAX ? batch->options->batch : OUTBOX_SCAN_MAX;
	claiming->lease[OUTBOX_STATE] = outbox_state_value(claiming->outbox, EVBUS_OUTBOX_PROCESSING);
	claiming->lease[OUTBOX_OWNER] = value_text(batch->owner);
}

enum evbus_code outbox_claim(struct evbus_outbox *outbox, struct outbox_batch *batch, struct evbus_err *err)
{
	struct claiming claiming = { .outbox = outbox, .batch = batch };
	CLEANUP(free_cleanup) struct outbox_open *rows = os.realloc(NULL, OUTBOX_SCAN_MAX * sizeof *rows);
	int64_t start = os_monotonic_us();

	if (!rows)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot claim rows");
	claiming.rows = rows;
	if (outbox->server)
		TRY(outbox_look_ahead(outbox, &claiming.safe, err));
	prepare(&claiming);
	if (start >= outbox->rescan_at_us) {
		begin_anew(outbox);
		TRY(outbox_refuse_lowest(outbox, err));
	}
	/* Whatever fails from here on until the rows are marked: what this pass knows may not be so. */
	outbox->rescan_at_us = 0;
	TRY(search(&claiming, err));
	outbox_wait_for_writers(outbox);
	outbox->idle = !batch->count;
	int64_t cost = (os_monotonic_us() - start) * RESCAN_COST;
	if (!outbox->pass_ends_at_us)
		outbox->pass_ends_at_us = start + (cost > RESCAN_US ? cost : RESCAN_US);
	if (outbox->idle)
		outbox_pass_goes_on(outbox);
	return EVBUS_OK;
}

void outbox_pass_goes_on(struct evbus_outbox *outbox)
{
	outbox->rescan_at_us = outbox->pass_ends_at_us;
}
