/* amqp_bus.h: what the files of the target amqp share: amqp.c (options, topics, what cannot be read), amqp_connect.c
 * (connecting), amqp_link.c (the connection, failures), amqp_message.c (properties), amqp_write.c (publishing). */
#ifndef EVBUS_BACKEND_AMQP_BUS_H
#define EVBUS_BACKEND_AMQP_BUS_H

#include "backend.h"
#include "backend/message.h"
#include "backend/url.h"
#include "base/wait.h"

#include <amqp.h>
#include <pthread.h>
#include <stdatomic.h>

#define AMQP_CHANNEL 1
#define AMQP_SLICE_MS 100 /* waiting longer than this, it is asked whether to go on */
#define AMQP_SHORT_MAX 255u /* bytes of a "short string", as names, keys and ids are */
#define AMQP_HEADERS_MAX 10

struct amqp_backend {
	struct backend base;
	struct url url;
	pid_t process; /* in a forked child the connection is the parent's */
	atomic_uint holders; /* who opened it, and each attempt to connect that goes on */
	struct waiter waiter; /* whom to ask while it connects for nobody else */
	bool tls;
	int timeout_ms;
	uint64_t window; /* so many messages are sent before the first of them is confirmed */
	char *host, *password_text; /* that of a file */
	int port;
	const char *user, *password, *vhost, *exchange, *routing_key; /* the last NULL: the topic */
	const char *tls_ca, *tls_cert, *tls_key;
	pthread_mutex_t mutex; /* of what follows: each publisher may have a thread */
	amqp_connection_state_t connection; /* NULL: there is none */
	uint64_t published; /* messages on its channel; the last one's number */
	bool was_connected; /* once */
	char blocked[128]; /* why the server takes nothing now; "": it does */
};

static inline int64_t amqp_now_ms(void)
{
	return os_monotonic_us() / 1000;
}

static inline struct amqp_backend *amqp_of(struct backend *backend)
{
	return (struct amqp_backend *)(void *)backend;
}

extern const struct backend_ops backend_amqp;

static inline void amqp_hold(struct amqp_backend *amqp)
{
	atomic_fetch_add(&amqp->holders, 1);
}

/* The last one frees it. */
void amqp_release(struct amqp_backend *amqp);

/* ---- the connection: with the mutex held ---- */

/* Connects within the time-out where that is not done, or where the server has closed it since. EVBUS_AGAIN: the waiter
 * gave up. */
CHECKED enum evbus_code amqp_link(struct amqp_backend *amqp, const struct waiter *waiter, struct evbus_err *err);
/* A new connection, logged in, with its channel in confirm mode. */
CHECKED enum evbus_code amqp_connect(struct amqp_backend *amqp, const struct waiter *waiter,
				     amqp_connection_state_t *connection, struct evbus_err *err);
void amqp_unlink(struct amqp_backend *amqp);
/* In order, after which nothing is on its way. */
void amqp_part(struct amqp_backend *amqp);

/* What comes within this time. *came: something did. A failure is the connection's, or what the server has closed it or
 * the channel for; `doing` stands before its text. What it says of memory and disk goes to amqp->blocked. */
CHECKED enum evbus_code amqp_receive(struct amqp_backend *amqp, int timeout_ms, const char *doing, amqp_frame_t *frame,
				     bool *came, struct evbus_err *err);
/* What the server has closed the connection or the channel for. */
enum evbus_code amqp_closed(const struct amqp_backend *amqp, const amqp_method_t *method, const char *doing,
			    struct evbus_err *err);
/* The failure of a call of librabbitmq. */
enum evbus_code amqp_failed(const struct amqp_backend *amqp, int status, const char *doing, struct evbus_err *err);

/* ---- messages ---- */

/* Of what a message has beside its body. */
struct amqp_properties {
	amqp_basic_properties_t basic;
	amqp_table_entry_t headers[AMQP_HEADERS_MAX];
	char time[TIME_TEXT_LEN], returns[16];
	char id[AMQP_SHORT_MAX], type[AMQP_SHORT_MAX], correlation[AMQP_SHORT_MAX];
};

/* They live in *properties, the message and the name of the topic. */
void amqp_describe(const struct message *message, const char *topic, struct amqp_properties *properties);

/* ---- publishing: as backend.h has it ---- */

enum evbus_code amqp_writer_open(const struct backend_topic *topic, int32_t partition, const struct waiter *waiter,
				 struct partition_writer **base, struct evbus_err *err);
void amqp_writer_close(struct partition_writer *base);
enum evbus_code amqp_append(struct partition_writer *base, struct group *group, uint64_t expect, struct evbus_err *err);
enum evbus_code amqp_commit(struct partition_writer *base, struct group *group, struct evbus_err *err);

/* A topic is a name. */
struct amqp_topic {
	struct backend_topic base;
	struct amqp_backend *amqp;
	char name[EVBUS_TOPIC_MAX_BYTES + 1];
};

#endif
