/* postgres_link.c: the connection to Postgres.
 *
 * libpq's own calls wait for as long as the kernel does, which with a server that is stopped is for ever. So nothing here
 * blocks: what is sent and what is read waits in poll(), and a server that is silent for longer than the time-out counts
 * as away. */
#include "store/postgres.h"
#include "store/server.h"

#include "base/os.h"
#include "base/percent.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define TIMEOUT_MS 10000
#define TIMEOUT_MAX_MS 3600000
#define SCHEMA "evbus"
#define NAME_MAX_BYTES 63u /* Postgres cuts longer ones off */
#define VERSION_MIN 140000
#define PAUSE_MIN_MS 20
#define PAUSE_MAX_MS 500

/* ---- the URL --------------------------------------------------------------------------------------------------- */

static enum evbus_code no_memory(struct evbus_err *err)
{
	return err_set(err, EVBUS_IO, ENOMEM, "cannot open a store in Postgres");
}

static char *copy_text(const char *text, size_t len)
{
	char *copy = os.realloc(NULL, len + 1);

	if (copy) {
		memcpy(copy, text, len);
		copy[len] = '\0';
	}
	return copy;
}

static enum evbus_code take_schema(struct pg *pg, const char *name, struct evbus_err *err)
{
	if (!*name || strlen(name) > NAME_MAX_BYTES)
		return err_set(err, EVBUS_CONFIG, 0, "the store '%s': schema='%s' is no name of 1 to %u bytes",
			       pg->shown, name, NAME_MAX_BYTES);
	free(pg->schema);
	pg->schema = copy_text(name, strlen(name));
	return pg->schema ? EVBUS_OK : no_memory(err);
}

static enum evbus_code take_timeout(struct pg *pg, const char *text, struct evbus_err *err)
{
	size_t digits = strspn(text, "0123456789");
	bool ms = !strcmp(text + digits, "ms");
	bool known = ms || !strcmp(text + digits, "s") || !text[digits];
	long number = digits && digits < 9 ? strtol(text, NULL, 10) : 0;

	if (!known || number < 1 || number > TIMEOUT_MAX_MS / (ms ? 1 : 1000))
		return err_set(err, EVBUS_CONFIG, 0,
			       "the store '%s': timeout='%s' is not a time from 1ms to 3600s, such as 10s or 500ms",
			       pg->shown, text);
	pg->timeout_ms = (int)number * (ms ? 1 : 1000);
	return EVBUS_OK;
}

/* *ours: it is not for libpq. */
static enum evbus_code take_option(struct pg *pg, const char *text, size_t len, bool *ours, struct evbus_err *err)
{
	CLEANUP(free_cleanup) char *option = copy_text(text, len);
	const char *value;

	if (!option)
		return no_memory(err);
	bool schema = !strncmp(option, "schema=", strlen("schema="));
	*ours = schema || !strncmp(option, "timeout=", strlen("timeout="));
	if (!*ours)
		return EVBUS_OK;
	value = strchr(option, '=') + 1;
	if (!percent_decode(option + (value - option)))
		return err_set(err, EVBUS_CONFIG, 0,
			       "the store '%s': an option has a '%%' that two hex digits do not follow", pg->shown);
	return schema ? take_schema(pg, value, err) : take_timeout(pg, value, err);
}

/* What is libpq's stays as it is written. */
static enum evbus_code take_options(struct pg *pg, struct evbus_err *err)
{
	char *to = strchr(pg->url, '?'), *at = to ? to + 1 : NULL;
	char before = '?';
	bool ours = false;

	while (at && *at) {
		size_t len = strcspn(at, "&");
		bool last = !at[len];
		TRY(take_option(pg, at, len, &ours, err));
		if (!ours) {
			*to++ = before;
			memmove(to, at, len);
			to += len;
			before = '&';
		}
		at += len + !last;
	}
	if (to)
		*to = '\0';
	return EVBUS_OK;
}

/* A part of a password, which libpq took for a port or for a host ("@name" is a socket), and would tell. */
static bool tells_password(const PQconninfoOption *options)
{
	for (const PQconninfoOption *option = options; option->keyword; option++) {
		const char *value = option->val ? option->val : "";
		if (!strcmp(option->keyword, "port") && value[strspn(value, "0123456789,")])
			return true;
		for (const char *at = value; !strcmp(option->keyword, "host") && (at = strchr(at, '@')); at++)
			if (at > value && at[-1] != ',')
				return true;
	}
	return false;
}

/* It has a password in it, or may have: its text is for messages only as far as it names no value. */
static enum evbus_code check_url(const struct pg *pg, struct evbus_err *err)
{
	static const char unknown[] = "invalid URI query parameter: ";
	char *why = NULL, option[64] = "";
	PQconninfoOption *options = PQconninfoParse(pg->url, &why);

	if (why && !strncmp(why, unknown, strlen(unknown)))
		snprintf(option, sizeof option, "%.*s", (int)strcspn(why + strlen(unknown), "\n"),
			 why + strlen(unknown));
	PQfreemem(why);
	if (option[0])
		return err_set(err, EVBUS_CONFIG, 0,
			       "the store '%s' has no option %s; there are schema, timeout, and those of libpq",
			       pg->shown, option);
	if (!options)
		return err_set(err, EVBUS_CONFIG, 0,
			       "the store '%s' cannot be read: write postgresql://HOST:PORT/DATABASE?OPTION=VALUE, and "
			       "%%xx for what is special",
			       pg->shown);
	bool leaks = tells_password(options);
	PQconninfoFree(options);
	const char *at = memchr(pg->url, '@', strcspn(pg->url, "?"));
	const char *slash = strchr(strstr(pg->url, "//") + 2, '/');
	if (leaks || (at && slash && slash < at))
		return err_set(
			err, EVBUS_CONFIG, 0,
			"the store '%s' cannot be read: in a user and a password, / is written %%2F and @ is %%40",
			pg->shown);
	return EVBUS_OK;
}

enum evbus_code pg_read_url(struct pg *pg, const char *url, struct evbus_err *err)
{
	pg->timeout_ms = TIMEOUT_MS;
	pg->url = copy_text(url, strlen(url));
	pg->shown = copy_text(url, strlen(url));
	if (!pg->url || !pg->shown)
		return no_memory(err);
	server_show(url, pg->shown);
	TRY(take_options(pg, err));
	if (!pg->guest && !pg->schema)
		TRY(take_schema(pg, SCHEMA, err));
	return check_url(pg, err);
}

/* ---- failures -------------------------------------------------------------------------------------------------- */

static bool is_class(const char *state, const char *class)
{
	return !strncmp(state, class, strlen(class));
}

/* By the SQLSTATE, of which the first two characters are the class; "" for what has none. */
static enum evbus_code code_of(const char *state)
{
	static const struct {
		const char *begin;
		enum evbus_code code;
	} codes[] = {
		{ "08", EVBUS_UNAVAILABLE },
		{ "57P", EVBUS_UNAVAILABLE },
		{ "53300", EVBUS_UNAVAILABLE },
		{ "55P03", EVBUS_AGAIN },
		{ "57014", EVBUS_AGAIN },
		{ "40", EVBUS_AGAIN },
		{ "28", EVBUS_PERMISSION },
		{ "42501", EVBUS_PERMISSION },
		{ "25006", EVBUS_PERMISSION },
		{ "23", EVBUS_CONFLICT },
		{ "22", EVBUS_DATA },
		{ "54", EVBUS_DATA },
		{ "42", EVBUS_CONFIG },
		{ "3", EVBUS_CONFIG },
		{ "0A", EVBUS_CONFIG },
		{ "26", EVBUS_CONFIG },
		{ "F0", EVBUS_CONFIG },
		{ "53", EVBUS_IO },
		{ "58", EVBUS_IO },
		{ "XX", EVBUS_IO },
	};

	for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
		if (is_class(state, codes[i].begin))
			return codes[i].code;
	return EVBUS_BUG;
}

enum evbus_code pg_failed(const struct pg *pg, const PGresult *result, struct evbus_err *err)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	enum evbus_code code = state ? code_of(state) : EVBUS_BUG;

	state = state ? state : "";
	text = text ? text : "no reason was given";
	if (!strcmp(state, "55P03"))
		return err_set(err, code, 0, "the database '%s' is busy: others kept us waiting: try again", pg->shown);
	if (is_class(state, "25006"))
		return err_set(err, code, 0,
			       "cannot write the database '%s': %s: is it a standby? (target_session_attrs=read-write "
			       "finds the primary)",
			       pg->shown, text);
	if (code == EVBUS_CONFLICT)
		return err_set(err, code, 0, "the database '%s' refuses the row: %s", pg->shown, text);
	if (is_class(state, "42") && code == EVBUS_CONFIG)
		return err_set(err, code, 0, "the tables of the database '%s' are not as they must be: %s", pg->shown,
			       text);
	return err_set(err, code, 0, "the database '%s' fails: %s", pg->shown, text);
}

/* libpq's own text, of which the first line says it; with PQERRORS_VERBOSE a server's has its SQLSTATE in it:
 * "FATAL:  28P01: password authentication failed". */
static void read_reason(const struct pg *pg, char state[6], char *text, size_t size)
{
	const char *message = pg->conn ? PQerrorMessage(pg->conn) : "";
	size_t len = strcspn(message, "\n");
	const char *colon = memmem(message, len, ":  ", 3);

	state[0] = '\0';
	snprintf(text, size, "%.*s", (int)len, message);
	if (!colon || message + len - colon < 10 || colon[8] != ':')
		return;
	memcpy(state, colon + 3, 5);
	state[5] = '\0';
	snprintf(text, size, "%.*s", (int)(message + len - colon - 10), colon + 10);
}

static enum evbus_code unreachable(const struct pg *pg, struct evbus_err *err)
{
	char state[6], reason[256];

	read_reason(pg, state, reason, sizeof reason);
	enum evbus_code code = state[0] ? code_of(state) : EVBUS_UNAVAILABLE;
	if (pg->conn && PQconnectionNeedsPassword(pg->conn))
		return err_set(
			err, EVBUS_PERMISSION, 0,
			"cannot connect to '%s': it wants a password: put it into a passfile (~/.pgpass), a service "
			"file, or PGPASSWORD",
			pg->shown);
	return err_set(err, code == EVBUS_BUG ? EVBUS_UNAVAILABLE : code, 0, "cannot connect to '%s': %s", pg->shown,
		       reason[0] ? reason : "no reason was given");
}

static enum evbus_code silent(struct pg *pg, struct evbus_err *err)
{
	pg->silent = true;
	pg_disconnect(pg);
	return err_set(err, EVBUS_UNAVAILABLE, 0, "the server of '%s' gave no answer for %d ms", pg->shown,
		       pg->timeout_ms);
}

enum evbus_code pg_lost(struct pg *pg, struct evbus_err *err)
{
	char state[6], reason[256];

	read_reason(pg, state, reason, sizeof reason);
	pg_disconnect(pg);
	return err_set(err, EVBUS_UNAVAILABLE, 0, "the connection to '%s' was lost: %s", pg->shown,
		       reason[0] ? reason : "no reason was given");
}

/* ---- waiting --------------------------------------------------------------------------------------------------- */

/* false: the time is over. */
static bool wait_for(const struct pg *pg, short events, int64_t deadline_us)
{
	struct pollfd fd = { .fd = PQsocket(pg->conn), .events = events };

	for (;;) {
		int64_t left_us = deadline_us - os_monotonic_us();
		if (left_us <= 0)
			return false;
		int n = poll(&fd, 1, (int)((left_us + 999) / 1000));
		if (n > 0 || (n < 0 && errno != EINTR))
			return true;
	}
}

enum evbus_code pg_result(struct pg *pg, PGresult **result, struct evbus_err *err)
{
	int64_t deadline_us = os_monotonic_us() + (int64_t)pg->timeout_ms * 1000;
	int unsent;

	*result = NULL;
	/* What the server has still to say is read before a failure to send counts. */
	while ((unsent = PQflush(pg->conn)), PQisBusy(pg->conn)) {
		if (!wait_for(pg, unsent > 0 ? POLLIN | POLLOUT : POLLIN, deadline_us))
			return silent(pg, err);
		if (!PQconsumeInput(pg->conn))
			return pg_lost(pg, err);
	}
	*result = PQgetResult(pg->conn);
	if (PQstatus(pg->conn) == CONNECTION_OK)
		return EVBUS_OK;
	PQclear(*result);
	*result = NULL;
	return pg_lost(pg, err);
}

/* ---- connecting ------------------------------------------------------------------------------------------------ */

static void say_nothing(void *context, const PGresult *result)
{
	(void)context;
	(void)result;
}

/* Whose connection it is, for those that look into pg_stat_activity, and for those that a claim keeps out. */
static void set_name(char name[NAME_MAX_BYTES + 1])
{
	char host[40];

	if (gethostname(host, sizeof host))
		snprintf(host, sizeof host, "?");
	host[sizeof host - 1] = '\0';
	snprintf(name, NAME_MAX_BYTES + 1, "evbus %s %d", host, (int)getpid());
}

static enum evbus_code handshake(struct pg *pg, int64_t deadline_us, struct evbus_err *err)
{
	PostgresPollingStatusType next = PGRES_POLLING_WRITING;

	while (next != PGRES_POLLING_OK) {
		if (next == PGRES_POLLING_FAILED)
			return unreachable(pg, err);
		if (!wait_for(pg, next == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline_us))
			return silent(pg, err);
		next = PQconnectPoll(pg->conn);
	}
	return EVBUS_OK;
}

/* Of the session, all of them. Keepalives are the server's: a machine that has vanished is not to hold a claim for hours.
 * Durable is what COMMIT answers, whatever the database has set; "remote_apply" is more than "on". */
static const char settle[] =
	"SELECT current_setting('server_encoding'), "
	"set_config('search_path', COALESCE(quote_ident($1), current_setting('search_path')), false), "
	"set_config('lock_timeout', $2, false), "
	"set_config('bytea_output', 'hex', false), "
	"set_config('datestyle', 'ISO', false), "
	"set_config('timezone', 'UTC', false), "
	"set_config('idle_session_timeout', '0', false), "
	"set_config('tcp_keepalives_idle', '20', false), "
	"set_config('tcp_keepalives_interval', '5', false), "
	"set_config('tcp_keepalives_count', '4', false), "
	"set_config('synchronous_commit', CASE current_setting('synchronous_commit') "
	"WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false)";

static enum evbus_code check_settled(const struct pg *pg, const PGresult *result, struct evbus_err *err)
{
	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		return pg_failed(pg, result, err);
	if (strcmp(PQgetvalue(result, 0, 0), "UTF8") != 0)
		return err_set(err, EVBUS_CONFIG, 0, "the database '%s' has the encoding %s: evbus needs one with UTF8",
			       pg->shown, PQgetvalue(result, 0, 0));
	return EVBUS_OK;
}

static enum evbus_code settle_session(struct pg *pg, struct evbus_err *err)
{
	int wait_ms = pg->timeout_ms / 2 < STORE_WAIT_MS ? (pg->timeout_ms + 1) / 2 : STORE_WAIT_MS;
	char wait[16];
	const char *values[] = { pg->schema, wait };
	PGresult *result;

	snprintf(wait, sizeof wait, "%d", wait_ms);
	if (PQserverVersion(pg->conn) < VERSION_MIN)
		return err_set(err, EVBUS_CONFIG, 0, "the server of '%s' has version %d: evbus needs Postgres %d",
			       pg->shown, PQserverVersion(pg->conn) / 10000, VERSION_MIN / 10000);
	if (!PQsendQueryParams(pg->conn, settle, 2, NULL, values, NULL, NULL, 0))
		return pg_lost(pg, err);
	TRY(pg_result(pg, &result, err));
	enum evbus_code code = check_settled(pg, result, err);
	while (result && !code) {
		PQclear(result);
		TRY(pg_result(pg, &result, err));
	}
	PQclear(result);
	return code;
}

/* Of several hosts one that has vanished is not to take the time of the others. */
static void share_time(const struct pg *pg, char share[16])
{
	int hosts = 1;

	for (const char *at = pg->url; (at = strchr(at, ',')); at++)
		hosts++;
	snprintf(share, 16, "%d", pg->timeout_ms / hosts);
}

static enum evbus_code try_connect(struct pg *pg, int64_t deadline_us, struct evbus_err *err)
{
	char name[NAME_MAX_BYTES + 1], share[16];
	/* Of two the last one counts. */
	const char *const names[] = { "tcp_user_timeout", "dbname",
				      pg->guest ? "fallback_application_name" : "application_name", "client_encoding",
				      NULL };
	const char *const values[] = { strchr(pg->url, ',') ? share : NULL, pg->url, name, "UTF8", NULL };

	set_name(name);
	share_time(pg, share);
	pg->silent = false;
	pg->conn = PQconnectStartParams(names, values, 1);
	if (!pg->conn)
		return no_memory(err);
	PQsetNoticeReceiver(pg->conn, say_nothing, NULL);
	PQsetErrorVerbosity(pg->conn, PQERRORS_VERBOSE);
	TRY(PQstatus(pg->conn) == CONNECTION_BAD ? unreachable(pg, err) : handshake(pg, deadline_us, err));
	if (PQsetnonblocking(pg->conn, 1))
		return pg_lost(pg, err);
	TRY(settle_session(pg, err));
	if (!PQenterPipelineMode(pg->conn))
		return pg_lost(pg, err);
	pg->connections++;
	return EVBUS_OK;
}

enum evbus_code pg_connect(struct pg *pg, bool patient, int64_t deadline_us, struct evbus_err *err)
{
	for (int pause_ms = PAUSE_MIN_MS;; pause_ms = 2 * pause_ms < PAUSE_MAX_MS ? 2 * pause_ms : PAUSE_MAX_MS) {
		enum evbus_code code = try_connect(pg, deadline_us, err);
		if (!code)
			return EVBUS_OK;
		pg_disconnect(pg);
		bool late = os_monotonic_us() + (int64_t)pause_ms * 1000 >= deadline_us;
		if (code != EVBUS_UNAVAILABLE || !patient || late)
			return code;
		const struct timespec pause = { .tv_nsec = pause_ms * 1000000L };
		nanosleep(&pause, NULL);
	}
}

void pg_disconnect(struct pg *pg)
{
	for (size_t i = 0; i < PG_KEPT_MAX; i++)
		free(pg->kept[i].text);
	memset(pg->kept, 0, sizeof pg->kept);
	PQfinish(pg->conn);
	pg->conn = NULL;
	pg->flight.count = 0;
}
