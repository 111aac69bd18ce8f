/* vmm/x86/cpuid: each vCPU's place, what is hidden, what is kept. */
#include "vmm/x86/cpuid.h"

#include "tests/lib/test.h"

static void add(struct kvm_cpuid2 *l, uint32_t leaf, uint32_t sub, uint32_t a, uint32_t b,
	uint32_t c, uint32_t d)
{
	bool indexed = leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd || leaf == 0x8000001d;

	REQUIRE(l->nent < CPUID_ENTRIES_MAX);
	l->entries[l->nent++] = (struct kvm_cpuid_entry2){
		.function = leaf,
		.index = sub,
		.eax = a,
		.ebx = b,
		.ecx = c,
		.edx = d,
		.flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
	};
}

static struct kvm_cpuid2 *make(bool amd)
{
	struct kvm_cpuid2 *l =
		calloc(1, sizeof(*l) + CPUID_ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2));

	REQUIRE(l);
	if (amd)
		add(l, 0, 0, 0x10, 0x68747541, 0x444d4163, 0x69746e65);
	else
		add(l, 0, 0, 0x20, 0x756e6547, 0x6c65746e, 0x49656e69);
	add(l, 1, 0, 0x806ec, 0x77180800, 0xfffaffff & ~(1u << 31) & ~(1u << 24),
		0xffffffff & ~(1u << 28));
	add(l, 4, 0, 0xfc1c0121, 1, 2, 3); /* L1 data, odd sharing */
	add(l, 4, 2, 0xfc1c0143, 1, 2, 3); /* L2 */
	add(l, 4, 3, 0xfc1fc163, 1, 2, 3); /* L3 */
	add(l, 4, 4, 0, 0, 0, 0);
	add(l, 7, 0, 1, 0xffffffff, 0xffffffff, 0xffffffff);
	add(l, 0xa, 0, 0x7300804, 0, 0, 0x603);
	add(l, 0xb, 0, 1, 8, 0x100, 77); /* the host's */
	add(l, 0xb, 1, 4, 16, 0x201, 77);
	add(l, 0xb, 2, 0, 0, 2, 77);
	add(l, 0xd, 0, 0xe7, 0x340, 0x340, 0);
	add(l, 0x40000000, 0, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d);
	add(l, 0x80000001, 0, 0, 0, 0xffffffff, 0xffffffff);
	add(l, 0x80000002, 0, 0x42, 0x52, 0x41, 0x4e);
	add(l, 0x80000008, 0, 0x3030, 0, 0x700f, 0);
	add(l, 0x8000000a, 0, 1, 2, 3, 4);
	add(l, 0x8000001d, 0, 0x01fc121, 1, 2, 3);
	add(l, 0x8000001d, 3, 0x3ffc163, 1, 2, 3);
	add(l, 0x8000001e, 0, 77, 0x177, 0x301, 0);
	cpuid_add_topology(l);
	return l;
}

static uint32_t id_width(unsigned n)
{
	uint32_t w = 0;

	while ((1u << w) < n)
		w++;
	return w;
}

static void check_topology(struct kvm_cpuid2 *l, uint32_t leaf, unsigned i, unsigned n)
{
	const struct kvm_cpuid_entry2 *thread = cpuid_find(l, leaf, 0),
				      *core = cpuid_find(l, leaf, 1);

	REQUIRE(thread && core);
	/*
	 * SDM vol. 2A, CPUID leaf 0xb: shift to the next level, processors at this level, level and
	 * type, x2APIC id
	 */
	CHECK(thread->eax == 0 && thread->ebx == 1 && thread->ecx == 0x100 && thread->edx == i);
	CHECK(core->eax == id_width(n) && core->ebx == n && core->ecx == 0x201 && core->edx == i);
	CHECK(!cpuid_find(l, leaf, 2)); /* KVM answers the end of the list */
}

static void topology(bool amd)
{
	for (unsigned n = 1; n <= 32; n++) {
		struct kvm_cpuid2 *l = make(amd);
		uint32_t nent = l->nent;

		for (unsigned i = 0; i < n; i++) {
			const struct kvm_cpuid_entry2 *c;

			cpuid_shape(l, i, n, true);
			CHECK_EQ(l->nent, nent);
			c = cpuid_find(l, 1, 0);
			CHECK_EQ(c->ebx >> 24, i);
			CHECK_EQ(c->ebx >> 16 & 0xff, 1u << id_width(n));
			CHECK_EQ(c->ebx & 0xffff, 0x0800);
			CHECK_EQ(c->edx >> 28 & 1, n > 1);
			CHECK_EQ(c->eax, 0x806ec);
			check_topology(l, 0xb, i, n);
			if (!amd)
				check_topology(l, 0x1f, i, n);
			else
				CHECK(!cpuid_find(l, 0x1f, 0));
			/*
			 * Caches: the first two levels are each core's own, the third is
			 * everybody's.
			 */
			CHECK_EQ(cpuid_find(l, 4, 2)->eax >> 14 & 0xfff, 0);
			CHECK_EQ(cpuid_find(l, 4, 3)->eax >> 14 & 0xfff, (1u << id_width(n)) - 1);
			CHECK_EQ(cpuid_find(l, 4, 3)->eax >> 26, (1u << id_width(n)) - 1);
			CHECK_EQ(cpuid_find(l, 4, 3)->eax & 0x3fff, 0xfc1fc163 & 0x3fff);
			CHECK_EQ(cpuid_find(l, 4, 4)->eax, 0);
			CHECK_EQ(cpuid_find(l, 0x8000001d, 0)->eax >> 14 & 0xfff, 0);
			CHECK_EQ(cpuid_find(l, 0x8000001d, 3)->eax >> 14 & 0xfff, n - 1);
			c = cpuid_find(l, 0x8000001e, 0);
			CHECK(c->eax == i && (c->ebx & 0xff) == i && !(c->ebx >> 8) && !c->ecx);
			if (amd)
				CHECK_EQ(cpuid_find(l, 0x80000008, 0)->ecx,
					id_width(n) << 12 | (n - 1));
			CHECK_EQ(cpuid_find(l, 0x80000001, 0)->ecx >> 1 & 1, amd && n > 1);
		}
		free(l);
	}
}

static void hidden_and_kept(void)
{
	for (unsigned deadline = 0; deadline < 2; deadline++) {
		struct kvm_cpuid2 *l = make(deadline);
		const struct kvm_cpuid_entry2 *c;

		cpuid_shape(l, 0, 2, deadline);
		c = cpuid_find(l, 1, 0);
		CHECK_EQ(c->ecx >> 31 & 1, 1); /* hypervisor */
		CHECK_EQ(c->ecx >> 24 & 1, deadline);
		CHECK_EQ(c->ecx >> 5 & 1, 0);  /* VMX */
		CHECK_EQ(c->ecx >> 3 & 1, 0);  /* MONITOR */
		CHECK_EQ(c->ecx >> 15 & 1, 0); /* PDCM */
		CHECK_EQ(c->ecx >> 21 & 1, 1); /* x2APIC stays */
		CHECK_EQ(c->ecx >> 26 & 3, 3); /* XSAVE, OSXSAVE stay */
		c = cpuid_find(l, 7, 0);
		CHECK(!(c->ebx >> 2 & 1) && !(c->ebx >> 25 & 1) && !(c->ecx >> 30 & 1));
		CHECK((c->ebx >> 5 & 1) && (c->edx >> 26 & 1)); /* AVX2, IBRS stay */
		c = cpuid_find(l, 0xa, 0);
		CHECK(!c->eax && !c->ebx && !c->ecx && !c->edx);
		c = cpuid_find(l, 0x8000000a, 0);
		CHECK(!c->eax && !c->ebx && !c->ecx && !c->edx);
		c = cpuid_find(l, 0x80000001, 0);
		CHECK(!(c->ecx >> 2 & 1) && !(c->ecx >> 23 & 1) && (c->ecx >> 22 & 1));
		c = cpuid_find(l, 0x40000000, 0);
		CHECK(c->eax == 0x40000001 && c->ebx == 0x4b4d564b);
		c = cpuid_find(l, 0x80000002, 0);
		CHECK(c->eax == 0x42 && c->edx == 0x4e);
		free(l);
	}
}

/* A list without room stays in bounds. */
static void full(void)
{
	struct kvm_cpuid2 *l =
		calloc(1, sizeof(*l) + CPUID_ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2));

	REQUIRE(l);
	add(l, 0, 0, 0x20, 0, 0, 0);
	while (l->nent < CPUID_ENTRIES_MAX - 1)
		add(l, 0x80000000 + l->nent, 0, 0, 0, 0, 0);
	cpuid_add_topology(l);
	CHECK_EQ(l->nent, CPUID_ENTRIES_MAX);
	cpuid_shape(l, 3, 4, true);
	l->nent = 0;
	cpuid_add_topology(l);
	CHECK_EQ(l->nent, 0);
	cpuid_shape(l, 0, 1, false);
	free(l);
}

int main(void)
{
	topology(false);
	topology(true);
	hidden_and_kept();
	full();
	TEST_END();
}
