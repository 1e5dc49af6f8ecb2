/* reader.c: the records of several partitions, merged, filtered, followed. */
#include "reader.h"

#include "event/envelope.h"

#include <errno.h>
#include <string.h>

#define LOOK_MS 500                      /* a writer may die before it wakes anybody, and topics may appear */
#define LOOK_MANY_MS 20                  /* a futex is one partition's; with several, the first is waited for so long */
#define UNTIL_GRACE_US 2000000
#define ASK_BYTES (4u * 1024 * 1024)     /* read between two questions whether to go on */
#define LOOK_NONE_MS 100                 /* where there is nothing to wait for */

/* ---- the merge: a binary heap by publish time, then topic and partition ---- */

static bool before(const struct source *a, const struct source *b)
{
	if (a->line.time_us != b->line.time_us)
		return a->line.time_us < b->line.time_us;
	int by_name = strcmp(a->topic->name, b->topic->name);
	return by_name ? by_name < 0 : a->reader->partition < b->reader->partition;
}

static void heap_push(struct evbus_reader *reader, struct source *source)
{
	size_t at = reader->heap_count++;

	for (; at && before(source, reader->heap[(at - 1) / 2]); at = (at - 1) / 2)
		reader->heap[at] = reader->heap[(at - 1) / 2];
	reader->heap[at] = source;
}

static struct source *heap_pop(struct evbus_reader *reader)
{
	struct source *first = reader->heap[0], *last = reader->heap[--reader->heap_count];
	size_t at = 0;

	for (;;) {
		size_t child = 2 * at + 1;
		if (child >= reader->heap_count)
			break;
		if (child + 1 < reader->heap_count && before(reader->heap[child + 1], reader->heap[child]))
			child++;
		if (!before(reader->heap[child], last))
			break;
		reader->heap[at] = reader->heap[child];
		at = child;
	}
	reader->heap[at] = last;
	return first;
}

static bool is_asked_for(const struct evbus_reader *reader, const struct source *source)
{
	return source->line.offset >= source->skip_below && source->line.time_us >= reader->since_us &&
	       source->line.time_us < reader->until_us;
}

enum evbus_code reader_advance(struct evbus_reader *reader, struct source *source, struct evbus_err *err)
{
	do {
		TRY(partition_next(source->reader, source->end, &source->line, &source->has_line, err));
		if (!source->has_line)
			return EVBUS_OK;
		reader->progress.records++;
		reader->progress.bytes += source->line.text.len + 1;
		/* In a log of ours times never decrease: nothing behind it is asked for. */
		if (source->line.time_us >= reader->until_us && source->reader->ops->keeps_lines) {
			source->end = source->line.offset;
			source->has_line = false;
			return EVBUS_OK;
		}
	} while (!is_asked_for(reader, source));
	heap_push(reader, source);
	return EVBUS_OK;
}

/* ---- partitions that come and go ---- */

bool reader_has_read(const struct evbus_reader *reader, const struct source *source)
{
	const struct partition_reader *from = source->reader;

	if (source->has_line || reader->given == source)
		return false;
	return from->next >= source->end || (from->closed && from->next >= from->end);
}

/* A parent that is not read here, as it is gone, or was not asked for, holds nobody up. */
static bool waits_for_parents(const struct evbus_reader *reader, const struct source *child)
{
	for (size_t i = 0; i < reader->source_count; i++) {
		const struct source *source = reader->sources[i];
		bool is_parent = source->topic == child->topic && partition_is_parent(&child->place, source->place.number);
		if (is_parent && !reader_has_read(reader, source))
			return true;
	}
	return false;
}

enum evbus_code reader_begin_children(struct evbus_reader *reader, struct evbus_err *err)
{
	/* A child may have nothing, and children. */
	for (size_t i = 0; i < reader->source_count && reader->waiting; i++) {
		struct source *source = reader->sources[i];
		if (!source->waits || waits_for_parents(reader, source))
			continue;
		source->waits = false;
		reader->waiting--;
		TRY(reader_advance(reader, source, err));
		i = (size_t)-1;
	}
	return EVBUS_OK;
}

/* ---- next ---- */

static int64_t now_ms(void)
{
	struct timespec now;

	return os.clock_gettime(CLOCK_MONOTONIC, &now) ? 0 : (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void tell_closed(struct evbus_reader *reader, const struct source *source)
{
	if (reader->partition_id < 0 || reader->closed_told || !source->reader->closed)
		return;
	reader->closed_told = true;
	bus_notice(reader->bus, "topic '%s', partition %d is closed: nothing more will come to it", source->topic->name,
		   source->reader->partition);
}

/* Looks whether anything came. */
static enum evbus_code look_for_lines(struct evbus_reader *reader, struct evbus_err *err)
{
	for (size_t i = 0; i < reader->source_count; i++) {
		struct source *source = reader->sources[i];
		if (source->has_line || source->waits || reader_has_read(reader, source) ||
		    !partition_may_look(source->reader))
			continue;
		TRY(partition_refresh(source->reader, err));
		tell_closed(reader, source);
		TRY(reader_advance(reader, source, err));
	}
	return reader_begin_children(reader, err);
}

/* And every LOOK_MS for partitions and topics that appeared. */
static enum evbus_code look_again(struct evbus_reader *reader, struct evbus_err *err)
{
	TRY(look_for_lines(reader, err));
	if (now_ms() - reader->looked_at_ms < LOOK_MS && reader->looked_at_ms)
		return EVBUS_OK;
	reader->looked_at_ms = now_ms();
	for (size_t i = 0; i < reader->topic_count; i++) {
		TRY(reader->topics[i]->ops->topic_check(reader->topics[i], "read", err));
		if (!reader->bounded)
			TRY(reader_look_for_partitions(reader, reader->topics[i], NULL, err));
	}
	if (!reader->is_pattern && reader->source_count)
		return EVBUS_OK;
	enum evbus_code code = reader_look_for_topics(reader, NULL, err);
	if (code != EVBUS_NONE || (!reader->is_pattern && reader->topic_count))
		return code;
	reader_tell_waiting(reader);
	return EVBUS_OK;
}

/* A publisher takes its time before it appends; what took longer than this is not waited for. */
static bool is_past_until(const struct evbus_reader *reader)
{
	return reader->until_us != INT64_MAX && os_now_us() - UNTIL_GRACE_US > reader->until_us;
}

bool evbus_reader_finished(const struct evbus_reader *reader)
{
	if (reader->heap_count || reader->given)
		return false;
	if (!reader->follow || is_past_until(reader))
		return true;
	for (size_t i = 0; i < reader->source_count; i++)
		if (!reader_has_read(reader, reader->sources[i]))
			return false;
	/* Where all partitions are read, children may come of those that are closed. */
	return reader->source_count > 0 && !reader->is_pattern && (reader->bounded || reader->partition_id >= 0);
}

/* One that more may come of. NULL: there is none. */
static struct source *source_to_watch(const struct evbus_reader *reader)
{
	for (size_t i = 0; i < reader->source_count; i++)
		if (!reader->sources[i]->waits && !reader_has_read(reader, reader->sources[i]))
			return reader->sources[i];
	return NULL;
}

/* false: a signal came. */
static bool wait_for_more(const struct evbus_reader *reader, int timeout_ms)
{
	const struct source *watched = source_to_watch(reader);
	int most = !watched ? LOOK_NONE_MS : reader->source_count > 1 ? LOOK_MANY_MS : LOOK_MS;
	int wait = timeout_ms < 0 || timeout_ms > most ? most : timeout_ms;
	struct timespec time = { wait / 1000, (long)(wait % 1000) * 1000000 };

	if (watched)
		return partition_wait(watched->reader, wait);
	return nanosleep(&time, NULL) == 0 || errno != EINTR;
}

/* Returns with a line in the heap, at the end of what was asked for, when the time is up, or after a signal.
 * *start_ms: 0 until it was first waited. */
static enum evbus_code follow(struct evbus_reader *reader, int timeout_ms, int64_t *start_ms, struct evbus_err *err)
{
	*start_ms = *start_ms ? *start_ms : now_ms();
	for (;;) {
		TRY(look_again(reader, err));
		if (reader->heap_count || evbus_reader_finished(reader))
			return EVBUS_OK;
		int64_t passed = now_ms() - *start_ms;
		if (timeout_ms >= 0 && passed >= timeout_ms)
			return EVBUS_OK;
		if (!wait_for_more(reader, timeout_ms < 0 ? -1 : (int)(timeout_ms - passed)))
			return EVBUS_OK;
	}
}

static enum evbus_code next_line(struct evbus_reader *reader, int timeout_ms, int64_t *start_ms,
				 struct source **source, struct evbus_err *err)
{
	if (reader->given) {
		struct source *given = reader->given;
		reader->given = NULL;
		TRY(reader_advance(reader, given, err));
		if (reader->waiting && !given->has_line)
			TRY(reader_begin_children(reader, err));
	}
	*source = NULL;
	if (reader->heap_count == 0 && reader->follow)
		TRY(follow(reader, timeout_ms, start_ms, err));
	if (reader->heap_count == 0)
		return EVBUS_OK;
	*source = reader->given = heap_pop(reader);
	(*source)->has_line = false;
	return EVBUS_OK;
}

/* Where little matches, a call may read long. No record is in hand now that a later call would not find again. */
static enum evbus_code ask_to_go_on(struct evbus_reader *reader, struct evbus_err *err)
{
	if (!reader->go_on || reader->progress.bytes - reader->asked_bytes < ASK_BYTES)
		return EVBUS_OK;
	reader->asked_bytes = reader->progress.bytes;
	return reader->go_on(reader->go_on_context) ? EVBUS_OK : err_set(err, EVBUS_AGAIN, EINTR, "stopped");
}

enum evbus_code evbus_reader_next(struct evbus_reader *reader, int timeout_ms, const struct evbus_record **record,
				  struct evbus_err *err)
{
	struct source *source;
	int64_t start_ms = 0;

	TRY(bus_check(reader->bus, err));
	for (;;) {
		TRY(ask_to_go_on(reader, err));
		TRY(next_line(reader, timeout_ms, &start_ms, &source, err));
		if (!source) {
			*record = NULL;
			return EVBUS_OK;
		}
		if (reader->skip) {
			reader->skip--;
			continue;
		}
		line_to_record(&source->line, source->name, source->reader->partition, &reader->record);
		reader->record.offset_kind = source->reader->ops->offset_kind;
		if (reader->filtered && !filter_matches(&reader->filter, &reader->record))
			continue;
		*record = &reader->record;
		return EVBUS_OK;
	}
}

struct evbus_progress evbus_reader_progress(const struct evbus_reader *reader)
{
	return reader->progress;
}
