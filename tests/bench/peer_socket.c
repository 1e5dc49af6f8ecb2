/* peer_socket.c: a connection with a buffer either way, so that a window of events costs a few calls. */
#include "measure.h"
#include "peer.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int fd = -1;
static char output[BLOCK_BYTES], input[BLOCK_BYTES];
static size_t output_len, input_at, input_len;

void socket_open(const char *port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)strtoul(port, NULL, 10)) };
	int yes = 1;

	if (fd >= 0)
		close(fd);
	output_len = input_at = input_len = 0;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) ||
	    connect(fd, (struct sockaddr *)&address, sizeof address))
		die("connect");
}

static void flush(void)
{
	for (size_t done = 0; done < output_len;) {
		ssize_t n = write(fd, output + done, output_len - done);
		if (n <= 0)
			die("write");
		done += (size_t)n;
	}
	output_len = 0;
}

void socket_put(const void *data, size_t len)
{
	if (len > sizeof output - output_len)
		flush();
	memcpy(output + output_len, data, len);
	output_len += len;
}

void socket_print(const char *format, ...)
{
	char text[EVENT_MAX_BYTES];
	va_list args;

	va_start(args, format);
	int len = vsnprintf(text, sizeof text, format, args);
	va_end(args);
	if (len < 0 || (size_t)len >= sizeof text)
		die("format");
	socket_put(text, (size_t)len);
}

/* What was not taken yet stays. */
static void read_more(void)
{
	flush();
	memmove(input, input + input_at, input_len - input_at);
	input_len -= input_at;
	input_at = 0;
	errno = EPIPE;
	ssize_t n = read(fd, input + input_len, sizeof input - input_len);
	if (n <= 0)
		die("read");
	input_len += (size_t)n;
}

char *socket_take(size_t len)
{
	if (len > sizeof input)
		die("too much");
	while (input_len - input_at < len)
		read_more();
	char *bytes = input + input_at;
	input_at += len;
	return bytes;
}

char *socket_line(void)
{
	char *end;

	while (!(end = memchr(input + input_at, '\n', input_len - input_at)))
		read_more();
	char *line = input + input_at;
	input_at = (size_t)(end - input) + 1;
	if (end > line && end[-1] == '\r')
		end--;
	*end = '\0';
	return line;
}
