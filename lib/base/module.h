/* module.h: parts of the library that come in only where they are asked for.
 *
 * What needs an outside library (a database, a broker) is a shared object of its own, so that a start of the program
 * that does not need it does not pay for it. */
#ifndef EVBUS_BASE_MODULE_H
#define EVBUS_BASE_MODULE_H

#include "base/err.h"

#include <limits.h>

/* One more whenever struct evbus_module, struct store_driver or what they refer to changes. */
#define EVBUS_MODULE_ABI 4u

/* The one symbol that a module exports. abi stays the first member for ever: it is read before the rest is believed. */
struct evbus_module {
	uint32_t abi;
	const char *name;
	const void *ops;           /* of a store: struct store_driver; a backend: struct backend_ops; YAML: struct config_driver */
};

extern EVBUS_API const struct evbus_module evbus_module;

/* Loads libevbus-NAME.so from dir, an absolute path, or where it is NULL from the directory in which libevbus.so lies, or
 * would lie beside the program that the library is a part of; from nowhere else. It stays loaded. EVBUS_CONFIG: it is
 * missing, cannot be loaded, or is of another ABI; the text says what to install: what ("store") and dev_package
 * ("libsqlite3-dev") are for it. */
CHECKED enum evbus_code module_load(const char *dir, const char *what, const char *name, const char *dev_package,
				    const struct evbus_module **module, struct evbus_err *err);

/* Where it lies, whether it is there or not. */
CHECKED enum evbus_code module_path(const char *dir, const char *name, char path[PATH_MAX], struct evbus_err *err);
/* Whether there is such a file; it may still not load. */
bool module_is_there(const char *dir, const char *name);

#endif
