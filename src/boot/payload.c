// SPDX-License-Identifier: Apache-2.0
// Unpacks the kernel inside of a bzImage. arch/x86/boot/compressed puts behind the compressed stream its unpacked
// size (4 bytes; gzip has them anyway as ISIZE): the output buffer has exactly this size, bounded by
// BOOT_PAYLOAD_MAX, and a stream that is longer or shorter is an error.
#include <errno.h>
#include <lz4.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "boot/image.h"
#include "boot/le.h"

#define LZ4_LEGACY_MAGIC 0x184c2102u
#define LZ4_LEGACY_BLOCK (8u << 20) // unpacked size of all blocks but the last
#define LZMA_MEM_LIMIT   (256ull << 20)

// Each unpacks in to exactly out_size bytes: 0, or -EINVAL for a bad stream.
typedef int payload_unpack_fn(struct boot_blob in, uint8_t *out, size_t out_size);

// lz4 doc/lz4_Frame_format.md "Legacy frame": magic, then blocks of 4 bytes size and data.
static int unpack_lz4(struct boot_blob in, uint8_t *out, size_t out_size) {
    size_t pos = 4, done = 0;
    while (done < out_size && in.size - pos >= 4) {
        uint32_t n = le32_get(in.data + pos);
        pos += 4;
        if (n == LZ4_LEGACY_MAGIC) // concatenated frames
            continue;
        if (n > in.size - pos || n > LZ4_COMPRESSBOUND(LZ4_LEGACY_BLOCK))
            return -EINVAL;
        size_t room = out_size - done < LZ4_LEGACY_BLOCK ? out_size - done : LZ4_LEGACY_BLOCK;
        int got = LZ4_decompress_safe((const char *)in.data + pos, (char *)out + done, (int)n, (int)room);
        if (got < 0)
            return -EINVAL;
        pos += n;
        done += (size_t)got;
    }
    return done == out_size && pos == in.size ? 0 : -EINVAL;
}

// xz with the x86 filter, or the older lzma-alone format.
static int unpack_lzma(struct boot_blob in, uint8_t *out, size_t out_size) {
    lzma_stream s = LZMA_STREAM_INIT;
    if (lzma_auto_decoder(&s, LZMA_MEM_LIMIT, 0) != LZMA_OK)
        return -ENOMEM;
    s.next_in = in.data;
    s.avail_in = in.size;
    s.next_out = out;
    s.avail_out = out_size;
    lzma_ret ret = lzma_code(&s, LZMA_FINISH);
    size_t left = s.avail_out;
    lzma_end(&s);
    return ret == LZMA_STREAM_END && left == 0 ? 0 : -EINVAL;
}

static int unpack_zstd(struct boot_blob in, uint8_t *out, size_t out_size) {
    size_t got = ZSTD_decompress(out, out_size, in.data, in.size);
    return !ZSTD_isError(got) && got == out_size ? 0 : -EINVAL;
}

static int unpack_gzip(struct boot_blob in, uint8_t *out, size_t out_size) {
    z_stream s = {0};
    s.next_in = (z_const Bytef *)in.data;
    s.avail_in = (uInt)in.size; // a bzImage is below 1 GiB
    s.next_out = out;
    s.avail_out = (uInt)out_size;
    if (inflateInit2(&s, 16 + MAX_WBITS) != Z_OK)
        return -ENOMEM;
    int ret = inflate(&s, Z_FINISH);
    inflateEnd(&s);
    return ret == Z_STREAM_END && s.avail_out == 0 ? 0 : -EINVAL;
}

static const struct payload_format {
    const char *name, *magic;
    size_t magic_len;
    payload_unpack_fn *unpack; // NULL: known, not supported
    bool size_inside;          // the last 4 bytes belong to the stream
} payload_formats[] = {
    {"lz4", "\x02\x21\x4c\x18", 4, unpack_lz4, false},
    {"xz",
     "\xfd"
     "7zXZ",
     6, unpack_lzma, false},
    {"zstd", "\x28\xb5\x2f\xfd", 4, unpack_zstd, false},
    {"gzip", "\x1f\x8b\x08", 3, unpack_gzip, true},
    {"lzma", "\x5d\x00\x00", 3, unpack_lzma, false},
    {"bzip2", "BZh", 3, NULL, false},
    {"lzo", "\x89LZO", 4, NULL, false},
};

static const struct payload_format *payload_find_format(struct boot_blob packed) {
    for (size_t i = 0; i < ARRAY_LEN(payload_formats); i++) {
        const struct payload_format *f = &payload_formats[i];
        if (packed.size > f->magic_len + 4 && memcmp(packed.data, f->magic, f->magic_len) == 0)
            return f;
    }
    return NULL;
}

int payload_extract(struct boot_blob packed, struct boot_blob *out, struct error *err) {
    const struct payload_format *f = payload_find_format(packed);
    if (!f)
        return error_set(err, -EINVAL, "the payload of the bzImage has no compression format that is known");
    if (!f->unpack)
        return error_set(err, -EINVAL, "the payload of the bzImage is packed with %s, which is not supported", f->name);
    size_t size = le32_get(packed.data + packed.size - 4);
    if (size == 0 || size > BOOT_PAYLOAD_MAX)
        return error_set(err, -EINVAL, "the payload of the bzImage says it unpacks to %zu bytes (at most %llu)", size,
                         BOOT_PAYLOAD_MAX);
    uint8_t *buf = boot_blob_alloc(size);
    if (!buf)
        return error_set(err, -ENOMEM, "unpack the %s payload of the bzImage", f->name);
    if (!f->size_inside)
        packed.size -= 4;
    int ret = f->unpack(packed, buf, size);
    if (ret) {
        free(buf);
        return error_set(err, ret, "the %s payload of the bzImage is damaged", f->name);
    }
    *out = (struct boot_blob){.data = buf, .size = size};
    return 0;
}
