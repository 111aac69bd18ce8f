#include "vmm/gmem.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE (2 * MIB) /* x86-64, a page directory entry */
#define PAGE      (4 * KIB)

struct gmem {
	struct gmem_region region[2];
	unsigned nregions;
	uint64_t size;
	void *map; /* the whole reservation, guards included */
	size_t map_len;
};

/*
 * RAM starts on a 2 MiB boundary of the host and both regions start on one of the guest, so that
 * addresses agree modulo 2 MiB in each. What the alignment leaves over, at least a page on either
 * side, stays without access: a guard.
 */
static int ram_map(struct gmem *m, struct error *e)
{
	uintptr_t base;

	m->map_len = m->size + 2 * HUGE_PAGE;
	m->map = mmap(
		NULL, m->map_len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->map == MAP_FAILED) {
		m->map = NULL;
		return error_set(e, errno,
			"guest memory: %" PRIu64
			" MiB of address space refused: %s; use less, or raise ulimit -v",
			m->size / MIB, strerror(errno));
	}
	base = ALIGN_UP((uintptr_t)m->map + PAGE, HUGE_PAGE);
	if (mprotect((void *)base, m->size, PROT_READ | PROT_WRITE))
		return error_set(e, errno, "guest memory: %" PRIu64 " MiB: %s", m->size / MIB,
			strerror(errno));
	/*
	 * Advice: a kernel built without huge pages or core dumps refuses it, and nothing is lost.
	 */
	(void)madvise((void *)base, m->size, MADV_HUGEPAGE);
	(void)madvise((void *)base, m->size, MADV_DONTDUMP);

	m->region[0].hva = (void *)base;
	m->region[0].len = MIN(m->size, GMEM_HOLE);
	m->nregions = 1;
	if (m->size > GMEM_HOLE) {
		m->region[1].gpa = GMEM_HOLE_END;
		m->region[1].hva = (void *)(base + GMEM_HOLE);
		m->region[1].len = m->size - GMEM_HOLE;
		m->nregions = 2;
	}
	return 0;
}

int gmem_create(struct gmem **ret, uint64_t size, struct error *e)
{
	struct gmem *m;
	int r;

	if (size < GMEM_MIN || size > GMEM_MAX || size % MIB)
		return error_set(e, EINVAL,
			"guest memory: %" PRIu64
			" bytes; use a whole number of MiB, 32 MiB to 64 GiB",
			size);
	m = calloc(1, sizeof(*m));
	if (!m)
		return error_set(e, ENOMEM, "guest memory: out of memory");
	m->size = size;
	r = ram_map(m, e);
	if (r) {
		gmem_destroy(m);
		return r;
	}
	*ret = m;
	return 0;
}

void gmem_destroy(struct gmem *m)
{
	if (!m)
		return;
	if (m->map)
		munmap(m->map, m->map_len);
	free(m);
}

unsigned gmem_regions(const struct gmem *m, const struct gmem_region **ret)
{
	*ret = m->region;
	return m->nregions;
}

uint64_t gmem_size(const struct gmem *m)
{
	return m->size;
}

void *gmem_map(const struct gmem *m, uint64_t gpa, size_t len)
{
	for (unsigned i = 0; i < m->nregions; i++) {
		const struct gmem_region *r = &m->region[i];
		uint64_t off = gpa - r->gpa;

		if (gpa < r->gpa || off >= r->len)
			continue;
		return len > r->len - off ? NULL : (uint8_t *)r->hva + off;
	}
	return NULL;
}

int gmem_discard(struct gmem *m, uint64_t gpa, uint64_t len)
{
	void *hva = gmem_map(m, gpa, len);

	if (!hva || gpa % PAGE || len % PAGE)
		return -EINVAL;
	return len && madvise(hva, len, MADV_DONTNEED) ? -errno : 0;
}
