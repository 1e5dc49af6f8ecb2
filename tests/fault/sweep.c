/* Any call fails while the log is written, rolled, recovered, read and verified. */
#include "sweep.h"

#include "log/control.h"

#include <criterion/criterion.h>
#include <pthread.h>

#define THREADS 4u

static struct evbus *bus;
static struct evbus_publisher *publisher;

static void setup(void)
{
	run_begin(IN_MEMORY);
}

TestSuite(sweep, .init = setup, .fini = run_end, .timeout = 400);

static void close_bus(void)
{
	evbus_publisher_close(publisher);
	publisher = NULL;
	evbus_close(bus);
	bus = NULL;
}

static void make_log(void)
{
	make_topic(1, 0);
	sweep_publish_some(3);
	bus = open_bus();
}

/* ---- publishing ------------------------------------------------------------------------------------------------ */

static enum evbus_code publish_three(struct evbus_err *err)
{
	for (int i = 0; i < 3; i++)
		TRY(sweep_publish(bus, err));
	return EVBUS_OK;
}

Test(sweep, of_publishing)
{
	sweep(&(struct operation){ "publish", make_log, publish_three, .finish = close_bus });
}

static void only_open(void)
{
	bus = open_bus();
}

Test(sweep, of_publishing_the_first_event_of_a_bus)
{
	sweep(&(struct operation){ "the first event of a bus", only_open, publish_three, .finish = close_bus });
}

static enum evbus_code publish_group(bool atomic, struct evbus_err *err)
{
	static unsigned batch;
	struct evbus_publisher_options options = { .atomic = atomic };
	const struct evbus_record *receipt;
	unsigned event[5];

	batch++;
	evbus_publisher_close(publisher);
	publisher = NULL;
	TRY(evbus_publisher_open(bus, &options, &publisher, err));
	for (unsigned i = 0; i < 5; i++) {
		event[i] = sweep_submit(atomic ? batch : 0);
		struct evbus_event one = { .topic = TOPIC,
					   .payload = sweep_payload(event[i]),
					   .key = SLICE("k"),
					   .partition_id = EVBUS_PARTITION_ANY,
					   .origin = SLICE("others/0/7"),
					   .returns = i };
		TRY(evbus_publisher_add(publisher, &one, err));
	}
	enum evbus_code code = evbus_publisher_flush(publisher, err);
	unsigned count = 0;
	while ((receipt = evbus_publisher_next(publisher)))
		sweep_acknowledge(event[count++], receipt);
	CHECK(code || count == 5, "%u receipts", count);
	return code;
}

static enum evbus_code publish_batch(struct evbus_err *err)
{
	return publish_group(false, err);
}

static enum evbus_code publish_atomic(struct evbus_err *err)
{
	return publish_group(true, err);
}

Test(sweep, of_publishing_a_batch)
{
	sweep(&(struct operation){ "batch", make_log, publish_batch, .finish = close_bus });
}

Test(sweep, of_publishing_an_atomic_batch)
{
	sweep(&(struct operation){ "atomic", make_log, publish_atomic, .finish = close_bus });
}

/* ---- four writers, one sync ---- */

static struct writer {
	struct evbus *bus;
	enum evbus_code code;
	struct evbus_err err;
} writers[THREADS];

static void make_writers(void)
{
	make_topic(1, 0);
	sweep_publish_some(1);
	for (unsigned i = 0; i < THREADS; i++)
		writers[i].bus = open_bus();
}

static void *write_in_thread(void *context)
{
	struct writer *writer = context;

	writer->code = EVBUS_OK;
	for (int i = 0; i < 2 && !writer->code; i++)
		writer->code = sweep_publish(writer->bus, &writer->err);
	return NULL;
}

static enum evbus_code publish_together(struct evbus_err *err)
{
	pthread_t threads[THREADS];
	enum evbus_code code = EVBUS_OK;

	for (unsigned i = 0; i < THREADS; i++)
		CHECK(!pthread_create(&threads[i], NULL, write_in_thread, &writers[i]), "pthread_create");
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		if (writers[i].code) {
			code = writers[i].code;
			*err = writers[i].err;
		}
	}
	return code;
}

static void close_writers(void)
{
	for (unsigned i = 0; i < THREADS; i++)
		evbus_close(writers[i].bus);
}

Test(sweep, of_publishing_with_four_threads)
{
	sweep(&(struct operation){ "group commit of 4 threads", make_writers, publish_together, .finish = close_writers,
				   .uncertain = true });
}

/* ---- rolling ---- */

static void make_small_segments(void)
{
	make_topic(1, 400);
	sweep_publish_some(2);
	bus = open_bus();
}

static enum evbus_code publish_over_segments(struct evbus_err *err)
{
	for (int i = 0; i < 5; i++)
		TRY(sweep_publish(bus, err));
	return EVBUS_OK;
}

Test(sweep, of_rolling)
{
	sweep(&(struct operation){ "roll", make_small_segments, publish_over_segments, .finish = close_bus });
}
