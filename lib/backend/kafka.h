/* kafka.h: what the files of the backend kafka share: kafka.c (the bus), kafka_client.c (clients of librdkafka and what
 * they say), kafka_topics.c (topics), kafka_read.c and kafka_write.c (partitions).
 *
 * One client of librdkafka asks, one fetches, and one publishes, made when they are needed. A partition is fetched by a
 * client once only, so two readers of one partition have two clients. */
#ifndef EVBUS_BACKEND_KAFKA_H
#define EVBUS_BACKEND_KAFKA_H

#include "backend.h"
#include "backend/url.h"

#include <librdkafka/rdkafka.h>
#include <pthread.h>

struct kafka_reader;
struct producer;

/* A client that asks or fetches. */
struct consumer {
	struct consumer *following;
	rd_kafka_t *handle;
};

struct kafka {
	struct backend base;
	struct url url;
	const char *prefix; /* "", or NAME */
	int timeout_ms;
	int replicas; /* of topics that are made; -1: as the servers have it */
	bool no_create;
	pid_t process;
	rd_kafka_conf_t *conf; /* what clients have in common */
	struct consumer *consumers; /* the first is the one that asks; NULL: it is not ready */
	struct kafka_reader *readers; /* those that fetch */
	pthread_mutex_t mutex; /* of the rest: whoever publishes has a thread */
	struct producer *producer; /* that new writers take; NULL: none, or the last has failed */
	rd_kafka_resp_err_t heard; /* what went wrong last with a connection, */
	char heard_text[320]; /* in librdkafka's words */
};

struct kafka_topic {
	struct backend_topic base;
	struct kafka *kafka;
	char log_id[33];
	char full_name[2 * EVBUS_TOPIC_MAX_BYTES + 2]; /* as Kafka knows it; base.name is the end of it */
};

/* Not in a forked child, where the threads of librdkafka are not: it would wait for them for ever. */
bool kafka_is_here(const struct kafka *kafka);

/* ---- kafka_client.c ---- */

/* Takes the options of the URL, all of them. */
CHECKED enum evbus_code kafka_configure(struct kafka *kafka, struct evbus_err *err);

/* One that publishes. */
CHECKED enum evbus_code kafka_publisher(const struct kafka *kafka,
					void (*report)(rd_kafka_t *, const rd_kafka_message_t *, void *),
					rd_kafka_t **handle, struct evbus_err *err);

/* One more that asks or fetches. */
CHECKED enum evbus_code kafka_consumer(struct kafka *kafka, struct consumer **consumer, struct evbus_err *err);

/* Tells what failed. doing: "read topic 't'", which cannot be done; text: the server's own, or NULL. */
enum evbus_code kafka_failed(struct kafka *kafka, rd_kafka_resp_err_t why, const char *text, struct evbus_err *err,
			     const char *doing, ...) __attribute__((format(printf, 5, 6)));

/* Of a topic, as Kafka knows it, or of all (NULL). *metadata: for rd_kafka_metadata_destroy(). */
CHECKED enum evbus_code kafka_metadata(struct kafka *kafka, const char *full_name,
				       const struct rd_kafka_metadata **metadata, struct evbus_err *err);

/* The offset for a time in ms, or for one of the RD_KAFKA_OFFSET_…; -1: there is none. */
CHECKED enum evbus_code kafka_offset(struct kafka *kafka, const char *full_name, int32_t partition, int64_t time_ms,
				     int64_t *offset, struct evbus_err *err);
/* The same, asked once and of any client. */
rd_kafka_resp_err_t kafka_ask_offset(rd_kafka_t *handle, const char *full_name, int32_t partition, int64_t time_ms,
				     int timeout_ms, int64_t *offset);

/* How large an event may be with its texts; 0: the brokers do not say. */
CHECKED enum evbus_code kafka_message_max(const struct kafka_topic *topic, size_t *max, struct evbus_err *err);

/* ---- struct backend_ops ---- */

enum evbus_code kafka_topic_open(struct backend *backend, const char *name, struct backend_topic **topic,
				 struct evbus_err *err);
enum evbus_code kafka_topic_create(struct backend *backend, const char *name, const struct evbus_topic_options *options,
				   struct backend_topic **topic, bool *created, struct evbus_err *err);
void kafka_topic_close(struct backend_topic *topic);
enum evbus_code kafka_topic_keep(const struct backend_topic *topic, struct evbus_err *err);
enum evbus_code kafka_topic_check(struct backend_topic *topic, const char *doing, struct evbus_err *err);
enum evbus_code kafka_topic_names(struct backend *backend, const char *pattern, char ***names, struct evbus_err *err);

enum evbus_code kafka_reader_open(const struct backend_topic *topic, int32_t partition, size_t chunk, bool ahead,
				  struct partition_reader **reader, struct evbus_err *err);
void kafka_reader_close(struct partition_reader *reader);
enum evbus_code kafka_seek(struct partition_reader *reader, uint64_t position, struct evbus_err *err);
enum evbus_code kafka_seek_time(struct partition_reader *reader, int64_t time_us, struct evbus_err *err);
enum evbus_code kafka_next(struct partition_reader *reader, uint64_t end, struct line *line, bool *got,
			   struct evbus_err *err);
enum evbus_code kafka_refresh(struct partition_reader *reader, struct evbus_err *err);
bool kafka_wait(const struct partition_reader *reader, int timeout_ms);
enum evbus_code kafka_bytes_left(const struct partition_reader *reader, uint64_t *bytes, struct evbus_err *err);
enum evbus_code kafka_describe(struct partition_reader *reader, struct evbus_partition_info *info,
			       struct evbus_err *err);

enum evbus_code kafka_writer_open(const struct backend_topic *topic, int32_t partition, const struct waiter *waiter,
				  struct partition_writer **writer, struct evbus_err *err);
void kafka_writer_close(struct partition_writer *writer);
enum evbus_code kafka_append(struct partition_writer *writer, struct group *group, uint64_t expect,
			     struct evbus_err *err);
enum evbus_code kafka_commit(struct partition_writer *writer, struct group *group, struct evbus_err *err);

/* Ends the producer that new writers would take; those that have it keep it until they are closed. */
void kafka_leave_producer(struct kafka *kafka);

static inline struct kafka *kafka_of(struct backend *backend)
{
	return (struct kafka *)(void *)backend;
}

static inline const struct kafka_topic *kafka_topic_of(const struct backend_topic *topic)
{
	return (const struct kafka_topic *)(const void *)topic;
}

extern const struct backend_ops backend_kafka;

#endif
