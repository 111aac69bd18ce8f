/*
 * guest-init/jwrite.h - writing JSON-RPC messages as frames into a queue
 *
 * What:    a message is built in place at the end of the queue, its header filled in when it is
 *          done. A failure (the queue's limit, memory) sticks, and jwrite_end() takes the whole
 *          message back.
 * Text:    strings may be any bytes; what is no UTF-8 goes out as U+FFFD.
 */
#pragma once

#include "base/buf.h"

struct jwrite {
	struct buf *out;
	size_t start; /* length of the queue before this message */
	bool failed;
};

void jwrite_begin(struct jwrite *w, struct buf *out);
/* jwrite_end() - 0; -ENOBUFS: nothing of the message is left in the queue. */
int jwrite_end(struct jwrite *w) must_check;

/* jwrite_raw() - JSON text as it is. */
void jwrite_raw(struct jwrite *w, const char *text);
/* jwrite_fmt() - A short piece of JSON, up to 255 bytes; no foreign strings. */
void jwrite_fmt(struct jwrite *w, const char *fmt, ...) printf_like(2, 3);
/* jwrite_str() - A JSON string with its quotes. */
void jwrite_str(struct jwrite *w, const char *s, size_t len);
void jwrite_text(struct jwrite *w, const char *s);
/* jwrite_base64() - A JSON string holding the base64 of bytes. */
void jwrite_base64(struct jwrite *w, const uint8_t *data, size_t len);

/**
 * base64_decode() - RFC 4648 section 4 with padding; in place is legal
 * @ret: room for len / 4 * 3 bytes
 * Return: false: not base64.
 */
bool base64_decode(const char *text, size_t len, uint8_t *ret, size_t *ret_len) must_check;

/*
 * utf8_next() - Length of the valid sequence at @s (of @len > 0 bytes), or 0: it is none. RFC 3629.
 */
size_t utf8_next(const char *s, size_t len);
