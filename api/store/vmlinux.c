#include "api/store/vmlinux.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "api/store/bzimage.h"
#include "api/store/dirs.h"
#include "api/store/hash.h"
#include "api/store/object.h"
#include "base/file.h"

#define HOLE_SIZE  4096 /* file systems punch whole blocks */
#define FILE_NAME  "vmlinux"
#define COPY_CHUNK (256 * KIB)

struct packed {
	uint8_t *data; /* the whole file */
	size_t len;
	struct bzimage image;
};

static int read_at(int fd, void *buf, size_t len, off_t off)
{
	size_t have = 0;

	while (have < len) {
		ssize_t n = pread(fd, (uint8_t *)buf + have, len - have, off + (off_t)have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -ENODATA; /* it shrank meanwhile */
		have += (size_t)n;
	}
	return 0;
}

static int read_failed(int r, struct error *e)
{
	return error_set(e, -r, "can't be read: %s",
		r == -ENODATA ? "it became shorter meanwhile" : strerror(-r));
}

/* The kind of file and, of a regular one, its start. */
static int examine(int fd, uint8_t *head, size_t *ret_len, struct stat *st, struct error *e)
{
	int r;

	if (fstat(fd, st))
		return read_failed(-errno, e);
	if (S_ISDIR(st->st_mode))
		return error_set(e, EISDIR, "is a folder; name the vmlinux or bzImage in it");
	if (!S_ISREG(st->st_mode))
		return error_set(e, EINVAL, "is no regular file; name a vmlinux or bzImage");
	*ret_len = MIN((uint64_t)st->st_size, BZIMAGE_HEAD_MAX);
	r = read_at(fd, head, *ret_len, 0);
	return r ? read_failed(r, e) : 0;
}

/* @ret->data stays NULL for an ELF file. */
static int load_packed(int fd, struct packed *ret, struct error *e)
{
	uint8_t head[BZIMAGE_HEAD_MAX];
	struct stat st;
	size_t len;
	int r;

	*ret = (struct packed){ 0 };
	r = examine(fd, head, &len, &st, e);
	if (!r)
		r = bzimage_identify(head, len, (uint64_t)st.st_size, &ret->image, e);
	if (r || ret->image.kind == BZIMAGE_ELF)
		return r;
	if ((uint64_t)st.st_size > VMLINUX_PACKED_MAX)
		return error_set(e, EFBIG, "is compressed and larger than %llu MiB",
			(unsigned long long)(VMLINUX_PACKED_MAX / MIB));
	ret->len = (size_t)st.st_size;
	ret->data = malloc(ret->len);
	if (!ret->data)
		return error_set(e, ENOMEM, "out of memory");
	r = read_at(fd, ret->data, ret->len, 0);
	if (r) {
		free(take_ptr(ret->data));
		return read_failed(r, e);
	}
	return 0;
}

static int to_file(void *ctx, const void *data, size_t len)
{
	return file_write_all(*(const int *)ctx, data, len);
}

/* Whatever was unpacked must be a vmlinux. */
static int check_file(int fd, struct error *e)
{
	uint8_t head[BZIMAGE_HEAD_MAX];
	struct stat st;
	size_t len;
	int r = examine(fd, head, &len, &st, e);

	return r ? r : bzimage_check_elf(head, len, (uint64_t)st.st_size, e);
}

/* @out: for reading and writing */
static int unpack(const struct packed *p, int out, struct error *e)
{
	const uint8_t *data = p->data + p->image.payload_off;
	enum decompress_kind kind = decompress_detect(data, p->image.payload_len);
	int r;

	if (p->image.payload_len >= 4 && !memcmp(data, "\177ELF", 4)) {
		r = file_write_all(out, data, p->image.payload_len);
		if (r)
			return error_set(e, -r, "can't be unpacked: %s", strerror(-r));
	} else if (kind == DECOMPRESS_UNKNOWN) {
		return error_set(e, ENOEXEC,
			"is a bzImage of unknown compression (it begins with %02x %02x)",
			p->image.payload_len ? data[0] : 0, p->image.payload_len > 1 ? data[1] : 0);
	} else {
		r = decompress(kind, data, p->image.payload_len, VMLINUX_MAX, to_file, &out, e);
		if (r) {
			error_prefix(e, "can't be unpacked");
			return r;
		}
	}
	r = check_file(out, e);
	if (r)
		error_prefix(e, "what it contains");
	return r;
}

static int copy_file(int fd, int out, struct error *e)
{
	autofree uint8_t *buf = malloc(COPY_CHUNK);
	off_t off = 0;
	ssize_t n;
	int r;

	if (!buf)
		return error_set(e, ENOMEM, "out of memory");
	while ((n = pread(fd, buf, COPY_CHUNK, off))) {
		if (n < 0 && errno == EINTR)
			continue;
		r = n < 0 ? -errno : file_write_all(out, buf, (size_t)n);
		if (r)
			return error_set(e, -r, "can't be copied: %s", strerror(-r));
		off += n;
	}
	return 0;
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return !p[0] && !memcmp(p, p + 1, len - 1);
}

/*
 * A third of a kernel is padding and zeroed data. As holes they aren't copied into a guest at each start. A file
 * system that can't have holes costs that time, and nothing else.
 */
static void dig_holes(int fd)
{
	uint8_t page[HOLE_SIZE];
	off_t start = 0, off = 0;

	for (; pread(fd, page, sizeof(page), off) == (ssize_t)sizeof(page); off += HOLE_SIZE) {
		if (is_zero(page, sizeof(page)))
			continue;
		if (off > start && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start,
					   off - start))
			return;
		start = off + HOLE_SIZE;
	}
}

int vmlinux_unpack(int fd, int out, struct error *e)
{
	struct packed p;
	int r = load_packed(fd, &p, e);

	if (!r)
		r = p.data ? unpack(&p, out, e) : copy_file(fd, out, e);
	free(p.data);
	if (!r)
		dig_holes(out);
	return r;
}

/* ---- the cache ---- */

static int open_cached(int cache, const char *hash)
{
	char name[HASH_TEXT + sizeof(FILE_NAME) + 1];
	int fd;

	snprintf(name, sizeof(name), "%s/%s", hash, FILE_NAME);
	fd = openat(cache, name, O_RDONLY | O_CLOEXEC);
	/* The folder's time says when it was last used; a cache on a read-only disk serves all the same. */
	if (fd >= 0)
		(void)!utimensat(cache, hash, NULL, 0);
	return fd;
}

static bool is_older(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec ? a->tv_sec < b->tv_sec : a->tv_nsec < b->tv_nsec;
}

/* How many there are, and the least recently used one. */
static unsigned count(int cache, char oldest[OBJECT_NAME_MAX + 1])
{
	int fd = openat(cache, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct timespec t = { 0 };
	struct dirent *ent;
	unsigned n = 0;
	struct stat st;

	if (!d) {
		close_fd(&fd);
		return 0;
	}
	while ((ent = readdir(d))) {
		if (!object_name_ok(ent->d_name) || fstatat(cache, ent->d_name, &st, 0))
			continue;
		if (!n++ || is_older(&st.st_mtim, &t)) {
			t = st.st_mtim;
			snprintf(oldest, OBJECT_NAME_MAX + 1, "%.*s", OBJECT_NAME_MAX, ent->d_name);
		}
	}
	closedir(d);
	return n;
}

static void prune(int cache)
{
	char oldest[OBJECT_NAME_MAX + 1];

	while (count(cache, oldest) > VMLINUX_CACHE_KEEP)
		if (object_remove_tree(cache, oldest))
			return;
}

static int add_to_cache(
	int cache, const char *path, const char *hash, const struct packed *p, struct error *e)
{
	autoclose int out = -1;
	struct object o;
	int r = object_begin(&o, cache, path, e);

	if (r)
		return r;
	out = openat(o.dir, FILE_NAME, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (out < 0)
		r = dirs_fail(e, errno, "folder", path);
	else
		r = unpack(p, out, e);
	if (r) {
		object_abort(&o);
		return r == -ENOSPC || r == -EDQUOT ? dirs_fail(e, -r, "cache folder", path) : r;
	}
	r = object_publish(&o, hash, false, e);
	prune(cache);
	return r < 0 ? r : 0;
}

static int find_or_add(const struct packed *p, int *ret_fd, struct error *e)
{
	char path[DIRS_PATH_MAX], hash[HASH_TEXT];
	autoclose int dir = -1, cache = -1;
	int r = dirs_path(DIRS_CACHE, path, sizeof(path), e);

	if (r)
		return r;
	dir = dirs_open(DIRS_CACHE, true, e);
	cache = dir < 0 ? dir : dirs_open_sub(dir, path, "kernels", true, e);
	if (cache < 0)
		return cache;
	hash_memory(p->data, p->len, hash);
	*ret_fd = open_cached(cache, hash);
	if (*ret_fd >= 0)
		return 0;
	r = add_to_cache(cache, path, hash, p, e);
	if (r)
		return r;
	*ret_fd = open_cached(cache, hash);
	return *ret_fd < 0 ? dirs_fail(e, errno, "cache folder", path) : 0;
}

int vmlinux_open(const char *path, int *ret_fd, struct error *e)
{
	/* O_NONBLOCK: a FIFO must not hang us */
	autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct packed p;
	int r, cached = -1;

	if (fd < 0)
		return error_set(e, errno, "kernel '%s': %s", path, strerror(errno));
	r = load_packed(fd, &p, e);
	if (!r && p.data)
		r = find_or_add(&p, &cached, e);
	free(p.data);
	if (r) {
		error_prefix(e, "kernel '%s'", path);
		return r;
	}
	*ret_fd = cached >= 0 ? cached : take_fd(&fd);
	return 0;
}
