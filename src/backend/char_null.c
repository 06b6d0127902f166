// SPDX-License-Identifier: Apache-2.0
// The host side that is not there, and what all host sides share.
#include <errno.h>
#include <stdlib.h>

#include "backend/char_host.h"

static void null_close(struct char_host *h) {}

static void null_destroy(struct char_host *h) {
    free(h);
}

static const struct char_host_ops null_ops = {.close = null_close, .destroy = null_destroy};

int char_null_open(struct char_host **h, struct error *err) {
    *h = calloc(1, sizeof(**h)); // chardev_write takes all where write is NULL
    if (!*h)
        return error_set(err, -ENOMEM, "serial null");
    (*h)->ops = &null_ops;
    return 0;
}

void char_host_close(struct char_host *h) {
    if (h && !h->closed)
        h->ops->close(h);
    if (h)
        h->closed = true;
}

void char_host_destroy(struct char_host *h) {
    if (h)
        h->ops->destroy(h);
}
