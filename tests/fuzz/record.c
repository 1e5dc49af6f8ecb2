/* record.c: what evbus printed, read back: records (publish --records) and checkpoints (checkpoint-set --from-file).
 * The input: the text of a record, or, where its first byte is 1, lines of checkpoints. */
#include "fuzz.h"

#include "../../cmd/checkpoint_file.h"
#include "../../cmd/record.h"
#undef TRY /* each side has its own */
#include "log/line.h"

#include <sys/mman.h>
#include <unistd.h>

static struct line_body body_of(const struct record *record)
{
	return (struct line_body){ .key = record->key,
				   .origin = record->origin,
				   .returns = record->returns,
				   .payload = record->payload,
				   .tenant_id = record->tenant_id,
				   .event_key = record->event_key };
}

/* Written to a log and printed from there, it is the same record. */
static void check_record(const struct record *record)
{
	static struct record again;
	CLEANUP(buf_release) struct buf line = { 0 };
	struct line_body body = body_of(record);
	struct evbus_err err;
	uint32_t split;

	MUST(!record->topic[0] || evbus_topic_check(record->topic, false, &err) == EVBUS_OK);
	MUST(record->partition_id >= EVBUS_PARTITION_ANY && record->partition_id < EVBUS_PARTITIONS_MAX);
	MUST(record->key.len <= EVBUS_KEY_MAX_BYTES && record->event_key.len <= EVBUS_KEY_MAX_BYTES);
	MUST(record->tenant_id.len <= EVBUS_TENANT_MAX_BYTES && record->origin.len <= ORIGIN_MAX_BYTES);
	if (!record->payload.len || record->payload.data[0] != '{')
		return;
	MUST(line_add(&line, &body, 3, 1769688000000000, &split, &err) == EVBUS_OK);
	MUST(record_read((struct evbus_slice){ line.data, line.len - 1 }, &again, &err) == EVBUS_OK);
	MUST(same(again.payload, record->payload) && same(again.key, record->key) &&
	     same(again.origin, record->origin));
	MUST(same(again.tenant_id, record->tenant_id) && same(again.event_key, record->event_key));
	MUST(!again.key.data == !record->key.data && again.returns == record->returns && !again.topic[0]);
}

static void try_record(struct evbus_slice text)
{
	static struct record record;
	struct evbus_envelope envelope;
	struct evbus_err err, why;
	enum evbus_code code = record_read(text, &record, &err);

	if (code) {
		check_err(&err, EVBUS_DATA);
		MUST(err.column <= text.len + 1);
	} else {
		MUST(within(record.payload, text));
	}
	/* Blanks around it are no part of it. A text that is no JSON is refused; so may be one with a member twice. */
	while (text.len && strchr(" \t\r\n", text.data[0]))
		text = (struct evbus_slice){ text.data + 1, text.len - 1 };
	while (text.len && strchr(" \t\r\n", text.data[text.len - 1]))
		text.len--;
	if (evbus_envelope_read(text, &envelope, &why) && why.column)
		MUST(code != EVBUS_OK);
	else if (!code)
		check_record(&record);
}

/* ---- checkpoints ---- */

static void print_checkpoint(const struct evbus_checkpoint *checkpoint, FILE *file)
{
	fprintf(file, "%s\t%s\t%d\t%s\t%s\t\t\t%s\t%s\t%s\n", checkpoint->group, checkpoint->topic,
		checkpoint->partition_id, checkpoint->next_offset, checkpoint->offset_kind, checkpoint->log_id,
		checkpoint->fingerprint, checkpoint->updated_at_utc);
}

/* Whether it can stand in TSV; what it is that is stored is for the store to say. */
static bool is_plain(const struct evbus_checkpoint *checkpoint)
{
	const char *texts[] = { checkpoint->offset_kind, checkpoint->log_id, checkpoint->fingerprint };

	for (size_t i = 0; i < COUNT(texts); i++)
		if (strpbrk(texts[i], "\t\n") || !strcmp(texts[i], "\\N"))
			return false;
	return true;
}

/* In memory, and with a name. */
static enum evbus_code read_checkpoints(const char *text, size_t len, struct evbus_checkpoint **checkpoints,
					size_t *count)
{
	static struct call call;
	static int fd = -1;
	char path[64];

	fd = fd < 0 ? memfd_create("checkpoints", MFD_CLOEXEC) : fd;
	MUST(fd >= 0 && !ftruncate(fd, 0) && pwrite(fd, text, len, 0) == (ssize_t)len);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	enum evbus_code code = checkpoints_read(&call, path, checkpoints, count);
	if (code)
		check_err(&call.err, EVBUS_DATA);
	return code;
}

/* What was read, written down, and read again is the same. */
static void try_checkpoints(const struct block *text)
{
	struct evbus_checkpoint *read = NULL, *again = NULL;
	size_t count = 0, count_too = 0, len = 0;
	struct evbus_err err;
	char *printed = NULL;
	bool plain = true;

	if (read_checkpoints(text->data, text->len, &read, &count) || !count) {
		free(read);
		return;
	}
	FILE *file = open_memstream(&printed, &len);
	MUST(file != NULL);
	for (size_t i = 0; i < count; i++) {
		MUST(evbus_topic_check(read[i].topic, false, &err) == EVBUS_OK);
		MUST(read[i].partition_id >= 0 && read[i].partition_id < EVBUS_PARTITIONS_MAX);
		plain = plain && is_plain(&read[i]);
		print_checkpoint(&read[i], file);
	}
	MUST(!fclose(file));
	if (plain) {
		MUST(read_checkpoints(printed, len, &again, &count_too) == EVBUS_OK && count == count_too);
		MUST(!memcmp(again, read, count * sizeof *read));
	}
	free(printed);
	free(again);
	free(read);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, data + size };
	bool checkpoints = size && data[0] == 1;

	input.at += checkpoints;
	CLEANUP(block_cleanup) struct block text = input_rest(&input, SIZE_MAX);
	/* Where there is none at all, a warning says so, each time. */
	if (checkpoints && text.len && text.data[0] != '\n')
		try_checkpoints(&text);
	else
		try_record(slice_of(&text));
	return 0;
}
