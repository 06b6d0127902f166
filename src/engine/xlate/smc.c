// SPDX-License-Identifier: Apache-2.0
// Self-modifying code: keeping stores to code pages on the slow path, and killing what they overwrite.
//
// When a page becomes code: (1) its flag is set, so no new write tag is given for it (tlb_fill looks again after it has
// set one); (2) existing write tags are removed from every vCPU; (3) smc_barrier waits until no vCPU is between a
// check made before (2) and its store. Only then are its bytes read. From there on every store to the page comes to
// cache_write_code_page, under the cache's lock, so it is ordered with the reading of the bytes.
#include "engine/xlate/cache_priv.h"
#include "engine/xlate/mmu.h"
#include "engine/xlate/stats.h"

bool cache_page_has_code(struct engine *e, uint64_t gpa_page) {
    uint64_t n = gpa_page >> PAGE_SHIFT;
    struct code_cache *c = e->cache;
    return n < c->page_flags_count && (__atomic_load_n(&c->page_flags[n], __ATOMIC_SEQ_CST) & PAGE_HAS_CODE);
}

void cache_note_write_tag(struct engine *e, uint64_t gpa_page) {
    uint8_t *f = &e->cache->page_flags[gpa_page >> PAGE_SHIFT];
    if (!(__atomic_load_n(f, __ATOMIC_RELAXED) & PAGE_HAD_WRITE_TAG))
        __atomic_or_fetch(f, PAGE_HAD_WRITE_TAG, __ATOMIC_SEQ_CST);
}

void smc_barrier(struct engine *e, struct xcpu *self) {
    atomic_thread_fence(memory_order_seq_cst); // what was taken away is gone before in_code is looked at
    for (unsigned i = 0; i < e->ncpus; i++) {
        struct xcpu *o = e->cpus[i];
        if (!o || o == self)
            continue;
        unsigned seq = atomic_load(&o->safe_seq);
        if (!atomic_load(&o->in_code))
            continue;
        request_exit(o);
        for (unsigned spin = 0; atomic_load(&o->in_code) && atomic_load(&o->safe_seq) == seq; spin++) {
            if (spin < 200)
                __builtin_ia32_pause();
            else
                xlock_yield();
        }
    }
}

void smc_protect(struct code_cache *c, struct xcpu *self, uint64_t gpa_page) {
    uint8_t *f = &c->page_flags[gpa_page >> PAGE_SHIFT];
    uint8_t old = __atomic_fetch_or(f, PAGE_HAS_CODE, __ATOMIC_SEQ_CST);
    if (old & PAGE_HAD_WRITE_TAG) {
        for (unsigned i = 0; i < c->engine->ncpus; i++)
            if (c->engine->cpus[i])
                tlb_drop_write_tags(c->engine->cpus[i], gpa_page);
        __atomic_and_fetch(f, (uint8_t)~PAGE_HAD_WRITE_TAG, __ATOMIC_SEQ_CST);
    }
    smc_barrier(c->engine, self);
    // A vCPU that was copying a write tag from its TLB to a site when they were cleared has put it there by now.
    if ((old & PAGE_HAD_WRITE_TAG) && c->engine->ncpus > 1) {
        for (unsigned i = 0; i < c->engine->ncpus; i++)
            if (c->engine->cpus[i])
                tlb_clear_sites(c->engine->cpus[i]);
        smc_barrier(c->engine, self);
    }
    atomic_fetch_add(&c->protected_pages, 1);
}

bool smc_quiesce_beside(struct code_cache *c, struct xcpu *self, uint64_t gpa_page) {
    uint8_t *f = &c->page_flags[gpa_page >> PAGE_SHIFT];
    if (!(__atomic_fetch_and(f, (uint8_t)~PAGE_STORED_BESIDE, __ATOMIC_SEQ_CST) & PAGE_STORED_BESIDE))
        return true;
    if (c->engine->ncpus == 1)
        return true;
    smc_barrier(c->engine, self);
    return false;
}

static bool granules_hit(const struct phys_code *p, uint64_t offset, uint64_t len) {
    for (uint64_t g = offset >> CODE_GRANULE_SHIFT; g <= (offset + len - 1) >> CODE_GRANULE_SHIFT; g++)
        if (p->granules[g >> 6] & (1ull << (g & 63)))
            return true;
    return false;
}

static void forget_id(struct engine *e, const struct code_page *cp) {
    bool user = cp->mode & TBM_USER;
    uint32_t slot = itlb_slot(cp->va_page, cp->mode);
    for (unsigned i = 0; i < e->ncpus; i++) {
        struct xcpu *o = e->cpus[i];
        if (o)
            context_forget_all(o); // before the look at its itlb: see tlb_context.c
        if (o && __atomic_load_n(&o->itlb[user][slot], __ATOMIC_RELAXED) == cp->id)
            __atomic_store_n(&o->itlb[user][slot], 0, __ATOMIC_SEQ_CST);
    }
}

void smc_kill_page(struct code_cache *c, struct phys_code *p) {
    for (struct code_page *cp = p->pages; cp; cp = cp->phys_next) {
        cp->dead = true;
        forget_id(c->engine, cp);
        for (struct tb *t = cp->tbs; t; t = t->page_next)
            cache_unlink_incoming(c, t);
        for (struct tb *t = cp->tbs2; t; t = t->page2_next)
            cache_unlink_incoming(c, t);
    }
    p->pages = NULL;
    atomic_fetch_add(&c->engine->kill_count, 1);
    for (unsigned i = 0; i < ARRAY_LEN(p->granules); i++)
        p->granules[i] = 0;
    __atomic_and_fetch(&c->page_flags[p->gpa_page >> PAGE_SHIFT], (uint8_t)~PAGE_HAS_CODE, __ATOMIC_SEQ_CST);
}

// Lock held. One page at most.
static bool kill_if_hit(struct code_cache *c, uint64_t gpa, uint64_t len) {
    struct phys_code *p = phys_find(c, gpa & PAGE_MASK);
    if (!p || !p->pages || !granules_hit(p, gpa & ~PAGE_MASK, len))
        return false;
    smc_kill_page(c, p);
    return true;
}

bool cache_write_code_page(struct xcpu *x, uint64_t gpa, const void *buf, unsigned len) {
    struct code_cache *c = x->engine->cache;
    uint8_t *page = mem_page(x->engine_mem, gpa & PAGE_MASK, true);
    const void *src = buf;
    uint64_t n = len;
    if (!page)
        return false;
    // The holder of the lock may be waiting for this vCPU in smc_barrier; this store has not begun yet.
    unsigned held = atomic_exchange(&x->in_code, 0);
    xlock_lock(&c->lock);
    if (kill_if_hit(c, gpa, len))
        x->stat[XS_PAGE_KILLS]++;
    uint8_t *dst = page + (gpa & ~PAGE_MASK);
    if (len == 8 && !((uintptr_t)dst & 7))
        __atomic_store_n((uint64_t *)dst, *(const uint64_t *)buf, __ATOMIC_RELAXED);
    else if (len == 4 && !((uintptr_t)dst & 3))
        __atomic_store_n((uint32_t *)dst, *(const uint32_t *)buf, __ATOMIC_RELAXED);
    else if (len == 2 && !((uintptr_t)dst & 1))
        __atomic_store_n((uint16_t *)dst, *(const uint16_t *)buf, __ATOMIC_RELAXED);
    else
        __asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n)::"memory");
    xlock_unlock(&c->lock);
    atomic_store(&x->in_code, held);
    return true;
}

uint8_t *cache_store_beside_code(struct xcpu *x, uint64_t gpa, unsigned len) {
    struct code_cache *c = x->engine->cache;
    if (!cache_page_has_code(x->engine, gpa & PAGE_MASK))
        return NULL;
    uint8_t *page = mem_page(x->engine_mem, gpa & PAGE_MASK, true);
    if (!page)
        return NULL;
    // The block goes on behind this store, perhaps with host addresses that it checked before: if pages became code in
    // the meantime, it must not.
    unsigned protected_pages = atomic_load(&c->protected_pages);
    unsigned held = atomic_exchange(&x->in_code, 0); // as in cache_write_code_page
    xlock_lock(&c->lock);
    struct phys_code *p = phys_find(c, gpa & PAGE_MASK);
    bool hit = atomic_load(&c->protected_pages) != protected_pages ||
               (p && p->pages && granules_hit(p, gpa & ~PAGE_MASK, len));
    if (!hit)
        __atomic_fetch_or(&c->page_flags[gpa >> PAGE_SHIFT], PAGE_STORED_BESIDE, __ATOMIC_SEQ_CST);
    atomic_store(&x->in_code, held); // before the lock goes: from here on smc_barrier waits for the store
    xlock_unlock(&c->lock);
    return hit ? NULL : page;
}

void cache_written(void *engine, gpa_t gpa, uint64_t len) {
    struct engine *e = engine;
    struct code_cache *c = e->cache;
    atomic_thread_fence(memory_order_seq_cst); // the bytes are there before the flag is looked at
    while (len) {
        uint64_t step = PAGE_SIZE - (gpa.v & ~PAGE_MASK);
        if (step > len)
            step = len;
        if (cache_page_has_code(e, gpa.v & PAGE_MASK)) {
            xlock_lock(&c->lock);
            kill_if_hit(c, gpa.v, step);
            xlock_unlock(&c->lock);
        }
        gpa.v += step, len -= step;
    }
}

void cache_drop_linear_page(struct engine *e, uint64_t va_page) {
    struct code_cache *c = e->cache;
    xlock_lock(&c->lock);
    for (unsigned i = 0; i < (1u << PAGE_HASH_BITS); i++) {
        for (struct phys_code *p = c->page_hash[i]; p; p = p->hash_next) {
            const struct code_page *cp = p->pages;
            while (cp && cp->va_page != va_page)
                cp = cp->phys_next;
            if (cp)
                smc_kill_page(c, p);
        }
    }
    xlock_unlock(&c->lock);
}
