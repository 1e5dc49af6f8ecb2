/* consumer_claim.c: the claims of partitions: taking them, waiting for them, and where a lane begins. */
#include "consumer.h"

#include "delivery/checkpoint.h"
#include "delivery/position.h"
#include "store/claim.h"

#include <errno.h>
#include <string.h>

/* ---- where a lane begins ---- */

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
	TRY(position_resolve(&position, lane->reader, &lane->low, err));
	TRY(position_check(lane->reader, lane->low, err));
	TRY(checkpoint_make(lane->reader, consumer->group, lane->low, &checkpoint, err));
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
						    lane->reader->partition, &checkpoint, err);
	if (code == EVBUS_NONE) {
		TRY(begin_anew(consumer, lane, err));
	} else {
		TRY(code);
		/* Another process may have gone beyond what was durable when we began. */
		TRY(partition_refresh(lane->reader, err));
		TRY(checkpoint_check(lane->reader, &checkpoint, &lane->low, err));
		memcpy(lane->fingerprint, checkpoint.fingerprint, sizeof lane->fingerprint);
		lane->saved = lane->low;
	}
	lane->read_to = lane->low;
	return partition_seek(lane->reader, lane->low, err);
}

/* ---- attempts of earlier runs ---- */

void consumer_forget_earlier(struct lane *lane)
{
	for (size_t i = 0; i < lane->earlier_count; i++) {
		buf_release(&lane->earlier[i].history);
		buf_release(&lane->earlier[i].error);
	}
	free(lane->earlier);
	lane->earlier = NULL;
	lane->earlier_count = 0;
}

static enum evbus_code damaged(const struct lane *lane, struct evbus_err *err)
{
	return err_set(err, EVBUS_IO, 0,
		       "a row of the table of retries of topic '%s', partition %d is damaged: evbus did not write it "
		       "so",
		       lane->topic->name, lane->reader->partition);
}

static enum evbus_code take_earlier(void *context, const struct retry_row *row, struct evbus_err *err)
{
	struct lane *lane = context;
	struct evbus_slice at = row->next_attempt_at;
	struct earlier earlier = { .attempts = row->attempts };

	earlier.dead = at.len == strlen(RETRY_NEVER) && !memcmp(at.data, RETRY_NEVER, at.len);
	bool has_time = at.len == TIME_TEXT_LEN && clock_parse_exact(at.data, &earlier.due_at_us);
	enum evbus_code code = partition_offset_find(lane->reader, row->offset, &earlier.offset, err);
	if (code == EVBUS_DATA || (code == EVBUS_OK && !earlier.dead && !has_time))
		return damaged(lane, err);
	TRY(code);
	if (earlier.offset < lane->low)
		return EVBUS_OK;
	struct earlier *larger = os.realloc(lane->earlier, (lane->earlier_count + 1) * sizeof(*larger));
	if (!larger)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot take up what was tried before");
	lane->earlier = larger;
	lane->earlier[lane->earlier_count] = earlier;
	struct earlier *kept = &lane->earlier[lane->earlier_count++];
	TRY(buf_add(&kept->history, row->history.data, row->history.len, err));
	return buf_add(&kept->error, row->last_error.data, row->last_error.len, err);
}

static enum evbus_code load_earlier(struct evbus_consumer *consumer, struct lane *lane, struct evbus_err *err)
{
	struct retry_place place = { .group = consumer->group, .topic = lane->topic->name,
				     .partition_id = lane->reader->partition, .log_id = lane->topic->log_id };

	TRY(retries_list(consumer->bus->store, &place, take_earlier, lane, err));
	/* What is below the checkpoint, or of another log, goes with the first save; what the filter passes over by now,
	 * when the checkpoint comes by. */
	lane->sweep_to = lane->earlier_count ? lane->earlier[lane->earlier_count - 1].offset + 1 : 1;
	return EVBUS_OK;
}

/* ---- claims ---- */

static enum evbus_code begin(struct evbus_consumer *consumer, struct lane *lane, struct evbus_err *err)
{
	uint64_t bytes;

	TRY(find_beginning(consumer, lane, err));
	TRY(load_earlier(consumer, lane, err));
	TRY(partition_bytes_left(lane->reader, &bytes, err));
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
						    lane->reader->partition, &checkpoint, err);
	if (code == EVBUS_NONE)
		return EVBUS_OK;
	TRY(code);
	struct evbus_slice text = { checkpoint.next_offset, strlen(checkpoint.next_offset) };
	if (strcmp(checkpoint.log_id, lane->topic->log_id) != 0)
		return EVBUS_OK;
	code = partition_offset_find(lane->reader, text, &next, err);
	if (code == EVBUS_DATA)
		return EVBUS_OK;
	TRY(code);
	lane->over = next >= lane->end;
	return EVBUS_OK;
}

static void tell_claimed(struct evbus_consumer *consumer, const struct evbus_err *held)
{
	if (!consumer->claim_told)
		bus_notice(consumer->bus, "%s: %s", held->text, consumer->no_wait ? "leaving it alone" : "waiting");
	consumer->claim_told = true;
}

/* *held: who has it, where somebody else does. */
static enum evbus_code claim_lane(struct evbus_consumer *consumer, struct lane *lane, struct evbus_err *held,
				struct evbus_err *err)
{
	const char *name = lane->topic->name;
	int32_t partition = lane->reader->partition;

	/* The first time it is worth a moment to learn who has it. */
	enum evbus_code code = bus_claim(consumer->bus, &consumer->state, consumer->group, name, partition,
					 consumer->claim_told, &lane->claim, held);
	if (code == EVBUS_AGAIN)
		return look_whether_over(consumer, lane, err);
	if (code) {
		if (err)
			*err = *held;
		return code;
	}
	lane->renewals = claim_renewals(lane->claim);
	code = begin(consumer, lane, err);
	if (code) {
		consumer_forget_earlier(lane);
		evbus_claim_release(lane->claim);
		lane->claim = NULL;
	}
	return code;
}

/* The same of one that may not begin yet. */
static enum evbus_code try_lane(struct evbus_consumer *consumer, struct lane *lane, struct evbus_err *held,
				struct evbus_err *err)
{
	TRY(consumer_ask_parents(consumer, lane, held, err));
	if (!lane->begins)
		return EVBUS_OK;
	if (consumer->state < 0)
		TRY(bus_state(consumer->bus, &consumer->state, err));
	TRY(claim_lane(consumer, lane, held, err));
	if (lane->claim || lane->over)
		return EVBUS_OK;
	tell_claimed(consumer, held);
	/* One who follows takes over what becomes free in any case. */
	lane->over = consumer->no_wait && !consumer->follow;
	return EVBUS_OK;
}

enum evbus_code consumer_take_claims(struct evbus_consumer *consumer, struct evbus_err *err)
{
	struct evbus_err held = { 0 };
	size_t claimed = 0;

	for (size_t i = 0; i < consumer->lane_count; i++) {
		struct lane *lane = consumer->lanes[i];
		if (!lane->claim && !lane->over)
			TRY(try_lane(consumer, lane, &held, err));
		claimed += lane->claim != NULL;
	}
	if (claimed || !consumer->lane_count || !consumer->no_wait || consumer->tended_us)
		return EVBUS_OK;
	if (err)
		*err = held;
	return EVBUS_AGAIN;
}
