/* kafka_client.c: clients of librdkafka: how they are set up, how they connect, and what they say went wrong.
 *
 * librdkafka goes on trying for ever and tells of failed attempts beside, in callbacks. What it said last is kept, and
 * said where an answer did not come in time. */
#include "backend/kafka.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>

#define TIMEOUT_DEFAULT_MS 10000
#define TIMEOUT_LEAST_MS 10 /* less is refused by librdkafka for some of what it is put into */
#define REPLICAS_MAX 32767u
#define ATTEMPT_MS 250 /* the first time it is asked; each further time twice as long */
#define PAUSE_MS 20

/* ---- options --------------------------------------------------------------------------------------------------- */

/* What our promises stand on: may be said, and not changed. */
static const struct {
	const char *name, *value, *also;
} fixed[] = {
	{ "acks", "all", "-1" },
	{ "request.required.acks", "-1", "all" },
	{ "enable.idempotence", "true", NULL },
	{ "enable.gapless.guarantee", "true", NULL },
	{ "isolation.level", "read_committed", NULL },
	{ "check.crcs", "true", NULL },
	{ "enable.partition.eof", "true", NULL },
	{ "enable.auto.commit", "false", NULL },
	{ "allow.auto.create.topics", "false", NULL },
	{ "auto.offset.reset", "error", NULL },
};

/* What is refused: said elsewhere, of no meaning here, or a way to have code run that somebody puts into a URL. */
static const struct {
	const char *name, *why;
} refused[] = {
	{ "bootstrap.servers", "the servers stand before the '?'" },
	{ "metadata.broker.list", "the servers stand before the '?'" },
	{ "message.timeout.ms", "say timeout=SECONDS" },
	{ "delivery.timeout.ms", "say timeout=SECONDS" },
	{ "transactional.id", "evbus publishes without transactions" },
	{ "plugin.library.paths", "no code is loaded for a URL" },
	{ "ssl.engine.location", "no code is loaded for a URL" },
	{ "sasl.kerberos.kinit.cmd", "no command is run for a URL" },
};

/* What librdkafka would have otherwise: each may be changed. */
static const struct {
	const char *name, *value;
} preset[] = {
	{ "client.id", "evbus" },
	{ "message.max.bytes", "8388608" }, /* it is the topic that says how much it takes */
	{ "queued.max.messages.kbytes", "4096" }, /* of each partition that is read */
	{ "fetch.wait.max.ms", "20" }, /* the end is told by an answer that has nothing in it */
	{ "fetch.error.backoff.ms", "50" },
	{ "reconnect.backoff.max.ms", "1000" },
};

static enum evbus_code set(const struct kafka *kafka, const char *name, const char *value, struct evbus_err *err)
{
	char why[256];

	if (rd_kafka_conf_set(kafka->conf, name, value, why, sizeof why) == RD_KAFKA_CONF_OK)
		return EVBUS_OK;
	return err_set(err, EVBUS_CONFIG, 0, "the bus '%s': %s", kafka->url.shown, why);
}

static enum evbus_code check_option(const struct kafka *kafka, const struct url_option *option, struct evbus_err *err)
{
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
		if (!strcmp(option->name, refused[i].name))
			return err_set(err, EVBUS_CONFIG, 0, "the bus '%s' cannot have the option '%s': %s",
				       kafka->url.shown, option->name, refused[i].why);
	for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
		if (!strcmp(option->name, fixed[i].name) && strcmp(option->value, fixed[i].value) != 0 &&
		    !(fixed[i].also && !strcmp(option->value, fixed[i].also)))
			return err_set(err, EVBUS_CONFIG, 0, "the bus '%s' cannot have %s=%s: it is always %s",
				       kafka->url.shown, option->name, option->value, fixed[i].value);
	return EVBUS_OK;
}

static enum evbus_code set_fixed(const struct kafka *kafka, struct evbus_err *err)
{
	char number[16];

	for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
		TRY(set(kafka, fixed[i].name, fixed[i].value, err));
	for (size_t i = 0; i < sizeof preset / sizeof *preset; i++)
		TRY(set(kafka, preset[i].name, preset[i].value, err));
	TRY(set(kafka, "bootstrap.servers", kafka->url.servers, err));
	snprintf(number, sizeof number, "%d",
		 kafka->timeout_ms > TIMEOUT_LEAST_MS ? kafka->timeout_ms : TIMEOUT_LEAST_MS);
	TRY(set(kafka, "message.timeout.ms", number, err));
	return set(kafka, "socket.timeout.ms", number, err);
}

/* user:password@ is what it is everywhere; how the connection is made is another option. */
static enum evbus_code set_user(const struct kafka *kafka, struct evbus_err *err)
{
	if (!kafka->url.user)
		return EVBUS_OK;
	TRY(set(kafka, "security.protocol", "sasl_plaintext", err));
	TRY(set(kafka, "sasl.mechanism", "PLAIN", err));
	TRY(set(kafka, "sasl.username", kafka->url.user, err));
	return set(kafka, "sasl.password", kafka->url.password ? kafka->url.password : "", err);
}

static enum evbus_code set_properties(struct kafka *kafka, struct evbus_err *err)
{
	char why[256];

	for (size_t i = 0; i < kafka->url.option_count; i++) {
		struct url_option *option = &kafka->url.options[i];
		if (option->taken)
			continue;
		TRY(check_option(kafka, option, err));
		rd_kafka_conf_res_t result =
			rd_kafka_conf_set(kafka->conf, option->name, option->value, why, sizeof why);
		if (result == RD_KAFKA_CONF_INVALID)
			return err_set(err, EVBUS_CONFIG, 0, "the bus '%s': %s", kafka->url.shown, why);
		option->taken = result == RD_KAFKA_CONF_OK;
	}
	return url_done(&kafka->url, "timeout, prefix, replicas, and the properties of librdkafka", err);
}

static enum evbus_code take_options(struct kafka *kafka, struct evbus_err *err)
{
	uint64_t replicas = 0;

	kafka->timeout_ms = TIMEOUT_DEFAULT_MS;
	TRY(url_timeout(&kafka->url, &kafka->timeout_ms, err));
	TRY(url_number(&kafka->url, "replicas", 1, REPLICAS_MAX, &replicas, err));
	kafka->replicas = replicas ? (int)replicas : -1;
	kafka->prefix = url_option(&kafka->url, "prefix");
	if (kafka->prefix && evbus_topic_check(kafka->prefix, false, NULL) != EVBUS_OK)
		return err_set(
			err, EVBUS_CONFIG, 0,
			"the bus '%s': prefix='%s' is not the beginning of a topic: tokens with dots between them",
			kafka->url.shown, kafka->prefix);
	if (!*kafka->url.servers)
		return err_set(err, EVBUS_CONFIG, 0, "the bus '%s' names no server: write kafka://HOST:PORT",
			       kafka->url.shown);
	return EVBUS_OK;
}

/* ---- what clients say ------------------------------------------------------------------------------------------ */

/* Within a call of ours that serves the client, whichever thread makes it. */
static void hear(rd_kafka_t *handle, int why, const char *text, void *opaque)
{
	struct kafka *kafka = opaque;
	char fatal[256];

	if (why == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
		return; /* what came before says more */
	if (why == RD_KAFKA_RESP_ERR__FATAL) {
		why = rd_kafka_fatal_error(handle, fatal, sizeof fatal);
		text = fatal;
	}
	pthread_mutex_lock(&kafka->mutex);
	kafka->heard = why;
	snprintf(kafka->heard_text, sizeof kafka->heard_text, "%s", text);
	/* Which state of its own it was in says nothing to anybody else. */
	char *state = strstr(kafka->heard_text, " (after ");
	if (state)
		*state = '\0';
	pthread_mutex_unlock(&kafka->mutex);
}

/* What is a failure is told by hear(); the rest is for who debugs librdkafka. */
static void ignore(const rd_kafka_t *handle, int level, const char *facility, const char *text)
{
	(void)handle;
	(void)level;
	(void)facility;
	(void)text;
}

enum evbus_code kafka_configure(struct kafka *kafka, struct evbus_err *err)
{
	kafka->conf = rd_kafka_conf_new();
	rd_kafka_conf_set_opaque(kafka->conf, kafka);
	rd_kafka_conf_set_error_cb(kafka->conf, hear);
	rd_kafka_conf_set_log_cb(kafka->conf, ignore);
	TRY(take_options(kafka, err));
	TRY(set_fixed(kafka, err));
	TRY(set_user(kafka, err));
	return set_properties(kafka, err);
}

/* ---- failures -------------------------------------------------------------------------------------------------- */

static enum evbus_code code_of(rd_kafka_resp_err_t why)
{
	switch (why) {
	case RD_KAFKA_RESP_ERR__AUTHENTICATION:
	case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
	case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
	case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
	case RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
		return EVBUS_PERMISSION;
	case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
	case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
	case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
		return EVBUS_NONE;
	case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
	case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
	case RD_KAFKA_RESP_ERR_INVALID_RECORD:
		return EVBUS_DATA;
	case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
	case RD_KAFKA_RESP_ERR_INVALID_PARTITIONS:
	case RD_KAFKA_RESP_ERR_INVALID_REPLICATION_FACTOR:
	case RD_KAFKA_RESP_ERR_INVALID_CONFIG:
	case RD_KAFKA_RESP_ERR_POLICY_VIOLATION:
	case RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE:
	case RD_KAFKA_RESP_ERR__INVALID_ARG:
		return EVBUS_CONFIG;
	default:
		return EVBUS_UNAVAILABLE;
	}
}

/* It is not the answer that was bad: there was none. */
static bool is_silence(rd_kafka_resp_err_t why)
{
	return why == RD_KAFKA_RESP_ERR__TRANSPORT || why == RD_KAFKA_RESP_ERR__TIMED_OUT ||
	       why == RD_KAFKA_RESP_ERR__MSG_TIMED_OUT || why == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN ||
	       why == RD_KAFKA_RESP_ERR__PURGE_QUEUE || why == RD_KAFKA_RESP_ERR__PURGE_INFLIGHT ||
	       why == RD_KAFKA_RESP_ERR__WAIT_COORD || why == RD_KAFKA_RESP_ERR__NODE_UPDATE;
}

/* What another attempt would not mend. */
static bool is_hopeless(rd_kafka_resp_err_t why)
{
	return why == RD_KAFKA_RESP_ERR__AUTHENTICATION || why == RD_KAFKA_RESP_ERR__SSL;
}

enum evbus_code kafka_failed(struct kafka *kafka, rd_kafka_resp_err_t why, const char *text, struct evbus_err *err,
			     const char *doing, ...)
{
	char what[512], heard[sizeof kafka->heard_text];
	va_list args;

	va_start(args, doing);
	vsnprintf(what, sizeof what, doing, args);
	va_end(args);
	pthread_mutex_lock(&kafka->mutex);
	memcpy(heard, kafka->heard_text, sizeof heard);
	rd_kafka_resp_err_t cause = kafka->heard;
	pthread_mutex_unlock(&kafka->mutex);
	if (!is_silence(why))
		return err_set(err, code_of(why), 0, "cannot %s on '%s': %s", what, kafka->url.shown,
			       text && *text ? text : rd_kafka_err2str(why));
	if (is_hopeless(cause))
		return err_set(err, code_of(cause), 0, "cannot %s on '%s': %s", what, kafka->url.shown, heard);
	return err_set(err, EVBUS_UNAVAILABLE, 0, "cannot %s on '%s' within %g s: %s", what, kafka->url.shown,
		       kafka->timeout_ms / 1000.0, *heard ? heard : "it does not answer");
}

/* ---- clients --------------------------------------------------------------------------------------------------- */

/* conf is given away. */
static enum evbus_code make_client(const struct kafka *kafka, rd_kafka_type_t type, rd_kafka_conf_t *conf,
				   rd_kafka_t **handle, struct evbus_err *err)
{
	sigset_t all, before;
	char why[256];

	/* Signals are for the threads of the program. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	*handle = rd_kafka_new(type, conf, why, sizeof why);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (*handle)
		return EVBUS_OK;
	rd_kafka_conf_destroy(conf);
	return err_set(err, EVBUS_CONFIG, 0, "cannot use the bus '%s': %s", kafka->url.shown, why);
}

enum evbus_code kafka_publisher(const struct kafka *kafka,
				void (*report)(rd_kafka_t *, const rd_kafka_message_t *, void *), rd_kafka_t **handle,
				struct evbus_err *err)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_dup(kafka->conf);

	rd_kafka_conf_set_dr_msg_cb(conf, report);
	return make_client(kafka, RD_KAFKA_PRODUCER, conf, handle, err);
}

enum evbus_code kafka_consumer(struct kafka *kafka, struct consumer **consumer, struct evbus_err *err)
{
	struct consumer *made = os.realloc(NULL, sizeof *made);

	if (!made)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open the bus '%s'", kafka->url.shown);
	*made = (struct consumer){ 0 };
	enum evbus_code code =
		make_client(kafka, RD_KAFKA_CONSUMER, rd_kafka_conf_dup(kafka->conf), &made->handle, err);
	if (code != EVBUS_OK) {
		free(made);
		return code;
	}
	/* The first stays the first. */
	struct consumer **at = &kafka->consumers;
	while (*at)
		at = &(*at)->following;
	*at = *consumer = made;
	return EVBUS_OK;
}

/* topic NULL: of all. As long as no broker was reached, librdkafka would not say before the time is up that one refuses us. */
static rd_kafka_resp_err_t ask_metadata(struct kafka *kafka, rd_kafka_topic_t *topic,
					const struct rd_kafka_metadata **metadata)
{
	rd_kafka_t *handle = kafka->consumers->handle;
	int64_t end_us = os_monotonic_us() + (int64_t)kafka->timeout_ms * 1000;

	for (int attempt_ms = ATTEMPT_MS;; attempt_ms *= 2) {
		int64_t left_ms = (end_us - os_monotonic_us()) / 1000;
		if (left_ms <= 0)
			return RD_KAFKA_RESP_ERR__TIMED_OUT;
		rd_kafka_resp_err_t why = rd_kafka_metadata(handle, !topic, topic, metadata,
							    left_ms < attempt_ms ? (int)left_ms : attempt_ms);
		if (!why || !is_silence(why))
			return why;
		rd_kafka_poll(handle, PAUSE_MS);
		pthread_mutex_lock(&kafka->mutex);
		bool hopeless = is_hopeless(kafka->heard);
		pthread_mutex_unlock(&kafka->mutex);
		if (hopeless)
			return why;
	}
}

/* Now that it answers, what was wrong before explains nothing any more. */
static void forget(struct kafka *kafka)
{
	pthread_mutex_lock(&kafka->mutex);
	kafka->heard = RD_KAFKA_RESP_ERR_NO_ERROR;
	kafka->heard_text[0] = '\0';
	pthread_mutex_unlock(&kafka->mutex);
}

enum evbus_code kafka_metadata(struct kafka *kafka, const char *full_name, const struct rd_kafka_metadata **metadata,
			       struct evbus_err *err)
{
	rd_kafka_topic_t *topic = NULL;

	if (full_name && !(topic = rd_kafka_topic_new(kafka->consumers->handle, full_name, NULL)))
		return kafka_failed(kafka, rd_kafka_last_error(), NULL, err, "look for topic '%s'", full_name);
	rd_kafka_resp_err_t why = ask_metadata(kafka, topic, metadata);
	if (topic)
		rd_kafka_topic_destroy(topic);
	if (!why) {
		forget(kafka);
		return EVBUS_OK;
	}
	return full_name ? kafka_failed(kafka, why, NULL, err, "look for topic '%s'", full_name)
			 : kafka_failed(kafka, why, NULL, err, "look for topics");
}

/* Who leads a partition is known to all a while after it was made, or its leader went. */
static bool is_passing(rd_kafka_resp_err_t why)
{
	return why == RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION || why == RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE ||
	       why == RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE || why == RD_KAFKA_RESP_ERR__TRANSPORT;
}

rd_kafka_resp_err_t kafka_ask_offset(rd_kafka_t *handle, const char *full_name, int32_t partition, int64_t time_ms,
				     int timeout_ms, int64_t *offset)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
	rd_kafka_topic_partition_t *asked = rd_kafka_topic_partition_list_add(list, full_name, partition);

	asked->offset = time_ms;
	rd_kafka_resp_err_t why = rd_kafka_offsets_for_times(handle, list, timeout_ms);
	why = why ? why : asked->err;
	*offset = asked->offset;
	rd_kafka_topic_partition_list_destroy(list);
	return why;
}

enum evbus_code kafka_offset(struct kafka *kafka, const char *full_name, int32_t partition, int64_t time_ms,
			     int64_t *offset, struct evbus_err *err)
{
	int64_t end_us = os_monotonic_us() + (int64_t)kafka->timeout_ms * 1000;
	rd_kafka_t *handle = kafka->consumers->handle;

	for (;;) {
		int left_ms = (int)((end_us - os_monotonic_us()) / 1000);
		rd_kafka_resp_err_t why = RD_KAFKA_RESP_ERR__TIMED_OUT;
		if (left_ms > 0)
			why = kafka_ask_offset(handle, full_name, partition, time_ms, left_ms, offset);
		if (!why)
			return EVBUS_OK;
		rd_kafka_poll(handle, is_passing(why) ? PAUSE_MS : 0);
		if (!is_passing(why))
			return kafka_failed(kafka, why, NULL, err, "look for positions in topic '%s'", full_name);
	}
}
