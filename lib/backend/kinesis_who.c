/* kinesis_who.c: whose requests they are: what the environment says, or a profile of the files that AWS programs share.
 *
 * ~/.aws/credentials has [NAME], ~/.aws/config has [profile NAME], or [default]; behind it stand lines KEY = VALUE. */
#include "backend/kinesis.h"

#include <errno.h>

#define FILE_MAX_BYTES (1024u * 1024)
#define PATH_ROOM 4096u

/* Where each of them is found. */
struct wanted {
	const char *variable, *name;
	size_t at; /* in found.text, behind which the NUL stands; SIZE_MAX: nowhere yet */
};

enum { KEY_ID, SECRET, TOKEN, REGION, WANTED };

struct found {
	struct buf text;
	bool has_profile; /* a file has a section of that name */
	struct wanted wanted[WANTED];
};

static const char *variable(const char *name)
{
	const char *value = secure_getenv(name);

	return value && *value ? value : NULL;
}

static enum evbus_code keep(struct found *found, size_t which, struct evbus_slice value, struct evbus_err *err)
{
	if (found->wanted[which].at != SIZE_MAX || !value.len)
		return EVBUS_OK;
	found->wanted[which].at = found->text.len;
	TRY(buf_add(&found->text, value.data, value.len, err));
	return buf_add(&found->text, "", 1, err);
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

static struct evbus_slice trimmed(struct evbus_slice text)
{
	while (text.len && strchr(" \t\r", text.data[text.len - 1]))
		text.len--;
	while (text.len && strchr(" \t", *text.data)) {
		text.data++;
		text.len--;
	}
	return text;
}

static bool is(struct evbus_slice text, const char *word)
{
	return text.len == strlen(word) && !memcmp(text.data, word, text.len);
}

static bool is_section(struct evbus_slice line, const char *profile)
{
	struct evbus_slice name = trimmed((struct evbus_slice){ line.data + 1, line.len - 2 });

	if (name.len > 8 && !memcmp(name.data, "profile", 7) && strchr(" \t", name.data[7]))
		name = trimmed((struct evbus_slice){ name.data + 8, name.len - 8 });
	return is(name, profile);
}

static enum evbus_code take_line(struct found *found, struct evbus_slice line, struct evbus_err *err)
{
	const char *equals = memchr(line.data, '=', line.len);

	if (!equals)
		return EVBUS_OK;
	size_t len = (size_t)(equals - line.data);
	struct evbus_slice name = trimmed((struct evbus_slice){ line.data, len });
	struct evbus_slice value = trimmed((struct evbus_slice){ equals + 1, line.len - len - 1 });
	for (size_t i = 0; i < WANTED; i++)
		if (is(name, found->wanted[i].name))
			return keep(found, i, value, err);
	return EVBUS_OK;
}

static enum evbus_code take_profile(struct found *found, struct evbus_slice text, const char *profile,
				    struct evbus_err *err)
{
	bool within = false;

	while (text.len) {
		const char *newline = memchr(text.data, '\n', text.len);
		size_t len = newline ? (size_t)(newline - text.data) : text.len;
		struct evbus_slice line = trimmed((struct evbus_slice){ text.data, len });
		if (line.len > 2 && line.data[0] == '[' && line.data[line.len - 1] == ']')
			found->has_profile |= within = is_section(line, profile);
		else if (within && line.len && line.data[0] != '#' && line.data[0] != ';')
			TRY(take_line(found, line, err));
		text.data += len + (newline != NULL);
		text.len -= len + (newline != NULL);
	}
	return EVBUS_OK;
}

static enum evbus_code read_file(const char *path, struct buf *text, struct evbus_err *err)
{
	CLEANUP(os_close_cleanup) int fd = os.openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NOCTTY, 0);

	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return EVBUS_OK;
	if (fd < 0)
		return err_set(err, errno == EACCES ? EVBUS_PERMISSION : EVBUS_CONFIG, errno,
			       "cannot read the credentials in '%s'", path);
	TRY(buf_reserve(text, FILE_MAX_BYTES, err));
	ssize_t len = os_read_at(fd, text->data, FILE_MAX_BYTES, 0);
	if (len < 0)
		return err_set(err, EVBUS_CONFIG, errno, "cannot read the credentials in '%s'", path);
	text->len = (size_t)len;
	return EVBUS_OK;
}

/* Without HOME there is no file but a named one. */
static enum evbus_code take_file(struct found *found, const char *named_by, const char *below_home, const char *profile,
				 struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf text = { 0 };
	const char *named = variable(named_by), *home = variable("HOME");
	char path[PATH_ROOM];

	if (!named && !home)
		return EVBUS_OK;
	snprintf(path, sizeof path, "%s%s", named ? named : home, named ? "" : below_home);
	enum evbus_code code = read_file(path, &text, err);
	if (code == EVBUS_OK)
		code = take_profile(found, (struct evbus_slice){ text.data, text.len }, profile, err);
	if (text.data)
		explicit_bzero(text.data, text.len);
	return code;
}

/* ---- all of it ------------------------------------------------------------------------------------------------- */

/* Of the environment both or none; a token without them is nobody's. */
static enum evbus_code take_environment(struct found *found, struct evbus_err *err)
{
	bool both = variable(found->wanted[KEY_ID].variable) && variable(found->wanted[SECRET].variable);

	for (size_t i = 0; i < WANTED; i++) {
		const char *value = variable(found->wanted[i].variable);
		if (value && (both || i == REGION))
			TRY(keep(found, i, (struct evbus_slice){ value, strlen(value) }, err));
	}
	const char *region = variable("AWS_DEFAULT_REGION");
	return region ? keep(found, REGION, (struct evbus_slice){ region, strlen(region) }, err) : EVBUS_OK;
}

static enum evbus_code take_files(struct found *found, struct evbus_err *err)
{
	const char *profile = variable("AWS_PROFILE");
	size_t id = found->wanted[KEY_ID].at;

	profile = profile ? profile : "default";
	/* Who is known by his environment has no token of a file. */
	if (id != SIZE_MAX && found->wanted[TOKEN].at == SIZE_MAX)
		found->wanted[TOKEN].name = "";
	TRY(take_file(found, "AWS_SHARED_CREDENTIALS_FILE", "/.aws/credentials", profile, err));
	if (id == SIZE_MAX && found->wanted[KEY_ID].at != SIZE_MAX)
		found->wanted[TOKEN].name = "";
	TRY(take_file(found, "AWS_CONFIG_FILE", "/.aws/config", profile, err));
	if (id != SIZE_MAX || found->has_profile || !variable("AWS_PROFILE"))
		return EVBUS_OK;
	return err_set(
		err, EVBUS_CONFIG, 0,
		"there is no profile '%.100s', which AWS_PROFILE asks for: ~/.aws/credentials or ~/.aws/config (or "
		"what AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE name) has a section for each",
		profile);
}

static const char *text_at(const struct found *found, size_t which)
{
	return found->wanted[which].at == SIZE_MAX ? NULL : found->text.data + found->wanted[which].at;
}

enum evbus_code who_find(struct who *who, struct evbus_err *err)
{
	struct found found = { .wanted = { [KEY_ID] = { "AWS_ACCESS_KEY_ID", "aws_access_key_id", SIZE_MAX },
					   [SECRET] = { "AWS_SECRET_ACCESS_KEY", "aws_secret_access_key", SIZE_MAX },
					   [TOKEN] = { "AWS_SESSION_TOKEN", "aws_session_token", SIZE_MAX },
					   [REGION] = { "AWS_REGION", "region", SIZE_MAX } } };

	enum evbus_code code = take_environment(&found, err);
	if (code == EVBUS_OK)
		code = take_files(&found, err);
	if (code != EVBUS_OK) {
		who_release(&(struct who){ .text = found.text.data });
		return code;
	}
	bool both = found.wanted[KEY_ID].at != SIZE_MAX && found.wanted[SECRET].at != SIZE_MAX;
	*who = (struct who){ .text = found.text.data,
			     .key_id = both ? text_at(&found, KEY_ID) : NULL,
			     .secret = both ? text_at(&found, SECRET) : NULL,
			     .token = both ? text_at(&found, TOKEN) : NULL,
			     .region = text_at(&found, REGION) };
	return EVBUS_OK;
}

void who_release(struct who *who)
{
	/* The secret does not stay in memory. */
	if (who->secret)
		explicit_bzero((char *)(uintptr_t)who->secret, strlen(who->secret));
	free(who->text);
	*who = (struct who){ 0 };
}
