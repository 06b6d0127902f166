// SPDX-License-Identifier: Apache-2.0
// C functions that translated code calls, through the trampolines of tramp.c.
//
// Each one that may take a lock or run long steps out of translated code (cache_pause_code) and in again
// (cache_resume_code): in between the code cache may have been flushed, so it goes on by a fresh look-up then.
#include "engine/xlate/cache.h"
#include "engine/xlate/debugger.h"
#include "engine/xlate/emul_int.h"
#include "engine/xlate/hoist.h"
#include "engine/xlate/mmu.h"
#include "engine/xlate/profile.h"
#include "engine/xlate/stats.h"
#include "engine/xlate/strings.h"
#include "engine/xlate/tb.h"

#define ANSWER(reason) (1u + (reason))

static inline struct jcache *jcache_of(struct xcpu *x) {
    return &x->jcache[jcache_slot(x->code_bits == 64, x->tlb_kind)];
}

// Guest instruction of a TLB-miss stub, from the stub's return address: behind its jump into the body stands a note.
static struct stub_note note_of_stub(uint64_t ret_pc) {
    struct stub_note note;
    __builtin_memcpy(&note, (const void *)(ret_pc + STUB_JUMP_BYTES), sizeof(note));
    return note;
}

static uint64_t rip_of_stub(struct xcpu *x, uint64_t ret_pc) {
    struct stub_note note = note_of_stub(ret_pc);
    const struct tb *tb = cache_tb(x->engine, note.tb);
    if (x->counting)
        x->budget += tb->ninsns - note.insn;
    return tb->rip + tb->insns[note.insn].guest_off;
}

// A store that found no write tag: may go on beside the page's code, if the code cache was not flushed meanwhile.
static uint64_t store_beside(struct xcpu *x, uint64_t gpa, unsigned size, uint64_t ret_pc) {
    uint32_t gen = cache_generation(x->engine);
    int64_t budget = x->budget;
    uint64_t rip = x->s.rip;
    x->s.rip = rip_of_stub(x, ret_pc); // while the stub is sure to be there
    uint8_t *host = cache_store_beside_code(x, gpa, size);
    if (!host || !cache_resume_code(x, gen)) // a flush may have begun as soon as in_code was 0
        return ANSWER(LEAVE_SLOW);
    x->budget = budget;
    x->s.rip = rip;
    return (uint64_t)host;
}

static bool x87_exception_waits(const struct xcpu *x) {
    uint16_t sw;
    __asm__ volatile("fnstsw %0" : "=m"(sw));
    return x->fpu_live && (sw & 0x80);
}

// A load over the end of a page: both parts are brought together in x->bounce. Answers so that the offset of lin in
// its page leads there, or with 0.
static uint64_t load_across(struct xcpu *x, uint64_t lin, unsigned size, enum tlb_kind kind) {
    unsigned first = (unsigned)(PAGE_SIZE - (lin & ~PAGE_MASK));
    uint64_t next = lin + first, gpa;
    uint8_t *a, *b;
    if (x->code_bits != 64)
        next = (uint32_t)next;
    if (tlb_fill(x, kind, lin, MMU_READ, &a, &gpa) != X_OK || !a ||
        tlb_fill(x, kind, next, MMU_READ, &b, &gpa) != X_OK || !b)
        return 0;
    // As far from a 32-byte boundary as in the guest: an instruction that wants alignment must fault.
    uint8_t *to = x->bounce + (lin & 31);
    for (unsigned i = 0; i < first; i++)
        to[i] = ((volatile uint8_t *)a)[(lin & ~PAGE_MASK) + i];
    for (unsigned i = first; i < size; i++)
        to[i] = ((volatile uint8_t *)b)[i - first];
    return (uint64_t)to - (lin & ~PAGE_MASK);
}

// The trampolines take lin back out of lin ^ tag, and read the tag again to do so. Where another vCPU has removed the
// tag in between (see smc.c) the result is not the address; it has the index of another slot then. Where it was the tag
// of a site, bit 63 is set: not canonical, which tlb_fill sees in long mode only.
static bool lin_is_torn(const struct xcpu *x, uint64_t lin, uint32_t slot) {
    return tlb_index(lin) * (uint32_t)sizeof(struct tlb_entry) != slot || (x->code_bits != 64 && lin >> 32);
}

// Answers with the host page, or leaves: the access faults, or is one for the emulator.
uint64_t xl_tlb_miss(struct xcpu *x, uint64_t lin, uint32_t what, uint64_t ret_pc, uint32_t slot) {
    unsigned size = what & 0xff;
    uint8_t *host;
    uint64_t gpa;
    if (lin_is_torn(x, lin, slot) || debugger_watches(x->engine, lin) || debugger_watches(x->engine, lin + size - 1)) {
        // the emulator computes it anew, or tells the debugger
    } else if ((lin & ~PAGE_MASK) + size <= PAGE_SIZE) {
        enum xres r = tlb_fill(x, what >> 16, lin, what & 0x100 ? MMU_WRITE : MMU_READ, &host, &gpa);
        if (r == X_OK && host)
            return (uint64_t)host;
        if (r == X_OK && (what & 0x100))
            return store_beside(x, gpa | (lin & ~PAGE_MASK), size, ret_pc);
        // #GP for a misaligned vector and #MF come first: the emulator knows.
        bool odd = (size >= 16 && (lin & (size - 1))) || x87_exception_waits(x);
        if (r == X_FAULT && x->fault.vector == X86_PF && !odd) {
            x->s.rip = rip_of_stub(x, ret_pc);
            return ANSWER(LEAVE_FAULT);
        }
    } else if (!(what & 0x100)) {
        uint64_t page = load_across(x, lin, size, what >> 16);
        if (page)
            return page;
    }
    x->s.rip = rip_of_stub(x, ret_pc);
    return ANSWER(LEAVE_SLOW);
}

// The check of a group failed. Answers with the host page, or with 0: s.rip is where to go on without groups.
uint64_t xl_group_miss(struct xcpu *x, uint64_t lin, uint32_t kind, uint64_t ret_pc, uint32_t slot) {
    unsigned range = x->group_range & 0xffff;
    bool writes = x->group_range & GROUP_WRITES, first = x->group_range & GROUP_FIRST_WRITES;
    uint8_t *host;
    uint64_t gpa;
    struct xfault saved = x->fault;
    if (!lin_is_torn(x, lin, slot) && !debugger_watches(x->engine, lin) && (lin & ~PAGE_MASK) + range <= PAGE_SIZE &&
        tlb_fill(x, kind, lin, first ? MMU_WRITE : MMU_READ, &host, &gpa) == X_OK && host &&
        (!writes || x->tlb[kind][tlb_index(lin)].wtag == (lin & PAGE_MASK)))
        return (uint64_t)host;
    x->fault = saved;
    x->s.rip = rip_of_stub(x, ret_pc);
    x->group_tb = note_of_stub(ret_pc).tb;
    return 0;
}

// ---- going on at s.rip ----

static uint64_t leave_for(struct xcpu *x, enum xres r) {
    return ANSWER(r == X_FAULT ? LEAVE_FAULT : r == X_EXIT ? LEAVE_EXIT : LEAVE_DISPATCH);
}

// Entry 0 is looked at by indirect jumps to anywhere while events wait, so its code looks for them.
static void jcache_fill(struct xcpu *x, const struct tb *tb) {
    struct jcache *j = jcache_of(x);
    unsigned i = jcache_index(tb->rip);
    if (x->engine->opts.no_jcache)
        return;
    j->key[i] = tb->rip;
    j->code[i] = (uint64_t)(i ? tb->quick : tb->guarded);
}

uint64_t xl_find_code(struct xcpu *x, enum xres *r) {
    struct jcache *j = jcache_of(x);
    unsigned i = jcache_index(x->s.rip);
    *r = X_OK;
    if (j->key[i] == x->s.rip)
        return j->code[i];
    struct tb *tb = cache_get_tb(x, x->s.rip, r);
    if (!tb)
        return 0;
    jcache_fill(x, tb);
    return (uint64_t)tb->guarded;
}

// Finds the block at s.rip and steps back into translated code. Flags are in flags_mem.
static uint64_t dispatch(struct xcpu *x) {
    enum xres r;
    if (exit_requested(x) || !x->tb_mode || x->s.intr_shadow)
        return ANSWER(LEAVE_DISPATCH);
    uint32_t gen = cache_generation(x->engine); // before the look-up: a flush since then makes its answer stale
    uint64_t code = xl_find_code(x, &r);
    if (!code)
        return leave_for(x, r);
    fpu_load(x);
    if (!cache_resume_code(x, gen))
        return ANSWER(LEAVE_DISPATCH);
    return code;
}

uint64_t xl_indirect(struct xcpu *x, uint64_t rip) {
    enum xres r;
    x->stat[XS_JUMP_MISS]++;
    x->s.rip = rip;
    // A block whose count does not fit into the budget comes here too: the dispatcher steps what is left.
    bool spent = x->counting && x->budget < (int64_t)x->engine->opts.max_insns;
    if (spent || exit_requested(x)) {
        cache_pause_code(x);
        return ANSWER(LEAVE_DISPATCH);
    }
    cache_pause_code(x);
    // The jump cache or a guard has just failed, so it is not asked again.
    uint32_t gen = cache_generation(x->engine); // before the look-up: a flush since then makes its answer stale
    struct tb *tb = cache_get_tb(x, rip, &r);
    if (!tb) { // now an instruction to be emulated: the dispatcher must not find the block that was there
        struct jcache *j = jcache_of(x);
        unsigned i = jcache_index(rip);
        if (j->key[i] == rip)
            j->key[i] = jcache_empty(i);
        return leave_for(x, r);
    }
    jcache_fill(x, tb);
    fpu_load(x);
    if (!cache_resume_code(x, gen))
        return ANSWER(LEAVE_DISPATCH);
    return (uint64_t)tb->guarded;
}

static uint32_t kilocycles(void) {
    return (uint32_t)(__builtin_ia32_rdtsc() >> 10);
}

// A block that another one stands for now may still be in this vCPU's jump cache.
static void forget_replaced(struct xcpu *x, const struct tb *tb) {
    struct jcache *j = jcache_of(x);
    unsigned i = jcache_index(tb->rip);
    if (tb->replaced_by && j->key[i] == tb->rip)
        j->key[i] = jcache_empty(i);
}

// A stack frame, say, that lies over the end of a page makes the same check fail at each turn of a loop. Where that
// comes faster than once in some 2 us, the block is worth less than the one without groups: true.
#define GROUP_FAILURES 64
#define GROUP_TICKS    320u // of 1024 cycles of the TSC, for so many
static bool group_failed(struct xcpu *x, struct tb *tb) {
    uint32_t now = kilocycles();
    forget_replaced(x, tb);
    if (!tb->group_failures++)
        tb->group_since = now;
    if (tb->group_failures < GROUP_FAILURES)
        return false;
    tb->group_failures = 0;
    return now - tb->group_since < GROUP_TICKS;
}

// A place that leads to another page nearly every time is better off without a site: where so many misses have come in
// less than some 10 ns each, its block is replaced, and left at the instruction that missed. 0: goes on with the miss.
#define SITE_MISSES 4096u
#define SITE_TICKS  100u // of 1024 cycles of the TSC, for so many
uint64_t xl_site_often(struct xcpu *x, uint64_t ret_pc) {
    unsigned i = (unsigned)((x->site_arg - offsetof(struct xcpu, sites)) / sizeof(struct site));
    struct site *s = &x->sites[i];
    uint32_t now = kilocycles(), taken = now - s->since, gen = cache_generation(x->engine);
    s->since = now;
    s->left = SITE_MISSES;
    struct tb *tb = cache_tb(x->engine, note_of_stub(ret_pc).tb);
    if (taken >= SITE_TICKS || i < SITES_FIXED || tb->variant != TB_NORMAL)
        return 0;
    x->s.rip = rip_of_stub(x, ret_pc);
    cache_pause_code(x);
    cache_replace(x->engine, gen, tb, TB_SITELESS);
    forget_replaced(x, tb);
    return ANSWER(LEAVE_DISPATCH);
}

uint64_t xl_ungrouped(struct xcpu *x) {
    enum xres r;
    uint32_t gen = cache_generation(x->engine);
    struct tb *failed = cache_tb(x->engine, x->group_tb);
    bool often = group_failed(x, failed);
    x->stat[XS_UNGROUPED]++;
    cache_pause_code(x);
    if (often)
        cache_replace(x->engine, gen, failed, TB_UNGROUPED);
    struct tb *tb = cache_get_variant(x, x->s.rip, TB_UNGROUPED, false, &r);
    if (!tb)
        return leave_for(x, r);
    fpu_load(x);
    if (!cache_resume_code(x, gen))
        return ANSWER(LEAVE_DISPATCH);
    return (uint64_t)tb->guarded;
}

// A variant entered lately whose page is still what it was translated from.
static struct tb *hoist_known(struct xcpu *x, uint64_t rip, uint32_t gen) {
    struct tb *tb = x->hoist_recent[rip / 16 % HOIST_RECENT];
    return tb && x->hoist_generation == gen && tb->rip == rip && cache_page_current(x, tb->page) ? tb : NULL;
}

static void hoist_remember(struct xcpu *x, struct tb *tb, uint32_t gen) {
    if (x->hoist_generation != gen)
        for (unsigned i = 0; i < HOIST_RECENT; i++)
            x->hoist_recent[i] = NULL;
    x->hoist_generation = gen;
    x->hoist_recent[tb->rip / 16 % HOIST_RECENT] = tb;
}

// No safe point lies between hoist_enter and the code it answers with.
static uint64_t enter_hoisted(struct xcpu *x, const struct tb *tb) {
    const uint8_t *code = hoist_enter(x, tb);
    if (code)
        return (uint64_t)code;
    cache_pause_code(x);
    return dispatch(x);
}

// A loop has turned for a while, or has used up the turns it had without checks. Flags are dead.
uint64_t xl_hoist(struct xcpu *x, uint64_t rip) {
    enum xres r;
    uint32_t gen = cache_generation(x->engine);
    bool events = exit_requested(x);
    struct tb *tb = events ? NULL : hoist_known(x, rip, gen);
    x->s.rip = rip;
    if (!tb) {
        cache_pause_code(x);
        tb = events ? NULL : cache_get_variant(x, rip, TB_HOISTED, true, &r);
        if (!tb)
            return events ? ANSWER(LEAVE_DISPATCH) : leave_for(x, r);
        hoist_remember(x, tb, gen);
        fpu_load(x);
        if (!cache_resume_code(x, gen))
            return ANSWER(LEAVE_DISPATCH);
    }
    return enter_hoisted(x, tb);
}

// The first time that a loop leads to its variant without checks.
static uint64_t link_hoisted(struct xcpu *x, uint32_t exit_index, uint32_t gen) {
    enum xres r;
    struct tb *tb = cache_get_variant(x, x->s.rip, TB_HOISTED, true, &r);
    if (!tb)
        return leave_for(x, r);
    if (tb->header && !x->engine->opts.no_chain)
        cache_link(x->engine, gen, exit_index, tb);
    hoist_remember(x, tb, gen);
    fpu_load(x);
    if (!cache_resume_code(x, gen))
        return ANSWER(LEAVE_DISPATCH);
    return enter_hoisted(x, tb);
}

uint64_t xl_link(struct xcpu *x, uint32_t exit_index) {
    enum xres r;
    uint32_t gen = cache_generation(x->engine);
    const struct tb_exit *from = cache_exit(x->engine, exit_index);
    enum exit_kind kind = from->kind;
    bool ungrouped = from->ungrouped;
    uint32_t source = from->from;
    x->stat[XS_LINKS]++;
    x->s.rip = from->target;
    cache_pause_code(x);
    if (exit_requested(x))
        return ANSWER(LEAVE_DISPATCH);
    if (kind == EXIT_HOIST)
        return link_hoisted(x, exit_index, gen);
    bool turns = kind == EXIT_POLL_HOST || kind == EXIT_POLL_MEM;
    struct tb *tb = cache_get_variant(x, x->s.rip, ungrouped ? TB_UNGROUPED : TB_NORMAL, turns, &r);
    if (!tb)
        return leave_for(x, r);
    if (!x->engine->opts.no_chain)
        cache_link(x->engine, gen, exit_index, tb);
    fpu_load(x);
    if (!cache_resume_code(x, gen)) // flushed meanwhile
        return ANSWER(LEAVE_DISPATCH);
    return (uint64_t)tb_entry(tb, kind, cache_tb(x->engine, source));
}

// ---- helpers proper ----

typedef enum xres (*helper_fn)(struct xcpu *x, unsigned arg);

static enum xres h_emulate(struct xcpu *x, unsigned arg) {
    struct insn *in;
    (void)arg;
    uint8_t part = part_enter(x, PART_EMULATOR);
    enum xres r = emul_decode_ref(x, &in);
    if (r == X_OK)
        r = emul_exec(x, in);
    part_leave(x, part);
    return r;
}

static unsigned str_bits(unsigned arg) {
    return arg & 0x200 ? 64 : 32;
}
static enum x86_seg str_seg(unsigned arg) {
    return (enum x86_seg)(arg >> 6 & 7);
}
static enum string_rep str_rep(unsigned arg) {
    return (enum string_rep)(arg >> 4 & 3);
}

// The frequent case of MOVS and STOS: forward, 64-bit addresses, each side in one page that the TLB has. Answers with
// the bytes to do, 0 where it is another case.
static uint64_t string_plain(const struct xcpu *x, unsigned arg) {
    uint64_t count = str_rep(arg) == STR_ONCE ? 1 : x->s.gpr[X86_RCX], elem = arg & 15;
    if ((x->s.rflags & RFLAGS_DF) || str_bits(arg) != 64 || count > PAGE_SIZE)
        return 0;
    return count * elem;
}

static uint8_t *string_side(struct xcpu *x, uint64_t lin, uint64_t bytes, bool write) {
    const struct tlb_entry *t = &x->tlb[x->tlb_kind][tlb_index(lin)];
    uint64_t tag = __atomic_load_n(write ? &t->wtag : &t->rtag, __ATOMIC_SEQ_CST);
    if (tag != (lin & PAGE_MASK) || (lin & ~PAGE_MASK) + bytes > PAGE_SIZE)
        return NULL;
    return (uint8_t *)t->host + (lin & ~PAGE_MASK);
}

static void string_advance(struct xcpu *x, unsigned arg, uint64_t bytes, bool source) {
    x->s.gpr[X86_RDI] += bytes;
    if (source)
        x->s.gpr[X86_RSI] += bytes;
    if (str_rep(arg) != STR_ONCE)
        x->s.gpr[X86_RCX] = 0;
}

// Element by element as the guest says: where the two sides overlap, the result depends on it.
static void copy_elements(uint8_t *to, const uint8_t *from, uint64_t bytes, unsigned elem) {
    uint64_t n = bytes / elem;
    switch (elem) {
    case 1: __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory"); break;
    case 2: __asm__ volatile("rep movsw" : "+D"(to), "+S"(from), "+c"(n)::"memory"); break;
    case 4: __asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(n)::"memory"); break;
    default: __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(n)::"memory"); break;
    }
}

static bool movs_plain(struct xcpu *x, unsigned arg) {
    uint64_t bytes = string_plain(x, arg), src = x->s.gpr[X86_RSI];
    if (!bytes)
        return false;
    if (str_seg(arg) == X86_FS || str_seg(arg) == X86_GS)
        src += x->s.seg[str_seg(arg)].base;
    smc_writer_enter(x);
    uint8_t *to = string_side(x, x->s.gpr[X86_RDI], bytes, true), *from = string_side(x, src, bytes, false);
    if (to && from)
        copy_elements(to, from, bytes, arg & 15);
    smc_writer_leave(x);
    if (!to || !from)
        return false;
    string_advance(x, arg, bytes, true);
    return true;
}

static bool stos_plain(struct xcpu *x, unsigned arg) {
    uint64_t bytes = string_plain(x, arg), n = bytes / (arg & 15);
    if (!bytes)
        return false;
    smc_writer_enter(x);
    uint8_t *at = string_side(x, x->s.gpr[X86_RDI], bytes, true), *to = at;
    if (to) {
        switch (arg & 15) {
        case 1: __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(x->s.gpr[X86_RAX]) : "memory"); break;
        case 2: __asm__ volatile("rep stosw" : "+D"(to), "+c"(n) : "a"(x->s.gpr[X86_RAX]) : "memory"); break;
        case 4: __asm__ volatile("rep stosl" : "+D"(to), "+c"(n) : "a"(x->s.gpr[X86_RAX]) : "memory"); break;
        default: __asm__ volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(x->s.gpr[X86_RAX]) : "memory"); break;
        }
    }
    smc_writer_leave(x);
    if (!at)
        return false;
    string_advance(x, arg, bytes, false);
    return true;
}

static enum xres h_movs(struct xcpu *x, unsigned arg) {
    if (movs_plain(x, arg))
        return X_OK;
    return string_movs(x, arg & 15, str_bits(arg), str_seg(arg), str_rep(arg));
}
static enum xres h_stos(struct xcpu *x, unsigned arg) {
    if (stos_plain(x, arg))
        return X_OK;
    return string_stos(x, arg & 15, str_bits(arg), str_rep(arg));
}
static enum xres h_lods(struct xcpu *x, unsigned arg) {
    return string_lods(x, arg & 15, str_bits(arg), str_seg(arg), str_rep(arg));
}
static enum xres h_scas(struct xcpu *x, unsigned arg) {
    return string_scas(x, arg & 15, str_bits(arg), str_rep(arg));
}
static enum xres h_cmps(struct xcpu *x, unsigned arg) {
    return string_cmps(x, arg & 15, str_bits(arg), str_seg(arg), str_rep(arg));
}

static enum xres h_syscall(struct xcpu *x, unsigned arg) {
    return sys_syscall(x, x->s.rip + arg);
}
static enum xres h_sysret(struct xcpu *x, unsigned arg) {
    return sys_sysret(x, arg);
}
static enum xres h_iret(struct xcpu *x, unsigned arg) {
    return sys_iret(x, arg);
}
static enum xres h_popf(struct xcpu *x, unsigned arg) {
    return sys_popf(x, arg);
}
static enum xres h_pushf(struct xcpu *x, unsigned arg) {
    return sys_pushf(x, arg);
}
static enum xres h_rdtsc(struct xcpu *x, unsigned arg) {
    return sys_rdtsc(x, arg);
}
static enum xres h_rdmsr(struct xcpu *x, unsigned arg) {
    return (void)arg, fpu_save(x), sys_rdmsr(x);
}
static enum xres h_wrmsr(struct xcpu *x, unsigned arg) {
    return (void)arg, fpu_save(x), sys_wrmsr(x);
}
static enum xres h_to_cr(struct xcpu *x, unsigned arg) {
    if ((arg & 15) == 8)
        fpu_save(x); // the interrupt controller's priority
    return sys_mov_to_cr(x, arg & 15, x->s.gpr[arg >> 4]);
}
static enum xres h_cpuid(struct xcpu *x, unsigned arg) {
    return (void)arg, sys_cpuid(x);
}

// advance: the helper leaves RIP alone, so it is moved to the next instruction when the helper succeeds.
static const struct {
    helper_fn fn;
    bool advance, string;
} helpers[H_COUNT] = {
    [H_EMULATE] = {h_emulate, false, false}, [H_EMULATE_END] = {h_emulate, false, false},
    [H_MOVS] = {h_movs, true, true},         [H_STOS] = {h_stos, true, true},
    [H_LODS] = {h_lods, true, true},         [H_SCAS] = {h_scas, true, true},
    [H_CMPS] = {h_cmps, true, true},         [H_SYSCALL] = {h_syscall, false, false},
    [H_SYSRET] = {h_sysret, false, false},   [H_IRET] = {h_iret, false, false},
    [H_POPF] = {h_popf, true, false},        [H_PUSHF] = {h_pushf, true, false},
    [H_RDTSC] = {h_rdtsc, true, false},      [H_RDMSR] = {h_rdmsr, true, false},
    [H_WRMSR] = {h_wrmsr, true, false},      [H_CPUID] = {h_cpuid, true, false},
    [H_TO_CR] = {h_to_cr, true, false},
};

static bool ends_block(unsigned id) {
    return id == H_EMULATE_END || id == H_SYSCALL || id == H_SYSRET || id == H_IRET || id == H_POPF || id == H_WRMSR ||
           id == H_TO_CR;
}

// An interrupt that waited for IF can be taken now.
static void look_at_events(struct xcpu *x) {
    if ((x->s.rflags & RFLAGS_IF) && x->irq_maybe)
        request_exit_here(x);
    if (x->s.nmi_pending || x->s.debug_pending)
        request_exit_here(x);
}

uint64_t xl_helper(struct xcpu *x, uint32_t word) {
    unsigned id = word & 0xff, len = word >> 8 & 0xff, arg = word >> 16;
    uint64_t next = x->s.rip + len;
    uint32_t gen = cache_generation(x->engine);
    unsigned kills = atomic_load_explicit(&x->engine->kill_count, memory_order_relaxed);
    if (x->code_bits != 64)
        next = (uint32_t)next;
    x->stat[XS_HELPERS]++;
    cache_pause_code(x);
    flags_merge(x);
    enum xres r = helpers[id].fn(x, id == H_SYSCALL ? len : arg);
    if (r == X_OK && helpers[id].advance) {
        bool done = !helpers[id].string || string_done(x, str_bits(arg), str_rep(arg), id == H_SCAS || id == H_CMPS);
        if (done)
            x->s.rip = next;
    }
    flags_split(x);
    if (r == X_FAULT && x->counting)
        x->budget++; // counted with its block, and again when the fault is delivered
    if (r != X_OK)
        return leave_for(x, r);
    look_at_events(x);
    if (ends_block(id) || x->s.rip != next || atomic_load(&x->engine->kill_count) != kills || exit_requested(x))
        return dispatch(x);
    fpu_load(x);
    return cache_resume_code(x, gen) ? 0 : ANSWER(LEAVE_DISPATCH);
}
