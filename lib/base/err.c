/* err.c: the text of a failure. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static size_t append_errno(char *text, size_t size, size_t len, int sys_errno)
{
	char message[128];

	/* The GNU form: may return a static string instead of filling message. */
	const char *said = strerror_r(sys_errno, message, sizeof message);
	int n = snprintf(text + len, size - len, ": %s", said);
	return n < 0 ? len : len + (size_t)n;
}

enum evbus_code err_set(struct evbus_err *err, enum evbus_code code, int sys_errno, const char *format, ...)
{
	if (!err)
		return code;
	err->code = code;
	err->sys_errno = sys_errno;
	va_list args;
	va_start(args, format);
	int n = vsnprintf(err->text, sizeof err->text, format, args);
	va_end(args);
	if (sys_errno && n >= 0 && (size_t)n < sizeof err->text)
		append_errno(err->text, sizeof err->text, (size_t)n, sys_errno);
	return code;
}

enum evbus_code err_prefix(struct evbus_err *err, const char *format, ...)
{
	char old[sizeof err->text];

	if (!err)
		return EVBUS_BUG;
	memcpy(old, err->text, sizeof old);
	va_list args;
	va_start(args, format);
	int n = vsnprintf(err->text, sizeof err->text, format, args);
	va_end(args);
	if (n >= 0 && (size_t)n < sizeof err->text)
		snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", old);
	return err->code;
}

enum evbus_code err_code_of(int sys_errno)
{
	return sys_errno == EACCES || sys_errno == EPERM || sys_errno == EROFS ? EVBUS_PERMISSION : EVBUS_IO;
}
