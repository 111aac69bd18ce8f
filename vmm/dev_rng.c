/*
 * vmm/dev_rng.c - virtio entropy device
 *
 * What:    each request gets up to DEV_RNG_REQUEST_MAX bytes from getrandom(2), which VIRTIO allows
 *          ("MAY use less than the entire buffer"); getrandom is the only system call here.
 * Trust:   the guest chooses how often it asks and how large its buffers are.
 * Threads: loop thread, under the device lock.
 * Limits:  VIRTIO_KICK_BUDGET requests a turn, DEV_RNG_BYTES_PER_S; above that the guest waits.
 * Spec:    VIRTIO 1.2, 5.4
 */
#include "vmm/dev_rng.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "vmm/tokens.h"

#define CHUNK 256 /* getrandom(2): up to here it is neither short nor interrupted */

struct rng {
	struct virtio_dev dev;
	struct tokens tokens;
	struct loop_timer timer;
	struct vq_chain chain;
};

static struct rng *to_rng(struct virtio_dev *d)
{
	return container_of(d, struct rng, dev);
}

static uint32_t rng_fill(struct rng *r)
{
	size_t len = MIN(r->chain.in_len, DEV_RNG_REQUEST_MAX), done = 0;
	uint8_t buf[CHUNK];

	while (done < len) {
		ssize_t n = getrandom(buf, MIN(len - done, sizeof(buf)), 0);

		if (n <= 0) {
			if (n < 0 && errno == EINTR)
				continue;
			if (log_limited(&r->dev.log_limit))
				log_error("%s: getrandom: %s", r->dev.tag, strerror(errno));
			break;
		}
		done += vq_chain_write(&r->chain, done, buf, (size_t)n);
	}
	explicit_bzero(buf, sizeof(buf));
	tokens_take(&r->tokens, done);
	return (uint32_t)done;
}

static void rng_kick(struct virtio_dev *d, unsigned q)
{
	struct rng *r = to_rng(d);
	unsigned budget = VIRTIO_KICK_BUDGET;
	int got = 0;

	for (; budget; budget--) {
		uint64_t now = loop_now_ns(), wait = tokens_wait_ns(&r->tokens, now);

		if (wait) {
			loop_timer_set(d->loop, &r->timer, now + wait);
			break;
		}
		got = vq_pop(&d->vq[q], &r->chain);
		if (got <= 0)
			break;
		vq_push(&d->vq[q], r->chain.head, rng_fill(r));
	}
	virtio_notify(d, q);
	if (got < 0)
		virtio_needs_reset(d, "malformed descriptor chain");
	else if (!budget)
		virtio_kick_later(d, q);
}

static void rng_timer(struct loop_timer *t)
{
	virtio_kick(&container_of(t, struct rng, timer)->dev, 0);
}

static void rng_reset(struct virtio_dev *d)
{
	loop_timer_clear(d->loop, &to_rng(d)->timer);
}

static void rng_destroy(struct virtio_dev *d)
{
	free(to_rng(d));
}

static const struct virtio_class rng_class = {
	.name = "rng",
	.id = 4,
	.nqueues = 1,
	.queue_size = 64,
	.kick = rng_kick,
	.reset = rng_reset,
	.destroy = rng_destroy,
};

int dev_rng_create(struct virtio_dev **ret, struct loop *loop, struct gmem *mem, struct error *e)
{
	struct rng *r = calloc(1, sizeof(*r));

	if (!r)
		return error_set(e, ENOMEM, "rng: out of memory");
	r->dev.class = &rng_class;
	r->dev.tag = "rng";
	r->dev.loop = loop;
	r->dev.mem = mem;
	r->timer.fire = rng_timer;
	tokens_init(&r->tokens, DEV_RNG_BYTES_PER_S, DEV_RNG_BURST, loop_now_ns());
	virtio_init(&r->dev);
	*ret = &r->dev;
	return 0;
}
