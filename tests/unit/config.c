/* The configuration as the library reads it, mostly from files that mean no good. */
#include "config.h"
#include "faulty.h"
#include "scratch.h"

#include <time.h>

static char modules[PATH_MAX];
static char scratch[64];
static struct evbus_err err;
static struct evbus_config *config;

static void setup(void)
{
	scratch_find_modules(modules);
	scratch_enter(scratch);
}

static void teardown(void)
{
	evbus_config_close(config);
	scratch_leave(scratch);
}

TestSuite(config, .init = setup, .fini = teardown, .timeout = 60);

static void write_file(const char *text, size_t len)
{
	/* ext4 flushes a file that was cut to nothing when it is closed: a new one is quicker. */
	remove("c.yaml");
	FILE *file = fopen("c.yaml", "wbx");
	cr_assert(file && fwrite(text, 1, len, file) == len && !fclose(file));
	cr_assert(!chmod("c.yaml", 0600));
}

static enum evbus_code open_file(const char *profile)
{
	static const char *const settings[] = { "log", "retry_max", NULL };
	const struct evbus_config_options options = { .path = "c.yaml", .profile = profile, .settings = settings };

	evbus_config_close(config);
	config = NULL;
	return config_open(&options, modules, &config, &err);
}

static enum evbus_code read_bytes(const char *text, size_t len)
{
	write_file(text, len);
	return open_file(NULL);
}

static enum evbus_code read_text(const char *text)
{
	return read_bytes(text, strlen(text));
}

static void refused_at(const char *text, size_t len, const char *place, const char *why)
{
	char begin[64];

	cr_assert_eq(read_bytes(text, len), EVBUS_CONFIG, "%s", text);
	snprintf(begin, sizeof begin, "c.yaml:%s: ", place);
	cr_assert(!strncmp(err.text, begin, strlen(begin)) && strstr(err.text, why), "%s", err.text);
	cr_assert_null(config);
}

/* before, count times each, after; for free(). */
static char *repeated(const char *before, const char *each, size_t count, const char *after)
{
	size_t len = strlen(each), at = strlen(before);
	char *text = malloc(at + count * len + strlen(after) + 1);

	cr_assert_not_null(text);
	memcpy(text, before, at);
	for (size_t i = 0; i < count; i++, at += len)
		memcpy(text + at, each, len);
	memcpy(text + at, after, strlen(after) + 1);
	return text;
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- what it says ---------------------------------------------------------------------------------------------- */

Test(config, gives_what_stands_in_it_with_line_and_column)
{
	cr_assert_eq(read_text("# words\nbus:  file:x\nretry-max: 3\n"), EVBUS_OK, "%s", err.text);
	cr_assert_str_eq(config->path, "c.yaml");
	cr_assert_null(config->profile);
	cr_assert_eq(config->setting_count, 2);
	cr_assert_str_eq(config->settings[0].name, "retry_max", "as the program has it");
	cr_assert_str_eq(config->settings[0].value, "3");
	cr_assert_eq(config->settings[0].line, 3);
	cr_assert_eq(config->settings[0].column, 12);
	cr_assert_str_eq(config->settings[1].name, "bus");
	cr_assert_str_eq(config->settings[1].value, "file:x");
	cr_assert_eq(config->settings[1].column, 7);
}

Test(config, of_a_profile_comes_before_the_rest_entry_by_entry)
{
	cr_assert_eq(read_text("{bus: a, log: json, outboxes: {o: {url: x}, p: {url: y}},\n"
			       "partitionings: {t: {topics: t, key_from: /a}, all: {topics: '>', key_from: /b}},\n"
			       "profiles: {dev: {log: text, outboxes: {p: {wrap: true}},\n"
			       "partitionings: {u: {topics: [u, t], key_from: [/c, /d]}}}, other: {log: x}}}"),
		     EVBUS_OK, "%s", err.text);
	cr_assert_str_eq(config_key_from(config, "t"), "/a");
	cr_assert_eq(open_file("dev"), EVBUS_OK, "%s", err.text);
	cr_assert_str_eq(config->profile, "dev");
	cr_assert_eq(config->setting_count, 2);
	cr_assert(config->settings[0].of_profile && !strcmp(config->settings[0].value, "text"));
	cr_assert_eq(config->outbox_count, 2);
	cr_assert(!strcmp(config->outboxes[0].name, "p") && config->outboxes[0].wrap && !config->outboxes[0].url);
	cr_assert_str_eq(config->outboxes[1].url, "x");
	cr_assert_eq(config->partitioning_count, 3);
	cr_assert_str_eq(config_key_from(config, "t"), "/c,/d");
	cr_assert_str_eq(config_key_from(config, "v.w"), "/b");
	cr_assert_null(config_key_from(NULL, "t"));
}

Test(config, that_is_empty_says_nothing)
{
	static const char *const empty[] = { "", "\n", "# x", "---\n", "--- ~\n...\n", "{}", "evbus:\nx: *y", "%YAML 1.1\n---\n" };

	for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
		enum evbus_code code = read_text(empty[i]);
		cr_assert_eq(code, EVBUS_OK, "%s: %s", empty[i], err.text);
		cr_assert(config && !config->setting_count && !config->outbox_count && !config->partitioning_count);
	}
}

Test(config, that_is_not_there_is_null_or_an_error_and_closing_null_is_nothing)
{
	const struct evbus_config_options none = { .path = "/dev/null" };
	const struct evbus_config_options profile = { .path = "/dev/null", .profile = "dev" };

	config = (void *)-1;
	cr_assert_eq(config_open(&none, modules, &config, &err), EVBUS_OK);
	cr_assert_null(config);
	cr_assert_eq(config_open(&profile, modules, &config, &err), EVBUS_CONFIG);
	cr_assert(strstr(err.text, "no profile 'dev'"), "%s", err.text);
	cr_assert_eq(open_file(NULL), EVBUS_CONFIG);
	cr_assert_str_eq(err.text, "there is no configuration 'c.yaml'");
	evbus_config_close(NULL);
}

Test(config, without_the_module_names_what_to_install)
{
	const struct evbus_config_options options = { .path = "c.yaml" };

	write_file("bus: x", 6);
	cr_assert_eq(config_open(&options, scratch, &config, &err), EVBUS_CONFIG);
	cr_assert(!strncmp(err.text, "cannot read the configuration 'c.yaml': the format 'yaml' needs", 63), "%s", err.text);
	cr_assert(strstr(err.text, "needs libevbus-yaml.so") && strstr(err.text, "libyaml-dev"), "%s", err.text);
}

Test(config, knows_only_the_settings_that_the_program_names)
{
	const struct evbus_config_options options = { .path = "c.yaml" };

	cr_assert_eq(read_text("log: x"), EVBUS_OK);
	cr_assert_eq(config_open(&options, modules, &config, &err), EVBUS_CONFIG);
	cr_assert_str_eq(err.text, "c.yaml:1:1: unknown key 'log'; see evbus-config(5)");
}

/* ---- what means no good ---------------------------------------------------------------------------------------- */

Test(config, with_bytes_that_are_no_text_is_refused_where_they_are)
{
	static const struct {
		const char *text;
		size_t len;
		const char *place;
	} cases[] = {
		{ "bus: a\0b\n", 9, "1:7" },
		{ "\n\nbus: \001\n", 9, "3:6" },
		{ "bus: '\xff'\n", 9, "1:7" },
		{ "log: '\xc3\xa9\xc3\xa9\xe2\x82'\n", 14, "1:10" },
		{ "bus: '\xc0\xaf'\n", 10, "1:7" },
		{ "bus: '\xed\xa0\x80'\n", 11, "1:7" },
		{ "bus: '\xf4\x90\x80\x80'\n", 12, "1:7" },
		{ "\xff\xfe" "b\0u\0s\0", 8, "1:1" },
		{ "\xfe\xff\0b\0u\0s", 8, "1:1" },
		{ "bus: 'a\xe2", 8, "1:8" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		refused_at(cases[i].text, cases[i].len, cases[i].place, "this is not YAML: ");
}

Test(config, with_a_nul_behind_an_escape_is_refused)
{
	refused_at("bus: \"a\\0b\"", 11, "1:6", "a text cannot have a NUL");
	refused_at("\"bu\\0s\": a", 10, "1:1", "a text cannot have a NUL");
	refused_at("bus: \"a\\x00\"", 12, "1:6", "a text cannot have a NUL");
}

Test(config, columns_count_characters)
{
	refused_at("bus: '\xc3\xa9\xe2\x82\xac', x", 15, "1:10", "");
	refused_at("{bus: '\xc3\xa9\xe2\x82\xac', x: 1}", 20, "1:13", "unknown key 'x'");
}

Test(config, nested_too_deep_is_refused_at_once)
{
	static const char *const opening[] = { "[", "{a: ", "- ", "? ", "{[" };

	for (size_t i = 0; i < sizeof opening / sizeof *opening; i++) {
		double begin = seconds();
		char *text = repeated("", opening[i], 200000, "");
		cr_assert_eq(read_text(text), EVBUS_CONFIG);
		cr_assert(strstr(err.text, "this is nested too deep"), "%s: %s", opening[i], err.text);
		cr_assert_lt(seconds() - begin, 2.0);
		free(text);
	}
}

Test(config, may_have_neighbours_of_some_depth)
{
	char *deep = repeated("evbus:\nother: ", "[", 63, ""), *close = repeated(deep, "]", 63, "\n");

	cr_assert_eq(read_text(close), EVBUS_OK, "%s", err.text);
	free(deep);
	free(close);
	deep = repeated("evbus:\nother: ", "[", 64, "");
	close = repeated(deep, "]", 64, "\n");
	refused_at(close, strlen(close), "2:71", "this is nested too deep");
	free(deep);
	free(close);
}

Test(config, aliases_that_refer_to_aliases_do_not_grow)
{
	char text[8192] = "evbus: {bus: x}\na0: &a0 [lol]\n";
	double begin = seconds();

	for (int i = 1; i < 60; i++) {
		size_t len = strlen(text);
		snprintf(text + len, sizeof text - len, "a%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d, *a%d]\n", i, i, i - 1, i - 1,
			 i - 1, i - 1, i - 1, i - 1);
	}
	cr_assert_eq(read_text(text), EVBUS_OK, "%s", err.text);
	cr_assert_lt(seconds() - begin, 1.0);
	refused_at("log: &a x\nbus: *a", 17, "2:6", "'bus': aliases are not followed");
	refused_at("&a evbus: *a", 12, "1:11", "'evbus': aliases are not followed");
	refused_at("outboxes: &a {b: *a}", 20, "1:18", "'b': aliases are not followed");
	refused_at("log: &a x\n*a : y", 16, "2:1", "a key is a text, and this is an alias");
}

Test(config, with_more_in_it_than_anybody_means_is_refused)
{
	char *text = repeated("evbus:\nx: [", "a,", 500000, "]");
	double begin = seconds();

	cr_assert_eq(read_text(text), EVBUS_CONFIG);
	cr_assert(strstr(err.text, "there is too much in this file"), "%s", err.text);
	cr_assert_lt(seconds() - begin, 2.0);
	free(text);
	/* As large as may be: one long text, and one of many lines. */
	text = repeated("log: ", "x", 1048576 - 5, "");
	cr_assert_eq(read_text(text), EVBUS_OK, "%s", err.text);
	cr_assert_eq(strlen(config->settings[0].value), 1048576 - 5);
	cr_assert_eq(read_bytes(text, 1048576), EVBUS_OK);
	free(text);
	text = repeated("log: 'x", " y\n", 349000, "'");
	cr_assert_eq(read_text(text), EVBUS_OK, "%s", err.text);
	free(text);
}

Test(config, may_be_as_large_as_its_limit_and_not_a_byte_more)
{
	char *text = repeated("", "#", 1048577, "");

	cr_assert_eq(read_bytes(text, 1048576), EVBUS_OK, "%s", err.text);
	cr_assert_eq(read_bytes(text, 1048577), EVBUS_CONFIG);
	cr_assert_str_eq(err.text, "the configuration 'c.yaml' is larger than 1 MiB");
	free(text);
}

Test(config, has_limits_for_keys_names_and_texts)
{
	char text[32768] = "profiles:\n", *at = text + strlen(text), *long_text;

	for (int i = 0; i < 256; i++)
		at += snprintf(at, (size_t)(text + sizeof text - at), " p%d: {}\n", i);
	cr_assert_eq(read_text(text), EVBUS_OK, "%s", err.text);
	snprintf(at, (size_t)(text + sizeof text - at), " p256: {}\n");
	refused_at(text, strlen(text), "258:2", "there are more than 256 keys here");
	long_text = repeated("outboxes: {", "n", 64, ": {}}");
	cr_assert_eq(read_text(long_text), EVBUS_OK, "%s", err.text);
	free(long_text);
	long_text = repeated("outboxes: {", "n", 65, ": {}}");
	refused_at(long_text, strlen(long_text), "1:12", "at most 64 letters");
	free(long_text);
	long_text = repeated("outboxes: {o: {map: {a: ", "n", 5000, "}}}");
	refused_at(long_text, strlen(long_text), "1:25", "more than 4096 bytes");
	free(long_text);
	long_text = repeated("partitionings: {o: {topics: t, key_from: [", "/a,", 3000, "/a]}}");
	refused_at(long_text, strlen(long_text), "1:811", "more than 256 in this list");
	free(long_text);
	long_text = repeated("partitionings: {\n", "", 0, "");
	for (int i = 0; i < 9; i++) {
		char name[32];
		snprintf(name, sizeof name, "p%d: {topics: [", i);
		char *begun = repeated(long_text, name, 1, ""), *listed = repeated(begun, "t,", 250, "], key_from: /k},\n");
		free(begun);
		free(long_text);
		long_text = listed;
	}
	char *closed = repeated(long_text, "}", 1, "");
	refused_at(closed, strlen(closed), "10:93", "more than 2048 topics");
	free(closed);
	free(long_text);
	long_text = repeated("", "u", 3000, ": x");
	cr_assert_eq(read_text(long_text), EVBUS_CONFIG, "an unknown key of any length");
	free(long_text);
}

/* ---- what goes wrong ------------------------------------------------------------------------------------------- */

static const char rich[] = "bus: file:x\nlog: text\nprofiles: {dev: {log: json, event_bus_kind: file}}\n"
			   "outboxes: {o: {url: x, map: {a: 'b c'}}}\n"
			   "partitionings: {t: {topics: [a, b], key_from: [/c, /d]}}\n";

Test(config, survives_every_failure_of_the_system)
{
	enum evbus_code code = EVBUS_OK;

	write_file(rich, sizeof rich - 1);
	for (unsigned at = 1; at == 1 || faulty.failed; at++) {
		faulty_begin(at, ENOMEM);
		code = open_file("dev");
		faulty_end();
		cr_assert(!code || (code == EVBUS_IO && !config && err.text[0]), "%u: %d %s", at, (int)code, err.text);
		cr_assert_lt(at, 50);
	}
	cr_assert_eq(code, EVBUS_OK, "%s", err.text);
	cr_assert_str_eq(config->outboxes[0].map, "a='b c'");
}

/* Bytes are changed, doubled and left out at random: it is read or refused, and never anything else. */
Test(config, survives_whatever_stands_in_it)
{
	char text[sizeof rich];
	unsigned seed = 4711, read = 0, refused = 0;
	const char *const profiles[] = { NULL, "dev" };

	for (int round = 0; round < 5000; round++) {
		size_t len = sizeof rich - 1;
		memcpy(text, rich, len);
		for (int change = rand_r(&seed) % 4; change >= 0; change--) {
			static const char odd[] = "{}[]:,&*!|>'\"%@`#?- \n\t~\\<\x80\xff";
			size_t at = (size_t)rand_r(&seed) % len;
			if (rand_r(&seed) % 3) {
				text[at] = odd[(size_t)rand_r(&seed) % (sizeof odd - 1)];
				continue;
			}
			memmove(text + at, text + at + 1, len - at - 1);
			len--;
		}
		write_file(text, len);
		enum evbus_code code = open_file(profiles[round % 2]);
		cr_assert(code == EVBUS_OK || code == EVBUS_CONFIG, "%d %s", (int)code, err.text);
		cr_assert(code == EVBUS_OK || strstr(err.text, "c.yaml"), "%s", err.text);
		read += !code;
		refused += code != EVBUS_OK;
	}
	cr_assert(read > 100 && refused > 100, "%u %u", read, refused);
}
