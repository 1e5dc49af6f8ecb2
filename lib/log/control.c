/* control.c: the page in the lock file. */
#include "log/control.h"

#include "base/crc32c.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>

#define PAGE_BYTES 4096u
#define PAGE_VERSION 2u
#define PRESENCE_BYTE 1                /* of the lock file; sync is byte 0 */

/* In the byte order of the machine: the page does not outlive it. */
struct page_head {
	char magic[8];
	uint32_t version;
	uint32_t checksum;             /* of what follows in this struct */
	uint64_t page_id;
	uint64_t dev, ino;             /* of the lock file itself: a copy of it is not it */
	int64_t birth_s;
	uint32_t birth_ns;
	char boot_id[36];
	char log_id[LOG_ID_LEN];
};

struct page_copy {
	struct cell cell;
	uint32_t checksum;
	uint32_t unused;
};

struct page_cell {
	struct page_copy copy[2];
	uint32_t selector;
	uint32_t word;                 /* of `durable` the futex word, written with it; of `end` nothing */
};

struct page {
	struct page_head head;
	uint32_t unused;
	/* By enum control_flag; that of syncing is the checksum of the `durable` that it began with, so that the next one
	 * ends it. They stand before `end`, to be written with it. */
	uint32_t flag[2];
	uint32_t unused_too;
	struct page_cell cell[2];      /* by enum control_cell */
};

/* evbus-log(5) names these places. */
static_assert(offsetof(struct page, flag) == 124 && offsetof(struct page, cell) == 136 &&
		      offsetof(struct page_cell, selector) == 112 && sizeof(struct page_cell) == 120,
	      "the page lies as it is documented");

static const char magic[8] = "evbusct";

static uint32_t head_checksum(const struct page_head *head)
{
	return crc32c(0, &head->page_id, sizeof *head - offsetof(struct page_head, page_id));
}

/* The page's id is part of it, so that a copy left over from an earlier page is no cell of this one. */
static uint32_t cell_checksum(uint64_t page_id, const struct cell *cell)
{
	return crc32c(crc32c(0, &page_id, sizeof page_id), cell, sizeof *cell);
}

/* What the head has to say of the file it stands in. */
static void fill_head(const struct control *control, struct page_head *head)
{
	memset(head, 0, sizeof *head);
	memcpy(head->magic, magic, sizeof magic);
	head->version = PAGE_VERSION;
	head->dev = control->id.dev;
	head->ino = control->id.ino;
	head->birth_s = control->birth_s;
	head->birth_ns = control->birth_ns;
	memcpy(head->boot_id, control->boot_id, sizeof head->boot_id);
	memcpy(head->log_id, control->log_id, LOG_ID_LEN);
}

static enum evbus_code identify(struct control *control, const char *name, struct evbus_err *err)
{
	struct statx stx;

	if (os.statx(control->fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &stx))
		return err_set(err, err_code_of(errno), errno, "cannot look at '%s'", name);
	control->id = (struct file_id){ makedev(stx.stx_dev_major, stx.stx_dev_minor), stx.stx_ino };
	if (stx.stx_mask & STATX_BTIME) {
		control->birth_s = stx.stx_btime.tv_sec;
		control->birth_ns = stx.stx_btime.tv_nsec;
	}
	if (os.boot_id(control->boot_id))
		return err_set(err, EVBUS_IO, errno, "cannot read the boot id of this machine");
	return EVBUS_OK;
}

void control_close(struct control *control)
{
	if (control->map)
		munmap(control->map, PAGE_BYTES);
	control->map = NULL;
	os_close_cleanup(&control->fd);
}

enum evbus_code control_open(const struct topic *topic, int32_t partition, bool writer, struct control *control,
			     struct evbus_err *err)
{
	char name[NAME_IN_MESSAGE];
	CLEANUP(control_close) struct control opened = { .fd = -1 };

	snprintf(opened.path, sizeof opened.path, "partition=%d.lock", partition);
	snprintf(name, sizeof name, "%s/%s", topic->name, opened.path);
	memcpy(opened.log_id, topic->log_id, LOG_ID_LEN);
	TRY(os_open_file(topic->fd, opened.path, writer ? O_RDWR | O_CREAT : O_RDONLY, topic->file_mode, name,
			 &opened.fd, err));
	TRY(identify(&opened, name, err));
	void *map = os.mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, opened.fd, 0);
	if (map == MAP_FAILED)
		return err_set(err, EVBUS_IO, errno, "cannot map '%s'", name);
	opened.map = map;
	*control = opened;
	opened = (struct control){ .fd = -1 };
	return EVBUS_OK;
}

static bool is_copy(const struct page *page, const struct page_copy *copy)
{
	return cell_checksum(page->head.page_id, &copy->cell) == copy->checksum;
}

static bool is_later(const struct cell *a, const struct cell *b)
{
	if (a->epoch != b->epoch)
		return a->epoch > b->epoch;
	return a->base != b->base ? a->base > b->base : a->next > b->next;
}

/* The copy in force: the one that is selected, or the other one where that is later. It was true when it was written,
 * before it was selected; and a selector of which a bit was flipped hides nothing. NULL: the page is damaged. */
static const struct page_copy *copy_in_force(const struct page *page, enum control_cell which)
{
	const struct page_cell *from = &page->cell[which];

	if (from->selector > 1 || !is_copy(page, &from->copy[from->selector]))
		return NULL;
	const struct page_copy *selected = &from->copy[from->selector], *other = &from->copy[1 - from->selector];
	return is_copy(page, other) && is_later(&other->cell, &selected->cell) ? other : selected;
}

static struct cell *cell_of(struct control_view *view, enum control_cell which)
{
	return which == CONTROL_END ? &view->end : &view->durable;
}

static bool take_cell(const struct page *page, enum control_cell which, struct control_view *view)
{
	const struct page_copy *copy = copy_in_force(page, which);

	if (!copy)
		return false;
	*cell_of(view, which) = copy->cell;
	view->place[which].in_force = copy != &page->cell[which].copy[0];
	view->place[which].selected = (uint8_t)page->cell[which].selector;
	if (which == CONTROL_DURABLE)
		view->tag = copy->checksum;
	return true;
}

/* Of a page of another boot: writes reach the disk in any order, a selector before the copy that it means. The copy
 * before it was true as well, and `durable` is only a lower bound now; `end` means nothing any more. */
static bool take_any(const struct page *page, struct control_view *view)
{
	const struct page_cell *from = &page->cell[CONTROL_DURABLE];

	for (unsigned i = 0; i < 2; i++) {
		const struct page_copy *copy = &from->copy[(from->selector + i) % 2];
		if (!is_copy(page, copy))
			continue;
		view->durable = view->end = copy->cell;
		return true;
	}
	return false;
}

/* A cell that was rewritten twice while we read it does not match its checksum: read again. A page that stays so was
 * damaged by somebody else. */
static enum evbus_code read_page(const struct control *control, struct page *page, struct control_view *view,
				 bool *found, struct evbus_err *err)
{
	*found = false;
	for (int tries = 0; tries < 1000 && !*found; tries++) {
		ssize_t n = os_read_at(control->fd, page, sizeof *page, 0);
		if (n < 0)
			return err_set(err, EVBUS_IO, errno, "cannot read '%s'", control->path);
		if (n != (ssize_t)sizeof *page || memcmp(page->head.magic, magic, sizeof magic) ||
		    page->head.version != PAGE_VERSION || page->head.checksum != head_checksum(&page->head))
			return EVBUS_OK;
		if (memcmp(page->head.boot_id, control->boot_id, sizeof control->boot_id) != 0) {
			*found = take_any(page, view);
			return EVBUS_OK;
		}
		*found = take_cell(page, CONTROL_END, view) && take_cell(page, CONTROL_DURABLE, view);
	}
	return EVBUS_OK;
}

enum evbus_code control_read(const struct control *control, enum control_state *state, struct control_view *view,
			     struct evbus_err *err)
{
	struct page page;
	struct control_view seen = { .page_id = 0 };
	struct page_head expected;
	bool found;

	*state = CONTROL_NONE;
	TRY(read_page(control, &page, &seen, &found, err));
	if (!found)
		return EVBUS_OK;
	fill_head(control, &expected);
	if (page.head.dev != expected.dev || page.head.ino != expected.ino || page.head.birth_s != expected.birth_s ||
	    page.head.birth_ns != expected.birth_ns || memcmp(page.head.log_id, expected.log_id, LOG_ID_LEN) != 0)
		return EVBUS_OK;
	seen.page_id = page.head.page_id;
	seen.word = page.cell[CONTROL_DURABLE].word;
	seen.syncing = page.flag[CONTROL_SYNCING] != 0 && page.flag[CONTROL_SYNCING] == seen.tag;
	seen.halt = page.flag[CONTROL_HALT] != 0;
	*view = seen;
	*state = memcmp(page.head.boot_id, expected.boot_id, sizeof expected.boot_id) ? CONTROL_OTHER_BOOT :
											CONTROL_OURS;
	return EVBUS_OK;
}

static enum evbus_code write_page(struct control *control, const void *data, size_t len, size_t at,
				  struct evbus_err *err)
{
	control->written = true;
	if (!os_write_at(control->fd, data, len, at))
		return err_set(err, EVBUS_IO, errno, "cannot write '%s'", control->path);
	return EVBUS_OK;
}

enum evbus_code control_init(struct control *control, const struct cell *cell, struct evbus_err *err)
{
	char block[PAGE_BYTES] = { 0 };
	struct page page;

	memset(&page, 0, sizeof page);
	fill_head(control, &page.head);
	if (os.getrandom(&page.head.page_id, sizeof page.head.page_id, 0) != (ssize_t)sizeof page.head.page_id)
		return err_set(err, EVBUS_IO, errno, "cannot get random bytes");
	page.head.checksum = head_checksum(&page.head);
	for (int i = 0; i < 2; i++) {
		page.cell[i].copy[0].cell = *cell;
		page.cell[i].copy[0].checksum = cell_checksum(page.head.page_id, cell);
	}
	memcpy(block, &page, sizeof page);
	/* The magic last, after everything else is in its place: until then it is no page. */
	memset(block, 0, sizeof magic);
	TRY(write_page(control, block, sizeof block, 0, err));
	os.point("page/written");
	TRY(write_page(control, magic, sizeof magic, 0, err));
	if (os.fsync(control->fd))
		return err_set(err, EVBUS_IO, errno, "cannot sync '%s'", control->path);
	return EVBUS_OK;
}

/* The selector comes behind the copies, and the copy in force is written again as it is: whoever reads meanwhile sees the
 * old value, or the new one, or that a checksum is wrong. from: where in the page the write begins. */
static enum evbus_code set_cell(struct control *control, struct control_view *view, enum control_cell which,
				const struct cell *cell, struct page *page, size_t from, struct evbus_err *err)
{
	struct page_cell *to = &page->cell[which];
	uint8_t force = view->place[which].in_force, other = !force;
	size_t at = offsetof(struct page, cell) + which * sizeof *to;
	uint32_t selector = force;

	/* What a killed writer had not selected yet: the copy that is selected is not to be seen half written. */
	if (view->place[which].selected != force)
		TRY(write_page(control, &selector, sizeof selector, at + offsetof(struct page_cell, selector), err));
	to->copy[force].cell = *cell_of(view, which);
	to->copy[other].cell = *cell;
	for (int i = 0; i < 2; i++)
		to->copy[i].checksum = cell_checksum(view->page_id, &to->copy[i].cell);
	to->selector = other;
	to->word = which == CONTROL_DURABLE ? to->copy[other].checksum : 0;
	TRY(write_page(control, (char *)page + from, at + sizeof *to - from, from, err));
	*cell_of(view, which) = *cell;
	view->place[which] = (struct cell_place){ other, other };
	if (which == CONTROL_DURABLE)
		view->word = view->tag = to->word;
	return EVBUS_OK;
}

enum evbus_code control_set(struct control *control, struct control_view *view, enum control_cell which,
			    const struct cell *cell, struct evbus_err *err)
{
	struct page page = { .unused = 0 };

	return set_cell(control, view, which, cell, &page, offsetof(struct page, cell) + which * sizeof page.cell[0], err);
}

enum evbus_code control_set_syncing(struct control *control, struct control_view *view, const struct cell *end,
				    struct evbus_err *err)
{
	struct page page = { .flag = { [CONTROL_SYNCING] = view->tag, [CONTROL_HALT] = view->halt } };

	return set_cell(control, view, CONTROL_END, end, &page, offsetof(struct page, flag), err);
}

enum evbus_code control_flag(struct control *control, const struct control_view *view, enum control_flag flag,
			     bool value, struct evbus_err *err)
{
	uint32_t stored = !value ? 0 : flag == CONTROL_SYNCING ? view->tag : 1;

	return write_page(control, &stored, sizeof stored, offsetof(struct page, flag) + flag * sizeof stored, err);
}

#define WORD_AT (offsetof(struct page, cell) + CONTROL_DURABLE * sizeof(struct page_cell) + offsetof(struct page_cell, word))

static uint32_t *word_of(const struct control *control)
{
	return (uint32_t *)(void *)((char *)control->map + WORD_AT);
}

void control_wake(struct control *control)
{
	uint32_t word = 0;

	os.point("wake/begins");
	/* Not atomic, and need not be: whoever waited saw an older value, and two that write the same new one wake both. */
	if (os_read_at(control->fd, &word, sizeof word, WORD_AT) == (ssize_t)sizeof word) {
		word++;
		if (os_write_at(control->fd, &word, sizeof word, WORD_AT))
			os.futex_wake(word_of(control));
	}
}

bool control_wait(const struct control *control, uint32_t word, int timeout_ms)
{
	struct timespec timeout = { timeout_ms / 1000, (long)(timeout_ms % 1000) * 1000000 };

	return os.futex_wait(word_of(control), word, &timeout) == 0 || errno != EINTR;
}

/* 0, or errno. */
static int set_lock(int fd, int cmd, enum control_lock which, short type)
{
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = which == LOCK_PRESENCE ? PRESENCE_BYTE : 0,
			      .l_len = 1 };

	while (os.lock(fd, cmd, &lock))
		if (errno != EINTR)
			return errno;
	return 0;
}

enum evbus_code control_try_lock(int fd, enum control_lock which, short type, const char *name, struct evbus_err *err)
{
	int failed = set_lock(fd, F_OFD_SETLK, which, type);

	if (failed == EAGAIN || failed == EACCES)
		return err_set(err, EVBUS_AGAIN, 0, "another process holds the lock on '%s'", name);
	return failed ? err_set(err, EVBUS_IO, failed, "cannot lock '%s'", name) : EVBUS_OK;
}

enum evbus_code control_lock(int fd, enum control_lock which, short type, const char *name, const struct waiter *waiter,
			     struct evbus_err *err)
{
	struct wait wait = { .waiter = waiter };
	enum evbus_code code;

	if (!wait_has_end(waiter)) {
		int failed = set_lock(fd, F_OFD_SETLKW, which, type);
		return failed ? err_set(err, EVBUS_IO, failed, "cannot lock '%s'", name) : EVBUS_OK;
	}
	while ((code = control_try_lock(fd, which, type, name, err)) == EVBUS_AGAIN)
		if (!wait_a_little(&wait))
			return control_gave_up(name, err);
	return code;
}

enum evbus_code control_gave_up(const char *name, struct evbus_err *err)
{
	return err_set(err, EVBUS_AGAIN, EINTR, "gave up waiting for another process that holds '%s'", name);
}

void control_unlock(int fd, enum control_lock which)
{
	(void)set_lock(fd, F_OFD_SETLK, which, F_UNLCK);
}

bool control_is_locked(int fd, enum control_lock which)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = which == LOCK_PRESENCE ? PRESENCE_BYTE : 0,
			      .l_len = 1 };

	return !os.lock(fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK;
}

bool control_has_writer(const struct control *control)
{
	return control->fd >= 0 && control_is_locked(control->fd, LOCK_PRESENCE);
}
