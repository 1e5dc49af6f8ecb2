/* decisions.c: the table of decisions about rows of outboxes. */
#include "store/decisions.h"

#include "store/table.h"

#include <assert.h>
#include <inttypes.h>

static const char select_one[] =
	"SELECT decided_by, decided_at FROM outbox_decisions WHERE outbox = ? AND seq = ? AND state = 'DISCARDED'";
static const char upsert[] =
	"INSERT INTO outbox_decisions (outbox, seq, state, decided_by, decided_at) VALUES (?, ?, 'DISCARDED', ?, ?) "
	"ON CONFLICT (outbox, seq) DO UPDATE SET state = excluded.state, decided_by = excluded.decided_by, "
	"decided_at = excluded.decided_at";
static const char delete_one[] = "DELETE FROM outbox_decisions WHERE outbox = ? AND seq = ?";
static const char select_before[] = "SELECT seq FROM outbox_decisions WHERE outbox = ? AND seq > ? AND decided_at < ? "
				    "ORDER BY seq LIMIT 256";

enum evbus_code decisions_find(struct store *store, const char *outbox, int64_t seq, struct page *page,
			       struct decision *decision, bool *found, struct evbus_err *err)
{
	struct query query = { .sql = select_one, ARGS(value_text(outbox), value_integer(seq)) };

	TRY(page_read(store, &query, page, err));
	*found = page->count;
	if (!page->count)
		return EVBUS_OK;
	const struct value *columns = page->rows[0];
	if (columns[0].kind != VALUE_TEXT || columns[1].kind != VALUE_TEXT)
		return err_set(err, EVBUS_IO, 0,
			       "the decision about row %" PRId64
			       " of the outbox '%s' is damaged: evbus did not write it "
			       "so",
			       seq, outbox);
	*decision = (struct decision){ .by = columns[0].bytes, .at = columns[1].bytes };
	return EVBUS_OK;
}

enum evbus_code decisions_put(struct store *store, const char *outbox, int64_t seq, const char *by, const char *at,
			      struct evbus_err *err)
{
	struct query query = { .sql = upsert,
			       .later = true,
			       ARGS(value_text(outbox), value_integer(seq), value_text(by), value_text(at)) };

	return table_write(store, &query, err);
}

enum evbus_code decisions_remove(struct store *store, const char *outbox, int64_t seq, bool *changed,
				 struct evbus_err *err)
{
	struct query query = { .sql = delete_one, ARGS(value_text(outbox), value_integer(seq)) };

	TRY(table_write(store, &query, err));
	*changed = query.changed;
	return EVBUS_OK;
}

enum evbus_code decisions_before(struct store *store, const char *outbox, const char *before, int64_t after_seq,
				 struct page *page, struct evbus_err *err)
{
	struct query query = { .sql = select_before,
			       ARGS(value_text(outbox), value_integer(after_seq), value_text(before)) };

	return page_read(store, &query, page, err);
}
