/* Token buckets and the entropy device. */
#include "tests/lib/test.h"
#include "tests/lib/vdriver.h"
#include "vmm/dev_rng.h"
#include "vmm/tokens.h"

static struct loop *loop;
static struct gmem *mem;

/* ---- tokens ---- */

#define S NSEC_PER_SEC

static void tokens_unlimited(void)
{
	struct tokens t;

	tokens_init(&t, 0, 1, 0);
	for (unsigned i = 0; i < 100; i++) {
		CHECK_EQ(tokens_wait_ns(&t, 0), 0);
		tokens_take(&t, TOKENS_RATE_MAX);
	}
}

static void tokens_burst_and_rate(void)
{
	struct tokens t;
	uint64_t now = 5 * S, wait;
	unsigned taken = 0;

	tokens_init(&t, 100, 10, now);
	while (!tokens_wait_ns(&t, now)) {
		tokens_take(&t, 1);
		taken++;
	}
	CHECK_EQ(taken, 10);
	wait = tokens_wait_ns(&t, now);
	CHECK_EQ(wait, S / 100);
	CHECK(tokens_wait_ns(&t, now + wait - 1) > 0);
	CHECK_EQ(tokens_wait_ns(&t, now + wait), 0);
	/* ten seconds in odd steps: rate times time, and not one more */
	taken = 0;
	for (uint64_t end = now + 10 * S; now < end; now += 1234567) {
		while (!tokens_wait_ns(&t, now)) {
			tokens_take(&t, 1);
			taken++;
		}
	}
	CHECK(taken >= 999 && taken <= 1000);
	CHECK_EQ(tokens_wait_ns(&t, now + 1000 * S), 0);
	CHECK_EQ(t.level, 10); /* never above the burst */
}

/* One request above the burst passes, and its debt is paid before the next */
static void tokens_debt(void)
{
	struct tokens t;

	tokens_init(&t, 1000, 10, 0);
	CHECK_EQ(tokens_wait_ns(&t, 0), 0);
	tokens_take(&t, 5010);
	CHECK_EQ(tokens_wait_ns(&t, 0), 5 * S + S / 1000);
	CHECK(tokens_wait_ns(&t, 5 * S) > 0);
	CHECK_EQ(tokens_wait_ns(&t, 5 * S + S / 1000), 0);
}

static void tokens_extremes(void)
{
	struct tokens t;

	tokens_init(&t, TOKENS_RATE_MAX, TOKENS_RATE_MAX, 0);
	tokens_take(&t, TOKENS_RATE_MAX);
	CHECK(tokens_wait_ns(&t, 0) <= 1);
	CHECK_EQ(tokens_wait_ns(&t, UINT64_MAX), 0);
	CHECK_EQ(t.level, (long long)TOKENS_RATE_MAX);
	tokens_init(&t, 1, 1, 10 * S);
	tokens_take(&t, 1);
	/* a clock that stands before last_ns adds nothing */
	CHECK_EQ(tokens_wait_ns(&t, 9 * S), 2 * S);
}

/* ---- the device ---- */

static void setup(struct vdriver *v)
{
	struct virtio_dev *d;

	REQUIRE(dev_rng_create(&d, loop, mem, NULL) == 0);
	vdriver_init(v, d);
	REQUIRE(vdriver_start(v, d->offered) == 0);
}

static unsigned nonzero(const uint8_t *p, size_t len)
{
	unsigned n = 0;

	for (size_t i = 0; i < len; i++)
		n += p[i] != 0;
	return n;
}

/*
 * 5.4.6.2: the device MUST place one or more random bytes into the buffer; here: fill what it can
 */
static void fills_buffers(void)
{
	struct vdriver v;
	uint32_t len;
	uint16_t head;

	setup(&v);
	uint64_t buf = vdriver_alloc(&v, 1024, 1);
	uint8_t *p = vdriver_ptr(&v, buf, 1024);
	struct vdbuf b[] = { { buf, 100 }, { buf + 200, 412 } };
	uint16_t want = vdriver_add(&v, 0, b, 0, 2);
	vdriver_kick(&v, 0);
	REQUIRE(vdriver_used(&v, 0, &head, &len));
	CHECK_EQ(head, want);
	CHECK_EQ(len, 512);
	CHECK(nonzero(p, 100) > 80); /* fails by chance once in 10^20 */
	CHECK(nonzero(p + 200, 412) > 360);
	CHECK_EQ(nonzero(p + 100, 100), 0);
	CHECK_EQ(nonzero(p + 612, 412), 0);
	CHECK(memcmp(p, p + 200, 100));
	CHECK_EQ(v.q[0].notified, 1);
	vdriver_finish(&v);
}

/*
 * 5.4.6.1: device-readable buffers are the driver's error; they are not written, and nothing is
 * read
 */
static void readable_buffers(void)
{
	struct vdriver v;
	uint32_t len = 1;

	setup(&v);
	uint64_t buf = vdriver_alloc(&v, 64, 1);
	struct vdbuf b[] = { { buf, 32 }, { buf + 32, 32 } };
	vdriver_add(&v, 0, b, 2, 0);
	vdriver_add(&v, 0, b, 1, 1);
	vdriver_kick(&v, 0);
	REQUIRE(vdriver_used(&v, 0, NULL, &len));
	CHECK_EQ(len, 0);
	REQUIRE(vdriver_used(&v, 0, NULL, &len));
	CHECK_EQ(len, 32);
	CHECK_EQ(nonzero(vdriver_ptr(&v, buf, 32), 32), 0);
	vdriver_finish(&v);
}

/* A huge buffer costs no more than DEV_RNG_REQUEST_MAX */
static void huge_buffer(void)
{
	struct vdriver v;
	uint32_t len;

	setup(&v);
	uint64_t buf = vdriver_alloc(&v, MIB, 1);
	vdriver_add(&v, 0, &(struct vdbuf){ buf, MIB }, 0, 1);
	vdriver_kick(&v, 0);
	REQUIRE(vdriver_used(&v, 0, NULL, &len));
	CHECK_EQ(len, DEV_RNG_REQUEST_MAX);
	CHECK_EQ(nonzero(vdriver_ptr(&v, buf + len, 4096), 4096), 0);
	vdriver_finish(&v);
}

/* A guest that never stops asking waits; it isn't refused */
static void rate_limited(void)
{
	struct vdriver v;
	uint64_t total = 0, start;
	uint32_t len;
	unsigned first = 0;

	setup(&v);
	uint64_t buf = vdriver_alloc(&v, 4096, 1);
	for (unsigned i = 0; i < 32; i++) /* 128 KiB */
		vdriver_add(&v, 0, &(struct vdbuf){ buf, 4096 }, 0, 1);
	start = loop_now_ns();
	vdriver_kick(&v, 0);
	while (vdriver_used(&v, 0, NULL, &len)) {
		total += len;
		first++;
	}
	CHECK(first >= DEV_RNG_BURST / 4096);
	while (total < 32 * 4096 && vdriver_wait_used(&v, 0, NULL, &len, 5000))
		total += len;
	CHECK_EQ(total, 32 * 4096);
	CHECK(loop_now_ns() - start >=
		(128 * KIB - DEV_RNG_BURST - 8192) * NSEC_PER_SEC / DEV_RNG_BYTES_PER_S);
	vdriver_finish(&v);
}

/* More requests than a turn's budget are all served, by later turns */
static void budget(void)
{
	struct vdriver v;
	unsigned n = 0;

	setup(&v);
	uint64_t buf = vdriver_alloc(&v, 64, 1);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < v.q[0].size; i++)
			vdriver_add(&v, 0, &(struct vdbuf){ buf, 1 }, 0, 1);
		vdriver_kick(&v, 0);
		while (vdriver_wait_used(&v, 0, NULL, NULL, 1000) && ++n % v.q[0].size)
			;
	}
	CHECK_EQ(n, 3 * v.q[0].size);
	vdriver_finish(&v);
}

static void malformed_then_reset(void)
{
	struct vdriver v;
	uint32_t len;

	setup(&v);
	vdriver_publish(&v, 0, 0xffff);
	vdriver_kick(&v, 0);
	CHECK(v.dev->status & VIRTIO_STATUS_NEEDS_RESET);
	CHECK_EQ(v.config_notified, 1);
	REQUIRE(vdriver_start(&v, 0) == 0);
	vdriver_add(&v, 0, &(struct vdbuf){ vdriver_alloc(&v, 8, 1), 8 }, 0, 1);
	vdriver_kick(&v, 0);
	REQUIRE(vdriver_used(&v, 0, NULL, &len));
	CHECK_EQ(len, 8);
	vdriver_finish(&v);
}

/* 2.4.1: after a reset nothing is pushed, not even by the timer of a waiting request */
static void reset_while_waiting(void)
{
	struct vdriver v;

	setup(&v);
	uint64_t buf = vdriver_alloc(&v, 4096, 1);
	for (unsigned i = 0; i < 32; i++)
		vdriver_add(&v, 0, &(struct vdbuf){ buf, 4096 }, 0, 1);
	vdriver_kick(&v, 0);
	uint16_t used = v.q[0].used[1];
	virtio_set_status(v.dev, 0);
	vdriver_run(loop, 100);
	CHECK_EQ(v.q[0].used[1], used);
	vdriver_finish(&v);
}

int main(void)
{
	struct error e;

	REQUIRE(loop_create(&loop, 64, &e) == 0);
	REQUIRE(loop_start(loop, true, &e) == 0);
	REQUIRE(gmem_create(&mem, 32 * MIB, &e) == 0);
	tokens_unlimited();
	tokens_burst_and_rate();
	tokens_debt();
	tokens_extremes();
	fills_buffers();
	readable_buffers();
	huge_buffer();
	rate_limited();
	budget();
	malformed_then_reset();
	reset_while_waiting();
	gmem_destroy(mem);
	loop_destroy(loop);
	TEST_END();
}
