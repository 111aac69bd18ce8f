/*
 * api/store/kernels.h - kernels by name: state/kernels/NAME/{vmlinux,modules.cpio,kernel.json}
 *
 * What:    `skerry setup` makes them from Debian's packages (setup_kernel.h). modules.cpio is an initial file system
 *          that holds /modules/list, one module with its options per line in load order, and the modules.
 */
#pragma once

#include "base/error.h"

#define KERNEL_DEFAULT  "debian-13"
#define KERNEL_EMULATED "emulated-host" /* for L1: api/emu */

struct kernel {
	int vmlinux_fd; /* ELF x86-64, read-only */
	int modules_fd; /* initial file system, or -1: the kernel is a file that a person named */
};

/**
 * kernel_open() - Open the kernel that a person names
 * @name: an object's name, or the path of a vmlinux or bzImage; NULL: KERNEL_DEFAULT
 *
 * What contains a slash is a path; else an object of that name comes first, then a file in the working folder.
 * Errors: unknown name (with the nearest one, and those there are), not set up yet, and those of vmlinux_open().
 */
int kernel_open(const char *name, struct kernel *ret, struct error *e) must_check;
void kernel_close(struct kernel *k);
