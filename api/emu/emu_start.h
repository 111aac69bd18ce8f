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

/* How to wait for it. */
struct emu_wait {
	void (*tell)(
		const char *text); /* called when there is something to wait for; NULL: quiet */
	bool need_disk; /* also wait for commands in another emulated host that has the disk, else -EBUSY */
	char tail[EMU_TEXT_MAX + 1]; /* set on failure: the last lines of its console, or "" */
};

/**
 * emu_connect() - Find or start the emulated host and wait for a port of it
 *
 * Errors: everything that keeps it from starting; -EBUSY: see need_disk; -EINTR: emu_pending_signal().
 */
int emu_connect(struct emu_session *ret, const struct emu_config *c, struct emu_wait *w,
	struct error *e) must_check;
