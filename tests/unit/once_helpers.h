/* What the tests of publishing idempotently without a lock have in common: the backend in memory, with calls of ours before
 * its own, by which it is worse than it is; and short ways. */
#ifndef EVBUS_TESTS_ONCE_HELPERS_H
#define EVBUS_TESTS_ONCE_HELPERS_H

#include "backend.h"
#include "bus.h"
#include "faulty.h"
#include "log/writer.h"
#include "modules.h"

#include <errno.h>

#define OK(call) cr_assert_eq((call), EVBUS_OK, "%d: %s", (int)err.code, err.text)
#define IS(slice, text)                                                                                                \
	cr_expect((slice).len == strlen(text) && !memcmp((slice).data, (text), (slice).len), "'%.*s' is not '%s'",     \
		  (int)(slice).len, (slice).data, (text))

static char scratch[64];
static struct evbus_err err;
static struct evbus *bus, *other;
static struct backend_ops ours, looking;
static bool inside; /* what is done by `other` goes through */
static unsigned appends, records_read;
static unsigned overtakes; /* so many appends are preceded by one of `other`, */
static const char *overtaker; /* of this key; NULL: a new one each time */
static bool late; /* an append is refused by the commit */
static bool refuses; /* an append is refused for nothing */
static bool lost; /* the commit does not know what became of it */
static const char *partly;           /* the first of a group, of this key, is taken, and the others are not */
static bool gone;                    /* the record that is read next went meanwhile */
static bool starved;                 /* there is no memory once all is read */
static bool stuck;                   /* a reader cannot be moved */
static bool late_news;               /* readers that look at single records learn nothing new */
static unsigned asked, asks_max;
static uint64_t expected;

/* ---- the backend ---- */

static inline enum evbus_code put_by_other(const char *key)
{
	struct evbus_publisher_options options = { .idempotent = true };
	struct evbus_event event = { .topic = "t",
				     .payload = SLICE("{\"by\":\"other\"}"),
				     .partition_id = EVBUS_PARTITION_ANY,
				     .event_key = { key, strlen(key) } };
	struct evbus_publisher *publisher;

	inside = true;
	OK(evbus_publisher_open(other, &options, &publisher, &err));
	OK(evbus_publisher_add(publisher, &event, &err));
	OK(evbus_publisher_flush(publisher, &err));
	evbus_publisher_close(publisher);
	inside = false;
	return EVBUS_OK;
}

static inline void overtake(void)
{
	static unsigned count;
	char key[16];

	snprintf(key, sizeof key, "o%u", count++);
	overtakes--;
	put_by_other(overtaker ? overtaker : key);
}

static inline enum evbus_code our_append(struct partition_writer *writer, struct group *group, uint64_t expect,
				  struct evbus_err *e)
{
	if (inside)
		return backend_memory.append(writer, group, expect, e);
	appends++;
	if (overtakes)
		overtake();
	if (refuses)
		return err_set(e, EVBUS_CONFLICT, 0, "refused");
	if (late || partly) {
		expected = expect;
		return EVBUS_OK;
	}
	return backend_memory.append(writer, group, ours.expects ? expect : UINT64_MAX, e);
}

static inline enum evbus_code our_commit(struct partition_writer *writer, struct group *group, struct evbus_err *e)
{
	if (inside)
		return EVBUS_OK;
	if (late)
		return backend_memory.append(writer, group, expected, e);
	if (partly) {
		put_by_other(partly);
		partly = NULL;
		group->acknowledged = 1;
		return err_set(e, EVBUS_CONFLICT, 0, "somebody came in between");
	}
	return lost ? err_set(e, EVBUS_UNAVAILABLE, 0, "lost") : EVBUS_OK;
}

static inline enum evbus_code our_next(struct partition_reader *reader, uint64_t end, struct line *line, bool *got,
				struct evbus_err *e)
{
	if (gone) {
		gone = false;
		reader->first = reader->next + 1;
		return err_set(e, EVBUS_NONE, 0, "gone");
	}
	enum evbus_code code = backend_memory.next(reader, end, line, got, e);

	records_read += code == EVBUS_OK && *got;
	if (starved && !*got)
		faulty_begin(1, ENOMEM);
	return code;
}

static inline enum evbus_code our_seek(struct partition_reader *reader, uint64_t position, struct evbus_err *e)
{
	return stuck ? err_set(e, EVBUS_UNAVAILABLE, 0, "stuck") : backend_memory.seek(reader, position, e);
}

static inline enum evbus_code our_reader_open(const struct backend_topic *topic, int32_t partition, size_t chunk, bool ahead,
				       struct partition_reader **reader, struct evbus_err *e)
{
	TRY(backend_memory.reader_open(topic, partition, chunk, ahead, reader, e));
	(*reader)->ops = chunk < 65536 ? &looking : &ours;
	return EVBUS_OK;
}

static inline enum evbus_code our_refresh(struct partition_reader *reader, struct evbus_err *e)
{
	if (stuck)
		return err_set(e, EVBUS_UNAVAILABLE, 0, "stuck");
	return late_news ? EVBUS_OK : backend_memory.refresh(reader, e);
}

static inline enum evbus_code our_writer_open(const struct backend_topic *topic, int32_t partition,
				       const struct waiter *waiter, struct partition_writer **writer,
				       struct evbus_err *e)
{
	TRY(backend_memory.writer_open(topic, partition, waiter, writer, e));
	(*writer)->ops = &ours;
	return EVBUS_OK;
}

static inline enum evbus_code our_topic_open(struct backend *backend, const char *name, struct backend_topic **topic,
				      struct evbus_err *e)
{
	TRY(backend_memory.topic_open(backend, name, topic, e));
	(*topic)->ops = &ours;
	return EVBUS_OK;
}

static inline struct evbus *open_bus(const char *store)
{
	struct evbus_options options = { .store = store };
	struct evbus *opened;

	OK(evbus_open("memory:it?bytes=4194304", &options, &opened, &err));
	opened->backend->ops = &ours;
	return opened;
}

static inline void setup(void)
{
	struct evbus_topic_options options = { .partitions = 1 };
	bool created;

	scratch_enter(scratch);
	ours = backend_memory;
	ours.append = our_append;
	ours.commit = our_commit;
	ours.next = our_next;
	ours.seek = our_seek;
	ours.reader_open = our_reader_open;
	ours.writer_open = our_writer_open;
	ours.topic_open = our_topic_open;
	looking = ours;
	looking.refresh = our_refresh;
	bus = open_bus(NULL);
	other = open_bus(NULL);
	OK(evbus_topic_create(bus, "t", &options, &created, &err));
}

static inline void teardown(void)
{
	evbus_close(bus);
	evbus_close(other);
	scratch_leave(scratch);
}

/* ---- short ways ---- */

static inline bool go_on(void *context)
{
	(void)context;
	return ++asked <= asks_max;
}

static inline struct evbus_publisher *open_once(struct evbus *of, const char *expect)
{
	struct evbus_publisher_options options = { .idempotent = true, .expect_offset = expect, .go_on = go_on };
	struct evbus_publisher *publisher;

	OK(evbus_publisher_open(of, &options, &publisher, &err));
	return publisher;
}

static inline void add(struct evbus_publisher *publisher, const char *key)
{
	struct evbus_event event = { .topic = "t",
				     .payload = SLICE("{\"by\":\"us\"}"),
				     .partition_id = EVBUS_PARTITION_ANY,
				     .event_key = { key, strlen(key) } };

	OK(evbus_publisher_add(publisher, &event, &err));
}

/* Publishes one, and looks at its receipt. */
static inline void assert_published(const char *key, bool duplicate, const char *offset, const char *payload)
{
	struct evbus_publisher *publisher = open_once(bus, NULL);

	add(publisher, key);
	OK(evbus_publisher_flush(publisher, &err));
	const struct evbus_record *receipt = evbus_publisher_next(publisher);
	cr_assert_not_null(receipt);
	IS(receipt->offset, offset);
	IS(receipt->payload, payload);
	cr_expect_eq(receipt->duplicate, duplicate);
	evbus_publisher_close(publisher);
}

static inline uint64_t record_count(void)
{
	struct evbus_partition_info info;

	OK(evbus_topic_describe(bus, "t", 0, &info, &err));
	return info.records;
}

#endif
