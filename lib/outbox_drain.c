/* outbox_drain.c: claim, publish, mark.
 *
 * A batch is claimed in one short transaction and marked in another; between them nothing of the database is held. Who
 * dies in between leaves leases that run out, and rows that may be on the log already: they are published again by
 * their event keys, which makes that invisible there. */
#include "outbox_table.h"

#include "base/hash.h"
#include "base/os.h"
#include "delivery/retry.h"
#include "event/history.h"
#include "publisher.h"
#include "store/claim.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define BATCH_DEFAULT 4000u
#define LEASE_DEFAULT_MS 30000
#define MARGIN 10 /* of a lease, one part in so many is left for the clocks to be wrong */

/* ---- marking --------------------------------------------------------------------------------------------------- */

struct marking {
	struct evbus_outbox *outbox;
	struct outbox_batch *batch;
	char now[28];
	bool singly; /* one row at a time */
};

static enum evbus_code update(struct marking *marking, enum outbox_sql update, const struct value set[OUTBOX_SETS],
			      struct outbox_job *jobs, size_t count, struct evbus_err *err)
{
	const struct outbox_rows rows = { jobs[0].held.row.seq, jobs[count - 1].held.row.seq, jobs[0].from };
	int64_t changed;

	TRY(outbox_update(marking->outbox, update, set, &rows, marking->batch->owner, &changed, err));
	if (changed != (int64_t)count && count > 1)
		return EVBUS_NO;
	for (size_t i = 0; i < count; i++)
		jobs[i].marked = changed > 0;
	return EVBUS_OK;
}

/* As it is printed, around the offset. */
static void format_receipt(const struct evbus_record *record, char begin[512], char end[128])
{
	const char *quote = record->offset.data ? "\"" : "";

	snprintf(begin, 512, "{\"topic\":\"%.*s\",\"partition_id\":%" PRId32 ",\"offset_kind\":\"%s\",\"offset\":%s",
		 (int)record->topic.len, record->topic.data, record->partition_id, record->offset_kind,
		 record->offset.data ? quote : "null");
	snprintf(end, 128, "%s,\"published_at_utc\":\"%.*s\"%s}", quote, (int)record->published_at_utc.len,
		 record->published_at_utc.data, record->duplicate ? ",\"duplicate\":true" : "");
}

/* Of jobs whose receipts are one text around offsets that go up with seq. */
static enum evbus_code mark_done(struct marking *marking, struct outbox_job *jobs, size_t count, struct evbus_err *err)
{
	const struct evbus_record *receipt = &jobs[0].receipt;
	char begin[512], end[128];
	struct value set[OUTBOX_SETS] = {
		[OUTBOX_STATE] = outbox_state_value(marking->outbox, EVBUS_OUTBOX_SENT),
		[OUTBOX_SENT_AT] = value_text(marking->now),
	};

	format_receipt(receipt, begin, end);
	if (count > 1 && receipt->offset.data) {
		set[OUTBOX_RECEIPT_NUMBER] = value_integer(jobs[0].offset - jobs[0].held.row.seq);
	} else if (receipt->offset.data) {
		size_t len = strlen(begin);
		snprintf(begin + len, sizeof begin - len, "%.*s", (int)receipt->offset.len, receipt->offset.data);
	}
	set[OUTBOX_RECEIPT] = value_text(begin);
	set[OUTBOX_RECEIPT_END] = value_text(end);
	return update(marking, OUTBOX_SQL_SENT, set, jobs, count, err);
}

static enum evbus_code mark_refused(struct marking *marking, struct outbox_job *job, struct evbus_err *err)
{
	bool dead = job->fate == OUTBOX_DEAD;
	char due[28];
	struct value set[OUTBOX_SETS] = {
		[OUTBOX_STATE] = outbox_state_value(marking->outbox, dead ? EVBUS_OUTBOX_FAILED : EVBUS_OUTBOX_PENDING),
		[OUTBOX_ATTEMPTS] = value_integer(job->held.row.attempts + 1),
		[OUTBOX_ERROR] = value_text(job->error),
		[OUTBOX_HISTORY] = value_slice((struct evbus_slice){ job->history.data, job->history.len }),
	};

	evbus_time_format(job->due_us, due);
	if (!dead)
		set[OUTBOX_DUE] = value_text(due);
	return update(marking, OUTBOX_SQL_REFUSED, set, job, 1, err);
}

static enum evbus_code give_back(struct marking *marking, struct outbox_job *job, struct evbus_err *err)
{
	const struct value set[OUTBOX_SETS] = {
		[OUTBOX_STATE] = outbox_state_value(marking->outbox, EVBUS_OUTBOX_PENDING),
	};

	return outbox_has_leases(marking->outbox) ? update(marking, OUTBOX_SQL_BACK, set, job, 1, err) : EVBUS_OK;
}

static bool same_text(struct evbus_slice a, struct evbus_slice b)
{
	return a.len == b.len && !memcmp(a.data, b.data, a.len);
}

/* Where there are none at all, one is like the other. */
static bool has_next_offset(const struct outbox_job *job)
{
	if (!job->receipt.offset.data || !job[-1].receipt.offset.data)
		return job->receipt.offset.data == job[-1].receipt.offset.data;
	return job[-1].offset >= 0 && job->offset == job[-1].offset + 1;
}

/* The receipt is that of the job before with the next offset. */
static bool goes_on(const struct outbox_job *job)
{
	const struct evbus_record *before = &job[-1].receipt, *receipt = &job->receipt;

	return job->fate == OUTBOX_DONE && has_next_offset(job) && receipt->partition_id == before->partition_id &&
	       receipt->duplicate == before->duplicate && same_text(receipt->topic, before->topic) &&
	       same_text(receipt->published_at_utc, before->published_at_utc);
}

/* Those that are done in one statement, as many as that can be. */
static enum evbus_code mark_some(struct marking *marking, size_t first, size_t *count, struct evbus_err *err)
{
	struct outbox_job *jobs = &marking->batch->jobs[first];
	size_t most = marking->singly ? 1 : outbox_run(marking->batch, first);

	*count = 1;
	switch (jobs[0].fate) {
	case OUTBOX_DONE:
		while (*count < most && goes_on(&jobs[*count]))
			++*count;
		return mark_done(marking, jobs, *count, err);
	case OUTBOX_REFUSED:
	case OUTBOX_DEAD:
		return mark_refused(marking, jobs, err);
	default:
		return give_back(marking, jobs, err);
	}
}

/* EVBUS_NO: of several rows not all are ours. */
static enum evbus_code mark_all(struct marking *marking, struct evbus_err *err)
{
	enum evbus_code code = EVBUS_OK;

	TRY(outbox_begin(marking->outbox, err));
	for (size_t i = 0, count; i < marking->batch->count && !code; i += count)
		code = mark_some(marking, i, &count, err);
	return outbox_end(marking->outbox, code, err);
}

static enum evbus_code write_histories(struct outbox_batch *batch, int64_t now_us, struct evbus_err *err)
{
	for (size_t i = 0; i < batch->count; i++) {
		struct outbox_job *job = &batch->jobs[i];
		struct evbus_slice error = { job->error, strlen(job->error) };
		if (job->fate == OUTBOX_REFUSED || job->fate == OUTBOX_DEAD)
			TRY(history_add(&job->history, job->held.row.history, job->held.row.attempts + 1, now_us,
					job->reason, error, err));
	}
	return EVBUS_OK;
}

/* Where the table has no columns for them. */
static enum evbus_code keep_counts(struct evbus_outbox *outbox, struct outbox_batch *batch, struct evbus_err *err)
{
	if (outbox_has_counts(outbox))
		return EVBUS_OK;
	for (size_t i = 0; i < batch->count; i++) {
		struct outbox_job *job = &batch->jobs[i];
		if (job->fate != OUTBOX_REFUSED && job->fate != OUTBOX_DEAD)
			continue;
		TRY(buf_add(&job->history, "", 1, err));
		job->history.len--;
		struct outbox_count count = { job->held.row.seq, job->held.row.attempts + 1, job->due_us, job->error,
					      job->history.data };
		TRY(outbox_counts_put(outbox, &count, 1, err));
	}
	return EVBUS_OK;
}

static enum evbus_code forget_counts(struct evbus_outbox *outbox, const struct outbox_batch *batch,
				     struct evbus_err *err)
{
	for (size_t i = 0; i < batch->count && !outbox_has_counts(outbox); i++) {
		int64_t seq = batch->jobs[i].held.row.seq;
		if (batch->jobs[i].fate == OUTBOX_DONE && outbox_counts_find(outbox, seq))
			TRY(outbox_counts_remove(outbox, &seq, 1, err));
	}
	return EVBUS_OK;
}

static void count_results(struct evbus_outbox *outbox, const struct outbox_batch *batch,
			  struct evbus_drain_result *result)
{
	for (size_t i = 0; i < batch->count; i++) {
		const struct outbox_job *job = &batch->jobs[i];
		bool tried = job->fate == OUTBOX_DONE || job->fate == OUTBOX_REFUSED || job->fate == OUTBOX_DEAD;
		result->lost += tried && !job->marked;
		if (!tried || !job->marked)
			continue;
		result->sent += job->fate == OUTBOX_DONE;
		result->duplicates += job->fate == OUTBOX_DONE && job->receipt.duplicate;
		result->retried += job->fate == OUTBOX_REFUSED;
		result->failed += job->fate == OUTBOX_DEAD;
		if (job->fate == OUTBOX_REFUSED && job->due_us < outbox->soonest_us)
			outbox->soonest_us = job->due_us;
	}
}

enum evbus_code outbox_mark(struct evbus_outbox *outbox, struct outbox_batch *batch, struct evbus_drain_result *result,
			    struct evbus_err *err)
{
	struct marking marking = { .outbox = outbox, .batch = batch };
	int64_t now_us = outbox_now_us(outbox);

	evbus_time_format(now_us, marking.now);
	TRY(write_histories(batch, now_us, err));
	TRY(keep_counts(outbox, batch, err));
	enum evbus_code code = mark_all(&marking, err);
	/* Which of them are not is seen one by one. */
	marking.singly = true;
	TRY(code == EVBUS_NO ? mark_all(&marking, err) : code);
	count_results(outbox, batch, result);
	return forget_counts(outbox, batch, err);
}

/* ---- a batch --------------------------------------------------------------------------------------------------- */

static void release_batch(struct outbox_batch *batch)
{
	for (size_t i = 0; i < batch->count; i++) {
		outbox_held_release(&batch->jobs[i].held);
		buf_release(&batch->jobs[i].history);
		free(batch->jobs[i].receipt_block);
	}
	free(batch->jobs);
	key_table_release(&batch->caught_up);
}

static enum evbus_code make_owner(struct evbus_outbox *outbox, struct evbus_err *err)
{
	char host[256] = "";
	uint64_t random;

	if (outbox->owner[0])
		return EVBUS_OK;
	if (os.getrandom(&random, sizeof random, 0) != sizeof random)
		return err_set(err, EVBUS_IO, errno, "cannot name the owner of a lease");
	if (gethostname(host, sizeof host - 1))
		snprintf(host, sizeof host, "unknown");
	snprintf(outbox->owner, sizeof outbox->owner, "%s:%d:%016" PRIx64 ":", host, (int)getpid(), random);
	return EVBUS_OK;
}

/* Before anything is claimed: a lease is never shorter than what we think. */
static enum evbus_code begin_batch(struct evbus_outbox *outbox, struct outbox_batch *batch, struct evbus_err *err)
{
	struct timespec boot = { 0 };
	int64_t time_us = batch->lease_ms * (1000 - 1000 / MARGIN);

	TRY(make_owner(outbox, err));
	int n = snprintf(batch->owner, sizeof batch->owner, "%s%" PRId64, outbox->owner, batch->lease_ms);
	if (n < 0 || (size_t)n >= sizeof batch->owner)
		return err_set(err, EVBUS_BUG, 0, "the name of the owner of a lease is too long");
	if (os.clock_gettime(CLOCK_BOOTTIME, &boot))
		return err_set(err, EVBUS_IO, errno, "cannot read the clock");
	batch->now_us = os_now_us();
	batch->deadline.utc_us = batch->now_us + time_us;
	batch->deadline.boottime_us = (int64_t)boot.tv_sec * 1000000 + boot.tv_nsec / 1000 + time_us;
	return EVBUS_OK;
}

static enum evbus_code tell(const struct outbox_batch *batch, struct evbus_err *err)
{
	const struct evbus_drain_options *options = batch->options;

	for (size_t i = 0; i < batch->count; i++) {
		struct outbox_job *job = &batch->jobs[i];
		bool dead = job->fate == OUTBOX_DEAD;
		if (!job->marked)
			continue;
		if (job->fate == OUTBOX_DONE && options->receipt)
			TRY(options->receipt(options->context, &job->receipt, err));
		if ((job->fate == OUTBOX_REFUSED || dead) && options->refused) {
			job->held.row.attempts++;
			job->held.row.state = dead ? EVBUS_OUTBOX_FAILED : EVBUS_OUTBOX_PENDING;
			options->refused(options->context, &job->held.row, dead, job->error);
		}
	}
	return EVBUS_OK;
}

/* The outage is what went wrong first; a failure to mark comes up only where there is no other. */
static enum evbus_code publish_and_mark(struct evbus_outbox *outbox, struct outbox_batch *batch,
					struct evbus_drain_result *result, struct evbus_err *err)
{
	struct evbus_err marking;

	os.point("outbox/claimed");
	enum evbus_code outage = outbox_publish(outbox, batch, err);
	os.point("outbox/published");
	enum evbus_code code = outbox_mark(outbox, batch, result, &marking);
	/* What was given back, or is another's, comes first the next time. */
	if (!outage && !code && !result->lost)
		outbox_pass_goes_on(outbox);
	if (code && !outage && err)
		*err = marking;
	result->outage = outage;
	if (!code)
		code = tell(batch, outage ? &marking : err);
	return outage ? outage : code;
}

static enum evbus_code claim(struct evbus_outbox *outbox, struct outbox_batch *batch, struct evbus_drain_result *result,
			     struct evbus_err *err)
{
	for (;;) {
		TRY(begin_batch(outbox, batch, err));
		TRY(outbox_claim(outbox, batch, err));
		if (!batch->behind)
			return EVBUS_OK;
		enum evbus_code code = outbox_catch_up(outbox, batch, err);
		result->outage = code;
		TRY(code);
		outbox_release_jobs(batch);
		outbox_pass_goes_on(outbox);
	}
}

static enum evbus_code drain(struct evbus_outbox *outbox, const struct evbus_drain_options *options,
			     struct evbus_drain_result *result, struct evbus_err *err)
{
	CLEANUP(release_batch) struct outbox_batch batch = { .options = options, .lease_ms = options->lease_ms };

	TRY(outbox_counts_load(outbox, err));
	enum evbus_code code = claim(outbox, &batch, result, err);
	if (code)
		outbox_close_publisher(outbox); /* it may have kept a failure for what is not published now */
	TRY(code);
	result->claimed = batch.count;
	return batch.count ? publish_and_mark(outbox, &batch, result, err) : EVBUS_OK;
}

/* ---- one drainer at a time ------------------------------------------------------------------------------------- */

static void release_claim(struct evbus_claim **claim)
{
	evbus_claim_release(*claim);
}

/* A name for its place that a file can have (FNV-1a). */
static void hash_place(const char *place, char name[24])
{
	snprintf(name, 24, "%016" PRIx64, hash_add(HASH_START, place, strlen(place)));
}

/* Without a place for leases in the table. */
static enum evbus_code claim_alone(struct evbus_outbox *outbox, struct evbus_claim **claim, struct evbus_err *err)
{
	const char *place;
	char name[24];

	if (outbox_has_leases(outbox))
		return EVBUS_OK;
	TRY(outbox_place(outbox, &place, err));
	hash_place(place, name);
	enum evbus_code code = evbus_claim_take(outbox->bus, "outbox", name, 0, claim, err);
	bool taken = true;
	if (!code && outbox->server)
		TRY(outbox_server_take(outbox, &taken, err));
	if (code == EVBUS_AGAIN || !taken)
		return err_set(err, EVBUS_AGAIN, 0,
			       "another process drains the outbox '%s', and without the columns lease_owner and "
			       "lease_expires_at only one can",
			       outbox->name);
	return code;
}

static enum evbus_code check_options(const struct evbus_drain_options *given, struct evbus_drain_options *options,
				     struct evbus_err *err)
{
	*options = given ? *given : (struct evbus_drain_options){ .retry = EVBUS_RETRY_DEFAULT };
	if (!options->batch)
		options->batch = BATCH_DEFAULT;
	if (!options->lease_ms)
		options->lease_ms = LEASE_DEFAULT_MS;
	if (options->lease_ms < 0 || options->lease_ms > OUTBOX_LEASE_MAX_MS)
		return err_set(err, EVBUS_USAGE, 0, "a lease is between 1 ms and %d h", OUTBOX_LEASE_MAX_MS / 3600000);
	return retry_check(&options->retry, err);
}

enum evbus_code evbus_outbox_drain(struct evbus_outbox *outbox, const struct evbus_drain_options *given,
				   struct evbus_drain_result *result, struct evbus_err *err)
{
	struct evbus_drain_options options;
	CLEANUP(release_claim) struct evbus_claim *claim = NULL;

	*result = (struct evbus_drain_result){ .next_due_ms = -1 };
	TRY(bus_check(outbox->bus, err));
	TRY(check_options(given, &options, err));
	TRY(outbox_look(outbox, err));
	if (!options.bounded)
		TRY(outbox_listen(outbox, err));
	if (outbox->server && !outbox->checked)
		TRY(outbox_server_check(outbox, err));
	outbox->checked = true;
	enum evbus_code code = outbox_open_publisher(outbox, err);
	result->outage = code;
	TRY(code);
	TRY(claim_alone(outbox, &claim, err));
	code = drain(outbox, &options, result, err);
	if (claim && outbox->server)
		outbox_server_give_back(outbox);
	if (outbox->soonest_us != INT64_MAX) {
		int64_t left_us = outbox->soonest_us - outbox_now_us(outbox);
		result->next_due_ms = left_us > 0 ? (left_us + 999) / 1000 : 0;
	}
	return code;
}
