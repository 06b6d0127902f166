// SPDX-License-Identifier: Apache-2.0
// What the CPU models offer, as masks over the feature words of CPUID. Private to arch/x86.
#ifndef CICADA_ARCH_X86_CPUID_MODELS_H
#define CICADA_ARCH_X86_CPUID_MODELS_H

#include "arch/x86/cpuid.h"

// The feature words, in the order of struct cpu_features.word.
enum feature_word {
    FEAT_1_ECX,
    FEAT_1_EDX,
    FEAT_7_EBX,
    FEAT_7_ECX,
    FEAT_7_EDX,
    FEAT_7_1_EAX,
    FEAT_D_1_EAX,
    FEAT_EXT1_ECX,
    FEAT_EXT1_EDX,
    FEAT_WORDS
};
struct cpu_features {
    uint32_t word[FEAT_WORDS];
};

#define BIT(n) (1u << (n))

// Bits that code of this folder names.
#define F1C_SSE3         BIT(0)
#define F1C_PCLMUL       BIT(1)
#define F1C_SSSE3        BIT(9)
#define F1C_FMA          BIT(12)
#define F1C_CX16         BIT(13)
#define F1C_PCID         BIT(17)
#define F1C_SSE41        BIT(19)
#define F1C_SSE42        BIT(20)
#define F1C_X2APIC       BIT(21)
#define F1C_MOVBE        BIT(22)
#define F1C_POPCNT       BIT(23)
#define F1C_TSC_DEADLINE BIT(24)
#define F1C_AES          BIT(25)
#define F1C_XSAVE        BIT(26)
#define F1C_OSXSAVE      BIT(27)
#define F1C_AVX          BIT(28)
#define F1C_F16C         BIT(29)
#define F1C_RDRAND       BIT(30)
#define F1C_HYPERVISOR   BIT(31)
#define F1D_BASE                                                                                                       \
    0x0789fbffu // FPU VME DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 CLFLUSH MMX..SSE2
#define F1D_SS         BIT(27)
#define F1D_HTT        BIT(28)
#define F7B_FSGSBASE   BIT(0)
#define F7B_TSC_ADJUST BIT(1)
#define F7B_BMI1       BIT(3)
#define F7B_AVX2       BIT(5)
#define F7B_FDP_EXCPTN BIT(6)
#define F7B_SMEP       BIT(7)
#define F7B_BMI2       BIT(8)
#define F7B_ERMS       BIT(9)
#define F7B_INVPCID    BIT(10)
#define F7B_NO_FCS_FDS BIT(13)
#define F7B_RDSEED     BIT(18)
#define F7B_AVX512F    BIT(16)
#define F7B_ADX        BIT(19)
#define F7B_SMAP       BIT(20)
#define F7B_CLFLUSHOPT BIT(23)
#define F7B_CLWB       BIT(24)
#define F7B_SHA        BIT(29)
#define F7C_UMIP       BIT(2)
#define F7C_GFNI       BIT(8)
#define F7C_VAES       BIT(9)
#define F7C_VPCLMUL    BIT(10)
#define F7C_RDPID      BIT(22)
#define F7D_FSRM       BIT(4)
#define F7D_SPEC_CTRL  BIT(26)
#define F7D_ARCH_CAP   BIT(29)
#define F71A_AVX_VNNI  BIT(4)
#define F72D_BHI_CTRL  BIT(4)
#define F72D_MCDT_NO   BIT(5)
#define FD1A_XSAVEOPT  BIT(0)
#define FD1A_XSAVEC    BIT(1)
#define FD1A_XGETBV1   BIT(2)
#define FXC_LAHF       BIT(0)
#define FXC_CMP_LEGACY BIT(1)
#define FXC_CR8        BIT(4)
#define FXC_LZCNT      BIT(5)
#define FXC_SSE4A      BIT(6)
#define FXC_MISALIGN   BIT(7)
#define FXC_PREFETCHW  BIT(8)
#define FXC_TOPOEXT    BIT(22)
#define FXD_SYSCALL    BIT(11)
#define FXD_NX         BIT(20)
#define FXD_1G         BIT(26)
#define FXD_RDTSCP     BIT(27)
#define FXD_LM         BIT(29)
#define F21A_AUTO_IBRS BIT(8)      // 0x80000021 EAX
#define FXD_LEGACY     0x0183f3ffu // AMD repeats these bits of leaf 1 EDX

// IA32_ARCH_CAPABILITIES of an Intel guest: no PTI, no retpoline, no VERW, no ITS thunks.
#define ARCH_CAP_GUEST                                                                                                 \
    ((1ull << 0) /* RDCL_NO */ | (1ull << 1) /* IBRS_ALL */ | (1ull << 3) /* SKIP_L1DFL_VMENTRY */ |                   \
     (1ull << 4) /* SSB_NO */ | (1ull << 5) /* MDS_NO */ | (1ull << 6) /* PSCHANGE_MC_NO */ |                          \
     (1ull << 8) /* TAA_NO */ | (1ull << 13) /* SBDR_SSDP_NO */ | (1ull << 14) /* FBSDP_NO */ |                        \
     (1ull << 15) /* PSDP_NO */ | (1ull << 20) /* BHI_NO */ | (1ull << 24) /* PBRSB_NO */ |                            \
     (1ull << 26) /* GDS_NO */ | (1ull << 27) /* RFDS_NO */ | (1ull << 62) /* ITS_NO */)

// Reads the host's feature words.
void cpu_features_host(struct cpu_features *f);
// What the guest sees under a model: what xlate implements itself, and of what it runs on the host the model's part.
// -EINVAL, naming the feature, when the host lacks one that the model promises.
int cpu_features_model(enum cpu_model model, const struct cpu_features *host, struct cpu_features *out,
                       struct error *err);
// Are all the features there that the model needs? -EINVAL with the first that `who` (for the message) lacks.
int cpu_model_check(enum cpu_model model, const struct cpu_features *have, const char *who, struct error *err);
const char *cpu_model_name(enum cpu_model model);

static inline void host_cpuid(uint32_t function, uint32_t index, uint32_t out[4]) {
    __asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(function), "c"(index));
}

#endif
