/* amqp_link.c: the connection of a bus to its server.
 *
 * There is one, with one channel in confirm mode, for whoever publishes. librabbitmq waits for ever until a socket takes
 * what it writes, so the kernel is told to give up where the server takes nothing for as long as the time-out
 * (TCP_USER_TIMEOUT), and nothing is written before the socket has room. */
#include "backend/amqp_bus.h"

#include <amqp_ssl_socket.h>
#include <amqp_tcp_socket.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#define HEARTBEAT_S 60
#define PARTING_MS 1000
#define TRUSTED_FILE "/etc/ssl/certs/ca-certificates.crt"

/* ---- failures -------------------------------------------------------------------------------------------------- */

static enum evbus_code code_of_reply(unsigned reply)
{
	switch (reply) {
	case AMQP_ACCESS_REFUSED:
	case AMQP_NOT_ALLOWED:
		return EVBUS_PERMISSION;
	case AMQP_NOT_FOUND: /* an exchange; what no queue takes comes back by itself */
	case AMQP_RESOURCE_LOCKED:
		return EVBUS_CONFIG;
	case AMQP_PRECONDITION_FAILED: /* larger than the server takes */
	case AMQP_CONTENT_TOO_LARGE:
		return EVBUS_DATA;
	default:
		return EVBUS_UNAVAILABLE;
	}
}

/* What the server has closed the connection or the channel for. */
static enum evbus_code closed(const struct amqp_backend *amqp, const amqp_method_t *method, const char *doing,
			      struct evbus_err *err)
{
	const amqp_connection_close_t *connection = method->decoded;
	const amqp_channel_close_t *channel = method->decoded;
	bool whole = method->id == AMQP_CONNECTION_CLOSE_METHOD;
	unsigned reply = whole ? connection->reply_code : channel->reply_code;
	amqp_bytes_t text = whole ? connection->reply_text : channel->reply_text;

	return err_set(err, code_of_reply(reply), 0, "%s: '%s' says: %u %.*s", doing, amqp->url.shown, reply,
		       (int)(text.len < 256 ? text.len : 256), (const char *)text.bytes);
}

static enum evbus_code code_of(int status)
{
	switch (status) {
	case AMQP_STATUS_NO_MEMORY:
	case AMQP_STATUS_TIMER_FAILURE:
		return EVBUS_IO;
	case AMQP_STATUS_TABLE_TOO_BIG:
		return EVBUS_DATA;
	case AMQP_STATUS_SSL_HOSTNAME_VERIFY_FAILED:
	case AMQP_STATUS_SSL_PEER_VERIFY_FAILED:
	case AMQP_STATUS_BROKER_UNSUPPORTED_SASL_METHOD:
		return EVBUS_CONFIG;
	default:
		return EVBUS_UNAVAILABLE;
	}
}

enum evbus_code amqp_failed(const struct amqp_backend *amqp, int status, const char *doing, struct evbus_err *err)
{
	const char *text = amqp_error_string2(status);
	char room[128];

	if (status == AMQP_STATUS_TIMEOUT) {
		snprintf(room, sizeof room, "no answer within %d ms", amqp->timeout_ms);
		text = room;
	} else if (status == AMQP_STATUS_TABLE_TOO_BIG) {
		text = "its texts are too large for the header of a message";
	}
	return err_set(err, code_of(status), 0, "%s: '%s': %s", doing, amqp->url.shown, text);
}

static enum evbus_code check_reply(const struct amqp_backend *amqp, amqp_rpc_reply_t reply, struct evbus_err *err)
{
	if (reply.reply_type == AMQP_RESPONSE_NORMAL)
		return EVBUS_OK;
	if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION && reply.reply.decoded)
		return closed(amqp, &reply.reply, "cannot connect", err);
	return amqp_failed(amqp, reply.library_error, "cannot connect", err);
}

/* ---- connecting ------------------------------------------------------------------------------------------------ */

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

static enum evbus_code open_socket(struct amqp_backend *amqp, int64_t deadline_ms, struct evbus_err *err)
{
	unsigned limit_ms = (unsigned)amqp->timeout_ms;
	struct timeval patience = left(deadline_ms);
	amqp_socket_t *socket =
		amqp->tls ? amqp_ssl_socket_new(amqp->connection) : amqp_tcp_socket_new(amqp->connection);

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
	if (setsockopt(amqp_get_sockfd(amqp->connection), IPPROTO_TCP, TCP_USER_TIMEOUT, &limit_ms, sizeof limit_ms))
		return err_set(err, EVBUS_IO, errno, "cannot connect to '%s'", amqp->url.shown);
	return EVBUS_OK;
}

/* The server tells what it blocks a connection for only to who says that he listens. */
static enum evbus_code log_in(struct amqp_backend *amqp, int64_t deadline_ms, struct evbus_err *err)
{
	amqp_table_entry_t can[] = { { amqp_cstring_bytes("connection.blocked"),
				       { AMQP_FIELD_KIND_BOOLEAN, { .boolean = 1 } } } };
	amqp_table_entry_t about[] = {
		{ amqp_cstring_bytes("connection_name"),
		  { AMQP_FIELD_KIND_UTF8, { .bytes = amqp_cstring_bytes("evbus") } } },
		{ amqp_cstring_bytes("capabilities"), { AMQP_FIELD_KIND_TABLE, { .table = { 1, can } } } },
	};
	const amqp_table_t properties = { 2, about };
	const struct timeval patience = left(deadline_ms);

	amqp_set_handshake_timeout(amqp->connection, &patience);
	amqp_set_rpc_timeout(amqp->connection, &patience);
	TRY(check_reply(amqp,
			amqp_login_with_properties(amqp->connection, amqp->vhost, 0, AMQP_DEFAULT_FRAME_SIZE,
						   HEARTBEAT_S, &properties, AMQP_SASL_METHOD_PLAIN, amqp->user,
						   amqp->password),
			err));
	amqp_channel_open(amqp->connection, AMQP_CHANNEL);
	TRY(check_reply(amqp, amqp_get_rpc_reply(amqp->connection), err));
	amqp_confirm_select(amqp->connection, AMQP_CHANNEL);
	return check_reply(amqp, amqp_get_rpc_reply(amqp->connection), err);
}

static enum evbus_code connect_anew(struct amqp_backend *amqp, struct evbus_err *err)
{
	int64_t deadline_ms = amqp_now_ms() + amqp->timeout_ms;

	amqp->published = 0;
	amqp->blocked[0] = '\0';
	amqp->connection = amqp_new_connection();
	if (!amqp->connection)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot connect to '%s'", amqp->url.shown);
	enum evbus_code code = open_socket(amqp, deadline_ms, err);
	if (code == EVBUS_OK)
		code = log_in(amqp, deadline_ms, err);
	if (code != EVBUS_OK)
		amqp_unlink(amqp);
	return code;
}

/* Nothing is on its way: what the server has said since tells whether it is still there. */
static bool is_there(struct amqp_backend *amqp)
{
	amqp_frame_t frame;
	bool came = true;

	while (amqp->connection && came)
		if (amqp_receive(amqp, 0, "", &frame, &came, NULL) != EVBUS_OK)
			amqp_unlink(amqp);
	return amqp->connection != NULL;
}

enum evbus_code amqp_link(struct amqp_backend *amqp, struct evbus_err *err)
{
	if (is_there(amqp))
		return EVBUS_OK;
	TRY(connect_anew(amqp, err));
	amqp->was_connected = true;
	return EVBUS_OK;
}

void amqp_unlink(struct amqp_backend *amqp)
{
	if (amqp->connection)
		amqp_destroy_connection(amqp->connection);
	amqp->connection = NULL;
}

void amqp_part(struct amqp_backend *amqp)
{
	const struct timeval patience = { PARTING_MS / 1000, PARTING_MS % 1000 * 1000 };

	if (!amqp->connection)
		return;
	amqp_set_rpc_timeout(amqp->connection, &patience);
	(void)amqp_connection_close(amqp->connection, AMQP_REPLY_SUCCESS);
	amqp_unlink(amqp);
}

/* ---- what the server says -------------------------------------------------------------------------------------- */

static void take_blocked(struct amqp_backend *amqp, const amqp_connection_blocked_t *blocked)
{
	amqp_bytes_t why = blocked->reason;

	if (!why.len)
		why = amqp_cstring_bytes("it does not say why");
	snprintf(amqp->blocked, sizeof amqp->blocked, "%.*s", (int)(why.len < 100 ? why.len : 100),
		 (const char *)why.bytes);
}

enum evbus_code amqp_receive(struct amqp_backend *amqp, int timeout_ms, const char *doing, amqp_frame_t *frame,
			     bool *came, struct evbus_err *err)
{
	const struct timeval patience = { timeout_ms / 1000, timeout_ms % 1000 * 1000 };

	*came = false;
	amqp_maybe_release_buffers(amqp->connection);
	int status = amqp_simple_wait_frame_noblock(amqp->connection, frame, &patience);
	if (status == AMQP_STATUS_TIMEOUT)
		return EVBUS_OK;
	if (status != AMQP_STATUS_OK)
		return amqp_failed(amqp, status, doing, err);
	*came = true;
	if (frame->frame_type != AMQP_FRAME_METHOD)
		return EVBUS_OK;
	switch (frame->payload.method.id) {
	case AMQP_CONNECTION_CLOSE_METHOD:
	case AMQP_CHANNEL_CLOSE_METHOD:
		return closed(amqp, &frame->payload.method, doing, err);
	case AMQP_CONNECTION_BLOCKED_METHOD:
		take_blocked(amqp, frame->payload.method.decoded);
		return EVBUS_OK;
	case AMQP_CONNECTION_UNBLOCKED_METHOD:
		amqp->blocked[0] = '\0';
		return EVBUS_OK;
	default:
		return EVBUS_OK;
	}
}
