/* reader_open.c: which partitions are read, from where, to where. */
#include "reader.h"

#include "delivery/checkpoint.h"
#include "delivery/position.h"
#include "event/envelope.h"
#include "event/subject.h"

#include <errno.h>
#include <string.h>

#define CHUNK_BYTES (256u * 1024)        /* read at once from each of the first few partitions */
#define CHUNK_LESS_BYTES (16u * 1024)    /* and from each further one, so that memory stays bounded */
#define CHUNK_FEW 32u

/* ---- opening ---- */

static void close_source(struct source *source)
{
	partition_close(&source->reader);
	free(source);
}

void evbus_reader_close(struct evbus_reader *reader)
{
	if (!reader)
		return;
	for (size_t i = 0; i < reader->source_count; i++)
		close_source(reader->sources[i]);
	for (size_t i = 0; i < reader->topic_count; i++)
		backend_topic_close(&reader->topics[i]);
	free(reader->sources);
	free(reader->heap);
	free(reader->topics);
	free(reader->texts);
	free(reader->topic_name);
	free(reader);
}

static enum evbus_code no_memory(struct evbus_err *err)
{
	return err_set(err, EVBUS_IO, ENOMEM, "cannot open a reader");
}

enum evbus_code reader_grow(void *array, size_t count, size_t size, struct evbus_err *err)
{
	void **pointers = array;
	void *larger = os.realloc(*pointers, (count + 1) * size);

	if (!larger)
		return no_memory(err);
	*pointers = larger;
	return EVBUS_OK;
}

/* Where the source begins and ends. */
static enum evbus_code stored_position(struct evbus_reader *reader, struct source *source, const char *group,
				       uint64_t *offset, struct evbus_err *err)
{
	struct evbus_checkpoint checkpoint;

	if (!group)
		return err_set(err, EVBUS_USAGE, 0, "'stored' needs a group: say which with --group");
	enum evbus_code code = evbus_checkpoint_get(reader->bus, group, source->topic->name, source->reader->partition,
						    &checkpoint, err);
	if (code == EVBUS_NONE) {
		*offset = source->reader->first;
		bus_notice(reader->bus, "group '%s' has no checkpoint on topic '%s', partition %d: from the beginning",
			    group, source->topic->name, source->reader->partition);
		return EVBUS_OK;
	}
	TRY(code);
	return checkpoint_check(source->reader, &checkpoint, offset, err);
}

static enum evbus_code resolve(struct evbus_reader *reader, struct source *source, const char *text, const char *group,
			       uint64_t *offset, struct evbus_err *err)
{
	char end[EVBUS_OFFSET_MAX_BYTES + 1];
	struct position position;

	TRY(position_parse(text, &position, err));
	if (position.kind == POSITION_STORED)
		return stored_position(reader, source, group, offset, err);
	TRY(position_resolve(&position, source->reader, offset, err));
	if (*offset <= source->reader->end)
		return EVBUS_OK;
	TRY(partition_offset_text(source->reader, source->reader->end, end, err));
	bus_notice(reader->bus, "offset %s is behind the end of topic '%s', partition %d, which is %s", text,
		   source->topic->name, source->reader->partition, end);
	return EVBUS_OK;
}

/* Where what is there now and asked for ends: `last` counts back from it. */
static enum evbus_code find_stop(const struct evbus_reader *reader, struct source *source, uint64_t *stop,
				 struct evbus_err *err)
{
	*stop = source->end < source->reader->end ? source->end : source->reader->end;
	*stop = *stop > source->reader->first ? *stop : source->reader->first;
	if (reader->until_us == INT64_MAX)
		return EVBUS_OK;
	TRY(partition_seek_time(source->reader, reader->until_us, err));
	*stop = source->reader->next < *stop ? source->reader->next : *stop;
	return EVBUS_OK;
}

/* Where it begins, without `since`; *count: of `last`, how many come from there to where it stops. */
static enum evbus_code find_start(struct evbus_reader *reader, struct source *source,
				  const struct evbus_selection *selection, uint64_t *start, uint64_t *count,
				  struct evbus_err *err)
{
	uint64_t stop;

	*start = source->reader->first;
	*count = 0;
	if (selection->last) {
		TRY(find_stop(reader, source, &stop, err));
		return position_before(source->reader, stop, selection->last, start, count, err);
	}
	if (!selection->from && !selection->group)
		return EVBUS_OK;
	return resolve(reader, source, selection->from ? selection->from : "stored", selection->group, start, err);
}

/* `since` leaves out what comes before it, also of `last`. */
static enum evbus_code find_since(struct evbus_reader *reader, struct source *source, bool last, uint64_t *start,
				  uint64_t *count, struct evbus_err *err)
{
	uint64_t stop, since;

	if (reader->since_us == INT64_MIN)
		return EVBUS_OK;
	TRY(partition_seek_time(source->reader, reader->since_us, err));
	since = source->reader->next;
	if (since <= *start)
		return EVBUS_OK;
	*start = since;
	if (!last)
		return EVBUS_OK;
	TRY(find_stop(reader, source, &stop, err));
	return position_count(source->reader, since, stop, count, err);
}

static enum evbus_code set_range(struct evbus_reader *reader, struct source *source,
				 const struct evbus_selection *selection, struct evbus_err *err)
{
	struct partition_reader *from = source->reader;
	uint64_t start, count, next = from->end;

	source->end = selection->follow ? UINT64_MAX : next;
	if (selection->to) {
		uint64_t to;
		TRY(resolve(reader, source, selection->to, selection->group, &to, err));
		source->end = to < source->end ? to : source->end;
	}
	TRY(find_start(reader, source, selection, &start, &count, err));
	TRY(find_since(reader, source, selection->last, &start, &count, err));
	source->skip_below = start;
	reader->skip += count;
	return partition_seek(from, start < next ? start : next, err);
}

static enum evbus_code add_source(struct evbus_reader *reader, struct backend_topic *topic,
				  struct backend_partition place, const struct evbus_selection *selection,
				  struct evbus_err *err)
{
	uint64_t left;

	TRY(reader_grow(&reader->sources, reader->source_count, sizeof *reader->sources, err));
	TRY(reader_grow(&reader->heap, reader->source_count, sizeof *reader->heap, err));
	CLEANUP(free_cleanup) struct source *source = os.realloc(NULL, sizeof *source);
	if (!source)
		return no_memory(err);
	*source = (struct source){ .topic = topic, .end = UINT64_MAX, .place = place };
	source->name = (struct evbus_slice){ topic->name, strlen(topic->name) };
	size_t chunk = reader->source_count < CHUNK_FEW ? CHUNK_BYTES : CHUNK_LESS_BYTES;
	/* One of them reads ahead, so that a reader has one thread at most. */
	TRY(partition_open(topic, place.number, chunk, reader->source_count == 0, &source->reader, err));
	enum evbus_code code = selection ? set_range(reader, source, selection, err) : EVBUS_OK;
	if (code == EVBUS_OK)
		code = partition_bytes_left(source->reader, &left, err);
	if (code != EVBUS_OK) {
		partition_close(&source->reader);
		return code;
	}
	reader->progress.bytes_total += left;
	/* Whether there is a parent to wait for is looked at when all are open. */
	source->waits = reader->partition_id < 0 && (place.parents[0] >= 0 || place.parents[1] >= 0);
	reader->waiting += source->waits;
	reader->sources[reader->source_count++] = source;
	source = NULL;
	return EVBUS_OK;
}

/* A number names a place in one partition only. */
static enum evbus_code check_numbers(const struct evbus_reader *reader, const struct evbus_selection *selection,
				     struct evbus_err *err)
{
	const char *texts[] = { selection->from, selection->to };

	for (size_t i = 0; i < 2; i++) {
		struct position position;
		if (!texts[i])
			continue;
		TRY(position_parse(texts[i], &position, err));
		if (position.kind == POSITION_OFFSET && reader->partition_id < 0 &&
		    (reader->is_pattern || (reader->topic_count && reader->topics[0]->partitions > 1)))
			return err_set(err, EVBUS_USAGE, 0,
				       "'%s' is an offset in one partition, and several are read: choose one with "
				       "--partition, or use beginning, end, -N, @TIME or stored",
				       texts[i]);
	}
	return EVBUS_OK;
}

/* at: where to look first, for they stand in the order of the topic. */
static bool has_source(const struct evbus_reader *reader, const struct backend_topic *topic, int32_t partition,
		       size_t *at)
{
	for (size_t n = 0; n < reader->source_count; n++) {
		size_t i = (*at + n) % reader->source_count;
		if (reader->sources[i]->topic != topic || reader->sources[i]->place.number != partition)
			continue;
		*at = i + 1;
		return true;
	}
	return false;
}

enum evbus_code reader_look_for_partitions(struct evbus_reader *reader, struct backend_topic *topic,
					   const struct evbus_selection *selection, struct evbus_err *err)
{
	size_t had = reader->source_count, at = 0;

	for (uint32_t i = 0; i < topic->partitions; i++) {
		struct backend_partition place = topic_partition(topic, i);
		if ((reader->partition_id >= 0 && place.number != reader->partition_id) ||
		    has_source(reader, topic, place.number, &at))
			continue;
		struct evbus_err why;
		enum evbus_code code = add_source(reader, topic, place, selection, &why);
		/* One that appeared may not be ready. */
		if (code == EVBUS_NONE && !selection)
			continue;
		if (code && err)
			*err = why;
		TRY(code);
	}
	for (size_t i = had; i < reader->source_count; i++)
		if (!reader->sources[i]->waits)
			TRY(reader_advance(reader, reader->sources[i], err));
	return reader_begin_children(reader, err);
}

static enum evbus_code add_topic(struct evbus_reader *reader, const char *name,
				 const struct evbus_selection *selection, struct evbus_err *err)
{
	TRY(reader_grow(&reader->topics, reader->topic_count, sizeof *reader->topics, err));
	struct backend *backend = reader->bus->backend;
	TRY(backend->ops->topic_open(backend, name, &reader->topics[reader->topic_count], err));
	struct backend_topic *kept = reader->topics[reader->topic_count++];
	if (selection)
		TRY(check_numbers(reader, selection, err));
	/* Of a pattern those topics are meant that have it. */
	if (reader->partition_id >= 0 && !reader->is_pattern && !topic_has_partition(kept, reader->partition_id))
		return topic_no_partition(kept, reader->partition_id, err);
	return reader_look_for_partitions(reader, kept, selection, err);
}

static bool has_topic(const struct evbus_reader *reader, const char *name)
{
	for (size_t i = 0; i < reader->topic_count; i++)
		if (strcmp(reader->topics[i]->name, name) == 0)
			return true;
	return false;
}

enum evbus_code reader_look_for_topics(struct evbus_reader *reader, const struct evbus_selection *selection,
				       struct evbus_err *err)
{
	CLEANUP(free_cleanup) char **names = NULL;
	char *only[] = { reader->topic_name, NULL };
	char **list = only;
	size_t count = 0;

	TRY(bus_reach(reader->bus, false, err));
	if (reader->is_pattern) {
		TRY(evbus_topic_list(reader->bus, reader->topic_name, &names, err));
		list = names;
	}
	while (list[count])
		count++;
	for (size_t i = 0; i < count; i++) {
		if (has_topic(reader, list[i]))
			continue;
		TRY(add_topic(reader, list[i], selection, err));
	}
	return EVBUS_OK;
}

static size_t text_size(const char *text)
{
	return text ? strlen(text) + 1 : 0;
}

static const char *keep_text(char **to, const char *text)
{
	if (!text)
		return NULL;
	size_t size = strlen(text) + 1;
	char *kept = memcpy(*to, text, size);
	*to += size;
	return kept;
}

enum evbus_code reader_copy_filter(const struct evbus_filter *filter, struct evbus_filter *copy, char **texts,
				   struct evbus_err *err)
{
	size_t pointers = filter->where_count * sizeof(char *);
	size_t size = pointers + text_size(filter->type) + text_size(filter->tenant) +
		      text_size(filter->correlation_id) + text_size(filter->event_key) + 1;

	for (size_t i = 0; i < filter->where_count; i++)
		size += text_size(filter->where[i]);
	*texts = os.realloc(NULL, size);
	if (!*texts)
		return no_memory(err);
	const char **where = (const char **)(void *)*texts;
	char *to = *texts + pointers;
	*copy = (struct evbus_filter){
		.type = keep_text(&to, filter->type),
		.tenant = keep_text(&to, filter->tenant),
		.correlation_id = keep_text(&to, filter->correlation_id),
		.event_key = keep_text(&to, filter->event_key),
		.where = where,
		.where_count = filter->where_count,
	};
	for (size_t i = 0; i < filter->where_count; i++)
		where[i] = keep_text(&to, filter->where[i]);
	return filter_check(copy, err);
}

static enum evbus_code take_selection(struct evbus_reader *reader, const struct evbus_selection *selection,
				      struct evbus_err *err)
{
	int64_t now = os_now_us();

	reader->is_pattern = subject_is_pattern(selection->topic);
	TRY(evbus_topic_check(selection->topic, reader->is_pattern, err));
	if (selection->group)
		TRY(subject_check_name("group", selection->group, err));
	size_t size = strlen(selection->topic) + 1;
	reader->topic_name = os.realloc(NULL, size);
	if (!reader->topic_name)
		return no_memory(err);
	memcpy(reader->topic_name, selection->topic, size);
	reader->partition_id = selection->partition_id;
	reader->follow = selection->follow;
	reader->bounded = selection->to != NULL;
	reader->go_on = selection->go_on;
	reader->go_on_context = selection->go_on_context;
	if (selection->since)
		TRY(evbus_time_parse(selection->since, now, &reader->since_us, err));
	if (selection->until)
		TRY(evbus_time_parse(selection->until, now, &reader->until_us, err));
	TRY(check_numbers(reader, selection, err));
	TRY(reader_copy_filter(&selection->filter, &reader->filter, &reader->texts, err));
	reader->filtered = !filter_is_empty(&reader->filter);
	return EVBUS_OK;
}

static void close_reader(struct evbus_reader **reader)
{
	evbus_reader_close(*reader);
}

void reader_tell_waiting(struct evbus_reader *reader)
{
	if (!reader->waiting_told && reader->source_count == 0)
		bus_notice(reader->bus, "waiting for topic '%s'", reader->topic_name);
	reader->waiting_told = true;
}

enum evbus_code evbus_reader_open(struct evbus *bus, const struct evbus_selection *selection,
				  struct evbus_reader **reader, struct evbus_err *err)
{
	CLEANUP(close_reader) struct evbus_reader *opened = NULL;

	TRY(bus_check(bus, err));
	opened = os.realloc(NULL, sizeof *opened);
	if (!opened)
		return no_memory(err);
	*opened = (struct evbus_reader){ .bus = bus, .since_us = INT64_MIN, .until_us = INT64_MAX };
	TRY(take_selection(opened, selection, err));
	enum evbus_code code = reader_look_for_topics(opened, selection, err);
	if (code == EVBUS_NONE && selection->follow && opened->topic_count == 0)
		reader_tell_waiting(opened);
	else
		TRY(code);
	/* So far skip is how many there are. */
	opened->skip = opened->skip > selection->last ? opened->skip - selection->last : 0;
	if (selection->follow)
		opened->progress.bytes_total = 0;
	GIVE(reader, opened);
	return EVBUS_OK;
}
