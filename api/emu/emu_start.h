/*
 * api/emu/emu_start.h - a connection to the emulated host, which is started if need be
 */
#pragma once

#include "api/emu/emu_proto.h"
#include "base/error.h"

struct emu_session {
	int fd;      /* frames of base/guest_proto.h, to the agent in L1 */
	int console; /* for emu_console_tail(), when the connection breaks; or -1 */
};

/**
 * emu_connect() - Find or start the emulated host and wait for a port of it
 * @tell: called with a line when there is something to wait for; may be NULL
 * @tail: on failure the last lines of its console, or ""
 *
 * Errors: everything that keeps it from starting.
 */
int emu_connect(struct emu_session *ret, const struct emu_config *c, void (*tell)(const char *text),
	char tail[EMU_TEXT_MAX + 1], struct error *e) must_check;
