/* main.c: finds the command, parses its options, runs it, reports.
 *
 * This is the only place where an error is printed and where the process ends. */
#include "doc.h"
#include "opt.h"
#include "out.h"
#include "process.h"
#include "report.h"

#include <errno.h>
#include <stdlib.h>

static enum evbus_code run(struct call *call, int argc, char **argv)
{
	static _Alignas(max_align_t) char args[ARGS_MAX_BYTES];
	int words = command_find(call, argc, argv);

	if (!words)
		return call->err.code;
	call->common = (struct common *)args;
	TRY(opt_parse(call, args, argc - words, argv + words));
	if (call->common->help)
		return doc_help(call, call->command);
	TRY(bus_take_options(call));
	return call->command->run(args, call);
}

/* What was printed and not yet written is written whatever happened, for it may be receipts. A reader that has gone
 * away had enough, unless what we print is a promise. */
static enum evbus_code finish(struct call *call, enum evbus_code code)
{
	struct evbus_err first = call->err;
	enum evbus_code written = out_finish(call);

	if (out_is_closed() && call->command && !call->command->must_print) {
		written = EVBUS_OK;
		if (code == EVBUS_IO && first.sys_errno == EPIPE)
			code = EVBUS_OK;
	}
	if (code) {
		call->err = first;
		return code;
	}
	return written;
}

int main(int argc, char **argv)
{
	static struct common nobody; /* until the options are known */
	struct call call = { .common = &nobody, .about.partition_id = -1 };

	process_begin();
	enum evbus_code code = run(&call, argc, argv);
	code = finish(&call, code);
	if (code && !(stopped() && call.err.sys_errno == EINTR))
		report(&call, code);
	free(call.url);
	evbus_config_close(call.config);
	return process_end(code);
}
