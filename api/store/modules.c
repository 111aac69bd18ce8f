#include "api/store/modules.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define DEPTH_MAX 32
#define NAME_SIZE sizeof(((struct module_step *)0)->name)

struct planner {
	const struct modules_info *info;
	const struct module_want *want;
	size_t nwant;
	struct module_plan *plan;
	struct error *e;
};

static int add(struct planner *p, const char *name, unsigned depth);

/* The next line of *text without its newline, or NULL. */
static const char *next_line(const char **text, size_t *ret_len)
{
	const char *line = *text;

	if (!*line)
		return NULL;
	*ret_len = strcspn(line, "\n");
	*text = line + *ret_len + (line[*ret_len] == '\n');
	return line;
}

/* The next blank-separated word of a line, or NULL. */
static const char *next_word(const char **at, const char *end, size_t *ret_len)
{
	const char *p = *at, *start;

	while (p < end && (*p == ' ' || *p == '\t'))
		p++;
	start = p;
	while (p < end && *p != ' ' && *p != '\t')
		p++;
	*at = p;
	*ret_len = (size_t)(p - start);
	return start == p ? NULL : start;
}

/* "kernel/fs/9p/9p-x.ko.xz" -> "9p_x" */
static void module_name(const char *path, size_t len, char ret[NAME_SIZE])
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
		if (path[i] == '/')
			n = i + 1;
	path += n;
	len -= n;
	for (n = 0; n < len && n < NAME_SIZE - 1 && path[n] != '.'; n++)
		ret[n] = path[n] == '-' ? '_' : path[n];
	ret[n] = '\0';
}

static bool is_module(const char *path, size_t len, const char *name)
{
	char own[NAME_SIZE];

	module_name(path, len, own);
	return !strcmp(own, name);
}

static bool is_builtin(const struct modules_info *info, const char *name)
{
	const char *text = info->builtin, *line;
	size_t len;

	while ((line = next_line(&text, &len)))
		if (is_module(line, len, name))
			return true;
	return false;
}

/* "PATH: PATH...": the line of the module, or NULL. */
static const char *find_dep(const struct modules_info *info, const char *name, size_t *ret_len)
{
	const char *text = info->dep, *line;

	while ((line = next_line(&text, ret_len))) {
		const char *colon = memchr(line, ':', *ret_len);

		if (colon && is_module(line, (size_t)(colon - line), name))
			return line;
	}
	return NULL;
}

static bool is_planned(const struct module_plan *plan, const char *name)
{
	for (size_t i = 0; i < plan->n; i++)
		if (!strcmp(plan->step[i].name, name))
			return true;
	return false;
}

/* "alias ALIAS MODULE": the best module for a name that is none itself. */
static bool find_alias(const struct modules_info *info, const char *alias, char ret[NAME_SIZE])
{
	const char *text = info->alias, *line, *end, *word;
	bool found = false;
	size_t len, n;

	while ((line = next_line(&text, &len))) {
		end = line + len;
		word = next_word(&line, end, &n);
		if (!word || n != 5 || memcmp(word, "alias", 5))
			continue;
		word = next_word(&line, end, &n);
		if (!word || n != strlen(alias) || memcmp(word, alias, n))
			continue;
		word = next_word(&line, end, &n);
		if (!word || (found && !memmem(word, n, "_generic", 8)))
			continue;
		module_name(word, n, ret);
		found = true;
	}
	return found;
}

static int add_soft(struct planner *p, const char *word, size_t len, unsigned depth)
{
	char exact[NAME_SIZE], name[NAME_SIZE];
	size_t n;

	snprintf(exact, sizeof(exact), "%.*s", (int)len, word);
	module_name(word, len, name);
	if (!find_dep(p->info, name, &n) && !is_builtin(p->info, name) &&
		!find_alias(p->info, exact, name))
		return 0;
	return is_builtin(p->info, name) || !find_dep(p->info, name, &n) ? 0
									 : add(p, name, depth + 1);
}

/* "softdep NAME pre: A B post: C": those before. Without a keyword they count as neither. */
static int add_softdeps(struct planner *p, const char *name, unsigned depth)
{
	const char *text = p->info->softdep, *line, *end, *word;
	size_t len, n;
	int r = 0;

	while (!r && (line = next_line(&text, &len))) {
		bool pre = false;

		end = line + len;
		word = next_word(&line, end, &n);
		if (!word || n != 7 || memcmp(word, "softdep", 7))
			continue;
		word = next_word(&line, end, &n);
		if (!word || !is_module(word, n, name))
			continue;
		while (!r && (word = next_word(&line, end, &n))) {
			if (word[n - 1] == ':')
				pre = n == 4 && !memcmp(word, "pre:", 4);
			else if (pre)
				r = add_soft(p, word, n, depth);
		}
	}
	return r;
}

/* depmod lists what must be loaded first last. */
static int add_deps(struct planner *p, const char *at, const char *end, unsigned depth)
{
	const char *word;
	char name[NAME_SIZE];
	size_t n;
	int r;

	word = next_word(&at, end, &n);
	if (!word)
		return 0;
	r = add_deps(p, at, end, depth + 1);
	if (r)
		return r;
	module_name(word, n, name);
	return add(p, name, depth + 1);
}

static int append(struct planner *p, const char *path, size_t len, const char *name)
{
	struct module_step *s = &p->plan->step[p->plan->n];

	if (p->plan->n == MODULES_MAX || len >= sizeof(s->path))
		return error_set(p->e, E2BIG,
			"module '%s': more than %d modules, or its path is too long", name,
			MODULES_MAX);
	snprintf(s->path, sizeof(s->path), "%.*s", (int)len, path);
	snprintf(s->name, sizeof(s->name), "%s", name);
	s->options = NULL;
	for (size_t i = 0; i < p->nwant; i++)
		if (is_module(p->want[i].name, strlen(p->want[i].name), name))
			s->options = p->want[i].options;
	p->plan->n++;
	return 0;
}

/* A module of the kernel, which modules.dep must know. */
static int add(struct planner *p, const char *name, unsigned depth)
{
	const char *line, *colon;
	size_t len;
	int r;

	if (is_planned(p->plan, name))
		return 0;
	line = find_dep(p->info, name, &len);
	if (!line)
		return error_set(p->e, ENOENT, "module '%s': modules.dep doesn't know it", name);
	if (depth > DEPTH_MAX)
		return error_set(p->e, ELOOP, "module '%s': its dependencies go in a circle", name);
	colon = memchr(line, ':', len);
	r = add_softdeps(p, name, depth);
	if (!r)
		r = add_deps(p, colon + 1, line + len, depth);
	/* A soft dependency may have brought it in. */
	if (r || is_planned(p->plan, name))
		return r;
	return append(p, line, (size_t)(colon - line), name);
}

int modules_plan(const struct modules_info *info, const struct module_want *want, size_t nwant,
	struct module_plan *ret, struct error *e)
{
	struct planner p = { info, want, nwant, ret, e };
	char name[NAME_SIZE];
	size_t len;
	int r = 0;

	ret->n = 0;
	for (size_t i = 0; !r && i < nwant; i++) {
		module_name(want[i].name, strlen(want[i].name), name);
		if (find_dep(info, name, &len))
			r = add(&p, name, 0);
		else if (!is_builtin(info, name) && !want[i].optional)
			r = error_set(e, ENOENT,
				"module '%s': neither among the kernel's modules nor built in",
				want[i].name);
	}
	return r;
}

/*
 *   module | signature | trailer | "~Module signature appended~\n"
 *   trailer: 8 bytes of kinds and lengths, 4 bytes length of the signature, big endian
 */
size_t modules_code_len(const uint8_t *module, size_t len)
{
	static const char magic[] = "~Module signature appended~\n";
	const size_t magic_len = sizeof(magic) - 1, tail = magic_len + 12;
	const uint8_t *n;
	size_t signature;

	if (len < tail || memcmp(module + len - magic_len, magic, magic_len))
		return len;
	n = module + len - magic_len - 4;
	signature = (size_t)n[0] << 24 | (size_t)n[1] << 16 | (size_t)n[2] << 8 | n[3];
	return signature <= len - tail ? len - tail - signature : len;
}
