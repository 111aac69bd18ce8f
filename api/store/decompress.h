/*
 * api/store/decompress.h - the compressions of kernels and their modules, by the libraries of their makers
 *
 * Trust:   the input may be anything; output is bounded by the caller, memory by DECOMPRESS_MEMORY_MAX.
 * Spec:    RFC 1952 (gzip), RFC 8878 (zstd), the .xz and .lzma file formats, LZ4 frame format 1.6.1 (legacy frame)
 */
#pragma once

#include "base/error.h"

enum decompress_kind {
	DECOMPRESS_UNKNOWN,
	DECOMPRESS_GZIP,
	DECOMPRESS_BZIP2,
	DECOMPRESS_LZMA,
	DECOMPRESS_XZ,
	DECOMPRESS_LZO, /* recognised, not supported */
	DECOMPRESS_LZ4, /* legacy frame, as Linux uses it */
	DECOMPRESS_ZSTD,
};

#define DECOMPRESS_MAGIC_MAX 8
#define DECOMPRESS_MEMORY_MAX                                                                      \
	(256 * MIB) /* dictionary or window; Linux is packed with 128 MiB at most */

/* decompress_detect() - By the first bytes; DECOMPRESS_MAGIC_MAX are enough. */
enum decompress_kind decompress_detect(const uint8_t *data, size_t len);

/* "gzip", ... */
const char *decompress_name(enum decompress_kind kind);

/* Gets the output piece by piece. 0, or -errno to stop. */
typedef int decompress_sink(void *ctx, const void *data, size_t len);

/**
 * decompress() - Unpack one stream
 * @max: most bytes of output
 *
 * What follows the end of the stream is ignored: Linux appends the unpacked size there.
 *
 * Errors: -EINVAL damaged or incomplete, -EFBIG over @max, -EOPNOTSUPP lzo or unknown, -ENOMEM, or what the sink
 * returned; without a prefix that names the thing.
 */
int decompress(enum decompress_kind kind, const void *data, size_t len, uint64_t max,
	decompress_sink *sink, void *ctx, struct error *e) must_check;

/* decompress_alloc() - Into memory that the caller frees; @max as above. */
int decompress_alloc(enum decompress_kind kind, const void *data, size_t len, size_t max,
	uint8_t **ret, size_t *ret_len, struct error *e) must_check;
