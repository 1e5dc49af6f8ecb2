/* kinesis.c: topics as streams of Amazon Kinesis, and of what speaks like it: the bus.
 *
 * A partition is a shard, and its number that of the shard's name. An offset is the sequence number itself. Every request is
 * one of its own, so there is nothing to be connected to: whether the service is there shows with the first. */
#include "backend/kinesis.h"

#include "base/module.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#define TIMEOUT_DEFAULT_MS 10000
#define PREFIX_MAX_BYTES 64u
#define REGION_MAX_BYTES 64u

bool kinesis_is_here(const struct kinesis *kinesis)
{
	return kinesis->process == getpid();
}

/* ---- options --------------------------------------------------------------------------------------------------- */

static bool is_word(const char *text, size_t max)
{
	size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");

	return len && !text[len] && len <= max;
}

static enum evbus_code no_memory(const struct kinesis *kinesis, struct evbus_err *err)
{
	return err_set(err, EVBUS_IO, ENOMEM, "cannot open the bus '%s'", kinesis->url.shown);
}

static enum evbus_code take_region(struct kinesis *kinesis, struct evbus_err *err)
{
	const char *region = *kinesis->url.servers ? kinesis->url.servers : kinesis->who.region;

	if (!region)
		return err_set(err, EVBUS_CONFIG, 0,
			       "the bus '%s' says no region: write kinesis://REGION, or set AWS_REGION",
			       kinesis->url.shown);
	if (!is_word(region, REGION_MAX_BYTES))
		return err_set(err, EVBUS_CONFIG, 0, "the bus '%s': '%s' is not a region, such as eu-central-1",
			       kinesis->url.shown, region);
	kinesis->region = strdup(region);
	return kinesis->region ? EVBUS_OK : no_memory(kinesis, err);
}

static enum evbus_code take_endpoint(struct kinesis *kinesis, struct evbus_err *err)
{
	const char *given = url_option(&kinesis->url, "endpoint"), *region = kinesis->region;
	CLEANUP(buf_release) struct buf text = { 0 };

	if (given) {
		bool known = !strncmp(given, "http://", 7) || !strncmp(given, "https://", 8);
		size_t len = strlen(given);
		const char *host = known ? strstr(given, "://") + 3 : given;
		len -= known && given[len - 1] == '/';
		if (!known || strcspn(host, "/?#@ ") < len - (size_t)(host - given) || !*host)
			return err_set(err, EVBUS_CONFIG, 0,
				       "the bus '%s': endpoint= is http://HOST:PORT or https://HOST:PORT",
				       kinesis->url.shown);
		TRY(json_put(&text, err, "%.*s", (int)len, given));
	} else
		TRY(json_put(&text, err, "https://kinesis.%s.amazonaws.com%s", region,
			     strncmp(region, "cn-", 3) != 0 ? "" : ".cn"));
	kinesis->endpoint = strdup(text.data);
	return kinesis->endpoint ? EVBUS_OK : no_memory(kinesis, err);
}

static enum evbus_code take_options(struct kinesis *kinesis, struct evbus_err *err)
{
	const char *prefix = url_option(&kinesis->url, "prefix");

	if (kinesis->url.user)
		return err_set(err, EVBUS_CONFIG, 0,
			       "the bus '%s': no key stands in the URL: say who you are as AWS programs have it, with "
			       "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
			       kinesis->url.shown);
	TRY(url_timeout(&kinesis->url, &kinesis->timeout_ms, err));
	if (prefix && !is_word(prefix, PREFIX_MAX_BYTES))
		return err_set(err, EVBUS_CONFIG, 0,
			       "the bus '%s': prefix='%s' is not a word of at most %u letters, digits, '_' and '-'",
			       kinesis->url.shown, prefix, PREFIX_MAX_BYTES);
	kinesis->prefix = prefix ? prefix : "";
	kinesis->tls_ca = url_option(&kinesis->url, "tls_ca");
	const char *expired = url_option(&kinesis->url, "expired");
	kinesis->pass_expired = expired && !strcmp(expired, "pass");
	if (expired && !kinesis->pass_expired && strcmp(expired, "fail") != 0)
		return err_set(err, EVBUS_CONFIG, 0, "the bus '%s': expired= is fail or pass", kinesis->url.shown);
	TRY(take_region(kinesis, err));
	TRY(take_endpoint(kinesis, err));
	return url_done(&kinesis->url, "endpoint, expired, prefix, timeout and tls_ca", err);
}

/* ---- the bus --------------------------------------------------------------------------------------------------- */

static void kinesis_close(struct backend *backend)
{
	struct kinesis *kinesis = kinesis_of(backend);

	link_close(kinesis->link);
	if (kinesis_is_here(kinesis))
		pthread_mutex_destroy(&kinesis->mutex);
	who_release(&kinesis->who);
	free(kinesis->endpoint);
	free(kinesis->region);
	url_release(&kinesis->url);
	free(kinesis);
}

static void close_cleanup(struct kinesis **kinesis)
{
	if (*kinesis)
		kinesis_close(&(*kinesis)->base);
}

static enum evbus_code kinesis_open(const char *url, const char *rest, const struct backend_options *options,
				    struct backend **backend, struct evbus_err *err)
{
	CLEANUP(close_cleanup) struct kinesis *kinesis = os.realloc(NULL, sizeof *kinesis);

	(void)rest;
	if (!kinesis)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open a bus");
	*kinesis = (struct kinesis){
		.base = { &backend_kinesis },
		.notice = options->notice,
		.notice_context = options->notice_context,
		.no_create = options->no_create,
		.process = getpid(),
		.timeout_ms = TIMEOUT_DEFAULT_MS,
	};
	pthread_mutex_init(&kinesis->mutex, NULL);
	TRY(url_parse(url, &kinesis->url, err));
	TRY(who_find(&kinesis->who, err));
	TRY(take_options(kinesis, err));
	*backend = &kinesis->base;
	kinesis = NULL;
	return EVBUS_OK;
}

static enum evbus_code kinesis_ready(struct backend *backend, bool create, struct evbus_err *err)
{
	struct kinesis *kinesis = kinesis_of(backend);

	(void)create;
	if (kinesis->link)
		return EVBUS_OK;
	if (!kinesis->who.key_id)
		return err_set(
			err, EVBUS_PERMISSION, 0,
			"the bus '%s' needs credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a "
			"profile of ~/.aws/credentials with AWS_PROFILE",
			kinesis->url.shown);
	if (curl_global_init(CURL_GLOBAL_DEFAULT))
		return no_memory(kinesis, err);
	return link_open(kinesis, &kinesis->link, err);
}

const struct backend_ops backend_kinesis = {
	.version = BACKEND_VERSION,
	.scheme = "kinesis",
	.offset_kind = "kinesis_sequence",
	.acknowledgement = "stored by the service in three places, and kept as long as the stream keeps its records",
	.idempotence =
		"what was there when it was looked is not appended again: of two who publish the same at the same time "
		"both may",
	.grows = true,
	.open = kinesis_open,
	.close = kinesis_close,
	.ready = kinesis_ready,
	.topic_open = kinesis_topic_open,
	.topic_create = kinesis_topic_create,
	.topic_close = kinesis_topic_close,
	.topic_keep = kinesis_topic_keep,
	.topic_check = kinesis_topic_check,
	.topic_names = kinesis_topic_names,
	.reader_open = kinesis_reader_open,
	.reader_close = kinesis_reader_close,
	.seek = kinesis_seek,
	.seek_time = kinesis_seek_time,
	.next = kinesis_next,
	.refresh = kinesis_refresh,
	.wait = kinesis_wait,
	.bytes_left = kinesis_bytes_left,
	.describe = kinesis_describe,
	.offset_text = kinesis_offset_text,
	.offset_find = kinesis_offset_find,
	.partition_of = kinesis_partition_of,
	.writer_open = kinesis_writer_open,
	.writer_close = kinesis_writer_close,
	.append = kinesis_append,
	.commit = kinesis_commit,
};

const struct evbus_module evbus_module = { .abi = EVBUS_MODULE_ABI, .name = "kinesis", .ops = &backend_kinesis };
