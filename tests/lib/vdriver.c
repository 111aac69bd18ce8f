#include "tests/lib/vdriver.h"

#include <stdio.h>
#include <string.h>

#define VDRIVER_BASE MIB

static void die(const char *why)
{
	fprintf(stderr, "vdriver: %s\n", why);
	abort();
}

static void count_queue(struct virtio_dev *d, unsigned q)
{
	struct vdriver *v = d->transport_ctx;

	v->q[q].notified++;
}

static void count_config(struct virtio_dev *d)
{
	struct vdriver *v = d->transport_ctx;

	v->config_notified++;
}

static void transport_stop(struct virtio_dev *d)
{
	(void)d;
}

static bool transport_busy(const struct virtio_dev *d)
{
	(void)d;
	return false;
}

static const struct virtio_transport_ops counting_transport = {
	.notify_queue = count_queue,
	.notify_config = count_config,
	.stop = transport_stop,
	.busy = transport_busy,
	.detach = transport_stop,
};

void vdriver_init(struct vdriver *v, struct virtio_dev *dev)
{
	memset(v, 0, sizeof(*v));
	v->dev = dev;
	v->next = VDRIVER_BASE;
	dev->transport = &counting_transport;
	dev->transport_ctx = v;
}

void *vdriver_ptr(struct vdriver *v, uint64_t gpa, size_t len)
{
	void *p = gmem_map(v->dev->mem, gpa, len);

	if (!p)
		die("not guest RAM");
	return p;
}

uint64_t vdriver_alloc(struct vdriver *v, size_t len, size_t align)
{
	uint64_t gpa = ALIGN_UP(v->next, (uint64_t)align);

	memset(vdriver_ptr(v, gpa, len), 0, len);
	v->next = gpa + len;
	return gpa;
}

int vdriver_negotiate(struct vdriver *v, uint64_t features)
{
	struct virtio_dev *d = v->dev;
	uint32_t status = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER;

	virtio_set_status(d, VIRTIO_STATUS_ACKNOWLEDGE);
	virtio_set_status(d, status);
	virtio_set_features(d, 0, (uint32_t)features);
	virtio_set_features(d, 1, (uint32_t)(features >> 32));
	virtio_set_status(d, status | VIRTIO_STATUS_FEATURES_OK);
	v->event_idx = features >> VIRTIO_F_EVENT_IDX & 1;
	return d->status & VIRTIO_STATUS_FEATURES_OK ? 0 : -1;
}

int vdriver_setup_queue(struct vdriver *v, unsigned q, uint16_t size)
{
	struct vdqueue *vdq = &v->q[q];
	struct vq *vq = virtio_queue_setup(v->dev, q);

	if (!vq)
		return -1;
	memset(vdq, 0, sizeof(*vdq));
	vdq->size = size;
	vdq->desc_gpa = vdriver_alloc(v, 16 * (size_t)size, 16);
	vdq->avail_gpa = vdriver_alloc(v, 6 + 2 * (size_t)size, 2);
	vdq->used_gpa = vdriver_alloc(v, 6 + 8 * (size_t)size, 4);
	vdq->desc = vdriver_ptr(v, vdq->desc_gpa, 16 * (size_t)size);
	vdq->avail = vdriver_ptr(v, vdq->avail_gpa, 6 + 2 * (size_t)size);
	vdq->used = vdriver_ptr(v, vdq->used_gpa, 6 + 8 * (size_t)size);
	vq->size = size;
	vq->desc_gpa = vdq->desc_gpa;
	vq->avail_gpa = vdq->avail_gpa;
	vq->used_gpa = vdq->used_gpa;
	virtio_queue_enable(v->dev, q);
	return vq->ready ? 0 : -1;
}

int vdriver_start(struct vdriver *v, uint64_t features)
{
	struct virtio_dev *d = v->dev;

	virtio_set_status(d, 0);
	if (vdriver_negotiate(v, features | UINT64_C(1) << VIRTIO_F_VERSION_1))
		return -1;
	for (unsigned q = 0; q < d->class->nqueues; q++) {
		if (vdriver_setup_queue(v, q, d->vq[q].size_max))
			return -1;
	}
	virtio_set_status(d, d->status | VIRTIO_STATUS_DRIVER_OK);
	return virtio_running(d) ? 0 : -1;
}

/* ---- chains ---- */

static uint16_t desc_alloc(struct vdqueue *q)
{
	for (uint16_t i = 0; i < q->size; i++) {
		if (!q->busy[i]) {
			q->busy[i] = true;
			return i;
		}
	}
	die("no free descriptor");
	return 0;
}

static void desc_set(
	volatile struct vdesc *d, const struct vdbuf *b, bool write, bool last, uint16_t next)
{
	d->addr = b->gpa;
	d->len = b->len;
	d->flags = (uint16_t)((write ? VDESC_WRITE : 0) | (last ? 0 : VDESC_NEXT));
	d->next = last ? 0 : next;
}

void vdriver_publish(struct vdriver *v, unsigned qi, uint16_t head)
{
	struct vdqueue *q = &v->q[qi];
	uint16_t idx = q->avail[1];

	q->avail[2 + idx % q->size] = head;
	__atomic_store_n(&q->avail[1], (uint16_t)(idx + 1), __ATOMIC_RELEASE);
}

uint16_t vdriver_add(
	struct vdriver *v, unsigned qi, const struct vdbuf *bufs, unsigned nout, unsigned nin)
{
	struct vdqueue *q = &v->q[qi];
	unsigned n = nout + nin;
	uint16_t head = desc_alloc(q), i = head, next = 0;

	for (unsigned k = 0; k < n; k++) {
		if (k + 1 < n)
			next = desc_alloc(q);
		desc_set(&q->desc[i], &bufs[k], k >= nout, k + 1 == n, next);
		i = next;
	}
	q->chain_len[head] = (uint16_t)n;
	vdriver_publish(v, qi, head);
	return head;
}

uint16_t vdriver_add_indirect(
	struct vdriver *v, unsigned qi, const struct vdbuf *bufs, unsigned nout, unsigned nin)
{
	struct vdqueue *q = &v->q[qi];
	unsigned n = nout + nin;
	uint64_t gpa = vdriver_alloc(v, 16 * (size_t)n, 16);
	struct vdesc *table = vdriver_ptr(v, gpa, 16 * (size_t)n);
	uint16_t head = desc_alloc(q);

	for (unsigned k = 0; k < n; k++)
		desc_set(&table[k], &bufs[k], k >= nout, k + 1 == n, (uint16_t)(k + 1));
	q->desc[head].addr = gpa;
	q->desc[head].len = 16 * n;
	q->desc[head].flags = VDESC_INDIRECT;
	q->chain_len[head] = 1;
	vdriver_publish(v, qi, head);
	return head;
}

static void chain_free(struct vdqueue *q, uint16_t head)
{
	uint16_t i = head;

	for (unsigned k = 0; k < q->chain_len[head] && i < q->size; k++) {
		q->busy[i] = false;
		i = q->desc[i].next;
	}
	q->chain_len[head] = 0;
}

bool vdriver_used(struct vdriver *v, unsigned qi, uint16_t *ret_head, uint32_t *ret_len)
{
	struct vdqueue *q = &v->q[qi];
	uint32_t id, len;

	if (__atomic_load_n(&q->used[1], __ATOMIC_ACQUIRE) == q->last_used)
		return false;
	memcpy(&id, (const void *)(uintptr_t)&q->used[2 + 4 * (q->last_used % q->size)], 4);
	memcpy(&len, (const void *)(uintptr_t)&q->used[4 + 4 * (q->last_used % q->size)], 4);
	q->last_used++;
	if (id >= q->size)
		die("the device used a head that doesn't exist");
	chain_free(q, (uint16_t)id);
	if (ret_head)
		*ret_head = (uint16_t)id;
	if (ret_len)
		*ret_len = len;
	return true;
}

void vdriver_kick(struct vdriver *v, unsigned q)
{
	virtio_kick(v->dev, q);
}

bool vdriver_wants_kick(const struct vdriver *v, unsigned qi, uint16_t old)
{
	const struct vdqueue *q = &v->q[qi];
	uint16_t now = q->avail[1], event;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!v->event_idx)
		return !(q->used[0] & 1);
	event = q->used[2 + 4 * q->size];
	return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

/* ---- running the loop ---- */

struct waiter {
	struct loop_timer timer;
	struct loop *loop;
	bool (*done)(void *ctx);
	void *ctx;
	uint64_t deadline_ns;
	bool result;
};

static void waiter_fire(struct loop_timer *t)
{
	struct waiter *w = container_of(t, struct waiter, timer);
	uint64_t now = loop_now_ns();

	w->result = w->done && w->done(w->ctx);
	if (w->result || now >= w->deadline_ns)
		loop_stop(w->loop);
	else
		loop_timer_set(w->loop, t, MIN(w->deadline_ns, now + NSEC_PER_MSEC / 5));
}

bool vdriver_run_until(struct loop *l, bool (*done)(void *ctx), void *ctx, unsigned ms)
{
	uint64_t now = loop_now_ns();
	struct waiter w = {
		.timer.fire = waiter_fire,
		.loop = l,
		.done = done,
		.ctx = ctx,
		.deadline_ns = now + ms * NSEC_PER_MSEC,
	};

	if (done && done(ctx))
		return true;
	loop_timer_set(l, &w.timer, now);
	if (loop_run(l))
		die("the loop broke");
	return w.result;
}

void vdriver_run(struct loop *l, unsigned ms)
{
	vdriver_run_until(l, NULL, NULL, ms);
}

struct used_wait {
	struct vdriver *v;
	unsigned q;
};

static bool used_ready(void *ctx)
{
	const struct used_wait *w = ctx;
	const struct vdqueue *q = &w->v->q[w->q];

	return __atomic_load_n(&q->used[1], __ATOMIC_ACQUIRE) != q->last_used;
}

bool vdriver_wait_used(
	struct vdriver *v, unsigned q, uint16_t *ret_head, uint32_t *ret_len, unsigned ms)
{
	struct used_wait w = { v, q };

	return vdriver_run_until(v->dev->loop, used_ready, &w, ms) &&
	       vdriver_used(v, q, ret_head, ret_len);
}

static bool idle(void *ctx)
{
	return !virtio_busy(ctx);
}

void vdriver_finish(struct vdriver *v)
{
	virtio_stop(v->dev);
	if (!vdriver_run_until(v->dev->loop, idle, v->dev, 10000))
		die("operations are still in flight after 10 s");
	virtio_destroy(v->dev);
}
