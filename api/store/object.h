/*
 * api/store/object.h - immutable folders that appear whole or not at all
 *
 * What:    an object is built in a folder ".new-XXXX" beside its place, synced, and renamed into it. While it is
 *          built its folder is locked (flock), so that what an interrupted process left is told from what a living
 *          one is building, and removed by the next.
 * Names:   of published objects: see object_name_ok(); they never begin with a dot.
 */
#pragma once

#include "base/error.h"

#define OBJECT_NAME_MAX 64

struct object {
	int parent;    /* borrowed: the folder of the finished ones */
	int dir;       /* the folder being built, locked */
	char name[32]; /* its name in parent: ".new-XXXX" */
};

/* object_name_ok() - 1 to OBJECT_NAME_MAX of a-z A-Z 0-9 . _ + -, beginning with a letter or digit */
bool object_name_ok(const char *name);

/**
 * object_sweep() - Remove what interrupted processes left in a folder
 * @remove: does it; NULL: object_remove_tree()
 *
 * What can't be removed is no reason to fail.
 */
void object_sweep(int parent, int (*remove)(void *ctx, int parent, const char *name), void *ctx);

/**
 * object_begin() - Make a folder to build in
 * @path: of @parent, for messages
 *
 * First sweeps. The caller ends with object_publish() or object_abort().
 */
int object_begin(struct object *ret, int parent, const char *path, struct error *e) must_check;

/**
 * object_publish() - Sync the folder and give it its name
 * @replace: an object of that name makes room; what was opened in it stays readable
 *
 * Return: 0; 1 without @replace: one of that name is there already, and this one was discarded; -errno, with the
 * folder removed. In each case @o is done with.
 */
int object_publish(struct object *o, const char *name, bool replace, struct error *e) must_check;

/* object_abort() - Remove the folder. Legal on one that is done with. */
void object_abort(struct object *o);

/* object_remove_tree() - rm -rf, never following a link or leaving @name. 0, or the first -errno. */
int object_remove_tree(int dir, const char *name);
