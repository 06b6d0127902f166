// SPDX-License-Identifier: Apache-2.0
// Copies and cuts on iovec arrays. Nothing here reads or writes outside of what the array describes.
#include "virtio/iov.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static size_t iov_copy(const struct iovec *iov, unsigned n, size_t offset, uint8_t *buf, size_t len, bool to_buf) {
    size_t done = 0;
    for (unsigned i = 0; i < n && done < len; i++) {
        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        size_t part = iov[i].iov_len - offset;
        if (part > len - done)
            part = len - done;
        uint8_t *p = (uint8_t *)iov[i].iov_base + offset;
        if (to_buf)
            memcpy(buf + done, p, part);
        else
            memcpy(p, buf + done, part);
        done += part;
        offset = 0;
    }
    return done;
}

size_t iov_to_buf(const struct iovec *iov, unsigned n, size_t offset, void *buf, size_t len) {
    return iov_copy(iov, n, offset, buf, len, true);
}

size_t iov_from_buf(const struct iovec *iov, unsigned n, size_t offset, const void *buf, size_t len) {
    return iov_copy(iov, n, offset, (uint8_t *)buf, len, false);
}

void iov_drop_front(struct iovec **iov, unsigned *n, size_t bytes) {
    while (*n && bytes >= (*iov)->iov_len) {
        bytes -= (*iov)->iov_len;
        ++*iov;
        --*n;
    }
    if (*n) {
        (*iov)->iov_base = (uint8_t *)(*iov)->iov_base + bytes;
        (*iov)->iov_len -= bytes;
    }
}

void iov_drop_back(struct iovec *iov, unsigned *n, size_t bytes) {
    while (*n && bytes >= iov[*n - 1].iov_len)
        bytes -= iov[--*n].iov_len;
    if (*n)
        iov[*n - 1].iov_len -= bytes;
}
