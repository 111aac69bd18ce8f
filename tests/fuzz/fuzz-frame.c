/*
 * base/frame: whatever bytes come, in whatever cuts, the reader yields the same frames, each within
 * its bounds, and building them again gives the same bytes. The first byte chooses the cuts.
 */
#include <assert.h>
#include <string.h>

#include "base/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_frame(const struct frame *f, const uint8_t *at, int used)
{
	struct buf again;
	int r;

	buf_init(&again, 0);
	switch (f->kind) {
	case GP_JSON:
		assert(f->len >= 1 && f->len <= GP_FRAME_MAX);
		r = frame_put_json(&again, f->data, f->len);
		break;
	case GP_DATA:
		assert(f->len >= 1 && f->len <= GP_DATA_MAX);
		r = frame_put_data(&again, f->stream, f->data, f->len);
		break;
	default:
		assert(f->kind == GP_RESET && f->len == GP_RESET_NONCE);
		r = frame_put_reset(&again, f->data);
	}
	assert(r == 0);
	assert(buf_len(&again) == (size_t)used && !memcmp(buf_ptr(&again), at, (size_t)used));
	buf_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct frame_reader r;
	struct frame whole, piece;
	const char *why;
	size_t step, fed = 0, at = 0;
	int n, m;

	if (!size)
		return 0;
	step = 1 + data[0];
	data++;
	size--;
	frame_reader_init(&r);
	do {
		n = frame_parse(data + at, size - at, &whole, &why);
		while ((m = frame_next(&r, &piece, &why)) == 0 && fed < size) {
			size_t k = MIN(step, size - fed);

			assert(frame_reader_feed(&r, data + fed, k) == 0);
			fed += k;
		}
		assert(n > 0 ? m == 1 : m == n);
		if (n <= 0)
			break;
		assert(piece.kind == whole.kind && piece.stream == whole.stream);
		assert(piece.len == whole.len && !memcmp(piece.data, whole.data, whole.len));
		check_frame(&whole, data + at, n);
		at += (size_t)n;
	} while (1);
	frame_reader_finish(&r);
	return 0;
}
