// SPDX-License-Identifier: Apache-2.0
// The CPU models (x86-64 psABI 3.1.1 for the levels).
//
// Features fall in two groups: those that the engine implements itself (system instructions, paging, APIC), offered
// whatever the host has, so that a guest can move; and those that run on the host's execution units, offered when the
// model names them and the host has them.
#include "arch/x86/cpuid_models.h"

#include <errno.h>
#include <string.h>

#define SSE_V2_ECX (F1C_SSE3 | F1C_SSSE3 | F1C_CX16 | F1C_SSE41 | F1C_SSE42 | F1C_POPCNT)
#define AVX_ECX    (F1C_FMA | F1C_MOVBE | F1C_AVX | F1C_F16C)
#define CRYPTO_ECX (F1C_PCLMUL | F1C_AES)
#define AVX_7_EBX  (F7B_BMI1 | F7B_AVX2 | F7B_BMI2)

// Implemented by the engine on every host.
static const struct cpu_features engine_features = {
    .word = {
        [FEAT_1_ECX] = F1C_PCID | F1C_X2APIC | F1C_TSC_DEADLINE | F1C_RDRAND | F1C_HYPERVISOR,
        [FEAT_1_EDX] = F1D_BASE | F1D_SS,
        [FEAT_7_EBX] = F7B_FSGSBASE | F7B_TSC_ADJUST | F7B_SMEP | F7B_ERMS | F7B_INVPCID | F7B_RDSEED | F7B_SMAP |
                       F7B_CLFLUSHOPT | F7B_CLWB,
        [FEAT_7_ECX] = F7C_UMIP | F7C_RDPID,
        [FEAT_7_EDX] = F7D_FSRM,
        [FEAT_EXT1_ECX] = FXC_LAHF | FXC_PREFETCHW,
        [FEAT_EXT1_EDX] = FXD_SYSCALL | FXD_NX | FXD_1G | FXD_RDTSCP | FXD_LM,
    }};

struct model {
    const char *name;
    struct cpu_features needs;  // refused when the host lacks any
    struct cpu_features offers; // besides, when the host has them
};

static const struct model
    models[] =
        {
            [CPU_MOVABLE] =
                {
                    .name = "movable",
                    .needs = {.word = {[FEAT_1_ECX] = SSE_V2_ECX}},
                    .offers = {.word =
                                   {
                                       [FEAT_1_ECX] = AVX_ECX | CRYPTO_ECX | F1C_XSAVE,
                                       [FEAT_7_EBX] = AVX_7_EBX | F7B_ADX | F7B_SHA | F7B_FDP_EXCPTN | F7B_NO_FCS_FDS,
                                       [FEAT_D_1_EAX] = FD1A_XSAVEOPT | FD1A_XSAVEC | FD1A_XGETBV1,
                                       [FEAT_EXT1_ECX] = FXC_LZCNT,
                                   }},
                },
            [CPU_HOST] =
                {
                    .name = "host",
                    .offers = {.word =
                                   {
                                       [FEAT_1_ECX] = SSE_V2_ECX | AVX_ECX | CRYPTO_ECX | F1C_XSAVE,
                                       [FEAT_7_EBX] = AVX_7_EBX | F7B_ADX | F7B_SHA | F7B_FDP_EXCPTN | F7B_NO_FCS_FDS,
                                       [FEAT_7_ECX] = F7C_GFNI | F7C_VAES | F7C_VPCLMUL,
                                       [FEAT_7_1_EAX] = F71A_AVX_VNNI,
                                       [FEAT_D_1_EAX] = FD1A_XSAVEOPT | FD1A_XSAVEC | FD1A_XGETBV1,
                                       [FEAT_EXT1_ECX] = FXC_LZCNT | FXC_SSE4A | FXC_MISALIGN,
                                   }},
                },
            [CPU_X86_64_V2] =
                {
                    .name = "x86-64-v2",
                    .needs = {.word = {[FEAT_1_ECX] = SSE_V2_ECX}},
                    .offers = {.word = {[FEAT_7_EBX] = F7B_FDP_EXCPTN | F7B_NO_FCS_FDS}},
                },
            [CPU_X86_64_V3] =
                {
                    .name = "x86-64-v3",
                    .needs = {.word =
                                  {
                                      [FEAT_1_ECX] = SSE_V2_ECX | AVX_ECX | F1C_XSAVE,
                                      [FEAT_7_EBX] = AVX_7_EBX,
                                      [FEAT_EXT1_ECX] = FXC_LZCNT,
                                  }},
                    .offers = {.word =
                                   {
                                       [FEAT_7_EBX] = F7B_FDP_EXCPTN | F7B_NO_FCS_FDS,
                                       [FEAT_D_1_EAX] = FD1A_XSAVEOPT | FD1A_XSAVEC | FD1A_XGETBV1,
                                   }},
                },
};

const char *cpu_model_name(enum cpu_model model) {
    return models[model].name;
}

int cpu_model_parse(const char *name, enum cpu_model *model) {
    for (unsigned i = 0; i < sizeof(models) / sizeof(models[0]); i++)
        if (!strcmp(name, models[i].name)) {
            *model = (enum cpu_model)i;
            return 0;
        }
    return -EINVAL;
}

// Names for the message about a missing feature.
static const struct {
    uint8_t word;
    uint32_t bit;
    const char *name;
} names[] = {
    {FEAT_1_ECX, F1C_SSE3, "sse3"},    {FEAT_1_ECX, F1C_SSSE3, "ssse3"},  {FEAT_1_ECX, F1C_CX16, "cx16"},
    {FEAT_1_ECX, F1C_SSE41, "sse4.1"}, {FEAT_1_ECX, F1C_SSE42, "sse4.2"}, {FEAT_1_ECX, F1C_POPCNT, "popcnt"},
    {FEAT_1_ECX, F1C_FMA, "fma"},      {FEAT_1_ECX, F1C_MOVBE, "movbe"},  {FEAT_1_ECX, F1C_AVX, "avx"},
    {FEAT_1_ECX, F1C_F16C, "f16c"},    {FEAT_1_ECX, F1C_XSAVE, "xsave"},  {FEAT_7_EBX, F7B_BMI1, "bmi1"},
    {FEAT_7_EBX, F7B_AVX2, "avx2"},    {FEAT_7_EBX, F7B_BMI2, "bmi2"},    {FEAT_EXT1_ECX, FXC_LZCNT, "lzcnt"},
};

static const char *first_missing(unsigned word, uint32_t missing) {
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (names[i].word == word && (names[i].bit & missing))
            return names[i].name;
    return "a basic feature";
}

void cpu_features_host(struct cpu_features *f) {
    uint32_t max[4], ext_max[4], r[4];

    memset(f, 0, sizeof(*f));
    host_cpuid(0, 0, max);
    host_cpuid(0x80000000, 0, ext_max);
    host_cpuid(1, 0, r);
    f->word[FEAT_1_ECX] = r[2];
    f->word[FEAT_1_EDX] = r[3];
    // xlate keeps vector state with XSAVE in the host: AVX counts only when the host's kernel has turned it on.
    if (!(r[2] & F1C_OSXSAVE))
        f->word[FEAT_1_ECX] &= ~(F1C_XSAVE | F1C_AVX | F1C_FMA | F1C_F16C);
    if (max[0] >= 7) {
        host_cpuid(7, 0, r);
        f->word[FEAT_7_EBX] = r[1];
        f->word[FEAT_7_ECX] = r[2];
        f->word[FEAT_7_EDX] = r[3];
        if (r[0] >= 1) {
            host_cpuid(7, 1, r);
            f->word[FEAT_7_1_EAX] = r[0];
        }
    }
    if (max[0] >= 0xd) {
        host_cpuid(0xd, 1, r);
        f->word[FEAT_D_1_EAX] = r[0];
    }
    if (ext_max[0] >= 0x80000001) {
        host_cpuid(0x80000001, 0, r);
        f->word[FEAT_EXT1_ECX] = r[2];
        f->word[FEAT_EXT1_EDX] = r[3];
    }
}

// A feature whose state or foundation is not offered goes too.
static void drop_dependents(struct cpu_features *f) {
    if (!(f->word[FEAT_1_ECX] & F1C_XSAVE)) {
        f->word[FEAT_1_ECX] &= ~F1C_AVX;
        f->word[FEAT_D_1_EAX] = 0;
    }
    if (!(f->word[FEAT_1_ECX] & F1C_AVX)) {
        f->word[FEAT_1_ECX] &= ~(F1C_FMA | F1C_F16C);
        f->word[FEAT_7_EBX] &= ~F7B_AVX2;
        f->word[FEAT_7_ECX] &= ~(F7C_VAES | F7C_VPCLMUL);
        f->word[FEAT_7_1_EAX] &= ~F71A_AVX_VNNI;
    }
}

int cpu_model_check(enum cpu_model model, const struct cpu_features *have, const char *who, struct error *err) {
    const struct model *m = &models[model];

    for (unsigned i = 0; i < FEAT_WORDS; i++) {
        uint32_t missing = m->needs.word[i] & ~have->word[i];

        if (missing)
            return error_set(err, -EINVAL, "CPU model '%s' needs %s, which %s does not have", m->name,
                             first_missing(i, missing), who);
    }
    return 0;
}

int cpu_features_model(enum cpu_model model, const struct cpu_features *host, struct cpu_features *out,
                       struct error *err) {
    const struct model *m = &models[model];
    int ret = cpu_model_check(model, host, "the host", err);

    if (ret)
        return ret;
    for (unsigned i = 0; i < FEAT_WORDS; i++)
        out->word[i] = engine_features.word[i] | ((m->needs.word[i] | m->offers.word[i]) & host->word[i]);
    drop_dependents(out);
    return 0;
}
