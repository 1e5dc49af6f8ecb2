/* json_value.c: values as text, text as values, and what a pointer points to. */
#include "event/json.h"

#include <criterion/criterion.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
/* clang-format off */
#define TEXT(literal) { (literal), sizeof(literal) - 1 }
/* clang-format on */

static struct evbus_slice slice(const char *text)
{
	return (struct evbus_slice){ text, strlen(text) };
}

static bool is(struct evbus_slice value, const char *text)
{
	return value.data && value.len == strlen(text) && memcmp(value.data, text, value.len) == 0;
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

static const struct {
	struct evbus_slice value, text;
} pairs[] = {
	{ TEXT("\"\""), TEXT("") },
	{ TEXT("\"abc\""), TEXT("abc") },
	{ TEXT("12.50"), TEXT("12.50") },
	{ TEXT("null"), TEXT("null") },
	{ TEXT("{\"a\":\"\\n\"}"), TEXT("{\"a\":\"\\n\"}") },
	{ TEXT("\"a\\u0062\""), TEXT("ab") },
	{ TEXT("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""), TEXT("\"\\/\b\f\n\r\t") },
	{ TEXT("\"a\\u0000b\""), TEXT("a\0b") },
	{ TEXT("\"\\u007f\\u0080\\u07FF\\u0800\\uffff\""), TEXT("\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf") },
	{ TEXT("\"\\ud83d\\ude00\\uD800\\uDC00\\udbff\\udfff\""),
	  TEXT("\xf0\x9f\x98\x80\xf0\x90\x80\x80\xf4\x8f\xbf\xbf") },
	{ TEXT("\"\\ud83d\""), TEXT("\xef\xbf\xbd") },
	{ TEXT("\"\\ude00\\ud83d\""), TEXT("\xef\xbf\xbd\xef\xbf\xbd") },
	{ TEXT("\"\\ud83d\\u0041\""), TEXT("\xef\xbf\xbd"
					   "A") },
	{ TEXT("\"\\ud83d\\ud83d\\ude00\""), TEXT("\xef\xbf\xbd\xf0\x9f\x98\x80") },
	{ TEXT("\"caf\xc3\xa9\""), TEXT("caf\xc3\xa9") },
	{ TEXT("\"\\\\u0041\""), TEXT("\\u0041") },
};

Test(json_value, gives_a_string_without_quotes_and_escapes_and_anything_else_as_it_stands)
{
	for (size_t i = 0; i < COUNT(pairs); i++) {
		char text[64];
		size_t len = evbus_json_text(pairs[i].value, text, sizeof text);
		cr_expect_eq(len, pairs[i].text.len, "%s", pairs[i].value.data);
		cr_expect(memcmp(text, pairs[i].text.data, len) == 0, "%s", pairs[i].value.data);
		cr_expect(json_equals(pairs[i].value, pairs[i].text), "%s", pairs[i].value.data);
	}
}

Test(json_value, writes_nothing_where_there_is_too_little_room)
{
	for (size_t i = 0; i < COUNT(pairs); i++) {
		char text[64];
		size_t len = pairs[i].text.len;
		memset(text, '#', sizeof text);
		if (len == 0)
			continue;
		cr_expect_eq(evbus_json_text(pairs[i].value, text, len - 1), len);
		cr_expect_eq(text[0], '#');
		cr_expect_eq(evbus_json_text(pairs[i].value, text, len), len);
		cr_expect(memcmp(text, pairs[i].text.data, len) == 0 && text[len] == '#');
	}
	cr_expect_eq(evbus_json_text((struct evbus_slice){ 0 }, NULL, 0), 0);
	cr_expect_eq(evbus_json_text(slice("\"a\\n\""), NULL, 0), 2);
}

Test(json_value, equals_its_own_text_only)
{
	for (size_t i = 0; i < COUNT(pairs); i++) {
		struct evbus_slice text = pairs[i].text;
		cr_expect_not(json_equals(pairs[i].value, slice("something else")));
		if (text.len)
			cr_expect_not(json_equals(pairs[i].value, (struct evbus_slice){ text.data, text.len - 1 }));
	}
	cr_expect(json_equals(slice("1.10"), slice("1.10")));
	cr_expect_not(json_equals(slice("1.10"), slice("1.1")));
	cr_expect_not(json_equals((struct evbus_slice){ 0 }, slice("")));
	cr_expect(json_equals(slice("\"\""), (struct evbus_slice){ 0 }));
}

Test(json_value, never_reads_beyond_a_string_that_nobody_checked)
{
	static const char *const bad[] = { "\"\\\"", "\"\\u\"", "\"\\u12\"", "\"\\ud83d\\u\"", "\"\\x\"", "\"", "\\" };

	for (size_t i = 0; i < COUNT(bad); i++) {
		char *copy = malloc(strlen(bad[i]));
		char text[16];
		cr_assert_not_null(copy);
		memcpy(copy, bad[i], strlen(bad[i]));
		struct evbus_slice value = { copy, strlen(bad[i]) };
		cr_expect_leq(evbus_json_text(value, text, sizeof text), value.len);
		cr_expect_not(json_equals(value, slice("other")));
		free(copy);
	}
}

/* ---- quoting ----------------------------------------------------------------------------------------------------- */

Test(json_value, quotes_only_what_must_be)
{
	struct buf out = { 0 };
	struct evbus_err err;

	cr_assert_eq(json_quote(&out, SLICE("a/\"\\\b\f\n\r\t\x01\x1f\0\x7f caf\xc3\xa9"), &err), EVBUS_OK);
	cr_assert_eq(buf_add(&out, ",", 1, &err), EVBUS_OK);
	cr_assert_eq(json_quote(&out, (struct evbus_slice){ 0 }, &err), EVBUS_OK);
	struct evbus_slice quoted = { out.data, out.len };
	cr_expect(is(quoted, "\"a/\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u001f\\u0000\x7f caf\xc3\xa9\",\"\""));
	buf_release(&out);
}

Test(json_value, reads_back_every_byte_of_ascii_that_it_quoted)
{
	struct evbus_err err;
	struct buf out = { 0 };
	char all[128], text[128];

	for (size_t i = 0; i < sizeof all; i++)
		all[i] = (char)i;
	cr_assert_eq(json_quote(&out, (struct evbus_slice){ all, sizeof all }, &err), EVBUS_OK);
	struct evbus_slice quoted = { out.data, out.len };
	cr_expect_eq(json_value_len(quoted), quoted.len);
	cr_expect_eq(evbus_json_text(quoted, text, sizeof text), sizeof all);
	cr_expect(memcmp(text, all, sizeof all) == 0);
	buf_release(&out);
}

/* ---- pointers ---------------------------------------------------------------------------------------------------- */

/* RFC 6901, section 5. */
static const char example[] = "{\"foo\": [\"bar\", \"baz\"], \"\": 0, \"a/b\": 1, \"c%d\": 2, \"e^f\": 3, \"g|h\": 4, "
			      "\"i\\\\j\": 5, \"k\\\"l\": 6, \" \": 7, \"m~n\": 8}";

static struct evbus_slice find(const char *json, const char *pointer)
{
	bool ambiguous = true;

	struct evbus_slice value = evbus_json_find(slice(json), pointer, &ambiguous);
	cr_expect_not(ambiguous);
	return value;
}

Test(json_value, points_as_rfc_6901_says)
{
	cr_expect(is(find(example, ""), example));
	cr_expect(is(find(example, "/foo"), "[\"bar\", \"baz\"]"));
	cr_expect(is(find(example, "/foo/0"), "\"bar\""));
	cr_expect(is(find(example, "/"), "0"));
	cr_expect(is(find(example, "/a~1b"), "1"));
	cr_expect(is(find(example, "/c%d"), "2"));
	cr_expect(is(find(example, "/e^f"), "3"));
	cr_expect(is(find(example, "/g|h"), "4"));
	cr_expect(is(find(example, "/i\\j"), "5"));
	cr_expect(is(find(example, "/k\"l"), "6"));
	cr_expect(is(find(example, "/ "), "7"));
	cr_expect(is(find(example, "/m~0n"), "8"));
}

Test(json_value, finds_what_lies_deeper)
{
	const char *json = " { \"a\" : { \"b\" : [ 1 , { \"c\" : \"x\" } , [ ] , \"z\" ] } , \"~1\" : 2 } ";

	cr_expect(is(find(json, "/a/b/1/c"), "\"x\""));
	cr_expect(is(find(json, "/a/b/0"), "1"));
	cr_expect(is(find(json, "/a/b/2"), "[ ]"));
	cr_expect(is(find(json, "/a/b/3"), "\"z\""));
	cr_expect(is(find(json, "/~01"), "2"));
	cr_expect(is(find("[[1,2],[3,4]]", "/1/0"), "3"));
	cr_expect(is(find("\"text\"", ""), "\"text\""));
	cr_expect(is(find("{\"0\":1}", "/0"), "1"));
}

Test(json_value, finds_nothing_where_there_is_nothing)
{
	static const char *const absent[] = { "/b",    "/a/x", "/a/4",   "/a/-", "/a/01",
					      "/a/1x", "/a/",  "/a/0/x", "/s/0", "/n/x",
					      "a",     "/m~n", "/m~2n",  "/m~",  "/a/99999999999999999999",
					      "//",    "/e/0", "/a/+1" };
	const char *json = "{\"a\":[1,2,3],\"s\":\"text\",\"n\":null,\"m~n\":1,\"e\":[]}";

	for (size_t i = 0; i < COUNT(absent); i++)
		cr_expect_null(find(json, absent[i]).data, "%s", absent[i]);
	cr_expect_null(evbus_json_find((struct evbus_slice){ 0 }, "/a", NULL).data);
	cr_expect_null(evbus_json_find((struct evbus_slice){ 0 }, "", NULL).data);
}

Test(json_value, tells_a_member_that_stands_twice_on_the_way)
{
	const char *json = "{\"a\":{\"b\":1,\"b\":2,\"c\":3},\"d\":[{\"e\":1,\"\\u0065\":2}],\"x\":{\"y\":1},\"x\":{}}";
	static const char *const twice[] = { "/a/b", "/a/b/0", "/d/0/e", "/x", "/x/y" };

	for (size_t i = 0; i < COUNT(twice); i++) {
		bool ambiguous = false;
		cr_expect_null(evbus_json_find(slice(json), twice[i], &ambiguous).data, "%s", twice[i]);
		cr_expect(ambiguous, "%s", twice[i]);
		cr_expect_null(evbus_json_find(slice(json), twice[i], NULL).data);
	}
	cr_expect(is(find(json, "/a/c"), "3"));
}

Test(json_value, survives_texts_that_nobody_checked)
{
	static const char *const bad[] = {
		"[", "[1", "[1,", "[1,]", "{", "{\"a\"", "{\"a\":", "{\"a\":1", "", " ", "\""
	};

	for (size_t i = 0; i < COUNT(bad); i++) {
		cr_expect_null(evbus_json_find(slice(bad[i]), "/a", NULL).data, "%s", bad[i]);
		cr_expect_null(evbus_json_find(slice(bad[i]), "/1", NULL).data, "%s", bad[i]);
	}
}
