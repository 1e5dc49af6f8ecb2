/* consumer_parents.c: partitions that went on with the keys of others, and are read when the group is done with those.
 *
 * Who did it does not matter, nor in which process: it is the checkpoint that tells. Where the parents are ours it has to
 * be saved as well, so that what is repeated after a crash is not repeated behind what came of the children. */
#include "consumer.h"

#include "delivery/checkpoint.h"

#include <string.h>

static struct lane *lane_of(const struct evbus_consumer *consumer, const struct backend_topic *topic, int32_t partition)
{
	for (size_t i = 0; i < consumer->lane_count; i++)
		if (consumer->lanes[i]->topic == topic && consumer->lanes[i]->place.number == partition)
			return consumer->lanes[i];
	return NULL;
}

static enum evbus_code find_stored(struct evbus_consumer *consumer, const struct backend_topic *topic,
				   int32_t partition, struct evbus_checkpoint *stored, bool *found,
				   struct evbus_err *err)
{
	struct evbus_err why;

	TRY(bus_store(consumer->bus, err));
	enum evbus_code code =
		store_checkpoint_get(consumer->bus->store, consumer->group, topic->name, partition, stored, &why);
	*found = code == EVBUS_OK && strcmp(stored->log_id, topic->log_id) == 0;
	if (code == EVBUS_OK || code == EVBUS_NONE)
		return EVBUS_OK;
	if (err)
		*err = why;
	return code;
}

/* Of one that another process consumes, or nobody. */
static enum evbus_code is_past_end(struct evbus_consumer *consumer, struct partition_reader *reader, bool *past,
				   struct evbus_err *err)
{
	struct evbus_checkpoint stored;
	uint64_t next;

	*past = false;
	TRY(partition_refresh(reader, err));
	if (!reader->closed)
		return EVBUS_OK;
	TRY(find_stored(consumer, reader->topic, reader->partition, &stored, past, err));
	if (!*past)
		return EVBUS_OK;
	TRY(partition_offset_find(reader, (struct evbus_slice){ stored.next_offset, strlen(stored.next_offset) }, &next,
				  err));
	*past = next >= reader->end;
	return EVBUS_OK;
}

/* One that is not consumed here: somebody else has to. */
static enum evbus_code look_elsewhere(struct evbus_consumer *consumer, const struct lane *child, int32_t parent,
				      bool *done, struct evbus_err *err)
{
	CLEANUP(partition_close) struct partition_reader *reader = NULL;
	struct evbus_err why;

	enum evbus_code code = partition_open(child->topic, parent, CHUNK_LESS_BYTES, false, &reader, &why);
	if (code == EVBUS_OK)
		return is_past_end(consumer, reader, done, err);
	/* It has gone. */
	*done = code == EVBUS_NONE;
	if (!*done && err)
		*err = why;
	return *done ? EVBUS_OK : code;
}

static enum evbus_code parent_is_done(struct evbus_consumer *consumer, const struct lane *child, int32_t parent,
				      bool *done, struct evbus_err *err)
{
	const struct lane *lane = lane_of(consumer, child->topic, parent);

	*done = !topic_has_partition(child->topic, parent);
	if (*done)
		return EVBUS_OK;
	if (!lane)
		return look_elsewhere(consumer, child, parent, done, err);
	if (!lane->claim)
		return is_past_end(consumer, lane->reader, done, err);
	*done = lane->saved != UINT64_MAX && consumer_lane_is_done(lane) && lane->saved >= lane->reader->end;
	return EVBUS_OK;
}

/* Nobody is waited for whom it was not to be waited. */
static void wait_for_parent(struct evbus_consumer *consumer, struct lane *child, int32_t parent, struct evbus_err *held)
{
	const struct lane *lane = lane_of(consumer, child->topic, parent);

	if (lane && lane->claim)
		return;
	(void)!err_set(held, EVBUS_AGAIN, 0,
		       "topic '%s', partition %d goes on with keys of partition %d, which group '%s' has not done yet",
		       child->topic->name, child->place.number, parent, consumer->group);
	if (lane && !lane->over)
		return;
	if (!consumer->parent_told)
		bus_notice(consumer->bus, "%s: %s", held->text, consumer->no_wait ? "leaving it alone" : "waiting");
	consumer->parent_told = true;
	child->over = consumer->no_wait && !consumer->follow;
}

enum evbus_code consumer_ask_parents(struct evbus_consumer *consumer, struct lane *lane, struct evbus_err *held,
				     struct evbus_err *err)
{
	for (size_t i = 0; i < BACKEND_PARENTS && !lane->begins; i++) {
		int32_t parent = lane->place.parents[i];
		bool done = true;
		if (parent >= 0)
			TRY(parent_is_done(consumer, lane, parent, &done, err));
		if (done)
			continue;
		wait_for_parent(consumer, lane, parent, held);
		return EVBUS_OK;
	}
	lane->begins = true;
	return EVBUS_OK;
}

enum evbus_code consumer_last_seen(struct evbus_consumer *consumer, const struct backend_topic *topic, int32_t *last,
				   struct evbus_err *err)
{
	*last = -1;
	/* Where one is asked for, what it begins with is about that one, whatever became of others. */
	if (!consumer->from || consumer->partition_id >= 0)
		return EVBUS_OK;
	TRY(bus_store(consumer->bus, err));
	return store_checkpoint_last(consumer->bus->store, consumer->group, topic->name, topic->log_id, last, err);
}

enum evbus_code consumer_was_here_before(struct evbus_consumer *consumer, const struct backend_topic *topic,
					 const struct backend_partition *place, bool *was, struct evbus_err *err)
{
	struct evbus_checkpoint stored;

	*was = false;
	for (size_t i = 0; i < BACKEND_PARENTS && !*was; i++)
		if (place->parents[i] >= 0)
			TRY(find_stored(consumer, topic, place->parents[i], &stored, was, err));
	return EVBUS_OK;
}
