/* Modules for programs that link the library in: where it looks for them is of libevbus.so. */
#ifndef EVBUS_TESTS_MODULES_H
#define EVBUS_TESTS_MODULES_H

#include "base/module.h"
#include "scratch.h"

#include <dlfcn.h>

/* In place of the library's. */
enum evbus_code module_load(const char *dir, const char *what, const char *name, const char *dev_package,
			    const struct evbus_module **module, struct evbus_err *e)
{
	char path[PATH_MAX + 32], where[PATH_MAX];
	(void)dir;
	(void)what;
	(void)dev_package;

	scratch_find_modules(where);
	snprintf(path, sizeof path, "%s/libevbus-%s.so", where, name);
	void *handle = dlopen(path, RTLD_LOCAL | RTLD_NOW);
	*module = handle ? dlsym(handle, "evbus_module") : NULL;
	return *module ? EVBUS_OK : err_set(e, EVBUS_CONFIG, 0, "cannot load '%s'", path);
}

#endif
