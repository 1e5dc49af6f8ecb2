/* outbox.c: evbus outbox-init, outbox-list; outbox-add and outbox-drain have files of their own. */
#include "out.h"
#include "outboxes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct args {
	struct common common;
	struct outbox_args outbox;
	const char *state;
	bool blocked;
	const char *topic, *tenant;
	int64_t max;
	bool payload, counts;
	const char *format;
};

#define ADD_ONE                                                                                              \
	{                                                                                                    \
		"evbus outbox-init -q --outbox sqlite:app.db >/dev/null; "                                   \
		"echo '{\"id\":\"o-1\",\"type\":\"order.placed\"}' | evbus outbox-add --outbox sqlite:app.db -t orders", \
			"o-1"                                                                                \
	}

COMMAND(outbox_init,
	.summary = "make the table of an outbox, and print how an application writes to it",
	.opts = OPTS(OUTBOX_OPTS, COMMON_OPTS),
	.statuses = STATUSES({ EVBUS_CONFLICT, "a table of this name has other columns: name them with --map" }),
	.examples = EXAMPLES(
		{ "evbus outbox-init --outbox sqlite:app.db | grep -c 'INSERT INTO'", "2" }));

COMMAND(outbox_list,
	.summary = "list the rows of an outbox, and what holds them up",
	.opts = OPTS(
		OPT(0, state, "STATE", "only rows of this state", .words = "PENDING|PROCESSING|SENT|FAILED"),
		OPT(0, blocked, "", "only rows that others of their key wait behind"),
		OPT('t', topic, "TOPIC", "only of this one, or a pattern: * for one token, > for the rest"),
		OPT(0, tenant, "ID", "only of this tenant"),
		OPT(0, max, "N", "stop after so many", .min = 1),
		OPT(0, payload, "", "with --format json: the payload, too"),
		OPT(0, counts, "", "instead of rows, how many there are of each state"),
		LIST_FORMAT_OPT, OUTBOX_OPTS, COMMON_OPTS),
	.statuses = STATUSES({ EVBUS_NONE, "there is no such database or table: run outbox-init" }),
	.examples = EXAMPLES(ADD_ONE,
		{ "evbus outbox-list --outbox sqlite:app.db --format tsv", "1\to-1\torders\tPENDING\t0\t0\t\\N\t0\t\\N" },
		{ "evbus outbox-list --outbox sqlite:app.db --counts --format json",
		  "{\"outbox\":\"app.db\",\"pending\":1,\"processing\":0,\"sent\":0,\"failed\":0,\"waiting\":0,"
		  "\"oldest_due_seconds\":0}" }));

/* ---- outbox-init ----------------------------------------------------------------------------------------------- */

/* What stands for the parameters in the example; no parameter begins as another does. */
static const struct {
	const char *parameter, *value;
} example[] = {
	{ ":id", "'o-1'" },
	{ ":topic", "'orders'" },
	{ ":event_type", "'order.placed'" },
	{ ":payload", "'{\"event_id\":\"o-1\",\"event_type\":\"order.placed\",\"total\":1.10}'" },
};

static size_t parameter_at(const char *sql)
{
	for (size_t i = 0; i < COUNT(example); i++)
		if (!strncmp(sql, example[i].parameter, strlen(example[i].parameter)))
			return i;
	return COUNT(example);
}

static void print_example(const char *sql)
{
	out_text("-- for example:\n-- ");
	while (*sql) {
		size_t i = parameter_at(sql);

		if (i < COUNT(example))
			out_text(example[i].value);
		else if (*sql == '\n')
			out_text("\n-- ");
		else
			out_bytes(sql, 1);
		sql += i < COUNT(example) ? strlen(example[i].parameter) : 1;
	}
	out_text("\n");
}

static enum evbus_code outbox_init_run(struct args *args, struct call *call)
{
	CLEANUP(bus_cleanup) struct evbus *bus = NULL;
	CLEANUP(outbox_cleanup) struct evbus_outbox *outbox = NULL;
	bool made, wal;

	TRY(bus_open(call, NULL, &bus));
	TRY(outbox_open(call, bus, &args->outbox, &outbox));
	TRY(evbus_outbox_init(outbox, &made, &wal, &call->err));
	talk(call, NOTICE, made ? "made the table of outbox '%s'" : "outbox '%s' is there already",
	     evbus_outbox_name(outbox));
	if (wal)
		talk(call, WARNING,
		     "the database of outbox '%s' is in WAL mode: SQLite before 3.51.3 can damage it when a checkpoint "
		     "races a commit; evbus never checkpoints there, make sure that one connection alone does",
		     evbus_outbox_name(outbox));
	out_printf("-- to be run in the application's own transaction, beside the changes that the event tells of:\n%s\n",
		   evbus_outbox_insert_sql(outbox));
	print_example(evbus_outbox_insert_sql(outbox));
	if (evbus_outbox_advice_sql(outbox))
		out_printf("-- for drains that are quick, and told of new rows at once, the table lacks:\n%s",
			   evbus_outbox_advice_sql(outbox));
	return out_flush(call);
}

/* ---- what is in a row ------------------------------------------------------------------------------------------ */

struct listing {
	const struct args *args;
	struct call *call;
	struct table table;
	int64_t now_us;
};

static void listing_cleanup(struct listing *list)
{
	table_cleanup(&list->table);
}

/* Columns of others may hold anything: false where it is no time. */
static bool time_of(struct evbus_slice text, int64_t now_us, int64_t *time_us)
{
	char copy[64];
	struct evbus_err err;

	if (!text.data || text.len >= sizeof copy)
		return false;
	memcpy(copy, text.data, text.len);
	copy[text.len] = '\0';
	return copy[0] != '-' && !evbus_time_parse(copy, now_us, time_us, &err);
}

/* When a drainer may take it; data NULL: at once, or never. */
static struct evbus_slice due_of(const struct evbus_outbox_row *row)
{
	switch (row->state) {
	case EVBUS_OUTBOX_PENDING:
		return row->next_attempt_at;
	case EVBUS_OUTBOX_PROCESSING:
		return row->lease_expires_at;
	case EVBUS_OUTBOX_SENT:
	case EVBUS_OUTBOX_FAILED:
		break;
	}
	return (struct evbus_slice){ NULL, 0 };
}

static const char *span(int64_t seconds, char text[32])
{
	static const struct {
		int64_t seconds;
		char unit;
	} units[] = { { 86400, 'd' }, { 3600, 'h' }, { 60, 'm' }, { 1, 's' } };
	size_t i = 0;

	/* As long as two digits say it well. */
	while (i + 1 < COUNT(units) && seconds < 2 * units[i].seconds)
		i++;
	snprintf(text, 32, "%lld%c", (long long)(seconds / units[i].seconds), units[i].unit);
	return text;
}

/* An object on one line, as it can stand in a line of JSON. */
static bool is_object(struct evbus_slice text)
{
	struct evbus_envelope envelope;
	struct evbus_err err = { .column = 0 };

	/* A member that stands there twice is no matter here; only a fault of JSON has a column. */
	return text.data && !memchr(text.data, '\n', text.len) &&
	       (!evbus_envelope_read(text, &envelope, &err) || err.column == 0);
}

/* Any value: as the member of an object it is the whole of that member. */
static bool is_json(struct evbus_slice text)
{
	static const char head[] = "{\"v\":", tail[] = "}";
	size_t len = sizeof head - 1 + text.len + sizeof tail - 1;
	char *object = text.data ? malloc(len) : NULL;

	if (!object)
		return false;
	memcpy(object, head, sizeof head - 1);
	memcpy(object + sizeof head - 1, text.data, text.len);
	memcpy(object + len - 1, tail, sizeof tail - 1);
	bool right = is_object((struct evbus_slice){ object, len }) &&
		     evbus_json_find((struct evbus_slice){ object, len }, "/v", NULL).len == text.len;
	free(object);
	return right;
}

/* ---- outbox-list ----------------------------------------------------------------------------------------------- */

static const struct column brief[] = {
	{ "seq", NUMBER },      { "id", TEXT },         { "topic", TEXT },  { "state", TEXT }, { "age", DIGITS },
	{ "attempts", NUMBER }, { "due", TEXT },        { "behind", NUMBER }, { "error", TEXT },
};

static const struct column whole[] = {
	{ "seq", NUMBER },       { "id", TEXT },
	{ "tenant_id", TEXT },   { "topic", TEXT },
	{ "event_type", TEXT },  { "event_key", TEXT },
	{ "partition_key", TEXT }, { "state", TEXT },
	{ "attempts", NUMBER },  { "next_attempt_at", TEXT },
	{ "last_error", TEXT },  { "lease_owner", TEXT },
	{ "lease_expires_at", TEXT }, { "created_at", TEXT },
	{ "sent_at", TEXT },     { "receipt", TEXT },
	{ "history", TEXT },     { "behind", NUMBER },
	{ "age_seconds", NUMBER }, { "payload", TEXT },
};

#define ERROR_SHOWN_BYTES 80u

/* The first of an error, cut between two characters. */
static void table_error(struct table *table, struct evbus_slice error)
{
	char shown[ERROR_SHOWN_BYTES + sizeof "..."];
	size_t len = error.len;

	if (!error.data || len <= ERROR_SHOWN_BYTES) {
		table_slice(table, error);
		return;
	}
	for (len = ERROR_SHOWN_BYTES; len > 0 && ((unsigned char)error.data[len] & 0xc0) == 0x80; len--)
		;
	memcpy(shown, error.data, len);
	memcpy(shown + len, "...", sizeof "...");
	table_text(table, shown);
}

static void list_due(struct listing *list, const struct evbus_outbox_row *row)
{
	struct evbus_slice due = due_of(row);
	char text[32];
	int64_t due_us;

	if (time_of(due, list->now_us, &due_us) && due_us > list->now_us)
		table_text(&list->table, span((due_us - list->now_us + 999999) / 1000000, text));
	else
		table_text(&list->table, row->state == EVBUS_OUTBOX_PENDING || due.data ? "now" : NULL);
}

static void list_brief(struct listing *list, const struct evbus_outbox_row *row)
{
	struct table *table = &list->table;
	bool aligned = table->format == TABLE_ALIGNED;
	int64_t created_us;
	char text[32];

	table_number(table, row->seq);
	table_slice(table, row->id);
	table_slice(table, row->topic);
	table_text(table, evbus_outbox_state_name(row->state));
	if (!time_of(row->created_at, list->now_us, &created_us))
		table_null(table);
	else if (aligned)
		table_text(table, span((list->now_us - created_us) / 1000000, text));
	else
		table_number(table, (list->now_us - created_us) / 1000000);
	table_number(table, row->attempts);
	if (aligned)
		list_due(list, row);
	else
		table_slice(table, due_of(row));
	table_number(table, row->behind);
	if (aligned)
		table_error(table, row->last_error);
	else
		table_slice(table, row->last_error);
}

static void list_json(struct table *table, struct evbus_slice text, bool bare)
{
	if (bare)
		table_json(table, text);
	else
		table_slice(table, text);
}

static void list_whole(struct listing *list, const struct evbus_outbox_row *row)
{
	struct table *table = &list->table;
	int64_t created_us;

	table_number(table, row->seq);
	table_slice(table, row->id);
	table_slice(table, row->tenant_id);
	table_slice(table, row->topic);
	table_slice(table, row->event_type);
	table_slice(table, row->event_key);
	table_slice(table, row->partition_key);
	table_text(table, evbus_outbox_state_name(row->state));
	table_number(table, row->attempts);
	table_slice(table, row->next_attempt_at);
	table_slice(table, row->last_error);
	table_slice(table, row->lease_owner);
	table_slice(table, row->lease_expires_at);
	table_slice(table, row->created_at);
	table_slice(table, row->sent_at);
	list_json(table, row->receipt, is_object(row->receipt));
	list_json(table, row->history, is_json(row->history));
	table_number(table, row->behind);
	if (time_of(row->created_at, list->now_us, &created_us))
		table_number(table, (list->now_us - created_us) / 1000000);
	else
		table_null(table);
	if (list->args->payload)
		list_json(table, row->payload, is_object(row->payload));
}

static enum evbus_code list_row(void *context, const struct evbus_outbox_row *row, struct evbus_err *err)
{
	struct listing *list = context;

	/* Who is asked to stop, or has nobody left to tell, need not read on. main knows what these mean. */
	if (stopped() || out_is_closed()) {
		*err = (struct evbus_err){ .code = EVBUS_IO, .sys_errno = stopped() ? EINTR : EPIPE };
		return EVBUS_IO;
	}
	if (list->table.format == TABLE_JSON)
		list_whole(list, row);
	else
		list_brief(list, row);
	return EVBUS_OK;
}

static void say_counts(struct call *call, const struct evbus_outbox_counts *counts)
{
	char oldest[96] = "none could be claimed now", text[32];

	if (counts->oldest_due_s >= 0)
		snprintf(oldest, sizeof oldest, "the oldest that could be claimed now is %s old",
			 span(counts->oldest_due_s, text));
	talk(call, NOTICE, "%lld PENDING (%lld of them wait), %lld PROCESSING, %lld SENT, %lld FAILED; %s",
	     (long long)counts->rows[EVBUS_OUTBOX_PENDING], (long long)counts->waiting,
	     (long long)counts->rows[EVBUS_OUTBOX_PROCESSING], (long long)counts->rows[EVBUS_OUTBOX_SENT],
	     (long long)counts->rows[EVBUS_OUTBOX_FAILED], oldest);
}

static enum evbus_code list_counts(struct listing *list, struct evbus_outbox *outbox)
{
	static const struct column columns[] = { { "outbox", TEXT },       { "pending", NUMBER },
						 { "processing", NUMBER }, { "sent", NUMBER },
						 { "failed", NUMBER },     { "waiting", NUMBER },
						 { "oldest_due_seconds", NUMBER } };
	struct evbus_outbox_counts counts;

	TRY(evbus_outbox_count(outbox, &counts, &list->call->err));
	table_start(&list->table, columns, COUNT(columns), list->args->format);
	table_text(&list->table, evbus_outbox_name(outbox));
	for (size_t i = 0; i < EVBUS_OUTBOX_STATES; i++)
		table_number(&list->table, counts.rows[i]);
	table_number(&list->table, counts.waiting);
	if (counts.oldest_due_s >= 0)
		table_number(&list->table, counts.oldest_due_s);
	else
		table_null(&list->table);
	return table_end(&list->table, list->call);
}

static int state_of(const char *name)
{
	int state = name ? 0 : -1;

	while (name && strcmp(evbus_outbox_state_name((enum evbus_outbox_state)state), name) != 0)
		state++;
	return state;
}

static enum evbus_code list_rows(struct listing *list, struct evbus_outbox *outbox)
{
	const struct args *args = list->args;
	const struct evbus_outbox_filter filter = {
		.state = state_of(args->state),
		.blocked = args->blocked,
		.topic = args->topic,
		.tenant = args->tenant,
		.max = args->max,
	};
	struct evbus_outbox_counts counts;
	struct call *call = list->call;

	if (!strcmp(args->format, "json"))
		table_start(&list->table, whole, COUNT(whole) - !args->payload, args->format);
	else
		table_start(&list->table, brief, COUNT(brief), args->format);
	TRY(evbus_outbox_list(outbox, &filter, list_row, list, &call->err));
	TRY(table_end(&list->table, call));
	if (list->table.format != TABLE_ALIGNED || args->common.quiet)
		return EVBUS_OK;
	TRY(evbus_outbox_count(outbox, &counts, &call->err));
	say_counts(call, &counts);
	return EVBUS_OK;
}

static enum evbus_code check_list_args(const struct args *args, struct call *call)
{
	if (args->topic)
		TRY(evbus_topic_check(args->topic, true, &call->err));
	if (args->payload && strcmp(args->format, "json") != 0)
		return fail(call, EVBUS_USAGE, "--payload is only in --format json");
	if (args->counts && (args->state || args->blocked || args->topic || args->tenant || args->max || args->payload))
		return fail(call, EVBUS_USAGE, "--counts counts all rows and takes no filter");
	return EVBUS_OK;
}

static enum evbus_code outbox_list_run(struct args *args, struct call *call)
{
	CLEANUP(bus_cleanup) struct evbus *bus = NULL;
	CLEANUP(outbox_cleanup) struct evbus_outbox *outbox = NULL;
	CLEANUP(listing_cleanup) struct listing list = { .args = args, .call = call, .now_us = evbus_time_now() };

	TRY(check_list_args(args, call));
	TRY(bus_open(call, NULL, &bus));
	TRY(outbox_open(call, bus, &args->outbox, &outbox));
	return args->counts ? list_counts(&list, outbox) : list_rows(&list, outbox);
}
