/* vmm/bus: who answers an address, what nobody answers, the device lock. */
#include "vmm/bus.h"

#include "tests/lib/test.h"

struct probe {
	struct bus *bus;
	unsigned reads, writes;
	uint64_t off;
	unsigned len;
	uint8_t data[8];
	bool locked;
};

static void note(struct probe *p, uint64_t off, unsigned len)
{
	int r = pthread_mutex_trylock(bus_lock(p->bus));

	p->off = off;
	p->len = len;
	p->locked = r == EBUSY;
	if (!r)
		pthread_mutex_unlock(bus_lock(p->bus));
}

static void probe_read(void *ctx, uint64_t off, void *data, unsigned len)
{
	struct probe *p = ctx;

	p->reads++;
	note(p, off, len);
	memset(data, 0x42, len);
}

static void probe_write(void *ctx, uint64_t off, const void *data, unsigned len)
{
	struct probe *p = ctx;

	p->writes++;
	note(p, off, len);
	memcpy(p->data, data, len);
}

static const struct bus_ops locked_ops = { .read = probe_read, .write = probe_write };
static const struct bus_ops free_ops = {
	.read = probe_read, .write = probe_write, .lockfree = true
};

static uint64_t get(struct bus *b, enum bus_space s, uint64_t addr, unsigned len)
{
	uint64_t v = 0;

	bus_access(b, s, addr, &v, len, false);
	return v;
}

static void put(struct bus *b, enum bus_space s, uint64_t addr, uint64_t v, unsigned len)
{
	bus_access(b, s, addr, &v, len, true);
}

static void dispatch(void)
{
	struct bus *b = NULL;
	struct probe com = { 0 }, dev = { 0 }, top = { 0 };

	REQUIRE(!bus_create(&b, NULL));
	com.bus = dev.bus = top.bus = b;
	CHECK_EQ(bus_add(b, BUS_MMIO, 0xd0001000, 0x1000, &free_ops, &dev), 0);
	CHECK_EQ(bus_add(b, BUS_PIO, 0x3f8, 8, &locked_ops, &com), 0);
	CHECK_EQ(bus_add(b, BUS_MMIO, UINT64_MAX - 15, 16, &locked_ops, &top), 0);

	CHECK_EQ(get(b, BUS_PIO, 0x3fd, 1), 0x42);
	CHECK(com.reads == 1 && com.off == 5 && com.len == 1 && com.locked);
	put(b, BUS_PIO, 0x3f8, 0x1234, 2);
	CHECK(com.writes == 1 && com.off == 0 && com.len == 2 && com.data[0] == 0x34);

	CHECK_EQ(get(b, BUS_MMIO, 0xd0001ff8, 8), 0x4242424242424242);
	CHECK(dev.reads == 1 && dev.off == 0xff8 && !dev.locked);
	put(b, BUS_MMIO, UINT64_MAX - 3, 7, 4);
	CHECK(top.writes == 1 && top.off == 12 && top.locked);

	/* The other space, and one byte on either side, is somebody else's. */
	CHECK_EQ(get(b, BUS_MMIO, 0x3f8, 1), 0xff);
	CHECK_EQ(get(b, BUS_PIO, 0x3f7, 1), 0xff);
	CHECK_EQ(get(b, BUS_PIO, 0x400, 1), 0xff);
	CHECK_EQ(get(b, BUS_MMIO, 0xd0000fff, 1), 0xff);
	CHECK_EQ(get(b, BUS_MMIO, 0xd0002000, 4), 0xffffffff);
	CHECK_EQ(get(b, BUS_MMIO, 0, 8), UINT64_MAX);
	put(b, BUS_MMIO, 0, 1, 8);

	/* An access that sticks out reaches nobody. */
	CHECK_EQ(get(b, BUS_PIO, 0x3ff, 2), 0xffff);
	CHECK_EQ(get(b, BUS_PIO, 0x3f7, 2), 0xffff);
	CHECK_EQ(get(b, BUS_MMIO, 0xd0001ffc, 8), UINT64_MAX);
	CHECK_EQ(get(b, BUS_MMIO, UINT64_MAX, 8), UINT64_MAX);
	put(b, BUS_PIO, 0x3ff, 0, 4);
	CHECK(com.reads == 1 && com.writes == 1 && dev.reads == 1 && !dev.writes && !top.reads);
	bus_destroy(b);
	bus_destroy(NULL);
}

/* Full table, filled out of order: each range answers for itself. */
static void many(void)
{
	struct bus *b = NULL;
	struct probe p[BUS_RANGES_MAX] = { 0 };

	REQUIRE(!bus_create(&b, NULL));
	for (unsigned i = 0; i < BUS_RANGES_MAX; i++) {
		unsigned k = i * 5 % BUS_RANGES_MAX; /* 5 and 96 have no common factor */

		p[k].bus = b;
		CHECK_EQ(bus_add(b, BUS_MMIO, 0x1000 + k * 16, 16, &free_ops, &p[k]), 0);
	}
	CHECK_EQ(bus_add(b, BUS_MMIO, 0, 16, &free_ops, &p[0]), -ENOSPC);
	for (unsigned k = 0; k < BUS_RANGES_MAX; k++) {
		put(b, BUS_MMIO, 0x1000 + k * 16 + 12, k, 4);
		CHECK(p[k].writes == 1 && p[k].off == 12 && p[k].data[0] == k);
	}
	CHECK_EQ(get(b, BUS_MMIO, 0xfff, 1), 0xff);
	CHECK_EQ(get(b, BUS_MMIO, 0x1000 + BUS_RANGES_MAX * 16, 1), 0xff);
	bus_destroy(b);
}

int main(void)
{
	dispatch();
	many();
	TEST_END();
}
