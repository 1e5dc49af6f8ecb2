/* environment.c: what a command finds in its environment. */
#include "environment.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VALUE_MAX_BYTES (127u * 1024u) /* the kernel takes 128 KiB with name and NUL (MAX_ARG_STRLEN) */

/* ---- ours ------------------------------------------------------------------------------------------------------ */

static bool begins_with(const char *text, const char *prefix)
{
	return !strncmp(text, prefix, strlen(prefix));
}

static bool is_passed_on(const char *entry)
{
	return !begins_with(entry, "EVENT_") && !(begins_with(entry, "EVBUS_") && holds_password(entry));
}

enum evbus_code environment_make(struct call *call, const char *group, struct environment *environment)
{
	size_t count = 0;

	while (environ[count])
		count++;
	*environment = (struct environment){ .call = call, .group = group };
	environment->entries = calloc(count + EVENT_VARIABLES + 1, sizeof *environment->entries);
	if (!environment->entries)
		return fail_errno(call, EVBUS_AGAIN, "cannot make an environment");
	for (size_t i = 0; i < count; i++)
		if (begins_with(environ[i], "TRACEPARENT="))
			environment->traceparent = environ[i];
		else if (is_passed_on(environ[i]))
			environment->entries[environment->own++] = environ[i];
	return EVBUS_OK;
}

void environment_cleanup(struct environment *environment)
{
	free(environment->entries);
	free(environment->text);
	*environment = (struct environment){ .entries = NULL };
}

/* ---- the event's ----------------------------------------------------------------------------------------------- */

/* Room for so many bytes behind what is there. */
static char *reserve(struct environment *environment, size_t more)
{
	if (environment->size - environment->len < more) {
		size_t size = 2 * environment->size + more;
		char *text = realloc(environment->text, size);

		if (!text) {
			environment->no_memory = true;
			return NULL;
		}
		environment->text = text;
		environment->size = size;
	}
	return environment->text + environment->len;
}

static void leave_out(struct environment *environment, const char *name)
{
	if (!environment->told)
		talk(environment->call, WARNING,
		     "%s is left out of the environment of the command: it holds a NUL, or is longer than %u KiB; "
		     "this is said once",
		     name, VALUE_MAX_BYTES / 1024);
	environment->told = true;
}

/* What was written behind what is there becomes a variable. */
static void keep(struct environment *environment, const char *name, size_t name_len, size_t len)
{
	char *at = environment->text + environment->len;

	if (memchr(at, '\0', name_len + len)) {
		leave_out(environment, name);
		return;
	}
	at[name_len + len] = '\0';
	environment->begins[environment->count++] = environment->len;
	environment->len += name_len + len + 1;
}

static void add_text(struct environment *environment, const char *name, struct evbus_slice value)
{
	size_t name_len = strlen(name) + 1;
	char *at = value.data ? reserve(environment, name_len + value.len + 1) : NULL;

	if (!at)
		return;
	memcpy(at, name, name_len - 1);
	at[name_len - 1] = '=';
	memcpy(at + name_len, value.data, value.len);
	keep(environment, name, name_len, value.len);
}

static bool is_there(struct evbus_slice value)
{
	return value.data && value.data[0] != 'n';
}

/* Raw JSON values as text, with a blank between them; null is nothing. */
static void add_json_pair(struct environment *environment, const char *name, struct evbus_slice first,
			  struct evbus_slice second)
{
	size_t name_len = strlen(name) + 1;
	size_t first_len = is_there(first) ? evbus_json_text(first, NULL, 0) + 1 : 0;

	if (!is_there(second))
		return;
	size_t len = first_len + evbus_json_text(second, NULL, 0);
	if (len > VALUE_MAX_BYTES) {
		leave_out(environment, name);
		return;
	}
	char *at = reserve(environment, name_len + len + 1);
	if (!at)
		return;
	memcpy(at, name, name_len - 1);
	at[name_len - 1] = '=';
	if (first_len) {
		evbus_json_text(first, at + name_len, first_len - 1);
		at[name_len + first_len - 1] = ' ';
	}
	evbus_json_text(second, at + name_len + first_len, len - first_len);
	keep(environment, name, name_len, len);
}

static void add_json(struct environment *environment, const char *name, struct evbus_slice value)
{
	add_json_pair(environment, name, (struct evbus_slice){ NULL, 0 }, value);
}

static void add_number(struct environment *environment, const char *name, int64_t number)
{
	char text[24];
	int n = snprintf(text, sizeof text, "%lld", (long long)number);

	add_text(environment, name, (struct evbus_slice){ text, (size_t)n });
}

static void add_envelope(struct environment *environment, const struct evbus_record *record)
{
	struct evbus_envelope envelope;
	struct evbus_err err;

	/* A member that stands twice is nobody's id: the event has none of these. */
	if (!record->payload.data || evbus_envelope_read(record->payload, &envelope, &err))
		return;
	/* Of CloudEvents source and id together, as the inbox has it. */
	add_json_pair(environment, "EVENT_ID", envelope.id_source, envelope.event_id);
	add_json(environment, "EVENT_TYPE", envelope.event_type);
	add_json(environment, "EVENT_TENANT_ID", record->tenant_id.data ? record->tenant_id : envelope.tenant_id);
}

/* W3C Trace Context. */
static void add_traceparent(struct environment *environment, const struct evbus_record *record)
{
	struct evbus_slice value = { NULL, 0 };
	size_t before = environment->count;

	if (record && record->payload.data)
		value = evbus_json_find(record->payload, "/traceparent", NULL);
	if (value.data && value.data[0] == '"')
		add_json(environment, "TRACEPARENT", value);
	if (environment->count == before && environment->traceparent)
		add_text(environment, "TRACEPARENT",
			 (struct evbus_slice){ environment->traceparent + strlen("TRACEPARENT="),
					       strlen(environment->traceparent) - strlen("TRACEPARENT=") });
}

static void add_record(struct environment *environment, const struct evbus_record *record)
{
	const char *kind = record->offset_kind;

	add_text(environment, "EVENT_TOPIC", record->topic);
	if (record->partition_id >= 0)
		add_number(environment, "EVENT_PARTITION_ID", record->partition_id);
	add_text(environment, "EVENT_OFFSET", record->offset);
	add_text(environment, "EVENT_OFFSET_KIND", (struct evbus_slice){ kind, kind ? strlen(kind) : 0 });
	add_text(environment, "EVENT_PUBLISHED_AT_UTC", record->published_at_utc);
	add_json(environment, "EVENT_PARTITION_KEY", record->partition_key);
	add_envelope(environment, record);
}

enum evbus_code environment_set(struct environment *environment, const struct evbus_record *record, uint32_t attempt)
{
	const char *group = environment->group;

	environment->len = environment->count = 0;
	if (record)
		add_record(environment, record);
	if (attempt)
		add_number(environment, "EVENT_ATTEMPT", attempt);
	add_text(environment, "EVENT_GROUP", (struct evbus_slice){ group, group ? strlen(group) : 0 });
	add_traceparent(environment, record);
	if (environment->no_memory) {
		errno = ENOMEM;
		return fail_errno(environment->call, EVBUS_AGAIN, "cannot make an environment");
	}
	for (size_t i = 0; i < environment->count; i++)
		environment->entries[environment->own + i] = environment->text + environment->begins[i];
	environment->entries[environment->own + environment->count] = NULL;
	return EVBUS_OK;
}
