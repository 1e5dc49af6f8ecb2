/* process.c: descriptors and signals.
 *
 * A signal only sets a flag, so that a command ends between two records and not within one. A flag alone could be set
 * between looking at it and blocking in read(); therefore the handler also writes to a pipe that wait_readable()
 * watches. It is made when somebody waits for the first time. There is no SA_RESTART: whatever blocks returns with EINTR. */
#include "process.h"
#include "cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t stop_signal;
static int stop_pipe[2] = { -1, -1 };

int stopped(void)
{
	return stop_signal;
}

bool not_stopped(void *context)
{
	(void)context;
	return !stop_signal;
}

static void tell_stop(void)
{
	if (stop_pipe[1] >= 0 && write(stop_pipe[1], "", 1) < 0)
		return; /* full: it is readable already */
}

static void make_stop_pipe(void)
{
	if (pipe2(stop_pipe, O_CLOEXEC | O_NONBLOCK))
		stop_pipe[0] = stop_pipe[1] = -1;
	/* The signal came before there was a pipe. */
	if (stop_signal)
		tell_stop();
}

int stop_fd(void)
{
	static pthread_once_t made = PTHREAD_ONCE_INIT;

	pthread_once(&made, make_stop_pipe);
	return stop_pipe[0];
}

int64_t monotonic_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void on_stop(int number)
{
	int saved = errno;

	stop_signal = number;
	tell_stop();
	errno = saved;
}

/* A descriptor 0, 1 or 2 that is closed would be given to the next file that is opened, a log perhaps, and what is
 * printed would go there. In its place /dev/null is opened the wrong way round, so that using it fails as before. */
static void fill_standard_descriptors(void)
{
	static const int modes[] = { O_WRONLY, O_RDONLY, O_RDWR };

	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", modes[fd]) != fd) {
			dprintf(2, "evbus: descriptor %d is closed, and /dev/null cannot be opened in its place: %s\n", fd,
				strerror(errno));
			_exit(EVBUS_IO);
		}
}

/* What was ignored at the start (nohup, a shell's background job) stays ignored. */
static void catch_signal(int number)
{
	struct sigaction action = { .sa_handler = on_stop }, before;

	sigemptyset(&action.sa_mask);
	if (!sigaction(number, NULL, &before) && before.sa_handler == SIG_IGN)
		return;
	sigaction(number, &action, NULL);
}

void process_begin(void)
{
	fill_standard_descriptors();
	signal(SIGPIPE, SIG_IGN);
	/* A file that may not grow as large is a failure that is told, and not a death in the middle of it. */
	signal(SIGXFSZ, SIG_IGN);
	catch_signal(SIGINT);
	catch_signal(SIGTERM);
}

int process_end(enum evbus_code code)
{
	if (!stop_signal)
		return (int)code;
	signal(stop_signal, SIG_DFL);
	raise(stop_signal);
	return 128 + stop_signal;
}

enum waited wait_readable(int fd, int timeout_ms)
{
	return wait_readable_either(fd, -1, timeout_ms);
}

enum waited wait_readable_either(int fd, int other, int timeout_ms)
{
	struct pollfd fds[] = { { .fd = fd, .events = POLLIN },
				{ .fd = other, .events = POLLIN },
				{ .fd = stop_fd(), .events = POLLIN } };

	while (!stop_signal) {
		int n = poll(fds, COUNT(fds), timeout_ms);
		if (stop_signal)
			break;
		if (n == 0)
			return TIMED_OUT;
		if (n > 0 || errno != EINTR)
			return READABLE; /* an error is told by the read that follows */
	}
	return STOPPED;
}
