// SPDX-License-Identifier: Apache-2.0
// Sections: see the header. Invariant of the reader: nothing of a section is given out before the whole run has been
// walked and every checksum was right, and no length is trusted before it was compared with what is there.
#include "state/sections.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "util/crc32c.h"

static const char magic[8] = {'C', 'I', 'C', 'A', 'D', 'A', 'S', 'T'};

#define HEADER_SIZE 28
#define OF_VERSION  8
#define OF_COUNT    12
#define OF_BYTES    16
#define OF_CRC      24

static uint64_t get_le(const uint8_t *p, unsigned n) {
    uint64_t v = 0;
    for (unsigned i = 0; i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static void set_le(uint8_t *p, uint64_t v, unsigned n) {
    for (unsigned i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

// ---- writing ----

void sections_begin(struct state_writer *w) {
    const uint8_t zero[HEADER_SIZE - OF_COUNT] = {0};
    state_put_bytes(w, magic, sizeof(magic));
    state_put_u32(w, SECTIONS_VERSION);
    state_put_bytes(w, zero, sizeof(zero));
}

void sections_put(struct state_writer *w, const char *name, uint32_t instance, uint32_t version, const void *data,
                  size_t len) {
    size_t at = w->len, name_len = strnlen(name, SECTIONS_NAME_MAX);
    state_put_u8(w, (uint8_t)name_len);
    state_put_bytes(w, name, name_len);
    state_put_u32(w, instance);
    state_put_u32(w, version);
    state_put_u64(w, len);
    if (state_writer_error(w))
        return;
    uint32_t crc = crc32c(crc32c(0, w->buf + at, w->len - at), data, len);
    state_put_u32(w, crc);
    state_put_bytes(w, data, len);
    if (!state_writer_error(w))
        set_le(w->buf + OF_COUNT, get_le(w->buf + OF_COUNT, 4) + 1, 4);
}

int sections_save(struct state_writer *w, const struct component_list *list, struct error *err) {
    for (const struct component *c = list->head; c; c = c->next) {
        struct state_writer one = {0};
        if (!c->ops->save)
            continue;
        c->ops->save(c->ctx, &one);
        int ret = state_writer_error(&one);
        if (ret == 0)
            sections_put(w, c->ops->name, c->instance, c->ops->version, one.buf, one.len);
        state_writer_free(&one);
        if (ret)
            return error_set(err, ret, "save the state of %s %u", c->ops->name, c->instance);
    }
    return 0;
}

int sections_end(struct state_writer *w, struct error *err) {
    int ret = state_writer_error(w);
    if (ret == 0 && (w->len > SECTIONS_BYTES || get_le(w->buf + OF_COUNT, 4) > SECTIONS_MAX))
        ret = -EOVERFLOW;
    if (ret)
        return error_set(err, ret, "save the state of the machine");
    set_le(w->buf + OF_BYTES, w->len, 8);
    set_le(w->buf + OF_CRC, crc32c(0, w->buf, OF_CRC), 4);
    return 0;
}

// ---- reading ----

static int check_header(const uint8_t *buf, size_t len, unsigned *count, struct error *err) {
    if (len < HEADER_SIZE)
        return error_set(err, -EINVAL, "truncated: %zu bytes are less than a header", len);
    if (memcmp(buf, magic, sizeof(magic)) != 0)
        return error_set(err, -EINVAL, "not the state of a machine (no magic number)");
    uint32_t version = (uint32_t)get_le(buf + OF_VERSION, 4);
    uint64_t bytes = get_le(buf + OF_BYTES, 8);
    // Before the checksum: a newer format may have it elsewhere.
    if (version > SECTIONS_VERSION)
        return error_set(err, -EINVAL, "of format version %u, this program reads up to %u", version, SECTIONS_VERSION);
    if (get_le(buf + OF_CRC, 4) != crc32c(0, buf, OF_CRC))
        return error_set(err, -EINVAL, "corrupt: checksum of the header");
    if (bytes != len)
        return error_set(err, -EINVAL, "%s: %zu bytes, should be %llu", bytes > len ? "truncated" : "corrupt", len,
                         (unsigned long long)bytes);
    *count = (unsigned)get_le(buf + OF_COUNT, 4);
    if (version == 0 || *count > SECTIONS_MAX)
        return error_set(err, -EINVAL, "corrupt: impossible header");
    return 0;
}

// One section at the reader; r->error where it runs over the end.
static bool read_section(struct state_reader *r, struct section *s) {
    const uint8_t *begin = r->buf + r->pos;
    size_t name_len = state_get_u8(r);
    if (r->error || name_len == 0 || name_len > SECTIONS_NAME_MAX)
        return false;
    state_get_bytes(r, s->name, name_len);
    s->instance = state_get_u32(r);
    s->version = state_get_u32(r);
    uint64_t len = state_get_u64(r);
    size_t head = (size_t)(r->buf + r->pos - begin);
    uint32_t crc = state_get_u32(r);
    if (r->error || len > r->len - r->pos || strlen(s->name) != name_len)
        return false;
    s->data = r->buf + r->pos;
    s->len = (size_t)len;
    r->pos += s->len;
    return crc == crc32c(crc32c(0, begin, head), s->data, s->len);
}

int sections_parse(const uint8_t *buf, size_t len, struct sections *s, struct error *err) {
    unsigned count = 0;
    *s = (struct sections){0};
    int ret = check_header(buf, len, &count, err);
    if (ret)
        return ret;
    s->list = calloc(count ? count : 1, sizeof(*s->list));
    if (!s->list)
        return error_set(err, -ENOMEM, "read the state of a machine");
    struct state_reader r = {.buf = buf, .len = len, .pos = HEADER_SIZE};
    for (; ret == 0 && s->count < count; s->count++) {
        struct section *one = &s->list[s->count];
        if (!read_section(&r, one))
            ret = error_set(err, -EINVAL, "corrupt: section %u of %u (checksum or length)", s->count + 1, count);
        else if (sections_find(s, one->name, one->instance))
            ret = error_set(err, -EINVAL, "corrupt: two sections %s %u", one->name, one->instance);
    }
    if (ret == 0 && r.pos != len)
        ret = error_set(err, -EINVAL, "corrupt: %zu bytes after the last section", len - r.pos);
    if (ret)
        sections_free(s);
    return ret;
}

void sections_free(struct sections *s) {
    free(s->list);
    *s = (struct sections){0};
}

const struct section *sections_find(const struct sections *s, const char *name, uint32_t instance) {
    for (unsigned i = 0; i < s->count; i++)
        if (s->list[i].instance == instance && strcmp(s->list[i].name, name) == 0)
            return &s->list[i];
    return NULL;
}

static const struct component *find_component(const struct component_list *list, const struct section *s) {
    for (const struct component *c = list->head; c; c = c->next)
        if (c->ops->load && c->instance == s->instance && strcmp(c->ops->name, s->name) == 0)
            return c;
    return NULL;
}

int sections_check(const struct sections *s, const struct component_list *list, struct error *err) {
    for (const struct component *c = list->head; c; c = c->next)
        if (c->ops->load && !sections_find(s, c->ops->name, c->instance))
            return error_set(err, -EINVAL, "the saved machine has no %s %u, this one has", c->ops->name, c->instance);
    for (unsigned i = 0; i < s->count; i++) {
        const struct section *one = &s->list[i];
        const struct component *c = find_component(list, one);
        if (one->name[0] == '.')
            continue;
        if (!c)
            return error_set(err, -EINVAL, "the saved machine has a %s %u, this one has none", one->name,
                             one->instance);
        if (one->version > c->ops->version)
            return error_set(err, -EINVAL, "the saved %s %u is of version %u, this program reads up to %u", one->name,
                             one->instance, one->version, c->ops->version);
    }
    return 0;
}

static int load_one(const struct section *s, const struct component *c, struct error *err) {
    struct state_reader r = {.buf = s->data, .len = s->len, .version = s->version};
    int ret = c->ops->load(c->ctx, &r, err);
    if (ret)
        return error_prefix(err, "load %s %u", c->ops->name, c->instance);
    if (r.error || r.pos != r.len)
        return error_set(err, -EINVAL, "load %s %u: %zu of %zu bytes are read", c->ops->name, c->instance, r.pos,
                         r.len);
    return 0;
}

int sections_load(const struct sections *s, const struct component_list *list, struct error *err) {
    for (const struct component *c = list->head; c; c = c->next) {
        const struct section *one = c->ops->load ? sections_find(s, c->ops->name, c->instance) : NULL;
        if (!c->ops->load)
            continue;
        int ret = one ? load_one(one, c, err) : error_set(err, -EINVAL, "no section %s", c->ops->name);
        if (ret)
            return ret;
    }
    return 0;
}

int sections_restore(const uint8_t *buf, size_t len, const struct component_list *list, struct error *err) {
    struct sections s;
    int ret = sections_parse(buf, len, &s, err);
    if (ret)
        return ret;
    ret = sections_check(&s, list, err);
    if (ret == 0)
        ret = sections_load(&s, list, err);
    sections_free(&s);
    return ret;
}
