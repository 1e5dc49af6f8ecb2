/* kinesis.h: what the files of the backend kinesis share: kinesis.c (the bus), kinesis_who.c (who asks), kinesis_call.c
 * (requests and their answers), kinesis_topic.c and kinesis_make.c (streams and their shards), kinesis_number.c (sequence
 * numbers), kinesis_record.c (events as records), kinesis_read.c, kinesis_place.c, kinesis_end.c, kinesis_fetch.c and
 * kinesis_write.c (shards). */
#ifndef EVBUS_BACKEND_KINESIS_H
#define EVBUS_BACKEND_KINESIS_H

#include "backend.h"
#include "backend/message.h"
#include "backend/url.h"
#include "base/buf.h"
#include "base/wait.h"

#include <curl/curl.h>
#include <pthread.h>
#include <string.h>

#define KINESIS_STREAM_MAX 128u /* bytes of the name of a stream, */
#define KINESIS_KEY_MAX 256u /* characters of a partition key, */
#define KINESIS_RECORD_MAX 1048576u /* bytes of a record and its key, */
#define KINESIS_CALL_RECORDS 500u /* records that a call publishes, */
#define KINESIS_CALL_BYTES 5242880u /* and their bytes */
#define KINESIS_SHARD_ID_MAX 128u

__extension__ typedef unsigned __int128 hash_key; /* of a record: the shard in whose range it lies has it */

/* ---- kinesis_who.c: credentials and region, as AWS programs find them ---- */

struct who {
	char *text; /* what the others point into */
	const char *key_id, *secret, *token; /* token NULL: none */
	const char *region; /* NULL: none is said */
};

/* Of the environment, or of a profile of the files. EVBUS_CONFIG: a file cannot be read. No credentials: key_id NULL. */
CHECKED enum evbus_code who_find(struct who *who, struct evbus_err *err);
void who_release(struct who *who);

/* ---- the bus ---- */

struct link;

struct kinesis {
	struct backend base;
	struct url url;
	void (*notice)(void *context, const char *text);
	void *notice_context;
	char *endpoint; /* "https://kinesis.REGION.amazonaws.com" */
	char *region;
	const char *prefix; /* "", or NAME */
	const char *tls_ca; /* NULL: those of the system */
	int timeout_ms;
	bool no_create;
	bool pass_expired; /* what is older than the stream keeps is passed over, and told */
	pid_t process;
	pthread_mutex_t mutex; /* of what follows */
	struct who who;
	struct link *link; /* by which the bus asks; readers and writers have their own */
};

static inline struct kinesis *kinesis_of(struct backend *backend)
{
	return (struct kinesis *)(void *)backend;
}

/* Not in a forked child, which has no business with the parent's connections. */
bool kinesis_is_here(const struct kinesis *kinesis);

/* ---- kinesis_call.c ---- */

/* A connection, and the answer to what was asked by it last. One thread uses it at a time. */
struct link {
	struct kinesis *kinesis;
	CURL *curl;
	const struct waiter *waiter; /* NULL: nobody is asked while it waits */
	struct wait wait;
	struct buf answer;
	char exception[64]; /* what the service says is wrong: "ExpiredIteratorException"; "": nothing */
	char text[256]; /* and in its words */
};

CHECKED enum evbus_code link_open(struct kinesis *kinesis, struct link **link, struct evbus_err *err);
void link_close(struct link *link);

/* What may be sent again when it is not known what became of it. */
enum call_kind {
	CALL_ASKS,
	CALL_PUBLISHES,
};

/* Has the service do that, with this JSON, and waits for its answer, an object (link->answer, which may be cut up). What
 * comes too often is asked again, within the time-out of the bus. EVBUS_NONE: there is no such thing (ResourceNotFound…);
 * EVBUS_CONFLICT: it is there or not in that state (ResourceInUse…); EVBUS_DATA: an argument is refused, or an iterator is
 * too old: link->exception; EVBUS_AGAIN with EINTR: the waiter gave up. doing: "read stream 'orders'", for the message. */
CHECKED enum evbus_code link_call(struct link *link, enum call_kind kind, const char *action, const struct buf *request,
				  struct evbus_slice *answer, struct evbus_err *err, const char *doing, ...)
	__attribute__((format(printf, 7, 8)));

/* Waits about so long before the n-th try of something (n from 0), less by chance. false: a signal came, or the waiter
 * of the link gave up. */
bool link_back_off(struct link *link, unsigned n);

/* ---- JSON: requests are written, and answers taken apart ---- */

/* Appends text; false where there is no memory. */
CHECKED enum evbus_code json_put(struct buf *out, struct evbus_err *err, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Appends bytes, in base64, as a string. */
CHECKED enum evbus_code json_base64(struct buf *out, struct evbus_slice bytes, struct evbus_err *err);
/* The member of an object; data NULL: it is not there, or null. */
struct evbus_slice json_member(struct evbus_slice object, const char *name);
/* The next element of an array; *at begins with the array. false: there is none any more. */
bool json_next(struct evbus_slice *at, struct evbus_slice *element);
/* A string without its quotes, in room, which has to be as large as it. */
struct evbus_slice json_string(struct evbus_slice value, char *room);
/* A number with fraction and exponent, times 10^6; or a decimal as it is. */
int64_t json_micros(struct evbus_slice value);

/* ---- kinesis_number.c ---- */

#define NUMBER_WORDS 14u /* 10^129 is below 2^448 */

/* A sequence number; the lowest word first. */
struct number {
	uint32_t words[NUMBER_WORDS];
};

/* false: these are no digits, or too many. */
bool number_parse(struct evbus_slice text, struct number *number);
void number_format(const struct number *number, char text[EVBUS_OFFSET_MAX_BYTES + 1]);
int number_compare(const struct number *a, const struct number *b);
void number_add(struct number *number, uint64_t more);
void number_before(struct number *number); /* less by one; it is not 0 */
/* a - b, UINT64_MAX where it is that or more. a is not below b. */
uint64_t number_minus(const struct number *a, const struct number *b);

/* The positions that stand for the sequence numbers of a shard, as long as the topic is open. */
struct numbering {
	struct numbering *following;
	int32_t shard;
	struct buf places; /* of struct numbered, in their order */
	size_t fold_at; /* how many there may be until it is worth while to fold them again */
};

#define NUMBERING_FOLDED_MAX 999u /* with the first of them, what a call gives */

struct numbered {
	uint64_t position;
	uint32_t folded; /* how many records, one right behind the other, come behind it whose numbers are not kept */
	bool is_record; /* a record stands there; else it was only asked for */
	bool follows; /* right behind the one before */
	struct number number;
};

enum number_kind {
	NUMBER_READ, /* of a record, that comes right behind the last that was read, */
	NUMBER_MET, /* of a record */
	NUMBER_ASKED, /* whatever it is */
};

/* The position of a number; where it was read, *position is that of the record before, or 0. EVBUS_AGAIN: it has to be
 * unfolded before. */
CHECKED enum evbus_code numbering_find(struct numbering *numbering, const struct number *number, enum number_kind kind,
				       uint64_t *position, struct evbus_err *err);
/* The last place that is not behind a position; NULL: there is none. *folded: it has to be unfolded before. */
const struct numbered *numbering_at(const struct numbering *numbering, uint64_t position, bool *folded);
/* The place that a number is folded behind, and the one that comes behind all of those. false: it is not folded. */
bool numbering_fold_of(const struct numbering *numbering, const struct number *number, struct numbered *first,
		       struct numbered *next);
/* Of what is folded behind a place these are left, the last ones of it. */
CHECKED enum evbus_code numbering_unfold(struct numbering *numbering, const struct numbered *first,
					 const struct number *numbers, size_t count, struct evbus_err *err);

/* ---- streams and shards ---- */

struct shard {
	int32_t number, parents[BACKEND_PARENTS];
	char id[KINESIS_SHARD_ID_MAX + 1];
	hash_key first, last;
	struct number begins;
	struct number ends; /* of a closed one: its last number */
	bool closed;
};

struct kinesis_topic {
	struct backend_topic base;
	struct kinesis *kinesis;
	char log_id[33];
	char stream[EVBUS_TOPIC_MAX_BYTES + 80]; /* base.name is the end of it */
	pthread_mutex_t mutex; /* of what follows: publishers have a thread */
	struct shard *shards; /* as base.list */
	struct backend_partition *list;
	struct numbering *numberings;
	uint32_t initial; /* how many shards it began with, for the places of keys; 0: not known yet */
};

static inline struct kinesis_topic *kinesis_topic_of(const struct backend_topic *topic)
{
	return (struct kinesis_topic *)(uintptr_t)topic;
}

/* Begins a request for the stream of a topic. */
CHECKED enum evbus_code kinesis_request(const char *stream, struct buf *request, struct evbus_err *err);
/* A copy of what is known of a shard. EVBUS_NONE: there is none of that number. */
CHECKED enum evbus_code kinesis_shard(struct kinesis_topic *topic, int32_t number, struct shard *shard,
				      struct evbus_err *err);
/* Looks again which shards there are. EVBUS_CONFLICT: they are those of another stream. */
CHECKED enum evbus_code kinesis_look_at_shards(struct kinesis_topic *topic, struct link *link, const char *doing,
					       struct evbus_err *err);
/* What a stream was made with, once. */
CHECKED enum evbus_code kinesis_initial(struct kinesis_topic *topic, uint32_t *initial, struct evbus_err *err);
/* Where a key stands, for ever, in a stream that began with so many shards. */
hash_key kinesis_place(struct evbus_slice key, uint32_t initial);
/* There, if the shard that was asked for has it; else in that shard, for this key always the same. */
hash_key kinesis_place_in(const struct shard *shard, struct evbus_slice key, uint32_t initial);
/* 39 digits at most. */
void hash_key_format(hash_key value, char text[40]);
bool hash_key_parse(struct evbus_slice text, hash_key *value);

/* The stream as it is now, or as it will be when it is made; *active: it can be used. EVBUS_NONE: it is not there. */
CHECKED enum evbus_code kinesis_summary(struct kinesis_topic *topic, bool *active, struct evbus_err *err);
CHECKED enum evbus_code kinesis_make_stream(struct kinesis_topic *topic, uint32_t shards, bool *made,
					    struct evbus_err *err);
/* Waits for it to become active. */
CHECKED enum evbus_code kinesis_await_stream(struct kinesis_topic *topic, struct evbus_err *err);
#define KINESIS_TAG "evbus-partitions"

/* ---- kinesis_record.c ---- */

/* Appends what a record's data is of an event, not in base64. */
CHECKED enum evbus_code record_make(const struct message *message, struct buf *data, struct evbus_err *err);
/* The partition key of its record; it is that of the event, or one in its place, and lives in room. */
struct evbus_slice record_key(const struct message *message, char room[8]);
/* The event of a record's data and partition key; time_us is that of its arrival. Slices point into data and room. */
CHECKED enum evbus_code record_read(struct evbus_slice data, struct evbus_slice key, int64_t time_us, struct buf *room,
				    struct message *message, struct evbus_err *err);

/* ---- kinesis_fetch.c ---- */

/* Records of a shard, as they come. */
struct fetch {
	struct kinesis_topic *topic;
	struct link *link;
	struct shard shard;
	struct buf iterator; /* "": none */
	unsigned limit; /* of records at once */
	struct evbus_slice rest; /* of the records of the last answer: what was not taken yet */
	struct evbus_slice all; /* all of them */
	bool caught_up; /* behind the last answer nothing more is there now, */
	bool ended; /* or ever */
	int64_t idle_us; /* when the service last had nothing; 0: it had, or was not asked */
};

/* One record, whose texts are JSON. */
struct fetched {
	struct evbus_slice text, data, key, number;
	struct number sequence;
	int64_t arrived_us;
};

/* Where to begin. */
enum fetch_from {
	FROM_FIRST,
	FROM_TIME,
	FROM_AT,
	FROM_AFTER,
};

/* EVBUS_DATA: it is not a number of the shard. */
CHECKED enum evbus_code fetch_begin(struct fetch *fetch, enum fetch_from from, const struct number *number,
				    int64_t time_us, struct evbus_err *err);
/* Asks for more. EVBUS_DATA: the iterator has become too old. */
CHECKED enum evbus_code fetch_more(struct fetch *fetch, struct evbus_err *err);
/* The next of what was fetched. false: there is none. */
bool fetch_next(struct fetch *fetch, struct fetched *fetched);
void fetch_release(struct fetch *fetch);

/* ---- kinesis_read.c, kinesis_place.c and kinesis_end.c ---- */

struct kinesis_reader {
	struct partition_reader base;
	struct fetch fetch;
	bool begun; /* there is an iterator, and what comes by it comes behind `next`, */
	bool jumped; /* and not right behind what is known */
	bool unsure; /* whether what is expected to come first is there still */
	struct number expected;
	struct fetched held; /* the next one, where it is known, */
	bool holds;
	uint64_t
		held_at; /* and its position; of the one before, where none is held; 0: there was none by this iterator */
	struct number last; /* the last that was there when it was looked, */
	int64_t last_us; /* when it had come; 0: none was met yet */
	struct numbering *numbering;
	struct buf data, room, text;
};

CHECKED enum evbus_code kinesis_position(struct kinesis_reader *reader, const struct number *number,
					 enum number_kind kind, uint64_t *position, struct evbus_err *err);
/* Finds those of its shard. */
CHECKED enum evbus_code kinesis_numbering(struct kinesis_reader *reader, struct evbus_err *err);
/* An iterator for `next`. */
CHECKED enum evbus_code kinesis_begin(struct kinesis_reader *reader, struct evbus_err *err);
/* By the first that came by it (NULL: nothing is there). EVBUS_NONE: what it began with has expired. */
CHECKED enum evbus_code kinesis_check_begun(struct kinesis_reader *reader, const struct fetched *first,
					    struct evbus_err *err);
void kinesis_remember_last(struct kinesis_reader *reader, const struct fetched *fetched);
/* The end is behind the last that is remembered. */
CHECKED enum evbus_code kinesis_set_end(struct kinesis_reader *reader, struct evbus_err *err);
CHECKED enum evbus_code kinesis_look_for_end(struct kinesis_reader *reader, struct evbus_err *err);
/* The shard is known to be closed: its end is what its list says. */
CHECKED enum evbus_code kinesis_close_shard(struct kinesis_reader *reader, struct evbus_err *err);
/* It was read to its end, behind which nothing comes. */
CHECKED enum evbus_code kinesis_learn_closed(struct kinesis_reader *reader, struct evbus_err *err);

/* ---- of struct backend_ops ---- */

extern const struct backend_ops backend_kinesis;

enum evbus_code kinesis_topic_open(struct backend *backend, const char *name, struct backend_topic **topic,
				   struct evbus_err *err);
enum evbus_code kinesis_topic_create(struct backend *backend, const char *name,
				     const struct evbus_topic_options *options, struct backend_topic **topic,
				     bool *created, struct evbus_err *err);
void kinesis_topic_close(struct backend_topic *base);
enum evbus_code kinesis_topic_keep(const struct backend_topic *topic, struct evbus_err *err);
enum evbus_code kinesis_topic_check(struct backend_topic *topic, const char *doing, struct evbus_err *err);
enum evbus_code kinesis_topic_names(struct backend *backend, const char *pattern, char ***names, struct evbus_err *err);
enum evbus_code kinesis_partition_of(const struct backend_topic *base, struct evbus_slice key, int32_t *partition,
				     struct evbus_err *err);

enum evbus_code kinesis_reader_open(const struct backend_topic *topic, int32_t partition, size_t chunk, bool ahead,
				    struct partition_reader **base, struct evbus_err *err);
void kinesis_reader_close(struct partition_reader *base);
enum evbus_code kinesis_seek(struct partition_reader *base, uint64_t position, struct evbus_err *err);
enum evbus_code kinesis_seek_time(struct partition_reader *base, int64_t time_us, struct evbus_err *err);
enum evbus_code kinesis_next(struct partition_reader *base, uint64_t end, struct line *line, bool *got,
			     struct evbus_err *err);
enum evbus_code kinesis_refresh(struct partition_reader *base, struct evbus_err *err);
bool kinesis_wait(const struct partition_reader *base, int timeout_ms);
enum evbus_code kinesis_bytes_left(const struct partition_reader *reader, uint64_t *bytes, struct evbus_err *err);
enum evbus_code kinesis_describe(struct partition_reader *base, struct evbus_partition_info *info,
				 struct evbus_err *err);
enum evbus_code kinesis_offset_text(const struct partition_reader *base, uint64_t position,
				    char text[EVBUS_OFFSET_MAX_BYTES + 1], struct evbus_err *err);
enum evbus_code kinesis_offset_find(struct partition_reader *base, struct evbus_slice text, uint64_t *position,
				    struct evbus_err *err);

enum evbus_code kinesis_writer_open(const struct backend_topic *topic, int32_t partition, const struct waiter *waiter,
				    struct partition_writer **base, struct evbus_err *err);
void kinesis_writer_close(struct partition_writer *base);
enum evbus_code kinesis_append(struct partition_writer *base, struct group *group, uint64_t expect,
			       struct evbus_err *err);
enum evbus_code kinesis_commit(struct partition_writer *base, struct group *group, struct evbus_err *err);

#endif
