/*
 * base/table.h - one table per configuration object: parsing, validation, help, later schema and completion
 *
 * What:    each field of a plain struct is one row: name, type, offset, range, default, help. A command line
 *          is one use of a table; whatever reads the same struct from elsewhere uses the same rows.
 * Types:   what a row stores at its offset
 *            TABLE_FLAG      bool
 *            TABLE_INT       uint64_t
 *            TABLE_SIZE      uint64_t, bytes; "4096", "512k", "512m", "2g", "1t" (powers of 1024; also "2GiB")
 *            TABLE_DURATION  uint64_t, nanoseconds; "250ms", "30s", "5m", "2h"; a bare number is seconds
 *            TABLE_STRING    const char *, borrowed from argv or the table
 *            TABLE_LIST      struct table_list of borrowed strings; the option may be repeated
 *            TABLE_ENUM      int, index into choices
 */
#pragma once

#include <stdio.h>

#include "base/error.h"

enum table_type {
	TABLE_FLAG,
	TABLE_INT,
	TABLE_SIZE,
	TABLE_DURATION,
	TABLE_STRING,
	TABLE_LIST,
	TABLE_ENUM,
};

#define TABLE_LIST_MAX 65536

struct table_list {
	const char **items; /* NULL after the last; NULL if the list is empty */
	size_t n, cap;
};

struct table_field {
	const char *name; /* "memory": the option --memory */
	char letter;      /* 'm': the option -m; 0: none */
	enum table_type type;
	size_t offset;
	const char *arg;      /* what help calls the value: "SIZE" */
	const char *def;      /* default, as a user would write it; NULL: zero */
	const char *implicit; /* value of "--name" without "=VALUE"; NULL: a value is required */
	const char *const *choices; /* TABLE_ENUM: NULL-terminated */
	uint64_t min, max;          /* INT, SIZE, DURATION; max 0: no limit */
	bool required;
	bool hidden;      /* not in help: for tests and debugging */
	const char *help; /* one phrase, no full stop */
};

struct table {
	const char *name;     /* "skerry run" */
	const char *operands; /* "[--] CMD [ARG...]"; NULL: takes none */
	const char *summary;  /* one line for the list of commands */
	const char *text;     /* more for help, lines <= 80 columns; NULL: none */
	const struct table_field *fields;
	size_t nfields;
	size_t size; /* of the struct that fields describe */
	size_t min_operands, max_operands;
	bool operands_end_options; /* what follows the first operand belongs to it: `run CMD -x` */
};

#define TABLE_FIELDS(f) .fields = (f), .nfields = ARRAY_SIZE(f)

enum { TABLE_OK = 0, TABLE_HELP = 1 };

/**
 * table_defaults() - Zero @obj and set every default
 *
 * A default that does not parse is our own bug (assert).
 */
void table_defaults(const struct table *t, void *obj);

/**
 * table_parse() - Read a command line into @obj, after table_defaults()
 * @argv: options and operands, without the command's own name
 * @operands: zero-initialised by the caller; the operands in order, borrowed from @argv
 *
 * "--" ends options. "--opt=V", "--opt V", "-o V", "-oV" and bundled flags ("-iq") are understood.
 *
 * Return: TABLE_OK; TABLE_HELP if --help or -h was among the options (nothing else was checked);
 * -EINVAL with a message that names the option, the value and the remedy; -ENOMEM.
 * Call table_free() in every case.
 */
int table_parse(const struct table *t, void *obj, int argc, char *const *argv,
	struct table_list *operands, struct error *e) must_check;

/* table_free() - Free the lists inside @obj (not @obj). */
void table_free(const struct table *t, void *obj);

/* table_set() - Parse @text into one field of @obj; the message names the option as a user writes it. */
int table_set(const struct table_field *f, void *obj, const char *text, struct error *e) must_check;

/* table_help() - Usage, text and options, for people. */
void table_help(const struct table *t, FILE *f);

int table_list_add(struct table_list *l, const char *item) must_check;
void table_list_free(struct table_list *l);

/* table_size() - "2g" to bytes; 0, -EINVAL (not a size), -ERANGE (over 64 bits). */
int table_size(const char *text, uint64_t *ret) must_check;
/* table_duration() - "30s" to nanoseconds; the same errors. */
int table_duration(const char *text, uint64_t *ret) must_check;

/**
 * table_nearest() - The name that a mistyped one was probably meant to be
 * @names: NULL-terminated
 *
 * Return: one of @names, or NULL if none is near.
 */
const char *table_nearest(const char *typed, const char *const *names);

/* table_format_size() - "2 GiB", "1536 MiB", "4097 bytes": exact, for messages. Returns @buf. */
const char *table_format_size(char *buf, size_t size, uint64_t bytes);

/* table_format_duration() - "90s", "250ms": as a user would write it. Returns @buf. */
const char *table_format_duration(char *buf, size_t size, uint64_t ns);
