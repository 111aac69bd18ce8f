#include "vmm/disk.h"

#include <assert.h>

static void request_begin(struct disk *d, struct disk_req *r, uint64_t off, uint64_t len)
{
	assert(!r->busy && r->done);
	assert(len <= d->size && off <= d->size - len);
	r->busy = true;
	r->disk = d;
	r->off = off;
	r->len = len;
	r->iov = NULL;
	r->niov = 0;
	r->kind = r->step = 0;
}

static uint64_t iov_total(const struct iovec *iov, unsigned n)
{
	uint64_t len = 0;

	for (unsigned i = 0; i < n; i++)
		len += iov[i].iov_len;
	return len;
}

void disk_read(struct disk *d, struct disk_req *r, struct iovec *iov, unsigned n, uint64_t off)
{
	request_begin(d, r, off, iov_total(iov, n));
	r->iov = iov;
	r->niov = n;
	d->ops->read(d, r);
}

void disk_write(struct disk *d, struct disk_req *r, struct iovec *iov, unsigned n, uint64_t off)
{
	assert(!d->read_only);
	request_begin(d, r, off, iov_total(iov, n));
	r->iov = iov;
	r->niov = n;
	d->ops->write(d, r);
}

void disk_flush(struct disk *d, struct disk_req *r)
{
	request_begin(d, r, 0, 0);
	d->ops->flush(d, r);
}

void disk_discard(struct disk *d, struct disk_req *r, uint64_t off, uint64_t len)
{
	assert(!d->read_only);
	request_begin(d, r, off, len);
	d->ops->discard(d, r);
}

void disk_write_zeroes(
	struct disk *d, struct disk_req *r, uint64_t off, uint64_t len, bool may_unmap)
{
	assert(!d->read_only);
	request_begin(d, r, off, len);
	d->ops->write_zeroes(d, r, may_unmap);
}

void disk_close(struct disk *d)
{
	if (d)
		d->ops->destroy(d);
}
