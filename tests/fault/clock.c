/* The clock of the machine goes where it likes: publish times never decrease. */
#include "fault.h"

#include <criterion/criterion.h>

static void setup(void)
{
	run_begin(IN_MEMORY);
	notes_new(4, 2000, 0, 1);
	plan = (struct plan){ 0 };
}

TestSuite(clock, .init = setup, .fini = run_end, .timeout = 60);

static int64_t shift_s;

static int shifted(clockid_t clock, struct timespec *now)
{
	int result = clock_gettime(clock, now);

	if (clock == CLOCK_REALTIME)
		now->tv_sec += shift_s;
	return result;
}

static unsigned notices;

static void count_notice(void *context, const char *text)
{
	(void)context;
	notices += strstr(text, "the clock is") != NULL;
}

static struct evbus *open_with_notices(void)
{
	struct evbus_options options = { .notice = count_notice };
	struct evbus *bus;

	os.clock_gettime = shifted;
	CHECK_OK(evbus_open("file:bus", &options, &bus, ERR));
	return bus;
}

Test(clock, that_was_in_2099_and_came_back_leaves_times_that_never_decrease_and_is_told)
{
	static const int64_t shifts_s[] = { 0, 2303078400, 0, -3600, 59, -86400, 1 };
	struct evbus *bus = open_with_notices();
	uint64_t event = 0;

	for (unsigned i = 0; i < sizeof shifts_s / sizeof *shifts_s; i++) {
		shift_s = shifts_s[i];
		for (unsigned k = 0; k < 5; k++)
			CHECK_OK(try_one(bus, 0, event++, ERR));
	}
	CHECK(notices > 0, "nobody was told");
	evbus_close(bus);
	run_ran("times", check_everything(), event);
}

/* Jumps within what is written at once. */
static uint64_t jump_while_adding(bool atomic, unsigned writer, unsigned count)
{
	struct evbus_publisher_options options = { .atomic = atomic };
	struct evbus *bus = open_with_notices();
	struct evbus_publisher *publisher;
	uint64_t dice = run.seed + writer;
	char payload[PAYLOAD_MAX];

	CHECK_OK(evbus_publisher_open(bus, &options, &publisher, ERR));
	for (unsigned i = 0; i < count; i++) {
		struct evbus_event event = { .topic = TOPIC, .payload.data = payload };
		shift_s = (int64_t)(random_next(&dice) % 1000) - 500;
		event.payload.len = payload_make(payload, writer, i, atomic ? i : 0, atomic ? count : 1);
		CHECK_OK(evbus_publisher_add(publisher, &event, ERR));
	}
	CHECK_OK(evbus_publisher_flush(publisher, ERR));
	evbus_publisher_close(publisher);
	evbus_close(bus);
	return count;
}

Test(clock, that_jumps_while_events_are_added_leaves_times_that_never_decrease)
{
	uint64_t lines = jump_while_adding(false, 0, 2000) + jump_while_adding(true, 1, 200) +
			 jump_while_adding(false, 2, 100);

	run_ran("jumps", check_everything(), lines);
}
