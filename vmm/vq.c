#include "vmm/vq.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

/*
 * VIRTIO 1.2, 2.7.5 to 2.7.8; all little-endian.
 *
 *   descriptor            available ring           used ring
 *   0   8  addr           0       2  flags         0       2  flags
 *   8   4  len            2       2  idx           2       2  idx
 *   12  2  flags          4     2*n  head          4     8*n  {4 head, 4 len}
 *   14  2  next           4+2*n   2  used_event    4+8*n   2  avail_event
 */
#define DESC_SIZE     16
#define DESC_NEXT     1
#define DESC_WRITE    2
#define DESC_INDIRECT 4

#define DESC_ALIGN  16 /* 2.7 */
#define AVAIL_ALIGN 2
#define USED_ALIGN  4

#define AVAIL_NO_INTERRUPT 1
#define USED_NO_NOTIFY     1

#define CHAIN_BYTES_MAX (UINT64_C(1) << 32) /* 2.7.5.2 */

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

static size_t avail_bytes(uint16_t size)
{
	return 6 + 2 * (size_t)size;
}

static size_t used_bytes(uint16_t size)
{
	return 6 + 8 * (size_t)size;
}

/* ---- ring fields: each is loaded or stored once, whole ---- */

static uint16_t avail_flags(const struct vq *vq)
{
	return le16toh(__atomic_load_n(&vq->avail[0], __ATOMIC_RELAXED));
}

/* Acquire: what the driver wrote before it moved idx is visible after this. */
static uint16_t avail_idx(const struct vq *vq)
{
	return le16toh(__atomic_load_n(&vq->avail[1], __ATOMIC_ACQUIRE));
}

static uint16_t avail_head(const struct vq *vq, uint16_t i)
{
	return le16toh(__atomic_load_n(&vq->avail[2 + (i & (vq->size - 1))], __ATOMIC_RELAXED));
}

static uint16_t used_event(const struct vq *vq)
{
	return le16toh(__atomic_load_n(&vq->avail[2 + vq->size], __ATOMIC_RELAXED));
}

static void used_store16(struct vq *vq, size_t off, uint16_t v, int order)
{
	uint16_t *p = (uint16_t *)(void *)(vq->used + off);

	if (order == __ATOMIC_RELEASE)
		__atomic_store_n(p, htole16(v), __ATOMIC_RELEASE);
	else
		__atomic_store_n(p, htole16(v), __ATOMIC_RELAXED);
}

static void used_store32(struct vq *vq, size_t off, uint32_t v)
{
	__atomic_store_n((uint32_t *)(void *)(vq->used + off), htole32(v), __ATOMIC_RELAXED);
}

/* One copy: the barrier keeps the compiler from looking at guest memory a second time. */
static void desc_read(struct desc *ret, const uint8_t *table, unsigned i)
{
	struct desc d;

	memcpy(&d, table + (size_t)i * DESC_SIZE, sizeof(d));
	__asm__ volatile("" ::: "memory");
	ret->addr = le64toh(d.addr);
	ret->len = le32toh(d.len);
	ret->flags = le16toh(d.flags);
	ret->next = le16toh(d.next);
}

_Static_assert(sizeof(struct desc) == DESC_SIZE, "layout of the specification");

/* ---- chains in flight ---- */

static bool inflight_test(const struct vq *vq, uint16_t head)
{
	return vq->inflight[head / 64] >> (head % 64) & 1;
}

static void inflight_flip(struct vq *vq, uint16_t head)
{
	vq->inflight[head / 64] ^= UINT64_C(1) << (head % 64);
}

/* ---- set-up ---- */

void vq_init(struct vq *vq, const struct gmem *mem, uint16_t size_max)
{
	assert(size_max && size_max <= VQ_SIZE_MAX && !(size_max & (size_max - 1)));
	memset(vq, 0, sizeof(*vq));
	vq->mem = mem;
	vq->size_max = size_max;
	vq->size = size_max;
}

void vq_reset(struct vq *vq)
{
	vq_init(vq, vq->mem, vq->size_max);
}

int vq_start(struct vq *vq, bool event_idx, bool indirect)
{
	uint16_t n = vq->size;
	void *desc, *avail, *used;

	assert(!vq->ready);
	if (!n || n > vq->size_max || (n & (n - 1)))
		return -EINVAL;
	if (vq->desc_gpa % DESC_ALIGN || vq->avail_gpa % AVAIL_ALIGN || vq->used_gpa % USED_ALIGN)
		return -EINVAL;
	desc = gmem_map(vq->mem, vq->desc_gpa, (size_t)n * DESC_SIZE);
	avail = gmem_map(vq->mem, vq->avail_gpa, avail_bytes(n));
	used = gmem_map(vq->mem, vq->used_gpa, used_bytes(n));
	if (!desc || !avail || !used)
		return -EINVAL;
	vq->desc = desc;
	vq->avail = avail;
	vq->used = used;
	vq->event_idx = event_idx;
	vq->indirect = indirect;
	vq->ready = true;
	return 0;
}

/* ---- taking chains ---- */

static void kicks_off(struct vq *vq)
{
	if (vq->kicks_off)
		return;
	vq->kicks_off = true;
	/* With EVENT_IDX, an avail_event left behind does it; flags stays 0 (2.7.10.2). */
	if (!vq->event_idx)
		used_store16(vq, 0, USED_NO_NOTIFY, __ATOMIC_RELAXED);
}

/*
 * Ask for a kick at the next chain. The caller looks at idx again: the driver may just have missed
 * this.
 */
static void kicks_on(struct vq *vq)
{
	vq->kicks_off = false;
	if (vq->event_idx)
		used_store16(vq, 4 + 8 * (size_t)vq->size, vq->last_avail, __ATOMIC_RELAXED);
	else
		used_store16(vq, 0, 0, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static uint16_t pending(const struct vq *vq)
{
	return (uint16_t)(avail_idx(vq) - vq->last_avail);
}

bool vq_pending(const struct vq *vq)
{
	return vq->ready && !vq->broken && pending(vq);
}

static int chain_add(const struct vq *vq, struct vq_chain *c, const struct desc *d)
{
	bool in = d->flags & DESC_WRITE;
	void *p;

	if (!in && c->nin)
		return -EPROTO; /* 2.7.4.2 */
	if (d->len > CHAIN_BYTES_MAX - c->out_len - c->in_len)
		return -EPROTO;
	if (!d->len)
		return 0;
	p = gmem_map(vq->mem, d->addr, d->len);
	if (!p)
		return -EPROTO;
	c->iov[c->nout + c->nin] = (struct iovec){ .iov_base = p, .iov_len = d->len };
	if (in) {
		c->nin++;
		c->in_len += d->len;
	} else {
		c->nout++;
		c->out_len += d->len;
	}
	return 0;
}

/* The table that @d refers to; its entry count in @ret_n. */
static const uint8_t *indirect_table(const struct vq *vq, const struct desc *d, unsigned *ret_n)
{
	/* 2.7.5.3.1; a table longer than the queue could only hold a chain longer than the queue */
	if (!vq->indirect || (d->flags & DESC_NEXT) || !d->len || d->len % DESC_SIZE ||
		d->len / DESC_SIZE > vq->size)
		return NULL;
	*ret_n = d->len / DESC_SIZE;
	return gmem_map(vq->mem, d->addr, d->len);
}

static int chain_walk(const struct vq *vq, struct vq_chain *c, uint16_t head)
{
	const uint8_t *table = vq->desc;
	unsigned n = vq->size, i = head;
	bool in_table = false;
	struct desc d;

	c->head = head;
	c->nout = c->nin = 0;
	c->out_len = c->in_len = 0;
	/* A loop in the chain ends here as well: it is longer than the queue. */
	for (unsigned seen = 0; seen < vq->size; seen++) {
		if (i >= n)
			return -EPROTO;
		desc_read(&d, table, i);
		if (!in_table && (d.flags & DESC_INDIRECT)) {
			table = indirect_table(vq, &d, &n);
			if (!table)
				return -EPROTO;
			in_table = true;
			desc_read(&d, table, 0);
		}
		if (d.flags & DESC_INDIRECT)
			return -EPROTO; /* a table within a table */
		if (chain_add(vq, c, &d))
			return -EPROTO;
		if (!(d.flags & DESC_NEXT))
			return 0;
		i = d.next;
	}
	return -EPROTO;
}

int vq_pop(struct vq *vq, struct vq_chain *ret)
{
	uint16_t n, head;

	if (vq->broken)
		return -EPROTO;
	if (!vq->ready)
		return 0;
	n = pending(vq);
	if (!n) {
		kicks_on(vq);
		n = pending(vq);
	}
	if (!n)
		return 0;
	kicks_off(vq);
	head = avail_head(vq, vq->last_avail);
	if (n > vq->size || head >= vq->size || inflight_test(vq, head) ||
		chain_walk(vq, ret, head)) {
		vq->broken = true;
		return -EPROTO;
	}
	inflight_flip(vq, head);
	vq->ninflight++;
	vq->last_avail++;
	return 1;
}

void vq_unpop(struct vq *vq, const struct vq_chain *c)
{
	assert(vq->ready && inflight_test(vq, c->head));
	inflight_flip(vq, c->head);
	vq->ninflight--;
	vq->last_avail--;
}

/* ---- giving them back ---- */

void vq_push(struct vq *vq, uint16_t head, uint32_t written)
{
	size_t entry = 4 + 8 * (size_t)(vq->used_idx & (vq->size - 1));

	assert(vq->ready && head < vq->size && inflight_test(vq, head));
	inflight_flip(vq, head);
	vq->ninflight--;
	used_store32(vq, entry, head);
	used_store32(vq, entry + 4, written);
	vq->used_idx++;
	used_store16(vq, 2, vq->used_idx, __ATOMIC_RELEASE); /* 2.7.8.2: after entry and data */
}

bool vq_need_notify(struct vq *vq)
{
	uint16_t old = vq->notified_used, now = vq->used_idx;

	if (!vq->ready || old == now)
		return false;
	vq->notified_used = now;
	/*
	 * Our idx must be visible before the driver's wish is read, as the driver does it the other
	 * way.
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!vq->event_idx)
		return !(avail_flags(vq) & AVAIL_NO_INTERRUPT);
	/* 2.7.7.2: was the entry with index used_event written since the last look? */
	return (uint16_t)(now - used_event(vq) - 1) < (uint16_t)(now - old);
}

/* ---- iovecs ---- */

typedef void iov_fn(void *iov_bytes, void *flat, size_t len);

static size_t iov_walk(
	const struct iovec *iov, unsigned n, size_t off, void *flat, size_t len, iov_fn *f)
{
	size_t done = 0;

	for (unsigned i = 0; i < n && done < len; i++) {
		size_t l = iov[i].iov_len;

		if (off >= l) {
			off -= l;
			continue;
		}
		l = MIN(l - off, len - done);
		f((uint8_t *)iov[i].iov_base + off, flat ? (uint8_t *)flat + done : NULL, l);
		done += l;
		off = 0;
	}
	return done;
}

static void copy_from_iov(void *iov_bytes, void *flat, size_t len)
{
	memcpy(flat, iov_bytes, len);
}

static void copy_to_iov(void *iov_bytes, void *flat, size_t len)
{
	memcpy(iov_bytes, flat, len);
}

static void zero_iov(void *iov_bytes, void *flat unused_arg, size_t len)
{
	memset(iov_bytes, 0, len);
}

size_t iov_read(const struct iovec *iov, unsigned n, size_t off, void *buf, size_t len)
{
	size_t done = iov_walk(iov, n, off, buf, len, copy_from_iov);

	__asm__ volatile("" ::: "memory"); /* as in desc_read() */
	return done;
}

size_t iov_write(const struct iovec *iov, unsigned n, size_t off, const void *buf, size_t len)
{
	return iov_walk(iov, n, off, (void *)(uintptr_t)buf, len, copy_to_iov);
}

size_t iov_zero(const struct iovec *iov, unsigned n, size_t off, size_t len)
{
	return iov_walk(iov, n, off, NULL, len, zero_iov);
}

unsigned iov_slice(struct iovec *dst, const struct iovec *iov, unsigned n, size_t off, size_t len)
{
	unsigned k = 0;

	for (unsigned i = 0; i < n && len; i++) {
		struct iovec v = iov[i];

		if (off >= v.iov_len) {
			off -= v.iov_len;
			continue;
		}
		v.iov_base = (uint8_t *)v.iov_base + off;
		v.iov_len = MIN(v.iov_len - off, len);
		off = 0;
		len -= v.iov_len;
		dst[k++] = v;
	}
	return k;
}
