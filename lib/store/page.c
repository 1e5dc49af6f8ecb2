/* page.c: rows that outlive their query. */
#include "store/page.h"

#include "store/table.h"

#include "base/os.h"

#include <errno.h>

void page_release(struct page *page)
{
	for (size_t i = 0; i < page->count; i++)
		free(page->rows[i]);
	*page = (struct page){ 0 };
}

static bool has_bytes(const struct value *value)
{
	return value->kind == VALUE_TEXT || value->kind == VALUE_BLOB;
}

static size_t size_of(const struct value *columns, size_t count)
{
	size_t size = count * sizeof *columns;

	for (size_t i = 0; i < count; i++)
		size += has_bytes(&columns[i]) ? columns[i].bytes.len : 0;
	return size;
}

static void copy_row(struct value *to, const struct value *columns, size_t count)
{
	char *bytes = (char *)(to + count);

	memcpy(to, columns, count * sizeof *columns);
	for (size_t i = 0; i < count; i++) {
		if (!has_bytes(&columns[i]))
			continue;
		if (columns[i].bytes.len)
			memcpy(bytes, columns[i].bytes.data, columns[i].bytes.len);
		to[i].bytes.data = bytes;
		bytes += columns[i].bytes.len;
	}
}

/* What a page that is full ends its query with: nothing has failed. */
#define FULL EVBUS_NO

static enum evbus_code take_row(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	struct page *page = context;
	size_t size = size_of(columns, count);

	if (page->count == PAGE_ROWS || (page->count && page->bytes + size > PAGE_BYTES))
		return FULL;
	struct value *row = os.realloc(NULL, size);
	if (!row)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot read the store");
	copy_row(row, columns, count);
	page->rows[page->count++] = row;
	page->columns = count;
	page->bytes += size;
	return EVBUS_OK;
}

enum evbus_code page_read(struct store *store, struct query *query, struct page *page, struct evbus_err *err)
{
	page_release(page);
	query->row = take_row;
	query->context = page;
	enum evbus_code code = table_read(store, query, err);
	return code == FULL ? EVBUS_OK : code;
}
