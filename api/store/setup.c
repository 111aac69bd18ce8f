#include "api/store/setup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "api/store/format.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"

#define LOCK_FILE    "setup.lock"
#define LOG_FILE     "setup.log"
#define LOCK_TURN_MS 200
#define JSON_BYTES   (256 * KIB)
#define ARGS_MAX     64

/* ---- one at a time ---- */

static int take_lock(struct setup *s, struct error *e)
{
	bool said = false;

	s->lock = openat(s->state, LOCK_FILE, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (s->lock < 0)
		return dirs_fail(e, errno, "state folder", s->path);
	while (flock(s->lock, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return error_set(
				e, errno, "%s/%s: lock: %s", s->path, LOCK_FILE, strerror(errno));
		if (!said)
			progress_say(
				&s->progress, "another 'skerry setup' is at work: waiting for it");
		said = true;
		if (job_stopped(&s->host))
			return error_set(e, EINTR, "stopped by signal %d", s->host.caught);
		job_sleep(&s->host, LOCK_TURN_MS);
	}
	return 0;
}

static int open_log(struct setup *s, struct error *e)
{
	autoclose int cache = dirs_open(DIRS_CACHE, true, e);
	char path[DIRS_PATH_MAX];
	int fd, r;

	if (cache < 0)
		return cache;
	r = dirs_path(DIRS_CACHE, path, sizeof(path), e);
	if (r)
		return r;
	snprintf(s->log_path, sizeof(s->log_path), "%s/%s", path, LOG_FILE);
	fd = openat(cache, LOG_FILE, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	s->log = fd < 0 ? NULL : fdopen(fd, "w");
	return s->log ? 0 : dirs_fail(e, errno, "cache folder", path);
}

int setup_open(struct setup *s, bool quiet, struct error *e)
{
	int r;

	s->state = s->lock = s->host.signal_fd = -1;
	progress_init(&s->progress, quiet);
	r = dirs_path(DIRS_STATE, s->path, sizeof(s->path), e);
	if (r)
		return r;
	s->state = format_open_state(true, e);
	if (s->state < 0)
		return s->state;
	r = job_host_init(&s->host, e);
	if (!r)
		r = take_lock(s, e);
	return r ? r : open_log(s, e);
}

void setup_close(struct setup *s)
{
	if (s->log)
		fclose(s->log);
	s->log = NULL;
	close_fd(&s->lock);
	close_fd(&s->state);
	close_fd(&s->host.signal_fd);
}

/* ---- running programs ---- */

struct listener {
	struct setup *s;
	const struct setup_run *run;
	char cause[JOB_LINE_MAX]; /* the last line that looks like the reason */
	bool disk_full, no_network, no_keys;
};

static bool contains_any(const char *line, const char *const *words)
{
	for (; *words; words++)
		if (strstr(line, *words))
			return true;
	return false;
}

static void note_cause(struct listener *l, const char *line)
{
	static const char *const full[] = { "No space left on device", "enough free space",
		"not enough space", "Could not allocate block", NULL };
	static const char *const network[] = { "Temporary failure resolving", "Could not resolve",
		"Could not connect", "Connection timed out", "Connection refused",
		"Unable to connect", "Failed to fetch", "Network is unreachable", NULL };
	static const char *const keys[] = { "NO_PUBKEY", "is not signed", "couldn't be verified",
		"Missing key", NULL };

	l->disk_full = l->disk_full || contains_any(line, full);
	l->no_keys = l->no_keys || contains_any(line, keys);
	if (contains_any(line, network)) {
		l->no_network = true;
		snprintf(l->cause, sizeof(l->cause), "%s", line);
	} else if (!l->no_network && (!strncmp(line, "E: ", 3) || strstr(line, "rror"))) {
		snprintf(l->cause, sizeof(l->cause), "%s", line);
	} else if (!l->cause[0]) {
		snprintf(l->cause, sizeof(l->cause), "%s", line);
	}
}

static void on_line(void *ctx, const char *line)
{
	struct listener *l = ctx;
	const struct setup_step *step = l->run->steps;

	if (!line) {
		progress_tick(&l->s->progress);
		return;
	}
	fprintf(l->s->log, "%s\n", line);
	note_cause(l, line);
	for (; step && step->line; step++)
		if (!strncmp(line, step->line, strlen(step->line)))
			progress_step(&l->s->progress, step->text);
	progress_tick(&l->s->progress);
}

static int explain(const struct listener *l, int status, struct error *e)
{
	const struct setup *s = l->s;
	const char *program = l->run->argv[0];

	if (l->disk_full)
		return dirs_fail(e, ENOSPC, "state folder", s->path);
	if (l->no_keys)
		return error_set(e, EKEYREJECTED,
			"the packages' signatures can't be checked; run: sudo apt-get install "
			"debian-archive-keyring; %s says more",
			s->log_path);
	if (l->no_network)
		return error_set(e, ENETUNREACH,
			"can't fetch packages (%s); check the network and the http_proxy variable, or name a "
			"mirror: --mirror URL",
			l->cause);
	return error_set(e, EIO, "%s failed with status %d: %s; %s says more", program, status,
		l->cause, s->log_path);
}

int setup_run(struct setup *s, const struct setup_run *run, struct error *e)
{
	autofree struct listener *l = calloc(1, sizeof(*l));
	struct job job = { .argv = run->argv,
		.package = run->package,
		.tmpdir = s->object[0] ? s->object : NULL,
		.own_root = run->own_root,
		.line = on_line,
		.ctx = l };
	int r;

	if (!l)
		return error_set(e, ENOMEM, "out of memory");
	l->s = s;
	l->run = run;
	for (size_t i = 0; run->argv[i]; i++)
		fprintf(s->log, "%s%s", i ? " " : "+ ", run->argv[i]);
	fputc('\n', s->log);
	r = job_run(&s->host, &job, e);
	fflush(s->log);
	return r > 0 ? explain(l, r, e) : r;
}

/* ---- objects ---- */

struct remover {
	struct setup *s;
	const char *folder;
};

/* rm as root of a namespace: what a chroot left belongs to subordinate ids. */
static int remove_as_root(struct setup *s, const char *path, struct error *e)
{
	const char *const argv[] = { "rm", "-rf", "--one-file-system", "--", path, NULL };
	struct setup_run run = { .argv = argv, .package = "coreutils", .own_root = true };

	return setup_run(s, &run, e);
}

static int remove_leftover(void *ctx, int parent, const char *name)
{
	struct remover *r = ctx;
	char path[DIRS_PATH_MAX + 128];
	int err = object_remove_tree(parent, name);

	if (err != -EACCES && err != -EPERM)
		return err;
	snprintf(path, sizeof(path), "%s/%s/%s", r->s->path, r->folder, name);
	return remove_as_root(r->s, path, NULL);
}

int setup_object(
	struct setup *s, const char *folder, int *ret_folder, struct object *ret, struct error *e)
{
	struct remover remover = { s, folder };
	autoclose int fd = dirs_open_sub(s->state, s->path, folder, true, e);
	int r;

	if (fd < 0)
		return fd;
	object_sweep(fd, remove_leftover, &remover);
	r = object_begin(ret, fd, s->path, e);
	if (r)
		return r;
	snprintf(s->object, sizeof(s->object), "%s/%s/%s", s->path, folder, ret->name);
	*ret_folder = take_fd(&fd);
	return 0;
}

/* ---- packages ---- */

static const struct setup_step debootstrap_steps[] = {
	{ "I: running apt-get update", "reading package lists" },
	{ "I: downloading packages", "downloading packages" },
	{ "I: extracting archives", "unpacking packages" },
	{ "I: installing essential packages", "installing packages" },
	{ "I: installing remaining packages", "installing packages" },
	{ NULL, NULL },
};

int setup_debootstrap(struct setup *s, const char *variant, const char *suite, const char *packages,
	const char *const *more, struct error *e)
{
	autofree char *opt_include = NULL, *tree = NULL;
	char opt_variant[64];
	const char *argv[ARGS_MAX] = { "mmdebstrap", "--mode=root", "--format=directory",
		opt_variant };
	struct setup_run run = {
		.argv = argv, .package = "mmdebstrap", .own_root = true, .steps = debootstrap_steps
	};
	size_t n = 4;

	snprintf(opt_variant, sizeof(opt_variant), "--variant=%s", variant);
	if (asprintf(&opt_include, "--include=%s", packages) < 0 ||
		asprintf(&tree, "%s/" SETUP_TREE, s->object) < 0)
		return error_set(e, ENOMEM, "out of memory");
	argv[n++] = opt_include;
	for (; more && *more && n < ARGS_MAX - 4; more++)
		argv[n++] = *more;
	argv[n++] = suite;
	argv[n++] = tree;
	argv[n++] = s->mirror;
	return setup_run(s, &run, e);
}

int setup_remove_tree(struct setup *s, const struct object *o, struct error *e)
{
	char path[sizeof(s->object) + sizeof(SETUP_TREE)];

	if (!object_remove_tree(o->dir, SETUP_TREE))
		return 0;
	snprintf(path, sizeof(path), "%s/" SETUP_TREE, s->object);
	return remove_as_root(s, path, e);
}

void setup_abort(struct setup *s, struct object *o)
{
	if (o->dir < 0)
		return;
	/* When the user wants to stop, no more programs: the next setup removes what is left. */
	if (!s->host.caught && setup_remove_tree(s, o, NULL))
		progress_say(
			&s->progress, "%s: can't be removed now; the next setup will", s->object);
	object_abort(o);
}

bool setup_is_current(int state, const char *folder, const char *name, const char *json,
	uint64_t recipe, const char *file)
{
	autofree char *text = NULL;
	autojson cJSON *j = NULL;
	char path[256];
	uint64_t got = 0;
	size_t len;

	snprintf(path, sizeof(path), "%s/%s/%s", folder, name, file);
	if (faccessat(state, path, R_OK, 0))
		return false;
	snprintf(path, sizeof(path), "%s/%s/%s", folder, name, json);
	return !file_read(state, path, JSON_BYTES, &text, &len, NULL) &&
	       !json_parse(&j, text, len, json, NULL) &&
	       json_u64(j, "recipe", JSON_REQUIRED, 1, UINT32_MAX, &got, NULL) == 1 &&
	       got == recipe;
}

void setup_date(char ret[24])
{
	time_t now = time(NULL);
	struct tm tm;

	gmtime_r(&now, &tm);
	strftime(ret, 24, "%Y-%m-%dT%H:%M:%SZ", &tm);
}
