/* Any call fails, of ours or of SQLite's, while events are published idempotently, and while an outbox is filled and
 * drained. */
#include "faulty.h"
#include "stores.h"
#include "sweep.h"

#include <criterion/criterion.h>

#define ROWS 4u

static struct evbus *bus;
static struct evbus_publisher *publisher;
static struct evbus_outbox *outbox;

static void setup(void)
{
	run_begin(IN_MEMORY);
	faulty_sqlite();
}

TestSuite(sweep_outbox, .init = setup, .fini = run_end, .timeout = 400);

static void only_open(void)
{
	bus = open_bus();
}

static void close_all(void)
{
	evbus_publisher_close(publisher);
	publisher = NULL;
	evbus_outbox_close(outbox);
	outbox = NULL;
	evbus_close(bus);
	bus = NULL;
}

/* ---- idempotent publishing ------------------------------------------------------------------------------------- */

static unsigned wanted[5];

/* The events of wanted, once more each time that it is called. */
static enum evbus_code publish_once(struct evbus_err *err)
{
	struct evbus_publisher_options options = { .idempotent = true };
	const struct evbus_record *receipt;
	unsigned count = 0;

	evbus_publisher_close(publisher);
	publisher = NULL;
	TRY(evbus_publisher_open(bus, &options, &publisher, err));
	for (unsigned i = 0; i < 5; i++) {
		struct evbus_event event = { .topic = TOPIC,
					     .payload = sweep_payload(wanted[i]),
					     .partition_id = EVBUS_PARTITION_ANY,
					     .tenant_id = SLICE("a tenant") };
		TRY(evbus_publisher_add(publisher, &event, err));
	}
	enum evbus_code code = evbus_publisher_flush(publisher, err);
	while ((receipt = evbus_publisher_next(publisher)))
		sweep_acknowledge_again(wanted[count++], receipt);
	CHECK(code || count == 5, "%u receipts", count);
	return code;
}

static void make_keys(void)
{
	make_topic(1, 0);
	for (unsigned i = 0; i < 5; i++)
		wanted[i] = sweep_submit(0);
	bus = open_bus();
	CHECK_OK(publish_once(ERR));
	close_all();
	sweep_publish_some(2);
}

/* Two that are there, and three that are new. */
static void want_more(void)
{
	for (unsigned i = 0; i < 3; i++)
		wanted[i] = sweep_submit(0);
	wanted[3] = 3;
	wanted[4] = 4;
	bus = open_bus();
}

Test(sweep_outbox, of_publishing_idempotently)
{
	sweep(&(struct operation){ "idempotent publish", want_more, publish_once, .others = sweep_others,
				   .finish = close_all, .make = make_keys, .uncertain = true, .store = true });
}

static void on_finding(void *context, const struct evbus_finding *finding)
{
	(void)context;
	CHECK(finding->severity == EVBUS_NOTE || strstr(finding->text, strerror(EIO)), "%s: %s", finding->what,
	      finding->text);
}

static enum evbus_code rebuild_keys(struct evbus_err *err)
{
	struct evbus_verify_options options = { .rebuild_keys = true,
						.finding = on_finding,
						.partition_id = EVBUS_PARTITION_ALL };
	struct evbus_verify_result result;

	TRY(evbus_verify(bus, TOPIC, &options, &result, err));
	return result.damages ? err_set(err, EVBUS_IO, EIO, "%llu damages", (unsigned long long)result.damages)
			      : EVBUS_OK;
}

/* What was there is known to be there. */
static void publish_known(void)
{
	for (unsigned i = 0; i < 5; i++)
		wanted[i] = i;
	bus = open_bus();
	CHECK_OK(publish_once(ERR));
	close_all();
	sweep_check_log();
}

Test(sweep_outbox, of_rebuilding_the_index_of_keys)
{
	sweep(&(struct operation){ "verify --rebuild-keys", only_open, rebuild_keys, .others = sweep_others,
				   .finish = close_all, .check = publish_known, .make = make_keys, .uncertain = true,
				   .store = true });
}

/* ---- filling an outbox ----------------------------------------------------------------------------------------- */

/* In the store, as a script has it that has no database of its own. */
static enum evbus_code open_outbox(struct evbus_err *err)
{
	return outbox ? EVBUS_OK : evbus_outbox_open(bus, NULL, NULL, &outbox, err);
}

static enum evbus_code add_row(unsigned event, struct evbus_err *err)
{
	struct evbus_outbox_row row = { .topic = SLICE(TOPIC),
					.event_type = SLICE("t"),
					.payload = sweep_payload(event),
					.partition_key = event % 2 ? SLICE("k") : (struct evbus_slice){ NULL, 0 } };

	return evbus_outbox_add(outbox, &row, err);
}

static enum evbus_code add_pair(struct evbus_err *err)
{
	TRY(evbus_outbox_begin(outbox, err));
	enum evbus_code code = add_row(sweep_submit(0), err);
	if (!code)
		code = add_row(sweep_submit(0), err);
	enum evbus_code ended = evbus_outbox_end(outbox, !code, code ? NULL : err);
	return code ? code : ended;
}

static enum evbus_code count_row(void *context, const struct evbus_outbox_row *row, struct evbus_err *err)
{
	(void)row;
	(void)err;
	++*(unsigned *)context;
	return EVBUS_OK;
}

static enum evbus_code fill_outbox(struct evbus_err *err)
{
	struct evbus_outbox_filter filter = { .state = -1 };
	struct evbus_outbox_counts counts;
	unsigned rows = 0;
	bool made, wal;

	TRY(open_outbox(err));
	TRY(evbus_outbox_init(outbox, &made, &wal, err));
	TRY(add_pair(err));
	TRY(evbus_outbox_list(outbox, &filter, count_row, &rows, err));
	CHECK(rows >= 2 && rows % 2 == 0, "%u rows", rows);
	TRY(evbus_outbox_count(outbox, &counts, err));
	CHECK(counts.rows[EVBUS_OUTBOX_PENDING] == rows && counts.claimable > 0, "%lld rows are pending",
	      (long long)counts.rows[EVBUS_OUTBOX_PENDING]);
	return EVBUS_OK;
}

static void make_log(void)
{
	make_topic(1, 0);
	sweep_publish_some(2);
}

static void check_pairs(void)
{
	CHECK(ask_db(STATE_DB, "SELECT count(*) %% 2 FROM outbox") == 0, "there is half a transaction");
}

Test(sweep_outbox, of_filling_an_outbox)
{
	sweep(&(struct operation){ "outbox-init, -add and -list", only_open, fill_outbox, .others = sweep_others,
				   .finish = close_all, .check = check_pairs, .make = make_log, .store = true });
}

/* ---- draining -------------------------------------------------------------------------------------------------- */

/* Once the fault is gone, the leases of who gave nothing back are over. */
static int64_t later_us;

static int clock_later(clockid_t clock, struct timespec *now)
{
	int rc = clock_gettime(clock, now);

	now->tv_sec += later_us / 1000000;
	return rc;
}

static void make_rows(void)
{
	make_log();
	bus = open_bus();
	bool made, wal;
	CHECK_OK(open_outbox(ERR));
	CHECK_OK(evbus_outbox_init(outbox, &made, &wal, ERR));
	for (unsigned i = 0; i < ROWS / 2; i++)
		CHECK_OK(add_pair(ERR));
	close_all();
}

static void begin_draining(void)
{
	later_us = 0;
	os.clock_gettime = clock_later;
	only_open();
}

static enum evbus_code take_receipt(void *context, const struct evbus_record *receipt, struct evbus_err *err)
{
	(void)context;
	(void)err;
	sweep_acknowledge_again(sweep_event_of(receipt), receipt);
	return EVBUS_OK;
}

static void on_refused(void *context, const struct evbus_outbox_row *row, bool dead, const char *error)
{
	(void)context;
	CHECK(false, "row %lld was refused (%d): %s", (long long)row->seq, dead, error);
}

static enum evbus_code drain(struct evbus_err *err)
{
	struct evbus_drain_options options = { .receipt = take_receipt,
					       .refused = on_refused,
					       .retry = EVBUS_RETRY_DEFAULT };
	struct evbus_drain_result result = { .claimed = 1 };

	TRY(open_outbox(err));
	while (result.claimed)
		TRY(evbus_outbox_drain(outbox, &options, &result, err));
	return EVBUS_OK;
}

static enum evbus_code drain_later(struct evbus_err *err)
{
	later_us = 3600000000;
	return drain(err);
}

static void check_drained(void)
{
	CHECK(ask_db(STATE_DB,
		     "SELECT count(*) FROM outbox WHERE state = 'SENT' AND attempts = 0 AND receipt IS NOT NULL") ==
		      ROWS,
	      "not every row is sent");
}

Test(sweep_outbox, of_draining_an_outbox)
{
	sweep(&(struct operation){ "outbox-drain", begin_draining, drain, drain_later, .others = sweep_others,
				   .finish = close_all, .check = check_drained, .make = make_rows, .uncertain = true,
				   .store = true });
}
