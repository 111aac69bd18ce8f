/*
 * vmm/dev_blk.h - virtio block device on a disk image
 */
#pragma once

#include "vmm/config.h"
#include "vmm/disk.h"
#include "vmm/tokens.h"
#include "vmm/virtio.h"

#define DEV_BLK_QUEUE_SIZE 256

/**
 * dev_blk_create() - A block device on a raw image
 * @cfg: the descriptor may be closed afterwards; serial is what the guest sees as the disk's id,
 *       and what messages call it
 *
 * Destroy with virtio_destroy().
 */
int dev_blk_create(struct virtio_dev **ret, struct loop *loop, struct gmem *mem,
	const struct vmm_disk_config *cfg, struct error *e) must_check;

/**
 * dev_blk_set_limits() - Limit what the guest may ask of the host's storage
 * @ops: a second, with a burst of one second's worth; 0: no limit (the default)
 * @bytes: the same. Both are capped to TOKENS_RATE_MAX.
 */
void dev_blk_set_limits(struct virtio_dev *d, uint64_t ops, uint64_t bytes);
