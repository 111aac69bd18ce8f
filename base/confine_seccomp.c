/*
 * base/confine_seccomp.c - the system calls each kind of thread may make once set-up is over
 *
 * What:    one table per argument rule; a row says which kinds of threads it is for. libseccomp turns the rows of
 *          a kind into a program (10,000 instructions, 35 kB of heap, once per process, on the thread that
 *          prepares it); a thread then installs it without allocating anything.
 * Why:     what is absent is the point: no call takes a path, makes a socket, a process, a thread, a ring or
 *          executable memory. Datagrams have no address, control messages are received but never sent, signals
 *          stay in the process.
 * Threads: confine_prepare() and confine_lock() from any.
 * Spec:    seccomp(2), seccomp_rule_add(3)
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/confine_int.h"

#define FILTER_MAX 256 /* instructions; the longest has about 90 */

#define LOOP (1u << CONFINE_VMM_LOOP)
#define VCPU (1u << CONFINE_VMM_VCPU)
#define BOTH (LOOP | VCPU)

/* Allowed whatever their arguments. */
static const struct {
	int nr;
	unsigned kinds;
} plain_rules[] = {
	{ SCMP_SYS(io_uring_enter), LOOP },
	{ SCMP_SYS(write), BOTH }, /* eventfds, the log */
	{ SCMP_SYS(read), LOOP },
	{ SCMP_SYS(recvmsg), LOOP }, /* control channel */
	{ SCMP_SYS(close), BOTH },   /* a reset of the guest's driver ends connections */
	{ SCMP_SYS(shutdown), BOTH },
	{ SCMP_SYS(munmap), BOTH },
	{ SCMP_SYS(mremap), BOTH },
	{ SCMP_SYS(brk), BOTH },
	{ SCMP_SYS(clock_gettime), BOTH }, /* where the vDSO can't: emulated hosts */
	{ SCMP_SYS(clock_nanosleep), BOTH },
	{ SCMP_SYS(sched_yield), BOTH },
	{ SCMP_SYS(restart_syscall), BOTH },
	{ SCMP_SYS(getrandom), BOTH },
	{ SCMP_SYS(getpid), BOTH },
	{ SCMP_SYS(gettid), BOTH },
	{ SCMP_SYS(rt_sigaction), BOTH }, /* abort(3) */
	{ SCMP_SYS(rt_sigprocmask), BOTH },
	{ SCMP_SYS(rt_sigreturn), BOTH },
	{ SCMP_SYS(sigaltstack), BOTH },
	{ SCMP_SYS(exit), BOTH },
	{ SCMP_SYS(exit_group), BOTH },
};

/* Allowed if (argument @arg & mask) == value. 32-bit arguments: the kernel ignores the upper half, so does mask. */
static const struct {
	int nr;
	unsigned kinds;
	unsigned arg;
	uint64_t mask, value;
} masked_rules[] = {
	{ SCMP_SYS(ioctl), VCPU, 1, UINT32_MAX, KVM_RUN },
	{ SCMP_SYS(ioctl), VCPU, 1, UINT32_MAX, KVM_GET_REGS }, /* what a crash report shows */
	{ SCMP_SYS(mmap), BOTH, 2, PROT_EXEC, 0 },
	{ SCMP_SYS(mprotect), BOTH, 2, PROT_EXEC, 0 },
	{ SCMP_SYS(madvise), BOTH, 2, UINT32_MAX, MADV_DONTNEED },
	{ SCMP_SYS(madvise), BOTH, 2, UINT32_MAX, MADV_FREE },
	{ SCMP_SYS(madvise), BOTH, 2, UINT32_MAX,
		MADV_NOHUGEPAGE }, /* how a sanitizer's threads end */
	{ SCMP_SYS(madvise), BOTH, 2, UINT32_MAX, MADV_DONTDUMP },
	{ SCMP_SYS(futex), BOTH, 1, FUTEX_CMD_MASK &UINT32_MAX, FUTEX_WAIT },
	{ SCMP_SYS(futex), BOTH, 1, FUTEX_CMD_MASK &UINT32_MAX, FUTEX_WAKE },
	{ SCMP_SYS(futex), BOTH, 1, FUTEX_CMD_MASK &UINT32_MAX, FUTEX_WAIT_BITSET },
	{ SCMP_SYS(sendto), LOOP, 4, UINT64_MAX, 0 }, /* no address: to the connected peer */
	{ SCMP_SYS(io_uring_register), LOOP, 1, UINT32_MAX, IORING_REGISTER_FILES_UPDATE },
};

static struct filter {
	struct sock_filter insns[FILTER_MAX];
	unsigned short len; /* 0: not prepared */
} filters[CONFINE_THREADS];
static pthread_mutex_t prepare_lock = PTHREAD_MUTEX_INITIALIZER;

static int add_rules(scmp_filter_ctx ctx, unsigned kind)
{
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(masked_rules) && !r; i++)
		if (masked_rules[i].kinds & 1u << kind)
			r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, masked_rules[i].nr, 1,
				SCMP_CMP64(masked_rules[i].arg, SCMP_CMP_MASKED_EQ,
					masked_rules[i].mask, masked_rules[i].value));
	for (size_t i = 0; i < ARRAY_SIZE(plain_rules) && !r; i++)
		if (plain_rules[i].kinds & 1u << kind)
			r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, plain_rules[i].nr, 0);
	/* Kicking a vCPU thread: signals to this process only. */
	if (!r)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
			SCMP_A0_64(SCMP_CMP_MASKED_EQ, UINT32_MAX, (uint64_t)getpid()));
	/* The filter is a chain: what runs a million times a second comes first. */
	if (!r && kind == CONFINE_VMM_VCPU)
		r = seccomp_syscall_priority(ctx, SCMP_SYS(ioctl), 255);
	if (!r && kind == CONFINE_VMM_LOOP)
		r = seccomp_syscall_priority(ctx, SCMP_SYS(io_uring_enter), 255);
	return r;
}

/* libseccomp 2.5 exports to descriptors only. */
static int export(scmp_filter_ctx ctx, struct filter *f)
{
	autoclose int fd = memfd_create("filter", MFD_CLOEXEC);
	ssize_t n;
	int r;

	if (fd < 0)
		return -errno;
	r = seccomp_export_bpf(ctx, fd);
	if (r)
		return r;
	n = pread(fd, f->insns, sizeof(f->insns), 0);
	if (n < 0)
		return -errno;
	if (!n || (size_t)n == sizeof(f->insns) || (size_t)n % sizeof(f->insns[0]))
		return -E2BIG;
	f->len = (unsigned short)((size_t)n / sizeof(f->insns[0]));
	return 0;
}

static int build(unsigned kind)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r;

	if (!ctx)
		return -ENOMEM;
	r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	r = r ? r : add_rules(ctx, kind);
	r = r ? r : export(ctx, &filters[kind]);
	seccomp_release(ctx);
	return r;
}

int confine_prepare(enum confine_thread kind, struct error *e)
{
	int r = 0;

	pthread_mutex_lock(&prepare_lock);
	if (!filters[kind].len)
		r = build(kind);
	pthread_mutex_unlock(&prepare_lock);
	return r ? error_set(e, -r, "confinement: building a seccomp filter: %s", strerror(-r)) : 0;
}

int confine_seccomp(enum confine_thread kind, struct error *e)
{
	struct sock_fprog prog = { .filter = filters[kind].insns };
	int r = confine_prepare(kind, e);

	if (r)
		return r;
	prog.len = filters[kind].len;
	if (syscall(SYS_seccomp, 1 /* SECCOMP_SET_MODE_FILTER */, 0, &prog))
		return error_set(e, errno, "confinement: seccomp: %s%s", strerror(errno),
			errno == EINVAL ? "; the kernel needs CONFIG_SECCOMP_FILTER" : "");
	return 0;
}
