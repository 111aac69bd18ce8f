/*
 * vmm/x86/layout.h - the physical address and port map of the x86 machine
 *
 *   0x00000000  0x00000500  real-mode vectors, BIOS data: zero
 *   0x00000500  0x00000600  boot GDT (64-bit boot protocol only)
 *   0x00001000  0x00002000  PVH start info
 *   0x00007000  0x00008000  zero page, struct boot_params (64-bit boot protocol only)
 *   0x00009000  0x0000f000  boot page tables: PML4, PDPT, four page directories (dto.)
 *   0x00020000  0x00020800  kernel command line
 *   0x0009fc00  0x00100000  not RAM for the guest: what firmware would occupy
 *   0x000e0000  0x000f0000  ACPI: RSDP first, where a scan finds it too
 *   0x000ffff0  0x00100000  real-mode reset entry: resets the machine
 *   0x00100000  GMEM_HOLE   RAM: kernel where its headers say, initrd at the end
 *   0xd0000000              virtio-mmio windows (vmm/vm.h)
 *   0xfec00000              I/O APIC
 *   0xfee00000              local APICs
 *   0xfffbc000  0xfffc0000  pages that Intel's VMX needs for real mode
 *   0x100000000             RAM, the rest
 *
 * Ports: 0x3f8 UART; 0x64 keyboard controller (reset only); 0x70, 0x71 CMOS (empty); 0x600 power.
 */
#pragma once

#include "base/util.h"

#define X86_GDT          UINT64_C(0x500)
#define X86_START_INFO   UINT64_C(0x1000)
#define X86_ZERO_PAGE    UINT64_C(0x7000)
#define X86_PML4         UINT64_C(0x9000)
#define X86_PDPT         UINT64_C(0xa000)
#define X86_PD           UINT64_C(0xb000)
#define X86_PD_COUNT     4 /* maps 4 GiB, all that a kernel or its arguments may lie in */
#define X86_CMDLINE      UINT64_C(0x20000)
#define X86_CMDLINE_MAX  2048
#define X86_LOWMEM_END   UINT64_C(0x9fc00)
#define X86_ACPI         UINT64_C(0xe0000)
#define X86_ACPI_END     UINT64_C(0xf0000)
#define X86_RESET_ENTRY  UINT64_C(0xffff0) /* f000:fff0 */
#define X86_HIGHMEM      UINT64_C(0x100000)
#define X86_IOAPIC       UINT64_C(0xfec00000)
#define X86_LAPIC        UINT64_C(0xfee00000)
#define X86_IDENTITY_MAP UINT64_C(0xfffbc000) /* 1 page */
#define X86_TSS          UINT64_C(0xfffbd000) /* 3 pages */

#define X86_IOAPIC_PINS 24 /* KVM's */
