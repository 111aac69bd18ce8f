/*
 * vmm/virtio_mmio.h - virtio over MMIO: registers, one interrupt, one ioeventfd per queue
 *
 * What:    translates register accesses (vCPU threads) into calls of vmm/virtio.h, kicks (loop
 *          thread, from eventfds that KVM signals) into class->kick, and notifications into an
 *          irqfd signal.
 * Trust:   every offset, width and value is the guest's.
 * Threads: the bus calls in without the device lock: InterruptStatus and InterruptACK are atomics;
 *          all other registers take it here.
 * Cost:    a kick is one exit handled in the kernel (ioeventfd); an interrupt costs the guest two
 *          exits to user space, reading InterruptStatus and writing InterruptACK (about 10 us each
 *          under nested emulation). EVENT_IDX keeps their number down. virtio-pci with MSI-X would
 *          avoid both; devices don't know their transport, so it can be added beside this file.
 * Spec:    VIRTIO 1.2, 4.2
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "vmm/bus.h"
#include "vmm/virtio.h"
#include "vmm/vm.h"

#define VIRTIO_MMIO_QUEUE_NOTIFY 0x050 /* 4.2.2: where the ioeventfds listen */

struct virtio_mmio;

struct virtio_mmio_kick {
	struct virtio_mmio *t;
	struct loop_op op;
	unsigned queue;
	int slot; /* of the eventfd in the loop, or -1 */
	uint64_t count;
};

struct virtio_mmio {
	struct virtio_dev *dev; /* NULL: an empty slot, device id 0 */
	pthread_mutex_t *lock;  /* the device lock */
	int irq_fd;             /* eventfd, owned; -1: interrupts only show in InterruptStatus */
	_Atomic uint32_t interrupt;
	uint32_t device_features_sel, driver_features_sel, queue_sel;
	struct virtio_mmio_kick kick[VIRTIO_QUEUES_MAX];
};

extern const struct bus_ops virtio_mmio_bus_ops; /* ctx: struct virtio_mmio */

/**
 * virtio_mmio_init() - Become the transport of @dev
 * @dev: may be NULL
 * @irq_fd: taken over; may be -1
 *
 * virtio_destroy() on the device closes it again (virtio_mmio_finish()).
 */
void virtio_mmio_init(
	struct virtio_mmio *t, struct virtio_dev *dev, pthread_mutex_t *lock, int irq_fd);
void virtio_mmio_finish(struct virtio_mmio *t);

/* virtio_mmio_listen() - Kick queue @q whenever @event_fd, the caller's, is signalled. */
int virtio_mmio_listen(struct virtio_mmio *t, unsigned q, int event_fd) must_check;

/**
 * virtio_mmio_attach() - Put a device into a slot of the machine: bus range, irqfd, ioeventfds
 * @slot: < VM_VIRTIO_SLOTS
 * @dev: NULL makes an empty slot, which a driver ignores (4.2.2: device id 0)
 *
 * On the loop thread, before confinement. The loop must have room for one queued operation per
 * queue. The transport is freed with the device; that of an empty slot lives as long as the
 * process.
 */
int virtio_mmio_attach(
	struct vm *vm, unsigned slot, struct virtio_dev *dev, struct error *e) must_check;
