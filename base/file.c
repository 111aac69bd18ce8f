#include "base/file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define READ_CHUNK 16384
#define TMP_TRIES  8
#define PATH_BYTES 4096

int file_read_fd(int fd, size_t max, char **ret, size_t *ret_len)
{
	autofree char *data = NULL;
	size_t len = 0, cap = 0, want;
	struct stat st;
	ssize_t n;
	char *p;

	if (fstat(fd, &st))
		return -errno;
	if (S_ISREG(st.st_mode) && st.st_size > 0)
		cap = MIN((size_t)st.st_size, max) + 1;
	for (;;) {
		if (!data || len == cap) {
			cap = MAX(cap, (size_t)READ_CHUNK) + (data ? cap : 0);
			p = realloc(data, cap + 1);
			if (!p)
				return -ENOMEM;
			data = p;
		}
		want = cap - len;
		n = read(fd, data + len, want);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		len += (size_t)n;
		if (len > max)
			return -EFBIG;
	}
	data[len] = '\0';
	*ret = take_ptr(data);
	*ret_len = len;
	return 0;
}

int file_read(int dirfd, const char *path, size_t max, char **ret, size_t *ret_len, struct error *e)
{
	autoclose int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	int r;

	if (fd < 0)
		return error_set(e, errno, "'%s': %s", path, strerror(errno));
	r = file_read_fd(fd, max, ret, ret_len);
	if (r == -EFBIG)
		return error_set(e, EFBIG, "'%s': larger than %zu bytes", path, max);
	return r ? error_set(e, -r, "'%s': %s", path, strerror(-r)) : 0;
}

int file_write_all(int fd, const void *data, size_t len)
{
	const char *p = data;
	ssize_t n;

	while (len) {
		n = write(fd, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

/* A new file beside @path, under a name nobody has. */
static int open_tmp(int dirfd, const char *path, mode_t mode, char tmp[PATH_BYTES])
{
	uint64_t id;
	int fd;

	for (int i = 0; i < TMP_TRIES; i++) {
		if (getrandom(&id, sizeof(id), 0) != sizeof(id))
			return -EIO;
		if (snprintf(tmp, PATH_BYTES, "%s.%016llx.tmp", path, (unsigned long long)id) >=
			PATH_BYTES)
			return -ENAMETOOLONG;
		fd = openat(dirfd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
		if (fd >= 0 || errno != EEXIST)
			return fd >= 0 ? fd : -errno;
	}
	return -EEXIST;
}

/* The rename is durable once the folder is. */
static int sync_folder(int dirfd, const char *path)
{
	const char *slash = strrchr(path, '/');
	char folder[PATH_BYTES];
	int fd, r;

	snprintf(folder, sizeof(folder), "%.*s", slash ? (int)MAX(slash - path, 1) : 1,
		slash ? path : ".");
	fd = openat(dirfd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = fsync(fd) ? -errno : 0;
	close(fd);
	return r;
}

int file_replace(
	int dirfd, const char *path, const void *data, size_t len, mode_t mode, struct error *e)
{
	char tmp[PATH_BYTES];
	int fd = open_tmp(dirfd, path, mode, tmp), r;

	if (fd < 0)
		return error_set(e, -fd, "'%s': can't write beside it: %s", path, strerror(-fd));
	r = file_write_all(fd, data, len);
	if (!r && (fchmod(fd, mode) || fsync(fd)))
		r = -errno;
	if (close(fd) && !r)
		r = -errno;
	if (!r && renameat(dirfd, tmp, dirfd, path))
		r = -errno;
	if (r) {
		unlinkat(dirfd, tmp, 0);
		return error_set(e, -r, "'%s': %s", path, strerror(-r));
	}
	r = sync_folder(dirfd, path);
	return r ? error_set(e, -r, "'%s': %s", path, strerror(-r)) : 0;
}

int file_open_in(int dirfd, const char *path, int flags, mode_t mode, uint64_t resolve)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned)flags | O_CLOEXEC,
		.mode = flags & (O_CREAT | O_TMPFILE) ? mode : 0,
		.resolve = resolve | RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
	};
	long fd;

	do {
		fd = syscall(SYS_openat2, dirfd, path, &how, sizeof(how));
	} while (fd < 0 && (errno == EAGAIN || errno == EINTR));
	return fd < 0 ? -errno : (int)fd;
}
