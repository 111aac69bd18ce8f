#include "api/store/cpio.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"

#define HEADER     110
#define NAME_BYTES 255
#define ALIGN      4

void cpio_init(struct cpio *c, int fd)
{
	*c = (struct cpio){ .fd = fd };
}

static int put(struct cpio *c, const char *name, unsigned mode, const void *data, size_t len)
{
	static const char zero[ALIGN];
	size_t name_len = strlen(name) + 1, head_len;
	char head[HEADER + NAME_BYTES + 2 * ALIGN] = "";
	int r;

	if (name_len > NAME_BYTES)
		return -ENAMETOOLONG;
	if (len > UINT32_MAX)
		return -EFBIG;
	snprintf(head, sizeof(head), "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s",
		c->ino++, mode, 0, 0, S_ISDIR(mode) ? 2 : 1, 0, (unsigned)len, 0, 0, 0, 0,
		(unsigned)name_len, 0, name);
	head_len = ALIGN_UP(HEADER + name_len, (size_t)ALIGN);
	r = file_write_all(c->fd, head, head_len);
	if (!r)
		r = file_write_all(c->fd, data, len);
	if (!r)
		r = file_write_all(c->fd, zero, ALIGN_UP(len, (size_t)ALIGN) - len);
	return r;
}

int cpio_folder(struct cpio *c, const char *name, mode_t mode)
{
	return put(c, name, S_IFDIR | mode, NULL, 0);
}

int cpio_file(struct cpio *c, const char *name, mode_t mode, const void *data, size_t len)
{
	return put(c, name, S_IFREG | mode, data, len);
}

int cpio_end(struct cpio *c)
{
	return put(c, "TRAILER!!!", 0, NULL, 0);
}
