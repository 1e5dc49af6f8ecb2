/* os.c: the system calls as they are, and the few ways in which the library uses them. */
#include "base/os.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

static int call_openat(int dir, const char *path, int flags, mode_t mode)
{
	return openat(dir, path, flags, mode);
}

static int call_fcntl(int fd, int cmd, struct flock *lock)
{
	return fcntl(fd, cmd, lock);
}

static int call_futex_wait(uint32_t *word, uint32_t value, const struct timespec *timeout)
{
	return (int)syscall(SYS_futex, word, FUTEX_WAIT, value, timeout, NULL, 0);
}

static int call_futex_wake(uint32_t *word)
{
	return (int)syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static int read_boot_id(char id[36])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t n = read(fd, id, 36);
	int saved = n < 0 ? errno : EIO;
	close(fd);
	errno = saved;
	return n == 36 ? 0 : -1;
}

static void pass_point(const char *name)
{
	(void)name;
}

struct os os = {
	.openat = call_openat,
	.close = close,
	.pread = pread,
	.pwrite = pwrite,
	.ftruncate = ftruncate,
	.fdatasync = fdatasync,
	.fsync = fsync,
	.fstat = fstat,
	.fstatat = fstatat,
	.statx = statx,
	.fstatfs = fstatfs,
	.fdopendir = fdopendir,
	.readdir = readdir,
	.readlink = readlink,
	.fchmod = fchmod,
	.chmod = chmod,
	.mknodat = mknodat,
	.mkdirat = mkdirat,
	.linkat = linkat,
	.unlinkat = unlinkat,
	.renameat2 = renameat2,
	.lock = call_fcntl,
	.mmap = mmap,
	.futex_wait = call_futex_wait,
	.futex_wake = call_futex_wake,
	.clock_gettime = clock_gettime,
	.getrandom = getrandom,
	.realloc = realloc,
	.boot_id = read_boot_id,
	.point = pass_point,
};

int64_t os_now_us(void)
{
	struct timespec now;

	if (os.clock_gettime(CLOCK_REALTIME, &now))
		return 0;    /* cannot happen with a clock that exists; the caller's clamp keeps the order */
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t os_monotonic_us(void)
{
	struct timespec now = { 0 };

	(void)os.clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t evbus_time_now(void)
{
	return os_now_us();
}

bool os_write_at(int fd, const void *data, size_t len, uint64_t at)
{
	const char *from = data;

	while (len) {
		ssize_t n = os.pwrite(fd, from, len, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			errno = n == 0 ? EIO : errno;
			return false;
		}
		from += n;
		len -= (size_t)n;
		at += (size_t)n;
	}
	return true;
}

ssize_t os_read_at(int fd, void *data, size_t len, uint64_t at)
{
	size_t got = 0;

	while (got < len) {
		ssize_t n = os.pread(fd, (char *)data + got, len - got, (off_t)(at + got));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		got += (size_t)n;
	}
	return (ssize_t)got;
}

void os_close_cleanup(int *fd)
{
	if (*fd >= 0)
		os.close(*fd);
	*fd = -1;
}

static enum evbus_code open_failed(const char *name, struct evbus_err *err)
{
	switch (errno) {
	case ENOENT:
		return err_set(err, EVBUS_NONE, 0, "there is no '%s'", name);
	case ELOOP:
		return err_set(err, EVBUS_CONFLICT, 0, "'%s' is a symbolic link: links are not followed", name);
	case ENOTDIR:
		return err_set(err, EVBUS_CONFLICT, 0, "'%s' is not a directory", name);
	case EISDIR:
		return err_set(err, EVBUS_CONFLICT, 0, "'%s' is a directory, not a file", name);
	case ENXIO:
		return err_set(err, EVBUS_CONFLICT, 0, "'%s' is not a regular file", name);
	default:
		return err_set(err, err_code_of(errno), errno, "cannot open '%s'", name);
	}
}

/* Without O_NOATIME each read of a file that was just written dirties its inode; only its owner may ask for that. */
static int open_quietly(int dir, const char *path, int flags, mode_t mode)
{
	int fd = os.openat(dir, path, flags | O_NOATIME, mode);

	return fd < 0 && errno == EPERM ? os.openat(dir, path, flags, mode) : fd;
}

/* Opens what is there, or makes it: two steps, so that we know whether the mode is ours to set. *made: it was tried. */
static int open_or_make(int dir, const char *path, int flags, mode_t mode, bool *made)
{
	*made = false;
	for (int tries = 0; tries < 100; tries++) {
		int fd = open_quietly(dir, path, flags & ~(O_CREAT | O_EXCL), 0);
		if (fd >= 0 && (flags & O_EXCL)) {
			os.close(fd);
			errno = EEXIST;
			return -1;
		}
		if (fd >= 0 || errno != ENOENT || !(flags & O_CREAT))
			return fd;
		*made = true;
		fd = open_quietly(dir, path, flags | O_EXCL, mode);
		if (fd >= 0 || errno != EEXIST || (flags & O_EXCL))
			return fd;
		*made = false;
	}
	return -1;
}

bool os_mode_is_unfinished(const struct stat *st, mode_t mode)
{
	return st->st_size == 0 && (st->st_mode & 07777) != mode && !(st->st_mode & 07777 & ~mode) &&
	       st->st_uid == geteuid();
}

enum evbus_code os_open_file(int dir, const char *path, int flags, mode_t mode, const char *name, int *fd,
			     struct evbus_err *err)
{
	struct stat st;
	bool made;

	/* O_NONBLOCK: opening a FIFO that stands in the place of a file must not hang. */
	CLEANUP(os_close_cleanup) int file =
		open_or_make(dir, path, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, mode, &made);
	if (file < 0 && (made || errno == EEXIST))
		return err_set(err, errno == EEXIST ? EVBUS_CONFLICT : EVBUS_CANTCREATE, errno, "cannot make '%s'",
			       name);
	if (file < 0)
		return open_failed(name, err);
	if (os.fstat(file, &st))
		return err_set(err, err_code_of(errno), errno, "cannot look at '%s'", name);
	if (!S_ISREG(st.st_mode))
		return err_set(err, EVBUS_CONFLICT, 0, "'%s' is not a regular file", name);
	/* What is written here would be written there as well. */
	if ((flags & O_ACCMODE) != O_RDONLY && st.st_nlink > 1)
		return err_set(err, EVBUS_CONFLICT, 0, "'%s' has %ju names: remove the other hard links", name,
			       (uintmax_t)st.st_nlink);
	bool writes = (flags & O_ACCMODE) != O_RDONLY;
	bool set = made ? (st.st_mode & 07777) != mode : writes && os_mode_is_unfinished(&st, mode);
	if (set && os.fchmod(file, mode)) {
		enum evbus_code code = err_set(err, err_code_of(errno), errno, "cannot set the mode of '%s'", name);
		/* Nobody else has one that must be new; another may be in use already, and the next one sets its mode. */
		if (flags & O_EXCL)
			os.unlinkat(dir, path, 0);
		return code;
	}
	*fd = file;
	file = -1;
	return EVBUS_OK;
}

enum evbus_code os_open_dir(int dir, const char *path, const char *name, int *fd, struct evbus_err *err)
{
	int opened = os.openat(dir, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
	if (opened < 0) {
		/* With O_DIRECTORY a link is ENOTDIR as well: look which it was, for the message. */
		struct stat st;
		int saved = errno;
		if (saved == ENOTDIR && !os.fstatat(dir, path, &st, AT_SYMLINK_NOFOLLOW) && S_ISLNK(st.st_mode))
			saved = ELOOP;
		errno = saved;
		return open_failed(name, err);
	}
	*fd = opened;
	return EVBUS_OK;
}

/* The mode exactly, whatever the umask; the descriptor is of what was just made. */
static enum evbus_code set_dir_mode(int dir, const char *path, mode_t mode, const char *name, struct evbus_err *err)
{
	CLEANUP(os_close_cleanup) int fd = os.openat(dir, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
	struct stat st;

	/* A umask that takes our own rights away, as root or not, is repaired through the parent. */
	if (fd < 0 && errno == EACCES && !fchmodat(dir, path, mode, 0))
		return EVBUS_OK;
	if (fd < 0 || os.fstat(fd, &st) || ((st.st_mode & 07777) != mode && os.fchmod(fd, mode)))
		return err_set(err, err_code_of(errno), errno, "cannot set the mode of '%s'", name);
	return EVBUS_OK;
}

enum evbus_code os_make_dir(int dir, const char *path, mode_t mode, const char *name, bool *made,
			    struct evbus_err *err)
{
	bool mine = os.mkdirat(dir, path, mode) == 0;

	if (made)
		*made = mine;
	if (mine) {
		enum evbus_code code = set_dir_mode(dir, path, mode, name, err);
		/* The next one would take it as it is. It is not removed where somebody is in it already. */
		if (code != EVBUS_OK)
			os.unlinkat(dir, path, AT_REMOVEDIR);
		TRY(code);
		TRY(os_sync_dir(dir, name, err));
		return os_sync_parent(dir, name, err);
	}
	if (errno == EEXIST)
		return EVBUS_OK;
	return err_set(err, errno == EACCES || errno == EPERM || errno == EROFS ? EVBUS_PERMISSION : EVBUS_CANTCREATE,
		       errno, "cannot make directory '%s'", name);
}

enum evbus_code os_sync_dir(int dir, const char *name, struct evbus_err *err)
{
	if (os.fsync(dir))
		return err_set(err, EVBUS_IO, errno, "cannot sync the directory of '%s'", name);
	return EVBUS_OK;
}

enum evbus_code os_sync_parent(int dir, const char *name, struct evbus_err *err)
{
	CLEANUP(os_close_cleanup) int parent = os.openat(dir, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);

	if (parent >= 0)
		return os_sync_dir(parent, name, err);
	/* One that we may not read was there before us; and without one, dir was removed, which others notice. */
	if (errno == EACCES || errno == EPERM || errno == ENOENT)
		return EVBUS_OK;
	return err_set(err, EVBUS_IO, errno, "cannot sync the directory of '%s'", name);
}
