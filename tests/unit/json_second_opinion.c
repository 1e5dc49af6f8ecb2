/* json.c once more, against a second opinion that is slow and written another way, over mutated events. */
#include "json_slow.h"

#include <criterion/criterion.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
/* clang-format off */
#define TEXT(literal) { (literal), sizeof(literal) - 1 }
/* clang-format on */
#define ROUNDS 60000

static const char event[] =
	"{\"id\":\"evt_1\",\"n\":[1,-2.5e+3,0],\"t\":true,\"f\":false,\"z\":null,\"o\":{\"k\":{}},"
	"\"text\":\"a \\\"quoted\\\" caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \\ud83d\\ude00\\u0041 and more\"}";

static const struct evbus_slice event_text = TEXT(event);

/* Where one mutation is most likely to matter. */
static const struct evbus_slice small[] = {
	TEXT("{}"),
	TEXT("{\"a\":-0.5e-7}"),
	TEXT("{\"a\":[1E+2,0.0,10]}"),
	TEXT("{\"a\":[[],[[]],{}]}"),
	TEXT("{\"id\":true}"),
	TEXT("{\"\\u0069d\":false,\"id\":null}"),
	TEXT("{ \"a\" : [ 1 , 2 ] , \"b\" : { } }"),
	TEXT("{\"a\":\"\\u12aF\\n\\\\\"}"),
	TEXT("{\"a\":\"\xc2\x80\xdf\xbf\"}"),
	TEXT("{\"a\":\"\xe0\xa0\x80\xed\x9f\xbf\xef\xbf\xbf\"}"),
	TEXT("{\"a\":\"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"}"),
	TEXT("{\"a\":\"0123456789abcde\",\"b\":\"0123456789abcdef\"}"),
};

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

/* ---- against the second opinion ---------------------------------------------------------------------------------- */

static uint32_t random_next(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

/* Replaces, inserts, removes or doubles bytes, those that matter more often than others. */
static size_t mutate(char *text, size_t len, size_t size, uint32_t *state)
{
	static const char likely[] = "{}[]\",:\\ue0-.19 tfn/\x00\x1f\x7f\x80\xbf\xc2\xe2\xed\xa0\xf0\xf4\x8f\xff\n";
	size_t at = random_next(state) % len;
	char c = random_next(state) & 3 ? likely[random_next(state) % (sizeof likely - 1)] : (char)random_next(state);

	switch (random_next(state) % 4) {
	case 0:
		text[at] = c;
		return len;
	case 1:
		memmove(text + at, text + at + 1, len - at - 1);
		return len > 1 ? len - 1 : len;
	case 2:
		if (len == size)
			return len;
		memmove(text + at + 1, text + at, len - at);
		text[at] = c;
		return len + 1;
	default:
		text[at] = text[random_next(state) % len];
		return len;
	}
}

/* The bytes before the fault can still become an object, or are one: no earlier byte is at fault. */
static void check_fault(struct evbus_slice text, struct json_fault fault)
{
	struct json_fault before;

	cr_assert(fault.at <= text.len && fault.reason);
	struct evbus_slice prefix = { text.data, fault.at };
	if (!scan(prefix, &before)) {
		cr_assert_eq(before.at, fault.at);
		cr_assert_str_eq(before.reason, "unexpected end");
	}
}

static void judge(struct evbus_slice text)
{
	struct json_fault fault, fault_too;
	struct json_want want = { .name = SLICE("id") };

	struct evbus_slice copy = copy_of(text);
	bool right = slow_object(copy);
	cr_assert_eq(scan(copy, &fault), right, "%.*s", (int)copy.len, copy.data);
	cr_assert_eq(json_scan(copy, &want, 1, &fault_too), right);
	cr_assert_eq(json_value_len(copy) == copy.len && copy.data[0] == '{', right);
	if (right)
		cr_assert(want.times == 0 || json_value_len(want.value) == want.value.len);
	else
		cr_assert(fault.at == fault_too.at && strcmp(fault.reason, fault_too.reason) == 0);
	if (!right)
		check_fault(copy, fault);
	release(copy);
}

Test(json_second_opinion, agrees_on_mutated_events)
{
	uint32_t state = 2463534242;
	char text[512];
	size_t good = 0;

	for (unsigned round = 0; round < ROUNDS; round++) {
		size_t len = event_text.len;
		memcpy(text, event, len);
		for (uint32_t n = random_next(&state) % 4; n > 0; n--)
			len = mutate(text, len, sizeof text, &state);
		struct evbus_slice mutated = { text, len };
		good += slow_object(mutated);
		judge(mutated);
	}
	cr_expect(good > 10000 && good < 50000, "%zu", good);
}

Test(json_second_opinion, agrees_on_mutated_small_objects)
{
	uint32_t state = 88172645;
	char text[512];

	for (unsigned round = 0; round < ROUNDS; round++) {
		struct evbus_slice value = small[round % COUNT(small)];
		memcpy(text, value.data, value.len);
		judge((struct evbus_slice){ text, mutate(text, value.len, sizeof text, &state) });
	}
}

Test(json_second_opinion, agrees_on_every_sequence_of_three_bytes)
{
	for (unsigned lead = 0x80; lead < 0x100; lead++)
		for (unsigned rest = 0; rest < 0x10000; rest += rest & 0x40 ? 7 : 1) {
			unsigned char bytes[4] = { (unsigned char)lead, (unsigned char)(rest >> 8), (unsigned char)rest,
						   0x80 };
			for (size_t len = 3; len <= 4; len++) {
				struct slow s = { .p = bytes, .len = len };
				bool right = true;
				while (right && s.at < len)
					right = slow_now(&s) < 0x80 ? s.at++, true : slow_utf8(&s);
				cr_assert_eq(utf8_valid((struct evbus_slice){ (const char *)bytes, len }), right);
			}
		}
}
