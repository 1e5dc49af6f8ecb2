/* outbox_counts.c: attempts and due times of rows whose table has no columns for them.
 *
 * They stand in the store, among the retries, under a name that no group can have. A count is written before the row is
 * given back, so that no other drainer finds the row without it; one that is left over does no harm. */
#include "outbox_table.h"

#include "base/os.h"

#include <errno.h>
#include <inttypes.h>

#define GROUP_PREFIX "outbox:"

static const char select_all[] = "SELECT record_offset, attempts, next_attempt_at, last_error, history FROM retries "
				 "WHERE group_name = ? AND topic = '' AND partition_id = 0";
static const char upsert[] = "INSERT INTO retries (group_name, topic, partition_id, record_offset, log_id, attempts, "
			     "next_attempt_at, last_error, history) VALUES (?, '', 0, ?, '', ?, ?, ?, ?) "
			     "ON CONFLICT (group_name, topic, partition_id, record_offset) DO UPDATE SET "
			     "attempts = excluded.attempts, next_attempt_at = excluded.next_attempt_at, "
			     "last_error = excluded.last_error, history = excluded.history";
static const char delete_one[] = "DELETE FROM retries WHERE group_name = ? AND topic = '' AND partition_id = 0 AND "
				 "record_offset = ?";

static void empty(struct outbox_counts *counts)
{
	for (size_t i = 0; i < counts->count; i++) {
		free(counts->entries[i].error);
		free(counts->entries[i].history);
	}
	counts->count = 0;
}

void outbox_counts_release(struct evbus_outbox *outbox)
{
	empty(&outbox->counts);
	free(outbox->counts.entries);
	outbox->counts = (struct outbox_counts){ 0 };
}

/* The bus's own store, and the group that our counts have there. */
static enum evbus_code open_store(struct evbus_outbox *outbox, struct buf *group, struct evbus_err *err)
{
	const char *place;

	TRY(outbox_place(outbox, &place, err));
	TRY(buf_add(group, GROUP_PREFIX, sizeof GROUP_PREFIX - 1, err));
	TRY(buf_add(group, place, strlen(place) + 1, err));
	return bus_store(outbox->bus, err);
}

static char *copy_text(struct evbus_slice text)
{
	char *copy = os.realloc(NULL, text.len + 1);

	if (!copy)
		return NULL;
	if (text.len)
		memcpy(copy, text.data, text.len);
	copy[text.len] = '\0';
	return copy;
}

static enum evbus_code take_count(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	struct outbox_counts *counts = context;
	struct outbox_count *entry;
	(void)count;

	if (counts->count == counts->size) {
		size_t size = counts->size ? 2 * counts->size : 16;
		entry = os.realloc(counts->entries, size * sizeof *entry);
		if (!entry)
			return err_set(err, EVBUS_IO, ENOMEM, "cannot read the retries");
		counts->entries = entry;
		counts->size = size;
	}
	entry = &counts->entries[counts->count];
	*entry = (struct outbox_count){ .attempts = columns[1].integer, .due_us = outbox_time(&columns[2]) };
	CLEANUP(free_cleanup) char *seq = copy_text(columns[0].bytes);
	entry->error = copy_text(columns[3].bytes);
	entry->history = copy_text(columns[4].bytes);
	counts->count++;
	if (!seq || !entry->error || !entry->history)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot read the retries");
	entry->seq = strtoll(seq, NULL, 10);
	return EVBUS_OK;
}

static int by_seq(const void *a, const void *b)
{
	const struct outbox_count *left = a, *right = b;

	return (left->seq > right->seq) - (left->seq < right->seq);
}

enum evbus_code outbox_counts_load(struct evbus_outbox *outbox, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf group = { 0 };

	if (outbox_has_counts(outbox))
		return EVBUS_OK;
	TRY(open_store(outbox, &group, err));
	empty(&outbox->counts);
	struct query query = {
		.sql = select_all, ARGS(value_text(group.data)), .row = take_count, .context = &outbox->counts
	};
	TRY(table_read(outbox->bus->store, &query, err));
	if (outbox->counts.count)
		qsort(outbox->counts.entries, outbox->counts.count, sizeof *outbox->counts.entries, by_seq);
	return EVBUS_OK;
}

const struct outbox_count *outbox_counts_find(const struct evbus_outbox *outbox, int64_t seq)
{
	const struct outbox_count key = { .seq = seq };

	if (!outbox->counts.count)
		return NULL;
	return bsearch(&key, outbox->counts.entries, outbox->counts.count, sizeof key, by_seq);
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

static enum evbus_code put(struct store *store, const char *group, const struct outbox_count *count,
			   struct evbus_err *err)
{
	char seq[24], due[28] = "";

	snprintf(seq, sizeof seq, "%" PRId64, count->seq);
	if (count->due_us)
		evbus_time_format(count->due_us, due);
	struct query query = { .sql = upsert,
			       ARGS(value_text(group), value_text(seq), value_integer(count->attempts), value_text(due),
				    value_text(count->error), value_text(count->history)) };
	return table_write(store, &query, err);
}

static enum evbus_code end(struct store *store, enum evbus_code code, struct evbus_err *err)
{
	if (!code)
		return table_commit(store, err);
	table_rollback(store);
	return code;
}

enum evbus_code outbox_counts_put(struct evbus_outbox *outbox, const struct outbox_count *counts, size_t count,
				  struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf group = { 0 };
	enum evbus_code code = EVBUS_OK;

	if (outbox_has_counts(outbox) || !count)
		return EVBUS_OK;
	TRY(open_store(outbox, &group, err));
	TRY(table_begin(outbox->bus->store, err));
	for (size_t i = 0; i < count && !code; i++)
		code = put(outbox->bus->store, group.data, &counts[i], err);
	return end(outbox->bus->store, code, err);
}

enum evbus_code outbox_counts_remove(struct evbus_outbox *outbox, const int64_t *seqs, size_t count,
				     struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf group = { 0 };
	enum evbus_code code = EVBUS_OK;
	char seq[24];

	if (outbox_has_counts(outbox) || !count)
		return EVBUS_OK;
	TRY(open_store(outbox, &group, err));
	TRY(table_begin(outbox->bus->store, err));
	for (size_t i = 0; i < count && !code; i++) {
		snprintf(seq, sizeof seq, "%" PRId64, seqs[i]);
		struct query query = { .sql = delete_one, ARGS(value_text(group.data), value_text(seq)) };
		code = table_write(outbox->bus->store, &query, err);
	}
	return end(outbox->bus->store, code, err);
}
