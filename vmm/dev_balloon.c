/*
 * vmm/dev_balloon.c - virtio memory balloon
 *
 * What:    pages that the guest puts into the balloon, or reports as free, are given back to the
 *          host (gmem_discard()); they read as zero when the guest uses them again. Deflating needs
 *          no work.
 * Trust:   page numbers, ranges and `actual` are the guest's claims. A page that isn't RAM breaks
 *          the rules; RAM that isn't really free is the guest's own loss.
 * Threads: kick on the loop thread, config writes on vCPU threads, all under the device lock.
 * Limits:  per inflate request PFNS_MAX pages are discarded (the rest stays: the device MAY
 *          discard), per turn INFLATE_BUDGET or REPORT_BUDGET requests.
 * Queues:  5.5.2 lists statsq, free_page_vq and reporting_vq as 2, 3 and 4. Drivers number those
 *          that exist without gaps, so here, without the first two, reporting is 2.
 * Poison:  a guest that fills free pages with a value other than zero (5.5.6.5) has its reports
 *          acknowledged and its pages kept.
 * Spec:    VIRTIO 1.2, 5.5
 */
#include "vmm/dev_balloon.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#define F_DEFLATE_ON_OOM 2
#define F_PAGE_POISON    4
#define F_REPORTING      5

#define PAGE           4096 /* 5.5.6: whatever the guest's page size */
#define PFNS_MAX       1024
#define INFLATE_BUDGET 8
#define REPORT_BUDGET  16
#define REPORT_BYTES   (256 * MIB) /* nor more than this and one request: freeing pages takes time */

enum { Q_INFLATE, Q_DEFLATE, Q_REPORTING, Q_COUNT };

struct balloon_config {
	uint32_t num_pages; /* device */
	uint32_t actual;    /* driver */
	uint32_t free_page_hint_cmd_id;
	uint32_t poison_val; /* driver */
};

struct balloon {
	struct virtio_dev dev;
	struct balloon_config config;
	struct vq_chain chain;
	uint32_t pfn[PFNS_MAX];
};

static struct balloon *to_balloon(struct virtio_dev *d)
{
	return container_of(d, struct balloon, dev);
}

static int discard(struct balloon *b, uint64_t gpa, uint64_t len)
{
	int r = gmem_discard(b->dev.mem, gpa, len);

	if (r && r != -EINVAL && log_limited(&b->dev.log_limit))
		log_error("%s: giving back memory: %s", b->dev.tag, strerror(-r));
	return r;
}

/* Pages i.. that follow one another up or down, as one range. Returns their number. */
static unsigned pfn_run(const uint32_t *pfn, unsigned n, uint64_t *ret_first)
{
	unsigned up = 1, down = 1;

	while (up < n && (uint64_t)pfn[up] == (uint64_t)pfn[0] + up)
		up++;
	while (down < n && (uint64_t)pfn[down] + down == pfn[0])
		down++;
	*ret_first = up >= down ? pfn[0] : pfn[0] - (down - 1);
	return MAX(up, down);
}

static bool inflate(struct balloon *b)
{
	size_t bytes = vq_chain_read(&b->chain, 0, b->pfn, sizeof(b->pfn));
	unsigned n = (unsigned)(bytes / sizeof(b->pfn[0])), run;
	uint64_t first;

	if (b->chain.out_len % sizeof(b->pfn[0]))
		return false;
	for (unsigned i = 0; i < n; i++)
		b->pfn[i] = le32toh(b->pfn[i]);
	for (unsigned i = 0; i < n; i += run) {
		run = pfn_run(b->pfn + i, n - i, &first);
		if (!gmem_map(b->dev.mem, first * PAGE, (size_t)run * PAGE))
			return false;
		discard(b, first * PAGE, (uint64_t)run * PAGE);
	}
	return true;
}

/* The guest address of host memory that vq_pop() gave out. */
static uint64_t gpa_of(const struct gmem *m, const void *hva)
{
	const struct gmem_region *r;
	unsigned n = gmem_regions(m, &r);

	for (unsigned i = 0; i < n; i++) {
		uintptr_t off = (uintptr_t)hva - (uintptr_t)r[i].hva;

		if (off < r[i].len)
			return r[i].gpa + off;
	}
	assert(false); /* what vq_pop() gave out is RAM */
	return 0;
}

static void report(struct balloon *b)
{
	if (virtio_has(&b->dev, F_PAGE_POISON) && b->config.poison_val)
		return;
	for (unsigned i = 0; i < b->chain.nin; i++) {
		const struct iovec *v = &vq_in(&b->chain)[i];
		uint64_t gpa = gpa_of(b->dev.mem, v->iov_base);
		uint64_t start = ALIGN_UP(gpa, PAGE), end = ALIGN_DOWN(gpa + v->iov_len, PAGE);

		if (start < end)
			discard(b, start, end - start);
	}
}

static void balloon_kick(struct virtio_dev *d, unsigned q)
{
	struct balloon *b = to_balloon(d);
	unsigned budget = q == Q_INFLATE     ? INFLATE_BUDGET
			  : q == Q_REPORTING ? REPORT_BUDGET
					     : VIRTIO_KICK_BUDGET;
	uint64_t reported = 0;
	int got = 0;

	for (; budget && (got = vq_pop(&d->vq[q], &b->chain)) > 0; budget--) {
		if (q == Q_INFLATE && !inflate(b)) {
			virtio_needs_reset(d, "the balloon was given pages that aren't RAM");
			break;
		}
		if (q == Q_REPORTING) {
			report(b);
			reported += b->chain.in_len;
			if (reported >= REPORT_BYTES)
				budget = 1;
		}
		vq_push(&d->vq[q], b->chain.head, 0);
	}
	virtio_notify(d, q);
	if (got < 0)
		virtio_needs_reset(d, "malformed descriptor chain");
	else if (!budget)
		virtio_kick_later(d, q);
}

/* The driver may write `actual` and `poison_val`, each as a whole. */
static void balloon_config_write(struct virtio_dev *d, unsigned off, const void *data, unsigned len)
{
	struct balloon *b = to_balloon(d);

	if (len != sizeof(uint32_t))
		return;
	if (off == offsetof(struct balloon_config, actual))
		memcpy(&b->config.actual, data, len);
	else if (off == offsetof(struct balloon_config, poison_val))
		memcpy(&b->config.poison_val, data, len);
}

static void balloon_reset(struct virtio_dev *d)
{
	struct balloon *b = to_balloon(d);

	b->config.actual = 0; /* a new driver starts with an empty balloon */
	b->config.poison_val = 0;
}

static void balloon_destroy(struct virtio_dev *d)
{
	free(to_balloon(d));
}

void dev_balloon_set_target(struct virtio_dev *d, uint64_t bytes)
{
	struct balloon *b = to_balloon(d);

	b->config.num_pages = htole32((uint32_t)(MIN(bytes, gmem_size(d->mem)) / PAGE));
	virtio_config_changed(d);
}

uint64_t dev_balloon_actual(const struct virtio_dev *d)
{
	const struct balloon *b =
		container_of((struct virtio_dev *)(uintptr_t)d, struct balloon, dev);

	return (uint64_t)le32toh(b->config.actual) * PAGE;
}

static const struct virtio_class balloon_class = {
	.name = "balloon",
	.id = 5,
	.nqueues = Q_COUNT,
	.queue_size = 128,
	.kick = balloon_kick,
	.reset = balloon_reset,
	.config_write = balloon_config_write,
	.destroy = balloon_destroy,
};

int dev_balloon_create(
	struct virtio_dev **ret, struct loop *loop, struct gmem *mem, struct error *e)
{
	struct balloon *b = calloc(1, sizeof(*b));

	if (!b)
		return error_set(e, ENOMEM, "balloon: out of memory");
	b->dev.class = &balloon_class;
	b->dev.tag = "balloon";
	b->dev.loop = loop;
	b->dev.mem = mem;
	b->dev.offered = 1 << F_DEFLATE_ON_OOM | 1 << F_PAGE_POISON | 1 << F_REPORTING;
	b->dev.config = &b->config;
	b->dev.config_len = sizeof(b->config);
	virtio_init(&b->dev);
	*ret = &b->dev;
	return 0;
}
