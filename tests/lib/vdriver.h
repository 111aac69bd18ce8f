/*
 * tests/lib/vdriver.h - the driver's side of a virtio device, for tests and fuzzers
 *
 * What:    builds rings and buffers in guest memory and drives a struct virtio_dev through
 *          vmm/virtio.h, with a transport that only counts notifications. No KVM, no MMIO; kicks
 *          call the device at once.
 * Threads: one, which is also the loop's.
 *
 *	struct vdriver v;
 *	vdriver_init(&v, dev);
 *	REQUIRE(vdriver_start(&v, features) == 0);
 *	gpa = vdriver_alloc(&v, 4096, 1);
 *	head = vdriver_add(&v, 0, (struct vdbuf[]){ { gpa, 16 }, { gpa + 16, 512 } }, 1, 1);
 *	vdriver_kick(&v, 0);
 *	vdriver_wait_used(&v, 0, &head, &len, 1000);
 */
#pragma once

#include "base/loop.h"
#include "vmm/gmem.h"
#include "vmm/virtio.h"

/* As in guest memory; tests may write nonsense into them. x86 only: little-endian. */
struct vdesc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};
#define VDESC_NEXT     1
#define VDESC_WRITE    2
#define VDESC_INDIRECT 4

struct vdbuf {
	uint64_t gpa;
	uint32_t len;
};

struct vdqueue {
	uint16_t size;
	uint64_t desc_gpa, avail_gpa, used_gpa;
	volatile struct vdesc *desc;
	volatile uint16_t *avail; /* flags, idx, ring[size], used_event */
	volatile uint16_t *used;  /* flags, idx, {u32 id, u32 len}[size], avail_event */
	uint16_t last_used;
	bool busy[VQ_SIZE_MAX];          /* descriptors of chains not seen used yet */
	uint16_t chain_len[VQ_SIZE_MAX]; /* by head */
	unsigned notified;               /* used-buffer notifications */
};

struct vdriver {
	struct virtio_dev *dev;
	uint64_t next; /* bump allocator over guest memory */
	bool event_idx;
	struct vdqueue q[VIRTIO_QUEUES_MAX];
	unsigned config_notified;
};

/* vdriver_init() - Attach to a fresh device. Guest memory from 1 MiB on is the allocator's. */
void vdriver_init(struct vdriver *v, struct virtio_dev *dev);

/*
 * vdriver_negotiate() - ACKNOWLEDGE, DRIVER, features & offered, FEATURES_OK. 0, or -1 if it
 * doesn't stick.
 */
int vdriver_negotiate(struct vdriver *v, uint64_t features) must_check;
/* vdriver_setup_queue() - Rings of @size entries in fresh guest memory, enabled. 0 or -1. */
int vdriver_setup_queue(struct vdriver *v, unsigned q, uint16_t size) must_check;
/*
 * vdriver_start() - Reset, negotiate (VERSION_1 is added), set up all queues at full size,
 * DRIVER_OK. 0 or -1.
 */
int vdriver_start(struct vdriver *v, uint64_t features) must_check;

/* vdriver_alloc() - Zeroed guest memory; aborts when it is used up. Never freed. */
uint64_t vdriver_alloc(struct vdriver *v, size_t len, size_t align);
/* vdriver_ptr() - Host pointer; aborts if that isn't RAM. */
void *vdriver_ptr(struct vdriver *v, uint64_t gpa, size_t len);

/*
 * vdriver_add() - Make a chain of @nout readable, then @nin writable buffers available; returns its
 * head.
 */
uint16_t vdriver_add(
	struct vdriver *v, unsigned q, const struct vdbuf *bufs, unsigned nout, unsigned nin);
/* vdriver_add_indirect() - The same through an indirect table. */
uint16_t vdriver_add_indirect(
	struct vdriver *v, unsigned q, const struct vdbuf *bufs, unsigned nout, unsigned nin);
/*
 * vdriver_publish() - Put @head into the available ring and move idx, whatever the descriptors say.
 */
void vdriver_publish(struct vdriver *v, unsigned q, uint16_t head);
/*
 * vdriver_kick() - Notify the device, wanted or not. vdriver_wants_kick(): would a driver now
 * (2.7.10)?
 */
void vdriver_kick(struct vdriver *v, unsigned q);
bool vdriver_wants_kick(const struct vdriver *v, unsigned q, uint16_t old_avail_idx);
/* vdriver_used() - Take the next used element. False if there is none. Outputs may be NULL. */
bool vdriver_used(struct vdriver *v, unsigned q, uint16_t *ret_head, uint32_t *ret_len);
/* vdriver_wait_used() - The same, running the loop until there is one or @ms passed. */
bool vdriver_wait_used(
	struct vdriver *v, unsigned q, uint16_t *ret_head, uint32_t *ret_len, unsigned ms);

/* vdriver_run_until() - Run the loop until @done says so (true) or @ms passed (false). */
bool vdriver_run_until(struct loop *l, bool (*done)(void *ctx), void *ctx, unsigned ms);
/* vdriver_run() - Run the loop for @ms. */
void vdriver_run(struct loop *l, unsigned ms);
/* vdriver_finish() - virtio_stop(), run the loop until idle, virtio_destroy(). */
void vdriver_finish(struct vdriver *v);
