/* keys.c: opening, catching up within the lock, and looking keys up. */
#include "delivery/keys.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define READ_AHEAD_US 1000000        /* after so long much may have come in: it is read before the lock is taken */
#define SAVE_RECORDS 1024u           /* at the end: what the next one would otherwise read again */
#define SAVE_BYTES (1024u * 1024)
#define LOOK_CHUNK 16384u
#define STEP_MAX 16u                 /* a record that is so near is not searched for, */
#define STEP_AFAR_MAX 512u           /* nor on a server */

/* ---- open and close ---- */

static void close_keys(struct keys **keys)
{
	keys_close(*keys, false);
}

static enum evbus_code read_progress(struct keys *keys, struct evbus_err *err)
{
	CLEANUP(free_cleanup) struct key_progress *rows = NULL;
	size_t partitions = keys->size;

	if (!keys->store)
		return EVBUS_OK;
	rows = os.realloc(NULL, partitions * sizeof(*rows));
	if (!rows)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open the keys of topic '%s'", keys->topic->name);
	TRY(store_key_progress(keys->store, keys->topic->name, rows, partitions, err));
	for (size_t i = 0; i < partitions; i++) {
		keys->parts[i].row = rows[i];
		keys->stored = keys->stored || rows[i].found;
	}
	return EVBUS_OK;
}

/* Makes room for the partitions that there are by now. */
static enum evbus_code fit(struct keys *keys, struct evbus_err *err)
{
	uint32_t count = keys->topic->partitions;
	uint32_t size = count ? (uint32_t)topic_partition(keys->topic, count - 1).number + 1 : 0;

	if (size <= keys->size)
		return EVBUS_OK;
	struct key_part *parts = os.realloc(keys->parts, size * sizeof *parts);
	if (!parts)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open the keys of topic '%s'", keys->topic->name);
	memset(parts + keys->size, 0, (size - keys->size) * sizeof *parts);
	keys->parts = parts;
	keys->size = size;
	return EVBUS_OK;
}

static enum evbus_code read_all(struct keys *keys, struct evbus_err *err)
{
	struct evbus_err why;

	TRY(fit(keys, err));
	for (uint32_t i = 0; i < keys->topic->partitions; i++) {
		enum evbus_code code = keys_read_on(keys, topic_partition(keys->topic, i).number, &why);
		/* It went since they were listed. */
		if (code == EVBUS_NONE && keys->topic->list)
			continue;
		if (code && err)
			*err = why;
		TRY(code);
	}
	keys->read_at_us = os_now_us();
	return EVBUS_OK;
}

static enum evbus_code make(const struct backend_topic *topic, struct store *store, struct keys **keys,
			    struct evbus_err *err)
{
	const struct backend_files *files = topic->ops->files;
	CLEANUP(close_keys) struct keys *made = os.realloc(NULL, sizeof *made);

	if (!made)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open the keys of topic '%s'", topic->name);
	*made = (struct keys){
		.topic = topic, .log = files ? files->topic(topic) : NULL, .store = store, .lock_fd = -1
	};
	/* What a row says is a position, which means nothing to another process where offsets are texts. */
	if (topic->ops->offset_text)
		made->store = NULL;
	TRY(fit(made, err));
	GIVE(keys, made);
	return EVBUS_OK;
}

enum evbus_code keys_open(const struct backend_topic *topic, struct store *store, struct keys **keys,
			  struct evbus_err *err)
{
	CLEANUP(close_keys) struct keys *opened = NULL;

	TRY(make(topic, store, &opened, err));
	TRY(read_progress(opened, err));
	TRY(read_all(opened, err));
	GIVE(keys, opened);
	return EVBUS_OK;
}

void keys_close(struct keys *keys, bool save)
{
	if (!keys)
		return;
	if (save && keys->store && (keys->records > SAVE_RECORDS || keys->bytes > SAVE_BYTES))
		(void)!keys_save(keys, NULL);
	keys_look_away(keys);
	for (uint32_t i = 0; keys->parts && i < keys->size; i++)
		partition_close(&keys->parts[i].reader);
	keys_lock_close(keys);
	key_table_release(&keys->recent);
	free(keys->parts);
	free(keys);
}

bool keys_are_behind(const struct keys *keys)
{
	int64_t since_us = os_now_us() - keys->read_at_us;

	return since_us < 0 || since_us > READ_AHEAD_US;
}

enum evbus_code keys_catch_up(struct keys *keys, struct evbus_err *err)
{
	return keys_are_behind(keys) ? read_all(keys, err) : EVBUS_OK;
}

/* ---- within the lock ---- */

static struct log_writer *writer_of(const struct keys *keys, struct partition_writer *const *writers, size_t count,
				    int32_t partition)
{
	for (size_t i = 0; i < count; i++)
		if (writers[i]->partition == partition)
			return keys->topic->ops->files->writer(writers[i]);
	return NULL;
}

/* Makes a partition durable, and reads what is new. */
static enum evbus_code catch_up(struct keys *keys, int32_t partition, struct log_writer *writer,
				const struct waiter *waiter, struct evbus_err *err)
{
	struct key_part *part = &keys->parts[partition];
	struct control_view view = { 0 };
	bool there = true;

	TRY(writer ? writer_settle(writer, &view, err)
		   : partition_settle(keys->log, partition, waiter, &view, &there, err));
	if (!there && part->known && !part->seen_to)
		return EVBUS_OK;
	bool same = there && part->known && part->page_id == view.page_id && part->epoch == view.end.epoch;
	if (same && part->seen_to == view.durable.next)
		return EVBUS_OK;
	TRY(keys_read_on(keys, partition, err));
	part->page_id = view.page_id;
	part->epoch = view.end.epoch;
	return EVBUS_OK;
}

static enum evbus_code enter(struct keys *keys, struct partition_writer *const *writers, size_t count,
			     const struct waiter *waiter, struct evbus_err *err)
{
	for (uint32_t i = 0; i < keys->size; i++)
		TRY(catch_up(keys, (int32_t)i, writer_of(keys, writers, count, (int32_t)i), waiter, err));
	keys->read_at_us = os_now_us();
	return EVBUS_OK;
}

enum evbus_code keys_enter(struct keys *keys, struct partition_writer *const *writers, size_t count,
			   const struct waiter *waiter, struct evbus_err *err)
{
	if (!keys->log)
		return read_all(keys, err);
	TRY(keys_catch_up(keys, err));
	TRY(keys_lock_take(keys, waiter, err));
	enum evbus_code code = enter(keys, writers, count, waiter, err);
	/* Who was told to stop while he waited appends nothing, even if he has the lock by now. */
	if (code == EVBUS_OK)
		code = keys_lock_ask(keys, waiter, err);
	if (code != EVBUS_OK)
		keys_leave(keys);
	else
		os.point("keys/read");
	return code;
}

void keys_leave(struct keys *keys)
{
	if (keys->log)
		keys_look_away(keys);
	keys_lock_leave(keys);
}

const struct held_file *keys_held(const struct keys *keys)
{
	return keys->log ? &keys->lock : NULL;
}

uint64_t keys_expected(const struct keys *keys, int32_t partition)
{
	return !keys->log && keys->topic->ops->expects ? keys->parts[partition].seen_to : UINT64_MAX;
}

/* ---- looking at the log ---- */

/* Nothing is the empty text, as the store has it. */
static struct evbus_slice unquoted(struct evbus_slice value)
{
	if (!value.data)
		return SLICE("");
	return value.len >= 2 && value.data[0] == '"' ? (struct evbus_slice){ value.data + 1, value.len - 2 } : value;
}

struct key_name key_name_of(struct evbus_slice tenant_id, struct evbus_slice event_key)
{
	return (struct key_name){ unquoted(tenant_id), unquoted(event_key) };
}

static bool is_same(struct evbus_slice a, struct evbus_slice b)
{
	return a.len == b.len && (!a.len || !memcmp(a.data, b.data, a.len));
}

static void close_looking(struct key_part *part)
{
	partition_close(&part->looking);
	part->looking = NULL;
}

void keys_look_away(struct keys *keys)
{
	for (uint32_t i = 0; keys->parts && i < keys->size; i++)
		close_looking(&keys->parts[i]);
}

/* Goes to an offset; *there false: there is none. Those that are looked for often follow each other. */
static enum evbus_code go_to(struct keys *keys, int32_t partition, uint64_t offset, bool *there, struct evbus_err *err)
{
	struct line line;
	bool got = true;

	*there = false;
	if ((uint32_t)partition >= keys->size)
		return EVBUS_OK;
	struct key_part *part = &keys->parts[partition];
	if (keys->log && !part->looking)
		keys_look_away(keys);
	/* A server tells late of what is new, but for one who comes anew. */
	if (!keys->log && part->looking && offset >= part->looking->end)
		close_looking(part);
	if (!part->looking)
		TRY(partition_open(keys->topic, partition, LOOK_CHUNK, false, &part->looking, err));
	struct partition_reader *reader = part->looking;
	if (offset >= reader->end)
		TRY(partition_refresh(reader, err));
	if (offset < reader->first || offset >= reader->end)
		return EVBUS_OK;
	*there = true;
	if (offset < reader->next || offset - reader->next > (keys->log ? STEP_MAX : STEP_AFAR_MAX))
		return partition_seek(reader, offset, err);
	while (got && reader->next < offset)
		TRY(partition_next(reader, offset, &line, &got, err));
	return EVBUS_OK;
}

static enum evbus_code look(struct keys *keys, const struct key_name *name, int32_t partition, uint64_t offset,
			    struct line *line, bool *bears, struct evbus_err *err)
{
	TRY(go_to(keys, partition, offset, bears, err));
	if (*bears)
		TRY(partition_next(keys->parts[partition].looking, offset + 1, line, bears, err));
	if (*bears) {
		struct key_name found = key_name_of(line->tenant_id, line->event_key);
		*bears = line->event_key.data && is_same(found.tenant_id, name->tenant_id) &&
			 is_same(found.event_key, name->event_key);
	}
	return EVBUS_OK;
}

enum evbus_code keys_look(struct keys *keys, const struct key_name *name, int32_t partition, uint64_t offset,
			  struct line *line, bool *bears, struct evbus_err *err)
{
	struct evbus_err why;
	enum evbus_code code = look(keys, name, partition, offset, line, bears, &why);

	if (code == EVBUS_OK)
		return EVBUS_OK;
	/* After a failure it may be anywhere. */
	keys_look_away(keys);
	*bears = false;
	/* What is kept for a time only may go while it is looked for. */
	if (code == EVBUS_NONE && !keys->log)
		return EVBUS_OK;
	if (err)
		*err = why;
	return code;
}

bool keys_precede(int64_t time_us, int32_t partition, uint64_t offset, int64_t than_us, int32_t than_partition,
		  uint64_t than_offset)
{
	if (time_us != than_us)
		return time_us < than_us;
	return partition != than_partition ? partition < than_partition : offset < than_offset;
}

/* ---- finding ---- */

/* The first of those that bear the name. */
struct best {
	bool found;
	int32_t partition;
	uint64_t offset;
	int64_t time_us;
};

static enum evbus_code consider(struct keys *keys, const struct key_name *name, int32_t partition, uint64_t offset,
				struct best *best, struct line *line, struct evbus_err *err)
{
	bool bears;

	TRY(keys_look(keys, name, partition, offset, line, &bears, err));
	if (bears && (!best->found || keys_precede(line->time_us, partition, offset, best->time_us, best->partition,
						    best->offset)))
		*best = (struct best){ true, partition, offset, line->time_us };
	return EVBUS_OK;
}

/* *line is meaningful if best->found. */
static enum evbus_code find_one(struct keys *keys, const struct key_name *name, const struct key_place *place,
				struct best *best, struct line *line, struct evbus_err *err)
{
	uint64_t hash = key_hash(name->tenant_id, name->event_key);
	const struct key_slot *slot;
	unsigned considered = 0;
	size_t at = 0;
	bool bears;

	if (place->found && strcmp(place->log_id, keys->topic->log_id) == 0) {
		TRY(consider(keys, name, place->partition_id, place->offset, best, line, err));
		considered++;
	}
	while ((slot = key_table_next(&keys->recent, hash, &at))) {
		TRY(consider(keys, name, (int32_t)slot->partition, slot->offset, best, line, err));
		considered++;
	}
	if (!best->found || considered == 1)
		return EVBUS_OK;
	return keys_look(keys, name, best->partition, best->offset, line, &bears, err);
}

enum evbus_code keys_find(struct keys *keys, const struct key_name *names, size_t count,
			  enum evbus_code (*first)(void *context, size_t i, int32_t partition, const struct line *line,
						   struct evbus_err *err),
			  void *context, struct evbus_err *err)
{
	struct key_place places[KEYS_FIND_MAX] = { { .found = false } };
	struct line line;

	for (size_t i = 0; i < count; i++) {
		size_t in_batch = i % KEYS_FIND_MAX, more = count - i;
		struct best best = { .found = false };
		if (in_batch == 0 && keys->stored)
			TRY(store_keys_find(keys->store, keys->topic->name, names + i,
					    more < KEYS_FIND_MAX ? more : KEYS_FIND_MAX, places, err));
		TRY(find_one(keys, &names[i], &places[in_batch], &best, &line, err));
		if (best.found)
			TRY(first(context, i, best.partition, &line, err));
	}
	return EVBUS_OK;
}

/* Whether a group stands right behind what was read: not where others came in between. */
static bool follows(const struct keys *keys, const struct partition_writer *writer, const struct group *group)
{
	const struct key_part *part = &keys->parts[writer->partition];
	size_t count = group_count(group);

	assert(count > 0);
	if (group_entry(group, 0)->offset != part->seen_to ||
	    group_entry(group, count - 1)->offset != part->seen_to + count - 1)
		return false;
	const struct mark *mark = keys->log ? keys->topic->ops->files->mark(writer) : NULL;
	return !mark || (part->page_id == mark->page_id && part->epoch == mark->epoch);
}

enum evbus_code keys_appended(struct keys *keys, const struct partition_writer *writer, const struct group *group,
			      struct evbus_err *err)
{
	struct key_part *part = &keys->parts[writer->partition];
	struct evbus_record record = { .partition_id = writer->partition };

	/* What does not follow is read like that of others. */
	if (!follows(keys, writer, group))
		return EVBUS_OK;
	for (size_t i = 0; i < group_count(group); i++) {
		group_record(group, i, (struct evbus_slice){ NULL, 0 }, writer->partition, &record);
		struct key_name name = key_name_of(record.tenant_id, record.event_key);
		TRY(key_table_add(&keys->recent, key_hash(name.tenant_id, name.event_key), (uint32_t)writer->partition,
				  part->seen_to + i, err));
	}
	part->seen_to += group_count(group);
	keys_remember(keys, part, record.stored.data);
	keys->records += group_count(group);
	keys->bytes += group->lines.len;
	return EVBUS_OK;
}

enum evbus_code keys_rebuild(const struct backend_topic *topic, struct store *store, const struct waiter *waiter,
			     uint64_t *count, bool *fitted, struct evbus_err *err)
{
	CLEANUP(close_keys) struct keys *keys = NULL;
	struct control_view view;
	bool there;

	if (topic->ops->offset_text)
		return err_set(err, EVBUS_CONFIG, 0,
			       "topic '%s' has no index of event keys that could be made anew: it is read each time",
			       topic->name);
	TRY(make(topic, store, &keys, err));
	TRY(read_progress(keys, err));
	if (!keys->log) {
		TRY(keys_make_anew(keys, fitted, err));
		return store_keys_count(store, topic->name, count, err);
	}
	TRY(keys_lock_take(keys, waiter, err));
	enum evbus_code code = keys_lock_ask(keys, waiter, err);
	for (uint32_t i = 0; i < topic->partitions && code == EVBUS_OK; i++)
		code = partition_settle(keys->log, (int32_t)i, waiter, &view, &there, err);
	if (code == EVBUS_OK)
		code = keys_make_anew(keys, fitted, err);
	keys_leave(keys);
	return code == EVBUS_OK ? store_keys_count(store, topic->name, count, err) : code;
}
