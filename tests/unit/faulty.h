/* System calls that fail when a test wants it. Each call of the table that can fail in earnest is counted; the one that
 * is chosen, or all from it on, fails without having been done. Or something else happens just before it is done. */
#ifndef EVBUS_TESTS_FAULTY_H
#define EVBUS_TESTS_FAULTY_H

#include "base/os.h"

#include <errno.h>
#include <sys/mman.h>

struct faulty {
	struct os real;
	unsigned calls; /* so far */
	unsigned at; /* the call, counted from 1, that fails; 0: none */
	bool from_on; /* and all behind it, as if the process were dead */
	int number; /* errno */
	const char *failed; /* the name of the (last) one that failed */
	size_t short_write; /* instead of failing, a pwrite that is hit does so many bytes */
	void (*instead)(void); /* instead of failing, this happens, and then the call */
};

static struct faulty faulty;

static inline bool hit(const char *name)
{
	faulty.calls++;
	if (!faulty.at || (faulty.from_on ? faulty.calls < faulty.at : faulty.calls != faulty.at))
		return false;
	faulty.failed = name;
	if (faulty.instead) {
		faulty.instead();
		return false;
	}
	errno = faulty.number;
	return true;
}

static inline int faulty_openat(int dir, const char *path, int flags, mode_t mode)
{
	return hit("openat") ? -1 : faulty.real.openat(dir, path, flags, mode);
}

static inline ssize_t faulty_pread(int fd, void *data, size_t len, off_t at)
{
	return hit("pread") ? -1 : faulty.real.pread(fd, data, len, at);
}

static inline ssize_t faulty_pwrite(int fd, const void *data, size_t len, off_t at)
{
	if (!hit("pwrite"))
		return faulty.real.pwrite(fd, data, len, at);
	if (faulty.short_write)
		return faulty.real.pwrite(fd, data, len < faulty.short_write ? len : faulty.short_write, at);
	return -1;
}

static inline int faulty_ftruncate(int fd, off_t size)
{
	return hit("ftruncate") ? -1 : faulty.real.ftruncate(fd, size);
}

static inline int faulty_fdatasync(int fd)
{
	return hit("fdatasync") ? -1 : faulty.real.fdatasync(fd);
}

static inline int faulty_fsync(int fd)
{
	return hit("fsync") ? -1 : faulty.real.fsync(fd);
}

static inline int faulty_fstat(int fd, struct stat *st)
{
	return hit("fstat") ? -1 : faulty.real.fstat(fd, st);
}

static inline int faulty_fstatat(int dir, const char *path, struct stat *st, int flags)
{
	return hit("fstatat") ? -1 : faulty.real.fstatat(dir, path, st, flags);
}

static inline int faulty_fchmod(int fd, mode_t mode)
{
	return hit("fchmod") ? -1 : faulty.real.fchmod(fd, mode);
}

static inline int faulty_mkdirat(int dir, const char *path, mode_t mode)
{
	return hit("mkdirat") ? -1 : faulty.real.mkdirat(dir, path, mode);
}

static inline int faulty_linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
	return hit("linkat") ? -1 : faulty.real.linkat(from_dir, from, to_dir, to, flags);
}

static inline int faulty_unlinkat(int dir, const char *path, int flags)
{
	return hit("unlinkat") ? -1 : faulty.real.unlinkat(dir, path, flags);
}

static inline int faulty_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	return hit("renameat2") ? -1 : faulty.real.renameat2(from_dir, from, to_dir, to, flags);
}

/* Giving a lock back cannot fail. */
static inline int faulty_lock(int fd, int cmd, struct flock *lock)
{
	return lock->l_type != F_UNLCK && hit("lock") ? -1 : faulty.real.lock(fd, cmd, lock);
}

static inline void *faulty_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t at)
{
	return hit("mmap") ? MAP_FAILED : faulty.real.mmap(addr, len, prot, flags, fd, at);
}

static inline ssize_t faulty_getrandom(void *data, size_t len, unsigned flags)
{
	return hit("getrandom") ? -1 : faulty.real.getrandom(data, len, flags);
}

static inline void *faulty_realloc(void *block, size_t size)
{
	return hit("realloc") ? NULL : faulty.real.realloc(block, size);
}

static inline int faulty_boot_id(char id[36])
{
	return hit("boot_id") ? -1 : faulty.real.boot_id(id);
}

/* From now on the at-th call fails. at 0: they are only counted. */
static inline void faulty_begin(unsigned at, int number)
{
	faulty = (struct faulty){ .real = os, .at = at, .number = number };
	os.openat = faulty_openat;
	os.pread = faulty_pread;
	os.pwrite = faulty_pwrite;
	os.ftruncate = faulty_ftruncate;
	os.fdatasync = faulty_fdatasync;
	os.fsync = faulty_fsync;
	os.fstat = faulty_fstat;
	os.fstatat = faulty_fstatat;
	os.fchmod = faulty_fchmod;
	os.mkdirat = faulty_mkdirat;
	os.linkat = faulty_linkat;
	os.unlinkat = faulty_unlinkat;
	os.renameat2 = faulty_renameat2;
	os.lock = faulty_lock;
	os.mmap = faulty_mmap;
	os.getrandom = faulty_getrandom;
	os.realloc = faulty_realloc;
	os.boot_id = faulty_boot_id;
}

static inline void faulty_end(void)
{
	os = faulty.real;
}

#endif
