/*
 * base/buf.h - a byte queue with a limit: append at the end, consume at the front
 */
#pragma once

#include "base/util.h"

struct buf {
	uint8_t *data; /* first unread byte is data + off */
	size_t off, len, cap;
	size_t max; /* most unread bytes held; 0: no limit (trusted input only) */
};

void buf_init(struct buf *b, size_t max);
void buf_free(struct buf *b);
static inline size_t buf_len(const struct buf *b)
{
	return b->len;
}
static inline uint8_t *buf_ptr(const struct buf *b)
{
	return b->data + b->off;
}
/* buf_append() - 0, -ENOBUFS over the limit, -ENOMEM; nothing is written then. */
int buf_append(struct buf *b, const void *data, size_t len) must_check;
/* buf_reserve() - Room for @len more bytes at the end, or NULL; buf_commit() makes them readable. */
void *buf_reserve(struct buf *b, size_t len) must_check;
void buf_commit(struct buf *b, size_t len);
/* buf_consume() - Drop @len bytes from the front; @len <= buf_len(). */
void buf_consume(struct buf *b, size_t len);
/* buf_truncate() - Drop bytes from the end so that @len remain; @len <= buf_len(). */
static inline void buf_truncate(struct buf *b, size_t len)
{
	b->len = len;
}
