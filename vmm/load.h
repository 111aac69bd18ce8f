/*
 * vmm/load.h - files into guest RAM: kernel image, initial RAM disks
 *
 * Trust:   the files are untrusted and may change while they are read: sizes are checked against
 *          the file's length and guest RAM before use, and a read that comes up short is an error.
 * Order:   before the first vCPU runs, into RAM that is still zero: what a file holds as zeros need
 *          not be copied where it is a hole.
 */
#pragma once

#include "base/error.h"
#include "vmm/gmem.h"

/* What load_elf() demands of a kernel. */
struct load_elf_arch {
	uint16_t machine; /* EM_* */
	const char *name; /* "x86-64" */
	uint64_t lowest;  /* gpa below which nothing may be loaded */
};

struct load_kernel {
	uint64_t entry;      /* e_entry: physical */
	uint64_t phys_entry; /* XEN_ELFNOTE_PHYS32_ENTRY, or 0 if the kernel has none */
	uint64_t start, end; /* all of it lies in [start, end), BSS included */
};

/*
 * load_elf() - Read a vmlinux from @fd; its file offset is not used. Errors begin with "kernel: ".
 */
int load_elf(struct gmem *m, int fd, const struct load_elf_arch *arch, struct load_kernel *ret,
	struct error *e) must_check;

/**
 * load_initrds() - Concatenate files, 4-byte aligned each, at the end of the RAM below the hole
 * @lowest: first address that is free
 * @ret_len: 0 if there is none
 */
int load_initrds(struct gmem *m, const int *fds, unsigned n, uint64_t lowest, uint64_t *ret_gpa,
	uint64_t *ret_len, struct error *e) must_check;

/**
 * load_file() - Copy file bytes [off, off + len) to @gpa, holes skipped
 * Return: 0, -EFAULT: not RAM, -ENODATA: the file ended early, -errno.
 */
int load_file(struct gmem *m, uint64_t gpa, int fd, uint64_t off, uint64_t len) must_check;
