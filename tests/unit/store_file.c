/* store/file.c, store/store.c: paths that are too long, and calls that fail on the way to the database. */
#include "faulty.h"
#include "store_helpers.h"

#include "store/file.h"

#include <sys/stat.h>

TestSuite(store_file, .init = setup, .fini = teardown, .timeout = 60);

/* ---- paths ----------------------------------------------------------------------------------------------------- */

/* A path of this many bytes whose directories are as long as they may be. */
static char *long_path(char path[2 * PATH_MAX], size_t len)
{
	memset(path, 'd', len);
	path[len] = '\0';
	for (size_t at = 200; at < len - 1; at += 201)
		path[at] = '/';
	return path;
}

Test(store_file, with_a_name_that_is_too_long_is_refused_and_none_of_its_directories_made)
{
	char name[NAME_MAX + 2], path[2 * PATH_MAX], below[NAME_MAX + 40];

	memset(name, 'n', NAME_MAX + 1);
	name[NAME_MAX + 1] = '\0';
	cr_assert_eq(put_code(name), EVBUS_CONFIG);
	cr_assert(strstr(err.text, "cannot open the store '") && err.sys_errno == ENAMETOOLONG, "%s", err.text);
	cr_assert_eq(put_code(long_path(path, PATH_MAX + 300)), EVBUS_CONFIG);
	cr_assert_eq(err.sys_errno, ENAMETOOLONG, "%s", err.text);
	snprintf(below, sizeof below, "missing/%s/state.db", name);
	cr_assert_eq(put_code(below), EVBUS_CONFIG);
	cr_assert(err.sys_errno == ENAMETOOLONG && access("missing", F_OK), "%s", err.text);
	cr_assert_eq(put_code("state.db"), EVBUS_OK, "%s", err.text);
}

/* In a directory whose own path is just short enough for the system. */
Test(store_file, whose_path_is_too_long_as_a_whole_is_refused)
{
	char name[201] = "", place[PATH_MAX];
	struct store_file file = { .dir = -1 };
	bool is_new;

	memset(name, 'd', 200);
	for (size_t len = strlen(scratch); len + 201 < PATH_MAX; len += 201)
		cr_assert(!mkdir(name, 0700) && !chdir(name));
	cr_assert_eq(store_file_open(AT_FDCWD, name, true, 0600, &file, &is_new, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(store_file_path(&file, place, &err), EVBUS_CONFIG);
	cr_assert_eq(err.sys_errno, ENAMETOOLONG, "%s", err.text);
	store_file_release(&file);
	cr_assert(!unlink(name) && !chdir(scratch));
}

Test(store_file, relative_to_a_directory_that_was_removed_is_refused)
{
	struct store *store = NULL;

	cr_assert(!mkdir("gone", 0700) && !chdir("gone") && !rmdir("../gone"));
	cr_assert_eq(store_open(AT_FDCWD, "state.db", NULL, &store, &err), EVBUS_IO);
	cr_assert(strstr(err.text, "cannot tell the working directory") && err.sys_errno == ENOENT, "%s", err.text);
	cr_assert_null(store);
}

/* ---- each call -------------------------------------------------------------------------------------------------- */

static enum evbus_code make_store(void)
{
	struct store *store = NULL;
	struct store_options options = { .module_dir = modules, .file_mode = 0660 };
	enum evbus_code code = store_open(AT_FDCWD, "deep/state.db", &options, &store, &err);

	if (!code)
		code = put(store, "g", "t", 0, 1);
	store_close(store);
	return code;
}

static enum evbus_code find_place(void)
{
	static const char *const ends[] = { "deep/state.db", "there.db" };
	struct store_options options = { .module_dir = modules };

	for (size_t i = 0; i < 2; i++) {
		CLEANUP(buf_release) struct buf place = { 0 };
		struct store *store = NULL;
		enum evbus_code code = store_open(AT_FDCWD, ends[i], &options, &store, &err);
		if (!code)
			code = store_place(store, &place, &err);
		store_close(store);
		TRY(code);
		cr_assert(place.len > 7 && !memcmp(place.data, "sqlite:/", 8));
	}
	return EVBUS_OK;
}

static unsigned mode_of(const char *path)
{
	struct stat st;

	cr_assert(!stat(path, &st));
	return st.st_mode & 07777;
}

static bool is_needed(const char *call)
{
	return !strcmp(call, "chmod") || !strcmp(call, "mknodat") || !strcmp(call, "readlink") ||
	       !strcmp(call, "fsync");
}

/* Whichever call fails, once: it is told by its own name, and the next time it goes well. */
static void sweep(enum evbus_code (*act)(void), int number)
{
	unsigned at = 0, failures = 0;
	bool hit;

	do {
		if (!access("deep", F_OK))
			scratch_remove("deep");
		/* The mode is not what it must be without being set. */
		umask(0077);
		faulty_begin(++at, number);
		faulty.plausible = true;
		enum evbus_code found = act();
		hit = faulty.failed != NULL;
		faulty_end();
		cr_assert(found == EVBUS_OK || found == EVBUS_IO || found == EVBUS_CANTCREATE ||
				  (found == EVBUS_PERMISSION && number == EROFS),
			  "call %u, %s: %d, %s", at, faulty.failed, found, err.text);
		cr_assert(!found || err.sys_errno == number, "call %u, %s: %s", at, faulty.failed, err.text);
		cr_assert(found || !hit || !is_needed(faulty.failed), "%s has failed, and nobody said so",
			  faulty.failed);
		failures += found != EVBUS_OK;
		cr_assert_eq(act(), EVBUS_OK, "after call %u, %s: %s", at, faulty.failed, err.text);
		cr_assert(act != make_store || mode_of("deep/state.db") == 0660, "after call %u, %s: %o", at,
			  faulty.failed, mode_of("deep/state.db"));
	} while (hit);
	cr_assert_geq(failures, 2, "%u of %u", failures, at);
}

Test(store_file, is_made_whole_whichever_call_fails)
{
	sweep(make_store, EIO);
	sweep(make_store, ENOMEM);
	sweep(make_store, EROFS);
}

Test(store_file, has_a_place_that_can_be_told_whichever_call_fails)
{
	cr_assert_eq(put_code("there.db"), EVBUS_OK, "%s", err.text);
	sweep(find_place, EIO);
	sweep(find_place, ENOMEM);
}
