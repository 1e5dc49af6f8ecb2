/* harm.h: what may be done to a lock file, which is safe to delete at any time, and more. */
#ifndef EVBUS_TESTS_HARM_H
#define EVBUS_TESTS_HARM_H

#include "fault.h"

#include <errno.h>

#define LOCK "bus/" TOPIC "/partition=0.lock"
#define PAGE_BYTES 4096u

static char harm_copy[PAGE_BYTES];
static ssize_t harm_copy_len;

/* Which is put back later. */
static inline void take_copy(void)
{
	int fd = open(LOCK, O_RDONLY);

	if (fd >= 0) {
		harm_copy_len = read(fd, harm_copy, sizeof harm_copy);
		close(fd);
	}
}

static inline void put_copy(const char *path, int flags, ssize_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | flags, 0600);

	CHECK(fd >= 0 && (len <= 0 || write(fd, harm_copy, (size_t)len) == len), "%s: %s", path, strerror(errno));
	close(fd);
}

enum harm {
	REMOVED,
	MADE_ANEW,
	TRUNCATED,
	CUT_SHORT,
	COPIED_OVER,
	COPIED_OVER_WHOLE, /* without truncating it first */
	REPLACED_BY_COPY,
	HARMS,
};

static inline void do_harm(enum harm harm)
{
	switch (harm) {
	case REMOVED:
		CHECK(!unlink(LOCK) || errno == ENOENT, "unlink: %s", strerror(errno));
		return;
	case MADE_ANEW:
		put_copy("new.lock", O_TRUNC, 0);
		CHECK(!rename("new.lock", LOCK), "rename: %s", strerror(errno));
		return;
	case TRUNCATED:
		CHECK(!truncate(LOCK, 0) || errno == ENOENT, "truncate: %s", strerror(errno));
		return;
	case CUT_SHORT:
		CHECK(!truncate(LOCK, 200) || errno == ENOENT, "truncate: %s", strerror(errno));
		return;
	case COPIED_OVER:
		put_copy(LOCK, O_TRUNC, harm_copy_len);
		return;
	case COPIED_OVER_WHOLE:
		put_copy(LOCK, 0, harm_copy_len);
		return;
	default:
		put_copy("new.lock", O_TRUNC, harm_copy_len);
		CHECK(!rename("new.lock", LOCK), "rename: %s", strerror(errno));
	}
}

#endif
