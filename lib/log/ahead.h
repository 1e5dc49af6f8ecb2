/* ahead.h: a thread that reads a file ahead of who looks at what was read. */
#ifndef EVBUS_LOG_AHEAD_H
#define EVBUS_LOG_AHEAD_H

#include <stdint.h>
#include <sys/types.h>

#define AHEAD_GAP_BYTES 4096u    /* room in front of what was read, for what is left of that before it */

struct ahead;

/* Reads the bytes from `from` to `limit`. The file stays open as long as it does. NULL: there is no memory for it, no
 * thread, or only one processor. */
struct ahead *ahead_open(int fd, uint64_t from, uint64_t limit);
/* The next bytes: how many, 0 where there are no more, -1: errno. They and the gap before them are the caller's until the
 * call after the next one. */
ssize_t ahead_next(struct ahead *ahead, char **data);
/* NULL: does nothing. The only call that may be made in a forked child. */
void ahead_close(struct ahead *ahead);

#endif
