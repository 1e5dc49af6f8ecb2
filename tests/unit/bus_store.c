/* bus_store.c: where a bus has its store, if none is chosen. */
#include "gaps_helpers.h"

#include <sys/stat.h>

TestSuite(bus_store, .init = enter_gaps, .fini = leave, .timeout = 60);

/* A bus on a server, and no store was chosen. */
static struct evbus *open_without_store(const char *url)
{
	struct evbus *opened;

	OK(evbus_open(url, NULL, &opened, &err));
	gaps_wrap(opened, modules);
	store_close(opened->store);
	opened->store = NULL;
	return opened;
}

static void assert_mode(const char *path, mode_t mode)
{
	struct stat st;

	cr_assert(!stat(path, &st), "%s", path);
	cr_assert_eq(st.st_mode & 07777, mode, "%s: %o", path, st.st_mode);
}

Test(bus_store, what_is_on_a_server_has_its_store_with_the_user)
{
	char state[PATH_MAX], wanted[PATH_MAX + 64];
	struct evbus_claim *claim;

	publish(0, 1);
	cr_assert_not_null(getcwd(state, sizeof state));
	for (int home = 0; home < 2; home++) {
		struct evbus *opened = open_without_store("memory:gaps");
		setenv("HOME", state, 1);
		setenv("XDG_STATE_HOME", home ? "relative" : "/nowhere", 1);
		if (!home) {
			snprintf(wanted, sizeof wanted, "%s/xdg", state);
			setenv("XDG_STATE_HOME", wanted, 1);
		}
		OK(evbus_claim_take(opened, "g", "t", 0, &claim, &err));
		evbus_claim_release(claim);
		snprintf(wanted, sizeof wanted, "sqlite:%s/%s/evbus/state.db", state, home ? ".local/state" : "xdg");
		cr_expect_str_eq(opened->store_url, wanted);
		evbus_close(opened);
	}
	assert_mode("xdg", 0700);
	assert_mode("xdg/evbus", 0700);
	assert_mode(".local/state/evbus", 0700);
	cr_assert_neq(access("relative", F_OK), 0);
}

Test(bus_store, who_has_no_home_is_told_to_choose_a_store)
{
	struct evbus *opened = open_without_store("memory:gaps");
	struct evbus_claim *claim;

	unsetenv("XDG_STATE_HOME");
	unsetenv("HOME");
	cr_expect_eq(evbus_claim_take(opened, "g", "t", 0, &claim, &err), EVBUS_CONFIG);
	cr_expect(strstr(err.text, "--store"), "%s", err.text);
	evbus_close(opened);
}

Test(bus_store, what_is_in_memory_has_no_store_unless_one_is_chosen)
{
	struct evbus_checkpoint *list;
	struct evbus *opened;
	size_t count;

	OK(evbus_open("memory:", NULL, &opened, &err));
	cr_expect_eq(evbus_checkpoint_list(opened, NULL, NULL, &list, &count, &err), EVBUS_CONFIG);
	cr_expect(strstr(err.text, "'memory' has no store"), "%s", err.text);
	evbus_close(opened);
}

Test(bus_store, a_store_whose_name_is_too_long_is_told_before_a_claim)
{
	char url[400];
	struct evbus_claim *claim;
	struct evbus *opened;

	snprintf(url, sizeof url, "sqlite:state/%0300d", 1);
	const struct evbus_options options = { .store = url };
	OK(evbus_open("memory:", &options, &opened, &err));
	cr_expect_eq(evbus_claim_take(opened, "g", "t", 0, &claim, &err), EVBUS_CONFIG);
	evbus_close(opened);
}
