#include "vmm/vm.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include "base/loop.h"
#include "vmm/arch.h"
#include "vmm/vcpu.h"

#define KVM_API 12 /* the only one there has been since Linux 2.6.22 */

struct vm {
	int fd;
	int event_fd;
	unsigned ncpus;
	struct gmem *mem;
	struct bus *bus;
	struct arch_vm *arch;
	struct vcpu *cpu[VM_CPUS_MAX];
	int (*enter)(struct error *e);

	atomic_bool stopping;
	_Atomic uint64_t first_run_ns;

	pthread_mutex_t lock; /* what follows */
	pthread_cond_t changed;
	unsigned entered;
	bool released;
	bool kickable;            /* vCPU threads may be in KVM_RUN and aren't being joined */
	struct error enter_error; /* of the first thread that could not be confined */
	enum vm_exit why;
	char detail[240];
};

/* ---- creation ---- */

static int kvm_check(int kvm_fd, unsigned cpus, struct error *e)
{
	int v = ioctl(kvm_fd, KVM_GET_API_VERSION, 0), max;

	if (v < 0)
		return error_set(e, errno, "/dev/kvm: not a KVM device: %s", strerror(errno));
	if (v != KVM_API)
		return error_set(e, ENOTSUP, "/dev/kvm: API version %d; %d is needed", v, KVM_API);
	max = ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
	if (max > 0 && cpus > (unsigned)max)
		return error_set(e, EINVAL,
			"%u virtual CPUs: this machine's KVM allows %d; use fewer", cpus, max);
	return arch_check_kvm(kvm_fd, e);
}

static int vm_open(struct vm *vm, int kvm_fd, struct error *e)
{
	do
		vm->fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
	while (vm->fd < 0 && errno == EINTR);
	if (vm->fd < 0)
		return error_set(e, errno, "KVM: a virtual machine can't be created: %s%s",
			strerror(errno),
			errno == EBUSY ? "; end the other hypervisor that uses the processor" : "");
	return 0;
}

static int add_memory(struct vm *vm, struct error *e)
{
	const struct gmem_region *r;
	unsigned n = gmem_regions(vm->mem, &r);

	for (unsigned i = 0; i < n; i++) {
		struct kvm_userspace_memory_region slot = {
			.slot = i,
			.guest_phys_addr = r[i].gpa,
			.memory_size = r[i].len,
			.userspace_addr = (uintptr_t)r[i].hva,
		};

		if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &slot))
			return error_set(e, errno,
				"KVM: %" PRIu64 " MiB of guest memory at 0x%" PRIx64 ": %s",
				r[i].len / MIB, r[i].gpa, strerror(errno));
	}
	return 0;
}

static int add_vcpus(struct vm *vm, int kvm_fd, unsigned cpus, struct error *e)
{
	int len = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	int r = 0;

	if (len < (int)sizeof(struct kvm_run))
		return error_set(
			e, len < 0 ? errno : ENOTSUP, "KVM: vCPU mapping of %d bytes", len);
	for (unsigned i = 0; i < cpus && !r; i++) {
		r = vcpu_create(&vm->cpu[i], vm, vm->fd, (size_t)len, i, e);
		if (r)
			break;
		vm->ncpus++;
		r = arch_vcpu_init(vm->arch, vcpu_fd(vm->cpu[i]), i, e);
	}
	return r;
}

static int vm_init(struct vm *vm, int kvm_fd, unsigned cpus, struct error *e)
{
	int r;

	vm->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (vm->event_fd < 0)
		return error_set(e, errno, "eventfd: %s", strerror(errno));
	r = bus_create(&vm->bus, e);
	if (!r)
		r = vm_open(vm, kvm_fd, e);
	if (!r)
		r = arch_vm_create(&vm->arch, kvm_fd, vm->fd, cpus, e);
	if (!r)
		r = add_memory(vm, e);
	return r ? r : add_vcpus(vm, kvm_fd, cpus, e);
}

int vm_create(struct vm **ret, int kvm_fd, unsigned cpus, struct gmem *m, struct error *e)
{
	struct vm *vm;
	int r;

	if (!cpus || cpus > VM_CPUS_MAX)
		return error_set(e, EINVAL, "%u virtual CPUs: use 1 to %d", cpus, VM_CPUS_MAX);
	r = kvm_check(kvm_fd, cpus, e);
	if (r)
		return r;
	vm = calloc(1, sizeof(*vm));
	if (!vm)
		return error_set(e, ENOMEM, "virtual machine: out of memory");
	vm->fd = vm->event_fd = -1;
	vm->mem = m;
	pthread_mutex_init(&vm->lock, NULL);
	pthread_cond_init(&vm->changed, NULL);
	r = vm_init(vm, kvm_fd, cpus, e);
	if (r) {
		vm_destroy(vm);
		return r;
	}
	*ret = vm;
	return 0;
}

void vm_destroy(struct vm *vm)
{
	if (!vm)
		return;
	vm_stop(vm, VM_EXIT_STOPPED, "");
	vm_join(vm);
	for (unsigned i = 0; i < vm->ncpus; i++)
		vcpu_destroy(vm->cpu[i]);
	arch_vm_destroy(vm->arch);
	bus_destroy(vm->bus);
	close_fd(&vm->fd);
	close_fd(&vm->event_fd);
	pthread_cond_destroy(&vm->changed);
	pthread_mutex_destroy(&vm->lock);
	free(vm);
}

struct gmem *vm_gmem(struct vm *vm)
{
	return vm->mem;
}

struct bus *vm_bus(struct vm *vm)
{
	return vm->bus;
}

int vm_vcpu_fd(struct vm *vm, unsigned index)
{
	return vcpu_fd(vm->cpu[index]);
}

/* ---- eventfds ---- */

int vm_irqfd(struct vm *vm, unsigned gsi, struct error *e)
{
	autoclose int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct kvm_irqfd req = { .fd = (uint32_t)fd, .gsi = gsi };

	if (fd < 0)
		return error_set(e, errno, "eventfd: %s", strerror(errno));
	if (ioctl(vm->fd, KVM_IRQFD, &req))
		return error_set(e, errno, "KVM: interrupt %u: %s", gsi, strerror(errno));
	return take_fd(&fd);
}

int vm_ioeventfd(struct vm *vm, uint64_t addr, uint32_t value, struct error *e)
{
	autoclose int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct kvm_ioeventfd req = {
		.datamatch = value,
		.addr = addr,
		.len = sizeof(value),
		.fd = fd,
		.flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
	};

	if (fd < 0)
		return error_set(e, errno, "eventfd: %s", strerror(errno));
	if (ioctl(vm->fd, KVM_IOEVENTFD, &req))
		return error_set(
			e, errno, "KVM: ioeventfd at 0x%" PRIx64 ": %s", addr, strerror(errno));
	return take_fd(&fd);
}

/* ---- running ---- */

static void event_signal(struct vm *vm)
{
	uint64_t one = 1;

	/* Fails only when the counter is full: readable all the same. */
	(void)!write(vm->event_fd, &one, sizeof(one));
}

bool vm_vcpu_enter(struct vm *vm)
{
	struct error e = { 0 };
	int r = vm->enter ? vm->enter(&e) : 0;

	pthread_mutex_lock(&vm->lock);
	if (r && !vm->enter_error.code)
		vm->enter_error = e;
	vm->entered++;
	pthread_cond_broadcast(&vm->changed);
	while (!vm->released && !vm_stopping(vm))
		pthread_cond_wait(&vm->changed, &vm->lock);
	pthread_mutex_unlock(&vm->lock);
	return !vm_stopping(vm);
}

int vm_start(struct vm *vm, int (*enter)(struct error *e), struct error *e)
{
	unsigned started = 0;
	int r = 0;

	vm->enter = enter;
	for (; started < vm->ncpus && !r; started++) {
		r = vcpu_start(vm->cpu[started]);
		if (r)
			error_set(e, -r, "vCPU %u: thread: %s", started, strerror(-r));
	}
	if (!r) {
		pthread_mutex_lock(&vm->lock);
		while (vm->entered < started)
			pthread_cond_wait(&vm->changed, &vm->lock);
		if (vm->enter_error.code) {
			r = -vm->enter_error.code;
			if (e)
				*e = vm->enter_error;
		}
		pthread_mutex_unlock(&vm->lock);
	}
	if (r) {
		vm_stop(vm, VM_EXIT_STOPPED, "");
		vm_join(vm);
	}
	return r;
}

void vm_release(struct vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	vm->released = vm->kickable = true;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
}

bool vm_stopping(const struct vm *vm)
{
	return atomic_load(&vm->stopping);
}

void vm_stop(struct vm *vm, enum vm_exit why, const char *detail)
{
	pthread_mutex_lock(&vm->lock);
	if (vm->why == VM_EXIT_NONE) {
		vm->why = why;
		snprintf(vm->detail, sizeof(vm->detail), "%s", detail ? detail : "");
	}
	atomic_store(&vm->stopping, true);
	pthread_cond_broadcast(&vm->changed);
	for (unsigned i = 0; vm->kickable && i < vm->ncpus; i++)
		vcpu_kick(vm->cpu[i]);
	pthread_mutex_unlock(&vm->lock);
	event_signal(vm);
}

void vm_join(struct vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	vm->kickable = false; /* vm_stop() kicked them all; a joined thread must not get a signal */
	pthread_mutex_unlock(&vm->lock);
	for (unsigned i = 0; i < vm->ncpus; i++)
		vcpu_join(vm->cpu[i]);
}

int vm_event_fd(struct vm *vm)
{
	return vm->event_fd;
}

void vm_note_first_run(struct vm *vm)
{
	uint64_t none = 0;

	if (!atomic_load_explicit(&vm->first_run_ns, memory_order_relaxed) &&
		atomic_compare_exchange_strong(&vm->first_run_ns, &none, loop_now_ns()))
		event_signal(vm);
}

uint64_t vm_first_run_ns(struct vm *vm)
{
	return atomic_load(&vm->first_run_ns);
}

enum vm_exit vm_exit_reason(struct vm *vm, char *detail, size_t size)
{
	enum vm_exit why;

	pthread_mutex_lock(&vm->lock);
	why = vm->why;
	if (detail)
		snprintf(detail, size, "%s", vm->detail);
	pthread_mutex_unlock(&vm->lock);
	return why;
}
