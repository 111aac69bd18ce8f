#include "api/store/format.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "api/store/dirs.h"
#include "base/file.h"
#include "base/json.h"

#define FILE_MAX   4096
#define FORMAT_MAX 1000000

static const struct format_rules rules_current = { .current = FORMAT_CURRENT };

static int read_number(int dir, const char *path, uint64_t *ret, struct error *e)
{
	autofree char *text = NULL;
	autojson cJSON *j = NULL;
	size_t len;
	int r = file_read(dir, FORMAT_FILE, FILE_MAX, &text, &len, e);

	if (!r)
		r = json_parse(&j, text, len, FORMAT_FILE, e);
	if (!r)
		r = json_u64(j, "format", JSON_REQUIRED, 1, FORMAT_MAX, ret, e);
	if (r == -ENOENT)
		return r;
	if (r < 0) {
		error_prefix(e, "state folder '%s'", path);
		return r;
	}
	return 0;
}

/* Never over an existing one: of two processes, one creates it. */
static int create_file(int dir, const char *path, unsigned number, struct error *e)
{
	char tmp[64], text[64];
	uint64_t id;
	int fd, r, n = snprintf(text, sizeof(text), "{\"format\": %u}\n", number);

	if (getrandom(&id, sizeof(id), 0) != sizeof(id))
		return error_set(e, EIO, "random numbers: %s", strerror(EIO));
	snprintf(tmp, sizeof(tmp), "." FORMAT_FILE ".%016" PRIx64, id);
	fd = openat(dir, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return dirs_fail(e, errno, "state folder", path);
	r = file_write_all(fd, text, (size_t)n);
	if (!r && fsync(fd))
		r = -errno;
	close(fd);
	if (!r && linkat(dir, tmp, dir, FORMAT_FILE, 0) && errno != EEXIST)
		r = -errno;
	unlinkat(dir, tmp, 0);
	if (!r && fsync(dir))
		r = -errno;
	return r ? dirs_fail(e, -r, "state folder", path) : 0;
}

static int write_number(int dir, unsigned number, struct error *e)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "{\"format\": %u}\n", number);

	return file_replace(dir, FORMAT_FILE, text, (size_t)n, 0600, e);
}

static int refuse(uint64_t number, const char *path, unsigned current, struct error *e)
{
	return error_set(e, EPROTO,
		"state folder '%s': has format %" PRIu64
		", made by a newer skerry; this one (%s) knows formats up "
		"to %u: install the newer one again, or set XDG_STATE_HOME to another folder",
		path, number, SKERRY_VERSION, current);
}

/* The caller holds the lock. */
static int run_steps(int dir, const char *path, const struct format_rules *rules, struct error *e)
{
	uint64_t number;
	int r = read_number(dir, path, &number, e);

	for (size_t i = 0; !r && i < rules->nsteps; i++) {
		if (rules->steps[i].from != number)
			continue;
		r = rules->steps[i].run(dir, e);
		if (!r)
			r = write_number(dir, (unsigned)++number, e);
		if (r)
			error_prefix(
				e, "state folder '%s': from format %u", path, rules->steps[i].from);
	}
	if (!r && number > rules->current)
		return refuse(number, path, rules->current, e);
	if (!r && number < rules->current)
		return error_set(e, EPROTO,
			"state folder '%s': has format %" PRIu64
			", too old for this skerry; move it away and run: skerry setup",
			path, number);
	return r;
}

int format_check(
	int dir, const char *path, bool create, const struct format_rules *rules, struct error *e)
{
	uint64_t number = 0;
	int r = read_number(dir, path, &number, e);

	if (r == -ENOENT && create) {
		r = create_file(dir, path, rules->current, e);
		if (!r)
			r = read_number(dir, path, &number, e);
	}
	if (r == -ENOENT)
		return error_set(
			e, ENOENT, "state folder '%s': is not set up; run: skerry setup", path);
	if (r)
		return r;
	if (number == rules->current)
		return 0;
	if (number > rules->current)
		return refuse(number, path, rules->current, e);
	if (flock(dir, LOCK_EX))
		return error_set(e, errno, "state folder '%s': lock: %s", path, strerror(errno));
	r = run_steps(dir, path, rules, e);
	flock(dir, LOCK_UN);
	return r;
}

int format_open_state(bool create, struct error *e)
{
	char path[DIRS_PATH_MAX];
	int r = dirs_path(DIRS_STATE, path, sizeof(path), e);
	autoclose int fd = -1;

	if (r)
		return r;
	fd = dirs_open(DIRS_STATE, create, e);
	if (fd == -ENOENT && !create)
		return error_set(
			e, ENOENT, "state folder '%s': is not set up; run: skerry setup", path);
	if (fd < 0)
		return fd;
	r = format_check(fd, path, create, &rules_current, e);
	return r ? r : take_fd(&fd);
}
