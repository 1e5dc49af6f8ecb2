/* amqp_connect.c: connecting to the server, within the time-out, or until who waits for it has enough.
 *
 * librabbitmq connects, shakes hands and logs in without asking anybody. So a thread does that, and may be left alone: it
 * ends within the time-out, and takes the connection along.
 *
 * Later librabbitmq waits for ever until a socket takes what it writes, so the kernel is told to give up where the server
 * takes nothing for as long as the time-out (TCP_USER_TIMEOUT), and nothing is written before the socket has room. */
#include "backend/amqp_bus.h"

#include "base/thread.h"
#include "base/wait.h"

#include <amqp_ssl_socket.h>
#include <amqp_tcp_socket.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#define HEARTBEAT_S 60
#define TRUSTED_FILE "/etc/ssl/certs/ca-certificates.crt"

struct attempt {
	struct amqp_backend *amqp; /* held; of it only what never changes */
	amqp_connection_state_t connection;
	int64_t deadline_ms;
	pthread_mutex_t mutex; /* of what follows */
	pthread_cond_t changed;
	bool ended, left; /* the thread has come to its end; nobody waits for it any more */
	enum evbus_code code;
	struct evbus_err err;
};

static enum evbus_code check_reply(const struct amqp_backend *amqp, amqp_rpc_reply_t reply, struct evbus_err *err)
{
	if (reply.reply_type == AMQP_RESPONSE_NORMAL)
		return EVBUS_OK;
	if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION && reply.reply.decoded)
		return amqp_closed(amqp, &reply.reply, "cannot connect", err);
	return amqp_failed(amqp, reply.library_error, "cannot connect", err);
}

/* ---- in the thread --------------------------------------------------------------------------------------------- */

static struct timeval left(int64_t deadline_ms)
{
	int64_t ms = deadline_ms - amqp_now_ms();

	ms = ms > 1 ? ms : 1;
	return (struct timeval){ ms / 1000, ms % 1000 * 1000 };
}

static enum evbus_code set_trust(const struct amqp_backend *amqp, amqp_socket_t *socket, struct evbus_err *err)
{
	const char *ca = amqp->tls_ca ? amqp->tls_ca : TRUSTED_FILE;

	if (amqp_ssl_socket_set_cacert(socket, ca) != AMQP_STATUS_OK)
		return err_set(err, EVBUS_CONFIG, 0, "the bus '%s': the certificates of '%s' cannot be used%s",
			       amqp->url.shown, ca, amqp->tls_ca ? "" : ": say which with tls_ca=FILE");
	if (amqp->tls_cert && amqp_ssl_socket_set_key(socket, amqp->tls_cert, amqp->tls_key) != AMQP_STATUS_OK)
		return err_set(err, EVBUS_CONFIG, 0,
			       "the bus '%s': tls_cert='%s' and tls_key='%s' are no certificate and its key",
			       amqp->url.shown, amqp->tls_cert, amqp->tls_key);
	amqp_ssl_socket_set_verify_peer(socket, true);
	amqp_ssl_socket_set_verify_hostname(socket, true);
	return EVBUS_OK;
}

static enum evbus_code open_socket(const struct attempt *attempt, struct evbus_err *err)
{
	const struct amqp_backend *amqp = attempt->amqp;
	amqp_connection_state_t connection = attempt->connection;
	unsigned limit_ms = (unsigned)amqp->timeout_ms;
	struct timeval patience = left(attempt->deadline_ms);
	amqp_socket_t *socket = amqp->tls ? amqp_ssl_socket_new(connection) : amqp_tcp_socket_new(connection);

	if (!socket)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot connect to '%s'", amqp->url.shown);
	if (amqp->tls)
		TRY(set_trust(amqp, socket, err));
	errno = 0;
	int status = amqp_socket_open_noblock(socket, amqp->host, amqp->port, &patience);
	/* Why a connection failed on its way librabbitmq keeps to itself. */
	if (status == AMQP_STATUS_SOCKET_ERROR && errno == EINPROGRESS)
		return err_set(err, EVBUS_UNAVAILABLE, 0, "cannot connect to '%s': it is refused, or leads nowhere",
			       amqp->url.shown);
	if (status == AMQP_STATUS_SOCKET_ERROR && errno)
		return err_set(err, EVBUS_UNAVAILABLE, errno, "cannot connect to '%s'", amqp->url.shown);
	if (status != AMQP_STATUS_OK)
		return amqp_failed(amqp, status, "cannot connect", err);
	if (setsockopt(amqp_get_sockfd(connection), IPPROTO_TCP, TCP_USER_TIMEOUT, &limit_ms, sizeof limit_ms))
		return err_set(err, EVBUS_IO, errno, "cannot connect to '%s'", amqp->url.shown);
	return EVBUS_OK;
}

/* The server tells what it blocks a connection for only to who says that he listens. */
static enum evbus_code log_in(const struct attempt *attempt, struct evbus_err *err)
{
	const struct amqp_backend *amqp = attempt->amqp;
	amqp_connection_state_t connection = attempt->connection;
	amqp_table_entry_t can[] = { { amqp_cstring_bytes("connection.blocked"),
				       { AMQP_FIELD_KIND_BOOLEAN, { .boolean = 1 } } } };
	amqp_table_entry_t about[] = {
		{ amqp_cstring_bytes("connection_name"),
		  { AMQP_FIELD_KIND_UTF8, { .bytes = amqp_cstring_bytes("evbus") } } },
		{ amqp_cstring_bytes("capabilities"), { AMQP_FIELD_KIND_TABLE, { .table = { 1, can } } } },
	};
	const amqp_table_t properties = { 2, about };
	const struct timeval patience = left(attempt->deadline_ms);

	amqp_set_handshake_timeout(connection, &patience);
	amqp_set_rpc_timeout(connection, &patience);
	TRY(check_reply(amqp,
			amqp_login_with_properties(connection, amqp->vhost, 0, AMQP_DEFAULT_FRAME_SIZE, HEARTBEAT_S,
						   &properties, AMQP_SASL_METHOD_PLAIN, amqp->user, amqp->password),
			err));
	amqp_channel_open(connection, AMQP_CHANNEL);
	TRY(check_reply(amqp, amqp_get_rpc_reply(connection), err));
	amqp_confirm_select(connection, AMQP_CHANNEL);
	return check_reply(amqp, amqp_get_rpc_reply(connection), err);
}

static enum evbus_code connect_now(struct attempt *attempt)
{
	enum evbus_code code = open_socket(attempt, &attempt->err);

	return code == EVBUS_OK ? log_in(attempt, &attempt->err) : code;
}

/* What the thread and who waits for it have in common, by the last of the two. */
static void release(struct attempt *attempt)
{
	if (attempt->connection)
		amqp_destroy_connection(attempt->connection);
	pthread_cond_destroy(&attempt->changed);
	pthread_mutex_destroy(&attempt->mutex);
	amqp_release(attempt->amqp);
	free(attempt);
}

static void *work(void *context)
{
	struct attempt *attempt = context;
	enum evbus_code code = connect_now(attempt);

	pthread_mutex_lock(&attempt->mutex);
	attempt->code = code;
	attempt->ended = true;
	bool left = attempt->left;
	pthread_cond_signal(&attempt->changed);
	pthread_mutex_unlock(&attempt->mutex);
	if (left)
		release(attempt);
	return NULL;
}

/* ---- waiting for it -------------------------------------------------------------------------------------------- */

static enum evbus_code start(struct attempt *attempt, struct evbus_err *err)
{
	pthread_t thread;

	if (!thread_start(&thread, work, attempt))
		return err_set(err, EVBUS_IO, EAGAIN, "cannot connect to '%s': no thread can be started",
			       attempt->amqp->url.shown);
	pthread_detach(thread);
	return EVBUS_OK;
}

/* With the mutex held; until it has ended, or it is time to ask. */
static void wait_a_slice(struct attempt *attempt, const struct waiter *waiter)
{
	struct timespec until;

	if (!wait_has_end(waiter) || os.clock_gettime(CLOCK_MONOTONIC, &until)) {
		pthread_cond_wait(&attempt->changed, &attempt->mutex);
		return;
	}
	until.tv_nsec += WAIT_ASK_US * 1000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_cond_timedwait(&attempt->changed, &attempt->mutex, &until);
}

/* false: it was left alone, and is not ours any more. */
static bool wait_until_ended(struct attempt *attempt, const struct waiter *waiter)
{
	bool left = false;

	pthread_mutex_lock(&attempt->mutex);
	while (!attempt->ended && !left) {
		wait_a_slice(attempt, waiter);
		left = !attempt->ended && wait_has_end(waiter) && !waiter->go_on(waiter->context);
	}
	attempt->left = left;
	pthread_mutex_unlock(&attempt->mutex);
	return !left;
}

static struct attempt *prepare(struct amqp_backend *amqp)
{
	struct attempt *attempt = os.realloc(NULL, sizeof *attempt);
	pthread_condattr_t attributes;

	if (!attempt)
		return NULL;
	*attempt = (struct attempt){ .amqp = amqp, .deadline_ms = amqp_now_ms() + amqp->timeout_ms };
	amqp_hold(amqp);
	pthread_mutex_init(&attempt->mutex, NULL);
	/* Waits by the clock that nobody sets. */
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&attempt->changed, &attributes);
	pthread_condattr_destroy(&attributes);
	attempt->connection = amqp_new_connection();
	if (attempt->connection)
		return attempt;
	release(attempt);
	return NULL;
}

enum evbus_code amqp_connect(struct amqp_backend *amqp, const struct waiter *waiter,
			     amqp_connection_state_t *connection, struct evbus_err *err)
{
	struct attempt *attempt = prepare(amqp);

	if (!attempt)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot connect to '%s'", amqp->url.shown);
	enum evbus_code code = start(attempt, err);
	if (code == EVBUS_OK && !wait_until_ended(attempt, waiter))
		return err_set(err, EVBUS_AGAIN, EINTR, "gave up connecting to '%s'", amqp->url.shown);
	if (code == EVBUS_OK && attempt->code == EVBUS_OK) {
		*connection = attempt->connection;
		attempt->connection = NULL;
	} else if (code == EVBUS_OK) {
		code = attempt->code;
		if (err)
			*err = attempt->err;
	}
	release(attempt);
	return code;
}
