/* record.c: reading records back. Members that say where a record stood are left aside: it will stand elsewhere. */
#include "record.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define OTHERS_MAX_BYTES 2048u /* of a record without its payload; a longer one takes longer */

__attribute__((format(printf, 3, 4))) static enum evbus_code refuse(struct evbus_err *err, size_t column,
								    const char *format, ...)
{
	va_list args;

	err->code = EVBUS_DATA;
	err->sys_errno = 0;
	err->column = (uint32_t)column;
	va_start(args, format);
	vsnprintf(err->text, sizeof err->text, format, args);
	va_end(args);
	return EVBUS_DATA;
}

/* ---- values ---------------------------------------------------------------------------------------------------- */

static bool read_number(struct evbus_slice value, uint32_t max, uint32_t *number)
{
	uint64_t read = 0;

	if (!value.len || value.len > 10)
		return false;
	for (size_t i = 0; i < value.len; i++) {
		if (value.data[i] < '0' || value.data[i] > '9')
			return false;
		read = read * 10 + (uint64_t)(value.data[i] - '0');
	}
	*number = (uint32_t)read;
	return read <= max;
}

static bool read_text(struct evbus_slice value, char *text, size_t size, size_t *len)
{
	*len = value.data[0] == '"' ? evbus_json_text(value, text, size) : SIZE_MAX;
	return *len <= size;
}

static bool is_topic(const char *text, size_t len)
{
	struct evbus_err err;

	return strlen(text) == len && !evbus_topic_check(text, false, &err);
}

static bool read_topic(struct record *record, struct evbus_slice value)
{
	size_t len;

	if (!read_text(value, record->topic, EVBUS_TOPIC_MAX_BYTES, &len))
		return false;
	record->topic[len] = '\0';
	return is_topic(record->topic, len);
}

static bool read_partition_id(struct record *record, struct evbus_slice value)
{
	uint32_t number;

	if (!read_number(value, EVBUS_PARTITIONS_MAX - 1, &number))
		return false;
	record->partition_id = (int32_t)number;
	return true;
}

static bool read_key(struct record *record, struct evbus_slice value)
{
	record->key.data = record->key_text;
	return read_text(value, record->key_text, sizeof record->key_text, &record->key.len);
}

static bool read_tenant_id(struct record *record, struct evbus_slice value)
{
	record->tenant_id.data = record->tenant_text;
	return read_text(value, record->tenant_text, sizeof record->tenant_text, &record->tenant_id.len);
}

static bool read_event_key(struct record *record, struct evbus_slice value)
{
	record->event_key.data = record->event_key_text;
	return read_text(value, record->event_key_text, sizeof record->event_key_text, &record->event_key.len);
}

static bool read_origin(struct record *record, struct evbus_slice value)
{
	char topic[ORIGIN_MAX_BYTES + 1];
	uint32_t partition_id;
	size_t len;

	if (!read_text(value, record->origin_text, sizeof record->origin_text, &len))
		return false;
	record->origin = (struct evbus_slice){ record->origin_text, len };
	memcpy(topic, record->origin_text, len);
	topic[len] = '\0';
	char *partition = strchr(topic, '/'), *offset = partition ? strchr(partition + 1, '/') : NULL;
	if (!offset || strlen(topic) != len)
		return false;
	*partition++ = *offset++ = '\0';
	return is_topic(topic, (size_t)(partition - topic) - 1) && offset[0] &&
	       read_number((struct evbus_slice){ partition, strlen(partition) }, EVBUS_PARTITIONS_MAX - 1,
			   &partition_id) &&
	       strspn(offset, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_:") == strlen(offset);
}

static bool read_returns(struct record *record, struct evbus_slice value)
{
	return read_number(value, UINT32_MAX, &record->returns);
}

/* ---- the record ------------------------------------------------------------------------------------------------ */

struct member {
	const char *pointer;
	bool (*read)(struct record *record, struct evbus_slice value);
	const char *wanted;
};

static enum evbus_code read_member(struct evbus_slice text, const struct member *member, struct record *record,
				   struct evbus_err *err)
{
	bool twice;
	struct evbus_slice value = evbus_json_find(text, member->pointer, &twice);

	if (twice)
		return refuse(err, 0, "the record has '%s' twice", member->pointer + 1);
	if (!value.data || (value.len == 4 && !memcmp(value.data, "null", 4)) || member->read(record, value))
		return EVBUS_OK;
	return refuse(err, (size_t)(value.data - text.data) + 1, "the record's '%s' is not %s", member->pointer + 1,
		      member->wanted);
}

/* Why there is no payload: the text may be no JSON, which is told where anything else is looked for in it. */
static enum evbus_code refuse_text(struct evbus_slice text, bool twice, struct evbus_err *err)
{
	static const char reason[] = "not one JSON object: ";
	struct evbus_envelope envelope;
	struct evbus_err why;

	if (twice)
		return refuse(err, 0, "the record has 'payload' twice");
	if (!evbus_envelope_read(text, &envelope, &why) || !why.column)
		return refuse(err, 0, "the record has no payload");
	const char *at = strstr(why.text, reason);
	return refuse(err, why.column, "the record is %s", at ? at : why.text);
}

static enum evbus_code read_members(struct evbus_slice text, struct record *record, struct evbus_err *err)
{
	static const struct member members[] = {
		{ "/topic", read_topic, "the name of a topic" },
		{ "/partition_id", read_partition_id, "a number from 0 to 1023" },
		{ "/partition_key", read_key, "null or a string of at most 1024 bytes" },
		{ "/tenant_id", read_tenant_id, "null or a string of at most 256 bytes" },
		{ "/event_key", read_event_key, "null or a string of at most 1024 bytes" },
		{ "/origin", read_origin, "\"<topic>/<partition_id>/<offset>\"" },
		{ "/returns", read_returns, "a number" },
	};

	record->topic[0] = '\0';
	record->partition_id = EVBUS_PARTITION_ANY;
	record->key = record->origin = record->tenant_id = record->event_key = (struct evbus_slice){ NULL, 0 };
	record->returns = 0;
	for (size_t i = 0; i < COUNT(members); i++)
		TRY(read_member(text, &members[i], record, err));
	return EVBUS_OK;
}

/* The text with an empty payload: looking for a member passes over all others, and the payload is the longest. */
static struct evbus_slice without_payload(struct evbus_slice text, struct evbus_slice payload,
					  char room[OTHERS_MAX_BYTES])
{
	const char *end = payload.data + payload.len;
	size_t before = (size_t)(payload.data - text.data), behind = (size_t)(text.data + text.len - end);

	if (before + 2 + behind > OTHERS_MAX_BYTES)
		return text;
	memcpy(room, text.data, before);
	memcpy(room + before, "{}", 2);
	memcpy(room + before + 2, end, behind);
	return (struct evbus_slice){ room, before + 2 + behind };
}

/* Of a payload that is null, what stands for it. A string of base64 has no escapes. */
static void read_base64(struct evbus_slice text, struct record *record)
{
	struct evbus_slice value;

	record->payload_base64 = (struct evbus_slice){ NULL, 0 };
	if (record->payload.len != 4 || memcmp(record->payload.data, "null", 4) != 0)
		return;
	value = evbus_json_find(text, "/payload_base64", NULL);
	if (!value.data || value.data[0] != '"')
		return;
	record->payload = (struct evbus_slice){ NULL, 0 };
	record->payload_base64 = (struct evbus_slice){ value.data + 1, value.len - 2 };
}

enum evbus_code record_read(struct evbus_slice text, struct record *record, struct evbus_err *err)
{
	char room[OTHERS_MAX_BYTES];
	bool twice;

	record->payload = evbus_json_find(text, "/payload", &twice);
	if (!record->payload.data)
		return refuse_text(text, twice, err);
	read_base64(text, record);
	if (record->payload.data &&
	    read_members(without_payload(text, record->payload, room), record, err) == EVBUS_OK)
		return EVBUS_OK;
	return read_members(text, record, err); /* for its place in the text */
}
