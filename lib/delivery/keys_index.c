/* keys_index.c: from the log into the table, and into the store. */
#include "delivery/keys.h"

#include "store/table.h"

#include <errno.h>
#include <string.h>

#define RECENT_RECORDS_MAX 16384u    /* what is read and not stored; then it is stored */
#define RECENT_BYTES_MAX (16u * 1024 * 1024)
#define RECENT_KEYS_MAX (4u << 20)   /* 96 MiB, where the store cannot be written */
#define CHUNK_BYTES (256u * 1024)

/* ---- the log ---- */

static void take_fingerprint(char fingerprint[9], const char *text)
{
	memcpy(fingerprint, text + LINE_CRC_AT, 8);
	fingerprint[8] = '\0';
}

void keys_remember(const struct keys *keys, struct key_part *part, const char *text)
{
	/* Where lines are made of what is read, it is the log id alone that tells one log from another. */
	if (keys->topic->ops->keeps_lines)
		take_fingerprint(part->fingerprint, text);
}

/* Whether a position is of this log: the record before it, where it is still there, is the one that was there. The
 * reader is there then. */
static enum evbus_code fits(struct partition_reader *reader, uint64_t next, const char *fingerprint, bool *fit,
			    struct evbus_err *err)
{
	char found[9] = "";
	struct line line;
	bool got;

	*fit = next <= reader->end;
	if (!*fit || next <= reader->first || !reader->ops->keeps_lines)
		return EVBUS_OK;
	TRY(partition_seek(reader, next - 1, err));
	TRY(partition_next(reader, next, &line, &got, err));
	if (got)
		take_fingerprint(found, line.text.data);
	*fit = got && strcmp(found, fingerprint) == 0;
	return EVBUS_OK;
}

static void begin_with_row(struct key_part *part, const struct backend_topic *topic)
{
	part->known = part->row_fits = true;
	if (!part->row.found || strcmp(part->row.log_id, topic->log_id) != 0)
		return;
	part->seen_to = part->stored_to = part->row.indexed_to;
	memcpy(part->fingerprint, part->row.fingerprint, sizeof part->fingerprint);
}

/* To where the partition was read up to; to its beginning where that was another log, or the log before it was cut or
 * restored. What the table has of it then is proved false where it is hit. */
static enum evbus_code go_on_from(struct keys *keys, struct key_part *part, struct partition_reader *reader,
				  struct evbus_err *err)
{
	bool fit;

	if (!part->known)
		begin_with_row(part, keys->topic);
	TRY(fits(reader, part->seen_to, part->fingerprint, &fit, err));
	if (!fit) {
		part->seen_to = part->stored_to = 0;
		part->row_fits = false;
	}
	uint64_t from = part->seen_to > reader->first ? part->seen_to : reader->first;
	part->seen_to = from;
	return reader->next == from ? EVBUS_OK : partition_seek(reader, from, err);
}

static enum evbus_code note(struct keys *keys, struct key_part *part, int32_t partition, const struct line *line,
			    struct evbus_err *err)
{
	if (line->event_key.data) {
		struct key_name name = key_name_of(line->tenant_id, line->event_key);
		TRY(key_table_add(&keys->recent, key_hash(name.tenant_id, name.event_key), (uint32_t)partition,
				  line->offset, err));
	}
	keys_remember(keys, part, line->text.data);
	part->seen_to = line->offset + 1;
	keys->records++;
	keys->bytes += line->text.len + 1;
	return EVBUS_OK;
}

/* Without a store: of what is kept for a time only, the places that are gone need not be kept in mind either. */
static enum evbus_code forget_gone(struct keys *keys, struct evbus_err *err)
{
	CLEANUP(key_table_release) struct key_table kept = { 0 };

	for (size_t i = 0; i < keys->recent.size; i++) {
		const struct key_slot *slot = &keys->recent.slots[i];
		if (slot->hash && slot->offset >= keys->parts[slot->partition].first)
			TRY(key_table_add(&kept, slot->hash, slot->partition, slot->offset, err));
	}
	struct key_table swap = keys->recent;
	keys->recent = kept;
	kept = swap;
	keys->records = keys->bytes = 0;
	if (keys->recent.count < RECENT_KEYS_MAX)
		return EVBUS_OK;
	return err_set(err, EVBUS_CONFIG, 0,
		       "cannot keep the %zu event keys of topic '%s' in mind: choose a store with --store",
		       keys->recent.count, keys->topic->name);
}

/* A store that cannot be written now is no reason not to publish, as long as there is memory. */
static enum evbus_code save_if_long(struct keys *keys, struct evbus_err *err)
{
	struct evbus_err why;

	if (keys->records <= RECENT_RECORDS_MAX && keys->bytes <= RECENT_BYTES_MAX)
		return EVBUS_OK;
	if (!keys->store)
		return forget_gone(keys, err);
	enum evbus_code code = keys_save(keys, &why);
	bool wait = (code == EVBUS_AGAIN || code == EVBUS_NONE) && keys->recent.count < RECENT_KEYS_MAX;
	if (code != EVBUS_OK && !wait)
		return err_set(err, code, 0, "%s", why.text);
	/* Not with each record from now on. */
	if (wait)
		keys->records = keys->bytes = 0;
	return EVBUS_OK;
}

/* Files are opened anew each time, as they may have been cut or restored meanwhile. Elsewhere that is told. */
static enum evbus_code open_part(struct keys *keys, int32_t partition, struct evbus_err *err)
{
	struct key_part *part = &keys->parts[partition];

	if (part->reader) {
		TRY(partition_refresh(part->reader, err));
		/* What we have appended need not be read. What is gone is passed over when it is read. */
		enum evbus_code code = EVBUS_OK;
		if (part->reader->next < part->seen_to)
			code = partition_seek(part->reader, part->seen_to, err);
		return code == EVBUS_NONE ? EVBUS_OK : code;
	}
	TRY(partition_open(keys->topic, partition, CHUNK_BYTES, false, &part->reader, err));
	return go_on_from(keys, part, part->reader, err);
}

static enum evbus_code read_part(struct keys *keys, int32_t partition, struct evbus_err *err)
{
	struct key_part *part = &keys->parts[partition];
	struct partition_reader *reader = part->reader;
	struct evbus_err why;
	struct line line;
	bool got = true;

	while (got) {
		enum evbus_code code = partition_next(reader, UINT64_MAX, &line, &got, &why);
		/* What went while it was read is no first of anything any more. */
		if (code == EVBUS_NONE && reader->first > part->seen_to) {
			part->seen_to = reader->first;
			TRY(partition_seek(reader, reader->first, err));
			got = true;
			continue;
		}
		if (code != EVBUS_OK && err)
			*err = why;
		TRY(code);
		if (got)
			TRY(note(keys, part, partition, &line, err));
		TRY(save_if_long(keys, err));
	}
	part->first = reader->first;
	/* The last offsets may have no record. */
	part->seen_to = reader->end > part->seen_to ? reader->end : part->seen_to;
	return EVBUS_OK;
}

enum evbus_code keys_read_on(struct keys *keys, int32_t partition, struct evbus_err *err)
{
	struct key_part *part = &keys->parts[partition];

	enum evbus_code code = open_part(keys, partition, err);
	if (code == EVBUS_OK)
		code = read_part(keys, partition, err);
	if (code != EVBUS_OK || keys->log) {
		partition_close(&part->reader);
		part->reader = NULL;
	}
	return code;
}

/* ---- the store ---- */

static enum evbus_code not_as_seen(const struct keys *keys, int32_t partition, struct evbus_err *err)
{
	return err_set(err, EVBUS_CONFLICT, 0, "topic '%s', partition %d was cut or restored while it was open",
		       keys->topic->name, partition);
}

/* There is a row of another place: the one of the two that bears the key, and of two that do the first, is the right one. */
static enum evbus_code settle(struct keys *keys, const struct key_name *name, const struct key_place *place,
			      const struct key_place *other, int64_t time_us, struct evbus_err *err)
{
	struct line line;
	bool keep = false;

	if (strcmp(other->log_id, keys->topic->log_id) == 0)
		TRY(keys_look(keys, name, other->partition_id, other->offset, &line, &keep, err));
	if (keep && keys_precede(line.time_us, other->partition_id, other->offset, time_us, place->partition_id,
				 place->offset))
		return EVBUS_OK;
	return store_keys_replace(keys->store, keys->topic->name, name, place, err);
}

/* Keys on their way into the store. */
struct saving {
	struct keys *keys;
	struct buf texts;          /* tenant and key of each in turn */
	size_t count;
	struct key_name names[KEYS_FIND_MAX];
	struct key_place places[KEYS_FIND_MAX];
	int64_t times_us[KEYS_FIND_MAX];
};

static void release_saving(struct saving *saving)
{
	buf_release(&saving->texts);
}

static enum evbus_code save_one(struct saving *saving, size_t i, struct evbus_err *err)
{
	struct keys *keys = saving->keys;
	const struct key_name *name = &saving->names[i];
	const struct key_place *place = &saving->places[i];
	struct key_place other;

	TRY(store_keys_add(keys->store, keys->topic->name, name, place, &other, err));
	return other.found ? settle(keys, name, place, &other, saving->times_us[i], err) : EVBUS_OK;
}

static enum evbus_code save_kept(struct saving *saving, struct evbus_err *err)
{
	struct keys *keys = saving->keys;
	const char *at = saving->texts.data;
	bool all = false;

	for (size_t i = 0; i < saving->count; i++) {
		saving->names[i].tenant_id.data = at;
		at += saving->names[i].tenant_id.len;
		saving->names[i].event_key.data = at;
		at += saving->names[i].event_key.len;
	}
	if (saving->count == KEYS_FIND_MAX)
		TRY(store_keys_add_many(keys->store, keys->topic->name, saving->names, saving->places, &all, err));
	for (size_t i = 0; i < saving->count && !all; i++)
		TRY(save_one(saving, i, err));
	saving->count = saving->texts.len = 0;
	return EVBUS_OK;
}

/* There is room for it. */
static void keep_text(struct buf *texts, struct evbus_slice text)
{
	memcpy(texts->data + texts->len, text.data, text.len);
	texts->len += text.len;
}

static enum evbus_code save_line(struct saving *saving, int32_t partition, const struct line *line,
				 struct evbus_err *err)
{
	struct key_name name = key_name_of(line->tenant_id, line->event_key);
	struct key_place *place = &saving->places[saving->count];

	TRY(buf_reserve(&saving->texts, name.tenant_id.len + name.event_key.len + 1, err));
	keep_text(&saving->texts, name.tenant_id);
	keep_text(&saving->texts, name.event_key);
	*place = (struct key_place){ .found = true, .partition_id = partition, .offset = line->offset };
	memcpy(place->log_id, saving->keys->topic->log_id, sizeof place->log_id);
	memcpy(place->published_at, line->time_text.data, line->time_text.len);
	saving->names[saving->count] = name;
	saving->times_us[saving->count++] = line->time_us;
	return saving->count == KEYS_FIND_MAX ? save_kept(saving, err) : EVBUS_OK;
}

/* Another publisher may have come further meanwhile; but a row that is not of this log says nothing. */
static bool is_behind(const struct key_part *part, const struct key_progress *now,
		      const struct partition_reader *reader)
{
	bool known_false = !part->row_fits && part->row.found && part->row.indexed_to == now->indexed_to &&
			   strcmp(part->row.fingerprint, now->fingerprint) == 0;

	return now->found && strcmp(now->log_id, reader->topic->log_id) == 0 && now->indexed_to > part->seen_to &&
	       now->indexed_to <= reader->end && !known_false;
}

static enum evbus_code save_part(struct keys *keys, int32_t partition, const struct key_progress *now,
				 struct evbus_err *err)
{
	CLEANUP(partition_close) struct partition_reader *reader = NULL;
	CLEANUP(release_saving) struct saving saving = { .keys = keys };
	struct key_part *part = &keys->parts[partition];
	struct key_progress progress = { .found = true, .indexed_to = part->seen_to };
	struct line line;
	bool got, any = false;

	TRY(partition_open(keys->topic, partition, CHUNK_BYTES, false, &reader, err));
	if (part->seen_to > reader->end)
		return not_as_seen(keys, partition, err);
	if (is_behind(part, now, reader))
		return EVBUS_OK;
	TRY(partition_seek(reader, part->stored_to > reader->first ? part->stored_to : reader->first, err));
	for (;;) {
		TRY(partition_next(reader, part->seen_to, &line, &got, err));
		if (!got)
			break;
		any = true;
		if (reader->ops->keeps_lines)
			take_fingerprint(progress.fingerprint, line.text.data);
		if (line.event_key.data)
			TRY(save_line(&saving, partition, &line, err));
	}
	TRY(save_kept(&saving, err));
	if (any && strcmp(progress.fingerprint, part->fingerprint) != 0)
		return not_as_seen(keys, partition, err);
	memcpy(progress.log_id, keys->topic->log_id, sizeof progress.log_id);
	return store_key_progress_set(keys->store, keys->topic->name, partition, &progress, err);
}

static enum evbus_code save_parts(struct keys *keys, struct evbus_err *err)
{
	CLEANUP(free_cleanup) struct key_progress *now = NULL;
	size_t partitions = keys->size;

	now = os.realloc(NULL, partitions * sizeof(*now));
	if (!now)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot save the keys of topic '%s'", keys->topic->name);
	TRY(store_key_progress(keys->store, keys->topic->name, now, partitions, err));
	for (size_t i = 0; i < partitions; i++)
		if (keys->parts[i].known && keys->parts[i].seen_to > keys->parts[i].stored_to)
			TRY(save_part(keys, (int32_t)i, &now[i], err));
	return EVBUS_OK;
}

/* With the transaction committed. */
static void forget_recent(struct keys *keys)
{
	for (uint32_t i = 0; i < keys->size; i++)
		keys->parts[i].stored_to = keys->parts[i].seen_to;
	key_table_clear(&keys->recent);
	keys->records = keys->bytes = 0;
	keys->stored = true;
}

enum evbus_code keys_save(struct keys *keys, struct evbus_err *err)
{
	TRY(table_begin(keys->store, err));
	enum evbus_code code = save_parts(keys, err);
	keys_look_away(keys);
	if (code != EVBUS_OK) {
		table_rollback(keys->store);
		return code;
	}
	TRY(table_commit(keys->store, err));
	forget_recent(keys);
	return EVBUS_OK;
}


/* ---- making it anew -------------------------------------------------------------------------------------------- */

/* Whether the rows are of this log. */
static enum evbus_code check_row(struct keys *keys, int32_t partition, bool *fit, struct evbus_err *err)
{
	CLEANUP(partition_close) struct partition_reader *reader = NULL;
	const struct key_progress *row = &keys->parts[partition].row;

	*fit = !row->found || strcmp(row->log_id, keys->topic->log_id) == 0;
	if (!row->found || !*fit)
		return EVBUS_OK;
	TRY(partition_open(keys->topic, partition, CHUNK_BYTES, false, &reader, err));
	return fits(reader, row->indexed_to, row->fingerprint, fit, err);
}

static enum evbus_code clear_rows(struct keys *keys, struct evbus_err *err)
{
	TRY(table_begin(keys->store, err));
	enum evbus_code code = store_keys_clear(keys->store, keys->topic->name, err);
	if (code != EVBUS_OK) {
		table_rollback(keys->store);
		return code;
	}
	return table_commit(keys->store, err);
}

enum evbus_code keys_make_anew(struct keys *keys, bool *fitted, struct evbus_err *err)
{
	bool all = true, fit;

	for (uint32_t i = 0; i < keys->size; i++) {
		TRY(check_row(keys, (int32_t)i, &fit, err));
		all = all && fit;
	}
	TRY(clear_rows(keys, err));
	for (uint32_t i = 0; i < keys->size; i++)
		keys->parts[i] = (struct key_part){ .known = false };
	for (uint32_t i = 0; i < keys->size; i++)
		TRY(keys_read_on(keys, (int32_t)i, err));
	TRY(keys_save(keys, err));
	*fitted = all;
	return EVBUS_OK;
}
