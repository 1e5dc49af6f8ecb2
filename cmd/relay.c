/* relay.c: what a command writes to stderr. */
#include "relay.h"
#include "out.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define READ_BYTES (64u * 1024u)
#define READS 16                     /* at a time, so that a flood does not keep us from anything else */

void relay_begin(struct relay *relay, const struct evbus_record *record)
{
	relay->len = relay->line_len = 0;
	relay->about = (struct about){ .partition_id = -1 };
	if (record && record->topic.data) {
		struct call about = { .about = relay->about };

		about_record(&about, record);
		relay->about = about.about;
	}
}

static void keep(struct relay *relay, const char *data, size_t len)
{
	if (len >= sizeof relay->end) {
		memcpy(relay->end, data + len - sizeof relay->end, sizeof relay->end);
		relay->len = sizeof relay->end;
		return;
	}
	size_t room = sizeof relay->end - relay->len, gone = len > room ? len - room : 0;

	memmove(relay->end, relay->end + gone, relay->len - gone);
	memcpy(relay->end + relay->len - gone, data, len);
	relay->len += len - gone;
}

/* A stderr that cannot be written is nobody's failure. */
static void pass_on(const char *data, size_t len)
{
	struct pollfd fd = { .fd = STDERR_FILENO, .events = POLLOUT };

	progress_clear();
	while (len) {
		ssize_t n = write(STDERR_FILENO, data, len);

		if (n > 0) {
			data += n;
			len -= (size_t)n;
		} else if (n < 0 && errno == EAGAIN) {
			poll(&fd, 1, -1);
		} else if (n == 0 || errno != EINTR) {
			return;
		}
	}
}

static void say_line(struct relay *relay, struct call *call)
{
	struct about before = call->about;

	call->about = relay->about;
	talk(call, NOTICE, "%.*s", (int)relay->line_len, relay->line);
	call->about = before;
	relay->line_len = 0;
}

static void say_lines(struct relay *relay, struct call *call, const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (data[i] != '\n')
			relay->line[relay->line_len++] = data[i];
		if (data[i] == '\n' || relay->line_len == sizeof relay->line)
			say_line(relay, call);
	}
}

static bool is_json(const struct call *call)
{
	return call->common->log && !strcmp(call->common->log, "json");
}

bool relay_read(struct relay *relay, struct call *call, int fd)
{
	static char data[READ_BYTES];

	for (int i = 0; i < READS; i++) {
		ssize_t n = read(fd, data, sizeof data);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 && errno == EAGAIN;
		keep(relay, data, (size_t)n);
		if (!call->common->quiet && is_json(call))
			say_lines(relay, call, data, (size_t)n);
		else if (!call->common->quiet)
			pass_on(data, (size_t)n);
	}
	return true;
}

void relay_end(struct relay *relay, struct call *call)
{
	if (relay->line_len)
		say_line(relay, call);
}

struct evbus_slice relay_text(const struct relay *relay)
{
	struct evbus_slice text = { relay->end, relay->len };

	while (text.len && (text.data[text.len - 1] == '\n' || text.data[text.len - 1] == '\r'))
		text.len--;
	return text;
}
