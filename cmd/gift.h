/* gift.h: output that a pipe is given, instead of a copy of it. */
#ifndef GIFT_H
#define GIFT_H

#include <stddef.h>
#include <sys/types.h>

#define GIFT_BLOCK_BYTES (4u << 20)

/* Memory to be filled with output, which takes the place of the last block. NULL: stdout is no pipe, or giving does not
 * pay on this machine. */
char *gift_block(void);

/* As write() to stdout, of a part of the block, which must not be changed any more then. */
ssize_t gift_give(const char *data, size_t len);

#endif
