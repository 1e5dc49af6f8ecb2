/* decimal.c: numbers as texts, and texts as numbers. */
#include "base/decimal.h"

#include <endian.h>
#include <string.h>

#define EIGHT_DIGITS 100000000u

static void put_eight(char *text, uint64_t digits)
{
	digits = htole64(digits);
	memcpy(text, &digits, sizeof digits);
}

/* Below 10^8. */
static size_t format_few(uint32_t value, char *text)
{
	uint64_t digits = decimal_eight(value);
	/* The last digit stands there also where it is a zero. */
	unsigned zeros = (unsigned)__builtin_ctzll((digits ^ 0x3030303030303030) | (uint64_t)1 << 56) / 8;

	put_eight(text, digits >> 8 * zeros);
	return 8 - zeros;
}

size_t decimal_format(uint64_t value, char *text)
{
	if (value < EIGHT_DIGITS)
		return format_few((uint32_t)value, text);
	size_t len = decimal_format(value / EIGHT_DIGITS, text);
	put_eight(text + len, decimal_eight((uint32_t)(value % EIGHT_DIGITS)));
	return len + 8;
}

bool decimal_parse(struct evbus_slice text, uint64_t *value)
{
	uint64_t v = 0;

	if (text.len == 0 || text.len > 20 || (text.len > 1 && text.data[0] == '0'))
		return false;
	for (size_t i = 0; i < text.len; i++) {
		uint64_t digit = (uint64_t)(unsigned char)text.data[i] - '0';
		/* Only the twentieth digit can be too much. */
		if (digit > 9 || (i == 19 && v > (UINT64_MAX - 1 - digit) / 10))
			return false;
		v = v * 10 + digit;
	}
	*value = v;
	return true;
}
