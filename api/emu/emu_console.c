#include "api/emu/emu_console.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "api/emu/emu_proto.h"
#include "base/log.h"

#define LINE_MAX_BYTES 240

int emu_console_create(struct emu_console *ret, int dir)
{
	int fd =
		openat(dir, EMU_CONSOLE, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return -errno;
	*ret = (struct emu_console){ .fd = fd };
	return 0;
}

void emu_console_finish(struct emu_console *c)
{
	close_fd(&c->fd);
}

void emu_console_write(struct emu_console *c, const void *data, size_t len)
{
	const uint8_t *p = data;
	uint8_t head[8];

	while (len) {
		uint64_t at = c->total % EMU_CONSOLE_BYTES;
		size_t n = MIN(len, (size_t)(EMU_CONSOLE_BYTES - at));

		if (pwrite(c->fd, p, n, (off_t)(sizeof(head) + at)) != (ssize_t)n)
			return;
		c->total += n;
		p += n;
		len -= n;
	}
	for (unsigned i = 0; i < sizeof(head); i++)
		head[i] = (uint8_t)(c->total >> 8 * i);
	if (pwrite(c->fd, head, sizeof(head), 0) != sizeof(head))
		return;
}

/* The ring in order, or -1. */
static ssize_t read_ring(int fd, char text[EMU_CONSOLE_BYTES])
{
	uint64_t total = 0, start, len;
	uint8_t head[8];
	size_t first;

	if (pread(fd, head, sizeof(head), 0) != sizeof(head))
		return -1;
	for (unsigned i = sizeof(head); i--;)
		total = total << 8 | head[i];
	len = MIN(total, (uint64_t)EMU_CONSOLE_BYTES);
	start = (total - len) % EMU_CONSOLE_BYTES;
	first = (size_t)MIN(len, EMU_CONSOLE_BYTES - start);
	if (pread(fd, text, first, (off_t)(sizeof(head) + start)) != (ssize_t)first)
		return -1;
	if (len > first &&
		pread(fd, text + first, len - first, sizeof(head)) != (ssize_t)(len - first))
		return -1;
	return (ssize_t)len;
}

void emu_console_tail(int fd, unsigned lines, char *ret, size_t size)
{
	char text[EMU_CONSOLE_BYTES], line[4 * LINE_MAX_BYTES + 1];
	ssize_t len = read_ring(fd, text), at;
	size_t used = 0;

	ret[0] = '\0';
	while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
		len--;
	for (at = len; at > 0; at--)
		if (text[at - 1] == '\n' && !--lines)
			break;
	while (at < len) {
		const char *end = memchr(text + at, '\n', (size_t)(len - at));
		size_t n = end ? (size_t)(end - text - at) : (size_t)(len - at);
		size_t shown = n && text[at + (ssize_t)n - 1] == '\r' ? n - 1 : n;
		int w;

		log_escape(line, sizeof(line), text + at, MIN(shown, (size_t)LINE_MAX_BYTES));
		w = snprintf(ret + used, size - used, "%s  | %s", used ? "\n" : "", line);
		if (w < 0 || (size_t)w >= size - used) {
			ret[used] = '\0';
			return;
		}
		used += (size_t)w;
		at += (ssize_t)n + 1;
	}
}
