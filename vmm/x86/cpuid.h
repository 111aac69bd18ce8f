/*
 * vmm/x86/cpuid.h - what the guest learns about its processor
 *
 * What:    KVM's list of what it supports, minus what a sandbox must not have (nested
 *          virtualisation, performance counters, enclaves), plus each vCPU's place: one package of
 *          @ncpus single-thread cores.
 * Spec:    Intel SDM vol. 2A, CPUID; AMD APM vol. 3, appendix E;
 *          Documentation/virt/kvm/x86/cpuid.rst
 */
#pragma once

#include <linux/kvm.h>

#include "base/error.h"

#define CPUID_ENTRIES_MAX 256

/* cpuid_supported() - KVM_GET_SUPPORTED_CPUID with cpuid_add_topology(); free(3) the result. */
int cpuid_supported(int kvm_fd, struct kvm_cpuid2 **ret, struct error *e) must_check;

/**
 * cpuid_shape() - Make a supported list the one of vCPU @index of @ncpus
 * @list: changed in place; may already have been shaped for another vCPU
 * @tsc_deadline: KVM_CAP_TSC_DEADLINE_TIMER; KVM's list never says so
 *
 * No entry is added or removed; KVM answers levels beyond those listed by itself.
 */
void cpuid_shape(struct kvm_cpuid2 *list, unsigned index, unsigned ncpus, bool tsc_deadline);

/**
 * cpuid_add_topology() - Put empty entries for two levels of 0xb, and of 0x1f where there is one
 * @list: has room for CPUID_ENTRIES_MAX. Some kernels list the host's levels there, others a single
 *        empty one.
 */
void cpuid_add_topology(struct kvm_cpuid2 *list);

/* cpuid_find() - Entry of a leaf, or NULL. */
struct kvm_cpuid_entry2 *cpuid_find(struct kvm_cpuid2 *list, uint32_t leaf, uint32_t subleaf);

/* cpuid_host_is_tcg() - This "hardware" is QEMU's emulated processor. */
bool cpuid_host_is_tcg(void);
