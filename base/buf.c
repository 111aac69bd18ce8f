#include "base/buf.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define BUF_MIN 4096

void buf_init(struct buf *b, size_t max)
{
	*b = (struct buf){ .max = max };
}

void buf_free(struct buf *b)
{
	free(b->data);
	*b = (struct buf){ .max = b->max };
}

void *buf_reserve(struct buf *b, size_t len)
{
	size_t cap = b->cap ? b->cap : BUF_MIN;
	uint8_t *p;

	if (len > SIZE_MAX / 4 - b->len || (b->max && (len > b->max || b->len > b->max - len)))
		return NULL;
	if (b->off + b->len + len <= b->cap)
		return b->data + b->off + b->len;
	if (b->len + len <= b->cap && b->off) {
		memmove(b->data, b->data + b->off, b->len);
		b->off = 0;
		return b->data + b->len;
	}
	while (cap < b->len + len)
		cap *= 2;
	p = malloc(cap);
	if (!p)
		return NULL;
	if (b->len)
		memcpy(p, b->data + b->off, b->len);
	free(b->data);
	b->data = p;
	b->cap = cap;
	b->off = 0;
	return b->data + b->len;
}

void buf_commit(struct buf *b, size_t len)
{
	assert(len <= b->cap - b->off - b->len);
	b->len += len;
}

int buf_append(struct buf *b, const void *data, size_t len)
{
	void *p;

	if (!len)
		return 0;
	if (b->max && (len > b->max || b->len > b->max - len))
		return -ENOBUFS;
	p = buf_reserve(b, len);
	if (!p)
		return -ENOMEM;
	memcpy(p, data, len);
	buf_commit(b, len);
	return 0;
}

void buf_consume(struct buf *b, size_t len)
{
	assert(len <= b->len);
	b->off += len;
	b->len -= len;
	if (!b->len)
		b->off = 0;
}
