/* buf.h: a growing buffer of bytes. */
#ifndef EVBUS_BASE_BUF_H
#define EVBUS_BASE_BUF_H

#include "base/err.h"

struct buf {
	char *data;
	size_t len;
	size_t size;
};

/* Makes room for `more` further bytes. EVBUS_IO with ENOMEM where there is no memory; the buffer is as it was. */
CHECKED enum evbus_code buf_grow(struct buf *buf, size_t more, struct evbus_err *err);
CHECKED static inline enum evbus_code buf_reserve(struct buf *buf, size_t more, struct evbus_err *err)
{
	return more <= buf->size - buf->len ? EVBUS_OK : buf_grow(buf, more, err);
}

CHECKED enum evbus_code buf_add(struct buf *buf, const void *data, size_t len, struct evbus_err *err);
void buf_release(struct buf *buf);

#endif
