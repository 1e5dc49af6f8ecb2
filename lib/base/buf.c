/* buf.c: a growing buffer of bytes. */
#include "base/buf.h"

#include "base/os.h"

#include <errno.h>
#include <string.h>

enum evbus_code buf_grow(struct buf *buf, size_t more, struct evbus_err *err)
{
	size_t size = buf->size ? buf->size : 256;
	while (size - buf->len < more)
		size *= 2;
	char *data = os.realloc(buf->data, size);
	if (!data)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot grow a buffer to %zu bytes", size);
	buf->data = data;
	buf->size = size;
	return EVBUS_OK;
}

enum evbus_code buf_add(struct buf *buf, const void *data, size_t len, struct evbus_err *err)
{
	TRY(buf_reserve(buf, len, err));
	if (len)
		memcpy(buf->data + buf->len, data, len);
	buf->len += len;
	return EVBUS_OK;
}

void buf_release(struct buf *buf)
{
	free(buf->data);
	*buf = (struct buf){ 0 };
}
