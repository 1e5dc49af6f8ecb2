/* segment.h: the files of a partition: the live one, and the older ones named by their base offset. */
#ifndef EVBUS_LOG_SEGMENT_H
#define EVBUS_LOG_SEGMENT_H

#include "log/control.h"
#include "log/line.h"

#define SEGMENT_PATH_MAX 64u

void segment_live_path(int32_t partition, char path[SEGMENT_PATH_MAX]);
void segment_path(int32_t partition, uint64_t base, char path[SEGMENT_PATH_MAX]);

struct segments {
	uint64_t *bases;         /* of the older ones, ascending */
	size_t count;
};

CHECKED enum evbus_code segments_list(const struct topic *topic, int32_t partition, struct segments *segments,
				      struct evbus_err *err);
void segments_release(struct segments *segments);

/* Opens the live segment; EVBUS_NONE where there is none. */
CHECKED enum evbus_code segment_open_live(const struct topic *topic, int32_t partition, int flags, int *fd,
					  struct evbus_err *err);
CHECKED enum evbus_code segment_open(const struct topic *topic, int32_t partition, uint64_t base, int flags, int *fd,
				     uint64_t *size, struct evbus_err *err);

/* The line that ends at byte `end` (behind its newline). line->text lives in buf. *found is false at end 0; EVBUS_IO
 * where what stands there is not a whole line, and with a sys_errno where it cannot be read. */
CHECKED enum evbus_code segment_line_before(int fd, const char *name, uint64_t end, struct buf *buf,
					    struct line *line, bool *found, struct evbus_err *err);

/* Where the live segment begins, and the last publish time before it, from the older ones; where there are none, from
 * its own first line (so that older segments may be removed), else 0. live: -1 where there is no file. paged: what the
 * page says, for where that line is damaged; NULL: there is none. */
CHECKED enum evbus_code segment_live_base(const struct topic *topic, int32_t partition, int live,
					  const struct segments *older, const struct cell *paged, uint64_t *base,
					  int64_t *time_us, struct evbus_err *err);

/* Removes an empty last older segment: a roll that did not happen, by what the live one begins with. With both locks
 * held. */
CHECKED enum evbus_code segments_undo_roll(const struct topic *topic, int32_t partition, int live,
					   struct segments *older, struct evbus_err *err);

/* Makes the live file (base `base`, synced, complete) an older segment and an empty file the live one. Both directories
 * are synced. With both locks held. */
CHECKED enum evbus_code segment_roll(const struct topic *topic, int32_t partition, uint64_t base,
				     struct evbus_err *err);

#endif
