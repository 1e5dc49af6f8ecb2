/* amqp.c: RabbitMQ as a target: events are published there, and nothing is read.
 *
 * A queue says neither at which position a message stands nor what stood before, so there is nothing that checkpoints,
 * replays or publishing idempotently could stand on. A topic is a routing key; whether a queue is bound to it is seen when
 * something is published. */
#include "backend/amqp_bus.h"

#include "base/module.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define TIMEOUT_DEFAULT_MS 10000
#define PORT_DEFAULT 5672
#define PORT_TLS_DEFAULT 5671
#define PORT_MAX 65535u
#define WINDOW_DEFAULT 1000u
#define WINDOW_MAX 65535u
#define PASSWORD_MAX_BYTES 4096u

/* ---- options --------------------------------------------------------------------------------------------------- */

static enum evbus_code wrong(const struct amqp_backend *amqp, const char *why, struct evbus_err *err)
{
	return err_set(err, EVBUS_CONFIG, 0, "the bus '%s' cannot be read: %s", amqp->url.shown, why);
}

/* "HOST", "HOST:PORT", "[::1]:PORT" or nothing. */
static enum evbus_code take_server(struct amqp_backend *amqp, struct evbus_err *err)
{
	const char *text = amqp->url.servers, *close = *text == '[' ? strchr(text, ']') : NULL;
	const char *colon = strchr(close ? close : text, ':');
	size_t len = colon ? (size_t)(colon - text) : strlen(text);
	uint64_t port = amqp->tls ? PORT_TLS_DEFAULT : PORT_DEFAULT;

	if (strchr(text, ','))
		return wrong(amqp, "it names several servers, and a target has one", err);
	if (colon &&
	    (!decimal_parse((struct evbus_slice){ colon + 1, strlen(colon + 1) }, &port) || !port || port > PORT_MAX))
		return wrong(amqp, "behind the ':' stands no port", err);
	if (close) {
		len = (size_t)(close - text) - 1;
		text++;
	}
	if (!len) {
		text = "localhost";
		len = strlen(text);
	}
	amqp->port = (int)port;
	amqp->host = os.realloc(NULL, len + 1);
	if (!amqp->host)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open the bus '%s'", amqp->url.shown);
	memcpy(amqp->host, text, len);
	amqp->host[len] = '\0';
	return EVBUS_OK;
}

/* The first line of a file. */
static enum evbus_code read_password(struct amqp_backend *amqp, const char *path, struct evbus_err *err)
{
	CLEANUP(os_close_cleanup) int fd = os.openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);

	amqp->password_text = os.realloc(NULL, PASSWORD_MAX_BYTES + 1);
	if (!amqp->password_text)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open the bus '%s'", amqp->url.shown);
	ssize_t len = fd < 0 ? -1 : os_read_at(fd, amqp->password_text, PASSWORD_MAX_BYTES, 0);
	if (len < 0)
		return err_set(err, err_code_of(errno) == EVBUS_PERMISSION ? EVBUS_PERMISSION : EVBUS_CONFIG, errno,
			       "the bus '%s': cannot read password_file='%s'", amqp->url.shown, path);
	amqp->password_text[len] = '\0';
	amqp->password_text[strcspn(amqp->password_text, "\r\n")] = '\0';
	amqp->password = amqp->password_text;
	return EVBUS_OK;
}

static enum evbus_code take_identity(struct amqp_backend *amqp, struct evbus_err *err)
{
	const char *file = url_option(&amqp->url, "password_file");

	/* As each server has them, for who comes from its own machine. */
	amqp->user = amqp->url.user && *amqp->url.user ? amqp->url.user : "guest";
	amqp->password = amqp->url.password ? amqp->url.password : "guest";
	if (!file)
		return EVBUS_OK;
	if (amqp->url.password)
		return err_set(err, EVBUS_CONFIG, 0, "the bus '%s' has a password and password_file=: leave one out",
			       amqp->url.shown);
	return read_password(amqp, file, err);
}

static enum evbus_code take_tls(struct amqp_backend *amqp, struct evbus_err *err)
{
	amqp->tls_ca = url_option(&amqp->url, "tls_ca");
	amqp->tls_cert = url_option(&amqp->url, "tls_cert");
	amqp->tls_key = url_option(&amqp->url, "tls_key");
	if (!amqp->tls && (amqp->tls_ca || amqp->tls_cert || amqp->tls_key))
		return err_set(err, EVBUS_CONFIG, 0, "the bus '%s': the tls_ options are for amqps://",
			       amqp->url.shown);
	if (!amqp->tls_cert != !amqp->tls_key)
		return err_set(err, EVBUS_CONFIG, 0,
			       "the bus '%s': tls_cert and tls_key are given together or not at all", amqp->url.shown);
	return EVBUS_OK;
}

static enum evbus_code check_short(const struct amqp_backend *amqp, const char *name, const char *value,
				   struct evbus_err *err)
{
	if (!value || strlen(value) <= AMQP_SHORT_MAX)
		return EVBUS_OK;
	return err_set(err, EVBUS_CONFIG, 0, "the bus '%s': the %s has more than %u bytes", amqp->url.shown, name,
		       AMQP_SHORT_MAX);
}

static enum evbus_code take_options(struct amqp_backend *amqp, struct evbus_err *err)
{
	amqp->vhost = amqp->url.path ? amqp->url.path : "/";
	amqp->exchange = url_option(&amqp->url, "exchange");
	amqp->routing_key = url_option(&amqp->url, "routing_key");
	if (!amqp->exchange)
		amqp->exchange = ""; /* the one that leads to the queue that is called like the routing key */
	TRY(check_short(amqp, "virtual host", amqp->vhost, err));
	TRY(check_short(amqp, "exchange", amqp->exchange, err));
	TRY(check_short(amqp, "routing_key", amqp->routing_key, err));
	TRY(url_timeout(&amqp->url, &amqp->timeout_ms, err));
	TRY(url_number(&amqp->url, "window", 1, WINDOW_MAX, &amqp->window, err));
	TRY(take_server(amqp, err));
	TRY(take_tls(amqp, err));
	TRY(take_identity(amqp, err));
	return url_done(&amqp->url,
			"timeout, exchange, routing_key, window, password_file, tls_ca, tls_cert and tls_key", err);
}

/* ---- the bus --------------------------------------------------------------------------------------------------- */

void amqp_release(struct amqp_backend *amqp)
{
	if (atomic_fetch_sub(&amqp->holders, 1) > 1)
		return;
	if (amqp->password_text)
		explicit_bzero(amqp->password_text, strlen(amqp->password_text));
	free(amqp->password_text);
	free(amqp->host);
	url_release(&amqp->url);
	free(amqp);
}

static void amqp_close(struct backend *backend)
{
	struct amqp_backend *amqp = amqp_of(backend);

	if (amqp->process == getpid()) {
		amqp_part(amqp);
		pthread_mutex_destroy(&amqp->mutex);
	}
	amqp_release(amqp);
}

static void close_cleanup(struct amqp_backend **amqp)
{
	if (*amqp)
		amqp_close(&(*amqp)->base);
}

static enum evbus_code amqp_open(const char *url, const char *rest, const struct backend_options *options,
				 struct backend **backend, struct evbus_err *err)
{
	CLEANUP(close_cleanup) struct amqp_backend *amqp = os.realloc(NULL, sizeof *amqp);

	if (!amqp)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open a bus");
	*amqp = (struct amqp_backend){
		.base = { &backend_amqp },
		.process = getpid(),
		.holders = 1,
		.waiter = { options->go_on, options->go_on_context },
		.tls = (rest[-2] | 32) == 's',
		.timeout_ms = TIMEOUT_DEFAULT_MS,
		.window = WINDOW_DEFAULT,
	};
	pthread_mutex_init(&amqp->mutex, NULL);
	TRY(url_parse_path(url, &amqp->url, err));
	TRY(take_options(amqp, err));
	*backend = &amqp->base;
	amqp = NULL;
	return EVBUS_OK;
}

/* Later on it is for append() to connect again. */
static enum evbus_code amqp_ready(struct backend *backend, bool create, struct evbus_err *err)
{
	struct amqp_backend *amqp = amqp_of(backend);

	(void)create;
	pthread_mutex_lock(&amqp->mutex);
	enum evbus_code code = amqp->was_connected ? EVBUS_OK : amqp_link(amqp, &amqp->waiter, err);
	pthread_mutex_unlock(&amqp->mutex);
	return code;
}

/* ---- topics ---------------------------------------------------------------------------------------------------- */

static enum evbus_code amqp_topic_open(struct backend *backend, const char *name, struct backend_topic **opened,
				       struct evbus_err *err)
{
	struct amqp_topic *topic = os.realloc(NULL, sizeof *topic);

	if (!topic)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open topic '%s'", name);
	*topic = (struct amqp_topic){
		.base = { .ops = &backend_amqp, .log_id = "", .partitions = 1, .segment_max_bytes = UINT64_MAX },
		.amqp = amqp_of(backend),
	};
	snprintf(topic->name, sizeof topic->name, "%s", name);
	topic->base.name = topic->name;
	*opened = &topic->base;
	return EVBUS_OK;
}

static void amqp_topic_close(struct backend_topic *topic)
{
	free(topic);
}

static enum evbus_code amqp_topic_create(struct backend *backend, const char *name,
					 const struct evbus_topic_options *options, struct backend_topic **topic,
					 bool *created, struct evbus_err *err)
{
	(void)options;
	(void)topic;
	(void)created;
	return err_set(err, EVBUS_CONFIG, 0,
		       "topic '%s' cannot be made on '%s': queues and exchanges are made by RabbitMQ's own tools", name,
		       amqp_of(backend)->url.shown);
}

static enum evbus_code amqp_topic_keep(const struct backend_topic *topic, struct evbus_err *err)
{
	(void)topic;
	(void)err;
	return EVBUS_OK;
}

static enum evbus_code amqp_topic_check(struct backend_topic *topic, const char *doing, struct evbus_err *err)
{
	(void)topic;
	(void)doing;
	(void)err;
	return EVBUS_OK;
}

static enum evbus_code cannot_read(const struct amqp_backend *amqp, struct evbus_err *err)
{
	return err_set(err, EVBUS_CONFIG, 0,
		       "'%s' can be published to, and not be read: RabbitMQ does not say at which position a message "
		       "stands",
		       amqp->url.shown);
}

static enum evbus_code amqp_topic_names(struct backend *backend, const char *pattern, char ***names,
					struct evbus_err *err)
{
	(void)pattern;
	(void)names;
	return cannot_read(amqp_of(backend), err);
}

static enum evbus_code amqp_reader_open(const struct backend_topic *topic, int32_t partition, size_t chunk, bool ahead,
					struct partition_reader **reader, struct evbus_err *err)
{
	(void)partition;
	(void)chunk;
	(void)ahead;
	(void)reader;
	return cannot_read(((const struct amqp_topic *)(const void *)topic)->amqp, err);
}

/* Without a reader nobody calls what else there would be of one. */
const struct backend_ops backend_amqp = {
	.version = BACKEND_VERSION,
	.scheme = "amqp",
	.offset_kind = "none",
	.acknowledgement = "every queue that it was routed to has taken it, durable ones on their disks",
	.idempotence = "nothing: it cannot be looked whether an event is there",
	.writes_only = true,
	.open = amqp_open,
	.close = amqp_close,
	.ready = amqp_ready,
	.topic_open = amqp_topic_open,
	.topic_create = amqp_topic_create,
	.topic_close = amqp_topic_close,
	.topic_keep = amqp_topic_keep,
	.topic_check = amqp_topic_check,
	.topic_names = amqp_topic_names,
	.reader_open = amqp_reader_open,
	.writer_open = amqp_writer_open,
	.writer_close = amqp_writer_close,
	.append = amqp_append,
	.commit = amqp_commit,
};

const struct evbus_module evbus_module = { .abi = EVBUS_MODULE_ABI, .name = "amqp", .ops = &backend_amqp };
