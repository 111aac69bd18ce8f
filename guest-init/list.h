/*
 * guest-init/list.h - doubly linked lists and a small hash table, both with the links inside the
 * objects
 */
#pragma once

#include "base/util.h"

struct list {
	struct list *prev, *next;
};

static inline void list_init(struct list *l)
{
	l->prev = l->next = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

/* Whether an element, once list_init()ed, is in a list. */
static inline bool list_linked(const struct list *n)
{
	return n->next != n;
}

static inline void list_push(struct list *l, struct list *n)
{
	n->prev = l->prev;
	n->next = l;
	l->prev->next = n;
	l->prev = n;
}

static inline void list_del(struct list *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	list_init(n);
}

static inline struct list *list_pop(struct list *l)
{
	struct list *n = l->next;

	if (n == l)
		return NULL;
	list_del(n);
	return n;
}

#define list_entry(n, type, member) container_of(n, type, member)
/* The body may remove the element it looks at, no other. */
#define list_each(pos, tmp, head)                                                                  \
	for ((pos) = (head)->next, (tmp) = (pos)->next; (pos) != (head);                           \
		(pos) = (tmp), (tmp) = (pos)->next)

#define HASH_SIZE 1024

struct hash_node {
	struct hash_node *next, **link;
};

struct hash {
	struct hash_node *heads[HASH_SIZE];
};

static inline struct hash_node **hash_head(struct hash *h, uint64_t key)
{
	return &h->heads[(key * UINT64_C(0x9e3779b97f4a7c15)) >> 54];
}

static inline void hash_add(struct hash *h, uint64_t key, struct hash_node *n)
{
	struct hash_node **head = hash_head(h, key);

	n->next = *head;
	n->link = head;
	if (n->next)
		n->next->link = &n->next;
	*head = n;
}

static inline void hash_del(struct hash_node *n)
{
	*n->link = n->next;
	if (n->next)
		n->next->link = n->link;
}
