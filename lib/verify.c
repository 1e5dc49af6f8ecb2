/* verify.c: proving the logs of topics, and what refers to them. */
#include "verify.h"

#include "delivery/checkpoint.h"
#include "delivery/keys.h"
#include "event/subject.h"
#include "log/recover.h"

#include <errno.h>
#include <string.h>

#define IDS_AT_ONCE (3u << 18)           /* 24 MiB */

void verify_report(struct verification *run, const struct evbus_finding *finding)
{
	if (finding->severity == EVBUS_DAMAGE)
		run->result->damages++;
	else
		run->result->notes++;
	if (!run->options->finding)
		return;
	struct evbus_finding told = *finding;
	if (!told.offset_text[0])
		told.offset_text[decimal_format(told.offset, told.offset_text)] = '\0';
	run->options->finding(run->options->context, &told);
}

void verify_on_finding(struct log_verify *log, enum evbus_severity severity, const char *what, uint64_t offset,
		       uint64_t byte, const char *text)
{
	struct verification *run = (struct verification *)(void *)log;
	struct evbus_finding finding = { run->topic.name, log->partition, offset, byte, severity, what, "", "" };

	if (run->ids_only)
		return;
	snprintf(finding.text, sizeof finding.text, "%s", text);
	if (run->reader && partition_offset_text(run->reader, offset, finding.offset_text, NULL) != EVBUS_OK)
		finding.offset_text[0] = '\0';
	if (severity == EVBUS_DAMAGE && !run->cut_found && run->options->cut_at && offset == run->cut_offset) {
		run->cut_found = true;
		run->cut_byte = byte;
	}
	if (severity == EVBUS_DAMAGE && log->in_last && !run->last_damaged) {
		run->last_damaged = true;
		run->last_damage = offset;
	}
	verify_report(run, &finding);
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

/* ---- one partition, one topic ---- */

enum evbus_code verify_home(struct verification *run, struct evbus_err *err)
{
	struct backend *backend = run->bus->backend;

	return run->home ? EVBUS_OK : backend->ops->topic_open(backend, run->topic.name, &run->home, err);
}

static enum evbus_code check_partition(struct verification *run, int32_t partition, struct evbus_err *err)
{
	run->log = (struct log_verify){
		.topic = &run->topic,
		.partition = partition,
		.finding = verify_on_finding,
		.record = run->options->deep ? verify_on_record : NULL,
		.progress = on_progress,
	};
	run->occurred_at_us = INT64_MIN;
	run->last_damaged = false;
	TRY(run->bus->root ? log_verify(&run->log, err) : verify_read(run, err));
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
	const struct waiter waiter = { run->options->go_on, run->options->context };
	struct log_writer writer;

	TRY(writer_open(&run->topic, partition, &waiter, &writer, err));
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
	struct evbus_finding finding = { run->topic.name, partition, 0, 0, EVBUS_DAMAGE, what, "", "" };

	if (run->ids_only)
		return;
	snprintf(finding.text, sizeof finding.text, "%.255s", why->text);
	run->result->partitions++;
	verify_report(run, &finding);
}

/* A file that cannot be read is what the report is about, and others are still to be looked at. That there is no memory
 * or no descriptor left is not about the file. */
static bool is_of_the_log(enum evbus_code code, const struct evbus_err *why)
{
	return code == EVBUS_CONFLICT || code == EVBUS_NONE ||
	       (code == EVBUS_IO && (why->sys_errno == 0 || why->sys_errno == EIO));
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
		if (is_of_the_log(checked, &failed)) {
			tell_unreadable(run, partition, "segment", &failed);
		} else if (checked != EVBUS_OK) {
			*err = failed;
			return checked;
		}
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
		if (run->bus->root)
			TRY(topic_check_partition(&run->topic, run->options->partition_id, err));
		else if (!topic_has_partition(run->home, run->options->partition_id))
			return topic_no_partition(run->home, run->options->partition_id, err);
		return visit_partition(run, run->options->partition_id, err);
	}
	if (run->options->cut_at && run->topic.partitions > 1)
		return err_set(err, EVBUS_USAGE, 0, "topic '%s' has %u partitions: say with --partition which one to cut",
			       run->topic.name, run->topic.partitions);
	for (uint32_t i = 0; i < run->topic.partitions; i++)
		TRY(visit_partition(run, run->bus->root ? (int32_t)i : topic_partition(run->home, i).number, err));
	return EVBUS_OK;
}

static enum evbus_code check_checkpoint(struct verification *run, const struct evbus_checkpoint *checkpoint,
					struct evbus_err *err)
{
	CLEANUP(partition_close) struct partition_reader *reader = NULL;
	struct evbus_err why;
	uint64_t next = 0;

	struct evbus_finding finding = { run->topic.name, checkpoint->partition_id, 0, 0, EVBUS_DAMAGE, "checkpoint",
					 "", "" };
	enum evbus_code code = verify_home(run, &why);
	if (code == EVBUS_OK)
		code = partition_open(run->home, checkpoint->partition_id, 16384, false, &reader, &why);
	if (code == EVBUS_OK)
		code = checkpoint_check(reader, checkpoint, &next, &why);
	if (code == EVBUS_OK)
		return EVBUS_OK;
	if (code != EVBUS_CONFLICT && code != EVBUS_NONE && code != EVBUS_IO) {
		*err = why;
		return code;
	}
	finding.offset = strtoull(checkpoint->next_offset, NULL, 10);
	snprintf(finding.offset_text, sizeof finding.offset_text, "%s", checkpoint->next_offset);
	snprintf(finding.text, sizeof finding.text, "%.255s", why.text);
	verify_report(run, &finding);
	return EVBUS_OK;
}

static enum evbus_code check_checkpoints(struct verification *run, struct evbus_err *err)
{
	CLEANUP(free_cleanup) struct evbus_checkpoint *list = NULL;
	size_t count;

	if (!bus_has_store(run->bus))
		return EVBUS_OK;
	TRY(evbus_checkpoint_list(run->bus, NULL, run->topic.name, &list, &count, err));
	for (size_t i = 0; i < count; i++)
		if (run->options->partition_id < 0 || list[i].partition_id == run->options->partition_id)
			TRY(check_checkpoint(run, &list[i], err));
	return EVBUS_OK;
}

/* The index is derived from the log, so it is made anew only from one that is whole. */
static enum evbus_code rebuild_keys(struct verification *run, bool whole, struct evbus_err *err)
{
	struct evbus_finding finding = { run->topic.name, 0, 0, 0, EVBUS_NOTE, "keys", "", "" };
	const struct waiter waiter = { run->options->go_on, run->options->context };
	uint64_t count;
	bool fitted;

	if (!whole) {
		snprintf(finding.text, sizeof finding.text,
			 "the index of event keys was left as it is: the log is damaged");
		verify_report(run, &finding);
		return EVBUS_OK;
	}
	TRY(bus_store(run->bus, err));
	TRY(verify_home(run, err));
	TRY(keys_rebuild(run->home, run->bus->store, &waiter, &count, &fitted, err));
	snprintf(finding.text, sizeof finding.text, "the index of event keys was made anew: %llu key%s%s",
		 (unsigned long long)count, count == 1 ? "" : "s", fitted ? "" : "; the one before was of another log");
	verify_report(run, &finding);
	return EVBUS_OK;
}

static void close_topic(struct verification *run)
{
	verify_look_away(run);
	id_set_release(&run->ids);
	backend_topic_close(&run->home);
	run->home = NULL;
	topic_close(&run->topic);
}

/* How much there is to be read of a topic, for progress. What cannot be told now is told when it is read. */
static uint64_t bytes_of(const struct verification *run, const char *topic)
{
	struct evbus_partition_info info = { .next_partition_id = run->options->partition_id };
	uint64_t bytes = 0;

	do {
		if (evbus_topic_describe(run->bus, topic, info.next_partition_id, &info, NULL) != EVBUS_OK)
			break;
		bytes += info.bytes;
	} while (run->options->partition_id < 0 && info.next_partition_id >= 0);
	return bytes;
}

static enum evbus_code open_topic(struct verification *run, const char *name, struct evbus_err *err)
{
	if (run->bus->root)
		return topic_open(run->bus->root, name, &run->topic, err);
	snprintf(run->topic.name, sizeof run->topic.name, "%s", name);
	TRY(verify_home(run, err));
	run->topic.partitions = run->home->partitions;
	return EVBUS_OK;
}

/* Everything in it, and then the ids that there was no room for, pass by pass. */
static enum evbus_code check_topic(struct verification *run, struct evbus_err *err)
{
	bool again = false;

	if (run->options->deep)
		TRY(id_set_init(&run->ids, IDS_AT_ONCE, err));
	run->ids.twice = verify_on_twice;
	TRY(visit_partitions(run, err));
	if (run->options->deep)
		TRY(id_set_finish(&run->ids, &again, err));
	for (run->ids_only = true; again;) {
		run->progress.bytes_total += bytes_of(run, run->topic.name);
		TRY(visit_partitions(run, err));
		TRY(id_set_finish(&run->ids, &again, err));
	}
	run->result->topics++;
	return EVBUS_OK;
}

static bool has_partition(const struct verification *run, int32_t number)
{
	return run->bus->root ? (uint32_t)number < run->topic.partitions : topic_has_partition(run->home, number);
}

static enum evbus_code visit_topic(struct verification *run, const char *name, struct evbus_err *err)
{
	uint64_t damages = run->result->damages;
	struct evbus_err why;

	close_topic(run);
	enum evbus_code code = open_topic(run, name, &why);
	run->ids_only = false;
	if (code != EVBUS_NONE && is_of_the_log(code, &why)) {
		snprintf(run->topic.name, sizeof run->topic.name, "%s", name);
		run->result->topics++;
		tell_unreadable(run, 0, "topic", &why);
		return EVBUS_OK;
	}
	if (code != EVBUS_OK) {
		*err = why;
		return code;
	}
	/* Of a pattern those topics are meant that have the partition. */
	if (run->is_pattern && run->options->partition_id >= 0 && !has_partition(run, run->options->partition_id))
		return EVBUS_OK;
	TRY(check_topic(run, err));
	if (run->options->rebuild_keys)
		TRY(rebuild_keys(run, run->result->damages == damages, err));
	return check_checkpoints(run, err);
}

/* A group's checkpoint on a topic that is gone. */
static enum evbus_code check_topics_gone(struct verification *run, const char *pattern, char *const *names,
					 struct evbus_err *err)
{
	CLEANUP(free_cleanup) struct evbus_checkpoint *list = NULL;
	size_t count;

	if (!bus_has_store(run->bus))
		return EVBUS_OK;
	TRY(evbus_checkpoint_list(run->bus, NULL, pattern, &list, &count, err));
	for (size_t i = 0; i < count; i++) {
		struct evbus_finding finding = { list[i].topic, list[i].partition_id, 0, 0,
						 EVBUS_DAMAGE, "checkpoint", "", "" };
		size_t n = 0;
		while (names[n] && strcmp(names[n], list[i].topic) != 0)
			n++;
		if (names[n])
			continue;
		finding.offset = strtoull(list[i].next_offset, NULL, 10);
		snprintf(finding.offset_text, sizeof finding.offset_text, "%s", list[i].next_offset);
		snprintf(finding.text, sizeof finding.text,
			 "group '%.100s' has a checkpoint here, and the topic is gone", list[i].group);
		verify_report(run, &finding);
	}
	return EVBUS_OK;
}

static enum evbus_code check_options(struct verification *run, char *const *names, const char *pattern,
				     struct evbus_err *err)
{
	const struct evbus_verify_options *options = run->options;

	if (options->rebuild_keys && options->partition_id >= 0)
		return err_set(err, EVBUS_USAGE, 0,
			       "--rebuild-keys is for whole topics, as a key is looked for in all partitions: leave "
			       "--partition out");
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

/* What is a matter of files is not there elsewhere, and that is told, once. */
static enum evbus_code check_kind(const struct verification *run, struct evbus_err *err)
{
	const struct evbus *bus = run->bus;

	if (bus->root)
		return EVBUS_OK;
	if (run->options->repair)
		return bus_need_files(bus, "logs that could be repaired", err);
	bus_notice(bus,
		   "the backend '%s' keeps no files: checksums, segments and what was synced are its own matter, and "
		   "were not looked at",
		   bus->backend->ops->scheme);
	return EVBUS_OK;
}

static enum evbus_code nothing_there(const struct evbus *bus, const char *pattern, struct evbus_err *err)
{
	const char *where = bus->root ? bus->root->path : bus->backend->ops->scheme;

	return pattern ? err_set(err, EVBUS_NONE, 0, "no topic in '%s' matches '%s'", where, pattern) :
			 err_set(err, EVBUS_NONE, 0, "there are no topics in '%s'", where);
}

static enum evbus_code visit_topics(struct verification *run, char *const *names, struct evbus_err *err)
{
	for (size_t i = 0; names && names[i]; i++)
		TRY(visit_topic(run, names[i], err));
	return EVBUS_OK;
}

static enum evbus_code verify(struct verification *run, const char *pattern, char *const *names, struct evbus_err *err)
{
	CLEANUP(free_cleanup) char **unusable = NULL;
	const struct evbus *bus = run->bus;

	TRY(check_kind(run, err));
	if (bus->root)
		TRY(topic_unusable(bus->root, pattern, &unusable, err));
	if (!names[0] && (!unusable || !unusable[0]))
		return nothing_there(bus, pattern, err);
	TRY(check_options(run, names, pattern, err));
	run->is_pattern = !pattern || subject_is_pattern(pattern);
	TRY(visit_topics(run, names, err));
	TRY(visit_topics(run, unusable, err));
	if (run->is_pattern)
		TRY(check_topics_gone(run, pattern, names, err));
	if (run->result->partitions == 0)
		return err_set(err, EVBUS_NONE, 0, "no topic that matches '%s' has a partition %d",
			       pattern ? pattern : ">", run->options->partition_id);
	return EVBUS_OK;
}

enum evbus_code evbus_verify(struct evbus *bus, const char *pattern, const struct evbus_verify_options *options,
			     struct evbus_verify_result *result, struct evbus_err *err)
{
	struct evbus_verify_result counted = { 0 };
	CLEANUP(close_topic) struct verification run = { .bus = bus, .options = options, .result = &counted,
							 .topic = { .fd = -1 } };
	CLEANUP(free_cleanup) char **names = NULL;

	TRY(bus_check(bus, err));
	TRY(evbus_topic_list(bus, pattern, &names, err));
	for (size_t i = 0; names[i] && options->progress; i++)
		run.progress.bytes_total += bytes_of(&run, names[i]);
	if (options->against)
		TRY(verify_against(bus, pattern, names, options, 2 * run.progress.bytes_total, &counted, err));
	else
		TRY(verify(&run, pattern, names, err));
	*result = counted;
	return EVBUS_OK;
}
