/* memory.h: what memory.c (the bus, its topics) and memory_ring.c (a partition) share. */
#ifndef EVBUS_BACKEND_MEMORY_H
#define EVBUS_BACKEND_MEMORY_H

#include "backend.h"

#include <pthread.h>

struct place;

/* The lines of a partition. Positions in it only grow; a line stands at its position modulo the size, in one piece:
 * where it would go over the edge, it begins with the next turn. */
struct ring {
	pthread_mutex_t mutex;
	uint32_t word;                   /* of a futex: changes with each group that somebody waits for */
	uint32_t waiting;
	size_t size;
	char *data;                      /* NULL until something is published */
	struct place *places;            /* of the lines, by the last bits of the offset, */
	size_t last_place;               /* which are these */
	uint64_t first, next;            /* offsets */
	uint64_t end;                    /* the position behind the last line, */
	size_t end_index;                /* and where that is in data; its size where the next turn begins */
	uint64_t bytes;                  /* of the lines that are there */
	int64_t time_us;                 /* of the last */
};

struct memory_topic {
	struct backend_topic base;
	struct memory_topic *following;
	char name[EVBUS_TOPIC_MAX_BYTES + 1];
	char log_id[33];
	struct ring rings[];
};

void ring_init(struct ring *ring, size_t size);
void ring_release(struct ring *ring);

/* Those of struct backend_ops. */
enum evbus_code memory_reader_open(const struct backend_topic *topic, int32_t partition, size_t chunk, bool ahead,
				   struct partition_reader **reader, struct evbus_err *err);
void memory_reader_close(struct partition_reader *reader);
enum evbus_code memory_seek(struct partition_reader *reader, uint64_t position, struct evbus_err *err);
enum evbus_code memory_seek_time(struct partition_reader *reader, int64_t time_us, struct evbus_err *err);
enum evbus_code memory_next(struct partition_reader *reader, uint64_t end, struct line *line, bool *got,
			    struct evbus_err *err);
enum evbus_code memory_refresh(struct partition_reader *reader, struct evbus_err *err);
bool memory_wait(const struct partition_reader *reader, int timeout_ms);
enum evbus_code memory_bytes_left(const struct partition_reader *reader, uint64_t *bytes, struct evbus_err *err);
enum evbus_code memory_describe(struct partition_reader *reader, struct evbus_partition_info *info,
				struct evbus_err *err);
enum evbus_code memory_writer_open(const struct backend_topic *topic, int32_t partition, const struct waiter *waiter,
				   struct partition_writer **writer, struct evbus_err *err);
void memory_writer_close(struct partition_writer *writer);
enum evbus_code memory_append(struct partition_writer *writer, struct group *group, uint64_t expect,
			      struct evbus_err *err);
enum evbus_code memory_commit(struct partition_writer *writer, struct group *group, struct evbus_err *err);

#endif
