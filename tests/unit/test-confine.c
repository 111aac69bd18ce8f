/*
 * base/confine: every probe, each in a process of its own, at each level, as root and as a plain
 * user.
 *
 * The roles are this program: main() dispatches on argv[0]; argv[1] holds what to do.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>

#include "base/loop.h"
#include "tests/lib/role.h"

#define NO_LOCK CONFINE_THREADS /* in a role's argv[1]: enter only */

/* ---- roles ---- */

/* argv[1]: PROBE:KIND */
static void role_probe(char **argv)
{
	unsigned what, kind;

	if (sscanf(argv[1], "%u:%u", &what, &kind) != 2)
		_exit(2);
	enter(argv);
	if (kind != NO_LOCK)
		lock((enum confine_thread)kind);
	if (kind == CONFINE_VMM_VCPU) /* may not send: the status tells */
		_exit(confine_probe_run((enum confine_probe)what) ? 1 : 0);
	reply(what, confine_probe_run((enum confine_probe)what));
	_exit(0);
}

static struct loop *role_loop;
static int ring_result;

static void ring_done(struct loop_op *op, int res)
{
	(void)op;
	ring_result = res > 0 ? 0 : res;
	loop_stop(role_loop);
}

/* argv[1]: PROBE:KIND; the ring is restricted unless KIND is NO_LOCK and the level none. */
static void role_ring(char **argv)
{
	static struct loop_op op = { .done = ring_done };
	struct error e = { 0 };
	unsigned what, kind;

	if (sscanf(argv[1], "%u:%u", &what, &kind) != 2)
		_exit(2);
	enter(argv);
	if (loop_create(&role_loop, 8, &e))
		role_die("loop_create", &e);
	if (loop_start(role_loop, kind != NO_LOCK, &e))
		role_die("loop_start", &e);
	if (kind != NO_LOCK)
		lock(CONFINE_VMM_LOOP);
	confine_probe_ring(role_loop, &op, (enum confine_probe)what);
	if (loop_run(role_loop))
		_exit(5);
	reply(what, ring_result);
	_exit(0);
}

/* Says how many entries / has, and waits to be looked at. */
static void role_enter(char **argv)
{
	struct dirent *d;
	DIR *dir;
	int n = 0;
	char c;

	enter(argv);
	dir = opendir("/");
	while (dir && (d = readdir(dir)))
		n += strcmp(d->d_name, ".") && strcmp(d->d_name, "..");
	reply(0, dir ? n : -errno);
	lock(CONFINE_VMM_LOOP);
	reply(1, 0);
	_exit(read(FD_CTL, &c, 1) == 1 ? 0 : 1);
}

/* argv[1]: KIND. Another process must not be able to call it: its own signals end it. */
static void role_abort(char **argv)
{
	enter(argv);
	lock((enum confine_thread)atoi(argv[1]));
	abort();
}

static void role_early_lock(void)
{
	struct error e = { 0 };

	_exit(confine_lock(CONFINE_VMM_LOOP, &e) == -EINVAL ? 0 : 1);
}

static void dispatch(char **argv)
{
	if (!strcmp(argv[0], "role-probe"))
		role_probe(argv);
	if (!strcmp(argv[0], "role-ring"))
		role_ring(argv);
	if (!strcmp(argv[0], "role-enter"))
		role_enter(argv);
	if (!strcmp(argv[0], "role-abort"))
		role_abort(argv);
	if (!strcmp(argv[0], "role-early-lock"))
		role_early_lock();
}

/* ---- the parent's side ---- */

/* The result of a probe: what it returned, or -SIGNAL - 1000. */
static int probe(const char *role, enum confine_probe what, unsigned kind, enum confine_level level)
{
	struct ctl_msg m;
	int fds[CTL_FDS_MAX], ctl, r, status;
	struct process p;
	char arg[32];

	snprintf(arg, sizeof(arg), "%u:%u", (unsigned)what, kind);
	p = spawn(role, arg, level, &ctl);
	r = ctl_recv(ctl, &m, fds);
	status = wait_for(&p);
	close(ctl);
	if (WIFSIGNALED(status))
		return -1000 - WTERMSIG(status);
	if (r != 1)
		return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -999;
	CHECK_EQ(m.u.probe_result.what, what);
	return m.u.probe_result.result;
}

static void check_killed(enum confine_probe what, unsigned kind, enum confine_level level)
{
	int r = probe("role-probe", what, kind, level);

	/* A kernel built without 32-bit system calls raises SIGSEGV for int $0x80. */
	if (r == -1000 - SIGSYS || (what == CONFINE_PROBE_IA32 && r == -1000 - SIGSEGV))
		return;
	fprintf(stderr, "probe %s, thread kind %u, level %s: %d instead of SIGSYS\n",
		confine_probe_name(what), kind, confine_level_name(level), r);
	test_failures++;
}

static void all_probes(enum confine_level level)
{
	for (unsigned what = 0; what < CONFINE_PROBE_RING_FIRST; what++)
		for (unsigned kind = 0; kind < CONFINE_THREADS; kind++)
			check_killed((enum confine_probe)what, kind, level);
	for (unsigned what = CONFINE_PROBE_RING_FIRST; what < CONFINE_PROBE_COUNT; what++) {
		int r = probe("role-ring", (enum confine_probe)what, CONFINE_VMM_LOOP, level);

		if (r == -EACCES)
			continue;
		fprintf(stderr, "probe %s: %d instead of -EACCES\n",
			confine_probe_name((enum confine_probe)what), r);
		test_failures++;
	}
}

/* Without confinement the probes work: they test what they say. */
static void probes_are_real(void)
{
	static const uint8_t possible[] = {
		CONFINE_PROBE_OPEN_FILE,
		CONFINE_PROBE_OPEN_MEM,
		CONFINE_PROBE_SOCKET_INET,
		CONFINE_PROBE_SOCKET_UNIX,
		CONFINE_PROBE_EXEC,
		CONFINE_PROBE_FORK,
		CONFINE_PROBE_PTRACE,
		CONFINE_PROBE_KILL_PARENT,
		CONFINE_PROBE_URING_SETUP,
		CONFINE_PROBE_MMAP_EXEC,
		CONFINE_PROBE_MPROTECT_EXEC,
		CONFINE_PROBE_DUMPABLE,
		CONFINE_PROBE_FCNTL,
		CONFINE_PROBE_VM_WRITE,
	};
	static const uint8_t ring[] = {
		CONFINE_PROBE_RING_OPENAT,
		CONFINE_PROBE_RING_SOCKET,
		CONFINE_PROBE_RING_READ_UNREGISTERED,
	};

	for (size_t i = 0; i < ARRAY_SIZE(possible); i++)
		CHECK_EQ(probe("role-probe", possible[i], NO_LOCK, CONFINE_NONE), 0);
	for (size_t i = 0; i < ARRAY_SIZE(ring); i++)
		CHECK_EQ(probe("role-ring", ring[i], NO_LOCK, CONFINE_NONE), 0);
	CHECK_EQ(probe("role-probe", CONFINE_PROBE_CONNECT, NO_LOCK, CONFINE_NONE), -ENOTSOCK);
	CHECK_EQ(probe("role-probe", CONFINE_PROBE_IOCTL_KVM, NO_LOCK, CONFINE_NONE), -ENOTTY);
	for (unsigned what = 0; what < CONFINE_PROBE_COUNT; what++)
		CHECK(confine_probe_name((enum confine_probe)what));
	CHECK(!confine_probe_name(CONFINE_PROBE_COUNT));
	CHECK_EQ(confine_probe_run(CONFINE_PROBE_COUNT), -EINVAL);
}

/* Behind confine_enter() alone: each wall stands without seccomp in front of it. */
static void walls_without_seccomp(enum confine_level level)
{
	int open_file = probe("role-probe", CONFINE_PROBE_OPEN_FILE, NO_LOCK, level);
	int exec = probe("role-probe", CONFINE_PROBE_EXEC, NO_LOCK, level);

	if (level >= CONFINE_ROOT) {
		CHECK(open_file == -ENOENT || open_file == -EACCES); /* Landlock may speak first */
		CHECK(exec == -ENOENT || exec == -EACCES);
		/* No parent in this PID namespace, or Landlock's signal scope. */
		CHECK_EQ(probe("role-probe", CONFINE_PROBE_KILL_PARENT, NO_LOCK, level), 0);
	} else if (confine_landlock_abi() > 0) {
		CHECK_EQ(open_file, -EACCES);
		CHECK_EQ(exec, -EACCES);
	}
	CHECK_EQ(probe("role-probe", CONFINE_PROBE_MOUNT, NO_LOCK, level), -EPERM);
	CHECK_EQ(probe("role-probe", CONFINE_PROBE_UNSHARE, NO_LOCK, level), -EPERM);
	if (getuid() == 0 && level != CONFINE_FULL)
		CHECK_EQ(probe("role-probe", CONFINE_PROBE_SETUID, NO_LOCK, level), -EPERM);
	CHECK_EQ(probe("role-probe", CONFINE_PROBE_VM_WRITE, NO_LOCK, level),
		level >= CONFINE_ROOT ? -ESRCH : -EPERM);
}

static void check_status(pid_t pid, const char *field, const char *want)
{
	char path[64], line[256];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	REQUIRE(f);
	while (fgets(line, sizeof(line), f)) {
		size_t n = strlen(field);

		if (strncmp(line, field, n) || line[n] != ':')
			continue;
		found = true;
		line[strcspn(line, "\n")] = 0;
		CHECK_STR(line + n + 2, want);
	}
	CHECK(found);
	fclose(f);
}

/* What the kernel says of a locked role. */
static void seen_from_outside(enum confine_level level)
{
	static const char none[] = "0000000000000000";
	int fds[CTL_FDS_MAX], ctl;
	char want[64], path[64];
	struct ctl_msg m;
	struct process p = spawn("role-enter", "x", level, &ctl);

	REQUIRE(ctl_recv(ctl, &m, fds) == 1);
	if (level >= CONFINE_ROOT) /* an empty root, or one that may not even be read */
		CHECK_EQ(m.u.probe_result.result, confine_landlock_abi() > 0 ? -EACCES : 0);
	REQUIRE(ctl_recv(ctl, &m, fds) == 1);
	check_status(p.pid, "Name", "role-enter");
	check_status(p.pid, "CapInh", none);
	check_status(p.pid, "CapPrm", none);
	check_status(p.pid, "CapEff", none);
	check_status(p.pid, "CapAmb", none);
	if (level == CONFINE_FULL || getuid() == 0)
		check_status(p.pid, "CapBnd", none);
	check_status(p.pid, "NoNewPrivs", "1");
	check_status(p.pid, "Seccomp", "2");
	check_status(p.pid, "Threads", "1");
	if (getuid() == 0) {
		unsigned id = 0x70000000u + (unsigned)p.pid;

		snprintf(want, sizeof(want), "%u\t%u\t%u\t%u", id, id, id, id);
		check_status(p.pid, "Uid", want);
		check_status(p.pid, "Gid", want);
		check_status(p.pid, "Groups", " ");
	} else if (level == CONFINE_BASIC) {
		/* Not dumpable: even its user may not look. (Who made its user namespace may.) */
		snprintf(path, sizeof(path), "/proc/%d/mem", p.pid);
		CHECK(open(path, O_RDONLY) < 0 && errno == EACCES);
		snprintf(path, sizeof(path), "/proc/%d/fd", p.pid);
		CHECK(open(path, O_RDONLY) < 0 && errno == EACCES);
	}
	REQUIRE(write(ctl, "x", 1) == 1);
	CHECK_EQ(wait_for(&p), 0);
	close(ctl);
}

/* An assertion that fails ends a locked process, and doesn't look like an attempt to break out. */
static void aborts(enum confine_level level)
{
	int ctl, status;

	for (unsigned kind = 0; kind < CONFINE_THREADS; kind++) {
		char arg[8];
		struct process p;

		snprintf(arg, sizeof(arg), "%u", kind);
		p = spawn("role-abort", arg, level, &ctl);
		status = wait_for(&p);
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) != SIGSYS);
		close(ctl);
	}
}

static void bad_arguments(void)
{
	static const char *const bad[] = { NULL, "", "full", "--confine=", "--confine=all",
		"--confine=full,", "--confine=full,die,", "--confine=root:1", "--confine=root:1:2x",
		"--confine=fullx", "--confine=ful" };
	enum confine_level level;
	struct error e = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		CHECK_EQ(confine_enter(bad[i], &level, &e), -EINVAL);
}

static void early_lock(void)
{
	int ctl;
	struct process p = spawn("role-early-lock", "x", CONFINE_NONE, &ctl);

	CHECK_EQ(wait_for(&p), 0);
	close(ctl);
}

static void level(enum confine_level l)
{
	walls_without_seccomp(l);
	seen_from_outside(l);
	aborts(l);
	all_probes(l);
}

static void user_levels(void)
{
	level(CONFINE_BASIC);
	level(CONFINE_FULL);
}

int main(int argc unused_arg, char **argv)
{
	dispatch(argv);
	bad_arguments();
	require_full_level();
	early_lock();
	probes_are_real();
	user_levels();
	if (getuid() == 0) {
		level(CONFINE_ROOT);
		as_nobody(user_levels);
	}
	TEST_END();
}
