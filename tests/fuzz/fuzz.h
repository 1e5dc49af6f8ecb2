/* fuzz.h: what the fuzzers share.
 *
 * A fuzzer is a file with one function, which takes any bytes and checks what must hold of whatever they are. libFuzzer
 * makes up the bytes (make fuzz); corpus.c takes those that were kept (make test). What is read is first copied to a
 * block of exactly its size, so that the address sanitizer sees a byte that is read beyond it. */
#ifndef EVBUS_TESTS_FUZZ_H
#define EVBUS_TESTS_FUZZ_H

#include <evbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

_Noreturn static inline void fuzz_failed(const char *file, int line, const char *what)
{
	fprintf(stderr, "%s:%d: it does not hold that %s\n", file, line, what);
	abort();
}
#define MUST(condition)                                                                                                \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			fuzz_failed(__FILE__, __LINE__, #condition);                                                   \
	} while (0)

/* ---- bytes ---- */

static inline void *fuzz_block(size_t size)
{
	void *block = malloc(size ? size : 1);

	MUST(block != NULL);
	return block;
}

#ifndef CLEANUP
#define CLEANUP(fn) __attribute__((cleanup(fn)))
#endif

struct block {
	char *data;
	size_t len;
};

static inline void block_cleanup(struct block *block)
{
	free(block->data);
}

static inline struct block block_of(const void *data, size_t len)
{
	struct block block = { fuzz_block(len), len };

	if (len)
		memcpy(block.data, data, len);
	return block;
}

static inline struct evbus_slice slice_of(const struct block *block)
{
	return (struct evbus_slice){ block->data, block->len };
}

static inline bool same(struct evbus_slice a, struct evbus_slice b)
{
	return a.len == b.len && (!a.len || !memcmp(a.data, b.data, a.len));
}

/* Whether a part lies within a whole. */
static inline bool within(struct evbus_slice part, struct evbus_slice whole)
{
	return !part.data || (part.data >= whole.data && part.data + part.len <= whole.data + whole.len);
}

/* What every message of the library is: one line, not empty, that fits. */
static inline void check_err(const struct evbus_err *err, enum evbus_code code)
{
	MUST(err->code == code);
	size_t len = strnlen(err->text, sizeof err->text);
	MUST(len > 0 && len < sizeof err->text);
}

/* ---- an input as a row of choices ---- */

struct input {
	const uint8_t *at, *end;
};

static inline size_t input_left(const struct input *input)
{
	return (size_t)(input->end - input->at);
}

/* 0 where there is nothing left. */
static inline uint8_t input_byte(struct input *input)
{
	return input->at < input->end ? *input->at++ : 0;
}

static inline uint64_t input_number(struct input *input, unsigned bytes)
{
	uint64_t number = 0;

	while (bytes--)
		number = number << 8 | input_byte(input);
	return number;
}

/* Up to the next NUL, or all; with a NUL behind it. */
static inline struct block input_text(struct input *input)
{
	const uint8_t *nul = input_left(input) ? memchr(input->at, 0, input_left(input)) : NULL;
	size_t len = nul ? (size_t)(nul - input->at) : input_left(input);
	struct block block = { fuzz_block(len + 1), len };

	if (len)
		memcpy(block.data, input->at, len);
	block.data[len] = '\0';
	input->at += len + (nul != NULL);
	return block;
}

/* What is left, but at most so much. */
static inline struct block input_rest(struct input *input, size_t most)
{
	size_t len = input_left(input) < most ? input_left(input) : most;
	struct block block = block_of(input->at, len);

	input->at += len;
	return block;
}

#endif
