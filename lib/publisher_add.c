/* publisher_add.c: taking an event: is it one, where does it go, how does it lie there. */
#include "config.h"
#include "publisher.h"

#include "event/envelope.h"

#include <errno.h>
#include <string.h>

#define SLOT_BYTES (1024u * 1024)         /* a slot that has so much is written */
#define ATOMIC_MAX_BYTES UNSYNCED_MAX_BYTES
#define ORIGIN_MAX_BYTES (EVBUS_TOPIC_MAX_BYTES + EVBUS_OFFSET_MAX_BYTES + 16u)
#define BATCH_MEMBER_BYTES 64u            /* what "batch" adds to a line, at most */

/* ---- topics and lanes ---- */

enum evbus_code publisher_topic(struct evbus_publisher *publisher, const char *name, bool create,
				struct open_topic **topic, struct evbus_err *err)
{
	struct evbus *bus = publisher->bus;
	bool created;

	for (struct open_topic **at = &publisher->topics, *hit; (hit = *at); at = &hit->next) {
		if (strcmp(hit->topic->name, name) != 0)
			continue;
		/* To the front: the next event is probably for the same one. */
		*at = hit->next;
		hit->next = publisher->topics;
		publisher->topics = hit;
		*topic = hit;
		return EVBUS_OK;
	}
	TRY(evbus_topic_check(name, false, err));
	TRY(bus_reach(bus, true, err));
	CLEANUP(free_cleanup) struct open_topic *opened = os.realloc(NULL, sizeof *opened);
	if (!opened)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open topic '%s'", name);
	const struct backend_ops *ops = bus->backend->ops;
	enum evbus_code code = ops->topic_open(bus->backend, name, &opened->topic, err);
	if (code == EVBUS_NONE && create && !bus->options.no_create)
		code = ops->topic_create(bus->backend, name, NULL, &opened->topic, &created, err);
	TRY(code);
	opened->keys = NULL;
	opened->failure.code = EVBUS_OK;
	opened->next = publisher->topics;
	*topic = opened;
	GIVE(&publisher->topics, opened);
	return EVBUS_OK;
}

static uint32_t bucket_of(const struct backend_topic *topic, int32_t partition)
{
	return ((uint32_t)((uintptr_t)topic >> 6) * 31u + (uint32_t)partition) % LANE_BUCKETS;
}

/* The thread reads the array of lanes while it works: it is grown only when nothing is under way. */
static enum evbus_code keep_lane(struct evbus_publisher *publisher, struct lane *lane, uint32_t bucket,
				 struct evbus_err *err)
{
	if (publisher->lane_count == publisher->lane_size) {
		publisher_wait(publisher);
		TRY(publisher_failure(publisher, err));
		uint32_t size = publisher->lane_size ? publisher->lane_size * 2 : 8;
		struct lane **lanes = os.realloc(publisher->lanes, size * sizeof(*lanes));
		if (!lanes)
			return err_set(err, EVBUS_IO, ENOMEM, "cannot open topic '%s'", lane->topic->name);
		publisher->lanes = lanes;
		publisher->lane_size = size;
	}
	lane->index = publisher->lane_count;
	lane->next = publisher->buckets[bucket];
	publisher->buckets[bucket] = lane;
	publisher->lanes[publisher->lane_count++] = lane;
	return EVBUS_OK;
}

static enum evbus_code find_lane(struct evbus_publisher *publisher, struct backend_topic *topic, int32_t partition,
				 struct lane **found, struct evbus_err *err)
{
	uint32_t bucket = bucket_of(topic, partition);

	for (struct lane *at = publisher->buckets[bucket]; at; at = at->next) {
		if (at->topic == topic && at->writer->partition == partition) {
			*found = at;
			return EVBUS_OK;
		}
	}
	CLEANUP(free_cleanup) struct lane *lane = os.realloc(NULL, sizeof *lane);
	if (!lane)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open topic '%s'", topic->name);
	*lane = (struct lane){ .topic = topic, .name = { topic->name, strlen(topic->name) } };
	TRY(topic->ops->writer_open(topic, partition, &publisher->caller, &lane->writer, err));
	lane->expected_next = lane->writer->expected_next;
	lane->expected_time_us = lane->writer->expected_time_us;
	enum evbus_code code = keep_lane(publisher, lane, bucket, err);
	if (code != EVBUS_OK) {
		partition_writer_close(&lane->writer);
		return code;
	}
	GIVE(found, lane);
	return EVBUS_OK;
}

/* The group of a lane in a slot. */
static enum evbus_code find_group(struct slot *slot, uint32_t index, struct group **group, struct evbus_err *err)
{
	if (index >= slot->group_count) {
		/* No more than there are lanes: each group is looked at whenever a slot is written. */
		uint32_t count = index + 1;
		struct group *groups = os.realloc(slot->groups, count * sizeof(*groups));
		if (!groups)
			return err_set(err, EVBUS_IO, ENOMEM, "cannot take an event");
		memset(groups + slot->group_count, 0, (count - slot->group_count) * sizeof(*groups));
		slot->groups = groups;
		slot->group_count = count;
	}
	*group = &slot->groups[index];
	return EVBUS_OK;
}

/* ---- add ---- */

static enum evbus_code check_size(const struct evbus_publisher *publisher, size_t len, struct evbus_err *err)
{
	if (len <= bus_payload_max(publisher->bus))
		return EVBUS_OK;
	return err_set(err, EVBUS_DATA, 0, "the event has %zu bytes, and %u is the most", len,
		       bus_payload_max(publisher->bus));
}

/* A log of ours holds nothing that is no JSON object; on a server it may stand, for others put it there as well. */
static enum evbus_code check_base64(const struct evbus_publisher *publisher, struct evbus_slice base64,
				    struct evbus_err *err)
{
	const struct backend_ops *ops = publisher->bus->backend->ops;
	size_t len = evbus_base64_decode(base64, NULL);

	if (len == SIZE_MAX)
		return err_set(err, EVBUS_DATA, 0, "the event's payload_base64 is no base64");
	if (ops->keeps_lines)
		return err_set(err, EVBUS_DATA, 0,
			       "the event is not one JSON object (it has payload_base64), and a bus of the backend '%s' "
			       "takes no other",
			       ops->scheme);
	return check_size(publisher, len, err);
}

static enum evbus_code check_payload(const struct evbus_publisher *publisher, struct evbus_slice payload,
				     struct evbus_err *err)
{
	struct json_fault fault;

	TRY(check_size(publisher, payload.len, err));
	if (json_scan_line(payload, &fault))
		return EVBUS_OK;
	err_set(err, EVBUS_DATA, 0, "the event is not one JSON object: %s at byte %zu", fault.reason, fault.at + 1);
	if (err)
		err->column = (uint32_t)fault.at + 1;
	return EVBUS_DATA;
}

/* A member that was asked for must be there; where a partitioning of the configuration asks, a topic with one partition
 * can do without. */
static enum evbus_code key_from_payload(const struct evbus_publisher *publisher, const struct evbus_event *event,
					char room[EVBUS_KEY_MAX_BYTES], struct evbus_slice *key, struct evbus_err *err)
{
	const char *pointers = publisher->key_from;
	size_t len;

	if (!pointers && event->partition_id == EVBUS_PARTITION_ANY)
		pointers = config_key_from(publisher->bus->options.config, event->topic);
	if (!pointers)
		return EVBUS_OK;
	TRY(envelope_key_from(event->payload, pointers, room, &len, err));
	if (len == SIZE_MAX && publisher->key_from)
		return err_set(err, EVBUS_DATA, 0, "the event has none of the members '%s' that give its key", pointers);
	if (len != SIZE_MAX)
		*key = (struct evbus_slice){ room, len };
	return EVBUS_OK;
}

static enum evbus_code choose_key(const struct evbus_publisher *publisher, const struct evbus_event *event,
				  char room[EVBUS_KEY_MAX_BYTES], struct evbus_slice *key, struct evbus_err *err)
{
	*key = event->key;
	if (!key->data)
		TRY(key_from_payload(publisher, event, room, key, err));
	if (key->data && key->len > EVBUS_KEY_MAX_BYTES)
		return err_set(err, EVBUS_DATA, 0, "the partition key has %zu bytes, and %u is the most", key->len,
			       EVBUS_KEY_MAX_BYTES);
	if (key->data && !utf8_valid(*key))
		return err_set(err, EVBUS_DATA, 0, "the partition key is not valid UTF-8");
	if (event->origin.data && (event->origin.len > ORIGIN_MAX_BYTES || !utf8_valid(event->origin)))
		return err_set(err, EVBUS_DATA, 0, "the origin is not TOPIC/PARTITION/OFFSET");
	return EVBUS_OK;
}

/* An atomic batch is one write to one partition, and an expected offset is in one. */
static enum evbus_code check_one_partition(const struct slot *slot, const struct lane *lane, struct evbus_err *err)
{
	if (ticket_count(slot) == 0 || ticket_at(slot, 0)->lane == lane->index)
		return EVBUS_OK;
	return err_set(err, EVBUS_USAGE, 0,
		       "an atomic batch, or one with an expected offset, goes to one partition, and this one to several");
}

static enum evbus_code check_atomic_size(const struct slot *slot, size_t more, struct evbus_err *err)
{
	size_t count = ticket_count(slot);

	if (slot->bytes + more + (count + 1) * BATCH_MEMBER_BYTES > ATOMIC_MAX_BYTES)
		return err_set(err, EVBUS_DATA, 0, "the atomic batch has more than %u bytes", ATOMIC_MAX_BYTES);
	return EVBUS_OK;
}

/* What the line will have at most beside the payload. */
static size_t line_room(const struct line_body *body)
{
	size_t texts = body->key.len + body->origin.len + body->tenant_id.len + body->event_key.len;

	return body->payload.len + body->payload_base64.len + LINE_HEAD_MAX + 6 * texts + 128;
}

/* Here and not when it is sent, where it would be a failure of all that is sent with it. */
static enum evbus_code check_message(const struct lane *lane, const struct line_body *body, struct evbus_err *err)
{
	size_t max = lane->writer->message_max_bytes, len = body->payload.len + body->payload_base64.len / 4 * 3;
	size_t texts = body->key.len + body->origin.len + body->tenant_id.len + body->event_key.len;

	if (!max || len + 3 * texts <= max)
		return EVBUS_OK;
	return err_set(err, EVBUS_DATA, 0,
		       "the event has %zu bytes, and the servers of topic '%s' take %zu with its key and ids", len,
		       lane->topic->name, max);
}

static enum evbus_code encode(struct evbus_publisher *publisher, struct lane *lane, const struct line_body *body,
			      struct evbus_err *err)
{
	struct slot *slot = &publisher->slots[publisher->filling];
	struct group *group = NULL;
	int64_t now = publisher->time_us ? publisher->time_us : os_now_us();

	TRY(find_group(slot, lane->index, &group, err));
	struct ticket ticket = { lane->index, (uint32_t)group_count(group), TICKET_NEW, false };
	TRY(buf_reserve(&slot->tickets, sizeof ticket, err));
	if (now < lane->expected_time_us && now + 60000000 > lane->expected_time_us)
		now = lane->expected_time_us;
	size_t before = group->lines.len;
	group->atomic = publisher->options.atomic;
	TRY(group_add(group, body, lane->expected_next, now, err));
	lane->expected_next++;
	lane->expected_time_us = now > lane->expected_time_us ? now : lane->expected_time_us;
	slot->bytes += group->lines.len - before;
	if (ticket_count(slot) == 0) {
		slot->expect = publisher->expect;
		publisher->expect = UINT64_MAX;
	}
	return buf_add(&slot->tickets, &ticket, sizeof ticket, err);
}

/* Makes room in the slot, or begins the next one. */
static enum evbus_code make_room(struct evbus_publisher *publisher, const struct lane *lane, size_t more,
				 struct evbus_err *err)
{
	struct slot *slot = &publisher->slots[publisher->filling];
	/* A group is one write, and a segment is rolled before one that would make it too large. */
	uint64_t segment = lane->topic->segment_max_bytes;
	size_t most = segment < SLOT_BYTES ? (size_t)segment : SLOT_BYTES;

	if (publisher->options.atomic || publisher->options.expect_offset)
		TRY(check_one_partition(slot, lane, err));
	if (publisher->options.atomic)
		return check_atomic_size(slot, more, err);
	return slot->bytes && slot->bytes + more > most ? publisher_hand_over(publisher, err) : EVBUS_OK;
}

/* On a target the key is for whoever consumes there, who may get an event twice. */
static bool is_named(const struct evbus_publisher *publisher, const struct evbus_event *event)
{
	return publisher->bus->backend->ops->writes_only && event->event_key.data;
}

static enum evbus_code add(struct evbus_publisher *publisher, const struct evbus_event *event, struct evbus_err *err)
{
	static const struct evbus_slice absent = { NULL, 0 };
	bool raw = !event->payload.data && event->payload_base64.data;
	struct line_body body;
	char room[EVBUS_KEY_MAX_BYTES];
	struct identity identity;
	struct open_topic *home = NULL;
	struct lane *lane = NULL;
	int32_t partition = event->partition_id;

	/* One by one: all at once would be cleared before, which takes longer. */
	body.key = body.payload_base64 = body.tenant_id = body.event_key = body.offset_text = absent;
	body.origin = event->origin;
	body.returns = event->returns;
	body.payload = event->payload;
	TRY(bus_check(publisher->bus, err));
	TRY(publisher_failure(publisher, err));
	TRY(raw ? check_base64(publisher, event->payload_base64, err) : check_payload(publisher, event->payload, err));
	if (raw)
		body.payload_base64 = event->payload_base64;
	TRY(choose_key(publisher, event, room, &body.key, err));
	if (publisher->options.idempotent || is_named(publisher, event)) {
		TRY(publisher_identify(publisher, event, &identity, err));
		body.tenant_id = identity.tenant_id;
		body.event_key = identity.event_key;
	}
	TRY(publisher_topic(publisher, event->topic, true, &home, err));
	if (partition < 0)
		TRY(partition_of(home->topic, body.key, &partition, err));
	TRY(find_lane(publisher, home->topic, partition, &lane, err));
	TRY(check_message(lane, &body, err));
	TRY(make_room(publisher, lane, line_room(&body), err));
	return encode(publisher, lane, &body, err);
}

/* What was added before could not be written: that is no refusal of this event, and bears no code of one. */
enum evbus_code evbus_publisher_add(struct evbus_publisher *publisher, const struct evbus_event *event,
				    struct evbus_err *err)
{
	enum evbus_code code = add(publisher, event, err);

	if (!publisher->failed || (code != EVBUS_DATA && code != EVBUS_USAGE && code != EVBUS_NONE))
		return code;
	if (err)
		err->code = EVBUS_CONFLICT;
	return EVBUS_CONFLICT;
}
