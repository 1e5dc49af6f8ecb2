/* Any call fails while the log is read, searched, recovered and verified, and while topics are made and looked at. */
#include "sweep.h"

#include "log/control.h"
#include "log/writer.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>

#define RECORDS 20u
#define LIVE "bus/" TOPIC "/partition=0.jsonl"
#define LOCK "bus/" TOPIC "/partition=0.lock"

static struct evbus *bus;

static void setup(void)
{
	run_begin(IN_MEMORY);
}

TestSuite(sweep_read, .init = setup, .fini = run_end, .timeout = 400);

static void close_bus(void)
{
	evbus_close(bus);
	bus = NULL;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static void make_segments(void)
{
	make_topic(1, 1000);
	sweep_publish_some(RECORDS);
	bus = open_bus();
}

static void make_segments_without_page(void)
{
	make_segments();
	CHECK(!unlink(LOCK), "unlink: %s", strerror(errno));
}

/* What it gives is right, and all of it, or it fails. */
static enum evbus_code read_selection(const struct evbus_selection *selection, uint64_t first, struct evbus_err *err)
{
	struct evbus_reader *reader;
	const struct evbus_record *record = NULL;
	uint64_t next = first, offset;

	TRY(evbus_reader_open(bus, selection, &reader, err));
	enum evbus_code code = evbus_reader_next(reader, 0, &record, err);
	for (; !code && record; code = evbus_reader_next(reader, 0, &record, err)) {
		(void)sweep_event_of(record);
		CHECK(decimal_parse(record->offset, &offset) && offset == next++, "offset %.*s",
		      (int)record->offset.len, record->offset.data);
	}
	evbus_reader_close(reader);
	CHECK(code || next >= RECORDS, "the log ends at %llu", (unsigned long long)next);
	return code;
}

static enum evbus_code read_all(struct evbus_err *err)
{
	return read_selection(&(struct evbus_selection){ .topic = TOPIC, .partition_id = EVBUS_PARTITION_ALL }, 0, err);
}

Test(sweep_read, of_reading)
{
	sweep(&(struct operation){ "read", make_segments, read_all, .finish = close_bus });
}

Test(sweep_read, of_reading_without_a_page)
{
	sweep(&(struct operation){ "read without a page", make_segments_without_page, read_all, .finish = close_bus });
}

static enum evbus_code follow(struct evbus_err *err)
{
	return read_selection(
		&(struct evbus_selection){ .topic = "*", .partition_id = EVBUS_PARTITION_ALL, .follow = true }, 0, err);
}

Test(sweep_read, of_following)
{
	sweep(&(struct operation){ "follow", make_segments, follow, .finish = close_bus });
}

/* ---- seeking ---- */

static char time_of_the_13th[40];
static uint64_t first_at_that_time;

static void make_segments_and_look(void)
{
	struct evbus_selection selection = { .topic = TOPIC, .partition_id = EVBUS_PARTITION_ALL };
	char times[RECORDS][28];
	struct evbus_reader *reader;
	const struct evbus_record *record;

	make_segments();
	CHECK_OK(evbus_reader_open(bus, &selection, &reader, ERR));
	for (unsigned i = 0; i < RECORDS; i++) {
		CHECK_OK(evbus_reader_next(reader, 0, &record, ERR));
		snprintf(times[i], sizeof times[i], "%.*s", (int)record->published_at_utc.len,
			 record->published_at_utc.data);
	}
	evbus_reader_close(reader);
	snprintf(time_of_the_13th, sizeof time_of_the_13th, "@%s", times[13]);
	for (first_at_that_time = 13; first_at_that_time && !strcmp(times[first_at_that_time - 1], times[13]);)
		first_at_that_time--;
}

static enum evbus_code seek(struct evbus_err *err)
{
	struct evbus_selection selection = { .topic = TOPIC, .partition_id = 0, .from = "13" };

	TRY(read_selection(&selection, 13, err));
	selection.from = time_of_the_13th;
	TRY(read_selection(&selection, first_at_that_time, err));
	selection.from = NULL;
	selection.since = time_of_the_13th + 1;
	return read_selection(&selection, first_at_that_time, err);
}

Test(sweep_read, of_seeking)
{
	sweep(&(struct operation){ "seek", make_segments_and_look, seek, .finish = close_bus });
}

/* ---- recovery -------------------------------------------------------------------------------------------------- */

static void append_bytes(const void *data, size_t len)
{
	int fd = open(LIVE, O_WRONLY | O_APPEND | O_CLOEXEC);

	CHECK(fd >= 0 && write(fd, data, len) == (ssize_t)len && !close(fd), "cannot write %s", LIVE);
}

/* One event that was appended and not synced, by a writer that died; the page says so, and flag. */
static void append_unsynced(enum control_flag flag)
{
	struct root root;
	struct topic topic;
	struct log_writer writer;
	struct group group = { 0 };
	struct line_body body = { .payload = sweep_payload(sweep_submit(0)) };
	struct mark mark;

	CHECK_OK(root_open(&root, "bus", false, ERR));
	CHECK_OK(topic_open(&root, TOPIC, &topic, ERR));
	CHECK_OK(writer_open(&topic, 0, NULL, &writer, ERR));
	CHECK_OK(group_add(&group, &body, writer.expected.next, os_now_us(), ERR));
	CHECK_OK(writer_append(&writer, &group, UINT64_MAX, &mark, ERR));
	CHECK_OK(control_flag(&writer.control, &mark.view, flag, true, ERR));
	group_release(&group);
	writer_close(&writer);
	topic_close(&topic);
	root_close(&root);
}

static int another_boot(char id[36])
{
	memset(id, 'b', 36);
	return 0;
}

static const char half_a_line[] = "{\"crc32c\":\"01234567\",\"off", zeros[100];

static void make_log(void)
{
	make_topic(1, 0);
	sweep_publish_some(4);
	bus = open_bus();
}

static void leave_half_a_line(void)
{
	make_log();
	append_bytes(half_a_line, sizeof half_a_line - 1);
}

static void leave_no_page(void)
{
	leave_half_a_line();
	CHECK(!unlink(LOCK), "unlink: %s", strerror(errno));
}

static void leave_zeros_and_restart(void)
{
	make_log();
	append_bytes(zeros, sizeof zeros);
	os.boot_id = another_boot;
}

static void leave_a_leader(void)
{
	make_log();
	append_unsynced(CONTROL_SYNCING);
}

static void leave_a_halt(void)
{
	make_log();
	append_unsynced(CONTROL_HALT);
	append_bytes(half_a_line, sizeof half_a_line - 1);
}

static void leave_all_and_restart(void)
{
	leave_a_leader();
	append_bytes(half_a_line, sizeof half_a_line - 1);
	os.boot_id = another_boot;
}

/* A roll that was killed before the two files were exchanged. */
static void leave_half_a_roll(void)
{
	make_topic(1, 500);
	sweep_publish_some(4);
	int fd = open("bus/" TOPIC "/partition=0/00000000000000000004.jsonl", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0 && !close(fd), "cannot make a segment: %s", strerror(errno));
	CHECK(!unlink(LOCK), "unlink: %s", strerror(errno));
	bus = open_bus();
}

static enum evbus_code publish_one(struct evbus_err *err)
{
	return sweep_publish(bus, err);
}

static const struct operation recoveries[] = {
	{ "recovery from half a line", leave_half_a_line, publish_one, .finish = close_bus },
	{ "recovery from half a line without a page", leave_no_page, publish_one, .finish = close_bus },
	{ "recovery from zeros after a restart", leave_zeros_and_restart, publish_one, .finish = close_bus },
	{ "recovery from a leader that died", leave_a_leader, publish_one, .finish = close_bus },
	{ "recovery from a halt", leave_a_halt, publish_one, .finish = close_bus },
	{ "recovery from all of it after a restart", leave_all_and_restart, publish_one, .finish = close_bus },
	{ "recovery from half a roll", leave_half_a_roll, publish_one, .finish = close_bus },
};

Test(sweep_read, of_recovery)
{
	for (size_t i = 0; i < sizeof recoveries / sizeof *recoveries; i++)
		sweep(&recoveries[i]);
}

/* ---- verify ---------------------------------------------------------------------------------------------------- */

/* What the disk does not give is told as damage, and the others are looked at; any other failure is none. */
static bool unreadable;

static void on_finding(void *context, const struct evbus_finding *finding)
{
	(void)context;
	unreadable = unreadable || strstr(finding->text, strerror(EIO));
	CHECK(unreadable || (finding->severity == EVBUS_NOTE && !strcmp(finding->what, "tail")), "%s: %s",
	      finding->what, finding->text);
}

static void make_segments_with_a_tail(void)
{
	make_segments();
	append_bytes(half_a_line, sizeof half_a_line - 1);
}

static enum evbus_code verify_with(bool repair, struct evbus_verify_result *result, struct evbus_err *err)
{
	struct evbus_verify_options options = {
		.deep = true, .repair = repair, .finding = on_finding, .partition_id = EVBUS_PARTITION_ALL
	};

	unreadable = false;
	TRY(evbus_verify(bus, "*", &options, result, err));
	if (unreadable)
		return err_set(err, EVBUS_IO, EIO, "%llu damages", (unsigned long long)result->damages);
	CHECK(result->records >= RECORDS && result->damages == 0, "%llu records, %llu damages",
	      (unsigned long long)result->records, (unsigned long long)result->damages);
	return EVBUS_OK;
}

static enum evbus_code verify(struct evbus_err *err)
{
	struct evbus_verify_result result;

	TRY(verify_with(false, &result, err));
	CHECK(result.notes || result.records > RECORDS, "the tail was not told");
	return EVBUS_OK;
}

static enum evbus_code repair(struct evbus_err *err)
{
	struct evbus_verify_result result;

	return verify_with(true, &result, err);
}

Test(sweep_read, of_verify)
{
	sweep(&(struct operation){ "verify", make_segments_with_a_tail, verify, .finish = close_bus });
}

Test(sweep_read, of_repair)
{
	sweep(&(struct operation){ "verify --repair", make_segments_with_a_tail, repair, .finish = close_bus });
}

/* ---- topics ---------------------------------------------------------------------------------------------------- */

static void open_beside(void)
{
	make_log();
}

static void only_open(void)
{
	bus = open_bus();
}

static enum evbus_code create(struct evbus_err *err)
{
	struct evbus_topic_options options = { .partitions = 3, .segment_max_bytes = 5000 };
	struct evbus_partition_info info;
	bool created;

	TRY(evbus_topic_create(bus, "bills", &options, &created, err));
	TRY(evbus_topic_describe(bus, "bills", 2, &info, err));
	CHECK(info.partitions == 3 && info.segment_max_bytes == 5000, "%u partitions", info.partitions);
	return EVBUS_OK;
}

Test(sweep_read, of_making_a_topic)
{
	sweep(&(struct operation){ "topic-create", open_beside, create, .finish = close_bus });
}

Test(sweep_read, of_making_a_topic_and_its_bus)
{
	sweep(&(struct operation){ "topic-create of a bus", only_open, create, .finish = close_bus });
}

static void make_topics(void)
{
	make_log();
	CHECK_OK(create(ERR));
}

static enum evbus_code list_and_describe(struct evbus_err *err)
{
	struct evbus_partition_info info;
	char **names;

	TRY(evbus_topic_list(bus, NULL, &names, err));
	bool all = names[0] && names[1] && !strcmp(names[0], "bills") && !strcmp(names[1], TOPIC) && !names[2];
	evbus_free(names);
	CHECK(all, "a topic is missing");
	TRY(evbus_topic_describe(bus, TOPIC, 0, &info, err));
	CHECK(info.records >= 4, "%llu records", (unsigned long long)info.records);
	return EVBUS_OK;
}

Test(sweep_read, of_listing_and_describing_topics)
{
	sweep(&(struct operation){ "topic-list and topic-describe", make_topics, list_and_describe,
				   .finish = close_bus });
}

/* ---- configuration --------------------------------------------------------------------------------------------- */

#ifdef EVBUS_TEST_YAML
static void write_configuration(void)
{
	static const char text[] = "bus: file:x\nlog: text\nprofiles: {dev: {log: json, event_bus_kind: file}}\n"
				   "outboxes: {o: {url: x, map: {a: 'b c'}}}\n"
				   "partitionings: {t: {topics: [a, b], key_from: [/c, /d]}}\n";
	FILE *file = fopen("evbus.yaml", "w");

	CHECK(file && fwrite(text, 1, sizeof text - 1, file) == sizeof text - 1 && !fclose(file), "cannot write");
}

static enum evbus_code read_configuration(struct evbus_err *err)
{
	static const char *const settings[] = { "log", NULL };
	struct evbus_config_options options = { .profile = "dev", .settings = settings };
	struct evbus_config *config;

	TRY(evbus_config_open(&options, &config, err));
	CHECK(config && config->outbox_count == 1 && config->partitioning_count == 1, "it was not read whole");
	evbus_config_close(config);
	return EVBUS_OK;
}

Test(sweep_read, of_reading_the_configuration)
{
	sweep(&(struct operation){ "configuration", write_configuration, read_configuration, .no_log = true });
}
#endif
