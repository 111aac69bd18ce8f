/*
 * api/emu/accel_measure.c - how long this machine's KVM takes for a turn of a loop in ring 0
 *
 * What:    a long-mode guest of four pages counts down and halts. Where KVM emulates ring-0 instructions one by
 *          one (a paravirtual KVM without vmx/svm) a turn takes microseconds and no kernel would ever boot.
 * Time:    of this thread's CPU, the guest's included: a busy machine must not make a good KVM look slow.
 * Bound:   a timer signal sets kvm_run.immediate_exit, so KVM_RUN returns at once even if the signal arrives just
 *          before it; the turns left in rcx say how far the guest came.
 * Spec:    Intel SDM 3A 4.5 (4-level paging), 3A 5.4 (descriptors); KVM API 4.10, 4.35.
 */
#include "api/emu/accel.h"

#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#define GUEST_BYTES 0x4000 /* code, PML4, PDPT, PD: a page each */
#define WARM_TURNS  16
#define MOST_NS     (900 * NSEC_PER_MSEC)

#define CR0_PE   (UINT64_C(1) << 0)
#define CR0_PG   (UINT64_C(1) << 31)
#define CR4_PAE  (UINT64_C(1) << 5)
#define EFER_LME (UINT64_C(1) << 8)
#define EFER_LMA (UINT64_C(1) << 10)

struct tiny {
	int vm, vcpu;
	uint8_t *mem;
	struct kvm_run *run;
	size_t run_len;
	const char *failed; /* the call that did, errno beside it */
};

static const uint8_t tiny_code[] = {
	0xff, 0xc9, /* 1: dec ecx */
	0x75, 0xfc, /*    jnz 1b */
	0xf4,       /*    hlt */
};

/* The one structure the signal handler may touch. */
static struct kvm_run *volatile alarm_run;

static void on_alarm(unused_arg int sig)
{
	struct kvm_run *run = alarm_run;

	if (run)
		run->immediate_exit = 1;
}

static int tiny_fail(struct tiny *t, const char *call)
{
	t->failed = call;
	return -errno;
}

static void tiny_tables(uint8_t *mem)
{
	/* Present and writable; the last maps 2 MiB at 0. */
	uint64_t pml4 = 0x2000 | 3, pdpt = 0x3000 | 3, pd = 0x83;

	memcpy(mem, tiny_code, sizeof(tiny_code));
	memcpy(mem + 0x1000, &pml4, sizeof(pml4));
	memcpy(mem + 0x2000, &pdpt, sizeof(pdpt));
	memcpy(mem + 0x3000, &pd, sizeof(pd));
}

static int tiny_sregs(struct tiny *t)
{
	struct kvm_segment code = {
		.limit = 0xffffffff,
		.selector = 8,
		.type = 0xb,
		.present = 1,
		.s = 1,
		.l = 1,
		.g = 1,
	};
	struct kvm_segment data = {
		.limit = 0xffffffff,
		.selector = 16,
		.type = 3,
		.present = 1,
		.s = 1,
		.db = 1,
		.g = 1,
	};
	struct kvm_sregs s;

	if (ioctl(t->vcpu, KVM_GET_SREGS, &s))
		return tiny_fail(t, "KVM_GET_SREGS");
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.cr3 = 0x1000;
	s.cr4 = CR4_PAE;
	s.cr0 = CR0_PE | CR0_PG;
	s.efer = EFER_LME | EFER_LMA;
	if (ioctl(t->vcpu, KVM_SET_SREGS, &s))
		return tiny_fail(t, "KVM_SET_SREGS");
	return 0;
}

static int tiny_create(struct tiny *t, int kvm)
{
	struct kvm_userspace_memory_region region = { .memory_size = GUEST_BYTES };
	int len;

	t->vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (t->vm < 0)
		return tiny_fail(t, "KVM_CREATE_VM");
	t->mem =
		mmap(NULL, GUEST_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (t->mem == MAP_FAILED)
		return tiny_fail(t, "mmap");
	tiny_tables(t->mem);
	region.userspace_addr = (uintptr_t)t->mem;
	if (ioctl(t->vm, KVM_SET_USER_MEMORY_REGION, &region))
		return tiny_fail(t, "KVM_SET_USER_MEMORY_REGION");
	t->vcpu = ioctl(t->vm, KVM_CREATE_VCPU, 0);
	if (t->vcpu < 0)
		return tiny_fail(t, "KVM_CREATE_VCPU");
	len = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (len < (int)sizeof(*t->run))
		return tiny_fail(t, "KVM_GET_VCPU_MMAP_SIZE");
	t->run_len = (size_t)len;
	t->run = mmap(NULL, t->run_len, PROT_READ | PROT_WRITE, MAP_SHARED, t->vcpu, 0);
	if (t->run == MAP_FAILED)
		return tiny_fail(t, "mmap of a vCPU");
	return tiny_sregs(t);
}

static void tiny_destroy(struct tiny *t)
{
	if (t->run != MAP_FAILED)
		munmap(t->run, t->run_len);
	close_fd(&t->vcpu);
	close_fd(&t->vm);
	if (t->mem != MAP_FAILED)
		munmap(t->mem, GUEST_BYTES);
}

/* Runs until the guest halts (*ret_done = turns) or the alarm rings (the turns done so far). */
static int tiny_count(struct tiny *t, uint64_t turns, uint64_t *ret_done)
{
	struct kvm_regs regs = { .rip = 0, .rcx = turns, .rflags = 2 };

	if (ioctl(t->vcpu, KVM_SET_REGS, &regs))
		return tiny_fail(t, "KVM_SET_REGS");
	if (ioctl(t->vcpu, KVM_RUN, 0)) {
		if (errno != EINTR)
			return tiny_fail(t, "KVM_RUN");
		if (ioctl(t->vcpu, KVM_GET_REGS, &regs))
			return tiny_fail(t, "KVM_GET_REGS");
		*ret_done = turns - MIN(regs.rcx, turns);
		return 0;
	}
	if (t->run->exit_reason != KVM_EXIT_HLT) {
		errno = EIO;
		return tiny_fail(t, "KVM_RUN (the guest didn't reach its hlt)");
	}
	*ret_done = turns;
	return 0;
}

static uint64_t cpu_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

static int tiny_time(struct tiny *t, struct accel_report *ret)
{
	uint64_t done, start, spent;
	int r = tiny_count(t, WARM_TURNS, &done);

	if (r)
		return r;
	start = cpu_now_ns();
	r = tiny_count(t, ACCEL_TURNS, &done);
	if (r)
		return r;
	spent = cpu_now_ns() - start;
	ret->turn_ns_x100 = spent * 100 / MAX(done, UINT64_C(1));
	ret->kvm = ret->turn_ns_x100 <= ACCEL_USABLE_NS * 100 ? ACCEL_KVM_USABLE : ACCEL_KVM_SLOW;
	return 0;
}

/* The alarms of this thread for the time of one measurement: CPU time, and time, should that stand still. */
struct bound {
	timer_t timer[2];
	unsigned n;
	struct sigaction old;
	sigset_t old_mask;
};

static void bound_disarm(struct bound *b)
{
	alarm_run = NULL;
	while (b->n)
		timer_delete(b->timer[--b->n]);
	pthread_sigmask(SIG_SETMASK, &b->old_mask, NULL);
	sigaction(SIGALRM, &b->old, NULL);
}

static int bound_arm(struct bound *b, struct kvm_run *run)
{
	static const struct {
		clockid_t clock;
		uint64_t ns;
	} limits[] = {
		{ CLOCK_THREAD_CPUTIME_ID, ACCEL_MEASURE_MAX_NS },
		{ CLOCK_MONOTONIC, MOST_NS },
	};
	struct sigaction sa = { .sa_handler = on_alarm };
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM };
	sigset_t set;
	int r = 0;

	ev._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	alarm_run = run;
	sigaction(SIGALRM, &sa, &b->old);
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(SIG_UNBLOCK, &set, &b->old_mask);
	for (b->n = 0; !r && b->n < ARRAY_SIZE(limits); b->n += !r) {
		struct itimerspec when = { .it_value.tv_nsec = (long)limits[b->n].ns };

		if (timer_create(limits[b->n].clock, &ev, &b->timer[b->n]) ||
			timer_settime(b->timer[b->n], 0, &when, NULL))
			r = -errno;
	}
	if (r)
		bound_disarm(b);
	return r;
}

int accel_measure(int kvm_fd, struct accel_report *ret)
{
	struct tiny t = { .vm = -1, .vcpu = -1, .mem = MAP_FAILED, .run = MAP_FAILED };
	struct accel_report rep = { 0 };
	struct bound b;
	int r = tiny_create(&t, kvm_fd);

	if (!r) {
		r = bound_arm(&b, t.run);
		if (!r) {
			r = tiny_time(&t, &rep);
			bound_disarm(&b);
		}
	}
	if (r && t.failed) {
		rep.kvm = ACCEL_KVM_BROKEN;
		snprintf(rep.why, sizeof(rep.why), "%s: %s", t.failed, strerror(-r));
		r = 0;
	}
	tiny_destroy(&t);
	if (!r)
		*ret = rep;
	return r;
}
