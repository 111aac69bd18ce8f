#include "api/store/object.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "api/store/dirs.h"

#define PREFIX    ".new-"
#define OLD       ".old-"
#define TRIES     16
#define DEPTH_MAX 256
#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)

bool object_name_ok(const char *name)
{
	static const char first[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
	size_t n = strlen(name);

	if (!n || n > OBJECT_NAME_MAX || !strchr(first, name[0]))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!strchr(first, name[i]) && !strchr("._+-", name[i]))
			return false;
	return true;
}

static int remove_at(int dir, const char *name, unsigned depth);

static int remove_inside(int fd, unsigned depth)
{
	DIR *d = fdopendir(fd);
	struct dirent *ent;
	int r = 0, one;

	if (!d) {
		r = -errno;
		close(fd);
		return r;
	}
	while ((ent = readdir(d))) {
		if (!strcmp(ent->d_name, ".") || !strcmp(ent->d_name, ".."))
			continue;
		one = remove_at(fd, ent->d_name, depth + 1);
		r = r ? r : one;
	}
	closedir(d);
	return r;
}

static int remove_at(int dir, const char *name, unsigned depth)
{
	int fd, r;

	if (!unlinkat(dir, name, 0) || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	if (depth > DEPTH_MAX)
		return -ELOOP;
	fd = openat(dir, name, DIR_FLAGS);
	if (fd < 0)
		return -errno;
	r = remove_inside(fd, depth);
	if (unlinkat(dir, name, AT_REMOVEDIR) && errno != ENOENT && !r)
		r = -errno;
	return r;
}

int object_remove_tree(int dir, const char *name)
{
	return remove_at(dir, name, 0);
}

/* Is @fd still what @name in @parent leads to? */
static bool same_folder(int parent, const char *name, int fd)
{
	struct stat a, b;

	return !fstat(fd, &a) && !fstatat(parent, name, &b, AT_SYMLINK_NOFOLLOW) &&
	       a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* What nobody holds a lock on is a leftover. */
void object_sweep(int parent, int (*remove)(void *ctx, int parent, const char *name), void *ctx)
{
	int fd = openat(parent, ".", DIR_FLAGS);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *ent;

	if (!d) {
		close_fd(&fd);
		return;
	}
	while ((ent = readdir(d))) {
		autoclose int old = -1;

		if (strncmp(ent->d_name, PREFIX, strlen(PREFIX)) &&
			strncmp(ent->d_name, OLD, strlen(OLD)))
			continue;
		old = openat(parent, ent->d_name, DIR_FLAGS);
		if (old < 0 || flock(old, LOCK_EX | LOCK_NB))
			continue;
		if (remove)
			remove(ctx, parent, ent->d_name);
		else
			object_remove_tree(parent, ent->d_name);
	}
	closedir(d);
}

static int random_name(char *ret, size_t size, const char *prefix)
{
	uint64_t id;

	if (getrandom(&id, sizeof(id), 0) != sizeof(id))
		return -EIO;
	snprintf(ret, size, "%s%016" PRIx64, prefix, id);
	return 0;
}

/* Another process may sweep between mkdir and flock: then it starts over. */
static int make_locked(struct object *o)
{
	for (int i = 0; i < TRIES; i++) {
		autoclose int fd = -1;
		int r = random_name(o->name, sizeof(o->name), PREFIX);

		if (r)
			return r;
		if (mkdirat(o->parent, o->name, 0700)) {
			if (errno == EEXIST)
				continue;
			return -errno;
		}
		fd = openat(o->parent, o->name, DIR_FLAGS);
		if (fd < 0 && errno != ENOENT)
			return -errno;
		if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) || !same_folder(o->parent, o->name, fd))
			continue;
		o->dir = take_fd(&fd);
		return 0;
	}
	return -EBUSY;
}

int object_begin(struct object *ret, int parent, const char *path, struct error *e)
{
	struct object o = { .parent = parent, .dir = -1 };
	int r;

	object_sweep(parent, NULL, NULL);
	r = make_locked(&o);
	if (r)
		return dirs_fail(e, -r, "folder", path);
	*ret = o;
	return 0;
}

static int sync_file(int dir, const char *name)
{
	autoclose int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	return fd < 0 || fsync(fd) ? -errno : 0;
}

/* An object is flat. */
static int sync_all(int dir)
{
	int fd = openat(dir, ".", DIR_FLAGS), r = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *ent;

	if (!d) {
		r = -errno;
		close_fd(&fd);
		return r;
	}
	while (!r && (ent = readdir(d)))
		if (strcmp(ent->d_name, ".") && strcmp(ent->d_name, ".."))
			r = sync_file(dir, ent->d_name);
	closedir(d);
	return r || !fsync(dir) ? r : -errno;
}

/* Swaps the two where the file system can; else the name is absent for a moment, never half. */
static int rename_over(struct object *o, const char *name)
{
	char old[32];
	int r;

	if (!renameat2(o->parent, o->name, o->parent, name, RENAME_EXCHANGE)) {
		object_remove_tree(o->parent, o->name);
		return 0;
	}
	if (errno == EINVAL || errno == ENOSYS) {
		r = random_name(old, sizeof(old), OLD);
		if (r)
			return r;
		if (renameat(o->parent, name, o->parent, old) && errno != ENOENT)
			return -errno;
		r = renameat(o->parent, o->name, o->parent, name) ? -errno : 0;
		object_remove_tree(o->parent, old);
		return r;
	}
	if (errno != ENOENT)
		return -errno;
	return renameat(o->parent, o->name, o->parent, name) ? -errno : 0;
}

int object_publish(struct object *o, const char *name, bool replace, struct error *e)
{
	int r = sync_all(o->dir);

	if (!r && replace)
		r = rename_over(o, name);
	else if (!r && renameat(o->parent, o->name, o->parent, name))
		r = -errno;
	if (!r && fsync(o->parent))
		r = -errno;
	if (r == -EEXIST || r == -ENOTEMPTY) {
		object_abort(o);
		return 1;
	}
	if (r) {
		object_abort(o);
		return dirs_fail(e, -r, "object", name);
	}
	close_fd(&o->dir);
	return 0;
}

void object_abort(struct object *o)
{
	if (o->dir < 0)
		return;
	object_remove_tree(o->parent, o->name);
	close_fd(&o->dir);
}
