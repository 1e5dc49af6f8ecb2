/* err.h: how a failure is told, passed up, and what is cleaned up on the way. */
#ifndef EVBUS_BASE_ERR_H
#define EVBUS_BASE_ERR_H

#include "evbus.h"

#include <stdlib.h>

/* Writes the text and returns code. sys_errno != 0 adds ": " and its message. err may be NULL. */
enum evbus_code err_set(struct evbus_err *err, enum evbus_code code, int sys_errno, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
#ifdef __clang_analyzer__    /* it does not look into err.c, and would follow each failure as a success too */
#define err_set(err, code, ...) ((void)(err_set)((err), (code), __VA_ARGS__), (code))
#endif

/* The code for a failed system call: EVBUS_PERMISSION for EACCES, EPERM and EROFS, EVBUS_AGAIN never, else EVBUS_IO. */
enum evbus_code err_code_of(int sys_errno);

#define CHECKED __attribute__((warn_unused_result))

/* Passes a failure up. */
#define TRY(call)                                        \
	do {                                             \
		enum evbus_code try_code_ = (call);      \
		if (try_code_ != EVBUS_OK)               \
			return try_code_;                \
	} while (0)

/* Cleans a variable up where its scope ends: CLEANUP(file_close) int fd = -1; fn takes a pointer to the variable. */
#define CLEANUP(fn) __attribute__((cleanup(fn)))

/* Hands an owned pointer over, so that its cleanup finds NULL. */
#define GIVE(out, pointer)          \
	do {                        \
		*(out) = (pointer); \
		(pointer) = NULL;   \
	} while (0)

static inline void free_cleanup(void *pointer)
{
	free(*(void **)pointer);
}

#define SLICE(literal) ((struct evbus_slice){ (literal), sizeof(literal) - 1 })

#endif
