/* root.c: making and opening the directory that is a bus. */
#include "log/topic.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

static void *copy_text(const char *text)
{
	size_t len = strlen(text) + 1;
	char *copy = os.realloc(NULL, len);

	return copy ? memcpy(copy, text, len) : NULL;
}

/* mkdir -p: each directory that is made is synced into its parent before the next. */
static enum evbus_code make_path(const char *path, mode_t mode, struct evbus_err *err)
{
	CLEANUP(free_cleanup) char *part = copy_text(path);
	CLEANUP(os_close_cleanup) int dir = -1;
	char *name = part;

	if (!part)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot make directory '%s'", path);
	dir = os.openat(AT_FDCWD, *name == '/' ? "/" : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	while (dir >= 0 && *(name += strspn(name, "/"))) {
		size_t len = strcspn(name, "/");
		bool last = name[len] == '\0';
		name[len] = '\0';
		TRY(os_make_dir(dir, name, mode, path, NULL, err));
		int next = os.openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
		int saved = errno;
		os.close(dir);
		dir = next;
		errno = saved;
		name += len + !last;
	}
	if (dir < 0)
		return err_set(err, errno == EACCES ? EVBUS_PERMISSION : EVBUS_CANTCREATE, errno,
			       "cannot make directory '%s'", path);
	return EVBUS_OK;
}

enum evbus_code root_open(struct root *root, const char *path, bool create, struct evbus_err *err)
{
	int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
	bool made = false;

	root->fd = os.openat(AT_FDCWD, path, flags, 0);
	if (root->fd < 0 && errno == ENOENT && create) {
		TRY(make_path(path, root->dir_mode, err));
		made = true;
		root->fd = os.openat(AT_FDCWD, path, flags, 0);
	}
	if (root->fd < 0 && errno == ENOENT)
		return err_set(err, EVBUS_NONE, 0, "there is no bus at '%s'", path);
	if (root->fd < 0)
		return err_set(err, errno == ENOTDIR ? EVBUS_CONFIG : err_code_of(errno), errno,
			       "cannot open the bus at '%s'", path);
	root->path = copy_text(path);
	if (!root->path) {
		os_close_cleanup(&root->fd);
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open the bus at '%s'", path);
	}
	if (made)
		root_notice(root, "made the bus '%s'", path);
	return EVBUS_OK;
}

void root_close(struct root *root)
{
	os_close_cleanup(&root->fd);
	free(root->path);
	root->path = NULL;
}

void root_notice(const struct root *root, const char *format, ...)
{
	char text[512];

	if (!root->notice)
		return;
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	root->notice(root->notice_context, text);
}

enum evbus_code root_check_local(const struct root *root, struct evbus_err *err)
{
	/* Those that linux/magic.h does not name: fs/ceph/super.h, fs/smb/client, fs/fuse/inode.c, Lustre, GFS2, OCFS2. */
	static const uint32_t remote[] = { NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, 0xff534d42, 0xfe534d42, 0x65735546,
					   V9FS_MAGIC,	    AFS_SUPER_MAGIC, 0x00c36400, CODA_SUPER_MAGIC, 0x564c,
					   0x0bd00bd0,	    0x01161970,	     0x7461636f, 0x5346414f };
	struct statfs fs;

	if (os.fstatfs(root->fd, &fs))
		return err_set(err, err_code_of(errno), errno, "cannot look at the file system of '%s'", root->path);
	for (size_t i = 0; i < sizeof remote / sizeof *remote; i++)
		if ((uint32_t)fs.f_type == remote[i])
			return err_set(err, EVBUS_CONFIG, 0,
				       "'%s' is on a network or FUSE file system (type 0x%x), where a file bus can only be "
				       "read: put it on a local disk",
				       root->path, remote[i]);
	return EVBUS_OK;
}
