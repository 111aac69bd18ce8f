/*
 * api/store/vmlinux.h - from the kernel file a person names to the vmlinux that the machine loads
 *
 * What:    an ELF vmlinux is used as it is. A bzImage is unpacked once into cache/kernels/HASH/vmlinux, HASH being
 *          SHA-256 over the file, and found there from then on. The cache keeps the VMLINUX_CACHE_KEEP most
 *          recently used.
 * Trust:   the file may be anything: bzimage.h, decompress.h. Unpacked it has at most VMLINUX_MAX bytes.
 * Threads: any number of processes at once.
 */
#pragma once

#include "base/error.h"

#define VMLINUX_MAX        GIB
#define VMLINUX_PACKED_MAX (256 * MIB)
#define VMLINUX_CACHE_KEEP 16

/**
 * vmlinux_open() - Open the kernel file at @path for loading
 * @ret_fd: an ELF x86-64 vmlinux, read-only; the caller closes it
 *
 * Errors: "kernel 'PATH': ..." for what is missing, no file, unreadable, empty, truncated, damaged or for another
 * processor.
 */
int vmlinux_open(const char *path, int *ret_fd, struct error *e) must_check;

/**
 * vmlinux_unpack() - Write the vmlinux that a kernel file holds to @out
 * @fd: an ELF file is copied
 * @out: an empty file, open for writing
 */
int vmlinux_unpack(int fd, int out, struct error *e) must_check;
