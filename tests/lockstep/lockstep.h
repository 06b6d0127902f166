// SPDX-License-Identifier: Apache-2.0
// The same guest on two engines at once, and the first place where they differ.
//
// Two sides, each with its own memory and one vCPU, run in turn on one thread. Whatever is not in the guest comes from
// one place: the first side that makes an access (PIO, MMIO) gets an answer from devices that hold no time, and the
// other must make the same access and gets the same answer. There are no interrupts. So the two may differ only by
// their processors.
//
// Both stop after every access, and their canonical states are compared; so is the memory that either of them has
// written (dirty log). Stepping, they are compared after every so many instructions.
#ifndef CICADA_TESTS_LOCKSTEP_H
#define CICADA_TESTS_LOCKSTEP_H

#include <Zydis/Zydis.h>

#include "arch/x86/cpuid.h"
#include "arch/x86/state.h"
#include "boot/boot.h"
#include "core/engine.h"

#define RAM_BYTES (64u << 20)
#define RUN_LIMIT 20 // seconds that one side may run without an access

struct pair;

struct side {
    struct pair *pair;
    const char *name;
    const struct engine_ops *ops;
    struct engine *engine;
    struct engine_vcpu *vcpu;
    struct engine_host host;
    struct irqchip_cpu chip;
    struct mem *mem;
    uint8_t *ram;
    uint8_t tpr;
    uint64_t accesses;   // made so far
    uint64_t steps;      // of side_step
    bool accessed;       // the last run ended behind an access
    bool kicked;         // by an access, and no run has ended by it yet
    struct vm_exit exit; // of the last run
    struct cpu_state now __attribute__((aligned(64)));
};

enum { FIRST, SECOND };

struct pair {
    struct side side[2];
    struct nondet nondet;
    struct cpuid_policy cpuid;
    struct boot_image *image;
    struct vm_exit *log; // accesses with their answers
    uint64_t nlog, room;
    uint64_t silent;       // accesses before this one do not show on the console
    bool broken;           // they differ: why says how
    bool ended;            // neither goes on
    uint64_t agreed;       // accesses after which they last agreed
    bool over;             // the guest has written to the debug-exit port
    uint8_t exit_code;     // what it wrote
    uint64_t accessed;     // differences that were let pass: accessed bits of page tables,
    uint64_t trace_flags;  // RFLAGS.TF of a step in a flags image,
    uint64_t resume_flags; // RFLAGS.RF in a flags image,
    uint64_t taken_over;   // registers of an instruction whose result is chance
    unsigned long *dirty[2];
    char why[240];
};

struct options {
    const char *kernel, *cmdline;
    const char *engine[2], *features[2];
    uint64_t every;    // compare every so many instructions; 0: at accesses only
    uint64_t from;     // first access after which to step
    uint64_t steps;    // at most
    uint64_t accesses; // at most
    bool quiet;
};

// ---- side.c ----
// All or nothing. -ENODEV where an engine is not there; err says why.
int pair_create(struct pair *p, const struct options *o, struct error *err);
void pair_destroy(struct pair *p);
// Runs until the next access has been made or something else ends the run, and fetches the state. false where it did
// not come to an access; side_end says what happened instead.
bool side_to_access(struct side *s);
// Runs `budget` instructions, as exactly as the engine counts, and fetches the state. An access ends the run early.
bool side_step(struct side *s, uint64_t budget);
int side_set(struct side *s); // writes `now`
const char *side_end(const struct side *s);

// ---- devices.c ----
void devices_access(void *ctx, unsigned vcpu, struct vm_exit *e); // engine_host.exit, ctx is the side

// ---- compare.c ----
// NULL where they are equal, else what differs first, until the next call.
const char *state_difference(const struct cpu_state *a, const struct cpu_state *b);
bool registers_equal(const struct cpu_state *a, const struct cpu_state *b); // general ones and RIP
// Of the pages that either side has written since the last call; all: of the whole RAM.
const char *memory_difference(struct pair *p, bool all);

// ---- walk.c ----
// Both to their next access, and compared there. false at a difference (p->why) or where the guest has ended.
bool walk_to_access(struct pair *p);
// From where both are, `every` instructions at a time, `steps` in all and up to an access. The same answers; `before`
// is the last state in which they agreed.
bool walk_by_steps(struct pair *p, uint64_t every, uint64_t until_access, uint64_t steps, struct cpu_state *before);

// ---- report.c ----
// The instruction at `at`, from the memory of s. false where there is none.
bool instruction_decode(struct side *s, const struct cpu_state *at, ZydisDecodedInstruction *z,
                        ZydisDecodedOperand *op);
void report_instruction(struct side *s, const struct cpu_state *at);
void report_difference(struct pair *p, const struct cpu_state *before);

#endif
