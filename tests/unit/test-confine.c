/*
 * base/confine: every probe, each in a process of its own, at each level, as root and as a plain user; and that
 * what a vmm needs still works behind the same walls.
 *
 * The roles are this program: main() dispatches on argv[0]; argv[1] holds what to do.
 */
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/confine.h"
#include "base/ctl.h"
#include "base/fdpass.h"
#include "base/loop.h"
#include "base/process.h"
#include "tests/lib/test.h"

#define NOBODY  65534
#define FD_CTL  3
#define NO_LOCK CONFINE_THREADS /* in a role's argv[1]: enter only */

/* A sanitizer leaves signals alone here: roles look at them, and die of them, as they do without one. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0:allow_user_segv_handler=1";
}

/* ---- roles ---- */

static void role_die(const char *what, const struct error *e)
{
	fprintf(stderr, "role: %s: %s\n", what, e ? e->msg : strerror(errno));
	_exit(3);
}

static void enter(char **argv)
{
	enum confine_level level;
	struct error e = { 0 };

	if (confine_enter(argv[2], &level, &e))
		role_die("confine_enter", &e);
}

static void lock(enum confine_thread kind)
{
	struct error e = { 0 };

	if (confine_lock(kind, &e))
		role_die("confine_lock", &e);
}

static void reply(uint32_t what, int result)
{
	struct ctl_probe_result r = { .what = what, .result = result };

	if (ctl_send(FD_CTL, CTL_PROBE_RESULT, &r, sizeof(r), NULL, 0))
		_exit(4);
}

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

/* ---- a role that does what a vmm does ---- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int locked_threads, go;
static atomic_int stop, ended;

static void kick(int sig unused_arg)
{
}

/* Locks itself, waits for the release, uses the heap, is kicked out of a sleep. */
static void *vcpu_thread(void *arg)
{
	struct timespec long_time = { .tv_sec = 60 };
	int event = *(int *)arg;
	uint64_t one = 1;
	void *p;

	lock(CONFINE_VMM_VCPU);
	pthread_mutex_lock(&mutex);
	locked_threads++;
	pthread_cond_broadcast(&cond);
	while (!go)
		pthread_cond_wait(&cond, &mutex);
	pthread_mutex_unlock(&mutex);
	for (size_t size = 16; size < 64 * MIB; size *= 4) {
		p = malloc(size);
		if (!p)
			_exit(6);
		memset(p, 1, MIN(size, MIB));
		free(p);
	}
	if (ioctl(event, KVM_RUN, 0) != -1 || errno != ENOTTY) /* allowed, but this is no vCPU */
		_exit(7);
	if (write(event, &one, sizeof(one)) != sizeof(one))
		_exit(8);
	while (!stop)
		nanosleep(&long_time, NULL);
	ended++;
	return NULL;
}

static void event_done(struct loop_op *op, int res)
{
	(void)op;
	if (res != 8)
		_exit(9);
	loop_stop(role_loop);
}

/* Receives a descriptor and writes to it through the ring. */
static void use_received_fd(void)
{
	static struct loop_op op = { .done = ring_done };
	int fds[CTL_FDS_MAX], slot;
	struct ctl_msg m;

	if (ctl_recv(FD_CTL, &m, fds) != 1 || m.type != CTL_VSOCK_CONNECT)
		_exit(10);
	slot = loop_add_fd(role_loop, fds[0]);
	close(fds[0]);
	if (slot < 0)
		_exit(11);
	loop_write(role_loop, &op, slot, "through the ring", 16, LOOP_OFF_NONE);
	if (loop_run(role_loop) || ring_result)
		_exit(12);
	loop_remove_fd(role_loop, slot);
}

static void use_memory(void)
{
	char *p = mmap(NULL, 8 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char random[16];

	if (p == MAP_FAILED || mprotect(p, 4096, PROT_READ) || madvise(p, 8 * MIB, MADV_DONTNEED) ||
		munmap(p, 8 * MIB))
		_exit(13);
	if (syscall(SYS_getrandom, random, sizeof(random), 0) != sizeof(random))
		_exit(14);
}

static void role_work(char **argv)
{
	static struct loop_op op = { .done = event_done };
	struct sigaction sa = { .sa_handler = kick };
	struct error e = { 0 };
	pthread_t threads[3];
	uint64_t value;
	int event;

	enter(argv);
	event = eventfd(0, EFD_CLOEXEC);
	sigaction(SIGUSR1, &sa, NULL);
	if (loop_create(&role_loop, 8, &e))
		role_die("loop_create", &e);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		if (pthread_create(&threads[i], NULL, vcpu_thread, &event))
			role_die("pthread_create", NULL);
	pthread_mutex_lock(&mutex);
	while (locked_threads < (int)ARRAY_SIZE(threads))
		pthread_cond_wait(&cond, &mutex);
	if (loop_start(role_loop, true, &e))
		role_die("loop_start", &e);
	lock(CONFINE_VMM_LOOP);
	go = 1;
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(&mutex);

	loop_read(role_loop, &op, loop_add_fd(role_loop, event), &value, sizeof(value),
		LOOP_OFF_NONE);
	if (loop_run(role_loop))
		_exit(15);
	use_received_fd();
	use_memory();
	stop = 1;
	while (ended < (int)ARRAY_SIZE(threads)) /* out of their sleep */
		for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
			pthread_kill(threads[i], SIGUSR1);
			sched_yield();
		}
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	loop_destroy(role_loop);
	reply(7, 0);
	_exit(0);
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
	if (!strcmp(argv[0], "role-work"))
		role_work(argv);
	if (!strcmp(argv[0], "role-abort"))
		role_abort(argv);
	if (!strcmp(argv[0], "role-early-lock"))
		role_early_lock();
}

/* ---- the parent's side ---- */

static struct process spawn(const char *role, const char *arg, enum confine_level level, int *ctl)
{
	int sock[2], fds[] = { -1, -1, 2, -1 };
	struct process p = { .pidfd = -1 };
	struct process_spec spec = {
		.argv0 = role,
		.name = arg,
		.fds = fds,
		.nfds = ARRAY_SIZE(fds),
		.best = level,
		.die_with_parent = true,
	};
	struct error e = { 0 };

	REQUIRE(!fdpass_pair(sock, false));
	fds[FD_CTL] = sock[1];
	if (process_spawn(&p, &spec, &e)) {
		fprintf(stderr, "%s\n", e.msg);
		exit(1);
	}
	close(sock[1]);
	*ctl = sock[0];
	return p;
}

static int wait_for(struct process *p)
{
	int status = 0;

	CHECK_EQ(process_reap(p, true, &status), 1);
	return status;
}

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
		/* Not dumpable: its own user may not look into it. Who made its user namespace may. */
		snprintf(path, sizeof(path), "/proc/%d/mem", p.pid);
		CHECK(open(path, O_RDONLY) < 0 && errno == EACCES);
		snprintf(path, sizeof(path), "/proc/%d/fd", p.pid);
		CHECK(open(path, O_RDONLY) < 0 && errno == EACCES);
	}
	REQUIRE(write(ctl, "x", 1) == 1);
	CHECK_EQ(wait_for(&p), 0);
	close(ctl);
}

static void work(enum confine_level level)
{
	struct ctl_vsock v = { .port = 1 };
	int ctl, fds[CTL_FDS_MAX], data[2];
	struct process p = spawn("role-work", "x", level, &ctl);
	struct ctl_msg m;
	char buf[32];

	REQUIRE(!pipe2(data, O_CLOEXEC));
	CHECK_EQ(ctl_send(ctl, CTL_VSOCK_CONNECT, &v, sizeof(v), &data[1], 1), 0);
	close(data[1]);
	CHECK_EQ(ctl_recv(ctl, &m, fds), 1);
	CHECK_EQ(m.u.probe_result.what, 7);
	CHECK_EQ(wait_for(&p), 0);
	CHECK_EQ(read(data[0], buf, sizeof(buf)), 16);
	CHECK_EQ(read(data[0], buf, sizeof(buf)), 0);
	close(data[0]);
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
	work(l);
	aborts(l);
	all_probes(l);
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
	level(CONFINE_BASIC);
	level(CONFINE_FULL);
	exit(test_failures != 0);
}

int main(int argc unused_arg, char **argv)
{
	struct error e = { 0 };
	bool root = getuid() == 0;

	dispatch(argv);
	bad_arguments();
	if (process_init(&e)) {
		fprintf(stderr, "%s\n", e.msg);
		return 1;
	}
	if (process_best_level(&e) != CONFINE_FULL) {
		fprintf(stderr, "%s\n", e.msg);
		SKIP("this machine doesn't allow user namespaces");
	}
	early_lock();
	probes_are_real();
	level(CONFINE_BASIC);
	level(CONFINE_FULL);
	if (root) {
		level(CONFINE_ROOT);
		as_nobody();
	}
	TEST_END();
}
