/* envelope.c: what an event says of itself, looked up by name one after the other; and filters over that.
 * The input: a value to filter by, a NUL, a pointer or a list of them, a NUL, the payload. */
#include "fuzz.h"

#include "../unit/json_slow.h"
#include "event/envelope.h"
#include "event/subject.h"

/* evbus(7), NAMING OF EVENTS, as it is written there. */
static const char *const event_id[] = { "/event_id", "/eventId", "/id", NULL };
static const char *const event_key[] = { "/event_key", "/eventKey", "/idempotency_key", "/idempotencyKey", NULL };
static const char *const event_type[] = { "/event_type", "/eventType", "/type", "/name", NULL };
static const char *const tenant_id[] = { "/tenant_id", "/tenantId", "/firm_id", NULL };
static const char *const occurred_at[] = { "/occurred_at", "/occurredAt", "/ts_utc", "/time",
					   "/timestamp",   "/createdAt",  NULL };
static const char *const correlation_id[] = { "/correlation_id", "/correlationId", "/trace_id", "/traceId", NULL };
static const char *const schema_version[] = { "/schema_version", "/schemaVersion", "/version", NULL };

static const struct evbus_slice nothing;

static bool is_null(struct evbus_slice value)
{
	return value.data && value.data[0] == 'n';
}

/* The first of the names that says something; *twice where that cannot be told. */
static struct evbus_slice slow_value_of(struct evbus_slice payload, const char *const *names, bool *twice)
{
	for (; *names; names++) {
		bool here;
		struct evbus_slice value = evbus_json_find(payload, *names, &here);

		*twice |= here;
		if (here)
			return nothing;
		if (value.data && !is_null(value))
			return value;
	}
	return nothing;
}

static bool slow_envelope(struct evbus_slice payload, struct evbus_envelope *envelope)
{
	static const char *const specversion[] = { "/specversion", NULL }, *const source[] = { "/source", NULL };
	bool twice = false;

	*envelope = (struct evbus_envelope){
		.event_id = slow_value_of(payload, event_id, &twice),
		.event_key = slow_value_of(payload, event_key, &twice),
		.event_type = slow_value_of(payload, event_type, &twice),
		.tenant_id = slow_value_of(payload, tenant_id, &twice),
		.occurred_at = slow_value_of(payload, occurred_at, &twice),
		.correlation_id = slow_value_of(payload, correlation_id, &twice),
		.schema_version = slow_value_of(payload, schema_version, &twice),
	};
	if (!envelope->event_key.data)
		envelope->event_key = envelope->event_id;
	if (slow_value_of(payload, specversion, &twice).data && envelope->event_id.data)
		envelope->id_source = slow_value_of(payload, source, &twice);
	return !twice;
}

static void same_value(struct evbus_slice a, struct evbus_slice b)
{
	MUST(a.data == b.data && a.len == b.len);
}

static void same_envelope(const struct evbus_envelope *a, const struct evbus_envelope *b)
{
	same_value(a->event_id, b->event_id);
	same_value(a->id_source, b->id_source);
	same_value(a->event_key, b->event_key);
	same_value(a->event_type, b->event_type);
	same_value(a->tenant_id, b->tenant_id);
	same_value(a->occurred_at, b->occurred_at);
	same_value(a->correlation_id, b->correlation_id);
	same_value(a->schema_version, b->schema_version);
}

/* ---- filters ---- */

static bool passes(const struct evbus_filter *filter, struct evbus_slice payload)
{
	struct evbus_record record = { .payload = payload };
	struct evbus_err err;

	return filter_check(filter, &err) == EVBUS_OK && filter_matches(filter, &record);
}

static bool type_is_like(struct evbus_slice type, const char *pattern)
{
	char text[1024];
	size_t len = evbus_json_text(type, text, sizeof text);
	bool escaped = type.data && type.data[0] == '"' && memchr(type.data, '\\', type.len);

	if (!type.data || (escaped && len > sizeof text))
		return false;
	return len > sizeof text || subject_matches(pattern, (struct evbus_slice){ text, len });
}

/* envelope: NULL where a member stands twice. */
static void check_filters(struct evbus_slice payload, const struct evbus_envelope *envelope, const char *wanted,
			  const char *pointer)
{
	struct evbus_filter type = { .type = wanted }, tenant = { .tenant = wanted }, key = { .event_key = wanted };
	struct evbus_filter correlation = { .correlation_id = wanted };
	struct evbus_slice text = { wanted, strlen(wanted) };
	struct evbus_err err;

	if (filter_check(&type, &err))
		check_err(&err, EVBUS_USAGE);
	else if (envelope && envelope->event_type.len < 1024)
		MUST(passes(&type, payload) == type_is_like(envelope->event_type, wanted));
	bool by_tenant = passes(&tenant, payload), by_key = passes(&key, payload);
	bool by_correlation = passes(&correlation, payload);
	MUST(!envelope || by_tenant == json_equals(envelope->tenant_id, text));
	MUST(!envelope || by_key == json_equals(envelope->event_key, text));
	MUST(!envelope || by_correlation == json_equals(envelope->correlation_id, text));
	tenant.correlation_id = tenant.event_key = wanted;
	MUST(passes(&tenant, payload) == (by_tenant && by_key && by_correlation));

	char where[2 * 256];
	const char *wheres[] = { where };
	struct evbus_filter by_where = { .where = wheres, .where_count = 1 };
	if (strchr(pointer, '=') || snprintf(where, sizeof where, "%s=%s", pointer, wanted) >= (int)sizeof where)
		return;
	if (filter_check(&by_where, &err))
		check_err(&err, EVBUS_USAGE);
	else
		MUST(passes(&by_where, payload) == json_equals(evbus_json_find(payload, pointer, NULL), text));
}

/* ---- keys ---- */

static enum evbus_code slow_key(struct evbus_slice payload, char *pointers, char key[EVBUS_KEY_MAX_BYTES], size_t *len)
{
	char *save = NULL;

	for (char *at = strtok_r(pointers, ",", &save); at; at = strtok_r(NULL, ",", &save)) {
		bool twice;
		struct evbus_slice value = evbus_json_find(payload, at, &twice);

		if (twice)
			return EVBUS_DATA;
		if (!value.data || is_null(value))
			continue;
		if (value.data[0] == '{' || value.data[0] == '[')
			return EVBUS_DATA;
		*len = evbus_json_text(value, key, EVBUS_KEY_MAX_BYTES);
		return *len > EVBUS_KEY_MAX_BYTES ? EVBUS_DATA : EVBUS_OK;
	}
	*len = SIZE_MAX;
	return EVBUS_OK;
}

static void check_key(struct evbus_slice payload, const struct block *pointers)
{
	char key[EVBUS_KEY_MAX_BYTES], key_too[EVBUS_KEY_MAX_BYTES];
	size_t len = 0, len_too = 0;
	struct evbus_err err;
	enum evbus_code code = envelope_key_from(payload, pointers->data, key, &len, &err);

	if (code)
		check_err(&err, code);
	if (code == EVBUS_USAGE)
		return;
	struct block copy = block_of(pointers->data, pointers->len + 1);
	MUST(slow_key(payload, copy.data, key_too, &len_too) == code);
	block_cleanup(&copy);
	MUST(code || (len == len_too && (len == SIZE_MAX || !memcmp(key, key_too, len))));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, data + size };
	CLEANUP(block_cleanup) struct block wanted = input_text(&input);
	CLEANUP(block_cleanup) struct block pointers = input_text(&input);
	CLEANUP(block_cleanup) struct block rest = input_rest(&input, SIZE_MAX);
	struct evbus_slice payload = slice_of(&rest);
	struct evbus_envelope envelope, slow;
	struct evbus_err err = { .column = 0 };

	enum evbus_code code = evbus_envelope_read(payload, &envelope, &err);
	if (code)
		check_err(&err, EVBUS_DATA);
	if (!slow_object(payload)) {
		MUST(code && err.column && err.column <= payload.len + 1);
		return 0;
	}
	MUST(slow_envelope(payload, &slow) == (code == EVBUS_OK));
	if (!code)
		same_envelope(&envelope, &slow);
	check_filters(payload, code ? NULL : &envelope, wanted.data, pointers.data);
	check_key(payload, &pointers);
	return 0;
}
