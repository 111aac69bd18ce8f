#include "api/store/hash.h"

#include <errno.h>
#include <nettle/sha2.h>
#include <stdio.h>

#define CHUNK (256 * KIB)

static void to_text(struct sha256_ctx *ctx, char ret[HASH_TEXT])
{
	uint8_t digest[SHA256_DIGEST_SIZE];

	sha256_digest(ctx, sizeof(digest), digest);
	for (size_t i = 0; i < sizeof(digest); i++)
		snprintf(ret + 2 * i, 3, "%02x", digest[i]);
}

void hash_memory(const void *data, size_t len, char ret[HASH_TEXT])
{
	struct sha256_ctx ctx;

	sha256_init(&ctx);
	sha256_update(&ctx, len, data);
	to_text(&ctx, ret);
}

int hash_fd(int fd, char ret[HASH_TEXT])
{
	autofree uint8_t *buf = malloc(CHUNK);
	struct sha256_ctx ctx;
	off_t off = 0;
	ssize_t n;

	if (!buf)
		return -ENOMEM;
	sha256_init(&ctx);
	while ((n = pread(fd, buf, CHUNK, off))) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		sha256_update(&ctx, (size_t)n, buf);
		off += n;
	}
	to_text(&ctx, ret);
	return 0;
}
