#include "api/store/job.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/confine_int.h"
#include "base/file.h"

#define KILL_WAIT_MS  5000
#define NOT_FOUND     127
#define SBIN_FOLDERS  "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
#define NAMESPACES    (CLONE_NEWNS | CLONE_NEWPID)
#define CHILDREN_FILE "/proc/self/task/%d/children"

/* ---- asking to stop ---- */

int job_host_init(struct job_host *ret, struct error *e)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return error_set(e, errno, "signals: %s", strerror(errno));
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return error_set(e, errno, "signalfd: %s", strerror(errno));
	*ret = (struct job_host){ .signal_fd = fd };
	return 0;
}

bool job_stopped(struct job_host *h)
{
	struct signalfd_siginfo si;

	if (!h->caught && read(h->signal_fd, &si, sizeof(si)) == sizeof(si))
		h->caught = (int)si.ssi_signo;
	return h->caught != 0;
}

void job_sleep(struct job_host *h, unsigned ms)
{
	struct pollfd p = { .fd = h->signal_fd, .events = POLLIN };

	if (!job_stopped(h) && poll(&p, 1, (int)ms) < 0)
		return; /* EINTR: the caller's loop turns again */
}

/* ---- the keeper: the program's parent ---- */

/* What went wrong before the program ran; read by job_run(). */
struct failure {
	int err;
	char call[24];
};

struct keeper {
	const struct job *job;
	int out_fd;  /* the program's standard output and error */
	int go_fd;   /* a byte once the ids are mapped; hung up when our parent is gone */
	int fail_fd; /* struct failure; closed by the exec */
	bool is_namespaced;
};

static _Noreturn void give_up(const struct keeper *k, const char *call)
{
	struct failure f = { .err = errno };

	snprintf(f.call, sizeof(f.call), "%s", call);
	(void)!write(k->fail_fd, &f, sizeof(f));
	_exit(NOT_FOUND);
}

/* As a subreaper we inherit every orphan, so that this comes to an end. */
static void kill_descendants(void)
{
	char path[64];
	FILE *f;
	int pid;

	snprintf(path, sizeof(path), CHILDREN_FILE, (int)getpid());
	do {
		f = fopen(path, "re");
		while (f && fscanf(f, "%d", &pid) == 1)
			kill(pid, SIGKILL);
		if (f)
			fclose(f);
	} while (waitpid(-1, NULL, 0) > 0 || errno == EINTR);
}

static _Noreturn void exec_program(const struct keeper *k)
{
	const char *path = getenv("PATH");
	char all[8192];
	sigset_t none;

	snprintf(all, sizeof(all), "%s%s" SBIN_FOLDERS, path ? path : "", path ? ":" : "");
	if (setenv("PATH", all, 1) || setenv("LC_ALL", "C.UTF-8", 1) ||
		setenv("DEBIAN_FRONTEND", "noninteractive", 1) ||
		(k->job->tmpdir && setenv("TMPDIR", k->job->tmpdir, 1)))
		give_up(k, "setenv");
	umask(022);
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execvp(k->job->argv[0], (char *const *)(uintptr_t)k->job->argv);
	give_up(k, "exec");
}

static void keeper_set_up(const struct keeper *k)
{
	struct pollfd parent = { .fd = k->go_fd };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	char go;

	if (read(k->go_fd, &go, 1) != 1)
		_exit(NOT_FOUND);
	if (k->is_namespaced && geteuid() && (setresgid(0, 0, 0) || setresuid(0, 0, 0)))
		give_up(k, "setresuid");
	/* Changing ids cleared it, so that it comes last. */
	if (prctl(PR_SET_PDEATHSIG, SIGTERM) || prctl(PR_SET_CHILD_SUBREAPER, 1))
		give_up(k, "prctl");
	if (poll(&parent, 1, 0) > 0)
		_exit(NOT_FOUND);
	/* EINVAL: the root is no mount but a chroot; then what is mounted below it is undone by who mounts it. */
	if (k->is_namespaced && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
		errno != EINVAL)
		give_up(k, "mount");
	setsid();
	if (null < 0 || dup2(null, 0) < 0 || dup2(k->out_fd, 1) < 0 || dup2(k->out_fd, 2) < 0)
		give_up(k, "dup2");
}

/* Waits for the program, or to be told to end. */
static int keeper_wait(pid_t program)
{
	sigset_t set;
	int status;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	for (;;) {
		pid_t pid = waitpid(-1, &status, WNOHANG);

		if (pid == program && (WIFEXITED(status) || WIFSIGNALED(status)))
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		if (pid > 0)
			continue;
		if (sigwaitinfo(&set, NULL) == SIGTERM)
			return 128 + SIGTERM;
	}
}

static _Noreturn void keeper_main(const struct keeper *k)
{
	sigset_t all;
	pid_t program;
	int status;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	keeper_set_up(k);
	program = fork();
	if (program < 0)
		give_up(k, "fork");
	if (!program)
		exec_program(k);
	close(k->fail_fd);
	close(k->out_fd);
	close(1);
	close(2);
	status = keeper_wait(program);
	if (getpid() == 1)
		_exit(status); /* the kernel kills the rest of the namespace */
	kill_descendants();
	_exit(status);
}

/* ---- this process ---- */

struct run {
	struct job_host *host;
	const struct job *job;
	pid_t keeper;
	int go_fd, fail_fd, out_fd;
	char line[JOB_LINE_MAX];
	size_t len;
};

/* fork(2) into new namespaces. */
static pid_t fork_into(unsigned long flags)
{
	return (pid_t)syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL);
}

static int start(struct run *r, struct error *e)
{
	int out[2] = { -1, -1 }, go[2] = { -1, -1 }, fail[2] = { -1, -1 }, err = 0;
	struct keeper k = { .job = r->job };
	unsigned long flags = 0;

	if (pipe2(out, O_CLOEXEC) || pipe2(go, O_CLOEXEC) || pipe2(fail, O_CLOEXEC))
		err = errno;
	if (!err && r->job->own_root)
		flags = geteuid() ? NAMESPACES | CLONE_NEWUSER : NAMESPACES;
	k.is_namespaced = flags != 0;
	k.out_fd = out[1];
	k.go_fd = go[0];
	k.fail_fd = fail[1];
	r->keeper = err ? -1 : fork_into(flags);
	/* Root in a container without CAP_SYS_ADMIN: the program does without. */
	if (!err && r->keeper < 0 && errno == EPERM && flags && !geteuid()) {
		k.is_namespaced = false;
		r->keeper = fork_into(0);
	}
	if (!err && r->keeper < 0)
		err = errno;
	if (!r->keeper) {
		/* Held open by us, it would never tell of the parent's death. */
		close(go[1]);
		keeper_main(&k);
	}
	close_fd(&out[1]);
	close_fd(&go[0]);
	close_fd(&fail[1]);
	r->out_fd = out[0];
	r->go_fd = go[1];
	r->fail_fd = fail[0];
	if (err && (flags & CLONE_NEWUSER)) {
		confine_ns_why(err, e);
		return -err;
	}
	return err ? error_set(e, err, "%s: can't be started: %s", r->job->argv[0], strerror(err))
		   : 0;
}

static void on_output(struct run *r, const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (data[i] != '\n' && data[i] != '\r') {
			if (r->len < sizeof(r->line) - 1)
				r->line[r->len++] = data[i];
			continue;
		}
		r->line[r->len] = '\0';
		if (r->len)
			r->job->line(r->job->ctx, r->line);
		r->len = 0;
	}
}

/* Until the keeper is gone, or the user wants to stop. */
static void relay(struct run *r, int pidfd)
{
	struct pollfd p[] = { { .fd = r->out_fd, .events = POLLIN },
		{ .fd = r->host->signal_fd, .events = POLLIN }, { .fd = pidfd, .events = POLLIN } };
	char buf[4096];
	ssize_t n;

	while (!job_stopped(r->host)) {
		int ready = poll(p, ARRAY_SIZE(p), JOB_TICK_MS);

		if (!ready)
			r->job->line(r->job->ctx, NULL);
		if (ready <= 0)
			continue;
		n = p[0].revents ? read(r->out_fd, buf, sizeof(buf)) : 0;
		if (n > 0)
			on_output(r, buf, (size_t)n);
		else if (p[2].revents)
			break;
		else if (p[0].revents)
			p[0].fd = -1;
	}
	if (r->len)
		on_output(r, "\n", 1);
}

/* Exit status of the keeper, which is the program's; asked to end if it runs. */
static int finish(struct run *r, int pidfd, bool end)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	int status;

	if (end) {
		kill(r->keeper, SIGTERM);
		if (poll(&p, 1, KILL_WAIT_MS) == 0)
			kill(r->keeper, SIGKILL);
	}
	while (waitpid(r->keeper, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int explain(const struct job *job, const struct failure *f, struct error *e)
{
	if (!strcmp(f->call, "exec") && f->err == ENOENT)
		return error_set(e, ENOENT, "%s: is not installed; run: sudo apt-get install %s",
			job->argv[0], job->package);
	if (!strcmp(f->call, "mount") || !strcmp(f->call, "setresuid")) {
		confine_ns_why(f->err, e);
		return -f->err;
	}
	return error_set(e, f->err, "%s: %s: %s", job->argv[0], f->call, strerror(f->err));
}

static int run_started(struct run *r, struct error *e)
{
	autoclose int pidfd = (int)syscall(SYS_pidfd_open, r->keeper, 0);
	struct failure f = { 0 };
	bool map = r->job->own_root && geteuid();
	int status, err = 0;

	if (pidfd < 0)
		err = error_set(e, errno, "pidfd_open: %s", strerror(errno));
	if (!err && map)
		err = job_map_ids(r->keeper, e);
	if (!err && write(r->go_fd, "", 1) != 1)
		err = error_set(e, errno, "%s: %s", r->job->argv[0], strerror(errno));
	if (err) {
		kill(r->keeper, SIGKILL);
		waitpid(r->keeper, NULL, 0);
		return err;
	}
	relay(r, pidfd);
	status = finish(r, pidfd, r->host->caught != 0);
	if (r->host->caught)
		return error_set(e, EINTR, "stopped by signal %d", r->host->caught);
	if (read(r->fail_fd, &f, sizeof(f)) == sizeof(f))
		return explain(r->job, &f, e);
	return status < 0 ? error_set(e, -status, "%s: %s", r->job->argv[0], strerror(-status))
			  : status;
}

int job_run(struct job_host *h, const struct job *job, struct error *e)
{
	struct run r = { .host = h, .job = job, .go_fd = -1, .fail_fd = -1, .out_fd = -1 };
	int err;

	if (job_stopped(h))
		return error_set(e, EINTR, "stopped by signal %d", h->caught);
	err = start(&r, e);
	if (!err)
		err = run_started(&r, e);
	close_fd(&r.go_fd);
	close_fd(&r.fail_fd);
	close_fd(&r.out_fd);
	return err;
}
