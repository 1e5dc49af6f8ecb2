/* publisher.c: from events to receipts.
 *
 * Events are encoded into a slot: for each partition a group of lines that will be one write, and the order in which they
 * came. A flush with nothing under way writes and syncs in the calling thread, so a lone event costs no hand-over. When a
 * slot fills up before anybody asks for a flush, a thread of the publisher's writes and syncs it while the caller goes on
 * to encode the next: of three slots one is being filled, one is on its way to the disk, and one has its receipts given
 * out. */
#include "publisher.h"

#include "base/thread.h"
#include "delivery/keys.h"
#include "event/envelope.h"

#include <errno.h>
#include <string.h>

#define LANES_KEEP_BUFFERS 8u             /* more partitions than this: buffers are not kept between groups */

/* ---- writing a slot ---- */

size_t ticket_count(const struct slot *slot)
{
	return slot->tickets.len / sizeof(struct ticket);
}

const struct ticket *ticket_at(const struct slot *slot, size_t i)
{
	return (const struct ticket *)(const void *)slot->tickets.data + i;
}

/* Receipts end before the first event that was not committed. A repeat has its first before it, or in the log. */
static void count_durable(struct slot *slot)
{
	size_t count = ticket_count(slot);

	for (slot->durable = 0; slot->durable < count; slot->durable++) {
		const struct ticket *ticket = ticket_at(slot, slot->durable);
		const struct group *group = &slot->groups[ticket->lane];
		if (ticket->kind == TICKET_NEW && !group->durable && ticket->entry >= group->acknowledged)
			return;
	}
}

/* Appends and commits each group. Runs without the mutex: while a slot is under way its groups and the writers are the
 * thread's alone. */
static void write_slot(struct lane *const *lanes, struct slot *slot, const struct waiter *waiter)
{
	slot->code = EVBUS_OK;
	for (uint32_t i = 0; i < slot->group_count && slot->code == EVBUS_OK; i++) {
		struct group *group = &slot->groups[i];
		if (group_count(group) == 0)
			continue;
		group->deadline = slot->deadline;
		lanes[i]->writer->waiter = waiter;
		slot->code = partition_append(lanes[i]->writer, group, slot->expect, &slot->err);
		if (slot->code == EVBUS_OK)
			slot->code = partition_commit(lanes[i]->writer, group, &slot->err);
		group->durable = slot->code == EVBUS_OK;
	}
}

static void *work(void *context)
{
	struct evbus_publisher *publisher = context;

	pthread_mutex_lock(&publisher->mutex);
	while (!publisher->stop) {
		struct slot *slot = publisher->work;
		if (!slot) {
			pthread_cond_wait(&publisher->changed, &publisher->mutex);
			continue;
		}
		struct lane **lanes = publisher->lanes;
		pthread_mutex_unlock(&publisher->mutex);
		write_slot(lanes, slot, &publisher->in_thread);
		pthread_mutex_lock(&publisher->mutex);
		publisher->work = NULL;
		pthread_cond_broadcast(&publisher->changed);
	}
	pthread_mutex_unlock(&publisher->mutex);
	return NULL;
}

/* ---- slots ---- */

static void clear_slot(struct evbus_publisher *publisher, struct slot *slot)
{
	for (uint32_t i = 0; i < slot->group_count; i++) {
		if (publisher->lane_count > LANES_KEEP_BUFFERS)
			group_release(&slot->groups[i]);
		else
			group_clear(&slot->groups[i]);
	}
	slot->tickets.len = slot->firsts.len = slot->first_lines.len = 0;
	slot->bytes = slot->durable = slot->given = 0;
	slot->expect = UINT64_MAX;
	slot->code = EVBUS_OK;
	slot->state = SLOT_FREE;
}

/* What was predicted may have been wrong: others append too. */
static void predict_again(struct evbus_publisher *publisher, const struct slot *done)
{
	struct slot *filling = &publisher->slots[publisher->filling];

	/* Also where nothing was appended: all may have been repeats. */
	for (uint32_t i = 0; i < done->group_count && i < publisher->lane_count; i++) {
		struct lane *lane = publisher->lanes[i];
		uint64_t waiting = i < filling->group_count && filling->state == SLOT_FILLING ?
					   group_count(&filling->groups[i]) :
					   0;
		lane->expected_next = lane->writer->expected_next + waiting;
		if (lane->expected_time_us < lane->writer->expected_time_us)
			lane->expected_time_us = lane->writer->expected_time_us;
	}
}

static void finish(struct evbus_publisher *publisher, struct slot *slot)
{
	slot->state = SLOT_DONE;
	count_durable(slot);
	predict_again(publisher, slot);
	if (slot->code != EVBUS_OK && publisher->failed == EVBUS_OK) {
		publisher->failed = slot->code;
		publisher->failure = slot->err;
	}
}

/* Waits for the thread, with the mutex held, and asks for it whether to go on: who calls us is asked in his own thread. */
static void wait_for_thread(struct evbus_publisher *publisher)
{
	struct timespec until;

	if (!wait_has_end(&publisher->caller) || os.clock_gettime(CLOCK_MONOTONIC, &until)) {
		pthread_cond_wait(&publisher->changed, &publisher->mutex);
		return;
	}
	until.tv_nsec += WAIT_ASK_US * 1000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	if (pthread_cond_timedwait(&publisher->changed, &publisher->mutex, &until) != ETIMEDOUT)
		return;
	pthread_mutex_unlock(&publisher->mutex);
	if (!publisher->caller.go_on(publisher->caller.context))
		atomic_store(&publisher->given_up, true);
	pthread_mutex_lock(&publisher->mutex);
}

void publisher_wait(struct evbus_publisher *publisher)
{
	struct slot *under_way = NULL;

	for (unsigned i = 0; i < SLOTS; i++)
		if (publisher->slots[i].state == SLOT_UNDER_WAY)
			under_way = &publisher->slots[i];
	if (!under_way)
		return;
	pthread_mutex_lock(&publisher->mutex);
	while (publisher->work)
		wait_for_thread(publisher);
	pthread_mutex_unlock(&publisher->mutex);
	finish(publisher, under_way);
}

void publisher_set_deadline(struct evbus_publisher *publisher, const struct deadline *deadline)
{
	publisher_wait(publisher);
	publisher->has_deadline = deadline != NULL;
	if (deadline)
		publisher->deadline = *deadline;
}

static bool thread_goes_on(void *context)
{
	const struct evbus_publisher *publisher = context;

	return !atomic_load(&publisher->given_up);
}

void publisher_set_time(struct evbus_publisher *publisher, int64_t time_us)
{
	publisher->time_us = time_us;
}

void publisher_set_go_on(struct evbus_publisher *publisher, bool (*go_on)(void *context), void *context)
{
	publisher_wait(publisher);
	publisher->caller = (struct waiter){ go_on, context };
	publisher->in_thread = (struct waiter){ go_on ? thread_goes_on : NULL, publisher };
	atomic_store(&publisher->given_up, false);
}

/* Takes the slot that was filled out of the hands of the caller. */
static void close_slot(struct evbus_publisher *publisher, struct slot *slot)
{
	slot->state = SLOT_UNDER_WAY;
	slot->deadline = publisher->has_deadline ? &publisher->deadline : NULL;
}

static enum evbus_code start_thread(struct evbus_publisher *publisher, struct evbus_err *err)
{
	if (!publisher->has_thread)
		publisher->has_thread = thread_start(&publisher->thread, work, publisher);
	return publisher->has_thread ? EVBUS_OK : err_set(err, EVBUS_IO, EAGAIN, "cannot start a thread");
}

enum evbus_code publisher_failure(const struct evbus_publisher *publisher, struct evbus_err *err)
{
	if (err && publisher->failed != EVBUS_OK)
		*err = publisher->failure;
	return publisher->failed;
}

/* The slot behind the one that was filled; its receipts, if nobody took them, are dropped. */
static void next_slot(struct evbus_publisher *publisher)
{
	publisher->filling = (publisher->filling + 1) % SLOTS;
	struct slot *slot = &publisher->slots[publisher->filling];
	if (publisher->giving == publisher->filling && slot->state == SLOT_DONE)
		publisher->giving = (publisher->giving + 1) % SLOTS;
	clear_slot(publisher, slot);
	slot->state = SLOT_FILLING;
}

/* In the calling thread. */
static enum evbus_code write_here(struct evbus_publisher *publisher, struct slot *slot, struct evbus_err *err)
{
	close_slot(publisher, slot);
	if (publisher->options.idempotent)
		publisher_write_once(publisher, slot);
	else
		write_slot(publisher->lanes, slot, &publisher->caller);
	finish(publisher, slot);
	next_slot(publisher);
	return publisher_failure(publisher, err);
}

/* Hands the slot over to the thread. */
enum evbus_code publisher_hand_over(struct evbus_publisher *publisher, struct evbus_err *err)
{
	struct slot *slot = &publisher->slots[publisher->filling];

	publisher_wait(publisher);
	TRY(publisher_failure(publisher, err));
	if (publisher->options.idempotent)
		return write_here(publisher, slot, err);
	TRY(start_thread(publisher, err));
	close_slot(publisher, slot);
	pthread_mutex_lock(&publisher->mutex);
	publisher->work = slot;
	pthread_cond_broadcast(&publisher->changed);
	pthread_mutex_unlock(&publisher->mutex);
	next_slot(publisher);
	return EVBUS_OK;
}

enum evbus_code evbus_publisher_flush(struct evbus_publisher *publisher, struct evbus_err *err)
{
	TRY(bus_check(publisher->bus, err));
	publisher_wait(publisher);
	TRY(publisher_failure(publisher, err));
	struct slot *slot = &publisher->slots[publisher->filling];
	return ticket_count(slot) == 0 ? EVBUS_OK : write_here(publisher, slot, err);
}

/* false: there is none. */
static bool take_receipt(struct evbus_publisher *publisher, const struct slot *slot, size_t i)
{
	const struct ticket *ticket = ticket_at(slot, i);
	bool repeat = ticket->kind != TICKET_NEW && !ticket->own;

	if (ticket->kind == TICKET_TWICE)
		ticket = ticket_at(slot, ticket->entry);
	const struct lane *lane = publisher->lanes[ticket->lane];
	if (ticket->kind == TICKET_NEW)
		group_record(&slot->groups[ticket->lane], ticket->entry, lane->name, lane->writer->partition,
			     &publisher->receipt);
	else if (publisher_first(slot, ticket->entry, lane->name, &publisher->receipt) != EVBUS_OK)
		return false;
	publisher->receipt.offset_kind = lane->topic->ops->offset_kind;
	if (lane->topic->ops->writes_only)
		publisher->receipt.offset = publisher->receipt.members = publisher->receipt.stored =
			(struct evbus_slice){ NULL, 0 };
	publisher->receipt.duplicate = repeat;
	return true;
}

static bool is_busy(struct evbus_publisher *publisher)
{
	pthread_mutex_lock(&publisher->mutex);
	bool busy = publisher->work != NULL;
	pthread_mutex_unlock(&publisher->mutex);
	return busy;
}

const struct evbus_record *evbus_publisher_next(struct evbus_publisher *publisher)
{
	/* In a forked child the mutex may be held for ever by a thread that is not there. */
	if (bus_check(publisher->bus, NULL) != EVBUS_OK)
		return NULL;
	/* Whoever asks while a slot is under way wants to know whether it has arrived. */
	if (publisher->has_thread && !is_busy(publisher))
		publisher_wait(publisher);
	while (publisher->giving != publisher->filling) {
		struct slot *slot = &publisher->slots[publisher->giving];
		if (slot->state != SLOT_DONE)
			return NULL;
		if (slot->given < slot->durable)
			return take_receipt(publisher, slot, slot->given++) ? &publisher->receipt : NULL;
		publisher->giving = (publisher->giving + 1) % SLOTS;
	}
	return NULL;
}

/* ---- open and close ---- */

static void close_publisher(struct evbus_publisher **publisher)
{
	evbus_publisher_close(*publisher);
}

/* A list of pointers, checked and copied; NULL stays NULL. */
static enum evbus_code take_pointers(const char *pointers, char **copy, struct evbus_err *err)
{
	char room[EVBUS_KEY_MAX_BYTES];
	size_t len;

	if (!pointers)
		return EVBUS_OK;
	size_t size = strlen(pointers) + 1;
	*copy = os.realloc(NULL, size);
	if (!*copy)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open a publisher");
	memcpy(*copy, pointers, size);
	return envelope_key_from(SLICE("{}"), *copy, room, &len, err);
}

/* Of what cannot be read nobody knows what is there. */
static enum evbus_code check_target(const struct evbus_publisher *publisher, struct evbus_err *err)
{
	const struct backend_ops *ops = publisher->bus->backend->ops;

	if (ops->writes_only && publisher->options.idempotent)
		return err_set(err, EVBUS_CONFIG, 0,
			       "on the target '%s' nothing can be published idempotently, as it cannot be read: leave "
			       "--idempotent out; by its message_id a consumer knows an event again",
			       ops->scheme);
	if (ops->writes_only && publisher->options.expect_offset)
		return err_set(err, EVBUS_CONFIG, 0, "the target '%s' has no offsets to be expected", ops->scheme);
	if (ops->offset_text && !ops->expects && publisher->options.expect_offset)
		return err_set(err, EVBUS_CONFIG, 0, "the backend '%s' cannot append at an expected offset only",
			       ops->scheme);
	return EVBUS_OK;
}

static enum evbus_code take_options(struct evbus_publisher *publisher, struct evbus_err *err)
{
	const char *expect = publisher->options.expect_offset;

	TRY(check_target(publisher, err));
	publisher->expect = UINT64_MAX;
	if (expect && !decimal_parse((struct evbus_slice){ expect, strlen(expect) }, &publisher->expect))
		return err_set(err, EVBUS_USAGE, 0, "'%s' is not an offset: a number from 0", expect);
	TRY(take_pointers(publisher->options.event_key_from, &publisher->event_key_from, err));
	return take_pointers(publisher->options.key_from, &publisher->key_from, err);
}

/* Waits by the clock that nobody sets. */
static void init_condition(pthread_cond_t *condition)
{
	pthread_condattr_t attributes;

	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(condition, &attributes);
	pthread_condattr_destroy(&attributes);
}

enum evbus_code evbus_publisher_open(struct evbus *bus, const struct evbus_publisher_options *options,
				     struct evbus_publisher **publisher, struct evbus_err *err)
{
	CLEANUP(close_publisher) struct evbus_publisher *opened = NULL;

	TRY(bus_check(bus, err));
	opened = os.realloc(NULL, sizeof *opened);
	if (!opened)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open a publisher");
	*opened = (struct evbus_publisher){ .bus = bus };
	pthread_mutex_init(&opened->mutex, NULL);
	init_condition(&opened->changed);
	if (options)
		opened->options = *options;
	publisher_set_go_on(opened, opened->options.go_on, opened->options.go_on_context);
	for (unsigned i = 0; i < SLOTS; i++)
		clear_slot(opened, &opened->slots[i]);
	opened->slots[0].state = SLOT_FILLING;
	TRY(take_options(opened, err));
	GIVE(publisher, opened);
	return EVBUS_OK;
}

static void stop_thread(struct evbus_publisher *publisher)
{
	/* In a forked child the thread is not there to be joined. */
	if (!publisher->has_thread || bus_check(publisher->bus, NULL) != EVBUS_OK)
		return;
	publisher_wait(publisher);
	pthread_mutex_lock(&publisher->mutex);
	publisher->stop = true;
	pthread_cond_broadcast(&publisher->changed);
	pthread_mutex_unlock(&publisher->mutex);
	pthread_join(publisher->thread, NULL);
}

static void close_topics(struct evbus_publisher *publisher)
{
	/* In a forked child the store is the parent's, and after a failure not all may be as it was seen. */
	bool save = publisher->failed == EVBUS_OK && bus_check(publisher->bus, NULL) == EVBUS_OK;

	for (struct open_topic *at = publisher->topics, *next; at; at = next) {
		next = at->next;
		keys_close(at->keys, save);
		backend_topic_close(&at->topic);
		free(at);
	}
	store_close(publisher->store);
}

void evbus_publisher_close(struct evbus_publisher *publisher)
{
	if (!publisher)
		return;
	stop_thread(publisher);
	for (unsigned i = 0; i < SLOTS; i++) {
		for (uint32_t g = 0; g < publisher->slots[i].group_count; g++)
			group_release(&publisher->slots[i].groups[g]);
		free(publisher->slots[i].groups);
		buf_release(&publisher->slots[i].tickets);
		buf_release(&publisher->slots[i].firsts);
		buf_release(&publisher->slots[i].first_lines);
	}
	for (uint32_t i = 0; i < publisher->lane_count; i++) {
		partition_writer_close(&publisher->lanes[i]->writer);
		free(publisher->lanes[i]);
	}
	free(publisher->lanes);
	close_topics(publisher);
	/* In a forked child, destroying would wait for the thread that waits there and is not. */
	if (bus_check(publisher->bus, NULL) == EVBUS_OK) {
		pthread_mutex_destroy(&publisher->mutex);
		pthread_cond_destroy(&publisher->changed);
	}
	free(publisher->key_from);
	free(publisher->event_key_from);
	free(publisher);
}

/* ---- one event ---- */

enum evbus_code evbus_publish(struct evbus *bus, const char *topic, const char *payload,
			      const struct evbus_record **receipt, struct evbus_err *err)
{
	TRY(bus_check(bus, err));
	if (bus->publisher && bus->publisher->failed != EVBUS_OK) {
		evbus_publisher_close(bus->publisher);
		bus->publisher = NULL;
	}
	if (!bus->publisher)
		TRY(evbus_publisher_open(bus, NULL, &bus->publisher, err));
	bus->event.topic = topic;
	bus->event.payload = (struct evbus_slice){ payload, strlen(payload) };
	TRY(evbus_publisher_add(bus->publisher, &bus->event, err));
	TRY(evbus_publisher_flush(bus->publisher, err));
	const struct evbus_record *given = evbus_publisher_next(bus->publisher);
	if (receipt)
		*receipt = given;
	return EVBUS_OK;
}
