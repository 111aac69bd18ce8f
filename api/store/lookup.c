#include "api/store/lookup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "api/store/format.h"
#include "api/store/object.h"
#include "base/table.h"

#define LIST_MAX  256 /* names looked at */
#define LIST_TEXT 200 /* bytes of them in a message */

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

struct names {
	char *name[LIST_MAX + 1]; /* NULL after the last */
	size_t n;
};

static void names_add(struct names *l, const char *name)
{
	if (l->n == LIST_MAX)
		return;
	l->name[l->n] = strdup(name);
	if (l->name[l->n])
		l->n++;
}

static void names_free(struct names *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->name[i]);
}

static void list_objects(const struct lookup_kind *kind, int folder, struct names *ret)
{
	int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *ent;

	if (!d) {
		close_fd(&fd);
		return;
	}
	while ((ent = readdir(d)))
		if (object_name_ok(ent->d_name) &&
			(!kind->hidden || strcmp(ent->d_name, kind->hidden)))
			names_add(ret, ent->d_name);
	closedir(d);
	qsort(ret->name, ret->n, sizeof(ret->name[0]), compare);
}

static void join(const struct names *l, char *ret, size_t size)
{
	size_t used = 0;

	ret[0] = '\0';
	for (size_t i = 0; i < l->n && used + strlen(l->name[i]) + 8 < size; i++)
		used += (size_t)snprintf(
			ret + used, size - used, "%s%s", i ? ", " : "", l->name[i]);
}

static bool can_make(const struct lookup_kind *kind, const char *name)
{
	for (const char *const *m = kind->makes; *m; m++)
		if (!strcmp(*m, name))
			return true;
	return false;
}

/* No object, no file. */
static int not_found(const struct lookup_kind *kind, int folder, const char *name, struct error *e)
{
	struct names l = { 0 };
	char text[LIST_TEXT];
	const char *near;

	list_objects(kind, folder, &l);
	join(&l, text, sizeof(text));
	if (can_make(kind, name)) {
		names_free(&l);
		if (!strcmp(name, kind->makes[0]))
			return error_set(e, ENOENT, "%s '%s': is not set up; run: skerry setup",
				kind->what, name);
		return error_set(e, ENOENT, "%s '%s': is not set up; run: skerry setup --%s %s",
			kind->what, name, kind->what, name);
	}
	for (const char *const *m = kind->makes; *m; m++)
		names_add(&l, *m);
	near = table_nearest(name, (const char *const *)l.name);
	error_set(e, ENOENT, "%s '%s': no such %s or file; %s%s%sthere %s: %s", kind->what, name,
		kind->what, near ? "did you mean '" : "", near ? near : "", near ? "'? " : "",
		*text ? "is" : "is none, run", *text ? text : "skerry setup");
	names_free(&l);
	return -ENOENT;
}

static int open_folder(const struct lookup_kind *kind, struct error *e)
{
	autoclose int state = format_open_state(false, e);
	int fd;

	if (state < 0)
		return state;
	fd = openat(state, kind->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? error_set(e, errno, "state folder '%s': %s", kind->folder, strerror(errno))
		      : fd;
}

int lookup(const struct lookup_kind *kind, const char *name, int *ret_dir, struct error *e)
{
	autoclose int folder = -1;
	int fd;

	if (strchr(name, '/'))
		return LOOKUP_PATH;
	folder = open_folder(kind, e);
	if (folder < 0 && folder != -ENOENT)
		return folder;
	fd = folder < 0 || !object_name_ok(name)
		     ? -1
		     : openat(folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd >= 0) {
		*ret_dir = fd;
		return LOOKUP_OBJECT;
	}
	if (*name && !access(name, F_OK))
		return LOOKUP_PATH;
	return not_found(kind, folder, name, e);
}
