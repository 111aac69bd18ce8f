/*
 * base/confine.h - a role gives up everything it does not need
 *
 * What:    three steps. process_spawn() creates namespaces and maps users. confine_enter(), early
 *          in the role, moves it into an empty read-only root and drops capabilities, privileges
 *          and, by Landlock, the file system and TCP. confine_lock(), once set-up is done, installs
 *          a seccomp filter per thread: a violation kills the process.
 * Levels:  full: user, mount, pid, net, ipc, uts and cgroup namespaces; root: the same without a
 *          user namespace (it is not allowed, but we are root), under a user id of its own; basic:
 *          neither is allowed; Landlock, seccomp and non-dumpable are all there is.
 * Files:   one per mechanism: confine_root.c, confine_caps.c, confine_landlock.c,
 *          confine_seccomp.c, confine_probe.c; confine.c orders them.
 * Spec:    user_namespaces(7), pivot_root(2), capabilities(7), landlock(7), seccomp(2)
 */
#pragma once

#include "base/error.h"

enum confine_level { CONFINE_NONE, CONFINE_BASIC, CONFINE_ROOT, CONFINE_FULL };

/* "none", "basic", "root", "full" */
const char *confine_level_name(enum confine_level level);

/**
 * confine_enter() - Leave the host's file system, users and privileges
 * @arg: the role's argv[2], from process_spawn()
 * @ret: the level entered
 *
 * Before any thread is started and before anything untrusted is read. Descriptors stay open.
 * Nothing can be opened by path afterwards. At CONFINE_NONE nothing is done.
 */
int confine_enter(const char *arg, enum confine_level *ret, struct error *e) must_check;

/* confine_landlock_abi() - Its version; -ENOSYS: not built in, -EOPNOTSUPP: not in lsm=. */
int confine_landlock_abi(void);

/* What a thread of a role does once set-up is over; each has its own list of system calls. */
enum confine_thread {
	CONFINE_VMM_LOOP, /* io_uring, control channel, guest memory, kicking vCPU threads */
	CONFINE_VMM_VCPU, /* KVM_RUN, eventfds */
	CONFINE_THREADS
};

/**
 * confine_lock() - Install the calling thread's seccomp filter, for good
 *
 * Each thread locks itself; none can be created afterwards, so start all threads first and let them
 * lock themselves before they touch guest data, the loop thread last. Any other call than the
 * listed ones (confine_gen.c) ends the process with SIGSYS. Does nothing after confine_enter() at
 * CONFINE_NONE; -EINVAL before confine_enter().
 */
int confine_lock(enum confine_thread kind, struct error *e) must_check;

/* What a confined process must not be able to do; one attempt each, for tests and doctor. */
enum confine_probe {
	CONFINE_PROBE_OPEN_FILE, /* openat("/etc/passwd") */
	CONFINE_PROBE_OPEN_MEM,  /* openat("/proc/self/mem") */
	CONFINE_PROBE_SOCKET_INET,
	CONFINE_PROBE_SOCKET_UNIX,
	CONFINE_PROBE_CONNECT,
	CONFINE_PROBE_SENDTO, /* with an address */
	CONFINE_PROBE_SENDMSG,
	CONFINE_PROBE_EXEC,
	CONFINE_PROBE_FORK,
	CONFINE_PROBE_THREAD,
	CONFINE_PROBE_PTRACE,
	CONFINE_PROBE_KILL_PARENT,
	CONFINE_PROBE_SIGNAL_OTHERS, /* tgkill() of another process */
	CONFINE_PROBE_MOUNT,
	CONFINE_PROBE_UNSHARE,
	CONFINE_PROBE_SETNS,
	CONFINE_PROBE_URING_SETUP,    /* a ring without restrictions */
	CONFINE_PROBE_URING_REGISTER, /* another opcode than FILES_UPDATE */
	CONFINE_PROBE_MMAP_EXEC,
	CONFINE_PROBE_MPROTECT_EXEC,
	CONFINE_PROBE_DUMPABLE, /* prctl(PR_SET_DUMPABLE, 1) */
	CONFINE_PROBE_BPF,
	CONFINE_PROBE_PERF,
	CONFINE_PROBE_KEYCTL,
	CONFINE_PROBE_USERFAULTFD,
	CONFINE_PROBE_IOCTL_TTY, /* TIOCSTI */
	CONFINE_PROBE_IOCTL_KVM, /* KVM_CREATE_VM */
	CONFINE_PROBE_SETUID,
	CONFINE_PROBE_FCNTL,
	CONFINE_PROBE_VM_WRITE, /* process_vm_writev() into the parent */
	CONFINE_PROBE_IA32,     /* the 32-bit system call entry */
	CONFINE_PROBE_X32,      /* x32 numbers */
	/* Operations of the loop's ring, which no seccomp filter sees: confine_probe_ring(). */
	CONFINE_PROBE_RING_FIRST,
	CONFINE_PROBE_RING_OPENAT = CONFINE_PROBE_RING_FIRST,
	CONFINE_PROBE_RING_SOCKET,
	CONFINE_PROBE_RING_READ_UNREGISTERED, /* a descriptor that is not in the ring's table */
	CONFINE_PROBE_RING_OPENAT2,
	CONFINE_PROBE_RING_CONNECT,
	CONFINE_PROBE_RING_ACCEPT,
	CONFINE_PROBE_RING_SENDMSG,
	CONFINE_PROBE_RING_SEND,
	CONFINE_PROBE_RING_UNLINKAT,
	CONFINE_PROBE_RING_SPLICE,
	CONFINE_PROBE_RING_URING_CMD,
	CONFINE_PROBE_COUNT
};

/* confine_probe_name() - "open-file", ...; NULL: no such probe */
const char *confine_probe_name(enum confine_probe what);

/**
 * confine_probe_run() - Try one of those before CONFINE_PROBE_RING_FIRST
 *
 * Return: 0: it was possible (bad); -errno: refused; after confine_lock() usually no return at all:
 * SIGSYS.
 */
int confine_probe_run(enum confine_probe what);

/**
 * confine_probe_ring() - Queue one of those from CONFINE_PROBE_RING_FIRST
 * @op: @op->done gets -EACCES from a confined ring; 0 or more: it was possible (bad)
 */
struct loop;
struct loop_op;
void confine_probe_ring(struct loop *l, struct loop_op *op, enum confine_probe what);
