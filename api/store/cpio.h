/*
 * api/store/cpio.h - write an initial file system
 *
 * Spec: Linux, Documentation/driver-api/early-userspace/buffer-format.rst ("newc")
 *         off  size  field, each 8 hex digits after the magic
 *         0    6     "070701"
 *         6    8     ino       14 mode      22 uid       30 gid
 *         38   8     nlink     46 mtime     54 filesize  62 maj
 *         70   8     min       78 rmaj      86 rmin      94 namesize
 *         102  8     chksum, zero
 *         110  -     name, NUL, padding to 4; content, padding to 4
 */
#pragma once

#include <sys/types.h>

#include "base/error.h"

struct cpio {
	int fd; /* borrowed; opened for writing, at the place where the archive begins */
	uint32_t ino;
};

void cpio_init(struct cpio *c, int fd);
/* Names are relative to the root, without a leading slash; folders come before what lies in them. */
int cpio_folder(struct cpio *c, const char *name, mode_t mode) must_check;
int cpio_file(
	struct cpio *c, const char *name, mode_t mode, const void *data, size_t len) must_check;
/* cpio_end() - The trailer; nothing may follow in this archive. All three: 0 or -errno. */
int cpio_end(struct cpio *c) must_check;
