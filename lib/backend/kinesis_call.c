/* kinesis_call.c: requests to the service, signed by libcurl (CURLOPT_AWS_SIGV4), and their answers. */
#include "backend/kinesis.h"

#include "event/json.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#define TARGET "Kinesis_20131202."
#define ANSWER_MAX_BYTES (64u * 1024 * 1024) /* 10 MiB of records, in base64 */
#define BACK_OFF_MS 50
#define BACK_OFF_MAX_MS 2000
#define SLICE_MS 100

/* ---- JSON ------------------------------------------------------------------------------------------------------ */

enum evbus_code json_put(struct buf *out, struct evbus_err *err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	int len = vsnprintf(NULL, 0, format, args);
	va_end(args);
	TRY(buf_reserve(out, (size_t)len + 1, err));
	va_start(args, format);
	vsnprintf(out->data + out->len, (size_t)len + 1, format, args);
	va_end(args);
	out->len += (size_t)len;
	return EVBUS_OK;
}

enum evbus_code json_base64(struct buf *out, struct evbus_slice bytes, struct evbus_err *err)
{
	TRY(buf_reserve(out, EVBUS_BASE64_LEN(bytes.len) + 3, err));
	out->data[out->len++] = '"';
	out->len += evbus_base64_encode(bytes, out->data + out->len);
	out->data[out->len++] = '"';
	return EVBUS_OK;
}

struct evbus_slice json_member(struct evbus_slice object, const char *name)
{
	struct json_want want = { .name = { name, strlen(name) } };
	struct json_fault fault;

	if (!object.data || !json_scan(object, &want, 1, &fault) || !want.value.data || want.value.data[0] == 'n')
		return (struct evbus_slice){ NULL, 0 };
	return want.value;
}

bool json_next(struct evbus_slice *at, struct evbus_slice *element)
{
	while (at->len && strchr(" \t\r\n[,", *at->data)) {
		at->data++;
		at->len--;
	}
	size_t len = at->len && *at->data != ']' ? json_value_len(*at) : 0;
	*element = (struct evbus_slice){ at->data, len };
	at->data += len;
	at->len -= len;
	return len > 0;
}

struct evbus_slice json_string(struct evbus_slice value, char *room)
{
	if (!value.data || value.data[0] != '"')
		return (struct evbus_slice){ NULL, 0 };
	return (struct evbus_slice){ room, evbus_json_text(value, room, value.len) };
}

int64_t json_micros(struct evbus_slice value)
{
	int64_t digits = 0, shift = 6, exponent = 0;
	bool fraction = false;
	size_t i = 0;

	for (; i < value.len && (value.data[i] == '.' || (value.data[i] >= '0' && value.data[i] <= '9')); i++) {
		if (value.data[i] == '.') {
			fraction = true;
		} else if (digits < INT64_MAX / 100) {
			digits = digits * 10 + (value.data[i] - '0');
			shift -= fraction;
		} else {
			shift += !fraction;
		}
	}
	for (i += i < value.len && (value.data[i] | 32) == 'e'; i < value.len && exponent < 99; i++)
		if (value.data[i] >= '0' && value.data[i] <= '9')
			exponent = exponent * 10 + (value.data[i] - '0');
	shift += memchr(value.data, '-', value.len) ? -exponent : exponent;
	for (; shift > 0 && digits < INT64_MAX / 10; shift--)
		digits *= 10;
	for (; shift < 0 && digits; shift++)
		digits /= 10;
	return digits;
}

/* ---- what went wrong ------------------------------------------------------------------------------------------- */

enum outcome {
	DONE,
	FAILED, /* and will again */
	TOO_OFTEN, /* nothing was done */
	UNREACHED, /* nothing was sent */
	UNKNOWN, /* what became of it */
	IDENTIFIED, /* not as somebody who is known (any more) */
	GAVE_UP,
};

struct failure {
	const char *exception;
	enum outcome outcome;
	enum evbus_code code;
};

/* "FullNameException", without what the service writes before it. */
static const struct failure *find_failure(const char *exception)
{
	static const struct failure failures[] = {
		{ "ResourceNotFoundException", FAILED, EVBUS_NONE },
		{ "ResourceInUseException", FAILED, EVBUS_CONFLICT },
		{ "InvalidArgumentException", FAILED, EVBUS_DATA },
		{ "ValidationException", FAILED, EVBUS_DATA },
		{ "SerializationException", FAILED, EVBUS_DATA },
		{ "ExpiredIteratorException", FAILED, EVBUS_DATA },
		{ "ProvisionedThroughputExceededException", TOO_OFTEN, EVBUS_UNAVAILABLE },
		{ "LimitExceededException", TOO_OFTEN, EVBUS_UNAVAILABLE },
		{ "ThrottlingException", TOO_OFTEN, EVBUS_UNAVAILABLE },
		{ "RequestLimitExceeded", TOO_OFTEN, EVBUS_UNAVAILABLE },
		{ "KMSThrottlingException", TOO_OFTEN, EVBUS_UNAVAILABLE },
		{ "ServiceUnavailable", TOO_OFTEN, EVBUS_UNAVAILABLE },
		{ "ServiceUnavailableException", TOO_OFTEN, EVBUS_UNAVAILABLE },
		{ "AccessDeniedException", FAILED, EVBUS_PERMISSION },
		{ "KMSAccessDeniedException", FAILED, EVBUS_PERMISSION },
		{ "ExpiredTokenException", IDENTIFIED, EVBUS_PERMISSION },
		{ "UnrecognizedClientException", IDENTIFIED, EVBUS_PERMISSION },
		{ "InvalidSignatureException", FAILED, EVBUS_PERMISSION },
		{ "IncompleteSignatureException", FAILED, EVBUS_PERMISSION },
		{ "MissingAuthenticationTokenException", FAILED, EVBUS_PERMISSION },
		{ "UnknownOperationException", FAILED, EVBUS_CONFIG },
	};

	for (size_t i = 0; i < sizeof failures / sizeof *failures; i++)
		if (!strcmp(failures[i].exception, exception))
			return &failures[i];
	return NULL;
}

/* Cut to size, and control characters made blanks. */
static void keep_text(struct evbus_slice value, char *text, size_t size)
{
	size_t len = value.len < size ? value.len : size - 1;

	if (value.len)
		memcpy(text, value.data, len);
	text[len] = '\0';
	for (char *at = text; *at; at++)
		*at = (unsigned char)*at < ' ' ? ' ' : *at;
}

static void keep_exception(struct link *link, struct evbus_slice answer, long status)
{
	char room[1024];
	struct evbus_slice type = json_member(answer, "__type"), said = json_member(answer, "message");

	said = said.data ? said : json_member(answer, "Message");
	type = type.len <= sizeof room ? json_string(type, room) : (struct evbus_slice){ NULL, 0 };
	const char *hash = type.data ? memchr(type.data, '#', type.len) : NULL;
	if (hash)
		type = (struct evbus_slice){ hash + 1, type.len - (size_t)(hash + 1 - type.data) };
	keep_text(type, link->exception, sizeof link->exception);
	said = said.len <= sizeof room ? json_string(said, room) : SLICE("it says too much");
	keep_text(said, link->text, sizeof link->text);
	if (!link->exception[0])
		snprintf(link->exception, sizeof link->exception, "HTTP status %ld", status);
}

/* ---- one request ----------------------------------------------------------------------------------------------- */

static size_t take_answer(char *data, size_t size, size_t count, void *context)
{
	struct buf *answer = context;
	size_t len = size * count;

	if (answer->len + len > ANSWER_MAX_BYTES || buf_add(answer, data, len, NULL) != EVBUS_OK)
		return 0;
	return len;
}

/* Asks the waiter about every 100 ms, once it took a second. */
static int ask_waiter(void *context, curl_off_t down, curl_off_t down_now, curl_off_t up, curl_off_t up_now)
{
	struct link *link = context;

	(void)down, (void)down_now, (void)up, (void)up_now;
	return wait_goes_on(&link->wait) ? 0 : 1;
}

static bool add_header(struct curl_slist **headers, const char *name, const char *value)
{
	CLEANUP(buf_release) struct buf text = { 0 };

	if (json_put(&text, NULL, "%s: %s", name, value) != EVBUS_OK)
		return false;
	struct curl_slist *longer = curl_slist_append(*headers, text.data);
	if (longer)
		*headers = longer;
	return longer != NULL;
}

/* The port stands in the host's header, and some libcurls sign it without. */
static struct curl_slist *make_headers(const struct link *link, const char *action)
{
	struct kinesis *kinesis = link->kinesis;
	struct curl_slist *headers = NULL;
	char target[64];

	snprintf(target, sizeof target, TARGET "%s", action);
	bool made = add_header(&headers, "Host", strstr(kinesis->endpoint, "://") + 3) &&
		    add_header(&headers, "Content-Type", "application/x-amz-json-1.1") &&
		    add_header(&headers, "X-Amz-Target", target);
	pthread_mutex_lock(&kinesis->mutex);
	if (made && kinesis->who.token)
		made = add_header(&headers, "X-Amz-Security-Token", kinesis->who.token);
	curl_easy_setopt(link->curl, CURLOPT_USERNAME, kinesis->who.key_id);
	curl_easy_setopt(link->curl, CURLOPT_PASSWORD, kinesis->who.secret);
	pthread_mutex_unlock(&kinesis->mutex);
	if (made)
		return headers;
	curl_slist_free_all(headers);
	return NULL;
}

static enum outcome judge_curl(struct link *link, CURLcode status)
{
	snprintf(link->text, sizeof link->text, "%s", curl_easy_strerror(status));
	snprintf(link->exception, sizeof link->exception, "no answer");
	switch (status) {
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_CONNECT:
	case CURLE_SSL_CONNECT_ERROR:
		return UNREACHED;
	case CURLE_ABORTED_BY_CALLBACK:
		return GAVE_UP;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_OUT_OF_MEMORY:
		return FAILED;
	default:
		return UNKNOWN;
	}
}

static enum outcome ask(struct link *link, const char *action, const struct buf *request, int64_t left_ms)
{
	struct curl_slist *headers = make_headers(link, action);
	long status = 0;

	if (!headers)
		return judge_curl(link, CURLE_OUT_OF_MEMORY);
	link->answer.len = 0;
	curl_easy_setopt(link->curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(link->curl, CURLOPT_POSTFIELDS, request->data);
	curl_easy_setopt(link->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->len);
	curl_easy_setopt(link->curl, CURLOPT_TIMEOUT_MS, (long)left_ms);
	curl_easy_setopt(link->curl, CURLOPT_CONNECTTIMEOUT_MS, (long)left_ms);
	CURLcode result = curl_easy_perform(link->curl);
	curl_easy_getinfo(link->curl, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_setopt(link->curl, CURLOPT_HTTPHEADER, NULL);
	curl_slist_free_all(headers);
	if (result != CURLE_OK)
		return judge_curl(link, result);
	if (status == 200)
		return DONE;
	keep_exception(link, (struct evbus_slice){ link->answer.data, link->answer.len }, status);
	const struct failure *failure = find_failure(link->exception);
	return failure ? failure->outcome : status == 503 ? TOO_OFTEN : status >= 500 ? UNKNOWN : FAILED;
}

/* ---- over and over --------------------------------------------------------------------------------------------- */

bool link_back_off(struct link *link, unsigned n)
{
	int64_t most_ms = n < 6 ? BACK_OFF_MS << n : BACK_OFF_MAX_MS;
	uint32_t chance = 0;

	if (os.getrandom(&chance, sizeof chance, 0) != (ssize_t)sizeof chance)
		chance = UINT32_MAX / 2;
	int64_t left_ms = 1 + (int64_t)((uint64_t)chance * (uint64_t)most_ms >> 32);
	for (; left_ms > 0; left_ms -= SLICE_MS) {
		int64_t slice_ms = left_ms < SLICE_MS ? left_ms : SLICE_MS;
		if (nanosleep(&(struct timespec){ .tv_nsec = slice_ms * 1000000 }, NULL) && errno == EINTR &&
		    !wait_has_end(link->waiter))
			return false;
		if (!wait_goes_on(&link->wait))
			return false;
	}
	return true;
}

static enum evbus_code explain(const struct link *link, enum outcome outcome, const char *doing, struct evbus_err *err)
{
	const struct kinesis *kinesis = link->kinesis;
	const struct failure *failure = find_failure(link->exception);
	enum evbus_code code = failure ? failure->code : outcome == FAILED ? EVBUS_CONFIG : EVBUS_UNAVAILABLE;

	if (outcome == GAVE_UP)
		return err_set(err, EVBUS_AGAIN, EINTR, "stopped while it was to %s", doing);
	return err_set(err, code, 0, "cannot %s: '%s' (%s): %s%s%s", doing, kinesis->url.shown, kinesis->endpoint,
		       link->exception, link->text[0] ? ": " : "", link->text);
}

/* Credentials of a file that somebody renews: once more with those that stand there now. */
static bool identify_again(struct kinesis *kinesis)
{
	struct who who = { 0 };

	if (who_find(&who, NULL) != EVBUS_OK)
		return false;
	pthread_mutex_lock(&kinesis->mutex);
	bool others = who.key_id &&
		      (strcmp(who.key_id, kinesis->who.key_id) != 0 || strcmp(who.secret, kinesis->who.secret) != 0 ||
		       strcmp(who.token ? who.token : "", kinesis->who.token ? kinesis->who.token : "") != 0);
	struct who old = kinesis->who;
	if (others) {
		kinesis->who = who;
		who = old;
	}
	pthread_mutex_unlock(&kinesis->mutex);
	who_release(&who);
	return others;
}

static bool may_try_again(const struct link *link, enum call_kind kind, enum outcome outcome)
{
	switch (outcome) {
	case TOO_OFTEN:
	case UNREACHED:
		return true;
	case UNKNOWN:
		return kind == CALL_ASKS;
	case IDENTIFIED:
		return identify_again(link->kinesis);
	default:
		return false;
	}
}

static enum outcome ask_in_time(struct link *link, enum call_kind kind, const char *action, const struct buf *request)
{
	int64_t end_us = os_monotonic_us() + (int64_t)link->kinesis->timeout_ms * 1000;

	for (unsigned n = 0;; n++) {
		int64_t left_ms = (end_us - os_monotonic_us() + 999) / 1000;
		enum outcome outcome = ask(link, action, request, left_ms > 0 ? left_ms : 1);
		if (outcome == DONE || !may_try_again(link, kind, outcome) || os_monotonic_us() >= end_us)
			return outcome;
		if (!link_back_off(link, n))
			return GAVE_UP;
		if (os_monotonic_us() >= end_us)
			return outcome;
	}
}

enum evbus_code link_call(struct link *link, enum call_kind kind, const char *action, const struct buf *request,
			  struct evbus_slice *answer, struct evbus_err *err, const char *doing, ...)
{
	char what[320];
	va_list args;

	va_start(args, doing);
	vsnprintf(what, sizeof what, doing, args);
	va_end(args);
	link->wait = (struct wait){ .waiter = link->waiter };
	link->exception[0] = link->text[0] = '\0';
	enum outcome outcome = ask_in_time(link, kind, action, request);
	if (outcome != DONE)
		return explain(link, outcome, what, err);
	*answer = (struct evbus_slice){ link->answer.data, link->answer.len };
	return EVBUS_OK;
}

/* ---- open and close -------------------------------------------------------------------------------------------- */

static enum evbus_code set_up(struct link *link, struct evbus_err *err)
{
	struct kinesis *kinesis = link->kinesis;
	char signature[128];

	snprintf(signature, sizeof signature, "aws:amz:%.80s:kinesis", kinesis->region);
	link->curl = curl_easy_init();
	if (!link->curl)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open the bus '%s'", kinesis->url.shown);
	CURLcode signs = curl_easy_setopt(link->curl, CURLOPT_AWS_SIGV4, signature);
	curl_easy_setopt(link->curl, CURLOPT_URL, kinesis->endpoint);
	curl_easy_setopt(link->curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(link->curl, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(link->curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(link->curl, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(link->curl, CURLOPT_WRITEFUNCTION, take_answer);
	curl_easy_setopt(link->curl, CURLOPT_WRITEDATA, &link->answer);
	curl_easy_setopt(link->curl, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(link->curl, CURLOPT_XFERINFOFUNCTION, ask_waiter);
	curl_easy_setopt(link->curl, CURLOPT_XFERINFODATA, link);
	if (kinesis->tls_ca)
		curl_easy_setopt(link->curl, CURLOPT_CAINFO, kinesis->tls_ca);
	if (signs == CURLE_OK)
		return EVBUS_OK;
	return err_set(err, EVBUS_CONFIG, 0,
		       "this libcurl cannot sign requests: one of version 7.75 or newer is needed");
}

enum evbus_code link_open(struct kinesis *kinesis, struct link **link, struct evbus_err *err)
{
	struct link *opened = os.realloc(NULL, sizeof *opened);

	if (!opened)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open the bus '%s'", kinesis->url.shown);
	*opened = (struct link){ .kinesis = kinesis };
	enum evbus_code code = set_up(opened, err);
	if (code == EVBUS_OK)
		*link = opened;
	else
		link_close(opened);
	return code;
}

void link_close(struct link *link)
{
	if (!link)
		return;
	/* To end a connection is to speak by it. */
	if (kinesis_is_here(link->kinesis))
		curl_easy_cleanup(link->curl);
	buf_release(&link->answer);
	free(link);
}
