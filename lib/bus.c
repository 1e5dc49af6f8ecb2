/* bus.c: opening a bus, and its topics. */
#include "bus.h"

#include "base/module.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

#define PAYLOAD_LIMIT_BYTES (3u * 1024 * 1024)    /* a line, with its head and key, stays below LINE_MAX_BYTES */
#define DESCRIBE_CHUNK 65536u
#define ALIVE_BYTES 4096u

const char *evbus_version(void)
{
	return EVBUS_VERSION;
}

void evbus_free(void *block)
{
	free(block);
}

/* A path without a scheme is of the first. */
static const struct {
	const char *scheme;
	const struct backend_ops *built_in;    /* NULL: a module of that name has it */
	const char *dev_package;
	bool tls;                              /* its scheme with an s behind it is the same over TLS */
	bool writes_only;                      /* as its backend_ops have it */
} kinds[] = {
	{ "file", &backend_file, NULL, false, false },
	{ "memory", &backend_memory, NULL, false, false },
	{ "nats", NULL, "libnats-dev", false, false },
	{ "kafka", NULL, "librdkafka-dev", false, false },
	{ "kinesis", NULL, "libcurl4-openssl-dev", false, false },
	{ "amqp", NULL, "librabbitmq-dev", true, true },
};

/* ---- open and close ---- */

size_t bus_scheme_len(const char *url)
{
	const char *rest = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.";
	size_t len = strspn(url, rest);
	bool letter = (url[0] >= 'a' && url[0] <= 'z') || (url[0] >= 'A' && url[0] <= 'Z');

	return letter && url[len] == ':' ? len : 0;
}

/* To look at the locale for a few letters takes two pages of the C library at each start. */
static bool is_scheme(const char *url, size_t len, const char *scheme)
{
	for (size_t i = 0; i < len; i++)
		if ((url[i] | 32) != scheme[i])
			return false;
	return scheme[len] == '\0';
}

static enum evbus_code load_backend(const char *scheme, const char *dev_package, const struct backend_ops **ops,
				    struct evbus_err *err)
{
	const struct evbus_module *module;

	TRY(module_load(NULL, "backend", scheme, dev_package, &module, err));
	*ops = module->ops;
	if ((*ops)->version == BACKEND_VERSION)
		return EVBUS_OK;
	return err_set(err, EVBUS_CONFIG, 0,
		       "the backend '%s' is made for version %u of what backends are, and this libevbus has %u: install "
		       "both from one release",
		       scheme, (*ops)->version, BACKEND_VERSION);
}

/* Index in kinds; SIZE_MAX: it is of none. */
static size_t kind_of(const char *url)
{
	size_t scheme = bus_scheme_len(url);

	if (!scheme)
		return 0;
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		bool tls = kinds[i].tls && (url[scheme - 1] | 32) == 's';
		if (is_scheme(url, tls ? scheme - 1 : scheme, kinds[i].scheme))
			return i;
	}
	return SIZE_MAX;
}

static enum evbus_code find_backend(const char *url, const struct backend_ops **ops, const char **rest,
				    struct evbus_err *err)
{
	size_t scheme = bus_scheme_len(url), kind = kind_of(url);

	*rest = scheme ? url + scheme + 1 : url;
	if (kind == SIZE_MAX)
		return err_set(err, EVBUS_CONFIG, 0,
			       "there is no backend '%.*s': the bus is file:DIR, memory:, nats://HOST, kafka://HOST, "
			       "kinesis://REGION, amqp://HOST (to publish to), or a path "
			       "(./%.*s:… for one with a colon)",
			       (int)scheme, url, (int)scheme, url);
	*ops = kinds[kind].built_in;
	return *ops ? EVBUS_OK : load_backend(kinds[kind].scheme, kinds[kind].dev_package, ops, err);
}

const char *evbus_backend(size_t index, bool *there)
{
	if (index >= sizeof kinds / sizeof *kinds)
		return NULL;
	*there = kinds[index].built_in || module_is_there(NULL, kinds[index].scheme);
	return kinds[index].scheme;
}

static enum evbus_code check_options(const struct evbus_options *options, struct evbus_err *err)
{
	if (options->file_mode & ~0666u)
		return err_set(err, EVBUS_CONFIG, 0, "the file mode %04o has bits other than read and write",
			       options->file_mode);
	if (options->file_mode && (options->file_mode & 0600) != 0600)
		return err_set(err, EVBUS_CONFIG, 0, "the file mode %04o takes reading and writing from the owner",
			       options->file_mode);
	if (options->payload_max_bytes > PAYLOAD_LIMIT_BYTES)
		return err_set(err, EVBUS_CONFIG, 0, "a payload may have at most %u bytes, and %u were asked for",
			       PAYLOAD_LIMIT_BYTES, options->payload_max_bytes);
	return EVBUS_OK;
}

static void close_bus(struct evbus **bus)
{
	evbus_close(*bus);
}

static char *copy_text(const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = os.realloc(NULL, size);

	return copy ? memcpy(copy, text, size) : NULL;
}

static enum evbus_code set_alive(struct evbus *bus, struct evbus_err *err)
{
	void *page = os.mmap(NULL, ALIVE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return err_set(err, EVBUS_IO, errno, "cannot open a bus");
	bus->alive = page;
	/* Where the kernel cannot (before Linux 4.14) a forked child is not told. */
	madvise(page, ALIVE_BYTES, MADV_WIPEONFORK);
	*bus->alive = 1;
	return EVBUS_OK;
}

static enum evbus_code open_backend(struct evbus *bus, const char *url, struct evbus_err *err)
{
	const struct backend_ops *ops = NULL;
	const char *rest;

	TRY(find_backend(url, &ops, &rest, err));
	TRY(check_options(&bus->options, err));
	bus->file_mode = bus->options.file_mode ? bus->options.file_mode : 0600;
	bus->dir_mode = bus->file_mode | (bus->file_mode & 0444) >> 2;
	const struct backend_options options = { .no_create = bus->options.no_create,
						 .file_mode = bus->file_mode,
						 .dir_mode = bus->dir_mode,
						 .notice = bus->options.notice,
						 .notice_context = bus->options.notice_context,
						 .go_on = bus->options.go_on,
						 .go_on_context = bus->options.go_on_context };
	TRY(ops->open(url, rest, &options, &bus->backend, err));
	bus->root = ops->files ? ops->files->root(bus->backend) : NULL;
	return EVBUS_OK;
}

enum evbus_code evbus_open(const char *url, const struct evbus_options *options, struct evbus **bus,
			   struct evbus_err *err)
{
	CLEANUP(close_bus) struct evbus *opened = NULL;

	opened = os.realloc(NULL, sizeof *opened);
	if (!opened)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open a bus");
	*opened = (struct evbus){ .event = { .partition_id = EVBUS_PARTITION_ANY } };
	if (options)
		opened->options = *options;
	TRY(open_backend(opened, url, err));
	opened->store_url = opened->options.store ? copy_text(opened->options.store) : NULL;
	if (opened->options.store && !opened->store_url)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open a bus");
	opened->options.store = opened->store_url;
	TRY(set_alive(opened, err));
	enum evbus_code code = bus_reach(opened, false, err);
	if (code != EVBUS_OK && code != EVBUS_NONE)
		return code;
	GIVE(bus, opened);
	return EVBUS_OK;
}

bool evbus_is_target(const struct evbus *bus)
{
	return bus->backend->ops->writes_only;
}

bool evbus_names_target(const char *url)
{
	size_t kind = kind_of(url);

	return kind != SIZE_MAX && kinds[kind].writes_only;
}

void evbus_close(struct evbus *bus)
{
	if (!bus)
		return;
	evbus_publisher_close(bus->publisher);
	store_close(bus->store);
	if (bus->backend)
		bus->backend->ops->close(bus->backend);
	if (bus->alive)
		munmap(bus->alive, ALIVE_BYTES);
	free(bus->store_url);
	free(bus);
}

enum evbus_code bus_check(const struct evbus *bus, struct evbus_err *err)
{
	if (*bus->alive)
		return EVBUS_OK;
	return err_set(err, EVBUS_BUG, 0, "this handle was opened before a fork: open the bus in the child");
}

void bus_notice(const struct evbus *bus, const char *format, ...)
{
	char text[512];

	if (!bus->options.notice)
		return;
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	bus->options.notice(bus->options.notice_context, text);
}

enum evbus_code bus_reach(struct evbus *bus, bool create, struct evbus_err *err)
{
	TRY(bus_check(bus, err));
	return bus->backend->ops->ready(bus->backend, create, err);
}

enum evbus_code bus_need_files(const struct evbus *bus, const char *what, struct evbus_err *err)
{
	if (bus->root)
		return EVBUS_OK;
	return err_set(err, EVBUS_CONFIG, 0, "the backend '%s' has no %s", bus->backend->ops->scheme, what);
}

uint32_t bus_payload_max(const struct evbus *bus)
{
	return bus->options.payload_max_bytes ? bus->options.payload_max_bytes : EVBUS_PAYLOAD_MAX_BYTES;
}

/* ---- topics ---- */

enum evbus_code evbus_topic_create(struct evbus *bus, const char *topic, const struct evbus_topic_options *options,
				   bool *created, struct evbus_err *err)
{
	const struct backend_ops *ops = bus->backend->ops;
	CLEANUP(backend_topic_close) struct backend_topic *opened = NULL;

	TRY(bus_check(bus, err));
	TRY(evbus_topic_check(topic, false, err));
	TRY(bus_reach(bus, true, err));
	TRY(ops->topic_create(bus->backend, topic, options, &opened, created, err));
	/* It is promised now, also where somebody else made it. */
	return ops->topic_keep(opened, err);
}

enum evbus_code evbus_topic_list(struct evbus *bus, const char *pattern, char ***names, struct evbus_err *err)
{
	TRY(bus_check(bus, err));
	if (pattern)
		TRY(evbus_topic_check(pattern, true, err));
	TRY(bus_reach(bus, false, err));
	return bus->backend->ops->topic_names(bus->backend, pattern, names, err);
}

static int32_t partition_after(const struct backend_topic *topic, int32_t number)
{
	for (uint32_t i = 0; i < topic->partitions; i++)
		if (topic_partition(topic, i).number > number)
			return topic_partition(topic, i).number;
	return -1;
}

enum evbus_code evbus_topic_describe(struct evbus *bus, const char *topic, int32_t partition_id,
				     struct evbus_partition_info *info, struct evbus_err *err)
{
	CLEANUP(backend_topic_close) struct backend_topic *opened = NULL;
	CLEANUP(partition_close) struct partition_reader *reader = NULL;

	TRY(bus_reach(bus, false, err));
	TRY(bus->backend->ops->topic_open(bus->backend, topic, &opened, err));
	if (partition_id < 0)
		partition_id = partition_after(opened, -1);
	TRY(partition_open(opened, partition_id, DESCRIBE_CHUNK, false, &reader, err));
	struct evbus_partition_info found = {
		.partitions = opened->partitions,
		.partition_id = partition_id,
		.next_partition_id = partition_after(opened, partition_id),
		.segment_max_bytes = opened->segment_max_bytes == UINT64_MAX ? 0 : opened->segment_max_bytes,
		.offset_kind = opened->ops->offset_kind,
		.acknowledgement = opened->acknowledgement ? opened->acknowledgement : opened->ops->acknowledgement,
		.idempotence = opened->ops->idempotence,
	};
	TRY(partition_describe(reader, &found, err));
	snprintf(found.log_id, sizeof found.log_id, "%s", opened->log_id);
	TRY(partition_offset_text(reader, reader->first, found.first_offset, err));
	TRY(partition_offset_text(reader, reader->end, found.next_offset, err));
	*info = found;
	return EVBUS_OK;
}
