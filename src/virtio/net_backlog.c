// SPDX-License-Identifier: Apache-2.0
// A bounded list of frames, oldest first.
#include "virtio/net_backlog.h"

#include <stdlib.h>
#include <string.h>

void net_backlog_init(struct net_backlog *l) {
    l->head = NULL;
    l->tail = &l->head;
    l->bytes = 0;
}

bool net_backlog_add(struct net_backlog *l, const struct virtio_net_hdr_v1 *hdr, const uint8_t *frame, size_t len) {
    if (len > NET_BACKLOG_BYTES - l->bytes)
        return false;
    struct net_frame *f = malloc(sizeof(*f) + len);
    if (!f)
        return false;
    f->next = NULL;
    f->hdr = *hdr;
    f->len = len;
    memcpy(f->data, frame, len);
    *l->tail = f;
    l->tail = &f->next;
    l->bytes += len;
    return true;
}

void net_backlog_drop_first(struct net_backlog *l) {
    struct net_frame *f = l->head;
    l->head = f->next;
    if (!l->head)
        l->tail = &l->head;
    l->bytes -= f->len;
    free(f);
}

void net_backlog_clear(struct net_backlog *l) {
    while (l->head)
        net_backlog_drop_first(l);
}
