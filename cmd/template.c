/* template.c: '{topic} {offset} {/customer/id}\n' and the other forms in which a record is printed. */
#include "template.h"
#include "out.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const fields[] = {
	[FIELD_TOPIC] = "topic",
	[FIELD_PARTITION_ID] = "partition_id",
	[FIELD_OFFSET] = "offset",
	[FIELD_OFFSET_KIND] = "offset_kind",
	[FIELD_PUBLISHED_AT_UTC] = "published_at_utc",
	[FIELD_PARTITION_KEY] = "partition_key",
	[FIELD_PAYLOAD] = "payload",
	[FIELD_DUPLICATE] = "duplicate",
	[FIELD_EVENT_ID] = "event_id",
	[FIELD_EVENT_TYPE] = "event_type",
	[FIELD_TENANT_ID] = "tenant_id",
	[FIELD_CORRELATION_ID] = "correlation_id",
	[FIELD_EVENT_KEY] = "event_key",
};

/* ---- reading a template ---------------------------------------------------------------------------------------- */

static bool is_pointer(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (text[i] == '~' && (i + 1 == len || (text[i + 1] != '0' && text[i + 1] != '1')))
			return false;
	return text[0] == '/';
}

static bool field_of(const char *text, size_t len, enum field *field)
{
	if (is_pointer(text, len)) {
		*field = FIELD_POINTER;
		return true;
	}
	for (size_t i = FIELD_TOPIC; i < COUNT(fields); i++)
		if (strlen(fields[i]) == len && !memcmp(fields[i], text, len)) {
			*field = (enum field)i;
			return true;
		}
	return false;
}

/* false: too long. */
static bool add_char(struct template *template, char byte)
{
	struct piece *last = template->count ? &template->pieces[template->count - 1] : NULL;

	if (!last || last->field != FIELD_LITERAL) {
		if (template->count == TEMPLATE_PIECES_MAX)
			return false;
		last = &template->pieces[template->count++];
		*last = (struct piece){ .field = FIELD_LITERAL, .at = (uint16_t) template->used };
	}
	if (template->used == sizeof template->text)
		return false;
	template->text[template->used++] = byte;
	last->len++;
	return true;
}

static bool add_field(struct template *template, enum field field, const char *text, size_t len)
{
	if (template->count == TEMPLATE_PIECES_MAX || len >= sizeof template->text - template->used)
		return false;
	template->pieces[template->count++] =
		(struct piece){ .field = field, .at = (uint16_t) template->used, .len = (uint16_t)len };
	memcpy(template->text + template->used, text, len);
	template->text[template->used + len] = '\0';
	template->used += len + 1;
	template->needs_envelope |= field >= FIELD_EVENT_ID;
	return true;
}

static bool is_wrong(char *why, size_t size, const char *format, const char *text, int len)
{
	snprintf(why, size, format, len < 64 ? len : 64, text);
	return false;
}

/* \n \t \\ at *at. */
static bool parse_escape(const char *text, char *byte, char *why, size_t size)
{
	*byte = text[1] == 'n' ? '\n' : text[1] == 't' ? '\t' : text[1];
	if (text[1] == 'n' || text[1] == 't' || text[1] == '\\')
		return true;
	return is_wrong(why, size, "has '%.*s'; write \\n, \\t or \\\\", text, text[1] ? 2 : 1);
}

/* "{name}" at text, whose } is at end or, if NULL, missing. */
static bool parse_field(const char *text, const char *end, enum field *field, char *why, size_t size)
{
	if (text[0] == '}' || !end)
		return is_wrong(why, size, "has a '%.*s' without its other half; for a brace write two", text, 1);
	if (field_of(text + 1, (size_t)(end - text - 1), field))
		return true;
	return is_wrong(why, size,
			"names '%.*s'; there are topic partition_id offset offset_kind published_at_utc partition_key "
			"payload duplicate event_id event_type tenant_id correlation_id event_key and /POINTER",
			text + 1, (int)(end - text - 1));
}

/* "{name}", "{{", "}}", an escape, or any character, at *at, which moves on. */
static bool parse_piece(struct template *template, const char **at, char *why, size_t size)
{
	const char *text = *at, *end = strchr(text, '}');
	bool brace = text[0] == '{' || text[0] == '}', twice = text[0] == text[1], room;
	enum field field;
	char byte = text[0];

	if (brace && !twice) {
		if (!parse_field(text, end, &field, why, size))
			return false;
		room = add_field(template, field, text + 1, (size_t)(end - text - 1));
		*at = end + 1;
	} else {
		if (byte == '\\' && !parse_escape(text, &byte, why, size))
			return false;
		room = add_char(template, byte);
		*at += brace || text[0] == '\\' ? 2 : 1;
	}
	if (!room)
		snprintf(why, size, "is too long");
	return room;
}

bool record_format_parse(const char *text, enum record_form *form, struct template *template, char *why, size_t size)
{
	static const char *const words[] = { [FORM_JSON] = "json",
					     [FORM_PAYLOAD] = "payload",
					     [FORM_STORED] = "stored",
					     [FORM_PRETTY] = "pretty",
					     [FORM_TSV] = "tsv" };

	for (size_t i = 0; i < COUNT(words); i++)
		if (!strcmp(words[i], text)) {
			*form = (enum record_form)i;
			return true;
		}
	if (!strchr(text, '{')) {
		snprintf(why, size,
			 "is not a FORMAT; write json, payload, stored, pretty, tsv or a template such as "
			 "'{topic} {offset} {/customer/id}\\n'");
		return false;
	}
	*form = FORM_TEMPLATE;
	*template = (struct template){ .count = 0 };
	while (*text)
		if (!parse_piece(template, &text, why, size))
			return false;
	return true;
}

bool record_format_check(const char *text, char *why, size_t size)
{
	struct template template;
	enum record_form form;

	return record_format_parse(text, &form, &template, why, size);
}

/* ---- printing -------------------------------------------------------------------------------------------------- */

void out_value(struct evbus_slice value, bool copy)
{
	char small[1024];
	void (*put)(const char *, size_t) = copy ? out_copy : out_data;

	if (!value.data || (copy && value.len == 4 && !memcmp(value.data, "null", 4))) {
		out_text(copy ? "\\N" : "");
		return;
	}
	if (value.data[0] != '"') {
		put(value.data, value.len);
		return;
	}
	/* Text is never longer than its JSON. */
	char *text = value.len <= sizeof small ? small : malloc(value.len);
	if (!text) {
		out_fail(ENOMEM);
		return;
	}
	put(text, evbus_json_text(value, text, value.len));
	if (text != small)
		free(text);
}

/* An event id of CloudEvents is unique only together with its source. */
static void out_event_id(const struct evbus_envelope *envelope)
{
	if (envelope->id_source.data) {
		out_value(envelope->id_source, false);
		out_text(" ");
	}
	out_value(envelope->event_id, false);
}

static void out_slice(struct evbus_slice slice)
{
	out_data(slice.data, slice.len);
}

static void out_field(const char *text, const struct piece *piece, const struct evbus_record *record,
		      const struct evbus_envelope *envelope)
{
	switch (piece->field) {
	case FIELD_LITERAL:
		out_bytes(text + piece->at, piece->len);
		break;
	case FIELD_POINTER:
		out_value(evbus_json_find(record->payload, text + piece->at, NULL), false);
		break;
	case FIELD_TOPIC:
		out_slice(record->topic);
		break;
	case FIELD_PARTITION_ID:
		out_printf("%d", record->partition_id);
		break;
	case FIELD_OFFSET:
		out_slice(record->offset);
		break;
	case FIELD_OFFSET_KIND:
		out_text(record->offset_kind);
		break;
	case FIELD_PUBLISHED_AT_UTC:
		out_slice(record->published_at_utc);
		break;
	case FIELD_PARTITION_KEY:
		if (record->partition_key.len && record->partition_key.data[0] == '"')
			out_value(record->partition_key, false);
		break;
	case FIELD_PAYLOAD:
		out_payload(record);
		break;
	case FIELD_DUPLICATE:
		out_text(record->duplicate ? "true" : "false");
		break;
	case FIELD_EVENT_ID:
		out_event_id(envelope);
		break;
	case FIELD_EVENT_TYPE:
		out_value(envelope->event_type, false);
		break;
	case FIELD_TENANT_ID:
		out_value(record->tenant_id.data ? record->tenant_id : envelope->tenant_id, false);
		break;
	case FIELD_CORRELATION_ID:
		out_value(envelope->correlation_id, false);
		break;
	case FIELD_EVENT_KEY:
		out_value(record->event_key.data ? record->event_key : envelope->event_key, false);
		break;
	}
}

void template_print(const struct template *template, const struct evbus_record *record)
{
	struct evbus_envelope envelope = { .event_id.data = NULL };
	struct evbus_err err;

	/* What stands twice is not guessed: it prints as what is absent does, as nothing. */
	if (template->needs_envelope && record->payload.data && evbus_envelope_read(record->payload, &envelope, &err))
		envelope = (struct evbus_envelope){ .event_id.data = NULL };
	for (size_t i = 0; i < template->count; i++)
		out_field(template->text, &template->pieces[i], record, &envelope);
}
