#include "vmm/x86/boot.h"

#include <assert.h>
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "vmm/load.h"
#include "vmm/power.h"
#include "vmm/x86/acpi.h"
#include "vmm/x86/layout.h"

static const struct load_elf_arch elf_x86 = {
	.machine = EM_X86_64, .name = "x86-64", .lowest = X86_HIGHMEM
};

void boot_map(const struct gmem *m, struct boot_info *b)
{
	const struct gmem_region *r;
	unsigned n = gmem_regions(m, &r);

	b->map[0] = (struct boot_range){ 0, X86_LOWMEM_END, BOOT_RAM };
	b->map[1] =
		(struct boot_range){ X86_LOWMEM_END, X86_HIGHMEM - X86_LOWMEM_END, BOOT_RESERVED };
	b->map[2] = (struct boot_range){ X86_HIGHMEM, r[0].len - X86_HIGHMEM, BOOT_RAM };
	b->nmap = 3;
	if (n > 1)
		b->map[b->nmap++] = (struct boot_range){ r[1].gpa, r[1].len, BOOT_RAM };
}

static int put_cmdline(struct gmem *m, const char *cmdline, struct boot_info *b, struct error *e)
{
	size_t len = strlen(cmdline);
	char *dst = gmem_map(m, X86_CMDLINE, X86_CMDLINE_MAX);

	assert(dst);
	if (len >= X86_CMDLINE_MAX)
		return error_set(e, E2BIG, "kernel command line: %zu bytes; at most %d", len,
			X86_CMDLINE_MAX - 1);
	memcpy(dst, cmdline, len + 1);
	b->cmdline_gpa = X86_CMDLINE;
	b->cmdline_len = len;
	return 0;
}

static void put_acpi(struct gmem *m, const struct arch_boot *boot, struct boot_info *b)
{
	struct acpi_config c = { .cpus = boot->cpus, .nslots = boot->nslots };
	void *dst = gmem_map(m, X86_ACPI, X86_ACPI_END - X86_ACPI);
	size_t len;

	assert(dst);
	len = acpi_build(dst, X86_ACPI_END - X86_ACPI, X86_ACPI, &c);
	assert(len);
	b->rsdp_gpa = X86_ACPI;
}

/*
 * All there is of a BIOS. Linux with EFI support reboots hardware-reduced machines through EFI, and
 * where there is none it goes back to real mode and jumps to the reset entry.
 */
static void put_reset_entry(struct gmem *m)
{
	static const uint8_t code[] = {
		0xb0, POWER_RESET_VALUE,                    /* mov $value, %al */
		0xba, POWER_RESET & 0xff, POWER_RESET >> 8, /* mov $port, %dx */
		0xee,                                       /* out %al, %dx */
		0xf4, 0xeb, 0xfd,                           /* 1: hlt; jmp 1b */
	};
	void *dst = gmem_map(m, X86_RESET_ENTRY, 16);

	assert(dst && sizeof(code) <= 16);
	memcpy(dst, code, sizeof(code));
}

int arch_load(struct gmem *m, const struct arch_boot *boot, struct arch_entry *ret, struct error *e)
{
	struct boot_info b = { 0 };
	struct load_kernel k;
	int r = load_elf(m, boot->kernel_fd, &elf_x86, &k, e);

	if (!r)
		r = load_initrds(
			m, boot->initrd_fd, boot->ninitrds, k.end, &b.initrd_gpa, &b.initrd_len, e);
	if (!r)
		r = put_cmdline(m, boot->cmdline, &b, e);
	if (r)
		return r;
	put_acpi(m, boot, &b);
	put_reset_entry(m);
	boot_map(m, &b);
	if (k.phys_entry) {
		ret->rip = k.phys_entry;
		boot_pvh(m, &b, ret);
	} else {
		ret->rip = k.entry;
		boot_linux64(m, &b, ret);
	}
	return 0;
}
