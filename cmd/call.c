/* call.c: failing, opening the bus, and what several commands share. */
#include "cmd.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

__attribute__((format(printf, 4, 0))) static void set(struct call *call, enum evbus_code code, int sys_errno,
						      const char *format, va_list args)
{
	char text[sizeof call->err.text]; /* the arguments may lie in call->err.text */
	int n = vsnprintf(text, sizeof text, format, args);

	if (sys_errno && n >= 0 && (size_t)n < sizeof text)
		snprintf(text + n, sizeof text - (size_t)n, ": %s", strerror(sys_errno));
	call->err.code = code;
	call->err.sys_errno = sys_errno;
	memcpy(call->err.text, text, sizeof text);
}

enum evbus_code fail(struct call *call, enum evbus_code code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	set(call, code, 0, format, args);
	va_end(args);
	return code;
}

enum evbus_code fail_errno(struct call *call, enum evbus_code code, const char *format, ...)
{
	int sys_errno = errno;
	va_list args;

	va_start(args, format);
	set(call, code, sys_errno, format, args);
	va_end(args);
	return code;
}

enum evbus_code fail_within(struct call *call, const char *format, ...)
{
	struct evbus_err inner = call->err;
	va_list args;

	va_start(args, format);
	set(call, inner.code, 0, format, args);
	va_end(args);
	size_t len = strlen(call->err.text);
	snprintf(call->err.text + len, sizeof call->err.text - len, ": %s", inner.text);
	call->err.sys_errno = inner.sys_errno;
	return inner.code;
}

static void copy_text(char *to, size_t size, const char *text, size_t len)
{
	len = len < size ? len : size - 1;
	if (len)
		memcpy(to, text, len);
	to[len] = '\0';
}

void about_topic(struct call *call, const char *topic, int32_t partition_id)
{
	copy_text(call->about.topic, sizeof call->about.topic, topic, strlen(topic));
	call->about.partition_id = partition_id;
	call->about.offset[0] = '\0';
}

void about_record(struct call *call, const struct evbus_record *record)
{
	copy_text(call->about.topic, sizeof call->about.topic, record->topic.data, record->topic.len);
	call->about.partition_id = record->partition_id;
	copy_text(call->about.offset, sizeof call->about.offset, record->offset.data, record->offset.len);
}

/* Percent escapes (RFC 3986, section 2.1) for all that is not unreserved there. text has room. */
static char *escape(char *to, const char *text, size_t len)
{
	static const char digits[] = "0123456789ABCDEF";

	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];
		if (isalnum(c) || strchr("-._~", c)) {
			*to++ = text[i];
			continue;
		}
		*to++ = '%';
		*to++ = digits[c >> 4];
		*to++ = digits[c & 15];
	}
	return to;
}

/* *size: what the URL needs at most with all of them. */
static enum evbus_code check_bus_options(struct call *call, size_t *size)
{
	const struct list *options = &call->common->bus_option;
	const char *bus = call->common->bus;

	if (!strncasecmp(bus, "file:", 5) || (!strstr(bus, "://") && strncasecmp(bus, "memory:", 7) != 0))
		return fail(call, EVBUS_USAGE, "option '--bus-option': the bus '%s' is files, and has no options", bus);
	*size = strlen(bus) + 1;
	for (size_t i = 0; i < options->count; i++) {
		const char *equals = strchr(options->items[i], '=');
		if (!equals || equals == options->items[i])
			return fail(call, EVBUS_USAGE, "option '--bus-option': '%s' is not NAME=VALUE",
				    options->items[i]);
		*size += 3 * strlen(options->items[i]) + 2;
	}
	return EVBUS_OK;
}

enum evbus_code bus_take_options(struct call *call)
{
	const struct list *options = &call->common->bus_option;
	size_t size = 1;

	if (!options->count)
		return EVBUS_OK;
	TRY(check_bus_options(call, &size));
	char *to = call->url = malloc(size);
	if (!to)
		return fail(call, EVBUS_IO, "cannot open a bus: out of memory");
	to = stpcpy(to, call->common->bus);
	for (size_t i = 0; i < options->count; i++) {
		const char *name = options->items[i], *equals = strchr(name, '=');
		*to++ = i || strchr(call->common->bus, '?') ? '&' : '?';
		to = escape(to, name, (size_t)(equals - name));
		*to++ = '=';
		to = escape(to, equals + 1, strlen(equals + 1));
	}
	*to = '\0';
	call->common->bus = call->url;
	return EVBUS_OK;
}

static void notice(void *context, const char *text)
{
	talk(context, NOTICE, "%s", text);
}

enum evbus_code bus_open(struct call *call, const struct evbus_options *more, struct evbus **bus)
{
	struct evbus_options options = more ? *more : (struct evbus_options){ .store = NULL };
	char masked[MASKED_MAX_BYTES];

	options.store = call->common->store;
	options.config = call->config;
	options.notice = notice;
	options.notice_context = call;
	options.go_on = not_stopped;
	if (call->common->verbose) {
		mask_secrets(call->common->bus, masked);
		talk(call, DETAIL, "bus '%s'", masked);
	}
	return evbus_open(call->common->bus, &options, bus, &call->err);
}

enum evbus_code bus_open_other(struct call *call, const char *url, uint32_t payload_max_bytes, struct evbus **bus)
{
	const struct evbus_options options = {
		.payload_max_bytes = payload_max_bytes, .notice = notice, .notice_context = call, .go_on = not_stopped
	};

	return evbus_open(url, &options, bus, &call->err);
}

enum evbus_code refuse_of_target(struct call *call, const char *url, const char *option, const char *why)
{
	char masked[MASKED_MAX_BYTES];

	if (!evbus_names_target(url))
		return EVBUS_OK;
	mask_secrets(url, masked);
	return fail(call, EVBUS_USAGE, "--%s is not for a target such as '%s': %s", option, masked, why);
}

void bus_cleanup(struct evbus **bus)
{
	if (*bus)
		evbus_close(*bus);
}

enum evbus_code partitioning_named(struct call *call, const char *name, const char **key_from)
{
	const struct evbus_config *config = call->config;

	for (size_t i = 0; config && i < config->partitioning_count; i++)
		if (!strcmp(config->partitionings[i].name, name)) {
			*key_from = config->partitionings[i].key_from;
			return EVBUS_OK;
		}
	if (!config)
		return fail(call, EVBUS_CONFIG, "there is no configuration, and so no partitioning '%s'", name);
	return fail(call, EVBUS_CONFIG, "the configuration '%s' has no partitioning '%s'", config->path, name);
}

struct evbus_retry retry_policy(const struct retry_args *args)
{
	return (struct evbus_retry){
		.max = (uint32_t)args->retry_max,
		.delay_ms = args->retry_delay.ms,
		.factor = args->retry_factor.value,
		.cap_ms = args->retry_cap.ms,
	};
}

struct evbus_selection reading_selection(const struct reading *reading)
{
	return (struct evbus_selection){
		.topic = reading->topic,
		.partition_id = (int32_t)reading->partition,
		.from = reading->offset.text,
		.to = reading->to_offset.text,
		.since = reading->since.text,
		.until = reading->until.text,
		.group = reading->group,
		.filter = {
			.type = reading->type,
			.tenant = reading->tenant,
			.correlation_id = reading->correlation_id,
			.event_key = reading->event_key,
			.where = reading->where.items,
			.where_count = reading->where.count,
		},
	};
}
