/* outbox_add.c: evbus outbox-add
 *
 * All events are read and looked at before the transaction begins: while it is open nobody else can write to the
 * application's database, and a pipe takes its time. So they are kept in memory, and there is a limit to that. */
#include "input.h"
#include "out.h"
#include "outboxes.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ADD_MAX_BYTES (64u * 1024u * 1024u)
#define NOWHERE SIZE_MAX

struct args {
	struct common common;
	struct outbox_args outbox;
	const char *topic;
	const char *type, *id, *tenant_id, *event_key, *key, *key_from;
	struct size max_payload;
	const char *format;
};

COMMAND(outbox_add,
	.summary = "add each JSON line to an outbox, all or none, and print their ids",
	.takes = "[FILE...]",
	.must_print = true,
	.opts = OPTS(
		OPT('t', topic, "TOPIC", "where the event is to be published", .required = true),
		OPT(0, type, "TYPE", "the event type (default: that of the event)"),
		OPT(0, id, "ID", "the id of the row (default: that of the event)"),
		OPT(0, tenant_id, "ID", "the tenant (default: that of the event)"),
		OPT(0, event_key, "KEY", "what it is published once by (default: that of the event, or the id)"),
		OPT('k', key, "KEY", "the partition key, in whose order rows are published"),
		OPT(0, key_from, "/POINTER,...", "take it from the first of these members that an event has"),
		MAX_PAYLOAD_OPT,
		OPT(0, format, "id|json", "how to print what was added", .words = "id|json", .preset = "id"),
		OUTBOX_OPTS, COMMON_OPTS),
	.statuses = STATUSES(
		{ EVBUS_DATA, "an event was refused; nothing is added" },
		{ EVBUS_NONE, "there is no such FILE, or no table: run outbox-init" },
		{ EVBUS_CONFLICT, "a row of this id is there already; nothing is added" }),
	.examples = EXAMPLES(
		{ "evbus outbox-init -q --outbox sqlite:app.db >/dev/null; "
		  "echo '{\"id\":\"o-1\",\"type\":\"order.placed\"}' | evbus outbox-add --outbox sqlite:app.db -t orders",
		  "o-1" },
		{ "echo '{\"total\":1.10,\"customer\":\"c-7\"}' | evbus outbox-add --outbox sqlite:app.db -t orders "
		  "--id o-2 --type order.paid --key-from /customer --format json",
		  "{\"outbox\":\"app.db\",\"id\":\"o-2\",\"topic\":\"orders\"}" }));

/* A place in the texts that are kept, which move when they grow. */
struct piece {
	size_t at, len;
};

struct row {
	struct piece id, type, tenant, event_key, key, payload;
	const char *file;
	uint64_t line;
};

struct adding {
	const struct args *args;
	struct call *call;
	struct evbus_outbox *outbox;
	struct input input;
	struct row *rows;
	size_t count, rows_size;
	char *texts;
	size_t len, size;
};

static void adding_release(struct adding *adding)
{
	input_release(&adding->input);
	free(adding->rows);
	free(adding->texts);
}

/* ---- keeping them ---------------------------------------------------------------------------------------------- */

static enum evbus_code no_memory(struct call *call)
{
	return fail(call, EVBUS_IO, "there is no memory for the events");
}

/* For an event and all that is taken from it. */
static enum evbus_code make_room(struct adding *adding, size_t event_len)
{
	size_t need = adding->len + 5 * event_len + EVBUS_KEY_MAX_BYTES;

	if (adding->len > ADD_MAX_BYTES)
		return fail(adding->call, EVBUS_USAGE,
			    "the events have more than %u MiB, too much for one transaction; add them in several calls",
			    ADD_MAX_BYTES / 1024 / 1024);
	if (adding->count == adding->rows_size) {
		size_t size = 2 * adding->rows_size + 64;
		struct row *rows = realloc(adding->rows, size * sizeof *rows);

		if (!rows)
			return no_memory(adding->call);
		adding->rows = rows;
		adding->rows_size = size;
	}
	if (need > adding->size) {
		char *texts = realloc(adding->texts, 2 * need);

		if (!texts)
			return no_memory(adding->call);
		adding->texts = texts;
		adding->size = 2 * need;
	}
	return EVBUS_OK;
}

static struct piece keep(struct adding *adding, const char *data, size_t len)
{
	struct piece piece = { adding->len, len };

	memcpy(adding->texts + adding->len, data, len);
	adding->len += len;
	return piece;
}

/* A raw JSON value as text. */
static struct piece keep_value(struct adding *adding, struct evbus_slice value)
{
	struct piece piece = { adding->len, 0 };

	piece.len = evbus_json_text(value, adding->texts + adding->len, value.len);
	adding->len += piece.len;
	return piece;
}

/* What was said on the command line, else what the event says; at NOWHERE: neither. */
static struct piece keep_either(struct adding *adding, const char *said, struct evbus_slice value)
{
	if (said)
		return keep(adding, said, strlen(said));
	return value.data ? keep_value(adding, value) : (struct piece){ NOWHERE, 0 };
}

static struct evbus_slice slice_of(const struct adding *adding, struct piece piece)
{
	return piece.at == NOWHERE ? (struct evbus_slice){ NULL, 0 }
				   : (struct evbus_slice){ adding->texts + piece.at, piece.len };
}

/* ---- looking at them ------------------------------------------------------------------------------------------- */

static bool is_scalar(struct evbus_slice value)
{
	return !value.data || (value.data[0] != '{' && value.data[0] != '[');
}

static enum evbus_code check_envelope(const struct args *args, const struct evbus_envelope *envelope, struct call *call)
{
	if (!args->id && !envelope->event_id.data)
		return fail(call, EVBUS_DATA, "the event has no id: none of the members event_id, eventId, id; give one "
					      "with --id");
	if (!args->type && !envelope->event_type.data)
		return fail(call, EVBUS_DATA, "the event has no type: none of the members event_type, eventType, type, "
					      "name; give one with --type");
	if (!is_scalar(envelope->event_id) || !is_scalar(envelope->id_source) || !is_scalar(envelope->event_type) ||
	    !is_scalar(envelope->tenant_id) || !is_scalar(envelope->event_key))
		return fail(call, EVBUS_DATA, "the id, type, tenant or event key of the event is an object or array");
	return EVBUS_OK;
}

/* An event id of CloudEvents is unique only together with its source. */
static struct piece keep_id(struct adding *adding, const struct evbus_envelope *envelope)
{
	if (adding->args->id || !envelope->id_source.data)
		return keep_either(adding, adding->args->id, envelope->event_id);
	struct piece source = keep_value(adding, envelope->id_source);
	struct piece blank = keep(adding, " ", 1);
	struct piece id = keep_value(adding, envelope->event_id);
	return (struct piece){ source.at, source.len + blank.len + id.len };
}

static enum evbus_code keep_key(struct adding *adding, struct evbus_slice event, struct piece *piece)
{
	const struct args *args = adding->args;
	char key[EVBUS_KEY_MAX_BYTES];
	size_t len;

	*piece = keep_either(adding, args->key, (struct evbus_slice){ NULL, 0 });
	if (!args->key_from)
		return EVBUS_OK;
	TRY(evbus_key_from(event, args->key_from, key, &len, &adding->call->err));
	if (len == SIZE_MAX)
		return fail(adding->call, EVBUS_DATA, "the event has none of the members '%s' that give its key",
			    args->key_from);
	*piece = keep(adding, key, len);
	return EVBUS_OK;
}

static enum evbus_code keep_event(struct adding *adding, struct evbus_slice event, struct row *row)
{
	const struct args *args = adding->args;
	struct call *call = adding->call;
	struct evbus_envelope envelope;

	call->err.column = 0;
	TRY(evbus_envelope_read(event, &envelope, &call->err));
	TRY(check_envelope(args, &envelope, call));
	row->payload = keep(adding, event.data, event.len);
	row->id = keep_id(adding, &envelope);
	row->type = keep_either(adding, args->type, envelope.event_type);
	row->tenant = keep_either(adding, args->tenant_id, envelope.tenant_id);
	/* One that is only the id need not stand there twice. */
	if (envelope.event_key.data == envelope.event_id.data)
		envelope.event_key = (struct evbus_slice){ NULL, 0 };
	row->event_key = keep_either(adding, args->event_key, envelope.event_key);
	return keep_key(adding, event, &row->key);
}

static enum evbus_code take(struct adding *adding, const struct item *item)
{
	TRY(make_room(adding, item->event.len));
	struct row *row = &adding->rows[adding->count];
	enum evbus_code code = keep_event(adding, item->event, row);
	if (code == EVBUS_DATA)
		return item_refused(adding->call, &adding->input, item, item->event.data);
	if (code)
		return code;
	row->file = adding->input.name;
	row->line = item->line;
	adding->count++;
	return EVBUS_OK;
}

static enum evbus_code read_input(struct adding *adding, const char *path)
{
	struct item item;

	TRY(input_open(&adding->input, adding->call, path));
	do {
		TRY(input_next(&adding->input, adding->call, &item));
		if (item.kind == ITEM_EVENT)
			TRY(take(adding, &item));
		else if (item.kind == ITEM_BAD)
			return item_fail(adding->call, &adding->input, &item, item.fault_at, item.fault);
		else if (item.kind == ITEM_WAIT)
			input_wait(&adding->input);
	} while (item.kind != ITEM_END && !stopped());
	input_close(&adding->input);
	return EVBUS_OK;
}

static enum evbus_code read_inputs(struct adding *adding)
{
	static const char *const only_stdin[] = { "-", NULL };
	struct call *call = adding->call;
	const char *const *paths = call->operand_count ? call->operands : only_stdin;

	if (!call->operand_count && isatty(STDIN_FILENO))
		talk(call, NOTICE, "reading events from the terminal, one JSON object a line; Ctrl-D ends");
	for (; *paths && !stopped(); paths++)
		TRY(read_input(adding, *paths));
	return EVBUS_OK;
}

/* ---- adding them ----------------------------------------------------------------------------------------------- */

static enum evbus_code add_row(struct adding *adding, const struct row *row)
{
	const struct evbus_outbox_row added = {
		.id = slice_of(adding, row->id),
		.tenant_id = slice_of(adding, row->tenant),
		.topic = { adding->args->topic, strlen(adding->args->topic) },
		.event_type = slice_of(adding, row->type),
		.event_key = slice_of(adding, row->event_key),
		.partition_key = slice_of(adding, row->key),
		.payload = slice_of(adding, row->payload),
	};
	enum evbus_code code = evbus_outbox_add(adding->outbox, &added, &adding->call->err);

	if (code != EVBUS_CONFLICT && code != EVBUS_DATA)
		return code;
	return fail_within(adding->call, "%s:%llu", row->file, (unsigned long long)row->line);
}

static enum evbus_code add_rows(struct adding *adding)
{
	struct call *call = adding->call;
	enum evbus_code code = EVBUS_OK;

	TRY(evbus_outbox_begin(adding->outbox, &call->err));
	for (size_t i = 0; i < adding->count && !code; i++)
		code = add_row(adding, &adding->rows[i]);
	if (!code)
		return evbus_outbox_end(adding->outbox, true, &call->err);
	/* Rolling back cannot fail in a way that matters beside why it was done. */
	struct evbus_err why = call->err;
	enum evbus_code ended = evbus_outbox_end(adding->outbox, false, &call->err);
	(void)ended;
	call->err = why;
	return code;
}

static void put(void *context, const char *data, size_t len)
{
	(void)context;
	out_data(data, len);
}

static void print_json(const struct adding *adding, struct evbus_slice id)
{
	const char *outbox = evbus_outbox_name(adding->outbox);

	out_text("{\"outbox\":\"");
	json_escape((struct evbus_slice){ outbox, strlen(outbox) }, put, NULL);
	out_text("\",\"id\":\"");
	json_escape(id, put, NULL);
	out_printf("\",\"topic\":\"%s\"}\n", adding->args->topic);
}

static enum evbus_code print_rows(struct adding *adding)
{
	bool json = !strcmp(adding->args->format, "json");

	for (size_t i = 0; i < adding->count; i++) {
		struct evbus_slice id = slice_of(adding, adding->rows[i].id);

		if (json) {
			print_json(adding, id);
			continue;
		}
		out_copy(id.data, id.len);
		out_text("\n");
	}
	return out_flush(adding->call);
}

static enum evbus_code check_args(const struct args *args, struct call *call)
{
	TRY(evbus_topic_check(args->topic, false, &call->err));
	if (args->key && args->key_from)
		return fail(call, EVBUS_USAGE,
			    "--key and --key-from exclude each other: both say which key an event has");
	if (args->key && strlen(args->key) > EVBUS_KEY_MAX_BYTES)
		return fail(call, EVBUS_USAGE, "the key has %zu bytes, and %d is the most", strlen(args->key),
			    EVBUS_KEY_MAX_BYTES);
	return EVBUS_OK;
}

static enum evbus_code outbox_add_run(struct args *args, struct call *call)
{
	const struct evbus_options options = { .payload_max_bytes = (uint32_t)args->max_payload.bytes };
	CLEANUP(bus_cleanup) struct evbus *bus = NULL;
	CLEANUP(outbox_cleanup) struct evbus_outbox *outbox = NULL;
	CLEANUP(adding_release) struct adding adding = { .args = args, .call = call, .input.fd = -1 };

	TRY(check_args(args, call));
	about_topic(call, args->topic, -1);
	TRY(bus_open(call, &options, &bus));
	TRY(outbox_open(call, bus, &args->outbox, &outbox));
	adding.outbox = outbox;
	TRY(input_init(&adding.input, call, (uint32_t)args->max_payload.bytes, false));
	TRY(read_inputs(&adding));
	if (stopped() || !adding.count)
		return EVBUS_OK;
	TRY(add_rows(&adding));
	return print_rows(&adding);
}
