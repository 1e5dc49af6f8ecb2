/* answers.c: what a handler that is kept (consume --coprocess) answers, in pieces of any size, against a slow opinion.
 * The input: how many records are out, the size of the pieces, and what it wrote. */
#include "../../cmd/coprocess.c" /* NOLINT(bugprone-suspicious-include): nothing of it can be reached from outside */

#include "fuzz.h"

#include <fcntl.h>

#define WINDOW_MAX 8u

static struct command command = { .name = "consume" };
static struct common common = { .quiet = true };
static struct call call = { .command = &command, .common = &common };
static struct evbus_slice said; /* by the handler, all of it */
static size_t said_at; /* which answer begins there */

enum slow_answer { SLOW_OK, SLOW_RETRY, SLOW_DEAD, SLOW_WRONG };

static enum slow_answer slow_understand(struct evbus_slice line, struct evbus_slice *reason)
{
	static const char *const words[] = { [SLOW_OK] = "ok", [SLOW_RETRY] = "retry", [SLOW_DEAD] = "dead" };
	const char *blank = line.len ? memchr(line.data, ' ', line.len) : NULL;
	struct evbus_slice word = { line.data, blank ? (size_t)(blank - line.data) : line.len };

	*reason = blank ? (struct evbus_slice){ blank + 1, line.len - word.len - 1 } : (struct evbus_slice){ "", 0 };
	if (line.len && memchr(line.data, 0, line.len))
		return SLOW_WRONG;
	for (size_t i = 0; i < COUNT(words); i++)
		if (same(word, (struct evbus_slice){ words[i], strlen(words[i]) }))
			return i == SLOW_OK && blank ? SLOW_WRONG : (enum slow_answer)i;
	return SLOW_WRONG;
}

static void check_outcome(const struct outcome *outcome, enum slow_answer answer, struct evbus_slice reason)
{
	static const enum verdict verdicts[] = {
		[SLOW_OK] = VERDICT_DONE, [SLOW_RETRY] = VERDICT_FAILED, [SLOW_DEAD] = VERDICT_REFUSED
	};

	MUST(answer != SLOW_WRONG && outcome->verdict == verdicts[answer]);
	MUST(answer != SLOW_DEAD || outcome->reason == EVBUS_REASON_REFUSED);
	MUST(same(outcome->said, reason));
	if (answer != SLOW_OK)
		MUST(outcome->error.len && (!reason.len || same(outcome->error, reason)));
}

/* Takes answers as long as there are whole ones. false: one of them is none, or belongs to no record. */
static bool take_answers(struct coprocess *coprocess)
{
	struct outcome outcome;
	struct evbus_slice reason;
	bool there = true;

	while (there) {
		size_t count = coprocess->count, number = coprocess->head;
		const char *newline = memchr(said.data + said_at, '\n', said.len - said_at);
		struct evbus_slice line = { said.data + said_at,
					    newline ? (size_t)(newline - said.data) - said_at : 0 };
		if (next_answer(coprocess, &there, &outcome)) {
			check_err(&call.err, EVBUS_CONFIG);
			MUST(!newline || !count || slow_understand(line, &reason) == SLOW_WRONG);
			return false;
		}
		if (!there)
			return true;
		MUST(newline && outcome.token == (void *)(number + 1) && coprocess->count == count - 1);
		check_outcome(&outcome, slow_understand(line, &reason), reason);
		said_at += line.len + 1;
	}
	return true;
}

static void give(struct coprocess *coprocess, size_t count)
{
	coprocess->window = WINDOW_MAX;
	for (size_t i = 0; i < WINDOW_MAX; i++)
		coprocess->given[i].token = (void *)(i + 1);
	coprocess->count = count;
}

/* As serve() does when its stdout can be read. */
static void hear(struct coprocess *coprocess, int to, size_t piece, bool refill)
{
	for (size_t written = 0; written < said.len;) {
		size_t len = piece < said.len - written ? piece : said.len - written;

		MUST(write(to, said.data + written, len) == (ssize_t)len);
		written += len;
		MUST(read_answers(coprocess));
		if (!take_answers(coprocess))
			return;
		if (refill)
			coprocess->count = WINDOW_MAX;
	}
	/* Whatever is left has no newline. */
	MUST(!memchr(said.data + said_at, '\n', said.len - said_at));
	MUST(said.len - said_at == coprocess->answers_len - coprocess->answer_at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct coprocess coprocess;
	static struct given given[WINDOW_MAX];
	static const char *argv[] = { "handler", NULL };
	struct input input = { data, data + size };
	uint8_t count = input_byte(&input), piece = input_byte(&input);
	CLEANUP(block_cleanup) struct block text = input_rest(&input, 2u * ANSWERS_BYTES);
	int ends[2];

	coprocess = (struct coprocess){ .call = &call, .program = { .argv = argv }, .given = given, .deaf_ms = NEVER };
	give(&coprocess, count % (WINDOW_MAX + 1));
	MUST(!pipe2(ends, O_NONBLOCK | O_CLOEXEC));
	coprocess.child.out = ends[0];
	said = slice_of(&text);
	said_at = 0;
	hear(&coprocess, ends[1], piece ? piece : 4096, count & 128);
	close(ends[0]);
	close(ends[1]);
	return 0;
}
