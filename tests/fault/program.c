/* program.c: see program.h. */
#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define WORDS_MAX 40u

static struct {
	const char *in, *out, *words;
	bool traced;
} next;

static void redirect(const char *path, int flags, int to)
{
	int fd = open(path ? path : "/dev/null", flags | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && dup2(fd, to) == to, "cannot open %s", path);
}

static const char *program_path(void)
{
	static char path[PATH_MAX + 32];
	const char *given = getenv("EVBUS");

	if (given)
		return given;
	ssize_t len = readlink("/proc/self/exe", path, PATH_MAX);
	path[len > 0 ? len : 0] = '\0';
	char *slash = strrchr(path, '/');
	snprintf(slash, sizeof path - (size_t)(slash - path), "/../../cmd/evbus");
	return path;
}

/* The leak sanitizer does not work on a process that is traced. */
static void set_environment(void)
{
	char options[400];
	const char *before = getenv("ASAN_OPTIONS");

	setenv("EVBUS_BUS", "file:bus", 1);
	setenv("EVBUS_CONFIG", "/dev/null", 1);
	snprintf(options, sizeof options, "%s%sdetect_leaks=0", before ? before : "", before ? ":" : "");
	if (next.traced)
		setenv("ASAN_OPTIONS", options, 1);
}

static void become_program(unsigned index)
{
	char words[1000], *argv[WORDS_MAX] = { (char[]){ "evbus" } }, *rest;
	unsigned count = 1;
	(void)index;

	snprintf(words, sizeof words, "%s", next.words);
	for (char *word = strtok_r(words, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
		CHECK(count < WORDS_MAX - 1, "too many words");
		argv[count++] = word;
	}
	redirect(next.in, O_RDONLY, 0);
	redirect(next.out, O_WRONLY | O_CREAT | O_TRUNC, 1);
	redirect("said", O_WRONLY | O_CREAT | O_APPEND, 2);
	set_environment();
	const char *path = program_path();
	if (next.traced) {
		CHECK(!ptrace(PTRACE_TRACEME, 0, NULL, NULL), "ptrace: %s", strerror(errno));
		raise(SIGSTOP);
	}
	execv(path, argv);
	run_failed(__FILE__, __LINE__, "cannot run '%s': %s", path, strerror(errno));
}

static pid_t start(bool traced, const char *in, const char *out, const char *words)
{
	next.in = in;
	next.out = out;
	next.words = words;
	next.traced = traced;
	return child_start(become_program, 0);
}

pid_t program_start(const char *in, const char *out, const char *words)
{
	return start(false, in, out, words);
}

const char *program_read(const char *path)
{
	static char text[100000];
	FILE *file = fopen(path, "r");
	size_t len = file ? fread(text, 1, sizeof text - 1, file) : 0;

	text[len] = '\0';
	if (file)
		fclose(file);
	return text;
}

static int run_words(const char *in, const char *out, const char *words)
{
	CHECK(unlink("said") == 0 || errno == ENOENT, "cannot remove what was said");
	int status = child_reap(program_start(in, out, words));

	child_check();
	CHECK(WIFEXITED(status), "evbus %s: ended with status %x: %s", words, (unsigned)status, program_read("said"));
	return WEXITSTATUS(status);
}

int program_run(const char *in, const char *out, const char *format, ...)
{
	char words[1000];
	va_list args;

	va_start(args, format);
	vsnprintf(words, sizeof words, format, args);
	va_end(args);
	return run_words(in, out, words);
}

void program_must(int status, const char *in, const char *out, const char *format, ...)
{
	char words[1000];
	va_list args;

	va_start(args, format);
	vsnprintf(words, sizeof words, format, args);
	va_end(args);
	int found = run_words(in, out, words);
	CHECK(found == status, "evbus %s: status %d, not %d: %s", words, found, status, program_read("said"));
}

/* ---- tracing --------------------------------------------------------------------------------------------------- */

static void ask_to_be_traced(unsigned index)
{
	(void)index;
	_exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) ? 1 : 0);
}

bool program_may_trace(void)
{
	return child_reap(child_start(ask_to_be_traced, 0)) == 0;
}

/* Locks die with their holder, and what is in a pipe with its reader. */
static bool changes_something(uint64_t call, uint64_t flags)
{
	static const long harmless[] = {
		SYS_access,       SYS_arch_prctl,     SYS_brk,         SYS_clock_gettime,   SYS_close,
		SYS_fcntl,        SYS_fstat,          SYS_fstatfs,     SYS_futex,           SYS_getcwd,
		SYS_geteuid,      SYS_getpid,         SYS_getrandom,   SYS_gettid,          SYS_getuid,
		SYS_ioctl,        SYS_lseek,          SYS_lstat,       SYS_madvise,         SYS_mmap,
		SYS_mprotect,     SYS_munmap,         SYS_newfstatat,  SYS_pipe2,           SYS_poll,
		SYS_pread64,      SYS_prlimit64,      SYS_read,        SYS_readlink,        SYS_rseq,
		SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_sched_yield, SYS_set_robust_list, SYS_set_tid_address,
		SYS_stat,         SYS_statfs,         SYS_statx,       SYS_sysinfo,         SYS_uname,
		SYS_wait4,        SYS_waitid
	};

	if (call == SYS_openat)
		return flags & O_CREAT;
	for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
		if (call == (uint64_t)harmless[i])
			return false;
	return true;
}

/* Whether it is a stop that counts. */
static bool is_call(pid_t pid, int status, enum traced_calls which)
{
	struct __ptrace_syscall_info info;

	if (WSTOPSIG(status) != (SIGTRAP | 0x80))
		return false;
	CHECK(ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info) > 0, "ptrace: %s", strerror(errno));
	return which == CALLS_ALL ||
	       (info.op == PTRACE_SYSCALL_INFO_ENTRY && changes_something(info.entry.nr, info.entry.args[2]));
}

/* What it is to be given of the signal that it stopped for. */
static int signal_of(int status)
{
	int stop = WSTOPSIG(status);

	return stop == (SIGTRAP | 0x80) || status >> 16 || stop == SIGSTOP ? 0 : stop;
}

static pid_t start_traced(const char *in, const char *out, const char *words)
{
	const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
	pid_t program = start(true, in, out, words);
	int status;

	CHECK(waitpid(program, &status, 0) == program && WIFSTOPPED(status) &&
		      !ptrace(PTRACE_SETOPTIONS, program, NULL, options),
	      "cannot trace: %s", strerror(errno));
	do {
		CHECK(!ptrace(PTRACE_SYSCALL, program, NULL, NULL) && waitpid(program, &status, 0) == program &&
			      WIFSTOPPED(status),
		      "evbus %s: did not begin: %x", words, (unsigned)status);
	} while (status >> 8 != (SIGTRAP | PTRACE_EVENT_EXEC << 8));
	return program;
}

/* Lets it go on, and waits until it or a thread of it stops or ends; in *status, which. */
static pid_t go_on(pid_t pid, int *status)
{
	/* It may be dying. */
	if (WIFSTOPPED(*status))
		ptrace(PTRACE_SYSCALL, pid, NULL, signal_of(*status));
	pid = waitpid(-1, status, __WALL);
	CHECK(pid > 0, "waitpid: %s", strerror(errno));
	return pid;
}

struct traced program_trace(unsigned n, enum traced_calls which, const char *in, const char *out, const char *words)
{
	struct traced traced = { .killed = false };
	pid_t program = start_traced(in, out, words), pid = program;
	int status = SIGSTOP << 8 | 0x7f;

	for (;;) {
		pid = go_on(pid, &status);
		if (pid == program && !WIFSTOPPED(status))
			break;
		if (!traced.killed && WIFSTOPPED(status) && is_call(pid, status, which) && ++traced.calls == n)
			traced.killed = kill(program, SIGKILL) == 0;
	}
	child_forget(program);
	child_check();
	CHECK(!traced.killed || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL), "it was killed and has status %x",
	      (unsigned)status);
	CHECK(traced.killed || WIFEXITED(status), "evbus %s: status %x: %s", words, (unsigned)status,
	      program_read("said"));
	traced.status = traced.killed ? 0 : WEXITSTATUS(status);
	return traced;
}

pid_t program_stop(unsigned n, const char *in, const char *out, const char *words)
{
	pid_t program = start_traced(in, out, words), pid = program;
	int status = SIGSTOP << 8 | 0x7f;

	for (unsigned calls = 0; calls < n && pid == program && WIFSTOPPED(status);) {
		pid = go_on(pid, &status);
		calls += WIFSTOPPED(status) && is_call(pid, status, CALLS_THAT_CHANGE);
	}
	if (pid == program && WIFSTOPPED(status)) {
		CHECK(!kill(program, SIGSTOP) && !ptrace(PTRACE_DETACH, program, NULL, NULL) &&
			      waitpid(program, &status, WUNTRACED) == program,
		      "evbus %s: cannot be stopped", words);
		if (WIFSTOPPED(status))
			return program;
	}
	/* A thread is not to be let alone. */
	if (pid != program)
		kill(program, SIGKILL);
	while (pid != program || WIFSTOPPED(status))
		pid = go_on(pid, &status);
	child_forget(program);
	CHECK(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == EVBUS_AGAIN),
	      "evbus %s: status %x: %s", words, (unsigned)status, program_read("said"));
	return 0;
}
