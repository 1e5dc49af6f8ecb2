/* keys.c: the tables event_keys and key_progress. */
#include "store/keys.h"

#include "base/decimal.h"
#include "store/table.h"

#include <assert.h>

#define PLACE "log_id, partition_id, record_offset, published_at"
#define PAIR "(?, ?)"
#define ROW "(?, ?, ?, ?, ?, ?, ?)"
#define TIMES_4(text) text ", " text ", " text ", " text
#define TIMES_32(text) TIMES_4(TIMES_4(text)) ", " TIMES_4(TIMES_4(text))
#define OF_KEY " WHERE topic = ? AND tenant_id = ? AND event_key = ?"

static const char select_one[] = "SELECT tenant_id, event_key, " PLACE " FROM event_keys" OF_KEY;
/* Joined in this order each pair is one search of the index; of "(tenant_id, event_key) IN (VALUES …)" SQLite makes a
 * walk through all keys. */
static const char select_many[] =
	"WITH wanted (tenant_id, event_key) AS (VALUES " TIMES_32(PAIR) ") "
	"SELECT k.tenant_id, k.event_key, k.log_id, k.partition_id, k.record_offset, k.published_at "
	"FROM wanted CROSS JOIN event_keys k "
	"WHERE k.topic = ? AND k.tenant_id = wanted.tenant_id AND k.event_key = wanted.event_key";
#define INSERT(rows)                                                                                               \
	"INSERT INTO event_keys (topic, tenant_id, event_key, " PLACE ") VALUES " rows                             \
	" ON CONFLICT (topic, tenant_id, event_key) DO NOTHING"
static const char insert[] = INSERT(ROW);
static const char insert_many[] = INSERT(TIMES_32(ROW)); /* a third of the time of 32 of them */
static const char update[] = "UPDATE event_keys SET log_id = ?, partition_id = ?, record_offset = ?, "
			     "published_at = ?" OF_KEY;
static const char delete_keys[] = "DELETE FROM event_keys WHERE topic = ?";
static const char count_keys[] = "SELECT COUNT(*) FROM event_keys WHERE topic = ?";
static const char delete_progress[] = "DELETE FROM key_progress WHERE topic = ?";
static const char select_progress[] =
	"SELECT partition_id, log_id, indexed_to, fingerprint FROM key_progress WHERE topic = ?";
static const char upsert_progress[] =
	"INSERT INTO key_progress (topic, partition_id, log_id, indexed_to, fingerprint) VALUES (?, ?, ?, ?, ?) "
	"ON CONFLICT (topic, partition_id) DO UPDATE SET log_id = excluded.log_id, "
	"indexed_to = excluded.indexed_to, fingerprint = excluded.fingerprint";

/* ---- values ---------------------------------------------------------------------------------------------------- */

static bool take_partition(const struct value *value, int32_t *partition_id)
{
	if (value->kind != VALUE_INTEGER || value->integer < 0 || value->integer > INT32_MAX)
		return false;
	*partition_id = (int32_t)value->integer;
	return true;
}

static bool take_offset(const struct value *value, uint64_t *offset)
{
	uint64_t number = 0;

	if (value->kind != VALUE_TEXT || value->bytes.len == 0 || value->bytes.len > 19)
		return false;
	for (size_t i = 0; i < value->bytes.len; i++) {
		unsigned digit = (unsigned char)value->bytes.data[i] - '0';
		if (digit > 9)
			return false;
		number = number * 10 + digit;
	}
	*offset = number;
	return true;
}

static enum evbus_code damaged(struct evbus_err *err)
{
	return err_set(err, EVBUS_IO, 0,
		       "the index of event keys is damaged: evbus did not write it so; make it anew with evbus verify "
		       "--rebuild-keys");
}

struct offset_text {
	char text[24];
};

static struct offset_text offset_of(uint64_t offset)
{
	struct offset_text of;

	of.text[decimal_format(offset, of.text)] = '\0';
	return of;
}

/* ---- places ---------------------------------------------------------------------------------------------------- */

struct finding {
	const struct key_name *names;
	size_t count;
	struct key_place *places;
};

static bool is(const struct value *value, struct evbus_slice text)
{
	return value->kind == VALUE_TEXT && value->bytes.len == text.len &&
	       (!text.len || !memcmp(value->bytes.data, text.data, text.len));
}

static enum evbus_code take_place(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	const struct finding *finding = context;
	struct key_place place = { .found = true };

	assert(count == 6);
	if (!value_take_text(&columns[2], place.log_id, sizeof place.log_id) ||
	    !take_partition(&columns[3], &place.partition_id) || !take_offset(&columns[4], &place.offset) ||
	    !value_take_text(&columns[5], place.published_at, sizeof place.published_at))
		return damaged(err);
	for (size_t i = 0; i < finding->count; i++)
		if (is(&columns[0], finding->names[i].tenant_id) && is(&columns[1], finding->names[i].event_key))
			finding->places[i] = place;
	return EVBUS_OK;
}

static enum evbus_code find_one(struct store *store, const char *topic, const struct key_name *name,
				struct key_place *place, struct evbus_err *err)
{
	struct finding finding = { name, 1, place };
	struct query query = { .sql = select_one,
			       ARGS(value_text(topic), value_slice(name->tenant_id), value_slice(name->event_key)),
			       .row = take_place,
			       .context = &finding };

	place->found = false;
	return table_read(store, &query, err);
}

enum evbus_code store_keys_find(struct store *store, const char *topic, const struct key_name *names, size_t count,
				struct key_place *places, struct evbus_err *err)
{
	struct value args[2 * KEYS_FIND_MAX + 1];
	struct finding finding = { names, count, places };
	struct query query = { .sql = select_many,
			       .args = args,
			       .arg_count = 2 * (size_t)KEYS_FIND_MAX + 1,
			       .row = take_place,
			       .context = &finding };

	assert(count <= KEYS_FIND_MAX);
	if (!count)
		return EVBUS_OK;
	if (count == 1)
		return find_one(store, topic, names, places, err);
	args[2 * KEYS_FIND_MAX] = value_text(topic);
	/* Those that are not needed ask for the last one again. */
	for (size_t i = 0; i < KEYS_FIND_MAX; i++) {
		const struct key_name *name = &names[i < count ? i : count - 1];
		args[2 * i] = value_slice(name->tenant_id);
		args[2 * i + 1] = value_slice(name->event_key);
	}
	for (size_t i = 0; i < count; i++)
		places[i].found = false;
	return table_read(store, &query, err);
}

#define ROW_ARGS 7u

static void set_row(struct value args[ROW_ARGS], const char *topic, const struct key_name *name,
		    const struct key_place *place, const char *offset)
{
	args[0] = value_text(topic);
	args[1] = value_slice(name->tenant_id);
	args[2] = value_slice(name->event_key);
	args[3] = value_text(place->log_id);
	args[4] = value_integer(place->partition_id);
	args[5] = value_text(offset);
	args[6] = value_text(place->published_at);
}

enum evbus_code store_keys_add(struct store *store, const char *topic, const struct key_name *name,
			       const struct key_place *place, struct key_place *other, struct evbus_err *err)
{
	struct offset_text offset = offset_of(place->offset);
	struct value args[ROW_ARGS];
	struct query query = { .sql = insert, .args = args, .arg_count = ROW_ARGS };

	set_row(args, topic, name, place, offset.text);
	other->found = false;
	TRY(table_write(store, &query, err));
	if (query.changed)
		return EVBUS_OK;
	TRY(find_one(store, topic, name, other, err));
	other->found = other->found && (strcmp(other->log_id, place->log_id) != 0 ||
					other->partition_id != place->partition_id || other->offset != place->offset);
	return EVBUS_OK;
}

enum evbus_code store_keys_add_many(struct store *store, const char *topic, const struct key_name *names,
				    const struct key_place *places, bool *all, struct evbus_err *err)
{
	struct offset_text offsets[KEYS_FIND_MAX];
	struct value args[KEYS_FIND_MAX * ROW_ARGS];
	struct query query = { .sql = insert_many, .args = args, .arg_count = (size_t)KEYS_FIND_MAX * ROW_ARGS };

	for (size_t i = 0; i < KEYS_FIND_MAX; i++) {
		offsets[i] = offset_of(places[i].offset);
		set_row(&args[i * ROW_ARGS], topic, &names[i], &places[i], offsets[i].text);
	}
	TRY(table_write(store, &query, err));
	*all = query.changed == KEYS_FIND_MAX;
	return EVBUS_OK;
}

enum evbus_code store_keys_replace(struct store *store, const char *topic, const struct key_name *name,
				   const struct key_place *place, struct evbus_err *err)
{
	struct offset_text offset = offset_of(place->offset);
	struct query query = { .sql = update,
			       .later = true,
			       ARGS(value_text(place->log_id), value_integer(place->partition_id),
				    value_text(offset.text), value_text(place->published_at), value_text(topic),
				    value_slice(name->tenant_id), value_slice(name->event_key)) };

	return table_write(store, &query, err);
}

enum evbus_code store_keys_clear(struct store *store, const char *topic, struct evbus_err *err)
{
	struct query keys = { .sql = delete_keys, .later = true, ARGS(value_text(topic)) };
	struct query progress = { .sql = delete_progress, .later = true, ARGS(value_text(topic)) };

	TRY(table_write(store, &keys, err));
	return table_write(store, &progress, err);
}

static enum evbus_code take_count(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	(void)count;
	(void)err;
	*(uint64_t *)context = (uint64_t)columns[0].integer;
	return EVBUS_OK;
}

enum evbus_code store_keys_count(struct store *store, const char *topic, uint64_t *count, struct evbus_err *err)
{
	struct query query = { .sql = count_keys, ARGS(value_text(topic)), .row = take_count, .context = count };

	*count = 0;
	return table_read(store, &query, err);
}

/* ---- progress -------------------------------------------------------------------------------------------------- */

struct listing {
	struct key_progress *progress;
	size_t partitions;
};

/* A row that evbus did not write so is none: the partition is indexed from its beginning. */
static enum evbus_code take_progress(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	const struct listing *listing = context;
	struct key_progress row = { .found = true };
	int32_t partition_id;

	(void)err;
	assert(count == 4);
	if (take_partition(&columns[0], &partition_id) && (size_t)partition_id < listing->partitions &&
	    value_take_text(&columns[1], row.log_id, sizeof row.log_id) && take_offset(&columns[2], &row.indexed_to) &&
	    value_take_text(&columns[3], row.fingerprint, sizeof row.fingerprint))
		listing->progress[partition_id] = row;
	return EVBUS_OK;
}

enum evbus_code store_key_progress(struct store *store, const char *topic, struct key_progress *progress,
				   size_t partitions, struct evbus_err *err)
{
	struct listing listing = { progress, partitions };
	struct query query = { .sql = select_progress,
			       ARGS(value_text(topic)),
			       .row = take_progress,
			       .context = &listing };

	memset(progress, 0, partitions * sizeof *progress);
	return table_read(store, &query, err);
}

enum evbus_code store_key_progress_set(struct store *store, const char *topic, int32_t partition_id,
				       const struct key_progress *progress, struct evbus_err *err)
{
	struct offset_text to = offset_of(progress->indexed_to);
	struct query query = { .sql = upsert_progress,
			       .later = true,
			       ARGS(value_text(topic), value_integer(partition_id), value_text(progress->log_id),
				    value_text(to.text), value_text(progress->fingerprint)) };

	return table_write(store, &query, err);
}
