/* segment.c: naming, listing, opening and rolling the files of a partition. */
#include "log/segment.h"

#include "log/scan.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE (1 << 1)
#endif

#define FIRST_LINE_CHUNK 4096u
#define BEHIND_CHUNK (256u * 1024)
#define SEGMENT_NAME_LEN (20u + sizeof ".jsonl" - 1)

void segment_live_path(int32_t partition, char path[SEGMENT_PATH_MAX])
{
	snprintf(path, SEGMENT_PATH_MAX, "partition=%d.jsonl", partition);
}

void segment_path(int32_t partition, uint64_t base, char path[SEGMENT_PATH_MAX])
{
	snprintf(path, SEGMENT_PATH_MAX, "partition=%d/%020llu.jsonl", partition, (unsigned long long)base);
}

void segments_release(struct segments *segments)
{
	free(segments->bases);
	*segments = (struct segments){ 0 };
}

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static bool parse_name(const char *name, uint64_t *base)
{
	if (strlen(name) != SEGMENT_NAME_LEN || strcmp(name + 20, ".jsonl") != 0 || strspn(name, "0123456789") != 20)
		return false;
	size_t zeros = strspn(name, "0");
	zeros -= zeros == 20;
	return decimal_parse((struct evbus_slice){ name + zeros, 20 - zeros }, base);
}

static void close_dir(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

/* The directory of the older segments; *fd stays -1 where nothing was rolled yet. */
static enum evbus_code open_older(const struct topic *topic, int32_t partition, int *fd, struct evbus_err *err)
{
	char path[SEGMENT_PATH_MAX], name[NAME_IN_MESSAGE];

	snprintf(path, sizeof path, "partition=%d", partition);
	snprintf(name, sizeof name, "%s/%s", topic->name, path);
	enum evbus_code code = os_open_dir(topic->fd, path, name, fd, err);
	return code == EVBUS_NONE ? EVBUS_OK : code;
}

enum evbus_code segments_list(const struct topic *topic, int32_t partition, struct segments *segments,
			      struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf bases = { 0 };
	int fd = -1;
	uint64_t base;

	*segments = (struct segments){ 0 };
	TRY(open_older(topic, partition, &fd, err));
	if (fd < 0)
		return EVBUS_OK;
	CLEANUP(close_dir) DIR *dir = os.fdopendir(fd);
	if (!dir) {
		os_close_cleanup(&fd);
		return err_set(err, EVBUS_IO, errno, "cannot list '%s/partition=%d'", topic->name, partition);
	}
	for (struct dirent *entry; errno = 0, (entry = os.readdir(dir));)
		if (parse_name(entry->d_name, &base))
			TRY(buf_add(&bases, &base, sizeof base, err));
	if (errno)
		return err_set(err, EVBUS_IO, errno, "cannot list '%s/partition=%d'", topic->name, partition);
	segments->count = bases.len / sizeof base;
	if (segments->count)
		qsort(bases.data, segments->count, sizeof base, ascending);
	segments->bases = (uint64_t *)(void *)bases.data;
	bases.data = NULL;
	return EVBUS_OK;
}

enum evbus_code segment_open_live(const struct topic *topic, int32_t partition, int flags, int *fd,
				  struct evbus_err *err)
{
	char path[SEGMENT_PATH_MAX], name[NAME_IN_MESSAGE];

	segment_live_path(partition, path);
	snprintf(name, sizeof name, "%s/%s", topic->name, path);
	return os_open_file(topic->fd, path, flags, topic->file_mode, name, fd, err);
}

/* An empty file at the name of an older segment is about to change places with the live one. If it was opened before and
 * looked at after that, it is no older segment: *moved. */
static enum evbus_code open_once(int dir, const char *path, const char *name, int flags, mode_t mode, int *fd,
				 uint64_t *size, bool *moved, struct evbus_err *err)
{
	CLEANUP(os_close_cleanup) int opened = -1;
	struct stat st, there;

	TRY(os_open_file(dir, path, flags, mode, name, &opened, err));
	if (os.fstat(opened, &st))
		return err_set(err, EVBUS_IO, errno, "cannot look at '%s'", name);
	*moved = !os.fstatat(dir, path, &there, AT_SYMLINK_NOFOLLOW) && there.st_ino != st.st_ino;
	if (*moved)
		return EVBUS_OK;
	*size = (uint64_t)st.st_size;
	*fd = opened;
	opened = -1;
	return EVBUS_OK;
}

enum evbus_code segment_open(const struct topic *topic, int32_t partition, uint64_t base, int flags, int *fd,
			     uint64_t *size, struct evbus_err *err)
{
	char path[SEGMENT_PATH_MAX], name[NAME_IN_MESSAGE];
	CLEANUP(os_close_cleanup) int dir = -1;
	bool moved;

	segment_path(partition, base, path);
	snprintf(name, sizeof name, "%s/%s", topic->name, path);
	TRY(open_older(topic, partition, &dir, err));
	if (dir < 0)
		return err_set(err, EVBUS_NONE, 0, "there is no '%s'", name);
	do
		TRY(open_once(dir, strchr(path, '/') + 1, name, flags, topic->file_mode, fd, size, &moved, err));
	while (moved);    /* once: what stands there then stays */
	return EVBUS_OK;
}

enum evbus_code segment_line_before(int fd, const char *name, uint64_t end, struct buf *buf, struct line *line,
				    bool *found, struct evbus_err *err)
{
	*found = false;
	for (uint64_t span = 4096; end; span *= 8) {
		uint64_t from = end > span ? end - span : 0;
		size_t len = (size_t)(end - from);
		buf->len = 0;
		TRY(buf_reserve(buf, len, err));
		ssize_t n = os_read_at(fd, buf->data, len, from);
		if (n < 0)
			return err_set(err, EVBUS_IO, errno, "cannot read '%s'", name);
		if (n != (ssize_t)len)
			return err_set(err, EVBUS_IO, 0, "'%s' became shorter while it was read", name);
		const char *newline = len > 1 ? memrchr(buf->data, '\n', len - 1) : NULL;
		if (!newline && from && span < LINE_MAX_BYTES)
			continue;
		const char *start = newline ? newline + 1 : buf->data;
		size_t text = (size_t)(buf->data + len - 1 - start);
		const char *why = buf->data[len - 1] == '\n' ? line_parse((struct evbus_slice){ start, text }, line) :
							       "it does not end with a newline";
		if (why)
			return err_set(err, EVBUS_IO, 0,
				       "'%s': the line that ends at byte %llu is damaged: %s; evbus verify says more",
				       name, (unsigned long long)end, why);
		*found = true;
		return EVBUS_OK;
	}
	return EVBUS_OK;
}

/* Of the first line; where that is damaged or not there, as the page has it, else as the first line that is not damaged
 * says it. 0 where there is none. */
static enum evbus_code first_offset(int fd, const char *name, const struct cell *paged, uint64_t *base,
				    struct evbus_err *err)
{
	CLEANUP(scan_release) struct scan scan;
	struct evbus_slice text;
	enum scan_what what;
	struct line line;

	scan_init(&scan, fd, name, 0, UINT64_MAX, FIRST_LINE_CHUNK);
	for (uint64_t i = 0;; i++) {
		TRY(scan_next(&scan, &text, &what, err));
		bool good = what == SCAN_LINE && !line_parse(text, &line) && line.offset >= i;
		/* Two that have become one, as the newline between them was lost. */
		if (!good && !paged && what == SCAN_LINE && line_parse_last(text, &line)) {
			i++;
			good = line.offset >= i;
		}
		if (good || (what == SCAN_END && !(paged && i == 0))) {
			*base = good ? line.offset - i : 0;
			return EVBUS_OK;
		}
		if (paged) {
			*base = paged->base;
			return EVBUS_OK;
		}
		if (what == SCAN_LONG)
			TRY(scan_resync(&scan, err));
	}
}

/* The offset behind the last line, as the last line that is not damaged says it. */
static enum evbus_code offset_behind(int fd, const char *name, uint64_t base, uint64_t *next, struct evbus_err *err)
{
	CLEANUP(scan_release) struct scan scan;
	struct evbus_slice text;
	enum scan_what what;
	struct line line;

	scan_init(&scan, fd, name, 0, UINT64_MAX, BEHIND_CHUNK);
	for (*next = base;; ++*next) {
		TRY(scan_next(&scan, &text, &what, err));
		if (what == SCAN_END)
			return EVBUS_OK;
		if (what == SCAN_LINE && !line_parse(text, &line) && line.offset > *next)
			*next = line.offset;
		if (what == SCAN_LONG)
			TRY(scan_resync(&scan, err));
	}
}

enum evbus_code segment_live_base(const struct topic *topic, int32_t partition, int live,
				  const struct segments *older, const struct cell *paged, uint64_t *base,
				  int64_t *time_us, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf buf = { 0 };
	CLEANUP(os_close_cleanup) int fd = -1;
	char path[SEGMENT_PATH_MAX], name[NAME_IN_MESSAGE];
	struct evbus_err why;
	struct line line;
	uint64_t size;
	bool found;

	*time_us = 0;
	if (older->count == 0) {
		segment_live_path(partition, path);
		snprintf(name, sizeof name, "%s/%s", topic->name, path);
		*base = 0;
		return live < 0 ? EVBUS_OK : first_offset(live, name, paged, base, err);
	}
	uint64_t last = older->bases[older->count - 1];
	segment_path(partition, last, path);
	snprintf(name, sizeof name, "%s/%s", topic->name, path);
	TRY(segment_open(topic, partition, last, O_RDONLY, &fd, &size, err));
	enum evbus_code code = segment_line_before(fd, name, size, &buf, &line, &found, &why);
	/* Damage there is found by who reads it, and must not hide what follows. Lines may have gone with it. */
	if (code && paged && paged->base > last) {
		*base = paged->base;
		*time_us = paged->next == paged->base ? paged->time_us : 0;
		return EVBUS_OK;
	}
	/* What cannot be read just now is no damage: its time would be lost, and the next record might get an earlier one. */
	if (code && why.sys_errno) {
		*err = why;
		return code;
	}
	if (code)
		return offset_behind(fd, name, last, base, err);
	if (found && line.offset < last)
		return err_set(err, EVBUS_IO, 0,
			       "'%s' has another segment's name: it ends with offset %llu; a segment is named by its first "
			       "offset",
			       name, (unsigned long long)line.offset);
	*base = found ? line.offset + 1 : last;
	*time_us = found ? line.time_us : 0;
	return EVBUS_OK;
}

/* The live segment of a roll that did not happen begins where the empty file says: another one was emptied since. */
static enum evbus_code check_undone(int live, const char *name, uint64_t base, struct evbus_err *err)
{
	char head[LINE_HEAD_MAX];
	uint64_t offset;
	int64_t time_us;

	ssize_t n = os_read_at(live, head, sizeof head, 0);
	if (n < 0)
		return err_set(err, EVBUS_IO, errno, "cannot read the segment behind '%s'", name);
	if (!line_peek(head, (size_t)n, &offset, &time_us) || offset <= base)
		return EVBUS_OK;
	return err_set(err, EVBUS_IO, 0,
		       "'%s' is empty, and the records from offset %llu to %llu were in it: restore it from a copy", name,
		       (unsigned long long)base, (unsigned long long)offset - 1);
}

enum evbus_code segments_undo_roll(const struct topic *topic, int32_t partition, int live, struct segments *older,
				   struct evbus_err *err)
{
	char path[SEGMENT_PATH_MAX], name[NAME_IN_MESSAGE];
	CLEANUP(os_close_cleanup) int fd = -1;
	uint64_t size;

	if (older->count == 0)
		return EVBUS_OK;
	uint64_t base = older->bases[older->count - 1];
	TRY(segment_open(topic, partition, base, O_RDONLY, &fd, &size, err));
	if (size)
		return EVBUS_OK;
	segment_path(partition, base, path);
	snprintf(name, sizeof name, "%s/%s", topic->name, path);
	TRY(check_undone(live, name, base, err));
	if (os.unlinkat(topic->fd, path, 0))
		return err_set(err, EVBUS_IO, errno, "cannot remove the empty segment '%s'", name);
	older->count--;
	return EVBUS_OK;
}

/* Where the kernel or the file system cannot exchange: the live name is away for a moment, which opening survives. */
static int exchange(const struct topic *topic, const char *live, const char *older)
{
	CLEANUP(os_close_cleanup) int fd = -1;

	if (!os.renameat2(topic->fd, live, topic->fd, older, RENAME_EXCHANGE))
		return 0;
	if (errno != ENOSYS && errno != EINVAL)
		return -1;
	if (os.renameat2(topic->fd, live, topic->fd, older, 0))
		return -1;
	return os_open_file(topic->fd, live, O_WRONLY | O_CREAT, topic->file_mode, live, &fd, NULL) == EVBUS_OK ? 0 : -1;
}

enum evbus_code segment_roll(const struct topic *topic, int32_t partition, uint64_t base, struct evbus_err *err)
{
	char live[SEGMENT_PATH_MAX], older[SEGMENT_PATH_MAX], name[NAME_IN_MESSAGE], dir_path[SEGMENT_PATH_MAX];
	CLEANUP(os_close_cleanup) int dir = -1, fd = -1;
	struct stat st;

	segment_live_path(partition, live);
	segment_path(partition, base, older);
	snprintf(dir_path, sizeof dir_path, "partition=%d", partition);
	snprintf(name, sizeof name, "%s/%s", topic->name, older);
	TRY(os_make_dir(topic->fd, dir_path, topic->dir_mode, name, NULL, err));
	TRY(open_older(topic, partition, &dir, err));
	/* One that is there and empty is left from a roll that was killed. */
	TRY(os_open_file(dir, strchr(older, '/') + 1, O_WRONLY | O_CREAT, topic->file_mode, name, &fd, err));
	if (os.fstat(fd, &st) || os.fsync(fd))
		return err_set(err, EVBUS_IO, errno, "cannot sync '%s'", name);
	if (st.st_size)
		return err_set(err, EVBUS_CONFLICT, 0, "cannot roll to '%s': it is there already", name);
	TRY(os_sync_dir(dir, name, err));
	if (exchange(topic, live, older))
		return err_set(err, EVBUS_IO, errno, "cannot exchange '%s/%s' and '%s'", topic->name, live, name);
	TRY(os_sync_dir(dir, name, err));
	return os_sync_dir(topic->fd, live, err);
}
