/* json.c once more, against a second opinion that is slow and written another way, over mutated events. */
#include "event/json_blocks.h"
#include "json_slow.h"

#if defined(__x86_64__)
#include "base/cpu.h"
#endif
#include <criterion/criterion.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
/* clang-format off */
#define TEXT(literal) { (literal), sizeof(literal) - 1 }
/* clang-format on */
#define ROUNDS 60000
#define SHORT_BYTES 3 /* all texts so long are tried */
#define PAD_MAX 192 /* so that strings have blocks of their own */

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

/* Only where the processor can. */
static bool has_blocks(void)
{
#if defined(__x86_64__)
	return CPU_HAS(AVX2, "avx2") && CPU_HAS(PCLMULQDQ, "pclmul");
#else
	return false;
#endif
}

/* By blocks, exactly what is right passes and has no control character, which nothing has that is right but between
 * tokens. */
static void judge_by_blocks(struct evbus_slice text)
{
	struct json_fault fault;
	bool control = false;

	struct evbus_slice copy = copy_of(text);
	bool right = slow_object(copy);
	for (size_t i = 0; i < copy.len; i++)
		control |= (unsigned char)copy.data[i] < ' ';
	cr_assert_eq(json_blocks_pass(copy), has_blocks() && right && !control, "%.*s", (int)copy.len, copy.data);
	cr_assert_eq(scan(copy, &fault), right);
	/* Never by blocks; what is judged here is not so deep that the level more would matter. */
	cr_assert_eq(json_scan_record(copy, NULL, 0, &fault), right);
	cr_assert_eq(json_scan_line(copy, &fault), right && !memchr(copy.data, '\n', copy.len));
	release(copy);
}

/* {"":"xxx", and what stands behind the first byte of text. Returns the length. */
static size_t pad(char *padded, size_t pad, struct evbus_slice text)
{
	size_t len = 5 + pad;

	memcpy(padded, "{\"\":\"", 5);
	memset(padded + 5, 'x', pad);
	memcpy(padded + len, "\",", 2);
	memcpy(padded + len + 2, text.data + 1, text.len - 1);
	return len + 1 + text.len;
}

static void judge_padded(struct evbus_slice text, size_t round)
{
	char padded[512 + PAD_MAX + 8];

	if (text.len && text.data[0] == '{' && text.len + round % PAD_MAX >= 64)
		judge_by_blocks((struct evbus_slice){ padded, pad(padded, round % PAD_MAX, text) });
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
		judge_padded(mutated, round);
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
		struct evbus_slice mutated = { text, mutate(text, value.len, sizeof text, &state) };
		judge(mutated);
		judge_padded(mutated, round / COUNT(small));
	}
}

/* Every text of a few bytes that matter, moved over the border of a block within what is right without it. */
static void judge_each_short_text(struct evbus_slice before, struct evbus_slice after)
{
	static const char bytes[] = "{}[]\":,\\ 01-.eu\xc3\xa9x\n";
	const size_t kinds = sizeof bytes - 1;
	char inside[64], text[256];

	memcpy(inside, before.data, before.len);
	memcpy(inside + before.len + SHORT_BYTES, after.data, after.len);
	for (size_t at = 64 - SHORT_BYTES; at <= 64; at++)
		for (size_t i = 0; i < kinds * kinds * kinds; i++) {
			size_t next = i;
			for (size_t n = 0; n < SHORT_BYTES; n++, next /= kinds)
				inside[before.len + n] = bytes[next % kinds];
			struct evbus_slice whole = { inside, before.len + SHORT_BYTES + after.len };
			judge_by_blocks((struct evbus_slice){ text, pad(text, at - 6 - before.len, whole) });
		}
}

Test(json_second_opinion, agrees_on_every_short_text_at_the_border_of_a_block)
{
	judge_each_short_text(SLICE("{\"k\":"), SLICE("}"));
	judge_each_short_text(SLICE("{"), SLICE("}"));
	judge_each_short_text(SLICE("{\"k"), SLICE("\":1}"));
	judge_each_short_text(SLICE("{\"k\":\""), SLICE("\"}"));
	judge_each_short_text(SLICE("{\"k\":[1,"), SLICE("],\"z\":1}"));
	judge_each_short_text(SLICE("{\"k\":{\"a\":1"), SLICE("}}"));
}

Test(json_second_opinion, agrees_on_every_depth)
{
	char text[EVBUS_DEPTH_MAX * 7 + 64];
	struct json_fault fault;

	for (unsigned depth = 1; depth <= EVBUS_DEPTH_MAX + 2; depth++)
		for (unsigned kinds = 0; kinds < 4; kinds++) {
			char closing[EVBUS_DEPTH_MAX + 2];
			size_t len = 0;
			for (unsigned i = 0; i < depth; i++) {
				bool object = i == 0 || (kinds >> i % 2 & 1);
				memcpy(text + len, object ? "{\"a\":" : "[    ", 5);
				len += 5;
				closing[i] = object ? '}' : ']';
			}
			text[len++] = '1';
			for (unsigned i = depth; i-- > 0;)
				text[len++] = closing[i];
			struct evbus_slice nested = { text, len };
			cr_assert_eq(scan(nested, &fault), depth <= EVBUS_DEPTH_MAX, "%u", depth);
			/* A level more than was opened, and one of another kind. */
			text[len] = '}';
			cr_assert_not(scan((struct evbus_slice){ text, len + 1 }, &fault));
			text[len - 1] = ']';
			cr_assert_not(scan(nested, &fault));
		}
}

/* Behind so many arrays that a word has no room for what is around them. */
Test(json_second_opinion, knows_what_is_around_many_levels)
{
	static const struct evbus_slice ends[] = { TEXT(",{\"a\":{}"), TEXT(",{\"a\":{}}}"), TEXT(",\"a\":{}}") };

	for (size_t depth = 1; depth < EVBUS_DEPTH_MAX; depth++)
		for (size_t i = 0; i < COUNT(ends); i++) {
			char text[2 * EVBUS_DEPTH_MAX + 64];
			memcpy(text, "{\"a\":", 5);
			memset(text + 5, '[', depth);
			memset(text + 5 + depth, ']', depth);
			memcpy(text + 5 + 2 * depth, ends[i].data, ends[i].len);
			judge((struct evbus_slice){ text, 5 + 2 * depth + ends[i].len });
		}
}

Test(json_second_opinion, agrees_on_what_is_no_object_or_not_alone)
{
	static const struct evbus_slice others[][2] = {
		{ TEXT("["), TEXT("]") },          { TEXT(""), TEXT("") },
		{ TEXT(" {\"a\":"), TEXT("}") },   { TEXT("{\"a\":"), TEXT("} ") },
		{ TEXT("{\"a\":"), TEXT("},{}") }, { TEXT("{\"a\":"), TEXT("}{}") },
		{ TEXT("{\"a\":"), TEXT("}}") },   { TEXT("{\"a\":"), TEXT("") },
		{ TEXT("1,{\"a\":"), TEXT("}") },  { TEXT("{},{\"a\":"), TEXT("}") },
		{ TEXT("{\"a\":"), TEXT("}\n") },  { TEXT("{\"a\":"), TEXT("}") },
	};
	char text[PAD_MAX + 32];

	for (size_t i = 0; i < COUNT(others); i++)
		for (size_t inside = 0; inside < PAD_MAX; inside++) {
			size_t len = others[i][0].len;
			memcpy(text, others[i][0].data, len);
			memset(text + len, 'x', inside + 2);
			text[len] = text[len + 1 + inside] = '"';
			memcpy(text + len + inside + 2, others[i][1].data, others[i][1].len);
			judge((struct evbus_slice){ text, len + inside + 2 + others[i][1].len });
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
