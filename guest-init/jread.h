/*
 * guest-init/jread.h - reading JSON without copying it: tokens over a borrowed text
 *
 * Trust:   the text is the host's. Length, number of tokens and depth are bounded; nothing
 *          recurses.
 * Values:  absent and null are the same everywhere, as the SDKs' protocol asks for.
 * Spec:    RFC 8259. Strings: escapes are decoded, a lone surrogate becomes U+FFFD; other bytes
 *          pass as they are, so that file names which are no UTF-8 survive.
 */
#pragma once

#include <stdint.h>

#include "base/util.h"

#define JREAD_TOKENS_MAX 65536
#define JREAD_DEPTH_MAX  32
#define JREAD_INT_MAX    ((UINT64_C(1) << 53) - 1)

struct jread;

/**
 * jread_create() - A parser, to be used again for every message
 * Only the tokens of large messages are allocated anew.
 */
struct jread *jread_create(void) must_check;
void jread_destroy(struct jread *j);

/**
 * jread_parse() - Parse one document, an object
 * @text: borrowed until the next jread_parse() or jread_done()
 * Return: 0; -EBADMSG: no JSON object; -E2BIG: too many tokens or too deep; -ENOMEM.
 */
int jread_parse(struct jread *j, const char *text, size_t len) must_check;
/* jread_done() - Give back what a large message took. */
void jread_done(struct jread *j);

/*
 * A value is a number > 0; 0 is absent or null, and legal wherever a value is taken. The root is 1.
 */
#define JREAD_ROOT 1

enum jread_type { JREAD_NONE, JREAD_OBJECT, JREAD_ARRAY, JREAD_STRING, JREAD_NUMBER, JREAD_BOOL };

enum jread_type jread_type(const struct jread *j, int value);
/* What zod calls it: "object", "array", "string", "number", "boolean", "undefined". */
const char *jread_type_name(enum jread_type t);

/* jread_get() - Member of an object; 0 also if @object is none. The last of equal names counts. */
int jread_get(const struct jread *j, int object, const char *name);
/*
 * jread_first(), jread_next() - Elements of an array; of an object the names, each with
 * jread_value().
 */
int jread_first(const struct jread *j, int container);
int jread_next(const struct jread *j, int container, int element);
/* jread_value() - Value of an object's @name from jread_first() or jread_next(). */
int jread_value(const struct jread *j, int name);
/* jread_count() - Elements of an array, members of an object; 0 for anything else. */
size_t jread_count(const struct jread *j, int container);

/*
 * jread_u64() - A whole number 0..2^64-1 without fraction or exponent. false: it is something else.
 */
bool jread_u64(const struct jread *j, int value, uint64_t *ret);
bool jread_bool(const struct jread *j, int value, bool *ret);

/* jread_len() - Room that jread_str() may need for a string, terminator included. */
size_t jread_len(const struct jread *j, int value);
/**
 * jread_str() - Decode a string
 * @ret: jread_len() bytes; terminated
 * @ret_len: decoded bytes; the text may hold NUL
 */
void jread_str(const struct jread *j, int value, char *ret, size_t *ret_len);
/* jread_is() - Whether a value is this string. */
bool jread_is(const struct jread *j, int value, const char *text);
