/*
 * Registers, device state and queue set-up, with a device that pops and pushes whatever comes. See
 * vfuzz.h.
 */
#include <string.h>

#include "tests/lib/vfuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct probe {
	struct virtio_dev dev;
	uint8_t config[24];
	struct vq_chain chain;
};

static void probe_kick(struct virtio_dev *d, unsigned q)
{
	struct probe *p = container_of(d, struct probe, dev);
	int r = 0;

	for (unsigned i = 0; i < VIRTIO_KICK_BUDGET && (r = vq_pop(&d->vq[q], &p->chain)) > 0;
		i++) {
		uint8_t byte = 0;
		size_t n = vq_chain_read(&p->chain, 0, &byte, 1);

		n = vq_chain_write(&p->chain, 0, &byte, n);
		vq_push(&d->vq[q], p->chain.head, (uint32_t)n);
	}
	virtio_notify(d, q);
	if (r < 0)
		virtio_needs_reset(d, "malformed chain");
	else if (vq_pending(&d->vq[q]))
		virtio_kick_later(d, q);
}

static void probe_config_write(struct virtio_dev *d, unsigned off, const void *data, unsigned len)
{
	memcpy(container_of(d, struct probe, dev)->config + off, data, len);
	virtio_config_changed(d);
}

static void probe_destroy(struct virtio_dev *d)
{
	free(container_of(d, struct probe, dev));
}

static const struct virtio_class probe_class = {
	.name = "probe",
	.id = 42,
	.nqueues = 3,
	.queue_size = 64,
	.kick = probe_kick,
	.config_write = probe_config_write,
	.destroy = probe_destroy,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct probe *p = calloc(1, sizeof(*p));

	if (!p)
		abort();
	p->dev.class = &probe_class;
	p->dev.tag = "probe";
	p->dev.loop = vfuzz_loop();
	p->dev.mem = vfuzz_mem();
	p->dev.offered = 0xff;
	p->dev.config = p->config;
	p->dev.config_len = sizeof(p->config) - 3;
	virtio_init(&p->dev);
	vfuzz_run(&p->dev, data, size);
	return 0;
}
