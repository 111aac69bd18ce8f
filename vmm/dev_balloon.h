/*
 * vmm/dev_balloon.h - virtio memory balloon with free page reporting
 */
#pragma once

#include "vmm/virtio.h"

/* dev_balloon_create() - Starts with an empty balloon. Destroy with virtio_destroy(). */
int dev_balloon_create(
	struct virtio_dev **ret, struct loop *loop, struct gmem *mem, struct error *e) must_check;

/**
 * dev_balloon_set_target() - Ask the guest to make its balloon this large
 * @bytes: rounded down to pages; capped to the size of RAM. 0 gives everything back.
 *
 * A wish: the guest follows as it can, and takes memory back rather than run out of it.
 */
void dev_balloon_set_target(struct virtio_dev *d, uint64_t bytes);

/*
 * dev_balloon_actual() - Bytes that the guest says are in the balloon: its claim, any multiple of
 * 4096.
 */
uint64_t dev_balloon_actual(const struct virtio_dev *d);
