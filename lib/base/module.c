/* module.c: loads modules. */
#include "base/module.h"

#include "base/os.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

static enum evbus_code check(const struct evbus_module *module, const char *path, const char *name,
			     struct evbus_err *err)
{
	if (!module)
		return err_set(err, EVBUS_CONFIG, 0, "'%s' is not a module of evbus", path);
	if (module->abi != EVBUS_MODULE_ABI)
		return err_set(err, EVBUS_CONFIG, 0,
			       "'%s' is made for module ABI %u, and this libevbus has ABI %u: install both from one "
			       "release",
			       path, module->abi, EVBUS_MODULE_ABI);
	if (strcmp(module->name, name) != 0)
		return err_set(err, EVBUS_CONFIG, 0, "'%s' is the module '%s', not '%s'", path, module->name, name);
	return EVBUS_OK;
}

enum evbus_code module_load(const char *dir, const char *what, const char *name, const char *dev_package,
			    const struct evbus_module **module, struct evbus_err *err)
{
	char path[PATH_MAX];
	struct stat st;

	TRY(module_path(dir, name, path, err));
	if (os.fstatat(AT_FDCWD, path, &st, 0) && errno == ENOENT)
		return err_set(err, EVBUS_CONFIG, 0,
			       "the %s '%s' needs libevbus-%s.so in '%.*s': install evbus-%s (or build with %s)", what,
			       name, name, (int)(strrchr(path, '/') - path), path, name, dev_package);
	void *handle = dlopen(path, RTLD_LOCAL | RTLD_NOW);
	if (!handle)
		return err_set(err, EVBUS_CONFIG, 0, "cannot load the %s '%s': %s", what, name, dlerror());
	const struct evbus_module *found = dlsym(handle, "evbus_module");
	enum evbus_code code = check(found, path, name, err);
	if (code) {
		dlclose(handle);
		return code;
	}
	*module = found;
	/* cppcheck-suppress resourceLeak ; it stays loaded, as what it gave out may be used for ever */
	return EVBUS_OK;
}
