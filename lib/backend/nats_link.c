/* nats_link.c: connections, and when what libnats has of them may go. */
#include "backend/nats.h"

#include <errno.h>
#include <signal.h>

#define SIGNED_LOGINS_MAX 3

/* ---- the link -------------------------------------------------------------------------------------------------- */

/* libnats leaves out a signature that begins with a zero, one of 256 (seen with 3.4.1): with the next nonce it is another. */
natsStatus nats_connect(const struct nats_backend *nats, natsConnection **connection)
{
	sigset_t all, before;
	int logins = nats->signs ? SIGNED_LOGINS_MAX : 1;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	natsStatus status = natsConnection_Connect(connection, nats->options);
	while (status == NATS_CONNECTION_AUTH_FAILED && --logins > 0)
		status = natsConnection_Connect(connection, nats->options);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return status;
}

static void drop_link(struct nats_link *link)
{
	natsConnection_Destroy(link->connection);
	free(link);
}

static enum evbus_code make_link(struct nats_backend *nats, int64_t timeout_ms, struct evbus_err *err)
{
	struct nats_link *link = os.realloc(NULL, sizeof *link);

	if (!link)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot connect");
	*link = (struct nats_link){ 0 };
	natsStatus status = natsOptions_SetAllowReconnect(nats->options, false);
	if (status == NATS_OK)
		status = natsOptions_SetTimeout(nats->options, timeout_ms > 0 ? timeout_ms : 1);
	if (status == NATS_OK)
		status = nats_connect(nats, &link->connection);
	if (status != NATS_OK) {
		free(link);
		return nats_failed(nats, status, 0, err, "cannot connect");
	}
	nats->link = link;
	return EVBUS_OK;
}

void nats_link_close(struct nats_backend *nats)
{
	if (nats->link)
		drop_link(nats->link);
}

enum evbus_code nats_link_take(struct nats_backend *nats, int64_t timeout_ms, struct nats_link **link,
			       struct evbus_err *err)
{
	enum evbus_code code = EVBUS_OK;

	pthread_mutex_lock(&nats->mutex);
	if (nats->link && natsConnection_IsClosed(nats->link->connection)) {
		if (!nats->link->users)
			drop_link(nats->link);
		nats->link = NULL;
	}
	if (!nats->link)
		code = make_link(nats, timeout_ms, err);
	if (nats->link) {
		nats->link->users++;
		*link = nats->link;
	}
	pthread_mutex_unlock(&nats->mutex);
	return code;
}

void nats_link_give(struct nats_backend *nats, struct nats_link *link)
{
	pthread_mutex_lock(&nats->mutex);
	/* The one that is in use may have another user soon. */
	if (!--link->users && link != nats->link)
		drop_link(link);
	pthread_mutex_unlock(&nats->mutex);
}

/* ---- subscriptions ---------------------------------------------------------------------------------------------- */

/* libnats 3.4 looks a subscription up, and then puts a message into it without holding on to it. So it may go only when
 * the thread that reads has come by after it was ended; where that is not seen, with the bus. */
void nats_unsubscribe(struct nats_backend *nats, natsConnection *connection, natsSubscription *subscription)
{
	if (!subscription)
		return;
	(void)natsSubscription_Unsubscribe(subscription);
	if (natsConnection_FlushTimeout(connection, NATS_SLICE_MS) == NATS_OK) {
		natsSubscription_Destroy(subscription);
		return;
	}
	pthread_mutex_lock(&nats->mutex);
	/* Where there is no memory to remember it, it stays. */
	(void)!buf_add(&nats->graves, &subscription, sizeof subscription, NULL);
	pthread_mutex_unlock(&nats->mutex);
}

void nats_subscriptions_close(struct nats_backend *nats)
{
	natsSubscription **graves = (natsSubscription **)(void *)nats->graves.data;

	for (size_t i = 0; i < nats->graves.len / sizeof(*graves); i++)
		natsSubscription_Destroy(graves[i]);
	buf_release(&nats->graves);
}

uint64_t nats_reconnects(const struct nats_backend *nats)
{
	natsStatistics *counts = NULL;
	uint64_t reconnects = 0;

	if (natsStatistics_Create(&counts) == NATS_OK && natsConnection_GetStats(nats->connection, counts) == NATS_OK)
		natsStatistics_GetCounts(counts, NULL, NULL, NULL, NULL, &reconnects);
	natsStatistics_Destroy(counts);
	return reconnects;
}
