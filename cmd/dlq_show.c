/* dlq_show.c: evbus dlq-show
 *
 * For reading, the payload comes last, so that nothing has to be searched below it; for a pipe there is nothing else. */
#include "letters.h"
#include "letter_row.h"

#include <stdio.h>
#include <string.h>

#define LABEL_WIDTH 18

struct args {
	struct common common;
	struct letter_args letters;
	struct source_args sources;
	const char *format;
};

COMMAND(dlq_show,
	.summary = "print all that is known of a dead letter, and its payload",
	.takes = "ID [ID...]",
	.opts = OPTS(
		OPT(0, letters.tenant, "ID", "only if it is of this tenant"),
		OPT(0, format, "text|json|payload", "how to print", .words = "text|json|payload", .preset = "text"),
		SOURCE_OPTS, COMMON_OPTS),
	.statuses = STATUSES({ EVBUS_NONE, "there is no letter of this id" }),
	.examples = EXAMPLES(
		{ "echo '{\"id\":\"1\"}' | evbus publish -q -t orders; evbus dlq-show 17 || test $? = 66", "" }));

struct showing {
	struct letters letters;
	struct letter_rows rows;
	const char *format;
};

static void showing_release(struct showing *show)
{
	letters_close(&show->letters);
	letter_rows_release(&show->rows);
}

/* ---- as text --------------------------------------------------------------------------------------------------- */

static void put_label(const char *name)
{
	out_printf("%-*s", LABEL_WIDTH, name);
}

/* On one line, whatever is in it: nobody's event id shall look like the next field. */
static void put_field(const char *name, struct evbus_slice value)
{
	if (!value.data)
		return;
	put_label(name);
	for (size_t at = 0; at < value.len; at++) {
		size_t plain = at;

		while (at < value.len && (unsigned char)value.data[at] >= 0x20)
			at++;
		out_data(value.data + plain, at - plain);
		if (at < value.len)
			out_printf("\\u%04x", (unsigned char)value.data[at]);
	}
	out_text("\n");
}

static void put_word(const char *name, const char *value)
{
	put_field(name, (struct evbus_slice){ value, strlen(value) });
}

static void put_number(const char *name, int64_t value)
{
	put_label(name);
	out_printf("%lld\n", (long long)value);
}

/* Line by line, to the right of what it belongs to. */
static void put_lines(struct evbus_slice text)
{
	while (text.len) {
		const char *newline = memchr(text.data, '\n', text.len);
		size_t len = newline ? (size_t)(newline - text.data) : text.len;

		put_label("");
		out_data(text.data, len);
		out_text("\n");
		len += newline != NULL;
		text = (struct evbus_slice){ text.data + len, text.len - len };
	}
}

static void put_fields(const struct evbus_letter *letter)
{
	put_word("id", letter->id);
	put_word("state", evbus_letter_state_name(letter->state));
	put_field("source", letter->source);
	put_field("group", letter->group);
	put_field("tenant_id", letter->tenant_id);
	put_field("topic", letter->topic);
	if (letter->partition_id >= 0)
		put_number("partition_id", letter->partition_id);
	put_field("offset", letter->offset);
	put_field("offset_kind", letter->offset_kind);
	put_field("published_at_utc", letter->published_at_utc);
	put_field("partition_key", letter->partition_key);
	put_field("event_id", letter->event_id);
	put_field("event_type", letter->event_type);
	put_field("correlation_id", letter->correlation_id);
	put_word("reason", evbus_reason_name(letter->reason));
	put_number("attempts", letter->attempts);
	put_number("returns", letter->returns);
	put_field("created_at_utc", letter->created_at);
	put_field("updated_at_utc", letter->updated_at);
	put_field("resolved_by", letter->resolved_by);
	put_field("result", letter->result);
}

/* One member of an attempt, as text; at most size bytes. */
static struct evbus_slice attempt_member(struct evbus_slice history, size_t index, const char *name, char *text,
					 size_t size)
{
	char pointer[64];

	snprintf(pointer, sizeof pointer, "/%zu/%s", index, name);
	struct evbus_slice value = evbus_json_find(history, pointer, NULL);
	size_t len = value.data ? evbus_json_text(value, text, size) : 0;
	return (struct evbus_slice){ value.data && len <= size ? text : NULL, len <= size ? len : 0 };
}

static size_t count_attempts(struct evbus_slice history)
{
	char pointer[32];
	size_t n = 0;

	while (history.data && (snprintf(pointer, sizeof pointer, "/%zu", n), evbus_json_find(history, pointer, NULL).data))
		n++;
	return n;
}

/* Of the last attempt more of the error is kept than in the history. */
static void put_attempt(struct evbus_slice history, size_t index, struct evbus_slice last_error)
{
	char text[EVBUS_ERROR_MAX_BYTES];
	struct evbus_slice value = attempt_member(history, index, "attempt", text, sizeof text);

	put_label("attempt");
	out_data(value.data, value.len);
	out_text(" at ");
	value = attempt_member(history, index, "at", text, sizeof text);
	out_data(value.data, value.len);
	out_text(" ");
	value = attempt_member(history, index, "reason", text, sizeof text);
	out_data(value.data, value.len);
	out_text("\n");
	put_lines(last_error.len ? last_error : attempt_member(history, index, "error", text, sizeof text));
}

static enum evbus_code show_text(struct showing *show, const struct evbus_letter *letter)
{
	const struct evbus_slice nothing = { NULL, 0 };
	struct evbus_slice history;

	out_text(show->letters.given > 1 ? "\n" : "");
	put_fields(letter);
	TRY(letter_history(&show->rows, show->letters.call, letter->history, &history));
	size_t attempts = count_attempts(history);
	for (size_t i = 0; i < attempts; i++)
		put_attempt(history, i, i + 1 == attempts ? letter->error : nothing);
	if (!attempts) {
		put_word("error", "");
		put_lines(letter->error);
	}
	out_text("payload:\n");
	out_data(letter->payload.data, letter->payload.len);
	out_text("\n");
	return EVBUS_OK;
}

/* ---------------------------------------------------------------------------------------------------------------- */

static enum evbus_code show_one(void *context, const struct evbus_letter *letter, struct evbus_err *err)
{
	struct showing *show = context;

	(void)err;
	if (!strcmp(show->format, "json")) {
		TRY(letter_rows_add(&show->rows, show->letters.call, letter));
	} else if (!strcmp(show->format, "text")) {
		TRY(show_text(show, letter));
	} else {
		out_data(letter->payload.data, letter->payload.len);
		out_text("\n");
	}
	return EVBUS_OK;
}

static enum evbus_code dlq_show_run(struct args *args, struct call *call)
{
	CLEANUP(showing_release) struct showing show = { .format = args->format };

	args->letters.older_than.ms = args->letters.newer_than.ms = -1;
	letter_rows_begin(&show.rows, "json", true);
	TRY(letters_open(&show.letters, call, &args->letters, &args->sources, NULL));
	TRY(letters_each(&show.letters, ANY_STATE, show_one, &show));
	bool lacking = show.letters.given < show.letters.ids.count && !show.letters.enough;
	if (lacking && args->letters.tenant)
		return fail(call, EVBUS_NONE, "there is no such letter of the tenant '%s'", args->letters.tenant);
	if (lacking)
		return fail(call, EVBUS_NONE, "a row that is not FAILED is no dead letter: see outbox-list");
	return out_flush(call);
}
