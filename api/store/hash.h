/*
 * api/store/hash.h - SHA-256 of files and memory, as text
 */
#pragma once

#include "base/error.h"

#define HASH_TEXT 65 /* 64 hex digits and NUL */

void hash_memory(const void *data, size_t len, char ret[HASH_TEXT]);
/* hash_fd() - The whole file, its offset unused. 0 or -errno. */
int hash_fd(int fd, char ret[HASH_TEXT]) must_check;
