// SPDX-License-Identifier: Apache-2.0
// Which instruction sets a guest may use: Zydis's ISA sets against the CPUID policy. What is not named here (AVX-512,
// AMX, MPX, TSX, CET, XSAVES, ...) is never offered.
#include "engine/xlate/emul_int.h"

enum cpuid_reg { EAX, EBX, ECX, EDX };

struct isa_rule {
    ZydisISASet isa;
    uint32_t function, index;
    uint8_t reg, bit;
};
#define ALWAYS 0xffffffffu
#define EXT    0x80000001u

static const struct isa_rule rules[] = {
    {ZYDIS_ISA_SET_I86, ALWAYS, 0, 0, 0},
    {ZYDIS_ISA_SET_I186, ALWAYS, 0, 0, 0},
    {ZYDIS_ISA_SET_I286PROTECTED, ALWAYS, 0, 0, 0},
    {ZYDIS_ISA_SET_I286REAL, ALWAYS, 0, 0, 0},
    {ZYDIS_ISA_SET_I386, ALWAYS, 0, 0, 0},
    {ZYDIS_ISA_SET_I486, ALWAYS, 0, 0, 0},
    {ZYDIS_ISA_SET_I486REAL, ALWAYS, 0, 0, 0},
    {ZYDIS_ISA_SET_PENTIUMREAL, ALWAYS, 0, 0, 0},
    {ZYDIS_ISA_SET_PPRO, ALWAYS, 0, 0, 0},
    {ZYDIS_ISA_SET_LONGMODE, ALWAYS, 0, 0, 0},
    {ZYDIS_ISA_SET_AMD, ALWAYS, 0, 0, 0},
    {ZYDIS_ISA_SET_FAT_NOP, ALWAYS, 0, 0, 0},
    {ZYDIS_ISA_SET_PREFETCH_NOP, ALWAYS, 0, 0, 0},
    {ZYDIS_ISA_SET_PAUSE, ALWAYS, 0, 0, 0},
    {ZYDIS_ISA_SET_RDPMC, ALWAYS, 0, 0, 0},
    {ZYDIS_ISA_SET_LAHF, ALWAYS, 0, 0, 0},
    {ZYDIS_ISA_SET_CMOV, ALWAYS, 0, 0, 0},
    {ZYDIS_ISA_SET_VTX, ALWAYS, 0, 0, 0}, // VMCALL; the others have no implementation and so raise #UD
    {ZYDIS_ISA_SET_SVM, ALWAYS, 0, 0, 0}, // VMMCALL
    {ZYDIS_ISA_SET_X87, 1, 0, EDX, 0},
    {ZYDIS_ISA_SET_FCMOV, 1, 0, EDX, 0},
    {ZYDIS_ISA_SET_CLFSH, 1, 0, EDX, 19},
    {ZYDIS_ISA_SET_PENTIUMMMX, 1, 0, EDX, 23},
    {ZYDIS_ISA_SET_FXSAVE, 1, 0, EDX, 24},
    {ZYDIS_ISA_SET_FXSAVE64, 1, 0, EDX, 24},
    {ZYDIS_ISA_SET_SSE, 1, 0, EDX, 25},
    {ZYDIS_ISA_SET_SSEMXCSR, 1, 0, EDX, 25},
    {ZYDIS_ISA_SET_SSE_PREFETCH, 1, 0, EDX, 25},
    {ZYDIS_ISA_SET_SSE2, 1, 0, EDX, 26},
    {ZYDIS_ISA_SET_SSE2MMX, 1, 0, EDX, 26},
    {ZYDIS_ISA_SET_SSE3, 1, 0, ECX, 0},
    {ZYDIS_ISA_SET_SSE3X87, 1, 0, ECX, 0},
    {ZYDIS_ISA_SET_PCLMULQDQ, 1, 0, ECX, 1},
    {ZYDIS_ISA_SET_MONITOR, 1, 0, ECX, 3},
    {ZYDIS_ISA_SET_SSSE3, 1, 0, ECX, 9},
    {ZYDIS_ISA_SET_SSSE3MMX, 1, 0, ECX, 9},
    {ZYDIS_ISA_SET_FMA, 1, 0, ECX, 12},
    {ZYDIS_ISA_SET_CMPXCHG16B, 1, 0, ECX, 13},
    {ZYDIS_ISA_SET_SSE4, 1, 0, ECX, 19},
    {ZYDIS_ISA_SET_SSE42, 1, 0, ECX, 20},
    {ZYDIS_ISA_SET_MOVBE, 1, 0, ECX, 22},
    {ZYDIS_ISA_SET_POPCNT, 1, 0, ECX, 23},
    {ZYDIS_ISA_SET_AES, 1, 0, ECX, 25},
    {ZYDIS_ISA_SET_XSAVE, 1, 0, ECX, 26},
    {ZYDIS_ISA_SET_AVX, 1, 0, ECX, 28},
    {ZYDIS_ISA_SET_AVXAES, 1, 0, ECX, 28},
    {ZYDIS_ISA_SET_F16C, 1, 0, ECX, 29},
    {ZYDIS_ISA_SET_RDRAND, 1, 0, ECX, 30},
    {ZYDIS_ISA_SET_RDWRFSGS, 7, 0, EBX, 0},
    {ZYDIS_ISA_SET_BMI1, 7, 0, EBX, 3},
    {ZYDIS_ISA_SET_AVX2, 7, 0, EBX, 5},
    {ZYDIS_ISA_SET_AVX2GATHER, 7, 0, EBX, 5},
    {ZYDIS_ISA_SET_BMI2, 7, 0, EBX, 8},
    {ZYDIS_ISA_SET_INVPCID, 7, 0, EBX, 10},
    {ZYDIS_ISA_SET_RDSEED, 7, 0, EBX, 18},
    {ZYDIS_ISA_SET_ADOX_ADCX, 7, 0, EBX, 19},
    {ZYDIS_ISA_SET_SMAP, 7, 0, EBX, 20},
    {ZYDIS_ISA_SET_CLFLUSHOPT, 7, 0, EBX, 23},
    {ZYDIS_ISA_SET_CLWB, 7, 0, EBX, 24},
    {ZYDIS_ISA_SET_SHA, 7, 0, EBX, 29},
    {ZYDIS_ISA_SET_PREFETCHWT1, 7, 0, ECX, 0},
    {ZYDIS_ISA_SET_GFNI, 7, 0, ECX, 8},
    {ZYDIS_ISA_SET_AVX_GFNI, 7, 0, ECX, 8},
    {ZYDIS_ISA_SET_VAES, 7, 0, ECX, 9},
    {ZYDIS_ISA_SET_VPCLMULQDQ, 7, 0, ECX, 10},
    {ZYDIS_ISA_SET_RDPID, 7, 0, ECX, 22},
    {ZYDIS_ISA_SET_AVX_VNNI, 7, 1, EAX, 4},
    {ZYDIS_ISA_SET_XSAVEOPT, 13, 1, EAX, 0},
    {ZYDIS_ISA_SET_XSAVEC, 13, 1, EAX, 1},
    {ZYDIS_ISA_SET_LZCNT, EXT, 0, ECX, 5},
    {ZYDIS_ISA_SET_SSE4A, EXT, 0, ECX, 6},
    {ZYDIS_ISA_SET_RDTSCP, EXT, 0, EDX, 27},
};

static uint32_t policy_reg(const struct cpuid_policy *p, const struct isa_rule *r) {
    for (unsigned i = 0; i < p->count && i < CPUID_MAX_LEAVES; i++) {
        const struct cpuid_leaf *l = &p->leaf[i];
        const uint32_t reg[4] = {l->eax, l->ebx, l->ecx, l->edx};

        if (l->function == r->function && (l->index == r->index || l->index == 0xffffffff))
            return reg[r->reg];
    }
    return 0;
}

void isa_fill(const struct cpuid_policy *p, bool allowed[ZYDIS_ISA_SET_MAX_VALUE + 1]) {
    for (unsigned i = 0; i <= ZYDIS_ISA_SET_MAX_VALUE; i++)
        allowed[i] = false;
    for (unsigned i = 0; i < ARRAY_LEN(rules); i++)
        allowed[rules[i].isa] = rules[i].function == ALWAYS || (policy_reg(p, &rules[i]) >> rules[i].bit & 1);
    // AES with VEX needs both.
    allowed[ZYDIS_ISA_SET_AVXAES] = allowed[ZYDIS_ISA_SET_AVX] && allowed[ZYDIS_ISA_SET_AES];
    allowed[ZYDIS_ISA_SET_AVX_GFNI] = allowed[ZYDIS_ISA_SET_AVX] && allowed[ZYDIS_ISA_SET_GFNI];
}
