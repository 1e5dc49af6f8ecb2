/* hold <PIPE: takes all that comes without reading it, and prints it when there is no more.
 *
 * It is moved on into pipes (splice), so what is printed is what its writer's memory has then, if that is what a pipe
 * was given; for tests that nothing is changed there. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PIPES_MAX 400 /* enough for 25 MiB where each is small */
#define PIPE_BYTES (1 << 20)

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

/* false: there is no more. */
static int fill(int to)
{
	for (;;) {
		struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
		if (poll(&input, 1, -1) < 0)
			fail("poll");
		ssize_t n = splice(STDIN_FILENO, NULL, to, NULL, PIPE_BYTES, SPLICE_F_NONBLOCK);
		if (n == 0)
			return 0;
		if (n < 0 && errno == EAGAIN)
			return 1;
		if (n < 0)
			fail("splice");
	}
}

static void print(int from)
{
	static char bytes[1 << 16];
	ssize_t n;

	while ((n = read(from, bytes, sizeof bytes)) > 0)
		if (fwrite(bytes, 1, (size_t)n, stdout) != (size_t)n)
			fail("write");
	if (n < 0)
		fail("read");
}

int main(void)
{
	static int held[PIPES_MAX];
	size_t count = 0;
	int ends[2], more;

	do {
		if (count == PIPES_MAX || pipe(ends))
			fail("pipe");
		fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES);
		more = fill(ends[1]);
		close(ends[1]);
		held[count++] = ends[0];
	} while (more);
	for (size_t i = 0; i < count; i++)
		print(held[i]);
	return 0;
}
