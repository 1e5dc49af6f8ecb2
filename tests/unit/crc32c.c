/* crc32c.c: the instruction and the tables agree with each other, with the RFC and with the definition. */
#include "base/crc32c.h"

#include <criterion/criterion.h>
#include <string.h>

typedef uint32_t crc_fn(uint32_t crc, const void *data, size_t len);

static crc_fn *const forms[] = { crc32c, crc32c_portable };

/* The definition, a bit at a time. */
static uint32_t slow(uint32_t crc, const uint8_t *p, size_t len)
{
	crc = ~crc;
	for (size_t i = 0; i < len; i++) {
		crc ^= p[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc & 1 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
	}
	return ~crc;
}

static void fill(uint8_t *bytes, size_t len)
{
	uint32_t state = 1;

	for (size_t i = 0; i < len; i++) {
		state = state * 1664525 + 1013904223;
		bytes[i] = (uint8_t)(state >> 24);
	}
}

Test(crc32c, gives_the_check_value)
{
	for (size_t i = 0; i < 2; i++) {
		cr_expect_eq(forms[i](0, "123456789", 9), 0xe3069283);
		cr_expect_eq(forms[i](0, "", 0), 0);
		cr_expect_eq(forms[i](0, "a", 1), 0xc1d04330);
	}
}

Test(crc32c, gives_the_values_of_rfc_3720_appendix_b_4)
{
	uint8_t up[32], down[32], zeros[32] = { 0 }, ones[32];

	memset(ones, 0xff, sizeof ones);
	for (size_t i = 0; i < sizeof up; i++) {
		up[i] = (uint8_t)i;
		down[i] = (uint8_t)(31 - i);
	}
	for (size_t i = 0; i < 2; i++) {
		cr_expect_eq(forms[i](0, zeros, 32), 0x8a9136aa);
		cr_expect_eq(forms[i](0, ones, 32), 0x62a8ab43);
		cr_expect_eq(forms[i](0, up, 32), 0x46dd794e);
		cr_expect_eq(forms[i](0, down, 32), 0x113fdb5c);
	}
}

Test(crc32c, agrees_with_the_definition_for_every_length_and_alignment)
{
	uint8_t bytes[800];

	fill(bytes, sizeof bytes);
	for (size_t from = 0; from < 9; from++)
		for (size_t len = 0; from + len <= sizeof bytes; len++) {
			uint32_t right = slow(0, bytes + from, len);
			cr_assert_eq(crc32c(0, bytes + from, len), right, "from %zu, %zu bytes", from, len);
			cr_assert_eq(crc32c_portable(0, bytes + from, len), right, "from %zu, %zu bytes", from, len);
		}
}

Test(crc32c, has_a_right_entry_for_every_byte_at_every_distance)
{
	for (unsigned byte = 0; byte < 256; byte++)
		for (size_t at = 0; at < 8; at++) {
			uint8_t bytes[8] = { 0 };
			bytes[at] = (uint8_t)byte;
			cr_assert_eq(crc32c_portable(0, bytes, 8), slow(0, bytes, 8), "byte %u at %zu", byte, at);
		}
}

Test(crc32c, continues_with_the_value_of_the_bytes_before)
{
	uint8_t bytes[300];

	fill(bytes, sizeof bytes);
	for (size_t i = 0; i < 2; i++)
		for (size_t cut = 0; cut <= sizeof bytes; cut++) {
			uint32_t first = forms[i](0, bytes, cut);
			cr_assert_eq(forms[i](first, bytes + cut, sizeof bytes - cut), slow(0, bytes, sizeof bytes));
		}
}

Test(crc32c, notices_every_single_flipped_bit_of_an_event)
{
	uint8_t bytes[300];

	fill(bytes, sizeof bytes);
	uint32_t right = crc32c(0, bytes, sizeof bytes);
	for (size_t bit = 0; bit < sizeof bytes * 8; bit++) {
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		cr_assert_neq(crc32c(0, bytes, sizeof bytes), right);
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
}
