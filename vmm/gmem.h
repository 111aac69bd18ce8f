/*
 * vmm/gmem.h - guest RAM
 *
 * What:    one anonymous mapping, split around the hole below 4 GiB. Host and guest address agree modulo
 *          2 MiB, so that KVM can map huge pages. Lazily committed, excluded from core dumps.
 * Trust:   gpa and len come from the guest; any value is legal. Contents change under the reader's feet:
 *          copy, then check.
 * Threads: immutable after creation.
 */
#pragma once

#include "base/error.h"

#define GMEM_MIN      (32 * MIB)
#define GMEM_MAX      (64 * GIB)
#define GMEM_HOLE     UINT64_C(0xc0000000) /* devices, IO-APIC, LAPIC live from here to 4 GiB */
#define GMEM_HOLE_END (4 * GIB)

struct gmem;

struct gmem_region {
	uint64_t gpa, len;
	void *hva;
};

/* gmem_create() - @size bytes, a multiple of 1 MiB in GMEM_MIN..GMEM_MAX. */
int gmem_create(struct gmem **ret, uint64_t size, struct error *e) must_check;
void gmem_destroy(struct gmem *m);

/* gmem_regions() - The RAM regions in ascending order; returns their number (1 or 2). */
unsigned gmem_regions(const struct gmem *m, const struct gmem_region **ret);
uint64_t gmem_size(const struct gmem *m);

/**
 * gmem_map() - Borrow a host pointer to a range of guest RAM
 * @gpa: guest-physical address, bytes; any value is legal
 * @len: bytes; the whole range must lie in one RAM region; 0 is legal if @gpa is RAM
 *
 * Return: pointer valid until gmem_destroy(), or NULL if any byte is not RAM.
 */
void *gmem_map(const struct gmem *m, uint64_t gpa, size_t len) must_check;

/* gmem_discard() - Give pages back to the host (balloon, free page reporting). 4 KiB-aligned, else -EINVAL. */
int gmem_discard(struct gmem *m, uint64_t gpa, uint64_t len) must_check;
