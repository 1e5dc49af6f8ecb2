/* runs.h: lines of a file that follow each other as they should, found by threads side by side. */
#ifndef EVBUS_LOG_RUNS_H
#define EVBUS_LOG_RUNS_H

#include <stdbool.h>
#include <stdint.h>

/* Whole lines with right checksums, none of a batch, their offsets one after the other, no time before the one before.
 * What is said of them was so when they were read. */
struct run {
	uint64_t begin, end; /* bytes of the file; where begin stands a line begins, if there is one */
	uint64_t first, count; /* offsets; 0: no lines */
	int64_t first_us, last_us;
	bool whole; /* to the last line that ends in its chunk */
};

struct runs;

/* Of the bytes from 0 to `limit`. The file stays open as long as they are. NULL: it is not worth while, or there is no
 * memory for it, no thread, or only one processor. */
struct runs *runs_open(int fd, uint64_t limit);
/* The next one, in the order of the file; false: that was the last. Between two of them there may be anything. */
bool runs_next(struct runs *runs, struct run *run);
/* NULL: does nothing. */
void runs_close(struct runs *runs);

#endif
