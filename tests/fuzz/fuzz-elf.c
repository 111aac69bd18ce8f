/*
 * Kernel images: whatever the file, nothing outside guest RAM is touched, and what is accepted lies
 * where it says.
 */
#include <assert.h>
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/load.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct load_elf_arch arch = { .machine = EM_X86_64, .name = "x86-64", .lowest = MIB };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct gmem *mem;
	struct load_kernel k = { 0 };
	struct error e = { 0 };
	int fd, r;

	if (!mem && gmem_create(&mem, GMEM_MIN, NULL))
		abort();
	fd = memfd_create("kernel", MFD_CLOEXEC);
	if (fd < 0 || (size && write(fd, data, size) != (ssize_t)size))
		abort();
	r = load_elf(mem, fd, &arch, &k, &e);
	close(fd);
	if (r) {
		assert(e.code == -r && e.msg[0]);
	} else {
		assert(k.start >= MIB && k.start < k.end && k.end <= GMEM_MIN);
		assert(k.phys_entry ? k.phys_entry >= k.start && k.phys_entry < k.end
				    : k.entry >= k.start && k.entry < k.end);
	}
	if (gmem_discard(mem, 0, GMEM_MIN))
		abort();
	return 0;
}
