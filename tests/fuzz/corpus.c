/* corpus.c: a fuzzer without libFuzzer: feeds it each file of the directories that are named, and every beginning of the
 * small ones. A failure aborts, and what was said last names the file. */
#include "fuzz.h"

#include <dirent.h>
#include <limits.h>

#define FILE_MAX_BYTES (1u << 20)
#define CUT_MAX_BYTES 96u /* of longer files only the whole is fed */

static char names[1024][256];

/* In the order of their names. */
static int by_name(const void *a, const void *b)
{
	return strcmp(a, b);
}

static size_t list(const char *path)
{
	DIR *dir = opendir(path);
	size_t count = 0;

	MUST(dir != NULL);
	for (struct dirent *entry; (entry = readdir(dir));)
		if (entry->d_name[0] != '.') {
			MUST(count < sizeof names / sizeof *names);
			snprintf(names[count++], sizeof *names, "%s", entry->d_name);
		}
	closedir(dir);
	qsort(names, count, sizeof *names, by_name);
	return count;
}

static bool feed(const char *dir, const char *name)
{
	static uint8_t bytes[FILE_MAX_BYTES];
	char path[PATH_MAX];

	snprintf(path, sizeof path, "%s/%s", dir, name);
	FILE *file = fopen(path, "rbe");
	if (!file)
		return false;
	size_t len = fread(bytes, 1, sizeof bytes, file);
	bool whole = !ferror(file) && len < sizeof bytes;
	fclose(file);
	fprintf(stderr, "%s\n", path);
	for (size_t cut = len <= CUT_MAX_BYTES ? 0 : len; whole && cut <= len; cut++) {
		struct block block = block_of(bytes, cut);
		LLVMFuzzerTestOneInput((const uint8_t *)block.data, block.len);
		block_cleanup(&block);
	}
	return whole;
}

int main(int argc, char **argv)
{
	size_t of = 0, ran = 0;

	for (int i = 1; i < argc; i++) {
		size_t count = list(argv[i]);

		of += count;
		for (size_t j = 0; j < count; j++)
			ran += feed(argv[i], names[j]);
	}
	printf("ran %zu of %zu files\n", ran, of);
	return ran != of || of == 0;
}
