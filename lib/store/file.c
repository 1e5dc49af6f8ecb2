/* file.c: finds or makes the file of a store without ever opening it.
 *
 * Closing any descriptor of a file drops all POSIX locks that the process has on it, and those are what SQLite works
 * with: one open() and close() here, beside another handle on the same store, would take its locks away in the middle
 * of a commit. Descriptors of O_PATH are no such descriptors, and mknod() makes a file without one. */
#include "store/file.h"

#include "base/os.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* Cuts path at its last slash: "a/b" into "a" and "b", "b" into "." and "b", "/b" into "/" and "b". */
static enum evbus_code split(const char *path, char parent[PATH_MAX], const char **name, struct evbus_err *err)
{
	const char *slash = strrchr(path, '/');

	*name = slash ? slash + 1 : path;
	size_t len = slash ? (size_t)(slash - path) : 0;
	if (len >= PATH_MAX || strlen(*name) > NAME_MAX)
		return err_set(err, EVBUS_CONFIG, ENAMETOOLONG, "cannot open the store '%.80s'", path);
	while (len && path[len - 1] == '/')
		len--;
	if (len)
		memcpy(parent, path, len);
	else
		parent[len++] = slash ? '/' : '.';
	parent[len] = '\0';
	return EVBUS_OK;
}

static enum evbus_code open_dir(int dir, const char *path, int *fd, struct evbus_err *err)
{
	/* A path of the operator's own may lead through links, one below a bus may not. */
	if (dir != AT_FDCWD)
		return os_open_dir(dir, path, path, fd, err);
	int opened = os.openat(dir, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (opened < 0 && errno == ENOENT)
		return err_set(err, EVBUS_NONE, 0, "there is no directory '%s'", path);
	if (opened < 0)
		return err_set(err, err_code_of(errno), errno, "cannot open directory '%s'", path);
	*fd = opened;
	return EVBUS_OK;
}

/* As deep as paths may be, each level is missing at most once: the recursion ends at "/" or ".". */
static enum evbus_code make_dir(int dir, const char *path, mode_t mode, int *fd, struct evbus_err *err)
{
	enum evbus_code code = open_dir(dir, path, fd, err);
	if (code != EVBUS_NONE || !strcmp(path, "/") || !strcmp(path, "."))
		return code;

	char parent[PATH_MAX];
	const char *name;
	CLEANUP(os_close_cleanup) int above = -1;
	TRY(split(path, parent, &name, err));
	TRY(make_dir(dir, parent, mode, &above, err));
	TRY(os_make_dir(above, name, store_dir_mode(mode), path, NULL, err));
	return open_dir(dir, path, fd, err);
}

/* As if there were no umask. fchmod() does not take an O_PATH descriptor, its name in /proc does. */
static enum evbus_code set_mode(int fd, mode_t mode, const char *path, struct evbus_err *err)
{
	char self[40];

	snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
	if (os.chmod(self, mode))
		return err_set(err, err_code_of(errno), errno, "cannot set the mode of '%s'", path);
	return EVBUS_OK;
}

static enum evbus_code check_kind(const struct stat *st, const char *path, struct evbus_err *err)
{
	if (S_ISLNK(st->st_mode))
		return err_set(err, EVBUS_CONFLICT, 0, "'%s' is a symbolic link: links are not followed", path);
	if (!S_ISREG(st->st_mode))
		return err_set(err, EVBUS_CONFLICT, 0, "'%s' is not a regular file", path);
	/* SQLite's journal is named after the database: under two names nobody would find the other's. */
	if (st->st_nlink > 1)
		return err_set(err, EVBUS_CONFLICT, 0, "'%s' has %ju names: remove the other hard links", path,
			       (uintmax_t)st->st_nlink);
	return EVBUS_OK;
}

enum evbus_code store_file_check_beside(const struct store_file *file, struct evbus_err *err)
{
	static const char *const suffixes[] = { "-journal", "-wal", "-shm" };
	char name[NAME_MAX + sizeof "-journal"];
	struct stat st;

	for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
		snprintf(name, sizeof name, "%s%s", file->name, suffixes[i]);
		if (!os.fstatat(file->dir, name, &st, AT_SYMLINK_NOFOLLOW))
			TRY(check_kind(&st, name, err));
	}
	return EVBUS_OK;
}

static enum evbus_code look(struct store_file *file, const char *path, bool mine, mode_t mode, struct evbus_err *err)
{
	CLEANUP(os_close_cleanup) int fd = os.openat(file->dir, file->name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
	struct stat st;

	if (fd < 0 && errno == ENOENT)
		return err_set(err, EVBUS_NONE, 0, "there is no store '%s'", path);
	if (fd < 0 || os.fstat(fd, &st))
		return err_set(err, err_code_of(errno), errno, "cannot look at '%s'", path);
	TRY(check_kind(&st, path, err));
	if (mine ? (st.st_mode & 07777) != mode : os_mode_is_unfinished(&st, mode))
		TRY(set_mode(fd, mode, path, err));
	file->device = st.st_dev;
	file->inode = st.st_ino;
	return EVBUS_OK;
}

static enum evbus_code make(struct store_file *file, const char *path, mode_t mode, bool *made, struct evbus_err *err)
{
	*made = os.mknodat(file->dir, file->name, S_IFREG | mode, 0) == 0;
	if (!*made && errno == EEXIST)
		return EVBUS_OK;
	if (!*made) {
		enum evbus_code code = err_code_of(errno);
		return err_set(err, code == EVBUS_IO ? EVBUS_CANTCREATE : code, errno, "cannot make '%s'", path);
	}
	return os_sync_dir(file->dir, path, err);
}

enum evbus_code store_file_open(int dir, const char *path, bool create, mode_t mode, struct store_file *file,
				bool *made, struct evbus_err *err)
{
	char parent[PATH_MAX];
	const char *name;
	struct store_file opened = { .dir = -1 };

	*made = false;
	TRY(split(path, parent, &name, err));
	memcpy(opened.name, name, strlen(name) + 1);
	TRY(create ? make_dir(dir, parent, mode, &opened.dir, err) : open_dir(dir, parent, &opened.dir, err));
	enum evbus_code code = look(&opened, path, false, create ? mode : 0, err);
	if (code == EVBUS_NONE && create) {
		code = make(&opened, path, mode, made, err);
		if (!code)
			code = look(&opened, path, *made, mode, err);
	}
	if (code) {
		store_file_release(&opened);
		return code;
	}
	*file = opened;
	return EVBUS_OK;
}

enum evbus_code store_file_dir(int dir, const char *path, mode_t mode, int *fd, struct evbus_err *err)
{
	char parent[PATH_MAX];
	const char *name;

	TRY(split(path, parent, &name, err));
	return make_dir(dir, parent, mode, fd, err);
}

enum evbus_code store_file_sync_names(const struct store_file *file, struct evbus_err *err)
{
	TRY(os_sync_dir(file->dir, file->name, err));
	return os_sync_parent(file->dir, file->name, err);
}

void store_file_release(struct store_file *file)
{
	os_close_cleanup(&file->dir);
}

enum evbus_code store_file_path(const struct store_file *file, char path[PATH_MAX], struct evbus_err *err)
{
	char self[40], dir[PATH_MAX];

	snprintf(self, sizeof self, "/proc/self/fd/%d", file->dir);
	ssize_t len = os.readlink(self, dir, sizeof dir - 1);
	if (len < 0)
		return err_set(err, EVBUS_IO, errno, "cannot tell the directory of '%s'", file->name);
	dir[len] = '\0';
	int n = snprintf(path, PATH_MAX, "%s/%s", len == 1 ? "" : dir, file->name);
	if (n < 0 || n >= PATH_MAX)
		return err_set(err, EVBUS_CONFIG, ENAMETOOLONG, "cannot open '%s'", file->name);
	return EVBUS_OK;
}

enum evbus_code store_file_check(const struct store_file *file, const char *path, struct evbus_err *err)
{
	struct stat st;

	bool gone = os.fstatat(file->dir, file->name, &st, AT_SYMLINK_NOFOLLOW) != 0;
	if (gone && errno != ENOENT)
		return err_set(err, err_code_of(errno), errno, "cannot look at '%s'", path);
	if (gone || st.st_dev != file->device || st.st_ino != file->inode)
		return err_set(err, EVBUS_CONFLICT, 0,
			       "the store '%s' was removed or replaced while it was in use: start again", path);
	return EVBUS_OK;
}
