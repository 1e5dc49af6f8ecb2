/* publisher_once.c: writing a slot idempotently.
 *
 * For each topic in the slot: take its lock, read what is new in it, drop the events that are there already, append and
 * sync the others, let go. The lock is held until the sync, so that a repeat is only ever answered with a first one that
 * is durable. Where there is no lock, a group is appended where it was read to or not at all, and who was overtaken reads
 * on and tries again (delivery/keys.h). It is all done in the calling thread: another one would mostly wait for the same
 * lock. */
#include "publisher.h"

#include "delivery/keys.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define ATTEMPTS_AT_LOCK_MAX 1000    /* with a lock file that somebody keeps removing */
#define ATTEMPTS_AT_END_MAX 200      /* at an end that is refused and yet does not move */

/* The part of a slot that goes to one topic. */
struct part {
	struct evbus_publisher *publisher;
	struct slot *slot;
	struct open_topic *home;
	struct buf names;                 /* of struct key_name, of the events that are not in the log as far as we know */
	struct buf tickets;               /* of size_t: which they are */
	bool overtaken;                   /* somebody else has appended first */
	int32_t overtaken_in;             /* the partition, */
	uint64_t overtaken_at;            /* and the offset that was expected there */
	unsigned refusals;                /* at that offset */
};

static void part_release(struct part *part)
{
	buf_release(&part->names);
	buf_release(&part->tickets);
}

static struct lane *lane_of(const struct part *part, uint32_t i)
{
	struct lane *lane = i < part->publisher->lane_count ? part->publisher->lanes[i] : NULL;

	return lane && i < part->slot->group_count && lane->topic == part->home->topic ? lane : NULL;
}

static struct ticket *ticket_of(struct slot *slot, size_t i)
{
	return (struct ticket *)(void *)slot->tickets.data + i;
}

/* ---- what is there already ---- */

/* The names live until lines are dropped. */
static enum evbus_code collect(struct part *part, struct evbus_err *err)
{
	struct slot *slot = part->slot;
	struct evbus_record record;

	part->names.len = part->tickets.len = 0;
	for (size_t i = 0; i < ticket_count(slot); i++) {
		const struct ticket *ticket = ticket_at(slot, i);
		if (ticket->kind != TICKET_NEW || !lane_of(part, ticket->lane) || slot->groups[ticket->lane].durable)
			continue;
		group_record(&slot->groups[ticket->lane], ticket->entry, (struct evbus_slice){ NULL, 0 }, 0, &record);
		struct key_name name = key_name_of(record.tenant_id, record.event_key);
		TRY(buf_add(&part->names, &name, sizeof name, err));
		TRY(buf_add(&part->tickets, &i, sizeof i, err));
	}
	return EVBUS_OK;
}

static const struct key_name *names_of(const struct part *part)
{
	return (const struct key_name *)(const void *)part->names.data;
}

static struct ticket *wanted(const struct part *part, size_t i)
{
	return ticket_of(part->slot, ((const size_t *)(const void *)part->tickets.data)[i]);
}

/* The line of the first, for its receipt. */
static enum evbus_code on_first(void *context, size_t i, int32_t partition, const struct line *line,
				struct evbus_err *err)
{
	struct part *part = context;
	struct slot *slot = part->slot;
	struct ticket *ticket = wanted(part, i);
	struct first first = { slot->first_lines.len, line->text.len, partition };

	TRY(buf_add(&slot->first_lines, line->text.data, line->text.len, err));
	TRY(buf_add(&slot->firsts, &first, sizeof first, err));
	group_drop(&slot->groups[ticket->lane], ticket->entry);
	ticket->kind = TICKET_IN_LOG;
	ticket->entry = (uint32_t)(slot->firsts.len / sizeof first - 1);
	return EVBUS_OK;
}

static bool is_same(const struct key_name *a, const struct key_name *b)
{
	return a->tenant_id.len == b->tenant_id.len && a->event_key.len == b->event_key.len &&
	       !memcmp(a->event_key.data, b->event_key.data, a->event_key.len) &&
	       (!a->tenant_id.len || !memcmp(a->tenant_id.data, b->tenant_id.data, a->tenant_id.len));
}

/* Events of the slot that repeat one before them in it. */
static enum evbus_code find_twice(struct part *part, struct key_table *table, struct evbus_err *err)
{
	const struct key_name *names = names_of(part);

	for (size_t i = 0; i < part->names.len / sizeof *names; i++) {
		struct ticket *ticket = wanted(part, i);
		if (ticket->kind != TICKET_NEW)
			continue;
		uint64_t hash = key_hash(names[i].tenant_id, names[i].event_key);
		const struct key_slot *hit;
		size_t at = 0;
		while ((hit = key_table_next(table, hash, &at)) && !is_same(&names[hit->offset], &names[i]))
			;
		if (!hit) {
			TRY(key_table_add(table, hash, 0, i, err));
			continue;
		}
		group_drop(&part->slot->groups[ticket->lane], ticket->entry);
		ticket->kind = TICKET_TWICE;
		ticket->entry = (uint32_t)(wanted(part, (size_t)hit->offset) - ticket_of(part->slot, 0));
	}
	return EVBUS_OK;
}

/* Closes the gaps, and counts the lines anew. */
static void squeeze(struct part *part)
{
	struct slot *slot = part->slot;

	for (uint32_t i = 0; i < slot->group_count; i++) {
		struct lane *lane = lane_of(part, i);
		if (!lane || slot->groups[i].durable)
			continue;
		group_squeeze(&slot->groups[i]);
		lane->counted = 0;
	}
	for (size_t i = 0; i < ticket_count(slot); i++) {
		struct ticket *ticket = ticket_of(slot, i);
		struct lane *lane = lane_of(part, ticket->lane);
		if (lane && ticket->kind == TICKET_NEW && !slot->groups[ticket->lane].durable)
			ticket->entry = lane->counted++;
	}
}

static enum evbus_code drop_repeats(struct part *part, struct evbus_err *err)
{
	CLEANUP(key_table_release) struct key_table table = { 0 };

	TRY(collect(part, err));
	/* Should this fail, lines are dropped that have their first; the slot has failed then. */
	TRY(keys_find(part->home->keys, names_of(part), part->names.len / sizeof(struct key_name), on_first, part, err));
	TRY(find_twice(part, &table, err));
	squeeze(part);
	return EVBUS_OK;
}

/* ---- what is new ---- */

/* Notes whether it was because somebody else appended first that a group did not get the offset it had to get. Who was
 * told where to append is refused only if nothing was read behind that. */
static enum evbus_code note_conflict(struct part *part, const struct lane *lane, enum evbus_code code)
{
	uint64_t expected = keys_expected(part->home->keys, lane->writer->partition);

	part->overtaken = code == EVBUS_CONFLICT && expected != UINT64_MAX &&
			  (part->slot->expect == UINT64_MAX || part->slot->expect == expected);
	if (!part->overtaken)
		return code;
	bool same = part->overtaken_in == lane->writer->partition && part->overtaken_at == expected;
	part->refusals = same ? part->refusals + 1 : 0;
	part->overtaken_in = lane->writer->partition;
	part->overtaken_at = expected;
	return code;
}

static enum evbus_code append_and_commit(struct part *part, struct lane *lane, struct group *group,
					 struct evbus_err *err)
{
	uint64_t expect = part->slot->expect;

	if (expect == UINT64_MAX)
		expect = keys_expected(part->home->keys, lane->writer->partition);
	group->deadline = part->slot->deadline;
	group->held = keys_held(part->home->keys);
	enum evbus_code code = partition_append(lane->writer, group, expect, err);
	group->held = NULL;
	TRY(code);
	TRY(partition_commit(lane->writer, group, err));
	return EVBUS_OK;
}

/* The first of the group may be in: they will be found, and are no repeats. */
static void note_own(struct part *part, const struct lane *lane, struct group *group)
{
	for (size_t i = 0; i < ticket_count(part->slot); i++) {
		struct ticket *ticket = ticket_of(part->slot, i);
		if (ticket->kind == TICKET_NEW && ticket->lane == lane->index && ticket->entry < group->acknowledged)
			ticket->own = true;
	}
	group->acknowledged = 0;
}

static enum evbus_code append(struct part *part, struct lane *lane, struct group *group, struct evbus_err *err)
{
	enum evbus_code code = note_conflict(part, lane, append_and_commit(part, lane, group, err));

	if (part->overtaken)
		note_own(part, lane, group);
	TRY(code);
	group->durable = true;
	part->slot->expect = UINT64_MAX;
	return keys_appended(part->home->keys, lane->writer, group, err);
}

static enum evbus_code append_new(struct part *part, struct evbus_err *err)
{
	struct slot *slot = part->slot;

	TRY(drop_repeats(part, err));
	for (uint32_t i = 0; i < slot->group_count; i++) {
		struct lane *lane = lane_of(part, i);
		if (lane && !slot->groups[i].durable && group_count(&slot->groups[i]) > 0)
			TRY(append(part, lane, &slot->groups[i], err));
	}
	return EVBUS_OK;
}

/* ---- one topic, one slot ---- */

static enum evbus_code open_keys(struct evbus_publisher *publisher, struct open_topic *home, struct evbus_err *err)
{
	if (home->failure.code) {
		*err = home->failure;
		return err->code;
	}
	if (!publisher->store && bus_has_store(publisher->bus))
		TRY(bus_open_store(publisher->bus, &publisher->store, err));
	return home->keys ? EVBUS_OK : keys_open(home->topic, publisher->store, &home->keys, err);
}

bool publisher_is_behind(const struct evbus_publisher *publisher, const char *topic)
{
	for (const struct open_topic *home = publisher->topics; home; home = home->next)
		if (!strcmp(home->topic->name, topic))
			return !home->keys || keys_are_behind(home->keys);
	return true;
}

enum evbus_code publisher_catch_up(struct evbus_publisher *publisher, const char *topic, struct evbus_err *err)
{
	struct open_topic *home = NULL;

	enum evbus_code code = publisher_topic(publisher, topic, false, &home, err);
	if (code != EVBUS_OK)
		return code == EVBUS_NONE ? EVBUS_OK : code;
	code = open_keys(publisher, home, &home->failure);
	if (code == EVBUS_OK)
		code = keys_catch_up(home->keys, &home->failure);
	home->failure.code = code;
	return EVBUS_OK;
}

static enum evbus_code enter(struct part *part, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf writers = { 0 };
	struct backend_topic *topic = part->home->topic;

	/* What others have published since may be in partitions that were not there. */
	if (topic->ops->grows)
		TRY(topic->ops->topic_check(topic, "published to", err));
	for (uint32_t i = 0; i < part->publisher->lane_count; i++) {
		struct partition_writer *writer = part->publisher->lanes[i]->writer;
		if (part->publisher->lanes[i]->topic == part->home->topic)
			TRY(buf_add(&writers, &writer, sizeof writer, err));
	}
	return keys_enter(part->home->keys, (struct partition_writer *const *)(void *)writers.data,
			  writers.len / sizeof(struct partition_writer *), &part->publisher->caller, err);
}

static bool has_lines(const struct part *part)
{
	for (uint32_t i = 0; i < part->slot->group_count; i++)
		if (lane_of(part, i) && !part->slot->groups[i].durable && group_count(&part->slot->groups[i]) > 0)
			return true;
	return false;
}

/* After a failure: whether to look and to append again. */
static bool tries_again(const struct part *part, enum evbus_code code, bool held, unsigned attempts)
{
	/* The lock file was removed: somebody else may have got in. */
	if (part->home->keys->log)
		return code == EVBUS_AGAIN && !held && attempts < ATTEMPTS_AT_LOCK_MAX;
	return part->overtaken && part->refusals < ATTEMPTS_AT_END_MAX;
}

/* Before that, of a topic without a lock. */
static enum evbus_code pause_and_ask(const struct part *part, struct wait *wait, struct evbus_err *err)
{
	/* The server may know of something that it does not show yet. */
	if (part->refusals ? wait_a_little(wait) : wait_goes_on(wait))
		return EVBUS_OK;
	return err_set(err, EVBUS_AGAIN, EINTR, "gave up appending to '%s', where others are always faster",
		       part->home->topic->name);
}

static enum evbus_code write_part(struct part *part, struct evbus_err *err)
{
	struct wait wait = { .waiter = &part->publisher->caller };
	struct keys *keys = part->home->keys;

	for (unsigned attempts = 0; has_lines(part); attempts++) {
		TRY(enter(part, err));
		part->overtaken = false;
		enum evbus_code code = append_new(part, err);
		bool held = keys->log && keys_hold(keys);
		keys_leave(keys);
		if (code != EVBUS_OK && !tries_again(part, code, held, attempts))
			return code;
		if (code != EVBUS_OK && !keys->log)
			TRY(pause_and_ask(part, &wait, err));
	}
	return EVBUS_OK;
}

void publisher_write_once(struct evbus_publisher *publisher, struct slot *slot)
{
	slot->code = EVBUS_OK;
	for (struct open_topic *home = publisher->topics; home && slot->code == EVBUS_OK; home = home->next) {
		CLEANUP(part_release) struct part part = { .publisher = publisher, .slot = slot, .home = home };
		if (!has_lines(&part))
			continue;
		slot->code = open_keys(publisher, home, &slot->err);
		if (slot->code == EVBUS_OK)
			slot->code = write_part(&part, &slot->err);
	}
	/* Nothing was appended that had to get it: the next one has to. */
	if (slot->code == EVBUS_OK)
		publisher->expect = slot->expect;
}

/* ---- receipts ---- */

enum evbus_code publisher_first(const struct slot *slot, uint32_t entry, struct evbus_slice topic,
				struct evbus_record *record)
{
	const struct first *first = (const struct first *)(const void *)slot->firsts.data + entry;
	struct line line;

	assert(entry < slot->firsts.len / sizeof *first);
	if (line_parse_text((struct evbus_slice){ slot->first_lines.data + first->at, first->len }, 0, &line))
		return EVBUS_BUG;
	line_to_record(&line, topic, first->partition, record);
	return EVBUS_OK;
}
