/*
 * guest-init/boot.h - the steps of a boot, from the kernel's hand-over to a complete system
 *
 * What:    main() in init.c puts them together for a sandbox; emu_main() may for the emulated host.
 * Errors:  a step that can't be done ends the boot: boot_fatal() prints one line that begins with
 *          "skerry-init: " on the kernel console and powers the machine off, so that the host shows
 *          the reason at once. No step retries or sleeps.
 */
#pragma once

#include <stdint.h>

#include "base/util.h"

#define BOOT_CMDLINE_MAX 4096

struct boot {
	uint64_t init_ns;               /* CLOCK_MONOTONIC at init's first instruction */
	char cmdline[BOOT_CMDLINE_MAX]; /* of the kernel, without the newline */
	char root[128];                 /* skerry.root=, block device; "/dev/vda" */
	uint64_t tmpfs_bytes;           /* skerry.tmpfs=, writable layer; half of RAM */
	char hostname[65];              /* skerry.hostname=; "": as the image says, else "skerry" */
	char mode[16];                  /* skerry.mode=; "": a sandbox; "emu" */
	char port[64]; /* skerry.port=; a virtio-serial port to serve instead of vsock; "": none */
};

/* boot_fatal() - One line on the console, then power off. */
_Noreturn void boot_fatal(const char *fmt, ...) printf_like(1, 2);
/* boot_log() - One line to the kernel's log, beginning "skerry-init: ". */
void boot_log(const char *fmt, ...) printf_like(1, 2);
/* boot_power_off() - At once; nothing is stopped or synced. */
_Noreturn void boot_power_off(void);

/*
 * boot_param() - Value of KEY=VALUE in a command line; the last counts. false: absent or too long.
 */
bool boot_param(const char *cmdline, const char *key, char *ret, size_t size);
/* boot_bytes() - A decimal number of bytes, optional suffix k, m or g. */
bool boot_bytes(const char *text, uint64_t *ret);
/* boot_parse() - Fill everything but init_ns from cmdline. */
void boot_parse(struct boot *b);

/* boot_early() - /proc, /sys, /dev in the initramfs, descriptors 0 to 2, command line. */
void boot_early(struct boot *b);
/**
 * boot_modules() - Load what @dir/list names: one module file and its arguments per line, in order
 * Without a list nothing is done. Each file is deleted once loaded: it takes memory. A module that
 * fails is logged; what needs it fails with its own message.
 */
void boot_modules(const char *dir);
/* boot_wait_dev() - Until a device node exists, by the kernel's events; fatal after ten seconds. */
void boot_wait_dev(const char *path);

/* boot_mount() - mount(2), the mount point made if absent; fatal if it fails. @data may be NULL. */
void boot_mount(const char *source, const char *target, const char *type, unsigned long flags,
	const char *data);
/* boot_overlay() - Mount @target: @lower under a new tmpfs of at most @tmpfs_bytes, made at @rw. */
void boot_overlay(const char *lower, const char *rw, uint64_t tmpfs_bytes, const char *target);
/* boot_enter_root() - Make @target the root, taking /proc, /sys and /dev along. */
void boot_enter_root(const char *target);
/* boot_devices() - In the final root: devpts, shm, /dev/fd and its kin, cgroups. */
void boot_devices(void);
/* boot_loopback() - lo is up. */
void boot_loopback(void);
/* boot_system() - In the final root: all of the above, /run, limits, hostname, /etc/hosts. */
void boot_system(const struct boot *b);

/**
 * boot_serve() - Be PID 1 for good: an agent with this boot's settings, before it runs
 * @default_user: as in struct guest_config
 * Fatal if it fails. Add connections, then guest_agent_run().
 */
struct guest_agent *boot_serve(const struct boot *b, const char *default_user);

/* emu_main() - PID 1 of the emulated host, after boot_early() and boot_modules(). emu.c. */
_Noreturn void emu_main(struct boot *b);
