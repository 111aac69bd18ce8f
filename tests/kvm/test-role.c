/*
 * The vmm process as the supervisor starts it, confined, with guests of a few instructions:
 * messages in order, every way to end, every way not to start, and what is left behind.
 */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/confine.h"
#include "base/ctl.h"
#include "base/fdpass.h"
#include "base/memfd.h"
#include "base/process.h"
#include "tests/kvm/tiny.h"
#include "tests/lib/elf_image.h"
#include "vmm/config.h"
#include "vmm/role.h"

#define LIMIT_MS 20000

/* The leak detector starts a thread and traces, neither of which a confined process may. */
static bool confined;
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
	return confined;
}

TINY_GUEST(greet, 64,
	"lea 1f(%rip), %rsi\n mov $5, %ecx\n mov $0x3f8, %edx\n cld\n rep outsb\n jmp 2f\n"
	"1: .ascii \"hello\"\n2:\n" TINY_POWEROFF);
TINY_GUEST(reset, 64, "mov $0x602, %edx\n mov $0x42, %al\n outb %al, %dx\n1: jmp 1b\n");
TINY_GUEST(fault, 64, "push $0\n push $0\n lidt (%rsp)\n ud2\n");
TINY_GUEST(lost, 64, "mov $0xd0100000, %eax\n jmp *%rax\n");
TINY_GUEST(halt, 64, "1: hlt\n jmp 1b\n");
/* Prints for ever. */
TINY_GUEST(chatter, 64, "mov $0x3f8, %edx\n mov $'x', %al\n1: outb %al, %dx\n jmp 1b\n");

struct sandbox {
	struct vmm_config cfg;
	struct process process;
	int fds[16];
	unsigned nfds;
	int ctl, console;
	enum confine_level best;
	struct ctl_exit exit; /* once CTL_EXIT came */
	bool exited;
	unsigned phases;
	uint64_t phase_ns;
	int probe_result;
	bool probed;
	int status; /* of waitpid(2) */
};

static int add_fd(struct sandbox *s, int fd)
{
	REQUIRE(fd >= 0 && s->nfds < ARRAY_SIZE(s->fds));
	s->fds[s->nfds] = fd;
	return (int)s->nfds++;
}

static int kernel_of(const uint8_t *code, const uint8_t *end)
{
	static struct elf_image img;

	elf_image_fill(&img, TINY_GPA, code, (size_t)(end - code), 0);
	return elf_image_memfd(&img, sizeof(img));
}

static void prepare(struct sandbox *s, const uint8_t *code, const uint8_t *end)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), pipe_fd[2];

	if (kvm < 0 && (errno == ENOENT || errno == ENODEV || errno == ENXIO))
		SKIP("no /dev/kvm");
	memset(s, 0, sizeof(*s));
	s->best = CONFINE_FULL;
	for (unsigned i = 0; i < ARRAY_SIZE(s->fds); i++)
		s->fds[i] = -1;
	s->nfds = ROLE_FD_FIRST;
	s->fds[ROLE_FD_LOG] = 2;
	REQUIRE(!pipe2(pipe_fd, O_CLOEXEC | O_NONBLOCK));
	s->console = pipe_fd[0];
	s->cfg = (struct vmm_config){
		.magic = VMM_CONFIG_MAGIC,
		.version = VMM_CONFIG_VERSION,
		.size = sizeof(s->cfg),
		.flags = VMM_DIE_WITH_PARENT | VMM_TRACE | VMM_BALLOON,
		.cpus = 2,
		.kvm_fd = add_fd(s, kvm),
		.kernel_fd = add_fd(s, kernel_of(code, end)),
		.console_fd = add_fd(s, pipe_fd[1]),
		.listen_fd = -1,
		.memory = 32 * MIB,
		.guest_cid = 3,
		.name = "test",
		.cmdline = "tiny",
	};
}

static void spawn(struct sandbox *s)
{
	struct process_spec spec = {
		.argv0 = "skerry-vmm",
		.name = "test",
		.fds = s->fds,
		.nfds = s->nfds,
		.best = s->best,
		.die_with_parent = true,
	};
	struct ctl_hello hello = { .version = CTL_VERSION };
	struct error e = { 0 };
	int pair[2], r;

	REQUIRE(!fdpass_pair(pair, false));
	s->ctl = pair[0];
	s->fds[ROLE_FD_CTL] = pair[1];
	s->fds[ROLE_FD_CONFIG] = memfd_sealed("config", &s->cfg, sizeof(s->cfg));
	REQUIRE(s->fds[ROLE_FD_CONFIG] >= 0);
	if (process_spawn(&s->process, &spec, &e)) {
		fprintf(stderr, "%s\n", e.msg);
		exit(1);
	}
	for (unsigned i = ROLE_FD_CONFIG; i < s->nfds; i++)
		close_fd(&s->fds[i]);
	r = ctl_send(s->ctl, CTL_HELLO, &hello, sizeof(hello), NULL, 0);
	CHECK(!r || r == -EPIPE); /* one that fails at once may be gone */
}

static void message(struct sandbox *s, const struct ctl_msg *m)
{
	switch (m->type) {
	case CTL_HELLO:
		CHECK_EQ(m->u.hello.version, CTL_VERSION);
		CHECK_EQ(s->phases, 0);
		break;
	case CTL_PHASE: /* in order, each once, with times that grow */
		CHECK_EQ(m->u.phase.id, s->phases);
		CHECK(m->u.phase.mono_ns >= s->phase_ns && m->u.phase.mono_ns <= loop_now_ns());
		s->phase_ns = m->u.phase.mono_ns;
		s->phases++;
		break;
	case CTL_EXIT:
		CHECK(!s->exited);
		s->exit = m->u.exit;
		s->exited = true;
		break;
	case CTL_PROBE_RESULT:
		s->probe_result = m->u.probe_result.result;
		s->probed = true;
		break;
	default:
		CHECK(!"unexpected message");
	}
}

/*
 * Serves messages until @until says so or the process closed its end. False: nothing came for too
 * long.
 */
static bool serve(struct sandbox *s, bool (*until)(const struct sandbox *s))
{
	for (;;) {
		struct pollfd p = { .fd = s->ctl, .events = POLLIN };
		int fds[CTL_FDS_MAX], r;
		struct ctl_msg m;

		if (until && until(s))
			return true;
		if (poll(&p, 1, LIMIT_MS) <= 0)
			return false;
		r = ctl_recv(s->ctl, &m, fds);
		if (r <= 0) {
			CHECK_EQ(r, 0); /* ECONNRESET would have hidden messages */
			return true;
		}
		message(s, &m);
	}
}

static bool running(const struct sandbox *s)
{
	return s->phases > PHASE_FIRST_KVM_RUN || s->exited;
}

/* To its end: no message may be missing, and no process left. */
static void finish(struct sandbox *s)
{
	struct pollfd p = { .fd = s->process.pidfd, .events = POLLIN };

	CHECK(serve(s, NULL));
	CHECK_EQ(poll(&p, 1, LIMIT_MS), 1);
	CHECK_EQ(process_reap(&s->process, true, &s->status), 1);
	close(s->ctl);
}

static void console(struct sandbox *s, const char *expected)
{
	char buf[256];
	ssize_t n = read(s->console, buf, sizeof(buf) - 1);

	buf[n > 0 ? n : 0] = 0;
	CHECK_STR(buf, expected);
	close(s->console);
}

static bool exited_with(const struct sandbox *s, int code)
{
	if (WIFEXITED(s->status) && WEXITSTATUS(s->status) == code)
		return true;
	fprintf(stderr, "wait status 0x%x, exit message %d: %s\n", s->status, s->exited,
		s->exit.detail);
	return false;
}

/* ---- machines that run ---- */

static void ends(const uint8_t *code, const uint8_t *end, enum confine_level best, enum vm_exit why,
	const char *detail, const char *out)
{
	struct sandbox s;

	prepare(&s, code, end);
	s.best = best;
	if (best == CONFINE_NONE)
		s.cfg.flags |= VMM_NO_CONFINE;
	spawn(&s);
	finish(&s);
	CHECK(exited_with(&s, 0));
	CHECK_EQ(s.phases, PHASE_COUNT);
	CHECK(s.exited);
	CHECK_EQ(s.exit.why, why);
	CHECK(strstr(s.exit.detail, detail) != NULL);
	console(&s, out);
}

/* Without confinement the leak detector looks at the whole life of a machine. */
static void all_ends(void)
{
	static const enum confine_level levels[] = { CONFINE_FULL, CONFINE_BASIC, CONFINE_NONE };

	for (size_t i = 0; i < ARRAY_SIZE(levels); i++)
		ends(greet, greet_end, levels[i], VM_EXIT_POWEROFF, "", "hello");
	ends(reset, reset_end, CONFINE_FULL, VM_EXIT_RESET, "reset register", "");
	ends(fault, fault_end, CONFINE_FULL, VM_EXIT_TRIPLE_FAULT, "vCPU 0", "");
	ends(lost, lost_end, CONFINE_FULL, VM_EXIT_CRASH, "can't emulate the instruction", "");
}

/* Every thread has its filter; workers that the kernel adds inherit one. Returns how many there are. */
static unsigned threads_locked(pid_t pid)
{
	char path[300], line[128];
	struct dirent *d;
	unsigned n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	REQUIRE(dir);
	while ((d = readdir(dir))) {
		int seccomp = -1;
		FILE *f;

		if (d->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%s/status", pid, d->d_name);
		f = fopen(path, "re");
		while (f && fgets(line, sizeof(line), f))
			sscanf(line, "Seccomp: %d", &seccomp);
		if (f)
			fclose(f);
		CHECK_EQ(seccomp, 2);
		n++;
	}
	closedir(dir);
	return n;
}

static void quit(void)
{
	struct sandbox s;

	prepare(&s, halt, halt_end);
	spawn(&s);
	CHECK(serve(&s, running));
	CHECK(!s.exited);
	CHECK(threads_locked(s.process.pid) >= 1 + s.cfg.cpus);
	CHECK_EQ(ctl_send(s.ctl, CTL_QUIT, NULL, 0, NULL, 0), 0);
	finish(&s);
	CHECK(exited_with(&s, 0));
	CHECK_EQ(s.exit.why, VM_EXIT_STOPPED);
	console(&s, "");
}

/* The supervisor vanishes, without a word. */
static void orphan(void)
{
	struct sandbox s;
	struct pollfd p;

	prepare(&s, halt, halt_end);
	spawn(&s);
	CHECK(serve(&s, running));
	close(s.ctl);
	p = (struct pollfd){ .fd = s.process.pidfd, .events = POLLIN };
	CHECK_EQ(poll(&p, 1, LIMIT_MS), 1);
	CHECK_EQ(process_reap(&s.process, true, &s.status), 1);
	CHECK(exited_with(&s, 0));
	console(&s, "");
}

/* Supervisors come and go; what one did wrong doesn't hurt the next, nor the machine. */
static void adopted(void)
{
	struct ctl_hello hello = { .version = CTL_VERSION }, wrong = { .version = CTL_VERSION + 1 };
	struct sockaddr_un a = { .sun_family = AF_UNIX }; /* autobind(7): a free abstract name */
	socklen_t len = sizeof(sa_family_t);
	struct sandbox s;
	int lis = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	REQUIRE(lis >= 0 && !bind(lis, (struct sockaddr *)&a, len) && !listen(lis, 8));
	len = sizeof(a);
	REQUIRE(!getsockname(lis, (struct sockaddr *)&a, &len));
	prepare(&s, halt, halt_end);
	s.cfg.flags &= ~(uint32_t)VMM_DIE_WITH_PARENT;
	s.cfg.listen_fd = add_fd(&s, lis);
	spawn(&s);
	CHECK(serve(&s, running));
	for (int i = 0; i < 6; i++) {
		int next = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

		REQUIRE(next >= 0 && !connect(next, (struct sockaddr *)&a, len));
		if (i % 3 == 1) /* one that can't be understood is hung up on */
			CHECK_EQ(send(s.ctl, "rubbish", 7, 0), 7);
		else
			close_fd(&s.ctl);
		if (i % 3 == 1) {
			CHECK(serve(&s, NULL));
			close_fd(&s.ctl);
		}
		s.ctl = next;
		s.phases = 0;
		CHECK_EQ(ctl_send(s.ctl, CTL_HELLO, i % 3 == 2 ? &wrong : &hello, sizeof(hello),
				 NULL, 0),
			0);
	}
	close_fd(&s.ctl); /* the last said a wrong hello */
	s.ctl = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	REQUIRE(s.ctl >= 0 && !connect(s.ctl, (struct sockaddr *)&a, len));
	CHECK_EQ(ctl_send(s.ctl, CTL_HELLO, &hello, sizeof(hello), NULL, 0), 0);
	CHECK_EQ(ctl_send(s.ctl, CTL_QUIT, NULL, 0, NULL, 0), 0);
	finish(&s);
	CHECK(exited_with(&s, 0));
	CHECK_EQ(s.exit.why, VM_EXIT_STOPPED);
	console(&s, "");
}

/* Nobody reads the console: the guest goes on, and memory doesn't grow. */
static void unread_console(void)
{
	struct sandbox s;

	prepare(&s, chatter, chatter_end);
	spawn(&s);
	CHECK(serve(&s, running));
	usleep(500000);
	CHECK_EQ(ctl_send(s.ctl, CTL_QUIT, NULL, 0, NULL, 0), 0);
	finish(&s);
	CHECK(exited_with(&s, 0));
	CHECK_EQ(s.exit.why, VM_EXIT_STOPPED);
	close(s.console);
}

/*
 * A stream that is given while nobody in the guest drives the device: accepted, closed with the
 * machine.
 */
static void streams(void)
{
	struct ctl_vsock v = { .port = 1024 };
	int pair[2];
	struct sandbox s;
	char c;

	prepare(&s, halt, halt_end);
	spawn(&s);
	CHECK(serve(&s, running));
	REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	CHECK_EQ(ctl_send(s.ctl, CTL_VSOCK_ACCEPT, &v, sizeof(v), &pair[1], 1), 0);
	close(pair[1]);
	CHECK_EQ(ctl_send(s.ctl, CTL_QUIT, NULL, 0, NULL, 0), 0);
	finish(&s);
	CHECK(exited_with(&s, 0));
	CHECK_EQ(read(pair[0], &c, 1), 0);
	close(pair[0]);
	console(&s, "");
}

/* ---- what the supervisor may say wrongly ---- */

static void wrong_messages(void)
{
	struct ctl_hello hello = { .version = CTL_VERSION + 1 };
	struct sandbox s;

	prepare(&s, halt, halt_end);
	spawn(&s);
	/* The first hello was right: a second one is no news, and no reason to end. */
	CHECK_EQ(ctl_send(s.ctl, CTL_HELLO, &hello, sizeof(hello), NULL, 0), 0);
	CHECK(serve(&s, running));
	CHECK(!s.exited);
	CHECK_EQ(send(s.ctl, "rubbish", 7, 0), 7);
	finish(&s);
	CHECK(exited_with(&s, 0));
	CHECK_EQ(s.exit.why, VM_EXIT_STOPPED);
	CHECK_STR(s.exit.detail, "control channel: Protocol error");
	console(&s, "");
}

/* ---- machines that never start ---- */

static void refused(struct sandbox *s, const char *text)
{
	spawn(s);
	finish(s);
	CHECK(exited_with(s, 1));
	CHECK(s->exited);
	CHECK_EQ(s->exit.why, VM_EXIT_NONE);
	CHECK(s->phases <= PHASE_KVM_READY);
	if (!strstr(s->exit.detail, text))
		fprintf(stderr, "\"%s\" lacks \"%s\"\n", s->exit.detail, text);
	CHECK(strstr(s->exit.detail, text) != NULL);
	console(s, "");
}

static void failed_starts(void)
{
	struct sandbox s;

	prepare(&s, greet, greet_end);
	s.cfg.version++;
	refused(&s, "another version of skerry");
	prepare(&s, greet, greet_end);
	s.cfg.memory = 16 * MIB;
	refused(&s, "use a whole number of MiB, 32 MiB to 64 GiB");
	prepare(&s, greet, greet_end);
	s.cfg.kvm_fd = s.cfg.kernel_fd;
	refused(&s, "/dev/kvm: not a KVM device");
	prepare(&s, greet, greet_end);
	s.cfg.kernel_fd = s.cfg.console_fd;
	refused(&s, "kernel: not a regular file");
	prepare(&s, greet, greet_end);
	REQUIRE(!ftruncate(s.fds[s.cfg.kernel_fd], 4096));
	REQUIRE(!ftruncate(s.fds[s.cfg.kernel_fd], 100));
	refused(&s, "kernel: truncated");
	prepare(&s, greet, greet_end);
	s.cfg.initrd_fd[0] = add_fd(&s, elf_image_memfd("x", 1));
	s.cfg.ninitrds = 1;
	REQUIRE(!ftruncate(s.fds[s.cfg.initrd_fd[0]], 32 * MIB));
	refused(&s, "initrd 0: 32 MiB don't fit");
	prepare(&s, greet, greet_end);
	s.cfg.guest_cid = 2; /* the host's own */
	refused(&s, "vsock");
	prepare(&s, greet, greet_end);
	s.cfg.ndisks = 1;
	s.cfg.disk[0].fd = s.cfg.console_fd;
	refused(&s, "disk");
	prepare(&s, greet, greet_end);
	s.best = CONFINE_NONE; /* and nobody said VMM_NO_CONFINE */
	refused(&s, "without confinement");
}

/* ---- confinement holds where the guest's bytes are parsed ---- */

static bool probed(const struct sandbox *s)
{
	return s->probed;
}

static void probe(uint32_t what)
{
	struct ctl_probe p = { .what = what };
	struct sandbox s;

	prepare(&s, halt, halt_end);
	spawn(&s);
	CHECK(serve(&s, running));
	CHECK_EQ(ctl_send(s.ctl, CTL_PROBE, &p, sizeof(p), NULL, 0), 0);
	CHECK(serve(&s, probed));
	if (s.probed) {
		CHECK(s.probe_result < 0);
		CHECK_EQ(ctl_send(s.ctl, CTL_QUIT, NULL, 0, NULL, 0), 0);
		finish(&s);
		CHECK(exited_with(&s, 0));
	} else {
		finish(&s);
		CHECK(WIFSIGNALED(s.status) && WTERMSIG(s.status) == SIGSYS);
	}
	close(s.console);
}

static void probes(void)
{
	for (uint32_t what = 0; what <= CONFINE_PROBE_COUNT; what++)
		probe(what);
}

int main(int argc, char **argv)
{
	struct error e = { 0 };

	if (!strcmp(argv[0], "skerry-vmm")) {
		confined = argc > 2 && !strstr(argv[2], "none");
		return vmm_main(argc, argv);
	}
	signal(SIGPIPE, SIG_IGN);
	REQUIRE(!process_init(&e));
	all_ends();
	quit();
	orphan();
	adopted();
	unread_console();
	streams();
	wrong_messages();
	failed_starts();
	probes();
	TEST_END();
}
