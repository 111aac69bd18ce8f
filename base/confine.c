/*
 * base/confine.c - the order in which a role gives things up
 *
 * What:    the empty root first (it needs CAP_SYS_ADMIN, and Landlock forbids mounts), then ids and
 *          capabilities, then Landlock, then the switches that keep memory from becoming readable
 *          to others or executable.
 * Threads: before the first thread is started: ids and capabilities are each thread's own.
 */
#include "base/confine.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/confine_int.h"

#define ARG_PREFIX "--confine="

#ifndef PR_SET_MDWE
#define PR_SET_MDWE              65 /* Linux 6.3 */
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

static const char *const level_names[] = {
	[CONFINE_NONE] = "none",
	[CONFINE_BASIC] = "basic",
	[CONFINE_ROOT] = "root",
	[CONFINE_FULL] = "full",
};

static bool entered;
static enum confine_level entered_level;

const char *confine_level_name(enum confine_level level)
{
	return (size_t)level < ARRAY_SIZE(level_names) ? level_names[level] : "unknown";
}

void confine_arg_format(char ret[CONFINE_ARG_MAX], const struct confine_arg *a)
{
	int n = snprintf(ret, CONFINE_ARG_MAX, ARG_PREFIX "%s", confine_level_name(a->level));

	if (a->set_ids)
		n += snprintf(ret + n, CONFINE_ARG_MAX - (size_t)n, ":%u:%u", a->uid, a->gid);
	if (a->die_with_parent)
		snprintf(ret + n, CONFINE_ARG_MAX - (size_t)n, ",die");
}

int confine_arg_parse(struct confine_arg *ret, const char *text)
{
	struct confine_arg a = { 0 };
	size_t level, n;
	int used = 0;

	if (!text || strncmp(text, ARG_PREFIX, strlen(ARG_PREFIX)))
		return -EINVAL;
	text += strlen(ARG_PREFIX);
	n = strcspn(text, ":,");
	for (level = 0; level < ARRAY_SIZE(level_names); level++)
		if (strlen(level_names[level]) == n && !strncmp(text, level_names[level], n))
			break;
	if (level == ARRAY_SIZE(level_names))
		return -EINVAL;
	a.level = (enum confine_level)level;
	text += n;
	if (*text == ':') {
		if (sscanf(text, ":%u:%u%n", &a.uid, &a.gid, &used) != 2)
			return -EINVAL;
		a.set_ids = true;
		text += used;
	}
	if (!strcmp(text, ",die")) {
		a.die_with_parent = true;
		text += strlen(text);
	}
	if (*text)
		return -EINVAL;
	*ret = a;
	return 0;
}

/* A change of ids or capabilities clears the signal that process_spawn() asked for. */
static int die_with_parent(struct error *e)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
		return error_set(e, errno, "confinement: PR_SET_PDEATHSIG: %s", strerror(errno));
	return 0;
}

/* Everything but namespaces and seccomp, in an order that each next step still permits. */
static int give_up(const struct confine_arg *a, struct error *e)
{
	int abi, r = a->level >= CONFINE_ROOT ? confine_root_empty(e) : 0;

	if (r)
		return r;
	r = confine_privileges_drop(a, e);
	if (r)
		return r;
	r = confine_landlock(&abi, e); /* wants no_new_privs */
	if (r)
		return r;
	if (prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) && errno != EINVAL)
		return error_set(e, errno, "confinement: PR_SET_MDWE: %s", strerror(errno));
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		return error_set(e, errno, "confinement: PR_SET_DUMPABLE: %s", strerror(errno));
	return 0;
}

int confine_enter(const char *arg, enum confine_level *ret, struct error *e)
{
	struct confine_arg a;
	int r = confine_arg_parse(&a, arg);

	if (r)
		return error_set(e, EINVAL,
			"confinement: '%s' is not what a role is started with; run skerry instead",
			arg ? arg : "");
	/* An exec by descriptor names the process after the descriptor. */
	prctl(PR_SET_NAME, program_invocation_short_name, 0, 0, 0);
	if (a.level != CONFINE_NONE) {
		r = give_up(&a, e);
		if (r)
			return r;
	}
	if (a.die_with_parent) {
		r = die_with_parent(e);
		if (r)
			return r;
	}
	entered = true;
	*ret = entered_level = a.level;
	return 0;
}

int confine_lock(enum confine_thread kind, struct error *e)
{
	if (!entered)
		return error_set(e, EINVAL, "confinement: confine_lock() before confine_enter()");
	return entered_level == CONFINE_NONE ? 0 : confine_seccomp(kind, e);
}
