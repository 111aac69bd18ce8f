/*
 * api/store/setup.h - what making a kernel and making an image have in common
 *
 * What:    one setup works at a time (state/setup.lock); packages come from Debian by mmdebstrap(1), which is never
 *          told a mirror unless the user names one; what its run leaves is removed whatever happens, by the next
 *          setup at the latest.
 * Files:   setup_kernel.c, setup_image.c make one kind of object each; api/cli/setup.c is the command.
 */
#pragma once

#include <stdio.h>

#include "api/store/dirs.h"
#include "api/store/job.h"
#include "api/store/object.h"
#include "api/store/progress.h"

struct setup {
	struct job_host host;
	struct progress progress;
	const char *mirror; /* NULL: mmdebstrap's choice */
	bool force;         /* make objects again that are there */
	char path[DIRS_PATH_MAX];
	int state; /* state folder */
	int lock;
	char object[DIRS_PATH_MAX + 64]; /* path of the object being made */
	FILE *log;                       /* all that programs said, for when one fails */
	char log_path[DIRS_PATH_MAX + 16];
};

/**
 * setup_open() - Open the state folder, and wait until no other setup is at work
 *
 * Zeroed except for @mirror and @force. setup_close() in every case.
 */
int setup_open(struct setup *s, bool quiet, struct error *e) must_check;
void setup_close(struct setup *s);

/**
 * setup_object() - Begin an object in a folder of the state ("kernels"), leftovers of killed setups removed
 * @ret_folder: must stay open as long as the object; the caller closes it
 */
int setup_object(struct setup *s, const char *folder, int *ret_folder, struct object *ret,
	struct error *e) must_check;

/* What setup_run() does with the lines that a program prints. */
struct setup_step {
	const char *line; /* how a line begins ... */
	const char *text; /* ... that stands for this step */
};

/* A program to run, within an object that is being built. */
struct setup_run {
	const char *const *argv;
	const char *package;
	bool own_root;
	const struct setup_step *steps; /* ends with .line = NULL; may be NULL */
};

/* setup_run() - Run it; a status other than 0 is an error that names the cause, as far as its lines tell. */
int setup_run(struct setup *s, const struct setup_run *run, struct error *e) must_check;

/**
 * setup_debootstrap() - Unpack or install packages of a Debian release into the object's folder SETUP_TREE
 * @variant: of mmdebstrap: "extract" (unpack only), "minbase"
 * @more: further options, NULL-terminated, or NULL
 *
 * Files there may belong to others than the caller: setup_remove_tree() removes it. Needs SETUP_DEBOOTSTRAP_STEPS.
 */
#define SETUP_TREE              "tree"
#define SETUP_DEBOOTSTRAP_STEPS 4
int setup_debootstrap(struct setup *s, const char *variant, const char *suite, const char *packages,
	const char *const *more, struct error *e) must_check;
int setup_remove_tree(struct setup *s, const struct object *o, struct error *e) must_check;

/* setup_abort() - object_abort() for an object that may have a tree; one that was never begun is legal. */
void setup_abort(struct setup *s, struct object *o);

/* setup_is_current() - Does state/FOLDER/NAME/JSON exist with "recipe" @recipe, and @file beside it? */
bool setup_is_current(int state, const char *folder, const char *name, const char *json,
	uint64_t recipe, const char *file);

/* setup_date() - Now, as "2026-11-21T09:08:07Z" */
void setup_date(char ret[24]);
