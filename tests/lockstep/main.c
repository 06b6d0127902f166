// SPDX-License-Identifier: Apache-2.0
// lockstep [OPTION]... KERNEL: runs a guest on two engines at once and shows where they first differ; see lockstep.h.
//
//   --engines A,B      default xlate,kvm; ENGINE/OPTIONS for others than exact-flags and
//                      irqchip=user, with + for a comma
//   --cmdline TEXT     of the guest
//   --accesses N       end after N accesses
//   --every N          compare every N instructions as well
//   --from N           ... from access N on
//   --steps N          ... N instructions at most (default 100000)
//   --quiet            without the guest's console
//
// A difference found at an access is looked for again from the access before it, instruction by instruction.
// Exit code 0: they agree; 1: they differ; 2: wrong usage; 77: an engine is not there.
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lockstep/lockstep.h"

static struct pair pair;

static int usage(void) {
    fputs("usage: lockstep [--engines A[/OPTIONS],B[/OPTIONS]] [--cmdline TEXT] [--accesses N]\n"
          "                [--every N [--from N] [--steps N]] [--quiet] KERNEL\n",
          stderr);
    return 2;
}

static void create(const struct options *o) {
    struct error err = {0};
    int r = pair_create(&pair, o, &err);

    if (r) {
        fprintf(stderr, "%s: %s\n", r == -ENODEV ? "SKIP" : "lockstep", err.text);
        exit(r == -ENODEV ? 77 : 2);
    }
}

static bool walk_accesses(uint64_t most) {
    while (pair.side[FIRST].accesses < most)
        if (!walk_to_access(&pair))
            return !pair.broken;
    return true;
}

// They differ somewhere behind access number `access`: once more from the start to there, then by single steps. True
// where they then agree, because what differed was chance (a time stamp): the pair is behind the next access.
static bool narrow_down(const struct options *o, uint64_t access) {
    struct cpu_state before __attribute__((aligned(64)));
    uint64_t seen = o->quiet ? UINT64_MAX : pair.nlog;

    report_difference(&pair, NULL);
    pair_destroy(&pair);
    create(o);
    pair.silent = seen;
    if (!walk_accesses(access)) {
        puts("the second time they differ earlier:");
        report_difference(&pair, NULL);
        return false;
    }
    before = pair.side[FIRST].now;
    (void)walk_by_steps(&pair, 1, access + 2, o->steps, &before);
    if (!pair.broken && pair.side[FIRST].accesses > access) {
        puts("by single steps they do not differ there");
        return true;
    }
    if (!pair.broken)
        puts("not found by single steps");
    else
        report_difference(&pair, &before);
    return false;
}

#define MOST_CHANCES 20 // places that agree by single steps alone

static bool run_by_accesses(const struct options *o, uint64_t most) {
    for (unsigned i = 0; i < MOST_CHANCES; i++) {
        if (walk_accesses(most))
            return true;
        if (!narrow_down(o, pair.agreed))
            return false;
    }
    return false;
}

static bool run(const struct options *o) {
    struct cpu_state before __attribute__((aligned(64)));
    bool agreed = run_by_accesses(o, o->every ? o->from : o->accesses);

    if (!agreed || !o->every || pair.ended)
        return agreed;
    before = pair.side[FIRST].now;
    (void)walk_by_steps(&pair, o->every, o->accesses, o->steps, &before);
    if (pair.broken)
        report_difference(&pair, &before);
    return !pair.broken;
}

static void summary(const struct options *o, bool agreed) {
    printf("%s, %s: %s, %" PRIu64 " accesses, %" PRIu64 " steps", o->engine[FIRST], o->engine[SECOND],
           agreed ? "agree" : "DIFFER", pair.nlog, pair.side[FIRST].steps);
    if (pair.over)
        printf(", the guest's exit code %u", pair.exit_code);
    printf(" (let pass: %" PRIu64 " accessed bits, %" PRIu64 " trace flags, %" PRIu64 " resume flags, %" PRIu64
           " registers of chance)\n",
           pair.accessed, pair.trace_flags, pair.resume_flags, pair.taken_over);
}

static void parse_engine(char *text, const char **engine, const char **features) {
    char *slash = strchr(text, '/');

    *engine = text;
    *features = strcmp(text, "kvm") ? "exact-flags" : "irqchip=user";
    if (!slash)
        return;
    *slash = 0;
    *features = slash + 1;
    for (char *c = slash + 1; *c; c++) // commas part the engines
        if (*c == '+')
            *c = ',';
}

static bool parse_engines(char *text, struct options *o) {
    char *comma = strchr(text, ',');

    if (!comma)
        return false;
    *comma = 0;
    parse_engine(text, &o->engine[FIRST], &o->features[FIRST]);
    parse_engine(comma + 1, &o->engine[SECOND], &o->features[SECOND]);
    return true;
}

static bool parse_number(const char *text, uint64_t *out) {
    char *end;

    *out = strtoull(text, &end, 10);
    return *text && !*end;
}

static bool parse(int argc, char **argv, struct options *o) {
    static const struct option names[] = {
        {"engines", 1, NULL, 'e'}, {"cmdline", 1, NULL, 'c'}, {"accesses", 1, NULL, 'a'}, {"every", 1, NULL, 'n'},
        {"from", 1, NULL, 'f'},    {"steps", 1, NULL, 's'},   {"quiet", 0, NULL, 'q'},    {0}};
    bool good = true;
    int c;

    while (good && (c = getopt_long(argc, argv, "", names, NULL)) >= 0) {
        switch (c) {
        case 'e': good = parse_engines(optarg, o); break;
        case 'c': o->cmdline = optarg; break;
        case 'a': good = parse_number(optarg, &o->accesses); break;
        case 'n': good = parse_number(optarg, &o->every); break;
        case 'f': good = parse_number(optarg, &o->from); break;
        case 's': good = parse_number(optarg, &o->steps); break;
        case 'q': o->quiet = true; break;
        default: good = false;
        }
    }
    o->kernel = argv[optind];
    return good && optind == argc - 1;
}

int main(int argc, char **argv) {
    static char engines[] = "xlate,kvm";
    struct options o = {.cmdline = "", .steps = 100000, .accesses = UINT64_MAX};

    (void)parse_engines(engines, &o);
    if (!parse(argc, argv, &o))
        return usage();
    create(&o);
    pair.silent = o.quiet ? UINT64_MAX : 0;
    bool agreed = run(&o);
    summary(&o, agreed);
    pair_destroy(&pair);
    return agreed ? 0 : 1;
}
