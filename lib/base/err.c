/* err.c: the text of a failure. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void append_errno(char *text, size_t size, size_t len, int sys_errno)
{
	char message[128];

	/* The GNU form: may return a static string instead of filling message. */
	snprintf(text + len, size - len, ": %s", strerror_r(sys_errno, message, sizeof message));
}

/* Names and arguments stand in the text as they were given: what would leave the line, or the terminal, is replaced. */
static void keep_one_line(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			*text = '?';
}

enum evbus_code(err_set)(struct evbus_err *err, enum evbus_code code, int sys_errno, const char *format, ...)
{
	if (!err)
		return code;
	err->code = code;
	err->sys_errno = sys_errno;
	err->column = 0;
	va_list args;
	va_start(args, format);
	int n = vsnprintf(err->text, sizeof err->text, format, args);
	va_end(args);
	if (sys_errno && n >= 0 && (size_t)n < sizeof err->text)
		append_errno(err->text, sizeof err->text, (size_t)n, sys_errno);
	keep_one_line(err->text);
	return code;
}

enum evbus_code err_code_of(int sys_errno)
{
	return sys_errno == EACCES || sys_errno == EPERM || sys_errno == EROFS ? EVBUS_PERMISSION : EVBUS_IO;
}
