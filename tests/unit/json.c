/* json.c: what the scanner takes and refuses; the n_ and y_ cases are those of JSONTestSuite (Nicolas Seriot, "Parsing
 * JSON is a Minefield"). */
#include "event/json.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
/* clang-format off */
#define TEXT(literal) { (literal), sizeof(literal) - 1 }

/* Values of any kind. */
static const struct evbus_slice valid[] = {
	TEXT("{}"), TEXT("[]"), TEXT("\"\""), TEXT("0"), TEXT("-0"), TEXT("true"), TEXT("false"), TEXT("null"),
	TEXT("[[]   ]"), TEXT("[\"\"]"), TEXT("[\"a\"]"), TEXT("[false]"), TEXT("[null, 1, \"1\", {}]"), TEXT("[1\n]"),
	TEXT("[ 1]"), TEXT("[1,null,null,null,2]"), TEXT("[2] "), TEXT("[123e65]"), TEXT("[0e+1]"), TEXT("[0e1]"),
	TEXT("[ 4]"), TEXT("[-0.000000000000000000000000000000000000000000000000000000000000000000000000000001]"),
	TEXT("[20e1]"), TEXT("[-0]"), TEXT("[-123]"), TEXT("[-1]"), TEXT("[1E22]"), TEXT("[1E-2]"), TEXT("[1E+2]"),
	TEXT("[123e45]"), TEXT("[123.456e78]"), TEXT("[1e-2]"), TEXT("[1e+2]"), TEXT("[123.456789]"),
	TEXT("[123123123123123123123123123123]"),
	TEXT("[0.4e00669999999999999999999999999999999999999999999999969999]"),
	TEXT("{\"asd\":\"sdf\", \"dfg\":\"fgh\"}"), TEXT("{\"a\":\"b\",\"a\":\"c\"}"),
	TEXT("{\"a\":\"b\",\"a\":\"b\"}"), TEXT("{\"\":0}"), TEXT("{\"foo\\u0000bar\": 42}"),
	TEXT("{ \"min\": -1.0e+28, \"max\": 1.0e+28 }"), TEXT("{\"a\":[]}"), TEXT("{\n\"a\": \"b\"\n}"),
	TEXT("\t\r\n {}"), TEXT("{\"a\":{\"b\":{\"c\":[{},[],{\"d\":[0]}]}}}"), TEXT("[\"\\u0060\\u012a\\u12AB\"]"),
	TEXT("[\"\\uD801\\udc37\"]"), TEXT("[\"\\ud83d\\ude39\\ud83d\\udc8d\"]"),
	TEXT("[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"]"), TEXT("[\"\\\\u0000\"]"), TEXT("[\"\\\"\"]"),
	TEXT("[\"a/*b*/c/*d//e\"]"), TEXT("[\"\\\\a\"]"), TEXT("[\"\\\\n\"]"), TEXT("[\"\\u0012\"]"),
	TEXT("[\"\\uFFFF\"]"), TEXT("[\"asd\"]"), TEXT("[\"\\uDBFF\\uDFFF\"]"), TEXT("[\"new\\u00A0line\"]"),
	TEXT("[\"\\u0000\"]"), TEXT("[\"\\u002c\"]"), TEXT("[\"\\uD800\"]"), TEXT("[\"\\uDC00\\uD800\"]"),
	TEXT("[\"\\uDd1e\\uD834\"]"), TEXT("[\"\x7f\"]"), TEXT("[\"\xc2\x80\"]"), TEXT("[\"\xdf\xbf\"]"),
	TEXT("[\"\xe0\xa0\x80\"]"), TEXT("[\"\xed\x9f\xbf\"]"), TEXT("[\"\xee\x80\x80\"]"), TEXT("[\"\xef\xbf\xbf\"]"),
	TEXT("[\"\xf0\x90\x80\x80\"]"), TEXT("[\"\xf4\x8f\xbf\xbf\"]"), TEXT("[\"\xe2\x80\xa8\xe2\x80\xa9\"]"),
	TEXT("[\"\xe2\x82\xac\xf0\x9d\x84\x9e\"]"),
	TEXT("[\"0123456789abcde\\n0123456789abcdef\xc3\xa9 0123456789abcdefg\"]"),
};

static const struct evbus_slice invalid[] = {
	TEXT(""), TEXT(" "), TEXT("["), TEXT("]"), TEXT("{"), TEXT("}"), TEXT("\""), TEXT("\"a"), TEXT("-"), TEXT("."),
	TEXT("[1 true]"), TEXT("[a\xe5]"), TEXT("[\"\": 1]"), TEXT("[\"\"],"), TEXT("[,1]"), TEXT("[1,,2]"),
	TEXT("[\"x\",,]"), TEXT("[\"x\"]]"), TEXT("[\"\",]"), TEXT("[\"x\""), TEXT("[x"), TEXT("[3[4]]"),
	TEXT("[\xff]"), TEXT("[1:2]"), TEXT("[,]"), TEXT("[-]"), TEXT("[   , \"\"]"), TEXT("[\"a\",\n4\n,1,"),
	TEXT("[1,]"), TEXT("[1,,]"), TEXT("[\"\va\"\\f]"), TEXT("[*]"), TEXT("[\"\""), TEXT("[1,"), TEXT("[{}"),
	TEXT("[fals]"), TEXT("[nul]"), TEXT("[tru]"), TEXT("[True]"), TEXT("[truee]"), TEXT("123\0"), TEXT("[++1234]"),
	TEXT("[+1]"), TEXT("[+Inf]"), TEXT("[-01]"), TEXT("[-1.0.]"), TEXT("[-2.]"), TEXT("[-NaN]"), TEXT("[.-1]"),
	TEXT("[.2e-3]"), TEXT("[0.1.2]"), TEXT("[0.3e+]"), TEXT("[0.3e]"), TEXT("[0.e1]"), TEXT("[0E+]"), TEXT("[0E]"),
	TEXT("[0e]"), TEXT("[1.0e+]"), TEXT("[1.0e-]"), TEXT("[1.0e]"), TEXT("[1 000.0]"), TEXT("[1eE2]"),
	TEXT("[2.e+3]"), TEXT("[2.e3]"), TEXT("[9.e+]"), TEXT("[Inf]"), TEXT("[NaN]"), TEXT("[\xef\xbc\x91]"),
	TEXT("[1+2]"), TEXT("[0x1]"), TEXT("[0x42]"), TEXT("[Infinity]"), TEXT("[0e+-1]"), TEXT("[-123.123foo]"),
	TEXT("[123\xe5]"), TEXT("[1e1\xe5]"), TEXT("[0\xe5]"), TEXT("[-Infinity]"), TEXT("[-foo]"), TEXT("[- 1]"),
	TEXT("[-012]"), TEXT("[-.123]"), TEXT("[-1x]"), TEXT("[1ea]"), TEXT("[1e\xe5]"), TEXT("[1.]"), TEXT("[.123]"),
	TEXT("[1.2a-3]"), TEXT("[1.8011670033376514H-308]"), TEXT("[012]"), TEXT("[00]"), TEXT("[0123]"),
	TEXT("[-00]"), TEXT("[1_000]"), TEXT("[\"x\", truth]"), TEXT("{[: \"x\"}\n"), TEXT("{\"x\", null}"),
	TEXT("{\"x\"::\"b\"}"), TEXT("{\xf0\x9f\x87\xa8\xf0\x9f\x87\xad}"), TEXT("{\"a\":\"a\" 123}"),
	TEXT("{key: 'value'}"), TEXT("{\"\xb9\":\"0\",}"), TEXT("{\"a\" b}"), TEXT("{:\"b\"}"), TEXT("{\"a\" \"b\"}"),
	TEXT("{\"a\":"), TEXT("{\"a\""), TEXT("{1:1}"), TEXT("{9999E9999:1}"), TEXT("{null:null,null:null}"),
	TEXT("{\"id\":0,,,,,}"), TEXT("{'a':0}"), TEXT("{\"id\":0,}"), TEXT("{\"a\":\"b\"}/**/"),
	TEXT("{\"a\":\"b\"}/**//"), TEXT("{\"a\":\"b\"}//"), TEXT("{\"a\":\"b\"}/"),
	TEXT("{\"a\":\"b\",,\"c\":\"d\"}"), TEXT("{a: \"b\"}"), TEXT("{\"a\":\"a"),
	TEXT("{ \"foo\" : \"bar\", \"a\" }"), TEXT("{\"a\":\"b\"}#"), TEXT("{\"a\":}"), TEXT("{\"a\": }"), TEXT("{,}"),
	TEXT("{\"a\":1]"), TEXT("[1}"), TEXT("[{]}"), TEXT("{\"a\":[}"), TEXT("{\"a\":1,}"), TEXT("{}{}"),
	TEXT("[\"\\uD800\\\"]"), TEXT("[\"\\uD800\\u\"]"), TEXT("[\"\\uD800\\u1\"]"), TEXT("[\"\\uD800\\u1x\"]"),
	TEXT("[\xc3\xa9]"), TEXT("[\"\\\0\"]"), TEXT("[\"\\x00\"]"), TEXT("[\"\\\\\\\"]"), TEXT("[\"\\\t\"]"),
	TEXT("[\"\\\xf0\x9f\x8c\x80\"]"), TEXT("[\"\\\"]"), TEXT("[\"\\u00A\"]"), TEXT("[\"\\uD834\\uDd\"]"),
	TEXT("[\"\\uD800\\uD800\\x\"]"), TEXT("[\"\\a\"]"), TEXT("[\"\\uqqqq\"]"), TEXT("[\"\\\xe5\"]"),
	TEXT("[\"\\U0041\"]"), TEXT("[\\u0020\"asd\"]"), TEXT("[\\n]"), TEXT("[\"a\0a\"]"), TEXT("[\"new\nline\"]"),
	TEXT("[\"\t\"]"), TEXT("[\"\x1f\"]"), TEXT("['single quote']"), TEXT("abc"), TEXT("[\"\\"),
	TEXT("\"\\UA66D\""), TEXT("<.>"), TEXT("[<null>]"), TEXT("[1]x"), TEXT("[1]]"), TEXT("[\"asd]"),
	TEXT("a\xc3\xa5"), TEXT("[True]"), TEXT("{\"x\": true,"), TEXT("[][]"), TEXT("2@"), TEXT("{}}"),
	TEXT("{\"\":"), TEXT("{\"a\":/*comment*/\"b\"}"), TEXT("{\"a\": true} \"x\""), TEXT("['"), TEXT("[,"),
	TEXT("[{"), TEXT("[\"a"), TEXT("[\"a\""), TEXT("{,"), TEXT("{["), TEXT("{\"a"), TEXT("{'a'"),
	TEXT("[\"\\{[\"\\{[\"\\{[\"\\{"), TEXT("*"), TEXT("{\"a\":\"b\"}#{}"), TEXT("[\\u000A\"\"]"), TEXT("[1"),
	TEXT("[ false, nul"), TEXT("[ true, fals"), TEXT("[ false, tru"), TEXT("{\"asd\":\"asd\""), TEXT("\xc3\xa5"),
	TEXT("[\xe2\x81\xa0]"), TEXT("\xef\xbb\xbf{}"), TEXT("\xef\xbb"), TEXT("[\f]"), TEXT("[\x0b]"), TEXT("\0"),
	TEXT("{\"a\":1\0}"), TEXT("[\"\x80\"]"), TEXT("[\"\xbf\"]"), TEXT("[\"\xc0\xaf\"]"), TEXT("[\"\xc1\xbf\"]"),
	TEXT("[\"\xc2\"]"), TEXT("[\"\xc2\xc2\x80\"]"), TEXT("[\"\xe0\x80\xaf\"]"), TEXT("[\"\xe0\x9f\xbf\"]"),
	TEXT("[\"\xe2\x82\"]"), TEXT("[\"\xed\xa0\x80\"]"), TEXT("[\"\xed\xbf\xbf\"]"), TEXT("[\"\xf0\x80\x80\xaf\"]"),
	TEXT("[\"\xf0\x8f\xbf\xbf\"]"), TEXT("[\"\xf0\x9f\x98\"]"), TEXT("[\"\xf4\x90\x80\x80\"]"),
	TEXT("[\"\xf5\x80\x80\x80\"]"), TEXT("[\"\xf8\x88\x80\x80\x80\"]"), TEXT("[\"\xfe\"]"), TEXT("[\"\xff\"]"),
	TEXT("[\"\xe5\"]"), TEXT("[\"\xe0\xff\"]"), TEXT("[\"\xfc\x80\x80\x80\x80\x80\"]"),
	TEXT("[\"\x80 0123456789abcdef\"]"), TEXT("[\"0123456789abcdef\x01\"]"),
};
/* clang-format on */

static const char event[] =
	"{\"id\":\"evt_1\",\"n\":[1,-2.5e+3,0],\"t\":true,\"f\":false,\"z\":null,\"o\":{\"k\":{}},"
	"\"text\":\"a \\\"quoted\\\" caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \\ud83d\\ude00\\u0041 and more\"}";

static const struct evbus_slice event_text = TEXT(event);

static bool scan(struct evbus_slice text, struct json_fault *fault)
{
	return json_scan(text, NULL, 0, fault);
}

/* A copy of exactly this size on the heap, so that the sanitizer sees a byte read beyond it. */
static struct evbus_slice copy_of(struct evbus_slice text)
{
	char *data = malloc(text.len ? text.len : 1);

	cr_assert_not_null(data);
	memcpy(data, text.data, text.len);
	return (struct evbus_slice){ data, text.len };
}

static void release(struct evbus_slice copy)
{
	free((void *)(uintptr_t)copy.data);
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

static struct evbus_slice trim(struct evbus_slice text)
{
	for (; text.len && strchr(" \t\r\n", text.data[0]); text.data++, text.len--)
		;
	while (text.len && strchr(" \t\r\n", text.data[text.len - 1]))
		text.len--;
	return text;
}

Test(json, takes_every_valid_value)
{
	for (size_t i = 0; i < COUNT(valid); i++) {
		struct evbus_slice copy = copy_of(trim(valid[i]));
		cr_expect_eq(json_value_len(copy), copy.len, "%s", valid[i].data);
		release(copy);
	}
}

Test(json, refuses_every_invalid_value)
{
	for (size_t i = 0; i < COUNT(invalid); i++) {
		struct evbus_slice copy = copy_of(invalid[i]);
		cr_expect(copy.len == 0 || json_value_len(copy) != copy.len, "%zu: %s", i, invalid[i].data);
		release(copy);
	}
}

/* The same cases within an object, asked with and without members that are wanted. */
Test(json, judges_an_object_by_the_values_in_it)
{
	for (size_t i = 0; i < COUNT(valid) + COUNT(invalid); i++) {
		bool right = i < COUNT(valid);
		struct evbus_slice value = right ? valid[i] : invalid[i - COUNT(valid)];
		char text[256];
		struct json_fault fault, fault_too;
		struct json_want want = { .name = SLICE("v") };
		memcpy(text, "{\"v\":", 5);
		memcpy(text + 5, value.data, value.len);
		text[5 + value.len] = '}';
		struct evbus_slice copy = copy_of((struct evbus_slice){ text, value.len + 6 });
		cr_expect_eq(scan(copy, &fault), right, "%zu: %s", i, value.data);
		cr_expect_eq(json_scan(copy, &want, 1, &fault_too), right, "%zu: %s", i, value.data);
		cr_expect(right || (fault.at == fault_too.at && strcmp(fault.reason, fault_too.reason) == 0));
		release(copy);
	}
}

Test(json, measures_a_value_that_other_bytes_follow)
{
	cr_expect_eq(json_value_len(SLICE("12,")), 2);
	cr_expect_eq(json_value_len(SLICE("\"a\\\"\":1")), 5);
	cr_expect_eq(json_value_len(SLICE("[1,{}]]")), 6);
	cr_expect_eq(json_value_len(SLICE("nullx")), 4);
	cr_expect_eq(json_value_len(SLICE(" 1")), 0);
	cr_expect_eq(json_value_len(SLICE("01")), 0);
	cr_expect_eq(json_value_len(SLICE("1.")), 0);
	cr_expect_eq(json_value_len((struct evbus_slice){ NULL, 0 }), 0);
}

/* ---- objects ----------------------------------------------------------------------------------------------------- */

Test(json, wants_an_object_and_nothing_around_it)
{
	static const struct evbus_slice bad[] = { TEXT(""),     TEXT(" {}"), TEXT("{} "),   TEXT("{}\n"),
						  TEXT("[]"),   TEXT("1"),   TEXT("\"a\""), TEXT("null"),
						  TEXT("{}{}"), TEXT("{},"), TEXT("{}\0") };
	struct json_fault fault;

	for (size_t i = 0; i < COUNT(bad); i++)
		cr_expect_not(scan(bad[i], &fault), "'%s'", bad[i].data);
	cr_expect_not(scan((struct evbus_slice){ NULL, 0 }, &fault));
	cr_expect(scan(SLICE("{}"), &fault));
}

Test(json, says_what_is_wrong_and_at_which_byte)
{
	static const struct {
		struct evbus_slice text;
		size_t at;
		const char *reason;
	} cases[] = {
		{ TEXT(""), 0, "unexpected end" },
		{ TEXT("[]"), 0, "expected {" },
		{ TEXT("{} "), 2, "more than one object" },
		{ TEXT("{a"), 1, "expected a member name" },
		{ TEXT("{\"a\" 1}"), 5, "expected a colon" },
		{ TEXT("{\"a\":}"), 5, "expected a value" },
		{ TEXT("{\"a\":1 2}"), 7, "expected a comma or }" },
		{ TEXT("{\"a\":[1 2]}"), 8, "expected a comma or ]" },
		{ TEXT("{\"a\":[1,]}"), 8, "expected a value" },
		{ TEXT("{\"a\":1,}"), 7, "expected a member name" },
		{ TEXT("{\"a\":trUe}"), 7, "expected true, false or null" },
		{ TEXT("{\"a\":01}"), 6, "a number does not begin with 0" },
		{ TEXT("{\"a\":1.}"), 7, "expected a digit" },
		{ TEXT("{\"a\":\"\\x\"}"), 7, "unknown escape" },
		{ TEXT("{\"a\":\"\\u00g0\"}"), 10, "expected a hexadecimal digit" },
		{ TEXT("{\"a\":\"b\n\"}"), 7, "control character in a string" },
		{ TEXT("{\"a\":\"\xc3(\"}"), 7, "invalid UTF-8" },
		{ TEXT("{\"a\":\"\xed\xa0\x80\"}"), 7, "invalid UTF-8" },
		{ TEXT("{\"a\":\"\xe2\x82"), 8, "unexpected end" },
		{ TEXT("{\"a\":"), 5, "unexpected end" },
	};
	struct json_fault fault;

	for (size_t i = 0; i < COUNT(cases); i++) {
		cr_expect_not(scan(cases[i].text, &fault));
		cr_expect_eq(fault.at, cases[i].at, "%s: %zu", cases[i].text.data, fault.at);
		cr_expect_str_eq(fault.reason, cases[i].reason);
	}
}

Test(json, refuses_a_valid_object_that_was_cut_at_any_byte)
{
	struct json_fault fault;

	cr_assert(scan(event_text, &fault));
	for (size_t len = 0; len < event_text.len; len++) {
		struct evbus_slice copy = copy_of((struct evbus_slice){ event, len });
		cr_assert_not(scan(copy, &fault), "%zu bytes", len);
		cr_assert_eq(fault.at, len);
		cr_assert_str_eq(fault.reason, "unexpected end");
		release(copy);
	}
}

Test(json, refuses_every_control_character_at_every_byte_of_a_string)
{
	const char *inside = "0123456789abcdef caf\xc3\xa9 0123456789abcdefghijklmnopqrstuvwxyz";
	struct json_fault fault;
	char text[128];

	for (size_t at = 0; at <= strlen(inside); at++)
		for (int c = 0; c < 0x20; c++) {
			int len = snprintf(text, sizeof text, "{\"s\":\"%.*s_%s\"}", (int)at, inside, inside + at);
			text[6 + at] = (char)c;
			cr_assert_not(scan((struct evbus_slice){ text, (size_t)len }, &fault), "%d at %zu", c, at);
			cr_assert_eq(fault.at, 6 + at);
		}
}

Test(json, refuses_a_lone_high_byte)
{
	struct json_fault fault;

	for (size_t pad = 0; pad < 40; pad++)
		for (int c = 0x80; c < 0x100; c++) {
			char text[64];
			int len = snprintf(text, sizeof text, "{\"%*s_\":1}", (int)pad, "");
			text[2 + pad] = (char)c;
			cr_assert_not(scan((struct evbus_slice){ text, (size_t)len }, &fault), "%#x", (unsigned)c);
			cr_assert_eq(fault.at, c >= 0xc2 && c <= 0xf4 ? pad + 3 : pad + 2);
		}
}

/* depth containers, the outermost an object; bit i of kinds: the one within it is an object, too. */
static struct evbus_slice nested(unsigned depth, uint64_t kinds, char *text)
{
	char closing[EVBUS_DEPTH_MAX + 1];
	size_t len = 0;

	for (unsigned i = 0; i < depth; i++) {
		bool object = i == 0 || ((kinds >> i % 64) & 1);
		const char *opening = !object ? "[" : i + 1 == depth ? "{" : "{\"a\":";
		memcpy(text + len, opening, strlen(opening));
		len += strlen(opening);
		closing[i] = object ? '}' : ']';
	}
	for (unsigned i = depth; i-- > 0;)
		text[len++] = closing[i];
	return (struct evbus_slice){ text, len };
}

Test(json, takes_128_levels_and_refuses_129)
{
	static const uint64_t kinds[] = { 0, UINT64_MAX, 0x5555555555555555, 0x123456789abcdef0 };
	char text[1024];
	struct json_fault fault;
	struct json_want want = { .name = SLICE("a") };

	for (size_t i = 0; i < COUNT(kinds); i++) {
		struct evbus_slice good = nested(EVBUS_DEPTH_MAX, kinds[i], text);
		cr_expect(scan(good, &fault) && json_scan(good, &want, 1, &fault));
		cr_expect_eq(json_value_len(good), good.len);
		struct evbus_slice bad = nested(EVBUS_DEPTH_MAX + 1, kinds[i], text);
		cr_expect_not(json_scan(bad, &want, 1, &fault));
		cr_expect_str_eq(fault.reason, "nested too deep");
		cr_expect_not(scan(bad, &fault));
		cr_expect(strchr("{[", bad.data[fault.at]) && strchr("}]", bad.data[fault.at + 1]));
		cr_expect_eq(json_value_len(bad), 0);
	}
}

Test(json, closes_each_level_by_its_own_bracket)
{
	char text[1024];
	struct json_fault fault;

	struct evbus_slice good = nested(EVBUS_DEPTH_MAX, 0x123456789abcdef0, text);
	for (size_t at = good.len - EVBUS_DEPTH_MAX; at < good.len; at++) {
		char right = text[at];
		text[at] = right == '}' ? ']' : '}';
		cr_assert_not(scan(good, &fault));
		cr_assert_eq(fault.at, at);
		text[at] = right;
	}
}

/* ---- members that are wanted ------------------------------------------------------------------------------------- */

static bool is(struct evbus_slice value, const char *text)
{
	return value.data && value.len == strlen(text) && memcmp(value.data, text, value.len) == 0;
}

Test(json, finds_the_members_that_are_wanted)
{
	struct json_want wants[] = { { .name = SLICE("id") },
				     { .name = SLICE("n") },
				     { .name = SLICE("k") },
				     { .name = SLICE("") },
				     { .name = SLICE("o") } };
	struct json_fault fault;

	cr_assert(json_scan(SLICE("{ \"n\" : [1, 2] , \"id\":\"7\", \"\":0,\"o\":{\"k\":1} , \"idx\":3}"), wants,
			    COUNT(wants), &fault));
	cr_expect(is(wants[0].value, "\"7\"") && wants[0].times == 1);
	cr_expect(is(wants[1].value, "[1, 2]") && wants[1].times == 1);
	cr_expect(!wants[2].value.data && wants[2].times == 0, "members further down do not count");
	cr_expect(is(wants[3].value, "0") && wants[3].times == 1);
	cr_expect(is(wants[4].value, "{\"k\":1}") && wants[4].times == 1);
}

Test(json, counts_a_member_that_is_there_again_and_keeps_the_first)
{
	struct json_want want = { .name = SLICE("id"), .value = SLICE("old"), .times = 9 };
	struct json_fault fault;

	cr_assert(json_scan(SLICE("{\"id\":1,\"id\":2,\"\\u0069d\":3,\"Id\":4}"), &want, 1, &fault));
	cr_expect(is(want.value, "1"));
	cr_expect_eq(want.times, 3);
	cr_assert(json_scan(SLICE("{}"), &want, 1, &fault));
	cr_expect(!want.value.data && want.times == 0);
}

Test(json, compares_names_after_unescaping)
{
	struct json_want wants[] = { { .name = SLICE("a\"b") },
				     { .name = SLICE("caf\xc3\xa9") },
				     { .name = SLICE("a\\u0062") } };
	struct json_fault fault;

	cr_assert(json_scan(SLICE("{\"a\\\"b\":1,\"caf\\u00E9\":2,\"a\\u0062\":3,\"x\":\"\\n\",\"caf\xc3\xa9\":4}"),
			    wants, COUNT(wants), &fault));
	cr_expect(is(wants[0].value, "1") && wants[0].times == 1);
	cr_expect(is(wants[1].value, "2") && wants[1].times == 2);
	cr_expect(wants[2].times == 0, "a name that looks like its own escape is another one");
}

/* ---- UTF-8 ------------------------------------------------------------------------------------------------------- */

Test(json, knows_valid_utf_8)
{
	cr_expect(utf8_valid((struct evbus_slice){ NULL, 0 }));
	cr_expect(utf8_valid(SLICE("")));
	cr_expect(utf8_valid(SLICE("plain \" \\ \n \x7f text with \0 in it")));
	cr_expect(utf8_valid(SLICE("caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 0123456789")));
	cr_expect_not(utf8_valid(SLICE("caf\xc3")));
	cr_expect_not(utf8_valid(SLICE("0123456789\xed\xa0\x80")));
}
