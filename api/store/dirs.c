#include "api/store/dirs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define OPEN_FLAGS (O_RDONLY | O_DIRECTORY | O_CLOEXEC)

struct dirs_rule {
	const char *name;     /* for messages */
	const char *variable; /* environment */
	const char *root;     /* for uid 0 */
	const char *home;     /* below $HOME; NULL: DIRS_TMP */
};

#define DIRS_TMP "/tmp/skerry-%u" /* uid */

static const struct dirs_rule rules[] = {
	[DIRS_STATE] = { "state folder", "XDG_STATE_HOME", "/var/lib/skerry",
		".local/state/skerry" },
	[DIRS_CACHE] = { "cache folder", "XDG_CACHE_HOME", "/var/cache/skerry", ".cache/skerry" },
	[DIRS_RUNTIME] = { "runtime folder", "XDG_RUNTIME_DIR", "/run/skerry", NULL },
};

const char *dirs_kind_name(enum dirs_kind kind)
{
	return rules[kind].name;
}

static bool is_ours(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISDIR(st.st_mode) && st.st_uid == geteuid();
}

/* The folder that the environment names, or NULL. */
static const char *from_environment(enum dirs_kind kind)
{
	const char *dir = getenv(rules[kind].variable);

	if (!dir || dir[0] != '/')
		return NULL;
	return kind == DIRS_RUNTIME && !is_ours(dir) ? NULL : dir;
}

int dirs_path(enum dirs_kind kind, char *ret, size_t size, struct error *e)
{
	const struct dirs_rule *rule = &rules[kind];
	const char *dir = from_environment(kind), *home = getenv("HOME");
	int n;

	if (dir)
		n = snprintf(ret, size, "%s/skerry", dir);
	else if (!geteuid())
		n = snprintf(ret, size, "%s", rule->root);
	else if (!rule->home)
		n = snprintf(ret, size, DIRS_TMP, (unsigned)geteuid());
	else if (home && home[0] == '/')
		n = snprintf(ret, size, "%s/%s", home, rule->home);
	else
		return error_set(e, ENOENT,
			"%s: HOME is %s; set HOME or %s to the absolute path of a folder of yours",
			rule->name, home ? "no absolute path" : "not set", rule->variable);
	if (n < 0 || (size_t)n >= size)
		return error_set(e, ENAMETOOLONG,
			"%s: path longer than %zu bytes; set %s to a shorter one", rule->name,
			size - 1, rule->variable);
	return 0;
}

int dirs_fail(struct error *e, int err, const char *what, const char *path)
{
	const char *verb = NULL, *place = "another disk";
	bool runtime = !strcmp(what, rules[DIRS_RUNTIME].name);

	switch (err) {
	case ENOSPC:
		verb = "free some space (df -h shows it)";
		break;
	case EDQUOT:
		verb = "free some of your quota";
		break;
	case EROFS:
		verb = "make its disk writable";
		break;
	case EACCES:
	case EPERM:
		verb = "let this user write there (sudo chown)";
		place = "a folder of yours";
		break;
	case ENOTDIR:
		verb = "a file or symbolic link is in the way, remove it";
		place = "a folder of yours";
		break;
	}
	if (!verb)
		return error_set(e, err, "%s '%s': %s", what, path, strerror(err));
	return error_set(e, err, "%s '%s': %s; %s, or set %s to %s", what, path, strerror(err),
		verb, runtime ? "XDG_RUNTIME_DIR" : "XDG_STATE_HOME and XDG_CACHE_HOME", place);
}

/* mkdir -p -m 0700; @path is changed on the way and restored. */
static int make_all(char *path)
{
	int first = 0;

	for (char *p = path + 1;; p++) {
		char c = *p;
		int r;

		if (c != '/' && c != '\0')
			continue;
		*p = '\0';
		r = mkdir(path, 0700) && errno != EEXIST ? -errno : 0;
		*p = c;
		/* What can't be made may be there all the same; the next one tells. */
		first = r && !first ? r : first;
		if (c == '\0')
			return r ? first : 0;
	}
}

static int check_private(int fd, const char *path, struct error *e)
{
	struct stat st;

	if (fstat(fd, &st))
		return error_set(e, errno, "runtime folder '%s': %s", path, strerror(errno));
	if (st.st_uid != geteuid())
		return error_set(e, EPERM,
			"runtime folder '%s': belongs to user %u, not to this one (%u); remove it, or set "
			"XDG_RUNTIME_DIR to a folder of yours",
			path, (unsigned)st.st_uid, (unsigned)geteuid());
	if ((st.st_mode & 077) && fchmod(fd, 0700))
		return error_set(e, errno,
			"runtime folder '%s': others may enter it (mode %04o); chmod 700 it", path,
			(unsigned)st.st_mode & 07777);
	return 0;
}

int dirs_open(enum dirs_kind kind, bool create, struct error *e)
{
	int flags = OPEN_FLAGS | (kind == DIRS_RUNTIME ? O_NOFOLLOW : 0), r;
	char path[DIRS_PATH_MAX];
	autoclose int fd = -1;

	r = dirs_path(kind, path, sizeof(path), e);
	if (r)
		return r;
	fd = open(path, flags);
	if (fd < 0 && errno == ENOENT && create) {
		r = make_all(path);
		if (r)
			return dirs_fail(e, -r, rules[kind].name, path);
		fd = open(path, flags);
	}
	if (fd < 0)
		return dirs_fail(e, errno, rules[kind].name, path);
	if (kind == DIRS_RUNTIME) {
		r = check_private(fd, path, e);
		if (r)
			return r;
	}
	return take_fd(&fd);
}

int dirs_open_sub(int dir, const char *path, const char *name, bool create, struct error *e)
{
	char full[DIRS_PATH_MAX + 256];
	int fd;

	snprintf(full, sizeof(full), "%s/%s", path, name);
	if (create && mkdirat(dir, name, 0700) && errno != EEXIST)
		return dirs_fail(e, errno, "folder", full);
	fd = openat(dir, name, OPEN_FLAGS);
	return fd < 0 ? dirs_fail(e, errno, "folder", full) : fd;
}
