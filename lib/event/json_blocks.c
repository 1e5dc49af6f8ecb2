/* json_blocks.c: JSON by blocks of 64 bytes.
 *
 * A few words have a bit for each byte of a block: which are quotes, which stand in strings, which are commas. What must
 * come next is then judged for all tokens of the block at once; only brackets, numbers, escapes and what is beyond ASCII
 * are looked at one by one. (How strings are found is from Langdale and Lemire, "Parsing Gigabytes of JSON per Second",
 * 2019.) This says yes, or nothing: what is wrong, and where, and what is rare, is the scanner's. Rare are control
 * characters between tokens, and more levels than a word has bits. */
#include "event/json_blocks.h"

#if defined(__x86_64__)
#include "base/cpu.h"

#include <immintrin.h>

#define BLOCK_BYTES 64
#define WIDE __attribute__((target("avx2,pclmul")))
#define INLINE WIDE static inline __attribute__((always_inline))

/* What a block leaves to the next one. */
struct walk {
	const uint8_t *end;
	const uint8_t *special_end; /* of the last escape, or run of bytes beyond ASCII */
	uint64_t levels; /* below the highest bit, which is none: 1 an object, 0 an array, the innermost last */
	uint64_t in_string; /* all bits or none */
	/* The bit that would stand behind the last one of the block. */
	uint64_t in_scalar, in_name, value_due, name_due, colon_due;
};

/* The lowest bit is the first byte. */
struct block {
	uint64_t quote, blank, colon, comma, open, close;
	uint64_t brace; /* of what opens, a brace and no bracket */
	uint64_t special; /* a backslash, a control character, or beyond ASCII */
};

INLINE uint64_t bits_below(ptrdiff_t n)
{
	return n < BLOCK_BYTES ? ((uint64_t)1 << n) - 1 : UINT64_MAX;
}

/* What comes next behind these, blanks left out: an addition carries a bit over a run of them. Those in strings do no
 * harm, for a quote stands between. */
INLINE uint64_t next_of(uint64_t these, uint64_t blank, uint64_t *carry)
{
	uint64_t sum, next = these << 1 | *carry;

	*carry = these >> 63 | __builtin_add_overflow(next, blank, &sum);
	return sum & ~blank;
}

/* From each odd one of these up to the next, which is left out: a multiplication without carries, by ones, gives each bit
 * the sum of those below it. */
INLINE uint64_t between(uint64_t these)
{
	__m128i factor = _mm_cvtsi64_si128((int64_t)these);

	return (uint64_t)_mm_cvtsi128_si64(_mm_clmulepi64_si128(factor, _mm_set1_epi8(-1), 0));
}

/* *within: bytes of escapes, and beyond ASCII, which end no string. */
WIDE static __attribute__((noinline)) bool take_special(struct walk *w, const uint8_t *at, uint64_t special,
							uint64_t *within)
{
	*within = w->special_end > at ? bits_below(w->special_end - at) : 0;
	for (special &= ~*within; special; special &= ~*within) {
		unsigned i = (unsigned)__builtin_ctzll(special);
		w->special_end = json_special_end(at + i, w->end);
		if (!w->special_end)
			return false;
		*within |= bits_below(w->special_end - at) & ~bits_below(i);
	}
	return true;
}

static inline const uint8_t *digits_end(const uint8_t *p)
{
	while ((uint8_t)(*p - '0') < 10)
		p++;
	return p;
}

/* The last byte of the text ends each number. */
INLINE bool take_scalars(const struct walk *w, const uint8_t *at, uint64_t scalars)
{
	for (; scalars; scalars &= scalars - 1) {
		const uint8_t *p = at + __builtin_ctzll(scalars), *point = digits_end(p), *end = point;
		if (*point == '.')
			end = digits_end(point + 1);
		bool plain =
			point > p && (*p != '0' || point == p + 1) && end != point + 1 && (*end == ',' || *end == '}');
		if (!plain && !json_scalar_is_whole(p, w->end))
			return false;
	}
	return true;
}

/* *in_object: what stands in an object, and not in an array. */
INLINE bool take_brackets(struct walk *w, const uint8_t *at, uint64_t brackets, uint64_t *in_object)
{
	uint64_t levels = w->levels, first = levels & 1, changes = 0;

	for (; brackets; brackets &= brackets - 1) {
		unsigned i = (unsigned)__builtin_ctzll(brackets);
		/* In ASCII, bit 5 tells a brace from a bracket, and bit 1 what opens from what closes. */
		uint64_t before = levels & 1, brace = at[i] >> 5 & 1, opens = at[i] >> 1 & 1;
		if (opens ? levels >> 63 : brace ^ before)
			return false;
		levels = opens ? levels << 1 | brace : levels >> 1;
		/* What was opened first is closed last. */
		if (levels == 1 && at + i + 1 != w->end)
			return false;
		changes |= (before ^ (levels & 1)) << i;
	}
	*in_object = between(changes) ^ -first;
	w->levels = levels;
	return true;
}

/* Whether nothing but blanks stands in what is closed here. */
static bool are_empty(const uint8_t *at, uint64_t close)
{
	for (; close; close &= close - 1) {
		const uint8_t *p = at + __builtin_ctzll(close) - 1;
		while (*p == ' ')
			p--;
		if (*p == ',' || *p == ':')
			return false;
	}
	return true;
}

/* at: where it stands in the text. */
INLINE bool take_block(struct walk *w, const uint8_t *at, struct block b)
{
	uint64_t within, in_object, sum;

	if (b.special || w->special_end > at) {
		if (!take_special(w, at, b.special, &within))
			return false;
		b.quote &= ~within;
	} else if (w->in_string && !b.quote) {
		return true;
	}
	uint64_t in_string = between(b.quote) ^ w->in_string, outside = ~(in_string | b.quote);
	w->in_string = -(in_string >> 63);
	b.colon &= outside;
	b.comma &= outside;
	b.open &= outside;
	b.close &= outside;
	uint64_t scalar = outside & ~(b.blank | b.colon | b.comma | b.open | b.close);
	uint64_t scalars = scalar & ~(scalar << 1 | w->in_scalar);
	w->in_scalar = scalar >> 63;
	if (!take_scalars(w, at, scalars) || !take_brackets(w, at, b.open | b.close, &in_object))
		return false;
	uint64_t string = b.quote & in_string, value = string | scalars | b.open;
	uint64_t value_due = next_of(b.open | b.comma | b.colon, b.blank, &w->value_due);
	uint64_t name_due = next_of((b.open & b.brace) | (b.comma & in_object), b.blank, &w->name_due);
	/* An addition carries the first bit of a name over it, to its closing quote. */
	w->in_name = __builtin_add_overflow(in_string, (string & name_due) | w->in_name, &sum);
	uint64_t colon_due = next_of(sum & ~in_string, b.blank, &w->colon_due);
	uint64_t empty = value_due & b.close;
	uint64_t wrong = (value_due ^ (value | empty)) | (name_due & ~(string | empty)) | (colon_due ^ b.colon);
	return !wrong && (!empty || are_empty(at, empty));
}

/* ---- from bytes to bits ---------------------------------------------------------------------------------------- */

INLINE uint64_t bits_of(__m256i low, __m256i high)
{
	return (uint64_t)(unsigned)_mm256_movemask_epi8(high) << 32 | (unsigned)_mm256_movemask_epi8(low);
}

INLINE uint64_t equal(__m256i low, __m256i high, char c)
{
	return bits_of(_mm256_cmpeq_epi8(low, _mm256_set1_epi8(c)), _mm256_cmpeq_epi8(high, _mm256_set1_epi8(c)));
}

/* Compared as signed, bytes beyond ASCII are below the blank, too. */
INLINE __m256i special(__m256i bytes)
{
	return _mm256_or_si256(_mm256_cmpgt_epi8(_mm256_set1_epi8(' '), bytes),
			       _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('\\')));
}

INLINE struct block block_at(const uint8_t *at)
{
	__m256i low = _mm256_loadu_si256((const __m256i *)(const void *)at);
	__m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(at + BLOCK_BYTES / 2));
	/* Brackets and braces are the same but for this bit. */
	__m256i bit_5 = _mm256_set1_epi8(0x20), low_5 = _mm256_or_si256(low, bit_5),
		high_5 = _mm256_or_si256(high, bit_5);

	return (struct block){
		.quote = equal(low, high, '"'),
		.blank = equal(low, high, ' '),
		.colon = equal(low, high, ':'),
		.comma = equal(low, high, ','),
		.open = equal(low_5, high_5, '{'),
		.close = equal(low_5, high_5, '}'),
		.brace = equal(low, high, '{'),
		.special = bits_of(special(low), special(high)),
	};
}

/* The last bytes of a block, and blanks behind them. */
INLINE struct block last_of(struct block b, ptrdiff_t count)
{
	ptrdiff_t others = BLOCK_BYTES - count;

	return (struct block){
		.quote = b.quote >> others,
		.blank = b.blank >> others | ~bits_below(count),
		.colon = b.colon >> others,
		.comma = b.comma >> others,
		.open = b.open >> others,
		.close = b.close >> others,
		.brace = b.brace >> others,
		.special = b.special >> others,
	};
}

WIDE static bool pass(struct evbus_slice text)
{
	const uint8_t *at = (const uint8_t *)text.data, *end = at + text.len;
	struct walk w = { .end = end, .special_end = at, .levels = 1, .value_due = 1 };

	for (; end - at >= BLOCK_BYTES; at += BLOCK_BYTES)
		if (!take_block(&w, at, block_at(at)))
			return false;
	if (at < end && !take_block(&w, at, last_of(block_at(end - BLOCK_BYTES), end - at)))
		return false;
	return w.levels == 1;
}

static bool has_hardware;

__attribute__((constructor)) static void look_at_hardware(void)
{
	has_hardware = CPU_HAS(AVX2, "avx2") && CPU_HAS(PCLMULQDQ, "pclmul");
}

bool json_blocks_pass(struct evbus_slice text)
{
	return has_hardware && text.len >= BLOCK_BYTES && text.data[0] == '{' && text.data[text.len - 1] == '}' &&
	       pass(text);
}
#else
bool json_blocks_pass(struct evbus_slice text)
{
	(void)text;
	return false;
}
#endif
