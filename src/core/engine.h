// SPDX-License-Identifier: Apache-2.0
// The contract between the machine and what executes guest code. Nothing in it is of one architecture.
//
// An engine calls host->exit synchronously, on the vCPU thread, for accesses that need an answer (PIO, MMIO):
// so an instruction with several accesses needs no restart, and both engines fill the same struct vm_exit.
// run() returns for everything that ends or interrupts the vCPU.
#ifndef CICADA_CORE_ENGINE_H
#define CICADA_CORE_ENGINE_H

#include "core/irqchip.h"
#include "core/mem.h"
#include "core/nondet.h"
#include "core/types.h"
#include "util/error.h"

enum exit_reason {
    EXIT_NONE,
    // Through host->exit, answered before the guest goes on:
    EXIT_PIO,
    EXIT_MMIO,
    // Returned by run():
    EXIT_KICKED,    // engine_ops.kick, nothing else to report
    EXIT_BUDGET,    // the instruction budget is used up
    EXIT_HALT,      // waits for an interrupt (x86 HLT, MWAIT); run again once one may be pending
    EXIT_WAIT_SIPI, // application processor not started yet; run again after a kick
    EXIT_SHUTDOWN,  // triple fault
    EXIT_DEBUG,     // breakpoint, watchpoint or single step set by the debugger
    EXIT_FAIL,      // the engine cannot go on; fail.text says why
    EXIT_REASON_COUNT
};
const char *exit_reason_name(enum exit_reason reason); // "UNKNOWN" for anything else

struct vm_exit {
    enum exit_reason reason;
    union {
        struct {
            uint16_t port;
            uint8_t size; // 1, 2, 4
            bool write;
            uint32_t data; // in or out; handler fills it for reads (all ones where nothing answers)
        } pio;
        struct {
            gpa_t gpa;
            uint8_t size; // 1, 2, 4, 8; wider guest accesses come in pieces
            bool write;
            uint64_t data;
        } mmio;
        struct {
            char text[160];
        } fail;
    };
};

// What the engine gets from its machine. Lives as long as the engine.
struct engine_host {
    void *ctx;
    void (*exit)(void *ctx, unsigned vcpu, struct vm_exit *exit); // EXIT_PIO, EXIT_MMIO
    struct mem *mem;
    struct nondet *nondet;
    const struct irqchip_cpu *irqchips; // one per vCPU; NULL where the engine has its own
    const void *cpu_policy;             // the architecture's (x86: struct cpuid_policy)
    unsigned vcpus;
};

struct engine_options {
    uint64_t code_cache_bytes; // 0: the engine's default
    const char *features;      // comma list of switches of the engine (xlate: --xlate-opts), may be NULL
};

struct engine;      // opaque, one per VM
struct engine_vcpu; // opaque, one per vCPU

#define BUDGET_UNLIMITED UINT64_MAX

struct engine_stat {
    const char *name;
    uint64_t value;
};

struct engine_ops {
    const char *name;
    bool counts_instructions; // run() honours budgets exactly

    // Can this host run the engine, and how many guest kernel instructions a second (estimated in a few ms)?
    // 0, or a negative errno with the way out in err. NULL: always, and fast as the engine is.
    int (*probe)(uint64_t *insns_per_second, struct error *err);

    int (*create)(const struct engine_host *host, const struct engine_options *opt, struct engine **e,
                  struct error *err);
    void (*destroy)(struct engine *e);
    int (*vcpu_create)(struct engine *e, unsigned index, struct engine_vcpu **v, struct error *err);
    void (*vcpu_destroy)(struct engine_vcpu *v);
    // Called once on the thread that will call run(), before the seal.
    int (*vcpu_enter_thread)(struct engine_vcpu *v, struct error *err);

    // Runs guest code on the calling thread until something is to be reported, at most `budget` guest
    // instructions (exactly, where counts_instructions). Fills *exit.
    void (*run)(struct engine_vcpu *v, uint64_t budget, struct vm_exit *exit);
    // Makes run() return soon with EXIT_KICKED, and look at its irqchip first. Any thread, async-signal-safe.
    void (*kick)(struct engine_vcpu *v);
    // An interrupt may be pending: like kick, but run() goes on after looking. Any thread.
    void (*poke)(struct engine_vcpu *v);

    // Canonical state of the architecture (x86: struct cpu_state). vCPU stopped. size guards against mismatch.
    int (*get_state)(struct engine_vcpu *v, void *state, size_t size);
    int (*set_state)(struct engine_vcpu *v, const void *state, size_t size);

    // Interrupt controllers inside the engine. has_irqchip, asked before create: with these options the engine brings
    // PIC, I/O APIC, local APICs and the interval timer itself; the board then creates none of them, irqchips may be
    // NULL, and core/engine_irq.h takes lines and messages to the ops below. NULL: never.
    bool (*has_irqchip)(const struct engine_options *opt);
    void (*irq_line)(struct engine *e, unsigned gsi, bool level);    // any thread
    void (*irq_msi)(struct engine *e, uint64_t addr, uint32_t data); // any thread
    void (*irqchip_reset)(struct engine *e);                         // vCPUs stopped

    // Drops write tags so that the next writes mark pages dirty again. vCPUs stopped.
    void (*dirty_sync)(struct engine *e);
    // Counters of the engine; returns how many were filled.
    unsigned (*stats)(struct engine *e, struct engine_stat *out, unsigned max);
};

// The one table that names the engines (src/engine/engines.c). NULL where no such engine is built.
const struct engine_ops *engine_find(const char *name);

#endif
