// SPDX-License-Identifier: Apache-2.0
// Compressed memory: see the header. The maps bound what is read and written: a stream cannot make us write elsewhere
// or more. Pages are still verified by their checksums where that is asked for (RAM_READ).
#include "state/pack.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zstd.h>

#include "state/ram.h"
#include "util/io.h"

#define BUFFER_BYTES ((size_t)1 << 20)

struct stream {
    int memory_fd, packed_fd;
    ZSTD_CCtx *c;
    ZSTD_DCtx *d;
    uint8_t *page_run, *packed;    // BUFFER_BYTES each
    size_t packed_pos, packed_len; // of what was read and not yet expanded
};

static int stream_open(struct stream *s, bool compress, struct error *err) {
    s->page_run = malloc(BUFFER_BYTES);
    s->packed = malloc(BUFFER_BYTES);
    s->c = compress ? ZSTD_createCCtx() : NULL;
    s->d = compress ? NULL : ZSTD_createDCtx();
    bool ok = s->page_run && s->packed && (s->c || s->d);
    return ok ? 0 : error_set(err, -ENOMEM, "zstd");
}

static void stream_close(struct stream *s) {
    free(s->page_run);
    free(s->packed);
    ZSTD_freeCCtx(s->c);
    ZSTD_freeDCtx(s->d);
}

// One run of pages of at most BUFFER_BYTES at `offset` of the file of the memory.
typedef int (*run_fn)(struct stream *s, uint64_t offset, size_t len, struct error *err);

static bool bit(const uint8_t *bits, uint64_t page) {
    return bits[page / 8] >> (page % 8) & 1;
}

static int each_run(const struct sections *sections, struct stream *s, run_fn fn, struct error *err) {
    struct ram_section ram;
    int ret;
    for (unsigned i = 0; (ret = ram_section_get(sections, i, &ram, err)) == 0; i++) {
        uint64_t pages = ram.size >> PAGE_SHIFT, n;
        for (uint64_t page = 0; page < pages; page += n ? n : 1) {
            for (n = 0; n < BUFFER_BYTES / PAGE_SIZE && page + n < pages && bit(ram.bits, page + n);)
                n++;
            ret = n ? fn(s, ram.offset + (page << PAGE_SHIFT), n << PAGE_SHIFT, err) : 0;
            if (ret)
                return ret;
        }
    }
    return ret == -ENOENT ? 0 : ret;
}

// ---- compress ----

static int feed(struct stream *s, ZSTD_inBuffer in, ZSTD_EndDirective end, struct error *err) {
    for (;;) {
        ZSTD_outBuffer out = {.dst = s->packed, .size = BUFFER_BYTES};
        size_t left = ZSTD_compressStream2(s->c, &out, &in, end);
        if (ZSTD_isError(left))
            return error_set(err, -EIO, "zstd: %s", ZSTD_getErrorName(left));
        int ret = io_write(s->packed_fd, s->packed, out.pos);
        if (ret)
            return error_set(err, ret, "write memory.zst");
        if (in.pos == in.size && (end == ZSTD_e_continue || left == 0))
            return 0;
    }
}

static int compress_run(struct stream *s, uint64_t offset, size_t len, struct error *err) {
    int ret = io_read_at(s->memory_fd, s->page_run, len, offset);
    if (ret)
        return error_set(err, ret, "read the memory");
    return feed(s, (ZSTD_inBuffer){.src = s->page_run, .size = len}, ZSTD_e_continue, err);
}

int pack_compress(const struct sections *sections, int memory_fd, int out_fd, int level, struct error *err) {
    struct stream s = {.memory_fd = memory_fd, .packed_fd = out_fd};
    int ret = stream_open(&s, true, err);
    if (ret == 0) {
        ZSTD_CCtx_setParameter(s.c, ZSTD_c_compressionLevel, level);
        ZSTD_CCtx_setParameter(s.c, ZSTD_c_checksumFlag, 1);
        ret = each_run(sections, &s, compress_run, err);
    }
    if (ret == 0)
        ret = feed(&s, (ZSTD_inBuffer){0}, ZSTD_e_end, err);
    stream_close(&s);
    return ret;
}

// ---- expand ----

// More of the stream into packed; *end where there is none.
static int refill(struct stream *s, bool *end, struct error *err) {
    ssize_t n;
    do
        n = read(s->packed_fd, s->packed, BUFFER_BYTES);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return error_set(err, -errno, "read memory.zst");
    *end = n == 0;
    s->packed_pos = 0;
    s->packed_len = (size_t)n;
    return 0;
}

// Expands until out is full or the stream ends.
static int drain(struct stream *s, ZSTD_outBuffer *out, struct error *err) {
    bool end = false;
    while (out->pos < out->size && !end) {
        int ret = s->packed_pos == s->packed_len ? refill(s, &end, err) : 0;
        if (ret)
            return ret;
        ZSTD_inBuffer in = {.src = s->packed, .size = s->packed_len, .pos = s->packed_pos};
        size_t n = ZSTD_decompressStream(s->d, out, &in);
        if (ZSTD_isError(n))
            return error_set(err, -EINVAL, "corrupt: memory.zst: %s", ZSTD_getErrorName(n));
        s->packed_pos = in.pos;
    }
    return 0;
}

static int expand_run(struct stream *s, uint64_t offset, size_t len, struct error *err) {
    ZSTD_outBuffer out = {.dst = s->page_run, .size = len};
    int ret = drain(s, &out, err);
    if (ret)
        return ret;
    if (out.pos < len)
        return error_set(err, -EINVAL, "truncated: memory.zst");
    ret = io_write_at(s->memory_fd, s->page_run, len, offset);
    return ret ? error_set(err, ret, "expand the memory") : 0;
}

// The maps are satisfied; the stream must be at its end, too, and its checksum right.
static int expand_end(struct stream *s, struct error *err) {
    uint8_t more;
    ZSTD_outBuffer out = {.dst = &more, .size = 1};
    int ret = drain(s, &out, err);
    return ret == 0 && out.pos ? error_set(err, -EINVAL, "corrupt: memory.zst is too long") : ret;
}

static int make_memfd(const struct sections *sections, int *fd, struct error *err) {
    struct ram_section ram;
    uint64_t bytes = 0;
    int ret;
    for (unsigned i = 0; (ret = ram_section_get(sections, i, &ram, err)) == 0; i++)
        bytes = ram.offset + ram.size > bytes ? ram.offset + ram.size : bytes;
    if (ret != -ENOENT)
        return ret;
    *fd = memfd_create("snapshot-memory", MFD_CLOEXEC);
    if (*fd < 0 || ftruncate(*fd, (off_t)bytes) < 0)
        return error_set(err, -errno, "expand the memory");
    return 0;
}

int pack_expand(const struct sections *sections, int packed_fd, int *memory_fd, struct error *err) {
    int fd = -1;
    int ret = make_memfd(sections, &fd, err);
    struct stream s = {.memory_fd = fd, .packed_fd = packed_fd};
    if (ret == 0)
        ret = stream_open(&s, false, err);
    if (ret == 0 && lseek(packed_fd, 0, SEEK_SET) < 0)
        ret = error_set(err, -errno, "read memory.zst");
    if (ret == 0)
        ret = each_run(sections, &s, expand_run, err);
    if (ret == 0)
        ret = expand_end(&s, err);
    stream_close(&s);
    if (ret && fd >= 0)
        close(fd);
    else if (ret == 0)
        *memory_fd = fd;
    return ret;
}
