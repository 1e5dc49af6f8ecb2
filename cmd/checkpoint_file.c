/* checkpoint_file.c: reading back what checkpoint-list printed. */
#include "checkpoint_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECKPOINTS_MAX 100000u
#define TIME_LEN 27                  /* 2026-01-29T12:00:00.123456Z */

#define FIELD(column_, name_)                                                   \
	{                                                                       \
		.column = (column_), .pointer = "/" #name_,                     \
		.at = offsetof(struct evbus_checkpoint, name_),                 \
		.size = sizeof((struct evbus_checkpoint *)NULL)->name_          \
	}

/* The texts of a checkpoint: in which column of TSV, under which pointer of JSON. */
static const struct field {
	size_t column;
	const char *pointer;
	size_t at, size;
} fields[] = { FIELD(0, group),	 FIELD(1, topic),	FIELD(3, next_offset),	 FIELD(4, offset_kind),
	       FIELD(7, log_id), FIELD(8, fingerprint), FIELD(9, updated_at_utc) };

#define PARTITION_COLUMN 2
#define PARTITION_POINTER "/partition_id"

struct input {
	struct call *call;
	const char *name;
	FILE *file;
	char *line;
	size_t size;                 /* of line */
	unsigned long number;        /* of the line */
	struct evbus_checkpoint *checkpoints;
	size_t count, room;
};

static void input_close(struct input *input)
{
	if (input->file && input->file != stdin)
		fclose(input->file);
	free(input->line);
	free(input->checkpoints);
}

static enum evbus_code input_open(struct input *input, const char *name)
{
	bool is_stdin = !strcmp(name, "-");

	input->name = is_stdin ? "standard input" : name;
	input->file = is_stdin ? stdin : fopen(name, "re");
	if (input->file)
		return EVBUS_OK;
	return fail_errno(input->call, errno == ENOENT ? EVBUS_NONE : EVBUS_IO, "cannot open '%s'", name);
}

static enum evbus_code not_so(struct input *input, const char *what, struct evbus_slice value)
{
	return fail(input->call, EVBUS_DATA,
		    "'%s', line %lu: %s: '%.*s'; checkpoint-list prints it right with --format json or tsv",
		    input->name, input->number, what, value.len < 64 ? (int)value.len : 64, value.data ? value.data : "");
}

static struct evbus_slice slice_of(const char *text)
{
	return (struct evbus_slice){ text, strlen(text) };
}

/* ---- a line ---------------------------------------------------------------------------------------------------- */

/* false: it is not there. */
static bool column_at(struct evbus_slice line, size_t column, struct evbus_slice *value)
{
	const char *at = line.data, *end = line.data + line.len, *tab;

	while ((tab = memchr(at, '\t', (size_t)(end - at))) && column) {
		at = tab + 1;
		column--;
	}
	*value = (struct evbus_slice){ at, (size_t)((tab ? tab : end) - at) };
	return column == 0;
}

/* null and \N have no data. */
static bool value_at(struct evbus_slice line, const char *pointer, size_t column, struct evbus_slice *value)
{
	bool json = line.data[0] == '{', there = true;
	const char *null = json ? "null" : "\\N";

	if (json)
		there = (*value = evbus_json_find(line, pointer, NULL)).data != NULL;
	else
		there = column_at(line, column, value);
	if (there && value->len == strlen(null) && !memcmp(value->data, null, value->len))
		*value = (struct evbus_slice){ NULL, 0 };
	return there;
}

static enum evbus_code take_text(struct input *input, struct evbus_slice line, const struct field *field,
				 struct evbus_checkpoint *checkpoint)
{
	char *to = (char *)checkpoint + field->at;
	struct evbus_slice value;

	if (!value_at(line, field->pointer, field->column, &value))
		return not_so(input, "it lacks a member or column", slice_of(field->pointer + 1));
	if (!value.data)
		return EVBUS_OK;
	size_t len = value.len;
	if (line.data[0] == '{')
		len = evbus_json_text(value, to, field->size - 1);
	else if (len < field->size)
		memcpy(to, value.data, len);
	if (len >= field->size)
		return not_so(input, "it is too long", value);
	return memchr(to, 0, len) ? not_so(input, "it has a NUL", value) : EVBUS_OK;
}

static enum evbus_code take_partition(struct input *input, struct evbus_slice line, struct evbus_checkpoint *checkpoint)
{
	struct evbus_slice value = { NULL, 0 };

	if (!value_at(line, PARTITION_POINTER, PARTITION_COLUMN, &value) || !value.len || value.len > 4)
		return not_so(input, "it has no number of a partition", line);
	for (size_t i = 0; i < value.len; i++) {
		if (value.data[i] < '0' || value.data[i] > '9')
			return not_so(input, "it is no number of a partition", value);
		checkpoint->partition_id = checkpoint->partition_id * 10 + (value.data[i] - '0');
	}
	return checkpoint->partition_id < EVBUS_PARTITIONS_MAX ? EVBUS_OK :
								 not_so(input, "there is no such partition", value);
}

static bool is_hex(const char *text, size_t digits)
{
	return strlen(text) == digits && strspn(text, "0123456789abcdef") == digits;
}

/* With either of them wrong, the group would be refused when it goes on: its log was another one. */
static enum evbus_code check_log(struct input *input, const struct evbus_checkpoint *checkpoint)
{
	if (!is_hex(checkpoint->log_id, sizeof checkpoint->log_id - 1))
		return not_so(input, "it is no log_id, of 32 hexadecimal digits", slice_of(checkpoint->log_id));
	if (checkpoint->fingerprint[0] && !is_hex(checkpoint->fingerprint, sizeof checkpoint->fingerprint - 1))
		return not_so(input, "it is no fingerprint, of 8 hexadecimal digits",
			      slice_of(checkpoint->fingerprint));
	return EVBUS_OK;
}

static enum evbus_code check_texts(struct input *input, const struct evbus_checkpoint *checkpoint)
{
	const char *time = checkpoint->updated_at_utc, *offset = checkpoint->next_offset;
	struct evbus_err err;
	int64_t time_us;

	if (evbus_topic_check(checkpoint->group, false, &err)) /* names of groups are as those of topics */
		return not_so(input, "it is no name of a group", slice_of(checkpoint->group));
	if (evbus_topic_check(checkpoint->topic, false, &err))
		return not_so(input, "it is no name of a topic", slice_of(checkpoint->topic));
	if (!offset[0] || offset[strspn(offset, "0123456789")])
		return not_so(input, "it is no offset", slice_of(offset));
	if (strlen(time) != TIME_LEN || evbus_time_parse(time, 0, &time_us, &err))
		return not_so(input, "it is no time", slice_of(time));
	return check_log(input, checkpoint);
}

static enum evbus_code take_line(struct input *input, struct evbus_slice line, struct evbus_checkpoint *checkpoint)
{
	struct evbus_envelope envelope;
	struct evbus_err err;

	*checkpoint = (struct evbus_checkpoint){ .partition_id = 0 };
	if (line.data[0] == '{' && evbus_envelope_read(line, &envelope, &err))
		return not_so(input, "it is not JSON", line);
	for (size_t i = 0; i < COUNT(fields); i++)
		TRY(take_text(input, line, &fields[i], checkpoint));
	TRY(take_partition(input, line, checkpoint));
	return check_texts(input, checkpoint);
}

/* ---- the file -------------------------------------------------------------------------------------------------- */

static enum evbus_code grow(struct input *input)
{
	if (input->count == CHECKPOINTS_MAX)
		return fail(input->call, EVBUS_DATA, "'%s' has more than %u checkpoints", input->name, CHECKPOINTS_MAX);
	if (input->count < input->room)
		return EVBUS_OK;
	size_t room = 2 * input->room + 16;
	struct evbus_checkpoint *larger = realloc(input->checkpoints, room * sizeof *larger);
	if (!larger)
		return fail(input->call, EVBUS_IO, "cannot read '%s': out of memory", input->name);
	input->checkpoints = larger;
	input->room = room;
	return EVBUS_OK;
}

static int by_place(const void *a, const void *b)
{
	const struct evbus_checkpoint *x = *(const struct evbus_checkpoint *const *)a;
	const struct evbus_checkpoint *y = *(const struct evbus_checkpoint *const *)b;
	int group = strcmp(x->group, y->group), topic = strcmp(x->topic, y->topic);

	return group ? group : topic ? topic : x->partition_id - y->partition_id;
}

static enum evbus_code check_twice(struct input *input)
{
	const struct evbus_checkpoint **sorted = malloc((input->count + 1) * sizeof(*sorted));
	enum evbus_code code = EVBUS_OK;

	if (!sorted)
		return fail(input->call, EVBUS_IO, "cannot read '%s': out of memory", input->name);
	for (size_t i = 0; i < input->count; i++)
		sorted[i] = &input->checkpoints[i];
	qsort(sorted, input->count, sizeof(*sorted), by_place);
	for (size_t i = 1; i < input->count && !code; i++)
		if (!by_place(&sorted[i - 1], &sorted[i]))
			code = fail(input->call, EVBUS_DATA,
				    "'%s' has two checkpoints of the group '%s' on partition %d of the topic '%s'",
				    input->name, sorted[i]->group, sorted[i]->partition_id, sorted[i]->topic);
	free(sorted);
	return code;
}

enum evbus_code checkpoints_read(struct call *call, const char *file, struct evbus_checkpoint **checkpoints,
				 size_t *count)
{
	CLEANUP(input_close) struct input input = { .call = call };
	ssize_t len;

	TRY(input_open(&input, file));
	while ((len = getline(&input.line, &input.size, input.file)) > 0) {
		input.number++;
		len -= input.line[len - 1] == '\n';
		if (!len)
			continue;
		TRY(grow(&input));
		TRY(take_line(&input, (struct evbus_slice){ input.line, (size_t)len },
			      &input.checkpoints[input.count]));
		input.count++;
	}
	if (!feof(input.file))
		return fail_errno(call, EVBUS_IO, "cannot read '%s'", input.name);
	TRY(check_twice(&input));
	if (!input.count)
		talk(call, WARNING, "there is no checkpoint in '%s': nothing is set", input.name);
	*count = input.count;
	*checkpoints = input.checkpoints;
	input.checkpoints = NULL;
	return EVBUS_OK;
}
