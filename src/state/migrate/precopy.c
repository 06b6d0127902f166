// SPDX-License-Identifier: Apache-2.0
// Rounds over the pages that the target lacks; see the header.
#include "state/migrate/precopy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BITS       (8 * sizeof(unsigned long))
#define PAGES_MAX  64   // in a message
#define RUNS_MAX   64   // of zero pages, in a message
#define SCAN_PAGES 2048 // looked at for one message, so that the loop's other work does not wait for long

static uint64_t block_pages(const struct precopy_block *b) {
    return b->slot->size >> PAGE_SHIFT;
}

// ---- life ----

int precopy_create(struct machine *m, struct precopy *pc, struct error *err) {
    *pc = (struct precopy){.machine = m};
    const struct mem_slot *slots = mem_slots(m->mem, &pc->count);
    pc->blocks = calloc(pc->count ? pc->count : 1, sizeof(*pc->blocks));
    bool ok = pc->blocks;
    for (unsigned i = 0; ok && i < pc->count; i++) {
        struct precopy_block *b = &pc->blocks[i];
        b->slot = &slots[i];
        b->todo = calloc(mem_bitmap_words(b->slot), sizeof(*b->todo));
        b->fresh = calloc(mem_bitmap_words(b->slot), sizeof(*b->fresh));
        pc->total += block_pages(b);
        ok = b->todo && b->fresh;
    }
    if (ok)
        return 0;
    precopy_destroy(pc);
    return error_set(err, -ENOMEM, "migrate: lists of pages");
}

void precopy_destroy(struct precopy *pc) {
    for (unsigned i = 0; pc->blocks && i < pc->count; i++) {
        free(pc->blocks[i].todo);
        free(pc->blocks[i].fresh);
    }
    free(pc->blocks);
    *pc = (struct precopy){0};
}

void precopy_give_up(struct precopy *pc) {
    struct machine *m = pc->machine;
    if (m->engine_ops->dirty_stop && !mem_has_checkpoint(m->mem))
        m->engine_ops->dirty_stop(m->engine);
}

// ---- what is to be sent ----

static bool test_bit(const unsigned long *map, uint64_t page) {
    return map[page / BITS] >> (page % BITS) & 1;
}

static void set_bits(unsigned long *map, uint64_t from, uint64_t to) {
    for (; from < to; from++)
        map[from / BITS] |= 1ul << (from % BITS);
}

static uint64_t count_todo(const struct precopy *pc) {
    uint64_t n = 0;
    for (unsigned i = 0; i < pc->count; i++)
        for (uint64_t w = 0; w < mem_bitmap_words(pc->blocks[i].slot); w++)
            n += (unsigned)__builtin_popcountl(pc->blocks[i].todo[w]);
    return n;
}

// With the vCPUs stopped nobody stands between marking a page and writing to it, and devices mark behind their writes:
// so a bit taken here has its write before it, and every later write sets it again.
static void fetch_log(struct precopy *pc) {
    struct machine *m = pc->machine;
    machine_stop_vcpus(m);
    m->engine_ops->dirty_sync(m->engine);
    for (unsigned i = 0; i < pc->count; i++)
        mem_dirty_fetch(m->mem, pc->blocks[i].slot, pc->blocks[i].fresh);
    machine_resume(m);
}

static void begin_round(struct precopy *pc) {
    pc->block = 0;
    pc->page = 0;
    pc->left = count_todo(pc);
}

// The log is emptied first: what is written from then on is in it, what was written before is present.
int precopy_begin(struct precopy *pc, struct error *err) {
    fetch_log(pc);
    for (unsigned i = 0; i < pc->count; i++) {
        int ret = mem_present(pc->machine->mem, pc->blocks[i].slot, pc->blocks[i].todo);
        if (ret)
            return error_set(err, ret, "migrate: pages of '%s'", pc->blocks[i].slot->name);
    }
    begin_round(pc);
    return 0;
}

void precopy_sync(struct precopy *pc) {
    fetch_log(pc);
    for (unsigned i = 0; i < pc->count; i++)
        for (uint64_t w = 0; w < mem_bitmap_words(pc->blocks[i].slot); w++)
            pc->blocks[i].todo[w] |= pc->blocks[i].fresh[w];
    begin_round(pc);
}

// ---- sending ----

struct pick {
    uint64_t pages[PAGES_MAX];
    struct {
        uint64_t first, count;
    } runs[RUNS_MAX]; // of zero pages
    unsigned npages, nruns;
};

static bool is_zero(const uint8_t *page) {
    for (const uint64_t *p = (const uint64_t *)page, *end = p + PAGE_SIZE / 8; p < end; p += 8)
        if (p[0] | p[1] | p[2] | p[3] | p[4] | p[5] | p[6] | p[7])
            return false;
    return true;
}

static void pick_zero(struct pick *k, uint64_t page) {
    if (k->nruns && k->runs[k->nruns - 1].first + k->runs[k->nruns - 1].count == page)
        k->runs[k->nruns - 1].count++;
    else
        k->runs[k->nruns++] = (typeof(k->runs[0])){page, 1};
}

// Takes pages of one block out of todo, from where the round stands.
static void pick_pages(struct precopy *pc, struct precopy_block *b, struct pick *k) {
    for (unsigned seen = 0; seen < SCAN_PAGES && k->npages < PAGES_MAX && k->nruns < RUNS_MAX; pc->page++) {
        if (pc->page >= block_pages(b))
            return;
        unsigned long word = b->todo[pc->page / BITS] >> (pc->page % BITS);
        if (word == 0) {
            pc->page |= BITS - 1; // the loop goes to the next word
            continue;
        }
        if (!(word & 1))
            continue;
        b->todo[pc->page / BITS] &= ~(1ul << (pc->page % BITS));
        pc->left--;
        seen++;
        if (is_zero(b->slot->hva + (pc->page << PAGE_SHIFT)))
            pick_zero(k, pc->page);
        else
            k->pages[k->npages++] = pc->page;
    }
}

static int put_zeroes(struct wire *w, unsigned block, const struct pick *k) {
    uint8_t *p = wire_begin(w, WIRE_ZEROES, 8 + 16 * (size_t)k->nruns);
    if (!p)
        return -ENOMEM;
    wire_set32(p, block);
    wire_set32(p + 4, k->nruns);
    for (unsigned i = 0; i < k->nruns; i++) {
        wire_set64(p + 8 + 16 * i, k->runs[i].first);
        wire_set64(p + 16 + 16 * i, k->runs[i].count);
    }
    wire_end(w);
    return 0;
}

// Copied first and checksummed then: the guest may write meanwhile.
static int put_pages(struct wire *w, unsigned block, const struct precopy_block *b, const struct pick *k) {
    uint8_t *p = wire_begin(w, WIRE_PAGES, 8 + (8 + PAGE_SIZE) * (size_t)k->npages);
    if (!p)
        return -ENOMEM;
    wire_set32(p, block);
    wire_set32(p + 4, k->npages);
    for (unsigned i = 0; i < k->npages; i++) {
        wire_set64(p + 8 + 8 * i, k->pages[i]);
        memcpy(p + 8 + 8 * (size_t)k->npages + PAGE_SIZE * i, b->slot->hva + (k->pages[i] << PAGE_SHIFT), PAGE_SIZE);
    }
    wire_end(w);
    return 0;
}

bool precopy_send(struct precopy *pc, struct wire *w, int *ret) {
    struct pick k;
    *ret = 0;
    for (; pc->block < pc->count; pc->block++, pc->page = 0) {
        struct precopy_block *b = &pc->blocks[pc->block];
        k.npages = k.nruns = 0;
        pick_pages(pc, b, &k);
        if (k.nruns)
            *ret = put_zeroes(w, pc->block, &k);
        if (*ret == 0 && k.npages)
            *ret = put_pages(w, pc->block, b, &k);
        pc->pages += k.npages;
        for (unsigned i = 0; i < k.nruns; i++)
            pc->zeroes += k.runs[i].count;
        if (k.npages || k.nruns)
            return true;
    }
    return false;
}

// ---- post-copy ----

bool precopy_send_rest(struct precopy *pc, struct wire *w, int *ret) {
    if (precopy_send(pc, w, ret))
        return true;
    pc->block = 0;
    pc->page = 0;
    return pc->left && precopy_send(pc, w, ret);
}

int precopy_send_pending(const struct precopy *pc, struct wire *w) {
    size_t bytes = 0;
    for (unsigned i = 0; i < pc->count; i++)
        bytes += 8 * mem_bitmap_words(pc->blocks[i].slot);
    uint8_t *p = wire_begin(w, WIRE_PENDING, bytes);
    if (!p)
        return -ENOMEM;
    for (unsigned i = 0; i < pc->count; i++)
        for (uint64_t n = 0; n < mem_bitmap_words(pc->blocks[i].slot); n++, p += 8)
            wire_set64(p, pc->blocks[i].todo[n]);
    wire_end(w);
    return 0;
}

int precopy_request(struct precopy *pc, struct wire *w, const struct wire_message *m) {
    uint32_t block = m->len == 12 ? wire_get32(m->body) : UINT32_MAX;
    uint64_t page = m->len == 12 ? wire_get64(m->body + 4) : 0;
    if (block >= pc->count || page >= block_pages(&pc->blocks[block]))
        return -EINVAL;
    struct precopy_block *b = &pc->blocks[block];
    const struct pick k = {.pages = {page}, .npages = 1};
    if (!test_bit(b->todo, page))
        return 0;
    b->todo[page / BITS] &= ~(1ul << (page % BITS));
    pc->left--;
    pc->pages++;
    pc->block = block; // what lies behind it will be wanted next
    pc->page = page + 1;
    return put_pages(w, block, b, &k);
}

// ---- the target's side ----

int precopy_sink_create(struct machine *m, struct precopy_sink *r, struct error *err) {
    *r = (struct precopy_sink){.machine = m};
    const struct mem_slot *slots = mem_slots(m->mem, &r->count);
    r->filled = calloc(r->count ? r->count : 1, sizeof(*r->filled));
    bool ok = r->filled;
    for (unsigned i = 0; ok && i < r->count; i++) {
        r->filled[i] = calloc(mem_bitmap_words(&slots[i]), sizeof(**r->filled));
        ok = r->filled[i];
    }
    if (ok)
        return 0;
    precopy_sink_destroy(r);
    return error_set(err, -ENOMEM, "receive: lists of pages");
}

void precopy_sink_destroy(struct precopy_sink *r) {
    for (unsigned i = 0; r->filled && i < r->count; i++)
        free(r->filled[i]);
    free(r->filled);
    *r = (struct precopy_sink){0};
}

static int bad_pages(struct error *err) {
    return error_set(err, -EINVAL, "damaged stream: pages outside of the machine's memory");
}

static int load_page(struct precopy_sink *r, const struct mem_slot *s, unsigned block, uint64_t page,
                     const uint8_t *data) {
    set_bits(r->filled[block], page, page + 1);
    return mem_load(r->machine->mem, GPA(s->gpa + (page << PAGE_SHIFT)), data, PAGE_SIZE);
}

static int receive_pages(struct precopy_sink *r, const struct mem_slot *s, unsigned block, const uint8_t *p,
                         uint32_t count, struct error *err) {
    const uint8_t *data = p + 8 * (size_t)count;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t page = wire_get64(p + 8 * i);
        if (page >= s->size >> PAGE_SHIFT || load_page(r, s, block, page, data + PAGE_SIZE * (size_t)i))
            return bad_pages(err);
    }
    r->pages += count;
    return 0;
}

static int receive_zeroes(struct precopy_sink *r, const struct mem_slot *s, unsigned block, const uint8_t *p,
                          uint32_t count, struct error *err) {
    static const uint8_t zeroes[PAGE_SIZE];
    uint64_t pages = s->size >> PAGE_SHIFT;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t first = wire_get64(p + 16 * i), n = wire_get64(p + 16 * i + 8);
        if (first >= pages || n > pages - first)
            return bad_pages(err);
        for (; n; first++, n--)
            if (test_bit(r->filled[block], first) && load_page(r, s, block, first, zeroes))
                return bad_pages(err);
    }
    return 0;
}

int precopy_receive(struct precopy_sink *r, const struct wire_message *m, struct error *err) {
    unsigned count;
    const struct mem_slot *slots = mem_slots(r->machine->mem, &count);
    size_t item = m->type == WIRE_PAGES ? 8 + PAGE_SIZE : 16;
    uint32_t block = m->len >= 8 ? wire_get32(m->body) : UINT32_MAX;
    uint32_t n = m->len >= 8 ? wire_get32(m->body + 4) : 0;
    if (block >= count || m->len != 8 + item * (size_t)n)
        return bad_pages(err);
    if (m->type == WIRE_PAGES)
        return receive_pages(r, &slots[block], block, m->body + 8, n, err);
    return receive_zeroes(r, &slots[block], block, m->body + 8, n, err);
}
