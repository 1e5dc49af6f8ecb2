/* group.c: lines that are appended together. */
#include "log/writer.h"

#include <assert.h>
#include <string.h>

void group_clear(struct group *group)
{
	group->lines.len = 0;
	group->entries.len = 0;
	group->durable = false;
	group->acknowledged = 0;
}

void group_release(struct group *group)
{
	buf_release(&group->lines);
	buf_release(&group->entries);
}

size_t group_count(const struct group *group)
{
	return group->entries.len / sizeof(struct group_entry);
}

const struct group_entry *group_entry(const struct group *group, size_t i)
{
	assert(i < group_count(group));
	return (const struct group_entry *)(const void *)group->entries.data + i;
}

enum evbus_code group_add(struct group *group, const struct line_body *body, uint64_t offset, int64_t time_us,
			  struct evbus_err *err)
{
	struct group_entry entry = { .at = (uint32_t)group->lines.len, .offset = offset, .time_us = time_us,
				     .partition = -1 };

	TRY(buf_reserve(&group->entries, sizeof entry, err));
	enum evbus_code code =
		line_add_near(&group->lines, body, offset, time_us, &group->second, &entry.split, err);
	if (code != EVBUS_OK) {
		group->lines.len = entry.at;
		return code;
	}
	entry.len = (uint32_t)(group->lines.len - entry.at);
	entry.payload_len = (uint32_t)(body->payload.data ? body->payload : body->payload_base64).len;
	return buf_add(&group->entries, &entry, sizeof entry, err);
}

void group_drop(struct group *group, size_t i)
{
	assert(i < group_count(group));
	((struct group_entry *)(void *)group->entries.data)[i].len = 0;
}

void group_squeeze(struct group *group)
{
	struct group_entry *entries = (struct group_entry *)(void *)group->entries.data;
	size_t kept = 0, len = 0;

	for (size_t i = 0; i < group_count(group); i++) {
		struct group_entry entry = entries[i];
		if (!entry.len)
			continue;
		memmove(group->lines.data + len, group->lines.data + entry.at, entry.len);
		entry.at = (uint32_t)len;
		len += entry.len;
		entries[kept++] = entry;
	}
	group->lines.len = len;
	group->entries.len = kept * sizeof *entries;
}

/* What a line that is made again with another offset and a batch has more than it had, at most. */
#define GROWTH_MAX 72u

/* each NULL: offsets from `next` on. Nothing fails once an entry was changed: there is room for all of them, with what the
 * last one wants to spare. */
static enum evbus_code restamp(struct group *group, const uint64_t *each, uint64_t next, int64_t least_us,
			       struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf lines = { 0 };
	size_t count = group_count(group);
	struct group_entry *entries = (struct group_entry *)(void *)group->entries.data;
	bool batch = group->atomic && !each;
	uint64_t first = batch ? next : 1, last = batch ? next + count - 1 : 0;
	int64_t time_us = least_us;

	TRY(buf_reserve(&lines, group->lines.len + count * GROWTH_MAX + 2 * LINE_HEAD_MAX, err));
	for (size_t i = 0; i < count; i++) {
		struct group_entry *entry = &entries[i];
		struct evbus_slice old = { group->lines.data + entry->at, entry->len };
		size_t at = lines.len;
		time_us = entry->time_us > time_us ? entry->time_us : time_us;
		uint64_t offset = each ? each[i] : next + i;
		if (each)
			time_us = entry->time_us;
		TRY(line_readd(&lines, old, &entry->split, offset, time_us, first, last, err));
		entry->at = (uint32_t)at;
		entry->len = (uint32_t)(lines.len - at);
		entry->offset = offset;
		entry->time_us = time_us;
	}
	struct buf swap = group->lines;
	group->lines = lines;
	lines = swap;
	return EVBUS_OK;
}

/* Each line, not only the first: between two events of a group the clock may have gone back, and the prediction may have
 * become another. */
static bool is_stamped_for(const struct group *group, uint64_t next, int64_t least_us)
{
	int64_t last_us = least_us;

	for (size_t i = 0; i < group_count(group); i++) {
		const struct group_entry *entry = group_entry(group, i);
		if (entry->offset != next + i || entry->time_us < last_us)
			return false;
		last_us = entry->time_us;
	}
	return !group->atomic;
}

enum evbus_code group_stamp(struct group *group, uint64_t next, int64_t least_us, struct evbus_err *err)
{
	return is_stamped_for(group, next, least_us) ? EVBUS_OK : restamp(group, NULL, next, least_us, err);
}

static bool is_stamped_each(const struct group *group, const uint64_t *offsets)
{
	for (size_t i = 0; i < group_count(group); i++)
		if (group_entry(group, i)->offset != offsets[i])
			return false;
	return !group->atomic;
}

enum evbus_code group_stamp_each(struct group *group, const uint64_t *offsets, struct evbus_err *err)
{
	return is_stamped_each(group, offsets) ? EVBUS_OK : restamp(group, offsets, 0, 0, err);
}

enum evbus_code group_stamp_places(struct group *group, const struct group_place *places, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf lines = { 0 };
	size_t count = group_count(group);
	struct group_entry *entries = (struct group_entry *)(void *)group->entries.data;

	/* As in restamp(). */
	TRY(buf_reserve(&lines, group->lines.len + count * EVBUS_OFFSET_MAX_BYTES + 2 * LINE_HEAD_MAX, err));
	for (size_t i = 0; i < count; i++) {
		struct group_entry *entry = &entries[i];
		struct evbus_slice old = { group->lines.data + entry->at, entry->len };
		struct evbus_slice offset = { places[i].offset, strlen(places[i].offset) };
		size_t at = lines.len;
		if (offset.len)
			TRY(line_readd_text(&lines, old, &entry->split, offset, entry->time_us, err));
		else
			TRY(buf_add(&lines, old.data, old.len, err));
		entry->at = (uint32_t)at;
		entry->len = (uint32_t)(lines.len - at);
		entry->offset = offset.len ? UINT64_MAX : entry->offset;
		entry->partition = offset.len ? places[i].partition : -1;
	}
	struct buf swap = group->lines;
	group->lines = lines;
	lines = swap;
	return EVBUS_OK;
}

static bool has_passed(clockid_t clock, int64_t time_us)
{
	struct timespec now;

	return os.clock_gettime(clock, &now) || (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000 >= time_us;
}

enum evbus_code group_check_deadline(const struct group *group, const char *name, struct evbus_err *err)
{
	const struct deadline *deadline = group->deadline;

	if (!deadline ||
	    (!has_passed(CLOCK_REALTIME, deadline->utc_us) && !has_passed(CLOCK_BOOTTIME, deadline->boottime_us)))
		return EVBUS_OK;
	return err_set(err, EVBUS_AGAIN, 0, "the lease ran out before '%s' could be appended to", name);
}

void group_record(const struct group *group, size_t i, struct evbus_slice topic, int32_t partition,
		  struct evbus_record *record)
{
	const struct group_entry *entry = group_entry(group, i);
	struct evbus_slice text = { group->lines.data + entry->at, entry->len - 1 };

	line_receipt(text, entry->split, entry->payload_len, topic,
		     entry->partition < 0 ? partition : entry->partition, record);
}
