/*
 * base/frame.h - the framing of base/guest_proto.h: bytes to frames, frames to bytes
 *
 * What:    a pure parser over a contiguous buffer, a reader that collects bytes for it, and
 *          builders.
 * Trust:   every byte is the peer's. What is not exactly as guest_proto.h says is an error that
 *          names itself; after one the stream can't be understood and the connection must end.
 * Memory:  a reader holds at most one frame (GP_HEADER + GP_FRAME_MAX) and one read after it.
 * Uses:    libc only: it is part of the guest's agent too.
 */
#pragma once

#include "base/buf.h"
#include "base/guest_proto.h"

#define FRAME_READ_SIZE (64u << 10) /* room that frame_reader_space() offers at least */

struct frame {
	enum gp_kind kind;
	uint64_t stream;     /* GP_DATA only */
	const uint8_t *data; /* the message; for GP_DATA what follows the id; the nonce */
	size_t len;
};

/**
 * frame_parse() - Look for one frame at the start of @data
 * @ret: set on success; its data points into @data
 * @why: set on error to a static text for messages
 *
 * Return: bytes that the frame takes (> 0), 0 if it isn't complete yet, -EPROTO. A bad header is an
 * error as soon as its eight bytes are there: a peer can't make the caller wait for, or store, what
 * will be refused.
 */
int frame_parse(const void *data, size_t len, struct frame *ret, const char **why) must_check;

struct frame_reader {
	struct buf in;
	size_t taken; /* of the frame that frame_next() returned last, still at the front of in */
};

void frame_reader_init(struct frame_reader *r);
void frame_reader_finish(struct frame_reader *r);

/**
 * frame_reader_space() - Where to receive the next bytes; frame_reader_commit() says how many came
 * @ret_len: at least FRAME_READ_SIZE
 *
 * Ends the life of the frame that frame_next() returned. Call it only when frame_next() returned 0.
 * Return: NULL if out of memory.
 */
void *frame_reader_space(struct frame_reader *r, size_t *ret_len) must_check;
void frame_reader_commit(struct frame_reader *r, size_t len);

/* frame_reader_feed() - Copy @len bytes in, any number up to GP_FRAME_MAX. 0, -ENOBUFS, -ENOMEM. */
int frame_reader_feed(struct frame_reader *r, const void *data, size_t len) must_check;

/**
 * frame_next() - Take the next frame
 *
 * The frame's data is valid until the next call on this reader.
 * Return: 1: @ret is set; 0: more bytes are needed; -EPROTO with @why as frame_parse().
 */
int frame_next(struct frame_reader *r, struct frame *ret, const char **why) must_check;

/* frame_reader_reset() - Forget everything received: a lasting transport has a new peer. */
void frame_reader_reset(struct frame_reader *r);

/* frame_header() - The header of a frame whose payload is @len <= GP_FRAME_MAX bytes. */
void frame_header(uint8_t ret[GP_HEADER], enum gp_kind kind, size_t len);

#define FRAME_DATA_HEADER (GP_HEADER + 8)
/*
 * frame_data_header() - Header and stream id of a GP_DATA frame; @len: 1..GP_DATA_MAX bytes of
 * data.
 */
void frame_data_header(uint8_t ret[FRAME_DATA_HEADER], uint64_t stream, size_t len);

/*
 * Append a whole frame to a queue: 0; -ENOBUFS over the queue's limit, -ENOMEM, -EMSGSIZE for a
 * payload that no frame may have (also an empty one); nothing is written then.
 */
int frame_put_json(struct buf *out, const void *message, size_t len) must_check;
int frame_put_data(struct buf *out, uint64_t stream, const void *data, size_t len) must_check;
int frame_put_reset(struct buf *out, const uint8_t nonce[GP_RESET_NONCE]) must_check;
