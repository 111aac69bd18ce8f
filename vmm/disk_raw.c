/*
 * vmm/disk_raw.c - raw disk images
 *
 * What:    reads and writes go to the file at the same offset; short transfers go on where they
 *          stopped. Discard punches holes; zeroes are made by punching, by FALLOC_FL_ZERO_RANGE, or
 *          by writing them, whichever the file system can do and the caller allows.
 * Trust:   offsets and lengths were checked by the caller; the file may shrink or fail at any time
 *          (-EIO).
 * Threads: loop thread only.
 * Limits:  no memory per request; one fixed run of zeroes is shared by all.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>

#include "vmm/disk.h"

#define SECTOR      512
#define ZERO_BYTES  (64 * KIB)
#define RETRIES_MAX 100 /* of EINTR and EAGAIN, in a row */

struct raw {
	struct disk disk;
	int slot;
	bool no_punch, no_zero_range; /* learnt from EOPNOTSUPP */
	bool flush_failed;
};

enum raw_kind {
	RAW_READ,
	RAW_WRITE,
	RAW_FLUSH,
	RAW_DISCARD,
	RAW_ZERO_PUNCH,
	RAW_ZERO_RANGE,
	RAW_ZERO_WRITE
};

static const uint8_t zeroes[ZERO_BYTES];

static struct raw *to_raw(struct disk *d)
{
	return container_of(d, struct raw, disk);
}

static void submit(struct raw *raw, struct disk_req *r);

static void complete(struct disk_req *r, int res)
{
	r->busy = false;
	r->done(r, res);
}

/* Drop what was transferred from the front of the iovecs. */
static void advance(struct disk_req *r, size_t n)
{
	r->off += n;
	r->len -= n;
	while (r->niov && n >= r->iov->iov_len) {
		n -= r->iov->iov_len;
		r->iov++;
		r->niov--;
	}
	if (r->niov) {
		r->iov->iov_base = (uint8_t *)r->iov->iov_base + n;
		r->iov->iov_len -= n;
	}
}

static void transferred(struct raw *raw, struct disk_req *r, int res)
{
	if (res <= 0) {
		complete(r, res ? res : -EIO); /* 0: the file ends here; it was truncated */
		return;
	}
	if (r->kind == RAW_ZERO_WRITE) {
		r->off += (unsigned)res;
		r->len -= (unsigned)res;
	} else {
		advance(r, (size_t)res);
	}
	if (r->len)
		submit(raw, r);
	else
		complete(r, 0);
}

/* The next way to make zeroes, after the file system refused one. */
static void zero_fallback(struct raw *raw, struct disk_req *r)
{
	if (r->kind == RAW_ZERO_PUNCH)
		raw->no_punch = true;
	else
		raw->no_zero_range = true;
	r->kind =
		r->kind == RAW_ZERO_PUNCH && !raw->no_zero_range ? RAW_ZERO_RANGE : RAW_ZERO_WRITE;
	submit(raw, r);
}

static void op_done(struct loop_op *op, int res)
{
	struct disk_req *r = container_of(op, struct disk_req, op);
	struct raw *raw = to_raw(r->disk);

	if ((res == -EINTR || res == -EAGAIN) && r->step++ < RETRIES_MAX) {
		submit(raw, r);
		return;
	}
	r->step = 0;
	switch ((enum raw_kind)r->kind) {
	case RAW_READ:
	case RAW_WRITE:
	case RAW_ZERO_WRITE:
		transferred(raw, r, res);
		return;
	case RAW_FLUSH:
		if (res < 0)
			raw->flush_failed = true;
		break;
	case RAW_DISCARD:
		if (res == -EOPNOTSUPP) {
			raw->no_punch = true;
			res = 0; /* contents are undefined: leaving them is right */
		}
		break;
	case RAW_ZERO_PUNCH:
	case RAW_ZERO_RANGE:
		if (res == -EOPNOTSUPP) {
			zero_fallback(raw, r);
			return;
		}
		break;
	}
	complete(r, res < 0 ? res : 0);
}

static void submit(struct raw *raw, struct disk_req *r)
{
	struct loop *l = raw->disk.loop;
	int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	r->op.done = op_done;
	switch ((enum raw_kind)r->kind) {
	case RAW_READ:
		loop_readv(l, &r->op, raw->slot, r->iov, r->niov, r->off);
		break;
	case RAW_WRITE:
		loop_writev(l, &r->op, raw->slot, r->iov, r->niov, r->off);
		break;
	case RAW_FLUSH:
		loop_fdatasync(l, &r->op, raw->slot);
		break;
	case RAW_DISCARD:
	case RAW_ZERO_PUNCH:
		loop_fallocate(l, &r->op, raw->slot, punch, r->off, r->len);
		break;
	case RAW_ZERO_RANGE:
		loop_fallocate(l, &r->op, raw->slot, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
			r->off, r->len);
		break;
	case RAW_ZERO_WRITE:
		loop_write(l, &r->op, raw->slot, zeroes, (size_t)MIN(r->len, ZERO_BYTES), r->off);
		break;
	}
}

static void raw_read(struct disk *d, struct disk_req *r)
{
	r->kind = RAW_READ;
	submit(to_raw(d), r);
}

static void raw_write(struct disk *d, struct disk_req *r)
{
	r->kind = RAW_WRITE;
	submit(to_raw(d), r);
}

static void raw_flush(struct disk *d, struct disk_req *r)
{
	r->kind = RAW_FLUSH;
	if (to_raw(d)->flush_failed)
		complete(r, -EIO);
	else if (d->read_only)
		complete(r, 0);
	else
		submit(to_raw(d), r);
}

static void raw_discard(struct disk *d, struct disk_req *r)
{
	r->kind = RAW_DISCARD;
	if (to_raw(d)->no_punch || !r->len)
		complete(r, 0);
	else
		submit(to_raw(d), r);
}

static void raw_write_zeroes(struct disk *d, struct disk_req *r, bool may_unmap)
{
	struct raw *raw = to_raw(d);

	if (may_unmap && !raw->no_punch)
		r->kind = RAW_ZERO_PUNCH;
	else
		r->kind = raw->no_zero_range ? RAW_ZERO_WRITE : RAW_ZERO_RANGE;
	if (r->len)
		submit(raw, r);
	else
		complete(r, 0);
}

static void raw_destroy(struct disk *d)
{
	struct raw *raw = to_raw(d);

	loop_remove_fd(d->loop, raw->slot);
	free(raw);
}

static const struct disk_ops raw_ops = {
	.read = raw_read,
	.write = raw_write,
	.flush = raw_flush,
	.discard = raw_discard,
	.write_zeroes = raw_write_zeroes,
	.destroy = raw_destroy,
};

static int check_file(int fd, bool read_only, uint64_t *ret_size, struct error *e)
{
	struct stat st;
	off_t size;
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fstat(fd, &st))
		return error_set(e, errno, "descriptor %d: %s", fd, strerror(errno));
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return error_set(e, EINVAL,
			"not a regular file or block device; make one with truncate -s SIZE FILE");
	if ((flags & O_ACCMODE) == O_WRONLY || (!read_only && (flags & O_ACCMODE) != O_RDWR) ||
		(flags & (O_APPEND | O_PATH)))
		return error_set(e, EINVAL, "opened %s; open it for %s",
			flags & O_APPEND ? "for appending" : "without the needed access",
			read_only ? "reading" : "reading and writing");
	size = lseek(fd, 0, SEEK_END);
	if (size < 0)
		return error_set(e, errno, "its size can't be found: %s", strerror(errno));
	if (!size)
		return error_set(e, EINVAL, "is empty; give it a size with truncate -s SIZE FILE");
	if (size % SECTOR)
		return error_set(e, EINVAL,
			"%" PRIu64
			" bytes is not a multiple of %d; pad it with truncate -s %%%d FILE",
			(uint64_t)size, SECTOR, SECTOR);
	*ret_size = (uint64_t)size;
	return 0;
}

int disk_open_raw(struct disk **ret, struct loop *l, int fd, bool read_only, struct error *e)
{
	autofree struct raw *raw = calloc(1, sizeof(*raw));
	int r;

	if (!raw)
		return error_set(e, ENOMEM, "out of memory");
	r = check_file(fd, read_only, &raw->disk.size, e);
	if (r)
		return r;
	raw->slot = loop_add_fd(l, fd);
	if (raw->slot < 0)
		return error_set(
			e, -raw->slot, "no place in the event loop: %s", strerror(-raw->slot));
	raw->disk.ops = &raw_ops;
	raw->disk.loop = l;
	raw->disk.read_only = read_only;
	*ret = &take_ptr(raw)->disk;
	return 0;
}
