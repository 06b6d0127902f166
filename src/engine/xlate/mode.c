// SPDX-License-Identifier: Apache-2.0
// What follows from the control registers and segments: privilege, sizes, paging, and the kind of translated code.
#include "engine/xlate/cache.h"
#include "engine/xlate/tb.h"
#include "engine/xlate/walk.h"

static bool flat(const struct x86_segment *s) {
    bool expand_down = !(s->attr & 8) && (s->attr & 4);
    return !(s->attr & SEG_UNUSABLE) && s->limit == 0xffffffffu && !expand_down;
}

static bool flat_data(const struct x86_segment *s) {
    return flat(s) && s->base == 0 && !(s->attr & 8) && (s->attr & 2);
}

static void update_paging(struct xcpu *x) {
    bool pae = x->s.cr4 & CR4_PAE;
    x->paging = !(x->s.cr0 & CR0_PG) ? PAGING_NONE : x->long_mode ? PAGING_4LEVEL : pae ? PAGING_PAE : PAGING_32;
    x->mmu_wp = x->s.cr0 & CR0_WP;
    x->mmu_nxe = (x->s.efer & EFER_NXE) && x->paging >= PAGING_PAE;
    x->mmu_smep = x->s.cr4 & CR4_SMEP;
    x->mmu_smap = x->s.cr4 & CR4_SMAP;
}

static uint32_t segment_mode(const struct xcpu *x) {
    const struct x86_segment *g = x->s.seg;
    uint32_t m = TBM_32;
    if (!(g[X86_CS].attr & SEG_DB) || g[X86_CS].base || g[X86_CS].limit != 0xffffffffu)
        return 0;
    if (!(g[X86_SS].attr & SEG_DB) || !flat_data(&g[X86_SS]))
        return 0;
    if (!flat_data(&g[X86_DS]) || !flat_data(&g[X86_ES]))
        m |= TBM_DSES_ODD;
    if (!flat(&g[X86_FS]) || (g[X86_FS].attr & 8) || !(g[X86_FS].attr & 2))
        m |= TBM_FS_ODD;
    if (!flat(&g[X86_GS]) || (g[X86_GS].attr & 8) || !(g[X86_GS].attr & 2))
        m |= TBM_GS_ODD;
    return m;
}

static uint32_t unit_mode(const struct xcpu *x) {
    uint32_t m = 0;
    if (x->s.cr0 & (CR0_EM | CR0_TS))
        m |= TBM_NO_FPU;
    if (!(x->s.cr4 & CR4_OSFXSR))
        m |= TBM_NO_SSE;
    bool avx = (x->s.cr4 & CR4_OSXSAVE) && (x->s.xcr0 & XCR0_AVX) && xcpu_policy(x)->has_avx;
    return avx ? m : m | TBM_NO_AVX;
}

static uint32_t tb_mode_of(const struct xcpu *x) {
    uint32_t m;
    if (x->engine->opts.emulate || !cpu_protected(x) || cpu_vm86(x) || x->cpl == 1 || x->cpl == 2)
        return 0;
    if ((x->s.rflags & RFLAGS_TF) || (x->s.dr7 & 0xff))
        return 0; // traps after every instruction: the emulator's
    if (x->cpl == 3 && (x->s.cr0 & CR0_AM) && (x->s.rflags & RFLAGS_AC))
        return 0; // alignment checks
    m = x->code_bits == 64 ? TBM_64 : segment_mode(x);
    if (!m)
        return 0;
    m |= x->cpl == 3 ? TBM_USER : 0;
    m |= (uint32_t)x->tlb_kind << TBM_KIND_SHIFT;
    m |= x->counting ? TBM_COUNT : 0;
    m |= x->cpl == 0 && x->mmu_smap ? TBM_SMAP : 0;
    m |= x->cpl == 3 && (x->s.cr4 & CR4_TSD) ? TBM_NO_TSC : 0;
    m |= x->s.cr4 & CR4_FSGSBASE ? TBM_BASES : 0;
    return m | unit_mode(x);
}

static void claim_slot(struct xcpu *x, unsigned slot, uint32_t mode) {
    if (x->jcache_mode[slot] == mode)
        return;
    x->jcache_mode[slot] = mode;
    jcache_empty_all(&x->jcache[slot], cache_tramps(x->engine)->indirect_miss);
}

void mode_update(struct xcpu *x) {
    const struct x86_segment *cs = &x->s.seg[X86_CS], *ss = &x->s.seg[X86_SS];
    bool protected_mode = cpu_protected(x), vm86 = protected_mode && cpu_vm86(x);
    x->long_mode = x->s.efer & EFER_LMA;
    x->cpl = !protected_mode ? 0 : vm86 ? 3 : (uint8_t)SEG_DPL(ss->attr);
    if (x->long_mode && (cs->attr & SEG_L))
        x->code_bits = x->stack_bits = 64;
    else {
        x->code_bits = !vm86 && (cs->attr & SEG_DB) ? 32 : 16;
        x->stack_bits = !vm86 && (ss->attr & SEG_DB) ? 32 : 16;
    }
    update_paging(x);
    x->tlb_kind = x->cpl == 3 ? TLB_USER : x->mmu_smap && (x->s.rflags & RFLAGS_AC) ? TLB_KERNEL_AC : TLB_KERNEL;
    x->tb_mode = tb_mode_of(x);
    if (!x->tb_mode)
        return;
    // Translated STAC and CLAC go from one supervisor mode to the other by themselves, so their slots change together.
    uint32_t base = x->tb_mode & ~(3u << TBM_KIND_SHIFT);
    bool is64 = x->code_bits == 64;
    if (x->cpl) {
        claim_slot(x, jcache_slot(is64, TLB_USER), base);
        return;
    }
    claim_slot(x, jcache_slot(is64, TLB_KERNEL), base);
    claim_slot(x, jcache_slot(is64, TLB_KERNEL_AC), base);
}
