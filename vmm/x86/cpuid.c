#include "vmm/x86/cpuid.h"

#include <cpuid.h>
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#define BIT(n) (UINT32_C(1) << (n))

/* Leaf 1 */
#define L1_ECX_DTES64       BIT(2)
#define L1_ECX_MONITOR      BIT(3)
#define L1_ECX_VMX          BIT(5)
#define L1_ECX_SMX          BIT(6)
#define L1_ECX_PDCM         BIT(15)
#define L1_ECX_TSC_DEADLINE BIT(24)
#define L1_ECX_HYPERVISOR   BIT(31)
#define L1_EDX_DS           BIT(21)
#define L1_EDX_HTT          BIT(28)
/* Leaf 7.0 */
#define L7_EBX_SGX      BIT(2)
#define L7_EBX_PT       BIT(25)
#define L7_ECX_SGX_LC   BIT(30)
#define L7_EDX_PCONFIG  BIT(18)
#define L7_EDX_ARCH_LBR BIT(19)
/* Leaf 0x80000001 */
#define LX1_ECX_CMP_LEGACY   BIT(1)
#define LX1_ECX_SVM          BIT(2)
#define LX1_ECX_IBS          BIT(10)
#define LX1_ECX_SKINIT       BIT(12)
#define LX1_ECX_PERFCTR_CORE BIT(23)
#define LX1_ECX_PERFCTR_NB   BIT(24)
#define LX1_ECX_PERFCTR_LLC  BIT(28)

int cpuid_supported(int kvm_fd, struct kvm_cpuid2 **ret, struct error *e)
{
	size_t size =
		sizeof(struct kvm_cpuid2) + CPUID_ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2);
	struct kvm_cpuid2 *list = calloc(1, size);
	int err;

	if (!list)
		return error_set(e, ENOMEM, "CPUID: out of memory");
	list->nent = CPUID_ENTRIES_MAX;
	if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, list)) {
		err = errno; /* E2BIG: a newer KVM with more leaves than we have room for */
		free(list);
		return error_set(e, err, "KVM: supported CPUID: %s", strerror(err));
	}
	cpuid_add_topology(list);
	*ret = list;
	return 0;
}

void cpuid_add_topology(struct kvm_cpuid2 *list)
{
	static const uint32_t leaves[] = { 0xb, 0x1f };
	const struct kvm_cpuid_entry2 *first = cpuid_find(list, 0, 0);
	uint32_t max = first ? first->eax : 0, n = 0;

	for (uint32_t i = 0; i < list->nent; i++)
		if (list->entries[i].function != 0xb && list->entries[i].function != 0x1f)
			list->entries[n++] = list->entries[i];
	for (size_t i = 0; i < ARRAY_SIZE(leaves) && leaves[i] <= max; i++)
		for (uint32_t sub = 0; sub < 2 && n < CPUID_ENTRIES_MAX; sub++)
			list->entries[n++] = (struct kvm_cpuid_entry2){
				.function = leaves[i],
				.index = sub,
				.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			};
	list->nent = n;
}

struct kvm_cpuid_entry2 *cpuid_find(struct kvm_cpuid2 *list, uint32_t leaf, uint32_t subleaf)
{
	for (uint32_t i = 0; i < list->nent; i++) {
		struct kvm_cpuid_entry2 *c = &list->entries[i];

		if (c->function == leaf &&
			(!(c->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || c->index == subleaf))
			return c;
	}
	return NULL;
}

bool cpuid_host_is_tcg(void)
{
	unsigned a, b, c, d;
	char vendor[12];

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & L1_ECX_HYPERVISOR))
		return false;
	__cpuid(0x40000000, a, b, c, d);
	memcpy(vendor, &b, 4);
	memcpy(vendor + 4, &c, 4);
	memcpy(vendor + 8, &d, 4);
	return !memcmp(vendor, "TCGTCGTCGTCG", sizeof(vendor));
}

static void set_bit(uint32_t *reg, uint32_t bit, bool on)
{
	*reg = on ? *reg | bit : *reg & ~bit;
}

/* Bits that number @n things. */
static unsigned width(unsigned n)
{
	unsigned w = 0;

	while (1u << w < n)
		w++;
	return w;
}

static void shape_basic(struct kvm_cpuid_entry2 *c, unsigned index, unsigned ncpus, bool deadline)
{
	unsigned ids = 1u << width(ncpus);

	/* 31..24 initial APIC id, 23..16 ids of this package, 15..8 CLFLUSH size, 7..0 brand */
	c->ebx = index << 24 | ids << 16 | (c->ebx & 0xffff);
	c->ecx &= ~(L1_ECX_DTES64 | L1_ECX_MONITOR | L1_ECX_VMX | L1_ECX_SMX | L1_ECX_PDCM);
	c->ecx |= L1_ECX_HYPERVISOR;
	set_bit(&c->ecx, L1_ECX_TSC_DEADLINE, deadline);
	c->edx &= ~L1_EDX_DS;
	set_bit(&c->edx, L1_EDX_HTT, ncpus > 1);
}

/*
 * Intel: bits 25..14 of eax: ids that share the cache - 1; 31..26: ids of cores in the package - 1.
 */
static void shape_intel_cache(struct kvm_cpuid_entry2 *c, unsigned ncpus)
{
	unsigned ids = 1u << width(ncpus);
	unsigned level = c->eax >> 5 & 7;

	if (!(c->eax & 0x1f))
		return; /* no more caches */
	c->eax &= 0x3fff;
	c->eax |= (level >= 3 ? ids - 1 : 0) << 14 | (ids - 1) << 26;
}

/* AMD: bits 25..14 of eax: logical processors that share the cache - 1. */
static void shape_amd_cache(struct kvm_cpuid_entry2 *c, unsigned ncpus)
{
	unsigned level = c->eax >> 5 & 7;

	if (!(c->eax & 0x1f))
		return;
	c->eax = (c->eax & ~(UINT32_C(0xfff) << 14)) | (level >= 3 ? ncpus - 1 : 0) << 14;
}

/* Extended topology, 0xb and 0x1f: level 0 one thread, level 1 all cores, then nothing. */
static void shape_topology(struct kvm_cpuid_entry2 *c, unsigned index, unsigned ncpus)
{
	static const unsigned type_thread = 1, type_core = 2;

	c->eax = c->ebx = 0;
	c->ecx = c->index & 0xff;
	c->edx = index;
	if (c->index == 0) {
		c->ebx = 1;
		c->ecx |= type_thread << 8;
	} else if (c->index == 1) {
		c->eax = width(ncpus);
		c->ebx = ncpus;
		c->ecx |= type_core << 8;
	}
}

static void shape_extended(struct kvm_cpuid_entry2 *c, unsigned ncpus, bool amd)
{
	c->ecx &= ~(LX1_ECX_SVM | LX1_ECX_IBS | LX1_ECX_SKINIT | LX1_ECX_PERFCTR_CORE |
		    LX1_ECX_PERFCTR_NB | LX1_ECX_PERFCTR_LLC);
	set_bit(&c->ecx, LX1_ECX_CMP_LEGACY, amd && ncpus > 1);
}

static void clear(struct kvm_cpuid_entry2 *c)
{
	c->eax = c->ebx = c->ecx = c->edx = 0;
}

static bool vendor_is_amd(struct kvm_cpuid2 *list)
{
	const struct kvm_cpuid_entry2 *c = cpuid_find(list, 0, 0);

	return c && ((c->ebx == 0x68747541 && c->edx == 0x69746e65) ||       /* "AuthenticAMD" */
			    (c->ebx == 0x6f677948 && c->edx == 0x6e65476e)); /* "HygonGenuine" */
}

static void shape_entry(
	struct kvm_cpuid_entry2 *c, unsigned index, unsigned ncpus, bool deadline, bool amd)
{
	switch (c->function) {
	case 0x1:
		shape_basic(c, index, ncpus, deadline);
		break;
	case 0x4:
		shape_intel_cache(c, ncpus);
		break;
	case 0x7:
		if (c->index == 0) {
			c->ebx &= ~(L7_EBX_SGX | L7_EBX_PT);
			c->ecx &= ~L7_ECX_SGX_LC;
			c->edx &= ~(L7_EDX_PCONFIG | L7_EDX_ARCH_LBR);
		}
		break;
	case 0xb:
	case 0x1f:
		shape_topology(c, index, ncpus);
		break;
	case 0x5:        /* MONITOR/MWAIT */
	case 0xa:        /* performance counters */
	case 0x12:       /* SGX */
	case 0x14:       /* processor trace */
	case 0x1c:       /* last branch records */
	case 0x23:       /* performance counters, extended */
	case 0x8000000a: /* SVM */
	case 0x8000001b: /* IBS */
	case 0x80000022: /* AMD performance counters, version 2 */
	case 0x80000026: /* AMD extended topology: 0xb says it all */
		clear(c);
		break;
	case 0x80000001:
		shape_extended(c, ncpus, amd);
		break;
	case 0x80000008:
		if (amd) /* 15..12: width of an APIC id within the package, 7..0: threads - 1 */
			c->ecx = (c->ecx & ~UINT32_C(0xf0ff)) | width(ncpus) << 12 | (ncpus - 1);
		break;
	case 0x8000001d:
		shape_amd_cache(c, ncpus);
		break;
	case 0x8000001e: /* APIC id; core id, one thread each; node 0 of 1 */
		c->eax = index;
		c->ebx = index;
		c->ecx = 0;
		break;
	}
}

void cpuid_shape(struct kvm_cpuid2 *list, unsigned index, unsigned ncpus, bool tsc_deadline)
{
	bool amd = vendor_is_amd(list);

	for (uint32_t i = 0; i < list->nent; i++)
		shape_entry(&list->entries[i], index, ncpus, tsc_deadline, amd);
}
