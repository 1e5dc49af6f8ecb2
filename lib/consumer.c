/* consumer.c: the public calls of a consumer: what may be handled next, and what came of it. */
#include "consumer.h"

#include "delivery/retry.h"
#include "event/history.h"

#include <errno.h>
#include <string.h>

#define LOOK_US 500000                 /* a writer may die before it wakes anybody */
#define LOOK_MANY_US 20000             /* a futex is one partition's; with several, the first is waited for so long */
#define LOOK_NONE_US 100000            /* where there is nothing to wait for */
#define RETURN_BYTES (4u * 1024 * 1024)    /* read without anything to give out */

int64_t consumer_now_us(void)
{
	struct timespec now;

	return os.clock_gettime(CLOCK_BOOTTIME, &now) ? 1 : (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000 + 1;
}

/* ---- outcomes ---- */

/* Out of its queues and of the window; freed unless there is something to write of it. */
static void settle(struct evbus_consumer *consumer, struct entry *entry)
{
	struct lane *lane = entry->lane;

	entry->state = ENTRY_DONE;
	consumer_dequeue(consumer, entry);
	if (entry->delivery.letter) {
		lane->letters_in--;
		consumer->letters_in--;
	} else {
		lane->slots[entry->place & (lane->size - 1)].entry = NULL;
		consumer->window_bytes -= entry->text.len;
		consumer_advance(lane);
	}
	consumer_lane_changed(consumer, lane);
	if (!entry->is_noted)
		consumer_free_entry(consumer, entry);
}

/* It was done before. */
static void pass_known(struct evbus_consumer *consumer, struct entry *entry)
{
	consumer->counts.known++;
	if (entry->delivery.letter)
		consumer_note(consumer, entry, NOTE_LETTER_KNOWN);
	else if (entry->stored)
		consumer_note(consumer, entry, NOTE_RETRIED);
	settle(consumer, entry);
}

/* Its history with one attempt more, and its error. */
static enum evbus_code note_attempt(struct entry *entry, enum evbus_reason reason, struct evbus_slice error,
				    struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf history = { 0 }, text = { 0 };
	struct evbus_slice before = { entry->history.data ? entry->history.data : "", entry->history.len };

	TRY(history_error(&text, error, EVBUS_ERROR_MAX_BYTES, err));
	TRY(history_add(&history, before, entry->attempts + 1, os_now_us(), reason, error, err));
	struct buf old_history = entry->history, old_text = entry->error;
	entry->history = history;
	entry->error = text;
	history = old_history;
	text = old_text;
	entry->attempts++;
	entry->reason = reason;
	return EVBUS_OK;
}

static void try_later(struct evbus_consumer *consumer, struct entry *entry)
{
	int64_t delay_us = retry_delay_ms(&consumer->retry, entry->attempts) * 1000;

	entry->due_us = consumer_now_us() + delay_us;
	entry->due_at_us = os_now_us() + delay_us;
	entry->stored = true;
	entry->looked_us = 0;
	consumer_back_off(consumer, entry);
	consumer_note(consumer, entry, NOTE_RETRY);
}

static void die(struct evbus_consumer *consumer, struct entry *entry)
{
	if (entry->delivery.letter) {
		consumer->counts.letters_failed++;
		consumer_note(consumer, entry, NOTE_LETTER_FAILED);
	} else {
		consumer->counts.dead++;
		consumer_note(consumer, entry, NOTE_DEAD);
	}
	consumer->stopped = consumer->stopped || consumer->stop_on_dead;
	settle(consumer, entry);
}

static struct entry *entry_of(struct evbus_delivery *delivery)
{
	return (struct entry *)(void *)delivery;
}

enum evbus_code evbus_consumer_done(struct evbus_consumer *consumer, struct evbus_delivery *delivery,
				    struct evbus_err *err)
{
	struct entry *entry = entry_of(delivery);

	TRY(bus_check(consumer->bus, err));
	consumer->out--;
	if (entry->queues[BY_ID])
		consumer_id_done(consumer, entry->queues[BY_ID]);
	if (delivery->letter) {
		consumer->counts.letters_done++;
		consumer_note(consumer, entry, NOTE_LETTER_DONE);
	} else {
		consumer->counts.done++;
		if (entry->stored)
			consumer_note(consumer, entry, NOTE_RETRIED);
	}
	consumer->outcomes++;
	settle(consumer, entry);
	return EVBUS_OK;
}

/* forever: it is not tried again whatever the policy. */
static enum evbus_code fail(struct evbus_consumer *consumer, struct entry *entry, enum evbus_reason reason,
			    struct evbus_slice error, bool forever, bool *dead, struct evbus_err *err)
{
	TRY(bus_check(consumer->bus, err));
	enum evbus_code code = note_attempt(entry, reason, error, err);
	if (code) {
		evbus_consumer_give_back(consumer, &entry->delivery);
		return code;
	}
	consumer->out--;
	consumer->outcomes++;
	bool again = !forever && !entry->delivery.letter && retry_again(&consumer->retry, entry->attempts);
	if (again)
		try_later(consumer, entry);
	else
		die(consumer, entry);
	TRY(consumer_save(consumer, true, err));
	if (dead)
		*dead = !again;
	return EVBUS_OK;
}

enum evbus_code evbus_consumer_failed(struct evbus_consumer *consumer, struct evbus_delivery *delivery,
				      enum evbus_reason reason, struct evbus_slice error, bool *dead,
				      struct evbus_err *err)
{
	consumer->counts.failed++;
	return fail(consumer, entry_of(delivery), reason, error, false, dead, err);
}

enum evbus_code evbus_consumer_refused(struct evbus_consumer *consumer, struct evbus_delivery *delivery,
				       enum evbus_reason reason, struct evbus_slice error, struct evbus_err *err)
{
	consumer->counts.failed++;
	return fail(consumer, entry_of(delivery), reason, error, true, NULL, err);
}

void evbus_consumer_give_back(struct evbus_consumer *consumer, struct evbus_delivery *delivery)
{
	struct entry *entry = entry_of(delivery);

	consumer->out--;
	entry->state = ENTRY_WAITS;
	entry->looked_us = 0;
	consumer_ready(consumer, entry, true);
}

enum evbus_code evbus_consumer_commit(struct evbus_consumer *consumer, struct evbus_err *err)
{
	TRY(bus_check(consumer->bus, err));
	return consumer_save(consumer, true, err);
}

/* ---- next ---- */

/* Of those that are ready, the first that is not done yet; NULL: there is none. */
static enum evbus_code pick(struct evbus_consumer *consumer, struct entry **picked, struct evbus_err *err)
{
	static const struct evbus_slice not_json = { "the payload is not a JSON object", 32 };
	struct entry *entry;
	bool known = false;

	*picked = NULL;
	while (!consumer->stopped && (entry = consumer_pop_ready(consumer))) {
		bool is_json = entry->record.payload.data;
		enum evbus_code code = is_json ? consumer_is_known(consumer, entry, &known, err) :
						 note_attempt(entry, EVBUS_REASON_NOT_JSON, not_json, err);
		if (code) {
			consumer_ready(consumer, entry, true);
			return code;
		}
		if (is_json && !known) {
			*picked = entry;
			return EVBUS_OK;
		}
		/* On a file bus every payload is a JSON object; of what others write to a remote one, no handler sees
		 * what is not. */
		(is_json ? pass_known : die)(consumer, entry);
	}
	return EVBUS_OK;
}

static void give_out(struct evbus_consumer *consumer, struct entry *entry)
{
	entry->state = ENTRY_OUT;
	entry->delivery.attempt = (uint32_t)(entry->attempts < UINT32_MAX ? entry->attempts + 1 : UINT32_MAX);
	consumer->out++;
	consumer->counts.delivered++;
}

static int64_t least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* Whose futex can be waited for: a lane that is read to its end; the others are looked at now and then. */
static struct lane *lane_to_watch(const struct evbus_consumer *consumer, int64_t *look_us)
{
	struct lane *watched = NULL;
	size_t held = 0;

	for (size_t i = 0; i < consumer->lane_count; i++) {
		struct lane *lane = consumer->lanes[i];
		if (!lane->claim)
			continue;
		held++;
		if (lane->reader->next >= lane->reader->end && !lane->reader->closed)
			watched = lane;
	}
	*look_us = held > 1 ? LOOK_MANY_US : watched ? LOOK_US : LOOK_NONE_US;
	return watched;
}

static bool is_waited_for(const struct evbus_consumer *consumer)
{
	if (consumer->follow || consumer->backoff)
		return true;
	for (size_t i = 0; i < consumer->lane_count; i++)
		if (!consumer->lanes[i]->claim && !consumer->lanes[i]->over)
			return true;
	return false;
}

/* false: the time is up, a signal came, or only the caller can bring anything about. */
static bool wait_for_more(const struct evbus_consumer *consumer, int64_t start_us, int timeout_ms)
{
	int64_t now = consumer_now_us(), wait_us = INT64_MAX, look_us;
	struct lane *watched = lane_to_watch(consumer, &look_us);

	if (timeout_ms >= 0)
		wait_us = start_us + (int64_t)timeout_ms * 1000 - now;
	if (wait_us <= 0 || !is_waited_for(consumer))
		return false;
	if (consumer->dirty_us)
		wait_us = least(wait_us, consumer->dirty_us + consumer->commit_interval_us - now);
	wait_us = least(wait_us, consumer->next_due_us - now);
	wait_us = least(wait_us, consumer->tended_us + TEND_US - now);
	if (consumer->follow)
		wait_us = least(wait_us, look_us);
	wait_us = wait_us > 0 ? wait_us : 0;
	if (consumer->follow && watched)
		return partition_wait(watched->reader, (int)((wait_us + 999) / 1000));
	struct timespec time = { wait_us / 1000000, (long)(wait_us % 1000000) * 1000 };
	return nanosleep(&time, NULL) == 0 || errno != EINTR;
}

/* Whether nothing more will be given out. */
static bool is_over(const struct evbus_consumer *consumer)
{
	if (consumer->stopped)
		return true;
	if (consumer->follow || consumer->out || consumer->lanes_with_letters || consumer->letters_in ||
	    consumer->failure.code)
		return false;
	for (size_t i = 0; i < consumer->lane_count; i++) {
		const struct lane *lane = consumer->lanes[i];
		if (!lane->over && (!lane->claim || lane->count || lane->read_to < lane->end))
			return false;
	}
	return true;
}

bool evbus_consumer_finished(const struct evbus_consumer *consumer)
{
	return is_over(consumer) && !consumer->dirty_us;
}

static enum evbus_code look_for_one(struct evbus_consumer *consumer, struct entry **entry, bool *idle,
				    struct evbus_err *err)
{
	*idle = false;
	TRY(consumer_save(consumer, false, err));
	TRY(consumer_tend(consumer, err));
	TRY(consumer_take_letters(consumer, err));
	consumer_wake_up(consumer);
	TRY(pick(consumer, entry, err));
	if (!*entry && !consumer->stopped) {
		TRY(consumer_fill(consumer, idle, err));
		TRY(pick(consumer, entry, err));
		/* Where letters came and went at once, others may be behind them. */
		*idle = *idle && !(consumer->lanes_with_letters && consumer->letters_in < consumer->concurrency);
	}
	if (!*entry && *idle && consumer->failure.code && !consumer->out) {
		TRY(consumer_save(consumer, true, err));
		if (err)
			*err = consumer->failure;
		return consumer->failure.code;
	}
	return EVBUS_OK;
}

static enum evbus_code wait_for_one(struct evbus_consumer *consumer, int timeout_ms, struct entry **entry,
				    struct evbus_err *err)
{
	int64_t start_us = consumer_now_us();
	uint64_t start_bytes = consumer->progress.bytes;
	bool idle;

	for (;;) {
		TRY(look_for_one(consumer, entry, &idle, err));
		if (*entry)
			return EVBUS_OK;
		if (is_over(consumer))
			return consumer_save(consumer, true, err);
		if (consumer->progress.bytes - start_bytes > RETURN_BYTES)
			return EVBUS_OK;
		if (idle ? !wait_for_more(consumer, start_us, timeout_ms) :
			   timeout_ms >= 0 && consumer_now_us() - start_us >= (int64_t)timeout_ms * 1000)
			return EVBUS_OK;
	}
}

enum evbus_code evbus_consumer_next(struct evbus_consumer *consumer, int timeout_ms, struct evbus_delivery **delivery,
				    struct evbus_err *err)
{
	struct entry *entry = NULL;

	TRY(bus_check(consumer->bus, err));
	if (consumer->out >= consumer->concurrency)
		TRY(consumer_save(consumer, false, err));
	else
		TRY(wait_for_one(consumer, timeout_ms, &entry, err));
	if (entry)
		give_out(consumer, entry);
	*delivery = entry ? &entry->delivery : NULL;
	return EVBUS_OK;
}

/* ---- what is known ---- */

struct evbus_consumer_counts evbus_consumer_counts(const struct evbus_consumer *consumer)
{
	return consumer->counts;
}

struct evbus_progress evbus_consumer_progress(const struct evbus_consumer *consumer)
{
	return consumer->progress;
}
