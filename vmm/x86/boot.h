/*
 * vmm/x86/boot.h - what a Linux kernel is told at its first instruction
 *
 * Two protocols, one content: memory map, command line, initrd, RSDP. PVH (32-bit entry named by a
 * note) where the kernel has it, else the 64-bit boot protocol at the ELF entry.
 */
#pragma once

#include "vmm/arch.h"
#include "vmm/gmem.h"

#define BOOT_MAP_MAX 4

/* Types of e820; PVH uses the same. */
#define BOOT_RAM      1
#define BOOT_RESERVED 2

struct boot_range {
	uint64_t gpa, len;
	uint32_t type;
};

struct boot_info {
	struct boot_range map[BOOT_MAP_MAX];
	unsigned nmap;
	uint64_t cmdline_gpa, cmdline_len; /* without its NUL */
	uint64_t initrd_gpa, initrd_len;   /* 0, 0: none */
	uint64_t rsdp_gpa;
};

/* boot_map() - The memory map of a machine with this RAM. */
void boot_map(const struct gmem *m, struct boot_info *ret);

/*
 * Each writes its structures into low memory (vmm/x86/layout.h) and sets @ret->kind and @ret->arg.
 */
void boot_pvh(struct gmem *m, const struct boot_info *b, struct arch_entry *ret);
void boot_linux64(struct gmem *m, const struct boot_info *b, struct arch_entry *ret);
