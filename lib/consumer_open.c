/* consumer_open.c: which partitions are consumed: their topics, their claims, and where they begin. */
#include "consumer.h"

#include "delivery/checkpoint.h"
#include "delivery/position.h"
#include "delivery/retry.h"
#include "event/envelope.h"
#include "event/subject.h"
#include "reader.h"
#include "store/claim.h"

#include <errno.h>
#include <string.h>

#define CHUNK_BYTES (256u * 1024)      /* read at once from each of the first few partitions */
#define CHUNK_LESS_BYTES (16u * 1024)  /* and from each further one, so that memory stays bounded */
#define CHUNK_FEW 32u
#define WINDOW_RECORDS 1024u
#define COMMIT_INTERVAL_MS 1000

/* ---- closing ---- */

static void forget_earlier(struct lane *lane)
{
	for (size_t i = 0; i < lane->earlier_count; i++) {
		buf_release(&lane->earlier[i].history);
		buf_release(&lane->earlier[i].error);
	}
	free(lane->earlier);
	lane->earlier = NULL;
	lane->earlier_count = 0;
}

static void close_lane(struct lane *lane)
{
	evbus_claim_release(lane->claim);
	cursor_close(&lane->cursor);
	forget_earlier(lane);
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
	for (size_t i = 0; i < consumer->topic_count; i++) {
		topic_close(consumer->topics[i]);
		free(consumer->topics[i]);
	}
	queues_release(&consumer->keys_and_ids);
	buf_release(&consumer->scratch);
	os_close_cleanup(&consumer->state);
	free(consumer->lanes);
	free(consumer->topics);
	free(consumer->texts);
	free(consumer->filter_texts);
	free(consumer);
}

/* ---- where a lane begins ---- */

static enum evbus_code no_memory(struct evbus_err *err)
{
	return err_set(err, EVBUS_IO, ENOMEM, "cannot open a consumer");
}

static enum evbus_code grow(void *array, size_t count, size_t size, struct evbus_err *err)
{
	void **pointers = array;
	void *larger = os.realloc(*pointers, (count + 1) * size);

	if (!larger)
		return no_memory(err);
	*pointers = larger;
	return EVBUS_OK;
}

static enum evbus_code outside(const struct lane *lane, uint64_t offset, struct evbus_err *err)
{
	return err_set(err, EVBUS_CONFLICT, 0,
		       "offset %llu is not in topic '%s', partition %d, which goes from %llu to %llu (exclusive)",
		       (unsigned long long)offset, lane->topic->name, lane->cursor.partition,
		       (unsigned long long)lane->cursor.first, (unsigned long long)lane->cursor.durable.next);
}

/* Of a group that was never here. What is durable was looked at when the lane was opened, and that is what "end" means,
 * however long it had to be waited for the claim. */
static enum evbus_code begin_anew(const struct evbus_consumer *consumer, struct lane *lane, struct evbus_err *err)
{
	struct position position = { .kind = POSITION_BEGINNING };
	struct evbus_checkpoint checkpoint;

	if (consumer->from && !lane->appeared)
		TRY(position_parse(consumer->from, &position, err));
	if (position.kind == POSITION_STORED)
		position.kind = POSITION_BEGINNING;
	TRY(position_resolve(&position, &lane->cursor, &lane->low, err));
	if (lane->low < lane->cursor.first || lane->low > lane->cursor.durable.next)
		return outside(lane, lane->low, err);
	TRY(checkpoint_make(&lane->cursor, consumer->group, lane->low, &checkpoint, err));
	memcpy(lane->fingerprint, checkpoint.fingerprint, sizeof lane->fingerprint);
	/* A place that was asked for is kept, also where nothing comes after it. */
	lane->saved = position.kind == POSITION_BEGINNING ? lane->low : UINT64_MAX;
	return EVBUS_OK;
}

static enum evbus_code find_beginning(struct evbus_consumer *consumer, struct lane *lane, struct evbus_err *err)
{
	struct evbus_checkpoint checkpoint;

	TRY(bus_store(consumer->bus, err));
	enum evbus_code code = store_checkpoint_get(consumer->bus->store, consumer->group, lane->topic->name,
						    lane->cursor.partition, &checkpoint, err);
	if (code == EVBUS_NONE) {
		TRY(begin_anew(consumer, lane, err));
	} else {
		TRY(code);
		/* Another process may have gone beyond what was durable when we began. */
		TRY(cursor_refresh(&lane->cursor, err));
		TRY(checkpoint_check(&lane->cursor, &checkpoint, &lane->low, err));
		memcpy(lane->fingerprint, checkpoint.fingerprint, sizeof lane->fingerprint);
		lane->saved = lane->low;
	}
	return cursor_seek(&lane->cursor, lane->low, err);
}

/* ---- attempts of earlier runs ---- */

static enum evbus_code damaged(const struct lane *lane, struct evbus_err *err)
{
	return err_set(err, EVBUS_IO, 0,
		       "a row of the table of retries of topic '%s', partition %d is damaged: evbus did not write it so",
		       lane->topic->name, lane->cursor.partition);
}

static enum evbus_code take_earlier(void *context, const struct retry_row *row, struct evbus_err *err)
{
	struct lane *lane = context;
	struct evbus_slice at = row->next_attempt_at;
	struct earlier earlier = { .attempts = row->attempts };

	earlier.dead = at.len == strlen(RETRY_NEVER) && !memcmp(at.data, RETRY_NEVER, at.len);
	bool has_time = at.len == TIME_TEXT_LEN && clock_parse_exact(at.data, &earlier.due_at_us);
	if (!decimal_parse(row->offset, &earlier.offset) || (!earlier.dead && !has_time))
		return damaged(lane, err);
	if (earlier.offset < lane->low)
		return EVBUS_OK;
	TRY(grow(&lane->earlier, lane->earlier_count, sizeof *lane->earlier, err));
	lane->earlier[lane->earlier_count] = earlier;
	struct earlier *kept = &lane->earlier[lane->earlier_count++];
	TRY(buf_add(&kept->history, row->history.data, row->history.len, err));
	return buf_add(&kept->error, row->last_error.data, row->last_error.len, err);
}

static enum evbus_code load_earlier(struct evbus_consumer *consumer, struct lane *lane, struct evbus_err *err)
{
	struct retry_place place = { .group = consumer->group, .topic = lane->topic->name,
				     .partition_id = lane->cursor.partition, .log_id = lane->topic->log_id };

	TRY(retries_list(consumer->bus->store, &place, take_earlier, lane, err));
	/* What is below the checkpoint, or of another log, goes with the first save; what is left with those of a filter
	 * that has changed. */
	lane->sweep_to = lane->earlier_count ? lane->earlier[lane->earlier_count - 1].offset + 1 : 1;
	return EVBUS_OK;
}

/* ---- claims ---- */

/* The directory of the state, in which the claims lie. */
static enum evbus_code open_state(struct evbus_consumer *consumer, struct evbus_err *err)
{
	const struct root *root = &consumer->bus->root;

	if (consumer->state >= 0)
		return EVBUS_OK;
	TRY(os_make_dir(root->fd, ".evbus", root->dir_mode, ".evbus", NULL, err));
	return os_open_dir(root->fd, ".evbus", ".evbus", &consumer->state, err);
}

static enum evbus_code begin(struct evbus_consumer *consumer, struct lane *lane, struct evbus_err *err)
{
	uint64_t bytes;

	TRY(find_beginning(consumer, lane, err));
	TRY(load_earlier(consumer, lane, err));
	TRY(cursor_bytes_left(&lane->cursor, &bytes, err));
	consumer->progress.bytes_total += consumer->follow ? 0 : bytes;
	if (lane->saved == UINT64_MAX)
		consumer_lane_changed(consumer, lane);
	consumer_expect_letters(consumer, lane);
	return EVBUS_OK;
}

/* Whether the process that has the partition has done all that was there when we began. */
static enum evbus_code look_whether_over(struct evbus_consumer *consumer, struct lane *lane, struct evbus_err *err)
{
	struct evbus_checkpoint checkpoint;
	uint64_t next;

	if (consumer->follow)
		return EVBUS_OK;
	TRY(bus_store(consumer->bus, err));
	enum evbus_code code = store_checkpoint_get(consumer->bus->store, consumer->group, lane->topic->name,
						    lane->cursor.partition, &checkpoint, err);
	if (code == EVBUS_NONE)
		return EVBUS_OK;
	TRY(code);
	struct evbus_slice text = { checkpoint.next_offset, strlen(checkpoint.next_offset) };
	lane->over = strcmp(checkpoint.log_id, lane->topic->log_id) == 0 && decimal_parse(text, &next) &&
		     next >= lane->end;
	return EVBUS_OK;
}

static void tell_claimed(struct evbus_consumer *consumer, const struct evbus_err *held)
{
	if (!consumer->claim_told)
		root_notice(&consumer->bus->root, "%s: %s", held->text,
			    consumer->no_wait ? "leaving it alone" : "waiting");
	consumer->claim_told = true;
}

/* *held: who has it, where somebody else does. */
static enum evbus_code try_lane(struct evbus_consumer *consumer, struct lane *lane, struct evbus_err *held,
				struct evbus_err *err)
{
	const char *name = lane->topic->name;
	int32_t partition = lane->cursor.partition;
	mode_t mode = consumer->bus->root.file_mode;

	/* The first time it is worth a moment to learn who has it. */
	enum evbus_code code = (consumer->claim_told ? claim_try : claim_take)(
		consumer->state, mode, consumer->group, name, partition, &lane->claim, held);
	if (code == EVBUS_AGAIN)
		return look_whether_over(consumer, lane, err);
	if (code) {
		if (err)
			*err = *held;
		return code;
	}
	code = begin(consumer, lane, err);
	if (code) {
		forget_earlier(lane);
		evbus_claim_release(lane->claim);
		lane->claim = NULL;
	}
	return code;
}

static enum evbus_code take_claims(struct evbus_consumer *consumer, struct evbus_err *err)
{
	struct evbus_err held = { 0 };
	size_t claimed = 0;

	for (size_t i = 0; i < consumer->lane_count; i++) {
		struct lane *lane = consumer->lanes[i];
		if (!lane->claim && !lane->over) {
			TRY(open_state(consumer, err));
			TRY(try_lane(consumer, lane, &held, err));
		}
		claimed += lane->claim != NULL;
		if (lane->claim || lane->over)
			continue;
		tell_claimed(consumer, &held);
		/* One who follows takes over what becomes free in any case. */
		lane->over = consumer->no_wait && !consumer->follow;
	}
	if (claimed || !consumer->lane_count || !consumer->no_wait || consumer->tended_us)
		return EVBUS_OK;
	if (err)
		*err = held;
	return EVBUS_AGAIN;
}

/* ---- topics ---- */

static enum evbus_code add_lane(struct evbus_consumer *consumer, struct topic *topic, int32_t partition,
				struct evbus_err *err)
{
	size_t chunk = consumer->lane_count < CHUNK_FEW ? CHUNK_BYTES : CHUNK_LESS_BYTES;

	TRY(grow(&consumer->lanes, consumer->lane_count, sizeof *consumer->lanes, err));
	CLEANUP(free_cleanup) struct lane *lane = os.realloc(NULL, sizeof *lane);
	if (!lane)
		return no_memory(err);
	*lane = (struct lane){ .topic = topic, .appeared = consumer->topics_looked_for };
	TRY(cursor_open(topic, partition, chunk, &lane->cursor, err));
	lane->end = consumer->follow ? UINT64_MAX : lane->cursor.durable.next;
	consumer->lanes[consumer->lane_count++] = lane;
	lane = NULL;
	return EVBUS_OK;
}

static enum evbus_code add_topic(struct evbus_consumer *consumer, const char *name, struct evbus_err *err)
{
	TRY(grow(&consumer->topics, consumer->topic_count, sizeof *consumer->topics, err));
	CLEANUP(free_cleanup) struct topic *topic = os.realloc(NULL, sizeof *topic);
	if (!topic)
		return no_memory(err);
	TRY(topic_open(&consumer->bus->root, name, topic, err));
	struct topic *kept = topic;
	consumer->topics[consumer->topic_count++] = topic;
	topic = NULL;
	/* Of a pattern those topics are meant that have it. */
	if (consumer->partition_id >= 0 && consumer->is_pattern &&
	    (uint32_t)consumer->partition_id >= kept->partitions)
		return EVBUS_OK;
	if (consumer->partition_id >= 0)
		return add_lane(consumer, kept, consumer->partition_id, err);
	for (uint32_t i = 0; i < kept->partitions; i++)
		TRY(add_lane(consumer, kept, (int32_t)i, err));
	return EVBUS_OK;
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

	TRY(bus_root(consumer->bus, false, err));
	if (consumer->is_pattern)
		TRY(topic_names(&consumer->bus->root, consumer->topic, &names, err));
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
		root_notice(&consumer->bus->root, "waiting for topic '%s'", consumer->topic);
	consumer->waiting_told = true;
	return EVBUS_OK;
}

/* Who follows an empty log would not notice otherwise that it was made anew. */
static enum evbus_code check_topics(const struct evbus_consumer *consumer, struct evbus_err *err)
{
	for (size_t i = 0; i < consumer->topic_count; i++) {
		const struct topic *topic = consumer->topics[i];
		struct stat ours, there;
		if (os.fstat(topic->fd, &ours))
			return err_set(err, EVBUS_IO, errno, "cannot look at topic '%s'", topic->name);
		if (os.fstatat(topic->root->fd, topic->name, &there, AT_SYMLINK_NOFOLLOW) ||
		    ours.st_dev != there.st_dev || ours.st_ino != there.st_ino)
			return err_set(err, EVBUS_CONFLICT, 0, "topic '%s' was removed or replaced while it was consumed",
				       topic->name);
	}
	return EVBUS_OK;
}

enum evbus_code consumer_tend(struct evbus_consumer *consumer, struct evbus_err *err)
{
	int64_t now_us = consumer_now_us();

	if (now_us - consumer->tended_us < TEND_US)
		return EVBUS_OK;
	TRY(check_topics(consumer, err));
	TRY(look_for_topics(consumer, err));
	TRY(take_claims(consumer, err));
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
		       "'%s' is an offset in one partition, and several are consumed: choose one with --partition, or use "
		       "beginning, end, -N or @TIME",
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
	TRY(take_claims(opened, err));
	opened->tended_us = consumer_now_us();
	opened->letters_us = opened->tended_us;
	GIVE(consumer, opened);
	return EVBUS_OK;
}
