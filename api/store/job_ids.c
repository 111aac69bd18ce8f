/*
 * api/store/job_ids.c - ids for a user namespace, by way of newuidmap(1) and newgidmap(1)
 */
#include "api/store/job.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/file.h"

#define FILE_MAX_BYTES MIB
#define IDS_MIN        65536 /* Debian's packages use ids up to 65534 */

bool job_find_range(const char *text, const char *name, uint32_t id, struct job_range *ret)
{
	char number[16], owner[128];
	struct job_range r;

	snprintf(number, sizeof(number), "%u", id);
	for (; *text; text += strcspn(text, "\n"), text += *text == '\n') {
		if (sscanf(text, "%127[^:\n]:%u:%u", owner, &r.first, &r.count) != 3)
			continue;
		if (strcmp(owner, number) && (!name || strcmp(owner, name)))
			continue;
		if (r.count >= IDS_MIN && r.first && r.first <= UINT32_MAX - r.count) {
			*ret = r;
			return true;
		}
	}
	return false;
}

static int run_map(const char *program, pid_t pid, uint32_t own, struct job_range range)
{
	char text[6][16];
	pid_t child;
	int status;

	snprintf(text[0], sizeof(text[0]), "%d", pid);
	snprintf(text[1], sizeof(text[1]), "%u", own);
	snprintf(text[2], sizeof(text[2]), "%u", range.first);
	snprintf(text[3], sizeof(text[3]), "%u", IDS_MIN);
	child = fork();
	if (child < 0)
		return -errno;
	if (!child) {
		execlp(program, program, text[0], "0", text[1], "1", "1", text[2], text[3],
			(char *)NULL);
		_exit(errno == ENOENT ? 127 : 126);
	}
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return 0;
	return WIFEXITED(status) && WEXITSTATUS(status) == 127 ? -ENOENT : -EPERM;
}

static int map_one(const char *program, const char *file, pid_t pid, uint32_t own, struct error *e)
{
	struct passwd *pw = getpwuid(geteuid());
	const char *name = pw ? pw->pw_name : NULL;
	autofree char *text = NULL;
	struct job_range range;
	size_t len;
	int r = file_read(AT_FDCWD, file, FILE_MAX_BYTES, &text, &len, e);

	if (r && r != -ENOENT)
		return r;
	if (r || !job_find_range(text, name, geteuid(), &range))
		return error_set(e, EPERM,
			"%s: has no range of %d ids for this user; add one: sudo usermod --add-subuids "
			"100000-165535 --add-subgids 100000-165535 %s (or another range that is free)",
			file, IDS_MIN, name ? name : "USER");
	r = run_map(program, pid, own, range);
	if (r == -ENOENT)
		return error_set(e, ENOENT,
			"%s: is not installed; run: sudo apt-get install uidmap", program);
	return r ? error_set(e, -r, "%s: refused the ids %u to %u of %s", program, range.first,
			   range.first + IDS_MIN - 1, file)
		 : 0;
}

int job_map_ids(pid_t pid, struct error *e)
{
	int r = map_one("newuidmap", "/etc/subuid", pid, geteuid(), e);

	return r ? r : map_one("newgidmap", "/etc/subgid", pid, getegid(), e);
}
