/*
 * vmm/vsock_ring.h - bytes on their way from guest to host: a ring of fixed size
 *
 * Its memory stays in place while a write from it is under way. Empty, it begins again at its start, so that
 * a connection with little data touches few pages.
 */
#pragma once

#include <sys/uio.h>

#include "base/util.h"

struct vsock_ring {
	uint8_t *data; /* NULL until the first byte comes */
	uint32_t size, head, len;
};

/* vsock_ring_reserve() - Allocate @size bytes if there is no memory yet. 0 or -ENOMEM. */
int vsock_ring_reserve(struct vsock_ring *r, uint32_t size) must_check;
void vsock_ring_free(struct vsock_ring *r);
/* vsock_ring_put() - Append @len <= size - len bytes of @iov from @off on; @iov has that many. */
void vsock_ring_put(
	struct vsock_ring *r, const struct iovec *iov, unsigned n, size_t off, uint32_t len);
/* vsock_ring_get() - All bytes, without taking them; returns the number of entries (0 to 2). */
unsigned vsock_ring_get(const struct vsock_ring *r, struct iovec ret[2]);
/* vsock_ring_drop() - Take @len <= r->len bytes. */
void vsock_ring_drop(struct vsock_ring *r, uint32_t len);
