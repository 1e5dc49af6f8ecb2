/* consumer_open.c: which partitions are consumed, and how. */
#include "consumer.h"

#include "delivery/position.h"
#include "delivery/retry.h"
#include "event/envelope.h"
#include "event/subject.h"
#include "reader.h"

#include <errno.h>
#include <string.h>

#define CHUNK_BYTES (256u * 1024)      /* read at once from each of the first few partitions */
#define CHUNK_FEW 32u
#define WINDOW_RECORDS 1024u
#define COMMIT_INTERVAL_MS 1000

/* ---- closing ---- */

static void close_lane(struct lane *lane)
{
	evbus_claim_release(lane->claim);
	partition_close(&lane->reader);
	consumer_forget_earlier(lane);
	free(lane->slots);
	free(lane);
}

static void free_entries(struct entry *all)
{
	for (struct entry *entry = all, *next; entry; entry = next) {
		next = entry->next_of_all;
		buf_release(&entry->text);
		buf_release(&entry->history);
		buf_release(&entry->error);
		free(entry);
	}
}

void evbus_consumer_close(struct evbus_consumer *consumer)
{
	if (!consumer)
		return;
	free_entries(consumer->all);
	for (size_t i = 0; i < consumer->lane_count; i++)
		close_lane(consumer->lanes[i]);
	for (size_t i = 0; i < consumer->topic_count; i++)
		backend_topic_close(&consumer->topics[i]);
	queues_release(&consumer->keys_and_ids);
	buf_release(&consumer->scratch);
	os_close_cleanup(&consumer->state);
	free(consumer->lanes);
	free(consumer->topics);
	free(consumer->texts);
	free(consumer->filter_texts);
	free(consumer);
}

/* ---- topics ---- */

static enum evbus_code no_memory(struct evbus_err *err)
{
	return err_set(err, EVBUS_IO, ENOMEM, "cannot open a consumer");
}

static enum evbus_code add_lane(struct evbus_consumer *consumer, struct backend_topic *topic,
				struct backend_partition place, bool appeared, struct evbus_err *err)
{
	size_t chunk = consumer->lane_count < CHUNK_FEW ? CHUNK_BYTES : CHUNK_LESS_BYTES;

	TRY(reader_grow(&consumer->lanes, consumer->lane_count, sizeof *consumer->lanes, err));
	CLEANUP(free_cleanup) struct lane *lane = os.realloc(NULL, sizeof *lane);
	if (!lane)
		return no_memory(err);
	*lane = (struct lane){ .topic = topic, .place = place, .appeared = appeared };
	if (consumer->from && !lane->appeared)
		TRY(consumer_was_here_before(consumer, topic, &place, &lane->appeared, err));
	TRY(partition_open(topic, place.number, chunk, false, &lane->reader, err));
	lane->end = consumer->follow ? UINT64_MAX : lane->reader->end;
	consumer->lanes[consumer->lane_count++] = lane;
	lane = NULL;
	return EVBUS_OK;
}

/* at: where to look first, for they stand in the order of the topic. */
static bool has_lane(const struct evbus_consumer *consumer, const struct backend_topic *topic, int32_t partition,
		     size_t *at)
{
	for (size_t n = 0; n < consumer->lane_count; n++) {
		size_t i = (*at + n) % consumer->lane_count;
		if (consumer->lanes[i]->topic != topic || consumer->lanes[i]->place.number != partition)
			continue;
		*at = i + 1;
		return true;
	}
	return false;
}

/* Adds a lane for each that is asked for and has none. A number is given to one partition after the other, so one that is
 * higher than those that the group has seen is of one that appeared since. */
static enum evbus_code look_for_partitions(struct evbus_consumer *consumer, struct backend_topic *topic,
					   struct evbus_err *err)
{
	size_t at = 0;
	int32_t last = -1;

	if (!consumer->topics_looked_for)
		TRY(consumer_last_seen(consumer, topic, &last, err));
	for (uint32_t i = 0; i < topic->partitions; i++) {
		struct backend_partition place = topic_partition(topic, i);
		if ((consumer->partition_id >= 0 && place.number != consumer->partition_id) ||
		    has_lane(consumer, topic, place.number, &at))
			continue;
		bool appeared = consumer->topics_looked_for || (last >= 0 && place.number > last);
		struct evbus_err why;
		enum evbus_code code = add_lane(consumer, topic, place, appeared, &why);
		/* One that appeared may not be ready. */
		if (code == EVBUS_NONE && consumer->topics_looked_for)
			continue;
		if (code && err)
			*err = why;
		TRY(code);
	}
	return EVBUS_OK;
}

static enum evbus_code add_topic(struct evbus_consumer *consumer, const char *name, struct evbus_err *err)
{
	TRY(reader_grow(&consumer->topics, consumer->topic_count, sizeof *consumer->topics, err));
	struct backend *backend = consumer->bus->backend;
	TRY(backend->ops->topic_open(backend, name, &consumer->topics[consumer->topic_count], err));
	struct backend_topic *kept = consumer->topics[consumer->topic_count++];
	/* Of a pattern those topics are meant that have it. */
	if (consumer->partition_id >= 0 && !consumer->is_pattern && !topic_has_partition(kept, consumer->partition_id))
		return topic_no_partition(kept, consumer->partition_id, err);
	return look_for_partitions(consumer, kept, err);
}

static bool has_topic(const struct evbus_consumer *consumer, const char *name)
{
	for (size_t i = 0; i < consumer->topic_count; i++)
		if (strcmp(consumer->topics[i]->name, name) == 0)
			return true;
	return false;
}

/* EVBUS_NONE: there is no such topic, or no bus. */
static enum evbus_code add_topics(struct evbus_consumer *consumer, struct evbus_err *err)
{
	CLEANUP(free_cleanup) char **names = NULL;
	const char *only[] = { consumer->topic, NULL };

	TRY(bus_reach(consumer->bus, false, err));
	if (consumer->is_pattern)
		TRY(evbus_topic_list(consumer->bus, consumer->topic, &names, err));
	for (size_t i = 0; names ? names[i] != NULL : only[i] != NULL; i++) {
		const char *name = names ? names[i] : only[i];
		if (!has_topic(consumer, name))
			TRY(add_topic(consumer, name, err));
	}
	return EVBUS_OK;
}

static enum evbus_code look_for_topics(struct evbus_consumer *consumer, struct evbus_err *err)
{
	if (consumer->topics_looked_for && (!consumer->follow || (!consumer->is_pattern && consumer->topic_count)))
		return EVBUS_OK;
	enum evbus_code code = add_topics(consumer, err);
	consumer->topics_looked_for = true;
	if (code != EVBUS_NONE || !consumer->follow)
		return code;
	if (!consumer->waiting_told && !consumer->topic_count)
		bus_notice(consumer->bus, "waiting for topic '%s'", consumer->topic);
	consumer->waiting_told = true;
	return EVBUS_OK;
}

enum evbus_code consumer_tend(struct evbus_consumer *consumer, struct evbus_err *err)
{
	int64_t now_us = consumer_now_us();

	if (now_us - consumer->tended_us < TEND_US)
		return EVBUS_OK;
	for (size_t i = 0; i < consumer->topic_count; i++) {
		TRY(consumer->topics[i]->ops->topic_check(consumer->topics[i], "consumed", err));
		if (consumer->follow)
			TRY(look_for_partitions(consumer, consumer->topics[i], err));
	}
	TRY(look_for_topics(consumer, err));
	TRY(consumer_take_claims(consumer, err));
	consumer->tended_us = now_us;
	return EVBUS_OK;
}

/* ---- opening ---- */

/* A number names a place in one partition only. */
static enum evbus_code check_from(const struct evbus_consumer *consumer, struct evbus_err *err)
{
	struct position position;

	if (!consumer->from)
		return EVBUS_OK;
	TRY(position_parse(consumer->from, &position, err));
	if (position.kind != POSITION_OFFSET ||
	    (!consumer->is_pattern && (consumer->partition_id >= 0 || consumer->lane_count <= 1)))
		return EVBUS_OK;
	return err_set(err, EVBUS_USAGE, 0,
		       "'%s' is an offset in one partition, and several are consumed: choose one with --partition, or "
		       "use beginning, end, -N or @TIME",
		       consumer->from);
}

static const char *keep_text(char **to, const char *text)
{
	size_t size = strlen(text) + 1;
	char *kept = memcpy(*to, text, size);

	*to += size;
	return kept;
}

static enum evbus_code copy_texts(struct evbus_consumer *consumer, const struct evbus_consumer_options *options,
				  struct evbus_err *err)
{
	size_t size = strlen(options->group) + strlen(options->topic) + (options->from ? strlen(options->from) : 0) + 3;
	char *to = consumer->texts = os.realloc(NULL, size);

	if (!to)
		return no_memory(err);
	consumer->group = keep_text(&to, options->group);
	consumer->topic = keep_text(&to, options->topic);
	consumer->from = options->from ? keep_text(&to, options->from) : NULL;
	return EVBUS_OK;
}

static enum evbus_code take_options(struct evbus_consumer *consumer, const struct evbus_consumer_options *options,
				    struct evbus_err *err)
{
	int64_t interval_ms = options->commit_interval_ms ? options->commit_interval_ms : COMMIT_INTERVAL_MS;

	consumer->is_pattern = subject_is_pattern(options->topic);
	TRY(evbus_topic_check(options->topic, consumer->is_pattern, err));
	TRY(subject_check_name("group", options->group, err));
	TRY(retry_check(&options->retry, err));
	if (interval_ms < 0 || interval_ms > INT64_MAX / 1000)
		return err_set(err, EVBUS_USAGE, 0, "a commit interval is not %lld ms long", (long long)interval_ms);
	TRY(copy_texts(consumer, options, err));
	consumer->partition_id = options->partition_id;
	consumer->follow = options->follow;
	consumer->no_wait = options->no_wait;
	consumer->inbox = options->inbox;
	consumer->stop_on_dead = options->stop_on_dead;
	consumer->retry = options->retry;
	consumer->concurrency = options->concurrency ? options->concurrency : 1;
	consumer->window = options->window ? options->window : WINDOW_RECORDS;
	consumer->commit_every = options->commit_every ? options->commit_every : 1;
	consumer->commit_interval_us = interval_ms * 1000;
	TRY(reader_copy_filter(&options->filter, &consumer->filter, &consumer->filter_texts, err));
	consumer->filtered = !filter_is_empty(&consumer->filter);
	return EVBUS_OK;
}

static void close_consumer(struct evbus_consumer **consumer)
{
	evbus_consumer_close(*consumer);
}

enum evbus_code evbus_consumer_open(struct evbus *bus, const struct evbus_consumer_options *options,
				    struct evbus_consumer **consumer, struct evbus_err *err)
{
	CLEANUP(close_consumer) struct evbus_consumer *opened = NULL;

	TRY(bus_check(bus, err));
	opened = os.realloc(NULL, sizeof *opened);
	if (!opened)
		return no_memory(err);
	*opened = (struct evbus_consumer){ .bus = bus, .state = -1, .next_due_us = INT64_MAX };
	TRY(queues_init(&opened->keys_and_ids, err));
	TRY(take_options(opened, options, err));
	TRY(look_for_topics(opened, err));
	TRY(check_from(opened, err));
	TRY(consumer_take_claims(opened, err));
	opened->tended_us = consumer_now_us();
	opened->letters_us = opened->tended_us;
	GIVE(consumer, opened);
	return EVBUS_OK;
}
