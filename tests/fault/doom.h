/* doom.h: a process that kills itself at its n-th call of the system, before the call is made, or, where it is a write,
 * in the middle of it. */
#ifndef EVBUS_TESTS_DOOM_H
#define EVBUS_TESTS_DOOM_H

#include "base/os.h"

#include <signal.h>
#include <unistd.h>

static struct os doom_real;
static uint64_t doom_left;
static uint64_t doom_calls; /* that were made */

static inline void doom_count(void)
{
	doom_calls++;
	if (doom_left && --doom_left == 0)
		raise(SIGKILL);
}

#define DOOMED(type, name, parameters, arguments)         \
	static type doom_##name parameters                \
	{                                                 \
		doom_count();                             \
		return doom_real.name arguments;          \
	}
DOOMED(int, openat, (int dir, const char *path, int flags, mode_t mode), (dir, path, flags, mode))
DOOMED(int, close, (int fd), (fd))
DOOMED(ssize_t, pread, (int fd, void *data, size_t len, off_t at), (fd, data, len, at))
DOOMED(int, ftruncate, (int fd, off_t size), (fd, size))
DOOMED(int, fdatasync, (int fd), (fd))
DOOMED(int, fsync, (int fd), (fd))
DOOMED(int, fstat, (int fd, struct stat *st), (fd, st))
DOOMED(int, fstatat, (int dir, const char *path, struct stat *st, int flags), (dir, path, st, flags))
DOOMED(int, statx, (int dir, const char *path, int flags, unsigned mask, struct statx *st), (dir, path, flags, mask, st))
DOOMED(ssize_t, readlink, (const char *path, char *to, size_t size), (path, to, size))
DOOMED(int, fchmod, (int fd, mode_t mode), (fd, mode))
DOOMED(int, chmod, (const char *path, mode_t mode), (path, mode))
DOOMED(int, mknodat, (int dir, const char *path, mode_t mode, dev_t device), (dir, path, mode, device))
DOOMED(int, mkdirat, (int dir, const char *path, mode_t mode), (dir, path, mode))
DOOMED(int, linkat, (int from, const char *path, int to, const char *link, int flags), (from, path, to, link, flags))
DOOMED(int, unlinkat, (int dir, const char *path, int flags), (dir, path, flags))
DOOMED(int, renameat2, (int from, const char *path, int to, const char *name, unsigned flags),
       (from, path, to, name, flags))
DOOMED(int, lock, (int fd, int cmd, struct flock *lock), (fd, cmd, lock))
DOOMED(int, futex_wait, (uint32_t *word, uint32_t value, const struct timespec *timeout), (word, value, timeout))
DOOMED(int, futex_wake, (uint32_t *word), (word))
#undef DOOMED

static ssize_t doom_pwrite(int fd, const void *data, size_t len, off_t at)
{
	if (doom_left == 1)
		doom_real.pwrite(fd, data, (len * 7 + (size_t)getpid()) % (len + 1), at);
	doom_count();
	return doom_real.pwrite(fd, data, len, at);
}

/* From now on; 0: only counts, and kills nobody. */
static inline void doom_at(uint64_t calls)
{
	doom_left = calls;
	doom_calls = 0;
	doom_real = os;
	os.openat = doom_openat;
	os.close = doom_close;
	os.pread = doom_pread;
	os.pwrite = doom_pwrite;
	os.ftruncate = doom_ftruncate;
	os.fdatasync = doom_fdatasync;
	os.fsync = doom_fsync;
	os.fstat = doom_fstat;
	os.fstatat = doom_fstatat;
	os.statx = doom_statx;
	os.readlink = doom_readlink;
	os.fchmod = doom_fchmod;
	os.chmod = doom_chmod;
	os.mknodat = doom_mknodat;
	os.mkdirat = doom_mkdirat;
	os.linkat = doom_linkat;
	os.unlinkat = doom_unlinkat;
	os.renameat2 = doom_renameat2;
	os.lock = doom_lock;
	os.futex_wait = doom_futex_wait;
	os.futex_wake = doom_futex_wake;
}

#endif
