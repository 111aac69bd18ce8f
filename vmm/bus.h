/*
 * vmm/bus.h - dispatch of port and MMIO exits to the device that owns the address
 *
 * Threads: the table is built before the first vCPU runs and immutable afterwards. Handlers run on vCPU
 *          threads; unless @lockfree, the bus takes the device lock (bus_lock()) around them, the same
 *          mutex that the loop thread holds while it runs callbacks.
 */
#pragma once

#include <pthread.h>

#include "base/error.h"

enum bus_space { BUS_PIO, BUS_MMIO };

struct bus_ops {
	/* @off: from the start of the range. @len 1, 2, 4 or 8; off + len lies in the range. */
	void (*read)(void *ctx, uint64_t off, void *data, unsigned len);
	void (*write)(void *ctx, uint64_t off, const void *data, unsigned len);
	/* The handlers take no lock of the bus: they do their own (atomics). */
	bool lockfree;
};

#define BUS_RANGES_MAX 96

struct bus;

int bus_create(struct bus **ret, struct error *e) must_check;
void bus_destroy(struct bus *b);
pthread_mutex_t *bus_lock(struct bus *b);
/* bus_add() - Claim [base, base + len); overlapping ranges are our own bug (assert). @ops stays borrowed. */
int bus_add(struct bus *b, enum bus_space space, uint64_t base, uint64_t len,
	const struct bus_ops *ops, void *ctx) must_check;
/* bus_access() - Nobody there: reads give all ones, writes vanish. A range is never crossed. */
void bus_access(
	struct bus *b, enum bus_space space, uint64_t addr, void *data, unsigned len, bool write);
