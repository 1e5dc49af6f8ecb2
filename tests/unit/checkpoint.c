/* checkpoint.c and position.c: what cannot be made, or named. */
#include "delivery/checkpoint.h"
#include "delivery/position.h"
#include "log_helpers.h"

TestSuite(checkpoint, .init = enter, .fini = leave, .timeout = 60);

static struct backend *backend;
static struct backend_topic *read_topic;
static struct partition_reader *reader;

/* Over the same bus, which is above the working directory. */
static void open_reader(void)
{
	static const struct backend_options options = { .file_mode = 0600, .dir_mode = 0700 };

	cr_assert_eq(backend_file.open("..", "..", &options, &backend, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(backend_file.ready(backend, false, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(backend_file.topic_open(backend, "t", &read_topic, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(partition_open(read_topic, 0, 65536, false, &reader, &err), EVBUS_OK, "%s", err.text);
}

static void close_reader(void)
{
	partition_close(&reader);
	backend_topic_close(&read_topic);
	backend_file.close(backend);
}

/* It would have no fingerprint, and fit on any log. */
Test(checkpoint, behind_a_damaged_record_is_neither_made_nor_believed)
{
	struct evbus_checkpoint made = { .group = "" }, none = made;
	uint64_t next = 99;

	must_publish(0, 4);
	open_reader();
	flip_payload(1);
	cr_assert_eq(checkpoint_make(reader, "g", 2, &made, &err), EVBUS_IO);
	cr_assert(strstr(err.text, "partition=0.jsonl") && strstr(err.text, "damaged"), "%s", err.text);
	cr_assert(!memcmp(&made, &none, sizeof made));
	flip_payload(1);
	cr_assert_eq(checkpoint_make(reader, "g", 2, &made, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(strlen(made.fingerprint), 8);
	flip_payload(1);
	cr_assert_eq(checkpoint_check(reader, &made, &next, &err), EVBUS_IO);
	cr_assert_eq(next, 99);
	flip_payload(1);
	cr_assert_eq(checkpoint_check(reader, &made, &next, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(next, 2);
	close_reader();
}

Test(checkpoint, a_time_that_is_none_is_no_position)
{
	static const char *const texts[] = { "@", "@yesterday", "@2026-13-01T00:00:00Z" };
	struct position position = { .number = 7 };

	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		cr_assert_eq(position_parse(texts[i], &position, &err), EVBUS_USAGE, "%s", texts[i]);
		cr_assert(strstr(err.text, texts[i] + 1) && position.number == 7, "%s", err.text);
	}
}

Test(checkpoint, an_offset_that_no_log_of_files_can_have_is_no_position)
{
	struct position position;
	uint64_t offset = 99;

	must_publish(0, 1);
	open_reader();
	cr_assert_eq(position_parse("18446744073709551616", &position, &err), EVBUS_OK);
	cr_assert_eq(position_resolve(&position, reader, &offset, &err), EVBUS_USAGE);
	cr_assert_str_eq(err.text, "'18446744073709551616' is not an offset that topic 't' can have");
	cr_assert_eq(offset, 99);
	close_reader();
}

Test(checkpoint, the_stored_position_of_nobody_is_none)
{
	struct position position;
	uint64_t offset = 99;

	must_publish(0, 1);
	open_reader();
	cr_assert_eq(position_parse("stored", &position, &err), EVBUS_OK);
	cr_assert_eq(position_resolve(&position, reader, &offset, &err), EVBUS_USAGE);
	cr_assert_str_eq(err.text, "'stored' needs a group: say which with --group");
	cr_assert_eq(offset, 99);
	close_reader();
}
