#include "vmm/vsock_ring.h"

#include <assert.h>
#include <errno.h>

#include "vmm/vq.h"

int vsock_ring_reserve(struct vsock_ring *r, uint32_t size)
{
	if (r->data)
		return 0;
	r->data = malloc(size);
	if (!r->data)
		return -ENOMEM;
	r->size = size;
	r->head = r->len = 0;
	return 0;
}

void vsock_ring_free(struct vsock_ring *r)
{
	free(r->data);
	*r = (struct vsock_ring){ 0 };
}

void vsock_ring_put(
	struct vsock_ring *r, const struct iovec *iov, unsigned n, size_t off, uint32_t len)
{
	uint32_t tail = r->head + r->len < r->size ? r->head + r->len : r->head + r->len - r->size;
	uint32_t first = MIN(len, r->size - tail);
	size_t done;

	assert(len <= r->size - r->len);
	done = iov_read(iov, n, off, r->data + tail, first);
	done += iov_read(iov, n, off + first, r->data, len - first);
	assert(done == len);
	r->len += len;
}

unsigned vsock_ring_get(const struct vsock_ring *r, struct iovec ret[2])
{
	uint32_t first = MIN(r->len, r->size - r->head);

	if (!r->len)
		return 0;
	ret[0] = (struct iovec){ .iov_base = r->data + r->head, .iov_len = first };
	ret[1] = (struct iovec){ .iov_base = r->data, .iov_len = r->len - first };
	return ret[1].iov_len ? 2 : 1;
}

void vsock_ring_drop(struct vsock_ring *r, uint32_t len)
{
	assert(len <= r->len);
	r->len -= len;
	r->head += len;
	if (r->head >= r->size)
		r->head -= r->size;
	if (!r->len)
		r->head = 0;
}
