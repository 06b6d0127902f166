// SPDX-License-Identifier: Apache-2.0
// A small just-in-time compiler: random expressions over two variables become machine code in a buffer that is used
// round and round, as a browser's or a database's does. Each function is run often, or only a few times.
#include "bench.h"
#include <string.h>
#include <sys/mman.h>

typedef uint64_t (*jit_fn)(uint64_t x, uint64_t count);

struct jit {
    unsigned char *at;
};

static void emit(struct jit *j, const void *bytes, unsigned len) {
    memcpy(j->at, bytes, len);
    j->at += len;
}
#define EMIT(j, ...)                                                                                                   \
    do {                                                                                                               \
        const unsigned char bytes_[] = {__VA_ARGS__};                                                                  \
        emit(j, bytes_, sizeof(bytes_));                                                                               \
    } while (0)

// rax = expression of rax and rcx (the turn), 10 operations.
static void expression(struct jit *j, uint64_t *state) {
    for (unsigned i = 0; i < 10; i++) {
        uint64_t r = bench_random(state);
        uint32_t imm = (uint32_t)(r >> 32) | 1;
        switch (r % 6) {
        case 0:
            EMIT(j, 0x48, 0x05);
            emit(j, &imm, 4);
            break; // add rax, imm32
        case 1:
            EMIT(j, 0x48, 0x69, 0xc0);
            emit(j, &imm, 4);
            break;                                                           // imul rax, rax, imm32
        case 2: EMIT(j, 0x48, 0x31, 0xc8); break;                            // xor rax, rcx
        case 3: EMIT(j, 0x48, 0xc1, 0xc0, (unsigned char)(imm & 63)); break; // rol rax, imm8
        case 4: EMIT(j, 0x48, 0x29, 0xc8); break;                            // sub rax, rcx
        case 5: EMIT(j, 0x48, 0x85, 0xc0, 0x78, 3, 0x48, 0xff, 0xc8); break; // test rax, rax; js +3; dec rax
        }
    }
}

// rax = x; for (rcx = count; rcx; rcx--) rax = expression; return rax.
static jit_fn compile(struct jit *j, uint64_t *state) {
    unsigned char *entry = j->at;
    EMIT(j, 0x48, 0x89, 0xf8, 0x48, 0x89, 0xf1); // mov rax, rdi; mov rcx, rsi
    unsigned char *loop = j->at;
    expression(j, state);
    EMIT(j, 0x48, 0xff, 0xc9, 0x0f, 0x85); // dec rcx; jnz loop
    int32_t back = (int32_t)(loop - (j->at + 4));
    emit(j, &back, 4);
    EMIT(j, 0xc3);
    return (jit_fn)(uintptr_t)entry;
}

static uint64_t jit(uint64_t work, uint64_t turns) {
    enum { LEN = 256 << 10 };
    unsigned char *buf = mmap(NULL, LEN, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct jit j = {buf};
    uint64_t state = 4242, sum = 0;
    bench_need(buf != MAP_FAILED, "memory for code");
    for (uint64_t i = 0; i < work; i++) {
        if (j.at + 256 > buf + LEN)
            j.at = buf;
        jit_fn fn = compile(&j, &state);
        BENCH_BARRIER();
        sum = bench_mix(sum, fn(i, turns));
    }
    munmap(buf, LEN);
    return sum;
}

static uint64_t jit_hot(uint64_t work) {
    return jit(work, 20000);
}
static uint64_t jit_cold(uint64_t work) {
    return jit(work, 10);
}

// Compiled once into pages that are then made executable and read-only, as careful ones do; 16 functions a page.
static uint64_t jit_protect(uint64_t work) {
    uint64_t state = 4242, sum = 0;
    unsigned char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bench_need(page != MAP_FAILED, "memory for code");
    for (uint64_t i = 0; i < work; i++) {
        struct jit j = {page};
        jit_fn fn[16];
        for (unsigned k = 0; k < 16; k++)
            fn[k] = compile(&j, &state);
        bench_need(!mprotect(page, 4096, PROT_READ | PROT_EXEC), "mprotect");
        for (unsigned k = 0; k < 16; k++)
            sum = bench_mix(sum, fn[k](i, 300));
        bench_need(!mprotect(page, 4096, PROT_READ | PROT_WRITE), "mprotect");
    }
    munmap(page, 4096);
    return sum;
}

const struct bench_case bench_jit[] = {{"jit-hot", jit_hot}, {"jit-cold", jit_cold}, {"jit-protect", jit_protect}, {0}};
