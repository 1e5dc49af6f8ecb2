/* Whatever comes in, and however slowly somebody reads: memory, descriptors and threads stay what they were after the first
 * tenth of it. The programs are the real ones; /proc tells what they use.
 *
 * A stream of many gigabytes needs no such disk: segments that were rolled are removed behind it, as anybody may. */
#include "program.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define RSS_MAX_KIB (64 * 1024)
#define GROWTH_MAX_KIB 16384 /* buffers reach their size when the disk is slow for the first time */
#define SEGMENT_BYTES (8u << 20)
#define CHUNK_BYTES (1u << 20)
/* A sanitizer keeps for a while what is freed. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define SANITIZED true
#else
#define SANITIZED false
#endif

static void setup(void)
{
	run_begin(IN_MEMORY);
	CHECK(!mkfifo("in", 0600) && !mkfifo("out", 0600), "mkfifo: %s", strerror(errno));
	signal(SIGPIPE, SIG_IGN);
}

TestSuite(limits, .init = setup, .fini = run_end, .timeout = 300);

/* ---- what a process uses ---- */

struct use {
	uint64_t rss_max_kib, threads, descriptors;
};

static uint64_t status_of(const char *status, const char *name)
{
	const char *at = strstr(status, name);

	CHECK(at, "/proc tells no %s", name);
	return number_at(at + strlen(name) + strspn(at + strlen(name), ": \t"));
}

static struct use use_of(pid_t pid)
{
	char path[64];
	struct use use = { 0 };

	snprintf(path, sizeof path, "/proc/%d/status", pid);
	const char *status = program_read(path);
	use.rss_max_kib = status_of(status, "VmHWM");
	use.threads = status_of(status, "Threads");
	snprintf(path, sizeof path, "/proc/%d/fd", pid);
	DIR *dir = opendir(path);
	CHECK(dir, "%s: %s", path, strerror(errno));
	while (readdir(dir))
		use.descriptors++;
	closedir(dir);
	return use;
}

static void check_use(const char *what, const struct use *early, const struct use *late, uint64_t bytes)
{
	fprintf(stderr, "%s: %llu MiB, %llu KiB of memory and then %llu, %llu descriptors, %llu threads\n", what,
		(unsigned long long)bytes >> 20, (unsigned long long)early->rss_max_kib,
		(unsigned long long)late->rss_max_kib, (unsigned long long)late->descriptors,
		(unsigned long long)late->threads);
	CHECK(late->threads == early->threads, "%s: %llu threads", what, (unsigned long long)late->threads);
	/* One more while a segment is being rolled or searched for. */
	CHECK(late->descriptors <= early->descriptors + 3, "%s: %llu descriptors after %llu", what,
	      (unsigned long long)late->descriptors, (unsigned long long)early->descriptors);
	if (SANITIZED)
		return;
	CHECK(late->rss_max_kib < RSS_MAX_KIB, "%s: %llu KiB", what, (unsigned long long)late->rss_max_kib);
	CHECK(late->rss_max_kib <= early->rss_max_kib + GROWTH_MAX_KIB, "%s: %llu KiB grow to %llu", what,
	      (unsigned long long)early->rss_max_kib, (unsigned long long)late->rss_max_kib);
}

/* ---- streams into it ---- */

#define LINE_ROOM (1u << 20)

/* Lines of 60 bytes to 900 KB, numbered on. The first are large, so that all buffers have their size early. */
static size_t make_line(char *to, uint64_t number, uint64_t *state)
{
	uint64_t random = random_next(state);
	int pad = number < 6 || random % 1000 == 0 ? 900000 : random % 10 == 0 ? 3000 : (int)(random % 200);

	return (size_t)snprintf(to, LINE_ROOM, "{\"event_id\":\"e%llu\",\"type\":\"t\",\"pad\":\"%0*d\"}\n",
				(unsigned long long)number, pad + 1, 0);
}

static size_t make_chunk(char *to, uint64_t *number, uint64_t *state)
{
	size_t len = 0;

	while (len < CHUNK_BYTES)
		len += make_line(to + len, (*number)++, state);
	return len;
}

static void remove_older(void)
{
	char names[256][32];
	unsigned count = 0, last = 0;
	DIR *dir = opendir("bus/" TOPIC "/partition=0");

	for (struct dirent *entry; dir && count < 256 && (entry = readdir(dir));)
		if (entry->d_name[0] != '.')
			snprintf(names[count++], 32, "%.31s", entry->d_name);
	for (unsigned i = 1; i < count; i++)
		if (strcmp(names[i], names[last]) > 0)
			last = i;
	for (unsigned i = 0; i < count; i++)
		if (i != last)
			unlinkat(dirfd(dir), names[i], 0);
	if (dir)
		closedir(dir);
}

static void write_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);
		CHECK(n > 0, "the program reads no further: %s: %s", strerror(errno), program_read("said"));
		data += n;
		len -= (size_t)n;
	}
}

static int open_to_write(const char *path)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	CHECK(fd >= 0, "open %s: %s", path, strerror(errno));
	return fd;
}

/* Writes chunks to the program for so long, and compares what it used after a tenth of the time with the end. */
static void feed(const char *what, const char *words, int64_t time_us)
{
	static char chunk[CHUNK_BYTES + LINE_ROOM];
	uint64_t number = 0, state = run.seed, bytes = 0;
	struct use early = { 0 };
	pid_t pid = program_start("in", "/dev/null", words);
	int fd = open_to_write("in");

	for (int64_t begin = now_us(), now = begin; now - begin < time_us || !early.threads; now = now_us()) {
		size_t len = make_chunk(chunk, &number, &state);
		write_all(fd, chunk, len);
		bytes += len;
		remove_older();
		if (!early.threads && now - begin > time_us / 10 && bytes > 8 * CHUNK_BYTES)
			early = use_of(pid);
	}
	struct use late = use_of(pid);
	close(fd);
	int status = child_reap(pid);
	CHECK(status == 0, "%s ends with status %x: %s", what, (unsigned)status, program_read("said"));
	check_use(what, &early, &late, bytes);
	run_ran(what, number, number);
}

static int64_t stream_us(void)
{
	return run_count(12000000, 500000);
}

Test(limits, of_publish_hold_for_an_endless_stream)
{
	make_topic(1, SEGMENT_BYTES);
	feed("publish", "publish -t " TOPIC, stream_us());
	feed("publish --on-error skip", "publish --on-error skip -t " TOPIC, stream_us() / 2);
}

/* Nothing in it says where an event ends. */
Test(limits, of_publish_hold_for_an_endless_line)
{
	static char chunk[CHUNK_BYTES];
	struct rusage usage;
	uint64_t bytes = 0;

	make_topic(1, SEGMENT_BYTES);
	memset(chunk, ' ', sizeof chunk);
	memcpy(chunk, "{\"a\":", 5);
	pid_t pid = program_start("in", "/dev/null", "publish -t " TOPIC);
	int fd = open_to_write("in");
	while (bytes < 64 * CHUNK_BYTES) {
		ssize_t n = write(fd, chunk, sizeof chunk);
		if (n <= 0)
			break;
		bytes += (uint64_t)n;
		memset(chunk, ' ', 5);
	}
	close(fd);
	int status = child_reap(pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == EVBUS_DATA, "it ends with %x", (unsigned)status);
	CHECK(bytes < 8 * CHUNK_BYTES, "it reads %llu bytes of one line", (unsigned long long)bytes);
	CHECK(!getrusage(RUSAGE_CHILDREN, &usage) && (SANITIZED || usage.ru_maxrss < RSS_MAX_KIB), "%ld KiB",
	      usage.ru_maxrss);
}

/* ---- streams out of it ---- */

static void fill_log(uint64_t bytes)
{
	static char chunk[CHUNK_BYTES + LINE_ROOM];
	uint64_t number = 0, state = run.seed;

	make_topic(1, SEGMENT_BYTES);
	pid_t pid = program_start("in", "/dev/null", "publish -q -t " TOPIC);
	int fd = open_to_write("in");
	for (uint64_t written = 0; written < bytes;) {
		size_t len = make_chunk(chunk, &number, &state);
		write_all(fd, chunk, len);
		written += len;
	}
	close(fd);
	CHECK(child_reap(pid) == 0, "publish: %s", program_read("said"));
}

/* Reads what the program prints, with pauses, and compares what it used after a tenth with the end. */
static void drink(const char *words, uint64_t of_bytes)
{
	static char buffer[CHUNK_BYTES];
	struct use early = { 0 }, late = { 0 };
	uint64_t bytes = 0;
	pid_t pid = program_start(NULL, "out", words);
	int fd = open("out", O_RDONLY | O_CLOEXEC);

	CHECK(fd >= 0, "open out: %s", strerror(errno));
	/* It fills the pipe, and waits. */
	pause_us(20000);
	for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) {
		bytes += (uint64_t)n;
		if (bytes > of_bytes / 10 && !early.threads)
			early = use_of(pid);
		if (bytes < of_bytes - of_bytes / 20)
			late = use_of(pid);
		if (bytes % 64 == 0)
			pause_us(100);
	}
	close(fd);
	int status = child_reap(pid);
	CHECK(status == 0, "evbus %s ends with %x: %s", words, (unsigned)status, program_read("said"));
	CHECK(bytes >= of_bytes, "evbus %s prints %llu bytes of %llu", words, (unsigned long long)bytes,
	      (unsigned long long)of_bytes);
	check_use(words, &early, &late, bytes);
}

/* Those that print little: what they used at most. */
static void run_bounded(const char *words, long rss_max_kib)
{
	struct rusage usage;

	program_must(0, NULL, "/dev/null", "%s", words);
	CHECK(!getrusage(RUSAGE_CHILDREN, &usage), "getrusage");
	fprintf(stderr, "%s: at most %ld KiB\n", words, usage.ru_maxrss);
	CHECK(SANITIZED || usage.ru_maxrss < rss_max_kib, "evbus %s: %ld KiB", words, usage.ru_maxrss);
}

Test(limits, of_readers_hold_for_a_large_log_and_who_reads_slowly)
{
	uint64_t bytes = (uint64_t)run_count(192, 20) << 20;

	fill_log(bytes);
	run_bounded("verify", RSS_MAX_KIB);
	run_bounded("tail -n 1 -t " TOPIC, RSS_MAX_KIB);
	run_bounded("consume -q -g g --max 20 -t " TOPIC " -- true", RSS_MAX_KIB);
	run_bounded("verify --deep", RSS_MAX_KIB);
	drink("tail -o beginning -t " TOPIC, bytes);
	drink("replay -t " TOPIC, bytes);
	run_ran("readers of a large log", 6, 6);
}

Test(limits, of_a_drain_hold_for_a_large_outbox)
{
	uint64_t number = 0, state = run.seed, of = run_count(20000, 800);
	static char line[LINE_ROOM];

	program_must(0, NULL, "/dev/null", "outbox-init --outbox sqlite:app.db");
	pid_t pid = program_start("in", "/dev/null", "outbox-add -q --outbox sqlite:app.db -t " TOPIC);
	int fd = open_to_write("in");
	while (number < of)
		write_all(fd, line, make_line(line, number++, &state));
	close(fd);
	CHECK(child_reap(pid) == 0, "outbox-add: %s", program_read("said"));
	run_bounded("outbox-drain -q --outbox sqlite:app.db", RSS_MAX_KIB);
	run_bounded("outbox-list --outbox sqlite:app.db", RSS_MAX_KIB);
	run_ran("rows of an outbox", number, of);
}
