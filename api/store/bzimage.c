#include "api/store/bzimage.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define SECTOR          512
#define OFF_SETUP_SECTS 0x1f1
#define OFF_BOOT_FLAG   0x1fe
#define OFF_MAGIC       0x202
#define OFF_VERSION     0x206
#define OFF_PAYLOAD     0x248
#define OFF_PAYLOAD_LEN 0x24c
#define HEADER_END      0x250
#define VERSION_PAYLOAD 0x0208
#define OFF_ARM64       56
#define PHDRS_MAX       64

static uint32_t le(const uint8_t *p, unsigned bytes)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < bytes; i++)
		v |= (uint32_t)p[i] << (8 * i);
	return v;
}

static const char *machine_name(unsigned machine)
{
	switch (machine) {
	case EM_386:
		return "32-bit x86";
	case EM_AARCH64:
		return "arm64";
	case EM_ARM:
		return "arm";
	case EM_RISCV:
		return "RISC-V";
	case EM_PPC64:
		return "POWER";
	case EM_S390:
		return "s390";
	}
	return "another processor";
}

static int wrong_arch(const char *name, struct error *e)
{
	return error_set(e, ENOEXEC, "is a kernel for %s; this machine needs one for x86-64", name);
}

static int truncated(uint64_t size, uint64_t need, struct error *e)
{
	return error_set(e, ENOEXEC,
		"is truncated: %" PRIu64 " bytes of at least %" PRIu64 "; fetch or build it again",
		size, need);
}

static int check_segments(const uint8_t *head, const Elf64_Ehdr *eh, uint64_t size, struct error *e)
{
	bool load = false;

	for (unsigned i = 0; i < eh->e_phnum; i++) {
		Elf64_Phdr ph;

		memcpy(&ph, head + eh->e_phoff + i * sizeof(ph), sizeof(ph));
		if (ph.p_type == PT_INTERP)
			return error_set(e, ENOEXEC, "is a program, not a kernel");
		if (ph.p_type != PT_LOAD)
			continue;
		load = true;
		if (ph.p_filesz > UINT64_MAX - ph.p_offset)
			return error_set(e, ENOEXEC, "is damaged: ELF segment %u ends nowhere", i);
		if (ph.p_offset + ph.p_filesz > size)
			return truncated(size, ph.p_offset + ph.p_filesz, e);
	}
	return load ? 0 : error_set(e, ENOEXEC, "is an ELF file that holds nothing to load");
}

int bzimage_check_elf(const uint8_t *head, size_t len, uint64_t size, struct error *e)
{
	Elf64_Ehdr eh;

	if (len < SELFMAG || memcmp(head, ELFMAG, SELFMAG))
		return error_set(e, ENOEXEC, "holds no ELF file");
	if (len < sizeof(eh))
		return truncated(size, sizeof(eh), e);
	memcpy(&eh, head, sizeof(eh));
	if (eh.e_ident[EI_DATA] != ELFDATA2LSB)
		return wrong_arch("a big-endian processor", e);
	if (eh.e_machine != EM_X86_64)
		return wrong_arch(machine_name(eh.e_machine), e);
	if (eh.e_ident[EI_CLASS] != ELFCLASS64)
		return wrong_arch("32-bit x86", e);
	if (eh.e_type != ET_EXEC && eh.e_type != ET_DYN)
		return error_set(e, ENOEXEC, "is an object file or module, not a vmlinux");
	if (eh.e_phentsize != sizeof(Elf64_Phdr) || !eh.e_phnum || eh.e_phnum > PHDRS_MAX ||
		eh.e_phoff > BZIMAGE_HEAD_MAX)
		return error_set(e, ENOEXEC, "is an ELF file, but no Linux kernel");
	if (eh.e_phoff > len || eh.e_phnum * sizeof(Elf64_Phdr) > len - eh.e_phoff)
		return truncated(size, eh.e_phoff + eh.e_phnum * sizeof(Elf64_Phdr), e);
	return check_segments(head, &eh, size, e);
}

static int identify_bzimage(
	const uint8_t *head, uint64_t size, struct bzimage *ret, struct error *e)
{
	uint32_t version = le(head + OFF_VERSION, 2);
	unsigned sects = head[OFF_SETUP_SECTS] ? head[OFF_SETUP_SECTS] : 4;
	uint64_t off, len;

	if (version < VERSION_PAYLOAD)
		return error_set(e, ENOEXEC,
			"is a bzImage of boot protocol %u.%02u; 2.08 (Linux 2.6.26) or newer is needed",
			version >> 8, version & 0xff);
	off = (sects + 1) * SECTOR + (uint64_t)le(head + OFF_PAYLOAD, 4);
	len = le(head + OFF_PAYLOAD_LEN, 4);
	if (!len)
		return error_set(e, ENOEXEC, "is a bzImage without a kernel inside");
	if (off > size || len > size - off)
		return truncated(size, off + len, e);
	*ret = (struct bzimage){ BZIMAGE_PACKED, off, len };
	return 0;
}

int bzimage_identify(
	const uint8_t *head, size_t len, uint64_t size, struct bzimage *ret, struct error *e)
{
	int r;

	if (!len)
		return error_set(e, ENOEXEC, "is empty");
	if (len >= SELFMAG && !memcmp(head, ELFMAG, SELFMAG)) {
		r = bzimage_check_elf(head, len, size, e);
		if (!r)
			*ret = (struct bzimage){ BZIMAGE_ELF, 0, 0 };
		return r;
	}
	if (len >= OFF_MAGIC + 4 && !memcmp(head + OFF_MAGIC, "HdrS", 4) &&
		le(head + OFF_BOOT_FLAG, 2) == 0xaa55)
		return len < HEADER_END ? truncated(size, HEADER_END, e)
					: identify_bzimage(head, size, ret, e);
	if (len >= OFF_ARM64 + 4 && !memcmp(head + OFF_ARM64, "ARM\x64", 4))
		return wrong_arch("arm64", e);
	if (decompress_detect(head, len) != DECOMPRESS_UNKNOWN) {
		*ret = (struct bzimage){ BZIMAGE_PACKED, 0, size };
		return 0;
	}
	if (len < HEADER_END)
		return error_set(e, ENOEXEC,
			"is no kernel: %" PRIu64
			" bytes, neither the start of a vmlinux (ELF) nor of a "
			"bzImage",
			size);
	return error_set(e, ENOEXEC, "is no kernel: neither a vmlinux (ELF) nor a bzImage");
}
