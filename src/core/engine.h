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

// What made a vCPU stop for the debugger, and what the debugger may ask an engine to stop for.
enum debug_kind {
    DEBUG_STEPPED, // a single step has ended; never a point
    DEBUG_SOFT,    // breakpoint, by whatever means the engine has
    DEBUG_EXEC,    // breakpoint that does not touch guest memory
    DEBUG_WRITE,   // watchpoints; they stop behind the access
    DEBUG_READ,
    DEBUG_ACCESS, // read or write
};

// The guest cannot see a point, except that an engine may have to patch memory for DEBUG_SOFT.
struct debug_point {
    enum debug_kind kind;
    uint64_t addr; // linear, in every address space
    uint64_t len;  // bytes watched; 1 for breakpoints
    uint64_t gpa;  // of addr when the point was set; DEBUG_UNMAPPED where it had none
};
#define DEBUG_UNMAPPED UINT64_MAX

enum debug_step {
    DEBUG_RUN,
    DEBUG_STEP,        // run() returns EXIT_DEBUG after one instruction
    DEBUG_STEP_MASKED, // the same, and takes no interrupt before it unless the vCPU is halted
};

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
            enum debug_kind kind;
            uint64_t addr; // linear: of the breakpoint, or of the watched bytes
        } debug;
        struct {
            char text[160];
        } fail;
    };
};

// Which interrupt controllers an engine brings.
enum engine_irqchip {
    ENGINE_IRQCHIP_NONE,  // none: it asks engine_host.irqchips
    ENGINE_IRQCHIP_LOCAL, // local APICs: the board's I/O APIC and PIC reach them by irq_msi, irq_route and irqchips
    ENGINE_IRQCHIP_ALL,   // PIC, I/O APIC, local APICs and the interval timer
};

struct clock; // core/clock.h

// What the engine gets from its machine. Lives as long as the engine.
struct engine_host {
    void *ctx;
    void (*exit)(void *ctx, unsigned vcpu, struct vm_exit *exit); // EXIT_PIO, EXIT_MMIO
    struct mem *mem;
    struct nondet *nondet;
    struct clock *clock;                // the machine's, for timers inside the engine; NULL: it stands at 0
    const struct irqchip_cpu *irqchips; // one per vCPU; NULL where the engine has its own
    const void *cpu_policy;             // the architecture's (x86: struct cpuid_policy)
    unsigned vcpus;
};

struct engine_options {
    uint64_t code_cache_bytes; // 0: the engine's default
    const char *features;      // comma list of switches of the engine (xlate: --xlate-opts), may be NULL
    unsigned profile_hz;       // samples a second for profile_walk, 0: none. Only where profile_walk is
    bool perf_map;             // names of translated code for perf; engines without such code ignore it
    int device;                // what open_device gave, where create must not open it itself; <= 0: it does
};

struct engine;      // opaque, one per VM
struct engine_vcpu; // opaque, one per vCPU

#define BUDGET_UNLIMITED UINT64_MAX

struct engine_stat {
    const char *name;
    uint64_t value;
};

// What a vCPU's thread was at when it was sampled.
enum engine_part {
    PART_IDLE, // outside of run(): halted, paused
    PART_TRANSLATED,
    PART_TRANSLATOR,
    PART_EMULATOR,
    PART_HELPERS, // the rest of the engine
    PART_DEVICES, // in host->exit
    PART_LOST,    // not a part: samples that found no room
    PART_COUNT
};
#define ENGINE_SAMPLE_DEPTH 16
struct engine_sample {
    uint64_t count;
    uint8_t part; // enum engine_part
    bool user;    // guest user mode; its callers are not known
    uint8_t depth;
    uint64_t rip[ENGINE_SAMPLE_DEPTH]; // `depth` of them, linear: where the guest was, then its callers as guessed
};

struct engine_ops {
    const char *name;
    bool counts_instructions; // run() honours budgets exactly
    bool faults_in_kernel; // the guest's accesses to memory that is missing (core/mem_lazy.h) fault inside the kernel
    // create and vcpu_create do what the seal forbids (executable memory). A machine that is to change to this engine
    // later makes it before the seal, and keeps it when it changes away.
    bool before_seal;

    // Can this host run the engine, and how many guest kernel instructions a second (estimated in a few ms)?
    // 0, or a negative errno with the way out in err. NULL: always, and fast as the engine is.
    int (*probe)(uint64_t *insns_per_second, struct error *err);

    // Opens what create needs, for a sealed process that is handed it: a descriptor, or a negative errno with the way
    // out in err. NULL: it needs nothing.
    int (*open_device)(struct error *err);

    // Takes out of a policy (x86: struct cpuid_policy) what this engine does not give on this host with these options.
    // Before create, on the policy that engine_host.cpu_policy will be. NULL: it gives all.
    int (*limit_policy)(void *cpu_policy, const struct engine_options *opt, struct error *err);

    // Owns opt->device from then on, also where it fails.
    int (*create)(const struct engine_host *host, const struct engine_options *opt, struct engine **e,
                  struct error *err);
    void (*destroy)(struct engine *e);
    int (*vcpu_create)(struct engine *e, unsigned index, struct engine_vcpu **v, struct error *err);
    void (*vcpu_destroy)(struct engine_vcpu *v);
    // Called on the thread that will call run(), and again where another engine has been entered there since.
    int (*vcpu_enter_thread)(struct engine_vcpu *v, struct error *err);

    // Runs guest code on the calling thread until something is to be reported, at most `budget` guest
    // instructions (exactly, where counts_instructions). Fills *exit.
    void (*run)(struct engine_vcpu *v, uint64_t budget, struct vm_exit *exit);
    // Makes run() return soon with EXIT_KICKED, and look at its irqchip first. Any thread, async-signal-safe.
    void (*kick)(struct engine_vcpu *v);
    // An interrupt may be pending: like kick, but run() goes on after looking. Any thread.
    void (*poke)(struct engine_vcpu *v);

    // Drops all that was derived from guest memory: others will write there unseen. vCPUs stopped, state to be set
    // before they run again. NULL: nothing is.
    void (*forget)(struct engine *e);

    // Canonical state of the architecture (x86: struct cpu_state). vCPU stopped. size guards against mismatch.
    int (*get_state)(struct engine_vcpu *v, void *state, size_t size);
    int (*set_state)(struct engine_vcpu *v, const void *state, size_t size);

    // Interrupt controllers inside the engine. has_irqchip, asked before create: which of them it brings with these
    // options. Those of the board are not in force then, and core/engine_irq.h takes messages, with
    // ENGINE_IRQCHIP_ALL lines as well, to the ops below. NULL: none, ever.
    enum engine_irqchip (*has_irqchip)(const struct engine_options *opt);
    void (*irq_line)(struct engine *e, unsigned gsi, bool level);    // any thread
    void (*irq_msi)(struct engine *e, uint64_t addr, uint32_t data); // any thread
    // ENGINE_IRQCHIP_LOCAL: pin `pin` of the board's I/O APIC sends this message, level-triggered, whose EOI is to be
    // reported; addr 0: no such message. The caller serialises. Any thread.
    void (*irq_route)(struct engine *e, unsigned pin, uint64_t addr, uint32_t data);
    // Canonical state of one of its chips (x86: enum x86_chip, struct x86_*_state of arch/x86/irqchip.h), vCPUs
    // stopped. size guards against mismatch. What was set counts no time before irqchip_resume, and reads as it was
    // set.
    int (*irqchip_get)(struct engine *e, unsigned chip, unsigned instance, void *state, size_t size);
    int (*irqchip_set)(struct engine *e, unsigned chip, unsigned instance, const void *state, size_t size);
    void (*irqchip_resume)(struct engine *e); // vCPUs stopped
    void (*irqchip_reset)(struct engine *e);  // vCPUs stopped

    // Doorbells (core/doorbell.h): from now on a guest's write to gpa, of any size, adds to the eventfd instead of
    // going through host->exit. fd stays the caller's, open until the removal or the engine's end. on_loop: the
    // work that it asks for is done on the event loop in any case; else at once where host->exit is called, which is
    // quicker for short work. Any thread. 0, -EOPNOTSUPP where the engine or its options leave it to host->exit,
    // -EEXIST where gpa has one. NULL: all are left to host->exit.
    int (*doorbell_add)(struct engine *e, gpa_t gpa, int fd, bool on_loop);
    void (*doorbell_remove)(struct engine *e, gpa_t gpa, int fd);

    // Completes the dirty log of core/mem.h, and drops write tags so that the next writes mark pages dirty again. vCPUs
    // stopped (machine_stop_vcpus will do).
    void (*dirty_sync)(struct engine *e);
    // Nobody needs the log for now: what it costs the guest ends, and the next dirty_sync reports every page. Loop
    // thread, vCPUs may run. NULL: it costs nothing.
    void (*dirty_stop)(struct engine *e);
    // For a debugger; vCPUs stopped. NULL: the engine cannot be debugged.
    // The points of all vCPUs, instead of those before. A breakpoint stops in front of its instruction every time it is
    // reached, also when a vCPU goes on there: whoever wants to pass it steps without it. 0, or a negative errno with
    // the points before in force: -EOPNOTSUPP for a kind that this processor does not have, -ENOSPC where there are
    // more than it can watch, -EFAULT where one cannot be placed.
    int (*debug_points)(struct engine *e, const struct debug_point *points, unsigned count);
    // How the vCPU is to run from now on.
    void (*debug_step)(struct engine_vcpu *v, enum debug_step step);

    // Calls fn for every stack that was sampled; one may come several times. vCPUs stopped. NULL: cannot profile.
    void (*profile_walk)(struct engine *e, void (*fn)(void *ctx, const struct engine_sample *sample), void *ctx);
    // Counters of the engine; returns how many were filled.
    unsigned (*stats)(struct engine *e, struct engine_stat *out, unsigned max);
};

// The one table that names the engines (src/engine/engines.c). NULL where no such engine is built.
const struct engine_ops *engine_find(const char *name);

#endif
