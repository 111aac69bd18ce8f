#include "base/process.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/confine_int.h"
#include "base/fdpass.h"

#define NOFILE_MAX    8192 /* > LOOP_FILES_MAX: io_uring wants its table within the limit */
#define OOM_SCORE_ADJ 300  /* a sandbox goes before what the user works with */
#define HIGH_FD       PROCESS_FDS_MAX

/* Steps whose failure means that namespaces are not allowed. */
#define WHAT_CLONE "clone"
#define WHAT_MAP   "mapping its user"
#define WHAT_USER  "becoming its user"
#define WHAT_MOUNT "mount"

static int exe_fd = -1, null_fd = -1;

/* What the child needs to know; filled before the clone, on the parent's stack, copied with it. */
struct child {
	const struct process_spec *spec;
	enum confine_level level;
	bool probe;    /* try what confine_enter() will do instead of an exec */
	int sock;      /* to the parent */
	int parent_fd; /* pidfd of the parent, or -1 */
};

/* Parent -> child, once its ids are mapped. */
struct go {
	char arg[CONFINE_ARG_MAX];
	bool become_root; /* the namespace's: its ids are not those the child has */
};

/* Child -> parent: what failed. End of file instead means that the exec succeeded. */
struct report {
	int err;
	char what[32];
};

int process_init(struct error *e)
{
	if (exe_fd >= 0)
		return 0;
	exe_fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);
	if (exe_fd < 0)
		return error_set(e, errno, "/proc/self/exe: %s; mount /proc", strerror(errno));
	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null_fd < 0) {
		int err = errno;

		close_fd(&exe_fd);
		return error_set(e, err, "/dev/null: %s", strerror(err));
	}
	return 0;
}

/* ---- the child: copy of a process that may have threads, so nothing but system calls ---- */

static _Noreturn void child_fail(const struct child *c, const char *what, int err)
{
	struct report rep = { .err = err };

	strncpy(rep.what, what, sizeof(rep.what) - 1);
	/* If the parent is gone, so is the reason to report. */
	_exit(send(c->sock, &rep, sizeof(rep), MSG_NOSIGNAL) < 0 ? 126 : 127);
}

/* An exec resets handlers, but not what the supervisor, or its own parent, ignores. */
static void child_signals(void)
{
	struct sigaction dfl = { .sa_handler = SIG_DFL };
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		sigaction(sig, &dfl, NULL); /* fails for SIGKILL, SIGSTOP and the library's two */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void child_limits(const struct child *c)
{
	struct rlimit lim = { 0, 0 };

	if (setrlimit(RLIMIT_CORE, &lim))
		child_fail(c, "setrlimit(RLIMIT_CORE)", errno);
	if (getrlimit(RLIMIT_NOFILE, &lim))
		child_fail(c, "getrlimit(RLIMIT_NOFILE)", errno);
	lim.rlim_max = MIN(lim.rlim_max, NOFILE_MAX);
	lim.rlim_cur = lim.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &lim))
		child_fail(c, "setrlimit(RLIMIT_NOFILE)", errno);
}

/* Raise it, if it isn't higher already; a /proc that can't be written leaves it as it is. */
static void child_oom_score(void)
{
	int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
	char text[16] = "";

	if (fd < 0)
		return;
	if (read(fd, text, sizeof(text) - 1) > 0 && atoi(text) < OOM_SCORE_ADJ) {
		int n = snprintf(text, sizeof(text), "%d", OOM_SCORE_ADJ);

		if (pwrite(fd, text, (size_t)n, 0) < 0)
			text[0] = 0; /* not vital */
	}
	close(fd);
}

/* Put spec->fds at 0.., everything else above and marked to be closed by the exec. */
static void child_fds(struct child *c, int *exe)
{
	const struct process_spec *s = c->spec;
	int high[PROCESS_FDS_MAX];

	for (unsigned i = 0; i < s->nfds; i++) {
		high[i] = fcntl(s->fds[i] < 0 ? null_fd : s->fds[i], F_DUPFD_CLOEXEC, HIGH_FD);
		if (high[i] < 0)
			child_fail(c, "duplicating a descriptor", errno);
	}
	c->sock = fcntl(c->sock, F_DUPFD_CLOEXEC, HIGH_FD);
	*exe = fcntl(exe_fd, F_DUPFD_CLOEXEC, HIGH_FD);
	if (c->sock < 0 || *exe < 0)
		child_fail(c, "duplicating a descriptor", errno);
	for (unsigned i = 0; i < s->nfds; i++)
		if (dup2(high[i], (int)i) < 0)
			child_fail(c, "dup2", errno);
	if (syscall(SYS_close_range, s->nfds, ~0U, 4 /* CLOSE_RANGE_CLOEXEC */))
		child_fail(c, "close_range", errno);
}

/* From here on the parent's end is ours; it may have come before. */
static void child_die_with_parent(const struct child *c)
{
	struct pollfd p = { .fd = c->parent_fd, .events = POLLIN };

	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
		child_fail(c, "PR_SET_PDEATHSIG", errno);
	if (poll(&p, 1, 0))
		_exit(1);
}

static _Noreturn void child_exec(struct child *c, const char *arg)
{
	const struct process_spec *s = c->spec;
	char *argv[] = { (char *)s->argv0, (char *)s->name, (char *)arg, NULL };
	char *envp[] = { NULL };
	int exe;

	child_fds(c, &exe);
	syscall(SYS_execveat, exe, "", argv, envp, AT_EMPTY_PATH);
	child_fail(c, "exec", errno);
}

static _Noreturn void child_main(struct child *c)
{
	struct go go;
	int r;

	child_signals();
	child_limits(c);
	child_oom_score();
	umask(077);
	if (setsid() < 0)
		child_fail(c, "setsid", errno);
	if (chdir("/"))
		child_fail(c, "chdir /", errno);
	do
		r = (int)recv(c->sock, &go, sizeof(go), 0);
	while (r < 0 && errno == EINTR);
	if (r != (int)sizeof(go))
		_exit(1); /* the parent died or gave up */
	if (go.become_root) {
		r = confine_ids_set(0, 0);
		if (r)
			child_fail(c, WHAT_USER, -r);
	}
	if (c->level >= CONFINE_ROOT) {
		r = confine_root_private();
		if (r)
			child_fail(c, WHAT_MOUNT, -r);
	}
	if (c->probe) {
		r = c->level >= CONFINE_ROOT ? confine_root_empty(NULL) : 0;
		child_fail(c, WHAT_MOUNT, -r);
	}
	if (c->spec->die_with_parent)
		child_die_with_parent(c);
	child_exec(c, go.arg);
}

/* ---- the parent ---- */

/* Not clone3(), which container runtimes refuse because their filters can't see its flags. */
static pid_t clone_child(uint64_t flags, int *ret_pidfd)
{
	return (pid_t)syscall(SYS_clone, flags | CLONE_PIDFD | SIGCHLD, NULL, ret_pidfd, NULL, 0);
}

/* Choose the child's ids, map them if it has a user namespace, and let it go on. */
static int release(pid_t pid, const struct child *c, int sock)
{
	static const int setids[] = { CAP_SETUID, CAP_SETGID };
	struct confine_arg a = {
		.level = c->level,
		.die_with_parent = c->spec->die_with_parent,
		.uid = geteuid(),
		.gid = getegid(),
	};
	struct go go = { 0 };
	bool own = true;
	int r = 0;

	if (c->level != CONFINE_NONE && confine_caps_have(setids, ARRAY_SIZE(setids))) {
		r = confine_ids_pick(pid, &a.uid, &a.gid);
		own = a.uid == geteuid();
	}
	if (r)
		return r;
	if (c->level == CONFINE_FULL) {
		r = confine_map_ids(pid, a.uid, a.gid);
		if (r)
			return r;
		go.become_root = !own;
	} else {
		a.set_ids = !own;
	}
	confine_arg_format(go.arg, &a);
	return fdpass_send(sock, &go, sizeof(go), NULL, 0);
}

static int await_exec(int sock, struct report *rep)
{
	ssize_t n;

	do
		n = recv(sock, rep, sizeof(*rep), 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (n == 0)
		return 0;
	if (n != (ssize_t)sizeof(*rep))
		return -EPROTO;
	rep->what[sizeof(rep->what) - 1] = 0;
	return rep->err ? -rep->err : 0;
}

static pid_t clone_blocked(uint64_t flags, int *ret_pidfd, struct child *c, int parent_end)
{
	sigset_t all, old;
	pid_t pid;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pid = clone_child(flags, ret_pidfd);
	if (!pid) {
		close(parent_end);
		child_main(c);
	}
	err = errno;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	errno = err;
	return pid;
}

/* One attempt at one level. On failure @rep says at what; -errno. */
static int attempt(struct process *ret, struct child *c, struct report *rep)
{
	struct process p = { .level = c->level, .pidfd = -1 };
	autoclose int parent_fd = -1, ours = -1, theirs = -1;
	int pair[2], r;

	*rep = (struct report){ .what = "socketpair" };
	r = fdpass_pair(pair, false);
	if (r)
		return r;
	ours = pair[0];
	c->sock = theirs = pair[1];
	if (c->spec->die_with_parent) {
		*rep = (struct report){ .what = "pidfd_open" };
		parent_fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
		if (parent_fd < 0)
			return -errno;
	}
	c->parent_fd = parent_fd;
	*rep = (struct report){ .what = WHAT_CLONE };
	p.pid = clone_blocked(confine_ns_flags(c->level), &p.pidfd, c, ours);
	if (p.pid < 0)
		return -errno;
	close_fd(&theirs);
	*rep = (struct report){ .what = WHAT_MAP };
	r = release(p.pid, c, ours);
	if (!r || r == -EPIPE) /* it may have failed before it was let go */
		r = await_exec(ours, rep);
	if (r || c->probe)
		process_end(&p);
	if (!r)
		*ret = p;
	return r;
}

/* Does the failure mean that the kernel or a policy doesn't allow namespaces? */
static bool refused(int err, const struct report *rep)
{
	if (!strcmp(rep->what, WHAT_CLONE))
		return err == EPERM || err == EACCES || err == ENOSPC || err == EUSERS ||
		       err == EINVAL || err == ENOSYS;
	return !strcmp(rep->what, WHAT_MAP) || !strcmp(rep->what, WHAT_USER) ||
	       !strcmp(rep->what, WHAT_MOUNT);
}

/* Level root needs what root usually has, and a container's root often hasn't. */
static bool possible(enum confine_level level)
{
	static const int caps[] = { CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID, CAP_SETPCAP };

	return level != CONFINE_ROOT || confine_caps_have(caps, ARRAY_SIZE(caps));
}

/* From @best downwards; @why is set when a level was refused. */
static int descend(struct process *ret, const struct process_spec *spec, bool probe,
	struct error *why, struct error *e)
{
	int least = MAX((int)spec->least, spec->best ? CONFINE_BASIC : CONFINE_NONE);

	for (int level = (int)spec->best; level >= least; level--) {
		struct child c = {
			.spec = spec, .level = (enum confine_level)level, .probe = probe
		};
		struct report rep;
		int r;

		if (!possible(c.level))
			continue;
		r = attempt(ret, &c, &rep);
		if (!r)
			return 0;
		if (level <= CONFINE_BASIC || !refused(-r, &rep))
			return error_set(
				e, -r, "starting %s: %s: %s", spec->argv0, rep.what, strerror(-r));
		if (!why->code)
			confine_ns_why(-r, why);
	}
	return error_set(e, EPERM, "starting %s: confinement level '%s' is required, but %s",
		spec->argv0, confine_level_name(spec->least),
		why->code ? why->msg : "this user lacks the capabilities for it");
}

int process_spawn(struct process *ret, const struct process_spec *spec, struct error *e)
{
	struct error why = { 0 };

	assert(exe_fd >= 0 && spec->nfds >= 3 && spec->nfds <= PROCESS_FDS_MAX);
	return descend(ret, spec, false, &why, e);
}

enum confine_level process_best_level(struct error *why)
{
	static const int fds[] = { -1, -1, -1 };
	const struct process_spec spec = {
		.argv0 = "a trial",
		.fds = fds,
		.nfds = ARRAY_SIZE(fds),
		.best = CONFINE_FULL,
		.least = CONFINE_BASIC,
	};
	struct process p;
	struct error reason = { 0 };

	if (descend(&p, &spec, true, &reason, why))
		return CONFINE_NONE;
	if (why && reason.code)
		*why = reason;
	return p.level;
}

int process_kill(const struct process *p, int sig)
{
	return syscall(SYS_pidfd_send_signal, p->pidfd, sig, NULL, 0) ? -errno : 0;
}

int process_reap(struct process *p, bool block, int *ret_status)
{
	siginfo_t si = { 0 };
	int r;

	assert(p->pidfd >= 0);
	do
		r = waitid(P_PIDFD, (id_t)p->pidfd, &si, WEXITED | (block ? 0 : WNOHANG));
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return -errno;
	if (!si.si_pid)
		return 0;
	close_fd(&p->pidfd);
	if (si.si_code == CLD_EXITED)
		*ret_status = W_EXITCODE(si.si_status, 0);
	else
		*ret_status =
			W_EXITCODE(0, si.si_status) | (si.si_code == CLD_DUMPED ? WCOREFLAG : 0);
	return 1;
}

void process_end(struct process *p)
{
	int status;

	if (!p || p->pidfd < 0)
		return;
	process_kill(p, SIGKILL);
	if (process_reap(p, true, &status) < 0)
		close_fd(&p->pidfd); /* somebody else reaped it: SIGCHLD is ignored */
}
