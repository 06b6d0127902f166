// SPDX-License-Identifier: Apache-2.0
// The translator: decodes a straight run of guest instructions, finds which arithmetic flags are live where, and
// emits a block.
//
// Layout of a block's code:
//   guarded:     look at jump_mask
//   quick:       compare the page's id with the itlb
//   poll_mem:    (the head of a loop looks at jump_mask here instead of above; else this is guarded)
//   direct_mem:  fetch the flags if the body wants them in the host's register
//   code:        body, and the ways out that fall off its end
//   poll_host, direct_host: park the flags if the body wants them in flags_mem (where that is nothing to do, these are
//                the addresses above)
// and elsewhere, in the cold half of the code cache:
//   stubs:       TLB misses, unlinked exits
//
// Precision: an instruction changes guest state only after its last access that may fault, so the state at a fault is
// the state at its start; the arithmetic flags then are those of flags_mem, exact unless no instruction reads them
// (see docs/ENGINE.md; opts.exact_flags makes them always exact).
#include <stdlib.h>

#include "engine/xlate/cache_priv.h"
#include "engine/xlate/debugger.h"
#include "engine/xlate/mmu.h"
#include "engine/xlate/tctx.h"

void *translator_create(void) {
    struct tctx *c = calloc(1, sizeof(*c));
    if (c)
        tdecode_init(&c->dec);
    return c;
}

void translator_destroy(void *t) {
    free(t);
}

bool translator_peeked(const void *t, unsigned i, struct byte_range *r) {
    const struct tctx *c = t;
    if (i >= c->npeeks)
        return false;
    *r = c->peeks[i];
    return true;
}

// ---- decode ----

static bool ends_block(enum tclass k) {
    return k == T_CALL || k == T_CALL_IND || k == T_JMP || k == T_JMP_IND || k == T_RET || k == T_HELPER_END ||
           k == T_LOOP || k == T_AC;
}

// Copies up to 16 bytes of code at rip from its page (and the next one, if asked).
static unsigned fetch(struct xcpu *x, uint64_t rip, const struct code_page *p, const struct code_page *p2,
                      uint8_t *out) {
    const uint8_t *h = mem_page(x->engine_mem, p->phys->gpa_page, false);
    unsigned off = (unsigned)(rip & ~PAGE_MASK), n = 0;
    if (off + 16 <= PAGE_SIZE) {
        for (unsigned i = 0; i < 16; i += 8)
            *(uint64_t *)(out + i) = __atomic_load_n((const uint64_t *)(h + off + i), __ATOMIC_RELAXED);
        return 15;
    }
    while (n < 15 && off + n < PAGE_SIZE)
        out[n] = ((const volatile uint8_t *)h)[off + n], n++;
    if (p2 && n < 15) {
        const uint8_t *h2 = mem_page(x->engine_mem, p2->phys->gpa_page, false);
        for (unsigned k = 0; n < 15; k++)
            out[n++] = ((const volatile uint8_t *)h2)[k];
    }
    return n;
}

// What one instruction does to the flags; false where the look ends.
static bool peek_flags(const ZydisDecodedInstruction *z, uint16_t *live, uint16_t *dead) {
    switch (z->meta.category) {
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_SYSTEM:
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_STRINGOP:
    case ZYDIS_CATEGORY_SHIFT:
    case ZYDIS_CATEGORY_ROTATE:
    case ZYDIS_CATEGORY_FLAGOP:
    case ZYDIS_CATEGORY_SEGOP:
    case ZYDIS_CATEGORY_IO: return false;
    default: break;
    }
    const ZydisAccessedFlags *f = z->cpu_flags;
    if (!f)
        return true;
    *live |= f->tested & RFLAGS_ARITH & ~*dead;
    *dead |= (f->modified | f->set_0 | f->set_1) & RFLAGS_ARITH;
    if (z->meta.category == ZYDIS_CATEGORY_LOGICAL)
        *dead |= tdecode_clears_af(z) ? RFLAGS_AF : 0;
    return true;
}

// Fills c->insns. Returns the second page if the first instruction lies in two (then it is the only one).
static bool decode_block(struct tctx *c, uint64_t rip, struct code_page *page, struct code_page **page2) {
    unsigned jccs = 0, max = c->engine->opts.max_insns;
    bool shadow = false;
    *page2 = NULL;
    c->ninsns = 0;
    while (c->ninsns < max) {
        struct tinsn *t = &c->insns[c->ninsns];
        t->rip = rip;
        bool breakpoint = debugger_breaks(c->engine, rip);
        unsigned n = fetch(c->x, rip, page, NULL, t->bytes);
        bool ok = !breakpoint && tdecode(&c->dec, c->x, t, n);
        if (!ok && n < 15 && c->ninsns == 0 && !breakpoint) {
            *page2 = cache_second_page(c->x, (rip & PAGE_MASK) + PAGE_SIZE);
            if (!*page2)
                return false;
            n = fetch(c->x, rip, page, *page2, t->bytes);
            ok = tdecode(&c->dec, c->x, t, n);
        }
        // STI and the next instruction, in its shadow, are in one block, or STI is emulated.
        if (!ok && shadow)
            c->ninsns--;
        if (!ok || (t->cls == T_STI && (((rip + t->len) & PAGE_MASK) != c->page || c->ninsns + 1 == max)))
            break;
        c->ninsns++;
        rip += t->len;
        if (!c->is64)
            rip = (uint32_t)rip;
        if (*page2 || ends_block(t->cls) || (rip & PAGE_MASK) != c->page || shadow)
            break;
        if (t->cls == T_JCC && ++jccs >= c->engine->opts.max_jcc)
            break;
        // A block counts all its instructions when it is entered: it must not be left early.
        if ((c->mode & TBM_COUNT) && (t->cls == T_JCC || t->cls == T_HELPER))
            break;
        shadow = t->cls == T_STI;
    }
    return c->ninsns > 0;
}

// Where does the block go on, when it does not leave by an indirect jump or a call?
static uint64_t goes_to(const struct tctx *c, const struct tinsn *t) {
    if (t->cls == T_JCC || t->cls == T_JMP || t->cls == T_LOOP)
        return t->target;
    bool last = t == &c->insns[c->ninsns - 1];
    return last && !ends_block(t->cls) ? t->rip + t->len : t->rip;
}

// Loops and other straight code over the border of two pages would compare the page and park the flags at every
// crossing. A block that goes on to a neighbour of its page depends on that too: its entry compares both, its exits
// are those of one page. Not so a loop within its page, which would pay for it at each turn.
static struct code_page *neighbour(struct tctx *c) {
    uint64_t other = c->page;
    if (c->engine->opts.exact_flags || (c->mode & TBM_COUNT))
        return NULL;
    for (unsigned i = 0; i < c->ninsns; i++) {
        const struct tinsn *t = &c->insns[i];
        uint64_t to = goes_to(c, t), page = to & PAGE_MASK;
        if (page == c->page && to <= t->rip && to != t->rip)
            return NULL;
        if (page == c->page + PAGE_SIZE || page == c->page - PAGE_SIZE)
            other = page;
    }
    return other != c->page ? cache_second_page(c->x, other) : NULL;
}

// ---- flags liveness ----

// Flags that the code at `target` may read before it writes them, as far as a short look tells. Only code of the
// block's own page is looked at, and its bytes are remembered as part of what the block was made from.
#define PEEK_INSNS 6
static uint16_t peek_live(struct tctx *c, const struct code_page *page, uint64_t target) {
    uint16_t dead = 0, live = 0;
    uint8_t bytes[16];
    uint64_t rip = target;
    ZydisDecodedInstruction z;
    const ZydisDecoder *dec = c->is64 ? &c->dec.d64 : &c->dec.d32;
    uint64_t va_page = target & PAGE_MASK;
    bool second = c->page2 && va_page == c->page2->va_page;
    if ((va_page != c->page && !second) || c->engine->opts.exact_flags || c->npeeks == ARRAY_LEN(c->peeks))
        return RFLAGS_ARITH;
    if (second)
        page = c->page2;
    for (unsigned n = 0; n < PEEK_INSNS && dead != RFLAGS_ARITH; n++) {
        unsigned avail = fetch(c->x, rip, page, NULL, bytes);
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(dec, NULL, bytes, avail, &z)) || !peek_flags(&z, &live, &dead))
            break;
        rip += z.length;
        if ((rip & PAGE_MASK) != va_page)
            break;
    }
    if (rip > target)
        c->peeks[c->npeeks++] =
            (struct byte_range){(uint16_t)(target & ~PAGE_MASK), (uint16_t)((rip - 1 - va_page) & ~PAGE_MASK), second};
    return live | (RFLAGS_ARITH & ~dead);
}

// What is known of the flags behind the block.
static uint16_t live_after(struct tctx *c, const struct code_page *page, const struct tinsn *last) {
    switch (last->cls) {
    case T_JMP:
    case T_CALL: return peek_live(c, page, last->target);
    case T_JMP_IND:
    case T_CALL_IND:
    case T_RET:
    case T_HELPER_END: return RFLAGS_ARITH;
    case T_AC: return RFLAGS_ARITH;
    default: return peek_live(c, page, last->rip + last->len);
    }
}

static void liveness(struct tctx *c, const struct code_page *page) {
    bool exact = c->engine->opts.exact_flags;
    c->npeeks = 0;
    uint16_t live = live_after(c, page, &c->insns[c->ninsns - 1]);
    for (unsigned i = c->ninsns; i-- > 0;) {
        struct tinsn *t = &c->insns[i];
        if (t->cls == T_JCC || t->cls == T_LOOP)
            live |= t->live_taken = peek_live(c, page, t->target);
        t->live_out = live;
        live = (uint16_t)((live & ~t->flags_kill) | t->flags_read);
        if (exact)
            live = RFLAGS_ARITH;
        t->live_in = live;
    }
}

// Where the body wants its flags: where the first instruction that cares does.
static enum flags_in flags_wanted(const struct tctx *c) {
    if (!c->insns[0].live_in)
        return FLAGS_IN_NONE;
    for (unsigned i = 0; i < c->ninsns; i++) {
        const struct tinsn *t = &c->insns[i];
        if (has_check(t))
            return FLAGS_IN_MEM;
        if (t->flags_read || t->flags_write)
            return FLAGS_IN_HOST;
    }
    return FLAGS_IN_MEM;
}

// ---- entries ----

static void leave_stub(struct tctx *c, uint8_t *jump, uint64_t rip) {
    emit_stub(c, (struct stub){.kind = STUB_LEAVE, .jump = jump, .target = rip});
}

static uint32_t itlb_offset(const struct code_page *p) {
    uint32_t table = (uint32_t)offsetof(struct xcpu, itlb) + (p->mode & TBM_USER ? ITLB_SIZE * 4 : 0);
    return table + itlb_slot(p->va_page, p->mode) * 4;
}

static void emit_guard(struct tctx *c, const struct code_page *p, uint64_t rip) {
    cmp_gs_imm32(&c->e, itlb_offset(p), p->id);
    leave_stub(c, jcc_forward(&c->e, CC_NE), rip);
}

#define POLL_BYTES 15
static void emit_poll(struct tctx *c, uint64_t rip) {
    cmp_gs_imm8(&c->e, XOFF(jump_mask), 0);
    leave_stub(c, jcc_forward(&c->e, CC_E), rip);
}

static void emit_count(struct tctx *c, struct tb *tb) {
    struct emit *e = &c->e;
    put8(e, 0x65), put8(e, 0x48), put8(e, 0x81), put8(e, 0x2c), put8(e, 0x25); // sub qword gs:[budget], n
    put32(e, XOFF(budget)), put32(e, c->ninsns);
    uint8_t *enough = jcc_forward(e, CC_NS);
    put8(e, 0x65), put8(e, 0x48), put8(e, 0x81), put8(e, 0x04), put8(e, 0x25); // add it back
    put32(e, XOFF(budget)), put32(e, c->ninsns);
    leave_stub(c, jmp_forward(e), tb->rip);
    patch_here(e, enough);
}

static void emit_entries(struct tctx *c, struct tb *tb) {
    tb->guarded = emit_xaddr(&c->e);
    if (!c->turns)
        emit_poll(c, tb->rip);
    tb->quick = c->turns ? tb->guarded : emit_xaddr(&c->e);
    emit_guard(c, tb->page, tb->rip);
    if (tb->page2)
        emit_guard(c, tb->page2, tb->rip);
    tb->poll_mem = c->turns ? emit_xaddr(&c->e) : tb->guarded;
    if (c->turns)
        emit_poll(c, tb->rip);
    tb->direct_mem = emit_xaddr(&c->e);
    if (c->mode & TBM_COUNT)
        emit_count(c, tb);
    if (tb->flags_in == FLAGS_IN_HOST)
        flags_load_mem(&c->e, S1);
    tb->header = c->header = hoist_header(c, itlb_offset(tb->page), tb->page->id);
    tb->code = emit_xaddr(&c->e);
    hoist_prologue(c);
    c->body = emit_xaddr(&c->e);
}

// A way in with the flags in the host's register, for a target that wants them in flags_mem.
static uint8_t *parking_entry(struct tctx *c, const struct tb *tb, uint8_t *to) {
    uint8_t *at = emit_xaddr(&c->e);
    if (tb->flags_in == FLAGS_IN_NONE)
        return to;
    flags_save_mem(&c->e, S1);
    jmp_to(&c->e, (uint64_t)to);
    return at;
}

static void emit_late_entries(struct tctx *c, struct tb *tb) {
    if (tb->page2)
        tb->guarded_host = parking_entry(c, tb, tb->guarded);
    bool counts = c->mode & TBM_COUNT;
    tb->poll_host = parking_entry(c, tb, tb->poll_mem);
    if (tb->flags_in == FLAGS_IN_HOST && !counts)
        tb->direct_host = tb->code;
    else
        tb->direct_host = parking_entry(c, tb, tb->direct_mem);
}

// ---- stubs ----

static void stub_exit(struct tctx *c, const struct stub *s) {
    struct emit *e = &c->e;
    uint8_t *jump = s->jump;
    uint32_t index;
    if (s->save_flags) { // the conditional jump comes here for good; its way on is patched instead
        flags_save_mem(e, S1);
        while (((uintptr_t)e->p + 1) % 64 > 60)
            put8(e, 0x90);
        jump = jmp_forward(e);
        patch_here(e, jump);
    }
    struct tb_exit *x = cache_new_exit(c->engine, &index);
    if (!x) {
        e->overflow = true;
        return;
    }
    *x = (struct tb_exit){.target = s->target,
                          .patch = (uint32_t *)jump,
                          .patch_x = jump + 4 + e->delta,
                          .kind = s->exit,
                          .from = cache_next_tb(c->engine),
                          .ungrouped = c->ungrouped && s->exit != EXIT_GUARDED,
                          .unlinked = (uint32_t)(e->p - (jump + 4))};
    mov_imm(e, S0, index);
    bool host = s->exit == EXIT_DIRECT_HOST || s->exit == EXIT_POLL_HOST;
    jmp_to(e, host ? c->tramps->link_host : c->tramps->link_mem);
}

static void stub_miss(struct tctx *c, const struct stub *s) {
    struct emit *e = &c->e;
    if (s->site)
        store_imm_gs(e, XOFF(site_arg), s->site);
    if (s->loop_site)
        store_imm_gs(e, XOFF(loop_sites_used), 1);
    if (s->site && s->in_group)
        store_imm_gs(e, XOFF(site_limit), s->limit);
    if (s->kind == STUB_CONST_MISS) { // what the trampolines expect of an ordinary check
        mov_imm(e, S1, tlb_index(s->address) * (uint32_t)sizeof(struct tlb_entry));
        mov_imm(e, S0, s->address);
        op_gs_base(e, true, 0x33, S0, S1, s->tag);
    }
    if (s->in_group)
        store_imm_gs(e, XOFF(group_range), s->range);
    call_to(e, s->tramp);
    jmp_to(e, (uint64_t)(s->back + e->delta));
    put32(e, cache_next_tb(c->engine)); // struct stub_note
    put8(e, s->insn);
}

// Behind all blocks' bodies, where they do not lie between code that is used.
static void emit_stubs(struct tctx *c, struct tb *tb) {
    struct emit *e = &c->e, hot = c->e;
    e->p = c->cold;
    e->end = c->cold_end;
    uint8_t *leave = NULL; // all STUB_LEAVE of a block have the same target
    for (unsigned i = 0; i < c->nstubs && !e->overflow; i++) {
        struct stub *s = &c->stubs[i];
        if (s->kind == STUB_LEAVE && leave) {
            *(uint32_t *)s->jump = (uint32_t)(leave - (s->jump + 4));
            continue;
        }
        patch_here(e, s->jump);
        switch (s->kind) {
        case STUB_MISS:
        case STUB_CONST_MISS:
        case STUB_GROUP_MISS: stub_miss(c, s); break;
        case STUB_EXIT: stub_exit(c, s); break;
        case STUB_HOIST:
            mov_imm(e, S0, s->target);
            jmp_to(e, c->tramps->hoist);
            break;
        case STUB_LEAVE:
            leave = e->p;
            mov_imm(e, S0, s->target);
            jmp_to(e, c->tramps->indirect_miss);
            break;
        }
    }
    tb->cold_size = (uint32_t)(e->p - c->cold);
    e->p = hot.p;
    e->end = hot.end;
}

// ---- block ----

static void emit_body(struct tctx *c, struct tb *tb) {
    c->flags = tb->flags_in == FLAGS_IN_MEM ? FL_MEM : FL_HOST;
    s0_clobbered(c);
    for (unsigned i = 0; i < c->ninsns; i++) {
        c->t = &c->insns[i];
        tb->insns[i].host_off = (uint16_t)(emit_xaddr(&c->e) - tb->code);
        tb->insns[i].guest_off = (uint16_t)(c->t->rip - tb->rip);
        c->insn_flags_in_host = false;
        emit_insn(c, c->t);
        tb->insns[i].flags_in_host = c->insn_flags_in_host;
    }
    struct tinsn *last = &c->insns[c->ninsns - 1];
    if (last->cls == T_LOOP || last->cls == T_AC || !ends_block(last->cls)) {
        uint64_t next = last->rip + last->len;
        bool shadow = c->ninsns > 1 && c->insns[c->ninsns - 2].cls == T_STI;
        emit_exit(c, c->is64 ? next : (uint32_t)next, shadow ? UINT64_MAX : last->rip);
    }
}

// Pages are remembered per place only where the place is likely to be hot: in a block that ends, or may leave, by a
// short jump backward. There are few slots, and a place that shares its slot with a busy one is slower than without.
#define LOOP_BYTES 512
static bool is_loop(const struct tctx *c) {
    for (unsigned i = 0; i < c->ninsns; i++) {
        const struct tinsn *t = &c->insns[i];
        bool branch = t->cls == T_JCC || t->cls == T_JMP || t->cls == T_LOOP;
        if (branch && t->target <= t->rip && t->rip - t->target < LOOP_BYTES)
            return true;
        if (t->cls == T_JMP_IND && !t->mem_rip) // an interpreter's dispatch, as like as not
            return true;
    }
    return false;
}

static void init_context(struct tctx *c, struct xcpu *x, const struct code_page *page) {
    struct emit_space s;
    cache_space(x->engine, &s);
    c->x = x;
    c->engine = x->engine;
    c->tramps = cache_tramps(x->engine);
    c->mode = x->tb_mode;
    c->is64 = x->tb_mode & TBM_64;
    c->page = page->va_page;
    c->nstubs = 0;
    c->t = NULL;
    c->e = (struct emit){.p = s.rw, .end = s.end, .delta = s.delta};
    c->cold = s.cold;
    c->cold_end = s.cold_end;
    // The entry that indirect jumps take is aligned: `quick`, behind POLL_BYTES, but in heads of loops.
    while (((uintptr_t)c->e.p + (c->turns ? 0 : POLL_BYTES)) & 15)
        put8(&c->e, 0xcc);
}

static void mark_hoisted(struct tctx *c) {
    for (unsigned i = 0; i < c->ninsns; i++)
        c->insns[i].access[0].hoisted = c->hoisted && c->insns[i].cls == T_MEM;
}

struct tb *translate(struct xcpu *x, uint64_t rip, struct code_page *page, enum tb_variant variant, bool turns,
                     bool *full) {
    struct tctx *c = x->engine->translator;
    struct code_page *page2;
    c->turns = turns;
    init_context(c, x, page);
    c->ungrouped = variant == TB_UNGROUPED || variant == TB_HOISTED || x->engine->opts.no_groups;
    c->hoisted = variant == TB_HOISTED;
    c->next_hoist = 0;
    c->any_site = false;
    c->page2 = NULL;
    if (!decode_block(c, rip, page, &page2))
        return NULL;
    if (!page2)
        page2 = neighbour(c);
    c->page2 = page2;
    c->loop = hoist_analyse(c);
    liveness(c, page);
    c->loop &= !c->insns[0].live_in;
    if (c->hoisted && !c->loop)
        return NULL;
    find_groups(c);
    mark_hoisted(c);
    c->sites = !c->hoisted && variant != TB_SITELESS && (c->mode & TBM_USER) && !c->engine->opts.no_sites && is_loop(c);
    struct tb *tb = cache_meta_alloc(x->engine, sizeof(*tb) + c->ninsns * sizeof(struct tb_insn));
    struct hoist_plan *plan = c->hoisted ? cache_meta_alloc(x->engine, sizeof(*plan)) : NULL;
    *full = !tb || (c->hoisted && !plan);
    if (*full)
        return NULL;
    const struct tinsn *last = &c->insns[c->ninsns - 1];
    *tb = (struct tb){.rip = rip, .page = page, .page2 = page2, .ninsns = (uint16_t)c->ninsns, .variant = variant};
    tb->insns = (struct tb_insn *)(tb + 1);
    tb->plan = plan;
    if (plan)
        *plan = c->plan;
    tb->guest_size = (uint16_t)(last->rip + last->len - rip);
    tb->flags_in = (uint8_t)flags_wanted(c);
    emit_entries(c, tb);
    emit_body(c, tb);
    tb->body_size = (uint32_t)(emit_xaddr(&c->e) - tb->code);
    emit_late_entries(c, tb);
    tb->host_size = (uint32_t)(emit_xaddr(&c->e) - tb->code);
    emit_stubs(c, tb);
    *full = c->e.overflow || tb->body_size > UINT16_MAX;
    return *full ? NULL : tb;
}
