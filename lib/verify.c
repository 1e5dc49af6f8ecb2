/* verify.c: proving the logs of topics, and what refers to them. */
#include "id_set.h"

#include "bus.h"
#include "delivery/checkpoint.h"
#include "event/envelope.h"
#include "event/subject.h"
#include "log/recover.h"
#include "log/verify.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#define IDS_AT_ONCE (3u << 18)           /* 24 MiB */
#define ID_TEXT_MAX 1024u                /* of an id, its source and its tenant, each; longer ones count by their hash */

/* The identity of an event: id, source and tenant, each with a NUL. */
struct id_text {
	bool is_known;
	struct id_place place;
	size_t len;
	char text[3 * ID_TEXT_MAX];
};

struct verification {
	struct log_verify log;           /* first: its callbacks get us back from it */
	struct evbus *bus;
	const struct evbus_verify_options *options;
	struct evbus_verify_result *result;
	bool is_pattern;
	struct topic topic;
	struct id_set ids;
	struct cursor looking;           /* at the ids that stand twice; topic NULL while it is closed */
	struct id_text ids_told[2];      /* the first and the one that is the same */
	bool ids_only;                   /* a further pass: everything else was told before */
	int64_t occurred_at_us;
	bool cut_found;                  /* the damage that --cut-at names */
	uint64_t cut_offset, cut_byte;
	bool last_damaged;               /* the newest segment of the partition: where first */
	uint64_t last_damage;
	struct evbus_progress progress;
};

static void report(struct verification *run, const struct evbus_finding *finding)
{
	if (finding->severity == EVBUS_DAMAGE)
		run->result->damages++;
	else
		run->result->notes++;
	if (run->options->finding)
		run->options->finding(run->options->context, finding);
}

static void on_finding(struct log_verify *log, enum evbus_severity severity, const char *what, uint64_t offset,
		       uint64_t byte, const char *text)
{
	struct verification *run = (struct verification *)(void *)log;
	struct evbus_finding finding = { run->topic.name, log->partition, offset, byte, severity, what, "" };

	if (run->ids_only)
		return;
	snprintf(finding.text, sizeof finding.text, "%s", text);
	if (severity == EVBUS_DAMAGE && !run->cut_found && run->options->cut_at && offset == run->cut_offset) {
		run->cut_found = true;
		run->cut_byte = byte;
	}
	if (severity == EVBUS_DAMAGE && log->in_last && !run->last_damaged) {
		run->last_damaged = true;
		run->last_damage = offset;
	}
	report(run, &finding);
}

static enum evbus_code on_progress(struct log_verify *log, struct evbus_err *err)
{
	struct verification *run = (struct verification *)(void *)log;
	const struct evbus_verify_options *options = run->options;

	struct evbus_progress now = run->progress;
	now.bytes += log->bytes;
	now.records += log->records;
	if (options->progress)
		options->progress(options->context, &now);
	if (options->go_on && !options->go_on(options->context))
		return err_set(err, EVBUS_AGAIN, EINTR, "stopped");
	return EVBUS_OK;
}

/* ---- deep: what is in the payloads ---- */

static void close_looking(struct verification *run)
{
	if (run->looking.topic)
		cursor_close(&run->looking);
	run->looking = (struct cursor){ .fd = -1, .control = { .fd = -1 } };
	run->ids_told[0].is_known = run->ids_told[1].is_known = false;
}

/* FNV-1a, 64 bits, finished as splitmix64 does, so that every bit counts for the passes. */
static uint64_t hash_of(const char *text, size_t len)
{
	uint64_t hash = 0xcbf29ce484222325;

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3;
	hash = (hash ^ hash >> 30) * 0xbf58476d1ce4e5b9;
	hash = (hash ^ hash >> 27) * 0x94d049bb133111eb;
	return hash ^ hash >> 31;
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
		on_finding(&run->log, EVBUS_NOTE, "occurred_at", line->offset, byte, message);
	} else
		run->occurred_at_us = time_us;
}

static enum evbus_code on_record(struct log_verify *log, const struct line *line, uint64_t byte, struct evbus_err *err)
{
	struct verification *run = (struct verification *)(void *)log;
	struct evbus_envelope envelope;
	struct evbus_err why;
	char text[3 * ID_TEXT_MAX];

	if (evbus_envelope_read(line->payload, &envelope, &why) != EVBUS_OK) {
		struct json_fault fault;
		bool is_json = json_scan(line->payload, NULL, 0, &fault);
		on_finding(log, is_json ? EVBUS_NOTE : EVBUS_DAMAGE, "payload", line->offset, byte, why.text);
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
	struct cursor *cursor = &run->looking;

	if (!cursor->topic || cursor->partition != (int32_t)place->partition) {
		close_looking(run);
		TRY(cursor_open(&run->topic, (int32_t)place->partition, 16384, cursor, err));
	}
	if (place->offset >= cursor->durable.next)
		TRY(cursor_refresh(cursor, err));
	return place->offset < cursor->durable.next ? cursor_seek(cursor, place->offset, err) : cut_meanwhile(err);
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
	TRY(cursor_next(&run->looking, UINT64_MAX, &line, &got, err));
	if (!got)
		return cut_meanwhile(err);
	TRY(evbus_envelope_read(line.payload, &envelope, err));
	id->len = identity(&envelope, &line, id->text);
	id->place = *place;
	id->is_known = true;
	return EVBUS_OK;
}

static enum evbus_code on_twice(struct id_set *set, const struct id_place *first, const struct id_place *again,
				struct evbus_err *err)
{
	struct verification *run = (struct verification *)(void *)((char *)set - offsetof(struct verification, ids));
	const struct id_text *one = &run->ids_told[0], *other = &run->ids_told[1];

	TRY(identity_at(run, first, &run->ids_told[0], err));
	TRY(identity_at(run, again, &run->ids_told[1], err));
	if (one->len != other->len || memcmp(one->text, other->text, one->len) != 0)
		return EVBUS_OK;
	struct evbus_finding finding = { run->topic.name, (int32_t)again->partition, again->offset, again->byte,
					 EVBUS_NOTE, "duplicate", "" };
	snprintf(finding.text, sizeof finding.text, "the event id '%.128s' stands at partition %u, offset %llu already",
		 one->text, first->partition, (unsigned long long)first->offset);
	report(run, &finding);
	return EVBUS_OK;
}

/* ---- one partition, one topic ---- */

static enum evbus_code check_partition(struct verification *run, int32_t partition, struct evbus_err *err)
{
	run->log = (struct log_verify){
		.topic = &run->topic,
		.partition = partition,
		.finding = on_finding,
		.record = run->options->deep ? on_record : NULL,
		.progress = on_progress,
	};
	run->occurred_at_us = INT64_MIN;
	run->last_damaged = false;
	TRY(log_verify(&run->log, err));
	run->progress.bytes += run->log.bytes;
	run->progress.records += run->log.records;
	if (run->ids_only)
		return EVBUS_OK;
	run->result->partitions++;
	run->result->records += run->log.records;
	run->result->bytes += run->log.bytes;
	return EVBUS_OK;
}

/* An interrupted write is cut by whoever opens the partition for writing next: that is us. */
static enum evbus_code repair_partition(struct verification *run, int32_t partition, struct evbus_err *err)
{
	struct log_writer writer;

	TRY(writer_open(&run->topic, partition, &writer, err));
	writer_close(&writer);
	return EVBUS_OK;
}

static enum evbus_code cut_partition(struct verification *run, int32_t partition, struct evbus_err *err)
{
	if (!run->cut_found)
		return err_set(err, EVBUS_CONFLICT, 0, "topic '%s', partition %d has no damage at offset %s: nothing was cut",
			       run->topic.name, partition, run->options->cut_at);
	if (run->cut_byte < run->log.last_byte)
		return err_set(err, EVBUS_CONFLICT, 0,
			       "offset %s of topic '%s' is in an older segment: only the live one can be cut; restore the "
			       "segment from a copy",
			       run->options->cut_at, run->topic.name);
	/* What is left would be refused by every publisher. */
	if (run->last_damage != run->cut_offset)
		return err_set(err, EVBUS_CONFLICT, 0,
			       "topic '%s', partition %d is damaged before offset %s: cut at the first damage, at offset %llu",
			       run->topic.name, partition, run->options->cut_at, (unsigned long long)run->last_damage);
	return recover_cut(&run->topic, partition, run->cut_offset, run->cut_byte - run->log.last_byte, err);
}

static void tell_unreadable(struct verification *run, int32_t partition, const char *what, const struct evbus_err *why)
{
	struct evbus_finding finding = { run->topic.name, partition, 0, 0, EVBUS_DAMAGE, what, "" };

	if (run->ids_only)
		return;
	snprintf(finding.text, sizeof finding.text, "%.255s", why->text);
	run->result->partitions++;
	report(run, &finding);
}

static enum evbus_code visit_partition(struct verification *run, int32_t partition, struct evbus_err *err)
{
	uint64_t damages = run->result->damages;
	enum evbus_code code = EVBUS_OK;
	struct evbus_err why;

	if (run->options->repair && !run->options->cut_at && !run->ids_only)
		code = repair_partition(run, partition, &why);
	/* Damage stops the repair; what it is tells the report. */
	if (code == EVBUS_OK || code == EVBUS_IO || code == EVBUS_CONFLICT) {
		struct evbus_err failed;
		enum evbus_code checked = check_partition(run, partition, &failed);
		/* A file that cannot be read is what the report is about, and others are still to be looked at. */
		if (checked == EVBUS_IO || checked == EVBUS_CONFLICT || checked == EVBUS_NONE)
			tell_unreadable(run, partition, "segment", &failed);
		else if (checked != EVBUS_OK)
			return err_set(err, checked, 0, "%s", failed.text);
	}
	if (code != EVBUS_OK && run->result->damages == damages) {
		*err = why;
		return code;
	}
	if (run->options->repair && run->options->cut_at)
		return cut_partition(run, partition, err);
	return EVBUS_OK;
}

static enum evbus_code visit_partitions(struct verification *run, struct evbus_err *err)
{
	if (run->options->partition_id >= 0) {
		TRY(topic_check_partition(&run->topic, run->options->partition_id, err));
		return visit_partition(run, run->options->partition_id, err);
	}
	if (run->options->cut_at && run->topic.partitions > 1)
		return err_set(err, EVBUS_USAGE, 0, "topic '%s' has %u partitions: say with --partition which one to cut",
			       run->topic.name, run->topic.partitions);
	for (uint32_t i = 0; i < run->topic.partitions; i++)
		TRY(visit_partition(run, (int32_t)i, err));
	return EVBUS_OK;
}

static enum evbus_code check_checkpoint(struct verification *run, const struct evbus_checkpoint *checkpoint,
					struct evbus_err *err)
{
	CLEANUP(cursor_close) struct cursor cursor = { .fd = -1, .control = { .fd = -1 } };
	struct evbus_err why;
	uint64_t next = 0;

	struct evbus_finding finding = { run->topic.name, checkpoint->partition_id, 0, 0, EVBUS_DAMAGE, "checkpoint",
					 "" };
	enum evbus_code code = cursor_open(&run->topic, checkpoint->partition_id, 16384, &cursor, &why);
	if (code == EVBUS_OK)
		code = checkpoint_check(&cursor, checkpoint, &next, &why);
	if (code == EVBUS_OK)
		return EVBUS_OK;
	if (code != EVBUS_CONFLICT && code != EVBUS_NONE && code != EVBUS_IO) {
		*err = why;
		return code;
	}
	finding.offset = strtoull(checkpoint->next_offset, NULL, 10);
	snprintf(finding.text, sizeof finding.text, "%.255s", why.text);
	report(run, &finding);
	return EVBUS_OK;
}

static enum evbus_code check_checkpoints(struct verification *run, struct evbus_err *err)
{
	CLEANUP(free_cleanup) struct evbus_checkpoint *list = NULL;
	size_t count;

	TRY(evbus_checkpoint_list(run->bus, NULL, run->topic.name, &list, &count, err));
	for (size_t i = 0; i < count; i++)
		if (run->options->partition_id < 0 || list[i].partition_id == run->options->partition_id)
			TRY(check_checkpoint(run, &list[i], err));
	return EVBUS_OK;
}

static void close_run(struct verification *run)
{
	close_looking(run);
	id_set_release(&run->ids);
	topic_close(&run->topic);
}

/* How much there is to be read of a topic, for progress. What cannot be told now is told when it is read. */
static uint64_t bytes_of(const struct verification *run, const char *topic)
{
	struct evbus_partition_info info = { .partitions = 1 };
	int32_t only = run->options->partition_id;
	uint64_t bytes = 0;

	for (int32_t i = only < 0 ? 0 : only; i <= only || (only < 0 && (uint32_t)i < info.partitions); i++) {
		if (evbus_topic_describe(run->bus, topic, i, &info, NULL) != EVBUS_OK)
			break;
		bytes += info.bytes;
	}
	return bytes;
}

static enum evbus_code visit_topic(struct verification *run, const char *name, struct evbus_err *err)
{
	bool again = false;

	close_looking(run);
	topic_close(&run->topic);
	struct evbus_err why;
	enum evbus_code code = topic_open(&run->bus->root, name, &run->topic, &why);
	run->ids_only = false;
	if (code == EVBUS_IO || code == EVBUS_CONFLICT) {
		snprintf(run->topic.name, sizeof run->topic.name, "%s", name);
		run->result->topics++;
		tell_unreadable(run, 0, "topic", &why);
		return EVBUS_OK;
	}
	if (code != EVBUS_OK)
		return err_set(err, code, 0, "%s", why.text);
	/* Of a pattern those topics are meant that have the partition. */
	if (run->is_pattern && run->options->partition_id >= (int32_t)run->topic.partitions)
		return EVBUS_OK;
	id_set_release(&run->ids);
	if (run->options->deep)
		TRY(id_set_init(&run->ids, IDS_AT_ONCE, err));
	run->ids.twice = on_twice;
	TRY(visit_partitions(run, err));
	if (run->options->deep)
		TRY(id_set_finish(&run->ids, &again, err));
	for (run->ids_only = true; again;) {
		run->progress.bytes_total += bytes_of(run, name);
		TRY(visit_partitions(run, err));
		TRY(id_set_finish(&run->ids, &again, err));
	}
	run->result->topics++;
	return check_checkpoints(run, err);
}

/* A group's checkpoint on a topic that is gone. */
static enum evbus_code check_topics_gone(struct verification *run, const char *pattern, char *const *names,
					 struct evbus_err *err)
{
	CLEANUP(free_cleanup) struct evbus_checkpoint *list = NULL;
	size_t count;

	TRY(evbus_checkpoint_list(run->bus, NULL, pattern, &list, &count, err));
	for (size_t i = 0; i < count; i++) {
		struct evbus_finding finding = { list[i].topic, list[i].partition_id, 0, 0, EVBUS_DAMAGE, "checkpoint", "" };
		size_t n = 0;
		while (names[n] && strcmp(names[n], list[i].topic) != 0)
			n++;
		if (names[n])
			continue;
		finding.offset = strtoull(list[i].next_offset, NULL, 10);
		snprintf(finding.text, sizeof finding.text, "group '%.100s' has a checkpoint here, and the topic is gone",
			 list[i].group);
		report(run, &finding);
	}
	return EVBUS_OK;
}

static enum evbus_code check_options(struct verification *run, char *const *names, const char *pattern,
				     struct evbus_err *err)
{
	const struct evbus_verify_options *options = run->options;

	if (!options->cut_at)
		return EVBUS_OK;
	if (!options->repair)
		return err_set(err, EVBUS_USAGE, 0, "--cut-at says where --repair cuts: give both");
	if (!decimal_parse((struct evbus_slice){ options->cut_at, strlen(options->cut_at) }, &run->cut_offset))
		return err_set(err, EVBUS_USAGE, 0, "'%s' is not an offset: a number from 0, as verify reported it",
			       options->cut_at);
	if (names[0] && names[1])
		return err_set(err, EVBUS_USAGE, 0, "'%s' matches several topics: name the one to cut", pattern);
	return EVBUS_OK;
}

enum evbus_code evbus_verify(struct evbus *bus, const char *pattern, const struct evbus_verify_options *options,
			     struct evbus_verify_result *result, struct evbus_err *err)
{
	struct evbus_verify_result counted = { 0 };
	CLEANUP(close_run) struct verification run = { .bus = bus, .options = options, .result = &counted,
						       .topic = { .fd = -1 } };
	CLEANUP(free_cleanup) char **names = NULL, **headless = NULL;

	TRY(evbus_topic_list(bus, pattern, &names, err));
	TRY(topic_headless(&bus->root, pattern, &headless, err));
	if (!names[0] && !headless[0])
		return pattern ? err_set(err, EVBUS_NONE, 0, "no topic in '%s' matches '%s'", bus->root.path, pattern) :
				 err_set(err, EVBUS_NONE, 0, "there are no topics in '%s'", bus->root.path);
	TRY(check_options(&run, names, pattern, err));
	for (size_t i = 0; names[i] && options->progress; i++)
		run.progress.bytes_total += bytes_of(&run, names[i]);
	run.is_pattern = !pattern || subject_is_pattern(pattern);
	for (size_t i = 0; names[i]; i++)
		TRY(visit_topic(&run, names[i], err));
	for (size_t i = 0; headless[i]; i++)
		TRY(visit_topic(&run, headless[i], err));
	if (run.is_pattern)
		TRY(check_topics_gone(&run, pattern, names, err));
	if (counted.partitions == 0)
		return err_set(err, EVBUS_NONE, 0, "no topic in '%s' that matches '%s' has a partition %d", bus->root.path,
			       pattern ? pattern : ">", options->partition_id);
	*result = counted;
	return EVBUS_OK;
}
