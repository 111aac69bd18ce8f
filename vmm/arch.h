/*
 * vmm/arch.h - what differs between processor architectures; vmm/x86/ implements it
 *
 * Order: arch_check_kvm(), KVM_CREATE_VM, arch_vm_create(), each vCPU arch_vcpu_init(). arch_load()
 *        needs guest RAM only and may run beside these; arch_boot_vcpu() joins the two.
 */
#pragma once

#include "base/error.h"
#include "vmm/gmem.h"

struct arch_vm;

/*
 * arch_check_kvm() - KVM has all that this architecture needs, else an error naming what is absent.
 */
int arch_check_kvm(int kvm_fd, struct error *e) must_check;

/*
 * arch_vm_create() - Interrupt controller and routing, before the first vCPU. Descriptors are
 * borrowed.
 */
int arch_vm_create(
	struct arch_vm **ret, int kvm_fd, int vm_fd, unsigned cpus, struct error *e) must_check;
void arch_vm_destroy(struct arch_vm *a);
int arch_vcpu_init(struct arch_vm *a, int vcpu_fd, unsigned index, struct error *e) must_check;

/* Where the first vCPU begins, filled in by arch_load(). */
struct arch_entry {
	enum { ARCH_ENTRY_PVH, ARCH_ENTRY_LINUX64 } kind;
	uint64_t rip;
	uint64_t arg; /* address of the boot information */
};

struct arch_boot {
	int kernel_fd;        /* uncompressed ELF vmlinux, untrusted */
	const int *initrd_fd; /* concatenated, each 4-byte aligned */
	unsigned ninitrds;
	const char *cmdline;
	unsigned cpus;
	unsigned nslots; /* virtio-mmio slots 0..nslots - 1 are in use */
};

/* arch_load() - Kernel, initrd, firmware tables and boot information into guest RAM. */
int arch_load(struct gmem *m, const struct arch_boot *b, struct arch_entry *ret,
	struct error *e) must_check;
/* arch_boot_vcpu() - First registers of vCPU 0. */
int arch_boot_vcpu(int vcpu_fd, const struct arch_entry *entry, struct error *e) must_check;
