/* program.c: what talk.c of the program refers to, and no fuzzer calls: with it would come all commands. */
#include "../../cmd/opt.h"
#include "../../cmd/report.h"

#include <string.h>

struct name name_of(const char *member)
{
	struct name name = { "" };

	memcpy(name.text, member, strnlen(member, sizeof name.text - 1));
	return name;
}

const char *status_meaning(enum evbus_code code)
{
	(void)code;
	return "";
}
