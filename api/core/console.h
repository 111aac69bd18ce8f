/*
 * api/core/console.h - what a guest prints on its console: the last bytes are kept, for the message when it dies
 *
 * Trust:   the guest's; nothing is shown without log_escape(). A guest that prints for ever costs CONSOLE_BYTES.
 */
#pragma once

#include <stdio.h>

#include "base/error.h"
#include "base/loop.h"

#define CONSOLE_BYTES 16384

struct console;

/**
 * console_create() - A pipe whose read end is drained by the loop
 * @ret_fd: the write end, non-blocking, for the machine; the caller closes it
 * @closed: called once when the last writer is gone and everything was read
 */
int console_create(struct console **ret, struct loop *l, int *ret_fd, void (*closed)(void *ctx),
	void *ctx, struct error *e) must_check;
/* console_free() - NULL is legal. Its memory goes once the loop has turned. */
void console_free(struct console *c);

/* console_contains() - Whether the kept text has @needle. */
bool console_contains(const struct console *c, const char *needle);

/**
 * console_print() - Some lines on @f, each indented by two blanks, escaped
 * @from: begin one line before the first that has this text; NULL, or it isn't there: the last @lines lines
 */
void console_print(const struct console *c, const char *from, unsigned lines, FILE *f);
