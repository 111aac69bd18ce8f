/*
 * vmm/vq.h - the device's side of a split virtqueue
 *
 * What:    vq_pop() turns what the driver made available into host iovecs; vq_push() gives it back.
 *          Every check on rings, descriptors and guest addresses lives in vq_pop(), so devices see
 *          checked memory.
 * Trust:   rings, descriptors and buffers are guest memory that may change at any time. Each
 *          descriptor and ring entry is read once; a device that reads a buffer copies first, then
 *          checks the copy.
 * Threads: all calls on one queue are serialised by the device lock; the guest runs beside them.
 * Limits:  VQ_SIZE_MAX entries; a chain, indirect tables included, has at most as many as the
 *          queue.
 * Kicks:   a pop that returned 1 suppresses the driver's kicks, one that returned 0 has asked for
 *          the next. So whoever stops popping earlier (budget, own buffers full) must pop again
 *          later by itself.
 * Spec:    VIRTIO 1.2, 2.7
 */
#pragma once

#include <sys/uio.h>

#include "base/util.h"
#include "vmm/gmem.h"

#define VQ_SIZE_MAX 256

/*
 * One chain of buffers. iov[0..nout) is what the driver wrote for the device, iov[nout..nout + nin)
 * is what the device may write (2.7.4.2: readable before writable). Zero-length descriptors don't
 * appear.
 */
struct vq_chain {
	uint16_t head; /* names the chain in vq_push() */
	unsigned nout, nin;
	size_t out_len, in_len; /* bytes; together <= 4 GiB (2.7.5.2) */
	struct iovec iov[VQ_SIZE_MAX];
};

static inline const struct iovec *vq_out(const struct vq_chain *c)
{
	return c->iov;
}
static inline const struct iovec *vq_in(const struct vq_chain *c)
{
	return c->iov + c->nout;
}

struct vq {
	/* Set by the transport while the queue isn't ready; any value is legal until vq_start(). */
	uint16_t size_max; /* offered */
	uint16_t size;     /* chosen by the driver */
	uint64_t desc_gpa, avail_gpa, used_gpa;

	/* Run state: this module's own. */
	const struct gmem *mem;
	bool ready;     /* rings are mapped */
	bool broken;    /* the driver broke the rules; nothing is popped until vq_reset() */
	bool event_idx; /* VIRTIO_F_EVENT_IDX negotiated */
	bool indirect;  /* VIRTIO_F_INDIRECT_DESC negotiated */
	bool kicks_off;
	uint16_t last_avail;    /* next entry of the available ring */
	uint16_t used_idx;      /* next entry of the used ring */
	uint16_t notified_used; /* used_idx at the last look at the driver's wish for interrupts */
	uint16_t ninflight;     /* popped, not yet pushed */
	const uint8_t *desc;
	uint16_t *avail;
	uint8_t *used;
	uint64_t inflight[VQ_SIZE_MAX / 64];
};

/* vq_init() - Bind to guest memory, reset; @size_max: a power of two <= VQ_SIZE_MAX. */
void vq_init(struct vq *vq, const struct gmem *mem, uint16_t size_max);

/* vq_reset() - Forget addresses, chains in flight and errors; size is size_max again. */
void vq_reset(struct vq *vq);

/**
 * vq_start() - Check size, addresses and alignment, map the rings
 * @event_idx, @indirect: negotiated features
 *
 * Return: 0, or -EINVAL: size is 0, no power of two or above size_max, an address is misaligned
 * (2.7), or a ring isn't wholly RAM. The queue isn't ready then.
 */
int vq_start(struct vq *vq, bool event_idx, bool indirect) must_check;

/**
 * vq_pop() - Take the next chain that the driver made available
 * @ret: only the used part of iov is written
 *
 * Return: 1 and a chain, to be given back by vq_push(); 0 if there is none (or the queue isn't
 * ready); -EPROTO if the driver broke the rules, then and ever after until vq_reset(). The caller
 * answers that with virtio_needs_reset().
 */
int vq_pop(struct vq *vq, struct vq_chain *ret) must_check;

/* vq_unpop() - Undo the last vq_pop(): @c is available again. No pop or push may lie between. */
void vq_unpop(struct vq *vq, const struct vq_chain *c);

/*
 * vq_pending() - True if the next vq_pop() wouldn't return 0. False on a broken queue, so that
 * nobody spins on it. Doesn't change what kicks are wanted.
 */
bool vq_pending(const struct vq *vq) must_check;

/**
 * vq_push() - Give a chain back as used
 * @head: of a chain that was popped since the last vq_reset() and not pushed yet (assert)
 * @written: bytes written to the chain's writable part from its start
 */
void vq_push(struct vq *vq, uint16_t head, uint32_t written);

/* vq_need_notify() - Does the driver want an interrupt (2.7.7)? Devices call virtio_notify(). */
bool vq_need_notify(struct vq *vq) must_check;

/*
 * Copies between iovecs and flat memory: from byte @off on, at most @len bytes.
 * Return: bytes copied, less than @len if the iovecs end.
 */
size_t iov_read(const struct iovec *iov, unsigned n, size_t off, void *buf, size_t len);
size_t iov_write(const struct iovec *iov, unsigned n, size_t off, const void *buf, size_t len);
size_t iov_zero(const struct iovec *iov, unsigned n, size_t off, size_t len);

/**
 * iov_slice() - Bytes @off..@off + @len of @iov as iovecs of their own
 * @dst: at least @n entries; may be @iov itself
 *
 * Return: number of entries in @dst; they cover less than @len bytes if @iov ends.
 */
unsigned iov_slice(struct iovec *dst, const struct iovec *iov, unsigned n, size_t off, size_t len);

/* The readable, or writable, part of a chain. */
static inline size_t vq_chain_read(const struct vq_chain *c, size_t off, void *buf, size_t len)
{
	return iov_read(vq_out(c), c->nout, off, buf, len);
}
static inline size_t vq_chain_write(struct vq_chain *c, size_t off, const void *buf, size_t len)
{
	return iov_write(vq_in(c), c->nin, off, buf, len);
}
