// SPDX-License-Identifier: Apache-2.0
// Brings both sides to the same place, again and again, and compares them there.
//
// xlate counts instructions exactly, KVM does not (src/engine/kvm/step.c): an exception's delivery clears the flag by
// which it steps, so that KVM stops next behind the handler's IRET or at an access; an instruction under the shadow of
// MOV SS, or an OUT of its emulator, is one step with its successor; a repeated string instruction is a step for each
// iteration. So whoever lags is stepped until the registers are equal; they never come to be where there is a
// difference.
#include <stdio.h>
#include <string.h>

#include "tests/lockstep/lockstep.h"

#define CATCH_UP      200000 // instructions at most, for whoever lags
#define BEHIND_ACCESS 64     // of a block, behind an access

static bool differs(struct pair *p, const char *why) {
    snprintf(p->why, sizeof(p->why), "%s", why);
    p->broken = true;
    return false;
}

// ---- chance ----

static bool gives_chance(const ZydisDecodedInstruction *z) {
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDPMC:
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
    case ZYDIS_MNEMONIC_RDMSR: return true;
    default: return false;
    }
}

static bool steps_behind(const struct cpu_state *a, const struct cpu_state *before, unsigned length) {
    return a->rip == before->rip + length;
}

// What the instruction at `before` got from outside, the second side gets from the first; and the TF that its stepping
// left in R11 (SYSCALL) or a popped register goes.
static void take_over(struct pair *p, const struct cpu_state *before) {
    struct side *a = &p->side[FIRST], *b = &p->side[SECOND];
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    bool chance = instruction_decode(a, before, &z, op) && gives_chance(&z) &&
                  steps_behind(&a->now, before, z.length) && steps_behind(&b->now, before, z.length);
    bool changed = false;

    for (unsigned i = 0; i < 16; i++) {
        uint64_t d = a->now.gpr[i] ^ b->now.gpr[i];
        bool trace = d == RFLAGS_TF && (a->now.gpr[i] & RFLAGS_FIXED1) && !(a->now.gpr[i] & RFLAGS_TF);

        if (!d || !(chance || trace))
            continue;
        b->now.gpr[i] = a->now.gpr[i];
        p->trace_flags += !chance;
        p->taken_over += chance;
        changed = true;
    }
    if (chance && a->now.rflags != b->now.rflags) {
        b->now.rflags = a->now.rflags;
        changed = true;
    }
    if (changed && side_set(b))
        differs(p, "the second side does not take its registers");
}

// ---- catching up ----

// The one that has executed less; by accesses, then by who still stands at `before`.
static struct side *who_lags(struct pair *p, const struct cpu_state *before) {
    struct side *a = &p->side[FIRST], *b = &p->side[SECOND];

    if (a->accesses != b->accesses)
        return a->accesses < b->accesses ? a : b;
    if (a->now.rip == b->now.rip && a->now.gpr[X86_RCX] != b->now.gpr[X86_RCX]) // within a repeated instruction
        return a->now.gpr[X86_RCX] > b->now.gpr[X86_RCX] ? a : b;
    return b->now.rip == before->rip ? b : a->ops->counts_instructions ? a : b;
}

// At most `most` steps. Where they do not meet, what is to be reported is where they were.
static bool catch_up(struct pair *p, const struct cpu_state *before, unsigned most) {
    struct side *a = &p->side[FIRST], *b = &p->side[SECOND];
    struct cpu_state first = a->now, second = b->now;

    for (unsigned i = 0; i < most && !p->broken; i++) {
        take_over(p, before);
        if (a->accesses == b->accesses && registers_equal(&a->now, &b->now))
            return true;
        if (!side_step(who_lags(p, before), 1))
            break;
    }
    a->now = first;
    b->now = second;
    return false;
}

// What differs now: registers before memory, because a wrong address says more than what it has overwritten.
static bool compare(struct pair *p, bool all_memory) {
    const char *d = state_difference(&p->side[FIRST].now, &p->side[SECOND].now);

    if (!d)
        d = memory_difference(p, all_memory);
    return d ? differs(p, d) : true;
}

static bool end(struct pair *p) {
    const struct side *a = &p->side[FIRST], *b = &p->side[SECOND];
    char text[200];

    p->ended = true;
    if (p->broken)
        return false;
    snprintf(text, sizeof(text), "one ends with %.80s, the other with %.80s", side_end(a), side_end(b));
    if (a->accessed != b->accessed || a->exit.reason != b->exit.reason)
        return differs(p, text);
    if (a->exit.reason == EXIT_FAIL || a->exit.reason == EXIT_KICKED)
        return differs(p, side_end(a));
    (void)compare(p, true);
    return false;
}

static bool go_on(struct pair *p) {
    if (!compare(p, p->over))
        return false;
    p->agreed = p->side[FIRST].accesses;
    p->ended = p->over;
    return !p->over;
}

// ---- to the next access ----

bool walk_to_access(struct pair *p) {
    struct side *a = &p->side[FIRST], *b = &p->side[SECOND];
    struct cpu_state before = a->now;
    bool first = side_to_access(a), second = side_to_access(b);

    // An instruction with several accesses may have made them all at once.
    while (first && second && a->accesses != b->accesses)
        *(a->accesses < b->accesses ? &first : &second) = side_to_access(a->accesses < b->accesses ? a : b);
    if (p->broken)
        return false;
    if (!first || !second)
        return end(p);
    if (!registers_equal(&a->now, &b->now))
        (void)catch_up(p, &before, BEHIND_ACCESS);
    return go_on(p);
}

// ---- by steps ----

bool walk_by_steps(struct pair *p, uint64_t every, uint64_t until_access, uint64_t steps, struct cpu_state *before) {
    struct side *a = &p->side[FIRST], *b = &p->side[SECOND];

    for (uint64_t done = 0; done < steps && a->accesses < until_access; done += every) {
        bool first, second;

        *before = a->now;
        first = side_step(a, every);
        second = side_step(b, every);
        if (p->broken)
            return false;
        if (!first || !second)
            return end(p);
        (void)catch_up(p, before, CATCH_UP);
        if (p->broken || !go_on(p))
            return false;
    }
    return true;
}
