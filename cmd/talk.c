/* talk.c: what is said on stderr: notices, errors, and with --log json one JSON object a line.
 *
 * Each line is one write, so that lines of several processes on one terminal or log do not mix. */
#include "out.h"
#include "opt.h"
#include "report.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Enough for a message of 511 bytes of which each is escaped to six. */
#define LINE_MAX_BYTES 8192u

struct line {
	char data[LINE_MAX_BYTES];
	size_t len;
};

static void add(void *context, const char *data, size_t len)
{
	struct line *line = context;

	if (len > sizeof line->data - line->len)
		len = sizeof line->data - line->len;
	memcpy(line->data + line->len, data, len);
	line->len += len;
}

static void add_text(struct line *line, const char *text)
{
	add(line, text, strlen(text));
}

static void add_member(struct line *line, const char *name, const char *value)
{
	add_text(line, ",\"");
	add_text(line, name);
	add_text(line, "\":\"");
	json_escape((struct evbus_slice){ value, strlen(value) }, add, line);
	add_text(line, "\"");
}

static void add_number(struct line *line, const char *name, int64_t value)
{
	char text[64];

	snprintf(text, sizeof text, ",\"%s\":%lld", name, (long long)value);
	add_text(line, text);
}

static void add_json(struct line *line, const struct call *call, enum level level, int code, const char *message)
{
	static const char *const levels[] = { "debug", "notice", "warning", "error" };
	char now[28];

	evbus_time_format(evbus_time_now(), now);
	add_text(line, "{\"time\":\"");
	add_text(line, now);
	add_text(line, "\"");
	add_member(line, "level", levels[level]);
	add_member(line, "command", call->command ? name_of(call->command->name).text : "");
	add_member(line, "message", message);
	if (call->about.topic[0])
		add_member(line, "topic", call->about.topic);
	if (call->about.partition_id >= 0)
		add_number(line, "partition_id", call->about.partition_id);
	if (call->about.offset[0])
		add_member(line, "offset", call->about.offset);
	if (code)
		add_number(line, "code", code);
	add_text(line, "}");
}

/* Messages quote what they were given, names of files as well, and a terminal obeys control characters. */
static void add_plain(struct line *line, const char *message)
{
	for (const char *at = message; *at; at++) {
		unsigned char byte = (unsigned char)*at;
		char escape[8];

		if (byte >= 0x20 && byte != 0x7f) {
			add(line, at, 1);
			continue;
		}
		snprintf(escape, sizeof escape, "\\x%02x", byte);
		add_text(line, escape);
	}
}

static void say(struct call *call, enum level level, int code, const char *message)
{
	struct line line = { .len = 0 };

	progress_clear();
	if (call->common->log && !strcmp(call->common->log, "json")) {
		add_json(&line, call, level, code, message);
	} else {
		add_text(&line, "evbus ");
		add_text(&line, call->command ? name_of(call->command->name).text : "");
		line.len -= call->command ? 0 : 1;
		add_text(&line, ": ");
		add_plain(&line, message);
	}
	if (line.len == sizeof line.data)
		line.len--;
	add_text(&line, "\n");
	if (write(STDERR_FILENO, line.data, line.len) < 0)
		return; /* there is nowhere left to tell it */
}

void talk(struct call *call, enum level level, const char *format, ...)
{
	char message[1024];
	va_list args;

	if (level == DETAIL ? !call->common->verbose : level == NOTICE && call->common->quiet)
		return;
	va_start(args, format);
	vsnprintf(message, sizeof message, format, args);
	va_end(args);
	say(call, level, 0, message);
}

void report(struct call *call, enum evbus_code code)
{
	if (call->err.code == code)
		say(call, ERROR, (int)code, call->err.text);
	else if (code != EVBUS_NO)
		say(call, ERROR, (int)code, status_meaning(code));
}
