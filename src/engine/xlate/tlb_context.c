// SPDX-License-Identifier: Apache-2.0
// Process context identifiers (SDM vol. 3A 4.10.1): a guest that switches with MOV CR3 and bit 63 finds again what the
// context had in the TLB when it was left.
//
// The first level holds one context. The second level holds several, told apart by generation; what is of no context
// must not be found in one that is not current, so global pages are in the second level of TLB_KERNEL only, whose
// generation no switch changes unless it has an entry that is not global. INVLPG reaches the current context and the
// global pages, as it should.
//
// Whatever takes rights from entries of this vCPU that are not current (another thread that drops write tags or kills
// code, a flush of everything, generations that begin anew) changes tlb_epoch first: the context that is left reads it
// before its generations, the one that is entered reads it again behind them.
#include "engine/xlate/cache.h"
#include "engine/xlate/mmu.h"
#include "engine/xlate/stats.h"

void context_forget_all(struct xcpu *x) {
    __atomic_fetch_add(&x->tlb_epoch, 1, __ATOMIC_SEQ_CST);
}

static uint64_t epoch_now(const struct xcpu *x) {
    return __atomic_load_n(&x->tlb_epoch, __ATOMIC_SEQ_CST);
}

static struct tlb_context *context_find(struct xcpu *x, uint16_t pcid) {
    for (unsigned i = 0; i < CONTEXTS; i++)
        if (x->contexts[i].valid && x->contexts[i].pcid == pcid)
            return &x->contexts[i];
    return NULL;
}

void context_forget(struct xcpu *x, uint16_t pcid) {
    struct tlb_context *c = context_find(x, pcid);
    if (c)
        c->valid = false;
}

static void context_leave(struct xcpu *x, uint16_t pcid) {
    struct tlb_context *c = context_find(x, pcid);
    if (!c)
        c = &x->contexts[x->next_context++ % CONTEXTS];
    c->valid = true;
    c->pcid = pcid;
    c->epoch = epoch_now(x);
    for (unsigned k = 0; k < TLB_KINDS; k++)
        c->generation[k] = __atomic_load_n(&x->tlb2_generation[k], __ATOMIC_SEQ_CST);
    c->large_regions = x->large_regions[0];
    c->ncode = cache_itlb_leave(x, c->code);
}

static void generation_enter(struct xcpu *x, enum tlb_kind kind, uint16_t pcid, const struct tlb_context *c) {
    if (c)
        __atomic_store_n(&x->tlb2_generation[kind], c->generation[kind], __ATOMIC_SEQ_CST);
    else
        tlb2_new_generation(x, kind);
    x->tlb2_salt[kind] = pcid * 2741u & (TLB2_SIZE - 1);
}

void context_switch(struct xcpu *x, uint16_t from, uint16_t to, bool keep) {
    context_leave(x, from);
    const struct tlb_context *c = keep ? context_find(x, to) : NULL;
    uint64_t epoch = epoch_now(x);
    if (c && c->epoch != epoch)
        c = NULL;
    x->stat[c ? XS_CONTEXT_KEPT : XS_TLB_FLUSH]++;
    for (unsigned k = 0; k < TLB_KINDS; k++)
        tlb_drop_private(x, k);
    tlb_own_sites_clear(x);
    if (x->tlb2_kernel_private) {
        x->tlb2_kernel_private = false;
        tlb2_new_generation(x, TLB_KERNEL);
    }
    generation_enter(x, TLB_USER, to, c);
    generation_enter(x, TLB_KERNEL_AC, to, c);
    x->large_regions[0] = c ? c->large_regions : 0;
    cache_itlb_enter(x, c ? c->code : NULL, c ? c->ncode : 0);
    if (c && epoch_now(x) != epoch) // something was taken away while it came in
        mmu_flush_context(x);
}
