/*
 * vmm/x86/boot_linux64.c - zero page, GDT and page tables of the 64-bit boot protocol
 *
 * Spec: Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"; zero-page.rst
 */
#include <asm/bootparam.h>
#include <assert.h>
#include <string.h>

#include "vmm/x86/boot.h"
#include "vmm/x86/layout.h"

#define HDR_MAGIC        0x53726448 /* "HdrS" */
#define HDR_BOOT_FLAG    0xaa55
#define HDR_VERSION      0x020f
#define LOADER_UNDEFINED 0xff
#define KERNEL_ALIGNMENT 0x1000000 /* unused by a kernel that is entered at its 64-bit entry */

#define PTE_PRESENT UINT64_C(0x1)
#define PTE_WRITE   UINT64_C(0x2)
#define PTE_HUGE    UINT64_C(0x80)

/* Flat segments: execute/read 64-bit, read/write; both present, accessed, 4 GiB. */
#define GDT_CODE64 UINT64_C(0x00af9b000000ffff)
#define GDT_DATA   UINT64_C(0x00cf93000000ffff)

static void *low_memory(struct gmem *m, uint64_t gpa, size_t len)
{
	void *p = gmem_map(m, gpa, len);

	assert(p); /* there are at least 32 MiB */
	return p;
}

static void put_page_tables(struct gmem *m)
{
	uint64_t *pml4 = low_memory(m, X86_PML4, 4096);
	uint64_t *pdpt = low_memory(m, X86_PDPT, 4096);
	uint64_t *pd = low_memory(m, X86_PD, 4096 * X86_PD_COUNT);

	pml4[0] = X86_PDPT | PTE_PRESENT | PTE_WRITE;
	for (uint64_t i = 0; i < X86_PD_COUNT; i++)
		pdpt[i] = (X86_PD + i * 4096) | PTE_PRESENT | PTE_WRITE;
	for (uint64_t i = 0; i < X86_PD_COUNT * UINT64_C(512); i++)
		pd[i] = i * 2 * MIB | PTE_PRESENT | PTE_WRITE | PTE_HUGE;
}

static void put_gdt(struct gmem *m)
{
	static const uint64_t gdt[] = { 0, 0, GDT_CODE64, GDT_DATA };

	memcpy(low_memory(m, X86_GDT, sizeof(gdt)), gdt, sizeof(gdt));
}

void boot_linux64(struct gmem *m, const struct boot_info *b, struct arch_entry *ret)
{
	struct boot_params *p = low_memory(m, X86_ZERO_PAGE, sizeof(*p));

	put_page_tables(m);
	put_gdt(m);
	memset(p, 0, sizeof(*p));
	p->hdr.boot_flag = HDR_BOOT_FLAG;
	p->hdr.header = HDR_MAGIC;
	p->hdr.version = HDR_VERSION;
	p->hdr.type_of_loader = LOADER_UNDEFINED;
	p->hdr.loadflags = LOADED_HIGH;
	p->hdr.kernel_alignment = KERNEL_ALIGNMENT;
	p->hdr.cmd_line_ptr = (uint32_t)b->cmdline_gpa;
	p->hdr.cmdline_size = (uint32_t)b->cmdline_len;
	p->hdr.ramdisk_image = (uint32_t)b->initrd_gpa; /* below the hole, so below 4 GiB */
	p->hdr.ramdisk_size = (uint32_t)b->initrd_len;
	p->acpi_rsdp_addr = b->rsdp_gpa;
	for (unsigned i = 0; i < b->nmap; i++) {
		p->e820_table[i].addr = b->map[i].gpa;
		p->e820_table[i].size = b->map[i].len;
		p->e820_table[i].type = b->map[i].type;
	}
	p->e820_entries = (uint8_t)b->nmap;
	ret->kind = ARCH_ENTRY_LINUX64;
	ret->arg = X86_ZERO_PAGE;
}
