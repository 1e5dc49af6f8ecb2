/* envelope.c: what an event says of itself, filters over it, and its partition key. */
#include "event/envelope.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

static struct evbus_slice slice(const char *text)
{
	return text ? (struct evbus_slice){ text, strlen(text) } : (struct evbus_slice){ 0 };
}

/* NULL: absent. */
static bool is(struct evbus_slice value, const char *text)
{
	if (!text)
		return !value.data;
	return value.data && value.len == strlen(text) && memcmp(value.data, text, value.len) == 0;
}

static struct evbus_envelope read_envelope(const char *payload)
{
	struct evbus_envelope envelope = { 0 };
	struct evbus_err err = { 0 };

	cr_expect_eq(evbus_envelope_read(slice(payload), &envelope, &err), EVBUS_OK, "%s: %s", payload, err.text);
	return envelope;
}

/* ---- the envelope ------------------------------------------------------------------------------------------------ */

Test(envelope, knows_every_name_of_every_meaning)
{
	static const struct {
		size_t field;
		const char *names[6];
	} meanings[] = {
		{ offsetof(struct evbus_envelope, event_id), { "event_id", "eventId", "id" } },
		{ offsetof(struct evbus_envelope, event_key),
		  { "event_key", "eventKey", "idempotency_key", "idempotencyKey" } },
		{ offsetof(struct evbus_envelope, event_type), { "event_type", "eventType", "type", "name" } },
		{ offsetof(struct evbus_envelope, tenant_id), { "tenant_id", "tenantId", "firm_id" } },
		{ offsetof(struct evbus_envelope, occurred_at),
		  { "occurred_at", "occurredAt", "ts_utc", "time", "timestamp", "createdAt" } },
		{ offsetof(struct evbus_envelope, correlation_id),
		  { "correlation_id", "correlationId", "trace_id", "traceId" } },
		{ offsetof(struct evbus_envelope, schema_version), { "schema_version", "schemaVersion", "version" } },
	};

	for (size_t i = 0; i < COUNT(meanings); i++) {
		char payload[512] = "", member[64];
		/* From the last name to the first: each one that is added wins over those after it in the list. */
		for (size_t n = 6; n-- > 0;) {
			if (!meanings[i].names[n])
				continue;
			snprintf(member, sizeof member, ",\"%s\":%zu", meanings[i].names[n], n);
			strncat(payload, member, sizeof payload - strlen(payload) - 1);
			char object[600], right[24];
			snprintf(object, sizeof object, "{\"x\":\"y\"%s}", payload);
			snprintf(right, sizeof right, "%zu", n);
			struct evbus_envelope e = read_envelope(object);
			struct evbus_slice value;
			memcpy(&value, (char *)&e + meanings[i].field, sizeof value);
			cr_expect(is(value, right), "%s", object);
		}
	}
}

Test(envelope, is_empty_where_an_event_says_nothing)
{
	struct evbus_envelope e = read_envelope("{\"data\":{\"id\":1,\"type\":\"t\"}}");

	cr_expect(!e.event_id.data && !e.id_source.data && !e.event_key.data && !e.event_type.data);
	cr_expect(!e.tenant_id.data && !e.occurred_at.data && !e.correlation_id.data && !e.schema_version.data);
}

Test(envelope, goes_by_the_event_id_where_there_is_no_key)
{
	cr_expect(is(read_envelope("{\"id\":\"7\"}").event_key, "\"7\""));
	cr_expect(is(read_envelope("{\"id\":\"7\",\"idempotencyKey\":\"k\"}").event_key, "\"k\""));
}

Test(envelope, reads_source_and_id_together_for_cloudevents)
{
	struct evbus_envelope e =
		read_envelope("{\"specversion\":\"1.0\",\"id\":\"A1\",\"source\":\"/m\",\"type\":\"a.b\","
			      "\"time\":\"2026-01-29T12:00:00Z\"}");

	cr_expect(is(e.event_id, "\"A1\"") && is(e.id_source, "\"/m\"") && is(e.event_key, "\"A1\""));
	cr_expect(is(e.event_type, "\"a.b\"") && is(e.occurred_at, "\"2026-01-29T12:00:00Z\""));
	cr_expect(is(read_envelope("{\"id\":\"A1\",\"source\":\"/m\"}").id_source, NULL), "not told by specversion");
}

Test(envelope, takes_null_for_absent)
{
	struct evbus_envelope e = read_envelope("{\"event_id\":null,\"id\":\"7\",\"tenant_id\":null}");

	cr_expect(is(e.event_id, "\"7\"") && is(e.tenant_id, NULL));
}

Test(envelope, refuses_a_member_that_stands_twice_where_it_is_needed)
{
	struct evbus_envelope e = { .event_id = SLICE("untouched") };
	struct evbus_err err;

	cr_expect_eq(evbus_envelope_read(slice("{\"id\":1,\"id\":1}"), &e, &err), EVBUS_DATA);
	cr_expect_str_eq(err.text, "the member 'id' stands in the payload 2 times");
	cr_expect_eq(evbus_envelope_read(slice("{\"tenant_id\":1,\"tenant\\u005fid\":2}"), &e, &err), EVBUS_DATA);
	cr_expect_eq(evbus_envelope_read(slice("{\"event_id\":null,\"event_id\":1}"), &e, &err), EVBUS_DATA);
	cr_expect_eq(
		evbus_envelope_read(slice("{\"specversion\":\"1.0\",\"id\":1,\"source\":1,\"source\":2}"), &e, &err),
		EVBUS_DATA);
	cr_expect(is(e.event_id, "untouched"));
	cr_expect(is(read_envelope("{\"event_id\":\"1\",\"id\":2,\"id\":3}").event_id, "\"1\""), "not needed");
	cr_expect(is(read_envelope("{\"x\":1,\"x\":2,\"source\":1,\"source\":2,\"id\":9}").event_id, "9"), "not ours");
}

Test(envelope, refuses_what_is_not_one_object)
{
	struct evbus_envelope e;
	struct evbus_err err;

	cr_expect_eq(evbus_envelope_read(slice("[]"), &e, &err), EVBUS_DATA);
	cr_expect_eq(evbus_envelope_read(slice("{\"a\":01}"), &e, &err), EVBUS_DATA);
	cr_expect_str_eq(err.text, "the payload is not one JSON object: a number does not begin with 0 at byte 7");
	cr_expect_eq(err.column, 7);
}

/* ---- filters ----------------------------------------------------------------------------------------------------- */

static const char order[] =
	"{\"event_id\":\"e1\",\"event_type\":\"order.line.added\",\"tenantId\":\"t1\",\"traceId\":\"c1\","
	"\"customer\":{\"id\":42,\"name\":\"J\\u00f6\"},\"lines\":[{\"sku\":\"a=b\"}],\"none\":null}";

static bool matches(const struct evbus_filter *filter, const char *payload)
{
	struct evbus_record record = { .payload = slice(payload) };
	struct evbus_err err;

	cr_expect_eq(filter_check(filter, &err), EVBUS_OK, "%s", err.text);
	return filter_matches(filter, &record);
}

static bool type_matches(const char *pattern, const char *payload)
{
	return matches(&(struct evbus_filter){ .type = pattern }, payload);
}

static bool where_matches(const char *where, const char *payload)
{
	return matches(&(struct evbus_filter){ .where = &where, .where_count = 1 }, payload);
}

Test(envelope, lets_everything_through_an_empty_filter)
{
	struct evbus_filter filter = { 0 };

	cr_expect(filter_is_empty(&filter));
	cr_expect(matches(&filter, order) && matches(&filter, "null"));
	cr_expect_not(filter_is_empty(&(struct evbus_filter){ .tenant = "" }));
	cr_expect_not(filter_is_empty(&(struct evbus_filter){ .where = (const char *[]){ "/a=1" }, .where_count = 1 }));
}

Test(envelope, filters_by_a_pattern_over_the_type)
{
	cr_expect(type_matches("order.line.added", order));
	cr_expect(type_matches("order.*.added", order));
	cr_expect(type_matches("order.>", order));
	cr_expect_not(type_matches("order.*", order));
	cr_expect_not(type_matches("order", order));
	cr_expect_not(type_matches(">", "{\"id\":1}"));
	cr_expect_not(type_matches(">", "{\"type\":null}"));
	cr_expect(type_matches("a.*", "{\"type\":\"\\u0061.b c/d\"}"), "unescaped");
	cr_expect(type_matches("7", "{\"type\":7}"));
	cr_expect_not(type_matches(">", "null"), "not an object");
}

Test(envelope, does_not_match_a_type_with_escapes_beyond_its_limit)
{
	char payload[2048];

	snprintf(payload, sizeof payload, "{\"type\":\"\\u0061%01023d\"}", 0);
	cr_expect(type_matches(">", payload));
	snprintf(payload, sizeof payload, "{\"type\":\"\\u0061%01024d\"}", 0);
	cr_expect_not(type_matches(">", payload));
}

Test(envelope, filters_by_tenant_correlation_and_key)
{
	cr_expect(matches(&(struct evbus_filter){ .tenant = "t1" }, order));
	cr_expect_not(matches(&(struct evbus_filter){ .tenant = "t" }, order));
	cr_expect_not(matches(&(struct evbus_filter){ .tenant = "" }, "{\"id\":1}"), "absent is not empty");
	cr_expect(matches(&(struct evbus_filter){ .tenant = "" }, "{\"tenant_id\":\"\"}"));
	cr_expect(matches(&(struct evbus_filter){ .correlation_id = "c1" }, order));
	cr_expect_not(matches(&(struct evbus_filter){ .correlation_id = "c2" }, order));
	cr_expect(matches(&(struct evbus_filter){ .event_key = "e1" }, order), "the event id stands in for the key");
	cr_expect_not(matches(&(struct evbus_filter){ .event_key = "e1" }, "{\"id\":\"e1\",\"eventKey\":\"k\"}"));
	cr_expect(matches(&(struct evbus_filter){ .tenant = "7" }, "{\"tenant_id\":7}"));
	cr_expect_not(matches(&(struct evbus_filter){ .tenant = "t1", .type = "other" }, order),
		      "all of them must hold");
	cr_expect(matches(
		&(struct evbus_filter){ .tenant = "t1", .type = "order.>", .correlation_id = "c1", .event_key = "e1" },
		order));
}

Test(envelope, does_not_match_a_record_in_which_the_member_stands_twice)
{
	cr_expect_not(matches(&(struct evbus_filter){ .tenant = "1" }, "{\"tenant_id\":1,\"tenant_id\":1}"));
	cr_expect_not(type_matches(">", "{\"type\":\"a\",\"type\":\"a\"}"));
	cr_expect_not(
		matches(&(struct evbus_filter){ .event_key = "1" }, "{\"event_key\":1,\"event_key\":1,\"id\":1}"));
	cr_expect_not(where_matches("/a=1", "{\"a\":1,\"a\":1}"));
	cr_expect(where_matches("/a=1", "{\"a\":1,\"b\":1,\"b\":1}"), "nobody asked for it");
}

Test(envelope, believes_the_record_before_the_payload)
{
	struct evbus_record record = { .payload = slice(order),
				       .tenant_id = SLICE("\"t9\""),
				       .event_key = SLICE("\"k9\"") };

	cr_expect(filter_matches(&(struct evbus_filter){ .tenant = "t9", .event_key = "k9" }, &record));
	cr_expect_not(filter_matches(&(struct evbus_filter){ .tenant = "t1" }, &record));
	cr_expect_not(filter_matches(&(struct evbus_filter){ .event_key = "e1" }, &record));
	cr_expect_not(filter_matches(&(struct evbus_filter){ .tenant = "t9", .correlation_id = "c9" }, &record));
}

Test(envelope, filters_by_the_value_at_a_pointer)
{
	cr_expect(where_matches("/customer/id=42", order));
	cr_expect(where_matches("/customer/name=J\xc3\xb6", order));
	cr_expect(where_matches("/lines/0/sku=a=b", order), "the first = is the one");
	cr_expect(where_matches("/none=null", order));
	cr_expect(where_matches("/s=", "{\"s\":\"\"}"));
	cr_expect_not(where_matches("/s=", "{\"t\":\"\"}"));
	cr_expect_not(where_matches("/customer/id=4", order));
	cr_expect_not(where_matches("/customer/ID=42", order));
	cr_expect_not(matches(&(struct evbus_filter){ .where = (const char *[]){ "/event_id=e1", "/customer/id=43" },
						      .where_count = 2 },
			      order));
}

/* A payload without any escape is looked through before it is read, one with an escape anywhere is not. */
Test(envelope, finds_a_value_however_it_and_its_neighbours_are_written)
{
	static const char *const payloads[] = {
		"{\"type\":\"a.b.c\",\"tenant_id\":\"t1\"}",
		"{\"type\":\"a.\\u0062.c\",\"tenant_id\":\"t1\"}",
		"{\"type\":\"a.b.c\",\"tenant_id\":\"t\\u0031\"}",
		"{\"note\":\"\\\\\",\"type\":\"a.b.c\",\"tenant_id\":\"t1\"}",
	};
	static const char *const right[] = { "a.b.c", "*.b.c", "a.*.c", "a.b.*", "a.>", "*.*.*", ">" };
	static const char *const wrong[] = { "a.b", "b.c", "*.x.c", "a.b.c.*", "a.c", "x.>" };

	for (size_t i = 0; i < sizeof payloads / sizeof *payloads; i++) {
		for (size_t k = 0; k < sizeof right / sizeof *right; k++)
			cr_expect(type_matches(right[k], payloads[i]), "%s: %s", right[k], payloads[i]);
		for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++)
			cr_expect_not(type_matches(wrong[k], payloads[i]), "%s: %s", wrong[k], payloads[i]);
		cr_expect(matches(&(struct evbus_filter){ .tenant = "t1", .type = "a.>" }, payloads[i]));
		cr_expect(where_matches("/type=a.b.c", payloads[i]));
		cr_expect_not(where_matches("/tenant_id=a.b.c", payloads[i]), "it stands elsewhere");
		cr_expect_not(where_matches("/type=t2", payloads[i]));
	}
}

Test(envelope, refuses_filters_that_are_not_of_their_form)
{
	static const char *const types[] = { "", ".", "a.", ".a", "a..b", "a*", ">.a", "a.>.b", "**" };
	static const char *const wheres[] = { "", "=", "a=1", "/a", "a", "/a~=1", "/a~2=1", "=/a" };
	char long_where[1200];
	struct evbus_err err;

	for (size_t i = 0; i < COUNT(types); i++)
		cr_expect_eq(filter_check(&(struct evbus_filter){ .type = types[i] }, &err), EVBUS_USAGE, "'%s'",
			     types[i]);
	for (size_t i = 0; i < COUNT(wheres); i++)
		cr_expect_eq(filter_check(&(struct evbus_filter){ .where = &wheres[i], .where_count = 1 }, &err),
			     EVBUS_USAGE, "'%s'", wheres[i]);
	snprintf(long_where, sizeof long_where, "/%01100d=1", 0);
	const char *where = long_where;
	cr_expect_eq(filter_check(&(struct evbus_filter){ .where = &where, .where_count = 1 }, &err), EVBUS_USAGE);
}

/* ---- partition keys ---------------------------------------------------------------------------------------------- */

static const char *key_of(const char *payload, const char *pointers)
{
	static char key[EVBUS_KEY_MAX_BYTES + 1];
	struct evbus_err err;
	size_t len = 42;

	enum evbus_code code = envelope_key_from(slice(payload), pointers, key, &len, &err);
	if (code != EVBUS_OK)
		return code == EVBUS_DATA ? "data" : "usage";
	if (len == SIZE_MAX)
		return "absent";
	key[len] = '\0';
	return key;
}

Test(envelope, takes_the_key_from_the_first_pointer_that_is_there)
{
	const char *payload = "{\"m\":\"m_1\",\"n\":17,\"t\":true,\"o\":{\"k\":\"a\\u0062\"},\"z\":null,\"e\":\"\"}";

	cr_expect_str_eq(key_of(payload, "/m"), "m_1");
	cr_expect_str_eq(key_of(payload, "/x,/m,/n"), "m_1");
	cr_expect_str_eq(key_of(payload, "/n"), "17");
	cr_expect_str_eq(key_of(payload, "/t"), "true");
	cr_expect_str_eq(key_of(payload, "/o/k"), "ab");
	cr_expect_str_eq(key_of(payload, "/z,/n"), "17");
	cr_expect_str_eq(key_of(payload, "/e"), "");
	cr_expect_str_eq(key_of(payload, "/x"), "absent");
	cr_expect_str_eq(key_of(payload, "/z"), "absent");
}

Test(envelope, refuses_a_key_that_is_no_single_value)
{
	cr_expect_str_eq(key_of("{\"a\":{}}", "/a"), "data");
	cr_expect_str_eq(key_of("{\"a\":[1]}", "/x,/a"), "data");
	cr_expect_str_eq(key_of("{\"a\":1,\"a\":1}", "/a"), "data");
	cr_expect_str_eq(key_of("{\"a\":1,\"a\":1,\"b\":1}", "/a,/b"), "data");
	cr_expect_str_eq(key_of("{\"a\":1,\"a\":1,\"b\":1}", "/b,/a"), "1");
}

Test(envelope, takes_a_key_of_1024_bytes_and_refuses_one_more)
{
	char payload[1200];

	snprintf(payload, sizeof payload, "{\"a\":\"%01024d\"}", 7);
	cr_expect_eq(strlen(key_of(payload, "/a")), EVBUS_KEY_MAX_BYTES);
	snprintf(payload, sizeof payload, "{\"a\":\"%01025d\"}", 7);
	cr_expect_str_eq(key_of(payload, "/a"), "data");
}

Test(envelope, refuses_a_list_that_is_not_one_of_pointers)
{
	static const char *const bad[] = { "", ",", "a", "/a,", ",/a", "/a,b", "/a, /b", "/a,,/b", "/a~", "/a,/b~2" };

	for (size_t i = 0; i < COUNT(bad); i++)
		cr_expect_str_eq(key_of("{\"a\":1}", bad[i]), "usage", "'%s'", bad[i]);
}
