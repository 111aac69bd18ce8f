/*
 * api/store/images.h - images by name: state/images/NAME/{root.ext4,image.json}
 *
 * What:    an image is a read-only ext4 file system that a sandbox's root lies over. `skerry setup` makes them from
 *          Debian's packages (setup_image.h).
 */
#pragma once

#include "base/error.h"

#define IMAGE_DEFAULT "debian-13"

/**
 * image_open() - Open the image that a person names
 * @name: an object's name, or the path of an ext4 file system; NULL: IMAGE_DEFAULT
 * @ret_fd: read-only; the caller closes it
 *
 * Names as in kernel_open(). Errors: "image 'NAME': ..." unknown, not set up, missing, empty, truncated, no ext4.
 */
int image_open(const char *name, int *ret_fd, struct error *e) must_check;

/* image_check() - Does @fd hold a whole ext4 file system? The message has no prefix. */
int image_check(int fd, struct error *e) must_check;
