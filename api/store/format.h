/*
 * api/store/format.h - which layout the state folder has
 *
 * What:    state/format.json holds {"format": N}. A newer skerry brings older state up to date, one step after the
 *          other; an older one refuses newer state and changes nothing in it.
 * Threads: any number of processes at once; the file is created once, and steps run under a lock on the folder.
 */
#pragma once

#include "base/error.h"

#define FORMAT_FILE    "format.json"
#define FORMAT_CURRENT 1

/* format_step.run() - Turn layout @from into @from + 1. It may be interrupted and run again. */
struct format_step {
	unsigned from;
	int (*run)(int dir, struct error *e);
};

struct format_rules {
	unsigned current;
	const struct format_step
		*steps; /* ascending; together from the oldest layout known to current */
	size_t nsteps;
};

/**
 * format_check() - Make sure that this program and a state folder agree
 * @path: of @dir, for messages
 * @create: a folder without format.json gets the current number; else it counts as absent (-ENOENT)
 */
int format_check(int dir, const char *path, bool create, const struct format_rules *rules,
	struct error *e) must_check;

/**
 * format_open_state() - dirs_open(DIRS_STATE) and format_check() with the rules of this version
 * Return: descriptor or -errno; -ENOENT without @create: the message says to run `skerry setup`.
 */
int format_open_state(bool create, struct error *e) must_check;
