/*
 * api/store/modules.h - which kernel modules must be loaded, and in which order
 *
 * What:    reads what depmod(8) wrote about a kernel and puts the wanted modules and all they need into load order,
 *          for a guest that has no modprobe. Text in, list out.
 * Spec:    modules.dep(5); modprobe.d(5), softdep
 */
#pragma once

#include "base/error.h"

#define MODULES_MAX 128

/* Contents of the files of these names in lib/modules/VERSION. */
struct modules_info {
	const char *dep;     /* modules.dep */
	const char *builtin; /* modules.builtin */
	const char *softdep; /* modules.softdep */
	const char *alias;   /* modules.alias */
};

struct module_want {
	const char *name;    /* with _ or - */
	const char *options; /* for its load, also if another module pulls it in; NULL: none */
	bool optional;       /* none of the kernel's: no error */
};

struct module_step {
	char path[200];      /* below lib/modules/VERSION: "kernel/fs/ext4/ext4.ko.xz" */
	char name[64];       /* "ext4", with _ */
	const char *options; /* borrowed from the want, or NULL */
};

struct module_plan {
	struct module_step step[MODULES_MAX]; /* in load order */
	size_t n;
};

/**
 * modules_plan() - Put modules and their dependencies into load order
 *
 * Of several modules that a soft dependency may mean, the generic one is taken, which works on any processor. A soft
 * dependency that nothing fulfils is no error. Errors: a wanted module neither exists nor is built in; a broken file.
 */
int modules_plan(const struct modules_info *info, const struct module_want *want, size_t nwant,
	struct module_plan *ret, struct error *e) must_check;

/**
 * modules_code_len() - Bytes of a module without its signature
 *
 * Debian signs its modules and doesn't insist on it; checking one costs a guest 30 to 40 million instructions at
 * each boot. The host has checked the package that they come from.
 *
 * Return: @len if there is no well-formed signature.
 * Source: Linux, Documentation/admin-guide/module-signing.rst; include/linux/module_signature.h
 */
size_t modules_code_len(const uint8_t *module, size_t len) must_check;
