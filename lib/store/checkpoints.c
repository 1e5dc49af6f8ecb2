/* checkpoints.c: the table of checkpoints. */
#include "store/outcomes.h"
#include "store/table.h"

#include "base/buf.h"

#include <assert.h>
#include <inttypes.h>

#define COLUMNS "group_name, topic, partition_id, next_offset, offset_kind, log_id, fingerprint, updated_at"
#define ORDER " ORDER BY group_name, topic, partition_id"

static const char select_one[] =
	"SELECT " COLUMNS " FROM checkpoints WHERE group_name = ? AND topic = ? AND partition_id = ?";
static const char select_last[] =
	"SELECT " COLUMNS " FROM checkpoints WHERE group_name = ? AND topic = ? AND log_id = ? "
	"ORDER BY partition_id DESC LIMIT 1";
static const char select_group[] = "SELECT " COLUMNS " FROM checkpoints WHERE group_name = ?" ORDER;
static const char select_all[] = "SELECT " COLUMNS " FROM checkpoints" ORDER;
static const char delete_one[] = "DELETE FROM checkpoints WHERE group_name = ? AND topic = ? AND partition_id = ?";
static const char upsert[] =
	"INSERT INTO checkpoints (" COLUMNS ") VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
	"ON CONFLICT (group_name, topic, partition_id) DO UPDATE SET next_offset = excluded.next_offset, "
	"offset_kind = excluded.offset_kind, log_id = excluded.log_id, fingerprint = excluded.fingerprint, "
	"updated_at = excluded.updated_at";

/* ---- rows ------------------------------------------------------------------------------------------------------ */

static enum evbus_code take_row(const struct value *columns, size_t count, struct evbus_checkpoint *to,
				struct evbus_err *err)
{
	struct evbus_checkpoint row = { 0 };

	assert(count == 8);
	if (!value_take_text(&columns[0], row.group, sizeof row.group) ||
	    !value_take_text(&columns[1], row.topic, sizeof row.topic) || columns[2].kind != VALUE_INTEGER ||
	    columns[2].integer < 0 || columns[2].integer > INT32_MAX ||
	    !value_take_text(&columns[3], row.next_offset, sizeof row.next_offset) ||
	    !value_take_text(&columns[4], row.offset_kind, sizeof row.offset_kind) ||
	    !value_take_text(&columns[5], row.log_id, sizeof row.log_id) ||
	    !value_take_text(&columns[6], row.fingerprint, sizeof row.fingerprint) ||
	    !value_take_text(&columns[7], row.updated_at_utc, sizeof row.updated_at_utc))
		return err_set(err, EVBUS_IO, 0,
			       "a checkpoint of the group '%s' on the topic '%s' is damaged: evbus did not write it so",
			       row.group, row.topic);
	row.partition_id = (int32_t)columns[2].integer;
	*to = row;
	return EVBUS_OK;
}

struct one {
	struct evbus_checkpoint checkpoint;
	bool found;
};

static enum evbus_code take_one(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	struct one *one = context;

	one->found = true;
	return take_row(columns, count, &one->checkpoint, err);
}

static enum evbus_code take_next(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	struct evbus_checkpoint checkpoint;

	TRY(take_row(columns, count, &checkpoint, err));
	return buf_add(context, &checkpoint, sizeof checkpoint, err);
}

static enum evbus_code none(const char *group, const char *topic, int32_t partition_id, struct evbus_err *err)
{
	return err_set(err, EVBUS_NONE, 0,
		       "the group '%s' has no checkpoint on partition %" PRId32 " of the topic '%s'", group,
		       partition_id, topic);
}

/* ---- the calls ------------------------------------------------------------------------------------------------- */

enum evbus_code store_checkpoint_get(struct store *store, const char *group, const char *topic, int32_t partition_id,
				     struct evbus_checkpoint *checkpoint, struct evbus_err *err)
{
	struct one one = { 0 };
	struct query query = { .sql = select_one,
			       ARGS(value_text(group), value_text(topic), value_integer(partition_id)),
			       .row = take_one,
			       .context = &one };

	TRY(table_read(store, &query, err));
	if (!one.found)
		return none(group, topic, partition_id, err);
	*checkpoint = one.checkpoint;
	return EVBUS_OK;
}

enum evbus_code store_checkpoint_last(struct store *store, const char *group, const char *topic, const char *log_id,
				      int32_t *partition_id, struct evbus_err *err)
{
	struct one one = { 0 };
	struct query query = { .sql = select_last,
			       ARGS(value_text(group), value_text(topic), value_text(log_id)),
			       .row = take_one,
			       .context = &one };

	TRY(table_read(store, &query, err));
	*partition_id = one.found ? one.checkpoint.partition_id : -1;
	return EVBUS_OK;
}

enum evbus_code store_checkpoint_list(struct store *store, const char *group, struct evbus_checkpoint **checkpoints,
				      size_t *count, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf rows = { 0 };
	struct query all = { .sql = select_all, .row = take_next, .context = &rows };
	struct query some = { .sql = select_group,
			      ARGS(value_text(group ? group : "")),
			      .row = take_next,
			      .context = &rows };

	TRY(table_read(store, group ? &some : &all, err));
	*count = rows.len / sizeof **checkpoints;
	*checkpoints = (struct evbus_checkpoint *)(void *)rows.data;
	rows.data = NULL;
	return EVBUS_OK;
}

enum evbus_code outcomes_checkpoint(struct store *store, const struct evbus_checkpoint *c, struct evbus_err *err)
{
	struct query query = { .sql = upsert,
			       .later = true,
			       ARGS(value_text(c->group), value_text(c->topic), value_integer(c->partition_id),
				    value_text(c->next_offset), value_text(c->offset_kind), value_text(c->log_id),
				    value_text(c->fingerprint), value_text(c->updated_at_utc)) };

	return table_write(store, &query, err);
}

enum evbus_code store_checkpoint_put(struct store *store, const struct evbus_checkpoint *checkpoints, size_t count,
				     struct evbus_err *err)
{
	if (!count)
		return EVBUS_OK;
	TRY(table_begin(store, err));
	for (size_t i = 0; i < count; i++) {
		enum evbus_code code = outcomes_checkpoint(store, &checkpoints[i], err);
		if (code) {
			table_rollback(store);
			return code;
		}
	}
	return table_commit(store, err);
}

static enum evbus_code remove_one(struct store *store, const char *group, const char *topic, int32_t partition_id,
				  struct evbus_err *err)
{
	struct query query = { .sql = delete_one,
			       ARGS(value_text(group), value_text(topic), value_integer(partition_id)) };

	TRY(table_write(store, &query, err));
	return query.changed ? EVBUS_OK : none(group, topic, partition_id, err);
}

enum evbus_code store_checkpoint_remove(struct store *store, const char *group, const char *topic, int32_t partition_id,
					struct evbus_err *err)
{
	struct evbus_checkpoint there;

	/* Asked first, as removing what is not there makes no store. */
	TRY(store_checkpoint_get(store, group, topic, partition_id, &there, err));
	TRY(table_begin(store, err));
	enum evbus_code code = remove_one(store, group, topic, partition_id, err);
	if (code) {
		table_rollback(store);
		return code;
	}
	return table_commit(store, err);
}
