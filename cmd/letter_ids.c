/* letter_ids.c: names of dead letters, from words and from files.
 *
 * What was printed is understood in each format, so that a dry run that was looked at is what is done. A line tells by
 * itself which format it has: JSON begins with a brace, TSV has tabs, and in a table the id is followed by blanks and
 * the name of a state. */
#include "letter_ids.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IDS_MAX 1000000u
#define DIGITS_MAX 19u /* of a number of 64 bits */

struct lines {
	FILE *file;
	char *text;
	size_t size;
};

static void lines_release(struct lines *lines)
{
	if (lines->file && lines->file != stdin)
		fclose(lines->file);
	free(lines->text);
}

static bool is_digit(char byte)
{
	return byte >= '0' && byte <= '9';
}

/* "17", or "app.db:17" */
static bool is_id(struct evbus_slice text)
{
	size_t digits = 0;

	if (text.len >= EVBUS_LETTER_ID_MAX_BYTES || memchr(text.data, 0, text.len))
		return false;
	while (digits < text.len && is_digit(text.data[text.len - digits - 1]))
		digits++;
	if (!digits || digits > DIGITS_MAX)
		return false;
	return digits == text.len || (digits + 1 < text.len && text.data[text.len - digits - 1] == ':');
}

static enum evbus_code add(struct letter_ids *ids, struct call *call, struct evbus_slice id)
{
	if (ids->count == ids->room) {
		size_t room = 2 * ids->room + 64;
		const char **larger = realloc(ids->items, room * sizeof *larger);

		if (!larger)
			return fail(call, EVBUS_IO, "cannot take %zu ids: out of memory", room);
		ids->items = larger;
		ids->room = room;
	}
	char *text;
	if (asprintf(&text, "%.*s", (int)id.len, id.data) < 0)
		return fail(call, EVBUS_IO, "cannot take %zu ids: out of memory", ids->count);
	ids->items[ids->count++] = text;
	return EVBUS_OK;
}

enum evbus_code letter_ids_add(struct letter_ids *ids, struct call *call, const char *id)
{
	const struct evbus_slice text = { id, strlen(id) };

	if (!is_id(text))
		return fail(call, EVBUS_USAGE,
			    "'%s' is not the id of a letter: 17, or app.db:17 in an outbox; dlq-list prints them", id);
	return add(ids, call, text);
}

/* ---- a line ---------------------------------------------------------------------------------------------------- */

static bool is_blank(char byte)
{
	return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

static struct evbus_slice trim(struct evbus_slice text)
{
	while (text.len && is_blank(text.data[text.len - 1]))
		text.len--;
	while (text.len && is_blank(*text.data))
		text = (struct evbus_slice){ text.data + 1, text.len - 1 };
	return text;
}

/* Of TSV: undoes the escapes, in place. */
static struct evbus_slice first_column(char *line, const char *tab)
{
	static const char letters[] = "bfnrtv", bytes[] = "\b\f\n\r\t\v";
	char *to = line;

	for (const char *at = line; at < tab; at++) {
		const char *letter = *at == '\\' && at + 1 < tab ? memchr(letters, *++at, sizeof letters - 1) : NULL;

		*to++ = letter ? bytes[letter - letters] : *at;
	}
	return (struct evbus_slice){ line, (size_t)(to - line) };
}

/* What stands before blanks and the name of a state; where there is none, the whole line. */
static struct evbus_slice before_state(struct evbus_slice line)
{
	for (size_t i = 0; i < EVBUS_LETTER_STATES; i++) {
		char after[32];
		int n = snprintf(after, sizeof after, "  %s ", evbus_letter_state_name((enum evbus_letter_state)i));
		const char *at = memmem(line.data, line.len, after, (size_t)n);

		if (at && is_id(trim((struct evbus_slice){ line.data, (size_t)(at - line.data) })))
			return trim((struct evbus_slice){ line.data, (size_t)(at - line.data) });
	}
	return line;
}

/* The "id" of a line of JSON in `text`; a line that is not JSON, or has none, is none. */
static struct evbus_slice id_member(struct evbus_slice line, char text[EVBUS_LETTER_ID_MAX_BYTES])
{
	struct evbus_envelope envelope;
	struct evbus_err err;
	struct evbus_slice id = { NULL, 0 };

	if (evbus_envelope_read(line, &envelope, &err))
		return id;
	id = evbus_json_find(line, "/id", NULL);
	if (!id.data || id.data[0] != '"')
		return (struct evbus_slice){ NULL, 0 };
	size_t len = evbus_json_text(id, text, EVBUS_LETTER_ID_MAX_BYTES);
	return len <= EVBUS_LETTER_ID_MAX_BYTES ? (struct evbus_slice){ text, len } : (struct evbus_slice){ NULL, 0 };
}

static bool is_header(struct evbus_slice line)
{
	return line.len > 4 && !memcmp(line.data, "ID  ", 4);
}

static enum evbus_code add_line(struct letter_ids *ids, struct call *call, char *text, size_t len, size_t number,
				const char *name)
{
	char member[EVBUS_LETTER_ID_MAX_BYTES];
	struct evbus_slice line = trim((struct evbus_slice){ text, len }), id = line;
	const char *tab = memchr(text, '\t', len);

	if (!line.len || (number == 1 && is_header(line)))
		return EVBUS_OK;
	if (*line.data == '{')
		id = id_member(line, member);
	else
		id = tab ? first_column(text, tab) : before_state(line);
	if (!id.data || !is_id(id))
		return fail(call, EVBUS_DATA,
			    "'%s', line %zu: there is no id of a letter: '%.*s'; dlq-list and a dry run print what is "
			    "understood here",
			    name, number, line.len < 64 ? (int)line.len : 64, line.data);
	if (ids->count == IDS_MAX)
		return fail(call, EVBUS_DATA, "'%s' has more than %u ids: split it", name, IDS_MAX);
	return add(ids, call, id);
}

enum evbus_code letter_ids_read(struct letter_ids *ids, struct call *call, const char *file)
{
	bool is_stdin = !strcmp(file, "-");
	const char *name = is_stdin ? "standard input" : file;
	CLEANUP(lines_release) struct lines lines = { .file = is_stdin ? stdin : fopen(file, "re") };
	ssize_t len;

	if (!lines.file)
		return fail_errno(call, errno == ENOENT ? EVBUS_NONE : EVBUS_IO, "cannot open '%s'", name);
	for (size_t number = 1; (len = getline(&lines.text, &lines.size, lines.file)) > 0; number++)
		TRY(add_line(ids, call, lines.text, (size_t)len, number, name));
	if (!feof(lines.file))
		return fail_errno(call, EVBUS_IO, "cannot read '%s'", name);
	return EVBUS_OK;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

void letter_ids_sort(struct letter_ids *ids)
{
	size_t kept = 0;

	if (ids->count)
		qsort(ids->items, ids->count, sizeof(*ids->items), by_text);
	for (size_t i = 0; i < ids->count; i++)
		if (kept && !strcmp(ids->items[i], ids->items[kept - 1]))
			free((char *)ids->items[i]);
		else
			ids->items[kept++] = ids->items[i];
	ids->count = kept;
}

void letter_ids_release(struct letter_ids *ids)
{
	for (size_t i = 0; i < ids->count; i++)
		free((char *)ids->items[i]);
	free(ids->items);
}
