// SPDX-License-Identifier: Apache-2.0
// The code cache: memory for translated code, the blocks in it, and which guest pages they came from.
//
// A code page is (linear page, guest-physical page, mode) with a 32-bit id that is never used twice between two
// flushes of the whole cache. Every vCPU has an itlb of ids by linear page; a block's guarded entry compares the id
// and so proves, in one instruction, that the page is still mapped there and that nobody wrote over its code.
// To kill a page is to take its id out of every itlb; direct exits that lead to its blocks are unlinked, so that they
// will find the new ones.
//
// The cache's memory has two mappings: translated code runs in the one, the translator writes
// through the other. All functions but the three predicates at the top take cache->lock.
#ifndef CICADA_XLATE_CACHE_H
#define CICADA_XLATE_CACHE_H

#include "engine/xlate/engine.h"
#include "engine/xlate/hoist.h"

#define CODE_GRANULE_SHIFT 4 // sub-page resolution of self-modifying code, bytes = 1 << this
#define PAGE_HAS_CODE      1u
#define PAGE_HAD_WRITE_TAG 2u
#define PAGE_STORED_BESIDE 4u // translated code may be storing beside the code that is there

struct tb_insn {
    uint16_t host_off;          // of the first byte of its translation, from tb->code
    uint16_t guest_off : 15;    // from tb->rip
    uint16_t flags_in_host : 1; // the arithmetic flags are in the host's when its own code runs
};

// A place in the guest's code may be translated in several ways.
enum tb_variant {
    TB_NORMAL,
    TB_SITELESS,  // no page remembered per place
    TB_UNGROUPED, // every access has a check of its own
    TB_HOISTED,   // a loop without checks, entered by its header or hoist.c only
};

struct tb {
    uint64_t rip;            // linear address of the first instruction
    struct code_page *page;  // of the first byte
    struct code_page *page2; // another page that it depends on, or NULL: of the last byte when the (single) instruction
                             // crosses a page, or the neighbour that the block goes on to
    // Ways in, executable addresses. _host and _mem: where the arithmetic flags are. `direct` is for forward exits of
    // the same page, `poll` for backward ones (looks at jump_mask), `guarded` for everything else (compares the page's
    // id as well; flags in flags_mem). `quick` is `guarded` for the jump cache, which has looked at jump_mask.
    uint8_t *guarded, *quick, *poll_host, *poll_mem, *direct_host, *direct_mem;
    uint8_t *guarded_host; // with page2 only: `guarded` with the flags in the host's
    uint8_t *header;       // TB_HOISTED: hoist_header.c; NULL: only C can enter
    uint8_t *code;         // the body
    uint32_t host_size;    // of body and late entries, from code
    uint32_t body_size;
    uint32_t cold_size; // of its stubs, elsewhere
    uint16_t guest_size, ninsns;
    uint8_t variant;        // enum tb_variant
    uint8_t flags_in;       // enum flags_in
    uint8_t replaced_by;    // enum tb_variant that is used in its place, for its sites or groups fail too often
    uint8_t group_failures; // since group_since, of the host's TSC in units of 1024
    uint32_t group_since;
    struct hoist_plan *plan; // TB_HOISTED
    struct tb *hash_next;
    struct tb *page_next, *page2_next; // other blocks of the same code page
    uint32_t incoming;                 // 1 + index of the first direct exit that is linked here, 0: none
    struct tb_insn *insns;             // ninsns of them
};

struct phys_code;
struct code_page {
    uint64_t va_page;
    uint32_t mode;
    uint32_t id;
    struct phys_code *phys;
    struct code_page *phys_next; // same guest-physical page
    struct tb *tbs, *tbs2;       // blocks that begin here; blocks that only end here
    bool dead;
};

// Where a block wants the arithmetic flags when its body begins.
enum flags_in { FLAGS_IN_NONE, FLAGS_IN_HOST, FLAGS_IN_MEM };

// Which entry of its target a direct exit takes.
enum exit_kind {
    EXIT_DIRECT_HOST,
    EXIT_DIRECT_MEM,
    EXIT_POLL_HOST,
    EXIT_POLL_MEM,
    EXIT_GUARDED,
    EXIT_HOIST, // to the header of the TB_HOISTED variant; flags dead
};

// A direct exit that is not linked yet.
struct tb_exit {
    uint64_t target;  // linear
    uint32_t *patch;  // writable address of the rel32 to set
    uint8_t *patch_x; // executable address of the byte after it
    enum exit_kind kind;
    uint32_t from;     // cache_tb: the block it belongs to
    bool ungrouped;    // stays in blocks without check groups, because where it comes from they failed
    uint32_t unlinked; // rel32 that leads to the stub
    uint32_t next;     // 1 + index of the next exit linked to the same block
};

// The cache itself is visible to smc.c and cache.c only.
struct code_cache;

// The way in for an exit of block `from`. `direct` and `poll` trust the comparison that `from` has made.
static inline uint8_t *tb_entry(const struct tb *t, enum exit_kind kind, const struct tb *from) {
    if (t->page2 && t->page2 != from->page && t->page2 != from->page2 && kind != EXIT_HOIST)
        return kind == EXIT_DIRECT_HOST || kind == EXIT_POLL_HOST ? t->guarded_host : t->guarded;
    switch (kind) {
    case EXIT_DIRECT_HOST: return t->direct_host;
    case EXIT_DIRECT_MEM: return t->direct_mem;
    case EXIT_POLL_HOST: return t->poll_host;
    case EXIT_POLL_MEM: return t->poll_mem;
    case EXIT_HOIST: return t->header;
    default: return t->guarded;
    }
}

int cache_create(struct engine *e, uint64_t bytes, struct error *err);
void cache_destroy(struct engine *e);
// engine_ops.forget: a flush of all. vCPUs stopped.
void cache_forget(struct engine *e);

// ---- called often, without the lock ----
bool cache_page_has_code(struct engine *e, uint64_t gpa_page);
void cache_note_write_tag(struct engine *e, uint64_t gpa_page);

// A write to [gpa, gpa+len) that found no write tag: does it if the page is RAM with code and returns true, after
// killing the page when code is overwritten. false: not RAM.
bool cache_write_code_page(struct xcpu *x, uint64_t gpa, const void *buf, unsigned len);
// A store of translated code to a code page: the host address of gpa if no code is overwritten, else NULL. The store
// must be done before the vCPU's next safe point.
uint8_t *cache_store_beside_code(struct xcpu *x, uint64_t gpa, unsigned len);
// A switch of contexts: user pages of this vCPU's itlb that are not global go out into code[CONTEXT_CODE] (returns how
// many could be kept) and come in again. Supervisor pages that are not global go out for good.
unsigned cache_itlb_leave(struct xcpu *x, struct context_code *code);
void cache_itlb_enter(struct xcpu *x, const struct context_code *code, unsigned n);
// Is the code page (of this generation) mapped there now, and unchanged?
bool cache_page_current(struct xcpu *x, const struct code_page *p);
// The guest-physical page of code at lin in the current mode, if this vCPU's itlb knows it.
bool cache_known_page(struct xcpu *x, uint64_t lin, uint64_t *gpa_page);
// Kills everything translated from this linear page, whatever memory it is mapped to. vCPUs stopped.
void cache_drop_linear_page(struct engine *e, uint64_t va_page);
// DMA has written there (any thread).
void cache_written(void *engine, gpa_t gpa, uint64_t len);

// Emulator and helpers bracket their stores to RAM, so that smc_barrier can wait for them.
static inline void smc_writer_enter(struct xcpu *x) {
    if (x->engine->ncpus > 1)
        atomic_fetch_add(&x->in_code, 2);
}
static inline void smc_writer_leave(struct xcpu *x) {
    if (x->engine->ncpus > 1)
        atomic_fetch_sub(&x->in_code, 2);
}
// Translated code passes a safe point: no access is between its check and its store.
static inline void smc_safe_point(struct xcpu *x) {
    atomic_fetch_add_explicit(&x->safe_seq, 1, memory_order_release);
}

// Leaving translated code for C and coming back. cache_resume returns false when the code cache was flushed since
// gen was read (or is about to be): translated addresses got before are dead then.
uint32_t cache_generation(const struct engine *e);
void cache_pause_code(struct xcpu *x);
bool cache_resume_code(struct xcpu *x, uint32_t gen);

// ---- look-up and translation ----
// Finds or makes the block at linear address rip in the current mode. NULL with X_FAULT (fetch fault in x->fault) or
// X_OK (the instruction there must be emulated).
struct tb *cache_get_tb(struct xcpu *x, uint64_t rip, enum xres *res);
// turns: it is looked for by a backward jump, so that a new block is laid out as the head of a loop.
struct tb *cache_get_variant(struct xcpu *x, uint64_t rip, enum tb_variant variant, bool turns, enum xres *res);
// From now on who looks for this block gets that variant of it.
void cache_replace(struct engine *e, uint32_t gen, struct tb *tb, enum tb_variant by);
// Links a direct exit to its target, if both are still of generation gen.
void cache_link(struct engine *e, uint32_t gen, uint32_t exit_index, struct tb *to);
// The i-th block since the last flush, and the number that the next one will have. While x->in_code is held.
struct tb *cache_tb(struct engine *e, uint32_t i);
uint32_t cache_next_tb(struct engine *e);
// The block whose translation holds the executable address pc, or NULL. Lock-free: while x->in_code is held, or from
// a signal that interrupted translated code.
struct tb *cache_find_pc(struct engine *e, uint64_t pc);
// Is pc in the code cache? Then *rip is the guest instruction it was translated from, 0 when that is gone.
bool cache_guest_pc(struct xcpu *x, uint64_t pc, uint64_t *rip);
// The guest instruction that pc belongs to.
const struct tb_insn *tb_insn_at(const struct tb *tb, uint64_t pc);

void cache_flush_itlb(struct xcpu *x, bool globals_too);
void cache_flush_itlb_page(struct xcpu *x, uint64_t lin, bool large);

// ---- for the translator, lock held ----
// Code page of the page after, for an instruction that crosses; NULL if it cannot be fetched.
struct code_page *cache_second_page(struct xcpu *x, uint64_t va_page);

struct emit_space {
    uint8_t *rw;              // where to write
    uint8_t *end;             // of the writable space
    int64_t delta;            // executable address = writable address + delta
    uint8_t *cold, *cold_end; // the same for what is hardly ever executed
};
void cache_space(struct engine *e, struct emit_space *s);
void *cache_meta_alloc(struct engine *e, size_t bytes); // lives until the cache is flushed; NULL when full
struct tb_exit *cache_new_exit(struct engine *e, uint32_t *index);
struct tb_exit *cache_exit(struct engine *e, uint32_t index);
uint32_t itlb_slot(uint64_t va_page, uint32_t mode);

// Trampolines at the start of the cache (tramp.c fills it in).
struct trampolines {
    enter_fn enter;
    uint64_t miss[TLB_KINDS][6][2];    // [kind][log2 size][write]
    uint64_t group_miss[TLB_KINDS][2]; // [kind][write]
    // A site that remembers another page: [kind][log2 size][write]. None for TLB_KERNEL_AC.
    uint64_t site[TLB_KINDS][6][2], site_group[TLB_KINDS][2];
    uint64_t link_host, link_mem;  // direct exits: flags in host or in flags_mem
    uint64_t indirect_miss, hoist; // guest RIP in S0
    uint64_t helper;               // helper word in S0, guest RIP in S1, called
    uint64_t leave;                // RAX = 1 + enum leave_reason, guest registers saved
};
struct trampolines *cache_tramps(struct engine *e);

#endif
