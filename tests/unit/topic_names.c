/* topic.c, root.c: names that somebody else has made, and may have been killed before he synced them. */
#include "log_helpers.h"

TestSuite(topic_names, .init = enter, .fini = leave, .timeout = 60);

static struct log_writer writer;

/* Whoever made a directory may have been killed before he synced its name. */
static ino_t synced[16];
static int syncs;

static int note_sync(int fd)
{
	struct stat st;

	cr_assert(!fstat(fd, &st) && syncs < 16);
	synced[syncs++] = st.st_ino;
	return real_os.fsync(fd);
}

static bool was_synced(const char *path)
{
	struct stat st;

	cr_assert(!stat(path, &st), "%s", path);
	for (int i = 0; i < syncs; i++)
		if (synced[i] == st.st_ino)
			return true;
	return false;
}

Test(topic_names, of_directories_are_synced_from_the_last_one_that_was_there)
{
	struct root far = { .fd = -1, .file_mode = 0600, .dir_mode = 0700 };

	cr_assert(!mkdir("above", 0700) && !mkdir("above/left", 0700));
	os.fsync = note_sync;
	cr_assert_eq(root_open(&far, "above/left/a/bus", true, &err), EVBUS_OK, "%s", err.text);
	os = real_os;
	root_close(&far);
	cr_assert(was_synced("above") && was_synced("above/left") && was_synced("above/left/a"));
}

Test(topic_names, of_a_topic_that_somebody_else_made_are_synced_before_it_is_promised)
{
	struct evbus *bus;
	bool created;

	cr_assert_eq(evbus_open("../../bus", NULL, &bus, &err), EVBUS_OK, "%s", err.text);
	os.fsync = note_sync;
	cr_assert_eq(evbus_topic_create(bus, "t", NULL, &created, &err), EVBUS_OK, "%s", err.text);
	os = real_os;
	evbus_close(bus);
	cr_assert(!created && was_synced("../t") && was_synced("../../bus") && was_synced("../.."));
}

/* Whoever made the topic may have been killed before he synced the name of its topic.json. */
static int names_synced, files_made;

static int count_name_sync(int fd)
{
	names_synced += fd == topic.fd;
	return real_os.fsync(fd);
}

static int make_behind_sync(int dir, const char *path, int flags, mode_t mode)
{
	if (flags & O_CREAT) {
		cr_assert_gt(names_synced, 0, "'%s' is made before topic.json is on the disk", path);
		files_made++;
	}
	return real_os.openat(dir, path, flags, mode);
}

Test(topic_names, are_synced_before_the_first_file_of_a_partition_is_made)
{
	os.fsync = count_name_sync;
	os.openat = make_behind_sync;
	must_open(&writer);
	os = real_os;
	writer_close(&writer);
	cr_assert_eq(files_made, 2);
}
