/* verify_deep.c: what is in the payloads: event ids that stand twice, times of occurrence out of order. */
#include "verify.h"

#include "base/hash.h"
#include "event/envelope.h"

#include <stddef.h>
#include <string.h>

void verify_look_away(struct verification *run)
{
	partition_close(&run->looking);
	run->looking = NULL;
	run->ids_told[0].is_known = run->ids_told[1].is_known = false;
}

static uint64_t hash_of(const char *text, size_t len)
{
	return hash_finish(hash_add(HASH_START, text, len));
}

/* Returns the length. */
static size_t identity(const struct evbus_envelope *envelope, const struct line *line, char text[3 * ID_TEXT_MAX])
{
	struct evbus_slice parts[] = { envelope->event_id, envelope->id_source,
				       line->tenant_id.data ? line->tenant_id : envelope->tenant_id };
	size_t len = 0;

	for (size_t i = 0; i < 3; i++) {
		size_t part = parts[i].data ? evbus_json_text(parts[i], text + len, ID_TEXT_MAX - 1) : 0;
		if (part >= ID_TEXT_MAX)
			part = (size_t)snprintf(text + len, ID_TEXT_MAX, "#%016llx",
						(unsigned long long)hash_of(parts[i].data, parts[i].len));
		len += part;
		text[len++] = '\0';
	}
	return len;
}

static void check_occurred_at(struct verification *run, const struct evbus_envelope *envelope, const struct line *line,
			      uint64_t byte)
{
	char text[64];
	int64_t time_us;

	if (!envelope->occurred_at.data || run->ids_only)
		return;
	size_t len = evbus_json_text(envelope->occurred_at, text, sizeof text);
	if (len > sizeof text || !clock_parse(text, len, &time_us))
		return;
	if (time_us < run->occurred_at_us) {
		char message[128];
		snprintf(message, sizeof message, "it occurred at %.*s, before an event that stands before it", (int)len,
			 text);
		verify_on_finding(&run->log, EVBUS_NOTE, "occurred_at", line->offset, byte, message);
	} else
		run->occurred_at_us = time_us;
}

enum evbus_code verify_on_record(struct log_verify *log, const struct line *line, uint64_t byte, struct evbus_err *err)
{
	struct verification *run = (struct verification *)(void *)log;
	struct evbus_envelope envelope;
	struct evbus_err why;
	char text[3 * ID_TEXT_MAX];

	/* It is no JSON object, but a line that is whole. */
	if (!line->payload.data)
		return EVBUS_OK;
	if (evbus_envelope_read(line->payload, &envelope, &why) != EVBUS_OK) {
		struct json_fault fault;
		bool is_json = json_scan(line->payload, NULL, 0, &fault);
		verify_on_finding(log, is_json ? EVBUS_NOTE : EVBUS_DAMAGE, "payload", line->offset, byte, why.text);
		return EVBUS_OK;
	}
	check_occurred_at(run, &envelope, line, byte);
	if (!envelope.event_id.data)
		return EVBUS_OK;
	struct id_place place = { hash_of(text, identity(&envelope, line, text)), (uint32_t)log->partition,
				  line->offset, byte };
	return id_set_add(&run->ids, &place, err);
}

static enum evbus_code cut_meanwhile(struct evbus_err *err)
{
	return err_set(err, EVBUS_CONFLICT, 0, "the log was cut while it was verified");
}

/* Moves run->looking to a place; what stands twice often stands there many times, so it stays open. */
static enum evbus_code look_at(struct verification *run, const struct id_place *place, struct evbus_err *err)
{
	if (!run->looking || run->looking->partition != (int32_t)place->partition) {
		verify_look_away(run);
		TRY(verify_home(run, err));
		TRY(partition_open(run->home, (int32_t)place->partition, 16384, false, &run->looking, err));
	}
	if (place->offset >= run->looking->end)
		TRY(partition_refresh(run->looking, err));
	return place->offset < run->looking->end ? partition_seek(run->looking, place->offset, err) :
						   cut_meanwhile(err);
}

static enum evbus_code identity_at(struct verification *run, const struct id_place *place, struct id_text *id,
				   struct evbus_err *err)
{
	struct evbus_envelope envelope;
	struct line line;
	bool got;

	if (id->is_known && id->place.partition == place->partition && id->place.offset == place->offset)
		return EVBUS_OK;
	id->is_known = false;
	TRY(look_at(run, place, err));
	TRY(partition_next(run->looking, UINT64_MAX, &line, &got, err));
	if (!got)
		return cut_meanwhile(err);
	TRY(evbus_envelope_read(line.payload, &envelope, err));
	id->len = identity(&envelope, &line, id->text);
	id->place = *place;
	id->is_known = true;
	return EVBUS_OK;
}

/* Its offset as a text. */
static enum evbus_code offset_at(struct verification *run, const struct id_place *place,
				 char text[EVBUS_OFFSET_MAX_BYTES + 1], struct evbus_err *err)
{
	TRY(look_at(run, place, err));
	return partition_offset_text(run->looking, place->offset, text, err);
}

enum evbus_code verify_on_twice(struct id_set *set, const struct id_place *first, const struct id_place *again,
				struct evbus_err *err)
{
	struct verification *run = (struct verification *)(void *)((char *)set - offsetof(struct verification, ids));
	const struct id_text *one = &run->ids_told[0], *other = &run->ids_told[1];
	char there[EVBUS_OFFSET_MAX_BYTES + 1];

	TRY(identity_at(run, first, &run->ids_told[0], err));
	TRY(identity_at(run, again, &run->ids_told[1], err));
	if (one->len != other->len || memcmp(one->text, other->text, one->len) != 0)
		return EVBUS_OK;
	struct evbus_finding finding = {
		run->topic.name, (int32_t)again->partition, again->offset, again->byte, EVBUS_NOTE, "duplicate", "", ""
	};
	TRY(offset_at(run, first, there, err));
	TRY(offset_at(run, again, finding.offset_text, err));
	snprintf(finding.text, sizeof finding.text, "the event id '%.64s' stands at partition %u, offset %s already",
		 one->text, first->partition, there);
	verify_report(run, &finding);
	return EVBUS_OK;
}
