/* modules.c: the library looks for its modules beside libevbus.so; here it is a part of the program, and they are where
 * the build has put them. */
#include "base/module.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum evbus_code module_load(const char *dir, const char *what, const char *name, const char *dev_package,
			    const struct evbus_module **module, struct evbus_err *err)
{
	char path[PATH_MAX + 64];
	ssize_t len = readlink("/proc/self/exe", path, PATH_MAX);
	(void)dir;
	(void)what;
	(void)dev_package;

	path[len > 0 ? len : 0] = '\0';
	char *slash = strrchr(path, '/');
	snprintf(slash, sizeof path - (size_t)(slash - path), "/../../lib/libevbus-%s.so", name);
	void *handle = dlopen(path, RTLD_LOCAL | RTLD_NOW);
	*module = handle ? dlsym(handle, "evbus_module") : NULL;
	return *module ? EVBUS_OK : err_set(err, EVBUS_CONFIG, 0, "cannot load '%s'", path);
}
