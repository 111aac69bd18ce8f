/*
 * base/error.h - an error a person reads: the thing, the value, what to do
 *
 * A function that can fail for a reason a person must read takes a `struct error *e` last. The buffer
 * is fixed, so reporting an error never allocates. @e may be NULL where the caller wants only the code.
 */
#pragma once

#include "base/util.h"

struct error {
	int code;      /* positive errno */
	char msg[480]; /* one line, no newline, control characters escaped */
};

/**
 * error_set() - Fill an error
 * @e: may be NULL
 * @code: positive errno, never 0
 * @fmt: "disk 'x.raw': not a multiple of 512 bytes; pad it with truncate -s"
 *
 * Return: -@code, so that callers write `return error_set(e, EINVAL, ...)`.
 */
int error_set(struct error *e, int code, const char *fmt, ...) printf_like(3, 4);

/* error_prefix() - Put "@fmt: " before the message of an error that is passed on; returns -e->code. */
int error_prefix(struct error *e, const char *fmt, ...) printf_like(2, 3);
