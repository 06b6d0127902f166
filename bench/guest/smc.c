// SPDX-License-Identifier: Apache-2.0
// Code that changes itself: an immediate patched before every call, data in the page of the code that writes it, and a
// function copied to a new place each time.
#include "bench.h"
#include <string.h>
#include <sys/mman.h>

typedef uint64_t (*code_fn)(uint64_t);

static unsigned char *code_area(uint64_t len) {
    unsigned char *p = mmap(NULL, len, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bench_need(p != MAP_FAILED, "memory for code");
    return p;
}

// mov eax, imm32; add rax, rdi; ret
static const unsigned char add_code[] = {0xb8, 0, 0, 0, 0, 0x48, 0x01, 0xf8, 0xc3};

static uint64_t patch(uint64_t work) {
    unsigned char *code = code_area(4096);
    uint64_t sum = 0;
    memcpy(code, add_code, sizeof(add_code));
    for (uint64_t i = 0; i < work; i++) {
        uint32_t imm = (uint32_t)(i * 3);
        memcpy(code + 1, &imm, sizeof(imm));
        BENCH_BARRIER();
        sum = bench_mix(sum, ((code_fn)(uintptr_t)code)(i));
    }
    munmap(code, 4096);
    return sum;
}

// inc qword [rip+disp32]; mov rax, [rip+disp32]; add rax, rdi; ret; the counter lies in the same page, 256 bytes on.
static uint64_t data_beside(uint64_t work) {
    static const unsigned char template[] = {0x48, 0xff, 0x05, 0xf9, 0, 0,    0,    0x48, 0x8b,
                                             0x05, 0xf2, 0,    0,    0, 0x48, 0x01, 0xf8, 0xc3};
    unsigned char *code = code_area(4096);
    uint64_t sum = 0;
    memcpy(code, template, sizeof(template));
    for (uint64_t i = 0; i < work; i++)
        sum = bench_mix(sum, ((code_fn)(uintptr_t)code)(i));
    munmap(code, 4096);
    return sum;
}

static uint64_t fresh_copies(uint64_t work) {
    enum { LEN = 64 << 10 };
    unsigned char *code = code_area(LEN);
    uint64_t sum = 0;
    for (uint64_t i = 0; i < work; i++) {
        unsigned char *at = code + i * 48 % (LEN - 64);
        uint32_t imm = (uint32_t)(i * 7);
        memcpy(at, add_code, sizeof(add_code));
        memcpy(at + 1, &imm, sizeof(imm));
        BENCH_BARRIER();
        for (unsigned k = 0; k < 8; k++)
            sum = bench_mix(sum, ((code_fn)(uintptr_t)at)(k));
    }
    munmap(code, LEN);
    return sum;
}

const struct bench_case bench_smc[] = {
    {"smc-patch", patch}, {"smc-data-beside", data_beside}, {"smc-fresh", fresh_copies}, {0}};
