/*
 * api/store/lookup.h - objects by the name a person typed
 */
#pragma once

#include "base/error.h"

enum lookup_result { LOOKUP_OBJECT, LOOKUP_PATH };

/* A kind of objects, and those of them that `skerry setup` can make. */
struct lookup_kind {
	const char *what;         /* "kernel": names the option, too */
	const char *folder;       /* below the state folder: "kernels" */
	const char *hidden;       /* an object that is no person's business, or NULL */
	const char *const *makes; /* NULL-terminated; the first is the default */
};

/**
 * lookup() - Object or file?
 * @ret_dir: LOOKUP_OBJECT: the object's folder, opened
 *
 * Return: enum lookup_result or -errno with a message: what is there, what is near, what to run.
 */
int lookup(
	const struct lookup_kind *kind, const char *name, int *ret_dir, struct error *e) must_check;
