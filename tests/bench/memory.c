/* memory.c: events handed on in the memory of one process, and the least that this takes.
 *
 *	memory through N URL TOPIC    through a publisher and a reader that follows
 *	memory publish N URL TOPIC    published one by one
 *	memory scan N                 validated
 *	memory copy N                 validated, and copied in and out: into a ring, and to where they are read
 *	memory line N                 the same, with the time taken, and a checksum made and checked
 *	memory store N                validated and copied in, one by one
 *
 * Does it with N thousand events, or N times ten one by one, and tells of those: the clock is looked at once for them, as
 * a look takes a tenth of what is measured. The events are there before, as to make one takes longer than to validate it.
 * Prints what measure.h says. */
#include "base/crc32c.h"
#include "base/os.h"
#include "event/json.h"
#include "measure.h"

#include <string.h>

#define EVENTS 1000
#define TEN 10
#define HEAD_BYTES 113 /* of a line, before the payload and behind it */
#define LINE_BYTES (HEAD_BYTES + EVENT_MAX_BYTES)
#define RING_BYTES (16u * 1024 * 1024) /* as a partition in memory has */

static char payloads[EVENTS][EVENT_MAX_BYTES];
static size_t lens[EVENTS];

static void check(enum evbus_code code, const struct evbus_err *err)
{
	if (code == EVBUS_OK)
		return;
	fprintf(stderr, "memory: %s\n", err->text);
	exit((int)code);
}

static void time_each(const char *count, void (*work)(size_t i, void *context), void *context)
{
	size_t n = strtoull(count, NULL, 10);
	double *times = shared(n * sizeof *times), start = now(), before = start;

	for (size_t i = 0; i < n; i++) {
		work(i, context);
		double after = now();
		times[i] = after - before;
		before = after;
	}
	tell(n, now() - start, times, 0);
}

/* ---- evbus ---- */

struct bus {
	struct evbus *handle;
	const char *topic;
	struct evbus_publisher *publisher;
	struct evbus_reader *reader;
};

static struct bus bus_open(char **args)
{
	struct bus bus = { .topic = args[2] };
	struct evbus_selection selection = { .topic = bus.topic, .follow = true };
	struct evbus_err err;

	check(evbus_open(args[1], NULL, &bus.handle, &err), &err);
	check(evbus_publisher_open(bus.handle, NULL, &bus.publisher, &err), &err);
	check(evbus_reader_open(bus.handle, &selection, &bus.reader, &err), &err);
	return bus;
}

static void bus_close(const struct bus *bus)
{
	evbus_reader_close(bus->reader);
	evbus_publisher_close(bus->publisher);
	evbus_close(bus->handle);
}

static void publish_turn(const struct bus *bus)
{
	struct evbus_event event = { .topic = bus->topic, .partition_id = EVBUS_PARTITION_ANY };
	struct evbus_err err;
	size_t receipts = 0;

	for (size_t i = 0; i < EVENTS; i++) {
		event.payload = (struct evbus_slice){ payloads[i], lens[i] };
		check(evbus_publisher_add(bus->publisher, &event, &err), &err);
	}
	check(evbus_publisher_flush(bus->publisher, &err), &err);
	while (evbus_publisher_next(bus->publisher))
		receipts++;
	if (receipts != EVENTS)
		die("receipts are missing");
}

static void take_turn(size_t turn, void *context)
{
	const struct bus *bus = context;
	const struct evbus_record *record;
	struct evbus_err err;

	(void)turn;
	publish_turn(bus);
	for (size_t i = 0; i < EVENTS; i++) {
		check(evbus_reader_next(bus->reader, 1000, &record, &err), &err);
		if (!record || record->payload.len != lens[i])
			die("events are missing");
	}
}

static void through(char **args)
{
	struct bus bus = bus_open(args);

	time_each(args[0], take_turn, &bus);
	bus_close(&bus);
}

static void publish_ten(size_t ten, void *context)
{
	const struct bus *bus = context;
	struct evbus_err err;

	for (size_t i = 0; i < TEN; i++)
		check(evbus_publish(bus->handle, bus->topic, payloads[(ten * TEN + i) % EVENTS], NULL, &err), &err);
}

static void publish(char **args)
{
	struct bus bus = bus_open(args);

	time_each(args[0], publish_ten, &bus);
	bus_close(&bus);
}

/* ---- the least that it takes ---- */

static char ring[RING_BYTES], line[LINE_BYTES];
static size_t ring_end;
static int64_t sum;

static void validate(size_t i)
{
	struct json_fault fault;

	if (!json_scan_line((struct evbus_slice){ payloads[i], lens[i] }, &fault))
		die("an event is refused");
}

static void scan_turn(size_t turn, void *context)
{
	(void)turn;
	(void)context;
	for (size_t i = 0; i < EVENTS; i++)
		validate(i);
}

static char *put(size_t i)
{
	if (ring_end + LINE_BYTES > RING_BYTES)
		ring_end = 0;
	char *to = ring + ring_end;
	memcpy(to + HEAD_BYTES, payloads[i], lens[i]);
	ring_end += HEAD_BYTES + lens[i];
	return to;
}

static void take(const char *from, size_t len)
{
	memcpy(line, from, len);
	__asm__ volatile("" : : "r"(line) : "memory");
}

static void copy_turn(size_t turn, void *context)
{
	static const char *lines[EVENTS];
	bool whole = context != NULL;

	(void)turn;
	for (size_t i = 0; i < EVENTS; i++) {
		validate(i);
		sum += whole ? os_now_us() : 0;
		lines[i] = put(i);
		sum += whole ? crc32c(0, lines[i], HEAD_BYTES + lens[i]) : 0;
	}
	for (size_t i = 0; i < EVENTS; i++) {
		take(lines[i], HEAD_BYTES + lens[i]);
		sum += whole ? crc32c(0, line, HEAD_BYTES + lens[i]) : 0;
	}
}

static void store_ten(size_t ten, void *context)
{
	(void)context;
	for (size_t i = 0; i < TEN; i++) {
		validate((ten * TEN + i) % EVENTS);
		put((ten * TEN + i) % EVENTS);
	}
}

static void scan(char **args)
{
	time_each(args[0], scan_turn, NULL);
}

static void copy(char **args)
{
	time_each(args[0], copy_turn, NULL);
}

static void copy_whole(char **args)
{
	time_each(args[0], copy_turn, &sum);
}

static void store(char **args)
{
	time_each(args[0], store_ten, NULL);
}

int main(int argc, char **argv)
{
	static const struct work works[] = {
		{ "through", 3, 3, through },
		{ "publish", 3, 3, publish },
		{ "scan", 1, 1, scan },
		{ "copy", 1, 1, copy },
		{ "line", 1, 1, copy_whole },
		{ "store", 1, 1, store },
		{ 0 },
	};

	for (size_t i = 0; i < EVENTS; i++)
		lens[i] = event_make(payloads[i], i);
	memset(ring, ' ', sizeof ring);
	return run_one(works, argc, argv);
}
