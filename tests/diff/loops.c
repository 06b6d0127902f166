// SPDX-License-Identifier: Apache-2.0
// Loops over memory: what the translator may run without checks (engine/xlate/hoist.c). Pointers and indices move by
// constant steps over the data pages, past read-only ones and holes, so that many a loop ends in a page fault.
#include <string.h>

#include "tests/diff/diff.h"

#define TURNS_MAX 400

// One instruction and its length. Bases RSI, RDI, RBX; index RDX; counter RCX; RAX, R8 to R10, R14 and vectors for
// data.
static const struct piece {
    const char *bytes;
    uint8_t len;
} pieces[] = {
    {"\x48\x8b\x06", 3},         // mov rax, [rsi]
    {"\x48\x8b\x04\x16", 4},     // mov rax, [rsi+rdx]
    {"\x4c\x8b\x04\x96", 4},     // mov r8, [rsi+rdx*4]
    {"\x4c\x8b\x4c\xd6\x11", 5}, // mov r9, [rsi+rdx*8+17]
    {"\x48\x89\x07", 3},         // mov [rdi], rax
    {"\x48\x89\x04\x17", 4},     // mov [rdi+rdx], rax
    {"\x88\x44\x57\x03", 4},     // mov [rdi+rdx*2+3], al
    {"\x4c\x01\x04\xd7", 4},     // add [rdi+rdx*8], r8
    {"\x48\x03\x03", 3},         // add rax, [rbx]
    {"\x48\x87\x43\x08", 4},     // xchg [rbx+8], rax
    {"\x0f\x10\x04\x16", 4},     // movups xmm0, [rsi+rdx]
    {"\x0f\x28\x0e", 3},         // movaps xmm1, [rsi]
    {"\x66\x0f\xfe\xc1", 4},     // paddd xmm0, xmm1
    {"\x0f\x11\x07", 3},         // movups [rdi], xmm0
    {"\xc5\xfe\x6f\x14\xd6", 5}, // vmovdqu ymm2, [rsi+rdx*8]
    {"\xc5\xfe\x7f\x53\x20", 5}, // vmovdqu [rbx+32], ymm2
    {"\x41\x89\xd2", 3},         // mov r10d, edx
    {"\x4a\x03\x04\x96", 4},     // add rax, [rsi+r10*4]
    {"\x44\x8d\x52\x05", 4},     // lea r10d, [rdx+5]
    {"\x48\x83\xc6\x10", 4},     // add rsi, 16
    {"\x48\x83\xc7\x20", 4},     // add rdi, 32
    {"\x48\x83\xeb\x08", 4},     // sub rbx, 8
    {"\x48\xff\xc3", 3},         // inc rbx
    {"\x48\x8d\x7f\xf9", 4},     // lea rdi, [rdi-7]
    {"\x4c\x8d\x73\x09", 4},     // lea r14, [rbx+9]
    {"\x49\x33\x06", 3},         // xor rax, [r14]
    {"\x4c\x03\x34\x16", 4},     // add r14, [rsi+rdx]
    {"\x31\xc8", 2},             // xor eax, ecx
    {"\x48\x83\xc2\x01", 4},     // add rdx, 1
    {"\x83\xc2\x04", 3},         // add edx, 4
    {"\x66\x90", 2},             // nop
    {"\x84\xc0\x78\x00", 4},     // test al, al; js over the next
};

static void put(struct test_case *t, const char *bytes, unsigned len) {
    memcpy(t->code + t->len, bytes, len);
    t->offset[t->ninsns] = (uint16_t)t->len;
    t->size[t->ninsns++] = (uint8_t)len;
    t->len += len;
}

// dec ecx; jnz start or sub rcx, 1; ja start
static void put_end(struct test_case *t) {
    bool wide = random_chance(50);
    put(t, wide ? "\x48\x83\xe9\x01" : "\xff\xc9", wide ? 4 : 2);
    char jump[6] = {0x0f, (char)(random_chance(80) ? 0x85 : 0x87)};
    int32_t back = -(int32_t)(t->len + 6);
    memcpy(jump + 2, &back, 4);
    put(t, jump, 6);
}

void loop_build(struct test_case *t) {
    t->len = t->ninsns = 0;
    t->va = CODE_VA + 64 + random_below(CODE_PAGES * 4096 - 1024);
    for (unsigned n = 1 + random_below(7); n; n--) {
        const struct piece *p = &pieces[random_below(sizeof(pieces) / sizeof(*pieces))];
        put(t, p->bytes, p->len);
    }
    put_end(t);
    memcpy(t->code + t->len, "\x0f\x0b", 2);
}

void loop_input(const struct test_case *t, struct input *in) {
    static const uint8_t bases[] = {X86_RSI, X86_RDI, X86_RBX};
    input_random(in, MODE_64, true);
    for (unsigned i = 0; i < sizeof(bases); i++)
        in->gpr[bases[i]] = DATA_VA + (random_below(DATA_BYTES) & (random_chance(50) ? ~63u : ~0u));
    in->gpr[X86_RDX] = random_chance(90) ? random_below(64) : random_value();
    in->gpr[X86_R14] = DATA_VA + random_below(DATA_BYTES);
    in->gpr[X86_R10] = random_below(100);
    in->gpr[X86_RCX] = 1 + random_below(TURNS_MAX);
    in->rflags &= ~(uint64_t)(RFLAGS_TF | RFLAGS_AC);
    in->rip = t->va;
}
