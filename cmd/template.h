/* template.h: the forms in which a record is printed. */
#ifndef TEMPLATE_H
#define TEMPLATE_H

#include "cmd.h"

#define TEMPLATE_PIECES_MAX 64u
#define TEMPLATE_MAX_BYTES 4096u

enum field {
	FIELD_LITERAL,
	FIELD_POINTER,
	FIELD_TOPIC,
	FIELD_PARTITION_ID,
	FIELD_OFFSET,
	FIELD_OFFSET_KIND,
	FIELD_PUBLISHED_AT_UTC,
	FIELD_PARTITION_KEY,
	FIELD_PAYLOAD,
	FIELD_DUPLICATE,
	FIELD_EVENT_ID,              /* from here on the envelope has to be read */
	FIELD_EVENT_TYPE,
	FIELD_TENANT_ID,
	FIELD_CORRELATION_ID,
	FIELD_EVENT_KEY,
};

struct template {
	char text[TEMPLATE_MAX_BYTES];     /* literals and pointers, each with its NUL */
	struct piece {
		enum field field;
		uint16_t at, len;          /* in text */
	} pieces[TEMPLATE_PIECES_MAX];
	size_t count;
	size_t used;                       /* of text */
	bool needs_envelope;
};

enum record_form { FORM_JSON, FORM_PAYLOAD, FORM_STORED, FORM_PRETTY, FORM_TSV, FORM_TEMPLATE };

/* What text asks for; false: why says why it is neither a word nor a template. *template is set for FORM_TEMPLATE. */
bool record_format_parse(const char *text, enum record_form *form, struct template *template, char *why, size_t size);
bool record_format_check(const char *text, char *why, size_t size);

void template_print(const struct template *template, const struct evbus_record *record);

/* The payload, indented; strings, numbers, order and doubles as they are. */
void pretty_print(const struct evbus_record *record);

/* A raw JSON value as text, in the escapes of Postgres' COPY if copy. data NULL prints nothing (copy: \N). */
void out_value(struct evbus_slice value, bool copy);

#endif
