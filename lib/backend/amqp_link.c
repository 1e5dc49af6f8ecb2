/* amqp_link.c: the connection of a bus to its server: whether it is there, what comes over it, and how it fails.
 *
 * There is one, with one channel in confirm mode, for whoever publishes. */
#include "backend/amqp_bus.h"

#define PARTING_MS 1000

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

enum evbus_code amqp_closed(const struct amqp_backend *amqp, const amqp_method_t *method, const char *doing,
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

/* ---- there and gone -------------------------------------------------------------------------------------------- */

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

enum evbus_code amqp_link(struct amqp_backend *amqp, const struct waiter *waiter, struct evbus_err *err)
{
	if (is_there(amqp))
		return EVBUS_OK;
	amqp->published = 0;
	amqp->blocked[0] = '\0';
	TRY(amqp_connect(amqp, waiter, &amqp->connection, err));
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
		return amqp_closed(amqp, &frame->payload.method, doing, err);
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
