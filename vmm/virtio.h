/*
 * vmm/virtio.h - a virtio device as its driver-independent half sees it
 *
 * What:    devices are one file each: a private struct, callbacks, one const class. They see queues
 *          through vq_pop()/vq_push() (vmm/vq.h) only, and never the transport, rings or guest
 *          addresses. What every transport needs alike (status, features, reset) is here too, so
 *          that a transport is only registers.
 * Trust:   status, features and config writes are the guest's; any value is legal.
 * Threads: all functions and callbacks run under the device lock: reset, start and config on
 *          whichever vCPU thread got there, kick on the loop thread only. loop_*() operations are
 *          the loop thread's, so start and reset submit none (timers, loop_defer() and
 *          virtio_kick_later() are fine).
 * Limits:  a kick handles about VIRTIO_KICK_BUDGET chains, then calls virtio_kick_later() and
 *          returns.
 * Spec:    VIRTIO 1.2, 2.1 to 2.5, 3.1
 */
#pragma once

#include "base/log.h"
#include "base/loop.h"
#include "vmm/gmem.h"
#include "vmm/vq.h"

#define VIRTIO_QUEUES_MAX  8
#define VIRTIO_KICK_BUDGET 64

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
	uint16_t queue_size; /* largest size offered, a power of two <= VQ_SIZE_MAX */
	/*
	 * Queue @q may have new chains. Also called without any: at DRIVER_OK, and on the driver's
	 * whim.
	 */
	void (*kick)(struct virtio_dev *d, unsigned q);
	/* DRIVER_OK was set, d->features is final. NULL: nothing to do. */
	void (*start)(struct virtio_dev *d);
	/*
	 * The driver wrote 0 to status, or the machine ends: forget all chains; the queues are
	 * reset next. Operations in flight may complete later; they must not push. NULL: nothing to
	 * do.
	 */
	void (*reset)(struct virtio_dev *d);
	/* A 1-, 2-, 4- or 8-byte write to config space, in bounds. NULL: config is read-only. */
	void (*config_write)(struct virtio_dev *d, unsigned off, const void *data, unsigned len);
	/*
	 * The device goes, after a reset (loop thread): cancel operations that a reset leaves
	 * waiting, so that busy ends. NULL: nothing to do.
	 */
	void (*stop)(struct virtio_dev *d);
	/* True while an operation is in flight in the loop. NULL: never. */
	bool (*busy)(const struct virtio_dev *d);
	/* Free @d, which virtio_destroy() has reset. */
	void (*destroy)(struct virtio_dev *d);
};

/* What a transport gives. Callable on any thread that holds the device lock. */
struct virtio_transport_ops {
	void (*notify_queue)(struct virtio_dev *d, unsigned q);
	void (*notify_config)(struct virtio_dev *d);
	/*
	 * The device goes: cancel operations in the loop; then, once not busy, free the transport's
	 * half.
	 */
	void (*stop)(struct virtio_dev *d);
	bool (*busy)(const struct virtio_dev *d);
	void (*detach)(struct virtio_dev *d);
};

struct virtio_dev {
	/* Set by the device before virtio_init(). */
	const struct virtio_class *class;
	const char *tag; /* "blk0", for messages; outlives the device */
	struct loop *loop;
	struct gmem *mem;
	uint64_t offered; /* the device's own feature bits */
	void *config; /* read by the driver; changed by the device, then virtio_config_changed() */
	unsigned config_len;

	struct vq vq[VIRTIO_QUEUES_MAX];
	uint64_t features;        /* accepted by the driver; final once FEATURES_OK is set */
	uint32_t features_beyond; /* bits from 64 on that the driver accepted: none is offered */
	uint32_t status;
	uint32_t config_generation;
	const struct virtio_transport_ops *transport; /* NULL: none yet, notifications go nowhere */
	void *transport_ctx;
	struct log_limit log_limit;
	struct loop_task later;
	uint32_t later_queues; /* bit q: kick q on the next turn of the loop */
};

/* ---- for devices ---- */

/**
 * virtio_init() - Make the driver-independent half of a device: queues, common features
 * @d: zeroed but for the fields that the device sets; VERSION_1, EVENT_IDX and INDIRECT_DESC are
 *        added to offered
 */
void virtio_init(struct virtio_dev *d);

static inline bool virtio_has(const struct virtio_dev *d, unsigned feature_bit)
{
	return d->features >> feature_bit & 1;
}

/* True from DRIVER_OK until reset or an error: chains may be popped, used buffers notified. */
static inline bool virtio_running(const struct virtio_dev *d)
{
	return (d->status & (VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_NEEDS_RESET)) ==
	       VIRTIO_STATUS_DRIVER_OK;
}

/*
 * virtio_kick_later() - Call class->kick for @q on the next turn of the loop (work budget, timers).
 * Any thread.
 */
void virtio_kick_later(struct virtio_dev *d, unsigned q);
/*
 * Raise the queue's interrupt if the driver wants one (EVENT_IDX honoured). Call after a batch of
 * vq_push().
 */
void virtio_notify(struct virtio_dev *d, unsigned q);
/* d->config was changed: new generation, and an interrupt once the driver runs. */
void virtio_config_changed(struct virtio_dev *d);
/*
 * The driver broke the rules: DEVICE_NEEDS_RESET, logged with a rate limit, no more pops until
 * reset.
 */
void virtio_needs_reset(struct virtio_dev *d, const char *why);

/* ---- for owners ---- */

/*
 * The end of a device: virtio_stop() resets it and cancels what waits in the loop; the loop runs
 * until virtio_busy() is false; virtio_destroy() frees device and transport (NULL is fine). A
 * process that is about to exit may leave all three out.
 */
void virtio_stop(struct virtio_dev *d);
bool virtio_busy(const struct virtio_dev *d) must_check;
void virtio_destroy(struct virtio_dev *d);

/* ---- for transports ---- */

/**
 * virtio_set_status() - The driver wrote device status
 * @status: 0 resets; else bits are only ever added, in the order of 3.1.1: what comes out of order,
 *          or FEATURES_OK with features that the device can't accept, doesn't stick.
 */
void virtio_set_status(struct virtio_dev *d, uint32_t status);
void virtio_reset(struct virtio_dev *d);
/*
 * virtio_set_features() - The driver wrote feature bits @sel * 32..; ignored once FEATURES_OK is
 * set.
 */
void virtio_set_features(struct virtio_dev *d, uint32_t sel, uint32_t bits);
/*
 * virtio_queue_setup() - The queue if its registers may be written now (FEATURES_OK, not
 * DRIVER_OK), else NULL.
 */
struct vq *virtio_queue_setup(struct virtio_dev *d, uint32_t q) must_check;
/* virtio_queue_enable() - Check and map queue @q; an invalid one stays disabled (logged). */
void virtio_queue_enable(struct virtio_dev *d, uint32_t q);
/* virtio_kick() - The driver notified queue @q (any value). Loop thread. */
void virtio_kick(struct virtio_dev *d, uint32_t q);
/*
 * Any @off and @len <= 8: bytes outside the config space read 0; a write that isn't wholly inside
 * is ignored.
 */
void virtio_config_read(struct virtio_dev *d, uint64_t off, void *data, unsigned len);
void virtio_config_write(struct virtio_dev *d, uint64_t off, const void *data, unsigned len);
