// SPDX-License-Identifier: Apache-2.0
// A disk image that is only read, and a private layer over it that takes the writes and is gone with the VM: what
// clones and restored VMs run on.
//
// Invariants: a cluster of the layer is valid when its bit in `own` is set, and then it is whole; the base is never
// written. All under lock. Requests are done on the thread that kicks: both files are local and mostly in the page
// cache, and a clone needs no thread of its own. The layer is an unlinked file, so there is nothing to flush or to
// clean up.
#define LOG_UNIT "overlay"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/block.h"
#include "util/io.h"
#include "util/log.h"

#define CLUSTER ((uint64_t)BLOCK_CLUSTER)

struct overlay {
    struct block_backend backend; // fd is the base
    int layer_fd;
    pthread_mutex_t lock;
    struct block_req *head, **tail; // submitted
    uint8_t *own;                   // a bit for each cluster
    uint8_t *buf;                   // CLUSTER bytes
};

static struct overlay *from_backend(struct block_backend *b) {
    return (struct overlay *)b;
}

static bool owned(const struct overlay *o, uint64_t cluster) {
    return o->own[cluster / 8] >> (cluster % 8) & 1;
}

static uint64_t cluster_bytes(const struct overlay *o, uint64_t cluster) {
    uint64_t left = o->backend.size - cluster * CLUSTER;
    return left < CLUSTER ? left : CLUSTER;
}

// ---- pieces ----

static int transfer(bool write, int fd, uint8_t *buf, size_t len, uint64_t at) {
    return write ? io_write_at(fd, buf, len, at) : io_read_at(fd, buf, len, at);
}

// Makes the cluster the layer's. whole: all of it is about to be written.
static int take_cluster(struct overlay *o, uint64_t cluster, bool whole) {
    size_t bytes = (size_t)cluster_bytes(o, cluster);
    int ret = 0;
    if (owned(o, cluster))
        return 0;
    if (!whole)
        ret = transfer(false, o->backend.fd, o->buf, bytes, cluster * CLUSTER);
    if (!ret && !whole)
        ret = transfer(true, o->layer_fd, o->buf, bytes, cluster * CLUSTER);
    if (!ret)
        o->own[cluster / 8] |= (uint8_t)(1u << (cluster % 8));
    return ret;
}

// Calls fn for each piece of [at, at + len) that lies in one cluster.
static int each_piece(struct overlay *o, uint64_t at, uint64_t len, uint8_t *buf,
                      int (*fn)(struct overlay *o, uint64_t at, size_t len, uint8_t *buf)) {
    while (len) {
        uint64_t n = CLUSTER - at % CLUSTER;
        n = n < len ? n : len;
        int ret = fn(o, at, (size_t)n, buf);
        if (ret)
            return ret;
        at += n;
        len -= n;
        buf = buf ? buf + n : NULL;
    }
    return 0;
}

static int read_piece(struct overlay *o, uint64_t at, size_t len, uint8_t *buf) {
    return transfer(false, owned(o, at / CLUSTER) ? o->layer_fd : o->backend.fd, buf, len, at);
}

static int write_piece(struct overlay *o, uint64_t at, size_t len, uint8_t *buf) {
    int ret = take_cluster(o, at / CLUSTER, len == cluster_bytes(o, at / CLUSTER));
    return ret ? ret : transfer(true, o->layer_fd, buf, len, at);
}

static int zero_piece(struct overlay *o, uint64_t at, size_t len, uint8_t *ignored) {
    int ret = take_cluster(o, at / CLUSTER, false);
    if (ret || fallocate(o->layer_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)len) == 0)
        return ret;
    memset(o->buf, 0, len);
    return transfer(true, o->layer_fd, o->buf, len, at);
}

// ---- requests ----

static int run(struct overlay *o, const struct block_req *req) {
    uint64_t at = req->offset;
    int ret = 0;
    switch (req->op) {
    case BLOCK_READ:
    case BLOCK_WRITE:
        for (unsigned i = 0; ret == 0 && i < req->niov; i++) {
            ret = each_piece(o, at, req->iov[i].iov_len, req->iov[i].iov_base,
                             req->op == BLOCK_READ ? read_piece : write_piece);
            at += req->iov[i].iov_len;
        }
        return ret;
    case BLOCK_WRITE_ZEROES: return each_piece(o, at, req->bytes, NULL, zero_piece);
    case BLOCK_FLUSH:
    case BLOCK_DISCARD: break; // nothing outlives the VM; only advice
    }
    return 0;
}

static void overlay_submit(struct block_backend *b, struct block_req *req) {
    struct overlay *o = from_backend(b);
    pthread_mutex_lock(&o->lock);
    req->next = NULL;
    *o->tail = req;
    o->tail = &req->next;
    pthread_mutex_unlock(&o->lock);
}

static void overlay_kick(struct block_backend *b) {
    struct overlay *o = from_backend(b);
    pthread_mutex_lock(&o->lock);
    struct block_req *list = o->head;
    o->head = NULL;
    o->tail = &o->head;
    for (struct block_req *req = list; req; req = req->next)
        req->result = run(o, req);
    pthread_mutex_unlock(&o->lock);
    if (list)
        b->done(b->done_ctx, list);
}

static bool overlay_own(struct block_backend *b, uint64_t offset) {
    struct overlay *o = from_backend(b);
    pthread_mutex_lock(&o->lock);
    bool own = owned(o, offset / CLUSTER);
    pthread_mutex_unlock(&o->lock);
    return own;
}

static int overlay_peek(struct block_backend *b, uint8_t *buf, uint64_t bytes, uint64_t offset) {
    struct overlay *o = from_backend(b);
    pthread_mutex_lock(&o->lock);
    int ret = each_piece(o, offset, bytes, buf, read_piece);
    pthread_mutex_unlock(&o->lock);
    return ret;
}

// ---- life ----

static void overlay_destroy(struct block_backend *b) {
    struct overlay *o = from_backend(b);
    overlay_kick(b);
    close(b->fd);
    close(o->layer_fd);
    free(o->own);
    free(o->buf);
    pthread_mutex_destroy(&o->lock);
    free(o);
}

static const struct block_backend_ops overlay_ops = {
    .name = "overlay",
    .submit = overlay_submit,
    .kick = overlay_kick,
    .drain = overlay_kick,
    .own = overlay_own,
    .peek = overlay_peek,
    .destroy = overlay_destroy,
};

// An unlinked file in $TMPDIR, else /var/tmp.
static int layer_open(uint64_t size) {
    const char *dir = getenv("TMPDIR");
    int fd = open(dir && *dir ? dir : "/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    char path[] = "/tmp/cicada-overlay.XXXXXX";
    if (fd < 0 && (fd = mkostemp(path, O_CLOEXEC)) >= 0) // the file system knows no O_TMPFILE
        unlink(path);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)size) < 0) {
        int ret = -errno;
        close(fd);
        return ret;
    }
    return fd;
}

static int base_open(const char *path, uint64_t *size, struct error *err) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return error_set(err, -errno, "open disk '%s'", path);
    off_t end = fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)) ? lseek(fd, 0, SEEK_END) : -1;
    // Shared: others may read it and lay layers over it, nobody may write it.
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    int ret = 0;
    if (end <= 0 || end % BLOCK_SECTOR)
        ret = error_set(err, -EINVAL, "disk '%s' is not a file or device of whole sectors", path);
    else if (fcntl(fd, F_OFD_SETLK, &lock) < 0 && (errno == EAGAIN || errno == EACCES))
        ret = error_set(err, -EBUSY, "disk '%s' is written by another VM", path);
    if (ret) {
        close(fd);
        return ret;
    }
    *size = (uint64_t)end;
    return fd;
}

int overlay_open(const char *path, struct block_backend **out, struct error *err) {
    uint64_t size = 0;
    int fd = base_open(path, &size, err);
    if (fd < 0)
        return fd;
    struct overlay *o = calloc(1, sizeof(*o));
    if (o) {
        o->backend = (struct block_backend){.ops = &overlay_ops, .size = size, .fd = fd};
        o->own = calloc(size / CLUSTER / 8 + 1, 1);
        o->buf = malloc(CLUSTER);
        o->tail = &o->head;
        o->layer_fd = layer_open(size);
        pthread_mutex_init(&o->lock, NULL);
    }
    if (o && o->own && o->buf && o->layer_fd >= 0) {
        *out = &o->backend;
        return 0;
    }
    int ret = o && o->layer_fd < 0 ? o->layer_fd : -ENOMEM;
    error_set(err, ret, "open a layer over disk '%s'", path);
    if (o) {
        if (o->layer_fd >= 0)
            close(o->layer_fd);
        free(o->own);
        free(o->buf);
        free(o);
    }
    close(fd);
    return ret;
}
