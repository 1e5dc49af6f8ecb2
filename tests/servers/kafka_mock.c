/* kafka_mock.c: the mock cluster of librdkafka, one broker in this process. Prints where it listens; a line "NAME N" of
 * stdin makes a topic of N partitions, and is answered with "ok". Ends with its stdin. */
#include <librdkafka/rdkafka.h>
/* */
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>

int main(void)
{
	char why[256], name[256];
	int partitions;
	rd_kafka_t *client = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), why, sizeof why);
	rd_kafka_mock_cluster_t *mock = client ? rd_kafka_mock_cluster_new(client, 1) : NULL;

	if (!mock)
		return 1;
	puts(rd_kafka_mock_cluster_bootstraps(mock));
	fflush(stdout);
	while (scanf("%255s %d", name, &partitions) == 2) {
		puts(rd_kafka_mock_topic_create(mock, name, partitions, 1) ? "error" : "ok");
		fflush(stdout);
	}
	rd_kafka_mock_cluster_destroy(mock);
	rd_kafka_destroy(client);
	return 0;
}
