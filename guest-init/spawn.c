#include "guest-init/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* The child borrows the agent's memory: no sanitizer may keep notes about its stack there. */
#define child_code __attribute__((no_sanitize("address", "undefined"), noinline))

#define STACK_SIZE (64 * 1024)

/* Linux's own size of a signal set. */
#define KERNEL_SIGSET 8

static _Alignas(16) unsigned char stack[STACK_SIZE];

/* clone3() as the kernel knows it since 5.7; C libraries disagree about the header. */
struct clone3_args {
	uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
	uint64_t set_tid, set_tid_size, cgroup;
};

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP UINT64_C(0x200000000)
#endif

/*
 * In the child @fn(@arg) runs on the new stack and never returns; a C call couldn't: its frame is
 * the parent's.
 */
static long clone3_call(struct clone3_args *args, void (*fn)(void *), void *arg)
{
	register void (*r8)(void *) __asm__("r8") = fn;
	register void *r9 __asm__("r9") = arg;
	long ret;

	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "mov %%r9, %%rdi\n\t"
			 "call *%%r8\n\t"
			 "hlt\n"
			 "1:"
			 : "=a"(ret)
			 : "0"((long)SYS_clone3), "D"(args), "S"(sizeof(*args)), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

static child_code _Noreturn void child_fail(struct spawn *s, enum spawn_stage stage)
{
	s->stage = stage;
	s->err = errno;
	_exit(127);
}

static child_code int child_fds(const struct spawn *s)
{
	/* All of the agent's have the flag already; this is for what somebody else left open. */
	syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC);
	for (int i = 0; i < 3; i++)
		if (dup2(s->fd[i], i) < 0)
			return -1;
	return s->tty ? ioctl(0, TIOCSCTTY, 0) : 0;
}

/* System calls rather than the library's functions, which would tell the other threads. */
static child_code int child_ids(const struct spawn *s)
{
	if (!s->set_ids)
		return 0;
	if (syscall(SYS_setgroups, s->ngroups, s->groups) ||
		syscall(SYS_setresgid, s->gid, s->gid, s->gid))
		return -1;
	return (int)syscall(SYS_setresuid, s->uid, s->uid, s->uid);
}

/* exec, and like a shell the same file as a script if it has no "#!". Returns with errno. */
static child_code void child_exec(const struct spawn *s, char *file)
{
	char *name = s->argv[0];

	execve(file, s->argv, s->envp);
	if (errno != ENOEXEC)
		return;
	s->argv[-1] = "/bin/sh";
	s->argv[0] = file;
	execve("/bin/sh", s->argv - 1, s->envp);
	s->argv[0] = name;
	errno = ENOEXEC;
}

/* One entry of PATH; an empty one is the working directory. false: the path is too long. */
static child_code bool candidate(char *file, const char *dir, size_t len, const char *name)
{
	size_t n = strlen(name);

	if (len + n + 2 > PATH_MAX)
		return false;
	memcpy(file, dir, len);
	if (len)
		file[len++] = '/';
	memcpy(file + len, name, n + 1);
	return true;
}

/* execvp(3) with another PATH than ours. Returns with errno. */
static child_code void child_exec_path(const struct spawn *s)
{
	const char *dir = s->path, *end;
	char file[PATH_MAX];
	int err = ENOENT;

	for (;; dir = end + 1) {
		end = strchrnul(dir, ':');
		if (candidate(file, dir, (size_t)(end - dir), s->argv[0])) {
			child_exec(s, file);
			if (errno == EACCES)
				err = EACCES; /* unless a later one works */
			else if (errno != ENOENT && errno != ENOTDIR && errno != ENODEV &&
				 errno != ESTALE && errno != ETIMEDOUT && errno != ENAMETOOLONG)
				return;
		}
		if (!*end)
			break;
	}
	errno = err;
}

static child_code void child_main(void *arg)
{
	struct spawn *s = arg;
	uint64_t no_signals = 0;

	if (setsid() < 0 || child_fds(s))
		child_fail(s, SPAWN_SETUP);
	umask(022);
	if (prlimit(0, RLIMIT_NOFILE, &s->nofile, NULL) || child_ids(s))
		child_fail(s, SPAWN_SETUP);
	if (chdir(s->cwd) && (!s->cwd_optional || chdir("/")))
		child_fail(s, SPAWN_CWD);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &no_signals, NULL, KERNEL_SIGSET);
	if (!s->argv[0][0])
		errno = ENOENT;
	else if (strchr(s->argv[0], '/'))
		child_exec(s, s->argv[0]);
	else
		child_exec_path(s);
	child_fail(s, SPAWN_EXEC);
}

int spawn_run(struct spawn *s, pid_t *ret)
{
	struct clone3_args args = {
		.flags = CLONE_VM | CLONE_VFORK,
		.exit_signal = SIGCHLD,
		.stack = (uint64_t)(uintptr_t)stack,
		.stack_size = STACK_SIZE,
	};
	long pid;

	if (s->cgroup_fd >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)s->cgroup_fd;
	}
	s->stage = SPAWN_OK;
	s->err = 0;
	pid = clone3_call(&args, child_main, s);
	if (pid < 0) {
		s->stage = SPAWN_CLONE;
		s->err = (int)-pid;
		return -s->err;
	}
	if (s->stage == SPAWN_OK) {
		*ret = (pid_t)pid;
		return 0;
	}
	while (waitpid((pid_t)pid, NULL, 0) < 0 && errno == EINTR)
		;
	return -s->err;
}
