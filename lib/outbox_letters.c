/* outbox_letters.c: what operators do with rows that are FAILED, and with those that are done. */
#include "outbox_table.h"

#include "base/os.h"
#include "event/history.h"

#include <errno.h>

#define SWEEP_ROWS 1000u

/* Finds the row within a transaction of its own and has it changed; *changed false where it is not FAILED. */
static enum evbus_code change(struct evbus_outbox *outbox, int64_t seq, enum outbox_sql update,
			      enum evbus_code (*values)(void *context, struct outbox_held *held, struct value *set,
							struct evbus_err *err),
			      void *context, bool *changed, struct evbus_err *err)
{
	const struct outbox_rows row = { seq, seq, EVBUS_OUTBOX_FAILED };
	struct value set[OUTBOX_SETS] = { 0 };
	struct outbox_held held = { 0 };
	int64_t done = 0;
	bool found = false;
	enum evbus_code code = outbox_get(outbox, seq, &held, &found, err);

	if (!code && found && held.row.state == EVBUS_OUTBOX_FAILED) {
		code = values(context, &held, set, err);
		if (!code)
			code = outbox_update(outbox, update, set, &row, NULL, &done, err);
	}
	outbox_held_release(&held);
	*changed = done > 0;
	return code;
}

/* ---- due again ------------------------------------------------------------------------------------------------- */

static enum evbus_code requeue_values(void *context, struct outbox_held *held, struct value *set, struct evbus_err *err)
{
	(void)held;
	(void)err;
	set[OUTBOX_STATE] = outbox_state_value(context, EVBUS_OUTBOX_PENDING);
	set[OUTBOX_ATTEMPTS] = value_integer(0);
	return EVBUS_OK;
}

/* Without columns for them, attempts begin anew before the row can be claimed; its history stays. */
static enum evbus_code forget_attempts(struct evbus_outbox *outbox, int64_t seq, struct evbus_err *err)
{
	const struct outbox_count *kept;

	TRY(outbox_counts_load(outbox, err));
	kept = outbox_has_counts(outbox) ? NULL : outbox_counts_find(outbox, seq);
	if (!kept)
		return EVBUS_OK;
	struct outbox_count anew = { .seq = seq, .error = kept->error, .history = kept->history };
	return outbox_counts_put(outbox, &anew, 1, err);
}

enum evbus_code outbox_requeue(struct evbus_outbox *outbox, int64_t seq, bool *changed, struct evbus_err *err)
{
	bool done = false;

	TRY(outbox_look(outbox, err));
	TRY(outbox_begin(outbox, err));
	enum evbus_code code = change(outbox, seq, OUTBOX_SQL_REQUEUE, requeue_values, outbox, &done, err);
	if (!code && done)
		code = forget_attempts(outbox, seq, err);
	TRY(outbox_end(outbox, code, err));
	*changed = done;
	return EVBUS_OK;
}

/* ---- tried by hand --------------------------------------------------------------------------------------------- */

struct settling {
	struct evbus_outbox *outbox;
	struct evbus_slice receipt;
	char now[28];
};

static enum evbus_code settle_values(void *context, struct outbox_held *held, struct value *set, struct evbus_err *err)
{
	const struct settling *settling = context;
	(void)held;
	(void)err;

	set[OUTBOX_STATE] = outbox_state_value(settling->outbox, EVBUS_OUTBOX_SENT);
	set[OUTBOX_SENT_AT] = value_text(settling->now);
	set[OUTBOX_RECEIPT] = value_slice(settling->receipt);
	return EVBUS_OK;
}

enum evbus_code outbox_settle(struct evbus_outbox *outbox, int64_t seq, struct evbus_slice receipt, bool *changed,
			      struct evbus_err *err)
{
	struct settling settling = { .outbox = outbox, .receipt = receipt };
	bool done = false;

	evbus_time_format(os_now_us(), settling.now);
	TRY(outbox_look(outbox, err));
	TRY(outbox_begin(outbox, err));
	TRY(outbox_end(outbox, change(outbox, seq, OUTBOX_SQL_SETTLE, settle_values, &settling, &done, err), err));
	*changed = done;
	return EVBUS_OK;
}

struct failing {
	struct evbus_outbox *outbox;
	enum evbus_reason reason;
	struct evbus_slice error;
	struct buf text, history;
};

static enum evbus_code fail_values(void *context, struct outbox_held *held, struct value *set, struct evbus_err *err)
{
	struct failing *failing = context;
	int64_t attempts = held->row.attempts + 1;

	TRY(history_error(&failing->text, failing->error, EVBUS_ERROR_MAX_BYTES, err));
	TRY(history_add(&failing->history, held->row.history, attempts, os_now_us(), failing->reason, failing->error,
			err));
	TRY(buf_add(&failing->text, "", 1, err));
	TRY(buf_add(&failing->history, "", 1, err));
	set[OUTBOX_ATTEMPTS] = value_integer(attempts);
	set[OUTBOX_ERROR] = value_text(failing->text.data);
	set[OUTBOX_HISTORY] = value_text(failing->history.data);
	struct outbox_count count = { held->row.seq, attempts, 0, failing->text.data, failing->history.data };
	return outbox_counts_put(failing->outbox, &count, 1, err);
}

enum evbus_code outbox_fail_again(struct evbus_outbox *outbox, int64_t seq, enum evbus_reason reason,
				  struct evbus_slice error, bool *changed, struct evbus_err *err)
{
	struct failing failing = { .outbox = outbox, .reason = reason, .error = error };
	bool done = false;

	TRY(outbox_look(outbox, err));
	TRY(outbox_counts_load(outbox, err));
	TRY(outbox_begin(outbox, err));
	enum evbus_code code = change(outbox, seq, OUTBOX_SQL_FAIL_AGAIN, fail_values, &failing, &done, err);
	buf_release(&failing.text);
	buf_release(&failing.history);
	TRY(outbox_end(outbox, code, err));
	*changed = done;
	return EVBUS_OK;
}

/* ---- sweeping -------------------------------------------------------------------------------------------------- */

struct sweeping {
	struct evbus_outbox *outbox;
	int64_t before_us, last;
	int64_t seqs[SWEEP_ROWS];
	size_t seen, count;
};

/* Every row is looked at, in the order in which it lies: an index of what is done would cost each row that is sent. */
static enum evbus_code take_old(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	struct sweeping *sweeping = context;
	int64_t sent_us = outbox_time(&columns[2]);
	(void)count;
	(void)err;

	sweeping->last = columns[0].integer;
	sweeping->seen++;
	if (outbox_state_of(sweeping->outbox, &columns[1]) == EVBUS_OUTBOX_SENT && sent_us &&
	    sent_us < sweeping->before_us)
		sweeping->seqs[sweeping->count++] = columns[0].integer;
	return EVBUS_OK;
}

static enum evbus_code remove_old(struct sweeping *sweeping, uint64_t *count, struct evbus_err *err)
{
	struct evbus_outbox *outbox = sweeping->outbox;
	enum evbus_code code = EVBUS_OK;
	uint64_t removed = 0;

	if (!sweeping->count)
		return EVBUS_OK;
	TRY(outbox_begin(outbox, err));
	for (size_t i = 0; i < sweeping->count && !code; i++) {
		struct query query = { .sql = outbox->sql[OUTBOX_SQL_DELETE], ARGS(value_integer(sweeping->seqs[i])) };
		code = table_write(outbox->store, &query, err);
		removed += (uint64_t)query.changed;
	}
	TRY(outbox_end(outbox, code, err));
	*count += removed;
	return EVBUS_OK;
}

enum evbus_code outbox_sweep(struct evbus_outbox *outbox, int64_t before_us, bool dry_run, uint64_t *count,
			     struct evbus_err *err)
{
	struct sweeping sweeping = { .outbox = outbox, .before_us = before_us, .last = INT64_MIN };
	uint64_t removed = 0;

	TRY(outbox_look(outbox, err));
	if (!outbox_has(outbox, OUTBOX_SENT_AT))
		return err_set(
			err, EVBUS_CONFIG, 0,
			"the table '%s' of the outbox '%s' has no column that says when a row was sent: say by --map "
			"sent_at=COLUMN what it is called there",
			outbox->map.table, outbox->name);
	do {
		sweeping.seen = sweeping.count = 0;
		struct query query = { .sql = outbox->sql[OUTBOX_SQL_SWEEP],
				       ARGS(value_integer(sweeping.last), value_integer(SWEEP_ROWS)),
				       .row = take_old,
				       .context = &sweeping };
		TRY(outbox_read(outbox, &query, err));
		if (dry_run)
			removed += sweeping.count;
		else
			TRY(remove_old(&sweeping, &removed, err));
	} while (sweeping.seen == SWEEP_ROWS);
	*count = removed;
	return EVBUS_OK;
}
