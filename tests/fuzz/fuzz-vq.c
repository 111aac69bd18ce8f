/*
 * The split virtqueue alone. Input: 1 byte of flags and size, then guest memory from RINGS on, in
 * which the descriptor table, available ring (at + 0x800) and used ring (at + 0xa00) lie.
 */
#include <stdio.h>
#include <string.h>

#include "tests/lib/vfuzz.h"

#define RINGS 0x10000
#define IMAGE 0x1000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "fuzz-vq: %s\n", what);
	abort();
}

/* What a device relies on. */
static void check_chain(const struct vq *vq, const struct vq_chain *c)
{
	const struct gmem_region *r;
	size_t out = 0, in = 0;

	require(gmem_regions(vq->mem, &r) == 1, "one region");
	require(c->head < vq->size, "head below size");
	require(c->nout + c->nin <= vq->size, "chain not longer than the queue");
	for (unsigned i = 0; i < c->nout + c->nin; i++) {
		uintptr_t p = (uintptr_t)c->iov[i].iov_base, base = (uintptr_t)r->hva;

		require(p >= base && p - base <= r->len && c->iov[i].iov_len <= r->len - (p - base),
			"buffer in RAM");
		require(c->iov[i].iov_len, "no empty buffer");
		*(i < c->nout ? &out : &in) += c->iov[i].iov_len;
	}
	require(out == c->out_len && in == c->in_len, "lengths add up");
	require(out + in <= UINT64_C(1) << 32, "not more than 4 GiB");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gmem *mem = vfuzz_mem();
	uint8_t *image = gmem_map(mem, RINGS, IMAGE);
	uint8_t flags = size ? data[0] : 0;
	struct vq_chain c;
	struct vq vq;
	int r = 0;

	memset(image, 0, IMAGE);
	if (size > 1)
		memcpy(image, data + 1, MIN(size - 1, IMAGE));
	vq_init(&vq, mem, VQ_SIZE_MAX);
	vq.size = (uint16_t)(1u << (flags & 7));
	vq.desc_gpa = RINGS;
	vq.avail_gpa = RINGS + 0x800;
	vq.used_gpa = RINGS + 0xa00;
	require(vq_start(&vq, flags >> 3 & 1, flags >> 4 & 1) == 0, "the rings are right");
	for (unsigned i = 0; i < 2 * VQ_SIZE_MAX && (r = vq_pop(&vq, &c)) > 0; i++) {
		check_chain(&vq, &c);
		if (i % 7 == 6)
			vq_unpop(&vq, &c);
		else if (i % 3) /* some stay in flight */
			vq_push(&vq, c.head, (uint32_t)i);
		(void)!vq_need_notify(&vq);
	}
	require(vq.ninflight <= vq.size, "no more in flight than the queue holds");
	if (r < 0)
		require(vq_pop(&vq, &c) == r && !vq_pending(&vq), "broken stays broken");
	return 0;
}
