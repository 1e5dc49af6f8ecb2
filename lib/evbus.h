/* evbus.h: a durable event bus in plain files.
 *
 * A complete program. It publishes one event and prints where it is:
 *
 *	#include <evbus.h>
 *	#include <stdio.h>
 *
 *	int main(void)
 *	{
 *		struct evbus *bus;
 *		struct evbus_err err;
 *		const struct evbus_record *receipt;
 *
 *		if (evbus_open("file:event_bus", NULL, &bus, &err) ||
 *		    evbus_publish(bus, "orders", "{\"id\":\"1\"}", &receipt, &err))
 *			return fprintf(stderr, "%s\n", err.text), (int)err.code;
 *		printf("durable at offset %.*s\n", (int)receipt->offset.len, receipt->offset.data);
 *		evbus_close(bus);
 *	}
 *
 *	cc hello.c $(pkg-config --cflags --libs evbus)
 *
 * The rules that hold for every call:
 *
 * - A call that can fail returns an enum evbus_code, 0 for success, and says in *err what failed, where, and what to
 *   do. The codes are the exit statuses of the evbus program. Outputs are written only on success.
 * - A handle (bus, publisher, reader, claim) belongs to one thread at a time and to the process that opened it: in a
 *   forked child every call on it fails with EVBUS_BUG, except close. A child that does not exec should close it: until
 *   then it keeps the locks of a parent that dies. One handle a thread is enough; as many as one likes may be open, in
 *   one process or in many.
 * - What was opened with a bus is closed before the bus, each at any time. Closing NULL does nothing.
 * - err may be NULL, and so may options in which nothing has to be said: those of a bus, a configuration, a topic, a
 *   publisher, an outbox, a drain. Any other pointer may be NULL only where its call says so.
 * - Slices are not NUL-terminated and belong to the handle that gave them out; each call says how long they live.
 * - The library keeps no global state but the buses memory:NAME, writes nothing to stdout or stderr, installs no signal
 *   handler and never exits.
 *   What an operator should hear of (a topic was made, a torn write was cut off) goes to options.notice.
 */
#ifndef EVBUS_H
#define EVBUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EVBUS_API __attribute__((visibility("default")))
#define EVBUS_CHECKED __attribute__((visibility("default"), warn_unused_result))

/* ---- errors ---------------------------------------------------------------------------------------------------- */

/* The values are exit statuses (sysexits.h where it has one). */
enum evbus_code {
	EVBUS_OK = 0,
	EVBUS_NO = 1,              /* it ran, and the answer is no: damage was found, some items failed */
	EVBUS_USAGE = 64,          /* an argument is not of its form */
	EVBUS_DATA = 65,           /* the event is not one JSON object, too large, … */
	EVBUS_NONE = 66,           /* no such topic, partition, group or row */
	EVBUS_UNAVAILABLE = 69,    /* the backend cannot be reached, or another machine has it */
	EVBUS_BUG = 70,            /* a mistake of ours, or a handle used in a forked child */
	EVBUS_CANTCREATE = 73,     /* a file or directory could not be made */
	EVBUS_IO = 74,             /* I/O error, disk full, damaged data */
	EVBUS_AGAIN = 75,          /* held by somebody else, or timed out: try again */
	EVBUS_CONFLICT = 76,       /* unexpected position, or a log that was cut, restored or replaced */
	EVBUS_PERMISSION = 77,     /* not allowed */
	EVBUS_CONFIG = 78,         /* a bad URL or option, a file system that cannot do it */
};

/* Owned by the caller; no initialisation needed. text: one line without a full stop, at most 511 bytes. */
struct evbus_err {
	enum evbus_code code;
	int sys_errno;             /* errno of the call that failed, or 0 */
	uint32_t column;           /* of a payload that was refused: the byte, counted from 1, that cannot be; else 0 */
	char text[512];
};

struct evbus_slice {
	const char *data;          /* NULL where there is nothing */
	size_t len;
};

/* ---- the bus --------------------------------------------------------------------------------------------------- */

struct evbus;

#define EVBUS_PAYLOAD_MAX_BYTES (1024u * 1024u)     /* default; settable up to 3 MiB, as a line is below 4 MiB */
#define EVBUS_SEGMENT_MAX_BYTES (1024u * 1024u * 1024u)
#define EVBUS_PARTITIONS_MAX 1024
#define EVBUS_TOPIC_MAX_BYTES 249
#define EVBUS_KEY_MAX_BYTES 1024        /* of a partition key, and of an event key */
#define EVBUS_TENANT_MAX_BYTES 256      /* where it is part of what an event is known by */
#define EVBUS_DEPTH_MAX 128
#define EVBUS_OFFSET_MAX_BYTES 129      /* decimal digits: a sequence number of Kinesis is below 10^129 */

struct evbus_options {
	const char *store;         /* URL of the store, "sqlite:FILE" or "postgresql://…"; NULL: <root>/.evbus/state.db;
	                              for what is on servers $XDG_STATE_HOME/evbus/state.db (~/.local/state); for
	                              memory: none, which consuming and checkpoints need */
	bool no_create;            /* a bus or topic that is not there is EVBUS_NONE instead of being made */
	uint32_t file_mode;        /* of what is made, 0 for 0600; directories add x where this has r */
	uint32_t payload_max_bytes;/* 0: EVBUS_PAYLOAD_MAX_BYTES */
	const struct evbus_config *config;     /* its partitionings hold for events with neither partition nor key; NULL:
	                              none. It must live as long as the bus. Nothing else of it is used */
	void (*notice)(void *context, const char *text);    /* one line; called from the calling thread or the publisher's */
	void *notice_context;
	bool (*go_on)(void *context); /* asked about every 100 ms while RabbitMQ is connected to, from that thread; false:
	                              EVBUS_AGAIN (sys_errno EINTR). NULL: do not ask. A publisher asks its own */
	void *go_on_context;
};

/* url: "file:DIR" or a plain path; "memory:", for this handle alone, or "memory:NAME", the one of that name of this
 * process ("?bytes=N": what each partition keeps, 16 MiB if it is not said; then the oldest records go). Opening makes
 * nothing: publishing does. */
EVBUS_CHECKED enum evbus_code evbus_open(const char *url, const struct evbus_options *options, struct evbus **bus,
					 struct evbus_err *err);
EVBUS_API void evbus_close(struct evbus *bus);
EVBUS_API const char *evbus_version(void);

/* Whether it only takes events, as RabbitMQ does (amqp:). Whatever reads fails with EVBUS_CONFIG there, and so does
 * publishing idempotently; receipts have no offset, and topics one partition. */
EVBUS_API bool evbus_is_target(const struct evbus *bus);
/* The same of a URL, by its scheme, before anything is opened. */
EVBUS_API bool evbus_names_target(const char *url);

/* The backends that there are, counted from 0: the scheme of its URLs, NULL behind the last. *there: it is built in, or its
 * module is installed. */
EVBUS_API const char *evbus_backend(size_t index, bool *there);
/* The same of what can be a store: "sqlite", "postgres". */
EVBUS_API const char *evbus_store_kind(size_t index, bool *there);

/* ---- configuration --------------------------------------------------------------------------------------------- */

/* What a YAML file says, evbus-config(5): settings, which are texts under names; outboxes under names; and
 * partitionings, which say by which members the events of a topic get their key. A profile is a part of the file that
 * beats the rest. All of it may be read, and nothing changed; it lives until evbus_config_close(). */

struct evbus_setting {
	const char *name;          /* as it stands in options.settings */
	const char *value;         /* as it was written, and for who knows the setting to check */
	uint32_t line, column;     /* of the value, counted from 1 */
	bool of_profile;
};

struct evbus_outbox_setting {
	const char *name;
	const char *url, *map;     /* for evbus_outbox_open(); NULL where they are not said */
	bool wrap;
	uint32_t line, column;
	bool of_profile;
};

struct evbus_partitioning {
	const char *name;
	const char *const *topics; /* names or patterns; ends with NULL */
	const char *key_from;      /* "/merchant_id,/event_id" */
	uint32_t line, column;
	bool of_profile;
};

struct evbus_config {
	const char *path;
	const char *profile;       /* that was chosen, or NULL */
	const struct evbus_setting *settings;
	size_t setting_count;
	const struct evbus_outbox_setting *outboxes;
	size_t outbox_count;
	const struct evbus_partitioning *partitionings;    /* the first that has a topic is the one for it */
	size_t partitioning_count;
};

struct evbus_config_options {
	const char *path;          /* "/dev/null": none. NULL: the first that is there of ./evbus.yaml,
	                              $XDG_CONFIG_HOME/evbus/config.yaml (~/.config), /etc/evbus/config.yaml */
	const char *profile;       /* NULL: none */
	const char *const *settings;       /* names that there may be beside bus and store; NULL at the end; or NULL */
};

/* *config is NULL where no file was named and none is found. EVBUS_CONFIG: the file that was named is not there, it is not
 * regular, is larger than 1 MiB, may be written by everybody, or was found and belongs to another user; there is no such
 * profile; or something in the file is wrong, chosen or not: then the text begins with FILE:LINE:COLUMN. */
EVBUS_CHECKED enum evbus_code evbus_config_open(const struct evbus_config_options *options, struct evbus_config **config,
						struct evbus_err *err);
EVBUS_API void evbus_config_close(struct evbus_config *config);

/* ---- topics ---------------------------------------------------------------------------------------------------- */

struct evbus_topic_options {
	uint32_t partitions;       /* 0 for 1; at most EVBUS_PARTITIONS_MAX */
	uint64_t segment_max_bytes;/* the live segment is rolled before it grows beyond; 0 for EVBUS_SEGMENT_MAX_BYTES */
};

/* Makes the topic if it is not there; *created says who did it. A topic that is there with other options than those
 * that are set: EVBUS_CONFLICT. */
EVBUS_CHECKED enum evbus_code evbus_topic_create(struct evbus *bus, const char *topic,
						 const struct evbus_topic_options *options, bool *created,
						 struct evbus_err *err);

/* The topics that match a name or pattern ("*" one token, ">" the rest), sorted; NULL for all. *names ends with NULL
 * and is one block for evbus_free(). None is not an error. */
EVBUS_CHECKED enum evbus_code evbus_topic_list(struct evbus *bus, const char *pattern, char ***names,
					       struct evbus_err *err);
EVBUS_API void evbus_free(void *block);

struct evbus_partition_info {
	char log_id[33];           /* hexadecimal; another log under the same name has another one */
	uint32_t partitions;       /* how many are there: from 0 on, but where a server splits and merges them */
	int32_t partition_id;      /* which this is, */
	int32_t next_partition_id; /* and the next one that is there; -1: it is the last */
	uint64_t segment_max_bytes;/* 0: there are no segments */
	char first_offset[EVBUS_OFFSET_MAX_BYTES + 1];
	char next_offset[EVBUS_OFFSET_MAX_BYTES + 1];    /* of what is durable: where the next record will stand */
	uint64_t records;                  /* UINT64_MAX, of this and the bytes: the backend does not know */
	uint64_t bytes;
	char last_published_at_utc[28];    /* "" where there is no record */
	const char *offset_kind;
	const char *acknowledgement;       /* what a receipt means on this backend, */
	const char *idempotence;           /* and what publishing idempotently is worth there */
};
/* partition_id -1: the first that is there. */
EVBUS_CHECKED enum evbus_code evbus_topic_describe(struct evbus *bus, const char *topic, int32_t partition_id,
						   struct evbus_partition_info *info, struct evbus_err *err);

/* EVBUS_USAGE where it is not a topic (or, if pattern is set, not a pattern either). */
EVBUS_CHECKED enum evbus_code evbus_topic_check(const char *name, bool pattern, struct evbus_err *err);

/* ---- records and receipts -------------------------------------------------------------------------------------- */

/* A record; as a receipt, the record that was made durable. All slices live as long as the call that gave it says. */
struct evbus_record {
	struct evbus_slice topic;
	int32_t partition_id;
	const char *offset_kind;               /* "file_line", "memory_index"; "none" in a receipt of a target, */
	struct evbus_slice offset;             /* decimal digits; data NULL there, */
	struct evbus_slice published_at_utc;   /* 2026-01-29T12:00:00.123456Z */
	struct evbus_slice partition_key;      /* as JSON: null, or a string with its quotes */
	struct evbus_slice tenant_id;          /* these four as JSON too; data NULL where absent */
	struct evbus_slice event_key;
	struct evbus_slice batch;
	struct evbus_slice origin;
	uint32_t returns;                      /* how often it came back from the dead letters */
	bool duplicate;                        /* a receipt: it was in the log before, and this is its first receipt */
	struct evbus_slice payload;            /* byte for byte as published; of a duplicate, what is in the log */
	struct evbus_slice payload_base64;     /* of what others wrote to a server and is not one JSON object, where
	                                          payload.data is NULL: its bytes in base64, without quotes */
	struct evbus_slice members;            /* of the stored line, from "offset" to the last brace, for printing */
	struct evbus_slice stored;             /* the line as it lies, without the newline; data NULL there, as of members */
};

/* ---- publishing ------------------------------------------------------------------------------------------------ */

/* Publishes one event to a topic with one partition and waits until it is durable. payload: NUL-terminated, one JSON
 * object. receipt may be NULL; it lives until the next call on the bus. */
EVBUS_CHECKED enum evbus_code evbus_publish(struct evbus *bus, const char *topic, const char *payload,
					    const struct evbus_record **receipt, struct evbus_err *err);

struct evbus_publisher;

#define EVBUS_PARTITION_ANY (-1)

struct evbus_publisher_options {
	bool atomic;               /* all that is added before a flush, or nothing: at most 4 MiB, one partition */
	const char *expect_offset; /* append only if this is the next offset, else EVBUS_CONFLICT; NULL: do not ask */
	const char *key_from;      /* JSON pointers, "/merchant_id,/event_id": the first that is there is the key */
	bool idempotent;           /* an event whose tenant and event key are in the topic already is not appended again:
	                              it gets the receipt of the first, with `duplicate` set. EVBUS_DATA: it has no key.
	                              Where topics are not files, two that publish one key at the same time to different
	                              partitions may both append it; a backend may promise less (evbus-backends(7)) */
	const char *event_key_from;/* JSON pointers to the event key; NULL: as evbus_envelope_read() has it */
	bool (*go_on)(void *context); /* asked about every 100 ms while another process is waited for: one that
	                                      publishes idempotently to the topic, or one that has held a lock of the
	                                      partition for more than a second. false fails the publisher with
	                                      EVBUS_AGAIN (sys_errno EINTR): nothing of what it waited with has a receipt.
	                                      NULL: do not ask, wait as long as it takes */
	void *go_on_context;
};

struct evbus_event {
	const char *topic;
	struct evbus_slice payload;        /* one JSON object, no blanks around it; data NULL: */
	struct evbus_slice payload_base64; /* other bytes, which only servers take */
	struct evbus_slice key;            /* partition key, UTF-8, at most EVBUS_KEY_MAX_BYTES; data NULL: none */
	int32_t partition_id;              /* EVBUS_PARTITION_ANY: by the key; a topic with one partition needs neither */
	struct evbus_slice origin;         /* "<topic>/<partition_id>/<offset>" of a record published again; data NULL: none */
	uint32_t returns;
	struct evbus_slice tenant_id;      /* for idempotent publishing, as text; data NULL: those of the payload */
	struct evbus_slice event_key;
};

EVBUS_CHECKED enum evbus_code evbus_publisher_open(struct evbus *bus, const struct evbus_publisher_options *options,
						   struct evbus_publisher **publisher, struct evbus_err *err);

/* Checks and takes one event; its bytes are copied. It is written when enough have come together, or by a flush.
 * EVBUS_DATA (err.text says what and at which byte), EVBUS_USAGE (no partition was chosen) and EVBUS_NONE refuse this
 * event and leave the publisher as it was. After any other failure the publisher only gives out what receipts it has:
 * what they do not name may or may not be in the log. A failure to write what was added before is always such a one:
 * where a flush tells it by one of those three codes, this does by EVBUS_CONFLICT. */
EVBUS_CHECKED enum evbus_code evbus_publisher_add(struct evbus_publisher *publisher, const struct evbus_event *event,
						  struct evbus_err *err);

/* Returns when all that was added is durable. */
EVBUS_CHECKED enum evbus_code evbus_publisher_flush(struct evbus_publisher *publisher, struct evbus_err *err);

/* The next receipt, in the order in which events were added, or NULL if no further one is durable yet. It lives until
 * the next call on the publisher. Receipts that are not taken between two calls of add may be dropped. */
EVBUS_API const struct evbus_record *evbus_publisher_next(struct evbus_publisher *publisher);

/* Drops what was added and not flushed. */
EVBUS_API void evbus_publisher_close(struct evbus_publisher *publisher);

/* ---- reading --------------------------------------------------------------------------------------------------- */

/* Values as evbus_json_find() sees them; NULL: any. A record in which a member that is asked for stands twice does not
 * match. */
struct evbus_filter {
	const char *type;          /* pattern over its dot-separated tokens, as for topics */
	const char *tenant;
	const char *correlation_id;
	const char *event_key;
	const char *const *where;  /* "/pointer=VALUE", where_count of them, all of which must hold */
	size_t where_count;
};

#define EVBUS_PARTITION_ALL (-1)

/* What to read. A POSITION is "N", "beginning", "end", "-N", "@TIME" or "stored"; a TIME is RFC 3339, "-15m", "-2h",
 * "-3d" or Unix seconds. A bare number over several partitions is EVBUS_USAGE. */
struct evbus_selection {
	const char *topic;         /* a name or a pattern */
	int32_t partition_id;      /* or EVBUS_PARTITION_ALL */
	const char *from;          /* POSITION; NULL: "beginning", or "stored" where there is a group */
	const char *to;            /* POSITION, exclusive; NULL: what is durable at the start */
	const char *since;         /* TIME, inclusive; NULL: none */
	const char *until;         /* TIME, exclusive */
	const char *group;         /* for "stored"; EVBUS_CONFLICT if the log is not the one the checkpoint was made on */
	uint64_t last;             /* begin this many records before the end, over all partitions together; 0: no */
	bool follow;               /* go on beyond what is there, and pick up topics that appear */
	struct evbus_filter filter;
	bool (*go_on)(void *context);      /* asked every few MiB that were read: false ends the call with EVBUS_AGAIN,
	                                      and the next call goes on from there. NULL: do not ask */
	void *go_on_context;
};

struct evbus_reader;

EVBUS_CHECKED enum evbus_code evbus_reader_open(struct evbus *bus, const struct evbus_selection *selection,
						struct evbus_reader **reader, struct evbus_err *err);

/* *record: the next record, which lives until the next call on the reader; NULL at the end of what was asked for, or,
 * while following, when timeout_ms have passed or a signal came. Several partitions come merged in the order of their
 * publish times (best effort while following). EVBUS_IO: a line is damaged; err.text names topic, offset, byte and
 * cause. timeout_ms < 0: wait as long as it takes. */
EVBUS_CHECKED enum evbus_code evbus_reader_next(struct evbus_reader *reader, int timeout_ms,
						const struct evbus_record **record, struct evbus_err *err);

struct evbus_progress {
	uint64_t bytes;            /* read so far */
	uint64_t bytes_total;      /* known at the start; 0 while following */
	uint64_t records;          /* read so far, whether they matched or not */
};
EVBUS_API struct evbus_progress evbus_reader_progress(const struct evbus_reader *reader);
/* Whether there is nothing more to come, also while following: a NULL was the end and not only a pause. */
EVBUS_API bool evbus_reader_finished(const struct evbus_reader *reader);
EVBUS_API void evbus_reader_close(struct evbus_reader *reader);

/* Whether a topic matches a pattern. Both are taken to be well-formed. */
EVBUS_API bool evbus_topic_matches(const char *pattern, const char *topic);

/* ---- what is inside an event ----------------------------------------------------------------------------------- */

/* The members that evbus knows by several names (evbus(7), NAMING OF EVENTS): the raw JSON value of each, strings with
 * their quotes, data NULL where absent. For CloudEvents the event id is source and id together: id_source is set. */
struct evbus_envelope {
	struct evbus_slice event_id, id_source, event_key, event_type, tenant_id, occurred_at, correlation_id,
		schema_version;
};

/* EVBUS_DATA: the payload is not one JSON object, or one of these members stands in it twice. */
EVBUS_CHECKED enum evbus_code evbus_envelope_read(struct evbus_slice payload, struct evbus_envelope *envelope,
						  struct evbus_err *err);

/* The raw JSON value at an RFC 6901 pointer within a valid JSON text. data NULL: not there, or a member on the way
 * stands twice (*ambiguous, which may be NULL, tells). */
EVBUS_API struct evbus_slice evbus_json_find(struct evbus_slice json, const char *pointer, bool *ambiguous);

/* A raw JSON value as text: a string without quotes and escapes, anything else as it stands. Returns the length that
 * the text has; writes it if that is at most size (no NUL is added), else nothing. */
EVBUS_API size_t evbus_json_text(struct evbus_slice value, char *text, size_t size);

/* Base64 (RFC 4648, section 4, with its padding), as payload_base64 is. Both return how much it becomes. */
#define EVBUS_BASE64_LEN(bytes) (((size_t)(bytes) + 2) / 3 * 4)
EVBUS_API size_t evbus_base64_encode(struct evbus_slice bytes, char *text);    /* room for EVBUS_BASE64_LEN */
/* bytes: room for three of each four characters; the text itself will do; NULL: it is only looked at. SIZE_MAX: it is no
 * base64. */
EVBUS_API size_t evbus_base64_decode(struct evbus_slice text, char *bytes);

/* The partition key that the first of the JSON pointers "/a,/b" that is there gives: a string unescaped, a number or
 * boolean as it stands; a null counts as absent. payload is valid JSON. *len: SIZE_MAX where none is there. EVBUS_DATA: it
 * is an object or array, stands twice, or is too long. EVBUS_USAGE: these are no pointers. */
EVBUS_CHECKED enum evbus_code evbus_key_from(struct evbus_slice payload, const char *pointers,
					     char key[EVBUS_KEY_MAX_BYTES], size_t *len, struct evbus_err *err);

/* TIME of the command line as microseconds since 1970. now_us: what "-15m" counts from. */
EVBUS_CHECKED enum evbus_code evbus_time_parse(const char *text, int64_t now_us, int64_t *time_us,
					       struct evbus_err *err);
/* 27 characters and a NUL: 2026-01-29T12:00:00.123456Z. */
EVBUS_API void evbus_time_format(int64_t time_us, char text[28]);
EVBUS_API int64_t evbus_time_now(void);

/* ---- checkpoints ----------------------------------------------------------------------------------------------- */

/* The first position not yet done of a group on a partition. */
struct evbus_checkpoint {
	char group[EVBUS_TOPIC_MAX_BYTES + 1];
	char topic[EVBUS_TOPIC_MAX_BYTES + 1];
	int32_t partition_id;
	char next_offset[EVBUS_OFFSET_MAX_BYTES + 1];
	char offset_kind[24];
	char log_id[33];
	char fingerprint[9];       /* crc32c of the last record done, in hexadecimal; "" at offset 0, and on servers */
	char updated_at_utc[28];
};

/* EVBUS_NONE where the group has none there. */
EVBUS_CHECKED enum evbus_code evbus_checkpoint_get(struct evbus *bus, const char *group, const char *topic,
						   int32_t partition_id, struct evbus_checkpoint *checkpoint,
						   struct evbus_err *err);

/* Moves it to a POSITION, which is at most the end of the log (else EVBUS_CONFLICT); EVBUS_AGAIN while another process
 * consumes for the group there. *before: next_offset "" where there was none. dry_run: nothing is stored. */
EVBUS_CHECKED enum evbus_code evbus_checkpoint_set(struct evbus *bus, const char *group, const char *topic,
						   int32_t partition_id, const char *position, bool dry_run,
						   struct evbus_checkpoint *before, struct evbus_checkpoint *after,
						   struct evbus_err *err);

/* Stores checkpoints exactly as they were listed, all or none. */
EVBUS_CHECKED enum evbus_code evbus_checkpoint_restore(struct evbus *bus, const struct evbus_checkpoint *checkpoints,
						       size_t count, struct evbus_err *err);

/* EVBUS_NONE where there is none. */
EVBUS_CHECKED enum evbus_code evbus_checkpoint_remove(struct evbus *bus, const char *group, const char *topic,
						      int32_t partition_id, struct evbus_err *err);

/* Those of a group (NULL: all) on topics that match (NULL: all), sorted by group, topic and partition. *checkpoints is
 * one block for evbus_free(). */
EVBUS_CHECKED enum evbus_code evbus_checkpoint_list(struct evbus *bus, const char *group, const char *pattern,
						    struct evbus_checkpoint **checkpoints, size_t *count,
						    struct evbus_err *err);

/* How far behind the end it is. Either is -1 where it cannot be known (the log is gone or another one). */
struct evbus_lag {
	int64_t records;           /* where offsets are left out, at most so many */
	int64_t seconds;           /* age of the first record not yet done; 0 where there is none */
};
EVBUS_CHECKED enum evbus_code evbus_checkpoint_lag(struct evbus *bus, const struct evbus_checkpoint *checkpoint,
						   struct evbus_lag *lag, struct evbus_err *err);

/* A claim of a partition for a group; it ends with evbus_claim_release() or with the process. EVBUS_AGAIN names the
 * process that has it. */
struct evbus_claim;
EVBUS_CHECKED enum evbus_code evbus_claim_take(struct evbus *bus, const char *group, const char *topic,
					       int32_t partition_id, struct evbus_claim **claim, struct evbus_err *err);
EVBUS_API void evbus_claim_release(struct evbus_claim *claim);

/* ---- the retry policy ------------------------------------------------------------------------------------------ */

/* After attempt n (the first is 1) fails, the next is due after a random time from 0 to delay_ms * factor^(n-1), at most
 * cap_ms: exponential backoff with full jitter (M. Brooker, "Exponential Backoff and Jitter", AWS, 2015). */
struct evbus_retry {
	uint32_t max;              /* attempts after the first; 0: none */
	int64_t delay_ms;
	double factor;             /* at least 1 */
	int64_t cap_ms;
};
#define EVBUS_RETRY_DEFAULT { 5, 1000, 2.0, 60000 }
/* Draws the delay after so many failed attempts (at least 1): for what a program itself tries again. */
EVBUS_API int64_t evbus_retry_delay_ms(const struct evbus_retry *retry, int64_t attempts);

/* Why an event was refused for good. */
enum evbus_reason {
	EVBUS_REASON_REFUSED,      /* the handler said so (65) */
	EVBUS_REASON_RETRIES,      /* it failed too often */
	EVBUS_REASON_TIMEOUT,      /* the same, the last time by taking too long */
	EVBUS_REASON_SIGNAL,       /* the same, the last time by dying of a signal */
	EVBUS_REASON_NOT_JSON,
	EVBUS_REASON_TOO_LARGE,
	EVBUS_REASON_BACKEND,      /* the bus refused to take it */
};
#define EVBUS_REASONS 7
/* refused retries timeout signal not_json too_large backend */
EVBUS_API const char *evbus_reason_name(enum evbus_reason reason);

#define EVBUS_ERROR_MAX_BYTES 4096u    /* what is kept of the error of an attempt: its end, where it is longer */

/* ---- consuming ------------------------------------------------------------------------------------------------- */

struct evbus_consumer_options {
	const char *group;
	const char *topic;         /* a name or a pattern */
	int32_t partition_id;      /* or EVBUS_PARTITION_ALL */
	const char *from;          /* POSITION for partitions where the group has no checkpoint; NULL: "beginning" */
	bool follow;               /* go on beyond what was there at the start, and pick up topics that appear */
	bool no_wait;              /* partitions that other processes of the group hold are left to them, and if there is
	                              no other, opening fails with EVBUS_AGAIN; else they are waited for */
	bool inbox;                /* an event id that is done (by group, tenant and topic) is not delivered again */
	bool stop_on_dead;         /* after a dead letter, or a queued one that failed, nothing more is delivered */
	struct evbus_filter filter;/* what does not match is passed over, and counted */
	struct evbus_retry retry;
	uint32_t concurrency;      /* deliveries at once: partitions side by side, and keys within one (a record without a
	                              key is one of its own). 0 or 1: one */
	uint32_t window;           /* records of a partition that are looked at beyond the lowest not done; 0: 1024 */
	uint32_t commit_every;     /* save after so many outcomes; 0: 1 */
	int64_t commit_interval_ms;/* and after this time; 0: 1000 */
};

/* An event to be handled. It lives until its outcome is told. */
struct evbus_delivery {
	const struct evbus_record *record;
	struct evbus_envelope envelope;
	uint32_t attempt;          /* 1 for the first */
	int64_t letter;            /* the dead letter that was queued for another attempt; 0: none */
};

struct evbus_consumer_counts {
	uint64_t delivered, done, failed, dead;    /* attempts, events done, attempts that failed, dead letters made */
	uint64_t passed_over;      /* did not match the filter */
	uint64_t known;            /* done before, by the inbox */
	uint64_t letters_done;     /* queued dead letters that succeeded */
	uint64_t letters_failed;   /* and that failed again */
	uint64_t waiting;          /* events in the retry backoff now */
};

struct evbus_consumer;

/* Opens a consumer of a group. From the checkpoint of each partition, else from `from`. EVBUS_CONFLICT: the log is not
 * the one that the checkpoint was made on, or `from` is not in it. EVBUS_AGAIN: others have all of it (no_wait). */
EVBUS_CHECKED enum evbus_code evbus_consumer_open(struct evbus *bus, const struct evbus_consumer_options *options,
						  struct evbus_consumer **consumer, struct evbus_err *err);

/* The next event that may be handled now, or NULL: nothing came within timeout_ms (0: do not wait, < 0: as long as it
 * takes), a signal came, `concurrency` deliveries are out, what comes next waits for the outcome of one that is out, a
 * few MiB were read in which nothing matched, or it is at the end (evbus_consumer_finished() tells). It waits for what
 * is published, for backoff that runs out, for partitions held by others and for letters that are queued. Saves what is
 * due to be saved; a save that failed is tried again with the next call. EVBUS_IO: a line is damaged, or could not be
 * read or kept; all before it had its outcome, and after it nothing comes any more: open another consumer. */
EVBUS_CHECKED enum evbus_code evbus_consumer_next(struct evbus_consumer *consumer, int timeout_ms,
						  struct evbus_delivery **delivery, struct evbus_err *err);

/* What came of it; the delivery is gone after any of them. The outcome is durable with the next save, which happens by
 * commit_every and commit_interval_ms; a dead letter and its checkpoint change together.
 * error: what the handler said, UTF-8 or not; kept up to EVBUS_ERROR_MAX_BYTES. */
EVBUS_CHECKED enum evbus_code evbus_consumer_done(struct evbus_consumer *consumer, struct evbus_delivery *delivery,
						  struct evbus_err *err);
/* Tried again later, or, after the last attempt, a dead letter (*dead, which may be NULL). reason:
 * EVBUS_REASON_RETRIES, _TIMEOUT or _SIGNAL. */
EVBUS_CHECKED enum evbus_code evbus_consumer_failed(struct evbus_consumer *consumer, struct evbus_delivery *delivery,
						    enum evbus_reason reason, struct evbus_slice error, bool *dead,
						    struct evbus_err *err);
/* A dead letter now. */
EVBUS_CHECKED enum evbus_code evbus_consumer_refused(struct evbus_consumer *consumer, struct evbus_delivery *delivery,
						     enum evbus_reason reason, struct evbus_slice error,
						     struct evbus_err *err);
/* It was not tried: no attempt is counted, and it comes again. */
EVBUS_API void evbus_consumer_give_back(struct evbus_consumer *consumer, struct evbus_delivery *delivery);

/* Saves what is not saved yet. EVBUS_CONFLICT: a partition was taken away from us (its claim was removed). */
EVBUS_CHECKED enum evbus_code evbus_consumer_commit(struct evbus_consumer *consumer, struct evbus_err *err);
/* Whether all that was there at the start (following: never) has its outcome, or stop_on_dead has come true, and that is
 * saved: while it is not so, go on to call evbus_consumer_next(). */
EVBUS_API bool evbus_consumer_finished(const struct evbus_consumer *consumer);
EVBUS_API struct evbus_consumer_counts evbus_consumer_counts(const struct evbus_consumer *consumer);
/* As that of a reader, of the partitions that it holds. */
EVBUS_API struct evbus_progress evbus_consumer_progress(const struct evbus_consumer *consumer);
/* Gives back what is out, and saves nothing: commit first. */
EVBUS_API void evbus_consumer_close(struct evbus_consumer *consumer);

/* ---- outboxes -------------------------------------------------------------------------------------------------- */

/* A table in the application's database, which the application writes in its own transactions, and from which rows are
 * published. evbus writes no other table there, changes no setting and never checkpoints its WAL. */

struct evbus_outbox_options {
	const char *name;          /* what messages and letters call it; NULL: the last part of the URL's path */
	const char *map;           /* other names: "payload=body,topic='crm.{type}',state.SENT=COMPLETED"; NULL: ours */
	bool wrap;                 /* the payload is only a body: the envelope is made of id, type, created_at, tenant and
	                              the body's bytes as they are */
	struct evbus *to;          /* where rows are published; it must live as long. NULL: to the bus, which otherwise only
	                              says where the store is. What a target (evbus_is_target()) has refused is the row's
	                              fault, and after a crash it gets what was under way twice */
};

enum evbus_outbox_state {
	EVBUS_OUTBOX_PENDING,
	EVBUS_OUTBOX_PROCESSING,
	EVBUS_OUTBOX_SENT,
	EVBUS_OUTBOX_FAILED,
};
#define EVBUS_OUTBOX_STATES 4
EVBUS_API const char *evbus_outbox_state_name(enum evbus_outbox_state state);    /* PENDING … */

struct evbus_outbox;

/* url: "sqlite:FILE", "postgresql://…", or NULL for the table in the store of the bus. EVBUS_USAGE: the map is not of its form. Opening
 * does not look at the table yet. */
EVBUS_CHECKED enum evbus_code evbus_outbox_open(struct evbus *bus, const char *url,
						const struct evbus_outbox_options *options,
						struct evbus_outbox **outbox, struct evbus_err *err);
EVBUS_API void evbus_outbox_close(struct evbus_outbox *outbox);
EVBUS_API const char *evbus_outbox_name(const struct evbus_outbox *outbox);

/* Makes the table and its index where they are missing (*made); of SQLite, the database too. On a server nothing is
 * added to a table that is there. EVBUS_CONFLICT: a table of the
 * name has other columns. *wal: the database is in WAL mode (a warning: SQLite before 3.51.3 can damage it). */
EVBUS_CHECKED enum evbus_code evbus_outbox_init(struct evbus_outbox *outbox, bool *made, bool *wal,
						struct evbus_err *err);
/* The statement that an application inserts with, as SQL with :id, :topic, :event_type and :payload. */
EVBUS_API const char *evbus_outbox_insert_sql(const struct evbus_outbox *outbox);
/* After evbus_outbox_init(), where the table is on a server and was there before: what it lacks for drains to be quick and
 * to be told of new rows, as SQL for who owns it. NULL: nothing. */
EVBUS_API const char *evbus_outbox_advice_sql(const struct evbus_outbox *outbox);

/* Slices with data NULL are NULL in the table. They live until the callback returns. */
struct evbus_outbox_row {
	int64_t seq;
	struct evbus_slice id, tenant_id, topic, event_type, event_key, partition_key, payload;
	enum evbus_outbox_state state;
	int64_t attempts;
	struct evbus_slice next_attempt_at, last_error, lease_owner, lease_expires_at, created_at, sent_at, receipt;
	struct evbus_slice history;/* of its failed attempts, as JSON; see struct evbus_letter */
	int64_t behind;            /* rows not yet sent that wait behind it, where it blocks its key; else 0 */
};

/* Inserts a row (id, topic, event_type, payload; tenant_id, event_key, partition_key where they are set). id data NULL:
 * the event id of the payload. EVBUS_DATA: the payload is not one JSON object, EVBUS_CONFLICT: the id is there. */
EVBUS_CHECKED enum evbus_code evbus_outbox_add(struct evbus_outbox *outbox, const struct evbus_outbox_row *row,
					       struct evbus_err *err);
/* Between these two, rows are added in one transaction; ended with keep false, none of them is there. */
EVBUS_CHECKED enum evbus_code evbus_outbox_begin(struct evbus_outbox *outbox, struct evbus_err *err);
EVBUS_CHECKED enum evbus_code evbus_outbox_end(struct evbus_outbox *outbox, bool keep, struct evbus_err *err);

struct evbus_outbox_filter {
	int state;                 /* enum evbus_outbox_state, or -1 */
	bool blocked;              /* only rows that others wait behind */
	const char *topic;         /* a pattern, or NULL */
	const char *tenant;
	int64_t seq;               /* only this row; 0: any */
	int64_t max;               /* 0: all */
};
/* By seq, in pages, so that no transaction stays open while rows are given out. */
EVBUS_CHECKED enum evbus_code evbus_outbox_list(struct evbus_outbox *outbox, const struct evbus_outbox_filter *filter,
						enum evbus_code (*row)(void *context,
								       const struct evbus_outbox_row *row,
								       struct evbus_err *err),
						void *context, struct evbus_err *err);

struct evbus_outbox_counts {
	int64_t rows[EVBUS_OUTBOX_STATES];
	int64_t waiting;           /* PENDING with a due time that has not come */
	int64_t claimable;         /* that a drain with a batch of any size would claim now */
	int64_t oldest_due_s;      /* age of the oldest row that could be claimed now; -1: there is none */
};
EVBUS_CHECKED enum evbus_code evbus_outbox_count(struct evbus_outbox *outbox, struct evbus_outbox_counts *counts,
						 struct evbus_err *err);

struct evbus_drain_options {
	uint32_t batch;            /* rows claimed at once; 0: 4000 */
	int64_t lease_ms;          /* how long a batch may take; 0: 30000 */
	struct evbus_retry retry;
	bool bounded;              /* leave rows behind up_to_seq alone */
	int64_t up_to_seq;
	/* After a row was published and marked. */
	enum evbus_code (*receipt)(void *context, const struct evbus_record *receipt, struct evbus_err *err);
	/* A row was refused: it will be tried again, or is FAILED (dead). */
	void (*refused)(void *context, const struct evbus_outbox_row *row, bool dead, const char *error);
	void *context;
	/* As that of a publisher: while another process is waited for.
	 * After false, rows that are not published are given back. */
	bool (*go_on)(void *context);
	void *go_on_context;
};

struct evbus_drain_result {
	uint64_t claimed, sent, duplicates, retried, failed;
	uint64_t lost;             /* rows whose lease was no longer ours when they were to be marked */
	int64_t next_due_ms;       /* when the next row that now waits, for its backoff or for the end of another's lease, can
	                              be claimed, from now; -1: none */
	bool outage;               /* the failure is that of the bus, and not of the database */
};

/* Claims a batch, at most 4096 rows or about 4 MiB, publishes it idempotently and marks it. A failure of the bus is an
 * outage, whatever its code: what has no receipt is given back as it was, and no attempt is counted. So it is with
 * EVBUS_AGAIN where the lease runs out on the way: a row that is published when nine tenths of it are over is given back
 * instead. *result is set on failure too. */
EVBUS_CHECKED enum evbus_code evbus_outbox_drain(struct evbus_outbox *outbox, const struct evbus_drain_options *options,
						 struct evbus_drain_result *result, struct evbus_err *err);
/* Between two drains that are not bounded: a descriptor that can be read, as poll() tells, once rows may have come; -1:
 * there is none. *told: they may have come already. An application that does not tell is asked: drain again in a while. */
EVBUS_API int evbus_outbox_heard(struct evbus_outbox *outbox, bool *told);
/* The highest seq that is there, INT64_MIN where there is no row: what a bounded drain ends with. */
EVBUS_CHECKED enum evbus_code evbus_outbox_last_seq(struct evbus_outbox *outbox, int64_t *seq, struct evbus_err *err);

/* ---- dead letters ---------------------------------------------------------------------------------------------- */

enum evbus_letter_state {
	EVBUS_LETTER_DEAD,
	EVBUS_LETTER_QUEUED,       /* for its group's consumer, or its outbox */
	EVBUS_LETTER_RETRIED,      /* succeeded later */
	EVBUS_LETTER_DISCARDED,
};
#define EVBUS_LETTER_STATES 4
EVBUS_API const char *evbus_letter_state_name(enum evbus_letter_state state);    /* DEAD … */

#define EVBUS_LETTER_ID_MAX_BYTES 320

/* An event that was refused for good: of a group, in the store, or a FAILED row of an outbox. Slices with data NULL: not
 * known. They live until the callback returns. */
struct evbus_letter {
	char id[EVBUS_LETTER_ID_MAX_BYTES];    /* "17" in the store, "app.db:17" in an outbox of that name (its seq) */
	struct evbus_slice source;     /* "store", or the name of the outbox */
	enum evbus_letter_state state;
	struct evbus_slice group;      /* data NULL in an outbox */
	struct evbus_slice tenant_id, topic, event_id, event_type, correlation_id, partition_key;
	int32_t partition_id;          /* -1 in an outbox */
	struct evbus_slice offset, offset_kind, published_at_utc;
	struct evbus_slice payload;    /* byte for byte */
	enum evbus_reason reason;
	struct evbus_slice error;      /* of the last attempt */
	int64_t attempts;
	struct evbus_slice history;    /* JSON: [{"attempt":1,"at":"…","reason":"retries","error":"…"}, …], the latest 100 */
	int64_t returns;
	struct evbus_slice created_at, updated_at;    /* in an outbox: of the first and the last attempt that is known */
	struct evbus_slice resolved_by, result;    /* who queued, retried or discarded it, and what came of it */
};

struct evbus_letter_filter {
	const char *topic;         /* a pattern */
	const char *group;
	const char *outbox;        /* the name of one: only its letters */
	const char *type;          /* a pattern */
	const char *tenant;
	int reason;                /* enum evbus_reason, or -1 */
	int state;                 /* enum evbus_letter_state, or -1 */
	int64_t older_than_us, newer_than_us;      /* times since 1970 of created_at; 0: any */
	const char *const *ids;    /* id_count of them, any of which; NULL: any */
	size_t id_count;
	int64_t max;               /* 0: all */
};

/* In the store of the bus and then in each outbox, oldest first, in pages, so that nothing stays locked while letters
 * are given out: the callback may take its time, change letters and look at others. Letters that come or change
 * meanwhile are left out. An id that is not there is EVBUS_NONE, before anything is given out; a row of an outbox that is
 * FAILED no longer is no letter, and is left out. EVBUS_USAGE: two outboxes have one name, or an id is not of its form. */
EVBUS_CHECKED enum evbus_code evbus_letter_list(struct evbus *bus, struct evbus_outbox *const *outboxes,
						size_t outbox_count, const struct evbus_letter_filter *filter,
						enum evbus_code (*letter)(void *context,
									  const struct evbus_letter *letter,
									  struct evbus_err *err),
						void *context, struct evbus_err *err);

/* What is done with one letter. Each fails with EVBUS_CONFLICT if its state is no longer one that allows it, or
 * EVBUS_NONE if there is none of this id. by: who, for the record ("root@host"). */
enum evbus_letter_change {
	EVBUS_LETTER_QUEUE,        /* DEAD: to QUEUED; an outbox row becomes PENDING, its attempts begin anew */
	EVBUS_LETTER_DISCARD,      /* DEAD or QUEUED: to DISCARDED */
	EVBUS_LETTER_UNDO,         /* DISCARDED or QUEUED: to DEAD; in an outbox only DISCARDED */
	EVBUS_LETTER_SUCCEED,      /* DEAD: to RETRIED, with what came of it */
	EVBUS_LETTER_FAIL,         /* DEAD: one more attempt, which failed; returns + 1 */
};
EVBUS_CHECKED enum evbus_code evbus_letter_change(struct evbus *bus, struct evbus_outbox *const *outboxes,
						  size_t outbox_count, const char *id,
						  enum evbus_letter_change change, enum evbus_reason reason,
						  struct evbus_slice result, const char *by, struct evbus_err *err);

/* The same for many, in few transactions; EVBUS_LETTER_QUEUE, _DISCARD or _UNDO. codes[i] is EVBUS_OK, EVBUS_CONFLICT or
 * EVBUS_NONE of ids[i]. Where the call itself fails, none or some of them have been changed. */
EVBUS_CHECKED enum evbus_code evbus_letter_change_all(struct evbus *bus, struct evbus_outbox *const *outboxes,
						      size_t outbox_count, const char *const *ids, size_t id_count,
						      enum evbus_letter_change change, const char *by,
						      enum evbus_code *codes, struct evbus_err *err);

/* A lock that keeps two processes from trying letters of one group (or, group NULL, of outboxes) at the same time;
 * released with evbus_claim_release(). EVBUS_AGAIN names who has it. */
EVBUS_CHECKED enum evbus_code evbus_letter_claim(struct evbus *bus, const char *group, struct evbus_claim **claim,
						 struct evbus_err *err);

/* ---- sweeping -------------------------------------------------------------------------------------------------- */

struct evbus_sweep_options {
	int64_t sent_before_us, inbox_before_us, letters_before_us;    /* times since 1970; 0: leave them alone */
	bool dry_run;
};
struct evbus_sweep_result {
	uint64_t sent, inbox, event_keys, letters;
};
/* Removes what is done and old: SENT rows of the outboxes, inbox rows and event keys (by the time of publishing), RETRIED
 * and DISCARDED letters (by the time of that); a thousand at a time. An event key that is forgotten can be published
 * again. A DISCARDED letter of an outbox stays as long as its row is FAILED: that is the application's to delete.
 * dry_run: counts what would be removed. EVBUS_CONFLICT: the inbox or the event keys would forget an event whose letter
 * (DEAD or QUEUED) is older than that and can still be retried; nothing is removed. */
EVBUS_CHECKED enum evbus_code evbus_sweep(struct evbus *bus, struct evbus_outbox *const *outboxes, size_t outbox_count,
					  const struct evbus_sweep_options *options, struct evbus_sweep_result *result,
					  struct evbus_err *err);

/* ---- proving a log --------------------------------------------------------------------------------------------- */

enum evbus_severity {
	EVBUS_NOTE,                /* worth knowing, not damage: an interrupted write at the end */
	EVBUS_DAMAGE,
};

struct evbus_finding {
	const char *topic;
	int32_t partition_id;
	uint64_t offset;           /* of the line, or where it should be */
	uint64_t byte;             /* where the line begins, counted over all segments */
	enum evbus_severity severity;
	const char *what;          /* one word: shape checksum gap order batch segment topic checkpoint payload
	                              duplicate occurred_at clock tail keys; of a comparison: differs missing more */
	char text[256];
	char offset_text[EVBUS_OFFSET_MAX_BYTES + 1];    /* the offset, which need be no such number: then the other one says
	                              nothing to anybody but this library */
};

struct evbus_verify_options {
	bool deep;                 /* parse payloads, find event ids that stand twice and times of occurrence out of order */
	bool repair;               /* cut an interrupted write off, after copying it */
	const char *cut_at;        /* with repair: cut there, at the damage that was found at this offset */
	bool rebuild_keys;         /* make the index of event keys anew from logs that are whole, and tell how many there
	                              are (a note, "keys"); EVBUS_USAGE beside a partition */
	struct evbus *against;     /* compare with the topics of this bus instead, for each key: the same payloads in the
	                              same order, whatever their partitions and offsets; what has no key, by the number
	                              of its partition. Findings tell where the first 10 keys of a topic first differ:
	                              "missing" there, "more" there (where it stands there), or "differs". A topic that is
	                              not there is an empty one. Nobody may publish meanwhile. Takes 24 MiB, 48 at times,
	                              and reads once more for each further 390,000 keys of a topic, roughly. NULL: do not */
	int32_t partition_id;      /* or EVBUS_PARTITION_ALL */
	void (*finding)(void *context, const struct evbus_finding *finding);
	void (*progress)(void *context, const struct evbus_progress *progress);    /* may be NULL */
	bool (*go_on)(void *context);      /* asked every few MiB, and about every 100 ms while rebuild_keys waits for a
	                                      process that publishes idempotently: false ends it with EVBUS_AGAIN; may be
	                                      NULL */
	void *context;
};

struct evbus_verify_result {
	uint64_t topics, partitions, records, bytes, notes, damages;
};

/* Checks every topic that matches, up to what is durable at the start. EVBUS_OK: it ran; result.damages counts. */
EVBUS_CHECKED enum evbus_code evbus_verify(struct evbus *bus, const char *pattern,
					   const struct evbus_verify_options *options,
					   struct evbus_verify_result *result, struct evbus_err *err);

#ifdef __cplusplus
}
#endif

#endif
