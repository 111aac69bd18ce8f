/*
 * api/store/setup_kernel.h - make a kernel object from Debian's kernel package
 *
 * What:    the package and what it depends on is unpacked, nothing of it is run. vmlinux comes out of its bzImage;
 *          modules.cpio gets the modules that a guest needs to reach its disk, console and agent, with all they need.
 *          kernel.json says what the object is: recipe, version, suite, package, created, sha256, modules.
 */
#pragma once

#include "api/store/setup.h"

/* What is made for a name; NULL: `skerry setup` can't make it. */
struct setup_kernel_kind;
const struct setup_kernel_kind *setup_kernel_find(const char *name);
/* All but the emulated host's, NULL-terminated; the first is the default. */
extern const char *const setup_kernel_names[];

/* setup_kernel_ready() - Is it there, made by this recipe? */
bool setup_kernel_ready(int state, const char *name);

/* setup_kernel() - Make it, in place of one that may be there. */
int setup_kernel(struct setup *s, const char *name, struct error *e) must_check;
