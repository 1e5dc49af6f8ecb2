/* topic.c, and how the files of a bus are opened: names that cannot leave the root, and nothing followed that is
 * no file or directory of ours. */
#include "faulty.h"
#include "log_helpers.h"

#include <sys/socket.h>
#include <sys/un.h>

TestSuite(topic, .init = enter, .fini = leave, .timeout = 60);

static struct log_writer writer;
static const struct evbus_topic_options none;

static enum evbus_code create(const char *name, const struct evbus_topic_options *options)
{
	struct topic made;
	bool created;

	enum evbus_code code = topic_create(&root, name, options, &made, &created, &err);
	if (code == EVBUS_OK)
		topic_close(&made);
	return code;
}

static enum evbus_code open_named(const char *name)
{
	struct topic opened;

	enum evbus_code code = topic_open(&root, name, &opened, &err);
	if (code == EVBUS_OK)
		topic_close(&opened);
	return code;
}

static int entries(const char *path)
{
	DIR *dir = opendir(path);
	int count = 0;

	cr_assert_not_null(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count - 2;
}

/* ---- names ---- */

Test(topic, names_cannot_leave_the_root)
{
	static char long_name[251];
	static const char *const bad[] = { "",   ".",  "..",       "../x", "x/..", "x/y", "/x",     "./x",
					   ".x", "x.", "x..y",     "..x",  "x y",  "x\n", "x\\",    "x*",
					   ">",  "*",  "\xc3\xa9", "-x",   "_x",   "x/",  long_name };

	memset(long_name, 'a', 250);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		cr_assert_eq(create(bad[i], &none), EVBUS_USAGE, "'%s': %s", bad[i], err.text);
		cr_assert_eq(open_named(bad[i]), EVBUS_USAGE, "'%s'", bad[i]);
	}
	cr_assert_eq(entries(".."), 1);
	cr_assert_eq(entries("../.."), 1);
	long_name[249] = '\0';
	cr_assert_eq(create(long_name, &none), EVBUS_OK, "%s", err.text);
	open_topic(long_name, NULL);
	must_publish(0, 3);
	assert_log(3);
}

Test(topic, names_are_listed_sorted_and_by_pattern)
{
	char **names;

	for (int i = 0; i < 5; i++)
		cr_assert_eq(create((const char *[]){ "b.c", "a", "b.c.d", "Z", "b" }[i], &none), EVBUS_OK);
	cr_assert(!mkdir("../no-topic", 0700) && !mkdir("../.evbus", 0700));
	store("../file", "x", 1);
	cr_assert_eq(topic_names(&root, NULL, &names, &err), EVBUS_OK);
	for (int i = 0; i < 7; i++) {
		const char *expected = (const char *[]){ "Z", "a", "b", "b.c", "b.c.d", "t", NULL }[i];
		cr_assert(expected ? names[i] && !strcmp(names[i], expected) : !names[i]);
	}
	free(names);
	cr_assert_eq(topic_names(&root, "b.>", &names, &err), EVBUS_OK);
	cr_assert(!strcmp(names[0], "b.c") && !strcmp(names[1], "b.c.d") && !names[2]);
	free(names);
}

Test(topic, that_is_a_link_is_in_no_list_of_topics_but_is_told_of)
{
	char **names;

	cr_assert_eq(create("real", &none), EVBUS_OK);
	cr_assert(!symlink("real", "../way") && !symlink("nothing", "../nowhere") && !mkfifo("../pipe", 0600));
	cr_assert_eq(topic_names(&root, NULL, &names, &err), EVBUS_OK);
	cr_assert(!strcmp(names[0], "real") && !strcmp(names[1], "t") && !names[2]);
	free(names);
	cr_assert_eq(topic_unusable(&root, NULL, &names, &err), EVBUS_OK);
	cr_assert(!strcmp(names[0], "nowhere") && !strcmp(names[1], "way") && !names[2]);
	free(names);
}

/* ---- creating ---- */

Test(topic, that_is_there_with_other_options_is_a_conflict)
{
	struct evbus_topic_options options = { .partitions = 2, .segment_max_bytes = 1000 };

	cr_assert_eq(create("two", &options), EVBUS_OK);
	cr_assert_eq(create("two", &options), EVBUS_OK);
	cr_assert_eq(create("two", &none), EVBUS_OK);
	options.partitions = 3;
	cr_assert_eq(create("two", &options), EVBUS_CONFLICT);
	options = (struct evbus_topic_options){ .segment_max_bytes = 1001 };
	cr_assert_eq(create("two", &options), EVBUS_CONFLICT);
	options = (struct evbus_topic_options){ .partitions = EVBUS_PARTITIONS_MAX + 1 };
	cr_assert_eq(create("three", &options), EVBUS_USAGE);
	cr_assert_eq(open_named("three"), EVBUS_NONE);
	cr_assert(strstr(err.text, "there is no topic 'three' in 'bus'"), "%s", err.text);
}

static char first_id[LOG_ID_LEN + 1];

static void create_meanwhile(void)
{
	struct os mine = os;
	struct topic made;
	bool created;

	os = faulty.real;
	cr_assert_eq(topic_create(&root, "met", &none, &made, &created, &err), EVBUS_OK, "%s", err.text);
	memcpy(first_id, made.log_id, sizeof first_id);
	topic_close(&made);
	os = mine;
}

Test(topic, created_by_somebody_else_between_any_two_calls_is_one_log)
{
	struct topic made;
	unsigned at = 0;
	bool created;

	do {
		faulty_begin(++at, 0);
		faulty.instead = create_meanwhile;
		cr_assert_eq(topic_create(&root, "met", &none, &made, &created, &err), EVBUS_OK, "call %u: %s", at,
			     err.text);
		faulty_end();
		cr_assert(!faulty.failed || !memcmp(made.log_id, first_id, sizeof first_id), "call %u, %s", at,
			  faulty.failed);
		topic_close(&made);
		scratch_remove("../met");
	} while (faulty.failed);
	cr_assert_gt(at, 15u);
}

static void create_in_child(int to)
{
	struct topic made;
	bool created;

	if (topic_create(&root, "raced", &none, &made, &created, &err) || writer_open(&made, 0, NULL, &writer, &err) ||
	    publish(&writer, 0) || write(to, made.log_id, LOG_ID_LEN) != (ssize_t)LOG_ID_LEN)
		_exit(2);
	_exit(created);
}

Test(topic, created_by_16_processes_at_once_is_one_log)
{
	static struct reading reading;
	char id[LOG_ID_LEN], other[LOG_ID_LEN];
	pid_t children[16];
	int told[2], created = 0;

	cr_assert(!pipe(told));
	for (int i = 0; i < 16; i++)
		if (!(children[i] = fork()))
			create_in_child(told[1]);
	for (int i = 0; i < 16; i++) {
		int status = wait_for(children[i]);
		cr_assert_lt(status, 2);
		created += status;
		cr_assert_eq(read(told[0], other, LOG_ID_LEN), (ssize_t)LOG_ID_LEN);
		cr_assert(i == 0 || !memcmp(id, other, LOG_ID_LEN));
		memcpy(id, other, LOG_ID_LEN);
	}
	cr_assert_eq(created, 1);
	open_topic("raced", NULL);
	read_log(&reading);
	cr_assert(reading.code == EVBUS_OK && reading.count == 16);
	cr_assert_eq(entries("."), 3);
}

Test(topic, whose_making_was_killed_at_any_call_can_be_made)
{
	unsigned at = 0;

	do {
		int files = open_files();
		faulty_begin(++at, EIO);
		faulty.from_on = true;
		enum evbus_code code = create("half", &none);
		faulty_end();
		cr_assert_eq(open_files(), files);
		cr_assert(!faulty.failed || code != EVBUS_OK, "call %u", at);
		cr_assert(open_named("half") == EVBUS_OK || create("half", &none) == EVBUS_OK, "call %u: %s", at,
			  err.text);
		scratch_remove("../half");
	} while (faulty.failed);
	cr_assert_gt(at, 15u);
}

Test(topic, with_a_damaged_description_is_refused)
{
	static const char *const bad[] = {
		"",
		"{",
		"{}",
		"[]",
		"null",
		"{\"log_id\":\"x\"}",
		"{\"log_id\":\"0123456789abcdef0123456789abcdef\",\"partitions\":0,\"segment_max_bytes\":1,\"file_"
		"mode\":\"0600\"}",
		"{\"log_id\":\"0123456789abcdef0123456789abcdef\",\"partitions\":1025,\"segment_max_bytes\":1,\"file_"
		"mode\":\"0600\"}",
		"{\"log_id\":\"0123456789abcdef0123456789abcdef\",\"partitions\":1,\"segment_max_bytes\":0,\"file_"
		"mode\":\"0600\"}",
		"{\"log_id\":\"0123456789abcdef0123456789abcdef\",\"partitions\":1,\"segment_max_bytes\":1,\"file_"
		"mode\":\"999\"}",
		"{\"log_id\":\"0123456789abcdef0123456789abcdef\",\"partitions\":1,\"partitions\":2,\"segment_max_"
		"bytes\":1,\"file_mode\":\"0600\"}",
		"{\"log_id\":\"0123456789abcdef0123456789abcdef0\",\"partitions\":1,\"segment_max_bytes\":1,\"file_"
		"mode\":\"0600\"}",
	};

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		store("topic.json", bad[i], strlen(bad[i]));
		cr_assert_eq(open_named("t"), EVBUS_IO, "%s", bad[i]);
		cr_assert(strstr(err.text, "'t/topic.json' is damaged: "), "%s", err.text);
		cr_assert_eq(create("t", &none), EVBUS_IO);
	}
}

/* ---- several partitions ---- */

Test(topic, has_partitions_that_know_nothing_of_each_other)
{
	struct evbus_topic_options options = { .partitions = 3 };
	struct log_writer writers[3];
	struct line line;
	bool got;

	open_topic("three", &options);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(writer_open(&topic, i, NULL, &writers[i], &err), EVBUS_OK);
	for (uint64_t n = 0; n < 12; n++)
		cr_assert_eq(publish(&writers[n % 3], n), EVBUS_OK, "%s", err.text);
	for (int i = 0; i < 3; i++) {
		CLEANUP(cursor_close) struct cursor cursor;
		writer_close(&writers[i]);
		cr_assert_eq(cursor_open(&topic, i, 4096, &cursor, &err), EVBUS_OK);
		for (uint64_t n = 0; n < 4; n++) {
			cr_assert_eq(cursor_next(&cursor, UINT64_MAX, &line, &got, &err), EVBUS_OK);
			cr_assert(got && line.offset == n && event_number(&line) == 3 * n + (uint64_t)i);
		}
	}
	cr_assert_eq(writer_open(&topic, 3, NULL, &writer, &err), EVBUS_NONE);
	cr_assert(strstr(err.text, "has no partition 3: it has 3, counted from 0"), "%s", err.text);
	struct cursor beside;
	cr_assert_eq(cursor_open(&topic, 3, 4096, &beside, &err), EVBUS_NONE);
	cr_assert(strstr(err.text, "has no partition 3: it has 3, counted from 0"), "%s", err.text);
}

/* ---- what is no file of ours ---- */

enum thing {
	LINK,
	LINK_TO_NOTHING,
	PIPE,
	SOCKET,
	WRONG_KIND, /* a directory for a file, a file for a directory */
	THINGS,
};

static void make_socket(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	cr_assert(fd >= 0 && !bind(fd, (struct sockaddr *)&address, sizeof address));
	close(fd);
}

/* Something else stands in its place; it itself is kept beside the bus. */
static void put_thing(const char *path, enum thing thing, bool directory)
{
	char outside[PATH_MAX];

	snprintf(outside, sizeof outside, "%s/outside", scratch);
	cr_assert(!rename(path, outside), "%s", path);
	switch (thing) {
	case LINK:
		cr_assert(!symlink(outside, path));
		break;
	case LINK_TO_NOTHING:
		cr_assert(!symlink("/nonexistent/target", path));
		break;
	case PIPE:
		cr_assert(!mkfifo(path, 0600));
		break;
	case SOCKET:
		make_socket(path);
		break;
	default:
		cr_assert(directory ? mknod(path, S_IFREG | 0600, 0) == 0 : mkdir(path, 0700) == 0);
	}
}

static void take_back(const char *path)
{
	char outside[PATH_MAX];

	snprintf(outside, sizeof outside, "%s/outside", scratch);
	scratch_remove(path);
	cr_assert(!rename(outside, path), "%s", path);
}

static void assert_conflict(enum evbus_code code, const char *path, enum thing thing)
{
	cr_assert(code == EVBUS_CONFLICT, "%s %d: %d %s", path, thing, code, code ? err.text : "accepted");
	cr_assert(strstr(err.text, thing <= LINK_TO_NOTHING ? "symbolic link" : " is "), "%s", err.text);
}

/* Refused at once by whoever opens it. */
static void assert_refused(const char *path, enum thing thing, bool directory, bool by_writers)
{
	static struct reading reading;

	put_thing(path, thing, directory);
	alarm(10);
	if (by_writers)
		assert_conflict(open_writer(&writer), path, thing);
	read_log(&reading);
	assert_conflict(reading.code, path, thing);
	alarm(0);
	take_back(path);
	read_log(&reading);
	cr_assert(reading.code == EVBUS_OK && reading.count == 20);
}

Test(topic, refuses_what_is_no_file_or_directory_in_place_of_one)
{
	open_rolling(400);
	must_publish(0, 20);
	for (int thing = 0; thing < THINGS; thing++) {
		assert_refused(LIVE, (enum thing)thing, false, true);
		assert_refused(LOCK, (enum thing)thing, false, true);
		assert_refused("partition=0", (enum thing)thing, true, true);
		assert_refused("partition=0/00000000000000000000.jsonl", (enum thing)thing, false, false);
	}
	must_publish(20, 1);
	assert_log(21);
}

/* What is written to it would be written to a file that is not of the bus. */
Test(topic, writes_to_no_file_that_has_another_name)
{
	static const char *const paths[] = { LIVE, LOCK };
	static struct reading reading;

	must_publish(0, 3);
	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
		cr_assert(!link(paths[i], "../outside"));
		cr_assert_eq(open_writer(&writer), EVBUS_CONFLICT, "%s", paths[i]);
		cr_assert(strstr(err.text, paths[i]) && strstr(err.text, "has 2 names"), "%s", err.text);
		read_log(&reading);
		cr_assert(reading.code == EVBUS_OK && reading.count == 3, "it can be read");
		cr_assert(!unlink("../outside"));
	}
	must_publish(3, 1);
	assert_log(4);
}

Test(topic, refuses_what_is_no_topic_in_place_of_one)
{
	must_publish(0, 1);
	cr_assert(!chdir(".."));
	for (int thing = 0; thing < THINGS; thing++) {
		alarm(10);
		put_thing("t", (enum thing)thing, true);
		assert_conflict(open_named("t"), "t", (enum thing)thing);
		assert_conflict(create("t", &none), "t", (enum thing)thing);
		take_back("t");
		put_thing("t/topic.json", (enum thing)thing, false);
		assert_conflict(open_named("t"), "topic.json", (enum thing)thing);
		assert_conflict(create("t", &none), "topic.json", (enum thing)thing);
		take_back("t/topic.json");
		alarm(0);
	}
	cr_assert_eq(open_named("t"), EVBUS_OK);
}
