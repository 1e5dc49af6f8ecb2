/* memory_ring.c: a partition in memory: appending to its ring, and reading it.
 *
 * A reader copies many lines at once under the lock and gives them out without it, so that nobody waits for who reads
 * slowly, and what was given out stays when the ring goes over it. */
#include "backend/memory.h"

#include "log/writer.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define LINE_LEAST_BYTES 64u                 /* a ring has places for so many lines that its bytes run out first */
#define CHUNK_MAX_BYTES (32u * 1024)         /* copied at once, and read before it leaves the nearest cache */

struct place {
	uint64_t at;
	int64_t time_us;
	uint32_t len;                    /* with the newline */
	uint32_t index;                  /* where `at` is in the ring */
};

struct memory_reader {
	struct partition_reader base;
	struct ring *ring;
	size_t chunk;
	struct buf lines, lens;          /* copied from the ring: texts, and a uint32_t for each */
	size_t given, given_bytes;       /* of those */
	struct clock_minute minute;      /* for line_parse_near() */
};

struct memory_writer {
	struct partition_writer base;
	struct ring *ring;
};

/* ---- the ring ---- */

/* The number of places is a power of two, so that none takes a division to be found. */
void ring_init(struct ring *ring, size_t size)
{
	*ring = (struct ring){ .size = size, .last_place = 1 };
	while (ring->last_place < size / LINE_LEAST_BYTES)
		ring->last_place *= 2;
	ring->last_place--;
	pthread_mutex_init(&ring->mutex, NULL);
}

static size_t places_bytes(const struct ring *ring)
{
	return (ring->last_place + 1) * sizeof(struct place);
}

void ring_release(struct ring *ring)
{
	if (ring->data)
		munmap(ring->data, ring->size);
	if (ring->places)
		munmap(ring->places, places_bytes(ring));
	pthread_mutex_destroy(&ring->mutex);
}

static struct place *place_of(const struct ring *ring, uint64_t offset)
{
	return &ring->places[offset & ring->last_place];
}

/* NULL: there is none. */
static void *take_pages(size_t size)
{
	void *pages = os.mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return pages == MAP_FAILED ? NULL : pages;
}

/* NULL: there is no such partition. */
static struct ring *find_ring(const struct backend_topic *topic, int32_t partition)
{
	struct memory_topic *memory = (struct memory_topic *)(uintptr_t)topic;

	return topic_has_partition(topic, partition) ? &memory->rings[partition] : NULL;
}

/* ---- appending ---- */

static void drop_first(struct ring *ring)
{
	ring->bytes -= place_of(ring, ring->first)->len;
	ring->first++;
}

/* Puts a line behind the last. */
static void put(struct ring *ring, const char *text, const struct group_entry *entry)
{
	uint64_t at = ring->end;
	size_t index = ring->end_index;

	assert(entry->len >= LINE_LEAST_BYTES && entry->len <= ring->size);
	if (index + entry->len > ring->size) {
		at += ring->size - index;
		index = 0;
	}
	while (ring->first < ring->next && at + entry->len - place_of(ring, ring->first)->at > ring->size)
		drop_first(ring);
	memcpy(ring->data + index, text, entry->len);
	*place_of(ring, ring->next++) = (struct place){ at, entry->time_us, entry->len, (uint32_t)index };
	ring->end = at + entry->len;
	ring->end_index = index + entry->len;
	ring->bytes += entry->len;
	ring->time_us = entry->time_us;
}

static enum evbus_code check(const struct partition_writer *writer, const struct ring *ring, const struct group *group,
			     uint64_t expect, struct evbus_err *err)
{
	if (expect != UINT64_MAX && ring->next != expect)
		return err_set(err, EVBUS_CONFLICT, 0, "the next offset of topic '%s', partition %d is %llu, not %llu",
			       writer->topic->name, writer->partition, (unsigned long long)ring->next,
			       (unsigned long long)expect);
	return group_check_deadline(group, writer->topic->name, err);
}

static void predict(struct partition_writer *writer, const struct ring *ring)
{
	writer->expected_next = ring->next;
	writer->expected_time_us = ring->time_us;
}

static enum evbus_code append(struct partition_writer *writer, struct ring *ring, struct group *group, uint64_t expect,
			      struct evbus_err *err)
{
	TRY(check(writer, ring, group, expect, err));
	TRY(group_stamp(group, ring->next, ring->time_us, err));
	for (size_t i = 0; i < group_count(group); i++) {
		const struct group_entry *entry = group_entry(group, i);
		put(ring, group->lines.data + entry->at, entry);
	}
	ring->word += ring->waiting != 0;
	return EVBUS_OK;
}

enum evbus_code memory_append(struct partition_writer *writer, struct group *group, uint64_t expect,
			      struct evbus_err *err)
{
	struct ring *ring = ((struct memory_writer *)(void *)writer)->ring;

	pthread_mutex_lock(&ring->mutex);
	enum evbus_code code = append(writer, ring, group, expect, err);
	predict(writer, ring);
	bool wake = code == EVBUS_OK && ring->waiting;
	pthread_mutex_unlock(&ring->mutex);
	if (wake)
		os.futex_wake(&ring->word);
	return code;
}

enum evbus_code memory_commit(struct partition_writer *writer, struct group *group, struct evbus_err *err)
{
	(void)writer;
	(void)group;
	(void)err;
	return EVBUS_OK;
}

enum evbus_code memory_writer_open(const struct backend_topic *topic, int32_t partition, const struct waiter *waiter,
				   struct partition_writer **writer, struct evbus_err *err)
{
	struct ring *ring = find_ring(topic, partition);

	if (!ring)
		return topic_no_partition(topic, partition, err);
	struct memory_writer *opened = os.realloc(NULL, sizeof *opened);
	pthread_mutex_lock(&ring->mutex);
	if (opened && !ring->data)
		ring->data = take_pages(ring->size);
	if (opened && !ring->places)
		ring->places = take_pages(places_bytes(ring));
	bool taken = ring->data && ring->places;
	if (opened && taken) {
		*opened = (struct memory_writer){ .base = { .ops = &backend_memory,
							    .topic = topic,
							    .partition = partition,
							    .waiter = waiter },
						  .ring = ring };
		predict(&opened->base, ring);
	}
	pthread_mutex_unlock(&ring->mutex);
	if (!opened || !taken) {
		free(opened);
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open topic '%s'", topic->name);
	}
	*writer = &opened->base;
	return EVBUS_OK;
}

void memory_writer_close(struct partition_writer *writer)
{
	free(writer);
}

/* ---- reading ---- */

static struct memory_reader *reading(struct partition_reader *reader)
{
	return (struct memory_reader *)(void *)reader;
}

static struct ring *ring_of(const struct partition_reader *reader)
{
	return ((const struct memory_reader *)(const void *)reader)->ring;
}

/* What was copied is of another place. */
static void go(struct memory_reader *memory, uint64_t position)
{
	memory->base.next = position;
	memory->lines.len = memory->lens.len = memory->given = memory->given_bytes = 0;
}

enum evbus_code memory_reader_open(const struct backend_topic *topic, int32_t partition, size_t chunk, bool ahead,
				   struct partition_reader **reader, struct evbus_err *err)
{
	struct ring *ring = find_ring(topic, partition);

	(void)ahead;
	if (!ring)
		return topic_no_partition(topic, partition, err);
	struct memory_reader *opened = os.realloc(NULL, sizeof *opened);
	if (!opened)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot read topic '%s'", topic->name);
	*opened = (struct memory_reader){
		.base = { .ops = &backend_memory, .topic = topic, .partition = partition },
		.ring = ring,
		.chunk = chunk < CHUNK_MAX_BYTES ? chunk : CHUNK_MAX_BYTES,
	};
	*reader = &opened->base;
	TRY(memory_refresh(*reader, err));
	go(opened, opened->base.first);
	return EVBUS_OK;
}

void memory_reader_close(struct partition_reader *reader)
{
	buf_release(&reading(reader)->lines);
	buf_release(&reading(reader)->lens);
	free(reader);
}

enum evbus_code memory_refresh(struct partition_reader *reader, struct evbus_err *err)
{
	struct ring *ring = ring_of(reader);

	(void)err;
	pthread_mutex_lock(&ring->mutex);
	reader->first = ring->first;
	reader->end = ring->next;
	pthread_mutex_unlock(&ring->mutex);
	return EVBUS_OK;
}

static enum evbus_code gone(const struct partition_reader *reader, uint64_t position, struct evbus_err *err)
{
	return err_set(err, EVBUS_NONE, 0,
		       "offset %llu of topic '%s', partition %d is gone: the oldest in memory is %llu, and each "
		       "partition keeps %zu bytes",
		       (unsigned long long)position, reader->topic->name, reader->partition,
		       (unsigned long long)reader->first, ring_of(reader)->size);
}

enum evbus_code memory_seek(struct partition_reader *reader, uint64_t position, struct evbus_err *err)
{
	uint64_t end = reader->end;

	/* Only the beginning may have moved: the end is where it was when it was last looked. */
	pthread_mutex_lock(&ring_of(reader)->mutex);
	reader->first = ring_of(reader)->first;
	pthread_mutex_unlock(&ring_of(reader)->mutex);
	if (position < reader->first)
		return gone(reader, position, err);
	go(reading(reader), position < end ? position : end);
	return EVBUS_OK;
}

enum evbus_code memory_seek_time(struct partition_reader *reader, int64_t time_us, struct evbus_err *err)
{
	struct ring *ring = ring_of(reader);

	pthread_mutex_lock(&ring->mutex);
	uint64_t low = ring->first, high = reader->end;
	while (low < high) {
		uint64_t middle = low + (high - low) / 2;
		if (place_of(ring, middle)->time_us < time_us)
			low = middle + 1;
		else
			high = middle;
	}
	pthread_mutex_unlock(&ring->mutex);
	return memory_seek(reader, low, err);
}

/* Copies lines from `next` on, at least one, that stand in the ring one after the other. */
static enum evbus_code copy(struct memory_reader *memory, struct evbus_err *err)
{
	struct partition_reader *reader = &memory->base;
	const struct ring *ring = memory->ring;

	reader->first = ring->first;
	if (reader->next < reader->first)
		return gone(reader, reader->next, err);
	size_t index = place_of(ring, reader->next)->index, len = 0;
	for (uint64_t offset = reader->next; offset < reader->end; offset++) {
		const struct place *place = place_of(ring, offset);
		if (len && (len + place->len > memory->chunk || place->index != index + len))
			break;
		TRY(buf_add(&memory->lens, &place->len, sizeof place->len, err));
		len += place->len;
	}
	return buf_add(&memory->lines, ring->data + index, len, err);
}

static enum evbus_code fetch(struct memory_reader *memory, struct evbus_err *err)
{
	go(memory, memory->base.next);
	pthread_mutex_lock(&memory->ring->mutex);
	enum evbus_code code = copy(memory, err);
	pthread_mutex_unlock(&memory->ring->mutex);
	if (code != EVBUS_OK)
		go(memory, memory->base.next);
	return code;
}

enum evbus_code memory_next(struct partition_reader *reader, uint64_t end, struct line *line, bool *got,
			    struct evbus_err *err)
{
	struct memory_reader *memory = reading(reader);

	*got = false;
	if (reader->next >= end || reader->next >= reader->end)
		return EVBUS_OK;
	if (memory->given == memory->lens.len / sizeof(uint32_t))
		TRY(fetch(memory, err));
	uint32_t len = ((const uint32_t *)(const void *)memory->lens.data)[memory->given++];
	struct evbus_slice text = { memory->lines.data + memory->given_bytes, len - 1 };
	memory->given_bytes += len;
	const char *why = line_parse_near(text, &memory->minute, line);
	if (why)
		return err_set(err, EVBUS_IO, 0, "topic '%s', partition %d is damaged in memory at offset %llu: %s",
			       reader->topic->name, reader->partition, (unsigned long long)reader->next, why);
	assert(line->offset == reader->next);
	reader->next++;
	*got = true;
	return EVBUS_OK;
}

bool memory_wait(const struct partition_reader *reader, int timeout_ms)
{
	struct timespec timeout = { timeout_ms / 1000, (long)(timeout_ms % 1000) * 1000000 };
	struct ring *ring = ring_of(reader);

	pthread_mutex_lock(&ring->mutex);
	uint32_t word = ring->word;
	bool more = ring->next != reader->end;
	ring->waiting += !more;
	pthread_mutex_unlock(&ring->mutex);
	if (more)
		return true;
	bool signalled = os.futex_wait(&ring->word, word, &timeout) != 0 && errno == EINTR;
	pthread_mutex_lock(&ring->mutex);
	ring->waiting--;
	pthread_mutex_unlock(&ring->mutex);
	return !signalled;
}

enum evbus_code memory_bytes_left(const struct partition_reader *reader, uint64_t *bytes, struct evbus_err *err)
{
	struct ring *ring = ring_of(reader);

	(void)err;
	*bytes = 0;
	pthread_mutex_lock(&ring->mutex);
	uint64_t next = reader->next > ring->first ? reader->next : ring->first;
	if (next < reader->end) {
		const struct place *last = place_of(ring, reader->end - 1);
		*bytes = last->at + last->len - place_of(ring, next)->at;
	}
	pthread_mutex_unlock(&ring->mutex);
	return EVBUS_OK;
}

enum evbus_code memory_describe(struct partition_reader *reader, struct evbus_partition_info *info,
				struct evbus_err *err)
{
	struct ring *ring = ring_of(reader);

	TRY(memory_refresh(reader, err));
	pthread_mutex_lock(&ring->mutex);
	info->records = reader->end - reader->first;
	info->bytes = ring->bytes;
	if (info->records)
		evbus_time_format(ring->time_us, info->last_published_at_utc);
	pthread_mutex_unlock(&ring->mutex);
	return EVBUS_OK;
}
