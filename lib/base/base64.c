/* base64.c: bytes as text, and back (RFC 4648, section 4). Bytes have one text only, and any other is refused. */
#include "evbus.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t evbus_base64_encode(struct evbus_slice bytes, char *text)
{
	const unsigned char *data = (const unsigned char *)bytes.data;
	char *to = text;

	for (size_t i = 0; i < bytes.len; i += 3) {
		size_t n = bytes.len - i;
		uint32_t bits =
			(uint32_t)data[i] << 16 | (n > 1 ? (uint32_t)data[i + 1] << 8 : 0) | (n > 2 ? data[i + 2] : 0);

		*to++ = digits[bits >> 18];
		*to++ = digits[bits >> 12 & 63];
		*to++ = n > 1 ? digits[bits >> 6 & 63] : '=';
		*to++ = n > 2 ? digits[bits & 63] : '=';
	}
	return (size_t)(to - text);
}

/* 64 and more: it is no digit. */
static inline uint32_t value_of(char digit)
{
	if (digit >= 'A' && digit <= 'Z')
		return (uint32_t)(digit - 'A');
	if (digit >= 'a' && digit <= 'z')
		return (uint32_t)(digit - 'a' + 26);
	if (digit >= '0' && digit <= '9')
		return (uint32_t)(digit - '0' + 52);
	return digit == '+' ? 62 : digit == '/' ? 63 : 64;
}

size_t evbus_base64_decode(struct evbus_slice text, char *bytes)
{
	size_t len = text.len, out = 0, padding = 0;

	if (len % 4)
		return SIZE_MAX;
	while (padding < 2 && padding < len && text.data[len - 1 - padding] == '=')
		padding++;
	for (size_t i = 0; i < len; i += 4) {
		size_t count = i + 4 < len ? 3 : 3 - padding;
		uint32_t bits = 0;
		for (size_t k = 0; k < 4; k++) {
			uint32_t value = k <= count ? value_of(text.data[i + k]) : 0u;
			if (value > 63)
				return SIZE_MAX;
			bits = bits << 6 | value;
		}
		/* What is padded away has to be nothing. */
		if (count < 3 && bits & 0xffffffu >> (8 * count))
			return SIZE_MAX;
		for (size_t k = 0; k < count; k++, out++)
			if (bytes)
				bytes[out] = (char)(bits >> (16 - 8 * k));
	}
	return out;
}
