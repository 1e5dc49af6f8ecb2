/* measure.c: a clock, an event, processes, and how a result is told. */
#include "measure.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Until the next event: as long as a follower needs to go to sleep. */
#define PAUSE_US 500

struct wakes {
	size_t count, sent, seen; /* seen is count + 1 until the other process is ready */
	double began, start;
	double *times;
	pid_t pid;
};

_Noreturn void die(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
	exit(74);
}

double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

void *shared(size_t size)
{
	void *block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (block == MAP_FAILED)
		die("memory");
	return block;
}

size_t event_make(char event[EVENT_MAX_BYTES], size_t number)
{
	return (size_t)snprintf(
		event, EVENT_MAX_BYTES,
		"{\"event_id\":\"%012zu\",\"type\":\"order.%s\",\"tenant_id\":\"t-%zu\",\"occurred_at\":"
		"\"2026-11-21T12:00:00Z\",\"customer\":{\"name\":\"Ada Lovelace\",\"city\":\"London\"},"
		"\"lines\":[{\"sku\":\"A-%05zu\",\"quantity\":3,\"price\":\"19.90\"},{\"sku\":\"B-%05zu\","
		"\"quantity\":1,\"price\":\"4.50\"}],\"note\":\"leave it at the door, please\"}",
		number, number % 100 == 7 ? "cancelled" : "created", number % 7, number % 90001, number % 70001);
}

double in_processes(size_t n, void (*work)(size_t i, void *context), void *context)
{
	double start = now();

	for (size_t i = 0; i < n; i++) {
		pid_t pid = fork();
		if (pid < 0)
			die("fork");
		if (pid == 0) {
			work(i, context);
			_exit(0);
		}
	}
	for (int status; n; n--) {
		if (wait(&status) < 0)
			die("wait");
		if (status)
			exit(74);
	}
	return now() - start;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

void tell(size_t count, double seconds, double *times, unsigned long more)
{
	double p50 = 0, p99 = 0;

	if (times && count) {
		qsort(times, count, sizeof *times, ascending);
		p50 = times[count / 2];
		p99 = times[count * 99 / 100];
	}
	printf("%zu %.6f %.3f %.3f %lu\n", count, seconds, p50 * 1e6, p99 * 1e6, more);
}

/* ---- from one process to another ---- */

static void be_woken(struct wakes *wakes, void (*receive)(void *context), void *context)
{
	for (size_t i = 0; i < wakes->count; i++) {
		receive(context);
		wakes->times[i] = now() - wakes->began;
		__atomic_store_n(&wakes->seen, i + 1, __ATOMIC_RELEASE);
	}
	_exit(0);
}

/* Dies with the other process. */
static void wait_until(struct wakes *wakes, size_t seen)
{
	while (__atomic_load_n(&wakes->seen, __ATOMIC_ACQUIRE) != seen) {
		if (waitpid(wakes->pid, NULL, WNOHANG) > 0 &&
		    __atomic_load_n(&wakes->seen, __ATOMIC_ACQUIRE) != wakes->count)
			die("the follower ended");
		usleep(50);
	}
}

struct wakes *wakes_begin(size_t count, void (*ready)(void *context), void (*receive)(void *context), void *context)
{
	struct wakes *wakes = shared(sizeof *wakes);

	wakes->count = count;
	wakes->seen = count + 1;
	wakes->times = shared(count * sizeof *wakes->times);
	wakes->pid = fork();
	if (wakes->pid < 0)
		die("fork");
	if (wakes->pid == 0) {
		ready(context);
		__atomic_store_n(&wakes->seen, 0, __ATOMIC_RELEASE);
		be_woken(wakes, receive, context);
	}
	wait_until(wakes, 0);
	wakes->start = now();
	return wakes;
}

void wakes_send(struct wakes *wakes)
{
	usleep(PAUSE_US);
	wakes->sent++;
	wakes->began = now();
}

void wakes_wait(struct wakes *wakes)
{
	wait_until(wakes, wakes->sent);
}

void wakes_end(struct wakes *wakes)
{
	waitpid(wakes->pid, NULL, 0);
	tell(wakes->count, now() - wakes->start, wakes->times, 0);
}

int run_one(const struct work *works, int argc, char **argv)
{
	for (; argc > 1 && works->name; works++)
		if (!strcmp(works->name, argv[1]) && argc - 2 >= works->args_min && argc - 2 <= works->args_max) {
			works->run(argv + 2);
			return 0;
		}
	fprintf(stderr, "%s: look at the head of %s.c\n", program_invocation_short_name, program_invocation_short_name);
	return 64;
}
