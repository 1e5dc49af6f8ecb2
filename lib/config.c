/* config.c: where the configuration is found, and whether its file may be believed.
 *
 * It decides where events go. So one that was found, and not named, must belong to us or to root: who may make a file in
 * the directory that somebody works in must not have his events. One that everybody may write is never taken. */
#include "config.h"

#include "base/module.h"
#include "base/os.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

/* ---- the file -------------------------------------------------------------------------------------------------- */

struct file {
	char path[PATH_MAX];
	bool named;                /* and not found */
	int fd;
	struct evbus_slice text;
};

static void file_release(struct file *file)
{
	os_close_cleanup(&file->fd);
	free((void *)(uintptr_t)file->text.data);
}

static enum evbus_code refuse(const struct file *file, const char *why, struct evbus_err *err)
{
	return err_set(err, EVBUS_CONFIG, 0, "the configuration '%s' %s", file->path, why);
}

static enum evbus_code check_file(const struct file *file, const struct stat *st, struct evbus_err *err)
{
	if (!S_ISREG(st->st_mode))
		return refuse(file, "is not a regular file", err);
	if (st->st_mode & S_IWOTH)
		return refuse(file, "may be written by everybody: take that from it (chmod o-w)", err);
	if (!file->named && st->st_uid != 0 && st->st_uid != geteuid())
		return refuse(file, "belongs to another user: name it with --config if it is meant", err);
	if (st->st_size > (off_t)CONFIG_MAX_BYTES)
		return refuse(file, "is larger than 1 MiB", err);
	return EVBUS_OK;
}

/* Whether errno says that a directory on the way may not be searched: who runs under another user than the one that HOME
 * is of has no configuration there. A file that may not be read is another matter. */
static bool is_out_of_reach(const char *path)
{
	struct stat st;

	return errno == EACCES && os.fstatat(AT_FDCWD, path, &st, 0) && errno == EACCES;
}

/* EVBUS_NONE: it was looked for and is not there. */
static enum evbus_code open_file(struct file *file, struct evbus_err *err)
{
	/* O_NONBLOCK: a FIFO in its place must not hang us. */
	file->fd = os.openat(AT_FDCWD, file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0);
	if (file->fd >= 0)
		return EVBUS_OK;
	int number = errno;
	if (number == ENOENT || number == ENOTDIR || (!file->named && is_out_of_reach(file->path)))
		return err_set(err, file->named ? EVBUS_CONFIG : EVBUS_NONE, 0, "there is no configuration '%s'",
			       file->path);
	return err_set(err, err_code_of(number), number, "cannot open the configuration '%s'", file->path);
}

static enum evbus_code read_file(struct file *file, struct evbus_err *err)
{
	struct stat st;

	if (os.fstat(file->fd, &st))
		return err_set(err, err_code_of(errno), errno, "cannot look at the configuration '%s'", file->path);
	TRY(check_file(file, &st, err));
	size_t size = (size_t)st.st_size;
	char *text = os.realloc(NULL, size + 1);
	file->text = (struct evbus_slice){ text, 0 };
	if (!text)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot read the configuration '%s'", file->path);
	ssize_t len = os_read_at(file->fd, text, size, 0);
	if (len < 0)
		return err_set(err, err_code_of(errno), errno, "cannot read the configuration '%s'", file->path);
	file->text.len = (size_t)len;
	return EVBUS_OK;
}

/* A name in the directory that a variable names, or in one below another variable's, if that is absolute. */
static bool place_of_user(char path[PATH_MAX])
{
	const char *config_home = secure_getenv("XDG_CONFIG_HOME"), *home = secure_getenv("HOME");
	int len = -1;

	if (config_home && config_home[0] == '/')
		len = snprintf(path, PATH_MAX, "%s/evbus/config.yaml", config_home);
	else if (home && home[0] == '/')
		len = snprintf(path, PATH_MAX, "%s/.config/evbus/config.yaml", home);
	return len > 0 && len < PATH_MAX;
}

/* fd stays -1 where there is none. */
static enum evbus_code find_file(struct file *file, struct evbus_err *err)
{
	static const char *const places[] = { "evbus.yaml", NULL, "/etc/evbus/config.yaml" };

	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		if (places[i])
			snprintf(file->path, sizeof file->path, "%s", places[i]);
		else if (!place_of_user(file->path))
			continue;
		enum evbus_code code = open_file(file, err);
		if (code != EVBUS_NONE)
			return code;
	}
	return EVBUS_OK;
}

static enum evbus_code name_file(struct file *file, const char *path, struct evbus_err *err)
{
	if (!strcmp(path, "/dev/null"))
		return EVBUS_OK;
	if (!*path || strlen(path) >= sizeof file->path)
		return err_set(err, EVBUS_CONFIG, 0, "the configuration '%.100s' names no file; /dev/null is for none",
			       path);
	file->named = true;
	snprintf(file->path, sizeof file->path, "%s", path);
	return open_file(file, err);
}

/* ---- open and close -------------------------------------------------------------------------------------------- */

static enum evbus_code read_tree(const struct file *file, const char *module_dir, struct tree *tree,
				 struct evbus_err *err)
{
	const struct evbus_module *module;
	struct evbus_err inner;

	/* Who has no libyaml may not know of the file either. */
	if (module_load(module_dir, "format", "yaml", "libyaml-dev", &module, &inner))
		return err_set(err, inner.code, 0, "cannot read the configuration '%s': %s", file->path, inner.text);
	const struct config_driver *driver = module->ops;
	return driver->read(file->text, file->path, tree, err);
}

_Static_assert(offsetof(struct config, says) == 0, "what is given out is cast back");

static void close_config(struct config **config)
{
	evbus_config_close(*config ? &(*config)->says : NULL);
}

static enum evbus_code keep_names(struct config *config, const struct file *file, const char *profile,
				  struct evbus_err *err)
{
	const char *names[] = { file->path, profile ? profile : "" };
	const struct node *kept[2];

	for (size_t i = 0; i < 2; i++) {
		kept[i] = tree_add(&config->tree, NODE_TEXT, (struct evbus_slice){ names[i], strlen(names[i]) });
		if (!kept[i])
			return err_set(err, EVBUS_IO, ENOMEM, "cannot read the configuration '%s'", file->path);
	}
	config->says.path = kept[0]->text;
	config->says.profile = profile ? kept[1]->text : NULL;
	return EVBUS_OK;
}

enum evbus_code config_open(const struct evbus_config_options *options, const char *module_dir,
			    struct evbus_config **config, struct evbus_err *err)
{
	static const struct evbus_config_options none;
	CLEANUP(file_release) struct file file = { .fd = -1 };
	CLEANUP(close_config) struct config *opened = NULL;

	options = options ? options : &none;
	TRY(options->path ? name_file(&file, options->path, err) : find_file(&file, err));
	if (file.fd < 0) {
		if (options->profile)
			return err_set(err, EVBUS_CONFIG, 0, "there is no configuration, and so no profile '%s'",
				       options->profile);
		*config = NULL;
		return EVBUS_OK;
	}
	TRY(read_file(&file, err));
	opened = os.realloc(NULL, sizeof *opened);
	if (!opened)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot read the configuration '%s'", file.path);
	/* Its lists need no zeros, and are large. */
	opened->says = (struct evbus_config){ .path = NULL };
	opened->tree = (struct tree){ .root = NULL };
	opened->topic_count = 0;
	TRY(read_tree(&file, module_dir, &opened->tree, err));
	TRY(keep_names(opened, &file, options->profile, err));
	TRY(config_read(opened, options, err));
	*config = &opened->says;
	opened = NULL;
	return EVBUS_OK;
}

enum evbus_code evbus_config_open(const struct evbus_config_options *options, struct evbus_config **config,
				  struct evbus_err *err)
{
	return config_open(options, NULL, config, err);
}

void evbus_config_close(struct evbus_config *says)
{
	struct config *config = (struct config *)(void *)says;

	if (!config)
		return;
	tree_release(&config->tree);
	free(config);
}
