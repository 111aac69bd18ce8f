/*
 * A hostile driver against the block device on a small file in memory. First byte: bit 0 read-only,
 * bit 1 limited.
 */
#include <sys/mman.h>

#include "tests/lib/vfuzz.h"
#include "vmm/dev_blk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	struct vmm_disk_config cfg = { .serial = "fuzz" };
	struct virtio_dev *d;

	if (fd < 0)
		fd = memfd_create("disk", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, 256 * KIB))
		abort();
	cfg.fd = fd;
	cfg.read_only = size && data[0] & 1;
	if (dev_blk_create(&d, vfuzz_loop(), vfuzz_mem(), &cfg, NULL))
		abort();
	if (size && data[0] & 2)
		dev_blk_set_limits(d, 10000, 100 * MIB);
	vfuzz_run(d, size ? data + 1 : data, size ? size - 1 : 0);
	return 0;
}
