/* input.c: lines and objects out of large reads.
 *
 * An event is handed out where it was read; nothing is copied but the begun line at the end of a read, and that only
 * when it is shorter than what was consumed before it, or when there is no more room behind it. So each byte is moved
 * about once at most, however small the reads of a pipe are, and no byte is searched for a newline twice. */
#include "input.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_BYTES (256u * 1024u) /* stays in the cache until it was scanned */
#define ROOM_BYTES (64u * 1024u) /* of a line beyond its payload */
#define PIPE_BYTES (1024 * 1024)

#define NOT_AN_OBJECT "the event is not one JSON object: "

/* ---- open and close -------------------------------------------------------------------------------------------- */

static enum evbus_code no_memory(const struct input *input, struct call *call)
{
	return fail(call, EVBUS_IO, "there is no memory for lines of %zu bytes", input->item_max_bytes);
}

enum evbus_code input_init(struct input *input, struct call *call, uint32_t payload_max_bytes, bool objects)
{
	*input = (struct input){ .fd = -1, .objects = objects, .item_max_bytes = payload_max_bytes + ROOM_BYTES };
	input->joined = objects ? malloc(input->item_max_bytes) : NULL;
	snprintf(input->too_long, sizeof input->too_long, "the %s has more than %zu bytes", objects ? "event" : "line",
		 input->item_max_bytes);
	return objects && !input->joined ? no_memory(input, call) : EVBUS_OK;
}

void input_close(struct input *input)
{
	if (input->fd > STDIN_FILENO)
		close(input->fd);
	input->fd = -1;
}

void input_release(struct input *input)
{
	input_close(input);
	free(input->data);
	free(input->joined);
}

static enum evbus_code code_of_open(int sys_errno)
{
	if (sys_errno == ENOENT || sys_errno == ENOTDIR)
		return EVBUS_NONE;
	return sys_errno == EACCES ? EVBUS_PERMISSION : EVBUS_IO;
}

/* How far a file reaches now. Somebody may be appending to it, and it may even be the log that is being published to.
 * A file that says it is empty may be one of those that the kernel makes up while they are read. */
static uint64_t bytes_ahead(int fd)
{
	struct stat st;
	off_t at;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size == 0)
		return UINT64_MAX;
	at = lseek(fd, 0, SEEK_CUR);
	return at < 0 ? UINT64_MAX : at < st.st_size ? (uint64_t)(st.st_size - at) : 0;
}

/* For all of a small file, so that one event costs no more than it has bytes; else for the longest line and a read. */
static enum evbus_code make_buffer(struct input *input, struct call *call)
{
	size_t size = input->item_max_bytes + READ_BYTES;

	if (input->left < size)
		size = (size_t)input->left + 1;
	if (size <= input->size)
		return EVBUS_OK;
	free(input->data);
	input->data = malloc(size);
	input->size = input->data ? size : 0;
	return input->data ? EVBUS_OK : no_memory(input, call);
}

enum evbus_code input_open(struct input *input, struct call *call, const char *path)
{
	bool is_stdin = !strcmp(path, "-");

	/* A FIFO without a writer must not keep us here: wait_readable() waits for both. */
	int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return fail_errno(call, code_of_open(errno), "cannot open '%s'", path);
	input->fd = fd;
	input->name = is_stdin ? "stdin" : path;
	input->at_end = input->skipping = false;
	input->begin = input->scanned = input->end = 0;
	input->nesting = (struct nesting){ .depth = 0 };
	input->base = input->line_at = 0;
	input->line = 1;
	input->left = bytes_ahead(fd);
	/* What comes in while a group is being synced is the next group; fails where it is no pipe, which is no matter. */
	if (input->left == UINT64_MAX)
		(void)fcntl(fd, F_SETPIPE_SZ, PIPE_BYTES);
	return make_buffer(input, call);
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

void input_wait(const struct input *input)
{
	(void)wait_readable(input->fd, -1);
}

static void make_room(struct input *input, size_t want)
{
	size_t begun = input->end - input->begin;

	if (input->begin < begun && input->size - input->end >= want)
		return;
	memmove(input->data, input->data + input->begin, begun);
	input->base += input->begin;
	input->scanned -= input->begin;
	input->begin = 0;
	input->end = begun;
	assert(input->size - input->end >= want);
}

/* Reads what is there; *blocked: nothing is, yet. */
static enum evbus_code fill(struct input *input, struct call *call, bool *blocked)
{
	size_t want = input->left < READ_BYTES ? (size_t)input->left : READ_BYTES;

	/* A file never blocks. */
	*blocked = input->left == UINT64_MAX && wait_readable(input->fd, 0) != READABLE;
	if (*blocked)
		return EVBUS_OK;
	make_room(input, want);
	ssize_t n = want ? read(input->fd, input->data + input->end, want) : 0;
	if (n < 0) {
		*blocked = errno == EINTR || errno == EAGAIN;
		return *blocked ? EVBUS_OK : fail_errno(call, EVBUS_IO, "cannot read '%s'", input->name);
	}
	input->at_end = n == 0;
	input->end += (size_t)n;
	input->bytes += (size_t)n;
	input->left -= input->left == UINT64_MAX ? 0 : (size_t)n;
	return EVBUS_OK;
}

/* ---- items ----------------------------------------------------------------------------------------------------- */

static bool is_blank(char byte)
{
	return byte == ' ' || byte == '\t' || byte == '\r';
}

static struct evbus_slice trim(struct evbus_slice text)
{
	while (text.len && is_blank(text.data[text.len - 1]))
		text.len--;
	while (text.len && is_blank(*text.data)) {
		text.data++;
		text.len--;
	}
	return text;
}

void item_place(const struct item *item, size_t at, uint64_t *line, uint64_t *column)
{
	const char *from = item->raw.data, *to = from + at, *newline;

	*line = item->line;
	*column = item->column;
	while (from < to && (newline = memchr(from, '\n', (size_t)(to - from)))) {
		from = newline + 1;
		*column = 1;
		++*line;
	}
	*column += (uint64_t)(to - from);
}

enum evbus_code item_fail(struct call *call, const struct input *input, const struct item *item, size_t at,
			  const char *reason)
{
	uint64_t line, column;

	item_place(item, at, &line, &column);
	return fail(call, EVBUS_DATA, "%s:%llu:%llu: %s", input->name, (unsigned long long)line,
		    (unsigned long long)column, reason);
}

/* The library counts in what it was given; in front stands where that is in the file. */
static void strip_place(char *reason)
{
	char *at = NULL;

	for (char *next = reason; (next = strstr(next, " at byte ")); next++)
		at = next;
	if (at)
		*at = '\0';
}

enum evbus_code item_refused(struct call *call, const struct input *input, const struct item *item, const char *from)
{
	struct evbus_err err = call->err;
	size_t at = item->event_at + (size_t)(from - item->event.data);

	if (err.column) {
		strip_place(err.text);
		at += err.column - 1;
	}
	return item_fail(call, input, item, at, err.text);
}

/* Moves begin, over newlines which are counted. */
static void pass(struct input *input, size_t to)
{
	const char *end = input->data + to, *newline;

	for (const char *at = input->data + input->begin; (newline = memchr(at, '\n', (size_t)(end - at)));) {
		at = newline + 1;
		input->line++;
		input->line_at = input->base + (uint64_t)(at - input->data);
	}
	input->begin = input->scanned = to;
}

/* What stands between begin and `to` becomes raw. */
static void begin_item(const struct input *input, size_t to, enum item_kind kind, struct item *item)
{
	item->kind = kind;
	item->raw = (struct evbus_slice){ input->data + input->begin, to - input->begin };
	item->line = input->line;
	item->column = input->base + input->begin - input->line_at + 1;
	item->more = false;
}

/* more: what follows belongs to it, as far as end_of_bad() says. */
static void give_bad(struct input *input, size_t to, const char *fault, bool more, struct item *item)
{
	begin_item(input, to, ITEM_BAD, item);
	item->fault = fault;
	item->fault_at = item->raw.len;
	item->more = input->skipping = more;
	input->nesting = (struct nesting){ .depth = 0 };
	pass(input, to);
}

/* The newline that ends a bad item: of objects, one before a line that begins with a brace. What may still become one
 * ends where *known says. */
static const char *end_of_bad(const struct input *input, size_t *known)
{
	const char *at = input->data + input->begin, *end = input->data + input->end;

	*known = input->end;
	while ((at = memchr(at, '\n', (size_t)(end - at))) && input->objects && (at + 1 == end || at[1] != '{'))
		if (++at == end) {
			*known = input->end - 1;
			return NULL;
		}
	return at;
}

/* A further piece of a bad item; false: more has to be read. */
static bool give_rest(struct input *input, struct item *item)
{
	size_t known;
	const char *newline = end_of_bad(input, &known);
	size_t to = newline ? (size_t)(newline - input->data) : known;

	if (!newline && to == input->begin && !input->at_end)
		return false;
	begin_item(input, to, ITEM_REST, item);
	item->more = input->skipping = !newline && !(input->at_end && to == input->begin);
	pass(input, newline ? to + 1 : item->more ? to : input->end);
	return true;
}

/* ---- lines ----------------------------------------------------------------------------------------------------- */

static void too_long(struct input *input, size_t to, bool more, struct item *item)
{
	give_bad(input, to, input->too_long, more, item);
	item->fault_at = 0;
}

/* The line that ends at `to`, if there is anything in it. */
static bool give_line(struct input *input, size_t to, struct item *item)
{
	size_t next = to < input->end ? to + 1 : to;
	bool fits = to - input->begin <= input->item_max_bytes;

	begin_item(input, to, ITEM_EVENT, item);
	item->event = trim(item->raw);
	item->event_at = (size_t)(item->event.data - item->raw.data);
	if (!fits)
		too_long(input, to, false, item);
	input->begin = input->scanned = next;
	input->line++;
	input->line_at = input->base + next;
	return item->event.len || !fits;
}

/* false: more has to be read. */
static bool give_from_lines(struct input *input, struct item *item)
{
	const char *newline;

	while ((newline = memchr(input->data + input->scanned, '\n', input->end - input->scanned)))
		if (give_line(input, (size_t)(newline - input->data), item))
			return true;
	input->scanned = input->end;
	if (input->at_end)
		return input->begin < input->end && give_line(input, input->end, item);
	if (input->end - input->begin <= input->item_max_bytes)
		return false;
	too_long(input, input->end, true, item);
	return true;
}

/* ---- objects --------------------------------------------------------------------------------------------------- */

static const char *in_string(struct nesting *nesting, char byte)
{
	if (byte == '\n')
		return NOT_AN_OBJECT "a newline in a string";
	if (nesting->escaped)
		nesting->escaped = false;
	else if (byte == '\\')
		nesting->escaped = true;
	else
		nesting->in_string = byte != '"';
	return NULL;
}

/* What is wrong with the next byte of an object, as far as finding its end goes; NULL: nothing. */
static const char *next_byte(struct nesting *nesting, char byte)
{
	if (nesting->in_string)
		return in_string(nesting, byte);
	if (byte == '"') {
		nesting->in_string = true;
	} else if (byte == '{' || byte == '[') {
		if (nesting->depth == EVBUS_DEPTH_MAX)
			return NOT_AN_OBJECT "nested too deep";
		nesting->closing[nesting->depth++] = byte == '{' ? '}' : ']';
	} else if (byte == '}' || byte == ']') {
		char wanted = nesting->closing[nesting->depth - 1];
		if (byte != wanted)
			return wanted == '}' ? NOT_AN_OBJECT "expected a comma or }"
					     : NOT_AN_OBJECT "expected a comma or ]";
		nesting->depth--;
	}
	return NULL;
}

/* Outside strings a newline and a blank mean the same. */
static struct evbus_slice join(struct input *input, struct evbus_slice raw)
{
	if (!memchr(raw.data, '\n', raw.len))
		return raw;
	memcpy(input->joined, raw.data, raw.len);
	for (char *at = input->joined, *end = at + raw.len; (at = memchr(at, '\n', (size_t)(end - at)));)
		*at = ' ';
	return (struct evbus_slice){ input->joined, raw.len };
}

static void give_object(struct input *input, struct item *item)
{
	begin_item(input, input->scanned, ITEM_EVENT, item);
	item->event = join(input, item->raw);
	item->event_at = 0;
	pass(input, input->scanned);
}

/* The input ends within an object. */
static void give_begun_object(struct input *input, struct item *item)
{
	size_t to = input->end;

	while (is_blank(input->data[to - 1]) || input->data[to - 1] == '\n')
		to--;
	give_bad(input, to, NOT_AN_OBJECT "unexpected end", false, item);
	pass(input, input->end);
}

static void pass_blanks(struct input *input)
{
	size_t to = input->begin;

	while (to < input->end && (is_blank(input->data[to]) || input->data[to] == '\n'))
		to++;
	pass(input, to);
}

/* Goes on until something can be given out; false: more has to be read. */
static bool pass_object(struct input *input, struct item *item)
{
	while (input->scanned < input->end) {
		const char *fault = next_byte(&input->nesting, input->data[input->scanned]);

		if (fault) {
			give_bad(input, input->scanned, fault, true, item);
			return true;
		}
		input->scanned++;
		if (!input->nesting.depth) {
			give_object(input, item);
			return true;
		}
		if (input->scanned - input->begin == input->item_max_bytes) {
			too_long(input, input->scanned, true, item);
			return true;
		}
	}
	return false;
}

static bool give_from_objects(struct input *input, struct item *item)
{
	if (!input->nesting.depth) {
		pass_blanks(input);
		if (input->begin < input->end && input->data[input->begin] != '{') {
			give_bad(input, input->begin, NOT_AN_OBJECT "expected {", true, item);
			return true;
		}
	}
	if (pass_object(input, item))
		return true;
	if (!input->nesting.depth || !input->at_end)
		return false;
	give_begun_object(input, item);
	return true;
}

/* ---------------------------------------------------------------------------------------------------------------- */

static bool give(struct input *input, struct item *item)
{
	if (input->skipping)
		return give_rest(input, item);
	return input->objects ? give_from_objects(input, item) : give_from_lines(input, item);
}

enum evbus_code input_next(struct input *input, struct call *call, struct item *item)
{
	while (!give(input, item)) {
		bool blocked = false;

		if (input->at_end) {
			item->kind = ITEM_END;
			return EVBUS_OK;
		}
		TRY(fill(input, call, &blocked));
		if (blocked) {
			item->kind = ITEM_WAIT;
			return EVBUS_OK;
		}
	}
	return EVBUS_OK;
}
