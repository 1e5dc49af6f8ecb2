/* publisher_once.c, keys.c: publishing idempotently over a backend that has no lock, and one that is worse than others. It
 * is the one in memory, with calls of ours before its own. */
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
static bool late_news;               /* readers that look at single records learn nothing new */
static unsigned asked, asks_max;
static uint64_t expected;

/* ---- the backend ---- */

static enum evbus_code put_by_other(const char *key)
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

static void overtake(void)
{
	static unsigned count;
	char key[16];

	snprintf(key, sizeof key, "o%u", count++);
	overtakes--;
	put_by_other(overtaker ? overtaker : key);
}

static enum evbus_code our_append(struct partition_writer *writer, struct group *group, uint64_t expect,
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

static enum evbus_code our_commit(struct partition_writer *writer, struct group *group, struct evbus_err *e)
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

static enum evbus_code our_next(struct partition_reader *reader, uint64_t end, struct line *line, bool *got,
				struct evbus_err *e)
{
	if (gone) {
		gone = false;
		reader->first = reader->next + 1;
		return err_set(e, EVBUS_NONE, 0, "gone");
	}
	enum evbus_code code = backend_memory.next(reader, end, line, got, e);

	records_read += code == EVBUS_OK && *got;
	return code;
}

static enum evbus_code our_reader_open(const struct backend_topic *topic, int32_t partition, size_t chunk, bool ahead,
				       struct partition_reader **reader, struct evbus_err *e)
{
	TRY(backend_memory.reader_open(topic, partition, chunk, ahead, reader, e));
	(*reader)->ops = chunk < 65536 ? &looking : &ours;
	return EVBUS_OK;
}

static enum evbus_code our_refresh(struct partition_reader *reader, struct evbus_err *e)
{
	return late_news ? EVBUS_OK : backend_memory.refresh(reader, e);
}

static enum evbus_code our_writer_open(const struct backend_topic *topic, int32_t partition,
				       const struct waiter *waiter, struct partition_writer **writer,
				       struct evbus_err *e)
{
	TRY(backend_memory.writer_open(topic, partition, waiter, writer, e));
	(*writer)->ops = &ours;
	return EVBUS_OK;
}

static enum evbus_code our_topic_open(struct backend *backend, const char *name, struct backend_topic **topic,
				      struct evbus_err *e)
{
	TRY(backend_memory.topic_open(backend, name, topic, e));
	(*topic)->ops = &ours;
	return EVBUS_OK;
}

static struct evbus *open_bus(const char *store)
{
	struct evbus_options options = { .store = store };
	struct evbus *opened;

	OK(evbus_open("memory:it?bytes=4194304", &options, &opened, &err));
	opened->backend->ops = &ours;
	return opened;
}

static void setup(void)
{
	struct evbus_topic_options options = { .partitions = 1 };
	bool created;

	scratch_enter(scratch);
	ours = backend_memory;
	ours.append = our_append;
	ours.commit = our_commit;
	ours.next = our_next;
	ours.reader_open = our_reader_open;
	ours.writer_open = our_writer_open;
	ours.topic_open = our_topic_open;
	looking = ours;
	looking.refresh = our_refresh;
	bus = open_bus(NULL);
	other = open_bus(NULL);
	OK(evbus_topic_create(bus, "t", &options, &created, &err));
}

static void teardown(void)
{
	evbus_close(bus);
	evbus_close(other);
	scratch_leave(scratch);
}

TestSuite(publisher_once, .init = setup, .fini = teardown, .timeout = 60);

/* ---- short ways ---- */

static bool go_on(void *context)
{
	(void)context;
	return ++asked <= asks_max;
}

static struct evbus_publisher *open_once(struct evbus *of, const char *expect)
{
	struct evbus_publisher_options options = { .idempotent = true, .expect_offset = expect, .go_on = go_on };
	struct evbus_publisher *publisher;

	OK(evbus_publisher_open(of, &options, &publisher, &err));
	return publisher;
}

static void add(struct evbus_publisher *publisher, const char *key)
{
	struct evbus_event event = { .topic = "t",
				     .payload = SLICE("{\"by\":\"us\"}"),
				     .partition_id = EVBUS_PARTITION_ANY,
				     .event_key = { key, strlen(key) } };

	OK(evbus_publisher_add(publisher, &event, &err));
}

/* Publishes one, and looks at its receipt. */
static void assert_published(const char *key, bool duplicate, const char *offset, const char *payload)
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

static uint64_t record_count(void)
{
	struct evbus_partition_info info;

	OK(evbus_topic_describe(bus, "t", 0, &info, &err));
	return info.records;
}

/* ---- who is overtaken ---- */

Test(publisher_once, who_is_overtaken_by_the_same_event_has_its_receipt)
{
	overtakes = 1;
	overtaker = "a";
	assert_published("a", true, "0", "{\"by\":\"other\"}");
	cr_expect(record_count() == 1 && appends == 1);
}

Test(publisher_once, who_is_overtaken_by_others_tries_as_often_as_it_takes)
{
	overtakes = 300;
	assert_published("a", false, "300", "{\"by\":\"us\"}");
	cr_expect(record_count() == 301 && appends == 301);
	assert_published("a", true, "300", "{\"by\":\"us\"}");
}

Test(publisher_once, a_commit_may_tell_it_as_well)
{
	late = true;
	overtakes = 2;
	overtaker = "b";
	assert_published("a", false, "1", "{\"by\":\"us\"}");
	overtakes = 1;
	overtaker = "c";
	assert_published("c", true, "2", "{\"by\":\"other\"}");
	cr_expect_eq(record_count(), 3);
}

Test(publisher_once, who_expects_an_offset_and_is_overtaken_fails_unless_by_the_same_event)
{
	struct evbus_publisher *publisher = open_once(bus, "0");

	overtakes = 1;
	overtaker = "a";
	add(publisher, "a");
	OK(evbus_publisher_flush(publisher, &err));
	cr_expect(evbus_publisher_next(publisher)->duplicate);
	evbus_publisher_close(publisher);
	publisher = open_once(bus, "1");
	overtakes = 1;
	overtaker = "b";
	add(publisher, "c");
	cr_expect_eq(evbus_publisher_flush(publisher, &err), EVBUS_CONFLICT);
	evbus_publisher_close(publisher);
	cr_expect(record_count() == 2 && appends == 3);
}

Test(publisher_once, what_is_refused_although_nothing_came_in_between_fails_in_the_end)
{
	struct evbus_publisher *publisher = open_once(bus, NULL);

	refuses = true;
	asks_max = 1000;
	add(publisher, "a");
	cr_expect_eq(evbus_publisher_flush(publisher, &err), EVBUS_CONFLICT);
	cr_expect_str_eq(err.text, "refused");
	cr_expect(appends > 100 && appends < 1000);
	evbus_publisher_close(publisher);
}

Test(publisher_once, who_is_always_overtaken_is_asked_whether_to_go_on)
{
	struct evbus_publisher *publisher = open_once(bus, NULL);

	overtakes = UINT32_MAX;
	overtaker = NULL;
	asks_max = 2;
	add(publisher, "a");
	cr_expect_eq(evbus_publisher_flush(publisher, &err), EVBUS_AGAIN);
	cr_expect(err.sys_errno == EINTR && asked == 3, "%s", err.text);
	evbus_publisher_close(publisher);
	cr_expect_eq(record_count(), appends);
}

/* ---- backends that are worse ---- */

Test(publisher_once, what_got_in_although_nobody_said_so_is_found)
{
	struct evbus_publisher *publisher = open_once(bus, NULL);

	lost = true;
	add(publisher, "a");
	cr_expect_eq(evbus_publisher_flush(publisher, &err), EVBUS_UNAVAILABLE);
	cr_expect_null(evbus_publisher_next(publisher));
	evbus_publisher_close(publisher);
	lost = false;
	assert_published("a", true, "0", "{\"by\":\"us\"}");
}

Test(publisher_once, where_no_offset_can_be_expected_only_what_was_there_before_is_found)
{
	ours.expects = false;
	overtakes = 1;
	overtaker = "a";
	assert_published("a", false, "1", "{\"by\":\"us\"}");
	assert_published("a", true, "0", "{\"by\":\"other\"}");
	cr_expect_eq(record_count(), 2);
}

Test(publisher_once, what_was_taken_of_a_group_before_somebody_came_in_between_is_no_repeat)
{
	struct evbus_publisher *publisher = open_once(bus, NULL);

	partly = "a";
	add(publisher, "a");
	add(publisher, "b");
	add(publisher, "a");
	OK(evbus_publisher_flush(publisher, &err));
	for (int i = 0; i < 3; i++) {
		const struct evbus_record *receipt = evbus_publisher_next(publisher);
		cr_assert_not_null(receipt);
		IS(receipt->offset, i == 1 ? "1" : "0");
		cr_expect_eq(receipt->duplicate, i == 2);
	}
	evbus_publisher_close(publisher);
	cr_expect_eq(record_count(), 2);
}

Test(publisher_once, a_server_that_tells_late_of_what_is_new_does_no_harm)
{
	struct evbus_publisher *publisher = open_once(bus, NULL);

	late_news = true;
	for (int i = 0; i < 4; i++) {
		if (i == 2)
			put_by_other("c");
		add(publisher, i < 2 ? "a" : "c");
		OK(evbus_publisher_flush(publisher, &err));
		const struct evbus_record *receipt = evbus_publisher_next(publisher);
		cr_assert_not_null(receipt);
		IS(receipt->offset, i < 2 ? "0" : "1");
		cr_expect_eq(receipt->duplicate, i > 0);
	}
	evbus_publisher_close(publisher);
	cr_expect_eq(record_count(), 2);
}

/* ---- how much is read ---- */

static void publish_range(struct evbus *to, unsigned from, unsigned end, unsigned repeats)
{
	struct evbus_publisher *publisher = open_once(to, NULL);
	const struct evbus_record *receipt;
	unsigned duplicates = 0;
	char key[200];

	for (unsigned i = from; i < end; i++) {
		memset(key, 'k', sizeof key);
		snprintf(key, sizeof key, "%0199u", i);
		add(publisher, key);
		while ((receipt = evbus_publisher_next(publisher)))
			duplicates += receipt->duplicate;
	}
	OK(evbus_publisher_flush(publisher, &err));
	while ((receipt = evbus_publisher_next(publisher)))
		duplicates += receipt->duplicate;
	evbus_publisher_close(publisher);
	cr_expect_eq(duplicates, repeats);
}

Test(publisher_once, with_a_store_a_long_topic_is_not_read_from_the_beginning_each_time)
{
	for (unsigned keeps = 0; keeps < 2; keeps++) {
		struct evbus *stored = open_bus(keeps ? "sqlite:one.db" : "sqlite:other.db");
		unsigned first = keeps * 2000;
		ours.keeps_lines = keeps;
		publish_range(stored, first, first + 2000, 0);
		records_read = 0;
		publish_range(stored, first + 1990, first + 2000, 10);
		cr_expect_leq(records_read, 12, "%u", records_read);
		evbus_close(stored);
	}
}

Test(publisher_once, what_memory_no_longer_has_is_no_repeat)
{
	struct evbus_partition_info info;

	publish_range(bus, 0, 20000, 0);
	publish_range(bus, 0, 20000, 0);
	OK(evbus_topic_describe(bus, "t", 0, &info, &err));
	cr_expect_lt(info.records, 16000);
	publish_range(bus, 19000, 20000, 1000);
}

Test(publisher_once, what_goes_while_it_is_read_is_passed_over)
{
	put_by_other("a");
	put_by_other("b");
	gone = true;
	assert_published("b", true, "1", "{\"by\":\"other\"}");
	cr_expect_not(gone);
}

Test(publisher_once, the_index_is_made_anew_where_there_are_no_files)
{
	struct evbus_verify_options options = { .partition_id = EVBUS_PARTITION_ALL, .rebuild_keys = true };
	struct evbus *stored = open_bus("sqlite:state.db");
	struct evbus_verify_result result;

	publish_range(stored, 0, 2000, 0);
	OK(evbus_verify(stored, NULL, &options, &result, &err));
	cr_expect(result.notes == 1 && !result.damages);
	records_read = 0;
	publish_range(stored, 0, 10, 10);
	cr_expect_leq(records_read, 12, "%u", records_read);
	evbus_close(stored);
}

/* ---- failures ---- */

static enum evbus_code try_to_publish(struct evbus *of)
{
	struct evbus_publisher_options options = { .idempotent = true };
	struct evbus_event event = { .topic = "t",
				     .payload = SLICE("{}"),
				     .partition_id = EVBUS_PARTITION_ANY,
				     .event_key = SLICE("a") };
	struct evbus_publisher *publisher;
	struct evbus_err why;

	TRY(evbus_publisher_open(of, &options, &publisher, &why));
	enum evbus_code code = evbus_publisher_add(publisher, &event, &why);
	if (code == EVBUS_OK)
		code = evbus_publisher_flush(publisher, &why);
	if (code == EVBUS_OK)
		cr_expect_eq(evbus_publisher_next(publisher)->offset.data[0], '1');
	evbus_publisher_close(publisher);
	return code;
}

Test(publisher_once, whichever_call_fails_a_key_is_there_once)
{
	bool happened = true;

	put_by_other("x");
	for (unsigned at = 1; happened && at < 400; at++) {
		faulty_begin(at, ENOMEM);
		enum evbus_code code = try_to_publish(bus);
		happened = faulty.failed != NULL;
		faulty_end();
		cr_assert(happened || code == EVBUS_OK);
	}
	cr_expect_not(happened);
	OK(try_to_publish(bus));
	cr_expect_eq(record_count(), 2);
}
