/* outbox_list.c: looking at an outbox. */
#include "outbox_table.h"

#include "base/os.h"
#include "event/subject.h"

#include <errno.h>

#define PAGE_ROWS 200u
#define PAGE_BYTES (4u * 1024 * 1024)

/* ---- a page ---------------------------------------------------------------------------------------------------- */

struct page {
	struct evbus_outbox *outbox;
	struct outbox_held rows[PAGE_ROWS];
	size_t count, bytes;
};

static void page_clear(struct page *page)
{
	for (size_t i = 0; i < page->count; i++)
		outbox_held_release(&page->rows[i]);
	page->count = page->bytes = 0;
}

static void page_free(struct page **page)
{
	if (*page)
		page_clear(*page);
	free(*page);
}

/* EVBUS_NO: the page is full. */
static enum evbus_code take_row(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	struct page *page = context;

	TRY(outbox_hold(page->outbox, columns, count, &page->rows[page->count], err));
	page->bytes += page->rows[page->count++].row.payload.len;
	return page->bytes > PAGE_BYTES ? EVBUS_NO : EVBUS_OK;
}

/* *more: it may go on behind the last of them. */
static enum evbus_code read_page(struct page *page, enum outbox_sql sql, int64_t after, int64_t most, bool *more,
				 struct evbus_err *err)
{
	struct query query = { .sql = page->outbox->sql[sql],
			       ARGS(value_integer(after), value_integer(most)),
			       .row = take_row,
			       .context = page };

	page_clear(page);
	enum evbus_code code = outbox_read(page->outbox, &query, err);
	*more = code == EVBUS_NO || page->count == PAGE_ROWS;
	return code == EVBUS_NO ? EVBUS_OK : code;
}

/* ---- all that is not done -------------------------------------------------------------------------------------- */

/* Calls for each row, in the order of seq, with no transaction open. */
static enum evbus_code each_open(struct evbus_outbox *outbox,
				 enum evbus_code (*take)(void *context, const struct outbox_open *row,
							 struct evbus_err *err),
				 void *context, struct evbus_err *err)
{
	CLEANUP(free_cleanup) struct outbox_open *rows = os.realloc(NULL, OUTBOX_SCAN_MAX * sizeof *rows);
	size_t count = OUTBOX_SCAN_MAX;
	int64_t after = INT64_MIN;

	if (!rows)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot read the outbox '%s'", outbox->name);
	while (count == OUTBOX_SCAN_MAX) {
		TRY(outbox_scan(outbox, after, INT64_MAX, OUTBOX_SCAN_MAX, rows, &count, err));
		for (size_t i = 0; i < count; i++)
			TRY(take(context, &rows[i], err));
		if (count)
			after = rows[count - 1].seq;
	}
	return EVBUS_OK;
}

/* ---- what waits behind a row ----------------------------------------------------------------------------------- */

/* Rows that block their key, each the first of its key that does, and how many are behind it. */
struct blocking {
	struct key_table keys; /* offset: which of rows */
	struct buf rows; /* of struct blocker, in the order of seq */
	int64_t now_us;
	bool known;
};

struct blocker {
	int64_t seq, behind;
};

static void blocking_release(struct blocking *blocking)
{
	key_table_release(&blocking->keys);
	buf_release(&blocking->rows);
}

static bool waits(const struct outbox_open *row, int64_t now_us)
{
	return row->state == EVBUS_OUTBOX_PROCESSING || row->due_us > now_us;
}

static enum evbus_code note_blocker(void *context, const struct outbox_open *row, struct evbus_err *err)
{
	struct blocking *blocking = context;
	const struct blocker new = { .seq = row->seq };
	size_t at = 0, count = blocking->rows.len / sizeof new;
	const struct key_slot *slot = row->key ? key_table_next(&blocking->keys, row->key, &at) : NULL;

	if (slot)
		((struct blocker *)(void *)blocking->rows.data)[slot->offset].behind++;
	if (slot || !row->key || !waits(row, blocking->now_us))
		return EVBUS_OK;
	TRY(key_table_add(&blocking->keys, row->key, 0, count, err));
	return buf_add(&blocking->rows, &new, sizeof new, err);
}

static int by_seq(const void *a, const void *b)
{
	const struct blocker *left = a, *right = b;

	return (left->seq > right->seq) - (left->seq < right->seq);
}

/* All rows have to be looked at for that: not before one is given out that might block others. */
static enum evbus_code count_behind(struct evbus_outbox *outbox, struct blocking *blocking,
				    struct evbus_outbox_row *row, struct evbus_err *err)
{
	const struct blocker key = { .seq = row->seq };
	const struct blocker *found;

	if (!row->partition_key.data || (row->state != EVBUS_OUTBOX_PENDING && row->state != EVBUS_OUTBOX_PROCESSING))
		return EVBUS_OK;
	if (!blocking->known)
		TRY(each_open(outbox, note_blocker, blocking, err));
	blocking->known = true;
	if (!blocking->rows.len)
		return EVBUS_OK;
	found = bsearch(&key, blocking->rows.data, blocking->rows.len / sizeof key, sizeof key, by_seq);
	row->behind = found ? found->behind : 0;
	return EVBUS_OK;
}

/* ---- listing --------------------------------------------------------------------------------------------------- */

static bool equals(struct evbus_slice text, const char *wanted)
{
	return text.data && text.len == strlen(wanted) && !memcmp(text.data, wanted, text.len);
}

static bool matches(const struct evbus_outbox_filter *filter, const struct evbus_outbox_row *row)
{
	if (filter->seq && row->seq != filter->seq)
		return false;
	if (filter->state >= 0 && (int)row->state != filter->state)
		return false;
	if (filter->topic && !(row->topic.data && subject_matches(filter->topic, row->topic)))
		return false;
	return !filter->tenant || equals(row->tenant_id, filter->tenant);
}

struct listing {
	struct evbus_outbox *outbox;
	const struct evbus_outbox_filter *filter;
	enum evbus_code (*row)(void *context, const struct evbus_outbox_row *row, struct evbus_err *err);
	void *context;
	int64_t left;
	struct blocking blocking;
};

static enum evbus_code give_page(struct listing *listing, struct page *page, struct evbus_err *err)
{
	for (size_t i = 0; i < page->count && listing->left; i++) {
		struct outbox_held *held = &page->rows[i];
		if (!matches(listing->filter, &held->row))
			continue;
		TRY(count_behind(listing->outbox, &listing->blocking, &held->row, err));
		if (listing->filter->blocked && !held->row.behind)
			continue;
		TRY(listing->row(listing->context, &held->row, err));
		listing->left--;
	}
	return EVBUS_OK;
}

static enum outbox_sql sql_for(const struct evbus_outbox_filter *filter)
{
	if (filter->state >= 0)
		return OUTBOX_SQL_LIST_STATE + (enum outbox_sql)filter->state;
	return filter->blocked ? OUTBOX_SQL_LIST_OPEN : OUTBOX_SQL_LIST;
}

static enum evbus_code list(struct listing *listing, struct evbus_err *err)
{
	const struct evbus_outbox_filter *filter = listing->filter;
	CLEANUP(page_free) struct page *page = os.realloc(NULL, sizeof *page);
	int64_t after = filter->seq ? filter->seq - 1 : INT64_MIN;
	bool more = true;

	if (!page)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot list the outbox '%s'", listing->outbox->name);
	page->outbox = listing->outbox;
	page->count = page->bytes = 0;
	while (more && listing->left) {
		TRY(read_page(page, sql_for(filter), after, filter->seq ? 1 : PAGE_ROWS, &more, err));
		if (page->count)
			after = page->rows[page->count - 1].row.seq;
		TRY(give_page(listing, page, err));
		more = more && !filter->seq;
	}
	return EVBUS_OK;
}

enum evbus_code evbus_outbox_list(struct evbus_outbox *outbox, const struct evbus_outbox_filter *filter,
				  enum evbus_code (*row)(void *context, const struct evbus_outbox_row *row,
							 struct evbus_err *err),
				  void *context, struct evbus_err *err)
{
	static const struct evbus_outbox_filter all = { .state = -1 };
	struct listing listing = { .outbox = outbox,
				   .filter = filter ? filter : &all,
				   .row = row,
				   .context = context,
				   .left = INT64_MAX,
				   .blocking = { .now_us = os_now_us() } };

	if (listing.filter->topic)
		TRY(evbus_topic_check(listing.filter->topic, true, err));
	if (listing.filter->state >= EVBUS_OUTBOX_STATES)
		return err_set(err, EVBUS_USAGE, 0, "there is no state %d of a row", listing.filter->state);
	TRY(outbox_look(outbox, err));
	TRY(outbox_counts_load(outbox, err));
	if (listing.filter->max)
		listing.left = listing.filter->max;
	enum evbus_code code = list(&listing, err);
	blocking_release(&listing.blocking);
	return code;
}

/* ---- counting -------------------------------------------------------------------------------------------------- */

static enum evbus_code count_rows(struct evbus_outbox *outbox, enum outbox_sql sql, int64_t *count,
				  struct evbus_err *err)
{
	struct query query = { .sql = outbox->sql[sql], .row = outbox_take_integer, .context = count };

	return outbox_read(outbox, &query, err);
}

static enum evbus_code count_waiting(struct evbus_outbox *outbox, int64_t now_us, int64_t *count, struct evbus_err *err)
{
	char now[28];

	evbus_time_format(now_us, now);
	struct query query = { .sql = outbox->sql[OUTBOX_SQL_COUNT_WAITING],
			       ARGS(value_text(now)),
			       .row = outbox_take_integer,
			       .context = count };
	if (outbox_has_counts(outbox))
		return outbox_read(outbox, &query, err);
	for (size_t i = 0; i < outbox->counts.count; i++)
		*count += outbox->counts.entries[i].due_us > now_us;
	return EVBUS_OK;
}

/* What a claim would ask, of a batch that has no end. */
struct claimable {
	struct key_table blocked;
	int64_t now_us, first, count;
};

static enum evbus_code note_claimable(void *context, const struct outbox_open *row, struct evbus_err *err)
{
	struct claimable *claimable = context;

	if (outbox_key_is_in(&claimable->blocked, row->key))
		return EVBUS_OK;
	if (!outbox_is_due(row, NULL, OUTBOX_LEASE_MAX_MS, claimable->now_us))
		return outbox_key_add(&claimable->blocked, row->key, err);
	if (!claimable->count++)
		claimable->first = row->seq;
	return EVBUS_OK;
}

/* The first of them is the oldest. */
static enum evbus_code count_claimable(struct evbus_outbox *outbox, struct evbus_outbox_counts *counts,
				       struct evbus_err *err)
{
	struct claimable claimable = { .now_us = os_now_us() };
	struct outbox_held held = { 0 };
	bool found = false;
	enum evbus_code code = each_open(outbox, note_claimable, &claimable, err);

	key_table_release(&claimable.blocked);
	TRY(code);
	counts->claimable = claimable.count;
	counts->oldest_due_s = -1;
	if (!claimable.count)
		return EVBUS_OK;
	TRY(outbox_get(outbox, claimable.first, &held, &found, err));
	int64_t created_us = found ? outbox_time_of(held.row.created_at) : 0;
	counts->oldest_due_s =
		created_us && created_us < claimable.now_us ? (claimable.now_us - created_us) / 1000000 : 0;
	outbox_held_release(&held);
	return EVBUS_OK;
}

enum evbus_code evbus_outbox_count(struct evbus_outbox *outbox, struct evbus_outbox_counts *counts,
				   struct evbus_err *err)
{
	struct evbus_outbox_counts found = { 0 };
	int64_t all = 0, *rows = found.rows;

	TRY(outbox_look(outbox, err));
	TRY(outbox_counts_load(outbox, err));
	TRY(count_rows(outbox, OUTBOX_SQL_COUNT_PENDING, &rows[EVBUS_OUTBOX_PENDING], err));
	TRY(count_rows(outbox, OUTBOX_SQL_COUNT_PROCESSING, &rows[EVBUS_OUTBOX_PROCESSING], err));
	TRY(count_rows(outbox, OUTBOX_SQL_COUNT_FAILED, &rows[EVBUS_OUTBOX_FAILED], err));
	/* All of them are counted in an index, those that are done one by one in the table. What the application has in
	 * a state of its own is done as far as evbus goes. */
	TRY(count_rows(outbox, OUTBOX_SQL_COUNT, &all, err));
	all -= rows[EVBUS_OUTBOX_PENDING] + rows[EVBUS_OUTBOX_PROCESSING] + rows[EVBUS_OUTBOX_FAILED];
	rows[EVBUS_OUTBOX_SENT] = all > 0 ? all : 0;
	TRY(count_waiting(outbox, os_now_us(), &found.waiting, err));
	TRY(count_claimable(outbox, &found, err));
	*counts = found;
	return EVBUS_OK;
}

enum evbus_code evbus_outbox_last_seq(struct evbus_outbox *outbox, int64_t *seq, struct evbus_err *err)
{
	int64_t last = INT64_MIN;

	TRY(outbox_look(outbox, err));
	TRY(count_rows(outbox, OUTBOX_SQL_LAST_SEQ, &last, err));
	*seq = last;
	return last == INT64_MIN ? outbox_refuse_lowest(outbox, err) : EVBUS_OK;
}
