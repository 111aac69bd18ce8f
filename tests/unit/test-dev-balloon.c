/* The memory balloon: pages really go back to the host, and nothing but RAM can be given. */
#include "tests/lib/test.h"

#include <sys/mman.h>

#include "tests/lib/vdriver.h"
#include "vmm/dev_balloon.h"

enum { INFLATE, DEFLATE, REPORTING };
enum { NUM_PAGES = 0, ACTUAL = 4, HINT = 8, POISON_VAL = 12 };
#define F_OOM       (1 << 2)
#define F_POISON    (1 << 4)
#define F_REPORTING (1 << 5)
#define PAGE        4096

static struct loop *loop;
static struct gmem *mem;

static void setup(struct vdriver *v, uint64_t features)
{
	struct virtio_dev *d;

	REQUIRE(dev_balloon_create(&d, loop, mem, NULL) == 0);
	vdriver_init(v, d);
	REQUIRE(vdriver_start(v, features) == 0);
}

static uint32_t config(struct vdriver *v, unsigned off)
{
	uint32_t r;

	virtio_config_read(v->dev, off, &r, sizeof(r));
	return r;
}

static void config_set(struct vdriver *v, unsigned off, uint32_t value)
{
	virtio_config_write(v->dev, off, &value, sizeof(value));
}

static unsigned resident(struct vdriver *v, uint64_t gpa, unsigned pages)
{
	unsigned char vec[4096];
	unsigned n = 0;

	REQUIRE(pages <= sizeof(vec));
	REQUIRE(mincore(vdriver_ptr(v, gpa, pages * PAGE), (size_t)pages * PAGE, vec) == 0);
	for (unsigned i = 0; i < pages; i++)
		n += vec[i] & 1;
	return n;
}

/* @n pages full of 0xaa. */
static uint64_t dirty(struct vdriver *v, unsigned n)
{
	uint64_t gpa = vdriver_alloc(v, (size_t)n * PAGE, PAGE);

	memset(vdriver_ptr(v, gpa, (size_t)n * PAGE), 0xaa, (size_t)n * PAGE);
	return gpa;
}

static void send_pfns(struct vdriver *v, unsigned q, const uint32_t *pfn, unsigned n)
{
	uint64_t gpa = vdriver_alloc(v, n * sizeof(*pfn), 4);

	memcpy(vdriver_ptr(v, gpa, n * sizeof(*pfn)), pfn, n * sizeof(*pfn));
	vdriver_add(v, q, &(struct vdbuf){ gpa, (uint32_t)(n * sizeof(*pfn)) }, 1, 0);
	vdriver_kick(v, q);
}

/* 5.5.6: the array of page numbers names what goes; up, down and scattered */
static void inflate(void)
{
	struct vdriver v;
	uint32_t pfn[64];
	uint32_t len;

	setup(&v, 0);
	uint64_t gpa = dirty(&v, 64);
	uint32_t first = (uint32_t)(gpa / PAGE);
	for (unsigned i = 0; i < 16; i++)
		pfn[i] = first + i; /* up */
	for (unsigned i = 0; i < 16; i++)
		pfn[16 + i] = first + 31 - i; /* down */
	for (unsigned i = 0; i < 16; i++)
		pfn[32 + i] = first + 32 + 2 * i; /* every other */
	CHECK_EQ(resident(&v, gpa, 64), 64);
	send_pfns(&v, INFLATE, pfn, 48);
	REQUIRE(vdriver_used(&v, INFLATE, NULL, &len));
	CHECK_EQ(len, 0);
	CHECK_EQ(resident(&v, gpa, 32), 0);
	CHECK_EQ(resident(&v, gpa + 32 * PAGE, 32), 16);
	for (unsigned i = 0; i < 64; i++) {
		bool gone = i < 32 || i % 2 == 0;
		const uint8_t *p = vdriver_ptr(&v, gpa + i * PAGE, PAGE);

		CHECK_EQ(p[0], gone ? 0 : 0xaa);
		CHECK_EQ(p[PAGE - 1], gone ? 0 : 0xaa);
	}
	CHECK_EQ(v.q[INFLATE].notified, 1);
	vdriver_finish(&v);
}

/* 5.5.6: deflating is acknowledged; nothing is touched */
static void deflate(void)
{
	struct vdriver v;

	setup(&v, 0);
	uint64_t gpa = dirty(&v, 1);
	uint32_t pfn = (uint32_t)(gpa / PAGE);
	send_pfns(&v, DEFLATE, &pfn, 1);
	REQUIRE(vdriver_used(&v, DEFLATE, NULL, NULL));
	CHECK_EQ(*(uint8_t *)vdriver_ptr(&v, gpa, 1), 0xaa);
	pfn = UINT32_MAX; /* whatever it says */
	send_pfns(&v, DEFLATE, &pfn, 1);
	REQUIRE(vdriver_used(&v, DEFLATE, NULL, NULL));
	CHECK(virtio_running(v.dev));
	vdriver_finish(&v);
}

static void inflate_not_ram(void)
{
	static const uint32_t bad[] = { 32 * MIB / PAGE, GMEM_HOLE / PAGE, 0xfffff, 0x100000,
		UINT32_MAX };

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct vdriver v;

		setup(&v, 0);
		send_pfns(&v, INFLATE, &bad[i], 1);
		CHECK(v.dev->status & VIRTIO_STATUS_NEEDS_RESET);
		CHECK(!vdriver_used(&v, INFLATE, NULL, NULL));
		vdriver_finish(&v);
	}
	/* a run that begins in RAM and ends outside, and one that wraps around 2^32 */
	struct vdriver v;
	setup(&v, 0);
	send_pfns(&v, INFLATE, (uint32_t[]){ 32 * MIB / PAGE - 1, 32 * MIB / PAGE }, 2);
	CHECK(v.dev->status & VIRTIO_STATUS_NEEDS_RESET);
	vdriver_finish(&v);
	setup(&v, 0);
	send_pfns(&v, INFLATE, (uint32_t[]){ UINT32_MAX, 0 }, 2);
	CHECK(v.dev->status & VIRTIO_STATUS_NEEDS_RESET);
	vdriver_finish(&v);
}

static void inflate_odd_length(void)
{
	struct vdriver v;

	setup(&v, 0);
	vdriver_add(&v, INFLATE, &(struct vdbuf){ vdriver_alloc(&v, 8, 4), 7 }, 1, 0);
	vdriver_kick(&v, INFLATE);
	CHECK(v.dev->status & VIRTIO_STATUS_NEEDS_RESET);
	vdriver_finish(&v);
}

/*
 * An array that never ends costs no more than a bounded piece; 5.5.6.2: the device MAY leave pages
 * alone
 */
static void inflate_huge_array(void)
{
	struct vdriver v;

	setup(&v, 0);
	uint64_t array = vdriver_alloc(&v, 4 * MIB, 4); /* zeroes: page 0 a million times */
	vdriver_add(&v, INFLATE, &(struct vdbuf){ array, 4 * MIB }, 1, 0);
	vdriver_kick(&v, INFLATE);
	CHECK(vdriver_used(&v, INFLATE, NULL, NULL));
	vdriver_finish(&v);
}

static void send_report(struct vdriver *v, const struct vdbuf *b, unsigned n)
{
	vdriver_add(v, REPORTING, b, 0, n);
	vdriver_kick(v, REPORTING);
	CHECK(vdriver_used(v, REPORTING, NULL, NULL));
}

/* 5.5.6.7: reported ranges go back; only whole pages of them */
static void report(void)
{
	struct vdriver v;

	setup(&v, F_REPORTING);
	uint64_t gpa = dirty(&v, 16);
	send_report(&v, (struct vdbuf[]){ { gpa, 4 * PAGE }, { gpa + 6 * PAGE, PAGE } }, 2);
	CHECK_EQ(resident(&v, gpa, 16), 16 - 5);
	/* one whole page is in it */
	send_report(&v, &(struct vdbuf){ gpa + 8 * PAGE + 1, 2 * PAGE }, 1);
	CHECK_EQ(resident(&v, gpa + 8 * PAGE, 3), 2);
	CHECK_EQ(*(uint8_t *)vdriver_ptr(&v, gpa + 8 * PAGE + 1, 1), 0xaa);
	CHECK_EQ(*(uint8_t *)vdriver_ptr(&v, gpa + 10 * PAGE, 1), 0xaa);
	send_report(&v, &(struct vdbuf){ gpa + 12 * PAGE + 1, PAGE - 1 }, 1); /* none */
	CHECK_EQ(resident(&v, gpa + 12 * PAGE, 4), 4);
	vdriver_finish(&v);
}

/* Readable buffers name no pages to give back */
static void report_readable(void)
{
	struct vdriver v;

	setup(&v, F_REPORTING);
	uint64_t gpa = dirty(&v, 1);
	vdriver_add(&v, REPORTING, &(struct vdbuf){ gpa, PAGE }, 1, 0);
	vdriver_kick(&v, REPORTING);
	CHECK(vdriver_used(&v, REPORTING, NULL, NULL));
	CHECK_EQ(resident(&v, gpa, 1), 1);
	vdriver_finish(&v);
}

/* RAM above 4 GiB is found again from its host address */
static void report_high_memory(void)
{
	struct gmem *low = mem;
	struct vdriver v;

	REQUIRE(gmem_create(&mem, GMEM_HOLE + 64 * MIB, NULL) == 0);
	setup(&v, F_REPORTING);
	memset(vdriver_ptr(&v, GMEM_HOLE_END + 32 * MIB, 2 * PAGE), 1, 2 * PAGE);
	send_report(&v, &(struct vdbuf){ GMEM_HOLE_END + 32 * MIB, PAGE }, 1);
	CHECK_EQ(*(uint8_t *)vdriver_ptr(&v, GMEM_HOLE_END + 32 * MIB, 1), 0);
	CHECK_EQ(*(uint8_t *)vdriver_ptr(&v, GMEM_HOLE_END + 32 * MIB + PAGE, 1), 1);
	uint32_t pfn = (uint32_t)((GMEM_HOLE_END + 32 * MIB) / PAGE + 1);
	send_pfns(&v, INFLATE, &pfn, 1);
	CHECK(vdriver_used(&v, INFLATE, NULL, NULL));
	CHECK_EQ(*(uint8_t *)vdriver_ptr(&v, GMEM_HOLE_END + 32 * MIB + PAGE, 1), 0);
	vdriver_finish(&v);
	gmem_destroy(mem);
	mem = low;
}

/* 5.5.6.7.2: with a poison value, a reported page MUST NOT change to another value */
static void report_poisoned(void)
{
	struct vdriver v;

	setup(&v, F_REPORTING | F_POISON);
	uint64_t gpa = dirty(&v, 2);
	config_set(&v, POISON_VAL, 0xaaaaaaaa);
	send_report(&v, &(struct vdbuf){ gpa, PAGE }, 1);
	CHECK_EQ(*(uint8_t *)vdriver_ptr(&v, gpa, 1), 0xaa);
	config_set(&v, POISON_VAL, 0); /* init_on_free: zero is what discarding leaves */
	send_report(&v, &(struct vdbuf){ gpa, PAGE }, 1);
	CHECK_EQ(*(uint8_t *)vdriver_ptr(&v, gpa, 1), 0);
	vdriver_finish(&v);
	setup(&v, F_REPORTING); /* without the feature the value means nothing */
	gpa = dirty(&v, 1);
	config_set(&v, POISON_VAL, 0xaaaaaaaa);
	send_report(&v, &(struct vdbuf){ gpa, PAGE }, 1);
	CHECK_EQ(*(uint8_t *)vdriver_ptr(&v, gpa, 1), 0);
	vdriver_finish(&v);
}

/* 5.5.4: num_pages is the device's, actual the driver's */
static void config_space(void)
{
	struct vdriver v;

	setup(&v, F_OOM);
	CHECK_EQ(config(&v, NUM_PAGES), 0);
	uint32_t generation = v.dev->config_generation;
	dev_balloon_set_target(v.dev, 8 * MIB + 4095);
	CHECK_EQ(config(&v, NUM_PAGES), 8 * MIB / PAGE);
	CHECK_EQ(v.config_notified, 1);
	CHECK(v.dev->config_generation != generation);
	dev_balloon_set_target(v.dev, UINT64_MAX);
	CHECK_EQ(config(&v, NUM_PAGES), 32 * MIB / PAGE);
	config_set(&v, ACTUAL, 77);
	CHECK_EQ(config(&v, ACTUAL), 77);
	CHECK_EQ(dev_balloon_actual(v.dev), 77 * PAGE);
	config_set(&v, ACTUAL, UINT32_MAX);
	CHECK(dev_balloon_actual(v.dev) == (uint64_t)UINT32_MAX * PAGE);
	config_set(&v, NUM_PAGES, 1);
	config_set(&v, HINT, 1);
	config_set(&v, ACTUAL + 1, 1);
	CHECK_EQ(config(&v, NUM_PAGES), 32 * MIB / PAGE);
	CHECK_EQ(config(&v, HINT), 0);
	CHECK_EQ(config(&v, ACTUAL), UINT32_MAX);
	REQUIRE(vdriver_start(&v, 0) == 0); /* a new driver: empty balloon, the same wish */
	CHECK_EQ(config(&v, ACTUAL), 0);
	CHECK_EQ(config(&v, NUM_PAGES), 32 * MIB / PAGE);
	vdriver_finish(&v);
}

/* More requests than a turn's budget are served by later turns */
static void budget(void)
{
	struct vdriver v;

	setup(&v, F_REPORTING);
	for (unsigned q = 0; q < 3; q++) {
		uint64_t page = dirty(&v, 1), array = vdriver_alloc(&v, 4, 4);
		uint32_t pfn = (uint32_t)(page / PAGE);
		unsigned n = 0;

		memcpy(vdriver_ptr(&v, array, 4), &pfn, 4);
		for (unsigned i = 0; i < v.q[q].size; i++)
			vdriver_add(&v, q,
				q == REPORTING ? &(struct vdbuf){ page, PAGE }
					       : &(struct vdbuf){ array, 4 },
				q != REPORTING, q == REPORTING);
		vdriver_kick(&v, q);
		while (n < v.q[q].size && vdriver_wait_used(&v, q, NULL, NULL, 1000))
			n++;
		CHECK_EQ(n, v.q[q].size);
	}
	vdriver_finish(&v);
}

static void malformed(void)
{
	struct vdriver v;

	for (unsigned q = 0; q < 3; q++) {
		setup(&v, 0);
		vdriver_publish(&v, q, 0xffff);
		vdriver_kick(&v, q);
		CHECK(v.dev->status & VIRTIO_STATUS_NEEDS_RESET);
		vdriver_finish(&v);
	}
}

int main(void)
{
	struct error e;

	REQUIRE(loop_create(&loop, 64, &e) == 0);
	REQUIRE(loop_start(loop, true, &e) == 0);
	REQUIRE(gmem_create(&mem, 32 * MIB, &e) == 0);
	inflate();
	deflate();
	inflate_not_ram();
	inflate_odd_length();
	inflate_huge_array();
	report();
	report_readable();
	report_high_memory();
	report_poisoned();
	config_space();
	budget();
	malformed();
	gmem_destroy(mem);
	loop_destroy(loop);
	TEST_END();
}
