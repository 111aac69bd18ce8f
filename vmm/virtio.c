#include "vmm/virtio.h"

#include <assert.h>
#include <string.h>

#define BIT(n) (UINT64_C(1) << (n))

static void later_run(struct loop_task *t)
{
	struct virtio_dev *d = container_of(t, struct virtio_dev, later);
	uint32_t queues = d->later_queues;

	d->later_queues = 0;
	for (unsigned q = 0; q < d->class->nqueues; q++) {
		if (queues >> q & 1)
			virtio_kick(d, q);
	}
}

void virtio_init(struct virtio_dev *d)
{
	assert(d->class->nqueues <= VIRTIO_QUEUES_MAX);
	for (unsigned q = 0; q < d->class->nqueues; q++)
		vq_init(&d->vq[q], d->mem, d->class->queue_size);
	d->offered |=
		BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_EVENT_IDX) | BIT(VIRTIO_F_INDIRECT_DESC);
	d->later.run = later_run;
}

void virtio_kick_later(struct virtio_dev *d, unsigned q)
{
	assert(q < d->class->nqueues);
	d->later_queues |= UINT32_C(1) << q;
	loop_defer(d->loop, &d->later);
}

void virtio_kick(struct virtio_dev *d, uint32_t q)
{
	if (q < d->class->nqueues && virtio_running(d) && d->vq[q].ready)
		d->class->kick(d, q);
}

void virtio_notify(struct virtio_dev *d, unsigned q)
{
	assert(q < d->class->nqueues);
	if ((d->status & VIRTIO_STATUS_DRIVER_OK) && vq_need_notify(&d->vq[q]) && d->transport)
		d->transport->notify_queue(d, q);
}

void virtio_config_changed(struct virtio_dev *d)
{
	d->config_generation++;
	if ((d->status & VIRTIO_STATUS_DRIVER_OK) && d->transport)
		d->transport->notify_config(d);
}

void virtio_needs_reset(struct virtio_dev *d, const char *why)
{
	for (unsigned q = 0; q < d->class->nqueues; q++)
		d->vq[q].broken = true;
	if (d->status & VIRTIO_STATUS_NEEDS_RESET)
		return;
	if (log_limited(&d->log_limit))
		log_warn("%s: the guest's driver broke the rules: %s; stopped until a reset",
			d->tag, why);
	d->status |= VIRTIO_STATUS_NEEDS_RESET;
	if ((d->status & VIRTIO_STATUS_DRIVER_OK) && d->transport) /* 2.1.2 */
		d->transport->notify_config(d);
}

bool virtio_busy(const struct virtio_dev *d)
{
	return (d->class->busy && d->class->busy(d)) || (d->transport && d->transport->busy(d));
}

void virtio_stop(struct virtio_dev *d)
{
	virtio_reset(d);
	if (d->class->stop)
		d->class->stop(d);
	if (d->transport)
		d->transport->stop(d);
}

void virtio_destroy(struct virtio_dev *d)
{
	if (!d)
		return;
	virtio_reset(d);
	assert(!virtio_busy(d));
	if (d->transport)
		d->transport->detach(d);
	d->class->destroy(d);
}

void virtio_reset(struct virtio_dev *d)
{
	if (d->class->reset)
		d->class->reset(d);
	for (unsigned q = 0; q < d->class->nqueues; q++)
		vq_reset(&d->vq[q]);
	loop_undefer(d->loop, &d->later);
	d->later_queues = 0;
	d->features = 0;
	d->features_beyond = 0;
	d->status = 0;
}

static bool features_acceptable(const struct virtio_dev *d)
{
	/* 2.2.2, 6.2: nothing that wasn't offered; no device here speaks the legacy protocol */
	return !(d->features & ~d->offered) && !d->features_beyond &&
	       virtio_has(d, VIRTIO_F_VERSION_1);
}

void virtio_set_status(struct virtio_dev *d, uint32_t status)
{
	const uint32_t known = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER;
	bool was_ok = d->status & VIRTIO_STATUS_DRIVER_OK;

	if (!status) {
		virtio_reset(d);
		return;
	}
	d->status |= status & (known | VIRTIO_STATUS_FAILED);
	if (d->status & VIRTIO_STATUS_FAILED)
		return;
	if ((status & VIRTIO_STATUS_FEATURES_OK) && (d->status & known) == known &&
		features_acceptable(d))
		d->status |= VIRTIO_STATUS_FEATURES_OK;
	if ((status & VIRTIO_STATUS_DRIVER_OK) && (d->status & VIRTIO_STATUS_FEATURES_OK))
		d->status |= VIRTIO_STATUS_DRIVER_OK;
	if (was_ok || !virtio_running(d))
		return;
	if (d->class->start)
		d->class->start(d);
	/* Kicks that came too early count now. */
	for (unsigned q = 0; q < d->class->nqueues; q++) {
		if (d->vq[q].ready)
			virtio_kick_later(d, q);
	}
}

void virtio_set_features(struct virtio_dev *d, uint32_t sel, uint32_t bits)
{
	unsigned shift = sel ? 32 : 0;

	if (d->status & (VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_FAILED))
		return;
	if (sel > 1) {
		d->features_beyond |= bits;
		return;
	}
	d->features = (d->features & ~(UINT64_C(0xffffffff) << shift)) | (uint64_t)bits << shift;
}

struct vq *virtio_queue_setup(struct virtio_dev *d, uint32_t q)
{
	if (q >= d->class->nqueues)
		return NULL;
	if ((d->status & (VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK |
				 VIRTIO_STATUS_FAILED | VIRTIO_STATUS_NEEDS_RESET)) !=
		VIRTIO_STATUS_FEATURES_OK)
		return NULL;
	return &d->vq[q];
}

void virtio_queue_enable(struct virtio_dev *d, uint32_t q)
{
	struct vq *vq = virtio_queue_setup(d, q);

	if (!vq || vq->ready)
		return;
	if (vq_start(vq, virtio_has(d, VIRTIO_F_EVENT_IDX), virtio_has(d, VIRTIO_F_INDIRECT_DESC)))
		virtio_needs_reset(d, "queue size, alignment or address is not valid");
}

/* ---- config space ---- */

void virtio_config_read(struct virtio_dev *d, uint64_t off, void *data, unsigned len)
{
	uint64_t n = off < d->config_len ? MIN(len, d->config_len - off) : 0;

	memset(data, 0, len);
	if (n)
		memcpy(data, (const uint8_t *)d->config + off, (size_t)n);
}

void virtio_config_write(struct virtio_dev *d, uint64_t off, const void *data, unsigned len)
{
	if (len > d->config_len || off > d->config_len - len || !d->class->config_write)
		return;
	d->class->config_write(d, (unsigned)off, data, len);
}
