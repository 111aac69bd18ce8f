/* A hostile driver against the balloon device. See vfuzz.h. */
#include "tests/lib/vfuzz.h"
#include "vmm/dev_balloon.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct virtio_dev *d;

	if (dev_balloon_create(&d, vfuzz_loop(), vfuzz_mem(), NULL))
		abort();
	vfuzz_run(d, data, size);
	return 0;
}
