/* outbox_drain.c: evbus outbox-drain
 *
 * A worker claims a batch, publishes and marks it, and comes again, until there is nothing more to be waited for. With
 * --concurrency several do so side by side, each with a bus and an outbox of its own, as handles belong to one thread;
 * that no two of them take rows of one key is the work of the leases, as it is between processes. */
#include "out.h"
#include "outboxes.h"
#include "pace.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define BATCH_MAX 4096
#define CONCURRENCY_MAX 64
#define LEASE_MIN_MS 100
#define LEASE_MAX_MS 86400000
#define INTERVAL_MIN_MS 10
/* A bounded drain that waits for the lease of another looks soon, then less and less often. */
#define LOOK_MIN_MS 10
#define FINISHED (-1)

struct args {
	struct common common;
	struct outbox_args outbox;
	const char *to_bus;
	bool follow, dry_run;
	int64_t batch, concurrency, max;
	struct duration lease, interval, timeout;
	struct retry_args retry;
	struct size max_payload;
	struct record_format format;
};

COMMAND(outbox_drain,
	.summary = "publish the rows of an outbox, each once, and print a receipt for each",
	.must_print = true,
	.opts = OPTS(
		OPT('f', follow, "", "go on with rows that are added later"),
		OPT(0, batch, "N", "claim so many rows at once", .preset = "4000", .min = 1, .max = BATCH_MAX, .env = true),
		OPT(0, concurrency, "N", "publish batches side by side", .preset = "1", .min = 1, .max = CONCURRENCY_MAX,
		    .env = true),
		OPT(0, lease, "DURATION", "how long a batch may take before another drainer takes it", .preset = "30s",
		    .env = true),
		OPT(0, interval, "DURATION", "look for rows so often where there are none", .preset = "1s", .env = true),
		RETRY_OPTS,
		OPT(0, max, "N", "stop when so many rows are SENT or FAILED", .min = 1),
		OPT(0, timeout, "DURATION", "give up after this time, with 75", .unset = -1),
		MAX_PAYLOAD_OPT,
		OPT(0, to_bus, "URL", "publish to this bus; the other one only says where the store is"),
		OPT(0, dry_run, "", "print how many rows would be claimed now, and claim none"),
		RECORD_FORMAT_OPT, OUTBOX_OPTS,
		OPT('q', common.quiet, "", "print no receipts, and on stderr only warnings and errors"),
		BUS_OPTS,
		OPT(0, common.log, "text|json", "how to talk on stderr", .words = "text|json", .preset = "text",
		    .env = true),
		OPT('v', common.verbose, "", "say more on stderr"),
		OPT('h', common.help, "", "print this help")),
	.statuses = STATUSES(
		{ EVBUS_NO, "rows were refused and are FAILED; the others are published" },
		{ EVBUS_NONE, "there is no such database or table: run outbox-init" },
		{ EVBUS_UNAVAILABLE, "the bus is away; what has no receipt is as it was, and no attempt was counted" },
		{ EVBUS_AGAIN, "the time of --timeout is over, or a lock or the database is held too long" }),
	.examples = EXAMPLES(
		{ "evbus outbox-init -q --outbox sqlite:app.db >/dev/null; "
		  "printf '{\"id\":\"o-1\",\"type\":\"order.placed\"}\\n{\"id\":\"o-2\",\"type\":\"order.placed\"}\\n' | "
		  "evbus outbox-add --outbox sqlite:app.db -t orders >/dev/null; "
		  "evbus outbox-drain --outbox sqlite:app.db --dry-run",
		  "2" },
		{ "evbus outbox-drain --outbox sqlite:app.db --format '{offset} {event_id}\\n'", "0 o-1\n1 o-2" },
		{ "evbus outbox-drain --outbox sqlite:app.db", "" }));

/* What the workers share. */
struct drain {
	const struct args *args;
	struct call *call;
	int64_t up_to_seq;           /* where it ends, unless it follows */
	int64_t deadline_ms;
	int over;                    /* an eventfd that can be read once one of them has failed */
	pthread_mutex_t mutex;       /* for stdout, and what follows */
	struct evbus_drain_result sum;
	int64_t left;                /* of --max */
	int64_t away;                /* how many of them find the bus away */
	enum evbus_code code;        /* of the first that failed */
};

struct worker {
	struct drain *drain;
	struct call call;            /* with an err of its own */
	pthread_t thread;
	struct evbus *bus, *to;      /* to: of --to-bus, or NULL */
	struct evbus_outbox *outbox;
	int64_t look_ms;
	int64_t failures;            /* of the bus, one after the other; 0: it is there */
	bool unprinted;              /* stdout cannot be written */
};

static int64_t smaller(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* ---- stdout ---------------------------------------------------------------------------------------------------- */

static enum evbus_code print_receipt(void *context, const struct evbus_record *receipt, struct evbus_err *err)
{
	struct worker *worker = context;
	struct drain *drain = worker->drain;

	if (drain->args->common.quiet)
		return EVBUS_OK;
	pthread_mutex_lock(&drain->mutex);
	enum evbus_code code = out_receipt(&worker->call, receipt);
	pthread_mutex_unlock(&drain->mutex);
	worker->unprinted = code != EVBUS_OK;
	if (err != &worker->call.err)
		*err = worker->call.err;
	return code;
}

static enum evbus_code flush(struct worker *worker)
{
	struct drain *drain = worker->drain;

	pthread_mutex_lock(&drain->mutex);
	enum evbus_code code = out_flush(&worker->call);
	pthread_mutex_unlock(&drain->mutex);
	return code;
}

/* Rows whose receipts nobody would see are better left alone. A pipe tells so before it is written. */
static enum evbus_code check_listener(struct worker *worker)
{
	struct pollfd fd = { .fd = STDOUT_FILENO };

	if (worker->drain->args->common.quiet || poll(&fd, 1, 0) <= 0 || !(fd.revents & POLLERR))
		return EVBUS_OK;
	errno = EPIPE;
	return fail_errno(&worker->call, EVBUS_IO, "cannot write to stdout");
}

static void refused(void *context, const struct evbus_outbox_row *row, bool dead, const char *error)
{
	struct worker *worker = context;

	talk(&worker->call, dead ? WARNING : NOTICE, "row %lld, '%.*s' for '%.*s', %s: %s", (long long)row->seq,
	     (int)row->id.len, row->id.data ? row->id.data : "", (int)row->topic.len,
	     row->topic.data ? row->topic.data : "", dead ? "has FAILED" : "was refused and is tried again", error);
}

/* ---- one batch ------------------------------------------------------------------------------------------------- */

/* How many rows may be claimed now; they are taken off what --max allows, so that no two workers claim the last. */
static uint32_t reserve(struct drain *drain)
{
	int64_t wanted = drain->args->batch;

	if (!drain->args->max)
		return (uint32_t)wanted;
	pthread_mutex_lock(&drain->mutex);
	wanted = smaller(wanted, drain->left);
	drain->left -= wanted;
	pthread_mutex_unlock(&drain->mutex);
	return (uint32_t)wanted;
}

static void count(struct drain *drain, uint32_t reserved, const struct evbus_drain_result *result)
{
	pthread_mutex_lock(&drain->mutex);
	drain->sum.sent += result->sent;
	drain->sum.duplicates += result->duplicates;
	drain->sum.retried += result->retried;
	drain->sum.failed += result->failed;
	drain->sum.lost += result->lost;
	drain->left += (int64_t)reserved - (int64_t)(result->sent + result->failed);
	pthread_mutex_unlock(&drain->mutex);
}

/* What passes by itself. What an operator has to mend (a log that was replaced, a permission) is better told by ending. */
static bool is_outage(enum evbus_code code)
{
	return code == EVBUS_UNAVAILABLE || code == EVBUS_IO || code == EVBUS_AGAIN;
}

/* With --follow: how long to wait before the next try. What many workers find is said once. */
static int64_t after_outage(struct worker *worker)
{
	struct drain *drain = worker->drain;
	const struct evbus_retry policy = retry_policy(&drain->args->retry);

	worker->failures++;
	pthread_mutex_lock(&drain->mutex);
	bool news = worker->failures == 1 && drain->away++ == 0;
	pthread_mutex_unlock(&drain->mutex);
	if (news)
		talk(&worker->call, WARNING, "%s; no attempt is counted, and it goes on when that is over",
		     worker->call.err.text);
	return evbus_retry_delay_ms(&policy, worker->failures);
}

static void outage_is_over(struct worker *worker)
{
	struct drain *drain = worker->drain;

	if (!worker->failures)
		return;
	worker->failures = 0;
	pthread_mutex_lock(&drain->mutex);
	bool news = --drain->away == 0;
	pthread_mutex_unlock(&drain->mutex);
	if (news)
		talk(&worker->call, NOTICE, "rows can be published again");
}

/* How long to wait after a batch, or FINISHED. */
static int64_t after_batch(struct worker *worker, const struct evbus_drain_result *result)
{
	const struct args *args = worker->drain->args;

	/* Where all rows are leased or wait, nobody has asked the bus. */
	if (result->claimed || result->next_due_ms < 0)
		outage_is_over(worker);
	if (result->claimed) {
		worker->look_ms = LOOK_MIN_MS;
		return 0;
	}
	if (!args->follow && result->next_due_ms < 0)
		return FINISHED;
	int64_t wait_ms = args->interval.ms;
	if (!args->follow) {
		wait_ms = smaller(wait_ms, worker->look_ms);
		worker->look_ms = 2 * wait_ms;
	}
	if (result->next_due_ms >= 0)
		wait_ms = smaller(wait_ms, result->next_due_ms);
	return wait_ms > 0 ? wait_ms : 1;
}

static bool is_late(const struct drain *drain)
{
	return drain->deadline_ms != INT64_MAX && monotonic_ms() >= drain->deadline_ms;
}

/* While another process is waited for. */
static bool go_on(void *context)
{
	const struct drain *drain = ((struct worker *)context)->drain;
	struct pollfd over = { .fd = drain->over, .events = POLLIN };

	return !stopped() && !is_late(drain) && poll(&over, 1, 0) == 0;
}

static enum evbus_code timed_out(struct worker *worker)
{
	struct drain *drain = worker->drain;

	pthread_mutex_lock(&drain->mutex);
	uint64_t sent = drain->sum.sent;
	pthread_mutex_unlock(&drain->mutex);
	return fail(&worker->call, EVBUS_AGAIN, "the time of --timeout is over, after %llu rows",
		    (unsigned long long)sent);
}

/* *wait_ms: until the next batch, or FINISHED. */
static enum evbus_code drain_batch(struct worker *worker, int64_t *wait_ms)
{
	struct drain *drain = worker->drain;
	const struct args *args = drain->args;
	uint32_t reserved = reserve(drain);
	const struct evbus_drain_options options = {
		.batch = reserved,
		.lease_ms = args->lease.ms,
		.retry = retry_policy(&args->retry),
		.bounded = !args->follow,
		.up_to_seq = drain->up_to_seq,
		.receipt = print_receipt,
		.refused = refused,
		.context = worker,
		.go_on = go_on,
		.go_on_context = worker,
	};
	struct evbus_drain_result result = { .claimed = 0 };

	*wait_ms = FINISHED;
	if (!reserved)
		return EVBUS_OK;
	TRY(check_listener(worker));
	enum evbus_code code = evbus_outbox_drain(worker->outbox, &options, &result, &worker->call.err);
	count(drain, reserved, &result);
	if (!code || !worker->unprinted) {
		struct evbus_err err = worker->call.err;
		TRY(flush(worker));
		worker->call.err = err;
	}
	if (code == EVBUS_AGAIN && worker->call.err.sys_errno == EINTR && !stopped() && is_late(drain))
		return timed_out(worker);
	if (code && (!args->follow || worker->unprinted || stopped() || !is_outage(code)))
		return code;
	*wait_ms = code ? after_outage(worker) : after_batch(worker, &result);
	return EVBUS_OK;
}

/* ---- workers --------------------------------------------------------------------------------------------------- */

static void worker_init(struct worker *worker, struct drain *drain)
{
	*worker = (struct worker){ .drain = drain, .call = *drain->call, .look_ms = LOOK_MIN_MS };
}

static enum evbus_code worker_open(struct worker *worker)
{
	const struct args *args = worker->drain->args;
	const struct evbus_options options = { .payload_max_bytes = (uint32_t)args->max_payload.bytes };

	TRY(bus_open(&worker->call, &options, &worker->bus));
	return outbox_open_to(&worker->call, worker->bus, &args->outbox, args->to_bus, options.payload_max_bytes,
			      &worker->to, &worker->outbox);
}

static void worker_release(struct worker *worker)
{
	outbox_cleanup(&worker->outbox);
	bus_cleanup(&worker->to);
	bus_cleanup(&worker->bus);
}

/* *over: another worker has failed, or we are asked to stop. */
static enum evbus_code wait_for_rows(struct worker *worker, int64_t wait_ms, bool *over)
{
	struct drain *drain = worker->drain;
	int64_t left = drain->deadline_ms == INT64_MAX ? INT64_MAX : drain->deadline_ms - monotonic_ms();
	bool told = false;

	if (left <= 0)
		return timed_out(worker);
	/* While the bus is away it is not rows that are waited for. */
	int heard = drain->args->follow && !worker->failures ? evbus_outbox_heard(worker->outbox, &told) : -1;
	wait_ms = told ? 0 : smaller(smaller(wait_ms, left), INT_MAX);
	*over = wait_readable_either(drain->over, heard, (int)wait_ms) == STOPPED || wait_readable(drain->over, 0) != TIMED_OUT;
	return EVBUS_OK;
}

static enum evbus_code work(struct worker *worker)
{
	int64_t wait_ms;
	bool over = false;

	if (!worker->outbox)
		TRY(worker_open(worker));
	while (!over) {
		TRY(drain_batch(worker, &wait_ms));
		if (wait_ms == FINISHED)
			break;
		TRY(wait_for_rows(worker, wait_ms, &over));
	}
	return EVBUS_OK;
}

/* Its failure is that of the drain if it is the first. */
static void *work_beside(void *context)
{
	struct worker *worker = context;
	struct drain *drain = worker->drain;
	enum evbus_code code = work(worker);

	if (!code)
		return NULL;
	pthread_mutex_lock(&drain->mutex);
	if (!drain->code) {
		drain->code = code;
		drain->call->err = worker->call.err;
	}
	pthread_mutex_unlock(&drain->mutex);
	if (eventfd_write(drain->over, 1))
		return NULL; /* it is full: it was written before */
	return NULL;
}

/* The first of the workers is this thread. */
static enum evbus_code work_together(struct drain *drain, struct worker *first)
{
	struct worker others[CONCURRENCY_MAX];
	size_t begun = 0, wanted = (size_t)drain->args->concurrency - 1;

	for (; begun < wanted; begun++) {
		worker_init(&others[begun], drain);
		int error = pthread_create(&others[begun].thread, NULL, work_beside, &others[begun]);
		if (error) {
			talk(drain->call, WARNING, "cannot start more than %zu workers: %s", begun + 1, strerror(error));
			break;
		}
	}
	work_beside(first);
	for (size_t i = 0; i < begun; i++) {
		pthread_join(others[i].thread, NULL);
		worker_release(&others[i]);
	}
	return drain->code;
}

/* ---- the command ----------------------------------------------------------------------------------------------- */

static enum evbus_code check_args(const struct args *args, struct call *call)
{
	if (args->lease.ms < LEASE_MIN_MS || args->lease.ms > LEASE_MAX_MS)
		return fail(call, EVBUS_USAGE, "option '--lease': a lease is from 100ms to 1d");
	if (args->interval.ms < INTERVAL_MIN_MS)
		return fail(call, EVBUS_USAGE, "option '--interval': it is at least 10ms");
	return EVBUS_OK;
}

static enum evbus_code print_claimable(struct call *call, struct evbus_outbox *outbox)
{
	struct evbus_outbox_counts counts;

	TRY(evbus_outbox_count(outbox, &counts, &call->err));
	out_printf("%lld\n", (long long)counts.claimable);
	return out_flush(call);
}

/* What came of it all; a failure that is on its way outweighs it. */
static enum evbus_code sum_up(struct drain *drain, enum evbus_code code)
{
	const struct evbus_drain_result *sum = &drain->sum;
	const char *outbox = drain->args->outbox.outbox;
	struct call *call = drain->call;
	char advice[MASKED_MAX_BYTES + 128], shown[MASKED_MAX_BYTES] = "";

	talk(call, DETAIL, "%llu rows are published, %llu of them were on the bus before; %llu refusals are tried again",
	     (unsigned long long)sum->sent, (unsigned long long)sum->duplicates, (unsigned long long)sum->retried);
	if (sum->lost)
		talk(call, WARNING,
		     "the lease on %llu rows ran out before they were marked: another drainer takes them, and nothing is "
		     "published twice; a longer --lease or a smaller --batch spares that",
		     (unsigned long long)sum->lost);
	if (!sum->failed)
		return code;
	if (outbox)
		mask_secrets(outbox, shown);
	snprintf(advice, sizeof advice, "%llu %s FAILED; see 'evbus dlq-list%s%s'%s", (unsigned long long)sum->failed,
		 sum->failed == 1 ? "row has" : "rows have", outbox ? " --outbox " : "", shown,
		 drain->args->outbox.map ? " with the same --map" : "");
	if (!code)
		return fail(call, EVBUS_NO, "%s", advice);
	talk(call, WARNING, "%s", advice);
	return code;
}

static void drain_release(struct drain *drain)
{
	if (drain->over >= 0)
		close(drain->over);
	pthread_mutex_destroy(&drain->mutex);
}

/* Opens the outbox and looks how far to go. *done: there is no more to do. */
static enum evbus_code begin(struct drain *drain, struct worker *first, bool *done)
{
	const struct args *args = drain->args;

	TRY(worker_open(first));
	*done = args->dry_run;
	if (args->dry_run)
		return print_claimable(&first->call, first->outbox);
	if (args->timeout.ms >= 0 && args->timeout.ms < INT64_MAX - monotonic_ms())
		drain->deadline_ms = monotonic_ms() + args->timeout.ms;
	if (args->follow)
		return EVBUS_OK;
	TRY(evbus_outbox_last_seq(first->outbox, &drain->up_to_seq, &first->call.err));
	*done = drain->up_to_seq == INT64_MIN;
	return EVBUS_OK;
}

static enum evbus_code outbox_drain_run(struct args *args, struct call *call)
{
	CLEANUP(drain_release) struct drain drain = { .args = args, .call = call, .left = args->max,
						      .deadline_ms = INT64_MAX, .over = -1,
						      .mutex = PTHREAD_MUTEX_INITIALIZER };
	CLEANUP(worker_release) struct worker first = { .drain = &drain };
	bool done;

	TRY(check_args(args, call));
	TRY(out_format_of(call, args->format, args->to_bus ? args->to_bus : args->common.bus));
	drain.over = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (drain.over < 0)
		return fail_errno(call, EVBUS_IO, "cannot make an event descriptor");
	worker_init(&first, &drain);
	enum evbus_code code = begin(&drain, &first, &done);
	if (code)
		call->err = first.call.err;
	if (code || done)
		return code;
	return sum_up(&drain, work_together(&drain, &first));
}
