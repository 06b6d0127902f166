// SPDX-License-Identifier: Apache-2.0
// The code cache: memory, look-up of blocks and code pages, the itlbs, flushing. See cache.h for the invariants.
//
// A flush of the whole cache closes the gate, waits until no vCPU is in translated code, and starts a new generation.
// Code addresses got earlier are dead then: whoever holds one across C code compares the generation.
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/xlate/cache_priv.h"
#include "engine/xlate/mmu.h"
#include "engine/xlate/perf_map.h"
#include "engine/xlate/profile.h"
#include "engine/xlate/stats.h"
#include "engine/xlate/walk.h"

#define CACHE_DEFAULT (128u << 20) // address space; memory only as it is used
#define CACHE_MIN     (2u << 20)
#define TB_SPACE_MAX  (96u << 10) // one block never needs more

static void *map_anon(size_t size) {
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

// Not a memfd: perf looks into /tmp/perf-PID.map for anonymous memory alone. mremap(2) of length 0 maps it a second
// time.
static int map_code(struct code_cache *c, struct error *err) {
    c->rw = mmap(NULL, c->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (c->rw == MAP_FAILED)
        return error_set(err, -errno, "allocate the code cache");
    c->rx = mremap(c->rw, 0, c->size, MREMAP_MAYMOVE);
    if (c->rx == MAP_FAILED || mprotect(c->rx, c->size, PROT_READ | PROT_EXEC) < 0)
        return error_set(err, -errno, "map the code cache executable");
    return 0;
}

static uint64_t ram_top(struct mem *mem) {
    unsigned n;
    const struct mem_slot *s = mem_slots(mem, &n);
    return n ? s[n - 1].gpa + s[n - 1].size : 0;
}

int cache_create(struct engine *e, uint64_t bytes, struct error *err) {
    struct code_cache *c = map_anon(sizeof(*c));
    if (!c)
        return error_set(err, -ENOMEM, "allocate the code cache");
    e->cache = c;
    c->engine = e;
    c->size = bytes ? bytes : CACHE_DEFAULT;
    if (c->size < CACHE_MIN)
        c->size = CACHE_MIN;
    c->size = (c->size + PAGE_SIZE - 1) & PAGE_MASK;
    c->cold_start = (c->size / 2) & PAGE_MASK;
    c->meta_size = c->size;
    c->order_max = c->size / 64;
    c->exit_max = (uint32_t)(c->size / 32);
    c->page_flags_count = ram_top(e->host->mem) >> PAGE_SHIFT;
    c->next_id = 1;
    e->translator = translator_create();
    if (!e->translator)
        return error_set(err, -ENOMEM, "allocate the translator");
    int r = map_code(c, err);
    if (r)
        return r;
    c->meta = map_anon(c->meta_size);
    c->order = map_anon(c->order_max * sizeof(*c->order));
    c->exits = map_anon(c->exit_max * sizeof(*c->exits));
    c->page_flags = map_anon(c->page_flags_count + 1);
    if (!c->meta || !c->order || !c->exits || !c->page_flags)
        return error_set(err, -ENOMEM, "allocate the code cache's tables");
    struct emit_space s;
    cache_space(e, &s);
    tramp_generate(e, &s, &c->tramps);
    c->reserved = c->used = ((size_t)(s.rw - c->rw) + 63) & ~63ul;
    return 0;
}

void cache_destroy(struct engine *e) {
    struct code_cache *c = e->cache;
    if (!c)
        return;
    if (c->rw && c->rw != MAP_FAILED)
        munmap(c->rw, c->size);
    if (c->rx && c->rx != MAP_FAILED)
        munmap(c->rx, c->size);
    if (c->meta)
        munmap(c->meta, c->meta_size);
    if (c->order)
        munmap(c->order, c->order_max * sizeof(*c->order));
    if (c->exits)
        munmap(c->exits, c->exit_max * sizeof(*c->exits));
    if (c->page_flags)
        munmap(c->page_flags, c->page_flags_count + 1);
    munmap(c, sizeof(*c));
    translator_destroy(e->translator);
    e->cache = NULL;
}

void cache_space(struct engine *e, struct emit_space *s) {
    struct code_cache *c = e->cache;
    s->rw = c->rw + c->used;
    s->end = c->rw + c->cold_start;
    s->delta = c->rx - c->rw;
    s->cold = c->rw + c->cold_start + c->cold_used;
    s->cold_end = c->rw + c->size;
}

void *cache_meta_alloc(struct engine *e, size_t bytes) {
    struct code_cache *c = e->cache;
    bytes = (bytes + 15) & ~15ul;
    if (c->meta_size - c->meta_used < bytes)
        return NULL;
    void *p = c->meta + c->meta_used;
    c->meta_used += bytes;
    return p;
}

struct tb_exit *cache_new_exit(struct engine *e, uint32_t *index) {
    struct code_cache *c = e->cache;
    if (c->exit_count == c->exit_max)
        return NULL;
    *index = c->exit_count++;
    return &c->exits[*index];
}

struct tb_exit *cache_exit(struct engine *e, uint32_t index) {
    return &e->cache->exits[index];
}
struct trampolines *cache_tramps(struct engine *e) {
    return &e->cache->tramps;
}
uint32_t cache_generation(const struct engine *e) {
    return atomic_load(&e->cache->generation);
}

uint32_t itlb_slot(uint64_t va_page, uint32_t mode) {
    uint32_t kind = (mode >> TBM_KIND_SHIFT) & 3;
    return ((uint32_t)(va_page >> PAGE_SHIFT) + kind * 0x155u) & (ITLB_SIZE - 1);
}

// ---- entering and leaving translated code ----

void cache_pause_code(struct xcpu *x) {
    if (x->engine->ncpus > 1) {
        smc_safe_point(x);
        atomic_store(&x->in_code, 0);
    }
}

static void jcache_clear(struct xcpu *x) {
    for (unsigned s = 0; s < JC_SLOTS; s++)
        jcache_empty_all(&x->jcache[s], cache_tramps(x->engine)->indirect_miss);
}

// Where it fails, the caller may have put an address that it got before the flush into its jump cache after the flush
// had cleared that.
bool cache_resume_code(struct xcpu *x, uint32_t gen) {
    struct code_cache *c = x->engine->cache;
    if (x->engine->ncpus > 1) {
        atomic_store(&x->in_code, 1);
        if (atomic_load(&c->gate)) {
            atomic_store(&x->in_code, 0);
            jcache_clear(x);
            return false;
        }
    }
    if (atomic_load_explicit(&c->generation, memory_order_relaxed) != gen) {
        cache_pause_code(x);
        jcache_clear(x);
        return false;
    }
    return true;
}

// ---- flush ----

static void flush_cpu(struct xcpu *x) {
    context_forget_all(x);
    for (unsigned u = 0; u < 2; u++)
        for (unsigned i = 0; i < ITLB_SIZE; i++)
            x->itlb[u][i] = 0;
    jcache_clear(x);
}

static void flush_pages(struct code_cache *c) {
    for (unsigned i = 0; i < (1u << PAGE_HASH_BITS); i++) {
        for (struct phys_code *p = c->page_hash[i]; p; p = p->hash_next)
            __atomic_and_fetch(&c->page_flags[p->gpa_page >> PAGE_SHIFT], (uint8_t)~PAGE_HAS_CODE, __ATOMIC_SEQ_CST);
        c->page_hash[i] = NULL;
    }
}

// Lock held; self is in C.
static void cache_flush(struct code_cache *c, struct xcpu *self) {
    struct engine *e = c->engine;
    atomic_store(&c->gate, 1);
    for (unsigned i = 0; i < e->ncpus; i++) {
        struct xcpu *o = e->cpus[i];
        if (!o || o == self)
            continue;
        while (atomic_load(&o->in_code) & 1) {
            request_exit(o);
            xlock_yield();
        }
    }
    for (unsigned i = 0; i < e->ncpus; i++)
        if (e->cpus[i])
            flush_cpu(e->cpus[i]);
    flush_pages(c);
    for (unsigned i = 0; i < (1u << TB_HASH_BITS); i++)
        c->tb_hash[i] = NULL;
    atomic_store(&c->order_count, 0);
    c->exit_count = 0;
    c->meta_used = 0;
    c->used = c->reserved;
    c->cold_used = 0;
    self->stat[XS_CACHE_FLUSHES]++;
    atomic_fetch_add(&c->generation, 1);
    atomic_store(&c->gate, 0);
}

void cache_forget(struct engine *e) {
    xlock_lock(&e->cache->lock);
    cache_flush(e->cache, e->cpus[0]);
    xlock_unlock(&e->cache->lock);
}

static void itlb_drop_user(struct xcpu *x) {
    if (!x->itlb_user_used)
        return;
    for (unsigned i = 0; i < ITLB_SIZE; i++)
        x->itlb[1][i] = 0;
    x->itlb_user_used = false;
    x->itlb_log_len = 0;
}

static void itlb_drop_supervisor(struct xcpu *x) {
    for (unsigned i = 0; i < ITLB_SIZE; i++)
        x->itlb[0][i] = 0;
    x->itlb_nonglobal = 0;
}

void cache_flush_itlb(struct xcpu *x, bool globals_too) {
    itlb_drop_user(x);
    if (globals_too || x->itlb_nonglobal)
        itlb_drop_supervisor(x);
}

static void itlb_log(struct xcpu *x, uint32_t slot) {
    if (x->itlb_log_len < CONTEXT_CODE)
        x->itlb_log[x->itlb_log_len] = (uint16_t)slot;
    if (x->itlb_log_len <= CONTEXT_CODE)
        x->itlb_log_len++;
}

unsigned cache_itlb_leave(struct xcpu *x, struct context_code *code) {
    unsigned n = x->itlb_log_len, kept = 0;
    bool all = n <= CONTEXT_CODE;
    for (unsigned i = 0; i < (all ? n : CONTEXT_CODE); i++) {
        uint32_t slot = x->itlb_log[i], id = __atomic_load_n(&x->itlb[1][slot], __ATOMIC_SEQ_CST);
        if (!id)
            continue; // in the log twice, or dead
        code[kept++] = (struct context_code){slot, id, x->itlb_page[1][slot]};
        __atomic_store_n(&x->itlb[1][slot], 0, __ATOMIC_SEQ_CST);
    }
    x->itlb_log_len = 0;
    if (!all)
        itlb_drop_user(x);
    if (x->itlb_nonglobal)
        itlb_drop_supervisor(x);
    return kept;
}

void cache_itlb_enter(struct xcpu *x, const struct context_code *code, unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        x->itlb_page[1][code[i].slot] = code[i].page;
        __atomic_store_n(&x->itlb[1][code[i].slot], code[i].id, __ATOMIC_SEQ_CST);
        itlb_log(x, code[i].slot);
    }
    x->itlb_user_used |= n > 0;
}

void cache_flush_itlb_page(struct xcpu *x, uint64_t lin, bool large) {
    for (unsigned u = 0; u < 2; u++) {
        for (uint32_t kind = 0; kind < TLB_KINDS; kind++) {
            uint32_t i = itlb_slot(lin & PAGE_MASK, kind << TBM_KIND_SHIFT);
            if (x->itlb[u][i] && x->itlb_page[u][i]->va_page == (lin & PAGE_MASK))
                x->itlb[u][i] = 0;
        }
        for (unsigned i = 0; large && i < ITLB_SIZE; i++)
            if (x->itlb[u][i] && !((x->itlb_page[u][i]->va_page ^ lin) >> 30))
                x->itlb[u][i] = 0;
    }
}

// ---- code pages ----

static unsigned page_bucket(uint64_t gpa_page) {
    return (unsigned)((gpa_page >> PAGE_SHIFT) * 0x9e3779b1u >> (32 - PAGE_HASH_BITS)) & ((1u << PAGE_HASH_BITS) - 1);
}

struct phys_code *phys_find(struct code_cache *c, uint64_t gpa_page) {
    struct phys_code *p = c->page_hash[page_bucket(gpa_page)];
    while (p && p->gpa_page != gpa_page)
        p = p->hash_next;
    return p;
}

static struct phys_code *phys_get(struct code_cache *c, uint64_t gpa_page) {
    struct phys_code *p = phys_find(c, gpa_page);
    if (p)
        return p;
    p = cache_meta_alloc(c->engine, sizeof(*p));
    if (!p)
        return NULL;
    *p = (struct phys_code){.gpa_page = gpa_page};
    unsigned b = page_bucket(gpa_page);
    p->hash_next = c->page_hash[b];
    c->page_hash[b] = p;
    return p;
}

static struct code_page *page_get(struct xcpu *x, uint64_t va_page, uint64_t gpa_page) {
    struct code_cache *c = x->engine->cache;
    struct phys_code *p = phys_get(c, gpa_page);
    if (!p)
        return NULL;
    for (struct code_page *cp = p->pages; cp; cp = cp->phys_next)
        if (cp->va_page == va_page && cp->mode == x->tb_mode)
            return cp;
    struct code_page *cp = cache_meta_alloc(x->engine, sizeof(*cp));
    if (!cp)
        return NULL;
    if (!p->pages)
        smc_protect(c, x, gpa_page);
    *cp = (struct code_page){.va_page = va_page, .mode = x->tb_mode, .id = c->next_id++, .phys = p};
    cp->phys_next = p->pages;
    p->pages = cp;
    return cp;
}

// The code page at a linear page in the current mode, through the itlb. *res as in cache_get_tb.
static struct code_page *page_lookup(struct xcpu *x, uint64_t lin, enum xres *res, bool *full) {
    uint64_t va_page = lin & PAGE_MASK;
    bool user = x->tb_mode & TBM_USER;
    uint32_t slot = itlb_slot(va_page, x->tb_mode);
    struct code_page *cp = x->itlb_page[user][slot];
    struct walk w;
    *res = X_OK;
    if (x->itlb[user][slot] && cp->va_page == va_page && cp->mode == x->tb_mode)
        return cp;
    if (x->code_bits == 64 && !is_canonical(va_page)) {
        *res = fault_raise_err(x, X86_GP, 0);
        return NULL;
    }
    uint32_t r = walk_page(x, va_page, MMU_EXEC, user, true, &w);
    if (r) {
        *res = fault_page(x, lin, r & ~WALK_FAULT);
        return NULL;
    }
    if (!mem_page(x->engine_mem, w.gpa, false))
        return NULL; // code in a device: emulated
    cp = page_get(x, va_page, w.gpa);
    *full = !cp;
    if (!cp)
        return NULL;
    x->itlb_page[user][slot] = cp;
    __atomic_store_n(&x->itlb[user][slot], cp->id, __ATOMIC_SEQ_CST);
    if (w.large)
        tlb_note_large(x, va_page, w.global);
    if (user)
        x->itlb_user_used = true;
    if (user && !w.global)
        itlb_log(x, slot);
    else if (!w.global)
        x->itlb_nonglobal++;
    return cp;
}

bool cache_page_current(struct xcpu *x, const struct code_page *p) {
    bool user = p->mode & TBM_USER;
    return __atomic_load_n(&x->itlb[user][itlb_slot(p->va_page, p->mode)], __ATOMIC_ACQUIRE) == p->id &&
           p->mode == x->tb_mode;
}

// Without the lock: a flush by another vCPU empties the itlb before the page's memory has a new use, so what was read
// holds if the id is still there.
bool cache_known_page(struct xcpu *x, uint64_t lin, uint64_t *gpa_page) {
    bool user = x->tb_mode & TBM_USER;
    uint32_t slot = itlb_slot(lin & PAGE_MASK, x->tb_mode);
    uint32_t id = __atomic_load_n(&x->itlb[user][slot], __ATOMIC_ACQUIRE);
    if (!id || !x->tb_mode)
        return false;
    const struct code_page *cp = x->itlb_page[user][slot];
    bool same = cp->va_page == (lin & PAGE_MASK) && cp->mode == x->tb_mode && cp->id == id;
    *gpa_page = cp->phys->gpa_page;
    return __atomic_load_n(&x->itlb[user][slot], __ATOMIC_ACQUIRE) == id && same;
}

// ---- blocks ----

static unsigned tb_bucket(uint32_t id, uint64_t rip) {
    uint64_t h = ((uint64_t)id << 12 | (rip & ~PAGE_MASK)) * 0x9e3779b97f4a7c15ull;
    return (unsigned)(h >> (64 - TB_HASH_BITS));
}

// A block of two pages is the right one only if the second page is still what it was made from; looking that page up
// also puts its id back where the block's second guard will look for it.
static bool same_second_page(struct xcpu *x, const struct tb *t) {
    return !t->page2 || cache_second_page(x, t->page2->va_page) == t->page2;
}

static struct tb *tb_find(struct xcpu *x, const struct code_page *cp, uint64_t rip, enum tb_variant variant) {
    struct tb *t = x->engine->cache->tb_hash[tb_bucket(cp->id, rip)];
    while (t && (t->page != cp || t->rip != rip || t->variant != variant || !same_second_page(x, t)))
        t = t->hash_next;
    return t;
}

// True when a granule was not marked before.
static bool mark_granules(struct phys_code *p, uint64_t first, uint64_t last) {
    bool fresh = false;
    for (uint64_t g = first >> CODE_GRANULE_SHIFT; g <= last >> CODE_GRANULE_SHIFT; g++) {
        fresh |= !(p->granules[g >> 6] & (1ull << (g & 63)));
        p->granules[g >> 6] |= 1ull << (g & 63);
    }
    return fresh;
}

// Marks the block's bytes as code. False if some store may have been under way beside the page's earlier code, so that
// the bytes must be read again (the stores are finished when this returns).
static bool claim_bytes(struct xcpu *x, const struct tb *t) {
    uint64_t first = t->rip & ~PAGE_MASK, last = first + t->guest_size - 1;
    bool fresh = mark_granules(t->page->phys, first, last < PAGE_SIZE ? last : PAGE_SIZE - 1);
    bool quiet = !fresh || smc_quiesce_beside(x->engine->cache, x, t->page->phys->gpa_page);
    struct byte_range r;
    for (unsigned i = 0; translator_peeked(x->engine->translator, i, &r); i++) {
        struct phys_code *p = (r.second ? t->page2 : t->page)->phys;
        if (mark_granules(p, r.first, r.last) && !smc_quiesce_beside(x->engine->cache, x, p->gpa_page))
            quiet = false;
    }
    if (last >= PAGE_SIZE && mark_granules(t->page2->phys, 0, last - PAGE_SIZE))
        quiet &= smc_quiesce_beside(x->engine->cache, x, t->page2->phys->gpa_page);
    return quiet;
}

static void tb_publish(struct xcpu *x, struct tb *t) {
    struct code_cache *c = x->engine->cache;
    size_t n = atomic_load(&c->order_count);
    c->order[n] = t;
    atomic_store(&c->order_count, n + 1);
    c->used = (size_t)(t->code + t->host_size - c->rx);
    c->cold_used += t->cold_size;
    unsigned b = tb_bucket(t->page->id, t->rip);
    t->hash_next = c->tb_hash[b];
    c->tb_hash[b] = t;
    t->page_next = t->page->tbs;
    t->page->tbs = t;
    if (t->page2) {
        t->page2_next = t->page2->tbs2;
        t->page2->tbs2 = t;
    }
    x->stat[XS_TRANSLATIONS]++;
    x->stat[XS_TRANSLATED_INSNS] += t->ninsns;
    x->stat[XS_CODE_BYTES] += t->host_size + t->cold_size;
}

// The next pages of a table that fills up, at one go instead of a fault for each.
#define AHEAD_BYTES (64u << 10)
static bool populate(struct ahead *a, uint8_t *base, size_t used, size_t size) {
    if (used + AHEAD_BYTES / 4 <= a->bytes || a->bytes + AHEAD_BYTES > size)
        return false;
    (void)madvise(base + a->bytes, AHEAD_BYTES, MADV_POPULATE_WRITE); // a wish
    a->bytes += AHEAD_BYTES;
    return true;
}

static void populate_tables(struct code_cache *c) {
    if (populate(&c->hot_ahead, c->rw, c->used, c->cold_start))
        (void)madvise(c->rx + c->hot_ahead.bytes - AHEAD_BYTES, AHEAD_BYTES, MADV_POPULATE_READ);
    populate(&c->cold_ahead, c->rw + c->cold_start, c->cold_used, c->size - c->cold_start);
    populate(&c->meta_ahead, c->meta, c->meta_used, c->meta_size);
    populate(&c->exits_ahead, (uint8_t *)c->exits, c->exit_count * sizeof(*c->exits), c->exit_max * sizeof(*c->exits));
}

static bool space_left(const struct code_cache *c) {
    return c->cold_start - c->used > TB_SPACE_MAX && c->size - c->cold_start - c->cold_used > TB_SPACE_MAX &&
           atomic_load(&c->order_count) < c->order_max && c->exit_max - c->exit_count > 256 &&
           c->meta_size - c->meta_used > 8192 && c->next_id < 0xfffffff0u;
}

static struct tb *get_locked(struct xcpu *x, uint64_t rip, enum tb_variant variant, bool turns, enum xres *res,
                             bool *full) {
    struct code_cache *c = x->engine->cache;
    struct code_page *cp = page_lookup(x, rip, res, full);
    if (!cp)
        return NULL;
    struct tb *t = tb_find(x, cp, rip, variant);
    while (t && t->replaced_by) {
        variant = t->replaced_by;
        t = tb_find(x, cp, rip, variant);
    }
    if (t)
        return t;
    if (!space_left(c)) {
        *full = true;
        return NULL;
    }
    uint8_t part = part_enter(x, PART_TRANSLATOR);
    fpu_save(x); // the decoder is a library
    populate_tables(c);
    t = translate(x, rip, cp, variant, turns, full);
    while (t && !claim_bytes(x, t)) // once or twice: nobody begins a store beside code while the lock is held
        t = translate(x, rip, cp, variant, turns, full);
    if (t) {
        tb_publish(x, t);
        perf_map_add(x->engine, t);
    }
    part_leave(x, part);
    return t;
}

struct tb *cache_get_variant(struct xcpu *x, uint64_t rip, enum tb_variant variant, bool turns, enum xres *res) {
    struct code_cache *c = x->engine->cache;
    struct tb *t;
    *res = X_OK;
    if (!x->tb_mode)
        return NULL;
    xlock_lock(&c->lock);
    for (;;) {
        bool full = false;
        t = get_locked(x, rip, variant, turns, res, &full);
        if (t || !full)
            break;
        cache_flush(c, x);
    }
    xlock_unlock(&c->lock);
    return t;
}

struct tb *cache_get_tb(struct xcpu *x, uint64_t rip, enum xres *res) {
    return cache_get_variant(x, rip, TB_NORMAL, false, res);
}

struct code_page *cache_second_page(struct xcpu *x, uint64_t va_page) {
    enum xres res;
    bool full = false;
    struct xfault saved = x->fault;
    if (x->code_bits != 64) // code runs on at 0 behind the last page
        va_page = (uint32_t)va_page;
    struct code_page *cp = page_lookup(x, va_page, &res, &full);
    x->fault = saved;
    return cp;
}

// ---- links ----

void cache_link(struct engine *e, uint32_t gen, uint32_t i, struct tb *to) {
    struct code_cache *c = e->cache;
    struct tb_exit *x = &c->exits[i];
    xlock_lock(&c->lock);
    if (atomic_load(&c->generation) == gen && !to->page->dead && !x->next) {
        const uint8_t *dst = tb_entry(to, x->kind, c->order[x->from]);
        __atomic_store_n(x->patch, (uint32_t)(dst - x->patch_x), __ATOMIC_RELAXED);
        x->next = to->incoming ? to->incoming : EXIT_LAST;
        to->incoming = i + 1;
    }
    xlock_unlock(&c->lock);
}

void cache_replace(struct engine *e, uint32_t gen, struct tb *tb, enum tb_variant by) {
    struct code_cache *c = e->cache;
    xlock_lock(&c->lock);
    if (atomic_load(&c->generation) == gen) {
        tb->replaced_by = by;
        cache_unlink_incoming(c, tb);
    }
    xlock_unlock(&c->lock);
}

void cache_unlink_incoming(struct code_cache *c, struct tb *t) {
    for (uint32_t i = t->incoming, next; i && i != EXIT_LAST; i = next) {
        struct tb_exit *x = &c->exits[i - 1];
        next = x->next;
        x->next = 0;
        __atomic_store_n(x->patch, x->unlinked, __ATOMIC_RELAXED);
    }
    t->incoming = 0;
}

// ---- from host code back to the guest ----

struct tb *cache_tb(struct engine *e, uint32_t i) {
    return e->cache->order[i];
}
uint32_t cache_next_tb(struct engine *e) {
    return (uint32_t)atomic_load(&e->cache->order_count);
}

struct tb *cache_find_pc(struct engine *e, uint64_t pc) {
    struct code_cache *c = e->cache;
    size_t lo = 0, hi = atomic_load(&c->order_count);
    if (pc < (uint64_t)c->rx + c->reserved || pc >= (uint64_t)c->rx + c->size)
        return NULL;
    while (hi - lo > 1) {
        size_t mid = (lo + hi) / 2;
        if ((uint64_t)c->order[mid]->guarded <= pc)
            lo = mid;
        else
            hi = mid;
    }
    if (hi == 0 || (uint64_t)c->order[lo]->guarded > pc || pc > (uint64_t)c->order[lo]->code + c->order[lo]->host_size)
        return NULL;
    return c->order[lo];
}

const struct tb_insn *tb_insn_at(const struct tb *t, uint64_t pc) {
    uint64_t off = pc < (uint64_t)t->code ? 0 : pc - (uint64_t)t->code;
    unsigned lo = 0, hi = t->ninsns;
    while (hi - lo > 1) {
        unsigned mid = (lo + hi) / 2;
        if (t->insns[mid].host_off <= off)
            lo = mid;
        else
            hi = mid;
    }
    return &t->insns[lo];
}

bool cache_guest_pc(struct xcpu *x, uint64_t pc, uint64_t *rip) {
    struct code_cache *c = x->engine->cache;
    if (pc < (uint64_t)c->rx || pc >= (uint64_t)c->rx + c->size)
        return false;
    unsigned held = atomic_exchange(&x->in_code, 1); // no flush while we look
    bool flushing = !held && atomic_load(&c->gate);
    const struct tb *tb = flushing ? NULL : cache_find_pc(x->engine, pc);
    *rip = tb ? tb->rip + tb_insn_at(tb, pc)->guest_off : 0;
    atomic_store(&x->in_code, held);
    return true;
}
