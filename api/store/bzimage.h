/*
 * api/store/bzimage.h - what a kernel file is, and where in a bzImage the kernel lies
 *
 * What:    bytes in, facts out; no files. A bzImage is a boot sector and set-up code, then a protected-mode part
 *          that holds the compressed vmlinux at the place that the set-up header names.
 * Trust:   the file may be anything; every offset is checked against its size.
 * Spec:    Linux, Documentation/arch/x86/boot.rst:
 *            off   size  field
 *            0x1f1 1     setup_sects, 0 means 4: the protected-mode part begins at (setup_sects + 1) * 512
 *            0x1fe 2     boot_flag 0xaa55
 *            0x202 4     "HdrS"
 *            0x206 2     version, at least 0x0208
 *            0x248 4     payload_offset, from the start of the protected-mode part
 *            0x24c 4     payload_length
 *          Documentation/arch/arm64/booting.rst (magic "ARM\x64" at 56); System V ABI (ELF)
 */
#pragma once

#include "api/store/decompress.h"

#define BZIMAGE_HEAD_MAX 4096 /* bytes of a file's start that suffice to tell */

enum bzimage_kind {
	BZIMAGE_ELF,   /* a vmlinux */
	BZIMAGE_PACKED /* a bzImage, or a vmlinux that is compressed as a whole */
};

struct bzimage {
	enum bzimage_kind kind;
	uint64_t payload_off, payload_len; /* PACKED: within the file */
};

/**
 * bzimage_identify() - Look at the start of a kernel file
 * @head: its first MIN(size, BZIMAGE_HEAD_MAX) bytes
 * @size: of the whole file
 *
 * Errors say in one phrase why it is no x86-64 kernel, without a prefix that names the file.
 */
int bzimage_identify(const uint8_t *head, size_t len, uint64_t size, struct bzimage *ret,
	struct error *e) must_check;

/* bzimage_check_elf() - Is this the start of an x86-64 vmlinux of @size bytes, all of it there? */
int bzimage_check_elf(const uint8_t *head, size_t len, uint64_t size, struct error *e) must_check;
