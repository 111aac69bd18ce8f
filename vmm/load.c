#include "vmm/load.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

static int read_all(int fd, uint8_t *dst, uint64_t off, uint64_t len)
{
	while (len) {
		ssize_t n = pread(fd, dst, MIN(len, GIB), (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -ENODATA;
		dst += n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

/*
 * Where the data at or after *@off begins and ends, at most @end. False: all the rest up to @end is
 * a hole. A file system that can't tell calls everything data.
 */
static bool next_data(int fd, uint64_t *off, uint64_t end, uint64_t *ret_end)
{
	off_t data = lseek(fd, (off_t)*off, SEEK_DATA), hole;
	struct stat st;

	*ret_end = end;
	if (data < 0 &&
		errno == ENXIO) /* no data after here, or beyond the end of a file cut short */
		return fstat(fd, &st) || (uint64_t)st.st_size < end;
	if (data < (off_t)*off)
		return true;
	if ((uint64_t)data >= end)
		return false;
	*off = (uint64_t)data;
	hole = lseek(fd, data, SEEK_HOLE);
	if (hole > data && (uint64_t)hole < end)
		*ret_end = (uint64_t)hole;
	return true;
}

int load_file(struct gmem *m, uint64_t gpa, int fd, uint64_t off, uint64_t len)
{
	uint8_t *dst = gmem_map(m, gpa, len);
	uint64_t end, pos = off, stop;
	int r;

	if (!dst)
		return -EFAULT;
	if (off > INT64_MAX || len > INT64_MAX - off)
		return -EINVAL;
	end = off + len;
	while (pos < end && next_data(fd, &pos, end, &stop)) {
		r = read_all(fd, dst + (pos - off), pos, stop - pos);
		if (r)
			return r;
		pos = stop;
	}
	return 0;
}

/* ---- initial RAM disks ---- */

static int initrd_sizes(const int *fds, unsigned n, uint64_t *sizes, uint64_t room,
	uint64_t *ret_total, struct error *e)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < n; i++) {
		struct stat st;
		uint64_t size;

		if (fstat(fds[i], &st))
			return error_set(e, errno, "initrd %u: %s", i, strerror(errno));
		if (!S_ISREG(st.st_mode))
			return error_set(e, EINVAL, "initrd %u: not a regular file", i);
		sizes[i] = (uint64_t)st.st_size;
		if (sizes[i] > room)
			return error_set(e, E2BIG,
				"initrd %u: %" PRIu64
				" MiB don't fit in memory; give the machine more",
				i, sizes[i] / MIB);
		size = ALIGN_UP(sizes[i], 4);
		if (size > room - total)
			return error_set(e, E2BIG,
				"initrd %u: %" PRIu64
				" MiB don't fit beside the kernel; give the machine more "
				"memory",
				i, sizes[i] / MIB);
		total += size;
	}
	*ret_total = total;
	return 0;
}

#define INITRDS_MAX 16

int load_initrds(struct gmem *m, const int *fds, unsigned n, uint64_t lowest, uint64_t *ret_gpa,
	uint64_t *ret_len, struct error *e)
{
	const struct gmem_region *low;
	uint64_t sizes[INITRDS_MAX], total = 0, gpa, pos, top;
	int r;

	gmem_regions(m, &low);
	top = low->gpa + low->len;
	lowest = ALIGN_UP(lowest, 4096);
	if (n > INITRDS_MAX || lowest > top)
		return error_set(e, EINVAL,
			"initrd: no room beside the kernel; give the machine more memory");
	r = initrd_sizes(fds, n, sizes, top - lowest, &total, e);
	if (r)
		return r;
	gpa = pos = ALIGN_DOWN(top - total, 4096);
	if (gpa < lowest)
		return error_set(e, E2BIG,
			"initrd: %" PRIu64
			" MiB don't fit beside the kernel; give the machine more memory",
			total / MIB);
	for (unsigned i = 0; i < n; i++) {
		r = load_file(m, pos, fds[i], 0, sizes[i]);
		if (r)
			return error_set(e, -r, "initrd %u: %s", i,
				r == -ENODATA ? "cut short while it was read" : strerror(-r));
		pos += ALIGN_UP(sizes[i], 4);
	}
	*ret_gpa = gpa;
	*ret_len = total;
	return 0;
}
