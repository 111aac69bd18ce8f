/*
 * vmm/dev_vsock.h - virtio socket device: streams between the guest and descriptors that the supervisor hands out
 */
#pragma once

#include "vmm/virtio.h"

#define VSOCK_CONN_MAX 1024        /* connections and accept slots */
#define VSOCK_WINDOW   (256 * KIB) /* what the guest may send ahead on a stream... */
#define VSOCK_WINDOW_SMALL                                                                         \
	(32 * KIB) /* ...and when VSOCK_WINDOWS_LARGE others have that much already */
#define VSOCK_WINDOWS_LARGE 64
#define VSOCK_QUEUE_SIZE    256

/**
 * dev_vsock_create() - A socket device
 * @guest_cid: the guest's address, no reserved one (VIRTIO 1.2, 5.10.4), below 2^32
 *
 * Destroy with virtio_stop(), virtio_destroy(). The process must ignore SIGPIPE.
 */
int dev_vsock_create(struct virtio_dev **ret, struct loop *loop, struct gmem *mem,
	uint64_t guest_cid, struct error *e) must_check;

/**
 * dev_vsock_host_connect() - Connect to a port of the guest
 * @fd: a connected AF_UNIX stream socket, blocking or not, of which nobody else uses this end. On success the
 *      device owns it and closes it when the stream is over, or refused, or not answered for 5 s; on failure
 *      it stays the caller's.
 *
 * What the other end wrote before the guest answered is sent then. Its closing (or shutdown()) closes the stream
 * (or that direction), and the other way round. Loop thread, or before loop_start().
 *
 * Return: 0, -ENFILE: VSOCK_CONN_MAX or the loop's table of files, -ENOMEM, -ESHUTDOWN: after virtio_stop().
 */
int dev_vsock_host_connect(struct virtio_dev *d, uint32_t port, int fd) must_check;

/**
 * dev_vsock_host_accept() - Give the guest's next connection to @port of the host this end
 *
 * One connection per call; several slots for a port are used in order. A connection that finds none gets RST.
 * A slot lives through resets of the guest's driver, and ends when its other end is closed. @fd and errors: as
 * above.
 */
int dev_vsock_host_accept(struct virtio_dev *d, uint32_t port, int fd) must_check;

/* dev_vsock_transport_reset() - After a restore: all connections end, and the guest is told that they did. */
void dev_vsock_transport_reset(struct virtio_dev *d);

struct dev_vsock_stats {
	unsigned streams;    /* connections and slots, with those that are ending */
	size_t buffer_bytes; /* allocated for data, both ways */
};
void dev_vsock_stats(const struct virtio_dev *d, struct dev_vsock_stats *ret);
