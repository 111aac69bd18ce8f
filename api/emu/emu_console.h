/*
 * api/emu/emu_console.h - the last words of an emulated host
 *
 * What:    a file of fixed size that the daemon writes round and round, so that a noisy L1 can't fill the runtime
 *          folder. A command opens it while L1 is well; when its connection breaks it shows the last lines, also
 *          after the daemon has removed the file.
 *
 *   off  size               field
 *   0    8                  bytes written in all, little endian
 *   8    EMU_CONSOLE_BYTES  byte n of all is at 8 + n % EMU_CONSOLE_BYTES
 */
#pragma once

#include "base/error.h"

#define EMU_CONSOLE_BYTES 16384

struct emu_console {
	int fd;
	uint64_t total;
};

/* emu_console_create() - In a folder of the runtime directory. 0 or -errno. */
int emu_console_create(struct emu_console *ret, int dir) must_check;
void emu_console_finish(struct emu_console *c);
/* emu_console_write() - Never fails loudly: a full runtime folder costs the tail, nothing else. */
void emu_console_write(struct emu_console *c, const void *data, size_t len);

/**
 * emu_console_tail() - The last lines as text for a terminal
 * @lines: at most
 * @ret: @size bytes; each line is prefixed with "  | ", control characters escaped, "" if there are none
 */
void emu_console_tail(int fd, unsigned lines, char *ret, size_t size);
