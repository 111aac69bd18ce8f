#include "api/store/setup_image.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "api/store/hash.h"
#include "api/store/image_files.h"
#include "api/store/images.h"
#include "base/file.h"
#include "base/json.h"

#define RECIPE      2 /* raise it when an object made before no longer serves */
#define FOLDER      "images"
#define JSON        "image.json"
#define SUITE       "trixie"
#define ROOT        "root.ext4"
#define OPTIONS_MAX 32
#define STEPS       (SETUP_DEBOOTSTRAP_STEPS + 3)

const char *const setup_image_names[] = { IMAGE_DEFAULT, NULL };

bool setup_image_ready(int state, const char *name)
{
	return setup_is_current(state, FOLDER, name, JSON, RECIPE, ROOT);
}

/* What is being made. */
struct making {
	struct setup *s;
	struct object o;
	uint64_t size, allocated;
};

/* The next line of *text that is no comment, or NULL. Not terminated. */
static const char *next_line(const char **text, size_t *ret_len)
{
	while (**text) {
		const char *line = *text;
		size_t len = strcspn(line, "\n");

		*text = line + len + (line[len] == '\n');
		if (len && *line != '#') {
			*ret_len = len;
			return line;
		}
	}
	return NULL;
}

/* "a,b,c" */
static char *join_packages(void)
{
	const char *text = image_packages, *line;
	char *ret = NULL;
	size_t len;
	FILE *f = open_memstream(&ret, &len);

	if (!f)
		return NULL;
	for (bool first = true; (line = next_line(&text, &len)); first = false)
		fprintf(f, "%s%.*s", first ? "" : ",", (int)len, line);
	if (fclose(f)) {
		free(ret);
		return NULL;
	}
	return ret;
}

struct options {
	char *text[OPTIONS_MAX + 1]; /* NULL after the last */
	size_t n;
	bool failed;
};

static void add_option(struct options *o, const char *head, const char *value, size_t len)
{
	if (o->n == OPTIONS_MAX || asprintf(&o->text[o->n], "%s%.*s", head, (int)len, value) < 0) {
		o->text[o->n] = NULL;
		o->failed = true;
		return;
	}
	o->n++;
}

static void free_options(struct options *o)
{
	for (size_t i = 0; i < o->n; i++)
		free(o->text[i]);
}

static int install_packages(struct making *m, struct error *e)
{
	static const char languages[] = "--aptopt=Acquire::Languages \"none\"";
	const char *text = image_exclude, *line;
	struct options o = { 0 };
	autofree char *packages = join_packages();
	size_t len;
	int r;

	while ((line = next_line(&text, &len)))
		if (*line == '!')
			add_option(&o, "--dpkgopt=path-include=", line + 1, len - 1);
		else
			add_option(&o, "--dpkgopt=path-exclude=", line, len);
	add_option(&o, languages, "", 0);
	add_option(&o, "--customize-hook=", image_customize, strlen(image_customize));
	if (!packages || o.failed)
		r = error_set(e, ENOMEM, "out of memory");
	else
		r = setup_debootstrap(
			m->s, "minbase", SUITE, packages, (const char *const *)o.text, e);
	free_options(&o);
	return r;
}

static int make_file_system(struct making *m, struct error *e)
{
	char tree[sizeof(m->s->object) + 16], file[sizeof(m->s->object) + 16];
	const char *const argv[] = { "sh", "-c", image_mkfs, "mkfs", tree, file, NULL };
	struct setup_run run = { .argv = argv, .package = "e2fsprogs", .own_root = true };

	snprintf(tree, sizeof(tree), "%s/" SETUP_TREE, m->s->object);
	snprintf(file, sizeof(file), "%s/" ROOT, m->s->object);
	return setup_run(m->s, &run, e);
}

static int describe(struct making *m, const char *hash, struct error *e)
{
	autofree char *text = NULL, *packages = join_packages();
	struct json_out j;
	char date[24];

	setup_date(date);
	json_out_init(&j);
	json_add_u64(&j, j.root, "recipe", RECIPE);
	json_add_str(&j, j.root, "suite", SUITE);
	json_add_str(&j, j.root, "packages", packages ? packages : "");
	json_add_str(&j, j.root, "created", date);
	json_add_u64(&j, j.root, "size", m->size);
	json_add_u64(&j, j.root, "allocated", m->allocated);
	json_add_str(&j, j.root, "sha256", hash);
	text = json_print(&j, true);
	json_out_free(&j);
	if (!text || !packages)
		return error_set(e, ENOMEM, "out of memory");
	return file_replace(m->o.dir, JSON, text, strlen(text), 0600, e);
}

static int check_and_describe(struct making *m, struct error *e)
{
	autoclose int fd = openat(m->o.dir, ROOT, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	char hash[HASH_TEXT];
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st))
		return dirs_fail(e, errno, "image", m->s->object);
	r = image_check(fd, e);
	if (r)
		return r;
	r = hash_fd(fd, hash);
	if (r)
		return dirs_fail(e, -r, "image", m->s->object);
	m->size = (uint64_t)st.st_size;
	m->allocated = (uint64_t)st.st_blocks * 512;
	return describe(m, hash, e);
}

static int make(struct making *m, struct error *e)
{
	struct progress *p = &m->s->progress;
	int r = install_packages(m, e);

	if (!r) {
		progress_step(p, "writing the file system");
		r = make_file_system(m, e);
	}
	if (!r) {
		progress_step(p, "checking it");
		r = check_and_describe(m, e);
	}
	if (!r) {
		progress_step(p, "cleaning up");
		r = setup_remove_tree(m->s, &m->o, e);
	}
	return r;
}

int setup_image(struct setup *s, const char *name, struct error *e)
{
	struct making m = { .s = s, .o.dir = -1 };
	autoclose int folder = -1;
	char what[80], result[64];
	int r;

	snprintf(what, sizeof(what), "image %s", name);
	progress_begin(&s->progress, what, STEPS);
	r = setup_object(s, FOLDER, &folder, &m.o, e);
	if (!r)
		r = make(&m, e);
	if (r)
		setup_abort(s, &m.o);
	else
		r = object_publish(&m.o, name, true, e);
	snprintf(result, sizeof(result), "%" PRIu64 " MiB", m.allocated / MIB);
	progress_end(&s->progress, r ? NULL : result);
	if (r)
		error_prefix(e, "%s", what);
	return r;
}
