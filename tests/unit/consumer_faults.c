/* Whatever call fails, once or from then on: no event is lost or passed, and the next consumer goes on. */
#include "consumer_helpers.h"
#include "faulty.h"

TestSuite(consumer_faults, .init = enter, .fini = leave, .timeout = 60);

#define EVENTS 12
#define STEPS (stored_on_server() ? 12 : 60) /* calls that are made to fail, of all that there are */

static unsigned times_done[EVENTS];

/* As far as it gets; the code of what stopped it. */
static enum evbus_code consume(void)
{
	struct evbus_consumer_options options = OPTIONS(.inbox = true, .concurrency = 3, .commit_every = 4);
	struct evbus_consumer *consumer;
	struct evbus_delivery *delivery;
	enum evbus_code code = evbus_consumer_open(bus, &options, &consumer, &err);

	if (code)
		return code;
	while (!code && !evbus_consumer_finished(consumer)) {
		code = evbus_consumer_next(consumer, 0, &delivery, &err);
		if (code || !delivery)
			continue;
		int n = number_of(delivery);
		if (n % 5 == 2 && delivery->attempt < 3) {
			code = evbus_consumer_failed(consumer, delivery, EVBUS_REASON_RETRIES, SLICE("x"), NULL, &err);
			continue;
		}
		times_done[n]++;
		code = evbus_consumer_done(consumer, delivery, &err);
	}
	evbus_consumer_close(consumer);
	return code;
}

static void begin_anew(void)
{
	memset(times_done, 0, sizeof times_done);
	if (stored_is_there(STATE))
		sql("DELETE FROM checkpoints; DELETE FROM inbox; DELETE FROM retries; DELETE FROM dlq");
}

static void check_all(unsigned at)
{
	for (int i = 0; i < EVENTS; i++)
		cr_assert(times_done[i] >= 1, "event %d is lost where call %u (%s) failed", i, at, faulty.failed);
	cr_assert_eq(stored(), EVENTS);
	cr_assert(count_of("inbox") == EVENTS && count_of("retries") == 0 && count_of("dlq") == 0);
}

static void sweep(bool from_on)
{
	unsigned calls, failures = 0;

	faulty_begin(0, 0);
	begin_anew();
	faulty.calls = 0;
	OK(consume());
	calls = faulty.calls;
	faulty_end();
	for (unsigned at = 1; at <= calls; at += calls / STEPS + 1) {
		begin_anew();
		faulty_begin(at, at % 2 ? EIO : ENOMEM);
		faulty.from_on = from_on;
		failures += consume() != EVBUS_OK;
		faulty_end();
		OK(consume());
		check_all(at);
	}
	cr_assert(failures > STEPS / 4, "%u of %u", failures, calls);
}

Test(consumer_faults, one_call_that_fails_loses_no_event)
{
	publish(0, EVENTS);
	sweep(false);
}

Test(consumer_faults, calls_that_fail_from_then_on_lose_no_event)
{
	publish(0, EVENTS);
	sweep(true);
}
