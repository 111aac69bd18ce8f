/* vmm/gmem: regions around the hole, whole-range mapping, discard. */
#include "vmm/gmem.h"

#include <sys/mman.h>

#include "tests/lib/test.h"

#define HUGE (2 * MIB)

static struct gmem *make(uint64_t size)
{
	struct gmem *m = NULL;
	struct error e = { 0 };

	if (gmem_create(&m, size, &e))
		fprintf(stderr, "gmem_create: %s\n", e.msg);
	REQUIRE(m);
	return m;
}

static void sizes(void)
{
	static const uint64_t bad[] = { 0, GMEM_MIN - MIB, GMEM_MIN + 1, GMEM_MIN + 4096,
		GMEM_MAX + MIB, UINT64_MAX, UINT64_MAX - MIB + 1 };
	static const uint64_t good[] = { GMEM_MIN, GMEM_MIN + MIB, GMEM_HOLE - MIB, GMEM_HOLE,
		GMEM_HOLE + MIB, GMEM_MAX };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct gmem *m = NULL;
		struct error e = { 0 };

		CHECK_EQ(gmem_create(&m, bad[i], &e), -EINVAL);
		CHECK(!m && strstr(e.msg, "guest memory"));
	}
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct gmem *m = make(good[i]);
		const struct gmem_region *r;
		unsigned n = gmem_regions(m, &r);
		uint64_t sum = 0;

		CHECK_EQ(n, good[i] > GMEM_HOLE ? 2 : 1);
		for (unsigned k = 0; k < n; k++) {
			CHECK_EQ(r[k].gpa, k ? GMEM_HOLE_END : 0);
			CHECK_EQ(((uintptr_t)r[k].hva - r[k].gpa) % HUGE, 0);
			sum += r[k].len;
		}
		CHECK(r[0].len <= GMEM_HOLE);
		CHECK_EQ(sum, good[i]);
		CHECK_EQ(gmem_size(m), good[i]);
		gmem_destroy(m);
	}
	gmem_destroy(NULL);
}

/* Whatever a guest may ask for: exactly what lies wholly in one region is mapped. */
static void bounds(uint64_t size)
{
	struct gmem *m = make(size);
	const struct gmem_region *r;
	unsigned n = gmem_regions(m, &r);

	for (unsigned k = 0; k < n; k++) {
		uint64_t a = r[k].gpa, len = r[k].len;
		uint8_t *hva = r[k].hva;

		CHECK(gmem_map(m, a, 0) == hva);
		CHECK(gmem_map(m, a, len) == hva);
		CHECK(gmem_map(m, a, len + 1) == NULL);
		CHECK(gmem_map(m, a, SIZE_MAX) == NULL);
		CHECK(gmem_map(m, a + 5, len - 5) == hva + 5);
		CHECK(gmem_map(m, a + 5, len - 4) == NULL);
		CHECK(gmem_map(m, a + 5, SIZE_MAX - 4) == NULL);
		CHECK(gmem_map(m, a + len - 1, 1) == hva + len - 1);
		CHECK(gmem_map(m, a + len - 1, 2) == NULL);
		CHECK(gmem_map(m, a + len, 0) == NULL);
		CHECK(gmem_map(m, a + len, 1) == NULL);
	}
	CHECK(gmem_map(m, GMEM_HOLE_END - 1, 1) == NULL);
	CHECK(gmem_map(m, GMEM_HOLE_END - 1, 2) == NULL);
	CHECK(gmem_map(m, UINT64_MAX, 0) == NULL);
	CHECK(gmem_map(m, UINT64_MAX, 1) == NULL);
	CHECK(gmem_map(m, UINT64_MAX, SIZE_MAX) == NULL);
	CHECK(gmem_map(m, UINT64_MAX - 4095, 8192) == NULL);
	gmem_destroy(m);
}

static void discard(void)
{
	struct gmem *m = make(GMEM_MIN);
	uint8_t *p = gmem_map(m, 8 * MIB, 16384);

	REQUIRE(p);
	memset(p, 0x5a, 16384);
	CHECK_EQ(gmem_discard(m, 8 * MIB + 4096, 8192), 0);
	CHECK(p[0] == 0x5a && p[4095] == 0x5a && p[12288] == 0x5a);
	CHECK(p[4096] == 0 && p[12287] == 0);
	CHECK_EQ(gmem_discard(m, 8 * MIB, 0), 0);
	CHECK(p[0] == 0x5a);

	CHECK_EQ(gmem_discard(m, 8 * MIB + 1, 4096), -EINVAL);
	CHECK_EQ(gmem_discard(m, 8 * MIB, 4095), -EINVAL);
	CHECK_EQ(gmem_discard(m, GMEM_MIN, 4096), -EINVAL);
	CHECK_EQ(gmem_discard(m, GMEM_MIN - 4096, 8192), -EINVAL);
	CHECK_EQ(gmem_discard(m, UINT64_MAX - 4095, 8192), -EINVAL);
	CHECK_EQ(gmem_discard(m, 4096, UINT64_MAX - 4095), -EINVAL);
	CHECK(p[0] == 0x5a);
	gmem_destroy(m);
}

/* RAM costs nothing until it is touched. */
static void lazy(void)
{
	struct gmem *m = make(GMEM_MAX);
	const struct gmem_region *r;
	unsigned char vec[16];

	CHECK_EQ(gmem_regions(m, &r), 2);
	memset(vec, 0, sizeof(vec));
	REQUIRE(!mincore(r[1].hva, sizeof(vec) * 4096, vec));
	for (size_t i = 0; i < sizeof(vec); i++)
		CHECK_EQ(vec[i] & 1, 0);
	gmem_destroy(m);
}

int main(void)
{
	sizes();
	bounds(GMEM_MIN);
	bounds(GMEM_MIN + MIB);
	bounds(GMEM_HOLE + 17 * MIB);
	bounds(GMEM_MAX);
	discard();
	lazy();
	TEST_END();
}
