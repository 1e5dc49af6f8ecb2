/* partition.h: which partition a key belongs to: Kafka's default partitioner, so that a key has the same number on
 * every backend. (org.apache.kafka.common.utils.Utils.murmur2 and toPositive.) */
#ifndef EVBUS_EVENT_PARTITION_H
#define EVBUS_EVENT_PARTITION_H

#include <stddef.h>
#include <stdint.h>

uint32_t murmur2(const void *data, size_t len);
int32_t partition_of_key(const void *key, size_t len, uint32_t partitions);

#endif
