// SPDX-License-Identifier: Apache-2.0
// xlate's vCPU and what its parts promise each other. Private to src/engine/xlate.
//
// All code of this folder is compiled without SSE (see meson.build), because the guest's x87/SSE/AVX registers may be
// live in the host's (x->fpu_live). Anything that may touch them - libc's string functions, Zydis, a host->exit call -
// comes after fpu_save(x).
#ifndef CICADA_XLATE_XLATE_H
#define CICADA_XLATE_XLATE_H

#include <stdatomic.h>
#include <unistd.h> // before the next line, whoever includes it again
#undef X_OK         // access(2)'s

#include "arch/x86/cpuid.h"
#include "arch/x86/state.h"
#include "core/engine.h"

// Result of everything that executes guest instructions.
enum xres {
    X_OK = 0, // done, go on with the next instruction
    X_FAULT,  // x->fault is filled; no guest state was changed; deliver with intr_deliver_fault
    X_EXIT,   // leave run(): x->exit is filled (halt, shutdown, fail, ...); RIP is where to go on
};

// Passes a fault or exit up. Every access to guest memory in the emulator is wrapped in it.
#define TRY(expr)                                                                                                      \
    do {                                                                                                               \
        enum xres try_res_ = (expr);                                                                                   \
        if (__builtin_expect(try_res_ != X_OK, 0))                                                                     \
            return try_res_;                                                                                           \
    } while (0)

struct xfault {
    uint8_t vector;
    bool has_error;
    uint32_t error;
    uint64_t cr2; // #PF: the linear address; goes to CR2 when delivered
    uint64_t dr6; // #DB: bits to set in DR6 when delivered
};

struct engine;

#define TLB_BITS   12
#define TLB_SIZE   (1u << TLB_BITS)
#define TLB_GLOBAL 1ull // in aux: survives MOV CR3
#define TLB_LARGE  2ull // in aux: part of a page larger than 4 KiB, INVLPG anywhere in it must find it
#define TLB_LOG    512  // slots remembered since the last flush, so that a flush touches only those
struct tlb_entry {
    uint64_t rtag; // linear page for reads; TLB_INVALID when none
    uint64_t wtag; // linear page for writes
    uint64_t host; // host address of the page
    uint64_t aux;  // guest-physical page | flags (TLB_GLOBAL)
};
// The second level: larger, asked by the miss trampolines before they call C. A whole level is forgotten by counting up
// its generation, which the tags carry in their low bits.
#define TLB2_BITS     14
#define TLB2_SIZE     (1u << TLB2_BITS)
#define TLB2_WRITABLE 1u // in host: bit 0
#define TLB2_TURNS    8  // one in so many hits goes on to C, which moves the page to the first level
struct tlb2_entry {
    uint64_t tag;  // linear page | generation
    uint64_t host; // page | TLB2_WRITABLE
};

// What a process context identifier (SDM vol. 3A 4.10.1) leaves behind when the guest switches to another: the
// generations of its second-level TLB, and its user code pages. See tlb_context.c.
#define CONTEXTS     8
#define CONTEXT_CODE 64
struct context_code {
    uint32_t slot, id;
    struct code_page *page;
};
struct tlb_context {
    bool valid;
    uint16_t pcid;
    uint64_t epoch;
    uint64_t generation[3]; // TLB_KINDS
    uint64_t large_regions;
    unsigned ncode;
    struct context_code code[CONTEXT_CODE];
};

// A page remembered for one place in user code: a check that hits needs no index, so the host address does not wait for
// the guest's. Filled by translated code from the TLB, cleared with it.
#define SITE_COUNT   512
#define SITES_FIXED  16u          // the first: pairs, for reads and for writes, of places that all blocks share
#define SITE_INVALID (1ull << 63) // tag and host: whoever matches the tag gets the host's #GP, which is the guest's
struct site {
    uint64_t tag; // linear page, of reads or of writes as the place has it
    uint64_t host;
    uint32_t left;  // misses until C looks how fast they come
    uint32_t since; // it looked last, of the host's TSC in units of 1024
} __attribute__((aligned(32)));
enum tlb_kind { TLB_KERNEL, TLB_USER, TLB_KERNEL_AC, TLB_KINDS }; // CPL<3; CPL 3; CPL<3 and user pages allowed

#define ITLB_BITS   12
#define ITLB_SIZE   (1u << ITLB_BITS) // per privilege: [0] supervisor, [1] user
#define JCACHE_BITS 14
#define JCACHE_FOLD 12
#define JCACHE_SIZE (1u << JCACHE_BITS)
// Where indirect jumps lead, direct-mapped by guest address. Two arrays, so that an index scaled by 8 does for both.
struct jcache {
    uint64_t key[JCACHE_SIZE];  // RIP; jcache_empty when none
    uint64_t code[JCACHE_SIZE]; // host address of the guarded entry
};
static inline unsigned jcache_index(uint64_t rip) {
    return (unsigned)(rip ^ rip >> JCACHE_FOLD) & (JCACHE_SIZE - 1);
}
// An address whose index is another one's. No single value does for all: the guest may jump to any, canonical or not.
static inline uint64_t jcache_empty(unsigned index) {
    return index == 0;
}
// miss: code that finds out, for entry 0, which any address may come to (xcpu.jump_mask).
static inline void jcache_empty_all(struct jcache *j, uint64_t miss) {
    j->code[0] = miss;
    for (unsigned i = 0; i < JCACHE_SIZE; i++)
        if (j->key[i] != jcache_empty(i)) // memory never used is not touched
            j->key[i] = jcache_empty(i);
}
#define JC_SLOTS (2 * TLB_KINDS)
static inline unsigned jcache_slot(bool is64, unsigned tlb_kind) {
    return tlb_kind + (is64 ? 0 : TLB_KINDS);
}
struct code_page;
struct emul_cache;
struct native_ctx;
struct profile;

struct xcpu {
    struct cpu_state s; // the live canonical state, at offset 0; arithmetic flags and FPU may be elsewhere, see below

    // ---- used by translated code through the host's GS segment ----
    uint64_t self;     // address of this struct
    uint64_t host_rsp; // engine stack while translated code runs
    uint64_t spill[8];
    uint8_t bounce[64] __attribute__((aligned(64))); // loads that cross a page
    uint16_t flags_mem;                              // arithmetic flags in LAHF (high byte) / SETO (low byte) form
    // Taken of the hash of an indirect jump's target to find it in the jump cache. 0: events are to be looked at, at
    // the next safe point; indirect jumps then look at entry 0, which is never right unless it asks for itself.
    atomic_uint jump_mask;
#define JUMP_MASK (JCACHE_SIZE - 1)
    int64_t budget;         // instructions left (counting mode)
    uint64_t group_host[8]; // host addresses of check groups (group.c), within one block
    uint32_t group_range;   // of the group check that failed: bytes and GROUP_* flags,
    uint32_t group_tb;      // and the block it is in, cache_tb
#define GROUP_WRITES       0x10000u
#define GROUP_FIRST_WRITES 0x20000u
#define HOIST_ACCESSES     12
    uint64_t hoist_host[HOIST_ACCESSES]; // hoist.c: what the accesses of a loop without checks add to their registers
    uint64_t hoist_lin[HOIST_ACCESSES];  // their addresses, for hoist_header.c
    uint64_t hoist_bound;                // and the value of its counter at which it must ask again
#define HOIST_RECENT 8
    struct tb *hoist_recent[HOIST_RECENT]; // variants entered lately, by address
    uint32_t hoist_generation;             // of the code cache, for them
    int32_t hoist_wait;                    // turns of the checked loop before it asks
    uint64_t tlb2_generation[TLB_KINDS];   // 1..4095
    uint32_t tlb2_salt[TLB_KINDS];         // of the index, so that contexts do not take each other's entries
    uint32_t tlb2_turn;                    // counts down to the next miss that C sees
    uint32_t sites_used;                   // a site was filled since the owner cleared them last,
    uint32_t loop_sites_used;              // one that is not fixed
    uint32_t site_arg;                     // of the site trampolines: offset of the struct site,
    uint64_t site_limit;                   // and of the last offset in the page at which a group may start
    uint32_t irq_maybe;                    // an interrupt waits for IF; STI turns it into an exit request

    // ---- C side ----
    struct engine *engine;
    struct mem *engine_mem; // = host->mem
    unsigned index;
    bool fpu_live; // guest FPU/SSE/AVX are in host registers, not in s.xsave
    struct xfault fault;
    struct vm_exit exit;
    atomic_uint in_code;                 // 1 while translated code (or a helper that writes guest RAM) runs; see smc.c
    atomic_uint kicked;                  // engine_ops.kick
    uint8_t part;                        // enum engine_part, for the profiler
    struct profile *profile;             // owned, profile.c; NULL when off
    enum debug_step debug_step;          // engine_ops.debug_step
    const struct debug_point *watch_hit; // a watched access was seen: stop at the next boundary
    const struct irqchip_cpu *irqchip;

    // Current mode, derived by mode_update() whenever CR0, CR4, EFER, CS, SS, CPL or RFLAGS.{VM,AC} change.
    uint8_t cpl;
    uint8_t code_bits;  // 16, 32, 64
    uint8_t stack_bits; // 16, 32, 64
    uint32_t tlb_kind;  // enum tlb_kind for explicit data accesses; translated STAC and CLAC set it too
    bool long_mode;     // EFER.LMA
    bool counting;      // run() has a budget: blocks count instructions
    uint32_t tb_mode;   // key of translated blocks, see tb.h; 0 when the mode is only emulated

    bool mmu_wp, mmu_nxe, mmu_smep, mmu_smap; // copies of CR0.WP, EFER.NXE, CR4.SMEP, CR4.SMAP
    uint8_t paging;                           // enum paging_mode in walk.h
    uint64_t phys_reserved;                   // reserved address bits of page table entries
    bool has_1g;                              // 1 GiB pages offered
    bool entered;                             // its tables are filled (vcpu_enter_thread)
    uint64_t pdptr[4];                        // PAE page directory pointers, loaded with CR3
    uint32_t jcache_mode[JC_SLOTS];
    atomic_uint safe_seq;          // counts safe points passed, see smc.c
    struct emul_cache *emul_cache; // owned, emul.c
    struct native_ctx *native;     // owned, emul_native.c
    bool tlb_written[TLB_KINDS];   // some slot has had a write tag
    uint16_t tlb_log[TLB_KINDS][TLB_LOG];
    unsigned tlb_log_len[TLB_KINDS];
    uint64_t large_regions[2];       // not global, global: see mmu_flush_page
    bool itlb_user_used;             // some user itlb entry is set
    uint16_t itlb_log[CONTEXT_CODE]; // slots of user pages that are not global, set since the last switch
    unsigned itlb_log_len;           // more than CONTEXT_CODE: not all are in the log
    unsigned itlb_nonglobal;         // supervisor itlb entries that a MOV CR3 must drop

    struct tlb_entry tlb[TLB_KINDS][TLB_SIZE] __attribute__((aligned(4096)));
    struct tlb2_entry tlb2[TLB_KINDS][TLB2_SIZE] __attribute__((aligned(4096)));
    struct site sites[SITE_COUNT] __attribute__((aligned(64)));
    uint32_t itlb[2][ITLB_SIZE] __attribute__((aligned(4096)));
    struct code_page *itlb_page[2][ITLB_SIZE];
    struct jcache jcache[JC_SLOTS] __attribute__((aligned(64)));

    uint64_t tlb2_counter[TLB_KINDS]; // generations given out
    uint64_t tlb_epoch;               // changes when nothing that a context left behind may be used any more
    bool tlb2_kernel_private;         // the second level of TLB_KERNEL has an entry that is not global
    struct tlb_context contexts[CONTEXTS];
    unsigned next_context;

    uint64_t stat[32]; // enum xstat in stats.h
};

// Asks for a look at events: from any thread, and, without a fence, from the vCPU's own.
static inline void request_exit(struct xcpu *x) {
    atomic_store(&x->jump_mask, 0);
}
static inline void request_exit_here(struct xcpu *x) {
    atomic_store_explicit(&x->jump_mask, 0, memory_order_relaxed);
}
static inline bool exit_requested(struct xcpu *x) {
    return !atomic_load_explicit(&x->jump_mask, memory_order_relaxed);
}

static inline bool cpu_protected(const struct xcpu *x) {
    return x->s.cr0 & CR0_PE;
}
static inline bool cpu_vm86(const struct xcpu *x) {
    return x->s.rflags & RFLAGS_VM;
}
static inline bool cpu_64bit(const struct xcpu *x) {
    return x->code_bits == 64;
}

// ---- faults (fault.c) ----
// Each fills x->fault and returns X_FAULT.
enum xres fault_raise(struct xcpu *x, enum x86_vector v);                     // no error code
enum xres fault_raise_err(struct xcpu *x, enum x86_vector v, uint32_t error); // with error code
enum xres fault_page(struct xcpu *x, uint64_t lin, uint32_t error);
enum xres fault_debug(struct xcpu *x, uint64_t dr6_bits);
// Fills x->exit with EXIT_FAIL and a text made of `what` and two numbers in hex; returns X_EXIT.
enum xres fail_exit(struct xcpu *x, const char *what, uint64_t a, uint64_t b);

// ---- memory by linear address (mmu.c, walk.c) ----
enum mmu_flags {
    MMU_READ = 0,
    MMU_WRITE = 1,
    MMU_EXEC = 2,
    MMU_SYSTEM = 4, // implicit supervisor access: descriptor tables, TSS, IDT, kvmclock (CPL taken as 0, no AC)
    MMU_RMW = 8,    // a read that will be written back: faults as a write
};
// Reads or writes `size` bytes (any, over pages too) at a linear address with the current CPL; on a fault nothing was
// written. MMIO goes to host->exit in pieces. len limits: 1..64, mmu_copy_* for more.
enum xres mmu_read(struct xcpu *x, uint64_t lin, void *buf, unsigned size, unsigned flags);
enum xres mmu_write(struct xcpu *x, uint64_t lin, const void *buf, unsigned size, unsigned flags);
// Checks that [lin, lin+size) can be written (or read) without a fault; sets A/D as the access would.
enum xres mmu_probe(struct xcpu *x, uint64_t lin, unsigned size, unsigned flags);
// Host address for an atomic read-modify-write of size bytes that lie in one page of RAM. X_OK and *host == NULL when
// it is not such a place (MMIO, page crossing, code page): the caller then does read+write under emul_lock.
enum xres mmu_rmw_host(struct xcpu *x, uint64_t lin, unsigned size, void **host);
// Fetches up to max bytes of code at lin for decoding; *got >= 1 on X_OK. Faults only if the first byte faults.
// If the instruction turns out to need more than *got, the caller raises the fault of lin + *got by mmu_fetch_fault.
enum xres mmu_fetch(struct xcpu *x, uint64_t lin, uint8_t *buf, unsigned max, unsigned *got);
enum xres mmu_fetch_fault(struct xcpu *x, uint64_t lin);
// Host address of lin if its page is RAM, accessible without a fault and, for writes, not a code page (sets A/D, fills
// the TLB); else NULL without raising anything. Valid until the vCPU's next safe point.
uint8_t *mmu_page_ptr(struct xcpu *x, uint64_t lin, unsigned flags);
// Page walk without side effects on x->fault, for the debugger: 0 or -EFAULT.
int mmu_translate_debug(struct xcpu *x, uint64_t lin, uint64_t *gpa);
void mmu_flush_all(struct xcpu *x);                // also global entries (CR4/CR0/EFER change)
void mmu_flush_context(struct xcpu *x);            // MOV CR3: all but global entries
void mmu_flush_page(struct xcpu *x, uint64_t lin); // INVLPG
// INVPCID (SDM vol. 2A) types 0..3; descriptor already read and checked.
void mmu_invpcid(struct xcpu *x, unsigned type, uint64_t pcid, uint64_t lin);
// A new CR3 value was checked by the caller: stores it (without bit 63), loads PAE PDPTRs if PAE paging is on
// (X_FAULT #GP on reserved bits), flushes as architecture demands (bit 63 with PCIDE: no flush needed).
enum xres mmu_set_cr3(struct xcpu *x, uint64_t cr3);

static inline bool is_canonical(uint64_t a) {
    return (uint64_t)((int64_t)(a << 16) >> 16) == a;
}

// ---- mode (mode.c) ----
void mode_update(struct xcpu *x);

// ---- FPU (fpu.c) ----
void fpu_save(struct xcpu *x); // host registers -> s.xsave if live
void fpu_load(struct xcpu *x); // s.xsave -> host registers if not live

// ---- calls out to the machine (hostcall.c); each does fpu_save first ----
uint32_t host_pio_read(struct xcpu *x, uint16_t port, unsigned size);
void host_pio_write(struct xcpu *x, uint16_t port, unsigned size, uint32_t val);
uint64_t host_mmio_read(struct xcpu *x, uint64_t gpa, unsigned size);
void host_mmio_write(struct xcpu *x, uint64_t gpa, unsigned size, uint64_t val);
uint64_t host_tsc(struct xcpu *x); // guest TSC now
void host_random(struct xcpu *x, void *buf, size_t len);
const struct cpuid_policy *xcpu_policy(const struct xcpu *x);
// Serialises emulated atomic operations that have no single host address.
void emul_lock(struct xcpu *x);
void emul_unlock(struct xcpu *x);

#endif
