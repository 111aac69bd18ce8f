/*
 * tests/lib/test.h - the few macros of a unit test
 *
 * A test is a plain program: CHECK() prints what failed and where, and counts; main() ends with TEST_END().
 */
#pragma once

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int test_failures;

#define CHECK(cond)                                                                                \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "%s:%d: %s: failed: %s\n", __FILE__, __LINE__, __func__,   \
				#cond);                                                            \
			test_failures++;                                                           \
		}                                                                                  \
	} while (0)

#define CHECK_EQ(a, b)                                                                             \
	do {                                                                                       \
		long long test_a = (long long)(a), test_b = (long long)(b);                        \
		if (test_a != test_b) {                                                            \
			fprintf(stderr, "%s:%d: %s: %s = %lld, expected %s = %lld\n", __FILE__,    \
				__LINE__, __func__, #a, test_a, #b, test_b);                       \
			test_failures++;                                                           \
		}                                                                                  \
	} while (0)

#define CHECK_STR(a, b)                                                                            \
	do {                                                                                       \
		const char *test_a = (a), *test_b = (b);                                           \
		if (strcmp(test_a, test_b)) {                                                      \
			fprintf(stderr, "%s:%d: %s: %s = \"%s\", expected \"%s\"\n", __FILE__,     \
				__LINE__, __func__, #a, test_a, test_b);                           \
			test_failures++;                                                           \
		}                                                                                  \
	} while (0)

/* For what makes going on pointless. */
#define REQUIRE(cond)                                                                              \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "%s:%d: %s: required: %s (errno %d: %s)\n", __FILE__,      \
				__LINE__, __func__, #cond, errno, strerror(errno));                \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

/* Something this machine lacks: meson counts 77 as skipped. */
#define SKIP(why)                                                                                  \
	do {                                                                                       \
		printf("skipped: %s\n", why);                                                      \
		exit(77);                                                                          \
	} while (0)

#define TEST_END() return test_failures ? (fprintf(stderr, "%d failed\n", test_failures), 1) : 0
