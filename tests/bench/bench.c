/* bench.c: evbus beside the floor of the machine, on the same work, in one interleaved run.
 *
 *	bench [DIR] [ROUNDS]
 *
 * Absolute figures move with the weather of the machine; only ratios of one run count. A row runs its floor, then evbus,
 * in turn for ROUNDS rounds (at least 5, default 5) in a new directory below DIR (default: where one stands), and prints
 * the medians, their ratio, and the ratios' spread. */
#include "base/os.h"

#include <errno.h>
#include <ftw.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS_MAX 99
#define ONE_EVENTS 1500              /* published one at a time by each of few processes */
#define STREAM_EVENTS 300000
#define BLOCK_BYTES (1024u * 1024)

struct shared {
	unsigned long syncs;
};

struct row {
	const char *name;
	double (*floor)(int n);
	double (*evbus)(int n);
	int n;
	bool counts_syncs;
};

static struct shared *shared;
static char payload[512];
static size_t line_bytes;            /* of the payload as it lies in the log, roughly */
static int round_number;

static void die(const char *what)
{
	fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
	exit(74);
}

static void check(enum evbus_code code, const struct evbus_err *err)
{
	if (code == EVBUS_OK)
		return;
	fprintf(stderr, "bench: %s\n", err->text);
	exit((int)code);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int counted_fdatasync(int fd)
{
	__atomic_fetch_add(&shared->syncs, 1, __ATOMIC_RELAXED);
	return fdatasync(fd);
}

static const char *bus_name(void)
{
	static char name[64];

	snprintf(name, sizeof name, "file:bus.%d", round_number);
	return name;
}

/* Runs work in n processes at once; returns how long it took. */
static double in_processes(int n, void (*work)(void))
{
	double start = now();

	for (int i = 0; i < n; i++) {
		pid_t pid = fork();
		if (pid < 0)
			die("cannot fork");
		if (pid == 0) {
			work();
			_exit(0);
		}
	}
	for (int status; n; n--)
		if (wait(&status) < 0 || status)
			die("a process failed");
	return now() - start;
}

/* ---- one durable event at a time ---- */

static int raw_file(const char *name, int flags)
{
	int fd = open(name, O_CREAT | O_WRONLY | O_CLOEXEC | flags, 0600);

	if (fd < 0)
		die(name);
	return fd;
}

static void raw_one(void)
{
	static char line[1024];
	int fd = raw_file("raw", O_APPEND);

	memset(line, 'x', sizeof line);
	line[line_bytes - 1] = '\n';
	for (int i = 0; i < ONE_EVENTS; i++)
		if (write(fd, line, line_bytes) != (ssize_t)line_bytes || fdatasync(fd))
			die("raw");
	close(fd);
}

static void publish_one(void)
{
	struct evbus *bus;
	struct evbus_err err;

	check(evbus_open(bus_name(), NULL, &bus, &err), &err);
	for (int i = 0; i < ONE_EVENTS; i++)
		check(evbus_publish(bus, "orders", payload, NULL, &err), &err);
	evbus_close(bus);
}

static double floor_one(int n)
{
	(void)n;
	return ONE_EVENTS / in_processes(1, raw_one);
}

static double evbus_one(int n)
{
	return ONE_EVENTS * n / in_processes(n, publish_one);
}

static double evbus_single(int n)
{
	(void)n;
	return evbus_one(1);
}

/* ---- a stream ---- */

static double floor_stream(int n)
{
	static char block[BLOCK_BYTES];
	size_t left = (size_t)n * line_bytes;
	int fd = raw_file("raw-stream", O_TRUNC);
	double start = now();

	memset(block, 'x', sizeof block);
	while (left) {
		size_t len = left < sizeof block ? left : sizeof block;
		if (write(fd, block, len) != (ssize_t)len || fdatasync(fd))
			die("raw-stream");
		left -= len;
	}
	close(fd);
	return n / (now() - start);
}

static double evbus_stream(int n)
{
	struct evbus_event event = { .topic = "stream", .payload = { payload, strlen(payload) },
				     .partition_id = EVBUS_PARTITION_ANY };
	struct evbus_publisher *publisher;
	struct evbus *bus;
	struct evbus_err err;
	int receipts = 0;
	double start = now();

	check(evbus_open(bus_name(), NULL, &bus, &err), &err);
	check(evbus_publisher_open(bus, NULL, &publisher, &err), &err);
	for (int i = 0; i < n; i++) {
		check(evbus_publisher_add(publisher, &event, &err), &err);
		while (evbus_publisher_next(publisher))
			receipts++;
	}
	check(evbus_publisher_flush(publisher, &err), &err);
	while (evbus_publisher_next(publisher))
		receipts++;
	evbus_publisher_close(publisher);
	evbus_close(bus);
	if (receipts != n)
		die("receipts are missing");
	return n / (now() - start);
}

/* ---- reading what the stream wrote ---- */

static double floor_read(int n)
{
	static char block[BLOCK_BYTES];
	char name[96];
	ssize_t got;

	snprintf(name, sizeof name, "bus.%d/stream/partition=0.jsonl", round_number);
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	double start = now();
	if (fd < 0)
		die(name);
	while ((got = read(fd, block, sizeof block)) > 0)
		;
	close(fd);
	return n / (now() - start);
}

static double evbus_read(int n)
{
	struct evbus_selection selection = { .topic = "stream", .partition_id = EVBUS_PARTITION_ALL };
	const struct evbus_record *record;
	struct evbus_reader *reader;
	struct evbus *bus;
	struct evbus_err err;
	int records = -1;
	double start = now();

	check(evbus_open(bus_name(), NULL, &bus, &err), &err);
	check(evbus_reader_open(bus, &selection, &reader, &err), &err);
	do {
		check(evbus_reader_next(reader, -1, &record, &err), &err);
		records++;
	} while (record);
	evbus_reader_close(reader);
	evbus_close(bus);
	if (records != n)
		die("records are missing");
	return n / (now() - start);
}

/* ---- the table ---- */

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *values, int count)
{
	qsort(values, (size_t)count, sizeof *values, ascending);
	return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

struct measured {
	double floor[ROUNDS_MAX], evbus[ROUNDS_MAX], ratio[ROUNDS_MAX];
	unsigned long syncs;
};

static void print_row(const struct row *row, struct measured *measured, int rounds)
{
	double ratio = median(measured->ratio, rounds);

	printf("%-34s %12.0f %12.0f  %6.2f  %5.2f-%.2f", row->name, median(measured->floor, rounds),
	       median(measured->evbus, rounds), ratio, measured->ratio[0], measured->ratio[rounds - 1]);
	if (row->counts_syncs)
		printf("  %.1f acknowledgements a sync", (double)ONE_EVENTS * row->n * rounds / (double)measured->syncs);
	puts("");
	fflush(stdout);
}

static void run_rows(const struct row *rows, int count, int rounds)
{
	static struct measured measured[8];

	for (round_number = 0; round_number < rounds; round_number++) {
		for (int i = 0; i < count; i++) {
			struct measured *m = &measured[i];
			m->floor[round_number] = rows[i].floor(rows[i].n);
			shared->syncs = 0;
			m->evbus[round_number] = rows[i].evbus(rows[i].n);
			m->syncs += shared->syncs;
			m->ratio[round_number] = m->evbus[round_number] / m->floor[round_number];
		}
	}
	printf("%-34s %12s %12s  %6s  %s\n", "events a second, medians", "floor", "evbus", "ratio", "spread");
	for (int i = 0; i < count; i++)
		print_row(&rows[i], &measured[i], rounds);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

/* Makes a scratch directory and goes there; name has room for it. */
static void prepare(const char *dir, char name[4096])
{
	int len = snprintf(payload, sizeof payload, "{\"event_id\":\"%0120d\",\"type\":\"order.created\",\"note\":\"%0100d\"}",
			   1, 2);

	line_bytes = (size_t)len + 118;
	snprintf(name, 4096, "%s/evbus-bench.XXXXXX", dir);
	if (!mkdtemp(name) || chdir(name))
		die(name);
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("cannot share memory");
	os.fdatasync = counted_fdatasync;
	printf("lines of %zu bytes, in %s\n", line_bytes, name);
}

int main(int argc, char **argv)
{
	static const struct row rows[] = {
		{ "one at a time / append+fdatasync", floor_one, evbus_one, 1, true },
		{ "8 processes / one evbus process", evbus_single, evbus_one, 8, true },
		{ "64 processes / one evbus process", evbus_single, evbus_one, 64, true },
		{ "stream / write+fdatasync each MiB", floor_stream, evbus_stream, STREAM_EVENTS, false },
		{ "reading / read() of the file", floor_read, evbus_read, STREAM_EVENTS, false },
	};
	int rounds = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 5;

	if (rounds < 5 || rounds > ROUNDS_MAX)
		rounds = 5;
	char name[4096];
	int home = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	prepare(argc > 1 ? argv[1] : ".", name);
	run_rows(rows, (int)(sizeof rows / sizeof *rows), rounds);
	if (home < 0 || fchdir(home) || nftw(name, remove_entry, 16, FTW_DEPTH | FTW_PHYS))
		die("cannot remove the scratch directory");
	return 0;
}
