/*
 * api/core/sandbox_open.h - what a sandbox needs from this machine: descriptors and the vmm's configuration
 */
#pragma once

#include "api/core/sandbox.h"
#include "base/process.h"
#include "vmm/config.h"

#define SANDBOX_FDS_MAX (ROLE_FD_FIRST + 4 + VMM_INITRDS_MAX + VMM_DISKS_MAX)

/* Everything that the vmm inherits. Descriptors are owned; fds[] is the table for process_spawn(). */
struct sandbox_inputs {
	struct vmm_config config;
	int fds[SANDBOX_FDS_MAX];
	unsigned nfds;
};

/**
 * sandbox_open() - Open kernel, initial file systems, image and /dev/kvm, and fill the configuration
 * @log_fd, @console_fd, @ctl_fd: the vmm's ends; taken over in every case
 */
int sandbox_open(struct sandbox_inputs *ret, const struct sandbox_config *c, int log_fd,
	int console_fd, int ctl_fd, struct error *e) must_check;
void sandbox_close(struct sandbox_inputs *in);
