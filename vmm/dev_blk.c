/*
 * vmm/dev_blk.c - virtio block device
 *
 * What:    each chain becomes one request on a struct disk, straight between file and guest memory;
 *          many are in flight and complete in any order. A slot per request is allocated
 *          beforehand, as many as the queue has entries.
 * Trust:   header, sector, lengths and segments are the guest's: copied once, then checked. Data
 *          buffers belong to the guest while the kernel reads or writes them; what it does to them
 *          is its own affair.
 * Threads: loop thread, but reset on a vCPU's; all under the device lock.
 * Limits:  DEV_BLK_QUEUE_SIZE requests, SEGMENTS_MAX ranges per discard, VIRTIO_KICK_BUDGET chains
 *          a turn, and dev_blk_set_limits().
 * Reset:   requests in flight go on and their results are dropped (their generation is old): a read
 *          may still arrive in guest memory after the reset, as from a device that masters the bus.
 *          Guest RAM outlives them, so this harms none but a guest that resets a busy disk. Their
 *          slots come back when they end.
 * Flush:   fdatasync. A guest that doesn't negotiate FLUSH has each write synced before it
 *          completes (5.2.6.2).
 * Spec:    VIRTIO 1.2, 5.2
 */
#include "vmm/dev_blk.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* 5.2.3 */
#define F_SEG_MAX      2
#define F_RO           5
#define F_BLK_SIZE     6
#define F_FLUSH        9
#define F_TOPOLOGY     10
#define F_DISCARD      13
#define F_WRITE_ZEROES 14

/* 5.2.6 */
#define T_IN           0
#define T_OUT          1
#define T_FLUSH        4
#define T_GET_ID       8
#define T_DISCARD      11
#define T_WRITE_ZEROES 13

#define S_OK     0
#define S_IOERR  1
#define S_UNSUPP 2

#define SECTOR       512
#define SEGMENTS_MAX 16
#define ID_BYTES     20
#define FLAG_UNMAP   1 /* of a segment */

#define DISCARD_SECTORS_MAX      (UINT32_C(1) << 22) /* 2 GiB in one request */
#define WRITE_ZEROES_SECTORS_MAX (UINT32_C(1) << 18) /* 128 MiB: it may have to be written */

struct blk_config {
	uint64_t capacity;
	uint32_t size_max, seg_max;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint32_t blk_size;
	uint8_t physical_block_exp, alignment_offset;
	uint16_t min_io_size;
	uint32_t opt_io_size;
	uint8_t writeback, unused0;
	uint16_t num_queues;
	uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
	uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap, unused1[3];
};
_Static_assert(sizeof(struct blk_config) == 60 + 4, "5.2.4, padded to 8");

struct blk_header {
	uint32_t type, reserved;
	uint64_t sector;
};

struct blk_segment {
	uint64_t sector;
	uint32_t num_sectors, flags;
};

struct blk;

struct blk_req {
	struct disk_req disk;
	struct blk *blk;
	uint32_t generation; /* of the device when the request was popped */
	uint32_t type;
	bool sync; /* a flush follows before the request completes */
	uint8_t nseg, seg;
	uint8_t *status; /* last writable byte of the chain */
	size_t in_data;  /* writable bytes before it */
	struct blk_segment segment[SEGMENTS_MAX];
	struct vq_chain chain;
};

struct blk {
	struct virtio_dev dev;
	char tag[32];
	struct disk *disk;
	struct blk_config config;
	uint8_t serial[ID_BYTES];
	uint32_t generation;
	struct tokens ops, bytes;
	struct loop_timer timer; /* the limits allow more */
	struct loop_task notify; /* one interrupt for all that completed in a turn of the loop */
	bool starved; /* chains wait for a slot that a request from before a reset holds */
	unsigned nfree;
	uint16_t free[DEV_BLK_QUEUE_SIZE]; /* a stack: few requests in flight touch few slots */
	struct blk_req req[DEV_BLK_QUEUE_SIZE];
};

static struct blk *to_blk(struct virtio_dev *d)
{
	return container_of(d, struct blk, dev);
}

/* ---- the end of a request ---- */

static void slot_put(struct blk *b, struct blk_req *r)
{
	b->free[b->nfree++] = (uint16_t)(r - b->req);
	if (b->starved) {
		b->starved = false;
		virtio_kick_later(&b->dev, 0);
	}
}

/*
 * @written: data bytes, from the first writable one; the status byte follows right behind only if
 * all were.
 */
static void finish(struct blk_req *r, uint8_t status, size_t written)
{
	struct blk *b = r->blk;

	if (r->generation == b->generation) {
		*(volatile uint8_t *)r->status = status;
		if (written == r->in_data)
			written++;
		vq_push(&b->dev.vq[0], r->chain.head, (uint32_t)MIN(written, UINT32_MAX));
		loop_defer(b->dev.loop, &b->notify);
	}
	slot_put(b, r);
}

static void segment_next(struct blk_req *r);

static void request_done(struct disk_req *dr, int res)
{
	struct blk_req *r = container_of(dr, struct blk_req, disk);
	struct blk *b = r->blk;

	if (res) {
		if (r->generation == b->generation && log_limited(&b->dev.log_limit))
			log_warn("%s: request failed: %s", b->tag, strerror(-res));
		finish(r, S_IOERR, 0);
	} else if (r->seg < r->nseg) {
		segment_next(r);
	} else if (r->sync) {
		r->sync = false;
		disk_flush(b->disk, dr);
	} else {
		finish(r, S_OK, r->type == T_IN ? r->in_data : 0);
	}
}

static void notify_run(struct loop_task *t)
{
	virtio_notify(&container_of(t, struct blk, notify)->dev, 0);
}

/* ---- requests ---- */

static bool range_ok(const struct blk *b, uint64_t sector, uint64_t bytes)
{
	return bytes <= b->disk->size && sector <= (b->disk->size - bytes) / SECTOR;
}

static void request_rw(struct blk_req *r, uint64_t sector)
{
	struct blk *b = r->blk;
	struct vq_chain *c = &r->chain;
	bool write = r->type == T_OUT;
	size_t len = write ? c->out_len - sizeof(struct blk_header) : r->in_data;
	unsigned n;

	if (len % SECTOR || !range_ok(b, sector, len) || (write && b->disk->read_only)) {
		finish(r, S_IOERR, 0);
		return;
	}
	tokens_take(&b->bytes, len);
	if (!len) {
		request_done(&r->disk, 0);
		return;
	}
	if (write) {
		r->sync = !virtio_has(&b->dev, F_FLUSH);
		n = iov_slice(c->iov, vq_out(c), c->nout, sizeof(struct blk_header), len);
		disk_write(b->disk, &r->disk, c->iov, n, sector * SECTOR);
	} else {
		n = iov_slice(c->iov, vq_in(c), c->nin, 0, len);
		disk_read(b->disk, &r->disk, c->iov, n, sector * SECTOR);
	}
}

static void segment_next(struct blk_req *r)
{
	const struct blk_segment *s = &r->segment[r->seg++];
	uint64_t off = s->sector * SECTOR, len = (uint64_t)s->num_sectors * SECTOR;

	if (r->type == T_DISCARD)
		disk_discard(r->blk->disk, &r->disk, off, len);
	else
		disk_write_zeroes(r->blk->disk, &r->disk, off, len, s->flags & FLAG_UNMAP);
}

/*
 * 5.2.6.2: unknown flags, or unmap in a discard, are unsupported; ranges beyond the disk are
 * errors.
 */
static uint8_t segments_check(const struct blk_req *r)
{
	uint32_t max = r->type == T_DISCARD ? DISCARD_SECTORS_MAX : WRITE_ZEROES_SECTORS_MAX;

	for (unsigned i = 0; i < r->nseg; i++) {
		const struct blk_segment *s = &r->segment[i];

		if (s->flags & ~(r->type == T_DISCARD ? 0 : (uint32_t)FLAG_UNMAP))
			return S_UNSUPP;
		if (s->num_sectors > max ||
			!range_ok(r->blk, s->sector, (uint64_t)s->num_sectors * SECTOR))
			return S_IOERR;
	}
	return S_OK;
}

static void request_segments(struct blk_req *r)
{
	struct blk *b = r->blk;
	size_t len = r->chain.out_len - sizeof(struct blk_header);
	unsigned max = r->type == T_DISCARD ? SEGMENTS_MAX : 1;
	uint8_t status;

	if (!virtio_has(&b->dev, r->type == T_DISCARD ? F_DISCARD : F_WRITE_ZEROES)) {
		finish(r, b->disk->read_only ? S_IOERR : S_UNSUPP, 0);
		return;
	}
	if (!len || len % sizeof(struct blk_segment) || len / sizeof(struct blk_segment) > max) {
		finish(r, S_IOERR, 0);
		return;
	}
	r->nseg = (uint8_t)(len / sizeof(struct blk_segment));
	vq_chain_read(&r->chain, sizeof(struct blk_header), r->segment, len);
	for (unsigned i = 0; i < r->nseg; i++) {
		struct blk_segment *s = &r->segment[i];

		s->sector = le64toh(s->sector);
		s->num_sectors = le32toh(s->num_sectors);
		s->flags = le32toh(s->flags);
	}
	status = segments_check(r);
	if (status != S_OK) {
		finish(r, status, 0);
		return;
	}
	r->sync = !virtio_has(&b->dev, F_FLUSH);
	segment_next(r);
}

static void request_id(struct blk_req *r)
{
	finish(r, S_OK, vq_chain_write(&r->chain, 0, r->blk->serial, MIN(r->in_data, ID_BYTES)));
}

/* @r->chain was just popped. False: it has no room for a status byte. */
static bool request_begin(struct blk_req *r)
{
	struct vq_chain *c = &r->chain;
	const struct iovec *last = vq_in(c) + c->nin - 1;
	struct blk_header h;

	if (!c->nin)
		return false;
	r->status = (uint8_t *)last->iov_base + last->iov_len - 1;
	r->in_data = c->in_len - 1;
	r->generation = r->blk->generation;
	r->sync = false;
	r->nseg = r->seg = 0;
	if (vq_chain_read(c, 0, &h, sizeof(h)) != sizeof(h)) {
		finish(r, S_IOERR, 0);
		return true;
	}
	r->type = le32toh(h.type);
	switch (r->type) {
	case T_IN:
	case T_OUT:
		request_rw(r, le64toh(h.sector));
		break;
	case T_FLUSH:
		disk_flush(r->blk->disk, &r->disk);
		break;
	case T_DISCARD:
	case T_WRITE_ZEROES:
		request_segments(r);
		break;
	case T_GET_ID:
		request_id(r);
		break;
	default:
		finish(r, S_UNSUPP, 0);
		break;
	}
	return true;
}

/* ---- the device ---- */

static uint64_t limits_wait_ns(struct blk *b, uint64_t now_ns)
{
	uint64_t ops = tokens_wait_ns(&b->ops, now_ns), bytes = tokens_wait_ns(&b->bytes, now_ns);

	return MAX(ops, bytes);
}

/* True if a request may start now; else something is under way that kicks again. */
static bool may_start(struct blk *b)
{
	bool limited = b->ops.rate || b->bytes.rate;
	uint64_t now = limited ? loop_now_ns() : 0, wait = limited ? limits_wait_ns(b, now) : 0;

	if (!b->nfree) {
		b->starved = true;
		return false;
	}
	if (wait) {
		loop_timer_set(b->dev.loop, &b->timer, now + wait);
		return false;
	}
	return true;
}

static void blk_kick(struct virtio_dev *d, unsigned q)
{
	struct blk *b = to_blk(d);
	unsigned budget = VIRTIO_KICK_BUDGET;

	for (; budget && may_start(b); budget--) {
		struct blk_req *r = &b->req[b->free[b->nfree - 1]];
		int got = vq_pop(&d->vq[q], &r->chain);

		if (!got)
			return;
		if (got < 0) {
			virtio_needs_reset(d, "malformed descriptor chain");
			return;
		}
		b->nfree--;
		r->blk = b;
		r->disk.done = request_done;
		tokens_take(&b->ops, 1);
		if (!request_begin(r)) {
			b->nfree++;
			virtio_needs_reset(d, "block request without a status byte");
			return;
		}
	}
	if (!budget)
		virtio_kick_later(d, q);
}

static void timer_fire(struct loop_timer *t)
{
	virtio_kick(&container_of(t, struct blk, timer)->dev, 0);
}

static void blk_reset(struct virtio_dev *d)
{
	struct blk *b = to_blk(d);

	b->generation++;
	b->starved = false;
	loop_timer_clear(d->loop, &b->timer);
	loop_undefer(d->loop, &b->notify);
}

static bool blk_busy(const struct virtio_dev *d)
{
	return container_of((struct virtio_dev *)(uintptr_t)d, struct blk, dev)->nfree <
	       DEV_BLK_QUEUE_SIZE;
}

static void blk_destroy(struct virtio_dev *d)
{
	struct blk *b = to_blk(d);

	disk_close(b->disk);
	free(b);
}

static const struct virtio_class blk_class = {
	.name = "blk",
	.id = 2,
	.nqueues = 1,
	.queue_size = DEV_BLK_QUEUE_SIZE,
	.kick = blk_kick,
	.reset = blk_reset,
	.busy = blk_busy,
	.destroy = blk_destroy,
};

static void config_fill(struct blk *b)
{
	struct blk_config *c = &b->config;

	c->capacity = htole64(b->disk->size / SECTOR);
	/* header and status take the rest of a chain */
	c->seg_max = htole32(DEV_BLK_QUEUE_SIZE - 2);
	c->blk_size = htole32(SECTOR);
	c->physical_block_exp = 3; /* 4 KiB: the host's page cache and file systems */
	c->min_io_size = htole16(8);
	c->max_discard_sectors = htole32(DISCARD_SECTORS_MAX);
	c->max_discard_seg = htole32(SEGMENTS_MAX);
	c->discard_sector_alignment = htole32(8);
	c->max_write_zeroes_sectors = htole32(WRITE_ZEROES_SECTORS_MAX);
	c->max_write_zeroes_seg = htole32(1);
	c->write_zeroes_may_unmap = 1;
	b->dev.config = c;
	b->dev.config_len = offsetof(struct blk_config, unused1) + sizeof(c->unused1);
	b->dev.offered = 1 << F_SEG_MAX | 1 << F_BLK_SIZE | 1 << F_FLUSH | 1 << F_TOPOLOGY |
			 (b->disk->read_only ? 1 << F_RO : 1 << F_DISCARD | 1 << F_WRITE_ZEROES);
}

int dev_blk_create(struct virtio_dev **ret, struct loop *loop, struct gmem *mem,
	const struct vmm_disk_config *cfg, struct error *e)
{
	/* a megabyte that is only touched as requests come */
	struct blk *b = calloc(1, sizeof(*b));
	int r;

	if (!b)
		return error_set(e, ENOMEM, "disk: out of memory");
	memcpy(b->serial, cfg->serial, sizeof(b->serial));
	snprintf(b->tag, sizeof(b->tag), "disk '%.*s'", ID_BYTES, cfg->serial);
	r = disk_open_raw(&b->disk, loop, cfg->fd, cfg->read_only, e);
	if (r) {
		error_prefix(e, "%s", b->tag);
		free(b);
		return r;
	}
	for (unsigned i = 0; i < DEV_BLK_QUEUE_SIZE; i++)
		b->free[i] = (uint16_t)(DEV_BLK_QUEUE_SIZE - 1 - i);
	b->nfree = DEV_BLK_QUEUE_SIZE;
	b->timer.fire = timer_fire;
	b->notify.run = notify_run;
	b->dev.class = &blk_class;
	b->dev.tag = b->tag;
	b->dev.loop = loop;
	b->dev.mem = mem;
	config_fill(b);
	virtio_init(&b->dev);
	*ret = &b->dev;
	return 0;
}

void dev_blk_set_limits(struct virtio_dev *d, uint64_t ops, uint64_t bytes)
{
	struct blk *b = to_blk(d);
	uint64_t now = loop_now_ns();

	ops = MIN(ops, TOKENS_RATE_MAX);
	bytes = MIN(bytes, TOKENS_RATE_MAX);
	tokens_init(&b->ops, ops, MAX(ops, 1), now);
	tokens_init(&b->bytes, bytes, MAX(bytes, 1), now);
}
