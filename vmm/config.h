/*
 * vmm/config.h - what the supervisor tells a new vmm process: one sealed memfd, one fixed descriptor table
 *
 * Both sides are the same binary, so a plain struct serves; magic, size and version are checked all the same.
 */
#pragma once

#include <stdint.h>

#include "vmm/vm.h"

#define VMM_CONFIG_MAGIC   UINT32_C(0x736b7631) /* "skv1" */
#define VMM_CONFIG_VERSION 1
#define VMM_DISKS_MAX      8
#define VMM_INITRDS_MAX    4
#define VMM_CMDLINE_MAX    2048

/* Descriptors of a role at exec. What a role doesn't use is -1 in its config. */
enum role_fd {
	ROLE_FD_LOG = 2,    /* messages for the person at the terminal */
	ROLE_FD_CONFIG = 3, /* sealed memfd */
	ROLE_FD_CTL = 4,    /* connected SOCK_SEQPACKET to the supervisor */
	ROLE_FD_FIRST = 5,  /* the rest is named by the config */
};

enum vmm_flags {
	VMM_NO_CONFINE = 1 << 0,       /* --no-confine: debugging only */
	VMM_DIE_WITH_PARENT = 1 << 1,  /* `run`: the end of the control channel ends the machine */
	VMM_BALLOON = 1 << 2,
	VMM_TRACE = 1 << 3,            /* report phases */
	VMM_FLAGS_ALL = (1 << 4) - 1,
};

struct vmm_disk_config {
	int32_t fd; /* raw image, opened by the supervisor, locked by it */
	uint32_t read_only;
	char serial[20]; /* VIRTIO 1.2, 5.2.6: padded with NUL */
};

struct vmm_config {
	uint32_t magic, version, size;
	uint32_t flags;
	uint32_t cpus;
	uint32_t ndisks;
	uint32_t ninitrds;
	int32_t kvm_fd;
	int32_t kernel_fd;                   /* uncompressed ELF vmlinux */
	int32_t initrd_fd[VMM_INITRDS_MAX];  /* concatenated in guest memory, each 4-byte aligned */
	int32_t console_fd;                  /* what the UART prints; non-blocking pipe, may drop */
	int32_t listen_fd;                   /* listening SEQPACKET for later supervisors, or -1 */
	uint64_t memory;                     /* bytes */
	uint64_t guest_cid;
	uint64_t start_ns;                   /* CLOCK_MONOTONIC at the supervisor's start, for the trace */
	struct vmm_disk_config disk[VMM_DISKS_MAX];
	char name[64];                       /* for messages: "sandbox 'x'" */
	char cmdline[VMM_CMDLINE_MAX];       /* kernel command line, NUL-terminated */
};

/* vmm_config_read() - Read and check the sealed memfd @fd; texts are terminated and descriptors open then. */
int vmm_config_read(int fd, struct vmm_config *ret, struct error *e) must_check;
/* vmm_config_check() - The same for one that was read. */
int vmm_config_check(const struct vmm_config *c, struct error *e) must_check;
