/* subject.c: topic names, patterns, and which matches what. */
#include "event/subject.h"

#include <criterion/criterion.h>
#include <string.h>

static bool is_name(const char *name)
{
	struct evbus_err err;

	return subject_check_name("topic", name, &err) == EVBUS_OK;
}

static bool is_good_pattern(const char *pattern)
{
	struct evbus_err err;

	return subject_check_pattern("topic", pattern, &err) == EVBUS_OK;
}

static const char *refusal(const char *name, bool pattern)
{
	static struct evbus_err err;

	cr_expect_eq(evbus_topic_check(name, pattern, &err), EVBUS_USAGE, "'%s'", name);
	return err.text;
}

Test(subject, takes_names_of_tokens_joined_by_dots)
{
	static const char *const good[] = { "orders", "a", "0", "crm.contact.v1", "A-b_c.D", "9.9", "a.-b", "a._" };

	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		cr_expect(is_name(good[i]), "'%s'", good[i]);
		cr_expect(is_good_pattern(good[i]), "'%s'", good[i]);
	}
}

Test(subject, refuses_what_is_no_name)
{
	static const char *const bad[] = { "",      ".",    "..",   ".evbus", "a.",  "a..b",  "-a",          "_a",
					   "a b",   "a/b",  "../a", "a\n",    "a\t", "a:b",   "caf\xc3\xa9", "a\\",
					   "a\x7f", "a.b.", "*",    ">",      "a.*", "crm.>", "a*",          "a,b" };

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		cr_expect_not(is_name(bad[i]), "'%s'", bad[i]);
}

Test(subject, takes_wildcards_as_whole_tokens)
{
	static const char *const good[] = { "*", ">", "*.*", "a.*", "a.>", "*.b", "*.>", "a.*.c.>" };

	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		cr_expect(is_good_pattern(good[i]), "'%s'", good[i]);
}

Test(subject, refuses_patterns_that_would_not_mean_what_they_seem_to)
{
	static const char *const bad[] = { "",   "a*", "*a",  "**", "a>",   ">>",    ">.a",  "a.>.b",
					   "a.", "*.", "..*", ".*", "*..>", "a b.*", "-a.*", "a.*b.c" };

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		cr_expect_not(is_good_pattern(bad[i]), "'%s'", bad[i]);
}

Test(subject, takes_249_bytes_and_refuses_250)
{
	char name[EVBUS_TOPIC_MAX_BYTES + 2];

	memset(name, 'a', sizeof name);
	name[EVBUS_TOPIC_MAX_BYTES] = '\0';
	cr_expect(is_name(name));
	name[EVBUS_TOPIC_MAX_BYTES] = 'a';
	name[EVBUS_TOPIC_MAX_BYTES + 1] = '\0';
	cr_expect_not(is_name(name));
	cr_expect(strstr(refusal(name, false), "longer than 249 bytes"));
}

Test(subject, says_what_is_wrong_and_what_to_do)
{
	cr_expect_str_eq(refusal("crm.", false), "topic 'crm.' ends with a dot; a pattern needs quotes: 'crm.>'");
	cr_expect_str_eq(refusal("crm.", true), "topic 'crm.' ends with a dot; a pattern needs quotes: 'crm.>'");
	cr_expect_str_eq(refusal("crm.*", false), "topic 'crm.*' is a pattern, and one name is needed here");
	cr_expect_str_eq(refusal("a..b", false), "topic 'a..b' has an empty token between its dots");
	cr_expect_str_eq(refusal(".a", false), "topic '.a' does not begin with a letter or digit");
	cr_expect_str_eq(refusal("", false), "topic '' is empty");
	cr_expect_str_eq(refusal(">.a", true), "topic '>.a' has > before its end");
	cr_expect_str_eq(refusal("ord*", true),
			 "topic 'ord*' has a wildcard within a token: * and > stand for whole tokens");
	cr_expect_str_eq(refusal("a b", false), "topic 'a b' has a character other than A-Z a-z 0-9 _ - and the dot");
}

Test(subject, names_what_was_checked)
{
	struct evbus_err err;

	cr_expect_eq(subject_check_name("group", "a b", &err), EVBUS_USAGE);
	cr_expect(strncmp(err.text, "group 'a b' ", 12) == 0);
}

Test(subject, tells_a_pattern_from_a_name)
{
	cr_expect(subject_is_pattern("a.*"));
	cr_expect(subject_is_pattern(">"));
	cr_expect_not(subject_is_pattern("a.b"));
}

Test(subject, matches_one_token_with_a_star_and_the_rest_with_an_angle)
{
	cr_expect(evbus_topic_matches("a", "a"));
	cr_expect(evbus_topic_matches("a.b.c", "a.b.c"));
	cr_expect(evbus_topic_matches("*", "a"));
	cr_expect(evbus_topic_matches("a.*", "a.b"));
	cr_expect(evbus_topic_matches("*.b", "a.b"));
	cr_expect(evbus_topic_matches("a.*.c", "a.b.c"));
	cr_expect(evbus_topic_matches(">", "a"));
	cr_expect(evbus_topic_matches(">", "a.b.c"));
	cr_expect(evbus_topic_matches("a.>", "a.b"));
	cr_expect(evbus_topic_matches("a.>", "a.b.c"));
	cr_expect(evbus_topic_matches("*.>", "a.b"));
	cr_expect(evbus_topic_matches("a.*.>", "a.b.c.d"));
}

Test(subject, matches_neither_more_nor_fewer_tokens)
{
	cr_expect_not(evbus_topic_matches("a", "b"));
	cr_expect_not(evbus_topic_matches("a", "ab"));
	cr_expect_not(evbus_topic_matches("ab", "a"));
	cr_expect_not(evbus_topic_matches("a", "a.b"));
	cr_expect_not(evbus_topic_matches("a.b", "a"));
	cr_expect_not(evbus_topic_matches("*", "a.b"));
	cr_expect_not(evbus_topic_matches("a.*", "a"));
	cr_expect_not(evbus_topic_matches("a.*", "a.b.c"));
	cr_expect_not(evbus_topic_matches("a.>", "a"));
	cr_expect_not(evbus_topic_matches("a.>", "ab.c"));
	cr_expect_not(evbus_topic_matches("*.>", "a"));
	cr_expect_not(evbus_topic_matches("A", "a"));
}

Test(subject, matches_any_text_by_what_stands_between_its_dots)
{
	cr_expect(subject_matches("com.*.push", SLICE("com.git hub/x.push")));
	cr_expect(subject_matches("*.b", SLICE(".b")));
	cr_expect(subject_matches("a.>", SLICE("a.")));
	cr_expect_not(subject_matches("a", SLICE("a.")));
	cr_expect_not(subject_matches("a", (struct evbus_slice){ 0 }));
	cr_expect_not(subject_matches("a", (struct evbus_slice){ "a\0b", 3 }));
}

Test(subject, does_not_look_beyond_the_slice)
{
	cr_expect(subject_matches("a.b", (struct evbus_slice){ "a.bc.d", 3 }));
	cr_expect(subject_matches("a", (struct evbus_slice){ "a.b", 1 }));
	cr_expect_not(subject_matches("a.b", (struct evbus_slice){ "a.b", 2 }));
}
