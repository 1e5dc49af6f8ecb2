/* faulty.c: the table os with calls that fail when a test wants it. */
#include "faulty.h"

#include <sys/mman.h>

#define READING (FAULTY_IO | FAULTY_NO_MEMORY)
#define WRITING (READING | FAULTY_SPACE | FAULTY_READ_ONLY)

struct faulty faulty;

static unsigned kind_wanted(void)
{
	if (faulty.part)
		return FAULTY_PART;
	switch (faulty.number) {
	case FAULTY_ANY:
		return FAULTY_IO | FAULTY_NO_MEMORY;
	case ENOSPC:
	case EDQUOT:
		return FAULTY_SPACE;
	case EROFS:
		return FAULTY_READ_ONLY;
	case EMFILE:
		return FAULTY_DESCRIPTORS;
	case ENOMEM:
		return FAULTY_NO_MEMORY;
	case EINTR:
		return FAULTY_SIGNAL;
	default:
		return FAULTY_IO;
	}
}

bool faulty_hit(const char *name, enum faulty_scope scope, unsigned kinds)
{
	if (!faulty.active || !(faulty.scope & scope) || (faulty.plausible && !(kinds & kind_wanted())))
		return false;
	unsigned call = atomic_fetch_add(&faulty.calls, 1) + 1;
	if (!faulty.at || (faulty.from_on ? call < faulty.at : call != faulty.at))
		return false;
	atomic_store(&faulty.failed, name);
	if (faulty.instead) {
		int saved = errno;
		faulty.instead();
		errno = saved;
		return false;
	}
	errno = faulty.number != FAULTY_ANY ? faulty.number : kinds & FAULTY_IO ? EIO : ENOMEM;
	return true;
}

static bool hit(const char *name, unsigned kinds)
{
	return faulty_hit(name, FAULTY_CALLS, kinds);
}

/* Whether only a part of a transfer is done; *len becomes that. One that has no such part is not counted. */
static bool hit_transfer(const char *name, unsigned kinds, size_t *len)
{
	size_t part = faulty.part == FAULTY_ONE ? 1 : faulty.part == FAULTY_HALF ? *len / 2 : *len - 1;

	if (!faulty.part)
		return false;
	if (part && part < *len && hit(name, kinds | FAULTY_PART))
		*len = part;
	return true;
}

static ssize_t faulty_pread(int fd, void *data, size_t len, off_t at)
{
	const unsigned kinds = READING | FAULTY_SIGNAL;

	if (!hit_transfer("pread", kinds, &len) && hit("pread", kinds))
		return -1;
	return faulty.real.pread(fd, data, len, at);
}

static ssize_t faulty_pwrite(int fd, const void *data, size_t len, off_t at)
{
	const unsigned kinds = WRITING | FAULTY_SIGNAL;

	if (!hit_transfer("pwrite", kinds, &len) && hit("pwrite", kinds))
		return -1;
	return faulty.real.pwrite(fd, data, len, at);
}

static int faulty_openat(int dir, const char *path, int flags, mode_t mode)
{
	unsigned kinds = READING | FAULTY_DESCRIPTORS | (flags & O_CREAT ? FAULTY_SPACE : 0) |
			 (flags & (O_CREAT | O_WRONLY | O_RDWR) ? FAULTY_READ_ONLY : 0);

	return hit("openat", kinds) ? -1 : faulty.real.openat(dir, path, flags, mode);
}

/* Giving a lock back cannot fail. */
static int faulty_lock(int fd, int cmd, struct flock *lock)
{
	unsigned kinds = READING | (cmd == F_OFD_SETLKW ? FAULTY_SIGNAL : 0);

	return lock->l_type != F_UNLCK && hit("lock", kinds) ? -1 : faulty.real.lock(fd, cmd, lock);
}

#define FAULTY(type, name, failure, kinds, parameters, arguments)                                                      \
	static type faulty_##name parameters                                                                           \
	{                                                                                                              \
		return hit(#name, kinds) ? (failure) : faulty.real.name arguments;                                     \
	}
FAULTY(int, ftruncate, -1, WRITING, (int fd, off_t size), (fd, size))
FAULTY(int, fdatasync, -1, WRITING, (int fd), (fd))
FAULTY(int, fsync, -1, WRITING, (int fd), (fd))
FAULTY(int, fstat, -1, READING, (int fd, struct stat *st), (fd, st))
FAULTY(int, fstatat, -1, READING, (int dir, const char *path, struct stat *st, int flags), (dir, path, st, flags))
FAULTY(int, statx, -1, READING, (int dir, const char *path, int flags, unsigned mask, struct statx *st),
       (dir, path, flags, mask, st))
FAULTY(int, fstatfs, -1, READING, (int fd, struct statfs *fs), (fd, fs))
FAULTY(DIR *, fdopendir, NULL, READING, (int fd), (fd))
FAULTY(struct dirent *, readdir, NULL, READING, (DIR * dir), (dir))
FAULTY(ssize_t, readlink, -1, READING, (const char *path, char *to, size_t size), (path, to, size))
FAULTY(int, fchmod, -1, READING | FAULTY_READ_ONLY, (int fd, mode_t mode), (fd, mode))
FAULTY(int, chmod, -1, READING | FAULTY_READ_ONLY, (const char *path, mode_t mode), (path, mode))
FAULTY(int, mknodat, -1, WRITING, (int dir, const char *path, mode_t mode, dev_t device), (dir, path, mode, device))
FAULTY(int, mkdirat, -1, WRITING, (int dir, const char *path, mode_t mode), (dir, path, mode))
FAULTY(int, linkat, -1, WRITING, (int from, const char *path, int to, const char *link, int flags),
       (from, path, to, link, flags))
FAULTY(int, unlinkat, -1, WRITING, (int dir, const char *path, int flags), (dir, path, flags))
FAULTY(int, renameat2, -1, WRITING, (int from, const char *path, int to, const char *name, unsigned flags),
       (from, path, to, name, flags))
FAULTY(void *, mmap, MAP_FAILED, FAULTY_NO_MEMORY, (void *addr, size_t len, int prot, int flags, int fd, off_t at),
       (addr, len, prot, flags, fd, at))
FAULTY(ssize_t, getrandom, -1, FAULTY_IO, (void *data, size_t len, unsigned flags), (data, len, flags))
FAULTY(int, boot_id, -1, READING | FAULTY_DESCRIPTORS, (char id[36]), (id))
#undef FAULTY

static void *faulty_realloc(void *block, size_t size)
{
	return faulty_hit("realloc", FAULTY_MEMORY, FAULTY_NO_MEMORY) ? NULL : faulty.real.realloc(block, size);
}

void faulty_begin(unsigned at, int number)
{
	faulty = (struct faulty){
		.real = os, .at = at, .number = number, .scope = FAULTY_CALLS | FAULTY_MEMORY, .active = true
	};
	os.openat = faulty_openat;
	os.pread = faulty_pread;
	os.pwrite = faulty_pwrite;
	os.ftruncate = faulty_ftruncate;
	os.fdatasync = faulty_fdatasync;
	os.fsync = faulty_fsync;
	os.fstat = faulty_fstat;
	os.fstatat = faulty_fstatat;
	os.statx = faulty_statx;
	os.fstatfs = faulty_fstatfs;
	os.fdopendir = faulty_fdopendir;
	os.readdir = faulty_readdir;
	os.readlink = faulty_readlink;
	os.fchmod = faulty_fchmod;
	os.chmod = faulty_chmod;
	os.mknodat = faulty_mknodat;
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

void faulty_end(void)
{
	os = faulty.real;
	faulty.active = false;
}
