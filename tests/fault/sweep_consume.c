/* Any call fails, of ours or of SQLite's, while a group consumes, its dead letters are retried, and what is old is
 * removed. */
#include "faulty.h"
#include "stores.h"
#include "sweep.h"

#include "consumer.h"

#include <criterion/criterion.h>

#define EVENTS 8u
#define REFUSED 5u

static struct evbus *bus;
static struct evbus_consumer *consumer;

/* What the handlers did: to be there when a case begins, and when what each gets a copy of was made. */
static struct handled {
	unsigned done, failed, refused;
} handled[SWEEP_EVENTS_MAX], made_handled[SWEEP_EVENTS_MAX];

static void setup(void)
{
	run_begin(IN_MEMORY);
	faulty_sqlite();
}

TestSuite(sweep_consume, .init = setup, .fini = run_end, .timeout = 400);

static void begin(void)
{
	memcpy(handled, made_handled, sizeof handled);
	bus = open_bus();
}

static void close_all(void)
{
	evbus_consumer_close(consumer);
	consumer = NULL;
	evbus_close(bus);
	bus = NULL;
}

static void make_log(void)
{
	make_topic(1, 0);
	sweep_publish_some(EVENTS);
}

/* ---- consuming ------------------------------------------------------------------------------------------------- */

static enum evbus_code open_consumer(struct evbus_err *err)
{
	struct evbus_consumer_options options = { .group = "g",
						  .topic = TOPIC,
						  .partition_id = EVBUS_PARTITION_ALL,
						  .inbox = true,
						  .retry = { .max = 2, .factor = 1 },
						  .concurrency = 2,
						  .commit_every = 2 };

	return consumer ? EVBUS_OK : evbus_consumer_open(bus, &options, &consumer, err);
}

/* Every third event fails twice, one is refused, unless it is a dead letter that was queued. */
static enum evbus_code handle(struct evbus_delivery *delivery, struct evbus_err *err)
{
	unsigned event = sweep_event_of(delivery->record);
	struct handled *here = &handled[event];

	if (event % 3 == 1 && delivery->attempt < 3) {
		here->failed++;
		return evbus_consumer_failed(consumer, delivery, EVBUS_REASON_RETRIES, SLICE("it broke"), NULL, err);
	}
	if (event == REFUSED && !delivery->letter) {
		here->refused++;
		return evbus_consumer_refused(consumer, delivery, EVBUS_REASON_REFUSED, SLICE("no good"), err);
	}
	here->done++;
	return evbus_consumer_done(consumer, delivery, err);
}

static enum evbus_code consume(struct evbus_err *err)
{
	struct evbus_delivery *delivery;

	TRY(open_consumer(err));
	while (!evbus_consumer_finished(consumer)) {
		TRY(evbus_consumer_next(consumer, 0, &delivery, err));
		if (delivery)
			TRY(handle(delivery, err));
	}
	return evbus_consumer_commit(consumer, err);
}

/* Who could not read a record gives out no more; whatever else has failed can be done again. */
static enum evbus_code consume_on(struct evbus_err *err)
{
	if (consumer && consumer->failure.code) {
		CHECK(consume(err) == consumer->failure.code, "a failure to read was forgotten");
		evbus_consumer_close(consumer);
		consumer = NULL;
	}
	return consume(err);
}

static enum evbus_code consume_anew(struct evbus_err *err)
{
	evbus_consumer_close(consumer);
	consumer = NULL;
	return consume(err);
}

static void check_store_of_consumer(void)
{
	CHECK(ask_db(STATE_DB, "SELECT next_offset FROM checkpoints WHERE group_name = 'g'") >= EVENTS,
	      "the checkpoint is behind");
	CHECK(ask_db(STATE_DB, "SELECT count(*) FROM retries") == 0, "a retry is left");
	CHECK(ask_db(STATE_DB, "SELECT count(*) FROM dlq") == 1 &&
		      ask_db(STATE_DB, "SELECT event_id FROM dlq") == REFUSED,
	      "not one dead letter for one event");
	CHECK(ask_db(STATE_DB, "SELECT count(*) FROM inbox") >= EVENTS - 1, "the inbox has not all that is done");
}

/* slack: an event may be done once more. An attempt may always be, once more than it is counted: where it cannot be noted
 * that it failed, the event comes again. */
static void check_handled(unsigned slack)
{
	for (unsigned i = 0; i < EVENTS; i++) {
		unsigned done = i != REFUSED, failed = i % 3 == 1 ? 2 : 0, refused = i == REFUSED;
		CHECK(handled[i].done >= done && handled[i].done <= done + slack * done, "event %u was done %u times",
		      i, handled[i].done);
		CHECK(handled[i].failed >= failed && handled[i].failed <= failed + 1, "event %u failed %u times", i,
		      handled[i].failed);
		CHECK(handled[i].refused >= refused && handled[i].refused <= refused + 1,
		      "event %u was refused %u times", i, handled[i].refused);
	}
	check_store_of_consumer();
}

static void check_consumed(void)
{
	check_handled(0);
}

static void check_consumed_anew(void)
{
	check_handled(1);
}

Test(sweep_consume, of_consuming)
{
	sweep(&(struct operation){ "consume", begin, consume, .again = consume_on, .others = sweep_others,
				   .finish = close_all, .check = check_consumed, .make = make_log, .uncertain = true,
				   .store = true });
}

Test(sweep_consume, of_consuming_and_opening_anew)
{
	sweep(&(struct operation){ "consume, and begin anew", begin, consume, .again = consume_anew,
				   .others = sweep_others, .finish = close_all, .check = check_consumed_anew,
				   .make = make_log, .uncertain = true, .store = true });
}

/* ---- dead letters ---------------------------------------------------------------------------------------------- */

static struct evbus_letter found;
static unsigned found_count;

static void make_letter(void)
{
	make_log();
	bus = open_bus();
	CHECK_OK(consume(ERR));
	memcpy(made_handled, handled, sizeof handled);
	close_all();
}

static enum evbus_code take_letter(void *context, const struct evbus_letter *letter, struct evbus_err *err)
{
	(void)context;
	(void)err;
	CHECK(letter->payload.len == sweep_payload(REFUSED).len, "the letter has another payload");
	found = *letter;
	found_count++;
	return EVBUS_OK;
}

static enum evbus_code find_letter(struct evbus_err *err)
{
	struct evbus_letter_filter filter = { .reason = -1, .state = -1 };

	found_count = 0;
	TRY(evbus_letter_list(bus, NULL, 0, &filter, take_letter, NULL, err));
	CHECK(found_count == 1, "%u letters", found_count);
	return EVBUS_OK;
}

static enum evbus_code retry_letter(struct evbus_err *err)
{
	TRY(find_letter(err));
	if (found.state == EVBUS_LETTER_DEAD)
		TRY(evbus_letter_change(bus, NULL, 0, found.id, EVBUS_LETTER_QUEUE, EVBUS_REASON_RETRIES, SLICE(""),
					"me", err));
	TRY(consume(err));
	TRY(find_letter(err));
	CHECK(found.state == EVBUS_LETTER_RETRIED, "the letter is %s", evbus_letter_state_name(found.state));
	return EVBUS_OK;
}

static void check_letter(void)
{
	CHECK(handled[REFUSED].done >= 1 && handled[REFUSED].done <= 2, "the letter was handled %u times",
	      handled[REFUSED].done);
	check_store_of_consumer();
}

Test(sweep_consume, of_retrying_a_dead_letter)
{
	sweep(&(struct operation){ "dead letter and dlq-retry", begin, retry_letter, .others = sweep_others,
				   .finish = close_all, .check = check_letter, .make = make_letter, .uncertain = true,
				   .store = true });
}

static enum evbus_code change_letter(struct evbus_err *err)
{
	const char *const ids[] = { found.id };
	enum evbus_code code;

	TRY(find_letter(err));
	if (found.state == EVBUS_LETTER_DEAD)
		TRY(evbus_letter_change_all(bus, NULL, 0, ids, 1, EVBUS_LETTER_DISCARD, "me", &code, err));
	TRY(find_letter(err));
	CHECK(found.state == EVBUS_LETTER_DISCARDED, "the letter is %s", evbus_letter_state_name(found.state));
	TRY(evbus_letter_change(bus, NULL, 0, found.id, EVBUS_LETTER_UNDO, EVBUS_REASON_RETRIES, SLICE(""), "me", err));
	return evbus_letter_change(bus, NULL, 0, found.id, EVBUS_LETTER_FAIL, EVBUS_REASON_RETRIES, SLICE("no"), "me",
				   err);
}

Test(sweep_consume, of_changing_a_dead_letter)
{
	sweep(&(struct operation){ "dlq-discard", begin, change_letter, .others = sweep_others, .finish = close_all,
				   .make = make_letter, .uncertain = true, .store = true });
}

/* ---- retention ------------------------------------------------------------------------------------------------- */

static void make_old_rows(void)
{
	make_letter();
	bus = open_bus();
	CHECK_OK(retry_letter(ERR));
	close_all();
}

static enum evbus_code remove_old_rows(struct evbus_err *err)
{
	int64_t soon = os_now_us() + 1000000;
	struct evbus_sweep_options options = { .inbox_before_us = soon, .letters_before_us = soon };
	struct evbus_sweep_result result;

	return evbus_sweep(bus, NULL, 0, &options, &result, err);
}

static void check_removed(void)
{
	CHECK(ask_db(STATE_DB, "SELECT count(*) FROM inbox") == 0 && ask_db(STATE_DB, "SELECT count(*) FROM dlq") == 0,
	      "something is left");
}

Test(sweep_consume, of_retention)
{
	sweep(&(struct operation){ "sweep", begin, remove_old_rows, .others = sweep_others, .finish = close_all,
				   .check = check_removed, .make = make_old_rows, .uncertain = true, .store = true });
}
