/* Loading of modules: from one directory, of one ABI, and clear words where that fails. */
#include "base/module.h"
#include "scratch.h"

#include <elf.h>
#include <sys/stat.h>

static char built[PATH_MAX]; /* where the build puts modules */
static char scratch[64];
static char *image; /* libevbus-sqlite.so, to be bent */
static size_t image_size;
static struct evbus_err err;

static void read_image(void)
{
	char path[PATH_MAX + 32];
	struct stat st;

	snprintf(path, sizeof path, "%s/libevbus-sqlite.so", built);
	FILE *file = fopen(path, "rb");
	cr_assert(file && !fstat(fileno(file), &st), "%s", path);
	image_size = (size_t)st.st_size;
	image = malloc(image_size);
	cr_assert(image && fread(image, 1, image_size, file) == image_size);
	fclose(file);
}

static void setup(void)
{
	scratch_find_modules(built);
	scratch_enter(scratch);
	read_image();
}

static void teardown(void)
{
	free(image);
	scratch_leave(scratch);
}

TestSuite(module, .init = setup, .fini = teardown);

static void write_module(const char *dir, const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof path, "%s/libevbus-%s.so", dir, name);
	FILE *file = fopen(path, "wb");
	cr_assert(file && fwrite(image, 1, image_size, file) == image_size && !fclose(file));
}

static const Elf64_Shdr *sections_of_image(void)
{
	const Elf64_Ehdr *head = (const void *)image;

	return (const void *)(image + head->e_shoff);
}

static Elf64_Sym *entry_symbol(void)
{
	const Elf64_Shdr *sections = sections_of_image(), *symbols = sections;

	while (symbols->sh_type != SHT_DYNSYM)
		symbols++;
	const char *names = image + sections[symbols->sh_link].sh_offset;
	Elf64_Sym *symbol = (void *)(image + symbols->sh_offset);
	while (strcmp(names + symbol->st_name, "evbus_module") != 0)
		symbol++;
	return symbol;
}

/* Where in the image the bytes of evbus_module stand. */
static size_t entry_at(void)
{
	const Elf64_Sym *symbol = entry_symbol();
	const Elf64_Shdr *home = &sections_of_image()[symbol->st_shndx];

	return symbol->st_value - home->sh_addr + home->sh_offset;
}

static enum evbus_code load(const char *dir, const char *name)
{
	const struct evbus_module *module = NULL;
	enum evbus_code code = module_load(dir, "store", name, "libsqlite3-dev", &module, &err);

	cr_assert_eq(code == EVBUS_OK, module != NULL);
	return code;
}

Test(module, is_loaded_from_the_directory_that_is_given)
{
	const struct evbus_module *module = NULL;

	cr_assert_eq(module_load(built, "store", "sqlite", "libsqlite3-dev", &module, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(module->abi, EVBUS_MODULE_ABI);
	cr_assert_str_eq(module->name, "sqlite");
	cr_assert_not_null(module->ops);
}

Test(module, that_is_missing_names_the_package_to_install)
{
	char text[512];

	cr_assert_eq(load(scratch, "sqlite"), EVBUS_CONFIG);
	snprintf(text, sizeof text,
		 "the store 'sqlite' needs libevbus-sqlite.so in '%s': install evbus-sqlite (or build with libsqlite3-dev)",
		 scratch);
	cr_assert_str_eq(err.text, text);
}

Test(module, is_looked_for_neither_in_the_library_path_nor_in_the_working_directory)
{
	/* Core is part of this program here: beside the library is beside the program, and no module lies there. */
	write_module(scratch, "sqlite");
	cr_assert(!setenv("LD_LIBRARY_PATH", scratch, 1));
	cr_assert_eq(load(NULL, "sqlite"), EVBUS_CONFIG);
	cr_assert_not(strstr(err.text, scratch), "%s", err.text);
}

Test(module, is_not_loaded_from_a_relative_directory)
{
	write_module(scratch, "sqlite");
	cr_assert_eq(load(".", "sqlite"), EVBUS_BUG);
}

Test(module, of_another_abi_is_refused_with_both_numbers)
{
	uint32_t abi = 7654321;
	char ours[32];

	memcpy(image + entry_at(), &abi, sizeof abi);
	write_module(scratch, "sqlite");
	cr_assert_eq(load(scratch, "sqlite"), EVBUS_CONFIG);
	snprintf(ours, sizeof ours, "has ABI %u:", EVBUS_MODULE_ABI);
	cr_assert(strstr(err.text, "module ABI 7654321") && strstr(err.text, ours), "%s", err.text);
}

Test(module, of_another_name_is_refused)
{
	write_module(scratch, "postgres");
	cr_assert_eq(load(scratch, "postgres"), EVBUS_CONFIG);
	cr_assert(strstr(err.text, "is the module 'sqlite', not 'postgres'"), "%s", err.text);
}

Test(module, without_its_entry_is_refused)
{
	/* It is called vbus_module now. Under a sanitizer the linker misses it even before we do. */
	entry_symbol()->st_name++;
	write_module(scratch, "sqlite");
	cr_assert_eq(load(scratch, "sqlite"), EVBUS_CONFIG);
	cr_assert(strstr(err.text, "is not a module of evbus") || strstr(err.text, "undefined symbol"), "%s", err.text);
}

Test(module, that_is_no_shared_object_is_refused)
{
	image_size = 100;
	write_module(scratch, "sqlite");
	cr_assert_eq(load(scratch, "sqlite"), EVBUS_CONFIG);
	cr_assert(strstr(err.text, "cannot load the store 'sqlite'"), "%s", err.text);
}
