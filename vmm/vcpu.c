/*
 * vmm/vcpu.c - the thread of one vCPU
 *
 * What:    KVM_RUN until the machine stops. vcpu_kick() sets immediate_exit, which KVM reads after
 *          it armed signal delivery, then sends a signal: whether the thread is before, in or after
 *          KVM_RUN, it returns.
 * Threads: the kernel starts vCPU 0 only; the others sleep inside KVM_RUN until the guest sends a
 *          start-up IPI.
 * Spec:    Documentation/virt/kvm/api.rst, 5 (struct kvm_run)
 */
#include "vmm/vcpu.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define KICK_SIGNAL SIGUSR1

struct vcpu {
	struct vm *vm;
	unsigned index;
	int fd;
	struct kvm_run *run;
	size_t run_len;
	pthread_t thread;
	bool started;
};

int vcpu_create(struct vcpu **ret, struct vm *vm, int vm_fd, size_t run_len, unsigned index,
	struct error *e)
{
	struct vcpu *c = calloc(1, sizeof(*c));
	int err;

	if (!c)
		return error_set(e, ENOMEM, "vCPU %u: out of memory", index);
	c->vm = vm;
	c->index = index;
	c->run_len = run_len;
	c->fd = ioctl(vm_fd, KVM_CREATE_VCPU, (unsigned long)index);
	c->run = c->fd < 0 ? MAP_FAILED
			   : mmap(NULL, run_len, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
	if (c->run == MAP_FAILED) {
		err = errno;
		c->run = NULL;
		vcpu_destroy(c);
		return error_set(e, err, "KVM: vCPU %u: %s", index, strerror(err));
	}
	*ret = c;
	return 0;
}

void vcpu_destroy(struct vcpu *c)
{
	if (!c)
		return;
	if (c->run)
		munmap(c->run, c->run_len);
	close_fd(&c->fd);
	free(c);
}

int vcpu_fd(const struct vcpu *c)
{
	return c->fd;
}

/* ---- exits ---- */

static void crash(struct vcpu *c, const char *what)
{
	struct kvm_regs regs;
	char detail[240];

	if (ioctl(c->fd, KVM_GET_REGS, &regs))
		snprintf(detail, sizeof(detail), "vCPU %u: %s", c->index, what);
	else
		snprintf(detail, sizeof(detail), "vCPU %u at rip 0x%llx: %s", c->index, regs.rip,
			what);
	vm_stop(c->vm, VM_EXIT_CRASH, detail);
}

static void internal_error(struct vcpu *c)
{
	const struct kvm_run *run = c->run;
	char what[160];
	int n;

	if (run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION) {
		snprintf(what, sizeof(what), "KVM internal error %u", run->internal.suberror);
		crash(c, what);
		return;
	}
	n = snprintf(what, sizeof(what), "KVM can't emulate the instruction");
	if (run->emulation_failure.ndata >= 1 &&
		run->emulation_failure.flags &
			KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) {
		unsigned size = MIN((unsigned)run->emulation_failure.insn_size,
			(unsigned)sizeof(run->emulation_failure.insn_bytes));

		for (unsigned i = 0; i < size; i++)
			n += snprintf(what + n, sizeof(what) - (size_t)n, " %02x",
				run->emulation_failure.insn_bytes[i]);
	}
	crash(c, what);
}

static void port_access(struct vcpu *c)
{
	struct kvm_run *run = c->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	struct bus *bus = vm_bus(c->vm);

	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size)
		bus_access(bus, BUS_PIO, run->io.port, data, run->io.size,
			run->io.direction == KVM_EXIT_IO_OUT);
}

static void handle_exit(struct vcpu *c)
{
	struct kvm_run *run = c->run;
	char what[80];

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		port_access(c);
		return;
	case KVM_EXIT_MMIO:
		bus_access(vm_bus(c->vm), BUS_MMIO, run->mmio.phys_addr, run->mmio.data,
			run->mmio.len, run->mmio.is_write);
		return;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		return;
	case KVM_EXIT_SHUTDOWN:
		snprintf(what, sizeof(what), "vCPU %u", c->index);
		vm_stop(c->vm, VM_EXIT_TRIPLE_FAULT, what);
		return;
	case KVM_EXIT_FAIL_ENTRY:
		snprintf(what, sizeof(what), "the processor refused to enter the guest: 0x%llx",
			run->fail_entry.hardware_entry_failure_reason);
		crash(c, what);
		return;
	case KVM_EXIT_INTERNAL_ERROR:
		internal_error(c);
		return;
	default:
		snprintf(what, sizeof(what), "unexpected KVM exit %u", run->exit_reason);
		crash(c, what);
	}
}

/* ---- the thread ---- */

static void run_failed(struct vcpu *c, int err)
{
	char what[120];

	if (err == EINTR || err == EAGAIN) /* kicked; or a vCPU that waits for its start-up IPI */
		return;
	snprintf(what, sizeof(what), "KVM_RUN: %s%s", strerror(err),
		err == ENOMEM || err == EHWPOISON ? ": the host is out of memory or has bad memory"
						  : "");
	crash(c, what);
}

static void *vcpu_main(void *arg)
{
	struct vcpu *c = arg;
	char name[16];

	snprintf(name, sizeof(name), "vcpu%u", c->index);
	pthread_setname_np(
		pthread_self(), name); /* for ps and top; its failure changes nothing else */
	if (!vm_vcpu_enter(c->vm))
		return NULL;
	vm_note_first_run(c->vm);
	while (!vm_stopping(c->vm)) {
		if (ioctl(c->fd, KVM_RUN, 0) < 0)
			run_failed(c, errno);
		else
			handle_exit(c);
	}
	return NULL;
}

static void kick_handler(int sig unused_arg)
{
}

int vcpu_start(struct vcpu *c)
{
	struct sigaction sa = { .sa_handler =
					kick_handler }; /* no SA_RESTART: KVM_RUN must return */
	int r;

	if (sigaction(KICK_SIGNAL, &sa, NULL))
		return -errno;
	r = pthread_create(&c->thread, NULL, vcpu_main, c);
	if (r)
		return -r;
	c->started = true;
	return 0;
}

void vcpu_kick(struct vcpu *c)
{
	__atomic_store_n(&c->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	pthread_kill(c->thread, KICK_SIGNAL);
}

void vcpu_join(struct vcpu *c)
{
	if (!c->started)
		return;
	pthread_join(c->thread, NULL);
	c->started = false;
}
