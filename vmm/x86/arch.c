/*
 * vmm/x86/arch.c - KVM on x86: capabilities, interrupt controllers, first state of a vCPU
 *
 * What:    local APICs and I/O APIC in the kernel; no 8259 (its lines are routed nowhere), no 8254,
 *          no RTC. Time is kvmclock and the APIC timer, found by CPUID.
 * Spec:    Documentation/virt/kvm/api.rst
 */
#include "vmm/arch.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm/x86/cpuid.h"
#include "vmm/x86/layout.h"
#include "vmm/x86/regs.h"

#define KVM_PMU_CAP_DISABLE_BIT 1 /* KVM_PMU_CAP_DISABLE, Linux 5.18 */
#define XCR0_X87_SSE_AVX        7

struct arch_vm {
	unsigned cpus;
	bool tsc_deadline;
	bool preset_xcr0;
	struct kvm_cpuid2 *cpuid;
};

int arch_check_kvm(int kvm_fd, struct error *e)
{
	static const struct {
		int cap;
		const char *name;
	} needed[] = {
		{ KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY" },
		{ KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP" },
		{ KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING" },
		{ KVM_CAP_IRQFD, "KVM_CAP_IRQFD" },
		{ KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD" },
		{ KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR" },
		{ KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR" },
		{ KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID" },
		{ KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE" },
		{ KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		if (ioctl(kvm_fd, KVM_CHECK_EXTENSION, needed[i].cap) <= 0)
			return error_set(e, ENOTSUP,
				"/dev/kvm: %s is absent; use Linux 6.1 or later", needed[i].name);
	return 0;
}

/*
 * Each device line reaches its I/O APIC pin and nothing else: an 8259 that nobody set up would
 * raise vector 5.
 */
static int route_interrupts(int vm_fd, struct error *e)
{
	struct kvm_irq_routing *table =
		calloc(1, sizeof(*table) + X86_IOAPIC_PINS * sizeof(struct kvm_irq_routing_entry));
	int r = 0;

	if (!table)
		return error_set(e, ENOMEM, "interrupt routing: out of memory");
	table->nr = X86_IOAPIC_PINS;
	for (uint32_t pin = 0; pin < X86_IOAPIC_PINS; pin++) {
		table->entries[pin].gsi = pin;
		table->entries[pin].type = KVM_IRQ_ROUTING_IRQCHIP;
		table->entries[pin].u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
		table->entries[pin].u.irqchip.pin = pin;
	}
	if (ioctl(vm_fd, KVM_SET_GSI_ROUTING, table))
		r = error_set(e, errno, "KVM: interrupt routing: %s", strerror(errno));
	free(table);
	return r;
}

static int vm_setup(int vm_fd, struct error *e)
{
	uint64_t identity = X86_IDENTITY_MAP;
	struct kvm_enable_cap no_pmu = {
		.cap = KVM_CAP_PMU_CAPABILITY,
		.args = { KVM_PMU_CAP_DISABLE_BIT },
	};

	if (ioctl(vm_fd, KVM_SET_TSS_ADDR, (unsigned long)X86_TSS))
		return error_set(e, errno, "KVM: TSS address: %s", strerror(errno));
	if (ioctl(vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity))
		return error_set(e, errno, "KVM: identity map address: %s", strerror(errno));
	if (ioctl(vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_PMU_CAPABILITY) & KVM_PMU_CAP_DISABLE_BIT &&
		ioctl(vm_fd, KVM_ENABLE_CAP, &no_pmu))
		return error_set(
			e, errno, "KVM: performance counters can't be hidden: %s", strerror(errno));
	if (ioctl(vm_fd, KVM_CREATE_IRQCHIP, 0))
		return error_set(e, errno, "KVM: interrupt controllers: %s", strerror(errno));
	return route_interrupts(vm_fd, e);
}

int arch_vm_create(struct arch_vm **ret, int kvm_fd, int vm_fd, unsigned cpus, struct error *e)
{
	struct arch_vm *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return error_set(e, ENOMEM, "virtual machine: out of memory");
	a->cpus = cpus;
	a->tsc_deadline = ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
	/*
	 * QEMU's emulated SVM lets a nested guest's XSETBV through to the host, so that what KVM
	 * remembers and what the guest set differ, and a Linux guest gives up AVX. Begun with the
	 * value Linux will set, they agree.
	 */
	a->preset_xcr0 =
		cpuid_host_is_tcg() && ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XCRS) > 0;
	r = cpuid_supported(kvm_fd, &a->cpuid, e);
	if (!r)
		r = vm_setup(vm_fd, e);
	if (r) {
		arch_vm_destroy(a);
		return r;
	}
	*ret = a;
	return 0;
}

void arch_vm_destroy(struct arch_vm *a)
{
	if (!a)
		return;
	free(a->cpuid);
	free(a);
}

static int preset_xcr0(struct arch_vm *a, int vcpu_fd, struct error *e)
{
	const struct kvm_cpuid_entry2 *xsave = cpuid_find(a->cpuid, 0xd, 0);
	struct kvm_xcrs xcrs = { .nr_xcrs = 1 };

	if (!xsave || (xsave->eax & XCR0_X87_SSE_AVX) != XCR0_X87_SSE_AVX)
		return 0;
	xcrs.xcrs[0].value = XCR0_X87_SSE_AVX;
	if (ioctl(vcpu_fd, KVM_SET_XCRS, &xcrs))
		return error_set(e, errno, "KVM: XCR0: %s", strerror(errno));
	return 0;
}

int arch_vcpu_init(struct arch_vm *a, int vcpu_fd, unsigned index, struct error *e)
{
	int r;

	cpuid_shape(a->cpuid, index, a->cpus, a->tsc_deadline);
	if (ioctl(vcpu_fd, KVM_SET_CPUID2, a->cpuid))
		return error_set(e, errno, "KVM: vCPU %u: CPUID: %s", index, strerror(errno));
	r = a->preset_xcr0 ? preset_xcr0(a, vcpu_fd, e) : 0;
	return r ? r : regs_init_msrs(vcpu_fd, e);
}

int arch_boot_vcpu(int vcpu_fd, const struct arch_entry *entry, struct error *e)
{
	return entry->kind == ARCH_ENTRY_PVH
		       ? regs_boot_pvh(vcpu_fd, entry->rip, entry->arg, e)
		       : regs_boot_linux64(vcpu_fd, entry->rip, entry->arg, e);
}
