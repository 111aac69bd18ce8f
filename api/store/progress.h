/*
 * api/store/progress.h - tell a person what long work is at
 *
 * On a terminal one line is rewritten: "image debian-13: 3/8 installing packages (0:41)"; elsewhere each step is a
 * line of its own, printed once.
 */
#pragma once

#include "base/util.h"

struct progress {
	bool quiet, is_terminal;
	const char *what; /* borrowed: "image debian-13" */
	unsigned steps, step;
	char text[80];
	uint64_t start_ns;
	unsigned shown_s; /* what the line shows */
};

/* progress_init() - To standard error; @quiet: nothing but the last word of progress_end(), if that fails. */
void progress_init(struct progress *p, bool quiet);

/* progress_begin() - A piece of work of @steps steps */
void progress_begin(struct progress *p, const char *what, unsigned steps);

/* progress_step() - The next step; the same text again changes nothing. */
void progress_step(struct progress *p, const char *text);

/* progress_say() - A line that stays: "another setup is at work: waiting for it" */
void progress_say(struct progress *p, const char *fmt, ...) printf_like(2, 3);

/* progress_tick() - Time has passed. */
void progress_tick(struct progress *p);

/* progress_end() - Leave a clean line; @result: "6.12.9 (0:07)" follows, or NULL if the work failed. */
void progress_end(struct progress *p, const char *result);
