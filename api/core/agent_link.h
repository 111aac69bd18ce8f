/*
 * api/core/agent_link.h - an agent client on a stream socket, served by the loop
 */
#pragma once

#include "api/core/agent.h"
#include "base/loop.h"

struct agent_link;

/**
 * agent_link_create() - Serve @a over @fd
 * @fd: connected stream socket; the link owns it from a successful call on
 * @a: borrowed; must outlive the link
 * @closed: called once: end of file (e->code 0), a broken protocol (EPROTO) or a socket error
 */
int agent_link_create(struct agent_link **ret, struct loop *l, int fd, struct agent *a,
	void (*closed)(void *ctx, const struct error *e), void *ctx, struct error *e) must_check;

/* agent_link_flush() - Send what agent_out() holds: call from the agent's flush(). */
void agent_link_flush(struct agent_link *k);

/*
 * agent_link_close() - Stop and free; not from inside a callback of the agent. Operations under way finish in the
 * loop, which must turn until then or be destroyed. NULL is legal.
 */
void agent_link_close(struct agent_link *k);
