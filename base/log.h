/*
 * base/log.h - one line per event on standard error
 *
 * A function logs or returns an error, never both. The prefix names the object ("vm 3: net0: ").
 * Text that a guest, peer or client chose must pass log_escape() first; log_*() do so for the whole line.
 */
#pragma once

#include "base/util.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* log_init() - Set what stands before each line (NULL: "skerry") and the least important level shown. */
void log_init(const char *prefix, enum log_level max);
void log_set_fd(int fd); /* default 2 */

void log_error(const char *fmt, ...) printf_like(1, 2);
void log_warn(const char *fmt, ...) printf_like(1, 2);
void log_info(const char *fmt, ...) printf_like(1, 2);
void log_debug(const char *fmt, ...) printf_like(1, 2);

/* Rate limit for events that a guest, peer or client can cause at will. Zero-initialise. */
struct log_limit {
	uint64_t window_start_ns;
	unsigned count;
};

/* log_limited() - True if another line may be written: LOG_LIMIT_BURST a window of LOG_LIMIT_WINDOW_NS. */
bool log_limited(struct log_limit *l);
#define LOG_LIMIT_BURST     10
#define LOG_LIMIT_WINDOW_NS (UINT64_C(5) * 1000000000)

/**
 * log_escape() - Copy text so that it cannot drive a terminal
 * @dst: always terminated if @size > 0
 *
 * C0, DEL and C1 controls and invalid UTF-8 become \xNN; a newline becomes \n.
 */
void log_escape(char *dst, size_t size, const char *src, size_t len);
