#include "vmm/x86/regs.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm/x86/layout.h"

#define MSR_MISC_ENABLE   0x1a0
#define MSR_MTRR_DEF_TYPE 0x2ff
#define MISC_FAST_STRING  1
#define MTRR_ENABLE       (1 << 11)
#define MTRR_WRITE_BACK   6

#define CR0_PE   (UINT64_C(1) << 0)
#define CR0_ET   (UINT64_C(1) << 4)
#define CR0_PG   (UINT64_C(1) << 31)
#define CR4_PAE  (UINT64_C(1) << 5)
#define EFER_LME (UINT64_C(1) << 8)
#define EFER_LMA (UINT64_C(1) << 10)

#define SEG_CODE 0xb /* execute, read, accessed */
#define SEG_DATA 0x3 /* read, write, accessed */
#define SEG_TSS  0xb /* 32-bit or 64-bit TSS, busy */

#define RFLAGS_FIXED 2 /* bit 1 is always set */

/* Selectors of __BOOT_CS and __BOOT_DS, as both protocols want them. */
#define BOOT_CS 0x10
#define BOOT_DS 0x18

int regs_init_msrs(int vcpu_fd, struct error *e)
{
	static const struct kvm_msr_entry values[] = {
		{ .index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLE | MTRR_WRITE_BACK },
		{ .index = MSR_MISC_ENABLE, .data = MISC_FAST_STRING },
	};
	_Alignas(struct kvm_msrs) uint8_t buf[sizeof(struct kvm_msrs) + sizeof(values)] = { 0 };
	struct kvm_msrs *msrs = (void *)buf;
	int n;

	msrs->nmsrs = ARRAY_SIZE(values);
	memcpy(msrs->entries, values, sizeof(values));
	n = ioctl(vcpu_fd, KVM_SET_MSRS, msrs);
	if (n < 0)
		return error_set(e, errno, "KVM: model-specific registers: %s", strerror(errno));
	if (n < (int)ARRAY_SIZE(values))
		return error_set(
			e, ENOTSUP, "KVM: model-specific register 0x%x refused", values[n].index);
	return 0;
}

static struct kvm_segment segment(uint16_t selector, uint8_t type, bool code64, bool system)
{
	return (struct kvm_segment){
		.base = 0,
		.limit = system ? 0x67 : 0xffffffff,
		.selector = selector,
		.type = type,
		.present = 1,
		.db = !code64 && !system,
		.s = !system,
		.l = code64,
		.g = !system,
	};
}

static int boot(int vcpu_fd, bool long_mode, struct kvm_regs *regs, struct error *e)
{
	struct kvm_segment data = segment(BOOT_DS, SEG_DATA, false, false);
	struct kvm_sregs s;

	if (ioctl(vcpu_fd, KVM_GET_SREGS, &s))
		return error_set(e, errno, "KVM: system registers: %s", strerror(errno));
	s.cs = segment(BOOT_CS, SEG_CODE, long_mode, false);
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.tr = segment(0, SEG_TSS, false, true);
	s.idt = (struct kvm_dtable){ 0 };
	s.cr0 = CR0_PE | CR0_ET;
	if (long_mode) {
		s.gdt = (struct kvm_dtable){ .base = X86_GDT, .limit = 4 * 8 - 1 };
		s.cr3 = X86_PML4;
		s.cr4 = CR4_PAE;
		s.cr0 |= CR0_PG;
		s.efer = EFER_LME | EFER_LMA;
	}
	if (ioctl(vcpu_fd, KVM_SET_SREGS, &s))
		return error_set(e, errno, "KVM: system registers: %s", strerror(errno));
	regs->rflags = RFLAGS_FIXED;
	if (ioctl(vcpu_fd, KVM_SET_REGS, regs))
		return error_set(e, errno, "KVM: registers: %s", strerror(errno));
	return 0;
}

int regs_boot_pvh(int vcpu_fd, uint64_t rip, uint64_t start_info, struct error *e)
{
	struct kvm_regs regs = { .rip = rip, .rbx = start_info };

	return boot(vcpu_fd, false, &regs, e);
}

int regs_boot_linux64(int vcpu_fd, uint64_t rip, uint64_t zero_page, struct error *e)
{
	struct kvm_regs regs = { .rip = rip, .rsi = zero_page };

	return boot(vcpu_fd, true, &regs, e);
}
