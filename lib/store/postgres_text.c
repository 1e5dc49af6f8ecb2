/* postgres_text.c: statements, written for SQLite and Postgres both, as Postgres has them. */
#include "store/postgres.h"

#include "base/os.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

/* Texts compare as bytes, as they do in SQLite: the order of the server's language is another one. */
static const struct {
	const char *word, *type;
} types[] = {
	{ "TEXT", "TEXT COLLATE \"C\"" },
	{ "BLOB", "BYTEA" },
};

static bool is_of_word(char c)
{
	return isalnum((unsigned char)c) || c == '_';
}

/* The end of what stands in quotes from there on; a quote in it is doubled, which makes two of them in a row. */
static const char *skip_quoted(const char *at)
{
	const char *end = strchr(at + 1, *at);

	return end ? end + 1 : at + strlen(at);
}

static CHECKED enum evbus_code add_word(struct buf *out, const char *word, size_t len, bool types_too,
					struct evbus_err *err)
{
	for (size_t i = 0; types_too && i < sizeof types / sizeof *types; i++)
		if (strlen(types[i].word) == len && !memcmp(types[i].word, word, len))
			return buf_add(out, types[i].type, strlen(types[i].type), err);
	return buf_add(out, word, len, err);
}

/* The next piece: what is in quotes, a word, a parameter, or one character. Returns its end. */
static const char *piece_end(const char *at)
{
	if (*at == '\'' || *at == '"')
		return skip_quoted(at);
	if (!is_of_word(*at))
		return at + 1;
	while (is_of_word(*at))
		at++;
	return at;
}

enum evbus_code pg_translate(const char *sql, bool ours, char **text, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf out = { 0 };
	bool types_too = ours && !strncmp(sql, "CREATE TABLE ", strlen("CREATE TABLE "));
	unsigned count = 0;
	char number[16];

	for (const char *at = sql, *end; *at; at = end) {
		end = piece_end(at);
		if (*at == '?') {
			int n = snprintf(number, sizeof number, "$%u", ++count);
			TRY(buf_add(&out, number, (size_t)n, err));
		} else {
			TRY(add_word(&out, at, (size_t)(end - at), types_too, err));
		}
	}
	TRY(buf_add(&out, "", 1, err));
	GIVE(text, out.data);
	return EVBUS_OK;
}
