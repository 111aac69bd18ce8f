/*
 * api/store/setup_image.h - make an image object from Debian's packages
 *
 * What:    mmdebstrap installs the packages of guest-init/image/packages, guest-init/image/customize.sh finishes the
 *          root, and mke2fs(8) copies it into an ext4 file system: nothing is mounted on this machine. The result
 *          is read-only in use: no journal, no room to speak of, no lazily initialised tables.
 *          image.json says what it is: recipe, suite, packages, created, size, allocated, sha256.
 */
#pragma once

#include "api/store/setup.h"

/* NULL-terminated; the first is the default. */
extern const char *const setup_image_names[];

/* setup_image_ready() - Is it there, made by this recipe? */
bool setup_image_ready(int state, const char *name);

/* setup_image() - Make it, in place of one that may be there. */
int setup_image(struct setup *s, const char *name, struct error *e) must_check;
