/*
 * vmm/dev_rng.h - virtio entropy device, filled from the host's getrandom(2)
 */
#pragma once

#include "vmm/virtio.h"

#define DEV_RNG_REQUEST_MAX 4096 /* bytes given per request; the driver asks again for more */

/* Limits, so that a guest can't keep a host CPU busy making random numbers. */
#define DEV_RNG_BYTES_PER_S (1024 * KIB)
#define DEV_RNG_BURST       (64 * KIB)

/* dev_rng_create() - Destroy with virtio_destroy(). */
int dev_rng_create(
	struct virtio_dev **ret, struct loop *loop, struct gmem *mem, struct error *e) must_check;
