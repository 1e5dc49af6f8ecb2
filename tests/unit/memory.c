/* memory.c and memory_ring.c: what only they do. The rest is in tests/conformance. */
#include "evbus.h"
#include "scratch.h"

#include <sys/wait.h>

#define RING_BYTES 4194304u
#define EVENT_BYTES 1000u

static struct evbus_err err;

#define OK(call) cr_assert_eq((call), EVBUS_OK, "%d: %s", (int)err.code, err.text)

TestSuite(memory, .timeout = 60);

static struct evbus *open_bus(const char *url)
{
	struct evbus *bus;

	OK(evbus_open(url, NULL, &bus, &err));
	return bus;
}

static void publish_many(struct evbus *bus, int count)
{
	char payload[EVENT_BYTES + 1];

	snprintf(payload, sizeof payload, "{\"a\":\"%0*d\"}", (int)EVENT_BYTES - 8, 1);
	for (int i = 0; i < count; i++)
		OK(evbus_publish(bus, "t", payload, NULL, &err));
}

Test(memory, the_oldest_go_and_who_asks_for_them_is_told)
{
	struct evbus *bus = open_bus("memory:?bytes=4194304");
	struct evbus_partition_info info;
	const struct evbus_record *record;
	struct evbus_reader *reader;
	uint64_t read = 0;

	publish_many(bus, 10000);
	OK(evbus_topic_describe(bus, "t", 0, &info, &err));
	uint64_t first = scratch_number(info.first_offset);
	cr_expect(first > 0 && info.records == 10000 - first);
	cr_expect(info.bytes <= RING_BYTES && info.bytes > RING_BYTES - 4 * EVENT_BYTES, "%llu",
		  (unsigned long long)info.bytes);
	cr_expect_eq(evbus_reader_open(bus, &(struct evbus_selection){ .topic = "t", .from = "0" }, &reader, &err),
		     EVBUS_NONE);
	cr_expect(strstr(err.text, "offset 0 of topic 't', partition 0 is gone") && strstr(err.text, info.first_offset),
		  "%s", err.text);
	OK(evbus_reader_open(bus, &(struct evbus_selection){ .topic = "t" }, &reader, &err));
	for (;; read++) {
		OK(evbus_reader_next(reader, 0, &record, &err));
		if (!record)
			break;
		cr_assert(scratch_number(record->offset.data) == first + read && record->payload.len == EVENT_BYTES);
	}
	cr_expect_eq(read, info.records);
	evbus_reader_close(reader);
	evbus_close(bus);
}

/* Of lengths that end everywhere before the edge of the ring, and three times round it. */
Test(memory, each_record_is_what_was_published_wherever_in_the_ring_it_lies)
{
	struct evbus *bus = open_bus("memory:?bytes=4194304");
	char payload[2 * EVENT_BYTES];
	const struct evbus_record *record, *receipt;
	struct evbus_reader *reader;

	OK(evbus_topic_create(bus, "t", NULL, &(bool){ false }, &err));
	OK(evbus_reader_open(bus, &(struct evbus_selection){ .topic = "t", .follow = true }, &reader, &err));
	for (int i = 0; i < 15000; i++) {
		int len = snprintf(payload, sizeof payload, "{\"a\":\"%0*d\"}", 1 + i * 7919 % (int)EVENT_BYTES, i);
		OK(evbus_publish(bus, "t", payload, &receipt, &err));
		cr_assert(receipt->payload.len == (size_t)len &&
			  !memcmp(receipt->payload.data, payload, receipt->payload.len));
		/* So that of some many are copied at once. */
		for (int left = i % 100 == 99 ? 100 : 0; left--;) {
			OK(evbus_reader_next(reader, 1000, &record, &err));
			cr_assert(record && scratch_number(record->offset.data) == (uint64_t)(i - left));
			len = snprintf(payload, sizeof payload, "{\"a\":\"%0*d\"}",
				       1 + (i - left) * 7919 % (int)EVENT_BYTES, i - left);
			cr_assert(record->payload.len == (size_t)len &&
				  !memcmp(record->payload.data, payload, (size_t)len));
		}
	}
	evbus_reader_close(reader);
	evbus_close(bus);
}

Test(memory, who_reads_too_slowly_is_told)
{
	struct evbus *bus = open_bus("memory:?bytes=4194304");
	const struct evbus_record *record;
	struct evbus_reader *reader;
	enum evbus_code code = EVBUS_OK;

	publish_many(bus, 1000);
	OK(evbus_reader_open(bus, &(struct evbus_selection){ .topic = "t" }, &reader, &err));
	publish_many(bus, 10000);
	for (int i = 0; i < 1000 && code == EVBUS_OK; i++)
		code = evbus_reader_next(reader, 0, &record, &err);
	cr_expect_eq(code, EVBUS_NONE);
	cr_expect(strstr(err.text, "is gone"), "%s", err.text);
	evbus_reader_close(reader);
	evbus_close(bus);
}

Test(memory, a_bus_without_a_name_is_nobody_elses_and_one_with_a_name_ends_with_its_last_handle)
{
	struct evbus *one = open_bus("memory:"), *other = open_bus("memory:"), *again;
	struct evbus_partition_info info;

	OK(evbus_publish(one, "t", "{}", NULL, &err));
	cr_expect_eq(evbus_topic_describe(other, "t", 0, &info, &err), EVBUS_NONE);
	evbus_close(one);
	evbus_close(other);
	one = open_bus("memory:n?bytes=4194304");
	other = open_bus("MEMORY:n");
	OK(evbus_publish(one, "t", "{}", NULL, &err));
	evbus_close(one);
	OK(evbus_topic_describe(other, "t", 0, &info, &err));
	cr_expect_eq(evbus_open("memory:n?bytes=8388608", NULL, &again, &err), EVBUS_CONFLICT);
	evbus_close(other);
	other = open_bus("memory:n");
	cr_expect_eq(evbus_topic_describe(other, "t", 0, &info, &err), EVBUS_NONE);
	evbus_close(other);
}

Test(memory, what_it_cannot_is_refused)
{
	static const char *const urls[] = { "memory:?bytes=", "memory:?bytes=1", "memory:?bytes=99999999999",
					    "memory:?x=1" };
	struct evbus_verify_options repair = { .partition_id = EVBUS_PARTITION_ALL, .repair = true };
	struct evbus_topic_options segments = { .segment_max_bytes = 65536 };
	struct evbus_checkpoint *checkpoints;
	struct evbus_verify_result result;
	struct evbus *bus;
	bool created;
	size_t count;

	for (size_t i = 0; i < sizeof urls / sizeof *urls; i++)
		cr_expect_eq(evbus_open(urls[i], NULL, &bus, &err), EVBUS_CONFIG, "%s", urls[i]);
	bus = open_bus("memory:");
	cr_expect_eq(evbus_verify(bus, NULL, &repair, &result, &err), EVBUS_CONFIG);
	cr_expect_eq(evbus_topic_create(bus, "t", &segments, &created, &err), EVBUS_CONFIG);
	cr_expect_eq(evbus_checkpoint_list(bus, NULL, NULL, &checkpoints, &count, &err), EVBUS_CONFIG);
	cr_expect(strstr(err.text, "--store"), "%s", err.text);
	evbus_close(bus);
}

Test(memory, a_forked_child_may_close_it)
{
	struct evbus *bus = open_bus("memory:n");
	int status;

	OK(evbus_publish(bus, "t", "{}", NULL, &err));
	pid_t child = fork();
	if (child == 0) {
		bool refused = evbus_publish(bus, "t", "{}", NULL, &err) == EVBUS_BUG;
		evbus_close(bus);
		_exit(refused ? 0 : 1);
	}
	cr_assert(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	OK(evbus_publish(bus, "t", "{}", NULL, &err));
	evbus_close(bus);
}
