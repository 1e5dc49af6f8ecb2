/* nats.c: topics as streams of NATS JetStream: the bus, and its connection.
 *
 * A partition is a stream of its own with one subject: in a stream of several subjects who reads one of them waits for
 * the server to look through all. A record's offset is its sequence in the stream, counted from 1, with gaps where
 * messages were deleted.
 *
 * The connection is libnats's, with its threads; it connects again by itself. What must not be lost in between is asked
 * for again by whoever waits for the answer, and no answer is waited for longer than the time-out. */
#include "backend/nats.h"

#include "base/module.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#define TIMEOUT_DEFAULT_MS 10000
#define RECONNECT_WAIT_MS 100
#define PING_LEAST_MS 500
#define PINGS_OUT 2
#define DENIED_MS 500 /* by then the server has said that something is not permitted */
#define SERVERS_MAX 32u
#define PREFIX_MAX_BYTES 64u
#define REPLICAS_MAX 5u
#define WINDOW_DEFAULT_S 30u /* what the server keeps of ids costs it memory */
#define WINDOW_MAX_S 86400u

/* ---- failures -------------------------------------------------------------------------------------------------- */

/* Error codes of the server's API that say more than the status. */
static enum evbus_code code_of_api(jsErrCode why)
{
	switch (why) {
	case 10014: /* consumer not found */
	case 10037: /* no message found */
	case 10059: /* stream not found */
		return EVBUS_NONE;
	case 10039: /* JetStream not enabled for the account */
	case 10076: /* JetStream not enabled */
	case 10052: /* stream configuration refused */
	case 10065: /* subjects overlap with those of another stream */
	case 10074: /* so many replicas only in a cluster */
	case 10005: /* no peers for so many replicas */
		return EVBUS_CONFIG;
	case 10058: /* the name is in use with another configuration */
		return EVBUS_CONFLICT;
	default:
		return EVBUS_UNAVAILABLE;
	}
}

static enum evbus_code code_of(natsStatus status, jsErrCode why)
{
	if (why)
		return code_of_api(why);
	switch (status) {
	case NATS_NOT_FOUND:
		return EVBUS_NONE;
	case NATS_CONNECTION_AUTH_FAILED:
	case NATS_NOT_PERMITTED:
		return EVBUS_PERMISSION;
	case NATS_NO_MEMORY:
	case NATS_SYS_ERROR:
		return EVBUS_IO;
	default:
		return EVBUS_UNAVAILABLE;
	}
}

/* "(conn.c:123): reason": where in the library it was is nobody's business. */
static const char *last_error(void)
{
	const char *text = nats_GetLastError(NULL);
	const char *behind = text && *text == '(' ? strstr(text, "): ") : NULL;

	return behind ? behind + 3 : text;
}

bool nats_denied(natsConnection *connection, const char *what)
{
	const char *text = NULL;

	if (natsConnection_GetLastError(connection, &text) != NATS_NOT_PERMITTED || !text)
		return false;
	if (strstr(text, "Subscription"))
		return true;
	const char *found = strstr(text, what);
	const char *behind = found ? found + strlen(what) : "";
	if (found && behind[-1] == '.')
		return true;
	return *behind == '"' || (*behind == '.' && !strchr(what, '.'));
}

void nats_question_begin(const struct nats_backend *nats, struct nats_question *question)
{
	jsOptions_Init(&question->options);
	question->options.Wait = nats->timeout_ms < DENIED_MS ? nats->timeout_ms : DENIED_MS;
	question->end_ms = nats_now_ms() + nats->timeout_ms;
	question->repeated = false;
}

bool nats_question_again(const struct nats_backend *nats, struct nats_question *question, const char *what,
			 natsStatus *status)
{
	int64_t left_ms = question->end_ms - nats_now_ms();

	if (*status == NATS_TIMEOUT && nats_denied(nats->connection, what))
		*status = NATS_NOT_PERMITTED;
	if (*status != NATS_TIMEOUT || question->repeated || left_ms <= 0)
		return false;
	question->options.Wait = left_ms;
	question->repeated = true;
	return true;
}

static const char *reason(const struct nats_backend *nats, natsStatus status, char room[128])
{
	const char *text = NULL;

	if (status == NATS_NOT_PERMITTED && nats->connection &&
	    natsConnection_GetLastError(nats->connection, &text) == status && text)
		return text;
	if (status == NATS_TIMEOUT) {
		snprintf(room, 128, "no answer within %d ms", nats->timeout_ms);
		return room;
	}
	if (status == NATS_NO_RESPONDERS)
		return "nobody answers for JetStream there: it is not enabled, or has no leader now";
	if (status == NATS_SECURE_CONNECTION_REQUIRED)
		return "it wants TLS: add tls=1 to the URL";
	if (status == NATS_SECURE_CONNECTION_WANTED)
		return "it has no TLS: leave tls=1 and the other tls_ options out";
	text = last_error();
	return text && *text ? text : natsStatus_GetText(status);
}

enum evbus_code nats_failed(const struct nats_backend *nats, natsStatus status, jsErrCode why, struct evbus_err *err,
			    const char *format, ...)
{
	char what[256], room[128];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof what, format, args);
	va_end(args);
	const char *text = reason(nats, status, room);
	return err_set(err, code_of(status, why), 0, "%s: '%s': %s", what, nats->url.shown, text);
}

/* ---- options --------------------------------------------------------------------------------------------------- */

static bool is_word(const char *text, size_t max)
{
	size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");

	return len && !text[len] && len <= max;
}

static enum evbus_code take_stream(struct nats_backend *nats, struct evbus_err *err)
{
	nats->stream = url_option(&nats->url, "stream");
	nats->only_topic = url_option(&nats->url, "topic");
	nats->subject = url_option(&nats->url, "subject");
	if (!nats->stream && (nats->only_topic || nats->subject))
		return err_set(err, EVBUS_CONFIG, 0, "the bus '%s': topic= and subject= are for stream=NAME",
			       nats->url.shown);
	if (!nats->stream)
		return EVBUS_OK;
	if (!*nats->stream || strlen(nats->stream) >= STREAM_NAME_MAX || strpbrk(nats->stream, " .*>/\\\t\r\n"))
		return err_set(err, EVBUS_CONFIG, 0, "the bus '%s': stream='%s' is not the name of a stream",
			       nats->url.shown, nats->stream);
	if (nats->subject &&
	    (!*nats->subject || strlen(nats->subject) >= SUBJECT_MAX || strpbrk(nats->subject, " *>\t\r\n")))
		return err_set(err, EVBUS_CONFIG, 0, "the bus '%s': subject='%s' is not one subject", nats->url.shown,
			       nats->subject);
	const char *name = nats->only_topic ? nats->only_topic : nats->stream;
	if (evbus_topic_check(name, false, NULL) != EVBUS_OK)
		return err_set(err, EVBUS_CONFIG, 0, "the bus '%s': '%s' is not the name of a topic: say topic=NAME",
			       nats->url.shown, name);
	nats->only_topic = name;
	return EVBUS_OK;
}

/* What libnats cannot take it does not always say why. */
static enum evbus_code refused(const struct nats_backend *nats, const char *name, const char *value,
			       struct evbus_err *err)
{
	const char *text = last_error();

	return err_set(err, EVBUS_CONFIG, 0, "the bus '%s': %s='%s' cannot be used: %s", nats->url.shown, name, value,
		       text && *text ? text : "it is not what it should be");
}

static enum evbus_code take_tls(struct nats_backend *nats, struct evbus_err *err)
{
	const char *ca = url_option(&nats->url, "tls_ca"), *name = url_option(&nats->url, "tls_name");
	const char *cert = url_option(&nats->url, "tls_cert"), *key = url_option(&nats->url, "tls_key");
	bool tls = ca || name || cert || key;

	TRY(url_flag(&nats->url, "tls", &tls, err));
	if (!tls && (ca || name || cert || key))
		return err_set(err, EVBUS_CONFIG, 0, "the bus '%s': tls=0 fits no other tls_ option", nats->url.shown);
	if (!cert != !key)
		return err_set(err, EVBUS_CONFIG, 0,
			       "the bus '%s': tls_cert and tls_key are given together or not at all", nats->url.shown);
	if (tls && natsOptions_SetSecure(nats->options, true) != NATS_OK)
		return refused(nats, "tls", "1", err);
	if (ca && natsOptions_LoadCATrustedCertificates(nats->options, ca) != NATS_OK)
		return refused(nats, "tls_ca", ca, err);
	if (cert && natsOptions_LoadCertificatesChain(nats->options, cert, key) != NATS_OK)
		return refused(nats, "tls_cert", cert, err);
	if (name && natsOptions_SetExpectedHostname(nats->options, name) != NATS_OK)
		return refused(nats, "tls_name", name, err);
	return EVBUS_OK;
}

/* libnats reads it when it connects, and says less then. */
static enum evbus_code can_read(const struct nats_backend *nats, const char *name, const char *file,
				struct evbus_err *err)
{
	if (!file || access(file, R_OK) == 0)
		return EVBUS_OK;
	enum evbus_code code = err_code_of(errno) == EVBUS_PERMISSION ? EVBUS_PERMISSION : EVBUS_CONFIG;
	return err_set(err, code, errno, "the bus '%s': cannot read %s='%s'", nats->url.shown, name, file);
}

static enum evbus_code take_identity(struct nats_backend *nats, struct evbus_err *err)
{
	const char *creds = url_option(&nats->url, "creds"), *token = url_option(&nats->url, "token");
	const char *nkey = url_option(&nats->url, "nkey"), *seed = url_option(&nats->url, "nkey_seed");
	const char *user = nats->url.user, *password = nats->url.password;
	natsStatus status = NATS_OK;

	if (user && !password && !token)
		token = user;
	if (!nkey != !seed)
		return err_set(
			err, EVBUS_CONFIG, 0,
			"the bus '%s': nkey (the public key) and nkey_seed (a file) are given together or not at "
			"all",
			nats->url.shown);
	TRY(can_read(nats, "creds", creds, err));
	TRY(can_read(nats, "nkey_seed", seed, err));
	if (user && password)
		status = natsOptions_SetUserInfo(nats->options, user, password);
	if (status == NATS_OK && token)
		status = natsOptions_SetToken(nats->options, token);
	if (status == NATS_OK && creds)
		status = natsOptions_SetUserCredentialsFromFiles(nats->options, creds, NULL);
	if (status == NATS_OK && nkey)
		status = natsOptions_SetNKeyFromSeed(nats->options, nkey, seed);
	nats->signs = creds || nkey;
	return status == NATS_OK ? EVBUS_OK : nats_failed(nats, status, 0, err, "cannot use the credentials");
}

/* The list of the URL, "h:p,h:p"; servers[0] owns the text of all. */
static enum evbus_code split_servers(const struct nats_backend *nats, char *text, const char *servers[SERVERS_MAX],
				     int *count, struct evbus_err *err)
{
	*count = 0;
	for (char *at = text, *comma; at; at = comma) {
		comma = strchr(at, ',');
		if (comma)
			*comma++ = '\0';
		if (!*at || *count == (int)SERVERS_MAX)
			return err_set(err, EVBUS_CONFIG, 0, "the bus '%s' names %s: write nats://HOST:PORT,HOST:PORT",
				       nats->url.shown, *at ? "too many servers" : "no server");
		servers[(*count)++] = at;
	}
	return EVBUS_OK;
}

static void be_silent(natsConnection *connection, natsSubscription *subscription, natsStatus status, void *closure)
{
	(void)connection;
	(void)subscription;
	(void)status;
	(void)closure;
}

static enum evbus_code set_servers(struct nats_backend *nats, struct evbus_err *err)
{
	size_t size = strlen(nats->url.servers) + 1;
	CLEANUP(free_cleanup) char *text = os.realloc(NULL, size);
	const char *servers[SERVERS_MAX];
	natsOptions *options = nats->options;
	int count;

	if (!text)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open the bus '%s'", nats->url.shown);
	TRY(split_servers(nats, memcpy(text, nats->url.servers, size), servers, &count, err));
	int64_t ping = nats->timeout_ms / PINGS_OUT;
	natsStatus status = natsOptions_SetServers(options, servers, count);
	/* All of them have to be tried within the time-out. */
	if (status == NATS_OK)
		status = natsOptions_SetTimeout(options, nats->timeout_ms / count ? nats->timeout_ms / count : 1);
	if (status == NATS_OK)
		status = natsOptions_SetWriteDeadline(options, nats->timeout_ms);
	if (status == NATS_OK)
		status = natsOptions_SetPingInterval(options, ping > PING_LEAST_MS ? ping : PING_LEAST_MS);
	if (status == NATS_OK)
		status = natsOptions_SetMaxPingsOut(options, PINGS_OUT);
	if (status == NATS_OK)
		status = natsOptions_SetMaxReconnect(options, -1);
	if (status == NATS_OK)
		status = natsOptions_SetReconnectWait(options, RECONNECT_WAIT_MS);
	if (status == NATS_OK)
		status = natsOptions_SetReconnectJitter(options, RECONNECT_WAIT_MS, RECONNECT_WAIT_MS);
	if (status == NATS_OK)
		status = natsOptions_SetName(options, "evbus");
	if (status == NATS_OK)
		status = natsOptions_SetErrorHandler(options, be_silent, NULL);
	return status == NATS_OK ? EVBUS_OK : nats_failed(nats, status, 0, err, "cannot open the bus");
}

static enum evbus_code take_options(struct nats_backend *nats, struct evbus_err *err)
{
	const char *prefix = url_option(&nats->url, "prefix");

	TRY(url_timeout(&nats->url, &nats->timeout_ms, err));
	if (prefix && !is_word(prefix, PREFIX_MAX_BYTES))
		return err_set(err, EVBUS_CONFIG, 0,
			       "the bus '%s': prefix='%s' is not a word of at most %u letters, digits, '_' and '-'",
			       nats->url.shown, prefix, PREFIX_MAX_BYTES);
	nats->prefix = prefix ? prefix : "evbus";
	TRY(url_number(&nats->url, "replicas", 1, REPLICAS_MAX, &nats->replicas, err));
	TRY(url_number(&nats->url, "duplicate_window", 1, WINDOW_MAX_S, &nats->window_s, err));
	TRY(take_stream(nats, err));
	TRY(set_servers(nats, err));
	TRY(take_tls(nats, err));
	TRY(take_identity(nats, err));
	return url_done(&nats->url,
			"timeout, prefix, replicas, duplicate_window, stream, topic, subject, creds, nkey, nkey_seed, "
			"token, tls, tls_ca, tls_cert, tls_key and tls_name",
			err);
}

/* ---- the bus --------------------------------------------------------------------------------------------------- */

static void nats_close(struct backend *backend)
{
	struct nats_backend *nats = nats_of(backend);

	if (nats->process == getpid()) {
		nats_link_close(nats);
		pthread_mutex_destroy(&nats->mutex);
		jsCtx_Destroy(nats->streams);
		natsConnection_Destroy(nats->connection);
		nats_subscriptions_close(nats);
		natsOptions_Destroy(nats->options);
	}
	url_release(&nats->url);
	free(nats);
}

static void close_cleanup(struct nats_backend **nats)
{
	if (*nats)
		nats_close(&(*nats)->base);
}

static enum evbus_code nats_open(const char *url, const char *rest, const struct backend_options *options,
				 struct backend **backend, struct evbus_err *err)
{
	CLEANUP(close_cleanup) struct nats_backend *nats = os.realloc(NULL, sizeof *nats);

	(void)rest;
	if (!nats)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open a bus");
	*nats = (struct nats_backend){
		.base = { &backend_nats },
		.process = getpid(),
		.no_create = options->no_create,
		.timeout_ms = TIMEOUT_DEFAULT_MS,
		.replicas = 1,
		.window_s = WINDOW_DEFAULT_S,
	};
	pthread_mutex_init(&nats->mutex, NULL);
	TRY(url_parse(url, &nats->url, err));
	sigset_t all, before;
	/* Here the library starts the first of its threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	natsStatus status = natsOptions_Create(&nats->options);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (status != NATS_OK)
		return nats_failed(nats, status, 0, err, "cannot open the bus");
	TRY(take_options(nats, err));
	*backend = &nats->base;
	nats = NULL;
	return EVBUS_OK;
}

/* The server has it already, or not: there is nothing to make. */
static enum evbus_code nats_ready(struct backend *backend, bool create, struct evbus_err *err)
{
	struct nats_backend *nats = nats_of(backend);
	jsOptions wait;

	(void)create;
	if (nats->streams)
		return EVBUS_OK;
	jsOptions_Init(&wait);
	wait.Wait = nats->timeout_ms;
	natsStatus status = nats_connect(nats, &nats->connection);
	if (status == NATS_OK)
		status = natsConnection_JetStream(&nats->streams, nats->connection, &wait);
	if (status == NATS_OK)
		return EVBUS_OK;
	enum evbus_code code = nats_failed(nats, status, 0, err, "cannot connect");
	natsConnection_Destroy(nats->connection);
	nats->connection = NULL;
	return code;
}

const struct backend_ops backend_nats = {
	.version = BACKEND_VERSION,
	.scheme = "nats",
	.offset_kind = "nats_sequence",
	.acknowledgement = "stored by the server in a file, and not synced yet",
	.idempotence = "exact: an event is appended only where the log still ends with what was looked through for it",
	.expects = true,
	.open = nats_open,
	.close = nats_close,
	.ready = nats_ready,
	.topic_open = nats_topic_open,
	.topic_create = nats_topic_create,
	.topic_close = nats_topic_close,
	.topic_keep = nats_topic_keep,
	.topic_check = nats_topic_check,
	.topic_names = nats_topic_names,
	.reader_open = nats_reader_open,
	.reader_close = nats_reader_close,
	.seek = nats_seek,
	.seek_time = nats_seek_time,
	.next = nats_next,
	.refresh = nats_refresh,
	.wait = nats_wait,
	.bytes_left = nats_bytes_left,
	.describe = nats_describe,
	.writer_open = nats_writer_open,
	.writer_close = nats_writer_close,
	.append = nats_append,
	.commit = nats_commit,
};

const struct evbus_module evbus_module = { .abi = EVBUS_MODULE_ABI, .name = "nats", .ops = &backend_nats };
