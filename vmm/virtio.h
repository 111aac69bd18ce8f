/*
 * vmm/virtio.h - a virtio device as its driver-independent half sees it
 *
 * What:    devices are one file each: a private struct, callbacks, one const class. They see queues through
 *          vq_pop()/vq_push() (vmm/vq.h) only, and never the transport, rings or guest addresses.
 * Threads: all callbacks run under the device lock: kick, reset and config on whichever thread got there.
 *          kick comes from the loop thread (ioeventfd) only.
 * Spec:    VIRTIO 1.2
 */
#pragma once

#include "base/log.h"
#include "base/loop.h"
#include "vmm/gmem.h"
#include "vmm/vq.h"

#define VIRTIO_QUEUES_MAX 8

/* Device status, VIRTIO 1.2, 2.1 */
#define VIRTIO_STATUS_ACKNOWLEDGE 1
#define VIRTIO_STATUS_DRIVER      2
#define VIRTIO_STATUS_DRIVER_OK   4
#define VIRTIO_STATUS_FEATURES_OK 8
#define VIRTIO_STATUS_NEEDS_RESET 64
#define VIRTIO_STATUS_FAILED      128

/* Feature bits that belong to no device type, VIRTIO 1.2, 6 */
#define VIRTIO_F_INDIRECT_DESC 28
#define VIRTIO_F_EVENT_IDX     29
#define VIRTIO_F_VERSION_1     32

struct virtio_dev;

struct virtio_class {
	const char *name;
	uint32_t id; /* VIRTIO 1.2, 5 */
	unsigned nqueues;
	uint16_t queue_size; /* largest size offered, a power of two */
	void (*kick)(struct virtio_dev *d, unsigned q);
	/* DRIVER_OK was set, d->features is final. NULL: nothing to do. */
	void (*start)(struct virtio_dev *d);
	/* The driver wrote 0 to status, or the machine ends: forget all chains; busy ops may still complete later. */
	void (*reset)(struct virtio_dev *d);
	/* A 1-, 2-, 4- or 8-byte write to config space, in bounds. NULL: config is read-only. */
	void (*config_write)(struct virtio_dev *d, unsigned off, const void *data, unsigned len);
	void (*destroy)(struct virtio_dev *d);
};

/* What a transport gives: raise the used-buffer or config-change interrupt. Safe on the loop thread. */
struct virtio_transport_ops {
	void (*notify_queue)(struct virtio_dev *d, unsigned q);
	void (*notify_config)(struct virtio_dev *d);
};

struct virtio_dev {
	const struct virtio_class *class;
	const char *tag; /* "blk0", for messages */
	struct loop *loop;
	struct gmem *mem;
	struct vq vq[VIRTIO_QUEUES_MAX];
	uint64_t offered;  /* feature bits; VERSION_1, RING_EVENT_IDX, RING_INDIRECT_DESC are added by virtio_init() */
	uint64_t features; /* negotiated */
	uint32_t status;
	uint32_t config_generation;
	void *config; /* read by the driver; changed by the device, then virtio_config_changed() */
	unsigned config_len;
	const struct virtio_transport_ops *transport;
	void *transport_ctx;
	struct log_limit log_limit;
};

/**
 * virtio_init() - Make the driver-independent half of a device: queues, common features
 * @d: zeroed; class, tag, loop, mem, offered, config and config_len are set
 */
void virtio_init(struct virtio_dev *d);
/* virtio_destroy() - Reset, then class->destroy(). NULL is fine. Operations in flight must have completed. */
void virtio_destroy(struct virtio_dev *d);

static inline bool virtio_has(const struct virtio_dev *d, unsigned feature_bit)
{
	return d->features >> feature_bit & 1;
}

/* Raise the queue's interrupt if the driver wants one (EVENT_IDX honoured). Call after a batch of vq_push(). */
void virtio_notify(struct virtio_dev *d, unsigned q);
void virtio_config_changed(struct virtio_dev *d);
/* The driver broke the rules: DEVICE_NEEDS_RESET, logged with a rate limit, no more pops until reset. */
void virtio_needs_reset(struct virtio_dev *d, const char *why);
