/* conformance.c: what every backend gives who publishes and reads.
 *
 * The bus is $EVBUS_CONFORMANCE_URL. One on a server is not empty, and cases may run at once: each has a prefix of its own
 * there. Offsets begin anywhere and may have gaps. */
#include "conformance.h"

#include <pthread.h>
#include <sys/wait.h>

#ifdef CONFORMANCE_GAPS
#include "gaps.h"
#include "unit/modules.h"
#endif

struct evbus *bus;
struct evbus_err err;
static char scratch[64];
static char text[4096];

/* ---- helpers ---- */

bool slice_is(struct evbus_slice slice, const char *wanted)
{
	return slice.data && slice.len == strlen(wanted) && !memcmp(slice.data, wanted, slice.len);
}

bool lacks(const char *what)
{
	const char *words = getenv("EVBUS_CONFORMANCE_LACKS");
	size_t len = strlen(what);

	for (; words && *words; words += strcspn(words, " "), words += *words == ' ')
		if (strcspn(words, " ") == len && !strncmp(words, what, len))
			return true;
	return false;
}

int compare_offsets(const char *a, const char *b)
{
	size_t len = strspn(a, "0123456789"), other = strspn(b, "0123456789");

	return len != other ? (len < other ? -1 : 1) : strncmp(a, b, len);
}

static void arrange(struct evbus *opened)
{
#ifdef CONFORMANCE_GAPS
	static char modules[PATH_MAX];
	scratch_find_modules(modules);
	gaps_wrap(opened, modules);
#else
	(void)opened;
#endif
}

struct evbus *open_again(void)
{
	struct evbus_options options = { .store = "sqlite:state.db" };
	const char *url = getenv("EVBUS_CONFORMANCE_URL");
	struct evbus *opened;
	char own[PATH_MAX];

	url = url ? url : "file:bus";
	if (strstr(url, "://")) {
		snprintf(own, sizeof own, "%s%cprefix=c%d%s", url, strchr(url, '?') ? '&' : '?', (int)getpid(),
			 strrchr(scratch, '-') + 1);
		url = own;
	}
	OK(evbus_open(url, &options, &opened, &err));
	arrange(opened);
	return opened;
}

void conformance_enter(void)
{
	scratch_enter(scratch);
	bus = open_again();
}

void conformance_leave(void)
{
	evbus_close(bus);
	scratch_leave(scratch);
}

void make_topic(const char *name, uint32_t partitions)
{
	struct evbus_topic_options options = { .partitions = partitions };
	bool created;

	OK(evbus_topic_create(bus, name, &options, &created, &err));
	cr_assert(created);
}

const struct evbus_record *publish(const char *topic, const char *payload)
{
	const struct evbus_record *receipt;

	OK(evbus_publish(bus, topic, payload, &receipt, &err));
	return receipt;
}

struct offsets publish_numbered(int count)
{
	struct offsets offsets;

	for (int i = 0; i < count; i++) {
		char payload[24];
		snprintf(payload, sizeof payload, "{\"n\":%d}", i);
		const struct evbus_record *receipt = publish("t", payload);
		cr_assert(receipt->offset.len < sizeof offsets.at[i]);
		snprintf(offsets.at[i], sizeof offsets.at[i], "%.*s", (int)receipt->offset.len, receipt->offset.data);
	}
	return offsets;
}

const char *read_all(const struct evbus_selection *selection)
{
	const struct evbus_record *record;
	struct evbus_reader *reader;
	size_t len = 0;

	OK(evbus_reader_open(bus, selection, &reader, &err));
	for (text[0] = '\0';;) {
		OK(evbus_reader_next(reader, 0, &record, &err));
		if (!record)
			break;
		len += (size_t)snprintf(text + len, sizeof text - len, "%.*s ", (int)record->payload.len,
					record->payload.data);
		cr_assert(len < sizeof text);
	}
	cr_expect(evbus_reader_finished(reader));
	evbus_reader_close(reader);
	return text;
}

static const char *read_from(const char *from, const char *to)
{
	return read_all(&(struct evbus_selection){ .topic = "t", .from = from, .to = to });
}

TestSuite(conformance, .init = conformance_enter, .fini = conformance_leave, .timeout = 60);

/* ---- cases ---- */

Test(conformance, a_receipt_says_where_the_record_stands)
{
	struct evbus_partition_info info;
	const struct evbus_record *receipt;
	char last[EVBUS_OFFSET_MAX_BYTES + 1] = "", offset[sizeof last] = "";

	for (int i = 0; i < 3; i++) {
		receipt = publish("t", "{\"n\":1}");
		snprintf(offset, sizeof offset, "%.*s", (int)receipt->offset.len, receipt->offset.data);
		IS(receipt->topic, "t");
		IS(receipt->payload, "{\"n\":1}");
		IS(receipt->partition_key, "null");
		cr_expect(receipt->partition_id == 0 && receipt->published_at_utc.len == 27 && !receipt->duplicate);
		cr_expect(compare_offsets(offset, last) > 0);
		OK(evbus_topic_describe(bus, "t", 0, &info, &err));
		cr_expect(compare_offsets(info.first_offset, offset) <= 0 &&
			  compare_offsets(info.next_offset, offset) > 0);
		memcpy(last, offset, sizeof last);
	}
	cr_expect_str_eq(info.offset_kind, receipt->offset_kind);
	cr_expect(info.partitions == 1 && strlen(info.log_id) == 32);
	cr_expect_eq(info.records, lacks("records") ? UINT64_MAX : 3);
	cr_expect(info.bytes > 0 || lacks("bytes"));
	cr_expect(slice_is(receipt->published_at_utc, info.last_published_at_utc));
	cr_expect(strlen(info.acknowledgement) > 0 && strlen(info.idempotence) > 0);
}

Test(conformance, payloads_come_out_as_they_went_in_and_in_order)
{
	static const char *const payloads[] = { "{\"n\":123456789012345678901234567890.10}", "{\"a\":1,\"a\":2}",
						"{\"\\u00e4\":\"\\/\",\"ä\":\"/\"}", "{ \"b\" : [ ] , \"a\" : { } }" };
	char stored[4][512];
	const struct evbus_record *record;
	struct evbus_reader *reader;

	for (size_t i = 0; i < 4; i++) {
		record = publish("t", payloads[i]);
		cr_assert(record->stored.len < sizeof stored[i]);
		snprintf(stored[i], sizeof stored[i], "%.*s", (int)record->stored.len, record->stored.data);
	}
	OK(evbus_reader_open(bus, &(struct evbus_selection){ .topic = "t" }, &reader, &err));
	for (size_t i = 0; i < 4; i++) {
		OK(evbus_reader_next(reader, 0, &record, &err));
		cr_assert_not_null(record);
		IS(record->payload, payloads[i]);
		/* The record is what the receipt was, its time included. */
		IS(record->stored, stored[i]);
		cr_expect(record->members.len > record->payload.len && !memcmp(record->members.data, "\"offset\":", 9));
	}
	evbus_reader_close(reader);
}

Test(conformance, what_is_known_of_an_event_comes_back_with_it)
{
	struct evbus_event event = { .topic = "t",
				     .payload = { "{\"id\":1}", 8 },
				     .partition_id = EVBUS_PARTITION_ANY,
				     .key = { "m\"17 ä", 7 },
				     .origin = { "a.b/3/77", 8 },
				     .returns = 2 };
	struct evbus_publisher *publisher;
	const struct evbus_record *record;
	struct evbus_reader *reader;

	OK(evbus_publisher_open(bus, NULL, &publisher, &err));
	OK(evbus_publisher_add(publisher, &event, &err));
	OK(evbus_publisher_flush(publisher, &err));
	evbus_publisher_close(publisher);
	OK(evbus_reader_open(bus, &(struct evbus_selection){ .topic = "t" }, &reader, &err));
	OK(evbus_reader_next(reader, 0, &record, &err));
	cr_assert_not_null(record);
	IS(record->partition_key, "\"m\\\"17 ä\"");
	IS(record->origin, "\"a.b/3/77\"");
	cr_expect_eq(record->returns, 2);
	cr_expect(!record->batch.data && !record->tenant_id.data && !record->event_key.data);
	evbus_reader_close(reader);
}

Test(conformance, what_is_no_event_is_refused_and_harms_nothing)
{
	cr_expect_eq(evbus_publish(bus, "t", "{\"a\":}", NULL, &err), EVBUS_DATA);
	cr_expect_eq(err.column, 6);
	cr_expect_eq(evbus_publish(bus, "t.", "{}", NULL, &err), EVBUS_USAGE);
	publish("t", "{}");
	cr_expect_str_eq(read_from(NULL, NULL), "{} ");
}

Test(conformance, positions_name_places)
{
	const struct offsets o = publish_numbered(5);

	cr_expect_str_eq(read_from(o.at[3], NULL), "{\"n\":3} {\"n\":4} ");
	cr_expect_str_eq(read_from("-2", NULL), "{\"n\":3} {\"n\":4} ");
	cr_expect_str_eq(read_from("-5", "-4"), "{\"n\":0} ");
	cr_expect_str_eq(read_from("-6", "-4"), "{\"n\":0} ");
	cr_expect_str_eq(read_from("beginning", o.at[1]), "{\"n\":0} ");
	cr_expect_str_eq(read_from(o.at[1], o.at[3]), "{\"n\":1} {\"n\":2} ");
	cr_expect_str_eq(read_from("end", NULL), "");
	cr_expect_str_eq(read_from(o.at[3], o.at[3]), "");
	static const char all[] = "{\"n\":0} {\"n\":1} {\"n\":2} {\"n\":3} {\"n\":4} ";
	for (uint64_t last = 1; last < 7; last++)
		cr_expect_str_eq(read_all(&(struct evbus_selection){ .topic = "t", .last = last }),
				 &all[(last < 5 ? 5 - last : 0) * 8]);
}

Test(conformance, times_name_places)
{
	char since[28], at[29];

	publish("t", "{\"n\":0}");
	publish("t", "{\"n\":1}");
	usleep(2000);
	const struct evbus_record *receipt = publish("t", "{\"n\":2}");
	snprintf(since, sizeof since, "%.27s", receipt->published_at_utc.data);
	snprintf(at, sizeof at, "@%s", since);
	usleep(2000);
	publish("t", "{\"n\":3}");
	cr_expect_str_eq(read_from(at, NULL), "{\"n\":2} {\"n\":3} ");
	cr_expect_str_eq(read_from(NULL, at), "{\"n\":0} {\"n\":1} ");
	cr_expect_str_eq(read_all(&(struct evbus_selection){ .topic = "t", .since = since }), "{\"n\":2} {\"n\":3} ");
	cr_expect_str_eq(read_all(&(struct evbus_selection){ .topic = "t", .until = since }), "{\"n\":0} {\"n\":1} ");
}

Test(conformance, a_bounded_read_ends_with_what_was_there)
{
	const struct evbus_record *record;
	struct evbus_reader *reader;

	publish("t", "{}");
	OK(evbus_reader_open(bus, &(struct evbus_selection){ .topic = "t" }, &reader, &err));
	publish("t", "{}");
	OK(evbus_reader_next(reader, 0, &record, &err));
	cr_expect_not_null(record);
	OK(evbus_reader_next(reader, 0, &record, &err));
	cr_expect_null(record);
	evbus_reader_close(reader);
}

static void *publish_later(void *context)
{
	struct evbus *own = context;
	struct evbus_err why;

	usleep(100000);
	return evbus_publish(own, "t", "{\"late\":true}", NULL, &why) ? own : NULL;
}

Test(conformance, who_follows_is_woken_by_another_handle)
{
	struct evbus *other = open_again();
	const struct evbus_record *record;
	struct evbus_reader *reader;
	pthread_t thread;
	void *failed;

	OK(evbus_reader_open(bus, &(struct evbus_selection){ .topic = "t", .follow = true }, &reader, &err));
	OK(evbus_reader_next(reader, 10, &record, &err));
	cr_expect_null(record);
	cr_expect_not(evbus_reader_finished(reader));
	publish("t", "{\"late\":false}");
	OK(evbus_reader_next(reader, 5000, &record, &err));
	cr_assert_not_null(record);
	IS(record->payload, "{\"late\":false}");
	cr_assert(!pthread_create(&thread, NULL, publish_later, other));
	OK(evbus_reader_next(reader, 20000, &record, &err));
	cr_assert_not_null(record);
	IS(record->payload, "{\"late\":true}");
	cr_assert(!pthread_join(thread, &failed) && !failed);
	evbus_reader_close(reader);
	evbus_close(other);
}

Test(conformance, patterns_choose_topics_and_partitions_are_merged_by_time)
{
	char **names;

	publish("a.x", "{\"n\":0}");
	publish("b.x", "{\"n\":1}");
	publish("a.y", "{\"n\":2}");
	publish("a.x", "{\"n\":3}");
	OK(evbus_topic_list(bus, "a.*", &names, &err));
	cr_assert(names[0] && names[1] && !names[2]);
	cr_expect(!strcmp(names[0], "a.x") && !strcmp(names[1], "a.y"));
	evbus_free(names);
	cr_expect_str_eq(read_all(&(struct evbus_selection){ .topic = "a.*", .partition_id = EVBUS_PARTITION_ALL }),
			 "{\"n\":0} {\"n\":2} {\"n\":3} ");
	cr_expect_str_eq(read_all(&(struct evbus_selection){ .topic = "c.>", .partition_id = EVBUS_PARTITION_ALL }),
			 "");
}

/* The numbers are those of Kafka's own test of its murmur2, masked and modulo 8. */
Test(conformance, a_key_comes_to_the_partition_that_kafka_has_for_it)
{
	static const struct {
		const char *key;
		int32_t partition;
	} keys[] = {
		{ "21", 4 }, { "foobar", 6 }, { "a-little-bit-long-string", 0 }, { "a-little-bit-longer-string", 3 }
	};
	struct evbus_publisher *publisher;

	make_topic("t", 8);
	OK(evbus_publisher_open(bus, NULL, &publisher, &err));
	for (size_t i = 0; i < 4; i++) {
		struct evbus_event event = { .topic = "t",
					     .payload = { "{}", 2 },
					     .partition_id = EVBUS_PARTITION_ANY,
					     .key = { keys[i].key, strlen(keys[i].key) } };
		OK(evbus_publisher_add(publisher, &event, &err));
	}
	struct evbus_event nowhere = { .topic = "t", .payload = { "{}", 2 }, .partition_id = 8 };
	cr_expect_eq(evbus_publisher_add(publisher, &nowhere, &err), EVBUS_NONE);
	nowhere.partition_id = EVBUS_PARTITION_ANY;
	cr_expect_eq(evbus_publisher_add(publisher, &nowhere, &err), EVBUS_USAGE);
	OK(evbus_publisher_flush(publisher, &err));
	for (size_t i = 0; i < 4; i++) {
		const struct evbus_record *receipt = evbus_publisher_next(publisher);
		cr_assert_not_null(receipt);
		cr_expect_eq(receipt->partition_id, keys[i].partition, "%s: %d", keys[i].key, receipt->partition_id);
	}
	cr_expect_null(evbus_publisher_next(publisher));
	evbus_publisher_close(publisher);
}

/* Adds so many events and flushes; what came of it, and how many receipts there are. */
static enum evbus_code publish_as(const struct evbus_publisher_options *options, int count, int *receipts)
{
	struct evbus_event event = { .topic = "t", .payload = { "{}", 2 }, .partition_id = EVBUS_PARTITION_ANY };
	struct evbus_publisher *publisher;

	*receipts = 0;
	enum evbus_code code = evbus_publisher_open(bus, options, &publisher, &err);
	if (code)
		return code;
	for (int i = 0; i < count && code == EVBUS_OK; i++)
		code = evbus_publisher_add(publisher, &event, &err);
	if (code == EVBUS_OK)
		code = evbus_publisher_flush(publisher, &err);
	while (evbus_publisher_next(publisher))
		++*receipts;
	evbus_publisher_close(publisher);
	return code;
}

Test(conformance, what_is_expected_elsewhere_is_not_appended)
{
	struct evbus_publisher_options options = { .expect_offset = NULL };
	struct evbus_partition_info info;
	int receipts;

	publish("t", "{}");
	OK(evbus_topic_describe(bus, "t", 0, &info, &err));
	options.expect_offset = info.next_offset;
	if (lacks("expect")) {
		cr_expect_eq(publish_as(&options, 1, &receipts), EVBUS_CONFIG);
		cr_expect_str_eq(read_from(NULL, NULL), "{} ");
		return;
	}
	OK(publish_as(&options, 1, &receipts));
	cr_expect_eq(receipts, 1);
	cr_expect_eq(publish_as(&options, 1, &receipts), EVBUS_CONFLICT, "%s", err.text);
	cr_expect_eq(receipts, 0);
	cr_expect_str_eq(read_from(NULL, NULL), "{} {} ");
}

Test(conformance, an_atomic_batch_is_there_as_a_whole_or_not_at_all)
{
	struct evbus_publisher_options options = { .atomic = true };
	int receipts;

	OK(publish_as(&options, 1, &receipts));
	cr_expect_eq(receipts, 1);
	cr_expect_eq(publish_as(&options, 3, &receipts), lacks("atomic") ? EVBUS_CONFIG : EVBUS_OK, "%s", err.text);
	cr_expect_eq(receipts, lacks("atomic") ? 0 : 3);
	cr_expect_str_eq(read_from(NULL, NULL), lacks("atomic") ? "{} " : "{} {} {} {} ");
}

Test(conformance, what_is_not_there_is_told)
{
	struct evbus_selection selection = { .topic = "t" };
	struct evbus_partition_info info;
	struct evbus_reader *reader;

	cr_expect_eq(evbus_reader_open(bus, &selection, &reader, &err), EVBUS_NONE);
	cr_expect_eq(evbus_topic_describe(bus, "t", 0, &info, &err), EVBUS_NONE);
	publish("t", "{}");
	selection.partition_id = 1;
	cr_expect_eq(evbus_reader_open(bus, &selection, &reader, &err), EVBUS_NONE);
	cr_expect_eq(evbus_topic_describe(bus, "t", 1, &info, &err), EVBUS_NONE);
	cr_expect_eq(
		evbus_topic_create(bus, "t", &(struct evbus_topic_options){ .partitions = 2 }, &(bool){ false }, &err),
		EVBUS_CONFLICT);
}

/* The threads of a client library are not there in a child, and nobody must wait for them. */
Test(conformance, a_forked_child_is_refused_and_closes_what_it_has)
{
	const struct evbus_record *record;
	struct evbus_publisher *publisher;
	struct evbus_reader *reader;
	int status;

	publish("t", "{}");
	OK(evbus_publisher_open(bus, NULL, &publisher, &err));
	OK(evbus_reader_open(bus, &(struct evbus_selection){ .topic = "t", .follow = true }, &reader, &err));
	OK(evbus_reader_next(reader, 0, &record, &err));
	cr_assert_not_null(record);
	pid_t child = fork();
	if (child == 0) {
		bool refused = evbus_reader_next(reader, 0, &record, &err) == EVBUS_BUG;
		evbus_reader_close(reader);
		evbus_publisher_close(publisher);
		evbus_close(bus);
		_exit(!refused);
	}
	cr_assert(waitpid(child, &status, 0) == child && status == 0, "%d", status);
	OK(evbus_reader_next(reader, 0, &record, &err));
	evbus_reader_close(reader);
	evbus_publisher_close(publisher);
}
