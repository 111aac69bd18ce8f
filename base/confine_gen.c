/*
 * base/confine_gen.c - build-time program: the seccomp filters, as C
 *
 * What:    one table per argument rule; a row says which kinds of threads it is for. libseccomp
 *          turns the rows of a kind into a program, a binary tree over the call numbers; the output
 *          is included by confine_seccomp.c. Done at build time because it costs 400,000
 *          instructions a filter at run time; and the kernel, which at installation runs the filter
 *          for each number there is, is through a tree with 30 % fewer than through a chain.
 * Why:     what is absent is the point: no call takes a path, makes a socket, a process, a thread,
 *          a ring or executable memory. Datagrams have no address, control messages are received
 *          but never sent, signals stay in the process.
 * Usage:   confine_gen OUTPUT.h
 * Spec:    seccomp(2), seccomp_rule_add(3)
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/confine_int.h"

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

/* Allowed if (argument & mask) == value. The kernel ignores the upper half of 32-bit arguments. */
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
	{ SCMP_SYS(tgkill), BOTH, 0, UINT32_MAX, CONFINE_SELF }, /* a vCPU is kicked by a signal */
	{ SCMP_SYS(sendto), LOOP, 4, UINT64_MAX, 0 },  /* no address: to the connected peer */
	{ SCMP_SYS(accept4), LOOP, 1, UINT64_MAX, 0 }, /* a new supervisor */
	{ SCMP_SYS(io_uring_register), LOOP, 1, UINT32_MAX, IORING_REGISTER_FILES_UPDATE },
};

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
	return r;
}

/* libseccomp 2.5 exports to descriptors only. Returns the number of instructions, or -errno. */
static int export(scmp_filter_ctx ctx, struct sock_filter ret[CONFINE_FILTER_MAX])
{
	FILE *f = tmpfile();
	size_t n;
	int r;

	if (!f)
		return -errno;
	r = seccomp_export_bpf(ctx, fileno(f));
	rewind(f);
	n = r ? 0 : fread(ret, sizeof(ret[0]), CONFINE_FILTER_MAX, f);
	fclose(f);
	if (!r && (!n || n == CONFINE_FILTER_MAX))
		return -E2BIG;
	return r ? r : (int)n;
}

static int build(unsigned kind, struct sock_filter ret[CONFINE_FILTER_MAX])
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r;

	if (!ctx)
		return -ENOMEM;
	r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	r = r ? r : seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	r = r ? r : add_rules(ctx, kind);
	r = r ? r : export(ctx, ret);
	seccomp_release(ctx);
	return r;
}

static void print(FILE *f, unsigned kind, const struct sock_filter *insns, int n)
{
	fprintf(f, "static const struct sock_filter filter_%u[] = {\n", kind);
	for (int i = 0; i < n; i++)
		fprintf(f, "\t{ 0x%02x, %u, %u, 0x%x },\n", insns[i].code, insns[i].jt, insns[i].jf,
			insns[i].k);
	fprintf(f, "};\n");
}

int main(int argc, char **argv)
{
	struct sock_filter insns[CONFINE_FILTER_MAX];
	FILE *f = argc == 2 ? fopen(argv[1], "w") : NULL;

	if (!f) {
		fprintf(stderr, "usage: confine_gen OUTPUT.h\n");
		return 2;
	}
	fprintf(f, "/* made by base/confine_gen.c */\n");
	for (unsigned kind = 0; kind < CONFINE_THREADS; kind++) {
		int n = build(kind, insns);

		if (n < 0) {
			fprintf(stderr, "confine_gen: kind %u: %s\n", kind, strerror(-n));
			return 1;
		}
		print(f, kind, insns, n);
	}
	return fclose(f) ? 1 : 0;
}
