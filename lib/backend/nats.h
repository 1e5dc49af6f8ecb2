/* nats.h: what the files of the backend nats share: nats.c (the bus, failures), nats_link.c (connections), nats_topic.c
 * (streams), nats_message.c (headers), nats_consumer.c and nats_read.c (reading), nats_write.c (publishing). */
#ifndef EVBUS_BACKEND_NATS_H
#define EVBUS_BACKEND_NATS_H

#include "backend.h"
#include "backend/message.h"
#include "backend/url.h"

#include <nats/nats.h>
#include <pthread.h>

#define NATS_SLICE_MS 100 /* waiting longer than this, it is asked whether to go on */
#define STREAM_NAME_MAX 256u /* with the NUL: what nats-server takes */
#define SUBJECT_MAX 512u

/* A connection to publish by. It does not connect again by itself: whoever publishes by it has to know what of his was
 * sent before, and what will not be. */
struct nats_link {
	natsConnection *connection;
	unsigned users;
};

struct nats_backend {
	struct backend base;
	struct url url;
	pid_t process; /* in a forked child there are no threads that could answer */
	bool no_create;
	bool signs; /* the nonce of a server, to log in */
	int timeout_ms;
	uint64_t replicas, window_s; /* of streams that are made here */
	const char *prefix;
	const char *stream; /* of somebody else; NULL: each partition has one of its own */
	const char *only_topic; /* what that is called; and where to publish, NULL: where the stream listens */
	const char *subject;
	natsOptions *options;
	natsConnection *connection; /* NULL: not yet */
	jsCtx *streams;
	pthread_mutex_t mutex; /* of these two: each publisher may have a thread */
	struct nats_link *link; /* the one that was made last; NULL: none */
	struct buf graves; /* of natsSubscription *: ended, and perhaps still in use by the library */
};

struct nats_topic {
	struct backend_topic base;
	struct nats_backend *nats;
	int64_t created_ns; /* the stream of partition 0 */
	int64_t window_ms; /* so long the server knows the id of a message again */
	char name[EVBUS_TOPIC_MAX_BYTES + 1], log_id[33];
	char subject[SUBJECT_MAX]; /* of a stream of somebody else; "": it listens to none that is one */
};

/* A partition's. */
struct nats_place {
	char stream[STREAM_NAME_MAX], subject[SUBJECT_MAX];
};

extern const struct backend_ops backend_nats;

static inline int64_t nats_now_ms(void)
{
	return os_monotonic_us() / 1000;
}

static inline struct nats_backend *nats_of(struct backend *backend)
{
	return (struct nats_backend *)(void *)backend;
}

static inline const struct nats_topic *nats_topic_of(const struct backend_topic *topic)
{
	return (const struct nats_topic *)(const void *)topic;
}

/* The failure of a call of libnats, which the server or the connection may have given the reason for. */
enum evbus_code nats_failed(const struct nats_backend *nats, natsStatus status, jsErrCode why, struct evbus_err *err,
			    const char *format, ...) __attribute__((format(printf, 5, 6)));

/* ---- what is not permitted ----
 *
 * The server says so beside, to the connection, and to the question nobody answers. */

/* Whether it has said so of this subject, of one of the API with this stream in it, of one with this and more where it ends
 * with a dot, or of where answers are heard. */
bool nats_denied(natsConnection *connection, const char *what);

/* Of the server's API. It is waited for shortly, and then again until the time-out, unless it is not permitted:
 *
 *	nats_question_begin(nats, &question);
 *	do
 *		status = js_Something(..., &question.options, &why);
 *	while (nats_question_again(nats, &question, stream, &status)); */
struct nats_question {
	jsOptions options;
	int64_t end_ms;
	bool repeated;
};

void nats_question_begin(const struct nats_backend *nats, struct nats_question *question);
bool nats_question_again(const struct nats_backend *nats, struct nats_question *question, const char *what,
			 natsStatus *status);

/* ---- connections ---- */

/* Signals are for the threads of the program: those of libnats inherit what is blocked where they are made. */
natsStatus nats_connect(const struct nats_backend *nats, natsConnection **connection);

/* How often the connection was made anew. What was asked for before may have been lost. */
uint64_t nats_reconnects(const struct nats_backend *nats);

/* One that is connected, made within timeout_ms where there is none; to be given back. */
CHECKED enum evbus_code nats_link_take(struct nats_backend *nats, int64_t timeout_ms, struct nats_link **link,
				       struct evbus_err *err);
void nats_link_give(struct nats_backend *nats, struct nats_link *link);

/* With the bus. */
void nats_link_close(struct nats_backend *nats);
void nats_subscriptions_close(struct nats_backend *nats);

/* Ends a subscription; NULL: there is none. */
void nats_unsubscribe(struct nats_backend *nats, natsConnection *connection, natsSubscription *subscription);

/* ---- topics ---- */

/* EVBUS_NONE: there is no such partition. */
CHECKED enum evbus_code nats_place_of(const struct backend_topic *topic, int32_t partition, struct nats_place *place,
				      struct evbus_err *err);
/* What the server knows of a stream; to be destroyed. EVBUS_NONE: it is not there. */
CHECKED enum evbus_code nats_look(const struct nats_backend *nats, const char *stream, jsStreamInfo **info,
				  struct evbus_err *err);
void nats_look_done(jsStreamInfo **info);

enum evbus_code nats_topic_open(struct backend *backend, const char *name, struct backend_topic **topic,
				struct evbus_err *err);
enum evbus_code nats_topic_create(struct backend *backend, const char *name, const struct evbus_topic_options *options,
				  struct backend_topic **topic, bool *created, struct evbus_err *err);
void nats_topic_close(struct backend_topic *topic);
enum evbus_code nats_topic_keep(const struct backend_topic *topic, struct evbus_err *err);
enum evbus_code nats_topic_check(struct backend_topic *topic, const char *doing, struct evbus_err *err);
enum evbus_code nats_topic_names(struct backend *backend, const char *pattern, char ***names, struct evbus_err *err);

/* ---- messages ---- */

/* To be destroyed. id: Nats-Msg-Id. */
CHECKED enum evbus_code nats_message_make(const struct message *message, const char *subject, const char *reply,
					  const char *id, natsMsg **made, struct evbus_err *err);
/* About how many bytes it is, with its headers; never fewer. */
size_t nats_message_size(const struct message *message);
/* What the server says of a message that a consumer delivers. */
struct nats_delivery {
	uint64_t sequence, number; /* in the stream; and of the deliveries of this consumer, from 1 */
	uint64_t pending; /* messages behind it, as it was delivered */
	int64_t time_us; /* when it was stored */
};

/* false: it is none; the server says something. */
bool nats_message_place(natsMsg *made, struct nats_delivery *delivery);

/* Whether its payload is what was published, where it says what that was. */
bool nats_message_is_whole(natsMsg *made);

/* Offset and time are there already, as the server has them; the latter gives way to its own. It lives in made and
 * room. */
CHECKED enum evbus_code nats_message_read(natsMsg *made, struct buf *room, struct message *message,
					  struct evbus_err *err);

/* ---- the consumer of a reader ---- */

struct nats_reader {
	struct partition_reader base;
	struct nats_backend *nats;
	struct nats_place place;
	int64_t created_ns;
	uint64_t records, bytes; /* when it was last looked */
	int64_t last_us;
	bool first_is_new; /* it was looked since messages were last asked for */
	size_t chunk;
	natsSubscription *deliveries; /* of the consumer; NULL: there is none */
	natsInbox *inbox;
	char *consumer;
	uint64_t reconnects; /* when it was made */
	uint64_t number; /* of the delivery that came last */
	unsigned asked;
	bool refused; /* while it was waited, the server said that it may not be asked */
	bool large; /* a message does not fit into what is usually asked for */
	natsMsg *held; /* it came, and was not given out yet */
	uint64_t doubted; /* sequence of one that was not whole, and is read again */
	struct nats_delivery delivery; /* its */
	struct buf line, room;
};

void nats_drop_held(struct nats_reader *reader);
void nats_consumer_close(struct nats_reader *reader);
/* from_us: from that time on; INT64_MIN: from `next`. *pending: how many there are from there on. */
CHECKED enum evbus_code nats_consumer_open(struct nats_reader *reader, int64_t from_us, uint64_t *pending,
					   struct evbus_err *err);
CHECKED enum evbus_code nats_ask(struct nats_reader *reader, struct evbus_err *err);
/* Takes what comes within this time, where nothing is held. *came: something did, if only an answer. */
CHECKED enum evbus_code nats_take(struct nats_reader *reader, int64_t timeout_ms, bool *came, struct evbus_err *err);
/* Whether the server has said that messages may not be asked for. */
bool nats_may_not_ask(const struct nats_reader *reader);
/* Holds the next message; *none: there is none of those that were there. from_us: as above. */
CHECKED enum evbus_code nats_hold_next(struct nats_reader *reader, int64_t from_us, bool *none, struct evbus_err *err);
enum evbus_code nats_cannot_read(const struct nats_reader *reader, natsStatus status, jsErrCode why,
				 struct evbus_err *err);
enum evbus_code nats_was_removed(const struct nats_reader *reader, struct evbus_err *err);

/* ---- reading and writing: as backend.h has them ---- */

enum evbus_code nats_reader_open(const struct backend_topic *topic, int32_t partition, size_t chunk, bool ahead,
				 struct partition_reader **base, struct evbus_err *err);
void nats_reader_close(struct partition_reader *base);
enum evbus_code nats_seek(struct partition_reader *base, uint64_t position, struct evbus_err *err);
enum evbus_code nats_seek_time(struct partition_reader *base, int64_t time_us, struct evbus_err *err);
enum evbus_code nats_next(struct partition_reader *base, uint64_t end, struct line *line, bool *got,
			  struct evbus_err *err);
enum evbus_code nats_refresh(struct partition_reader *base, struct evbus_err *err);
bool nats_wait(const struct partition_reader *base, int timeout_ms);
enum evbus_code nats_bytes_left(const struct partition_reader *base, uint64_t *bytes, struct evbus_err *err);
enum evbus_code nats_describe(struct partition_reader *base, struct evbus_partition_info *info, struct evbus_err *err);

enum evbus_code nats_writer_open(const struct backend_topic *topic, int32_t partition, const struct waiter *waiter,
				 struct partition_writer **base, struct evbus_err *err);
void nats_writer_close(struct partition_writer *base);
enum evbus_code nats_append(struct partition_writer *base, struct group *group, uint64_t expect, struct evbus_err *err);
enum evbus_code nats_commit(struct partition_writer *base, struct group *group, struct evbus_err *err);

#endif
