/* kafka.c: topics on the brokers of Kafka. A module of its own, the only one that knows librdkafka.
 *
 * A topic is a topic of Kafka, a partition its partition, an offset its offset. Nothing is kept at the brokers beside the
 * records: positions are evbus's own checkpoints, and there is no consumer group. */
#include "backend/kafka.h"

#include "base/module.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

bool kafka_is_here(const struct kafka *kafka)
{
	return kafka->process == getpid();
}

static void release(struct kafka *kafka)
{
	if (kafka_is_here(kafka)) {
		kafka_leave_producer(kafka);
		for (struct consumer *at = kafka->consumers, *following; at; at = following) {
			following = at->following;
			rd_kafka_destroy(at->handle);
			free(at);
		}
	}
	if (kafka->conf)
		rd_kafka_conf_destroy(kafka->conf);
	pthread_mutex_destroy(&kafka->mutex);
	url_release(&kafka->url);
	free(kafka);
}

static void kafka_close(struct backend *backend)
{
	release(kafka_of(backend));
}

static enum evbus_code kafka_open(const char *url, const char *rest, const struct backend_options *options,
				  struct backend **backend, struct evbus_err *err)
{
	struct kafka *kafka = os.realloc(NULL, sizeof *kafka);

	(void)rest;
	if (!kafka)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open a bus");
	*kafka = (struct kafka){
		.base = { &backend_kafka },
		.no_create = options->no_create,
		.process = getpid(),
	};
	pthread_mutex_init(&kafka->mutex, NULL);
	enum evbus_code code = url_parse(url, &kafka->url, err);
	if (code == EVBUS_OK)
		code = kafka_configure(kafka, err);
	if (code != EVBUS_OK) {
		release(kafka);
		return code;
	}
	*backend = &kafka->base;
	return EVBUS_OK;
}

static enum evbus_code kafka_ready(struct backend *backend, bool create, struct evbus_err *err)
{
	struct kafka *kafka = kafka_of(backend);
	struct consumer *first;

	(void)create;
	/* It connects when something is asked. */
	return kafka->consumers ? EVBUS_OK : kafka_consumer(kafka, &first, err);
}

const struct backend_ops backend_kafka = {
	.version = BACKEND_VERSION,
	.scheme = "kafka",
	.offset_kind = "kafka_offset",
	.acknowledgement = "written by all in-sync replicas (acks=all); synced only where flush.messages says so",
	.idempotence = "a repeat of what is there is dropped; of two at the same time both may get in",
	.grows = true,
	.open = kafka_open,
	.close = kafka_close,
	.ready = kafka_ready,
	.topic_open = kafka_topic_open,
	.topic_create = kafka_topic_create,
	.topic_close = kafka_topic_close,
	.topic_keep = kafka_topic_keep,
	.topic_check = kafka_topic_check,
	.topic_names = kafka_topic_names,
	.reader_open = kafka_reader_open,
	.reader_close = kafka_reader_close,
	.seek = kafka_seek,
	.seek_time = kafka_seek_time,
	.next = kafka_next,
	.refresh = kafka_refresh,
	.wait = kafka_wait,
	.bytes_left = kafka_bytes_left,
	.describe = kafka_describe,
	.writer_open = kafka_writer_open,
	.writer_close = kafka_writer_close,
	.append = kafka_append,
	.commit = kafka_commit,
};

const struct evbus_module evbus_module = { .abi = EVBUS_MODULE_ABI, .name = "kafka", .ops = &backend_kafka };
