/* scratch.h: a directory for one test. */
#ifndef EVBUS_TESTS_SCRATCH_H
#define EVBUS_TESTS_SCRATCH_H

#include <criterion/criterion.h>
#include <ftw.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline int scratch_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static inline void scratch_remove(const char *path)
{
	cr_assert(!nftw(path, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS), "%s", path);
}

/* The number that stands there, within a text that has no NUL: strtol() may look for one. */
static inline uint64_t scratch_number(const char *digits)
{
	uint64_t number = 0;

	for (; *digits >= '0' && *digits <= '9'; digits++)
		number = number * 10 + (uint64_t)(*digits - '0');
	return number;
}

/* A new one, which is the working directory from now on. */
static inline void scratch_enter(char path[64])
{
	snprintf(path, 64, "/tmp/evbus-unit-XXXXXX");
	cr_assert(mkdtemp(path) && !chdir(path));
}

static inline void scratch_leave(const char *path)
{
	cr_assert(!chdir("/"));
	scratch_remove(path);
}

/* Where the build puts modules, as seen from where it puts the tests. */
static inline void scratch_find_modules(char dir[PATH_MAX])
{
	static const char from_tests[] = "/../../lib";
	char exe[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", exe, sizeof exe - sizeof from_tests);

	cr_assert(len > 0);
	exe[len] = '\0';
	memcpy(strrchr(exe, '/'), from_tests, sizeof from_tests);
	cr_assert_not_null(realpath(exe, dir));
}

#endif
