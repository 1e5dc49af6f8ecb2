/* The store: what it keeps, and where. */
#include "store_helpers.h"

#include "base/os.h"

#include <dirent.h>
#include <sys/stat.h>

TestSuite(store, .init = setup, .fini = teardown, .timeout = 120);

static int mode_of(const char *path)
{
	struct stat st;

	cr_assert(!lstat(path, &st), "%s", path);
	return st.st_mode & 07777;
}

static int entries(const char *path)
{
	int count = 0;
	DIR *dir = opendir(path);

	cr_assert_not_null(dir);
	for (const struct dirent *entry; (entry = readdir(dir));)
		count += entry->d_name[0] != '.' || entry->d_name[1];
	closedir(dir);
	return count - 1;          /* ".." */
}

/* ---- what it keeps --------------------------------------------------------------------------------------------- */

Test(store, that_is_not_there_has_no_rows_and_is_not_made_by_reading)
{
	struct store *store = open_store("sqlite:deep/state.db");
	struct evbus_checkpoint c, *list = &c;
	size_t count = 7;

	cr_assert_eq(store_checkpoint_get(store, "g", "t", 3, &c, &err), EVBUS_NONE);
	cr_assert_str_eq(err.text, "the group 'g' has no checkpoint on partition 3 of the topic 't'");
	cr_assert_eq(store_checkpoint_list(store, NULL, &list, &count, &err), EVBUS_OK);
	cr_assert(count == 0 && !list);
	cr_assert_eq(store_checkpoint_remove(store, "g", "t", 0, &err), EVBUS_NONE);
	cr_assert_eq(entries("."), 0);
	/* The same handle finds it once somebody else has made it. */
	cr_assert_eq(put_code("deep/state.db"), EVBUS_OK, "%s", err.text);
	cr_assert_eq(position(store, 0), 1);
	store_close(store);
}

/* Whoever made the directory and the file may have been killed before he synced their names. */
static ino_t synced[8];
static int syncs;

static int note_sync(int fd)
{
	struct stat st;

	cr_assert(!fstat(fd, &st) && syncs < 8);
	synced[syncs++] = st.st_ino;
	return fsync(fd);
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

Test(store, that_somebody_else_made_has_its_names_synced_before_the_first_row)
{
	OF_FILES;
	struct os real = os;

	cr_assert(!mkdir("left", 0700));
	cr_assert_geq(open("left/state.db", O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600), 0);
	os.fsync = note_sync;
	cr_assert_eq(put_code("left/state.db"), EVBUS_OK, "%s", err.text);
	os = real;
	cr_assert(was_synced("left") && was_synced("."));
}

Test(store, gives_back_what_was_put_and_replaces_it)
{
	struct store *store = open_store("state.db");
	struct evbus_checkpoint c = checkpoint("g", "t", 2, 5), got;

	cr_assert_eq(store_checkpoint_put(store, &c, 1, &err), EVBUS_OK, "%s", err.text);
	memset(&got, 0, sizeof got);
	cr_assert_eq(store_checkpoint_get(store, "g", "t", 2, &got, &err), EVBUS_OK, "%s", err.text);
	cr_assert_arr_eq(&got, &c, sizeof c);
	c = (struct evbus_checkpoint){ .group = "g",
				       .topic = "t",
				       .partition_id = 2,
				       .next_offset = "18446744073709551615",
				       .offset_kind = "memory_index",
				       .log_id = "x" };
	cr_assert_eq(store_checkpoint_put(store, &c, 1, &err), EVBUS_OK, "%s", err.text);
	store_close(store);
	store = open_store("state.db");
	cr_assert_eq(store_checkpoint_get(store, "g", "t", 2, &got, &err), EVBUS_OK, "%s", err.text);
	cr_assert_arr_eq(&got, &c, sizeof c);
	store_close(store);
}

Test(store, lists_in_order_of_group_topic_and_partition)
{
	static const char *const expected[] = { "A/t/0", "a/T/0", "a/t/0", "a/t/2", "a/t/10", "a/t.x/1", "b/t/0" };
	struct evbus_checkpoint some[] = { checkpoint("b", "t", 0, 1),  checkpoint("a", "t", 10, 1),
					   checkpoint("a", "T", 0, 1),  checkpoint("a", "t", 2, 1),
					   checkpoint("A", "t", 0, 1),  checkpoint("a", "t.x", 1, 1),
					   checkpoint("a", "t", 0, 1) };
	struct evbus_checkpoint *list;
	struct store *store = open_store("state.db");
	size_t count;
	char text[600];

	cr_assert_eq(store_checkpoint_put(store, some, 7, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(store_checkpoint_list(store, NULL, &list, &count, &err), EVBUS_OK);
	cr_assert_eq(count, 7);
	for (size_t i = 0; i < count; i++) {
		snprintf(text, sizeof text, "%s/%s/%d", list[i].group, list[i].topic, list[i].partition_id);
		cr_assert_str_eq(text, expected[i]);
	}
	free(list);
	cr_assert_eq(store_checkpoint_list(store, "a", &list, &count, &err), EVBUS_OK);
	cr_assert(count == 5 && !strcmp(list[0].topic, "T") && list[4].partition_id == 1);
	free(list);
	cr_assert_eq(store_checkpoint_list(store, "c", &list, &count, &err), EVBUS_OK);
	cr_assert_eq(count, 0);
	int32_t last = 0;
	cr_assert_eq(store_checkpoint_last(store, "a", "t", some[0].log_id, &last, &err), EVBUS_OK);
	cr_assert_eq(last, 10);
	cr_assert_eq(store_checkpoint_last(store, "a", "t", "another", &last, &err), EVBUS_OK);
	cr_assert_eq(last, -1);
	store_close(store);
}

Test(store, removes_one_and_says_when_it_is_not_there)
{
	struct store *store = open_store("state.db");

	cr_assert_eq(put(store, "g", "t", 0, 1), EVBUS_OK);
	cr_assert_eq(put(store, "g", "t", 1, 2), EVBUS_OK);
	cr_assert_eq(store_checkpoint_remove(store, "g", "t", 0, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(store_checkpoint_remove(store, "g", "t", 0, &err), EVBUS_NONE);
	cr_assert(position(store, 0) == -1 && position(store, 1) == 2);
	store_close(store);
}

Test(store, puts_many_or_none_of_them)
{
	struct evbus_checkpoint some[] = { checkpoint("g", "t", 0, 1), checkpoint("g", "bad", 0, 1),
					   checkpoint("g", "t", 1, 1) };
	struct store *store = open_store("state.db");

	cr_assert_eq(put(store, "g", "t", 0, 9), EVBUS_OK);
	stored_refuse("state.db", "INSERT", "checkpoints", "new.topic = 'bad'", "not this one");
	cr_assert_eq(store_checkpoint_put(store, some, 3, &err), EVBUS_CONFLICT);
	cr_assert(strstr(err.text, "not this one"), "%s", err.text);
	cr_assert(position(store, 0) == 9 && position(store, 1) == -1);
	/* The handle works on. */
	cr_assert_eq(put(store, "g", "t", 1, 4), EVBUS_OK, "%s", err.text);
	cr_assert_eq(store_checkpoint_put(store, some, 0, &err), EVBUS_OK);
	cr_assert_eq(position(store, 1), 4);
	store_close(store);
}

Test(store, takes_sql_and_long_text_in_every_field_as_text)
{
	static const char evil[] = "'; DROP TABLE checkpoints; --\"?%s\\";
	struct store *store = open_store("state.db");
	struct evbus_checkpoint c = { .partition_id = 1 }, got, *list;
	size_t count;

	snprintf(c.group, sizeof c.group, "%s", evil);
	snprintf(c.topic, sizeof c.topic, "%s", evil);
	snprintf(c.next_offset, sizeof c.next_offset, "%.23s", evil);
	snprintf(c.offset_kind, sizeof c.offset_kind, "%.23s", evil);
	snprintf(c.log_id, sizeof c.log_id, "%.32s", evil);
	snprintf(c.fingerprint, sizeof c.fingerprint, "%.8s", evil);
	snprintf(c.updated_at_utc, sizeof c.updated_at_utc, "%.27s", evil);
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(store_checkpoint_put(store, &c, 1, &err), EVBUS_OK, "%s", err.text);
		cr_assert_eq(store_checkpoint_get(store, c.group, c.topic, 1, &got, &err), EVBUS_OK, "%s", err.text);
		cr_assert_arr_eq(&got, &c, sizeof c);
		cr_assert_eq(store_checkpoint_list(store, c.group, &list, &count, &err), EVBUS_OK);
		cr_assert_eq(count, 1);
		cr_assert_arr_eq(list, &c, sizeof c);
		free(list);
		cr_assert_eq(store_checkpoint_remove(store, c.group, c.topic, 1, &err), EVBUS_OK);
		memset(c.group, 'g', sizeof c.group - 1);
		memset(c.topic, 't', sizeof c.topic - 1);
	}
	store_close(store);
}

Test(store, refuses_rows_that_it_did_not_write)
{
	static const char *const changes[] = {
		"UPDATE checkpoints SET next_offset = next_offset || replace('aaaaaaaaaaaaa', 'a', '0123456789')",
		"UPDATE checkpoints SET partition_id = 4294967296",
		/* What Postgres takes ends here. */
		"UPDATE checkpoints SET partition_id = 'x'",
		"UPDATE checkpoints SET partition_id = 0, fingerprint = CAST(x'610062' AS TEXT)",
		"UPDATE checkpoints SET fingerprint = x'61'",
	};
	struct store *store = open_store("state.db");
	struct evbus_checkpoint *list;
	size_t count, tried = stored_on_server() ? 2 : sizeof changes / sizeof *changes;

	cr_assert_eq(put(store, "g", "t", 0, 1), EVBUS_OK);
	for (size_t i = 0; i < tried; i++) {
		sql("state.db", changes[i]);
		cr_assert_eq(store_checkpoint_list(store, NULL, &list, &count, &err), EVBUS_IO, "%s", changes[i]);
		cr_assert(strstr(err.text, "damaged"), "%s", err.text);
	}
	int32_t last;
	cr_assert_eq(store_checkpoint_last(store, "g", "t", "0123456789abcdef0123456789abcdef", &last, &err), EVBUS_IO);
	store_close(store);
}

/* ---- where it lies --------------------------------------------------------------------------------------------- */

Test(store, may_have_any_file_name)
{
	OF_FILES;
	static const char *const names[] = { "a?b=c&mode=memory", "a#b",       "a%41b", "./file:x?mode=memory",
					     ":memory:",          "it's \"x\"", "a\nb",  "./a:b",
					     "-x",                "\xc3\xa4",   " " };

	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		struct store *store = open_store(names[i]);
		cr_assert_eq(put(store, "g", "t", 0, 1), EVBUS_OK, "%s: %s", names[i], err.text);
		store_close(store);
		cr_assert_eq(mode_of(names[i]), 0600);
		cr_assert_eq(get_code(names[i]), EVBUS_OK, "%s: %s", names[i], err.text);
	}
	/* Each with its journal, and nothing else. */
	cr_assert_eq(entries("."), 2 * (int)(sizeof names / sizeof *names));
}

Test(store, is_made_with_its_directories_for_us_alone_whatever_the_umask)
{
	OF_FILES;
	static const mode_t masks[] = { 0, 0022, 0277, 0777 };
	char path[64], dir[32];

	for (size_t i = 0; i < sizeof masks / sizeof *masks; i++) {
		snprintf(dir, sizeof dir, "d%zu/e", i);
		snprintf(path, sizeof path, "%s/state.db", dir);
		umask(masks[i]);
		cr_assert_eq(put_code(path), EVBUS_OK, "%s", err.text);
		umask(0022);
		cr_assert(mode_of(path) == 0600 && mode_of(dir) == 0700, "%o %o", mode_of(path), mode_of(dir));
		dir[2] = '\0';
		cr_assert_eq(mode_of(dir), 0700);
		snprintf(path, sizeof path, "%s/e/state.db-journal", dir);
		cr_assert_eq(mode_of(path), 0600, "%o", mode_of(path));
	}
	cr_assert_eq(notices, 4);
	cr_assert(strstr(made, "made the store '") && strstr(made, "/d3/e/state.db'"), "%s", made);
}

Test(store, is_made_with_the_mode_that_is_asked_for)
{
	OF_FILES;
	struct store *store = open_with(AT_FDCWD, "d/state.db", false, 0660);

	umask(0077);
	cr_assert_eq(put(store, "g", "t", 0, 1), EVBUS_OK, "%s", err.text);
	store_close(store);
	cr_assert(mode_of("d") == 0770 && mode_of("d/state.db") == 0660 && mode_of("d/state.db-journal") == 0660);
	/* What is there keeps its mode. */
	cr_assert(!chmod("d/state.db", 0640));
	cr_assert_eq(put_code("d/state.db"), EVBUS_OK, "%s", err.text);
	cr_assert_eq(mode_of("d/state.db"), 0640);
}

Test(store, is_relative_to_its_directory_and_not_to_a_later_working_directory)
{
	OF_FILES;
	cr_assert(!mkdir("a", 0700) && !mkdir("b", 0700));
	int a = open("a", O_RDONLY | O_DIRECTORY);
	struct store *below = open_with(a, "below.db", false, 0), *here = open_store("here.db");

	cr_assert(!chdir("b"));
	cr_assert_eq(put(below, "g", "t", 0, 1), EVBUS_OK, "%s", err.text);
	cr_assert_eq(put(here, "g", "t", 0, 1), EVBUS_OK, "%s", err.text);
	store_close(below);
	store_close(here);
	close(a);
	cr_assert_eq(entries("."), 0);
	cr_assert(!access("../a/below.db", F_OK) && !access("../here.db", F_OK));
}

Test(store, follows_no_link_to_the_file_but_links_of_the_operator_to_its_directory)
{
	OF_FILES;
	cr_assert(!mkdir("real", 0700) && !symlink("real", "dir") && !symlink("elsewhere.db", "state.db"));
	cr_assert_eq(put_code("state.db"), EVBUS_CONFLICT);
	cr_assert(strstr(err.text, "state.db' is a symbolic link: links are not followed"), "%s", err.text);
	cr_assert_eq(get_code("state.db"), EVBUS_CONFLICT);
	cr_assert(access("elsewhere.db", F_OK));
	cr_assert_eq(put_code("dir/state.db"), EVBUS_OK, "%s", err.text);
	cr_assert_eq(mode_of("real/state.db"), 0600);
	/* Below a bus even those are refused. */
	int here = open(".", O_RDONLY | O_DIRECTORY);
	struct store *store = open_with(here, "dir/state.db", false, 0);
	cr_assert_eq(put(store, "g", "t", 0, 1), EVBUS_CONFLICT);
	store_close(store);
	close(here);
}

Test(store, refuses_what_is_no_regular_file)
{
	OF_FILES;
	cr_assert(!mkfifo("fifo", 0600) && !mkdir("dir", 0700));
	cr_assert_eq(put_code("fifo"), EVBUS_CONFLICT);
	cr_assert(strstr(err.text, "fifo' is not a regular file"), "%s", err.text);
	cr_assert_eq(get_code("dir"), EVBUS_CONFLICT);
	cr_assert(strstr(err.text, "dir' is not a regular file"), "%s", err.text);
	cr_assert_eq(get_code("/dev/null"), EVBUS_CONFLICT);
	cr_assert_eq(put_code("state.db"), EVBUS_OK);
	cr_assert(!link("state.db", "other.db"));
	cr_assert_eq(put_code("other.db"), EVBUS_CONFLICT);
	cr_assert(strstr(err.text, "has 2 names"), "%s", err.text);
	cr_assert_neq(put_code("state.db/x.db"), EVBUS_OK);
}

/* SQLite would wait for the FIFO for ever, and write to what has another name. */
Test(store, refuses_what_is_no_regular_file_in_the_place_of_its_journal)
{
	OF_FILES;
	struct store *store = open_store("state.db");

	cr_assert_eq(put(store, "g", "t", 0, 1), EVBUS_OK, "%s", err.text);
	cr_assert(!link("state.db-journal", "other"));
	cr_assert_eq(put(store, "g", "t", 0, 2), EVBUS_CONFLICT, "also while it is open");
	cr_assert(strstr(err.text, "'state.db-journal' has 2 names"), "%s", err.text);
	cr_assert(!unlink("state.db-journal") && !mkfifo("state.db-journal", 0600));
	cr_assert_eq(get_code("state.db"), EVBUS_CONFLICT);
	cr_assert(strstr(err.text, "'state.db-journal' is not a regular file"), "%s", err.text);
	cr_assert(!rename("state.db-journal", "state.db-wal"));
	cr_assert_eq(get_code("state.db"), EVBUS_CONFLICT);
	cr_assert(!unlink("state.db-wal"));
	cr_assert_eq(put(store, "g", "t", 0, 3), EVBUS_OK, "%s", err.text);
	store_close(store);
}

Test(store, url_that_is_none_is_refused)
{
	static const struct {
		const char *url, *text;
	} bad[] = {
		{ "", "names no file" },
		{ "sqlite:", "names no file" },
		{ "sqlite:dir/", "names no file" },
		{ "sqlite://app.db", "write sqlite:app.db" },
		{ "mysql://me:secret@host/db", "there is no store of the kind 'mysql'" },
	};
	struct store *store;

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		cr_assert_eq(store_open(AT_FDCWD, bad[i].url, NULL, &store, &err), EVBUS_CONFIG, "%s", bad[i].url);
		cr_assert(strstr(err.text, bad[i].text) && !strstr(err.text, "secret"), "%s", err.text);
	}
	store_close(NULL);
}

Test(store, is_not_made_where_that_is_not_wanted)
{
	struct store *store = open_with(AT_FDCWD, "d/state.db", true, 0);

	cr_assert_eq(put(store, "g", "t", 0, 1), EVBUS_NONE);
	cr_assert_eq(entries("."), 0);
	store_close(store);
}

Test(store, path_that_is_too_long_for_sqlite_says_so)
{
	OF_FILES;
	char path[700], dir[210];

	memset(dir, 'd', sizeof dir - 1);
	dir[sizeof dir - 1] = '\0';
	snprintf(path, sizeof path, "%s/%s/%s/state.db", dir, dir, dir);
	cr_assert_eq(put_code(path), EVBUS_CONFIG);
	cr_assert(strstr(err.text, "keep the store elsewhere"), "%s", err.text);
}

Test(store, that_was_removed_or_replaced_while_in_use_is_refused)
{
	OF_FILES;
	struct store *store = open_store("state.db");
	struct evbus_checkpoint c;

	cr_assert_eq(put(store, "g", "t", 0, 1), EVBUS_OK);
	cr_assert(!rename("state.db", "old.db") && !unlink("state.db-journal"));
	cr_assert_eq(put(store, "g", "t", 0, 2), EVBUS_CONFLICT);
	cr_assert(strstr(err.text, "was removed or replaced while it was in use"), "%s", err.text);
	cr_assert_eq(put_code("state.db"), EVBUS_OK);
	cr_assert_eq(store_checkpoint_get(store, "g", "t", 0, &c, &err), EVBUS_CONFLICT);
	store_close(store);
}
