/* checkpoint.c: making checkpoints, and proving that they still fit. */
#include "delivery/checkpoint.h"

#include "log/line.h"

#include <string.h>

/* The checksum of the last record done, as its line has it; "" where there is none before `next` (any more), or where a
 * record is not always the same line. */
static enum evbus_code fingerprint_at(struct partition_reader *reader, uint64_t next, char fingerprint[9],
				      struct evbus_err *err)
{
	struct line line;
	bool got;

	fingerprint[0] = '\0';
	if (!reader->ops->keeps_lines || next <= reader->first)
		return EVBUS_OK;
	TRY(partition_seek(reader, next - 1, err));
	TRY(partition_next(reader, UINT64_MAX, &line, &got, err));
	if (got)
		snprintf(fingerprint, 9, "%.8s", line.text.data + LINE_CRC_AT);
	return EVBUS_OK;
}

enum evbus_code checkpoint_make(struct partition_reader *reader, const char *group, uint64_t next,
				struct evbus_checkpoint *checkpoint, struct evbus_err *err)
{
	struct evbus_checkpoint made = { .partition_id = reader->partition };

	snprintf(made.offset_kind, sizeof made.offset_kind, "%s", reader->ops->offset_kind);
	snprintf(made.group, sizeof made.group, "%s", group);
	snprintf(made.topic, sizeof made.topic, "%s", reader->topic->name);
	TRY(partition_offset_text(reader, next, made.next_offset, err));
	snprintf(made.log_id, sizeof made.log_id, "%s", reader->topic->log_id);
	evbus_time_format(os_now_us(), made.updated_at_utc);
	TRY(fingerprint_at(reader, next, made.fingerprint, err));
	*checkpoint = made;
	return EVBUS_OK;
}

/* Continues a message about a checkpoint that does not fit. */
static enum evbus_code conflict(const struct evbus_checkpoint *checkpoint, const char *found, struct evbus_err *err)
{
	return err_set(err, EVBUS_CONFLICT, 0,
		       "the checkpoint of group '%s' on topic '%s', partition %d is at offset %s, but %s; look with "
		       "checkpoint-get and verify, then set it anew with checkpoint-set",
		       checkpoint->group, checkpoint->topic, checkpoint->partition_id, checkpoint->next_offset, found);
}

enum evbus_code checkpoint_check(struct partition_reader *reader, const struct evbus_checkpoint *checkpoint,
				 uint64_t *next, struct evbus_err *err)
{
	char found[160 + EVBUS_OFFSET_MAX_BYTES], fingerprint[9], end[EVBUS_OFFSET_MAX_BYTES + 1];
	struct evbus_slice text = { checkpoint->next_offset, strlen(checkpoint->next_offset) };
	enum evbus_code code = EVBUS_DATA;
	uint64_t at;

	if (strcmp(checkpoint->offset_kind, reader->ops->offset_kind) == 0)
		code = partition_offset_find(reader, text, &at, err);
	if (code == EVBUS_DATA) {
		snprintf(found, sizeof found, "that is no position of a %s bus", reader->ops->scheme);
		return conflict(checkpoint, found, err);
	}
	TRY(code);
	if (strcmp(checkpoint->log_id, reader->topic->log_id) != 0)
		return conflict(checkpoint, "that was another log under the same name: the topic was removed and made again",
				err);
	if (at > reader->end) {
		TRY(partition_offset_text(reader, reader->end, end, err));
		snprintf(found, sizeof found, "the log ends at offset %s: it was cut or restored", end);
		return conflict(checkpoint, found, err);
	}
	TRY(fingerprint_at(reader, at, fingerprint, err));
	if (checkpoint->fingerprint[0] && fingerprint[0] && strcmp(checkpoint->fingerprint, fingerprint) != 0) {
		snprintf(found, sizeof found,
			 "the record before it has the checksum %s and had %s: the log was cut or restored, and written "
			 "again",
			 fingerprint, checkpoint->fingerprint);
		return conflict(checkpoint, found, err);
	}
	*next = at;
	return EVBUS_OK;
}
