/* outbox.c: opening an outbox, making its table, and adding rows. */
#include "outbox_table.h"

#include "base/os.h"
#include "event/json.h"
#include "store/server.h"

#include <errno.h>

/* ---- open and close -------------------------------------------------------------------------------------------- */

static char *copy_text(const char *text, size_t len)
{
	char *copy = os.realloc(NULL, len + 1);

	if (copy) {
		memcpy(copy, text, len);
		copy[len] = '\0';
	}
	return copy;
}

static enum evbus_code no_memory(struct evbus_err *err)
{
	return err_set(err, EVBUS_IO, ENOMEM, "cannot open an outbox");
}

/* The last part of the path: "app.db"; of a server's URL without what may be secret. */
static enum evbus_code name_it(struct evbus_outbox *outbox, const char *name, struct evbus_err *err)
{
	const char *url = outbox->url ? outbox->url : "outbox";
	CLEANUP(free_cleanup) char *shown = copy_text(url, strlen(url));

	if (!shown)
		return no_memory(err);
	if (store_is_on_server(url))
		server_show(url, shown);
	const char *last = shown, *slash = strrchr(last, '/'), *colon = strchr(last, ':');
	if (slash)
		last = slash[1] ? slash + 1 : "postgres";
	else if (colon)
		last = colon + 1;
	if (name)
		last = name;
	outbox->name = copy_text(last, strlen(last));
	return outbox->name ? EVBUS_OK : no_memory(err);
}

static enum evbus_code open_database(struct evbus_outbox *outbox, struct evbus_err *err)
{
	const struct evbus *bus = outbox->bus;
	struct store_options options = { .file_mode = bus->file_mode,
					 .notice = bus->options.notice,
					 .notice_context = bus->options.notice_context,
					 .guest = true };

	return outbox->url ? store_open(AT_FDCWD, outbox->url, &options, &outbox->store, err) : EVBUS_OK;
}

static void close_outbox(struct evbus_outbox **outbox)
{
	evbus_outbox_close(*outbox);
}

enum evbus_code evbus_outbox_open(struct evbus *bus, const char *url, const struct evbus_outbox_options *options,
				  struct evbus_outbox **outbox, struct evbus_err *err)
{
	static const struct evbus_outbox_options none;
	CLEANUP(close_outbox) struct evbus_outbox *opened = NULL;

	TRY(bus_check(bus, err));
	options = options ? options : &none;
	opened = os.realloc(NULL, sizeof *opened);
	if (!opened)
		return no_memory(err);
	*opened = (struct evbus_outbox){ .bus = bus,
					 .to = options->to ? options->to : bus,
					 .wrap = options->wrap,
					 .soonest_us = INT64_MAX,
					 .horizon.safe = INT64_MIN };
	TRY(outbox_map_parse(options->map, &opened->map, err));
	opened->url = url ? copy_text(url, strlen(url)) : NULL;
	if (url && !opened->url)
		return no_memory(err);
	TRY(name_it(opened, options->name, err));
	/* Until the table was seen it is taken to be as the map has it. */
	opened->present = ~0u;
	TRY(outbox_sql_insert(opened, true, 0, &opened->insert, err));
	TRY(open_database(opened, err));
	GIVE(outbox, opened);
	return EVBUS_OK;
}

void evbus_outbox_close(struct evbus_outbox *outbox)
{
	if (!outbox)
		return;
	evbus_publisher_close(outbox->publisher);
	/* An open transaction ends with the connection. */
	store_close(outbox->store);
	outbox_counts_release(outbox);
	key_table_release(&outbox->blocked);
	outbox_horizon_release(&outbox->horizon);
	outbox_sql_release(outbox);
	buf_release(&outbox->names);
	buf_release(&outbox->place);
	free(outbox->insert);
	free(outbox->advice);
	free(outbox->name);
	/* There may be a password in it. */
	if (outbox->url)
		explicit_bzero(outbox->url, strlen(outbox->url));
	free(outbox->url);
	free(outbox);
}

const char *evbus_outbox_name(const struct evbus_outbox *outbox)
{
	return outbox->name;
}

const char *evbus_outbox_insert_sql(const struct evbus_outbox *outbox)
{
	return outbox->insert;
}

const char *evbus_outbox_advice_sql(const struct evbus_outbox *outbox)
{
	return outbox->advice;
}

/* The table in the store has a connection of its own: between begin and end it has a transaction open. */
enum evbus_code outbox_connect(struct evbus_outbox *outbox, bool create, struct evbus_err *err)
{
	TRY(bus_check(outbox->bus, err));
	if (outbox->store)
		return EVBUS_OK;
	if (outbox->bus->root && !outbox->bus->store_url)
		TRY(bus_reach(outbox->bus, create, err));
	return bus_open_store(outbox->bus, &outbox->store, err);
}

enum evbus_code outbox_place(struct evbus_outbox *outbox, const char **place, struct evbus_err *err)
{
	TRY(outbox_connect(outbox, false, err));
	TRY(store_place(outbox->store, &outbox->place, err));
	TRY(buf_add(&outbox->place, "#", 1, err));
	TRY(buf_add(&outbox->place, outbox->map.table, strlen(outbox->map.table) + 1, err));
	*place = outbox->place.data;
	return EVBUS_OK;
}

/* ---- making the table ------------------------------------------------------------------------------------------ */

static enum evbus_code run(struct evbus_outbox *outbox, enum outbox_sql sql, struct evbus_err *err)
{
	return table_write(outbox->store, &(struct query){ .sql = outbox->sql[sql] }, err);
}

static enum evbus_code make_index(struct evbus_outbox *outbox, enum outbox_sql index, bool *made, struct evbus_err *err)
{
	bool exists;

	if (!outbox->sql[index])
		return EVBUS_OK;
	TRY(outbox_find_index(outbox, index, &exists, err));
	if (exists)
		return EVBUS_OK;
	*made = true;
	return run(outbox, index, err);
}

static enum evbus_code make_trigger(struct evbus_outbox *outbox, struct evbus_err *err)
{
	bool exists;

	TRY(outbox_server_has(outbox, OUTBOX_SQL_FUNCTION, &exists, err));
	if (!exists)
		TRY(run(outbox, OUTBOX_SQL_FUNCTION, err));
	return run(outbox, OUTBOX_SQL_TRIGGER, err);
}

/* A table that is there is the application's, and to make an index locks it: who owns it may do so when that suits. */
static enum evbus_code add_advice(struct evbus_outbox *outbox, enum outbox_sql what, struct buf *advice,
				  struct evbus_err *err)
{
	static const char index[] = "CREATE INDEX", concurrently[] = " CONCURRENTLY";
	const char *sql = outbox->sql[what];
	bool exists;

	TRY(outbox_server_has(outbox, what, &exists, err));
	if (exists)
		return EVBUS_OK;
	if (!strncmp(sql, index, sizeof index - 1)) {
		TRY(buf_add(advice, index, sizeof index - 1, err));
		TRY(buf_add(advice, concurrently, sizeof concurrently - 1, err));
		sql += sizeof index - 1;
	}
	TRY(buf_add(advice, sql, strlen(sql), err));
	return buf_add(advice, ";\n", 2, err);
}

static enum evbus_code advise(struct evbus_outbox *outbox, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf advice = { 0 };
	bool told;

	for (unsigned i = OUTBOX_SQL_INDEX_OPEN; i <= OUTBOX_SQL_INDEX_FAILED; i++)
		TRY(add_advice(outbox, i, &advice, err));
	TRY(outbox_server_has(outbox, OUTBOX_SQL_TRIGGER, &told, err));
	if (!told)
		TRY(add_advice(outbox, OUTBOX_SQL_FUNCTION, &advice, err));
	TRY(add_advice(outbox, OUTBOX_SQL_TRIGGER, &advice, err));
	if (!advice.len)
		return EVBUS_OK;
	TRY(buf_add(&advice, "", 1, err));
	free(outbox->advice);
	GIVE(&outbox->advice, advice.data);
	return EVBUS_OK;
}

static enum evbus_code make_within(struct evbus_outbox *outbox, bool *made, struct evbus_err *err)
{
	const struct store_driver *driver = table_driver(outbox->store);
	bool exists;

	/* Asked again within the transaction: another process may have been first. */
	outbox->server = driver_is_server(driver);
	TRY(outbox_server_alone(outbox, err));
	TRY(outbox_look_if_there(outbox, &exists, err));
	if (exists && outbox->server)
		return advise(outbox, err);
	if (!exists) {
		outbox->present = (OUTBOX_BIT(OUTBOX_COLUMNS) - 1);
		TRY(outbox_sql_make(outbox, driver, err));
		TRY(run(outbox, OUTBOX_SQL_CREATE, err));
		if (outbox->server)
			TRY(make_trigger(outbox, err));
		*made = true;
	}
	for (unsigned i = OUTBOX_SQL_INDEX_OPEN; i <= OUTBOX_SQL_INDEX_FAILED; i++)
		TRY(make_index(outbox, i, made, err));
	return EVBUS_OK;
}

static enum evbus_code make(struct evbus_outbox *outbox, bool *made, struct evbus_err *err)
{
	bool exists, anything = false;

	TRY(outbox_begin(outbox, err));
	enum evbus_code code = make_within(outbox, &anything, err);
	TRY(outbox_end(outbox, code, err));
	/* The names of what is there now. */
	outbox->looked = false;
	TRY(outbox_look_if_there(outbox, &exists, err));
	*made = anything;
	return EVBUS_OK;
}

enum evbus_code evbus_outbox_init(struct evbus_outbox *outbox, bool *made, bool *wal, struct evbus_err *err)
{
	TRY(outbox_connect(outbox, true, err));
	TRY(make(outbox, made, err));
	return table_in_danger(outbox->store, wal, err);
}

/* ---- adding ---------------------------------------------------------------------------------------------------- */

/* The table in the store is made when it is needed. */
static enum evbus_code ready_to_add(struct evbus_outbox *outbox, struct evbus_err *err)
{
	bool exists, made;

	TRY(outbox_connect(outbox, !outbox->url, err));
	TRY(outbox_look_if_there(outbox, &exists, err));
	if (!exists && !outbox->url && !outbox->within)
		return make(outbox, &made, err);
	return outbox_look(outbox, err);
}

enum evbus_code evbus_outbox_begin(struct evbus_outbox *outbox, struct evbus_err *err)
{
	TRY(ready_to_add(outbox, err));
	return outbox_begin(outbox, err);
}

enum evbus_code evbus_outbox_end(struct evbus_outbox *outbox, bool keep, struct evbus_err *err)
{
	TRY(bus_check(outbox->bus, err));
	if (!outbox->within)
		return err_set(err, EVBUS_USAGE, 0, "no rows are being added to the outbox '%s'", outbox->name);
	enum evbus_code code = outbox_end(outbox, keep ? EVBUS_OK : EVBUS_NO, err);
	return keep ? code : EVBUS_OK;
}

static enum evbus_code bad_event(struct evbus_err *err, const char *reason, size_t at)
{
	err_set(err, EVBUS_DATA, 0, "the event is not one JSON object: %s at byte %zu", reason, at + 1);
	if (err)
		err->column = (uint32_t)at + 1;
	return EVBUS_DATA;
}

static enum evbus_code check_payload(const struct evbus_outbox *outbox, struct evbus_slice payload,
				     struct evbus_err *err)
{
	struct json_fault fault;
	const char *newline;

	if (payload.len > bus_payload_max(outbox->bus))
		return err_set(err, EVBUS_DATA, 0, "the event has %zu bytes, and %u is the most", payload.len,
			       bus_payload_max(outbox->bus));
	if (outbox->wrap && (!payload.len || json_value_len(payload) != payload.len))
		return err_set(err, EVBUS_DATA, 0, "the body is not one JSON value");
	if (!outbox->wrap && !json_scan(payload, NULL, 0, &fault))
		return bad_event(err, fault.reason, fault.at);
	newline = payload.len ? memchr(payload.data, '\n', payload.len) : NULL;
	if (newline)
		return bad_event(err, "a line break", (size_t)(newline - payload.data));
	return EVBUS_OK;
}

/* A name and a value in the message is worth more than what the database says of its constraints. */
static enum evbus_code refuse_id(struct evbus_outbox *outbox, struct evbus_slice id, struct evbus_err *err)
{
	bool exists = false;
	struct query find = { .sql = outbox->sql[OUTBOX_SQL_HAS_ID],
			      ARGS(value_slice(id)),
			      .row = outbox_take_existence,
			      .context = &exists };

	TRY(table_write(outbox->store, &find, err));
	if (exists)
		return err_set(err, EVBUS_CONFLICT, 0, "the id '%.*s' is in the outbox '%s' already", (int)id.len,
			       id.data, outbox->name);
	return EVBUS_OK;
}

struct made_topic {
	struct evbus_slice wanted;
	char found[EVBUS_TOPIC_MAX_BYTES + 1];
	bool same;
};

static enum evbus_code compare_topic(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	struct made_topic *made = context;
	struct evbus_slice found = columns[0].bytes;
	(void)count;
	(void)err;

	made->same = columns[0].kind == VALUE_TEXT && found.len == made->wanted.len &&
		     !memcmp(found.data, made->wanted.data, found.len);
	snprintf(made->found, sizeof made->found, "%.*s", (int)found.len, found.data ? found.data : "");
	return EVBUS_OK;
}

/* Where rows make their topics themselves, one that is asked for has to be the one that is made. */
static enum evbus_code check_made_topic(struct evbus_outbox *outbox, const struct evbus_outbox_row *row,
					struct evbus_slice id, struct evbus_err *err)
{
	struct made_topic made = { .wanted = row->topic };
	struct query query = {
		.sql = outbox->sql[OUTBOX_SQL_TOPIC_OF], ARGS(value_slice(id)), .row = compare_topic, .context = &made
	};

	if (!outbox->map.topic[0] || !row->topic.data)
		return EVBUS_OK;
	TRY(table_write(outbox->store, &query, err));
	if (!made.same)
		return err_set(err, EVBUS_USAGE, 0, "the topic '%.*s' is not the one that the row makes of '%s': '%s'",
			       (int)row->topic.len, row->topic.data, outbox->map.topic, made.found);
	return EVBUS_OK;
}

static enum evbus_code insert(struct evbus_outbox *outbox, const struct evbus_outbox_row *row, struct evbus_slice id,
			      struct evbus_slice type, struct evbus_err *err)
{
	const struct value set[OUTBOX_COLUMNS] = {
		[OUTBOX_ID] = value_slice(id),
		[OUTBOX_TENANT] = value_slice(row->tenant_id),
		[OUTBOX_TOPIC] = value_slice(row->topic),
		[OUTBOX_TYPE] = value_slice(type),
		[OUTBOX_EVENT_KEY] = value_slice(row->event_key),
		[OUTBOX_PARTITION_KEY] = value_slice(row->partition_key),
		[OUTBOX_PAYLOAD] = value_slice(row->payload),
	};
	struct evbus_err found;

	/* A server does nothing more in a transaction that has failed. */
	if (outbox->server)
		TRY(refuse_id(outbox, id, err));
	enum evbus_code code = outbox_insert(outbox, set, err);
	if (code == EVBUS_CONFLICT && !outbox->server && refuse_id(outbox, id, &found) == EVBUS_CONFLICT && err)
		*err = found;
	TRY(code);
	return check_made_topic(outbox, row, id, err);
}

static enum evbus_code check_row(const struct evbus_outbox *outbox, const struct evbus_outbox_row *row,
				 struct evbus_err *err)
{
	char topic[EVBUS_TOPIC_MAX_BYTES + 2];

	if (!row->topic.data && !outbox->map.topic[0])
		return err_set(err, EVBUS_USAGE, 0, "a row of the outbox '%s' needs a topic", outbox->name);
	if (row->topic.data) {
		snprintf(topic, sizeof topic, "%.*s", (int)row->topic.len, row->topic.data);
		TRY(evbus_topic_check(topic, false, err));
	}
	if (row->partition_key.len > EVBUS_KEY_MAX_BYTES || row->event_key.len > EVBUS_KEY_MAX_BYTES)
		return err_set(err, EVBUS_DATA, 0, "a key has more than %u bytes", EVBUS_KEY_MAX_BYTES);
	if (!utf8_valid(row->id) || !utf8_valid(row->tenant_id) || !utf8_valid(row->event_type) ||
	    !utf8_valid(row->event_key) || !utf8_valid(row->partition_key))
		return err_set(err, EVBUS_DATA, 0, "the id, type, tenant or a key of the row is not valid UTF-8");
	return check_payload(outbox, row->payload, err);
}

/* Text of a member of the payload, where the row does not say it. */
static enum evbus_code text_or(struct evbus_slice given, struct evbus_slice member, const char *what, struct buf *room,
			       struct evbus_slice *text, struct evbus_err *err)
{
	*text = given;
	if (given.data)
		return EVBUS_OK;
	if (!member.data)
		return err_set(err, EVBUS_DATA, 0, "the event has no %s, and none was given", what);
	TRY(buf_reserve(room, member.len + 1, err));
	*text = (struct evbus_slice){ room->data, evbus_json_text(member, room->data, member.len) };
	return EVBUS_OK;
}

static enum evbus_code add(struct evbus_outbox *outbox, const struct evbus_outbox_row *row, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf id_room = { 0 }, type_room = { 0 };
	struct evbus_envelope envelope = { 0 };
	struct evbus_slice id, type = row->event_type;

	TRY(check_row(outbox, row, err));
	if ((!row->id.data || !row->event_type.data) && !outbox->wrap)
		TRY(evbus_envelope_read(row->payload, &envelope, err));
	TRY(text_or(row->id, envelope.event_id, "id", &id_room, &id, err));
	if (outbox_has(outbox, OUTBOX_TYPE))
		TRY(text_or(row->event_type, envelope.event_type, "type", &type_room, &type, err));
	return insert(outbox, row, id, type, err);
}

enum evbus_code evbus_outbox_add(struct evbus_outbox *outbox, const struct evbus_outbox_row *row, struct evbus_err *err)
{
	if (outbox->within) {
		TRY(bus_check(outbox->bus, err));
		return add(outbox, row, err);
	}
	TRY(ready_to_add(outbox, err));
	TRY(outbox_begin(outbox, err));
	return outbox_end(outbox, add(outbox, row, err), err);
}
