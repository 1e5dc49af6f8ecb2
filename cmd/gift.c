/* gift.c: output that a pipe is given, instead of a copy of it (vmsplice).
 *
 * Half of what it costs to print a log goes into copying it to pages that the pipe has to come by first. The pipe takes
 * the pages of our own memory as well; only, nobody says when they were read, for who reads may pass them on to other
 * pipes (splice, tee). So what was given is never changed: the next block is new memory, and the last one goes when its
 * last reader is done. That pays with huge pages only, as coming by small ones takes longer than copying does; where
 * the faults show that there are none, output is written as ever. */
#include "gift.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define HUGE_BYTES ((size_t)2 << 20)
#define FAULTS_MAX 256 /* of a block with small pages it would be 1024 */
#define PIPE_BYTES (1 << 20)

static struct {
	enum { UNKNOWN, WORTH_IT, REFUSED } state;
	char *block;
	long faults; /* before it was filled */
} gift;

static long faults(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_SELF, &usage) ? 0 : usage.ru_minflt;
}

/* What fits into the pipe need not be waited for so often. */
static bool is_pipe(void)
{
	struct stat st;

	if (fstat(STDOUT_FILENO, &st) || !S_ISFIFO(st.st_mode))
		return false;
	if (fcntl(STDOUT_FILENO, F_GETPIPE_SZ) < PIPE_BYTES)
		(void)fcntl(STDOUT_FILENO, F_SETPIPE_SZ, PIPE_BYTES);
	return true;
}

/* NULL: there is no memory, or there are no huge pages. */
static char *new_block(void)
{
	size_t size = GIFT_BLOCK_BYTES + HUGE_BYTES;
	/* cppcheck-suppress invalidFunctionArg ; -1 is what mmap(2) asks for beside MAP_ANONYMOUS */
	char *room = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (room == MAP_FAILED)
		return NULL;
	size_t before = (HUGE_BYTES - (uintptr_t)room % HUGE_BYTES) % HUGE_BYTES, behind = HUGE_BYTES - before;
	char *block = room + before;
	if (before)
		munmap(room, before);
	if (behind)
		munmap(block + GIFT_BLOCK_BYTES, behind);
	if (!madvise(block, GIFT_BLOCK_BYTES, MADV_HUGEPAGE))
		return block;
	munmap(block, GIFT_BLOCK_BYTES);
	return NULL;
}

char *gift_block(void)
{
	if (gift.state == UNKNOWN)
		gift.state = is_pipe() ? WORTH_IT : REFUSED;
	if (gift.block) {
		if (faults() - gift.faults > FAULTS_MAX)
			gift.state = REFUSED;
		munmap(gift.block, GIFT_BLOCK_BYTES);
		gift.block = NULL;
	}
	if (gift.state == REFUSED)
		return NULL;
	gift.block = new_block();
	if (!gift.block)
		gift.state = REFUSED;
	gift.faults = faults();
	return gift.block;
}

ssize_t gift_give(const char *data, size_t len)
{
	struct iovec part = { (void *)(uintptr_t)data, len };
	ssize_t n = gift.state == REFUSED ? -1 : vmsplice(STDOUT_FILENO, &part, 1, 0);

	if (n >= 0 || (gift.state != REFUSED && (errno == EINTR || errno == EAGAIN || errno == EPIPE)))
		return n;
	gift.state = REFUSED;
	return write(STDOUT_FILENO, data, len);
}
