// SPDX-License-Identifier: Apache-2.0
// Memory by linear address for C code, and the filling and flushing of the soft TLB (see mmu.h for its invariants).
#include "engine/xlate/mmu.h"

#include "engine/xlate/cache.h"
#include "engine/xlate/debugger.h"
#include "engine/xlate/stats.h"
#include "engine/xlate/walk.h"

// ---- TLB ----

static inline void slot_clear(struct xcpu *x, enum tlb_kind kind, unsigned i) {
    struct tlb_entry *t = &x->tlb[kind][i];
    if (t->rtag != tlb_invalid_tag(i) || t->wtag != tlb_invalid_tag(i)) // a slot never used keeps its memory untouched
        t->rtag = t->wtag = tlb_invalid_tag(i);
}

static void clear_sites(struct xcpu *x, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        __atomic_store_n(&x->sites[i].tag, SITE_INVALID, __ATOMIC_RELAXED);
        __atomic_store_n(&x->sites[i].host, SITE_INVALID, __ATOMIC_RELAXED);
    }
}

void tlb_clear_sites(struct xcpu *x) {
    clear_sites(x, SITE_COUNT);
}

// As tlb_clear_sites, on the vCPU's own thread.
void tlb_own_sites_clear(struct xcpu *x) {
    if (!x->sites_used)
        return;
    clear_sites(x, x->loop_sites_used ? SITE_COUNT : SITES_FIXED);
    x->sites_used = x->loop_sites_used = 0;
}

static inline unsigned tlb2_index(const struct xcpu *x, enum tlb_kind kind, uint64_t lin) {
    return ((unsigned)(lin >> PAGE_SHIFT) ^ x->tlb2_salt[kind]) & (TLB2_SIZE - 1);
}

static void tlb2_clear(struct xcpu *x, enum tlb_kind kind) {
    for (unsigned i = 0; i < TLB2_SIZE; i++)
        if (__atomic_load_n(&x->tlb2[kind][i].tag, __ATOMIC_RELAXED))
            __atomic_store_n(&x->tlb2[kind][i].tag, 0, __ATOMIC_RELAXED);
}

// Any thread, and several at once. A generation is given out once a round; a tag of generation 0 is never looked for.
// The tags are cleared twice a round, because the owner may fill an entry of the old generation while another thread
// clears them: the next time kills that one before its generation is back.
void tlb2_new_generation(struct xcpu *x, enum tlb_kind kind) {
    uint64_t gen = __atomic_fetch_add(&x->tlb2_counter[kind], 1, __ATOMIC_SEQ_CST) % (PAGE_SIZE - 1) + 1;
    if (gen == 1 || gen == PAGE_SIZE / 2) {
        context_forget_all(x);
        tlb2_clear(x, kind);
    }
    __atomic_store_n(&x->tlb2_generation[kind], gen, __ATOMIC_SEQ_CST);
}

void tlb2_flush(struct xcpu *x, enum tlb_kind kind) {
    context_forget_all(x); // before the new generation: see context_switch
    tlb2_new_generation(x, kind);
}

// The generation was read before the page's rights were looked at: if they change meanwhile, the entry is born dead.
static void tlb2_fill(struct xcpu *x, enum tlb_kind kind, uint64_t lin, uint64_t gen, uint8_t *page, bool writable) {
    struct tlb2_entry *t = &x->tlb2[kind][tlb2_index(x, kind, lin)];
    t->tag = 0;
    t->host = (uint64_t)page | (writable ? TLB2_WRITABLE : 0);
    t->tag = (lin & PAGE_MASK) | gen;
}

bool tlb2_find(const struct xcpu *x, enum tlb_kind kind, uint64_t lin, bool write, uint64_t *host) {
    const struct tlb2_entry *t = &x->tlb2[kind][tlb2_index(x, kind, lin)];
    uint64_t gen = __atomic_load_n(&x->tlb2_generation[kind], __ATOMIC_SEQ_CST);
    uint64_t found = __atomic_load_n(&t->host, __ATOMIC_RELAXED);
    *host = found & PAGE_MASK;
    return t->tag == ((lin & PAGE_MASK) | gen) && (!write || (found & TLB2_WRITABLE));
}

void tlb_init(struct xcpu *x) {
    for (unsigned k = 0; k < TLB_KINDS; k++)
        tlb2_new_generation(x, k);
    x->tlb2_turn = TLB2_TURNS;
    tlb_clear_sites(x);
    for (unsigned k = 0; k < TLB_KINDS; k++) {
        for (unsigned i = 0; i < TLB_SIZE; i++)
            slot_clear(x, k, i);
        x->tlb_log_len[k] = 0;
    }
}

static inline bool slot_valid(const struct tlb_entry *t, unsigned i) {
    return t->rtag != tlb_invalid_tag(i) || t->wtag != tlb_invalid_tag(i);
}

static void flush_scan(struct xcpu *x, enum tlb_kind kind, bool globals_too) {
    for (unsigned i = 0; i < TLB_SIZE; i++)
        if (globals_too || !(x->tlb[kind][i].aux & TLB_GLOBAL))
            slot_clear(x, kind, i);
}

// The log names every slot that was filled with an entry that is not global since the last flush, so that a switch of
// contexts touches only those.
void tlb_drop_private(struct xcpu *x, enum tlb_kind kind) {
    unsigned n = x->tlb_log_len[kind];
    x->tlb_log_len[kind] = 0;
    if (n > TLB_LOG) {
        flush_scan(x, kind, false);
        return;
    }
    for (unsigned j = 0; j < n; j++) {
        unsigned i = x->tlb_log[kind][j];
        if (!(x->tlb[kind][i].aux & TLB_GLOBAL))
            slot_clear(x, kind, i);
    }
}

void tlb_flush_kind(struct xcpu *x, enum tlb_kind kind, bool globals_too) {
    x->stat[XS_TLB_FLUSH]++;
    tlb2_flush(x, kind);
    if (kind == TLB_USER)
        tlb_own_sites_clear(x);
    if (!globals_too) {
        tlb_drop_private(x, kind);
        return;
    }
    x->tlb_log_len[kind] = 0;
    flush_scan(x, kind, true);
}

void tlb_drop_write_tags(struct xcpu *x, uint64_t gpa_page) {
    for (unsigned k = 0; k < TLB_KINDS; k++) {
        bool written = __atomic_load_n(&x->tlb_written[k], __ATOMIC_SEQ_CST);
        for (unsigned i = 0; written && i < TLB_SIZE; i++)
            if ((x->tlb[k][i].aux & PAGE_MASK) == gpa_page)
                __atomic_store_n(&x->tlb[k][i].wtag, tlb_invalid_tag(i), __ATOMIC_SEQ_CST);
    }
    for (unsigned k = 0; k < TLB_KINDS; k++)
        tlb2_flush(x, k);
    tlb_clear_sites(x);
}

void tlb_drop_all_write_tags(struct xcpu *x) {
    for (unsigned k = 0; k < TLB_KINDS; k++)
        for (unsigned i = 0; i < TLB_SIZE; i++)
            x->tlb[k][i].wtag = tlb_invalid_tag(i);
    for (unsigned k = 0; k < TLB_KINDS; k++)
        tlb2_flush(x, k);
    tlb_clear_sites(x);
}

static void log_slot(struct xcpu *x, enum tlb_kind kind, unsigned i, bool global) {
    const struct tlb_entry *t = &x->tlb[kind][i];
    unsigned n = x->tlb_log_len[kind];
    if (global || (slot_valid(t, i) && !(t->aux & TLB_GLOBAL)))
        return; // needs no log, or is in it
    if (n < TLB_LOG)
        x->tlb_log[kind][n] = (uint16_t)i;
    if (n <= TLB_LOG)
        x->tlb_log_len[kind] = n + 1;
}

enum xres tlb_fill(struct xcpu *x, enum tlb_kind kind, uint64_t lin, unsigned flags, uint8_t **host, uint64_t *gpa) {
    bool write = flags & (MMU_WRITE | MMU_RMW);
    struct walk w;
    uint64_t gen2 = __atomic_load_n(&x->tlb2_generation[kind], __ATOMIC_SEQ_CST);
    x->stat[XS_TLB_MISS]++;
    if (x->long_mode && !is_canonical(lin)) // code that goes by segments has checked before; translated code has not
        return fault_raise_err(x, X86_GP, 0);
    uint32_t r = walk_page(x, lin, flags, kind == TLB_USER, true, &w);
    if (r)
        return fault_page(x, lin, r & ~WALK_FAULT);
    *gpa = w.gpa;
    bool may_write = w.dirty && (w.writable || (kind != TLB_USER && !x->mmu_wp));
    bool code = cache_page_has_code(x->engine, w.gpa);
    uint8_t *page = mem_page(x->engine_mem, w.gpa, may_write && !code);
    bool rom = false;
    if (!page && may_write && !code) {
        page = mem_page(x->engine_mem, w.gpa, false);
        rom = true;
    }
    *host = page;
    if (!page)
        return X_OK;
    unsigned i = tlb_index(lin);
    struct tlb_entry *t = &x->tlb[kind][i];
    log_slot(x, kind, i, w.global);
    t->host = (uint64_t)page;
    t->rtag = lin & PAGE_MASK;
    if (w.large)
        tlb_note_large(x, lin, w.global);
    t->aux = w.gpa | (w.global ? TLB_GLOBAL : 0) | (w.large ? TLB_LARGE : 0);
    bool wtag = may_write && !code && !rom;
    if (wtag) {
        // Seen by whoever sets the page's flag too late for the look at it below.
        __atomic_store_n(&x->tlb_written[kind], true, __ATOMIC_RELAXED);
        __atomic_store_n(&t->wtag, lin & PAGE_MASK, __ATOMIC_SEQ_CST);
        cache_note_write_tag(x->engine, w.gpa);    // behind the tag: smc_protect forgets the note before it is here
        if (cache_page_has_code(x->engine, w.gpa)) // became code meanwhile: see smc.c
            wtag = false;
    }
    if (!wtag)
        t->wtag = tlb_invalid_tag(i);
    if (debugger_watches(x->engine, lin))
        slot_clear(x, kind, i);
    else if (kind == TLB_KERNEL || !w.global) // see tlb_context.c
        tlb2_fill(x, kind, lin, gen2, page, wtag);
    if (kind == TLB_KERNEL && !w.global)
        x->tlb2_kernel_private = true;
    if (write && !wtag)
        *host = NULL;
    return X_OK;
}

void mmu_flush_all(struct xcpu *x) {
    for (unsigned k = 0; k < TLB_KINDS; k++)
        tlb_flush_kind(x, k, true);
    x->large_regions[0] = x->large_regions[1] = 0;
    cache_flush_itlb(x, true);
}

void mmu_flush_context(struct xcpu *x) {
    for (unsigned k = 0; k < TLB_KINDS; k++)
        tlb_flush_kind(x, k, false);
    x->large_regions[0] = 0;
    cache_flush_itlb(x, false);
}

// An entry for part of a large page: INVLPG anywhere in that page must find it. One bit for 64 classes of 1 GiB regions
// says whether there may be such entries, so that for most addresses nobody has to search.
static inline uint64_t large_bit(uint64_t lin) {
    return 1ull << ((lin >> 30) & 63);
}

void tlb_note_large(struct xcpu *x, uint64_t lin, bool global) {
    x->large_regions[global] |= large_bit(lin);
}

static void flush_large(struct xcpu *x, uint64_t lin) {
    for (unsigned k = 0; k < TLB_KINDS; k++) {
        for (unsigned i = 0; i < TLB_SIZE; i++) {
            struct tlb_entry *t = &x->tlb[k][i];
            if ((t->aux & TLB_LARGE) && !((t->rtag ^ lin) >> 30))
                slot_clear(x, k, i);
        }
    }
}

void mmu_flush_page(struct xcpu *x, uint64_t lin) {
    bool large = (x->large_regions[0] | x->large_regions[1]) & large_bit(lin);
    for (unsigned k = 0; k < TLB_KINDS; k++) {
        unsigned at = tlb_index(lin);
        if (x->tlb[k][at].rtag == (lin & PAGE_MASK) || x->tlb[k][at].wtag == (lin & PAGE_MASK))
            slot_clear(x, k, at);
        x->tlb2[k][tlb2_index(x, k, lin)].tag = 0;
        if (large)
            tlb2_flush(x, k);
    }
    tlb_own_sites_clear(x);
    if (large)
        flush_large(x, lin);
    cache_flush_itlb_page(x, lin, large);
}

void mmu_invpcid(struct xcpu *x, unsigned type, uint64_t pcid, uint64_t lin) {
    bool current = pcid == (x->s.cr3 & CR3_PCID_MASK);
    if (type == 0 && current)
        mmu_flush_page(x, lin);
    else if (type == 1 && current)
        mmu_flush_context(x);
    else if (type < 2)
        context_forget(x, (uint16_t)pcid);
    else if (type == 2)
        mmu_flush_all(x);
    else
        mmu_flush_context(x);
}

enum xres mmu_set_cr3(struct xcpu *x, uint64_t cr3) {
    uint64_t old = x->s.cr3, fresh = cr3 & ~CR3_NO_FLUSH;
    bool keep = cr3 & CR3_NO_FLUSH;
    if (x->paging == PAGING_PAE && !walk_load_pdptrs(x, fresh))
        return fault_raise_err(x, X86_GP, 0);
    x->s.cr3 = fresh;
    if ((old ^ fresh) & CR3_PCID_MASK && x->s.cr4 & CR4_PCIDE)
        context_switch(x, old & CR3_PCID_MASK, fresh & CR3_PCID_MASK, keep);
    else if (old != fresh || !keep)
        mmu_flush_context(x);
    return X_OK;
}

int mmu_restore_pdptrs(struct xcpu *x) {
    return x->paging == PAGING_PAE && !walk_load_pdptrs(x, x->s.cr3) ? -1 : 0;
}

// ---- access from C ----

static inline void copy_small(void *dst, const void *src, unsigned n) {
    switch (n) {
    case 1: *(uint8_t *)dst = *(const volatile uint8_t *)src; break;
    case 2: *(uint16_t *)dst = *(const volatile uint16_t *)src; break;
    case 4: *(uint32_t *)dst = *(const volatile uint32_t *)src; break;
    case 8: *(uint64_t *)dst = *(const volatile uint64_t *)src; break;
    default: __asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"((uint64_t){n})::"memory");
    }
}

static inline enum tlb_kind kind_of(const struct xcpu *x, unsigned flags) {
    return flags & MMU_SYSTEM ? TLB_KERNEL : (enum tlb_kind)x->tlb_kind;
}

// One page: *host is the address of lin or NULL (MMIO, ROM or code page write), *gpa the physical address of lin.
static inline enum xres page_at(struct xcpu *x, uint64_t lin, unsigned flags, uint8_t **host, uint64_t *gpa) {
    enum tlb_kind kind = kind_of(x, flags);
    struct tlb_entry *t = &x->tlb[kind][tlb_index(lin)];
    bool write = flags & (MMU_WRITE | MMU_RMW);
    uint64_t off = lin & ~PAGE_MASK;
    if ((write ? t->wtag : t->rtag) == (lin & PAGE_MASK)) {
        *host = (uint8_t *)t->host + off;
        *gpa = (t->aux & PAGE_MASK) + off;
        return X_OK;
    }
    TRY(tlb_fill(x, kind, lin, flags, host, gpa));
    *gpa += off;
    if (*host)
        *host += off;
    return X_OK;
}

static void read_piece(struct xcpu *x, uint8_t *host, uint64_t gpa, void *buf, unsigned n) {
    uint8_t *out = buf;
    if (!host && (host = mem_page(x->engine_mem, gpa & PAGE_MASK, false))) // read to be modified, from a code page
        host += gpa & ~PAGE_MASK;
    if (host) {
        copy_small(out, host, n);
        return;
    }
    while (n) {
        unsigned step = n >= 8 && !(gpa & 7) ? 8 : n >= 4 && !(gpa & 3) ? 4 : n >= 2 && !(gpa & 1) ? 2 : 1;
        uint64_t v = host_mmio_read(x, gpa, step);
        copy_small(out, &v, step);
        out += step, gpa += step, n -= step;
    }
}

static void write_piece(struct xcpu *x, uint8_t *host, uint64_t gpa, const void *buf, unsigned n) {
    const uint8_t *in = buf;
    if (host) {
        copy_small(host, in, n);
        return;
    }
    if (cache_write_code_page(x, gpa, in, n)) // RAM that holds code: kills what it overwrites
        return;
    // A device may wait for DMA to a code page, and so for a translator that waits in smc_barrier for this vCPU.
    unsigned held = atomic_exchange(&x->in_code, 0);
    while (n) {
        unsigned step = n >= 8 && !(gpa & 7) ? 8 : n >= 4 && !(gpa & 3) ? 4 : n >= 2 && !(gpa & 1) ? 2 : 1;
        uint64_t v = 0;
        copy_small(&v, in, step);
        host_mmio_write(x, gpa, step, v);
        in += step, gpa += step, n -= step;
    }
    atomic_store(&x->in_code, held);
}

static inline uint64_t lin_wrap(const struct xcpu *x, uint64_t lin) {
    return x->long_mode ? lin : (uint32_t)lin;
}

enum xres mmu_read(struct xcpu *x, uint64_t lin, void *buf, unsigned size, unsigned flags) {
    uint8_t *h1, *h2;
    uint64_t g1, g2;
    TRY(page_at(x, lin, flags, &h1, &g1));
    unsigned first = (unsigned)(PAGE_SIZE - (lin & ~PAGE_MASK));
    if (first >= size) {
        read_piece(x, h1, g1, buf, size);
        return X_OK;
    }
    TRY(page_at(x, lin_wrap(x, lin + first), flags, &h2, &g2));
    read_piece(x, h1, g1, buf, first);
    read_piece(x, h2, g2, (uint8_t *)buf + first, size - first);
    return X_OK;
}

enum xres mmu_write(struct xcpu *x, uint64_t lin, const void *buf, unsigned size, unsigned flags) {
    uint8_t *h1, *h2;
    uint64_t g1, g2;
    flags |= MMU_WRITE;
    unsigned first = (unsigned)(PAGE_SIZE - (lin & ~PAGE_MASK));
    enum xres r;
    smc_writer_enter(x);
    r = page_at(x, lin, flags, &h1, &g1);
    if (r == X_OK && first >= size) {
        write_piece(x, h1, g1, buf, size);
    } else if (r == X_OK) {
        r = page_at(x, lin_wrap(x, lin + first), flags, &h2, &g2);
        if (r == X_OK) {
            // Host addresses first: a slow piece is a safe point, behind which they may be code pages.
            if (h1)
                write_piece(x, h1, g1, buf, first);
            write_piece(x, h2, g2, (const uint8_t *)buf + first, size - first);
            if (!h1)
                write_piece(x, h1, g1, buf, first);
        }
    }
    smc_writer_leave(x);
    return r;
}

enum xres mmu_probe(struct xcpu *x, uint64_t lin, unsigned size, unsigned flags) {
    uint8_t *h;
    uint64_t g;
    TRY(page_at(x, lin, flags, &h, &g));
    unsigned first = (unsigned)(PAGE_SIZE - (lin & ~PAGE_MASK));
    if (first < size)
        TRY(page_at(x, lin_wrap(x, lin + first), flags, &h, &g));
    return X_OK;
}

enum xres mmu_rmw_host(struct xcpu *x, uint64_t lin, unsigned size, void **host) {
    uint8_t *h;
    uint64_t g;
    TRY(mmu_probe(x, lin, size, MMU_RMW));
    TRY(page_at(x, lin, MMU_RMW, &h, &g));
    *host = (lin & ~PAGE_MASK) + size <= PAGE_SIZE ? h : NULL;
    return X_OK;
}

uint8_t *mmu_page_ptr(struct xcpu *x, uint64_t lin, unsigned flags) {
    uint8_t *h;
    uint64_t g;
    struct xfault saved = x->fault;
    if (page_at(x, lin, flags, &h, &g) != X_OK) {
        x->fault = saved;
        return NULL;
    }
    return h;
}

// ---- code fetch ----

// No TLB for fetches here: decoding is rare, and translated code is found through the itlb.
static enum xres fetch_page(struct xcpu *x, uint64_t lin, uint8_t **host, uint64_t *gpa) {
    struct walk w;
    if (x->code_bits == 64 && !is_canonical(lin))
        return fault_raise_err(x, X86_GP, 0);
    if (!cache_known_page(x, lin, &w.gpa)) {
        uint32_t r = walk_page(x, lin, MMU_EXEC, x->cpl == 3, true, &w);
        if (r)
            return fault_page(x, lin, r & ~WALK_FAULT);
    }
    *gpa = w.gpa + (lin & ~PAGE_MASK);
    *host = mem_page(x->engine_mem, w.gpa, false);
    if (*host)
        *host += lin & ~PAGE_MASK;
    return X_OK;
}

static uint64_t code_wrap(const struct xcpu *x, uint64_t lin) { // compatibility-mode code runs on at 0 as well
    return x->code_bits == 64 ? lin : (uint32_t)lin;
}

enum xres mmu_fetch(struct xcpu *x, uint64_t lin, uint8_t *buf, unsigned max, unsigned *got) {
    uint8_t *h;
    uint64_t g;
    TRY(fetch_page(x, lin, &h, &g));
    unsigned first = (unsigned)(PAGE_SIZE - (lin & ~PAGE_MASK));
    unsigned n = first < max ? first : max;
    read_piece(x, h, g, buf, n);
    *got = n;
    if (n < max) {
        struct xfault saved = x->fault;
        if (fetch_page(x, code_wrap(x, lin + n), &h, &g) == X_OK) {
            read_piece(x, h, g, buf + n, max - n);
            *got = max;
        } else {
            x->fault = saved;
        }
    }
    return X_OK;
}

enum xres mmu_fetch_fault(struct xcpu *x, uint64_t lin) {
    uint8_t *h;
    uint64_t g;
    TRY(fetch_page(x, code_wrap(x, lin), &h, &g));
    return X_OK;
}

int mmu_translate_debug(struct xcpu *x, uint64_t lin, uint64_t *gpa) {
    struct walk w;
    bool smap = x->mmu_smap;
    x->mmu_smap = false;
    uint32_t r = walk_page(x, lin, MMU_READ, false, false, &w);
    x->mmu_smap = smap;
    if (r)
        return -14; // -EFAULT
    *gpa = w.gpa + (lin & ~PAGE_MASK);
    return 0;
}
