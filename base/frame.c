#include "base/frame.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static uint64_t get_le(const uint8_t *p, unsigned bytes)
{
	uint64_t v = 0;

	while (bytes--)
		v = v << 8 | p[bytes];
	return v;
}

static void put_le(uint8_t *p, uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++, v >>= 8)
		p[i] = (uint8_t)v;
}

/* Whether a payload of @len bytes can be of @kind; why not, or NULL. */
static const char *payload_fault(unsigned kind, size_t len)
{
	switch (kind) {
	case GP_JSON:
		if (!len)
			return "empty message";
		return len > GP_FRAME_MAX ? "message is too long" : NULL;
	case GP_DATA:
		if (len < 9)
			return "data frame without data";
		return len > 8 + GP_DATA_MAX ? "data frame is too long" : NULL;
	case GP_RESET:
		return len != GP_RESET_NONCE ? "reset frame of another length than 16" : NULL;
	default:
		return "unknown kind of frame";
	}
}

int frame_parse(const void *data, size_t len, struct frame *ret, const char **why)
{
	const uint8_t *p = data;
	const char *fault;
	uint32_t n;

	if (len < GP_HEADER)
		return 0;
	n = (uint32_t)get_le(p, 4);
	fault = p[5] || p[6] || p[7] ? "reserved bytes of a frame are not zero"
				     : payload_fault(p[4], n);
	if (fault) {
		*why = fault;
		return -EPROTO;
	}
	if (len - GP_HEADER < n)
		return 0;
	*ret = (struct frame){ .kind = p[4], .data = p + GP_HEADER, .len = n };
	if (ret->kind == GP_DATA) {
		ret->stream = get_le(ret->data, 8);
		ret->data += 8;
		ret->len -= 8;
	}
	return (int)(GP_HEADER + n);
}

void frame_reader_init(struct frame_reader *r)
{
	buf_init(&r->in, GP_HEADER + GP_FRAME_MAX + FRAME_READ_SIZE);
	r->taken = 0;
}

void frame_reader_finish(struct frame_reader *r)
{
	buf_free(&r->in);
	r->taken = 0;
}

void frame_reader_reset(struct frame_reader *r)
{
	buf_consume(&r->in, buf_len(&r->in));
	r->taken = 0;
}

static void drop_taken(struct frame_reader *r)
{
	buf_consume(&r->in, r->taken);
	r->taken = 0;
}

void *frame_reader_space(struct frame_reader *r, size_t *ret_len)
{
	void *p;

	drop_taken(r);
	p = buf_reserve(&r->in, FRAME_READ_SIZE);
	if (p)
		*ret_len = FRAME_READ_SIZE;
	return p;
}

void frame_reader_commit(struct frame_reader *r, size_t len)
{
	buf_commit(&r->in, len);
}

int frame_reader_feed(struct frame_reader *r, const void *data, size_t len)
{
	drop_taken(r);
	return buf_append(&r->in, data, len);
}

int frame_next(struct frame_reader *r, struct frame *ret, const char **why)
{
	int n;

	drop_taken(r);
	if (!buf_len(&r->in))
		return 0;
	n = frame_parse(buf_ptr(&r->in), buf_len(&r->in), ret, why);
	if (n <= 0)
		return n;
	r->taken = (size_t)n;
	return 1;
}

void frame_header(uint8_t ret[GP_HEADER], enum gp_kind kind, size_t len)
{
	assert(!payload_fault(kind, len));
	put_le(ret, len, 4);
	put_le(ret + 4, kind, 4);
}

void frame_data_header(uint8_t ret[FRAME_DATA_HEADER], uint64_t stream, size_t len)
{
	frame_header(ret, GP_DATA, 8 + len);
	put_le(ret + GP_HEADER, stream, 8);
}

static int put_frame(
	struct buf *out, const uint8_t *header, size_t header_len, const void *payload, size_t len)
{
	uint8_t *p;

	if (out->max && (buf_len(out) > out->max || header_len + len > out->max - buf_len(out)))
		return -ENOBUFS;
	p = buf_reserve(out, header_len + len);
	if (!p)
		return -ENOMEM;
	memcpy(p, header, header_len);
	memcpy(p + header_len, payload, len);
	buf_commit(out, header_len + len);
	return 0;
}

int frame_put_json(struct buf *out, const void *message, size_t len)
{
	uint8_t h[GP_HEADER];

	if (payload_fault(GP_JSON, len))
		return -EMSGSIZE;
	frame_header(h, GP_JSON, len);
	return put_frame(out, h, sizeof(h), message, len);
}

int frame_put_data(struct buf *out, uint64_t stream, const void *data, size_t len)
{
	uint8_t h[FRAME_DATA_HEADER];

	if (!len || len > GP_DATA_MAX)
		return -EMSGSIZE;
	frame_data_header(h, stream, len);
	return put_frame(out, h, sizeof(h), data, len);
}

int frame_put_reset(struct buf *out, const uint8_t nonce[GP_RESET_NONCE])
{
	uint8_t h[GP_HEADER];

	frame_header(h, GP_RESET, GP_RESET_NONCE);
	return put_frame(out, h, sizeof(h), nonce, GP_RESET_NONCE);
}
