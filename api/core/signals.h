/*
 * api/core/signals.h - what asks a foreground command to end: signals, and the death of its parent
 *
 * What:    signals are read from a signalfd by the loop. One that was ignored when the program started (nohup, a
 *          background job of a non-interactive shell) stays ignored. The parent is watched by a pidfd, not by
 *          PR_SET_PDEATHSIG, which fires when the parent's *thread* ends; under nohup it isn't watched at all.
 * Threads: signals_block() in the main thread before any other starts; the rest in the loop thread.
 */
#pragma once

#include "base/error.h"
#include "base/loop.h"

struct signals;

#define SIGNALS_PARENT 0 /* in place of a number: the parent died */

/**
 * signals_block() - Keep SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 for the loop; ignore SIGPIPE
 *
 * Call first thing: it also notes the parent. Until signals_create() they wait.
 */
void signals_block(void);

/**
 * signals_create() - Deliver them
 * @fn: @sig is a signal number or SIGNALS_PARENT
 */
int signals_create(struct signals **ret, struct loop *l, void (*fn)(void *ctx, int sig), void *ctx,
	struct error *e) must_check;

/* signals_free() - No more calls. Its memory goes once the loop has turned. NULL is legal. */
void signals_free(struct signals *s);
