// SPDX-License-Identifier: Apache-2.0
// bench CASE WORK: runs one case and prints its checksum. `bench list` names them all, `bench text BYTES SEED` writes
// filler text, `bench serve` is the host's end of the network cases, `bench source FUNCTIONS` a C source for the
// compiler's benchmark, `bench nop` does nothing: what fork+exec runs. Exit code 0, or 1 with a message.
#include "bench.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct bench_case *const tables[] = {
    bench_int,    bench_sha256, bench_interp, bench_calls, bench_fp,  bench_simd,   bench_x87,  bench_mem,
    bench_atomic, bench_os,     bench_proc,   bench_smc,   bench_jit, bench_crypto, bench_disk, bench_net,
};

static int extra_count;
static char **extra_words;

const char *bench_extra(unsigned number) {
    return (int)number < extra_count ? extra_words[number] : NULL;
}

void bench_need(int good, const char *what) {
    if (good)
        return;
    fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
    exit(1);
}

void bench_fill_text(char *buf, uint64_t len, uint64_t seed) {
    static const char *const words[] = {"the",    "of",    "guest", "page",     "and",   "to",
                                        "block",  "host",  "table", "register", "a",     "in",
                                        "memory", "time",  "code",  "is",       "every", "machine",
                                        "device", "queue", "that",  "kernel",   "for",   "interrupt"};
    uint64_t state = seed * 2654435761 + 88172645463325252, at = 0;
    while (at < len) {
        uint64_t r = bench_random(&state);
        const char *word = words[r % 24 * (r >> 20 & 3) / 3];
        char number[24];
        if ((r >> 32 & 15) == 0) {
            snprintf(number, sizeof(number), "%llx", (unsigned long long)(r >> 40));
            word = number;
        }
        while (*word && at < len)
            buf[at++] = *word++;
        if (at < len)
            buf[at++] = (r >> 24 & 15) == 0 ? '\n' : ' ';
    }
}

static void write_text(uint64_t len, uint64_t seed) {
    char *buf = malloc(len);
    bench_need(buf != NULL, "memory for the text");
    bench_fill_text(buf, len, seed);
    bench_need(fwrite(buf, 1, len, stdout) == len, "write");
}

// Functions with loops, branches, calls and a little of everything, different from each other in their constants and
// form.
static void write_source(uint64_t count) {
    uint64_t state = 88172645463325252;
    puts("typedef unsigned long long uint64_t;\nstruct node { struct node *next; uint64_t key, value; };\nstatic "
         "uint64_t table[256];\n");
    for (uint64_t i = 0; i < count; i++) {
        unsigned a = bench_random(&state) % 61 + 3, b = bench_random(&state) % 29 + 2;
        printf("uint64_t step_%llu(struct node *n, uint64_t x) {\n    uint64_t sum = x;\n", (unsigned long long)i);
        printf("    for (unsigned i = 0; i < %u; i++) {\n        if ((sum ^ i) %% %u == 0)\n", a, b);
        printf(
            "            sum += table[(i * %u + x) %% 256];\n        else\n            sum = sum << %u | sum >> %u;\n",
            b, b, 64 - b);
        printf("        table[sum & 255] ^= sum * %u;\n    }\n", a * 2 + 1);
        printf("    for (; n; n = n->next) {\n        switch (n->key %% %u) {\n", a % 9 + 4);
        for (unsigned c = 0; c < a % 9 + 3; c++)
            printf("        case %u: sum += n->value * %u + %u; break;\n", c, c * b + 1, a);
        printf("        default: sum ^= n->key;\n        }\n    }\n");
        if (i)
            printf("    return x > %u ? step_%llu((struct node *)0, sum / %u) : sum;\n}\n\n", a,
                   (unsigned long long)(i - 1), b);
        else
            puts("    return sum;\n}\n");
    }
}

static const struct bench_case *find(const char *name) {
    for (unsigned t = 0; t < sizeof(tables) / sizeof(tables[0]); t++)
        for (const struct bench_case *c = tables[t]; c && c->name; c++)
            if (!strcmp(c->name, name))
                return c;
    return NULL;
}

static void list(void) {
    for (unsigned t = 0; t < sizeof(tables) / sizeof(tables[0]); t++)
        for (const struct bench_case *c = tables[t]; c && c->name; c++)
            puts(c->name);
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "nop"))
        return 0;
    if (argc == 2 && !strcmp(argv[1], "list")) {
        list();
        return 0;
    }
    if (argc == 2 && !strcmp(argv[1], "serve"))
        return net_serve();
    if (argc < 3) {
        fprintf(stderr, "usage: bench CASE WORK | list | nop | serve | text BYTES SEED | source FUNCTIONS\n");
        return 1;
    }
    uint64_t work = strtoull(argv[2], NULL, 0);
    if (!strcmp(argv[1], "text")) {
        write_text(work, argc > 3 ? strtoull(argv[3], NULL, 0) : 1);
        return 0;
    }
    if (!strcmp(argv[1], "source")) {
        write_source(work);
        return 0;
    }
    extra_count = argc - 3;
    extra_words = argv + 3;
    const struct bench_case *c = find(argv[1]);
    if (!c) {
        fprintf(stderr, "bench: no case '%s'\n", argv[1]);
        return 1;
    }
    printf("%016llx\n", (unsigned long long)c->run(work));
    return 0;
}
