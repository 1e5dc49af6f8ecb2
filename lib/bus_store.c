/* bus_store.c: where the store of a bus is, and the claims of its groups, which lie beside it.
 *
 * Where the bus is files, both are in it. What is on servers has them with the user: all that run as one user on one
 * machine share them, whatever bus they have. */
#include "bus.h"

#include "store/claim.h"
#include "store/file.h"

#include <errno.h>
#include <string.h>

const char *evbus_store_kind(size_t index, bool *there)
{
	return store_kind(index, there);
}

/* Below the directory that a variable names, or in one below another variable's, if that is absolute. */
static bool place_of_user(char url[PATH_MAX])
{
	const char *state_home = secure_getenv("XDG_STATE_HOME"), *home = secure_getenv("HOME");
	int len = -1;

	if (state_home && state_home[0] == '/')
		len = snprintf(url, PATH_MAX, "sqlite:%s/evbus/state.db", state_home);
	else if (home && home[0] == '/')
		len = snprintf(url, PATH_MAX, "sqlite:%s/.local/state/evbus/state.db", home);
	return len > 0 && len < PATH_MAX;
}

/* Of a bus whose store is not in it. What is in memory and gone with its process keeps no state unless it is told to. */
static enum evbus_code find_store(struct evbus *bus, struct evbus_err *err)
{
	const struct backend_ops *ops = bus->backend->ops;
	char url[PATH_MAX];

	if (bus->root || bus->store_url)
		return EVBUS_OK;
	if (ops->keeps_lines)
		return err_set(err, EVBUS_CONFIG, 0,
			       "a bus of the backend '%s' has no store of its own: choose one with --store",
			       ops->scheme);
	if (!place_of_user(url))
		return err_set(err, EVBUS_CONFIG, 0,
			       "there is no place for the store: neither XDG_STATE_HOME nor HOME is an absolute path; "
			       "choose one with --store");
	bus->store_url = os.realloc(NULL, strlen(url) + 1);
	if (!bus->store_url)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open the store '%s'", url);
	memcpy(bus->store_url, url, strlen(url) + 1);
	return EVBUS_OK;
}

static enum evbus_code state_of_user(const struct evbus *bus, int *fd, struct evbus_err *err)
{
	char url[PATH_MAX];

	if (!place_of_user(url))
		return err_set(err, EVBUS_CONFIG, 0,
			       "there is no place for the state: neither XDG_STATE_HOME nor HOME is an absolute path");
	return store_file_dir(AT_FDCWD, url + strlen("sqlite:"), bus->file_mode, fd, err);
}

bool bus_has_store(struct evbus *bus)
{
	return find_store(bus, NULL) == EVBUS_OK;
}

enum evbus_code bus_state(struct evbus *bus, int *fd, struct evbus_err *err)
{
	TRY(find_store(bus, err));
	if (bus->root) {
		TRY(os_make_dir(bus->root->fd, ".evbus", bus->dir_mode, ".evbus", NULL, err));
		return os_open_dir(bus->root->fd, ".evbus", ".evbus", fd, err);
	}
	if (store_is_on_server(bus->store_url))
		return state_of_user(bus, fd, err);
	/* Who uses one store finds the claims of the others beside it. */
	size_t scheme = bus_scheme_len(bus->store_url);
	return store_file_dir(AT_FDCWD, bus->store_url + scheme + (scheme > 0), bus->file_mode, fd, err);
}

enum evbus_code bus_claim(struct evbus *bus, int *state, const char *group, const char *topic, int32_t partition_id,
			  bool once, struct evbus_claim **claim, struct evbus_err *err)
{
	TRY(find_store(bus, err));
	if (bus->store_url && store_is_on_server(bus->store_url)) {
		TRY(bus_store(bus, err));
		return claim_take_shared(bus->store, group, topic, partition_id, once, claim, err);
	}
	if (*state < 0)
		TRY(bus_state(bus, state, err));
	return (once ? claim_try : claim_take)(*state, bus->file_mode, group, topic, partition_id, claim, err);
}

enum evbus_code bus_open_store(struct evbus *bus, struct store **store, struct evbus_err *err)
{
	struct store_options options = { .no_create = bus->options.no_create,
					 .file_mode = bus->file_mode,
					 .notice = bus->options.notice,
					 .notice_context = bus->options.notice_context };

	TRY(bus_check(bus, err));
	TRY(find_store(bus, err));
	if (bus->store_url)
		return store_open(AT_FDCWD, bus->store_url, &options, store, err);
	TRY(bus_reach(bus, false, err));
	return store_open(bus->root->fd, "sqlite:.evbus/state.db", &options, store, err);
}

enum evbus_code bus_store(struct evbus *bus, struct evbus_err *err)
{
	TRY(bus_check(bus, err));
	return bus->store ? EVBUS_OK : bus_open_store(bus, &bus->store, err);
}
