/* floor.c: the same work as evbus does, by as few lines as keep the same promise. A figure of evbus is told beside one of
 * these, taken in turn with it.
 *
 *	floor append N BYTES FILE             write and fdatasync, one line after the other
 *	floor group PROCESSES N BYTES FILE    so many processes: one syncs for all that wrote before (group commit)
 *	floor blocks BYTES FILE               write and fdatasync each MiB
 *	floor once FILE LINE                  append one line, fdatasync
 *	floor crc FILE                        find each newline and take the CRC-32C of each line, in memory
 *	floor wake N BYTES FILE               append, fdatasync, futex wake: until another process runs
 *	floor spawn N COMMAND [ARG...]        start it and wait, stdin as it is, stdout nowhere
 *	floor pipe IN OUT COMMAND [ARG...]    COMMAND, stdin a pipe fed from the file IN unless "-", stdout a pipe that is
 *	                                      emptied, into the file OUT unless "-"
 *
 * Prints what was done, as measure.h has it: of blocks, crc and pipe (what came out) the count is bytes; more is syncs, of
 * spawn the most memory that one needed, in KiB. */
#include "measure.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <limits.h>
#include <nmmintrin.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static size_t number(const char *arg)
{
	return strtoull(arg, NULL, 10);
}

static int make_file(const char *name)
{
	int fd = open(name, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);

	if (fd < 0)
		die(name);
	return fd;
}

static char *make_line(size_t bytes)
{
	char *line = malloc(bytes);

	if (!line)
		die("memory");
	memset(line, 'x', bytes);
	line[bytes - 1] = '\n';
	return line;
}

static void append(int fd, const char *line, size_t bytes)
{
	if (write(fd, line, bytes) != (ssize_t)bytes)
		die("write");
}

static void append_durably(int fd, const char *line, size_t bytes)
{
	append(fd, line, bytes);
	if (fdatasync(fd))
		die("fdatasync");
}

static void append_each(char **args)
{
	size_t count = number(args[0]), bytes = number(args[1]);
	char *line = make_line(bytes);
	int fd = make_file(args[2]);
	double *times = shared(count * sizeof *times), start = now(), before = start;

	for (size_t i = 0; i < count; i++) {
		append_durably(fd, line, bytes);
		double after = now();
		times[i] = after - before;
		before = after;
	}
	tell(count, now() - start, times, count);
}

/* ---- group commit ---- */

struct group {
	pthread_mutex_t lock;
	pthread_cond_t synced_more;
	uint64_t appended, synced, syncs;
	int syncing;
	size_t count, bytes;
	const char *file;
};

static void wait_for_sync(struct group *group, int fd, uint64_t mine)
{
	while (group->synced < mine) {
		if (group->syncing) {
			pthread_cond_wait(&group->synced_more, &group->lock);
			continue;
		}
		uint64_t covers = group->appended;
		group->syncing = 1;
		group->syncs++;
		pthread_mutex_unlock(&group->lock);
		if (fdatasync(fd))
			die("fdatasync");
		pthread_mutex_lock(&group->lock);
		group->synced = covers;
		group->syncing = 0;
		pthread_cond_broadcast(&group->synced_more);
	}
}

static void append_in_group(size_t i, void *context)
{
	struct group *group = context;
	char *line = make_line(group->bytes);
	int fd = make_file(group->file);

	(void)i;
	for (size_t left = group->count; left; left--) {
		pthread_mutex_lock(&group->lock);
		append(fd, line, group->bytes);
		wait_for_sync(group, fd, ++group->appended);
		pthread_mutex_unlock(&group->lock);
	}
}

static void append_by_many(char **args)
{
	struct group *group = shared(sizeof *group);
	size_t processes = number(args[0]);
	pthread_mutexattr_t mutex;
	pthread_condattr_t cond;

	group->count = number(args[1]);
	group->bytes = number(args[2]);
	group->file = args[3];
	pthread_mutexattr_init(&mutex);
	pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED);
	pthread_mutex_init(&group->lock, &mutex);
	pthread_condattr_init(&cond);
	pthread_condattr_setpshared(&cond, PTHREAD_PROCESS_SHARED);
	pthread_cond_init(&group->synced_more, &cond);
	double seconds = in_processes(processes, append_in_group, group);
	tell(processes * group->count, seconds, NULL, group->syncs);
}

/* ---- a stream, one event, a check ---- */

static void write_blocks(char **args)
{
	size_t bytes = number(args[0]), syncs = 0;
	char *block = make_line(BLOCK_BYTES);
	int fd = make_file(args[1]);
	double start = now();

	for (size_t left = bytes; left; syncs++) {
		size_t len = left < BLOCK_BYTES ? left : BLOCK_BYTES;
		append_durably(fd, block, len);
		left -= len;
	}
	tell(bytes, now() - start, NULL, syncs);
}

static void append_once(char **args)
{
	append_durably(make_file(args[0]), args[1], strlen(args[1]));
}

__attribute__((target("sse4.2"))) static uint64_t crc_of(const char *data, size_t len)
{
	uint64_t crc = UINT32_MAX, word;

	for (; len >= 8; data += 8, len -= 8) {
		memcpy(&word, data, 8);
		crc = _mm_crc32_u64(crc, word);
	}
	while (len--)
		crc = _mm_crc32_u8((unsigned)crc, (unsigned char)*data++);
	return crc;
}

static char *load(const char *name, size_t *len)
{
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		die(name);
	char *data = mmap(NULL, (size_t)st.st_size + 1, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	if (data == MAP_FAILED)
		die(name);
	close(fd);
	*len = (size_t)st.st_size;
	return data;
}

static void check_lines(char **args)
{
	size_t len;
	char *at = load(args[0], &len), *newline;
	uint64_t sum = 0;
	double start = now();

	for (size_t left = len; left && (newline = memchr(at, '\n', left)); at = newline + 1) {
		sum += crc_of(at, (size_t)(newline - at));
		left -= (size_t)(newline + 1 - at);
	}
	double seconds = now() - start;
	if (sum == 0)
		die("no lines");
	tell(len, seconds, NULL, 0);
}

/* ---- waking ---- */

struct word {
	uint32_t value, seen;
};

static void futex(uint32_t *word, int op, uint32_t value)
{
	syscall(SYS_futex, word, op, value, NULL, NULL, 0);
}

static void no_preparation(void *context)
{
	(void)context;
}

static void wait_for_word(void *context)
{
	struct word *word = context;

	while (__atomic_load_n(&word->value, __ATOMIC_ACQUIRE) == word->seen)
		futex(&word->value, FUTEX_WAIT, word->seen);
	word->seen++;
}

static void wake_each(char **args)
{
	struct word *word = shared(sizeof *word);
	size_t count = number(args[0]), bytes = number(args[1]);
	char *line = make_line(bytes);
	int fd = make_file(args[2]);
	struct wakes *wakes = wakes_begin(count, no_preparation, wait_for_word, word);

	for (uint32_t i = 0; i < count; i++) {
		wakes_send(wakes);
		append_durably(fd, line, bytes);
		__atomic_store_n(&word->value, i + 1, __ATOMIC_RELEASE);
		futex(&word->value, FUTEX_WAKE, INT_MAX);
		wakes_wait(wakes);
	}
	wakes_end(wakes);
}

/* ---- processes ---- */

static void must_succeed(pid_t pid, const char *command)
{
	int status;

	if (waitpid(pid, &status, 0) != pid || status) {
		fprintf(stderr, "floor: %s: ended with status %#x\n", command, (unsigned)status);
		exit(74);
	}
}

/* Of the largest process that has ended. */
static unsigned long memory_kib(void)
{
	struct rusage usage;

	getrusage(RUSAGE_CHILDREN, &usage);
	return (unsigned long)usage.ru_maxrss;
}

static void spawn_each(char **args)
{
	size_t count = number(args[0]);
	char **argv = args + 1;
	double *times = shared(count * sizeof *times), start = now();
	posix_spawn_file_actions_t actions;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
	for (size_t i = 0; i < count; i++) {
		double before = now();
		pid_t pid;
		errno = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
		if (errno)
			die(argv[0]);
		must_succeed(pid, argv[0]);
		times[i] = now() - before;
	}
	tell(count, now() - start, times, memory_kib());
}

/* Feeds the one and empties the other; returns how many bytes came. */
static size_t pump(int to, const char *data, size_t left, int from, int out)
{
	static char bytes[BLOCK_BYTES];
	size_t came = 0;
	ssize_t n;

	for (;;) {
		struct pollfd polled[2] = { { from, POLLIN, 0 }, { left ? to : -1, POLLOUT, 0 } };
		if (poll(polled, 2, -1) < 0)
			die("poll");
		if (polled[1].revents) {
			if ((n = write(to, data, left)) < 0 && errno != EAGAIN)
				die("write");
			data += n > 0 ? n : 0;
			left -= n > 0 ? (size_t)n : 0;
			if (!left)
				close(to);
		}
		if (!polled[0].revents)
			continue;
		if ((n = read(from, bytes, sizeof bytes)) <= 0)
			return came;
		if (out >= 0)
			append(out, bytes, (size_t)n);
		came += (size_t)n;
	}
}

static void run_between(char **args)
{
	char **argv = args + 2;
	posix_spawn_file_actions_t actions;
	int input[2], output[2];
	size_t len = 0;
	const char *data = strcmp(args[0], "-") ? load(args[0], &len) : NULL;
	int kept = strcmp(args[1], "-") ? make_file(args[1]) : -1;
	pid_t pid;

	if (pipe2(input, O_CLOEXEC) || pipe2(output, O_CLOEXEC) || fcntl(input[1], F_SETFL, O_NONBLOCK))
		die("pipe");
	fcntl(input[1], F_SETPIPE_SZ, BLOCK_BYTES);
	fcntl(output[1], F_SETPIPE_SZ, BLOCK_BYTES);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, input[0], 0);
	posix_spawn_file_actions_adddup2(&actions, output[1], 1);
	double start = now();
	errno = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
	if (errno)
		die(argv[0]);
	close(input[0]);
	close(output[1]);
	if (!len)
		close(input[1]);
	size_t came = pump(input[1], data, len, output[0], kept);
	must_succeed(pid, argv[0]);
	tell(came, now() - start, NULL, 0);
}

int main(int argc, char **argv)
{
	static const struct work works[] = {
		{ "append", 3, 3, append_each },
		{ "group", 4, 4, append_by_many },
		{ "blocks", 2, 2, write_blocks },
		{ "once", 2, 2, append_once },
		{ "crc", 1, 1, check_lines },
		{ "wake", 3, 3, wake_each },
		{ "spawn", 2, INT_MAX, spawn_each },
		{ "pipe", 3, INT_MAX, run_between },
		{ 0 },
	};

	signal(SIGPIPE, SIG_IGN);
	return run_one(works, argc, argv);
}
