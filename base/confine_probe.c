/*
 * base/confine_probe.c - one attempt at each thing that a confined process must not do
 *
 * What:    raw system calls with arguments that would succeed, or fail for another reason than
 *          confinement, in a process that is not confined. Run by a role on its supervisor's
 *          request, for tests and doctor.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/keyctl.h>
#include <linux/kvm.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/confine.h"
#include "base/loop.h"

#define X32_BIT 0x40000000L

/* A descriptor, or what a call returned: closed again. */
static int fd_result(long r)
{
	if (r < 0)
		return -errno;
	close((int)r);
	return 0;
}

static int result(long r)
{
	return r < 0 ? -errno : 0;
}

static int try_open_file(void)
{
	return fd_result(syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY | O_CLOEXEC));
}

static int try_open_mem(void)
{
	return fd_result(syscall(SYS_openat, AT_FDCWD, "/proc/self/mem", O_RDWR | O_CLOEXEC));
}

static int try_socket_inet(void)
{
	return fd_result(syscall(SYS_socket, AF_INET, SOCK_STREAM, 0));
}

static int try_socket_unix(void)
{
	return fd_result(syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0));
}

static int try_connect(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(1) };

	return result(syscall(SYS_connect, 0, &a, sizeof(a)));
}

static int try_sendto(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX, .sun_path = "/run/probe" };

	return result(syscall(SYS_sendto, 0, "x", 1, MSG_NOSIGNAL, &a, sizeof(a)));
}

static int try_sendmsg(void)
{
	struct msghdr m = { 0 };

	return result(syscall(SYS_sendmsg, 0, &m, MSG_NOSIGNAL));
}

static int try_exec(void)
{
	char *argv[] = { "sh", "-c", "exit 0", NULL }, *envp[] = { NULL };

	return result(syscall(SYS_execve, "/bin/sh", argv, envp));
}

static int try_fork(void)
{
	long pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);

	if (pid < 0)
		return -errno;
	if (!pid)
		_exit(0);
	return result(waitpid((pid_t)pid, NULL, 0));
}

static int try_thread(void)
{
	struct clone_args a = { .flags = CLONE_VM | CLONE_FS | CLONE_FILES,
		.exit_signal = SIGCHLD };

	return result(syscall(SYS_clone3, &a, 0UL)); /* size 0: EINVAL, nothing starts */
}

static int try_ptrace(void)
{
	return result(syscall(SYS_ptrace, PTRACE_TRACEME, 0, NULL, NULL));
}

static int try_kill_parent(void)
{
	return result(syscall(SYS_kill, getppid(), 0));
}

static int try_signal_others(void)
{
	return result(syscall(SYS_tgkill, getpid() + 1, getpid() + 1, 0));
}

static int try_mount(void)
{
	return result(syscall(SYS_mount, "none", "/", "tmpfs", 0UL, NULL));
}

static int try_unshare(void)
{
	return result(syscall(SYS_unshare, CLONE_NEWNS));
}

static int try_setns(void)
{
	return result(syscall(SYS_setns, 0, 0));
}

static int try_uring_setup(void)
{
	struct io_uring_params p = { 0 };

	return fd_result(syscall(SYS_io_uring_setup, 1, &p));
}

static int try_uring_register(void)
{
	return result(syscall(SYS_io_uring_register, 0, IORING_REGISTER_BUFFERS, NULL, 0));
}

static int try_mmap_exec(void)
{
	long p = syscall(SYS_mmap, NULL, 4096UL, PROT_READ | PROT_WRITE | PROT_EXEC,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0UL);

	return p == -1 ? -errno : result(munmap((void *)p, 4096));
}

static int try_mprotect_exec(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int r;

	if (p == MAP_FAILED)
		return -errno;
	r = result(syscall(SYS_mprotect, p, 4096UL, PROT_READ | PROT_EXEC));
	munmap(p, 4096);
	return r;
}

static int try_dumpable(void)
{
	return result(syscall(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0));
}

static int try_bpf(void)
{
	union bpf_attr a = {
		.map_type = BPF_MAP_TYPE_ARRAY,
		.key_size = 4,
		.value_size = 4,
		.max_entries = 1,
	};

	return fd_result(syscall(SYS_bpf, BPF_MAP_CREATE, &a, sizeof(a)));
}

static int try_perf(void)
{
	struct perf_event_attr a = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(a),
		.config = PERF_COUNT_SW_TASK_CLOCK,
	};

	return fd_result(syscall(SYS_perf_event_open, &a, 0, -1, -1, 0UL));
}

static int try_keyctl(void)
{
	return result(syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 1));
}

static int try_userfaultfd(void)
{
	return fd_result(syscall(SYS_userfaultfd, O_CLOEXEC));
}

static int try_ioctl_tty(void)
{
	return result(syscall(SYS_ioctl, 0, TIOCSTI, "x"));
}

static int try_ioctl_kvm(void)
{
	return result(syscall(SYS_ioctl, 0, KVM_CREATE_VM, 0));
}

static int try_setuid(void)
{
	return result(syscall(SYS_setresuid, 0, 0, 0));
}

static int try_fcntl(void)
{
	return result(syscall(SYS_fcntl, 0, F_SETOWN, 1));
}

/* Nothing is mapped at 0: EFAULT tells that the memory was within reach. */
static int try_vm_write(void)
{
	struct iovec local = { .iov_base = "x", .iov_len = 1 }, remote = { .iov_len = 1 };
	int r = result(syscall(SYS_process_vm_writev, getppid(), &local, 1UL, &remote, 1UL, 0UL));

	return r == -EFAULT ? 0 : r;
}

/* getpid(2) by the 32-bit entry: numbers mean other calls there. */
static int try_ia32(void)
{
	long r = 20;

	__asm__ volatile("int $0x80" : "+a"(r) : : "memory", "r8", "r9", "r10", "r11");
	return r < 0 ? (int)r : 0;
}

static int try_x32(void)
{
	return result(syscall(X32_BIT | SYS_getpid));
}

static const struct {
	const char *name;
	int (*attempt)(void);
} probes[CONFINE_PROBE_RING_FIRST] = {
	[CONFINE_PROBE_OPEN_FILE] = { "open-file", try_open_file },
	[CONFINE_PROBE_OPEN_MEM] = { "open-mem", try_open_mem },
	[CONFINE_PROBE_SOCKET_INET] = { "socket-inet", try_socket_inet },
	[CONFINE_PROBE_SOCKET_UNIX] = { "socket-unix", try_socket_unix },
	[CONFINE_PROBE_CONNECT] = { "connect", try_connect },
	[CONFINE_PROBE_SENDTO] = { "sendto", try_sendto },
	[CONFINE_PROBE_SENDMSG] = { "sendmsg", try_sendmsg },
	[CONFINE_PROBE_EXEC] = { "exec", try_exec },
	[CONFINE_PROBE_FORK] = { "fork", try_fork },
	[CONFINE_PROBE_THREAD] = { "thread", try_thread },
	[CONFINE_PROBE_PTRACE] = { "ptrace", try_ptrace },
	[CONFINE_PROBE_KILL_PARENT] = { "kill-parent", try_kill_parent },
	[CONFINE_PROBE_SIGNAL_OTHERS] = { "signal-others", try_signal_others },
	[CONFINE_PROBE_MOUNT] = { "mount", try_mount },
	[CONFINE_PROBE_UNSHARE] = { "unshare", try_unshare },
	[CONFINE_PROBE_SETNS] = { "setns", try_setns },
	[CONFINE_PROBE_URING_SETUP] = { "uring-setup", try_uring_setup },
	[CONFINE_PROBE_URING_REGISTER] = { "uring-register", try_uring_register },
	[CONFINE_PROBE_MMAP_EXEC] = { "mmap-exec", try_mmap_exec },
	[CONFINE_PROBE_MPROTECT_EXEC] = { "mprotect-exec", try_mprotect_exec },
	[CONFINE_PROBE_DUMPABLE] = { "dumpable", try_dumpable },
	[CONFINE_PROBE_BPF] = { "bpf", try_bpf },
	[CONFINE_PROBE_PERF] = { "perf", try_perf },
	[CONFINE_PROBE_KEYCTL] = { "keyctl", try_keyctl },
	[CONFINE_PROBE_USERFAULTFD] = { "userfaultfd", try_userfaultfd },
	[CONFINE_PROBE_IOCTL_TTY] = { "ioctl-tty", try_ioctl_tty },
	[CONFINE_PROBE_IOCTL_KVM] = { "ioctl-kvm", try_ioctl_kvm },
	[CONFINE_PROBE_SETUID] = { "setuid", try_setuid },
	[CONFINE_PROBE_FCNTL] = { "fcntl", try_fcntl },
	[CONFINE_PROBE_VM_WRITE] = { "vm-write", try_vm_write },
	[CONFINE_PROBE_IA32] = { "ia32", try_ia32 },
	[CONFINE_PROBE_X32] = { "x32", try_x32 },
};

/*
 * With IOSQE_FIXED_FILE an operation is refused for its own sake; without, also because its
 * descriptor isn't in the ring's table. The first three succeed in a ring that isn't confined.
 */
static char byte;

static const struct {
	const char *name;
	uint8_t opcode;
	uint8_t flags;
	int fd;
	const void *addr;
	uint32_t len;
	uint64_t off;
} ring_probes[] = {
	{ "ring-openat", IORING_OP_OPENAT, 0, AT_FDCWD, "/etc/passwd" },
	{ "ring-socket", IORING_OP_SOCKET, 0, AF_INET, .off = SOCK_STREAM },
	{ "ring-read-unregistered", IORING_OP_READ, 0, 0, &byte, .len = 1 },
	{ "ring-openat2", IORING_OP_OPENAT2, IOSQE_FIXED_FILE },
	{ "ring-connect", IORING_OP_CONNECT, IOSQE_FIXED_FILE },
	{ "ring-accept", IORING_OP_ACCEPT, IOSQE_FIXED_FILE },
	{ "ring-sendmsg", IORING_OP_SENDMSG, IOSQE_FIXED_FILE },
	{ "ring-send", IORING_OP_SEND, IOSQE_FIXED_FILE },
	{ "ring-unlinkat", IORING_OP_UNLINKAT, IOSQE_FIXED_FILE },
	{ "ring-splice", IORING_OP_SPLICE, IOSQE_FIXED_FILE },
	{ "ring-uring-cmd", IORING_OP_URING_CMD, IOSQE_FIXED_FILE },
};

_Static_assert(ARRAY_SIZE(ring_probes) == CONFINE_PROBE_COUNT - CONFINE_PROBE_RING_FIRST,
	"a row for each");

const char *confine_probe_name(enum confine_probe what)
{
	if ((unsigned)what >= CONFINE_PROBE_COUNT)
		return NULL;
	return what < CONFINE_PROBE_RING_FIRST ? probes[what].name
					       : ring_probes[what - CONFINE_PROBE_RING_FIRST].name;
}

int confine_probe_run(enum confine_probe what)
{
	return (unsigned)what < CONFINE_PROBE_RING_FIRST ? probes[what].attempt() : -EINVAL;
}

void confine_probe_ring(struct loop *l, struct loop_op *op, enum confine_probe what)
{
	size_t i = (size_t)what - CONFINE_PROBE_RING_FIRST;
	struct io_uring_sqe sqe = { .opcode = UINT8_MAX }; /* no such operation: -EINVAL */

	if (i < ARRAY_SIZE(ring_probes))
		sqe = (struct io_uring_sqe){
			.opcode = ring_probes[i].opcode,
			.flags = ring_probes[i].flags,
			.fd = ring_probes[i].fd,
			.addr = (uintptr_t)ring_probes[i].addr,
			.len = ring_probes[i].len,
			.off = ring_probes[i].off,
		};
	loop_raw(l, op, &sqe);
}
