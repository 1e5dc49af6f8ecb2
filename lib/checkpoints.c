/* checkpoints.c: the public calls on checkpoints, which join the store and the log. */
#include "bus.h"

#include "delivery/checkpoint.h"
#include "delivery/position.h"
#include "event/subject.h"
#include "log/line.h"

#include <errno.h>
#include <string.h>

#define CHUNK_BYTES (64u * 1024)

/* A partition opened for a look. */
struct place {
	struct backend_topic *topic;
	struct partition_reader *reader;
};

static void place_close(struct place *place)
{
	partition_close(&place->reader);
	backend_topic_close(&place->topic);
}

static enum evbus_code place_open(struct evbus *bus, const char *topic, int32_t partition, struct place *place,
				  struct evbus_err *err)
{
	TRY(bus_reach(bus, false, err));
	TRY(bus->backend->ops->topic_open(bus->backend, topic, &place->topic, err));
	return partition_open(place->topic, partition, CHUNK_BYTES, false, &place->reader, err);
}

static enum evbus_code check_names(const char *group, const char *topic, struct evbus_err *err)
{
	TRY(subject_check_name("group", group, err));
	return subject_check_name("topic", topic, err);
}

enum evbus_code evbus_checkpoint_get(struct evbus *bus, const char *group, const char *topic, int32_t partition_id,
				     struct evbus_checkpoint *checkpoint, struct evbus_err *err)
{
	TRY(check_names(group, topic, err));
	TRY(bus_store(bus, err));
	return store_checkpoint_get(bus->store, group, topic, partition_id, checkpoint, err);
}

enum evbus_code evbus_claim_take(struct evbus *bus, const char *group, const char *topic, int32_t partition_id,
				 struct evbus_claim **claim, struct evbus_err *err)
{
	CLEANUP(os_close_cleanup) int state = -1;

	TRY(check_names(group, topic, err));
	TRY(bus_reach(bus, false, err));
	return bus_claim(bus, &state, group, topic, partition_id, false, claim, err);
}

static void release_claim(struct evbus_claim **claim)
{
	evbus_claim_release(*claim);
}

/* The offset, which has to be within the log. */
static enum evbus_code resolve(struct place *place, const char *text, uint64_t *next, struct evbus_err *err)
{
	struct position position;

	TRY(position_parse(text, &position, err));
	if (position.kind == POSITION_STORED)
		return err_set(err, EVBUS_USAGE, 0, "a checkpoint cannot be set to 'stored': it is that");
	TRY(position_resolve(&position, place->reader, next, err));
	return position_check(place->reader, *next, err);
}

enum evbus_code evbus_checkpoint_set(struct evbus *bus, const char *group, const char *topic, int32_t partition_id,
				     const char *position, bool dry_run, struct evbus_checkpoint *before,
				     struct evbus_checkpoint *after, struct evbus_err *err)
{
	CLEANUP(place_close) struct place place = { 0 };
	CLEANUP(release_claim) struct evbus_claim *claim = NULL;
	struct evbus_checkpoint old = { .partition_id = partition_id }, new;
	uint64_t next;

	TRY(check_names(group, topic, err));
	TRY(place_open(bus, topic, partition_id, &place, err));
	if (!dry_run)
		TRY(evbus_claim_take(bus, group, topic, partition_id, &claim, err));
	TRY(bus_store(bus, err));
	enum evbus_code code = store_checkpoint_get(bus->store, group, topic, partition_id, &old, err);
	if (code != EVBUS_OK && code != EVBUS_NONE)
		return code;
	TRY(resolve(&place, position, &next, err));
	TRY(checkpoint_make(place.reader, group, next, &new, err));
	if (!dry_run)
		TRY(store_checkpoint_put(bus->store, &new, 1, err));
	*before = old;
	*after = new;
	return EVBUS_OK;
}

static enum evbus_code check_restored(const struct evbus_checkpoint *checkpoint, struct evbus_err *err)
{
	int64_t time_us;

	TRY(check_names(checkpoint->group, checkpoint->topic, err));
	if (checkpoint->partition_id < 0 || checkpoint->partition_id >= EVBUS_PARTITIONS_MAX)
		return err_set(err, EVBUS_DATA, 0, "there is no partition %d: partitions are numbered from 0 to %d",
			       checkpoint->partition_id, EVBUS_PARTITIONS_MAX - 1);
	if (checkpoint->next_offset[0] == '\0' || strspn(checkpoint->next_offset, "0123456789") != strlen(checkpoint->next_offset))
		return err_set(err, EVBUS_DATA, 0, "'%s' is not an offset", checkpoint->next_offset);
	if (strlen(checkpoint->updated_at_utc) != TIME_TEXT_LEN ||
	    !clock_parse_exact(checkpoint->updated_at_utc, &time_us))
		return err_set(err, EVBUS_DATA, 0, "'%s' is not a time as checkpoint-list prints it",
			       checkpoint->updated_at_utc);
	return EVBUS_OK;
}

enum evbus_code evbus_checkpoint_restore(struct evbus *bus, const struct evbus_checkpoint *checkpoints, size_t count,
					 struct evbus_err *err)
{
	struct evbus_claim **claims = NULL;
	enum evbus_code code = EVBUS_OK;
	size_t claimed = 0;

	for (size_t i = 0; i < count; i++)
		TRY(check_restored(&checkpoints[i], err));
	TRY(bus_reach(bus, true, err));
	TRY(bus_store(bus, err));
	claims = os.realloc(NULL, (count + 1) * sizeof(*claims));
	if (!claims)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot set %zu checkpoints", count);
	for (; claimed < count && code == EVBUS_OK; claimed += code == EVBUS_OK)
		code = evbus_claim_take(bus, checkpoints[claimed].group, checkpoints[claimed].topic,
					checkpoints[claimed].partition_id, &claims[claimed], err);
	if (code == EVBUS_OK)
		code = store_checkpoint_put(bus->store, checkpoints, count, err);
	while (claimed)
		evbus_claim_release(claims[--claimed]);
	free(claims);
	return code;
}

enum evbus_code evbus_checkpoint_remove(struct evbus *bus, const char *group, const char *topic, int32_t partition_id,
					struct evbus_err *err)
{
	CLEANUP(release_claim) struct evbus_claim *claim = NULL;

	TRY(check_names(group, topic, err));
	TRY(bus_reach(bus, false, err));
	TRY(evbus_claim_take(bus, group, topic, partition_id, &claim, err));
	TRY(bus_store(bus, err));
	return store_checkpoint_remove(bus->store, group, topic, partition_id, err);
}

enum evbus_code evbus_checkpoint_list(struct evbus *bus, const char *group, const char *pattern,
				      struct evbus_checkpoint **checkpoints, size_t *count, struct evbus_err *err)
{
	struct evbus_checkpoint *list;
	size_t all, kept = 0;

	if (group)
		TRY(subject_check_name("group", group, err));
	if (pattern)
		TRY(evbus_topic_check(pattern, true, err));
	TRY(bus_store(bus, err));
	TRY(store_checkpoint_list(bus->store, group, &list, &all, err));
	for (size_t i = 0; i < all; i++)
		if (!pattern || evbus_topic_matches(pattern, list[i].topic))
			list[kept++] = list[i];
	*checkpoints = list;
	*count = kept;
	return EVBUS_OK;
}

enum evbus_code evbus_checkpoint_lag(struct evbus *bus, const struct evbus_checkpoint *checkpoint,
				     struct evbus_lag *lag, struct evbus_err *err)
{
	CLEANUP(place_close) struct place place = { 0 };
	struct line line;
	uint64_t next;
	bool got;

	*lag = (struct evbus_lag){ -1, -1 };
	TRY(bus_check(bus, err));
	/* A log that is gone, or not the one of the checkpoint, is no failure: the lag is not known. */
	enum evbus_code code = place_open(bus, checkpoint->topic, checkpoint->partition_id, &place, err);
	if (code == EVBUS_OK)
		code = checkpoint_check(place.reader, checkpoint, &next, err);
	if (code == EVBUS_NONE || code == EVBUS_CONFLICT)
		return EVBUS_OK;
	TRY(code);
	/* Where offsets are texts, positions count nothing. */
	lag->records = place.reader->ops->offset_text && next < place.reader->end ? -1 :
										    (int64_t)(place.reader->end - next);
	lag->seconds = 0;
	if (lag->records == 0)
		return EVBUS_OK;
	TRY(partition_seek(place.reader, next > place.reader->first ? next : place.reader->first, err));
	TRY(partition_next(place.reader, UINT64_MAX, &line, &got, err));
	if (!got)
		lag->records = 0;
	int64_t age_us = got ? os_now_us() - line.time_us : 0;
	lag->seconds = age_us > 0 ? age_us / 1000000 : 0;
	return EVBUS_OK;
}
