/* progress.c: how far it is, on a terminal. */
#include "out.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define REDRAW_MS 200

/* A notice may come from the thread of a publisher, hence the atomic. */
static atomic_bool hidden = true;

static const char *human(double bytes, char text[32])
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	size_t unit = 0;

	for (; bytes >= 1024 && unit + 1 < COUNT(units); unit++)
		bytes /= 1024;
	snprintf(text, 32, unit ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
	return text;
}

static void draw(const struct evbus_progress *progress, int64_t elapsed_ms)
{
	char done[32], total[32], rate[32], left[32] = "", line[256];
	double per_ms = (double)progress->bytes / (double)elapsed_ms;

	if (progress->bytes_total > progress->bytes && progress->bytes) {
		int64_t seconds = (int64_t)((double)(progress->bytes_total - progress->bytes) / per_ms / 1000.0);

		snprintf(left, sizeof left, ", %lld:%02lld left", (long long)(seconds / 60), (long long)(seconds % 60));
	}
	human((double)progress->bytes, done);
	human(per_ms * 1000.0, rate);
	human((double)progress->bytes_total, total);
	bool total_known = progress->bytes_total > 0;
	int n = snprintf(line, sizeof line, "\r\033[K%s%s%s, %s/s%s", done, total_known ? " of " : "",
			 total_known ? total : "", rate, left);
	atomic_store(&hidden, false);
	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		return; /* there is nobody to look */
}

bool progress_is_wanted(const struct call *call)
{
	return !call->common->quiet && strcmp(call->common->log, "json") && isatty(STDERR_FILENO);
}

void progress_show(struct call *call, const struct evbus_progress *progress)
{
	static int64_t began_ms, drawn_ms;
	static enum { ASK, NEVER, SHOW } whether;

	if (whether == ASK)
		whether = progress_is_wanted(call) ? SHOW : NEVER;
	if (whether == NEVER)
		return;
	int64_t now = monotonic_ms();
	began_ms = began_ms ? began_ms : now;
	drawn_ms = drawn_ms ? drawn_ms : now;
	if (now - drawn_ms < REDRAW_MS)
		return;
	drawn_ms = now;
	draw(progress, now - began_ms);
}

void progress_clear(void)
{
	static const char clear[] = "\r\033[K";

	if (!atomic_exchange(&hidden, true) && write(STDERR_FILENO, clear, sizeof clear - 1) < 0)
		return;
}
