// SPDX-License-Identifier: Apache-2.0
// The list of components, in order of registration. Built on one thread before the vCPUs run, then only walked.
#include "core/component.h"

#include <errno.h>
#include <stdlib.h>

void component_list_init(struct component_list *list) {
    list->head = NULL;
    list->tail = &list->head;
}

int component_add(struct component_list *list, const struct component_ops *ops, void *ctx, unsigned instance) {
    struct component *c = malloc(sizeof(*c));

    if (!c)
        return -ENOMEM;
    *c = (struct component){.ops = ops, .ctx = ctx, .instance = instance};
    *list->tail = c;
    list->tail = &c->next;
    return 0;
}

void component_reset_all(struct component_list *list) {
    for (struct component *c = list->head; c; c = c->next)
        if (c->ops->reset)
            c->ops->reset(c->ctx);
}

void component_pause_all(struct component_list *list) {
    for (struct component *c = list->head; c; c = c->next)
        if (c->ops->pause)
            c->ops->pause(c->ctx);
}

void component_resume_all(struct component_list *list) {
    for (struct component *c = list->head; c; c = c->next)
        if (c->ops->resume)
            c->ops->resume(c->ctx);
}

// A component registered later may use one registered before it (a device its bus): the last goes first.
void component_destroy_all(struct component_list *list) {
    struct component *rev = NULL, *next;

    for (struct component *c = list->head; c; c = next) {
        next = c->next;
        c->next = rev;
        rev = c;
    }
    component_list_init(list);
    for (struct component *c = rev; c; c = next) {
        next = c->next;
        if (c->ops->destroy)
            c->ops->destroy(c->ctx);
        free(c);
    }
}
