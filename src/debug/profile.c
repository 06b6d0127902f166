// SPDX-License-Identifier: Apache-2.0
// Stacks that become equal once addresses have names are joined: sorted by their text, neighbours added up.
#include "debug/profile.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "debug/kallsyms.h"

static const char *const part_names[PART_COUNT] = {
    [PART_IDLE] = "idle",         [PART_TRANSLATED] = "translated", [PART_TRANSLATOR] = "translator",
    [PART_EMULATOR] = "emulator", [PART_HELPERS] = "helpers",       [PART_DEVICES] = "devices",
    [PART_LOST] = "lost",
};

struct line {
    char *text; // owned
    uint64_t count;
};

struct report {
    struct kallsyms *symbols; // NULL where the guest has none
    struct line *lines;       // owned
    size_t count, capacity;
    uint64_t parts[PART_COUNT];
    bool out_of_memory;
};

static void put_frame(const struct report *r, FILE *f, uint64_t rip, bool user) {
    char name[KALLSYMS_NAME_MAX];
    if (!user && r->symbols && kallsyms_name(r->symbols, rip, name))
        fprintf(f, ";%s", name);
    else
        fprintf(f, ";0x%" PRIx64, rip);
}

static char *stack_text(const struct report *r, const struct engine_sample *s) {
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    if (!f)
        return NULL;
    if (s->depth)
        fputs(s->user ? "user" : "kernel", f);
    for (unsigned i = s->depth; i-- > 0;)
        // A return address may already belong to the next function.
        put_frame(r, f, s->rip[i] - (i ? 1 : 0), s->user);
    fprintf(f, s->depth ? ";[%s]" : "[%s]", part_names[s->part < PART_COUNT ? s->part : PART_LOST]);
    if (fclose(f) == 0)
        return text;
    free(text);
    return NULL;
}

static bool lines_grow(struct report *r) {
    if (r->count < r->capacity)
        return true;
    size_t capacity = r->capacity ? r->capacity * 2 : 1024;
    struct line *lines = reallocarray(r->lines, capacity, sizeof(*lines));
    if (!lines)
        return false;
    r->lines = lines;
    r->capacity = capacity;
    return true;
}

static void add_sample(void *ctx, const struct engine_sample *s) {
    struct report *r = ctx;
    char *text = lines_grow(r) ? stack_text(r, s) : NULL;
    if (!text) {
        r->out_of_memory = true;
        return;
    }
    r->lines[r->count++] = (struct line){text, s->count};
    r->parts[s->part < PART_COUNT ? s->part : PART_LOST] += s->count;
}

static int by_text(const void *a, const void *b) {
    return strcmp(((const struct line *)a)->text, ((const struct line *)b)->text);
}

static void put_lines(struct report *r, FILE *out) {
    if (r->count)
        qsort(r->lines, r->count, sizeof(*r->lines), by_text);
    for (size_t i = 0; i < r->count;) {
        uint64_t count = 0;
        size_t first = i;
        for (; i < r->count && strcmp(r->lines[i].text, r->lines[first].text) == 0; i++)
            count += r->lines[i].count;
        fprintf(out, "%s %" PRIu64 "\n", r->lines[first].text, count);
    }
}

static void put_summary(const struct report *r, FILE *out) {
    uint64_t all = 0;
    for (unsigned p = 0; p < PART_COUNT; p++)
        all += r->parts[p];
    fprintf(out, "cicada: profile: %" PRIu64 " samples", all);
    for (unsigned p = 0; p < PART_COUNT; p++)
        if (r->parts[p])
            fprintf(out, ", %s %.1f %%", part_names[p], 100.0 * (double)r->parts[p] / (double)all);
    fprintf(out, "%s\n", r->symbols ? "" : "; no kernel symbols found in the guest");
}

int profile_write(struct machine *m, FILE *out, FILE *summary) {
    struct report r = {0};
    if (kallsyms_open(m->mem, &r.symbols))
        r.symbols = NULL; // addresses will do
    m->engine_ops->profile_walk(m->engine, add_sample, &r);
    put_lines(&r, out);
    put_summary(&r, summary);
    for (size_t i = 0; i < r.count; i++)
        free(r.lines[i].text);
    free(r.lines);
    kallsyms_close(r.symbols);
    if (r.out_of_memory)
        return -ENOMEM;
    return fflush(out) ? -errno : 0;
}
