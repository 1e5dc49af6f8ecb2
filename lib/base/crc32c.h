/* crc32c.h: CRC-32C (Castagnoli), as in RFC 3720 appendix B.4. */
#ifndef EVBUS_BASE_CRC32C_H
#define EVBUS_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Continue with the value of the bytes before; begin with 0. crc32c(0, "123456789", 9) == 0xe3069283. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);

/* The table-driven form that crc32c uses where the processor has no instruction for it; for the tests. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t len);

#endif
