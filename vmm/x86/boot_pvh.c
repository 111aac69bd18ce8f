/*
 * vmm/x86/boot_pvh.c - the PVH start info
 *
 * Spec: xen/include/public/arch-x86/hvm/start_info.h, version 1
 */
#include <assert.h>
#include <string.h>

#include "vmm/x86/boot.h"
#include "vmm/x86/layout.h"

#define START_MAGIC UINT32_C(0x336ec578)

struct start_info {
	uint32_t magic, version, flags;
	uint32_t nr_modules;
	uint64_t modlist_gpa;
	uint64_t cmdline_gpa;
	uint64_t rsdp_gpa;
	uint64_t memmap_gpa;
	uint32_t memmap_entries;
	uint32_t zero;
};

struct module {
	uint64_t gpa, size;
	uint64_t cmdline_gpa;
	uint64_t zero;
};

struct memmap_entry {
	uint64_t addr, size;
	uint32_t type, zero;
};

struct start_page {
	struct start_info info;
	struct module initrd;
	struct memmap_entry map[BOOT_MAP_MAX];
};

void boot_pvh(struct gmem *m, const struct boot_info *b, struct arch_entry *ret)
{
	struct start_page page = {
		.info = {
			.magic = START_MAGIC,
			.version = 1,
			.cmdline_gpa = b->cmdline_gpa,
			.rsdp_gpa = b->rsdp_gpa,
			.memmap_gpa = X86_START_INFO + offsetof(struct start_page, map),
			.memmap_entries = b->nmap,
		},
		.initrd = { .gpa = b->initrd_gpa, .size = b->initrd_len },
	};
	void *dst = gmem_map(m, X86_START_INFO, sizeof(page));

	assert(dst);
	if (b->initrd_len) {
		page.info.nr_modules = 1;
		page.info.modlist_gpa = X86_START_INFO + offsetof(struct start_page, initrd);
	}
	for (unsigned i = 0; i < b->nmap; i++)
		page.map[i] = (struct memmap_entry){
			.addr = b->map[i].gpa, .size = b->map[i].len, .type = b->map[i].type
		};
	memcpy(dst, &page, sizeof(page));
	ret->kind = ARCH_ENTRY_PVH;
	ret->arg = X86_START_INFO;
}
