/* bus.c: what evbus.h says of all calls. That a forked child is refused: tests/fault/fork.c. */
#include "evbus.h"
#include "scratch.h"

static char scratch[64];
static struct evbus_err err;

#define OK(call) cr_assert_eq((call), EVBUS_OK, "%d: %s", (int)err.code, err.text)

static void setup(void)
{
	scratch_enter(scratch);
}

static void teardown(void)
{
	scratch_leave(scratch);
}

TestSuite(bus, .init = setup, .fini = teardown, .timeout = 60);

Test(bus, closing_nothing_does_nothing)
{
	evbus_close(NULL);
	evbus_publisher_close(NULL);
	evbus_reader_close(NULL);
	evbus_consumer_close(NULL);
	evbus_outbox_close(NULL);
	evbus_claim_release(NULL);
	evbus_config_close(NULL);
}

Test(bus, options_in_which_nothing_has_to_be_said_may_be_left_out_and_so_may_err)
{
	struct evbus_publisher *publisher;
	struct evbus_config *config;
	struct evbus_outbox *outbox;
	struct evbus *bus, *none;
	bool created;

	OK(evbus_open("file:bus", NULL, &bus, &err));
	OK(evbus_topic_create(bus, "t", NULL, &created, &err));
	OK(evbus_publisher_open(bus, NULL, &publisher, &err));
	OK(evbus_outbox_open(bus, "sqlite:app.db", NULL, &outbox, &err));
	OK(evbus_config_open(NULL, &config, &err));
	cr_expect_eq(evbus_publish(bus, "t", "{", NULL, NULL), EVBUS_DATA);
	cr_expect_eq(evbus_publish(bus, "t", "{}", NULL, NULL), EVBUS_OK);
	cr_expect_eq(evbus_open("nothing:", NULL, &none, NULL), EVBUS_CONFIG);
	evbus_config_close(config);
	evbus_outbox_close(outbox);
	evbus_publisher_close(publisher);
	evbus_close(bus);
}
