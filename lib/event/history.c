/* history.c: the attempts that were made for an event. */
#include "event/history.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

static const char *const names[EVBUS_REASONS] = {
	[EVBUS_REASON_REFUSED] = "refused",   [EVBUS_REASON_RETRIES] = "retries",
	[EVBUS_REASON_TIMEOUT] = "timeout",   [EVBUS_REASON_SIGNAL] = "signal",
	[EVBUS_REASON_NOT_JSON] = "not_json", [EVBUS_REASON_TOO_LARGE] = "too_large",
	[EVBUS_REASON_BACKEND] = "backend",
};

const char *evbus_reason_name(enum evbus_reason reason)
{
	return (unsigned)reason < EVBUS_REASONS ? names[reason] : "unknown";
}

bool reason_parse(struct evbus_slice name, enum evbus_reason *reason)
{
	for (unsigned i = 0; i < EVBUS_REASONS; i++)
		if (name.len == strlen(names[i]) && !memcmp(name.data, names[i], name.len)) {
			*reason = (enum evbus_reason)i;
			return true;
		}
	return false;
}

/* The length of the UTF-8 character (RFC 3629) at the beginning, 0 where there is none. */
static size_t character_len(struct evbus_slice text)
{
	for (size_t len = 1; len <= 4 && len <= text.len; len++)
		if (text.data[0] && utf8_valid((struct evbus_slice){ text.data, len }))
			return len;
	return 0;
}

enum evbus_code history_error(struct buf *out, struct evbus_slice error, size_t most, struct evbus_err *err)
{
	bool cut = error.len > most;

	if (cut)
		error = (struct evbus_slice){ error.data + (error.len - most), most };
	/* What was cut within a character, which has at most three bytes more, begins with the next. */
	for (int i = 0; cut && i < 3 && error.len && ((unsigned char)error.data[0] & 0xc0) == 0x80; i++)
		error = (struct evbus_slice){ error.data + 1, error.len - 1 };
	while (error.len) {
		size_t len = character_len(error);
		TRY(len ? buf_add(out, error.data, len, err) : buf_add(out, "\xef\xbf\xbd", 3, err));
		len = len ? len : 1;
		error = (struct evbus_slice){ error.data + len, error.len - len };
	}
	return EVBUS_OK;
}

/* What follows an entry: behind a comma, and blanks where somebody has written it anew (jsonb). */
static struct evbus_slice behind(struct evbus_slice entries, size_t len)
{
	while (len < entries.len && memchr(", \t\r\n", entries.data[len], 5))
		len++;
	return (struct evbus_slice){ entries.data + len, entries.len - len };
}

/* Where the entries lie within "[…]", and how many there are. */
static struct evbus_slice entries_of(struct evbus_slice history, size_t *count)
{
	*count = 0;
	if (history.len < 4 || history.data[0] != '[')
		return (struct evbus_slice){ "", 0 };
	struct evbus_slice inside = behind((struct evbus_slice){ history.data + 1, history.len - 2 }, 0);
	for (struct evbus_slice left = inside; left.len;) {
		size_t len = json_value_len(left);
		if (!len)
			break;
		(*count)++;
		left = behind(left, len);
	}
	return inside;
}

static struct evbus_slice without_first(struct evbus_slice entries)
{
	return behind(entries, json_value_len(entries));
}

enum evbus_code history_add(struct buf *out, struct evbus_slice history, int64_t attempt, int64_t at_us,
			    enum evbus_reason reason, struct evbus_slice error, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf text = { 0 };
	char head[160], at[28];
	size_t count;
	struct evbus_slice entries = entries_of(history, &count);

	for (; count >= HISTORY_MAX; count--)
		entries = without_first(entries);
	evbus_time_format(at_us, at);
	int n = snprintf(head, sizeof head, "%s{\"attempt\":%lld,\"at\":\"%s\",\"reason\":\"%s\",\"error\":",
			 count ? "," : "", (long long)attempt, at, evbus_reason_name(reason));
	TRY(history_error(&text, error, HISTORY_ERROR_MAX_BYTES, err));
	out->len = 0;
	TRY(buf_add(out, "[", 1, err));
	TRY(buf_add(out, entries.data, entries.len, err));
	TRY(buf_add(out, head, (size_t)n, err));
	TRY(json_quote(out, (struct evbus_slice){ text.data ? text.data : "", text.len }, err));
	return buf_add(out, "}]", 2, err);
}

enum evbus_code history_join(struct buf *out, struct evbus_slice first, struct evbus_slice second,
			     struct evbus_err *err)
{
	size_t count, more;
	struct evbus_slice entries = entries_of(first, &count), others = entries_of(second, &more);

	for (; count && count + more > HISTORY_MAX; count--)
		entries = without_first(entries);
	for (; more > HISTORY_MAX; more--)
		others = without_first(others);
	out->len = 0;
	TRY(buf_add(out, "[", 1, err));
	TRY(buf_add(out, entries.data, entries.len, err));
	TRY(buf_add(out, ",", count && more ? 1 : 0, err));
	TRY(buf_add(out, others.data, others.len, err));
	return buf_add(out, "]", 1, err);
}
