/* partitions.c: what the calls on partitions do for a backend whose partitions and offsets are numbers from 0 on. */
#include "backend.h"

#include "event/partition.h"
#include "log/line.h"

#include <stdio.h>
#include <string.h>

bool topic_has_partition(const struct backend_topic *topic, int32_t number)
{
	uint32_t low = 0, high = topic->partitions;

	if (!topic->list)
		return number >= 0 && (uint32_t)number < topic->partitions;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (topic->list[middle].number < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low < topic->partitions && topic->list[low].number == number;
}

enum evbus_code topic_no_partition(const struct backend_topic *topic, int32_t number, struct evbus_err *why)
{
	if (!topic->list || !topic->partitions)
		return err_set(why, EVBUS_NONE, 0, "topic '%s' has no partition %d: it has %u, counted from 0",
			       topic->name, number, topic->partitions);
	int32_t last = topic->list[topic->partitions - 1].number;
	return err_set(why, EVBUS_NONE, 0, "topic '%s' has no partition %d%s: it has %u, with numbers from %d to %d",
		       topic->name, number,
		       number >= 0 && number < last ? " (any more: what was split or merged goes one day)" : "",
		       topic->partitions, topic->list[0].number, last);
}

enum evbus_code partition_offset_text(const struct partition_reader *reader, uint64_t position,
				      char text[EVBUS_OFFSET_MAX_BYTES + 1], struct evbus_err *err)
{
	if (reader->ops->offset_text)
		return reader->ops->offset_text(reader, position, text, err);
	text[decimal_format(position, text)] = '\0';
	return EVBUS_OK;
}

static bool is_digits(struct evbus_slice text)
{
	size_t i = 0;

	while (i < text.len && text.data[i] >= '0' && text.data[i] <= '9')
		i++;
	return i == text.len;
}

enum evbus_code partition_offset_find(struct partition_reader *reader, struct evbus_slice text, uint64_t *position,
				      struct evbus_err *err)
{
	if (text.len && text.len <= EVBUS_OFFSET_MAX_BYTES && reader->ops->offset_find && is_digits(text))
		return reader->ops->offset_find(reader, text, position, err);
	if (!reader->ops->offset_find && decimal_parse(text, position))
		return EVBUS_OK;
	return err_set(err, EVBUS_DATA, 0, "'%.*s' is not an offset", (int)(text.len < 200 ? text.len : 200),
		       text.data);
}

enum evbus_code partition_of(const struct backend_topic *topic, struct evbus_slice key, int32_t *partition,
			     struct evbus_err *err)
{
	if (topic->ops->partition_of)
		return topic->ops->partition_of(topic, key, partition, err);
	uint32_t among = topic->keys_among ? topic->keys_among : topic->partitions;
	if (!key.data && among > 1)
		return err_set(
			err, EVBUS_USAGE, 0,
			"topic '%s' has %u partitions: choose one by its number or by a key (--partition, --key, "
			"--key-from)",
			topic->name, among);
	*partition = key.data ? partition_of_key(key.data, key.len, among) : 0;
	return EVBUS_OK;
}
