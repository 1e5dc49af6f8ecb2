/* disk.c: a disk that forgets.
 *
 * The calls of the C library stand here under their own names: the program's definition wins over the library's, for
 * evbus as well as for SQLite. */
#include "disk_changes.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WORD 8u /* is written whole or not at all */

struct recording *disk;
static bool recording;
static unsigned pass_syncs, fail_syncs;
static size_t kill_at; /* of how many changes to come before the last the process is killed */

void disk_must(bool condition, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "disk: %s: %s\n", what, strerror(errno));
	abort();
}

/* ---- noting ---- */

size_t disk_changes(void)
{
	return disk ? disk->changes : 0;
}

static void note(const struct change *change)
{
	disk_must(disk->changes < CHANGES_MAX, "too many changes");
	disk->change[disk->changes++] = *change;
}

static size_t keep_bytes(const void *data, size_t len)
{
	size_t at = disk->bytes;

	disk_must(len <= BYTES_MAX - at, "too many bytes");
	memcpy(disk->byte + at, data, len);
	disk->bytes += len;
	return at;
}

void disk_kill_at(size_t n)
{
	kill_at = n;
}

static bool is_last(void)
{
	return kill_at && --kill_at == 0;
}

static void die_if_last(void)
{
	if (is_last())
		raise(SIGKILL);
}

static unsigned find_node(const struct stat *st)
{
	for (unsigned i = disk->nodes; i > 1; i--)
		if (disk->node[i - 1].ino == st->st_ino && disk->node[i - 1].dev == st->st_dev)
			return i - 1;
	return 0;
}

static unsigned new_node(const struct stat *st)
{
	disk_must(disk->nodes < NODES_MAX, "too many files");
	disk->node[disk->nodes] = (struct node){ st->st_dev, st->st_ino, S_ISDIR(st->st_mode) };
	return disk->nodes++;
}

static unsigned node_of(int fd)
{
	struct stat st;

	return !recording || fstat(fd, &st) ? 0 : find_node(&st);
}

/* The directory that holds a path, 0 where it is none of ours, and the last name. */
static unsigned parent_of(int dir, const char *path, char name[64])
{
	const char *slash = strrchr(path, '/');
	char parent[256] = ".";
	struct stat st;

	if (slash)
		snprintf(parent, sizeof parent, "%.*s", (int)(slash - path), path);
	snprintf(name, 64, "%s", slash ? slash + 1 : path);
	return fstatat(dir, parent, &st, 0) ? 0 : find_node(&st);
}

static bool is_ours(int dir, const char *path)
{
	char name[64];

	return recording && parent_of(dir, path, name);
}

static void note_name(int dir, const char *path)
{
	struct change change = { .kind = NAME };
	struct stat st;

	change.dir = parent_of(dir, path, change.name);
	if (!change.dir || fstatat(dir, path, &st, AT_SYMLINK_NOFOLLOW))
		return;
	change.node = find_node(&st);
	if (!change.node)
		change.node = new_node(&st);
	note(&change);
}

static int note_open(int dir, const char *path, int flags, mode_t mode)
{
	struct stat st;
	bool makes = (flags & O_CREAT) && is_ours(dir, path) && fstatat(dir, path, &st, AT_SYMLINK_NOFOLLOW);

	if (makes)
		die_if_last();
	int fd = (int)syscall(SYS_openat, dir, path, flags, mode);

	assert(!(flags & O_TRUNC));
	if (fd >= 0 && makes)
		note_name(dir, path);
	return fd;
}

static mode_t mode_of(int flags, va_list args)
{
	return flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
}

int openat(int dir, const char *path, int flags, ...)
{
	va_list args;

	va_start(args, flags);
	mode_t mode = mode_of(flags, args);
	va_end(args);
	return note_open(dir, path, flags, mode);
}

int open(const char *path, int flags, ...)
{
	va_list args;

	va_start(args, flags);
	mode_t mode = mode_of(flags, args);
	va_end(args);
	return note_open(AT_FDCWD, path, flags, mode);
}

int mkdirat(int dir, const char *path, mode_t mode)
{
	bool ours = is_ours(dir, path);

	if (ours)
		die_if_last();
	int rc = (int)syscall(SYS_mkdirat, dir, path, mode);
	if (!rc && ours)
		note_name(dir, path);
	return rc;
}

int mknodat(int dir, const char *path, mode_t mode, dev_t dev)
{
	bool ours = is_ours(dir, path);

	if (ours)
		die_if_last();
	int rc = (int)syscall(SYS_mknodat, dir, path, mode, dev);
	if (!rc && ours)
		note_name(dir, path);
	return rc;
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
	bool ours = is_ours(to_dir, to);

	if (ours)
		die_if_last();
	int rc = (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
	if (!rc && ours)
		note_name(to_dir, to);
	return rc;
}

int unlinkat(int dir, const char *path, int flags)
{
	struct change change = { .kind = UNNAME };

	change.dir = recording ? parent_of(dir, path, change.name) : 0;
	if (change.dir)
		die_if_last();
	int rc = (int)syscall(SYS_unlinkat, dir, path, flags);
	if (!rc && change.dir)
		note(&change);
	return rc;
}

int unlink(const char *path)
{
	return unlinkat(AT_FDCWD, path, 0);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	struct change change = { .kind = RENAME };
	struct stat st, other;
	bool exchange = flags & RENAME_EXCHANGE;

	if (!recording)
		return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
	change.dir = parent_of(from_dir, from, change.name);
	change.to_dir = parent_of(to_dir, to, change.to);
	if (!fstatat(from_dir, from, &st, AT_SYMLINK_NOFOLLOW))
		change.node = find_node(&st);
	if (exchange && !fstatat(to_dir, to, &other, AT_SYMLINK_NOFOLLOW))
		change.swapped = find_node(&other);
	if (change.node)
		die_if_last();
	int rc = (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
	if (!rc && change.node)
		note(&change);
	return rc;
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t at)
{
	struct change change = { .kind = WRITE, .node = node_of(fd), .at = (uint64_t)at };
	bool last = change.node && is_last();

	if (last && len <= WORD)
		raise(SIGKILL);
	ssize_t n = syscall(SYS_pwrite64, fd, data, last ? len / 2 : len, at);
	if (change.node && n > 0) {
		change.len = (size_t)n;
		change.data = keep_bytes(data, change.len);
		note(&change);
	}
	if (last)
		raise(SIGKILL);
	return n;
}

int ftruncate(int fd, off_t size)
{
	struct change change = { .kind = CUT, .node = node_of(fd), .at = (uint64_t)size };

	if (change.node)
		die_if_last();
	int rc = (int)syscall(SYS_ftruncate, fd, size);
	if (!rc && change.node)
		note(&change);
	return rc;
}

static int note_sync(int fd, long sync)
{
	struct change change = { .kind = SYNC, .node = node_of(fd) };
	bool is_file = change.node && !disk->node[change.node].is_dir;
	bool fails = is_file && !pass_syncs && fail_syncs;

	if (change.node)
		die_if_last();
	if (is_file && pass_syncs)
		pass_syncs--;
	fail_syncs -= fails;
	int rc = fails ? -1 : (int)syscall(sync, fd);
	if (fails)
		errno = EIO;
	change.kind = rc ? SYNC_FAILED : SYNC;
	if (change.node)
		note(&change);
	return rc;
}

int fsync(int fd)
{
	return note_sync(fd, SYS_fsync);
}

int fdatasync(int fd)
{
	return note_sync(fd, SYS_fdatasync);
}

void disk_fail_syncs(unsigned after, unsigned count)
{
	pass_syncs = after;
	fail_syncs = count;
}

/* ---- from what is there ---- */

static void take_file(unsigned node, int fd)
{
	static char bytes[65536];
	uint64_t at = 0;
	ssize_t n;

	while ((n = pread(fd, bytes, sizeof bytes, (off_t)at)) > 0) {
		struct change change = { .kind = WRITE, .node = node, .at = at, .len = (size_t)n };
		change.data = keep_bytes(bytes, change.len);
		note(&change);
		at += change.len;
	}
	note(&(struct change){ .kind = SYNC, .node = node });
}

static void take_dir(unsigned node, int fd)
{
	DIR *dir = fdopendir(fd);
	struct dirent *entry;

	disk_must(dir, "cannot list a directory");
	while ((entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		int child = openat(dirfd(dir), entry->d_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		disk_must(child >= 0, entry->d_name);
		note_name(dirfd(dir), entry->d_name);
		unsigned number = node_of(child);
		if (disk->node[number].is_dir) {
			take_dir(number, child);
		} else {
			take_file(number, child);
			close(child);
		}
	}
	closedir(dir);
	note(&(struct change){ .kind = SYNC, .node = node });
}

void disk_record(const char *path)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	disk_must(fd >= 0 && !fstat(fd, &st), path);
	/* Another one than before: a child that records anew leaves its parent's alone. */
	if (disk)
		munmap(disk, sizeof *disk);
	disk = mmap(NULL, sizeof *disk, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	disk_must(disk != MAP_FAILED, "no memory");
	disk->nodes = 1;
	pass_syncs = fail_syncs = 0;
	kill_at = 0;
	recording = true;
	take_dir(new_node(&st), fd);
}

void disk_stop(void)
{
	recording = false;
}

bool disk_is_recording(void)
{
	return recording;
}
