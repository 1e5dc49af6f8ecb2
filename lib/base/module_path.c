/* module_path.c: where modules lie.
 *
 * Beside libevbus.so, or, where the library is a part of the program, in the library directory of the same installation;
 * and they are loaded by absolute path: what stands in LD_LIBRARY_PATH or the working directory must not become part of
 * the program. */
#include "base/module.h"

#include "base/os.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <string.h>
#include <unistd.h>

/* Something of ours with an address: what dladdr is asked about. */
static const char anchor;

/* Seen from the program: as it is installed, and as it is built. */
static const char *const places[] = { EVBUS_FROM_PROGRAM, "../lib" };

static enum evbus_code dir_of_program(char dir[PATH_MAX], struct evbus_err *err)
{
	char program[PATH_MAX], path[2 * PATH_MAX];
	ssize_t len = os.readlink("/proc/self/exe", program, sizeof program - 1);

	program[len > 0 ? len : 0] = '\0';
	char *slash = strrchr(program, '/');
	for (size_t i = 0; slash && i < sizeof places / sizeof *places; i++) {
		snprintf(path, sizeof path, "%.*s/%s", (int)(slash - program), program, places[i]);
		if (realpath(path, dir))
			return EVBUS_OK;
	}
	return err_set(err, EVBUS_CONFIG, errno, "cannot tell where the modules of this program lie");
}

static enum evbus_code dir_of_library(const char *library, char dir[PATH_MAX], struct evbus_err *err)
{
	/* The linker keeps a relative path as it was given, and the working directory may be another one by now. */
	if (library[0] != '/')
		return err_set(err, EVBUS_CONFIG, 0,
			       "cannot tell where libevbus.so lies, as it was loaded by the relative path '%s': use "
			       "absolute ones in LD_LIBRARY_PATH",
			       library);
	if (!realpath(library, dir))
		return err_set(err, EVBUS_CONFIG, errno, "cannot find '%s'", library);
	*strrchr(dir, '/') = '\0';
	return EVBUS_OK;
}

static enum evbus_code own_dir(char dir[PATH_MAX], struct evbus_err *err)
{
	struct link_map *ours = NULL;
	Dl_info info;

	if (!dladdr1(&anchor, &info, (void **)&ours, RTLD_DL_LINKMAP) || !ours)
		return err_set(err, EVBUS_BUG, 0, "cannot tell where libevbus.so lies");
	/* The program is the one without a name. */
	return ours->l_name[0] ? dir_of_library(ours->l_name, dir, err) : dir_of_program(dir, err);
}

enum evbus_code module_path(const char *dir, const char *name, char path[PATH_MAX], struct evbus_err *err)
{
	char own[PATH_MAX];

	if (!dir) {
		TRY(own_dir(own, err));
		dir = own;
	}
	int len = snprintf(path, PATH_MAX, "%s/libevbus-%s.so", dir, name);
	if (path[0] != '/' || len < 0 || len >= PATH_MAX)
		return err_set(err, EVBUS_BUG, 0, "'%s' is not a directory for modules", dir);
	return EVBUS_OK;
}

bool module_is_there(const char *dir, const char *name)
{
	char path[PATH_MAX];
	struct stat st;

	return module_path(dir, name, path, NULL) == EVBUS_OK && !os.fstatat(AT_FDCWD, path, &st, 0);
}
