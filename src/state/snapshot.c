// SPDX-License-Identifier: Apache-2.0
// Reading snapshots: see the header. Whatever is in the files, it ends in an error with the path of the snapshot.
#include "state/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "state/pack.h"
#include "util/crc32c.h"
#include "util/io.h"

#define MANIFEST_MAX (1u << 20)

// ---- files ----

// A whole file of at most max bytes, with a 0 behind it. *data is the caller's.
static int read_file(int dir, const char *name, size_t max, uint8_t **data, size_t *len, struct error *err) {
    struct stat st;
    int ret = 0, fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return error_set(err, -errno, "%s", name);
    if (fstat(fd, &st) < 0)
        ret = error_set(err, -errno, "%s", name);
    else if (!S_ISREG(st.st_mode) || st.st_size < 0 || (uint64_t)st.st_size > max)
        ret = error_set(err, -EINVAL, "%s: not a file of at most %zu MiB", name, max >> 20);
    uint8_t *buf = ret ? NULL : malloc((size_t)st.st_size + 1);
    if (!ret && !buf)
        ret = error_set(err, -ENOMEM, "read %s", name);
    if (!ret && (ret = io_read_at(fd, buf, (size_t)st.st_size, 0)))
        error_set(err, ret, "read %s", name);
    close(fd);
    if (ret) {
        free(buf);
        return ret;
    }
    buf[st.st_size] = 0;
    *data = buf;
    *len = (size_t)st.st_size;
    return 0;
}

// ---- manifest ----

static int check_manifest(const json_t *m, struct error *err) {
    const char *format = json_string_value(json_object_get(m, "format"));
    const char *id = json_string_value(json_object_get(m, "id"));
    json_int_t version = json_integer_value(json_object_get(m, "version"));
    if (!format || strcmp(format, SNAPSHOT_FORMAT) != 0)
        return error_set(err, -EINVAL, "manifest.json is not of a snapshot (no \"format\": \"%s\")", SNAPSHOT_FORMAT);
    if (version > SNAPSHOT_VERSION)
        return error_set(err, -EINVAL, "is of snapshot format version %lld, this program reads up to %d",
                         (long long)version, SNAPSHOT_VERSION);
    if (version < 1 || !id || strlen(id) != SNAPSHOT_ID_LENGTH || strspn(id, "0123456789abcdef") != SNAPSHOT_ID_LENGTH)
        return error_set(err, -EINVAL, "manifest.json is damaged (version or id)");
    return 0;
}

static int read_manifest(int dir, json_t **manifest, struct error *err) {
    json_error_t where;
    uint8_t *text = NULL;
    size_t len = 0;
    int ret = read_file(dir, "manifest.json", MANIFEST_MAX, &text, &len, err);
    if (ret)
        return ret;
    json_t *m = json_loadb((const char *)text, len, JSON_REJECT_DUPLICATES, &where);
    free(text);
    if (!m)
        return error_set(err, -EINVAL, "manifest.json is damaged: %.100s at line %d", where.text, where.line);
    ret = check_manifest(m, err);
    if (ret)
        json_decref(m);
    else
        *manifest = m;
    return ret;
}

static int open_dir(const char *path, struct error *err) {
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return dir < 0 ? error_set(err, -errno, "open snapshot '%s'", path) : dir;
}

int snapshot_manifest_read(const char *path, json_t **manifest, struct error *err) {
    int dir = open_dir(path, err);
    if (dir < 0)
        return dir;
    int ret = read_manifest(dir, manifest, err);
    close(dir);
    return ret ? error_prefix(err, "snapshot '%.200s'", path) : 0;
}

// ---- opening ----

static int read_state(struct snapshot *s, int dir, struct error *err) {
    const json_t *machine = json_object_get(s->manifest, "machine");
    const json_t *bytes = json_object_get(machine, "state_bytes"), *crc = json_object_get(machine, "state_crc32c");
    if (!json_is_integer(bytes) || !json_is_integer(crc))
        return error_set(err, -EINVAL, "manifest.json is damaged (state)");
    int ret = read_file(dir, "state", SECTIONS_BYTES, &s->state, &s->state_bytes, err);
    if (ret)
        return ret;
    if ((json_int_t)s->state_bytes != json_integer_value(bytes))
        return error_set(err, -EINVAL, "state: %s, %zu bytes instead of %lld",
                         (json_int_t)s->state_bytes < json_integer_value(bytes) ? "truncated" : "corrupt",
                         s->state_bytes, (long long)json_integer_value(bytes));
    ret = sections_parse(s->state, s->state_bytes, &s->sections, err);
    if (ret)
        return error_prefix(err, "state");
    // Behind the sections' own checksums, which say where: this one says that it is the file of this manifest.
    if (crc32c(0, s->state, s->state_bytes) != (uint32_t)json_integer_value(crc))
        return error_set(err, -EINVAL, "state: is not the one that manifest.json describes");
    return 0;
}

static int open_memory(struct snapshot *s, int dir, struct error *err) {
    const char *packing = json_string_value(json_object_get(s->manifest, "compression"));
    bool packed = packing && strcmp(packing, "zstd") == 0;
    if (!packing || (!packed && strcmp(packing, "none") != 0))
        return error_set(err, -EINVAL, "manifest.json is damaged (compression)");
    const char *name = packed ? "memory.zst" : "memory";
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return error_set(err, -errno, "%s", name);
    *(packed ? &s->packed_fd : &s->memory_fd) = fd;
    return 0;
}

static int open_chain(const char *path, unsigned depth, struct snapshot **out, struct error *err);

static int open_parent(struct snapshot *s, unsigned depth, struct error *err) {
    const json_t *p = json_object_get(s->manifest, "parent");
    const char *id = json_string_value(json_object_get(p, "id"));
    const char *path = json_string_value(json_object_get(p, "path"));
    char full[2 * PATH_MAX];
    if (!p)
        return 0;
    if (!id || !path || !*path)
        return error_set(err, -EINVAL, "manifest.json is damaged (parent)");
    if (depth == SNAPSHOT_DEPTH_MAX)
        return error_set(err, -EINVAL, "has more than %d parents", SNAPSHOT_DEPTH_MAX);
    snprintf(full, sizeof(full), "%s%s%s", *path == '/' ? "" : s->path, *path == '/' ? "" : "/", path);
    int ret = open_chain(full, depth + 1, &s->parent, err);
    if (ret)
        return error_prefix(err, "its parent");
    if (strcmp(s->parent->id, id) != 0)
        return error_set(err, -EINVAL, "its parent '%.200s' is another snapshot than the one it was made from", path);
    s->diff = true;
    return 0;
}

static int open_parts(struct snapshot *s, int dir, unsigned depth, struct error *err) {
    int ret = read_manifest(dir, &s->manifest, err);
    if (ret)
        return ret;
    snprintf(s->id, sizeof(s->id), "%s", json_string_value(json_object_get(s->manifest, "id")));
    ret = read_state(s, dir, err);
    if (ret == 0)
        ret = open_memory(s, dir, err);
    return ret ? ret : open_parent(s, depth, err);
}

static int open_chain(const char *path, unsigned depth, struct snapshot **out, struct error *err) {
    int dir = open_dir(path, err);
    if (dir < 0)
        return dir;
    struct snapshot *s = calloc(1, sizeof(*s));
    int ret = s ? 0 : error_set(err, -ENOMEM, "open snapshot");
    if (ret == 0) {
        s->memory_fd = s->packed_fd = -1;
        if (!realpath(path, s->path))
            ret = error_set(err, -errno, "open snapshot '%s'", path);
        else if ((ret = open_parts(s, dir, depth, err)))
            error_prefix(err, "snapshot '%.200s'", path);
    }
    close(dir);
    if (ret)
        snapshot_close(s);
    else
        *out = s;
    return ret;
}

int snapshot_open(const char *path, struct snapshot **s, struct error *err) {
    return open_chain(path, 0, s, err);
}

void snapshot_close(struct snapshot *s) {
    while (s) {
        struct snapshot *parent = s->parent;
        if (s->memory_fd >= 0)
            close(s->memory_fd);
        if (s->packed_fd >= 0)
            close(s->packed_fd);
        sections_free(&s->sections);
        free(s->state);
        json_decref(s->manifest);
        free(s);
        s = parent;
    }
}

// ---- memory ----

static int unpack(struct snapshot *s, struct error *err) {
    if (s->memory_fd >= 0)
        return 0;
    return pack_expand(&s->sections, s->packed_fd, &s->memory_fd, err);
}

static int check_one(struct snapshot *s, const struct mem *mem, struct error *err) {
    struct stat st;
    bool diff = false;
    int ret = unpack(s, err);
    if (ret)
        return ret;
    if (fstat(s->memory_fd, &st) < 0)
        return error_set(err, -errno, "memory");
    ret = ram_sections_check(&s->sections, mem, (uint64_t)st.st_size, &diff, err);
    if (ret == 0 && diff != s->diff)
        ret = error_set(err, -EINVAL, "manifest.json and state disagree on whether it is a difference");
    return ret;
}

int snapshot_check_memory(const struct snapshot *s, const struct mem *mem, struct error *err) {
    for (; s; s = s->parent)
        if (check_one((struct snapshot *)s, mem, err))
            return error_prefix(err, "snapshot '%.200s'", s->path);
    return 0;
}

int snapshot_load_memory(const struct snapshot *s, struct mem *mem, enum ram_load_how how, struct error *err) {
    int ret = s->parent ? snapshot_load_memory(s->parent, mem, how, err) : 0;
    if (ret)
        return ret;
    ret = ram_load(&s->sections, mem, s->memory_fd, how, err);
    return ret ? error_prefix(err, "snapshot '%.200s'", s->path) : 0;
}

int snapshot_verify(const struct snapshot *s, struct error *err) {
    for (; s; s = s->parent) {
        int ret = unpack((struct snapshot *)s, err);
        if (ret == 0)
            ret = ram_verify(&s->sections, s->memory_fd, err);
        if (ret)
            return error_prefix(err, "snapshot '%.200s'", s->path);
    }
    return 0;
}
