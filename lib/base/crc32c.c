/* crc32c.c: by the processor's own instruction where it has one, else by tables.
 *
 * The instruction takes 8 bytes each cycle, but its result is there after three. So three streams of 64 bytes are taken
 * at a time, and their remainders put together by a multiplication without carries: short enough for an event to have
 * some of them (Gopal and others, "Fast CRC Computation for iSCSI Polynomial Using CRC32 Instruction", 2011). */
#include "base/crc32c.h"

#include <string.h>
#if defined(__x86_64__)
#include "base/cpu.h"

#include <immintrin.h>
#elif defined(__ARM_FEATURE_CRC32) && defined(__aarch64__)
#include <arm_acle.h>
#endif

#define SLICES 8

/* table[k][i] is the remainder of the byte i with k zero bytes after it. Division is linear, so each of the 2048
 * remainders is the sum (exclusive or) of those of its bits; the 64 below are what remains of the single bits, lowest
 * first, and the compiler adds them up. */
#define BIT(i, bit, remainder) (((i) >> (bit)) & 1 ? (remainder) : 0)
#define SUM(i, a, b, c, d, e, f, g, h)                                                                                 \
	(BIT(i, 0, a) ^ BIT(i, 1, b) ^ BIT(i, 2, c) ^ BIT(i, 3, d) ^ BIT(i, 4, e) ^ BIT(i, 5, f) ^ BIT(i, 6, g) ^      \
	 BIT(i, 7, h))
#define SUM_4(i, ...) SUM(i, __VA_ARGS__), SUM(i + 1, __VA_ARGS__), SUM(i + 2, __VA_ARGS__), SUM(i + 3, __VA_ARGS__)
#define SUM_16(i, ...)                                                                                                 \
	SUM_4(i, __VA_ARGS__), SUM_4(i + 4, __VA_ARGS__), SUM_4(i + 8, __VA_ARGS__), SUM_4(i + 12, __VA_ARGS__)
#define SUM_64(i, ...)                                                                                                 \
	SUM_16(i, __VA_ARGS__), SUM_16(i + 16, __VA_ARGS__), SUM_16(i + 32, __VA_ARGS__), SUM_16(i + 48, __VA_ARGS__)
#define SUM_256(...) SUM_64(0, __VA_ARGS__), SUM_64(64, __VA_ARGS__), SUM_64(128, __VA_ARGS__), SUM_64(192, __VA_ARGS__)

static const uint32_t table[SLICES][256] = {
	{ SUM_256(0xf26b8303u, 0xe13b70f7u, 0xc79a971fu, 0x8ad958cfu, 0x105ec76fu, 0x20bd8edeu, 0x417b1dbcu,
		  0x82f63b78u) },
	{ SUM_256(0x13a29877u, 0x274530eeu, 0x4e8a61dcu, 0x9d14c3b8u, 0x3fc5f181u, 0x7f8be302u, 0xff17c604u,
		  0xfbc3faf9u) },
	{ SUM_256(0xa541927eu, 0x4f6f520du, 0x9edea41au, 0x38513ec5u, 0x70a27d8au, 0xe144fb14u, 0xc76580d9u,
		  0x8b277743u) },
	{ SUM_256(0xdd45aab8u, 0xbf672381u, 0x7b2231f3u, 0xf64463e6u, 0xe964b13du, 0xd725148bu, 0xaba65fe7u,
		  0x52a0c93fu) },
	{ SUM_256(0x38116facu, 0x7022df58u, 0xe045beb0u, 0xc5670b91u, 0x8f2261d3u, 0x1ba8b557u, 0x37516aaeu,
		  0x6ea2d55cu) },
	{ SUM_256(0xef306b19u, 0xdb8ca0c3u, 0xb2f53777u, 0x6006181fu, 0xc00c303eu, 0x85f4168du, 0x0e045bebu,
		  0x1c08b7d6u) },
	{ SUM_256(0x68032cc8u, 0xd0065990u, 0xa5e0c5d1u, 0x4e2dfd53u, 0x9c5bfaa6u, 0x3d5b83bdu, 0x7ab7077au,
		  0xf56e0ef4u) },
	{ SUM_256(0x493c7d27u, 0x9278fa4eu, 0x211d826du, 0x423b04dau, 0x847609b4u, 0x0d006599u, 0x1a00cb32u,
		  0x34019664u) },
};

static uint32_t load_le32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint32_t crc32c_portable(uint32_t crc, const void *data, size_t len)
{
	const uint8_t *p = data;

	crc = ~crc;
	for (; len >= SLICES; p += SLICES, len -= SLICES) {
		uint32_t low = load_le32(p) ^ crc, high = load_le32(p + 4);
		crc = table[7][low & 255] ^ table[6][low >> 8 & 255] ^ table[5][low >> 16 & 255] ^ table[4][low >> 24] ^
		      table[3][high & 255] ^ table[2][high >> 8 & 255] ^ table[1][high >> 16 & 255] ^
		      table[0][high >> 24];
	}
	for (; len; p++, len--)
		crc = crc >> 8 ^ table[0][(crc ^ *p) & 255];
	return ~crc;
}

#if defined(__x86_64__)
#define STREAM_BYTES 64u
/* x^(8n - 33) modulo the polynomial, for one and two streams of n bytes: a remainder times this is that of as many zeros
 * after it, but for the x^33 that the product of two mirrored numbers and the instruction that takes it up add. */
#define AFTER_ONE 0x9e4addf8u
#define AFTER_TWO 0x0d3b6092u

static inline uint64_t load_64(const uint8_t *p)
{
	uint64_t word;

	memcpy(&word, p, sizeof word);
	return word;
}

__attribute__((target("sse4.2,pclmul"))) static inline uint64_t times(uint64_t remainder, uint32_t zeros)
{
	return (uint64_t)_mm_cvtsi128_si64(
		_mm_clmulepi64_si128(_mm_cvtsi64_si128((int64_t)remainder), _mm_cvtsi64_si128(zeros), 0));
}

__attribute__((target("sse4.2,pclmul"))) static inline uint64_t three_streams(uint64_t a, const uint8_t *p)
{
	uint64_t b = 0, c = 0;

	for (size_t at = 0; at < STREAM_BYTES - 8; at += 8) {
		a = _mm_crc32_u64(a, load_64(p + at));
		b = _mm_crc32_u64(b, load_64(p + STREAM_BYTES + at));
		c = _mm_crc32_u64(c, load_64(p + 2 * STREAM_BYTES + at));
	}
	a = _mm_crc32_u64(a, load_64(p + STREAM_BYTES - 8));
	b = _mm_crc32_u64(b, load_64(p + 2 * STREAM_BYTES - 8));
	return _mm_crc32_u64(c, load_64(p + 3 * STREAM_BYTES - 8) ^ times(a, AFTER_TWO) ^ times(b, AFTER_ONE));
}

/* Fewer than 8 bytes. */
__attribute__((target("sse4.2"))) static inline uint32_t crc32c_rest(uint32_t sum, const uint8_t *p, size_t len)
{
	uint32_t four;
	uint16_t two;

	if (len & 4) {
		memcpy(&four, p, sizeof four);
		sum = _mm_crc32_u32(sum, four);
		p += sizeof four;
	}
	if (len & 2) {
		memcpy(&two, p, sizeof two);
		sum = _mm_crc32_u16(sum, two);
		p += sizeof two;
	}
	return len & 1 ? _mm_crc32_u8(sum, *p) : sum;
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t crc32c_hardware(uint32_t crc, const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t sum = ~crc;

	for (; len >= 3 * STREAM_BYTES; p += 3 * STREAM_BYTES, len -= 3 * STREAM_BYTES)
		sum = three_streams(sum, p);
	for (; len >= 8; p += 8, len -= 8)
		sum = _mm_crc32_u64(sum, load_64(p));
	return ~crc32c_rest((uint32_t)sum, p, len);
}

static int has_hardware(void)
{
	return CPU_HAS(SSE4_2, "sse4.2") && CPU_HAS(PCLMULQDQ, "pclmul");
}
#elif defined(__ARM_FEATURE_CRC32) && defined(__aarch64__)
static uint32_t crc32c_hardware(uint32_t crc, const void *data, size_t len)
{
	const uint8_t *p = data;

	crc = ~crc;
	for (; len >= 8; p += 8, len -= 8) {
		uint64_t word;
		memcpy(&word, p, sizeof word);
		crc = __crc32cd(crc, word);
	}
	for (; len; p++, len--)
		crc = __crc32cb(crc, *p);
	return ~crc;
}

static int has_hardware(void)
{
	return 1;
}
#else
static uint32_t crc32c_hardware(uint32_t crc, const void *data, size_t len)
{
	return crc32c_portable(crc, data, len);
}

static int has_hardware(void)
{
	return 0;
}
#endif

static int hardware;

__attribute__((constructor)) static void look_at_hardware(void)
{
	hardware = has_hardware();
}

uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
	return hardware ? crc32c_hardware(crc, data, len) : crc32c_portable(crc, data, len);
}
