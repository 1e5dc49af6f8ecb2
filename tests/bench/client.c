/* client.c: what a program does with libevbus, timed.
 *
 *	client make N [FIRST]                   N events, a line each, numbered from FIRST
 *	client publish PROCESSES N URL TOPIC    N events by each process, each waiting for its receipt
 *	client stream N URL TOPIC               N events through a publisher
 *	client read URL TOPIC                   every record
 *	client open N URL TOPIC                 open the bus, take the last record, close all
 *	client seek N offset|time warm|cold URL TOPIC
 *	                                        open a reader somewhere and take one record; warm: for the second time,
 *	                                        cold: nothing of the log is in memory
 *	client wake N URL TOPIC COMMAND [ARG...]
 *	                                        publish, until COMMAND (evbus tail -f) has printed it
 *	client answer                           a coprocess: "ok" for each line
 *	client grow BYTES LINE_MAX URL TOPIC    a log of this size in one segment, of a month with quiet nights: lines of
 *	                                        each magnitude up to LINE_MAX; made without syncs
 *
 * Prints what was done, as measure.h has it: more is syncs where something is published, else the most reads that one
 * opening needed. */
#include "base/os.h"
#include "measure.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MONTH_DAYS 30
#define DAY_US (24 * 3600 * (int64_t)1000000)
#define LINE_MIN_BYTES 240
#define LINE_HEAD_BYTES 192 /* before the payload, and of the payload before what is varied */

extern char **environ;

static unsigned long *syncs;
static unsigned long reads;

static void check(enum evbus_code code, const struct evbus_err *err)
{
	if (code == EVBUS_OK)
		return;
	fprintf(stderr, "client: %s\n", err->text);
	exit((int)code);
}

static size_t number(const char *arg)
{
	return strtoull(arg, NULL, 10);
}

static int counted_fdatasync(int fd)
{
	__atomic_fetch_add(syncs, 1, __ATOMIC_RELAXED);
	return fdatasync(fd);
}

static ssize_t counted_pread(int fd, void *data, size_t len, off_t at)
{
	reads++;
	return pread(fd, data, len, at);
}

static uint64_t next_random(void)
{
	static uint64_t random = 88172645463325252u;

	random ^= random << 13;
	random ^= random >> 7;
	return random ^= random << 17;
}

static void make(char **args)
{
	char event[EVENT_MAX_BYTES];
	size_t first = args[1] ? number(args[1]) : 0;

	for (size_t i = 0, count = number(args[0]); i < count; i++) {
		event_make(event, first + i);
		puts(event);
	}
}

static struct evbus *bus_open(const char *url)
{
	struct evbus *bus;
	struct evbus_err err;

	check(evbus_open(url, NULL, &bus, &err), &err);
	return bus;
}

/* ---- publishing ---- */

struct publishing {
	size_t count;
	const char *url, *topic;
	double *times;
};

static void publish_each(size_t process, void *context)
{
	struct publishing *todo = context;
	double *times = todo->times + process * todo->count, before = now();
	struct evbus *bus = bus_open(todo->url);
	struct evbus_err err;
	char event[EVENT_MAX_BYTES];

	for (size_t i = 0; i < todo->count; i++) {
		event_make(event, i);
		check(evbus_publish(bus, todo->topic, event, NULL, &err), &err);
		double after = now();
		times[i] = after - before;
		before = after;
	}
	evbus_close(bus);
}

static void publish_by_many(char **args)
{
	size_t processes = number(args[0]);
	struct publishing todo = { number(args[1]), args[2], args[3], NULL };

	todo.times = shared(processes * todo.count * sizeof *todo.times);
	double seconds = in_processes(processes, publish_each, &todo);
	tell(processes * todo.count, seconds, todo.times, *syncs);
}

static size_t receipts_take(struct evbus_publisher *publisher)
{
	size_t n = 0;

	while (evbus_publisher_next(publisher))
		n++;
	return n;
}

static void stream(char **args)
{
	char payload[EVENT_MAX_BYTES];
	struct evbus_event event = { .topic = args[2], .partition_id = EVBUS_PARTITION_ANY };
	struct evbus_publisher *publisher;
	struct evbus *bus = bus_open(args[1]);
	struct evbus_err err;
	size_t count = number(args[0]), receipts = 0;
	double start = now();

	check(evbus_publisher_open(bus, NULL, &publisher, &err), &err);
	for (size_t i = 0; i < count; i++) {
		event.payload = (struct evbus_slice){ payload, event_make(payload, i) };
		check(evbus_publisher_add(publisher, &event, &err), &err);
		receipts += receipts_take(publisher);
	}
	check(evbus_publisher_flush(publisher, &err), &err);
	receipts += receipts_take(publisher);
	double seconds = now() - start;
	evbus_publisher_close(publisher);
	evbus_close(bus);
	if (receipts != count)
		die("receipts are missing");
	tell(count, seconds, NULL, *syncs);
}

/* ---- a log that is there already ---- */

static size_t grown_bytes, bytes_wanted;

/* The days all have the same share of the log, most of it late in the day. */
static int month_clock(clockid_t clock, struct timespec *time)
{
	double days = (double)grown_bytes / (double)bytes_wanted * MONTH_DAYS, day = (double)(int)days;

	if (clock_gettime(clock, time))
		return -1;
	if (clock != CLOCK_REALTIME)
		return 0;
	double left = MONTH_DAYS - (day + (1 - (1 - (days - day)) * (1 - (days - day))));
	int64_t us = (int64_t)time->tv_sec * 1000000 - (int64_t)(left * (double)DAY_US);
	*time = (struct timespec){ us / 1000000, us % 1000000 * 1000 };
	return 0;
}

static int no_fdatasync(int fd)
{
	(void)fd;
	return 0;
}

static size_t large_event_make(char *event, size_t i, size_t max)
{
	size_t len = LINE_MIN_BYTES;

	while (len * 4 <= max && next_random() % 2)
		len *= 2;
	len += next_random() % len;
	int head = snprintf(event, max, "{\"event_id\":\"%012zu\",\"type\":\"order.created\",\"note\":\"", i);
	memset(event + head, 'x', len);
	memcpy(event + (size_t)head + len, "\"}", 3);
	return (size_t)head + len + 2;
}

static void grow(char **args)
{
	size_t max = number(args[1]) - LINE_HEAD_BYTES;
	struct evbus_topic_options options = { .segment_max_bytes = (uint64_t)1 << 40 };
	struct evbus_event event = { .topic = args[3], .partition_id = EVBUS_PARTITION_ANY };
	struct evbus_publisher *publisher;
	struct evbus *bus = bus_open(args[2]);
	struct evbus_err err;
	char *payload = shared(2 * max + EVENT_MAX_BYTES);
	double start = now();
	bool created;
	size_t i = 0;

	bytes_wanted = number(args[0]);
	os.clock_gettime = month_clock;
	check(evbus_topic_create(bus, event.topic, &options, &created, &err), &err);
	os.fdatasync = no_fdatasync;
	check(evbus_publisher_open(bus, NULL, &publisher, &err), &err);
	for (; grown_bytes < bytes_wanted; i++) {
		event.payload = (struct evbus_slice){ payload, large_event_make(payload, i, max) };
		check(evbus_publisher_add(publisher, &event, &err), &err);
		grown_bytes += event.payload.len + LINE_HEAD_BYTES;
		receipts_take(publisher);
	}
	os.fdatasync = fdatasync;
	check(evbus_publisher_flush(publisher, &err), &err);
	evbus_publisher_close(publisher);
	evbus_close(bus);
	tell(i, now() - start, NULL, 0);
}

/* ---- reading ---- */

static struct evbus_reader *reader_open(struct evbus *bus, const char *topic, const char *from)
{
	struct evbus_selection selection = { .topic = topic, .partition_id = 0, .from = from };
	struct evbus_reader *reader;
	struct evbus_err err;

	check(evbus_reader_open(bus, &selection, &reader, &err), &err);
	return reader;
}

/* NULL: there are no more. */
static const struct evbus_record *reader_next(struct evbus_reader *reader)
{
	const struct evbus_record *record;
	struct evbus_err err;

	check(evbus_reader_next(reader, -1, &record, &err), &err);
	return record;
}

static void read_all(char **args)
{
	struct evbus *bus = bus_open(args[0]);
	struct evbus_reader *reader = reader_open(bus, args[1], NULL);
	size_t records = 0;
	double start = now();

	while (reader_next(reader))
		records++;
	double seconds = now() - start;
	evbus_reader_close(reader);
	evbus_close(bus);
	tell(records, seconds, NULL, 0);
}

static double take_one(struct evbus *bus, const char *topic, const char *from)
{
	double start = now();
	struct evbus_reader *reader = reader_open(bus, topic, from);

	if (!reader_next(reader))
		die("no record there");
	double seconds = now() - start;
	evbus_reader_close(reader);
	return seconds;
}

static void open_each(char **args)
{
	size_t count = number(args[0]);
	double *times = shared(count * sizeof *times), start = now();

	for (size_t i = 0; i < count; i++) {
		double before = now();
		struct evbus *bus = bus_open(args[1]);
		take_one(bus, args[2], "-1");
		evbus_close(bus);
		times[i] = now() - before;
	}
	tell(count, now() - start, times, 0);
}

/* Leaves nothing of the log in the page cache. */
static void forget(const char *url, const char *topic)
{
	char name[PATH_MAX];

	snprintf(name, sizeof name, "%s/%s/partition=0.jsonl", strchr(url, ':') + 1, topic);
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fdatasync(fd) || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED))
		die(name);
	close(fd);
}

static int64_t time_of(struct evbus *bus, const char *topic, const char *from)
{
	struct evbus_reader *reader = reader_open(bus, topic, from);
	const struct evbus_record *record = reader_next(reader);
	struct evbus_err err;
	char text[64];
	int64_t time_us;

	if (!record)
		die("no record there");
	snprintf(text, sizeof text, "%.*s", (int)record->published_at_utc.len, record->published_at_utc.data);
	check(evbus_time_parse(text, 0, &time_us, &err), &err);
	evbus_reader_close(reader);
	return time_us;
}

static void seek_each(char **args)
{
	size_t count = number(args[0]);
	bool by_time = !strcmp(args[1], "time"), cold = !strcmp(args[2], "cold");
	struct evbus *bus = bus_open(args[3]);
	const char *topic = args[4];
	struct evbus_partition_info info;
	struct evbus_err err;
	double *times = shared(count * sizeof *times), start = now();
	unsigned long reads_max = 0;

	check(evbus_topic_describe(bus, topic, 0, &info, &err), &err);
	int64_t first = time_of(bus, topic, "beginning"), last = time_of(bus, topic, "-1");
	for (size_t i = 0; i < count; i++) {
		char from[64];
		if (by_time) {
			from[0] = '@';
			evbus_time_format(first + (int64_t)(next_random() % (uint64_t)(last - first + 1)), from + 1);
		} else {
			snprintf(from, sizeof from, "%llu", (unsigned long long)(next_random() % info.records));
		}
		if (cold)
			forget(args[3], topic);
		else
			take_one(bus, topic, from);
		reads = 0;
		times[i] = take_one(bus, topic, from);
		reads_max = reads > reads_max ? reads : reads_max;
	}
	evbus_close(bus);
	tell(count, now() - start, times, reads_max);
}

/* ---- waking, answering ---- */

/* Looks again and again, and does not sleep: what is timed ends when the line is there, as that of the floor ends when the
 * other process runs, and not when a third wake has come about. */
static void wait_for_line(int fd)
{
	char bytes[4096];
	ssize_t n;

	do
		n = read(fd, bytes, sizeof bytes);
	while (n < 0 ? errno == EAGAIN : n > 0 && bytes[n - 1] != '\n');
	if (n <= 0)
		die("the follower ended");
}

static pid_t spawn_to(int output, char **argv)
{
	posix_spawn_file_actions_t actions;
	pid_t pid;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, output, 1);
	errno = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
	if (errno)
		die(argv[0]);
	return pid;
}

static void wake_each(char **args)
{
	size_t count = number(args[0]);
	struct evbus *bus = bus_open(args[1]);
	const char *topic = args[2];
	struct evbus_err err;
	double *times = shared(count * sizeof *times), start = now();
	char event[EVENT_MAX_BYTES];
	int output[2];

	check(evbus_publish(bus, topic, "{}", NULL, &err), &err);
	if (pipe2(output, O_CLOEXEC) || fcntl(output[0], F_SETFL, O_NONBLOCK))
		die("pipe");
	pid_t pid = spawn_to(output[1], args + 3);
	wait_for_line(output[0]);
	for (size_t i = 0; i < count; i++) {
		event_make(event, i);
		usleep(500);
		double before = now();
		check(evbus_publish(bus, topic, event, NULL, &err), &err);
		wait_for_line(output[0]);
		times[i] = now() - before;
	}
	kill(pid, SIGTERM);
	waitpid(pid, NULL, 0);
	evbus_close(bus);
	tell(count, now() - start, times, *syncs);
}

static void answer(char **args)
{
	static char bytes[65536], answers[sizeof bytes * 3];
	ssize_t n;

	(void)args;
	while ((n = read(0, bytes, sizeof bytes)) > 0) {
		size_t len = 0;
		for (ssize_t i = 0; i < n; i++)
			if (bytes[i] == '\n') {
				memcpy(answers + len, "ok\n", 3);
				len += 3;
			}
		if (write(1, answers, len) != (ssize_t)len)
			die("answers");
	}
}

int main(int argc, char **argv)
{
	static const struct work works[] = {
		{ "make", 1, 2, make },
		{ "publish", 4, 4, publish_by_many },
		{ "stream", 3, 3, stream },
		{ "read", 2, 2, read_all },
		{ "open", 3, 3, open_each },
		{ "seek", 5, 5, seek_each },
		{ "answer", 0, 0, answer },
		{ "wake", 4, INT_MAX, wake_each },
		{ "grow", 4, 4, grow },
		{ 0 },
	};

	syncs = shared(sizeof *syncs);
	os.fdatasync = counted_fdatasync;
	os.pread = counted_pread;
	return run_one(works, argc, argv);
}
