/* url.c: the URL of a bus on servers. */
#include "backend/url.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct evbus_err err;
static struct url url;

static void teardown(void)
{
	url_release(&url);
}

TestSuite(url, .fini = teardown);

static void parse(const char *text)
{
	url_release(&url);
	cr_assert_eq(url_parse(text, &url, &err), EVBUS_OK, "%s", err.text);
}

static void refused(const char *text, const char *why)
{
	struct url unread;

	cr_expect_eq(url_parse(text, &unread, &err), EVBUS_CONFIG, "%s", text);
	cr_expect(strstr(err.text, why), "%s: %s", text, err.text);
	cr_expect_null(strstr(err.text, "geheim"), "%s", err.text);
}

Test(url, has_servers_a_user_and_options)
{
	parse("nats://us%65r:ge%3aheim@a:4222,b?timeout=500ms&tls_ca=%2Fx%26y&empty=");
	cr_expect_str_eq(url.shown, "nats://a:4222,b");
	cr_expect_str_eq(url.servers, "a:4222,b");
	cr_expect_str_eq(url.user, "user");
	cr_expect_str_eq(url.password, "ge:heim");
	cr_expect_str_eq(url_option(&url, "tls_ca"), "/x&y");
	cr_expect_str_eq(url_option(&url, "empty"), "");
	cr_expect_null(url_option(&url, "timeou"));
	parse("nats://token@[::1]:4222");
	cr_expect_str_eq(url.user, "token");
	cr_expect_null(url.password);
	cr_expect_str_eq(url.servers, "[::1]:4222");
	parse("kafka://a@b:c@d:1");
	cr_expect_str_eq(url.user, "a@b");
	cr_expect_str_eq(url.password, "c");
	parse("nats://u:geheim?a=b@c");
	cr_expect_str_eq(url.shown, "nats://***");
	parse("nats:");
	cr_expect_str_eq(url.servers, "");
	cr_expect_str_eq(url.shown, "nats:");
	cr_expect(!url.user && !url.option_count);
	parse("nats:?timeout=1");
	cr_expect_eq(url.option_count, 1);
}

Test(url, has_a_path_where_the_scheme_has_paths)
{
	cr_assert_eq(url_parse_path("amqp://u:p@h:1/a%2Fb?x=1", &url, &err), EVBUS_OK, "%s", err.text);
	cr_expect_str_eq(url.servers, "h:1");
	cr_expect_str_eq(url.path, "a/b");
	cr_expect_str_eq(url.shown, "amqp://h:1/a%2Fb");
	cr_expect_str_eq(url_option(&url, "x"), "1");
	url_release(&url);
	cr_assert_eq(url_parse_path("amqp://h/", &url, &err), EVBUS_OK, "%s", err.text);
	cr_expect_null(url.path);
	url_release(&url);
	cr_assert_eq(url_parse_path("amqp:", &url, &err), EVBUS_OK, "%s", err.text);
	cr_expect(!url.path && !*url.servers);
	url_release(&url);
	cr_expect_eq(url_parse_path("amqp://h/%zz", &url, &err), EVBUS_CONFIG);
}

Test(url, of_another_shape_is_refused_without_its_secrets)
{
	refused("nats:host", "write SCHEME://HOST:PORT");
	refused("nats://u:geheim@host/path", "nothing stands behind the servers");
	refused("nats://u:geheim%@host", "write %25");
	refused("nats://u%00:geheim@host", "write %25");
	refused("nats://u:geheim?@host", "'nats://***' cannot be read: behind '?' stand options");
	refused("nats://host?geheim", "NAME=VALUE");
	refused("nats://host?=geheim", "NAME=VALUE");
	refused("nats://host?a=geheim%2", "two hex digits");
	refused("nats://host?a=geheim&a=2", "option 'a' twice");
	char many[1024] = "nats://host?";
	for (unsigned i = 0; i <= URL_OPTIONS_MAX; i++)
		snprintf(many + strlen(many), sizeof many - strlen(many), "%so%u=1", i ? "&" : "", i);
	refused(many, "too many options");
}

Test(url, a_password_with_a_question_mark_is_not_told_as_an_option)
{
	refused("nats://u:1?geheim=a@b?geheim=c&geheim=d@host", "option '***' twice");
	parse("nats://u:1?geheim=a@host");
	cr_expect_eq(url_done(&url, "timeout", &err), EVBUS_CONFIG);
	cr_expect_null(strstr(err.text, "geheim"), "%s", err.text);
	cr_expect(strstr(err.text, "written %3F"), "%s", err.text);
	parse("nats://u:a@geheim?geheim=a@host");
	cr_expect_str_eq(url.shown, "nats://***");
	parse("nats://h?typo=a");
	cr_expect_eq(url_done(&url, "timeout", &err), EVBUS_CONFIG);
	cr_expect_str_eq(err.text, "the bus 'nats://h' has no option 'typo'; there are timeout");
}

Test(url, options_have_their_kinds)
{
	uint64_t number = 7;
	bool flag = true;
	int timeout_ms = 10000;

	parse("nats://h?n=3&bad=x&yes=true&no=0&maybe=perhaps");
	cr_expect_eq(url_number(&url, "none", 1, 5, &number, &err), EVBUS_OK);
	cr_expect_eq(number, 7);
	cr_expect_eq(url_number(&url, "n", 1, 5, &number, &err), EVBUS_OK);
	cr_expect_eq(number, 3);
	cr_expect_eq(url_number(&url, "n", 4, 5, &number, &err), EVBUS_CONFIG);
	cr_expect_str_eq(err.text, "the bus 'nats://h': n='3' is not a number from 4 to 5");
	cr_expect_eq(url_number(&url, "bad", 1, 5, &number, &err), EVBUS_CONFIG);
	cr_expect_eq(url_flag(&url, "no", &flag, &err), EVBUS_OK);
	cr_expect_not(flag);
	cr_expect_eq(url_flag(&url, "yes", &flag, &err), EVBUS_OK);
	cr_expect(flag);
	cr_expect_eq(url_flag(&url, "maybe", &flag, &err), EVBUS_CONFIG);
	cr_expect_eq(url_timeout(&url, &timeout_ms, &err), EVBUS_OK);
	cr_expect_eq(timeout_ms, 10000);
}

Test(url, a_time_out_is_in_seconds_or_milliseconds)
{
	static const struct {
		const char *url;
		int ms;
	} times[] = { { "nats://h?timeout=2", 2000 },
		      { "nats://h?timeout=2s", 2000 },
		      { "nats://h?timeout=20ms", 20 },
		      { "nats://h?timeout=3600", 3600000 },
		      { "nats://h?timeout=3600000ms", 3600000 },
		      { "nats://h?timeout=0", 0 },
		      { "nats://h?timeout=3601", 0 },
		      { "nats://h?timeout=5m", 0 },
		      { "nats://h?timeout=-1", 0 },
		      { "nats://h?timeout=", 0 } };

	for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
		int timeout_ms = 1;
		parse(times[i].url);
		cr_expect_eq(url_timeout(&url, &timeout_ms, &err), times[i].ms ? EVBUS_OK : EVBUS_CONFIG, "%s",
			     times[i].url);
		cr_expect_eq(timeout_ms, times[i].ms ? times[i].ms : 1, "%s", times[i].url);
	}
}

Test(url, an_option_that_nobody_asked_for_is_refused)
{
	parse("nats://h?one=1&two=2");
	cr_expect_str_eq(url_option(&url, "one"), "1");
	cr_expect_eq(url_done(&url, "one and three", &err), EVBUS_CONFIG);
	cr_expect_str_eq(err.text, "the bus 'nats://h' has no option 'two'; there are one and three");
	cr_expect_str_eq(url_option(&url, "two"), "2");
	cr_expect_eq(url_done(&url, "one and two", &err), EVBUS_OK);
}
