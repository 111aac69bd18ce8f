/*
 * api/emu/emu_dirs.h - folders of the emulated hosts, and which of them serves this command
 *
 * What:    runtime/emu/KEY/ holds the socket and console of one L1; its daemon keeps the folder locked (flock)
 *          while it lives, so that what a killed one left is told from a living one. runtime/emu itself is locked
 *          while a daemon is being started. KEY is a hash over all that an L1 is made of: this binary's build id,
 *          kernel, QEMU, folders, what setup published since. A rebuilt binary gets a fresh L1; the old one ends
 *          when it is idle.
 */
#pragma once

#include <sys/stat.h>

#include "api/emu/emu_proto.h"
#include "base/error.h"

/* emu_runtime_open() - The runtime folder, made if absent. Descriptor or -errno. */
int emu_runtime_open(struct error *e) must_check;

/* emu_base_open() - runtime/emu. @create: make it if absent. Descriptor, -ENOENT or another -errno. */
int emu_base_open(bool create, struct error *e) must_check;

/**
 * emu_configure() - Find all parts of an L1 and its key
 * @icount: a host of its own, whose clock counts instructions
 *
 * Makes the folders that L1 mounts something on. Environment: SKERRY_EMU_IDLE (a duration, default 60s), SKERRY_EMU_SCRATCH=1 (see struct emu_config).
 * Errors: QEMU is not installed, its kernel is not set up (both with the remedy), a path that can't be used.
 */
int emu_configure(struct emu_config *ret, bool icount, struct error *e) must_check;

/* The folders of all emulated hosts, living or dead, one after the other. */
struct emu_each {
	int base, dir; /* dir: of the current one; take_fd() it to keep it */
	char key[17];
	void *list;
};
/* emu_each_begin() - @base: borrowed. 0 or -errno. */
int emu_each_begin(struct emu_each *each, int base) must_check;
bool emu_each_next(struct emu_each *each) must_check;
void emu_each_end(struct emu_each *each);

/* emu_use_scratch() - The same host, but what it writes is not kept: another one, with a key of its own. */
void emu_use_scratch(struct emu_config *c);

/* emu_lock() - flock(2) until @deadline_ns. 0; -ETIMEDOUT; -ESTALE: the folder was removed meanwhile. */
int emu_lock(int dir, uint64_t deadline_ns) must_check;

/* emu_clean() - Remove what a dead daemon left in its folder, then the folder. The caller holds its lock. */
void emu_clean(int base, int dir, const char *key);

/* emu_base_remove() - Remove runtime/emu itself, if it is empty and nobody is starting a daemon. */
void emu_base_remove(int base);

/* emu_connect_dir() - Connect to the daemon in a folder. Descriptor or -errno. */
int emu_connect_dir(int dir) must_check;
/* emu_listen_dir() - The daemon's side: bind, mode 0600, listen. Descriptor or -errno. */
int emu_listen_dir(int dir) must_check;

/* emu_ask() - Send a request; @disk: for EMU_OP_RETIRE, else NULL. 0 or -errno. */
int emu_ask(int fd, enum emu_op op, const struct stat *disk) must_check;
/**
 * emu_hear() - Wait for one message of the daemon
 * @text: EMU_TEXT_MAX + 1 bytes; terminated, control characters as they came
 * Return: enum emu_msg; 0 end of file; -EINTR: emu_pending_signal(); -ETIMEDOUT; -EPROTO; -errno.
 */
int emu_hear(int fd, uint64_t deadline_ns, char *text) must_check;

/* emu_pending_signal() - SIGINT, SIGTERM or SIGHUP if it waits, blocked, else 0. */
int emu_pending_signal(void);
