#include "guest-init/users.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

struct span {
	const char *s;
	size_t len;
};

static bool span_is(struct span s, const char *text)
{
	return s.len == strlen(text) && !memcmp(s.s, text, s.len);
}

/* Cuts what is before the next @sep off @rest. */
static struct span cut(struct span *rest, char sep)
{
	const char *end = memchr(rest->s, sep, rest->len);
	struct span r = { rest->s, end ? (size_t)(end - rest->s) : rest->len };
	size_t used = MIN(r.len + 1, rest->len);

	rest->s += used;
	rest->len -= used;
	return r;
}

static bool number(struct span s, uint32_t *ret)
{
	uint64_t v = 0;

	if (!s.len || s.len > 10)
		return false;
	for (size_t i = 0; i < s.len; i++) {
		if (s.s[i] < '0' || s.s[i] > '9')
			return false;
		v = v * 10 + (uint64_t)(s.s[i] - '0');
	}
	if (v >= UINT32_MAX) /* -1 means "don't change" to the kernel */
		return false;
	*ret = (uint32_t)v;
	return true;
}

static bool copy(struct span s, char *ret, size_t size)
{
	if (s.len >= size || memchr(s.s, '\0', s.len))
		return false;
	memcpy(ret, s.s, s.len);
	ret[s.len] = '\0';
	return true;
}

/* name:password:uid:gid:comment:home:shell */
static bool passwd_line(struct span line, struct user *u)
{
	struct span name = cut(&line, ':'), uid, gid;

	cut(&line, ':');
	uid = cut(&line, ':');
	gid = cut(&line, ':');
	cut(&line, ':');
	if (!name.len || !copy(name, u->name, sizeof(u->name)) || !number(uid, &u->uid) ||
		!number(gid, &u->gid))
		return false;
	return copy(cut(&line, ':'), u->home, sizeof(u->home)) &&
	       copy(cut(&line, ':'), u->shell, sizeof(u->shell));
}

static void complete(struct user *u)
{
	if (u->home[0] != '/')
		strcpy(u->home, "/");
	if (u->shell[0] != '/')
		strcpy(u->shell, "/bin/sh");
}

int users_parse_passwd(const char *file, size_t len, const char *text, struct user *ret)
{
	struct span all = { file, len }, typed = { text, strlen(text) };
	uint32_t uid = 0;
	bool by_number = number(typed, &uid);
	struct user u;

	while (all.len) {
		if (!passwd_line(cut(&all, '\n'), &u))
			continue;
		if (!strcmp(u.name, text) || (by_number && u.uid == uid)) {
			complete(&u);
			*ret = u;
			return 0;
		}
	}
	if (!by_number)
		return -ENOENT;
	*ret = (struct user){ .uid = uid };
	complete(ret);
	return 0;
}

/* name:password:gid:member,member */
static bool group_line(struct span line, struct span *name, gid_t *gid, struct span *members)
{
	*name = cut(&line, ':');
	cut(&line, ':');
	if (!name->len || !number(cut(&line, ':'), gid))
		return false;
	*members = cut(&line, ':');
	return true;
}

int users_parse_group(const char *file, size_t len, const char *text, gid_t *ret)
{
	struct span all = { file, len }, typed = { text, strlen(text) }, name, members;
	gid_t gid;

	while (all.len)
		if (group_line(cut(&all, '\n'), &name, &gid, &members) && span_is(name, text)) {
			*ret = gid;
			return 0;
		}
	return number(typed, ret) ? 0 : -ENOENT;
}

int users_parse_groups(const char *file, size_t len, const struct user *u, gid_t ret[USERS_GROUPS])
{
	struct span all = { file, len }, name, members;
	gid_t gid;
	int n = 0;

	ret[n++] = u->gid;
	while (all.len && n < USERS_GROUPS && u->name[0]) {
		if (!group_line(cut(&all, '\n'), &name, &gid, &members) || gid == u->gid)
			continue;
		while (members.len)
			if (span_is(cut(&members, ','), u->name)) {
				ret[n++] = gid;
				break;
			}
	}
	return n;
}

static int slurp(const char *path, char **ret, size_t *ret_len)
{
	autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	autofree char *text = NULL;
	size_t len = 0;
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if (st.st_size > USERS_FILE_MAX)
		return -EFBIG;
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return -ENOMEM;
	while (len < (size_t)st.st_size) {
		n = read(fd, text + len, (size_t)st.st_size - len);
		if (n < 0)
			return -errno;
		if (!n)
			break;
		len += (size_t)n;
	}
	*ret = take_ptr(text);
	*ret_len = len;
	return 0;
}

int users_find(const char *text, struct user *ret)
{
	autofree char *file = NULL;
	size_t len = 0;
	int r = slurp("/etc/passwd", &file, &len);

	if (r && r != -ENOENT)
		return r;
	return users_parse_passwd(file ? file : "", len, text, ret);
}

int users_group(const char *text, gid_t *ret)
{
	autofree char *file = NULL;
	size_t len = 0;
	int r = slurp("/etc/group", &file, &len);

	if (r && r != -ENOENT)
		return r;
	return users_parse_group(file ? file : "", len, text, ret);
}

int users_groups(const struct user *u, gid_t ret[USERS_GROUPS])
{
	autofree char *file = NULL;
	size_t len = 0;

	if (slurp("/etc/group", &file, &len))
		len = 0;
	return users_parse_groups(file ? file : "", len, u, ret);
}
