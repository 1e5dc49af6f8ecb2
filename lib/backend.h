/* backend.h: the contract of a backend: where topics live, how they are appended to, and how they are read.
 *
 * Everything above (lib/delivery, lib/ itself) works through these calls and knows no backend by its name. A
 * backend is one file of lib/backend/ that fills in a struct backend_ops; its handles begin with the structs below,
 * which it keeps right and everybody else only reads.
 *
 * - A record is a struct line (log/line.h): a text as evbus-log(5) has it, and slices of that. A backend that keeps
 *   records in another way makes the lines of them as they are read (line_add), so that what is printed, filtered
 *   and kept in windows is the same everywhere. A record of somebody else's that is not one JSON object has
 *   payload.data NULL.
 * - What is published is a struct group (log/writer.h): lines with the offsets and times that are expected. Where
 *   they turn out otherwise they are encoded again (group.c), so that the lines of a group that was committed are
 *   its receipts.
 * - An event that is published idempotently bears an event_key, and others bear none. A backend has nothing to do for
 *   it but to see to `expect`, where it can: the publisher looks for the key before (delivery/keys.h). Message ids, where
 *   a server has them, are for sending again what was sent when a connection broke. What was taken of a group before
 *   somebody else came in between is counted by group->acknowledged, with its offsets; the publisher finds the rest out.
 * - A position is a uint64_t, and a text outside of the library: the offset in decimal. Positions grow with the
 *   offset, begin anywhere and may have gaps; what comes after a record begins at its position + 1, whether a record
 *   stands there or not, and each position from `first` to `end` can be sought. Offsets that are no numbers below 2^63
 *   (a Kinesis sequence number has up to 129 digits) are the business of their backend alone: it numbers what an open
 *   topic has handed out or was asked for in the order of the offsets, for all of its readers alike, and translates
 *   (offset_text, offset_find). In the lines that it makes the offset is a text (struct line_body, line_parse_text), and
 *   line->offset the position.
 * - Partitions may come and go, where a server splits and merges them. One that is closed takes nothing more, has an end
 *   for good, and one day is gone. Those that went on with its keys have it as a parent, and are read when it was read
 *   to its end: this is seen to above. What is meant for a partition may be taken by another, as the receipt says
 *   (group_stamp_places); the events of a key come in their order all the same, if children are read after parents.
 * - Codes: EVBUS_NONE where a bus, topic, partition or record is not there (any more); EVBUS_UNAVAILABLE where the
 *   server cannot be reached, within the time-out that was asked for and never later; EVBUS_CONFLICT where a log
 *   was cut or replaced; EVBUS_AGAIN with EINTR where the waiter gave up. */
#ifndef EVBUS_BACKEND_H
#define EVBUS_BACKEND_H

#include "base/err.h"
#include "base/os.h"

#define BACKEND_VERSION 3 /* of all that stands here; a module with another one is not used */

struct backend_files;
struct backend_ops;
struct group;
struct line;
struct log_writer;
struct mark;
struct root;
struct topic;
struct waiter;

struct backend_options {
	bool no_create;
	mode_t file_mode, dir_mode;      /* of files, where there are any */
	void (*notice)(void *context, const char *text);
	void *notice_context;
	bool (*go_on)(void *context);    /* asked, where a backend can, while it connects for nobody who has a waiter; or NULL */
	void *go_on_context;
};

/* A bus. */
struct backend {
	const struct backend_ops *ops;
};

#define BACKEND_PARENTS 2 /* of a partition that came of a merge */

struct backend_partition {
	int32_t number;
	int32_t parents[BACKEND_PARENTS]; /* -1: none; one that is not in the list (any more) is as good as none */
};

struct backend_topic {
	const struct backend_ops *ops;
	const char *name;
	const char *log_id;              /* another log under the same name has another one */
	uint32_t partitions;             /* how many are there, closed ones too, */
	const struct backend_partition *list; /* each of them, by number; NULL: 0 … partitions - 1, without parents */
	uint32_t keys_among;             /* over so many keys are spread, whatever was added since; 0: over all */
	uint64_t segment_max_bytes;      /* a group is not larger; UINT64_MAX: no such limit */
	const char *acknowledgement;     /* what a receipt means here, for ever; NULL: as ops has it */
};

/* A partition that is read. Moving and reading change `next`, refresh() `end`; `first` may grow with either. */
struct partition_reader {
	const struct backend_ops *ops;
	const struct backend_topic *topic;
	int32_t partition;
	uint64_t first;                  /* the oldest that is there */
	uint64_t next;                   /* of the record that is read next */
	uint64_t end;                    /* of what could be read when it was last looked; exclusive */
	bool closed;                     /* that is the end for good; may become so with refresh() */
	int64_t rests_to_us;             /* until then (os_monotonic_us) a server does not like to be asked again */
};

/* A partition that is appended to. */
struct partition_writer {
	const struct backend_ops *ops;
	const struct backend_topic *topic;
	int32_t partition;
	const struct waiter *waiter;     /* whom to ask while it waits; may be set anew */
	uint64_t expected_next;          /* what the next line will probably get, */
	int64_t expected_time_us;        /* and the time before which it is not published */
	size_t message_max_bytes;        /* a larger event, with its texts escaped, is refused; 0: none is, or it is not known */
};

struct backend_ops {
	uint32_t version;                /* BACKEND_VERSION; first, in every version */
	const char *scheme;              /* of its URLs: "file" */
	const char *offset_kind;
	const char *acknowledgement;     /* what a receipt means */
	const char *idempotence;         /* what publishing idempotently is worth */
	bool keeps_lines;                /* a log of ours: a record stays the same line, no offset is left out, and
	                                    times do not go back; else a fingerprint is the log id alone */
	bool grows;                      /* a topic may get further partitions while it is open */
	bool expects;                    /* append() sees to `expect` exactly, whoever else publishes */
	bool writes_only;                /* a target: nothing of it can be read again, and records get no offset there; what
	                                    is read fails with EVBUS_CONFIG */

	/* ---- the bus ---- */

	/* rest: the URL behind its scheme and colon, or all of it where it has none. Makes nothing. */
	enum evbus_code (*open)(const char *url, const char *rest, const struct backend_options *options,
				struct backend **backend, struct evbus_err *err);
	void (*close)(struct backend *backend);
	/* EVBUS_NONE: there is no bus, and it is not to be made. */
	enum evbus_code (*ready)(struct backend *backend, bool create, struct evbus_err *err);

	/* ---- topics, of a bus that is ready ---- */

	/* EVBUS_NONE: it is not there. A topic outlives its readers and writers. */
	enum evbus_code (*topic_open)(struct backend *backend, const char *name, struct backend_topic **topic,
				      struct evbus_err *err);
	/* Opens it where it is there already, if it fits the options. */
	enum evbus_code (*topic_create)(struct backend *backend, const char *name,
					const struct evbus_topic_options *options, struct backend_topic **topic,
					bool *created, struct evbus_err *err);
	void (*topic_close)(struct backend_topic *topic);
	/* Returns when the topic will stay, whoever made it. */
	enum evbus_code (*topic_keep)(const struct backend_topic *topic, struct evbus_err *err);
	/* Looks again which partitions there are: where there are others, `partitions` and `list` are new, and the old
	 * list is gone; readers and writers stay. EVBUS_CONFLICT: it is no longer what is found at its name. doing:
	 * "read", for the message. */
	enum evbus_code (*topic_check)(struct backend_topic *topic, const char *doing, struct evbus_err *err);
	/* As evbus_topic_list(). */
	enum evbus_code (*topic_names)(struct backend *backend, const char *pattern, char ***names,
				       struct evbus_err *err);

	/* ---- reading what is acknowledged: partition_… below ---- */

	enum evbus_code (*reader_open)(const struct backend_topic *topic, int32_t partition, size_t chunk,
				       bool ahead, struct partition_reader **reader, struct evbus_err *err);
	void (*reader_close)(struct partition_reader *reader);
	enum evbus_code (*seek)(struct partition_reader *reader, uint64_t position, struct evbus_err *err);
	enum evbus_code (*seek_time)(struct partition_reader *reader, int64_t time_us, struct evbus_err *err);
	enum evbus_code (*next)(struct partition_reader *reader, uint64_t end, struct line *line, bool *got,
				struct evbus_err *err);
	enum evbus_code (*refresh)(struct partition_reader *reader, struct evbus_err *err);
	bool (*wait)(const struct partition_reader *reader, int timeout_ms);
	enum evbus_code (*bytes_left)(const struct partition_reader *reader, uint64_t *bytes, struct evbus_err *err);
	enum evbus_code (*describe)(struct partition_reader *reader, struct evbus_partition_info *info,
				    struct evbus_err *err);

	/* Both NULL: offsets are positions in decimal. */
	enum evbus_code (*offset_text)(const struct partition_reader *reader, uint64_t position,
				       char text[EVBUS_OFFSET_MAX_BYTES + 1], struct evbus_err *err);
	enum evbus_code (*offset_find)(struct partition_reader *reader, struct evbus_slice text, uint64_t *position,
				       struct evbus_err *err);

	/* ---- publishing ---- */

	/* NULL: by murmur2 among `partitions`, and where there are several a key is needed. */
	enum evbus_code (*partition_of)(const struct backend_topic *topic, struct evbus_slice key, int32_t *partition,
					struct evbus_err *err);
	/* EVBUS_NONE: there is no such partition. The waiter outlives the writer. */
	enum evbus_code (*writer_open)(const struct backend_topic *topic, int32_t partition,
				       const struct waiter *waiter, struct partition_writer **writer,
				       struct evbus_err *err);
	void (*writer_close)(struct partition_writer *writer);
	enum evbus_code (*append)(struct partition_writer *writer, struct group *group, uint64_t expect,
				  struct evbus_err *err);
	enum evbus_code (*commit)(struct partition_writer *writer, struct group *group, struct evbus_err *err);

	const struct backend_files *files;       /* NULL: it has none */
};

/* What there is only where topics are files of lib/log: for verify, and for publishing idempotently. */
struct backend_files {
	struct root *(*root)(struct backend *backend);
	const struct topic *(*topic)(const struct backend_topic *topic);
	struct log_writer *(*writer)(struct partition_writer *writer);
	const struct mark *(*mark)(const struct partition_writer *writer);    /* of what was appended last */
};

/* The i-th of a topic's partitions. */
static inline struct backend_partition topic_partition(const struct backend_topic *topic, uint32_t i)
{
	return topic->list ? topic->list[i] : (struct backend_partition){ (int32_t)i, { -1, -1 } };
}

static inline bool partition_is_parent(const struct backend_partition *child, int32_t number)
{
	return child->parents[0] == number || child->parents[1] == number;
}

bool topic_has_partition(const struct backend_topic *topic, int32_t number);
/* Says that it is not one of them, which is EVBUS_NONE. */
enum evbus_code topic_no_partition(const struct backend_topic *topic, int32_t number, struct evbus_err *why);

/* Those that are built in. */
extern const struct backend_ops backend_file, backend_memory;

/* The calls on a partition, each once. `why` is err: tests have a variable of that name in every file. */

/* At `first`. chunk: about how many bytes to get at once; ahead: a thread may read on. EVBUS_NONE: there is no such
 * partition. */
CHECKED static inline enum evbus_code partition_open(const struct backend_topic *topic, int32_t partition, size_t chunk,
						     bool ahead, struct partition_reader **reader,
						     struct evbus_err *why)
{
	return topic->ops->reader_open(topic, partition, chunk, ahead, reader, why);
}

/* To a position from `first` to `end`. EVBUS_NONE: what stood there was removed. */
CHECKED static inline enum evbus_code partition_seek(struct partition_reader *reader, uint64_t position,
						     struct evbus_err *why)
{
	return reader->ops->seek(reader, position, why);
}

/* To the first record published at or after a time. */
CHECKED static inline enum evbus_code partition_seek_time(struct partition_reader *reader, int64_t time_us,
							  struct evbus_err *why)
{
	return reader->ops->seek_time(reader, time_us, why);
}

/* The next record below reader->end and this end; *got false: there is none yet, and `next` is not below the lower of the
 * two, also where offsets are left out before it. Called for each record, so whoever has to ask a server gets many at
 * once. The line lives until the next call. EVBUS_IO: it is damaged. */
CHECKED static inline enum evbus_code partition_next(struct partition_reader *reader, uint64_t end, struct line *line,
						     bool *got, struct evbus_err *why)
{
	return reader->ops->next(reader, end, line, got, why);
}

/* Looks again where the end is. EVBUS_CONFLICT: the log was cut or replaced meanwhile. */
CHECKED static inline enum evbus_code partition_refresh(struct partition_reader *reader, struct evbus_err *why)
{
	return reader->ops->refresh(reader, why);
}

/* Who looks at it again and again leaves it alone where this is false, and has time for others. */
static inline bool partition_may_look(const struct partition_reader *reader)
{
	return !reader->rests_to_us || os_monotonic_us() >= reader->rests_to_us;
}

/* Waits for more than there was at the last look, at most timeout_ms; may return early. false: a signal came. */
static inline bool partition_wait(const struct partition_reader *reader, int timeout_ms)
{
	return reader->ops->wait(reader, timeout_ms);
}

/* What is not read yet of what was there at the last look. */
CHECKED static inline enum evbus_code partition_bytes_left(const struct partition_reader *reader, uint64_t *bytes,
							   struct evbus_err *why)
{
	return reader->ops->bytes_left(reader, bytes, why);
}

/* The offset that stands at a position or, where none does, would. */
CHECKED enum evbus_code partition_offset_text(const struct partition_reader *reader, uint64_t position,
					      char text[EVBUS_OFFSET_MAX_BYTES + 1], struct evbus_err *why);

/* The position of an offset: of the first record that has no lower one. EVBUS_DATA: the text is no offset. */
CHECKED enum evbus_code partition_offset_find(struct partition_reader *reader, struct evbus_slice text,
					      uint64_t *position, struct evbus_err *why);

/* Sets info->records, bytes and last_published_at_utc; the rest is known without it. */
CHECKED static inline enum evbus_code partition_describe(struct partition_reader *reader,
							 struct evbus_partition_info *info, struct evbus_err *why)
{
	return reader->ops->describe(reader, info, why);
}

/* Which partition to open a writer of for a key (data NULL: none): always the same one for a key, as long as the topic is
 * open, whatever becomes of the partitions. EVBUS_USAGE: it takes a key to choose one. */
CHECKED enum evbus_code partition_of(const struct backend_topic *topic, struct evbus_slice key, int32_t *partition,
				     struct evbus_err *why);

/* Appends the group, or sends it: all of it, or after a failure nothing that will ever be acknowledged. expect: the
 * offset that it has to get, and each line the one behind that, or UINT64_MAX (EVBUS_CONFLICT, here or of the commit: it
 * would get another one; of a server that takes lines one by one the first of them may be in, and the same group may be
 * appended again). The group's deadline is looked at just before (EVBUS_AGAIN). */
CHECKED static inline enum evbus_code partition_append(struct partition_writer *writer, struct group *group,
						       uint64_t expect, struct evbus_err *why)
{
	return writer->ops->append(writer, group, expect, why);
}

/* Returns when the group that was appended last is what an acknowledgement means here; its lines are then as they lie
 * there. EVBUS_UNAVAILABLE: it is not known what became of it. After a failure its first group->acknowledged lines are
 * what they are after a success. */
CHECKED static inline enum evbus_code partition_commit(struct partition_writer *writer, struct group *group,
						       struct evbus_err *why)
{
	return writer->ops->commit(writer, group, why);
}

/* For CLEANUP; closes nothing where there is nothing. */
static inline void partition_close(struct partition_reader **reader)
{
	if (*reader)
		(*reader)->ops->reader_close(*reader);
}

static inline void partition_writer_close(struct partition_writer **writer)
{
	if (*writer)
		(*writer)->ops->writer_close(*writer);
}

static inline void backend_topic_close(struct backend_topic **topic)
{
	if (*topic)
		(*topic)->ops->topic_close(*topic);
}

#endif
