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
 * - Slices are not NUL-terminated and belong to the handle that gave them out; each call says how long they live.
 * - The library keeps no global state, writes nothing to stdout or stderr, installs no signal handler and never exits.
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
#define EVBUS_KEY_MAX_BYTES 1024
#define EVBUS_DEPTH_MAX 128

struct evbus_options {
	const char *store;         /* URL of the store, "sqlite:FILE"; NULL: <root>/.evbus/state.db */
	bool no_create;            /* a bus or topic that is not there is EVBUS_NONE instead of being made */
	uint32_t file_mode;        /* of what is made, 0 for 0600; directories add x where this has r */
	uint32_t payload_max_bytes;/* 0: EVBUS_PAYLOAD_MAX_BYTES */
	void (*notice)(void *context, const char *text);    /* one line; called from the calling thread or the publisher's */
	void *notice_context;
};

/* url: "file:DIR" or a plain path; options may be NULL. Opening makes nothing: publishing does. */
EVBUS_CHECKED enum evbus_code evbus_open(const char *url, const struct evbus_options *options, struct evbus **bus,
					 struct evbus_err *err);
EVBUS_API void evbus_close(struct evbus *bus);
EVBUS_API const char *evbus_version(void);

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
	uint32_t partitions;
	uint64_t segment_max_bytes;
	char first_offset[24];
	char next_offset[24];      /* of what is durable: where the next record will stand */
	uint64_t records;
	uint64_t bytes;
	char last_published_at_utc[28];    /* "" where there is no record */
	const char *offset_kind;
	const char *acknowledgement;       /* what a receipt means on this backend */
};
EVBUS_CHECKED enum evbus_code evbus_topic_describe(struct evbus *bus, const char *topic, int32_t partition_id,
						   struct evbus_partition_info *info, struct evbus_err *err);

/* EVBUS_USAGE where it is not a topic (or, if pattern is set, not a pattern either). */
EVBUS_CHECKED enum evbus_code evbus_topic_check(const char *name, bool pattern, struct evbus_err *err);

/* ---- records and receipts -------------------------------------------------------------------------------------- */

/* A record; as a receipt, the record that was made durable. All slices live as long as the call that gave it says. */
struct evbus_record {
	struct evbus_slice topic;
	int32_t partition_id;
	const char *offset_kind;               /* "file_line" */
	struct evbus_slice offset;             /* decimal digits */
	struct evbus_slice published_at_utc;   /* 2026-01-29T12:00:00.123456Z */
	struct evbus_slice partition_key;      /* as JSON: null, or a string with its quotes */
	struct evbus_slice tenant_id;          /* these four as JSON too; data NULL where absent */
	struct evbus_slice event_key;
	struct evbus_slice batch;
	struct evbus_slice origin;
	uint32_t returns;                      /* how often it came back from the dead letters */
	struct evbus_slice payload;            /* byte for byte as published */
	struct evbus_slice members;            /* of the stored line, from "offset" to the last brace, for printing */
	struct evbus_slice stored;             /* the line as it lies, without the newline */
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
};

struct evbus_event {
	const char *topic;
	struct evbus_slice payload;        /* one JSON object, no blanks around it */
	struct evbus_slice key;            /* partition key, UTF-8, at most EVBUS_KEY_MAX_BYTES; data NULL: none */
	int32_t partition_id;              /* EVBUS_PARTITION_ANY: by the key; a topic with one partition needs neither */
	struct evbus_slice origin;         /* "<topic>/<partition_id>/<offset>" of a record published again; data NULL: none */
	uint32_t returns;
};

EVBUS_CHECKED enum evbus_code evbus_publisher_open(struct evbus *bus, const struct evbus_publisher_options *options,
						   struct evbus_publisher **publisher, struct evbus_err *err);

/* Checks and takes one event; its bytes are copied. It is written when enough have come together, or by a flush.
 * EVBUS_DATA (err.text says what and at which byte), EVBUS_USAGE (no partition was chosen) and EVBUS_NONE refuse this
 * event and leave the publisher as it was. After any other failure the publisher only gives out what receipts it has:
 * what they do not name may or may not be in the log. */
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
	bool (*go_on)(void *context);      /* asked every few MiB in which nothing matched: false ends the call with
	                                      EVBUS_AGAIN. NULL: do not ask */
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
	char next_offset[24];
	char offset_kind[24];
	char log_id[33];
	char fingerprint[9];       /* crc32c of the last record done, in hexadecimal; "" at offset 0 */
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
	int64_t records;
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
	                              duplicate occurred_at clock tail */
	char text[256];
};

struct evbus_verify_options {
	bool deep;                 /* parse payloads, find event ids that stand twice and times of occurrence out of order */
	bool repair;               /* cut an interrupted write off, after copying it */
	const char *cut_at;        /* with repair: cut there, at the damage that was found at this offset */
	int32_t partition_id;      /* or EVBUS_PARTITION_ALL */
	void (*finding)(void *context, const struct evbus_finding *finding);
	void (*progress)(void *context, const struct evbus_progress *progress);    /* may be NULL */
	bool (*go_on)(void *context);      /* asked every few MiB: false ends it with EVBUS_AGAIN; may be NULL */
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
