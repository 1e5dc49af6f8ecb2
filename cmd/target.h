/* target.h: where records are published again: to a topic, or to another bus, where each keeps its topic and its
 * partition. */
#ifndef TARGET_H
#define TARGET_H

#include "cmd.h"
#include "record.h"

struct target {
	/* For target_open() to be told; the texts live as long. */
	struct call *call;
	const char *url; /* of the bus */
	const char *topic; /* NULL: each keeps its own */
	int32_t partition; /* or EVBUS_PARTITION_ANY */
	const char *key, *key_from; /* NULL: the record's own */
	bool quiet; /* no receipts */
	bool skips; /* what is refused is to be told by `refused`, and others are published behind it */

	char name[MASKED_MAX_BYTES]; /* the URL, as it may be shown */
	struct evbus *bus;
	struct evbus_publisher *publisher; /* NULL: it is not open */
	bool keeps_partition;
	bool one_by_one; /* the bus refuses only when it gets something: each is waited for, to know which one it was */
	bool refused; /* what failed last is that record's own fault, and another may be taken */
	char topic_text[EVBUS_TOPIC_MAX_BYTES + 1];
	char key_text[EVBUS_KEY_MAX_BYTES];
	char origin_text[ORIGIN_MAX_BYTES];
};

/* Where each keeps its topic, those of the source that match are made as they are there. source_url: for messages. */
CHECKED enum evbus_code target_open(struct target *target, struct evbus *source, const char *source_url,
				    const char *pattern);
void target_close(struct target *target);

/* Publishes the record again, and prints what receipts there are. */
CHECKED enum evbus_code target_publish(struct target *target, const struct evbus_record *record);

/* All that was published is durable, and has its receipt. */
CHECKED enum evbus_code target_flush(struct target *target);

#endif
