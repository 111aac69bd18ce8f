/*
 * guest-init/errs.h - how an errno reads in an answer: Deno's class, the errno's name, a text
 */
#pragma once

#include "guest-init/jwrite.h"

/* errs_name() - "ENOENT"; "EIO" for what has no name here. */
const char *errs_name(int err);
/* errs_class() - "NotFound": the class that Deno uses for it. */
const char *errs_class(int err);

/* errs_write() - An ERROR object. @code: NULL for none. */
void errs_write(struct jwrite *w, const char *class_name, const char *code, const char *message);
/* errs_write_errno() - The same from an errno: "No such file or directory (os error 2): WHAT". */
void errs_write_errno(struct jwrite *w, int err, const char *what);
