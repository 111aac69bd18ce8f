/*
 * tests/lib/elf_image.h - makes small ELF kernels in a memfd
 */
#pragma once

#include <elf.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/lib/test.h"

struct elf_image {
	Elf64_Ehdr head;
	Elf64_Phdr seg[2]; /* code; note */
	struct {
		Elf64_Nhdr head;
		char name[4];
		uint32_t entry;
	} note;
	uint8_t code[16384];
};

#define ELF_IMAGE_CODE offsetof(struct elf_image, code)

/*
 * One segment at @gpa with @code and as much BSS again; entry at its start; with @pvh also the
 * note.
 */
static inline void elf_image_fill(
	struct elf_image *img, uint64_t gpa, const void *code, size_t len, int pvh)
{
	REQUIRE(len <= sizeof(img->code));
	memset(img, 0, sizeof(*img));
	memcpy(img->head.e_ident, ELFMAG, SELFMAG);
	img->head.e_ident[EI_CLASS] = ELFCLASS64;
	img->head.e_ident[EI_DATA] = ELFDATA2LSB;
	img->head.e_ident[EI_VERSION] = EV_CURRENT;
	img->head.e_type = ET_EXEC;
	img->head.e_machine = EM_X86_64;
	img->head.e_version = EV_CURRENT;
	img->head.e_entry = gpa;
	img->head.e_phoff = offsetof(struct elf_image, seg);
	img->head.e_ehsize = sizeof(img->head);
	img->head.e_phentsize = sizeof(img->seg[0]);
	img->head.e_phnum = pvh ? 2 : 1;
	img->seg[0] = (Elf64_Phdr){ .p_type = PT_LOAD,
		.p_offset = ELF_IMAGE_CODE,
		.p_vaddr = gpa,
		.p_paddr = gpa,
		.p_filesz = len,
		.p_memsz = 2 * len };
	img->seg[1] = (Elf64_Phdr){ .p_type = PT_NOTE,
		.p_offset = offsetof(struct elf_image, note),
		.p_filesz = sizeof(img->note),
		.p_align = 4 };
	img->note.head = (Elf64_Nhdr){ .n_namesz = 4, .n_descsz = 4, .n_type = 18 };
	memcpy(img->note.name, "Xen", 4);
	img->note.entry = (uint32_t)gpa;
	memcpy(img->code, code, len);
}

static inline int elf_image_memfd(const void *data, size_t len)
{
	int fd = memfd_create("kernel", MFD_CLOEXEC);

	REQUIRE(fd >= 0 && write(fd, data, len) == (ssize_t)len);
	return fd;
}
