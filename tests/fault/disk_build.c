/* disk_build.c: what a power cut may leave. */
#include "disk_changes.h"

#include "base/buf.h"

#include <string.h>
#include <unistd.h>

#define SECTOR 512u

/* ---- what is certain ---- */

static bool is_data(const struct change *change)
{
	return change->kind == WRITE || change->kind == CUT;
}

static bool is_change(size_t i)
{
	return disk->change[i].kind != SYNC && disk->change[i].kind != SYNC_FAILED;
}

static bool certain[CHANGES_MAX];

/* Backwards, with what the next sync of each node will be. A file whose sync fails is uncertain for ever, a directory
 * until the next one. */
static size_t judge(size_t end)
{
	enum { NEVER, SYNCED, FAILED } next[NODES_MAX] = { NEVER };
	size_t uncertain = 0;

	for (size_t i = end; i-- > 0;) {
		const struct change *change = &disk->change[i];
		if (change->kind == SYNC)
			next[change->node] = SYNCED;
		else if (change->kind == SYNC_FAILED && !disk->node[change->node].is_dir)
			next[change->node] = FAILED;
		if (!is_change(i))
			continue;
		if (is_data(change))
			certain[i] = next[change->node] == SYNCED;
		else
			certain[i] = next[change->dir] == SYNCED &&
				     (change->kind != RENAME || next[change->to_dir] == SYNCED);
		uncertain += !certain[i];
	}
	return uncertain;
}

size_t disk_uncertain(size_t end)
{
	return judge(end);
}

/* ---- building ---- */

struct entry {
	unsigned dir, node;
	char name[64];
};

static struct buf files[NODES_MAX]; /* the content by node */
static struct entry entries[NODES_MAX];
static unsigned entry_count;
static uint64_t random_state;

static uint64_t draw(uint64_t below)
{
	/* xorshift64* (S. Vigna, 2016) */
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * 2685821657736338717u % below;
}

static void unname(unsigned dir, const char *name)
{
	for (unsigned i = 0; i < entry_count; i++)
		if (entries[i].dir == dir && !strcmp(entries[i].name, name)) {
			entries[i] = entries[--entry_count];
			return;
		}
}

static void name(unsigned node, unsigned dir, const char *text)
{
	unname(dir, text);
	disk_must(entry_count < NODES_MAX, "too many names");
	entries[entry_count] = (struct entry){ dir, node, "" };
	snprintf(entries[entry_count++].name, sizeof entries->name, "%s", text);
}

static void rename_one(const struct change *change)
{
	unname(change->dir, change->name);
	name(change->node, change->to_dir, change->to);
	if (change->swapped)
		name(change->swapped, change->dir, change->name);
}

/* The file reaches so far; filled: with zeros, or garbage. */
static void grow(struct buf *file, uint64_t size, bool garbage)
{
	if (file->len >= size)
		return;
	disk_must(buf_reserve(file, size - file->len, NULL) == EVBUS_OK, "no memory");
	for (; file->len < size; file->len++)
		file->data[file->len] = garbage ? (char)draw(256) : 0;
}

static void put(struct buf *file, const struct change *change, size_t from, size_t len)
{
	grow(file, change->at + from, false);
	grow(file, change->at + from + len, false);
	memcpy(file->data + change->at + from, disk->byte + change->data + from, len);
}

static void put_sectors(struct buf *file, const struct change *change)
{
	for (size_t from = 0; from < change->len;) {
		size_t len = SECTOR - (change->at + from) % SECTOR;
		if (len > change->len - from)
			len = change->len - from;
		if (draw(2))
			put(file, change, from, len);
		from += len;
	}
}

/* A disk writes a sector whole. */
static bool is_atomic(const struct buf *file, const struct change *change)
{
	return change->at + change->len <= file->len && change->at / SECTOR == (change->at + change->len - 1) / SECTOR;
}

/* A part of a write, and perhaps the size of all of it. */
static void tear(struct buf *file, const struct change *change)
{
	bool grown = draw(2), garbage = draw(2);

	if (is_atomic(file, change)) {
		if (draw(2))
			put(file, change, 0, change->len);
		return;
	}
	switch (draw(4)) {
	case 0:
		put_sectors(file, change);
		break;
	case 1:
		put(file, change, 0, draw(change->len));
		break;
	case 2:
		put(file, change, 0, draw(2) ? 1 : change->len - 1);
		break;
	default:
		break;
	}
	if (grown)
		grow(file, change->at + change->len, garbage);
}

/* ---- the regular tears ---- */

enum rest { REST_MISSING, REST_ZEROS, REST_GARBAGE, REST_ALONE, RESTS };

/* Behind its first byte, at each end of a sector, before its last byte. */
static unsigned tear_places(const struct change *change)
{
	return (unsigned)((change->at + change->len - 1) / SECTOR - change->at / SECTOR) + 2;
}

static size_t tear_place(const struct change *change, unsigned n)
{
	if (n == 0)
		return change->len > 1;
	if (n + 1 == tear_places(change))
		return change->len - 1;
	return (size_t)((change->at / SECTOR + n) * SECTOR - change->at);
}

static unsigned tears_of(size_t end)
{
	const struct change *last = end ? &disk->change[end - 1] : NULL;

	return last && last->kind == WRITE ? RESTS * tear_places(last) : 0;
}

static void tear_at(struct buf *file, const struct change *change, unsigned n)
{
	size_t place = tear_place(change, n / RESTS);

	if (is_atomic(file, change))
		return;
	if (n % RESTS == REST_ALONE) {
		put(file, change, place, change->len - place);
		return;
	}
	put(file, change, 0, place);
	if (n % RESTS != REST_MISSING)
		grow(file, change->at + change->len, n % RESTS == REST_GARBAGE);
}

#define FATES 6u /* fate_of() */

unsigned disk_variants(size_t end)
{
	return judge(end) ? FATES + tears_of(end) : 1;
}

/* torn: by chance; or, from 1 on, at that place. */
#define BY_CHANCE UINT32_MAX

static void apply(const struct change *change, unsigned torn)
{
	struct buf *file = &files[change->node];

	switch (change->kind) {
	case WRITE:
		if (torn == BY_CHANCE)
			tear(file, change);
		else if (torn)
			tear_at(file, change, torn - 1);
		else
			put(file, change, 0, change->len);
		break;
	case CUT:
		grow(file, change->at, false);
		file->len = change->at;
		break;
	case NAME:
		name(change->node, change->dir, change->name);
		break;
	case UNNAME:
		unname(change->dir, change->name);
		break;
	case RENAME:
		rename_one(change);
		break;
	default:
		break;
	}
}

/* What happens to the n-th of `count` uncertain changes. */
enum fate { LOST, KEPT, TORN };

static enum fate fate_of(unsigned variant, size_t n, size_t count)
{
	switch (variant) {
	case 0:
		return LOST;
	case 1:
		return KEPT;
	case 2:
		return n + 1 == count ? KEPT : LOST;
	case 3:
		return n == 0 ? LOST : KEPT;
	case 4:
		return n + 1 == count ? TORN : KEPT;
	case 5:
		return n == 0 ? TORN : KEPT;
	default:
		return draw(8) < 3 ? LOST : draw(8) < 5 ? KEPT : TORN;
	}
}

static ino_t built[NODES_MAX];

ino_t disk_built_inode(ino_t recorded)
{
	for (unsigned i = disk->nodes; i > 1; i--)
		if (disk->node[i - 1].ino == recorded)
			return built[i - 1];
	return 0;
}

static void note_inode(unsigned node, int fd)
{
	struct stat st;

	disk_must(!fstat(fd, &st), "cannot look at a file");
	built[node] = st.st_ino;
}

static void write_tree(unsigned dir, int fd)
{
	for (unsigned i = 0; i < entry_count; i++) {
		const struct entry *entry = &entries[i];
		const struct buf *file = &files[entry->node];
		if (entry->dir != dir)
			continue;
		if (disk->node[entry->node].is_dir) {
			disk_must(!mkdirat(fd, entry->name, 0700), entry->name);
			int child = openat(fd, entry->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
			disk_must(child >= 0, entry->name);
			write_tree(entry->node, child);
			close(child);
			continue;
		}
		int child = openat(fd, entry->name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		disk_must(child >= 0 && write(child, file->data ? file->data : "", file->len) == (ssize_t)file->len,
			  entry->name);
		note_inode(entry->node, child);
		close(child);
	}
}

void disk_build(size_t end, unsigned variant, uint64_t seed, const char *to)
{
	size_t count = judge(end), n = 0;
	unsigned regular = FATES + tears_of(end), torn = 0;

	random_state = seed | 1;
	entry_count = 0;
	for (unsigned i = 0; i < disk->nodes; i++) {
		files[i].len = 0;
		built[i] = 0;
	}
	for (size_t i = 0; i < end; i++) {
		enum fate fate = KEPT;
		if (!is_change(i))
			continue;
		if (!certain[i])
			fate = fate_of(variant, n++, count);
		if (variant >= FATES && variant < regular) {
			torn = i + 1 == end ? variant - FATES + 1 : 0;
			fate = KEPT;
		} else {
			torn = fate == TORN ? BY_CHANCE : 0;
		}
		if (fate != LOST)
			apply(&disk->change[i], torn);
	}
	int fd = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	disk_must(fd >= 0, to);
	write_tree(1, fd);
	close(fd);
}
