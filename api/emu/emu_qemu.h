/*
 * api/emu/emu_qemu.h - the QEMU process of an emulated host
 *
 * What:    its command line, its initramfs (modules, guest-init, a configuration file) in a memfd, its disk, and its
 *          start. It never outlives the thread that started it (PR_SET_PDEATHSIG).
 */
#pragma once

#include <sys/stat.h>

#include "api/emu/emu_proto.h"
#include "base/error.h"

struct emu_qemu {
	pid_t pid;
	int pidfd;
	int console;         /* read end: L1's console and QEMU's own messages; non-blocking */
	int ctl;             /* the ctl port */
	int port[EMU_PORTS]; /* stream sockets, each the other end of a virtio-serial port */
	uint64_t memory;     /* bytes that L1 was given */
};

/**
 * emu_disk_open() - The disk that keeps what L1 writes into the state and cache folders
 *
 * Made at its first use: ext4, sparse, EMU_DISK_BYTES. Its lock (flock) is the daemon's: two L1s never share it.
 * Return: descriptor; -EWOULDBLOCK: another L1 has it; -errno.
 */
int emu_disk_open(const struct emu_config *c, struct error *e) must_check;
/* emu_disk_stat() - Its identity, if it is there. 0 or -errno. */
int emu_disk_stat(const struct emu_config *c, struct stat *ret) must_check;
#define EMU_DISK_BYTES (UINT64_C(64) * GIB)

/* emu_qemu_start() - @disk: borrowed, or -1 (scratch). @tsc_khz: of this machine. */
int emu_qemu_start(struct emu_qemu *ret, const struct emu_config *c, int disk, uint64_t tsc_khz,
	struct error *e) must_check;

/* emu_qemu_end() - SIGKILL if it still runs, reap, close. */
void emu_qemu_end(struct emu_qemu *q);

/* A measurement of the time stamp counter against the clock; the longer between begin and end, the better. */
struct emu_tsc {
	uint64_t tsc, ns;
};
void emu_tsc_begin(struct emu_tsc *t);
/* emu_tsc_end() - kHz; waits until EMU_TSC_MIN_NS have passed since the beginning. */
uint64_t emu_tsc_end(const struct emu_tsc *t);
#define EMU_TSC_MIN_NS (20 * NSEC_PER_MSEC)

/* emu_memory() - Bytes to give to L1: EMU_MEMORY_MAX, or three quarters of what is available here, if that is less. */
int emu_memory(uint64_t *ret, struct error *e) must_check;
#define EMU_MEMORY_MAX (6144 * MIB)
#define EMU_MEMORY_MIN (1024 * MIB)

/* emu_initrd() - Modules, guest-init and configuration in one sealed memfd. fd or -errno. */
int emu_initrd(const struct emu_config *c, struct error *e) must_check;
