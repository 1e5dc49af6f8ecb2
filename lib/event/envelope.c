/* envelope.c: what an event says of itself.
 *
 * Every meaning has several names. All names that a caller needs are looked up in one scan of the payload; of those
 * that are there, the first in the order of the table counts. A null says nothing, so the search goes on after it. A
 * name that is there twice is never guessed: which of the two values counts differs between parsers. */
#include "event/envelope.h"

#include "event/subject.h"

#include <stdint.h>
#include <string.h>

#define POINTER_MAX_BYTES 1024u /* of a pointer in a filter or a list */
#define TYPE_MAX_BYTES 1024u /* of an event type that is written with escapes and has to match a pattern */
#define NAMES_MAX 6

enum meaning {
	EVENT_ID,
	EVENT_KEY,
	EVENT_TYPE,
	TENANT_ID,
	OCCURRED_AT,
	CORRELATION_ID,
	SCHEMA_VERSION,
	CLOUDEVENTS_VERSION,
	CLOUDEVENTS_SOURCE,
	MEANINGS
};

#define NAME(text)                                                                                                     \
	{                                                                                                              \
		(text), sizeof(text) - 1                                                                               \
	}

static const struct evbus_slice names_of[MEANINGS][NAMES_MAX] = {
	[EVENT_ID] = { NAME("event_id"), NAME("eventId"), NAME("id") },
	[EVENT_KEY] = { NAME("event_key"), NAME("eventKey"), NAME("idempotency_key"), NAME("idempotencyKey") },
	[EVENT_TYPE] = { NAME("event_type"), NAME("eventType"), NAME("type"), NAME("name") },
	[TENANT_ID] = { NAME("tenant_id"), NAME("tenantId"), NAME("firm_id") },
	[OCCURRED_AT] = { NAME("occurred_at"), NAME("occurredAt"), NAME("ts_utc"), NAME("time"), NAME("timestamp"),
			  NAME("createdAt") },
	[CORRELATION_ID] = { NAME("correlation_id"), NAME("correlationId"), NAME("trace_id"), NAME("traceId") },
	[SCHEMA_VERSION] = { NAME("schema_version"), NAME("schemaVersion"), NAME("version") },
	[CLOUDEVENTS_VERSION] = { NAME("specversion") },
	[CLOUDEVENTS_SOURCE] = { NAME("source") },
};

/* What is asked of one payload, and the answers. */
struct question {
	struct json_want wants[MEANINGS * NAMES_MAX];
	size_t count;
	size_t first[MEANINGS]; /* the wants of a meaning: from first to end */
	size_t end[MEANINGS];
};

static void ask(struct question *q, enum meaning meaning)
{
	q->first[meaning] = q->count;
	for (size_t i = 0; i < NAMES_MAX && names_of[meaning][i].data; i++)
		q->wants[q->count++].name = names_of[meaning][i];
	q->end[meaning] = q->count;
}

static bool is_null(struct evbus_slice value)
{
	return value.data[0] == 'n';
}

/* The name that counts, NULL where there is none. */
static const struct json_want *pick(const struct question *q, enum meaning meaning)
{
	for (size_t i = q->first[meaning]; i < q->end[meaning]; i++) {
		const struct json_want *want = &q->wants[i];
		if (want->times > 1 || (want->times == 1 && !is_null(want->value)))
			return want;
	}
	return NULL;
}

/* ---- the envelope ---------------------------------------------------------------------------------------------- */

static enum evbus_code take(const struct question *q, enum meaning meaning, struct evbus_slice *value,
			    struct evbus_err *err)
{
	const struct json_want *want = pick(q, meaning);

	if (want && want->times > 1)
		return err_set(err, EVBUS_DATA, 0, "the member '%.*s' stands in the payload %u times",
			       (int)want->name.len, want->name.data, want->times);
	*value = want ? want->value : (struct evbus_slice){ 0 };
	return EVBUS_OK;
}

static enum evbus_code take_all(const struct question *q, struct evbus_envelope *e, struct evbus_err *err)
{
	struct evbus_slice specversion = { 0 };

	TRY(take(q, EVENT_ID, &e->event_id, err));
	TRY(take(q, EVENT_KEY, &e->event_key, err));
	TRY(take(q, EVENT_TYPE, &e->event_type, err));
	TRY(take(q, TENANT_ID, &e->tenant_id, err));
	TRY(take(q, OCCURRED_AT, &e->occurred_at, err));
	TRY(take(q, CORRELATION_ID, &e->correlation_id, err));
	TRY(take(q, SCHEMA_VERSION, &e->schema_version, err));
	TRY(take(q, CLOUDEVENTS_VERSION, &specversion, err));
	if (!e->event_key.data)
		e->event_key = e->event_id;
	/* CloudEvents 1.0, section 3.1.1: an id is unique within its source only. */
	if (specversion.data && e->event_id.data)
		TRY(take(q, CLOUDEVENTS_SOURCE, &e->id_source, err));
	return EVBUS_OK;
}

static enum evbus_code refuse(const struct json_fault *fault, struct evbus_err *err)
{
	enum evbus_code code = err_set(err, EVBUS_DATA, 0, "the payload is not one JSON object: %s at byte %zu",
				       fault->reason, fault->at + 1);
	if (err)
		err->column = (uint32_t)(fault->at + 1);
	return code;
}

enum evbus_code evbus_envelope_read(struct evbus_slice payload, struct evbus_envelope *envelope, struct evbus_err *err)
{
	struct evbus_envelope e = { 0 };
	struct question q;
	struct json_fault fault;

	q.count = 0;
	for (int meaning = 0; meaning < MEANINGS; meaning++)
		ask(&q, (enum meaning)meaning);
	if (!json_scan(payload, q.wants, q.count, &fault))
		return refuse(&fault, err);
	TRY(take_all(&q, &e, err));
	*envelope = e;
	return EVBUS_OK;
}

/* ---- pointers -------------------------------------------------------------------------------------------------- */

/* RFC 6901, section 3. The pointer to the whole is no use here and refused. */
static bool is_pointer(struct evbus_slice pointer)
{
	if (pointer.len == 0 || pointer.len > POINTER_MAX_BYTES || pointer.data[0] != '/')
		return false;
	for (size_t i = 0; i < pointer.len; i++)
		if (pointer.data[i] == '~') {
			char escape = ++i < pointer.len ? pointer.data[i] : 0;
			if (escape != '0' && escape != '1')
				return false;
		}
	return true;
}

static struct evbus_slice find(struct evbus_slice payload, struct evbus_slice pointer, bool *ambiguous)
{
	char text[POINTER_MAX_BYTES + 1];

	memcpy(text, pointer.data, pointer.len);
	text[pointer.len] = '\0';
	return evbus_json_find(payload, text, ambiguous);
}

/* ---- filters --------------------------------------------------------------------------------------------------- */

/* A type may hold any character, so only the wildcards of its pattern are checked. */
static bool is_type_pattern(const char *pattern)
{
	for (const char *token = pattern;; token++) {
		size_t len = strcspn(token, ".");
		bool wild = len == 1 && (*token == '*' || *token == '>');
		if (len == 0 || (!wild && strcspn(token, "*>") < len) || (wild && *token == '>' && token[1]))
			return false;
		token += len;
		if (!*token)
			return true;
	}
}

static struct evbus_slice where_pointer(const char *where)
{
	return (struct evbus_slice){ where, strcspn(where, "=") };
}

enum evbus_code filter_check(const struct evbus_filter *filter, struct evbus_err *err)
{
	if (filter->type && !is_type_pattern(filter->type))
		return err_set(
			err, EVBUS_USAGE, 0,
			"type '%s' is not a pattern: tokens and dots, * for one token, > for the rest, in quotes",
			filter->type);
	for (size_t i = 0; i < filter->where_count; i++) {
		struct evbus_slice pointer = where_pointer(filter->where[i]);
		if (!is_pointer(pointer) || !filter->where[i][pointer.len])
			return err_set(err, EVBUS_USAGE, 0,
				       "where '%s' is not of the form /pointer=VALUE (/customer/id=42)",
				       filter->where[i]);
	}
	return EVBUS_OK;
}

bool filter_is_empty(const struct evbus_filter *filter)
{
	return !filter->type && !filter->tenant && !filter->correlation_id && !filter->event_key &&
	       filter->where_count == 0;
}

static struct evbus_slice text_of(const char *text)
{
	return (struct evbus_slice){ text, strlen(text) };
}

/* The value that counts; data NULL where there is none or it is there twice. */
static struct evbus_slice value_of(const struct question *q, enum meaning meaning)
{
	const struct json_want *want = pick(q, meaning);

	return want && want->times == 1 ? want->value : (struct evbus_slice){ 0 };
}

static bool type_matches(const char *pattern, struct evbus_slice type)
{
	char text[TYPE_MAX_BYTES];

	if (!type.data)
		return false;
	if (type.data[0] != '"')
		return subject_matches(pattern, type);
	if (!memchr(type.data, '\\', type.len))
		return subject_matches(pattern, (struct evbus_slice){ type.data + 1, type.len - 2 });
	size_t len = evbus_json_text(type, text, sizeof text);
	return len <= sizeof text && subject_matches(pattern, (struct evbus_slice){ text, len });
}

static bool key_matches(const char *key, const struct question *q)
{
	/* A key that is there twice is no reason to go by the event id instead. */
	enum meaning meaning = pick(q, EVENT_KEY) ? EVENT_KEY : EVENT_ID;

	return json_equals(value_of(q, meaning), text_of(key));
}

static struct evbus_slice where_value(const char *where)
{
	return text_of(where + where_pointer(where).len + 1);
}

static bool where_matches(const struct evbus_filter *filter, struct evbus_slice payload)
{
	for (size_t i = 0; i < filter->where_count; i++) {
		struct evbus_slice value = find(payload, where_pointer(filter->where[i]), NULL);
		if (!json_equals(value, where_value(filter->where[i])))
			return false;
	}
	return true;
}

static bool holds(struct evbus_slice payload, struct evbus_slice text)
{
	return text.len == 0 || memmem(payload.data, payload.len, text.data, text.len);
}

/* The longest part of a pattern that stands for itself. */
static struct evbus_slice plain_part(const char *pattern)
{
	struct evbus_slice longest = { pattern, 0 };

	for (const char *at = pattern;; at++) {
		size_t len = strcspn(at, "*>");
		if (len > longest.len)
			longest = (struct evbus_slice){ at, len };
		at += len;
		if (!*at)
			return longest;
	}
}

/* Most records match no filter, and that shows without reading them: where nothing is escaped, a value that matches
 * stands in the payload as it was asked for. true: it has to be read. */
static bool may_match(const struct evbus_filter *f, const char *tenant, const char *key, struct evbus_slice payload)
{
	const char *const texts[] = { tenant, f->correlation_id, key };

	if (payload.len == 0 || memchr(payload.data, '\\', payload.len))
		return true;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		if (texts[i] && !holds(payload, text_of(texts[i])))
			return false;
	for (size_t i = 0; i < f->where_count; i++)
		if (!holds(payload, where_value(f->where[i])))
			return false;
	return !f->type || holds(payload, plain_part(f->type));
}

/* What the payload has to answer, after what the record itself says. */
static bool payload_matches(const struct evbus_filter *f, const struct evbus_record *record)
{
	const char *tenant = record->tenant_id.data ? NULL : f->tenant;
	const char *key = record->event_key.data ? NULL : f->event_key;
	struct question q;
	struct json_fault fault;

	if (!may_match(f, tenant, key, record->payload))
		return false;
	q.count = 0;
	if (f->type)
		ask(&q, EVENT_TYPE);
	if (tenant)
		ask(&q, TENANT_ID);
	if (f->correlation_id)
		ask(&q, CORRELATION_ID);
	if (key) {
		ask(&q, EVENT_KEY);
		ask(&q, EVENT_ID);
	}
	if (q.count && !json_scan(record->payload, q.wants, q.count, &fault))
		return false;
	return (!f->type || type_matches(f->type, value_of(&q, EVENT_TYPE))) &&
	       (!tenant || json_equals(value_of(&q, TENANT_ID), text_of(tenant))) &&
	       (!f->correlation_id || json_equals(value_of(&q, CORRELATION_ID), text_of(f->correlation_id))) &&
	       (!key || key_matches(key, &q)) && where_matches(f, record->payload);
}

bool filter_matches(const struct evbus_filter *filter, const struct evbus_record *record)
{
	struct evbus_slice tenant = record->tenant_id, key = record->event_key;

	if (filter->tenant && tenant.data && !json_equals(tenant, text_of(filter->tenant)))
		return false;
	if (filter->event_key && key.data && !json_equals(key, text_of(filter->event_key)))
		return false;
	return payload_matches(filter, record);
}

/* ---- partition keys -------------------------------------------------------------------------------------------- */

static struct evbus_slice next_pointer(const char *list)
{
	return (struct evbus_slice){ list, strcspn(list, ",") };
}

static enum evbus_code check_list(const char *pointers, struct evbus_err *err)
{
	for (const char *at = pointers;; at++) {
		struct evbus_slice pointer = next_pointer(at);
		if (!is_pointer(pointer))
			return err_set(err, EVBUS_USAGE, 0,
				       "'%s' is not a list of JSON pointers (/merchant_id,/event_id)", pointers);
		at += pointer.len;
		if (!*at)
			return EVBUS_OK;
	}
}

static enum evbus_code key_of(struct evbus_slice value, struct evbus_slice pointer, char key[EVBUS_KEY_MAX_BYTES],
			      size_t *len, struct evbus_err *err)
{
	if (value.data[0] == '{' || value.data[0] == '[')
		return err_set(err, EVBUS_DATA, 0, "the key at '%.*s' is an %s", (int)pointer.len, pointer.data,
			       value.data[0] == '{' ? "object" : "array");
	size_t key_len = evbus_json_text(value, key, EVBUS_KEY_MAX_BYTES);
	if (key_len > EVBUS_KEY_MAX_BYTES)
		return err_set(err, EVBUS_DATA, 0, "the key at '%.*s' is longer than %d bytes", (int)pointer.len,
			       pointer.data, EVBUS_KEY_MAX_BYTES);
	*len = key_len;
	return EVBUS_OK;
}

enum evbus_code envelope_key_from(struct evbus_slice payload, const char *pointers, char key[EVBUS_KEY_MAX_BYTES],
				  size_t *len, struct evbus_err *err)
{
	TRY(check_list(pointers, err));
	for (const char *at = pointers;; at++) {
		bool ambiguous;
		struct evbus_slice pointer = next_pointer(at);
		struct evbus_slice value = find(payload, pointer, &ambiguous);
		if (ambiguous)
			return err_set(err, EVBUS_DATA, 0, "a member on the way to '%.*s' stands in the payload twice",
				       (int)pointer.len, pointer.data);
		if (value.data && !is_null(value))
			return key_of(value, pointer, key, len, err);
		at += pointer.len;
		if (!*at)
			break;
	}
	*len = SIZE_MAX;
	return EVBUS_OK;
}

enum evbus_code evbus_key_from(struct evbus_slice payload, const char *pointers, char key[EVBUS_KEY_MAX_BYTES],
			       size_t *len, struct evbus_err *err)
{
	return envelope_key_from(payload, pointers, key, len, err);
}
