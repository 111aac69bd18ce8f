/*
 * vmm/vcpu.h - one virtual CPU and its thread
 *
 * What:    KVM_RUN in a loop; port and MMIO exits go to the bus, everything else ends the machine.
 * Trust:   what an exit carries is guest-chosen; KVM bounds lengths to its own structure.
 * Threads: vcpu_kick() from anywhere while the thread exists (vmm/vm.c sees to it); all else from
 *          the loop thread.
 */
#pragma once

#include "vmm/vm.h"

struct vcpu;

/* vcpu_create() - @vm_fd borrowed; @run_len of KVM_GET_VCPU_MMAP_SIZE. */
int vcpu_create(struct vcpu **ret, struct vm *vm, int vm_fd, size_t run_len, unsigned index,
	struct error *e) must_check;
void vcpu_destroy(struct vcpu *c);
int vcpu_fd(const struct vcpu *c);

/* vcpu_start() - Create the thread; it reports through vm_vcpu_entered(). 0 or -errno. */
int vcpu_start(struct vcpu *c) must_check;
/* vcpu_kick() - Make the thread leave KVM_RUN and look at vm_stopping(). */
void vcpu_kick(struct vcpu *c);
void vcpu_join(struct vcpu *c);

/* What a vCPU thread asks of its machine (vmm/vm.c). */
/* Confine the thread, say so, wait for the release. False: the machine stops. */
bool vm_vcpu_enter(struct vm *vm);
bool vm_stopping(const struct vm *vm);
void vm_note_first_run(struct vm *vm);
