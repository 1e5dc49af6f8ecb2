/* reader.h: what reader.c (merging, following) and reader_open.c (selecting) share. */
#ifndef EVBUS_READER_H
#define EVBUS_READER_H

#include "bus.h"
#include "log/line.h"

/* A partition that is read. */
struct source {
	struct backend_topic *topic;
	struct evbus_slice name;         /* the topic's */
	struct partition_reader *reader;
	uint64_t end;                    /* exclusive */
	uint64_t skip_below;             /* began beyond the end of the log, while following */
	struct line line;                /* the next one, if has_line */
	bool has_line;
	struct backend_partition place;  /* its parents */
	bool waits;                      /* for them to be read */
};

struct evbus_reader {
	struct evbus *bus;
	char *topic_name;
	bool is_pattern, follow, waiting_told, closed_told;
	bool bounded;                    /* by `to`: what partitions there are is settled when it is opened */
	int32_t partition_id;
	int64_t since_us, until_us;      /* INT64_MIN, INT64_MAX: none */
	struct evbus_filter filter;
	bool filtered;
	char *texts;                     /* the filter's, copied */
	struct backend_topic **topics;
	size_t topic_count;
	struct source **sources;
	size_t source_count, waiting;    /* waiting: of them, those that wait */
	struct source **heap;            /* those that have a line, the earliest first */
	size_t heap_count;
	struct source *given;            /* whose line the caller has */
	uint64_t skip;                   /* of the merged records, for `last` */
	int64_t looked_at_ms;
	struct evbus_progress progress;
	bool (*go_on)(void *context);
	void *go_on_context;
	uint64_t asked_bytes;            /* progress.bytes when go_on was last asked */
	struct evbus_record record;
};

/* Whether nothing more comes of it. */
bool reader_has_read(const struct evbus_reader *reader, const struct source *source);

/* Begins with the partitions whose parents have been read by now. */
CHECKED enum evbus_code reader_begin_children(struct evbus_reader *reader, struct evbus_err *err);

/* Reads the source's next line and puts it into the heap; nothing where it has none now. */
CHECKED enum evbus_code reader_advance(struct evbus_reader *reader, struct source *source, struct evbus_err *err);

/* Opens the topics that are there and not open yet. selection NULL: they appeared while following, and are read from
 * their beginning. EVBUS_NONE: there is no such topic, or no bus. */
CHECKED enum evbus_code reader_look_for_topics(struct evbus_reader *reader, const struct evbus_selection *selection,
					       struct evbus_err *err);

/* Opens the partitions of a topic that are asked for and not open yet; selection as above. */
CHECKED enum evbus_code reader_look_for_partitions(struct evbus_reader *reader, struct backend_topic *topic,
						   const struct evbus_selection *selection, struct evbus_err *err);

/* Makes room for one more in an array of `count` elements of this size. */
CHECKED enum evbus_code reader_grow(void *array, size_t count, size_t size, struct evbus_err *err);

/* Says once that nothing is there to be followed yet. */
void reader_tell_waiting(struct evbus_reader *reader);

/* Checks a filter and copies it, so that the caller may forget his texts. *texts is one block for free(), also where
 * this fails. */
CHECKED enum evbus_code reader_copy_filter(const struct evbus_filter *filter, struct evbus_filter *copy, char **texts,
					   struct evbus_err *err);

#endif
