/*
 * api/emu/accel.h - where virtual machines run: KVM here, or KVM inside the emulated host
 *
 * What:    reads --accel, and decides for `auto`: KVM is used where a tiny guest shows that it can run a stock
 *          kernel at a bearable speed. The measurement is kept for the rest of this boot in the runtime folder.
 * Errors:  a /dev/kvm that exists but may not be opened is an error that names its fix; it never leads into
 *          emulation, which is some thirty times slower.
 */
#pragma once

#include "base/error.h"

enum accel { ACCEL_AUTO, ACCEL_KVM, ACCEL_EMULATED };

struct accel_want {
	enum accel accel;
	bool icount; /* emulated only: L1's clock counts instructions */
};

#define ACCEL_SYNTAX "auto|kvm|emulated|emulated,icount"

/* accel_parse() - The value of --accel, one of ACCEL_SYNTAX; NULL means auto. */
int accel_parse(struct accel_want *ret, const char *s, struct error *e) must_check;

struct accel_choice {
	enum accel accel; /* ACCEL_KVM or ACCEL_EMULATED */
	bool icount;
	char say[200]; /* one line to tell (unless -q), or "" */
};

/**
 * accel_pick() - Decide where to run
 *
 * Takes up to ACCEL_MEASURE_MAX_NS of CPU time once per boot for `auto`. Inside the emulated host the answer is always KVM.
 * Errors: /dev/kvm may not be opened; --accel kvm without /dev/kvm; emulation needed, but no QEMU.
 */
int accel_pick(const struct accel_want *want, struct accel_choice *ret, struct error *e) must_check;

/* What accel_pick() found out about /dev/kvm, for messages and doctor. */
enum accel_kvm {
	ACCEL_KVM_ABSENT,
	ACCEL_KVM_SLOW,   /* it runs guests, but above ACCEL_USABLE_NS a turn */
	ACCEL_KVM_BROKEN, /* it opens, but runs no guest: why says at which call */
	ACCEL_KVM_USABLE,
};

struct accel_report {
	enum accel_kvm kvm;
	uint64_t turn_ns_x100; /* SLOW, USABLE: a turn of the loop in 1/100 ns */
	char why[120];         /* BROKEN */
};

#define ACCEL_TURNS          100000
#define ACCEL_USABLE_NS      500 /* a turn; paravirtual KVM 3900, nested under TCG 30, hardware < 1 */
#define ACCEL_MEASURE_MAX_NS (30 * NSEC_PER_MSEC)

/* accel_report() - Look at a KVM device node; @cache_dir: descriptor of the runtime folder, or -1. */
int accel_report(
	const char *path, int cache_dir, struct accel_report *ret, struct error *e) must_check;

/**
 * accel_measure() - Time ACCEL_TURNS ring-0 loop turns of a tiny long-mode guest
 *
 * Stops after ACCEL_MEASURE_MAX_NS and judges by the turns done until then. Uses SIGALRM while it runs.
 * Return: 0 and @ret says SLOW, BROKEN or USABLE; -errno only for lack of memory and the like.
 */
int accel_measure(int kvm_fd, struct accel_report *ret) must_check;

/* accel_find_qemu() - Absolute path of qemu-system-x86_64, or -ENOENT with the apt-get line in @e. */
int accel_find_qemu(char *ret, size_t size, struct error *e) must_check;

/* Set in the environment of whatever runs inside the emulated host. */
#define ACCEL_ENV_INSIDE "SKERRY_EMULATED_HOST"
