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
 * later: SQLite has one writer at a time, who gets the next seq, so rows come in the order of seq. Where that is not so,
 * a driver has to see to it that no row is looked at while one before it may still come. A dead row that is made due
 * again does not count: it had let the others go.
 *
 * The lock is the application's: a transaction looks at no more than OUTBOX_SCAN_MAX rows, and where there was
 * nothing to take, further rows are looked at without one. */
#include "outbox_table.h"

#include "base/os.h"
#include "delivery/retry.h"

#include <errno.h>
#include <inttypes.h>

#define RESCAN_US INT64_C(1000000)
#define RESCAN_COST 20 /* at most a twentieth of the time goes into looking again */
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

static enum evbus_code take_open(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	struct scanning *scanning = context;
	struct evbus_outbox *outbox = scanning->outbox;
	const struct value *owner = &columns[4];
	size_t own_len = strlen(outbox->owner);

	if (count != 8 || columns[0].kind != VALUE_INTEGER)
		return err_set(err, EVBUS_CONFIG, 0,
			       "the column '%s' of the outbox '%s' has something that is no number",
			       outbox->map.columns[OUTBOX_SEQ], outbox->name);
	struct outbox_open *row = &scanning->rows[scanning->count++];
	*row = (struct outbox_open){
		.seq = columns[0].integer,
		.state = outbox_state_of(outbox, &columns[1]),
		.attempts = outbox_attempts(&columns[2]),
		.due_us = outbox_time(&columns[3]),
		.expires_us = outbox_time(&columns[5]),
		.lease_ms = owner->kind == VALUE_TEXT ? lease_of(owner->bytes) : 0,
		.own = owner->kind == VALUE_TEXT && own_len && owner->bytes.len > own_len &&
		       !memcmp(owner->bytes.data, outbox->owner, own_len),
		.key = key_of(&columns[6], &columns[7]),
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
	struct outbox_open *rows; /* OUTBOX_SCAN_MAX of them */
	size_t count, most;
	int64_t up_to, now_us;
	struct value lease[OUTBOX_COLUMNS];
	char expires[28];
};

static bool may_go(const struct claiming *claiming, const struct outbox_open *row)
{
	const struct outbox_batch *batch = claiming->batch;

	return outbox_is_due(row, &batch->options->retry, batch->lease_ms, claiming->now_us) &&
	       !outbox_key_is_in(&claiming->outbox->blocked, row->key);
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

static bool is_full(const struct claiming *claiming)
{
	const struct outbox_batch *batch = claiming->batch;

	return batch->count >= batch->options->batch || batch->bytes >= BATCH_BYTES;
}

/* EVBUS_NO: the batch is full. */
static enum evbus_code take_row(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	struct claiming *claiming = context;
	struct outbox_batch *batch = claiming->batch;
	struct outbox_job *job = NULL;

	TRY(add_job(batch, &job, err));
	TRY(outbox_hold(claiming->outbox, columns, count, &job->held, err));
	batch->count++;
	batch->bytes += job->held.row.payload.len;
	return is_full(claiming) ? EVBUS_NO : EVBUS_OK;
}

/* Rows that follow each other, in one state, none of which is passed over: two statements for all of them. */
static enum evbus_code take_run(struct claiming *claiming, const struct outbox_open *rows, size_t count,
				struct evbus_err *err)
{
	struct evbus_outbox *outbox = claiming->outbox;
	struct outbox_batch *batch = claiming->batch;
	size_t begin = batch->count;
	int64_t first = rows[0].seq, last = rows[count - 1].seq, taken = 0;
	struct query query = {
		.sql = outbox->sql[OUTBOX_SQL_GET_RUN],
		ARGS(outbox_state_value(outbox, rows[0].state), value_integer(first), value_integer(last)),
		.row = take_row,
		.context = claiming,
	};
	enum evbus_code code = outbox_read(outbox, &query, err);

	if (code && code != EVBUS_NO)
		return code;
	for (size_t i = begin; i < batch->count; i++) {
		batch->jobs[i].key = rows[i - begin].key;
		batch->jobs[i].from = outbox_has_leases(outbox) ? EVBUS_OUTBOX_PROCESSING : rows[0].state;
		last = outbox->scanned_to = batch->jobs[i].held.row.seq;
	}
	taken = (int64_t)(batch->count - begin);
	if (outbox_has_leases(outbox))
		TRY(outbox_take_run(outbox, claiming->lease, first, last, rows[0].state, &taken, err));
	if (!taken || taken != (int64_t)(batch->count - begin) || last != rows[taken - 1].seq)
		return err_set(
			err, EVBUS_CONFIG, 0,
			"the database of the outbox '%s' has not leased all rows that it was told to: a trigger on "
			"its table must not keep them as they are",
			outbox->name);
	return EVBUS_OK;
}

static enum evbus_code pass_over(struct claiming *claiming, const struct outbox_open *row, struct evbus_err *err)
{
	struct evbus_outbox *outbox = claiming->outbox;
	const struct outbox_batch *batch = claiming->batch;

	TRY(outbox_key_add(&outbox->blocked, row->key, err));
	if (!outbox_is_due(row, &batch->options->retry, batch->lease_ms, claiming->now_us) &&
	    outbox_waits_until(row) < outbox->soonest_us)
		outbox->soonest_us = outbox_waits_until(row);
	return EVBUS_OK;
}

/* How many from there on are a run: at most as many as there is room for. */
static size_t run_len(const struct claiming *claiming, size_t from)
{
	const struct outbox_open *rows = &claiming->rows[from];
	size_t most = claiming->batch->options->batch - claiming->batch->count, len = 0;

	while (len < most && from + len < claiming->count && rows[len].state == rows[0].state &&
	       may_go(claiming, &rows[len]))
		len++;
	return len;
}

/* Of what was read: takes what may go, up to a full batch, and says where it is then. */
static enum evbus_code take_rows(struct claiming *claiming, struct evbus_err *err)
{
	for (size_t i = 0, len; i < claiming->count && !is_full(claiming); i += len) {
		len = run_len(claiming, i);
		if (len) {
			TRY(take_run(claiming, &claiming->rows[i], len, err));
			continue;
		}
		TRY(pass_over(claiming, &claiming->rows[i], err));
		claiming->outbox->scanned_to = claiming->rows[i].seq;
		len = 1;
	}
	return EVBUS_OK;
}

static enum evbus_code read_rows(struct claiming *claiming, struct evbus_err *err)
{
	TRY(outbox_scan(claiming->outbox, claiming->outbox->scanned_to, claiming->up_to, claiming->most, claiming->rows,
			&claiming->count, err));
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
	if (code)
		release_jobs(claiming->batch);
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
		TRY(pass_over(claiming, &claiming->rows[i], err));
		claiming->outbox->scanned_to = claiming->rows[i].seq;
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

	(void)columns;
	(void)count;
	return err_set(err, EVBUS_CONFIG, 0,
		       "a row of the outbox '%s' has the lowest number that there is in the column '%s', and cannot be "
		       "drained: give it another",
		       outbox->name, outbox->map.columns[OUTBOX_SEQ]);
}

/* Rows are looked for behind a number, and would never be found there. */
static enum evbus_code refuse_lowest(struct evbus_outbox *outbox, struct evbus_err *err)
{
	struct query query = { .sql = outbox->sql[OUTBOX_SQL_GET_RUN],
			       ARGS(outbox_state_value(outbox, EVBUS_OUTBOX_PENDING), value_integer(INT64_MIN),
				    value_integer(INT64_MIN)),
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
	int64_t start = os_monotonic_us();

	if (!rows)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot claim rows");
	claiming.rows = rows;
	prepare(&claiming);
	if (start >= outbox->rescan_at_us) {
		begin_anew(outbox);
		TRY(refuse_lowest(outbox, err));
	}
	/* Whatever fails from here on until the rows are marked: what this pass knows may not be so. */
	outbox->rescan_at_us = 0;
	TRY(search(&claiming, err));
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
