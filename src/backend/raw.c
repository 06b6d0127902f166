// SPDX-License-Identifier: Apache-2.0
// Raw images: opening with clear errors, the lock, and the steps of a request.
#define LOG_UNIT "raw"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/raw_file.h"
#include "util/log.h"

// ---- steps ----

// Where the file system cannot zero a range, zeroes are written from here, piece by piece.
#define ZEROES_BYTES 65536
static const uint8_t zeroes[ZEROES_BYTES];

// Marks in req->niov of a BLOCK_WRITE_ZEROES that zeroes are written out.
#define WRITE_OUT 1

void raw_step_next(const struct block_req *req, struct raw_step *step) {
    *step = (struct raw_step){.offset = req->offset + req->done, .bytes = req->bytes - req->done};
    switch (req->op) {
    case BLOCK_READ:
    case BLOCK_WRITE:
        step->call = req->op == BLOCK_READ ? RAW_READV : RAW_WRITEV;
        step->iov = req->iov;
        step->niov = req->niov < IOV_MAX ? req->niov : IOV_MAX;
        break;
    case BLOCK_FLUSH: step->call = RAW_FDATASYNC; break;
    case BLOCK_DISCARD:
        step->call = RAW_FALLOCATE;
        step->mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        break;
    case BLOCK_WRITE_ZEROES:
        step->call = RAW_FALLOCATE;
        step->mode = FALLOC_FL_KEEP_SIZE | (req->may_unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
        if (req->niov != WRITE_OUT)
            break;
        step->call = RAW_WRITE;
        step->buf = zeroes;
        step->bytes = step->bytes < ZEROES_BYTES ? step->bytes : ZEROES_BYTES;
        break;
    }
}

int raw_step_run(int fd, const struct raw_step *s) {
    ssize_t ret = -1;
    switch (s->call) {
    case RAW_READV: ret = preadv(fd, s->iov, (int)s->niov, (off_t)s->offset); break;
    case RAW_WRITEV: ret = pwritev(fd, s->iov, (int)s->niov, (off_t)s->offset); break;
    case RAW_WRITE: ret = pwrite(fd, s->buf, s->bytes, (off_t)s->offset); break;
    case RAW_FDATASYNC: ret = fdatasync(fd); break;
    case RAW_FALLOCATE: ret = fallocate(fd, s->mode, (off_t)s->offset, (off_t)s->bytes); break;
    }
    return ret < 0 ? -errno : (int)ret; // one call moves less than 2 GiB
}

static void advance(struct block_req *req, uint64_t n) {
    req->done += n;
    while (req->niov && n >= req->iov->iov_len) {
        n -= req->iov->iov_len;
        req->iov++;
        req->niov--;
    }
    if (req->niov) {
        req->iov->iov_base = (uint8_t *)req->iov->iov_base + n;
        req->iov->iov_len -= n;
    }
}

static bool finish(struct block_req *req, int result) {
    req->result = result;
    return true;
}

static bool transfer_result(struct block_req *req, int res) {
    if (res == 0)
        return finish(req, -EIO); // the file was cut behind our back
    if (req->op == BLOCK_WRITE_ZEROES)
        req->done += (uint64_t)res;
    else
        advance(req, (uint64_t)res);
    return req->done >= req->bytes ? finish(req, 0) : false;
}

bool raw_step_result(struct block_req *req, int res) {
    // ECANCELED: the vCPU thread that submitted has ended; another one takes the step again.
    if (res == -EINTR || res == -EAGAIN || res == -ECANCELED)
        return false;
    bool written_out = req->op == BLOCK_WRITE_ZEROES && req->niov == WRITE_OUT;
    if (req->op == BLOCK_DISCARD && res == -EOPNOTSUPP)
        return finish(req, 0); // only advice
    if (req->op == BLOCK_WRITE_ZEROES && res == -EOPNOTSUPP && !written_out) {
        req->niov = WRITE_OUT;
        return false;
    }
    if (res < 0)
        return finish(req, res);
    if (req->op == BLOCK_READ || req->op == BLOCK_WRITE || written_out)
        return transfer_result(req, res);
    return finish(req, 0);
}

// ---- opening ----

// Belongs to the open file, not to the process, so two VMs of one process exclude each other too. 0, -EBUSY, or another
// negative errno where the file system has no locks.
static int set_lock(int fd, short type) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

static int lock_image(int fd, bool read_only, const char *path, struct error *err) {
    int ret = set_lock(fd, read_only ? F_RDLCK : F_WRLCK);
    if (ret == -EBUSY) {
        error_set(err, -EINVAL, "disk '%s' is already in use by another VM", path);
        return err->code = -EBUSY;
    }
    if (ret)
        log_warn("disk '%s': no locks on this file system (%s), not guarded against use by two VMs", path,
                 strerror(-ret));
    return 0;
}

int raw_lock(struct block_backend *b) {
    return b->fd >= 0 && set_lock(b->fd, b->read_only ? F_RDLCK : F_WRLCK) == -EBUSY ? -EBUSY : 0;
}

void raw_unlock(struct block_backend *b) {
    if (b->fd >= 0)
        set_lock(b->fd, F_UNLCK);
}

static int image_size(int fd, const struct stat *st, const char *path, uint64_t *size, struct error *err) {
    if (S_ISDIR(st->st_mode))
        return error_set(err, -EISDIR, "open disk '%s'", path);
    if (S_ISBLK(st->st_mode)) {
        if (ioctl(fd, BLKGETSIZE64, size) < 0)
            return error_set(err, -errno, "size of disk '%s'", path);
    } else if (S_ISREG(st->st_mode)) {
        *size = (uint64_t)st->st_size;
    } else {
        return error_set(err, -EINVAL, "disk '%s' is neither a file nor a block device", path);
    }
    if (!*size)
        return error_set(err, -EINVAL, "disk '%s' is empty", path);
    if (*size % BLOCK_SECTOR)
        return error_set(err, -EINVAL, "disk '%s': its size, %llu bytes, is not a multiple of %u", path,
                         (unsigned long long)*size, BLOCK_SECTOR);
    return 0;
}

static int image_open(const char *path, const struct raw_options *opt, uint64_t *size, struct error *err) {
    bool read_only = opt->read_only;
    struct stat st;
    // O_NONBLOCK: opening a FIFO must not wait for its other end. It has no meaning for files.
    int fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return error_set(err, -errno, "open disk '%s'%s", path,
                         (errno == EACCES || errno == EROFS) && !read_only ? " for writing" : "");
    int ret = fstat(fd, &st) < 0 ? error_set(err, -errno, "open disk '%s'", path) : 0;
    if (!ret)
        ret = image_size(fd, &st, path, size, err);
    if (!ret && !opt->unlocked)
        ret = lock_image(fd, read_only, path, err);
    if (!ret)
        return fd;
    close(fd);
    return ret;
}

int raw_open(const char *path, const struct raw_options *opt, struct event_loop *loop, struct block_backend **b,
             struct error *err) {
    uint64_t size = 0;
    int fd = image_open(path, opt, &size, err);
    if (fd < 0)
        return fd;
    struct error why = {0};
    int ret = opt->no_uring ? -ENOSYS : raw_uring_create(fd, loop, b, &why);
    if (ret) {
        log_info("disk '%s': using a thread (%s)", path, opt->no_uring ? "as asked for" : why.text);
        ret = raw_thread_create(fd, loop, b, err);
    }
    if (ret) {
        close(fd);
        return error_prefix(err, "open disk '%s'", path);
    }
    (*b)->size = size;
    (*b)->read_only = opt->read_only;
    (*b)->fd = fd;
    return 0;
}
