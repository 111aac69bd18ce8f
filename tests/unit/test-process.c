/*
 * base/process: a role starts with nothing but what it was given, at each level, as root and as a
 * plain user.
 *
 * The roles are this program: main() dispatches on argv[0]. Without any confinement entered, they
 * look at themselves and send what they see; the parent looks at them from outside.
 */
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/fdpass.h"
#include "base/process.h"
#include "tests/lib/test.h"

#define NOBODY 65534

extern char **environ;

/* A sanitizer leaves signals alone here: roles look at them and die of them. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0";
}

static const char *const ns_names[] = { "user", "mnt", "pid", "net", "ipc", "uts", "cgroup" };

/* What a role sees of itself. */
struct self {
	unsigned fds; /* bit n: descriptor n is open */
	unsigned high_fds;
	int env, argc, pid, ppid, sid, uid, gid, ngroups;
	int signals; /* blocked or not at default */
	unsigned mask;
	uint64_t core, nofile;
	int pdeathsig;
	int oom;
	char null_fds[2];
	char arg[64], name[64], cwd[64];
};

static int read_int(const char *path)
{
	FILE *f = fopen(path, "re");
	int v = -1;

	if (f && fscanf(f, "%d", &v) != 1)
		v = -1;
	if (f)
		fclose(f);
	return v;
}

static bool is_null(int fd)
{
	struct stat a, b;

	return !fstat(fd, &a) && !stat("/dev/null", &b) && a.st_rdev == b.st_rdev;
}

static void look_at_fds(struct self *s)
{
	for (int fd = 0; fd < 1024; fd++)
		if (fcntl(fd, F_GETFD) >= 0) {
			if (fd < 32)
				s->fds |= 1u << fd;
			else
				s->high_fds++;
		}
	s->null_fds[0] = is_null(0);
	s->null_fds[1] = is_null(1);
}

static int look_at_signals(void)
{
	struct sigaction sa;
	sigset_t mask;
	int n = 0;

	sigprocmask(SIG_SETMASK, NULL, &mask);
	for (int sig = 1; sig < NSIG; sig++)
		if (!sigaction(sig, NULL, &sa))
			n += sa.sa_handler != SIG_DFL || sigismember(&mask, sig);
	return n;
}

static void role_report(int argc, char **argv)
{
	struct self s = { .argc = argc, .pid = getpid(), .ppid = getppid(), .sid = getsid(0) };
	struct rlimit lim;
	char c;

	look_at_fds(&s);
	for (char **e = environ; *e; e++)
		s.env++;
	s.uid = (int)getuid();
	s.gid = (int)getgid();
	s.ngroups = getgroups(0, NULL);
	s.signals = look_at_signals();
	s.mask = umask(0);
	getrlimit(RLIMIT_CORE, &lim);
	s.core = lim.rlim_max;
	getrlimit(RLIMIT_NOFILE, &lim);
	s.nofile = lim.rlim_cur;
	prctl(PR_GET_PDEATHSIG, &s.pdeathsig);
	s.oom = read_int("/proc/self/oom_score_adj");
	snprintf(s.name, sizeof(s.name), "%s", argc > 1 ? argv[1] : "");
	snprintf(s.arg, sizeof(s.arg), "%s", argc > 2 ? argv[2] : "");
	if (!getcwd(s.cwd, sizeof(s.cwd)))
		s.cwd[0] = 0;
	if (fdpass_send(3, &s, sizeof(s), NULL, 0) || read(3, &c, 1) != 1)
		_exit(2);
	_exit(42);
}

static void dispatch(int argc, char **argv)
{
	if (!strcmp(argv[0], "role-report"))
		role_report(argc, argv);
	if (!strcmp(argv[0], "role-pause"))
		while (1)
			pause();
	if (!strcmp(argv[0], "role-abort"))
		abort();
}

/* ---- the parent's side ---- */

static void init(void)
{
	struct error e = { 0 };

	if (process_init(&e)) {
		fprintf(stderr, "%s\n", e.msg);
		exit(1);
	}
}

static struct process spawn(struct process_spec spec)
{
	struct process p = { .pidfd = -1 };
	struct error e = { 0 };

	if (process_spawn(&p, &spec, &e)) {
		fprintf(stderr, "%s: %s\n", spec.argv0, e.msg);
		exit(1);
	}
	return p;
}

static char *proc_field(pid_t pid, const char *field)
{
	static char value[256];
	char path[64], line[256];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	REQUIRE(f);
	value[0] = 0;
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, field, strlen(field)) && line[strlen(field)] == ':')
			snprintf(value, sizeof(value), "%s", line + strlen(field) + 2);
	fclose(f);
	value[strcspn(value, "\n")] = 0;
	return value;
}

static bool same_ns(pid_t pid, const char *name)
{
	char path[64], a[64] = "", b[64] = "";

	snprintf(path, sizeof(path), "/proc/self/ns/%s", name);
	REQUIRE(readlink(path, a, sizeof(a) - 1) > 0);
	snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, name);
	REQUIRE(readlink(path, b, sizeof(b) - 1) > 0);
	return !strcmp(a, b);
}

static void check_namespaces(const struct process *p)
{
	for (size_t i = 0; i < ARRAY_SIZE(ns_names); i++) {
		bool own = p->level == CONFINE_FULL || (p->level == CONFINE_ROOT && i > 0);

		CHECK_EQ(same_ns(p->pid, ns_names[i]), !own);
	}
}

static void check_self(const struct self *s, const struct process *p, bool root)
{
	struct rlimit lim;

	getrlimit(RLIMIT_NOFILE, &lim);
	CHECK_EQ(s->fds, 0x0f);
	CHECK_EQ(s->high_fds, 0);
	CHECK(s->null_fds[0] && s->null_fds[1]);
	CHECK_EQ(s->env, 0);
	CHECK_EQ(s->argc, 3);
	CHECK_STR(s->name, "sandbox-1");
	CHECK_EQ(s->signals, 0);
	CHECK_EQ(s->mask, 077);
	CHECK_EQ(s->core, 0);
	CHECK_EQ(s->nofile, MIN(lim.rlim_max, 8192));
	CHECK_EQ(s->pdeathsig, SIGKILL);
	CHECK_EQ(s->oom, 300);
	CHECK_STR(s->cwd, "/");
	if (p->level >= CONFINE_ROOT) {
		CHECK_EQ(s->pid, 1);
		CHECK_EQ(s->sid, 1);
		CHECK_EQ(s->ppid, 0);
	} else {
		CHECK_EQ(s->pid, p->pid);
		CHECK_EQ(s->sid, p->pid);
		CHECK_EQ(s->ppid, getpid());
	}
	if (p->level == CONFINE_FULL) {
		CHECK_EQ(s->uid, 0); /* inside; before it gives everything up */
		CHECK_EQ(s->gid, 0);
		CHECK_STR(s->arg, "--confine=full,die");
	}
	if (root)
		CHECK_EQ(s->ngroups, p->level == CONFINE_FULL ? 0 : getgroups(0, NULL));
}

/* Outside, a role of root has ids of its own, a role of a user that user's. */
static void check_ids(const struct self *s, const struct process *p, bool root)
{
	char want[128];
	unsigned id = root ? 0x70000000u + (unsigned)p->pid : NOBODY;

	if (p->level == CONFINE_FULL) {
		snprintf(want, sizeof(want), "%u\t%u\t%u\t%u", id, id, id, id);
		CHECK_STR(proc_field(p->pid, "Uid"), want);
		CHECK_STR(proc_field(p->pid, "Gid"), want);
		return;
	}
	snprintf(want, sizeof(want), "--confine=%s", confine_level_name(p->level));
	if (root && p->level != CONFINE_NONE) /* it changes by itself, later */
		snprintf(want + strlen(want), sizeof(want) - strlen(want), ":%u:%u", id, id);
	strcat(want, ",die");
	CHECK_STR(s->arg, want);
}

static void start_at(enum confine_level level, bool root)
{
	int sock[2], fds[] = { -1, -1, 2, -1 }, extra = open("/dev/null", O_RDONLY), status = 0;
	enum confine_level want = level == CONFINE_ROOT && !root ? CONFINE_BASIC : level;
	struct process p;
	struct self s;
	unsigned n;

	REQUIRE(!fdpass_pair(sock, false));
	fds[3] = sock[1];
	p = spawn((struct process_spec){
		.argv0 = "role-report",
		.name = "sandbox-1",
		.fds = fds,
		.nfds = ARRAY_SIZE(fds),
		.best = level,
		.die_with_parent = true,
	});
	close(sock[1]);
	CHECK_EQ(p.level, want);
	REQUIRE(fdpass_recv(sock[0], &s, sizeof(s), NULL, 0, &n) == (ssize_t)sizeof(s));
	check_self(&s, &p, root);
	if (root || p.level == CONFINE_FULL)
		check_ids(&s, &p, root);
	check_namespaces(&p);
	CHECK_EQ(process_reap(&p, false, &status), 0);
	REQUIRE(write(sock[0], "x", 1) == 1);
	CHECK_EQ(process_reap(&p, true, &status), 1);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
	CHECK_EQ(p.pidfd, -1);
	process_end(&p); /* legal on what ended */
	close(sock[0]);
	close(extra);
}

static void all_levels(bool root)
{
	for (int level = CONFINE_NONE; level <= CONFINE_FULL; level++)
		start_at((enum confine_level)level, root);
}

/* The order of sources and targets may collide in every way. */
static void descriptors_collide(void)
{
	int a = open("/dev/null", O_RDWR | O_CLOEXEC), sock[2], status;
	struct process p;
	struct self s;
	unsigned n;

	REQUIRE(!fdpass_pair(sock, false));
	{
		int fds[] = { sock[1], 2, 0, sock[1], a, a, 1, -1, 0 };

		p = spawn((struct process_spec){
			.argv0 = "role-report",
			.name = "x",
			.fds = fds,
			.nfds = ARRAY_SIZE(fds),
			.best = CONFINE_FULL,
		});
	}
	close(sock[1]);
	REQUIRE(fdpass_recv(sock[0], &s, sizeof(s), NULL, 0, &n) == (ssize_t)sizeof(s));
	CHECK_EQ(s.fds, 0x1ff);
	CHECK_EQ(s.high_fds, 0);
	CHECK_EQ(s.pdeathsig, 0);
	REQUIRE(write(sock[0], "x", 1) == 1);
	CHECK_EQ(process_reap(&p, true, &status), 1);
	close(sock[0]);
	close(a);
}

static void signals_and_ends(void)
{
	static const int fds[] = { -1, -1, 2 };
	struct process_spec spec = {
		.argv0 = "role-pause", .name = "x", .fds = fds, .nfds = 3, .best = CONFINE_FULL
	};
	struct process p = spawn(spec);
	struct pollfd poll_fd = { .fd = p.pidfd, .events = POLLIN };
	int status = 0;

	CHECK(fcntl(p.pidfd, F_GETFD) & FD_CLOEXEC);
	CHECK_EQ(process_kill(&p, SIGTERM), 0); /* PID 1 doesn't heed it */
	CHECK_EQ(poll(&poll_fd, 1, 50), 0);
	CHECK_EQ(process_kill(&p, SIGKILL), 0);
	CHECK_EQ(poll(&poll_fd, 1, 10000), 1);
	CHECK_EQ(process_reap(&p, false, &status), 1);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

	p = spawn(spec);
	process_end(&p);
	CHECK_EQ(p.pidfd, -1);
	CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);

	spec.argv0 = "role-abort"; /* SIGABRT of PID 1 to itself is ignored; abort() has its ways */
	p = spawn(spec);
	CHECK_EQ(process_reap(&p, true, &status), 1);
	CHECK(WIFSIGNALED(status));
}

static void bad_descriptor(void)
{
	int fds[] = { -1, -1, 2, 999 };
	struct process_spec spec = {
		.argv0 = "role-pause", .name = "x", .fds = fds, .nfds = 4, .best = CONFINE_FULL
	};
	struct process p = { .pid = 77 };
	struct error e = { 0 };

	CHECK_EQ(process_spawn(&p, &spec, &e), -EBADF);
	CHECK_STR(e.msg, "starting role-pause: duplicating a descriptor: Bad file descriptor");
	CHECK_EQ(p.pid, 77);
	CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
}

/* ---- ends of the parent ---- */

/* In a new process: start a role that holds the write end of a pipe, then wait for our death. */
static void parent_of_role(int write_end, bool die_with_parent, bool drop)
{
	int fds[] = { -1, -1, 2, write_end };

	if (drop)
		REQUIRE(!setgroups(0, NULL) && !setresgid(NOBODY, NOBODY, NOBODY) &&
			!setresuid(NOBODY, NOBODY, NOBODY) && !prctl(PR_SET_DUMPABLE, 1));
	spawn((struct process_spec){
		.argv0 = "role-pause",
		.name = "x",
		.fds = fds,
		.nfds = 4,
		.best = CONFINE_FULL,
		.die_with_parent = die_with_parent,
	});
	if (write(write_end, "x", 1) != 1)
		_exit(1);
	while (1)
		pause();
}

static void dies_with_parent(bool die, bool drop)
{
	struct pollfd poll_fd = { .events = POLLIN };
	int p[2];
	pid_t pid;
	char c;

	REQUIRE(!pipe2(p, O_CLOEXEC));
	poll_fd.fd = p[0];
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	pid = fork();
	if (!pid)
		parent_of_role(p[1], die, drop);
	close(p[1]);
	REQUIRE(read(p[0], &c, 1) == 1);
	kill(pid, SIGKILL);
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
	/* End of file: nobody has the write end, so the role is gone. */
	CHECK_EQ(poll(&poll_fd, 1, die ? 10000 : 100), die);
	if (!die) {
		siginfo_t si = { 0 };

		CHECK_EQ(waitid(P_ALL, 0, &si, WEXITED | WNOHANG), 0); /* ours now, and alive */
		CHECK_EQ(si.si_pid, 0);
		CHECK_EQ(system("kill -9 $(cat /proc/$PPID/task/$PPID/children | cut -d' ' -f1)"),
			0);
	}
	CHECK(wait(NULL) > 0);
	CHECK(wait(NULL) < 0 && errno == ECHILD);
	prctl(PR_SET_CHILD_SUBREAPER, 0);
	close(p[0]);
}

/* The parent dies between its clone and the role's prctl(): over and over, at any moment. */
static void dies_with_parent_race(void)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	for (int i = 0; i < 60; i++) {
		struct pollfd poll_fd = { .events = POLLIN };
		int p[2];
		pid_t pid;

		REQUIRE(!pipe2(p, O_CLOEXEC));
		poll_fd.fd = p[0];
		pid = fork();
		if (!pid)
			parent_of_role(p[1], true, false);
		close(p[1]);
		usleep((useconds_t)(i * 100));
		kill(pid, SIGKILL);
		while (poll_fd.revents != POLLHUP) { /* drains "x" if that came */
			char c;

			REQUIRE(poll(&poll_fd, 1, 10000) == 1);
			if (poll_fd.revents & POLLIN && read(p[0], &c, 1) < 0)
				break;
		}
		while (wait(NULL) > 0)
			;
		close(p[0]);
	}
	prctl(PR_SET_CHILD_SUBREAPER, 0);
}

/* ---- what a machine may refuse ---- */

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), r;

	r = fd < 0 || write(fd, text, strlen(text)) < 0 ? -errno : 0;
	if (fd >= 0)
		close(fd);
	return r;
}

/* A user namespace of our own, where limits can be set without touching the machine's. */
static void enter_limits(const char *limit)
{
	char map[32], path[64];
	uid_t uid = getuid();

	snprintf(map, sizeof(map), "0 %u 1", uid);
	REQUIRE(!unshare(CLONE_NEWUSER));
	write_file("/proc/self/setgroups", "deny");
	REQUIRE(!write_file("/proc/self/uid_map", map) && !write_file("/proc/self/gid_map", map));
	snprintf(path, sizeof(path), "/proc/sys/user/%s", limit);
	REQUIRE(!write_file(path, "0"));
}

static void refused_level(const char *limit, enum confine_level best)
{
	static const int fds[] = { -1, -1, 2 };
	struct process_spec spec = {
		.argv0 = "role-pause", .name = "x", .fds = fds, .nfds = 3, .best = CONFINE_FULL
	};
	struct error e = { 0 }, why = { 0 };
	struct process p;
	pid_t pid = fork();
	int status;

	if (pid) {
		CHECK(waitpid(pid, &status, 0) == pid && status == 0);
		return;
	}
	test_failures = 0;
	enter_limits(limit);
	CHECK_EQ(process_best_level(&why), best);
	CHECK(strstr(why.msg, limit));
	CHECK(strstr(why.msg, "run: sudo sysctl -w user.max_"));
	p = spawn(spec);
	CHECK_EQ(p.level, best);
	process_end(&p);
	spec.least = best + 1;
	CHECK_EQ(process_spawn(&p, &spec, &e), -EPERM);
	CHECK(strstr(e.msg, confine_level_name(spec.least)));
	CHECK(strstr(e.msg, limit));
	exit(test_failures != 0);
}

/* Inside a container that maps 65,536 ids: a role's come from the upper half of those. */
static void in_container(void)
{
	static const int fds[] = { -1, -1, 2 };
	struct process_spec spec = {
		.argv0 = "role-pause", .name = "x", .fds = fds, .nfds = 3, .best = CONFINE_FULL
	};
	unsigned uid = 0;
	struct process p;
	int sync[2], status;
	char path[64], c;
	pid_t pid;

	REQUIRE(!pipe2(sync, O_CLOEXEC));
	pid = fork();
	if (pid) {
		REQUIRE(read(sync[0], &c, 1) == 1);
		snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
		REQUIRE(!write_file(path, "0 200000 65536"));
		snprintf(path, sizeof(path), "/proc/%d/gid_map", pid);
		REQUIRE(!write_file(path, "0 200000 65536"));
		CHECK(waitpid(pid, &status, 0) == pid && status == 0);
		return;
	}
	test_failures = 0;
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* if the parent fails */
	REQUIRE(!unshare(CLONE_NEWUSER));
	REQUIRE(write(sync[1], "x", 1) == 1);
	while (setresgid(0, 0, 0) || setresuid(0, 0, 0)) /* until the parent has mapped them */
		usleep(1000);
	REQUIRE(!prctl(PR_SET_DUMPABLE, 1)); /* as after an exec */
	p = spawn(spec);
	CHECK_EQ(p.level, CONFINE_FULL);
	CHECK_EQ(sscanf(proc_field(p.pid, "Uid"), "%u", &uid), 1);
	CHECK_EQ(uid, 65535 - (unsigned)p.pid % 32768);
	CHECK_EQ(sscanf(proc_field(p.pid, "Gid"), "%u", &uid), 1);
	CHECK_EQ(uid, 65535 - (unsigned)p.pid % 32768);
	process_end(&p);
	exit(test_failures != 0);
}

/* The running binary is deleted while the supervisor lives: roles still are what it is. */
static void deleted_binary(const char *self)
{
	char path[] = "/tmp/test-process-XXXXXX", cmd[512];
	int fd = mkstemp(path);

	REQUIRE(fd >= 0);
	close(fd);
	snprintf(cmd, sizeof(cmd), "cp %s %s && chmod 755 %s && exec %s deleted", self, path, path,
		path);
	CHECK_EQ(system(cmd), 0);
	CHECK(access(path, F_OK) < 0 && errno == ENOENT);
}

static int deleted_main(const char *path)
{
	init();
	REQUIRE(!unlink(path));
	start_at(CONFINE_FULL, getuid() == 0);
	TEST_END();
}

static void as_nobody(void)
{
	pid_t pid = fork();
	int status;

	if (pid) {
		CHECK(waitpid(pid, &status, 0) == pid && status == 0);
		return;
	}
	test_failures = 0;
	REQUIRE(!setgroups(0, NULL) && !setresgid(NOBODY, NOBODY, NOBODY) &&
		!setresuid(NOBODY, NOBODY, NOBODY));
	REQUIRE(!prctl(PR_SET_DUMPABLE, 1)); /* as after a log-in, but not after setresuid() */
	all_levels(false);
	descriptors_collide();
	signals_and_ends();
	exit(test_failures != 0);
}

int main(int argc, char **argv)
{
	bool root = getuid() == 0;

	dispatch(argc, argv);
	if (argc > 1 && !strcmp(argv[1], "deleted"))
		return deleted_main(argv[0]);
	init();
	signal(SIGINT, SIG_IGN); /* as under nohup: must not be inherited */
	signal(SIGUSR1, SIG_IGN);
	all_levels(root);
	descriptors_collide();
	signals_and_ends();
	bad_descriptor();
	dies_with_parent(true, false);
	dies_with_parent(false, false);
	dies_with_parent_race();
	refused_level("max_user_namespaces", CONFINE_ROOT);
	refused_level("max_net_namespaces", CONFINE_BASIC);
	deleted_binary(argv[0]);
	if (root) {
		in_container();
		as_nobody();
		dies_with_parent(true, true);
	} else {
		printf("not root: the tests as another user are left out\n");
	}
	TEST_END();
}
