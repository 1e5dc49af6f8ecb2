/* transact.c: publishes to Kafka in transactions: transact HOST:PORT TOPIC
 *
 * A line of stdin is a record of partition 0; `commit` and `abort` end the transaction, and the next line begins another
 * one. Answers each line with "ok" when the broker has it. */
#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE_MS 60000

static void must(rd_kafka_error_t *error)
{
	if (!error)
		return;
	printf("error %s\n", rd_kafka_error_string(error));
	exit(1);
}

static void set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char why[256];

	if (rd_kafka_conf_set(conf, name, value, why, sizeof why) != RD_KAFKA_CONF_OK) {
		printf("error %s\n", why);
		exit(1);
	}
}

static void obey(rd_kafka_t *producer, rd_kafka_topic_t *topic, char *line, bool *open)
{
	if (!strcmp(line, "commit") || !strcmp(line, "abort")) {
		must(*line == 'c' ? rd_kafka_commit_transaction(producer, PATIENCE_MS)
				  : rd_kafka_abort_transaction(producer, PATIENCE_MS));
		*open = false;
		return;
	}
	if (!*open)
		must(rd_kafka_begin_transaction(producer));
	*open = true;
	rd_kafka_produce(topic, 0, RD_KAFKA_MSG_F_COPY, line, strlen(line), NULL, 0, NULL);
	rd_kafka_flush(producer, PATIENCE_MS);
}

int main(int argc, char **argv)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char line[4096];
	bool open = false;

	if (argc != 3)
		return 64;
	set(conf, "bootstrap.servers", argv[1]);
	set(conf, "transactional.id", argv[2]);
	rd_kafka_t *producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, line, sizeof line);
	if (!producer)
		return 1;
	must(rd_kafka_init_transactions(producer, PATIENCE_MS));
	rd_kafka_topic_t *topic = rd_kafka_topic_new(producer, argv[2], NULL);
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = '\0';
		obey(producer, topic, line, &open);
		puts("ok");
		fflush(stdout);
	}
	rd_kafka_topic_destroy(topic);
	rd_kafka_destroy(producer);
	return 0;
}
