/* spawn.c: starting a command for events.
 *
 * The child runs in our memory while we stand still, until it executes the command: clone() as vfork() does it, on a
 * stack of its own. No page tables are copied, which for a small command is half of the time; and what goes wrong in
 * the child can be told by writing it down. posix_spawn() does the same but cannot ask for a signal at our death.
 *
 * All signals are blocked meanwhile, or a handler of ours would run in the child and believe itself at home. */
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define AGAIN_MS 200                 /* a second signal that soon is the first once more: timeout(1) sends two */
#define STACK_BYTES (64u * 1024u)
#define SHELL "/bin/sh"
#define PATH_DEFAULT "/usr/local/bin:/usr/bin:/bin"

/* ---- looking it up --------------------------------------------------------------------------------------------- */

/* 0, or errno of why it cannot be executed. */
static int can_execute(const char *path)
{
	struct stat status;

	if (stat(path, &status))
		return errno;
	if (S_ISDIR(status.st_mode))
		return EISDIR;
	return !S_ISREG(status.st_mode) || faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) ? EACCES : 0;
}

static enum evbus_code unfit(struct call *call, const char *path, int reason)
{
	errno = reason;
	return fail_errno(call, EVBUS_CONFIG, "cannot execute '%s'", path);
}

/* As execvp() looks: the first that can be executed. One that cannot is told of if there is no other. */
static enum evbus_code search(struct call *call, const char *name, struct program *program)
{
	const char *directory = getenv("PATH");
	bool told = false;

	for (directory = directory ? directory : PATH_DEFAULT; directory;) {
		const char *colon = strchrnul(directory, ':');
		int len = (int)(colon - directory);
		char *path;

		if (asprintf(&path, "%.*s%s%s", len, directory, len ? "/" : "./", name) < 0)
			return fail_errno(call, EVBUS_AGAIN, "cannot look for '%s'", name);
		int reason = can_execute(path);
		if (!reason) {
			program->path = path;
			return EVBUS_OK;
		}
		if (reason != ENOENT && reason != ENOTDIR && !told)
			told = unfit(call, path, reason) != EVBUS_OK;
		free(path);
		directory = *colon ? colon + 1 : NULL;
	}
	return told ? EVBUS_CONFIG : fail(call, EVBUS_CONFIG, "cannot find '%s' in PATH", name);
}

static enum evbus_code find_path(struct call *call, const char *name, struct program *program)
{
	if (!name[0])
		return fail(call, EVBUS_CONFIG, "the command has an empty name");
	if (!strchr(name, '/'))
		return search(call, name, program);
	int reason = can_execute(name);
	if (reason)
		return unfit(call, name, reason);
	program->path = strdup(name);
	return program->path ? EVBUS_OK : fail_errno(call, EVBUS_AGAIN, "cannot look for '%s'", name);
}

/* A script without #! is run by the shell, as execvp() and every shell do. */
static enum evbus_code make_script(struct call *call, struct program *program)
{
	size_t count = 0;

	while (program->argv[count])
		count++;
	program->script = calloc(count + 2, sizeof *program->script);
	if (!program->script)
		return fail_errno(call, EVBUS_AGAIN, "cannot prepare '%s'", program->path);
	program->script[0] = "sh";
	program->script[1] = program->path;
	for (size_t i = 1; i < count; i++)
		program->script[i + 1] = program->argv[i];
	return EVBUS_OK;
}

enum evbus_code program_find(struct call *call, const char *const *argv, struct program *program)
{
	struct program found = { .argv = argv };

	enum evbus_code code = find_path(call, argv[0], &found);
	if (!code)
		code = make_script(call, &found);
	if (code) {
		program_cleanup(&found);
		return code;
	}
	/* Whoever started us may have told the kernel to reap children by itself: then nobody learns how they ended. */
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&found.reset);
	for (int number = 1; number < NSIG; number++) {
		struct sigaction action;

		if (!sigaction(number, NULL, &action) && action.sa_handler != SIG_DFL)
			sigaddset(&found.reset, number);
	}
	*program = found;
	return EVBUS_OK;
}

void program_cleanup(struct program *program)
{
	free(program->path);
	free(program->script);
	*program = (struct program){ .argv = NULL };
}

/* ---- the child ------------------------------------------------------------------------------------------------- */

struct start {
	const struct program *program;
	char *const *environment;
	int fds[3];                  /* its stdin, stdout and stderr; -1: ours */
	pid_t parent;
	int failed;                  /* errno, written by the child */
};

static int child_prepare(const struct start *start)
{
	const struct sigaction by_default = { .sa_handler = SIG_DFL };
	sigset_t none;

	for (int number = 1; number < NSIG; number++)
		if (sigismember(&start->program->reset, number) == 1)
			sigaction(number, &by_default, NULL);
	if (setpgid(0, 0) || prctl(PR_SET_PDEATHSIG, SIGTERM))
		return -1;
	for (int fd = 0; fd < 3; fd++)
		if (start->fds[fd] >= 0 && dup2(start->fds[fd], fd) < 0)
			return -1;
	sigemptyset(&none);
	return sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Runs in our memory: no heap, no stdio, nothing that is not put back. What it returns it exits with, clone(2). */
static int child_main(void *context)
{
	struct start *start = context;
	const struct program *program = start->program;

	if (!child_prepare(start)) {
		if (getppid() != start->parent) /* it died before we asked to be told */
			return 127;
		execve(program->path, (char *const *)program->argv, start->environment);
		if (errno == ENOEXEC)
			execve(SHELL, (char *const *)program->script, start->environment);
	}
	start->failed = errno;
	return 127;
}

/* ---- the parent ------------------------------------------------------------------------------------------------ */

bool child_has_written(const struct child *child)
{
	struct pollfd fd = { .fd = child->out, .events = POLLIN };

	return poll(&fd, 1, 0) > 0;
}

void child_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Their ends block as pipes of a shell do, ours do not. reading: we read, they write. */
static int make_pipe(bool reading, int *ours, int *theirs)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC))
		return -1;
	*ours = fds[reading ? 0 : 1];
	*theirs = fds[reading ? 1 : 0];
	return fcntl(*ours, F_SETFL, O_NONBLOCK);
}

static int make_pipes(struct child *child, enum spawn_stdout out, int theirs[3])
{
	if (make_pipe(false, &child->in, &theirs[0]) || make_pipe(true, &child->err, &theirs[2]))
		return -1;
	return out == STDOUT_PIPE ? make_pipe(true, &child->out, &theirs[1]) : 0;
}

static int start_child(struct start *start, struct child *child)
{
	static _Alignas(16) char stack[STACK_BYTES];
	sigset_t all, before;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	int pid = clone(child_main, stack + sizeof stack, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, start,
			&child->pidfd);
	int sys_errno = errno;
	sigprocmask(SIG_SETMASK, &before, NULL);
	errno = sys_errno;
	child->pid = pid < 0 ? 0 : pid;
	return pid < 0 ? -1 : 0;
}

static enum evbus_code cannot_start(struct call *call, const char *path, int reason)
{
	bool later = reason == EAGAIN || reason == ENOMEM || reason == EMFILE || reason == ENFILE || reason == ETXTBSY;

	if (reason == ENOENT && !can_execute(path))
		return fail(call, EVBUS_CONFIG, "cannot execute '%s': the interpreter that it names is not there",
			    path);
	errno = reason;
	return fail_errno(call, later ? EVBUS_AGAIN : EVBUS_CONFIG, "cannot execute '%s'", path);
}

enum evbus_code spawn(struct call *call, const struct program *program, char *const *environment, enum spawn_stdout out,
		      struct child *child)
{
	struct start start = {
		.program = program, .environment = environment, .fds = { -1, -1, -1 }, .parent = getpid()
	};
	struct child made = { .pidfd = -1, .in = -1, .out = -1, .err = -1 };
	int failed = 0, ignored;

	if (make_pipes(&made, out, start.fds) || start_child(&start, &made))
		failed = errno;
	for (int fd = 0; fd < 3; fd++)
		child_close(&start.fds[fd]);
	failed = failed ? failed : start.failed;
	if (failed) {
		child_reap(&made, &ignored);
		return cannot_start(call, program->path, failed);
	}
	*child = made;
	return EVBUS_OK;
}

void child_signal(const struct child *child, int number)
{
	if (child->pid)
		kill(-child->pid, number);
}

int child_reap(struct child *child, int *signal_number)
{
	int status = 0;

	*signal_number = 0;
	while (child->pid && waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
		continue;
	child_close(&child->pidfd);
	child_close(&child->in);
	child_close(&child->out);
	child_close(&child->err);
	child->pid = 0;
	if (WIFSIGNALED(status))
		*signal_number = WTERMSIG(status);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static bool has_ended(const struct child *child, int64_t wait_ms)
{
	struct pollfd ended = { .fd = child->pidfd, .events = POLLIN };
	int64_t until = monotonic_ms() + wait_ms, left = wait_ms;
	int n;

	while ((n = poll(&ended, 1, (int)left)) < 0 && errno == EINTR)
		left = until > monotonic_ms() ? until - monotonic_ms() : 0;
	return n != 0;
}

enum child_ended child_end(struct child *child, int64_t wait_ms, int *status, int *signal_number)
{
	enum child_ended how = ENDED_BY_ITSELF;

	if (child->pid && !has_ended(child, wait_ms)) {
		child_signal(child, SIGTERM);
		how = has_ended(child, KILL_MS) ? ENDED_BY_SIGTERM : ENDED_BY_SIGKILL;
		child_signal(child, SIGKILL); /* where it has ended: what it left behind goes with it */
	}
	*status = child_reap(child, signal_number);
	return how;
}

int timeout_to(int64_t until)
{
	int64_t left = until == NEVER ? -1 : until - monotonic_ms();

	if (until != NEVER && left < 0)
		return 0;
	return left < INT32_MAX ? (int)left : INT32_MAX;
}

void stop_now(struct stop *stop)
{
	if (stop->at_ms == NEVER)
		stop->at_ms = monotonic_ms();
}

void stop_look(struct stop *stop)
{
	char drain[64];

	while (read(stop_fd(), drain, sizeof drain) > 0)
		continue;
	if (stopped() && stop->at_ms != NEVER && monotonic_ms() - stop->at_ms > AGAIN_MS)
		stop->at_once = true;
	if (stopped())
		stop_now(stop);
}

bool status_is_wrong_command(int status)
{
	return status == 64 || status == 78 || status == 126 || status == 127;
}
