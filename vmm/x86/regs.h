/*
 * vmm/x86/regs.h - registers of a vCPU that starts
 *
 * Spec: xen/include/public/arch-x86/hvm/start_info.h (PVH); Documentation/arch/x86/boot.rst,
 *       "64-bit boot protocol"; Intel SDM vol. 3A, 9.1 (reset), 3.4.5 (segment descriptors)
 */
#pragma once

#include "base/error.h"

/* regs_init_msrs() - What firmware would have set on every CPU: MTRRs write-back, fast strings. */
int regs_init_msrs(int vcpu_fd, struct error *e) must_check;
/* regs_boot_pvh() - 32-bit protected mode, paging off, flat segments, ebx = @start_info. */
int regs_boot_pvh(int vcpu_fd, uint64_t rip, uint64_t start_info, struct error *e) must_check;
/*
 * regs_boot_linux64() - Long mode on the page tables and GDT of vmm/x86/layout.h, rsi = @zero_page.
 */
int regs_boot_linux64(int vcpu_fd, uint64_t rip, uint64_t zero_page, struct error *e) must_check;
