// SPDX-License-Identifier: Apache-2.0
// Contract between the benchmark's cases and its main program.
//
// A case is a function of one number, the amount of work, that returns a checksum over everything it computed. The
// checksum depends only on that number, never on time, addresses or scheduling, so that a run in a guest can be
// compared with a run on the host. Cases are compiled with -O2 for baseline x86-64; those that want more say so by
// attribute.
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>

struct bench_case {
    const char *name;
    uint64_t (*run)(uint64_t work);
};

// One table per file, ended by a null name. Cryptography is linked into a program of its own, so that the others do not
// pay for loading a large library.
extern const struct bench_case bench_int[], bench_sha256[], bench_interp[], bench_calls[], bench_fp[], bench_simd[],
    bench_x87[], bench_mem[], bench_atomic[], bench_os[], bench_proc[], bench_smc[], bench_jit[], bench_disk[],
    bench_net[];
extern const struct bench_case bench_crypto[] __attribute__((weak));

// The words after the amount of work: where the disk or the server is. NULL where there are fewer.
const char *bench_extra(unsigned number);

// The server of the network cases; an exit code.
int net_serve(void);

// Ends the program with a message where the system refuses something; never returns where it is false.
void bench_need(int good, const char *what);

// Text for a case that reads or compiles something: the same bytes everywhere, like prose in its letter statistics.
void bench_fill_text(char *buf, uint64_t len, uint64_t seed);

static inline uint64_t bench_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

static inline uint64_t bench_mix(uint64_t sum, uint64_t value) {
    sum = (sum ^ value) * 0x9e3779b97f4a7c15;
    return sum ^ sum >> 29;
}

// Keeps the compiler from knowing a value, and with it from computing a loop in advance.
#define BENCH_HIDE(x)   __asm__ volatile("" : "+r"(x))
#define BENCH_BARRIER() __asm__ volatile("" ::: "memory")

#endif
