/* dlq.c: evbus dlq-list
 *
 * The table is what an operator wants to see at night: which letters need a decision, oldest first, on one line each.
 * Those that are DEAD come before those that are QUEUED, which are on their way. JSON and TSV have all there is. */
#include "letters.h"
#include "letter_counts.h"
#include "letter_row.h"

#include <stdio.h>
#include <string.h>

#define ERROR_CHARACTERS 60          /* of an error in the table */

struct args {
	struct common common;
	struct letter_args letters;
	struct source_args sources;
	const char *state;
	const char *by;
	const char *format;
	int64_t max;
	bool payload;
};

COMMAND(dlq_list,
	.summary = "list dead letters",
	.opts = OPTS(LETTER_OPTS,
		OPT(0, state, "STATE", "dead, queued, retried, discarded or all (default: dead and queued)",
		    .words = "dead|queued|retried|discarded|all"),
		OPT(0, by, "WHAT", "only how many there are of each reason, type, topic, group or tenant",
		    .words = "reason|type|topic|group|tenant"),
		OPT(0, max, "N", "list so many at most", .unset = -1),
		OPT(0, payload, "", "with their payloads, in json and tsv"),
		LIST_FORMAT_OPT, SOURCE_OPTS, COMMON_OPTS),
	.statuses = STATUSES({ EVBUS_NONE, "there is no letter with an id that was given" }),
	.examples = EXAMPLES(
		{ "echo '{\"id\":\"1\"}' | evbus publish -q -t orders; evbus dlq-list --format json", "" },
		{ "evbus dlq-list -t 'crm.>' --reason timeout --older-than 1h --format tsv", "" }));

struct listing {
	struct letters letters;
	struct letter_rows rows;
	struct counts counts;        /* where --by was said: nothing is listed */
	int64_t left;                /* to be listed; -1: all */
	int64_t now_us;
};

static void listing_release(struct listing *list)
{
	letters_close(&list->letters);
	letter_rows_release(&list->rows);
	counts_release(&list->counts);
}

/* ---- as a table ------------------------------------------------------------------------------------------------ */

static const struct column short_columns[] = {
	{ "id", TEXT },       { "state", TEXT },    { "group", TEXT },  { "topic", TEXT },
	{ "position", DIGITS }, { "event_id", TEXT }, { "type", TEXT },   { "reason", TEXT },
	{ "attempts", NUMBER }, { "age", DIGITS },    { "error", TEXT },
};

/* In its largest unit: an operator compares ages, and does not compute with them. */
static void put_age(struct table *table, struct evbus_slice since, int64_t now_us)
{
	char text[32] = "", age[32];
	struct evbus_err err;
	int64_t time_us;

	if (since.data && since.len < sizeof text)
		memcpy(text, since.data, since.len);
	if (evbus_time_parse(text, now_us, &time_us, &err)) {
		table_null(table);
		return;
	}
	long long s = time_us < now_us ? (now_us - time_us) / 1000000 : 0;
	long long n = s < 60 ? s : s < 3600 ? s / 60 : s < 86400 ? s / 3600 : s / 86400;
	snprintf(age, sizeof age, "%lld%c", n, s < 60 ? 's' : s < 3600 ? 'm' : s < 86400 ? 'h' : 'd');
	table_text(table, age);
}

static void put_position(struct table *table, const struct evbus_letter *letter)
{
	char text[64];

	snprintf(text, sizeof text, "%d/%.*s", letter->partition_id, (int)letter->offset.len, letter->offset.data);
	table_text(table, letter->offset.data ? text : NULL);
}

/* Its last line, as what failed stands at the end of a trace; shortened between two characters. */
static void put_brief(struct table *table, struct evbus_slice error)
{
	char text[4 * ERROR_CHARACTERS + sizeof "…"];
	size_t len = 0, characters = 0;

	while (error.len && strchr("\r\n \t", error.data[error.len - 1]))
		error.len--;
	const char *newline = error.len ? memrchr(error.data, '\n', error.len) : NULL;
	if (newline)
		error = (struct evbus_slice){ newline + 1, (size_t)(error.data + error.len - newline - 1) };
	for (; len < error.len; len++) {
		bool begins = ((unsigned char)error.data[len] & 0xc0) != 0x80;

		if (len == 4 * ERROR_CHARACTERS || (begins && ++characters > ERROR_CHARACTERS))
			break;
	}
	memcpy(text, error.data ? error.data : "", len);
	memcpy(text + len, "…", sizeof "…");
	table_slice(table, (struct evbus_slice){ text, len + (len < error.len ? strlen("…") : 0) });
}

static void list_short(struct listing *list, const struct evbus_letter *letter)
{
	struct table *table = &list->rows.table;

	table_text(table, letter->id);
	table_text(table, evbus_letter_state_name(letter->state));
	table_slice(table, letter_origin(letter));
	table_slice(table, letter->topic);
	put_position(table, letter);
	table_slice(table, letter->event_id);
	table_slice(table, letter->event_type);
	table_text(table, evbus_reason_name(letter->reason));
	table_number(table, letter->attempts);
	put_age(table, letter->created_at, list->now_us);
	put_brief(table, letter->error);
}

/* ---------------------------------------------------------------------------------------------------------------- */

static enum evbus_code list_one(void *context, const struct evbus_letter *letter, struct evbus_err *err)
{
	struct listing *list = context;

	(void)err;
	if (list->left == 0) {
		list->letters.enough = true;
		return EVBUS_OK;
	}
	list->left -= list->left > 0;
	if (list->counts.by)
		return counts_add(&list->counts, letter);
	if (list->rows.table.format != TABLE_ALIGNED)
		return letter_rows_add(&list->rows, list->letters.call, letter);
	list_short(list, letter);
	return EVBUS_OK;
}

/* Whoever names letters wants to see them in whatever state they are. */
static unsigned states_of(const struct letters *letters, const char *wanted)
{
	unsigned states = 0;

	if (wanted ? !strcmp(wanted, "all") : letters->by_id)
		return ANY_STATE;
	if (!wanted)
		return STATE_BIT(EVBUS_LETTER_DEAD) | STATE_BIT(EVBUS_LETTER_QUEUED);
	for (int state = 0; state < EVBUS_LETTER_STATES; state++)
		if (!strcasecmp(wanted, evbus_letter_state_name((enum evbus_letter_state)state)))
			states = STATE_BIT(state);
	return states;
}

static enum evbus_code dlq_list_run(struct args *args, struct call *call)
{
	CLEANUP(listing_release) struct listing list = { .left = args->max, .now_us = evbus_time_now() };

	if (args->by && args->payload)
		return fail(call, EVBUS_USAGE, "--by and --payload exclude each other: counts have no payload");
	list.counts = (struct counts){ .call = call, .by = args->by };
	letter_rows_begin(&list.rows, args->format, args->payload);
	if (list.rows.table.format == TABLE_ALIGNED)
		table_start(&list.rows.table, short_columns, COUNT(short_columns), args->format);
	TRY(letters_open(&list.letters, call, &args->letters, &args->sources, NULL));
	TRY(letters_each(&list.letters, states_of(&list.letters, args->state), list_one, &list));
	return args->by ? counts_print(&list.counts, args->format) : table_end(&list.rows.table, call);
}
