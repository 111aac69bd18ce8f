/*
 * vmm/role_ctl.h - the vmm process's end of the control channel
 *
 * What:    one supervisor at a time, hello first. The first one's connection is inherited. With a listening socket,
 *          which the supervisor bound where only its user may connect, the next to connect takes the place of one
 *          that has gone, so that a new supervisor adopts what an old one left; others wait in the backlog.
 * Faults:  a supervisor that can't be understood can't be obeyed: its connection ends, as if it had gone.
 * Threads: loop thread only.
 */
#pragma once

#include "base/ctl.h"
#include "base/loop.h"

struct role_ctl;

/* A message after the hello. @fds: what isn't set to -1 is closed afterwards. */
typedef void role_ctl_message_fn(struct role_ctl *c, const struct ctl_msg *m, int fds[CTL_FDS_MAX]);
/* The supervisor has gone, "" or what was wrong with it. With a listening socket, another may come. */
typedef void role_ctl_gone_fn(struct role_ctl *c, const char *fault);

struct role_ctl {
	role_ctl_message_fn *message;
	role_ctl_gone_fn *lost;
	struct loop *loop; /* NULL until role_ctl_start() */
	int fd;            /* -1: nobody there */
	int listen_fd;     /* or -1 */
	int slot, listen_slot;
	struct loop_op op, listen_op;
	bool hello_seen;
};

/* role_ctl_init() - Take over connection @fd and say hello. Sending works from here on. */
void role_ctl_init(struct role_ctl *c, int fd);
/* role_ctl_start() - Serve it on @loop, before the loop is confined. @listen_fd: taken over, may be -1. */
int role_ctl_start(
	struct role_ctl *c, struct loop *loop, int listen_fd, struct error *e) must_check;
/* role_ctl_send() - To whoever is there; to nobody otherwise. */
void role_ctl_send(struct role_ctl *c, uint16_t type, const void *body, uint32_t len);
/* role_ctl_stop() - Cancel what waits in the loop; role_ctl_busy() until it has. */
void role_ctl_stop(struct role_ctl *c);
bool role_ctl_busy(const struct role_ctl *c);
/* role_ctl_hang_up() - After the last message, and without the loop: see that it arrives. */
void role_ctl_hang_up(struct role_ctl *c);
