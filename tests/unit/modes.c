/* os.c: the modes of files and directories: those that were asked for, whatever the umask, and never more. */
#include "../fault/doom.h"
#include "faulty.h"
#include "log_helpers.h"

TestSuite(modes, .init = enter, .fini = leave, .timeout = 60);

static struct log_writer writer;

static void assert_modes(const char *path, mode_t file_mode, mode_t dir_mode)
{
	DIR *dir = opendir(path);
	char below[PATH_MAX];
	struct stat st;

	cr_assert_not_null(dir, "%s", path);
	for (struct dirent *entry; (entry = readdir(dir));) {
		if (!strcmp(entry->d_name, "..") || (!strcmp(entry->d_name, ".") && !strcmp(path, ".")))
			continue;
		snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
		cr_assert(!lstat(below, &st));
		cr_assert_eq(st.st_mode & 07777, S_ISDIR(st.st_mode) ? dir_mode : file_mode, "%s: %o", below,
			     st.st_mode);
		if (S_ISDIR(st.st_mode) && strcmp(entry->d_name, "."))
			assert_modes(below, file_mode, dir_mode);
	}
	closedir(dir);
}

/* As a user who is not above the modes, where that can be arranged. */
static int publish_with_umask(mode_t mask, mode_t file_mode)
{
	struct evbus_topic_options options = { .segment_max_bytes = 300 };

	pid_t child = fork();
	if (child)
		return wait_for(child);
	root_close(&root);
	if (chdir(scratch) || (getuid() == 0 && (chmod(scratch, 0777) || setgid(65534) || setuid(65534))))
		_exit(10);
	umask(mask);
	root.file_mode = file_mode;
	root.dir_mode = file_mode | (file_mode & 0444) >> 2;
	if (root_open(&root, "other/deep/bus", true, &err))
		_exit(11);
	bool created;
	topic_close(&topic);
	if (topic_create(&root, "t", &options, &topic, &created, &err) || writer_open(&topic, 0, NULL, &writer, &err))
		_exit(12);
	for (uint64_t n = 0; n < 8; n++)
		if (publish(&writer, n))
			_exit(13);
	writer_close(&writer);
	/* A torn line, so that a copy of it is made. */
	int fd = openat(topic.fd, LIVE, O_WRONLY | O_APPEND);
	if (fd < 0 || write(fd, "torn", 4) != 4 || close(fd) || writer_open(&topic, 0, NULL, &writer, &err))
		_exit(14);
	_exit(0);
}

static enum evbus_code publish_for_a_group(void)
{
	struct topic made = { .fd = -1 };
	struct evbus_topic_options options = { .segment_max_bytes = 300 };
	bool created;

	TRY(root_open(&root, "other/deep/bus", true, &err));
	enum evbus_code code = topic_create(&root, "t", &options, &made, &created, &err);
	if (!code)
		code = writer_open(&made, 0, NULL, &writer, &err);
	for (uint64_t n = 0; n < 8 && !code; n++)
		code = publish(&writer, n);
	writer_close(&writer);
	topic_close(&made);
	root_close(&root);
	return code;
}

static void as_a_group(void)
{
	topic_close(&topic);
	root_close(&root);
	cr_assert(!chdir(scratch));
	umask(077);
	root.file_mode = 0660;
	root.dir_mode = 0770;
}

/* Who made the file, and could not set its mode, leaves it to the next. */
Test(modes, are_those_that_were_asked_for_though_setting_one_has_failed)
{
	unsigned at = 0, failed = 0;

	as_a_group();
	do {
		faulty_begin(++at, EIO);
		faulty.scope = FAULTY_CALLS;
		enum evbus_code code = publish_for_a_group();
		faulty_end();
		bool of_mode = faulty.failed && !strcmp(faulty.failed, "fchmod");
		if (of_mode) {
			cr_assert(code == EVBUS_IO && strstr(err.text, "cannot set the mode of '"), "call %u: %s", at,
				  err.text);
			cr_assert_eq(publish_for_a_group(), EVBUS_OK, "%s", err.text);
			assert_modes("other", 0660, 0770);
			failed++;
		}
		if (!access("other", F_OK))
			scratch_remove("other");
	} while (faulty.failed);
	cr_assert_geq(failed, 8, "%u", failed);
}

/* Directories that somebody was killed over keep what the umask has left, which is less. */
static void assert_files_as_asked(const char *path, bool done)
{
	DIR *dir = opendir(path);
	char below[PATH_MAX];
	struct stat st;

	for (struct dirent *entry; dir && (entry = readdir(dir));) {
		snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
		cr_assert(!lstat(below, &st));
		if (S_ISREG(st.st_mode))
			cr_assert(done && !strstr(below, "/.topic.json.") ? (st.st_mode & 07777) == 0660 :
								   !(st.st_mode & 07777 & ~0660u),
				  "%s: %o", below, st.st_mode);
		else if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			assert_files_as_asked(below, done);
	}
	if (dir)
		closedir(dir);
}

Test(modes, of_files_are_those_that_were_asked_for_whoever_was_killed_in_making_one)
{
	unsigned at = 0;
	bool killed;

	as_a_group();
	do {
		int status;
		pid_t child = fork();
		at++;
		if (!child) {
			doom_at(at);
			_exit(publish_for_a_group() != EVBUS_OK);
		}
		cr_assert_eq(waitpid(child, &status, 0), child);
		killed = WIFSIGNALED(status);
		cr_assert(killed || status == 0, "call %u: %x", at, (unsigned)status);
		assert_files_as_asked("other", false);
		cr_assert_eq(publish_for_a_group(), EVBUS_OK, "call %u: %s", at, err.text);
		assert_files_as_asked("other", true);
		scratch_remove("other");
	} while (killed);
	cr_assert_gt(at, 100u);
}

Test(modes, are_those_that_were_asked_for_whatever_the_umask)
{
	static const mode_t masks[] = { 0, 022, 077, 0177, 0277, 0777 };

	for (size_t i = 0; i < sizeof masks / sizeof *masks; i++) {
		int status = publish_with_umask(masks[i], 0600);
		cr_assert_eq(status, 0, "umask %o: step %d", masks[i], status);
		assert_modes("../../other", 0600, 0700);
		scratch_remove("../../other");
		status = publish_with_umask(masks[i], 0640);
		cr_assert_eq(status, 0, "umask %o: step %d", masks[i], status);
		assert_modes("../../other", 0640, 0750);
		scratch_remove("../../other");
	}
}
