/*
 * base/util.h - small macros everyone uses: ownership, bounds, alignment
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define must_check       __attribute__((warn_unused_result))
#define printf_like(f, a) __attribute__((format(printf, f, a)))
#define unused_arg       __attribute__((unused))

#define ARRAY_SIZE(a)       (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)           ((a) < (b) ? (a) : (b))
#define MAX(a, b)           ((a) > (b) ? (a) : (b))
#define ALIGN_DOWN(x, a)    ((x) & ~((__typeof__(x))(a) - 1))
#define ALIGN_UP(x, a)      ALIGN_DOWN((x) + (__typeof__(x))(a) - 1, a)
#define KIB                 (UINT64_C(1) << 10)
#define MIB                 (UINT64_C(1) << 20)
#define GIB                 (UINT64_C(1) << 30)
#define NSEC_PER_SEC        UINT64_C(1000000000)
#define NSEC_PER_MSEC       UINT64_C(1000000)

/* The struct that @member, of type @type, is embedded in. */
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

static inline void util_freep(void *p)
{
	free(*(void **)p);
}

static inline void util_closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

/* Frees the pointer, or closes the descriptor, when it leaves scope; take_*() hands it on. */
#define autofree  __attribute__((cleanup(util_freep)))
#define autoclose __attribute__((cleanup(util_closep)))

static inline int take_fd(int *fd)
{
	int r = *fd;

	*fd = -1;
	return r;
}

static inline void *util_take_ptr(void *p)
{
	void **pp = p;
	void *r = *pp;

	*pp = NULL;
	return r;
}

#define take_ptr(p) ((__typeof__(p))util_take_ptr(&(p)))

/* close(2) for a descriptor that may be -1; sets it to -1. */
static inline void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}
