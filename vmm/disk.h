/*
 * vmm/disk.h - a disk image as a block device sees it: asynchronous requests on a range of bytes
 *
 * What:    the seam between virtio-blk and image formats. A request is the caller's memory; it
 *          completes once, wholly or with an error, through @done: from the loop, or before the
 *          call that submits it returns. Many may be in flight, in no order.
 * Trust:   the caller has checked that ranges lie in the disk; iovecs point into guest memory.
 * Threads: loop thread only.
 */
#pragma once

#include <sys/uio.h>

#include "base/loop.h"

struct disk;
struct disk_req;

/* @res: 0, or -errno; then any part of the range may have been transferred. */
typedef void disk_done_fn(struct disk_req *r, int res);

struct disk_req {
	disk_done_fn *done; /* set by the caller */
	bool busy;          /* submitted, @done not yet called */

	/* The format's own. */
	struct disk *disk;
	struct loop_op op;
	uint8_t kind, step;
	struct iovec *iov;
	unsigned niov;
	uint64_t off, len;
};

struct disk_ops {
	void (*read)(struct disk *d, struct disk_req *r);
	void (*write)(struct disk *d, struct disk_req *r);
	void (*flush)(struct disk *d, struct disk_req *r);
	void (*discard)(struct disk *d, struct disk_req *r);
	void (*write_zeroes)(struct disk *d, struct disk_req *r, bool may_unmap);
	void (*destroy)(struct disk *d);
};

struct disk {
	const struct disk_ops *ops;
	struct loop *loop;
	uint64_t size; /* bytes; a multiple of 512 */
	bool read_only;
};

/**
 * disk_open_raw() - A raw image: byte n of the file is byte n of the disk
 * @fd: regular file or block device, readable, and writable unless @read_only; may be closed
 *      afterwards
 *
 * Errors name what is wrong with the file and how to mend it, but not the file: prefix them.
 */
int disk_open_raw(
	struct disk **ret, struct loop *l, int fd, bool read_only, struct error *e) must_check;
/* disk_close() - No request may be in flight. NULL is fine. */
void disk_close(struct disk *d);

/*
 * Requests. @r->done is set, !@r->busy (assert); the range lies in the disk; writes only if
 * !read_only (assert). Iovecs are changed while the request runs; with their buffers they stay in
 * place until it is done.
 */
void disk_read(struct disk *d, struct disk_req *r, struct iovec *iov, unsigned n, uint64_t off);
void disk_write(struct disk *d, struct disk_req *r, struct iovec *iov, unsigned n, uint64_t off);
/*
 * All writes that completed before this was called are on stable storage when it is done. After a
 * failure every later flush fails too: the kernel reports lost pages only once.
 */
void disk_flush(struct disk *d, struct disk_req *r);
/*
 * The contents of the range become undefined (here: zero, where the file system can punch holes).
 */
void disk_discard(struct disk *d, struct disk_req *r, uint64_t off, uint64_t len);
/* The range reads as zero afterwards; with @may_unmap its storage may be given back. */
void disk_write_zeroes(
	struct disk *d, struct disk_req *r, uint64_t off, uint64_t len, bool may_unmap);
