/*
 * api/emu/relay.h - between one command and one port of the emulated host, without the sockets
 *
 * What:    bytes in, bytes out; whole frames are passed on, so that the death of a command in the middle of one
 *          leaves the port in step. Between two commands both sides meet at a GP_RESET: what comes before its
 *          echo is old.
 * Trust:   the command runs as the same user; the port is written by root in L1. Either may send anything: a bad
 *          frame ends the session, or the use of the port. Memory a port: a frame and RELAY_OUT_FULL each way.
 */
#pragma once

#include "base/frame.h"

#define RELAY_OUT_FULL (256 * KIB) /* then nothing more is read for this direction */
#define RELAY_CHUNK    (64 * KIB)  /* most bytes an input call takes */

enum relay_state {
	RELAY_RESETTING, /* waits for the echo of its GP_RESET */
	RELAY_FREE,      /* both sides agree that nothing is going on */
	RELAY_BUSY,      /* a command is attached */
	RELAY_DEAD,      /* the port broke the protocol: never used again */
	RELAY_STATES
};

struct relay {
	enum relay_state state;
	uint8_t nonce[GP_RESET_NONCE];
	struct buf from_client, from_port; /* the beginning of a frame */
	struct buf to_client, to_port;     /* to be written, from the front */
};

const char *relay_state_name(enum relay_state s);

/* relay_init() - A port of a new L1: RELAY_RESETTING with @nonce, to_port holds the reset. -ENOMEM. */
int relay_init(struct relay *r, const uint8_t nonce[GP_RESET_NONCE]) must_check;
void relay_finish(struct relay *r);

/* relay_attach() - A command takes a port that is RELAY_FREE. */
void relay_attach(struct relay *r);

/**
 * relay_detach() - The command is gone: forget what it didn't finish sending, reset the other side
 * @nonce: random, new each time
 *
 * Legal in RELAY_BUSY only. -ENOMEM leaves the port RELAY_DEAD.
 */
int relay_detach(struct relay *r, const uint8_t nonce[GP_RESET_NONCE]) must_check;

/* relay_kill() - The port is of no use any more. */
void relay_kill(struct relay *r);

/* relay_wants_client(), relay_wants_port() - Whether to read from that side: back pressure. */
bool relay_wants_client(const struct relay *r);
bool relay_wants_port(const struct relay *r);

/* relay_client_input() - Up to RELAY_CHUNK bytes from the command. 0; -EPROTO or -ENOMEM: end its session. */
int relay_client_input(struct relay *r, const uint8_t *data, size_t len) must_check;

/**
 * relay_port_input() - Up to RELAY_CHUNK bytes from the port
 * Return: 1 the reset was answered (now RELAY_FREE), 0, or -EPROTO, -ENOMEM: now RELAY_DEAD.
 */
int relay_port_input(struct relay *r, const uint8_t *data, size_t len) must_check;
