/* file.h: the file of a store: found or made where it belongs, and no other. */
#ifndef EVBUS_STORE_FILE_H
#define EVBUS_STORE_FILE_H

#include "base/err.h"

#include <limits.h>
#include <sys/types.h>

struct store_file {
	int dir;                   /* the directory that it lies in */
	char name[NAME_MAX + 1];
	dev_t device;
	ino_t inode;
};

/* Looks at the file at path, below dir as store_open() has it, or makes it, empty, with its directories. EVBUS_NONE: it
 * is not there; EVBUS_CONFLICT: a link, a file with several names, or no regular file. *made is set if it was made. */
CHECKED enum evbus_code store_file_open(int dir, const char *path, bool create, mode_t mode, struct store_file *file,
					bool *made, struct evbus_err *err);
/* The directory of the file at path, made where it is missing. */
CHECKED enum evbus_code store_file_dir(int dir, const char *path, mode_t mode, int *fd, struct evbus_err *err);
/* Before the first commit: whoever made it and its directory may have been killed before he synced their names. */
CHECKED enum evbus_code store_file_sync_names(const struct store_file *file, struct evbus_err *err);
void store_file_release(struct store_file *file);

/* Its absolute path without any link in it. */
CHECKED enum evbus_code store_file_path(const struct store_file *file, char path[PATH_MAX], struct evbus_err *err);

/* EVBUS_CONFLICT: what SQLite would open beside it, its journal and the files of a WAL, is there and no regular file, or has
 * other names. It follows no link by itself, but waits for a FIFO for ever, and writes to what a hard link leads to. */
CHECKED enum evbus_code store_file_check_beside(const struct store_file *file, struct evbus_err *err);

/* Whether the name still leads to it: else EVBUS_CONFLICT. path: for the message. */
CHECKED enum evbus_code store_file_check(const struct store_file *file, const char *path, struct evbus_err *err);

/* The mode of directories for files of this mode: x where it has r. */
static inline mode_t store_dir_mode(mode_t file_mode)
{
	return file_mode | (file_mode & 0444) >> 2;
}

#endif
