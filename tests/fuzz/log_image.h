/* log_image.h: what fuzz-log makes of its input: the bytes of a log and what a page says of them; and a slow opinion on
 * how far such a log is whole. */
#ifndef EVBUS_TESTS_LOG_IMAGE_H
#define EVBUS_TESTS_LOG_IMAGE_H

#include "fuzz.h"
#include "log/control.h"
#include "log/line.h"

#define IMAGE_MAX_BYTES (256u * 1024)
#define PLACES_MAX 512u

struct image {
	uint8_t flags;
	struct buf log; /* all of it, */
	size_t split; /* of which so much is in an older segment */
	struct cell now; /* where the writer thinks that he is */
	uint64_t line_count;
	struct cell places[PLACES_MAX]; /* where he was behind each line or batch */
	bool astray[PLACES_MAX]; /* with an offset that is not the number of lines: no writer ever said so */
	size_t place_count;
	struct cell end, durable;
	uint8_t wild; /* whether one of them is a cell that nobody ever wrote */
	struct {
		uint16_t at;
		uint8_t change;
	} page_changes[4]; /* bytes of the page that are not what was written */
	size_t page_change_count;
};

enum image_wild {
	WILD_END = 0x20,
	WILD_DURABLE = 0x40,
	WILD_ASTRAY = 0x80,
};

enum image_flag {
	IMAGE_PAGE = 1,
	IMAGE_OTHER_BOOT = 2,
	IMAGE_SYNCING = 4,
	IMAGE_HALT = 8,
	IMAGE_ROLLED = 16,
	IMAGE_EMPTY_ROLL = 32, /* left from a roll that was killed */
	IMAGE_NO_LIVE = 64,
	IMAGE_OTHER_PAGE_ID = 128, /* made anew since */
};

void image_make(struct image *image, struct input *input);
void image_release(struct image *image);

/* How far lines are whole, correct and contiguous, whole batches only. `next` is the offset of the first line. */
struct prefix {
	size_t bytes;
	uint64_t next;
	int64_t time_us;
	bool good_behind; /* a line that is whole stands behind the first that is not */
};
struct prefix image_prefix(struct evbus_slice log, uint64_t next, int64_t time_us);

#endif
