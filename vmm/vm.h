/*
 * vmm/vm.h - one KVM virtual machine: memory slots, interrupts, vCPU threads
 *
 * Threads: set up by the loop thread; each vCPU runs on its own thread (vmm/vcpu.c).
 */
#pragma once

#include "base/error.h"
#include "vmm/bus.h"
#include "vmm/gmem.h"

struct vm;

#define VM_CPUS_MAX 32

/* Why the machine stopped; the first reason wins. */
enum vm_exit {
	VM_EXIT_NONE,
	VM_EXIT_POWEROFF,     /* ACPI S5 */
	VM_EXIT_RESET,        /* reset register, keyboard controller */
	VM_EXIT_TRIPLE_FAULT, /* KVM_EXIT_SHUTDOWN */
	VM_EXIT_CRASH,        /* KVM_EXIT_INTERNAL_ERROR, FAIL_ENTRY: detail says which */
	VM_EXIT_STOPPED,      /* the supervisor asked */
};

/**
 * vm_create() - KVM_CREATE_VM with in-kernel irqchip and memory slots for @m
 * @kvm_fd: borrowed; /dev/kvm
 *
 * Errors name each needed capability that is absent.
 */
int vm_create(struct vm **ret, int kvm_fd, unsigned cpus, struct gmem *m, struct error *e) must_check;
void vm_destroy(struct vm *vm);

struct gmem *vm_gmem(struct vm *vm);
struct bus *vm_bus(struct vm *vm);

/* vm_irqfd() - An eventfd whose signal raises @gsi (edge). The caller owns it. Return fd or -errno. */
int vm_irqfd(struct vm *vm, unsigned gsi, struct error *e) must_check;
/* vm_ioeventfd() - An eventfd signalled by a guest write of @value (32 bit) to MMIO @addr. Caller owns it. */
int vm_ioeventfd(struct vm *vm, uint64_t addr, uint32_t value, struct error *e) must_check;

/* Descriptor of a vCPU, for the code that sets its first registers; borrowed. @index < cpus. */
int vm_vcpu_fd(struct vm *vm, unsigned index);

/**
 * vm_start() - Create the vCPU threads
 * @enter: called first on each of them, to confine it; NULL: nothing to do
 *
 * Returns when all of them entered and wait for vm_release(). No guest instruction runs before that.
 */
int vm_start(struct vm *vm, int (*enter)(struct error *e), struct error *e) must_check;
void vm_release(struct vm *vm);

/* vm_stop() - From any thread: note the reason (the first wins), stop all vCPUs, wake the loop. */
void vm_stop(struct vm *vm, enum vm_exit why, const char *detail);
/* vm_join() - Wait for the end of all vCPU threads; after vm_stop(), without the device lock. */
void vm_join(struct vm *vm);

/**
 * vm_event_fd() - Readable when there is news: the first KVM_RUN began, or the machine stopped
 * Return: an eventfd, borrowed.
 */
int vm_event_fd(struct vm *vm);
/* vm_first_run_ns() - CLOCK_MONOTONIC just before the first KVM_RUN, 0 before that. */
uint64_t vm_first_run_ns(struct vm *vm);
/* vm_exit_reason() - VM_EXIT_NONE while it runs; @detail (may be NULL) is always terminated. */
enum vm_exit vm_exit_reason(struct vm *vm, char *detail, size_t size);

/* First GSI for devices and their number; I/O APIC pins 5..23 (4 is the UART's). */
#define VM_GSI_UART  4
#define VM_GSI_FIRST 5
#define VM_GSI_LAST  23

/* virtio-mmio windows */
#define VM_VIRTIO_MMIO_BASE UINT64_C(0xd0000000)
#define VM_VIRTIO_MMIO_LEN  0x1000
#define VM_VIRTIO_SLOTS     (VM_GSI_LAST - VM_GSI_FIRST + 1)
