/*
 * api/store/bzimage and decompress: whatever a kernel file holds, the payload lies within it, output stays within its
 * bound, and nothing is read outside.
 */
#include <assert.h>
#include <string.h>

#include "api/store/bzimage.h"

#define OUT_MAX MIB

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint8_t sum;

static int count(void *ctx, const void *data, size_t len)
{
	uint64_t *left = ctx;

	assert(len <= *left);
	*left -= len;
	/* every byte must be there to be read */
	for (size_t i = 0; i < len; i++)
		sum = (uint8_t)(sum + ((const uint8_t *)data)[i]);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t head = MIN(size, BZIMAGE_HEAD_MAX);
	enum decompress_kind kind;
	uint64_t left = OUT_MAX;
	struct bzimage image;
	struct error e;
	int r = bzimage_identify(data, head, size, &image, &e);

	if (r) {
		assert(strlen(e.msg) > 0);
		return 0;
	}
	if (image.kind == BZIMAGE_ELF)
		return 0;
	assert(image.payload_len && image.payload_off <= size &&
		image.payload_len <= size - image.payload_off);
	data += image.payload_off;
	kind = decompress_detect(data, image.payload_len);
	if (kind == DECOMPRESS_UNKNOWN)
		return 0;
	r = decompress(kind, data, image.payload_len, OUT_MAX, count, &left, &e);
	assert(!r || strlen(e.msg) > 0);
	return 0;
}
