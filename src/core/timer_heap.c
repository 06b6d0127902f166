// SPDX-License-Identifier: Apache-2.0
// Pairing heap (Fredman, Sedgewick, Sleator, Tarjan 1986): insert O(1), remove O(log n) amortised.
// Invariants: no node is earlier than its parent; link points at the one pointer that names the node (the root, the
// parent's child or the left sibling's next), so a node unlinks itself without a search. No recursion.
#include "core/timer_heap.h"

#include <stddef.h>

static void child_push(struct event_timer *parent, struct event_timer *t) {
    t->next = parent->child;
    if (t->next)
        t->next->link = &t->next;
    t->link = &parent->child;
    parent->child = t;
}

// Joins two heaps whose roots have no siblings; either may be NULL.
static struct event_timer *meld(struct event_timer *a, struct event_timer *b) {
    if (!a || !b)
        return a ? a : b;
    if (b->deadline_ns < a->deadline_ns) {
        child_push(b, a);
        return b;
    }
    child_push(a, b);
    return a;
}

// Joins a list of siblings: pairs from left to right, then the pairs from right to left.
static struct event_timer *meld_siblings(struct event_timer *list) {
    struct event_timer *pairs = NULL, *all = NULL;

    while (list) {
        struct event_timer *a = list, *b = a->next;

        list = b ? b->next : NULL;
        a->next = NULL;
        if (b)
            b->next = NULL;
        a = meld(a, b);
        a->next = pairs;
        pairs = a;
    }
    while (pairs) {
        struct event_timer *rest = pairs->next;

        pairs->next = NULL;
        all = meld(all, pairs);
        pairs = rest;
    }
    return all;
}

static void root_set(struct timer_heap *h, struct event_timer *t) {
    h->root = t;
    if (t) {
        t->next = NULL;
        t->link = &h->root;
    }
}

void timer_heap_insert(struct timer_heap *h, struct event_timer *t) {
    t->child = t->next = NULL;
    root_set(h, meld(h->root, t));
}

void timer_heap_remove(struct timer_heap *h, struct event_timer *t) {
    *t->link = t->next;
    if (t->next)
        t->next->link = t->link;
    root_set(h, meld(h->root, meld_siblings(t->child)));
    t->child = t->next = NULL;
    t->link = NULL;
}
