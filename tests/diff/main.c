// SPDX-License-Identifier: Apache-2.0
// diff [--all] {CLASS | seq | loops | lockstep}...: random code on the bare CPU, in the emulator and translated; see
// diff.h.
//
// CICADA_DIFF_SECONDS bounds the time of each (default 6 s), CICADA_DIFF_COUNT the comparisons (default: by time only;
// with it the cases do not depend on the speed of the machine), CICADA_DIFF_SEED chooses the numbers (printed),
// CICADA_DIFF_KVM=64 or =all adds this machine's /dev/kvm as another engine, CICADA_DIFF_FEATURES gives the engine
// called "translated" other --xlate-opts. It stops at the first difference; --all goes on and prints one for every
// mnemonic.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <time.h>
#include <unistd.h>

#include "tests/diff/diff.h"

#define INPUTS_PER_CODE 4

static bool go_on; // --all
static unsigned failures;
static uint64_t compared;
static struct test_case current;
static struct input input;
static struct outcome host_out, guest_out;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double seconds(void) {
    const char *s = getenv("CICADA_DIFF_SECONDS");
    return s ? atof(s) : 6;
}

// ---- bounds ----

static double deadline;
static uint64_t most; // comparisons

static void start(uint64_t seed) {
    const char *text = getenv("CICADA_DIFF_COUNT");
    most = text ? strtoull(text, NULL, 0) : UINT64_MAX;
    deadline = now() + seconds();
    compared = 0;
    random_seed(seed);
    alarm((unsigned)seconds() + 20);
}

// May another batch begin?
static bool more(void) {
    return failures < (go_on ? 25u : 1u) && compared < most && now() < deadline;
}

// ---- one comparison ----

static bool seen_before(unsigned engine, ZydisMnemonic m) {
    static uint8_t seen[ZYDIS_MNEMONIC_MAX_VALUE + 1];
    bool known = seen[m] >> engine & 1;
    seen[m] |= (uint8_t)(1u << engine);
    return known;
}

// true: all engines agree with the host.
static bool compare_engines(ZydisMnemonic m) {
    char why[256];
    bool good = true;
    bare_run(&input, &host_out);
    for (unsigned e = 0; e < world.engines; e++) {
        if (!world_compares(e, &input, &host_out))
            continue;
        world_run_guest(e, &input, &guest_out);
        compared++;
        if (outcome_equal(&input, &host_out, &guest_out, e, &current, why, sizeof(why)))
            continue;
        good = false;
        if (!go_on || m == ZYDIS_MNEMONIC_INVALID || !seen_before(e, m))
            case_print(&current, &input, &host_out, &guest_out, engine_names[e], why);
        fflush(stdout);
    }
    if (!good)
        failures++;
    return good;
}

static uint64_t choose_place(unsigned len) {
    if (random_chance(3)) // over the end of the last page
        return CODE_VA + 4096 * CODE_PAGES - 1 - random_below(len);
    if (random_chance(10)) // over a page boundary
        return CODE_VA + 4096 * (1 + random_below(CODE_PAGES - 2)) - 1 - random_below(len);
    return CODE_VA + 256 + random_below((CODE_PAGES - 1) * 4096);
}

// ---- single instructions ----

bool differs_at_cpl0(const struct decoded *d) {
    bool seg = false;
    for (unsigned i = 0; i < d->z.operand_count_visible; i++)
        seg |= d->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
               ZydisRegisterGetClass(d->op[i].reg.value) == ZYDIS_REGCLASS_SEGMENT;
    return seg || d->z.meta.category == ZYDIS_CATEGORY_INTERRUPT;
}

static void one_insn(enum insn_class c, enum code_mode mode) {
    static const struct pointers any = {0};
    bool is64 = mode != MODE_32;
    struct decoded d;
    uint64_t va = choose_place(8);
    if (!build_insn(is64, c, va, &any, &d) || (mode == MODE_64_KERNEL && differs_at_cpl0(&d)))
        return;
    memcpy(current.code, d.bytes, d.len);
    memcpy(current.code + d.len, "\x0f\x0b", 2);
    current.len = d.len + 2u;
    current.ninsns = 1;
    current.offset[0] = 0;
    current.size[0] = d.len;
    current.va = va;
    world_set_code(va, current.code, current.len);
    for (unsigned i = 0; i < INPUTS_PER_CODE; i++) {
        input_random(&input, mode, false);
        input_suit(&input, &d);
        input.rip = va;
        if (!compare_engines(d.z.mnemonic))
            break;
    }
}

// ---- sequences ----

static bool any_engine_differs(void) {
    char why[256];
    bare_run(&input, &host_out);
    for (unsigned e = 0; e < world.engines; e++) {
        if (!world_compares(e, &input, &host_out))
            continue;
        world_run_guest(e, &input, &guest_out);
        if (!outcome_equal(&input, &host_out, &guest_out, e, &current, why, sizeof(why)))
            return true;
    }
    return false;
}

// Replaces instructions by NOPs as long as there is a difference.
static void shrink(void) {
    for (unsigned i = 0; i < current.ninsns; i++) {
        struct test_case saved = current;
        memset(current.code + current.offset[i], 0x90, current.size[i]);
        world_set_code(current.va, current.code, current.len + 2);
        if (!any_engine_differs())
            current = saved;
    }
    world_set_code(current.va, current.code, current.len + 2);
}

static void one_sequence(enum code_mode mode) {
    if (!sequence_build(&current, &input, mode))
        return;
    world_set_code(current.va, current.code, current.len + 2);
    for (unsigned i = 0; i < INPUTS_PER_CODE; i++) {
        compared += world.engines;
        if (any_engine_differs()) {
            shrink();
            compare_engines(ZYDIS_MNEMONIC_INVALID);
            break;
        }
        sequence_input(&current, &input, mode);
    }
}

#define BATCH 64

static void run_sequences(void) {
    while (more())
        for (unsigned i = 0; i < BATCH && (go_on || !failures); i++)
            one_sequence((enum code_mode)random_below(MODE_COUNT));
}

static void run_lockstep(void) {
    while (more())
        for (unsigned i = 0; i < BATCH && (go_on || !failures); i++)
            failures += !lockstep_once(&current, &input, &compared);
}

// The parts of a case as NOPs would change its jumps, so it is not shrunk.
static void one_loop(void) {
    loop_build(&current);
    world_set_code(current.va, current.code, current.len + 2);
    for (unsigned i = 0; i < INPUTS_PER_CODE; i++) {
        loop_input(&current, &input);
        if (!compare_engines(ZYDIS_MNEMONIC_INVALID))
            break;
    }
}

static void run_loops(void) {
    while (more())
        for (unsigned i = 0; i < BATCH && (go_on || !failures); i++)
            one_loop();
}

static void run_class(enum insn_class c) {
    while (more())
        for (unsigned i = 0; i < BATCH && (go_on || !failures); i++)
            one_insn(c, c == CLASS_PRIV ? (enum code_mode)random_below(2) : (enum code_mode)random_below(MODE_COUNT));
}

// ---- main ----

// The addresses of this process must not depend on chance: a stray access of the code under test should do the same
// in every run.
static void fix_addresses(char **argv) {
    int p = personality(0xffffffff);
    if (p < 0 || (p & ADDR_NO_RANDOMIZE) || getenv("CICADA_DIFF_FIXED"))
        return;
    setenv("CICADA_DIFF_FIXED", "1", 1);
    if (personality((unsigned)p | ADDR_NO_RANDOMIZE) >= 0)
        execv("/proc/self/exe", argv);
}

static void on_alarm(int sig) {
    static const struct outcome none = {.failure = "hangs"};
    bool bare = bare_interrupted();
    case_print(&current, &input, &none, &none, bare ? "the bare CPU" : "an engine", "hangs");
    fflush(stdout);
    _exit(1);
}

static enum insn_class class_named(const char *name) {
    for (unsigned c = 0; c < CLASS_COUNT; c++)
        if (!strcmp(name, class_names[c]))
            return (enum insn_class)c;
    fprintf(stderr, "no class %s\n", name);
    exit(2);
}

static uint64_t loops_hoisted(void) {
    struct engine_stat stats[64];
    unsigned n = world.ops->stats(world.engine[ENGINE_DEFAULT], stats, 64);
    for (unsigned i = 0; i < n; i++)
        if (!strcmp(stats[i].name, "hoisted"))
            return stats[i].value;
    return 0;
}

static void run_named(const char *name, uint64_t seed) {
    bool is_seq = !strcmp(name, "seq"), is_lockstep = !strcmp(name, "lockstep"), is_loops = !strcmp(name, "loops");
    start(seed);
    if (is_seq)
        run_sequences();
    else if (is_lockstep)
        run_lockstep();
    else if (is_loops)
        run_loops();
    else
        run_class(class_named(name));
    alarm(0);
    printf("%s: %lu comparisons, seed %lu, %u differences", name, compared, seed, failures);
    if (is_lockstep)
        printf(", %u %% of the programs ran to their end", lockstep_finished());
    else if (!is_seq && !is_loops)
        printf(", %u mnemonics", templates_mnemonics(true, class_named(name)));
    putchar('\n');
    fflush(stdout);
    if (compared < 1000 && seconds() >= 1 && !failures) {
        puts("hardly anything was compared: the test tests nothing");
        failures++;
    }
    if (is_loops && !failures && loops_hoisted() < compared / 100) {
        printf("%lu loops ran without checks: the test tests nothing\n", loops_hoisted());
        failures++;
    }
    if (is_lockstep && !failures && lockstep_finished() < 10) {
        puts("hardly a program runs to its end: the test tests nothing");
        failures++;
    }
}

int main(int argc, char **argv) {
    const char *text = getenv("CICADA_DIFF_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : 1;
    fix_addresses(argv);
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_alarm, .sa_flags = SA_ONSTACK}, NULL);
    random_seed(seed);
    world_create();
    bare_init();
    templates_create();
    for (unsigned i = 0; i < DATA_BYTES; i++)
        world.data[i] = (uint8_t)random_u64();
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--all"))
            go_on = true;
        else
            run_named(argv[i], seed);
    }
    return failures ? 1 : 0;
}
