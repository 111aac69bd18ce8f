#include "api/store/images.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "api/store/lookup.h"

/*
 * Linux, Documentation/filesystems/ext4/super.rst: the superblock lies at 1024
 *   off   size  field
 *   0x04  4     s_blocks_count_lo
 *   0x18  4     s_log_block_size: 1024 << n
 *   0x38  2     s_magic 0xef53
 *   0x60  4     s_feature_incompat; 0x80: 64bit
 *   0x150 4     s_blocks_count_hi
 */
#define SUPER_OFF      1024
#define SUPER_SIZE     1024
#define INCOMPAT_64BIT 0x80
#define LOG_BLOCK_MAX  6 /* 64 KiB */

static const char *const makes[] = { IMAGE_DEFAULT, NULL };

static const struct lookup_kind kind = { "image", "images", NULL, makes };

static uint32_t le32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static int check_super(const uint8_t *sb, uint64_t size, struct error *e)
{
	uint32_t log_block = le32(sb + 0x18);
	uint64_t blocks = le32(sb + 0x04);

	if ((le32(sb + 0x38) & 0xffff) != 0xef53)
		return error_set(e, EINVAL, "holds no ext4 file system");
	if (le32(sb + 0x60) & INCOMPAT_64BIT)
		blocks |= (uint64_t)le32(sb + 0x150) << 32;
	if (log_block > LOG_BLOCK_MAX || blocks > UINT64_MAX >> (10 + log_block))
		return error_set(
			e, EINVAL, "its ext4 file system is damaged; e2fsck may repair it");
	if (blocks << (10 + log_block) > size)
		return error_set(e, EINVAL,
			"is truncated: %" PRIu64 " bytes of the %" PRIu64
			" that its ext4 file system has; fetch or build it again",
			size, blocks << (10 + log_block));
	return 0;
}

int image_check(int fd, struct error *e)
{
	uint8_t sb[SUPER_SIZE];
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st))
		return error_set(e, errno, "can't be read: %s", strerror(errno));
	if (S_ISDIR(st.st_mode))
		return error_set(
			e, EISDIR, "is a folder; name a file that holds an ext4 file system");
	if (!S_ISREG(st.st_mode))
		return error_set(e, EINVAL, "is no regular file");
	if (!st.st_size)
		return error_set(e, EINVAL, "is empty");
	n = pread(fd, sb, sizeof(sb), SUPER_OFF);
	if (n < 0)
		return error_set(e, errno, "can't be read: %s", strerror(errno));
	if (n < (ssize_t)sizeof(sb))
		return error_set(e, EINVAL,
			"holds no ext4 file system: it has only %" PRIu64 " bytes",
			(uint64_t)st.st_size);
	return check_super(sb, (uint64_t)st.st_size, e);
}

int image_open(const char *name, int *ret_fd, struct error *e)
{
	autoclose int dir = -1, fd = -1;
	int r;

	if (!name)
		name = IMAGE_DEFAULT;
	r = lookup(&kind, name, &dir, e);
	if (r < 0)
		return r;
	/* O_NONBLOCK: a FIFO must not hang us */
	fd = openat(r == LOOKUP_OBJECT ? dir : AT_FDCWD, r == LOOKUP_OBJECT ? "root.ext4" : name,
		O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return error_set(e, errno, "image '%s': %s", name, strerror(errno));
	r = image_check(fd, e);
	if (r) {
		error_prefix(e, "image '%s'", name);
		return r;
	}
	*ret_fd = take_fd(&fd);
	return 0;
}
