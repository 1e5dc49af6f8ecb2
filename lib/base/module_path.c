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

/* The directory seen from the program, links and dots in it; false: none of them is there. */
static bool place_of_modules(char path[2 * PATH_MAX])
{
	char program[PATH_MAX];
	struct stat st;
	ssize_t len = os.readlink("/proc/self/exe", program, sizeof program - 1);

	program[len > 0 ? len : 0] = '\0';
	char *slash = strrchr(program, '/');
	for (size_t i = 0; slash && i < sizeof places / sizeof *places; i++) {
		snprintf(path, 2 * PATH_MAX, "%.*s/%s", (int)(slash - program), program, places[i]);
		if (!os.fstatat(AT_FDCWD, path, &st, 0))
			return true;
	}
	return false;
}

static enum evbus_code dir_of_program(char dir[PATH_MAX], struct evbus_err *err)
{
	char path[2 * PATH_MAX];

	if (place_of_modules(path) && realpath(path, dir))
		return EVBUS_OK;
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

/* NULL: it cannot be told. */
static const struct link_map *own_map(void)
{
	struct link_map *ours = NULL;
	Dl_info info;

	return dladdr1(&anchor, &info, (void **)&ours, RTLD_DL_LINKMAP) ? ours : NULL;
}

static enum evbus_code own_dir(char dir[PATH_MAX], struct evbus_err *err)
{
	const struct link_map *ours = own_map();

	if (!ours)
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

/* To resolve the links on the way to it takes a dozen calls, and is of no use here. */
static bool is_beside_program(const char *name)
{
	char dir[2 * PATH_MAX], path[3 * PATH_MAX];
	struct stat st;

	if (!place_of_modules(dir))
		return false;
	snprintf(path, sizeof path, "%s/libevbus-%s.so", dir, name);
	return !os.fstatat(AT_FDCWD, path, &st, 0);
}

bool module_is_there(const char *dir, const char *name)
{
	const struct link_map *ours = dir ? NULL : own_map();
	char path[PATH_MAX];
	struct stat st;

	if (ours && !ours->l_name[0])
		return is_beside_program(name);
	return module_path(dir, name, path, NULL) == EVBUS_OK && !os.fstatat(AT_FDCWD, path, &st, 0);
}
