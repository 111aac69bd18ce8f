/*
 * tests/lib/vfuzz.h - fuzzing a virtio device: the input is a driver, good or bad
 *
 * The input is a sequence of operations on registers (through the MMIO transport) and guest memory:
 *
 *   first byte % 8   then                                  does
 *   0  WRITE         2 offset, 4 value                     register write, 32 bits
 *   1  ACCESS        1 len and direction, 2 offset, 8      any width; odd: write, even: read
 *   2  MEMORY        3 gpa, 1 len, len bytes               write guest memory
 *   3  CHAIN         1 queue, 1 count, count * VFUZZ_DESC  write descriptors, publish the first
 *   4  KICK          1 queue                               notify through the register
 *   5  TURN          -                                     let the event loop run
 *   6  SETUP         4 features                            reset, negotiate, rings, DRIVER_OK
 *   7  PUBLISH       1 queue, 2 head, 2 idx                raw available ring entry and index
 *
 * Numbers are little-endian. Rings of queue q have VFUZZ_SIZE entries and lie at VFUZZ_RINGS + q *
 * VFUZZ_STRIDE: descriptors, available ring at + 0x400, used ring at + 0x600. A descriptor in CHAIN
 * is 3 bytes gpa, 2 bytes len, 1 byte flags: NEXT is added to all but the last, unless bit 7 says
 * to take the byte as it is.
 *
 * The seeds of the corpora are such inputs, written by mkseeds-virtio.py in tests/fuzz.
 */
#pragma once

#include "tests/lib/vdriver.h"
#include "vmm/virtio_mmio.h"

enum {
	VFUZZ_WRITE,
	VFUZZ_ACCESS,
	VFUZZ_MEMORY,
	VFUZZ_CHAIN,
	VFUZZ_KICK,
	VFUZZ_TURN,
	VFUZZ_SETUP,
	VFUZZ_PUBLISH
};

#define VFUZZ_RINGS  0x10000
#define VFUZZ_STRIDE 0x1000
#define VFUZZ_AVAIL  0x400
#define VFUZZ_USED   0x600
#define VFUZZ_SIZE   32

/* Loop and guest memory, made at the first call. */
struct loop *vfuzz_loop(void);
struct gmem *vfuzz_mem(void);

/*
 * vfuzz_run() - Drive @dev through the input, then end it: stop, wait, destroy. Aborts if it stays
 * busy, or if the used ring names a head that the queue doesn't have.
 */
void vfuzz_run(struct virtio_dev *dev, const uint8_t *data, size_t size);
