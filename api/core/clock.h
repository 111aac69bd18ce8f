/*
 * api/core/clock.h - tells when this machine's wall clock was set, also by waking from suspend
 */
#pragma once

#include "base/error.h"
#include "base/loop.h"

struct clock_watch;

int clock_watch_create(struct clock_watch **ret, struct loop *l,
	void (*stepped)(void *ctx, uint64_t unix_ns), void *ctx, struct error *e) must_check;
/* clock_watch_free() - NULL is legal. Its memory goes once the loop has turned. */
void clock_watch_free(struct clock_watch *w);
