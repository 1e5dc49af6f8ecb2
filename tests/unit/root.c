/* root.c: the directory of a bus is made with its parents, or what failed is told; and where it may not be. */
#include "faulty.h"
#include "log_helpers.h"

TestSuite(root, .init = enter, .fini = leave, .timeout = 60);

static struct root made = { .fd = -1, .file_mode = 0600, .dir_mode = 0700 };

static bool making_fails_at(unsigned at, int number)
{
	int files = open_files();
	char path[128];

	snprintf(path, sizeof path, "%s/made%d-%u/deep/bus", scratch, number, at);
	faulty_begin(at, number);
	enum evbus_code code = root_open(&made, path, true, &err);
	faulty_end();
	const char *failed = faulty.failed;
	/* Where the directory above may not be read, it was there before us. */
	cr_assert(code || !failed || (number == EACCES && !strcmp(failed, "openat")), "call %u, %s", at, failed);
	if (code) {
		cr_assert(failed && strstr(err.text, path), "call %u, %s: %s", at, failed, err.text);
		cr_assert(code == EVBUS_PERMISSION ? number == EACCES : code == EVBUS_CANTCREATE || code == EVBUS_IO,
			  "call %u, %s: %d: %s", at, failed, (int)code, err.text);
		cr_assert_eq(open_files(), files, "call %u, %s", at, failed);
		cr_assert_eq(root_open(&made, path, true, &err), EVBUS_OK, "%s", err.text);
	}
	root_close(&made);
	return failed != NULL;
}

Test(root, is_made_or_it_is_said_why_not)
{
	unsigned at = 1;

	while (making_fails_at(at, EIO))
		at++;
	cr_assert_gt(at, 10u);
	for (at = 1; making_fails_at(at, EACCES);)
		at++;
	store("file", "", 0);
	cr_assert_eq(root_open(&made, "file", true, &err), EVBUS_CONFIG);
	cr_assert(strstr(err.text, "cannot open the bus at 'file': Not a directory"), "%s", err.text);
}

static int fstatfs_of_nfs(int fd, struct statfs *fs)
{
	int result = real_os.fstatfs(fd, fs);

	fs->f_type = 0x6969;
	return result;
}

Test(root, on_a_network_file_system_can_only_be_read)
{
	struct log_writer writer;

	must_publish(0, 2);
	os.fstatfs = fstatfs_of_nfs;
	cr_assert_eq(open_writer(&writer), EVBUS_CONFIG);
	cr_assert(strstr(err.text,
			 "is on a network or FUSE file system (type 0x6969), where a file bus can only be read"),
		  "%s", err.text);
	assert_log(2);
}
