/*
 * api/emu/emu_daemon.h - inside the daemon of an emulated host: shared by emu_daemon.c and emu_conn.c
 */
#pragma once

#include <sys/stat.h>

#include "api/emu/emu_console.h"
#include "api/emu/emu_proto.h"
#include "api/emu/emu_qemu.h"
#include "api/emu/relay.h"
#include "base/loop.h"

#define EMU_WAITING_MAX 64 /* commands that wait for a port */

enum daemon_state {
	DAEMON_DISK, /* another emulated host still has the disk */
	DAEMON_BOOT, /* QEMU runs; no port has answered yet */
	DAEMON_UP,
	DAEMON_ENDING, /* not listening any more; L1 writes back and powers off */
	DAEMON_STATES
};

struct daemon;
struct port;

enum conn_state {
	CONN_ASKING,  /* its request has not come yet */
	CONN_WAITING, /* wants a port */
	CONN_BUSY,    /* has one */
	CONN_ENDING,  /* asked for our end, waits for it */
	CONN_CLOSING, /* freed once no operation is under way */
	CONN_STATES
};

/* A command that connected. */
struct conn {
	struct daemon *daemon;
	struct conn *next;
	enum conn_state state;
	int fd, slot;
	struct port *port;
	struct loop_op read, write;
	struct loop_timer deadline; /* CONN_ASKING */
	struct loop_task reap;      /* CONN_CLOSING */
	size_t have;                /* bytes of the request, in in[] */
	size_t out_len, out_at;     /* being written */
	uint8_t in[RELAY_CHUNK], out[RELAY_CHUNK];
};

/* One virtio-serial port. */
struct port {
	struct daemon *daemon;
	unsigned index;
	int slot;
	struct relay relay;
	struct conn *conn;
	struct loop_op read, write;
	struct loop_timer deadline; /* for the answer to a reset */
	size_t out_len, out_at;
	uint8_t in[RELAY_CHUNK], out[RELAY_CHUNK];
};

struct daemon {
	struct emu_config cfg;
	struct loop *loop;
	enum daemon_state state;
	int dir;   /* our folder, locked */
	int ready; /* to the command that started us */
	int listen_fd, listen_slot;
	int signal_fd, signal_slot;
	int console_slot, pidfd_slot;
	int disk;
	struct loop_op accept, signal, console_read, exited;
	struct loop_timer idle, boot, end, disk_retry;
	uint64_t disk_since_ns, disk_asked_ns;
	struct emu_tsc tsc;
	struct emu_console console;
	struct emu_qemu qemu; /* pid -1: not started, or gone */
	struct port port[EMU_PORTS];
	struct conn *conns;
	unsigned nconns, nbusy;
	bool retiring;  /* ends with its last command */
	bool disk_told; /* conns_tell_disk() was called */
	uint8_t console_in[4096];
};

/* ---- emu_conn.c ---- */

void conns_listen(struct daemon *d);
/* ports_start() - QEMU runs: reset every port. 0 or -errno. */
int ports_start(struct daemon *d) must_check;
/* conns_serve() - Give free ports to those who wait. */
void conns_serve(struct daemon *d);
/* conns_tell_disk() - All who wait learn that others use the disk. */
void conns_tell_disk(struct daemon *d);
/* conns_fail() - End all who wait, with the reason. */
void conns_fail(struct daemon *d, const char *text);
/* conns_free() - After the loop's end. */
void conns_free(struct daemon *d);

/* ---- emu_daemon.c ---- */

/* daemon_port_up() - A port answered its reset. */
void daemon_port_up(struct daemon *d);
/* daemon_port_lost() - A port is of no use any more. */
void daemon_port_lost(struct daemon *d, const struct port *p, const char *why);
/* daemon_conns_changed() - One came or went: idle or not? */
void daemon_conns_changed(struct daemon *d);
/* daemon_end() - Stop listening, end L1, then the loop. */
void daemon_end(struct daemon *d);
