/* os.h: every system call that can fail in a way that matters, in one table that a test may replace.
 *
 * The members have the contracts of the calls they are named after. Code of the library calls os.pwrite(), never
 * pwrite(). */
#ifndef EVBUS_BASE_OS_H
#define EVBUS_BASE_OS_H

#include "base/err.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <time.h>

struct os {
	int (*openat)(int dir, const char *path, int flags, mode_t mode);
	int (*close)(int fd);
	ssize_t (*pread)(int fd, void *data, size_t len, off_t at);
	ssize_t (*pwrite)(int fd, const void *data, size_t len, off_t at);
	int (*ftruncate)(int fd, off_t size);
	int (*fdatasync)(int fd);
	int (*fsync)(int fd);
	int (*fstat)(int fd, struct stat *st);
	int (*fstatat)(int dir, const char *path, struct stat *st, int flags);
	int (*statx)(int dir, const char *path, int flags, unsigned mask, struct statx *st);
	int (*fstatfs)(int fd, struct statfs *fs);
	DIR *(*fdopendir)(int fd);
	struct dirent *(*readdir)(DIR *dir);
	ssize_t (*readlink)(const char *path, char *to, size_t size);
	int (*fchmod)(int fd, mode_t mode);
	int (*chmod)(const char *path, mode_t mode);
	int (*mknodat)(int dir, const char *path, mode_t mode, dev_t device);
	int (*mkdirat)(int dir, const char *path, mode_t mode);
	int (*linkat)(int from_dir, const char *from, int to_dir, const char *to, int flags);
	int (*unlinkat)(int dir, const char *path, int flags);
	int (*renameat2)(int from_dir, const char *from, int to_dir, const char *to, unsigned flags);
	int (*lock)(int fd, int cmd, struct flock *lock);    /* fcntl with F_OFD_… */
	void *(*mmap)(void *addr, size_t len, int prot, int flags, int fd, off_t at);
	int (*futex_wait)(uint32_t *word, uint32_t value, const struct timespec *timeout);
	int (*futex_wake)(uint32_t *word);                   /* all waiters */
	int (*clock_gettime)(clockid_t clock, struct timespec *now);
	ssize_t (*getrandom)(void *data, size_t len, unsigned flags);
	void *(*realloc)(void *block, size_t size);
	int (*boot_id)(char id[36]);                         /* /proc/sys/kernel/random/boot_id; -1 and errno */
	void (*point)(const char *name);                     /* no call: a place was reached; base/points.h */
};

extern struct os os;

int64_t os_now_us(void);
int64_t os_monotonic_us(void);

/* The whole of it: goes on after EINTR and short transfers. false: errno says why. os_read_at returns the bytes read,
 * fewer than len only at the end of the file; -1: errno. */
bool os_write_at(int fd, const void *data, size_t len, uint64_t at);
ssize_t os_read_at(int fd, void *data, size_t len, uint64_t at);

/* Closes *fd unless it is -1, for CLEANUP. */
void os_close_cleanup(int *fd);

/* Opens a file below dir: never through a symlink, never anything but a regular file (EVBUS_CONFLICT names what it is),
 * for writing only one that has no other name, always O_CLOEXEC. With O_CREAT: *mode* exactly, whatever the umask, if it
 * was made here, and for writing also if somebody made it and did not come to that. *fd = -1 and EVBUS_NONE where it is
 * not there. name is for the message. */
CHECKED enum evbus_code os_open_file(int dir, const char *path, int flags, mode_t mode, const char *name, int *fd,
				     struct evbus_err *err);
/* Whether it is a file of ours that has what a umask left of the mode: made, and nothing else was done yet. */
bool os_mode_is_unfinished(const struct stat *st, mode_t mode);
CHECKED enum evbus_code os_open_dir(int dir, const char *path, const char *name, int *fd, struct evbus_err *err);
/* Makes it where it is missing, and syncs dir then, and the name of dir: whoever made that may have been killed before. */
CHECKED enum evbus_code os_make_dir(int dir, const char *path, mode_t mode, const char *name, bool *made,
				    struct evbus_err *err);
CHECKED enum evbus_code os_sync_dir(int dir, const char *name, struct evbus_err *err);
/* Syncs the directory above, and so the name of dir. */
CHECKED enum evbus_code os_sync_parent(int dir, const char *name, struct evbus_err *err);

#endif
