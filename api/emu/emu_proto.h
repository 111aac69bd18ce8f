/*
 * api/emu/emu_proto.h - what a command and the daemon of the emulated host say before frames flow
 *
 * The command connects and sends one request. The daemon answers with messages; after EMU_MSG_READY the
 * connection carries the frames of base/guest_proto.h, to and from the agent in L1.
 *
 *   request  off  size  field                message  off  size  field
 *            0    4     "SKEM"                        0    4     type, little endian
 *            4    2     version                       4    4     len, <= EMU_TEXT_MAX, little endian
 *            6    2     op                            8    len   text, no terminator
 *            8    8     EMU_OP_RETIRE: device and
 *            16   8     inode of the disk wanted
 */
#pragma once

#include <stdint.h>

#include "base/emu_names.h"

#define EMU_MAGIC         "SKEM"
#define EMU_PROTO_VERSION 1
#define EMU_REQUEST       24
#define EMU_MSG_HEADER    8
#define EMU_TEXT_MAX      4096

struct emu_request {
	char magic[4];
	uint16_t version, op;
	uint64_t disk_dev, disk_ino;
};

enum emu_op {
	EMU_OP_SESSION = 1, /* a port of L1, as soon as it is up and one is free */
	EMU_OP_STOP,        /* end, unless commands are running (EMU_MSG_FAIL says how many) */
	EMU_OP_STOP_FORCE,  /* end */
	EMU_OP_RETIRE,      /* if it has that disk: end when no command is left, without idling;
			     * EMU_MSG_FAIL if there are commands, else no answer */
};

enum emu_msg {
	EMU_MSG_WAIT = 1, /* text: what for */
	EMU_MSG_READY,    /* frames follow */
	EMU_MSG_FAIL,     /* text: why; the daemon closes */
	EMU_MSG_DONE, /* a request other than a session is under way; the daemon closes when it has ended */
	EMU_MSG_DISK, /* text: another emulated host has the disk, and commands; we go on waiting */
};

/* Names inside the folder of one emulated host. */
#define EMU_SOCK    "sock"
#define EMU_CONSOLE "console" /* what L1's kernel and QEMU said last: emu_console.h */

/* Descriptors of the role "skerry-emu" at exec; 0 to 2 are /dev/null. */
enum emu_fd {
	EMU_FD_CONFIG = 3, /* sealed memfd: struct emu_config */
	EMU_FD_DIR,        /* its folder, locked (flock) */
	EMU_FD_READY, /* one byte once it listens; closed without it: it failed, the reason as text */
	EMU_FD_COUNT,
};

#define EMU_CONFIG_MAGIC UINT32_C(0x736b6531) /* "ske1" */
#define EMU_PATH_MAX     4096
#define EMU_PACKAGES     "/var/lib/dpkg/status" /* changes with every package */
#define EMU_PORTS        16                     /* commands at once; QEMU allows 31 a device */

/* Of the same binary on both sides: a plain struct serves. */
struct emu_config {
	uint32_t magic, size;
	uint32_t icount;
	uint32_t scratch; /* what is written to the state and cache folders is gone when L1 ends */
	uint64_t idle_ns; /* without commands, then it ends */
	char key[17];     /* name of its folder */
	char qemu[EMU_PATH_MAX];
	char kernel[EMU_PATH_MAX];  /* uncompressed vmlinux */
	char modules[EMU_PATH_MAX]; /* cpio */
	char state[EMU_PATH_MAX], cache[EMU_PATH_MAX], runtime[EMU_PATH_MAX];
};
