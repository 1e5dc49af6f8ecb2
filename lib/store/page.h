/* page.h: rows that are kept when the query that read them is over, so that whoever gets them may take his time: nothing
 * stays open in the database meanwhile. A page is bounded in rows and in bytes. */
#ifndef EVBUS_STORE_PAGE_H
#define EVBUS_STORE_PAGE_H

#include "store/driver.h"
#include "store/store.h"

#define PAGE_ROWS 256u
#define PAGE_BYTES (8u * 1024 * 1024) /* one row may exceed it */

struct page {
	struct value *rows[PAGE_ROWS]; /* the columns of each, in a block of its own */
	size_t columns;
	size_t count;
	size_t bytes;
};

/* Fills the page with the first rows of a query, whose `row` and `context` are set here; as table_read() otherwise. */
CHECKED enum evbus_code page_read(struct store *store, struct query *query, struct page *page, struct evbus_err *err);
void page_release(struct page *page);

#endif
