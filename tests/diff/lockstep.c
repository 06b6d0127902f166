// SPDX-License-Identifier: Apache-2.0
// Emulator and translator in lockstep: programs for supervisor mode, system instructions included, run by both for the
// same number of instructions, then everything the guest could see is compared. There is no host in it: the bare CPU
// is the oracle of the emulator elsewhere.
#include <stdio.h>
#include <string.h>

#include "tests/diff/diff.h"

struct snapshot {
    struct cpu_state s;
    struct vm_exit e;
    uint8_t frame[48];
    uint8_t data[DATA_BYTES];
};
static struct snapshot by_emulator, by_translator;

static void take(unsigned engine, const struct test_case *t, const struct input *in, uint64_t budget,
                 struct snapshot *o) {
    memset(&o->e, 0, sizeof(o->e));
    world_set_code(t->va, t->code, t->len + 2);
    world_run(engine, in, budget, &o->s, &o->e);
    xsave_canonicalise(o->s.xsave);
    memset(o->s.xsave + 6, 0, 18); // x87 pointers, see compare.c
    memcpy(o->frame, world_frame(), sizeof(o->frame));
    memcpy(o->data, world_ram_data(), DATA_BYTES);
}

// Arithmetic flags that nothing reads any more need not be there (docs/ENGINE.md).
static void drop_dead_flags(struct snapshot *o) {
    uint64_t f;
    o->s.rflags &= ~RFLAGS_ARITH;
    memcpy(&f, o->frame + 24, 8);
    f &= ~RFLAGS_ARITH;
    memcpy(o->frame + 24, &f, 8);
}

static const char *difference(unsigned engine, const struct snapshot *a, const struct snapshot *b) {
    static char text[120];
    if (a->e.reason != b->e.reason)
        return snprintf(text, sizeof(text), "ends with %s instead of %s", exit_reason_name(b->e.reason),
                        exit_reason_name(a->e.reason)),
               text;
    for (unsigned i = 0; i < 16; i++)
        if (a->s.gpr[i] != b->s.gpr[i])
            return snprintf(text, sizeof(text), "gpr %u is %lx instead of %lx", i, b->s.gpr[i], a->s.gpr[i]), text;
    if (a->s.rip != b->s.rip)
        return snprintf(text, sizeof(text), "RIP is %lx instead of %lx", b->s.rip, a->s.rip), text;
    if (a->s.rflags != b->s.rflags)
        return snprintf(text, sizeof(text), "RFLAGS is %lx instead of %lx", b->s.rflags, a->s.rflags), text;
    if (a->e.reason == EXIT_HALT && memcmp(a->frame, b->frame, 48))
        return "the frame of the last exception differs";
    if (memcmp(a->data, b->data, DATA_BYTES))
        return "memory differs";
    if (memcmp(a->s.xsave, b->s.xsave, sizeof(a->s.xsave)))
        return "vector or x87 state differs";
    if (memcmp(a->s.seg, b->s.seg, offsetof(struct cpu_state, xsave) - offsetof(struct cpu_state, seg)))
        return "segments, control registers or events differ";
    return NULL;
}

static const char *compare(unsigned engine, const struct test_case *t, const struct input *in, uint64_t budget) {
    take(ENGINE_EMULATE, t, in, budget, &by_emulator);
    take(engine, t, in, budget, &by_translator);
    if (engine == ENGINE_DEFAULT) {
        drop_dead_flags(&by_emulator);
        drop_dead_flags(&by_translator);
    }
    return difference(engine, &by_emulator, &by_translator);
}

// The first number of instructions after which there is a difference.
static uint64_t bisect(unsigned engine, const struct test_case *t, const struct input *in, uint64_t bad) {
    uint64_t good = 0;
    while (bad - good > 1) {
        uint64_t middle = (good + bad) / 2;
        *(compare(engine, t, in, middle) ? &bad : &good) = middle;
    }
    return bad;
}

static void report(unsigned engine, const struct test_case *t, const struct input *in, uint64_t budget) {
    static struct outcome none;
    const char *why = compare(engine, t, in, budget);
    snprintf(none.failure, sizeof(none.failure),
             "after %lu instructions: emulator RIP %lx RFLAGS %lx, translator RIP %lx RFLAGS %lx", budget,
             by_emulator.s.rip, by_emulator.s.rflags, by_translator.s.rip, by_translator.s.rflags);
    case_print(t, in, &none, &none, engine_names[engine], why ? why : "not again");
}

static unsigned programs, finished;

unsigned lockstep_finished(void) {
    return programs ? finished * 100 / programs : 0;
}

static void count_program(const struct test_case *t) {
    uint64_t rip;
    memcpy(&rip, by_emulator.frame + 8, 8);
    programs++;
    finished += by_emulator.e.reason == EXIT_HALT && rip == t->va + t->len;
}

bool lockstep_once(struct test_case *t, struct input *in, uint64_t *compared) {
    if (!program_build(t, in))
        return true;
    for (unsigned i = 0; i < 6; i++) {
        unsigned engine = random_chance(50) ? ENGINE_EXACT : ENGINE_DEFAULT;
        uint64_t budget = i == 0 ? 100000 : 1 + random_below(i < 4 ? 200 : 2000);
        ++*compared;
        if (compare(engine, t, in, budget)) {
            report(engine, t, in, budget);
            report(engine, t, in, bisect(engine, t, in, budget));
            return false;
        }
        if (i == 0)
            count_program(t);
        if (random_chance(30))
            sequence_input(t, in, MODE_64_KERNEL);
    }
    return true;
}
