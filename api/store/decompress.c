#include "api/store/decompress.h"

#include <bzlib.h>
#include <errno.h>
#include <limits.h>
#include <lz4.h>
#include <lzma.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#define CHUNK (256 * KIB)
#define LZ4_BLOCK_MAX                                                                              \
	(8 * MIB) /* LZ4 frame format, legacy frame: blocks unpack to 8 MiB, the last to less */
#define LZ4_MAGIC   UINT32_C(0x184c2102)
#define ZSTD_WINDOW 27               /* log2 of 128 MiB */
#define GZIP_WINDOW (16 + MAX_WBITS) /* zlib.h, inflateInit2(): gzip only */

struct out {
	decompress_sink *sink;
	void *ctx;
	uint64_t left;
	uint8_t buf[CHUNK];
};

static const struct {
	const char *name;
	uint8_t magic[6];
	uint8_t len;
} kinds[] = {
	[DECOMPRESS_UNKNOWN] = { "unknown", { 0 }, 0 },
	[DECOMPRESS_GZIP] = { "gzip", { 0x1f, 0x8b }, 2 },
	[DECOMPRESS_BZIP2] = { "bzip2", { 'B', 'Z', 'h' }, 3 },
	[DECOMPRESS_LZMA] = { "lzma", { 0x5d, 0x00, 0x00 }, 3 },
	[DECOMPRESS_XZ] = { "xz", { 0xfd, '7', 'z', 'X', 'Z', 0x00 }, 6 },
	[DECOMPRESS_LZO] = { "lzo", { 0x89, 'L', 'Z', 'O' }, 4 },
	[DECOMPRESS_LZ4] = { "lz4", { 0x02, 0x21, 0x4c, 0x18 }, 4 },
	[DECOMPRESS_ZSTD] = { "zstd", { 0x28, 0xb5, 0x2f, 0xfd }, 4 },
};

enum decompress_kind decompress_detect(const uint8_t *data, size_t len)
{
	for (size_t i = DECOMPRESS_UNKNOWN + 1; i < ARRAY_SIZE(kinds); i++)
		if (len >= kinds[i].len && !memcmp(data, kinds[i].magic, kinds[i].len))
			return (enum decompress_kind)i;
	return DECOMPRESS_UNKNOWN;
}

const char *decompress_name(enum decompress_kind kind)
{
	return kinds[kind].name;
}

static int emit(struct out *o, const void *data, size_t len)
{
	if (len > o->left)
		return -EFBIG;
	o->left -= len;
	return len ? o->sink(o->ctx, data, len) : 0;
}

static int unpack_gzip(const uint8_t *data, size_t len, struct out *o)
{
	z_stream z = { 0 };
	int r, zr = Z_OK;

	if (inflateInit2(&z, GZIP_WINDOW) != Z_OK)
		return -ENOMEM;
	for (r = 0; !r && zr != Z_STREAM_END;) {
		if (!z.avail_in) {
			z.next_in = (Bytef *)(uintptr_t)data;
			z.avail_in = (uInt)MIN(len, (size_t)INT_MAX);
			data += z.avail_in;
			len -= z.avail_in;
		}
		z.next_out = o->buf;
		z.avail_out = sizeof(o->buf);
		zr = inflate(&z, Z_NO_FLUSH);
		if (zr != Z_OK && zr != Z_STREAM_END)
			r = zr == Z_MEM_ERROR ? -ENOMEM : -EINVAL;
		else
			r = emit(o, o->buf, sizeof(o->buf) - z.avail_out);
	}
	inflateEnd(&z);
	return r;
}

static int unpack_bzip2(const uint8_t *data, size_t len, struct out *o)
{
	bz_stream b = { 0 };
	int r, br = BZ_OK;

	if (BZ2_bzDecompressInit(&b, 0, 0) != BZ_OK)
		return -ENOMEM;
	for (r = 0; !r && br != BZ_STREAM_END;) {
		bool fed = len > 0;

		if (!b.avail_in && fed) {
			b.next_in = (char *)(uintptr_t)data;
			b.avail_in = (unsigned)MIN(len, (size_t)INT_MAX);
			data += b.avail_in;
			len -= b.avail_in;
		}
		b.next_out = (char *)o->buf;
		b.avail_out = sizeof(o->buf);
		br = BZ2_bzDecompress(&b);
		if (br != BZ_OK && br != BZ_STREAM_END)
			r = br == BZ_MEM_ERROR ? -ENOMEM : -EINVAL;
		else if (br == BZ_OK && !b.avail_in && !len && b.avail_out == sizeof(o->buf))
			r = -EINVAL; /* wants more than there is */
		else
			r = emit(o, o->buf, sizeof(o->buf) - b.avail_out);
	}
	BZ2_bzDecompressEnd(&b);
	return r;
}

static int lzma_errno(lzma_ret lr)
{
	return lr == LZMA_MEM_ERROR || lr == LZMA_MEMLIMIT_ERROR ? -ENOMEM : -EINVAL;
}

static int unpack_lzma(enum decompress_kind kind, const uint8_t *data, size_t len, struct out *o)
{
	lzma_stream s = LZMA_STREAM_INIT;
	lzma_ret lr = kind == DECOMPRESS_XZ ? lzma_stream_decoder(&s, DECOMPRESS_MEMORY_MAX, 0)
					    : lzma_alone_decoder(&s, DECOMPRESS_MEMORY_MAX);
	int r = lr == LZMA_OK ? 0 : lzma_errno(lr);

	s.next_in = data;
	s.avail_in = len;
	while (!r && lr != LZMA_STREAM_END) {
		s.next_out = o->buf;
		s.avail_out = sizeof(o->buf);
		lr = lzma_code(&s, LZMA_RUN);
		if (lr != LZMA_OK && lr != LZMA_STREAM_END)
			r = lzma_errno(lr);
		else
			r = emit(o, o->buf, sizeof(o->buf) - s.avail_out);
	}
	lzma_end(&s);
	return r;
}

static int unpack_zstd(const uint8_t *data, size_t len, struct out *o)
{
	ZSTD_DStream *z = ZSTD_createDStream();
	ZSTD_inBuffer in = { data, len, 0 };
	size_t zr = 1;
	int r = 0;

	if (!z || ZSTD_isError(ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, ZSTD_WINDOW)))
		r = -ENOMEM;
	while (!r && zr) {
		ZSTD_outBuffer out = { o->buf, sizeof(o->buf), 0 };
		size_t before = in.pos;

		zr = ZSTD_decompressStream(z, &out, &in);
		if (ZSTD_isError(zr) || (zr && in.pos == before && !out.pos))
			r = -EINVAL;
		else
			r = emit(o, out.dst, out.pos);
	}
	ZSTD_freeDStream(z);
	return r;
}

static uint32_t le32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/*
 * Magic, then blocks: a 32-bit length and that many bytes. There is no end mark: the stream ends with the input,
 * or before a length that no block can have; four bytes left over are the size that Linux appends.
 */
static int unpack_lz4(const uint8_t *data, size_t len, struct out *o)
{
	autofree char *block = malloc(LZ4_BLOCK_MAX);
	const uint8_t *p = data + 4, *end = data + len;
	int n = 0, r = 0;

	if (!block)
		return -ENOMEM;
	while (!r && end - p > 4) {
		uint32_t size = le32(p);

		p += 4;
		if (size == LZ4_MAGIC)
			continue;
		if (size > (uint32_t)LZ4_COMPRESSBOUND(LZ4_BLOCK_MAX))
			return n ? 0 : -EINVAL;
		if (!size || size > (size_t)(end - p))
			return -EINVAL;
		n = LZ4_decompress_safe((const char *)p, block, (int)size, (int)LZ4_BLOCK_MAX);
		if (n <= 0)
			return -EINVAL;
		p += size;
		r = emit(o, block, (size_t)n);
	}
	return r || n ? r : -EINVAL;
}

static int unpack(enum decompress_kind kind, const uint8_t *data, size_t len, struct out *o)
{
	switch (kind) {
	case DECOMPRESS_GZIP:
		return unpack_gzip(data, len, o);
	case DECOMPRESS_BZIP2:
		return unpack_bzip2(data, len, o);
	case DECOMPRESS_LZMA:
	case DECOMPRESS_XZ:
		return unpack_lzma(kind, data, len, o);
	case DECOMPRESS_LZ4:
		return unpack_lz4(data, len, o);
	case DECOMPRESS_ZSTD:
		return unpack_zstd(data, len, o);
	case DECOMPRESS_LZO:
	case DECOMPRESS_UNKNOWN:
		break;
	}
	return -EOPNOTSUPP;
}

int decompress(enum decompress_kind kind, const void *data, size_t len, uint64_t max,
	decompress_sink *sink, void *ctx, struct error *e)
{
	autofree struct out *o = malloc(sizeof(*o));
	const char *name = decompress_name(kind);
	int r;

	if (!o)
		return error_set(e, ENOMEM, "out of memory");
	o->sink = sink;
	o->ctx = ctx;
	o->left = max;
	/* Who calls with another kind than detected, or with nothing, gets an error from here. */
	if (len < kinds[kind].len || memcmp(data, kinds[kind].magic, kinds[kind].len))
		return error_set(e, EINVAL, "%s data are damaged", name);
	r = unpack(kind, data, len, o);
	switch (r) {
	case 0:
		return 0;
	case -EINVAL:
		return error_set(e, EINVAL, "%s data are damaged or incomplete", name);
	case -EFBIG:
		return error_set(e, EFBIG, "%s data unpack to more than %llu MiB", name,
			(unsigned long long)(max / MIB));
	case -EOPNOTSUPP:
		return error_set(e, EOPNOTSUPP,
			"%s compression is not supported; pack it with gzip, xz or zstd, or use the "
			"uncompressed file",
			name);
	}
	return error_set(e, -r, "%s data: %s", name, strerror(-r));
}

struct memory {
	uint8_t *data;
	size_t len, cap;
};

static int to_memory(void *ctx, const void *data, size_t len)
{
	struct memory *m = ctx;

	if (len > m->cap - m->len) {
		size_t cap = MAX(m->cap * 2, m->len + len);
		uint8_t *p = realloc(m->data, cap);

		if (!p)
			return -ENOMEM;
		m->data = p;
		m->cap = cap;
	}
	memcpy(m->data + m->len, data, len);
	m->len += len;
	return 0;
}

int decompress_alloc(enum decompress_kind kind, const void *data, size_t len, size_t max,
	uint8_t **ret, size_t *ret_len, struct error *e)
{
	struct memory m = { 0 };
	int r = decompress(kind, data, len, max, to_memory, &m, e);

	if (r) {
		free(m.data);
		return r;
	}
	*ret = m.data;
	*ret_len = m.len;
	return 0;
}
