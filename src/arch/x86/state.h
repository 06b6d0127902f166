// SPDX-License-Identifier: Apache-2.0
// The canonical state of one x86-64 vCPU: engine-neutral, the form that snapshots, migration, replay and the
// debugger read and write. Both engines get and set it; xlate also keeps it as its live form.
// (Intel SDM vol. 3A ch. 2, 3, 6; vol. 1 ch. 13 for the XSAVE area.)
#ifndef CICADA_ARCH_X86_STATE_H
#define CICADA_ARCH_X86_STATE_H

#include <stdbool.h>
#include <stdint.h>

enum x86_gpr {
    X86_RAX,
    X86_RCX,
    X86_RDX,
    X86_RBX,
    X86_RSP,
    X86_RBP,
    X86_RSI,
    X86_RDI,
    X86_R8,
    X86_R9,
    X86_R10,
    X86_R11,
    X86_R12,
    X86_R13,
    X86_R14,
    X86_R15
};

// Segment registers in the order of the sreg field of ModRM, then the system segments.
enum x86_seg { X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS, X86_LDTR, X86_TR, X86_SEG_COUNT };

// attr: descriptor bits 40..47 in bits 0..7 and 52..55 in bits 12..15, as in a VMCS; bit 16 = unusable (null selector).
#define SEG_TYPE(a)  ((a)&15u)
#define SEG_S        0x10u
#define SEG_DPL(a)   (((a) >> 5) & 3u)
#define SEG_P        0x80u
#define SEG_L        0x2000u
#define SEG_DB       0x4000u
#define SEG_G        0x8000u
#define SEG_UNUSABLE 0x10000u

struct x86_segment {
    uint64_t base;
    uint32_t limit; // in bytes, already scaled by G
    uint32_t attr;
    uint16_t sel;
    uint16_t pad[3];
};

struct x86_table {
    uint64_t base;
    uint16_t limit;
    uint16_t pad[3];
};

#define RFLAGS_CF     0x1ull
#define RFLAGS_PF     0x4ull
#define RFLAGS_AF     0x10ull
#define RFLAGS_ZF     0x40ull
#define RFLAGS_SF     0x80ull
#define RFLAGS_TF     0x100ull
#define RFLAGS_IF     0x200ull
#define RFLAGS_DF     0x400ull
#define RFLAGS_OF     0x800ull
#define RFLAGS_IOPL   0x3000ull
#define RFLAGS_NT     0x4000ull
#define RFLAGS_RF     0x10000ull
#define RFLAGS_VM     0x20000ull
#define RFLAGS_AC     0x40000ull
#define RFLAGS_VIF    0x80000ull
#define RFLAGS_VIP    0x100000ull
#define RFLAGS_ID     0x200000ull
#define RFLAGS_ARITH  (RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF)
#define RFLAGS_FIXED1 0x2ull

#define CR0_PE (1ull << 0)
#define CR0_MP (1ull << 1)
#define CR0_EM (1ull << 2)
#define CR0_TS (1ull << 3)
#define CR0_ET (1ull << 4)
#define CR0_NE (1ull << 5)
#define CR0_WP (1ull << 16)
#define CR0_AM (1ull << 18)
#define CR0_NW (1ull << 29)
#define CR0_CD (1ull << 30)
#define CR0_PG (1ull << 31)

#define CR3_PCID_MASK  0xfffull
#define CR3_NO_FLUSH   (1ull << 63) // MOV to CR3 with CR4.PCIDE: keep what the new context left in the TLB
#define CR4_VME        (1ull << 0)
#define CR4_PVI        (1ull << 1)
#define CR4_TSD        (1ull << 2)
#define CR4_DE         (1ull << 3)
#define CR4_PSE        (1ull << 4)
#define CR4_PAE        (1ull << 5)
#define CR4_MCE        (1ull << 6)
#define CR4_PGE        (1ull << 7)
#define CR4_PCE        (1ull << 8)
#define CR4_OSFXSR     (1ull << 9)
#define CR4_OSXMMEXCPT (1ull << 10)
#define CR4_UMIP       (1ull << 11)
#define CR4_FSGSBASE   (1ull << 16)
#define CR4_PCIDE      (1ull << 17)
#define CR4_OSXSAVE    (1ull << 18)
#define CR4_SMEP       (1ull << 20)
#define CR4_SMAP       (1ull << 21)

#define EFER_SCE      (1ull << 0)
#define EFER_LME      (1ull << 8)
#define EFER_LMA      (1ull << 10)
#define EFER_NXE      (1ull << 11)
#define EFER_AUTOIBRS (1ull << 21)

#define XCR0_X87           1ull
#define XCR0_SSE           2ull
#define XCR0_AVX           4ull
#define X86_XCR0_SUPPORTED (XCR0_X87 | XCR0_SSE | XCR0_AVX)
#define X86_XSAVE_SIZE     832 // legacy 512, header 64, AVX 256 at 576: standard (non-compacted) format

enum x86_vector {
    X86_DE,
    X86_DB,
    X86_NMI,
    X86_BP,
    X86_OF,
    X86_BR,
    X86_UD,
    X86_NM,
    X86_DF,
    X86_TS = 10,
    X86_NP,
    X86_SS_FAULT,
    X86_GP,
    X86_PF,
    X86_MF = 16,
    X86_AC,
    X86_MC,
    X86_XM
};

enum x86_activity { X86_ACTIVE, X86_HALTED, X86_WAIT_SIPI, X86_IN_SHUTDOWN };

#define X86_MTRR_FIXED 11
#define X86_MTRR_VAR   8

struct cpu_state {
    uint64_t gpr[16];
    uint64_t rip;
    uint64_t rflags;
    struct x86_segment seg[X86_SEG_COUNT];
    struct x86_table gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4;
    uint64_t efer;
    uint64_t dr[4], dr6, dr7;
    uint64_t xcr0;
    // MSRs
    uint64_t star, lstar, cstar, fmask, kernel_gs_base; // FS and GS base live in seg[]
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, tsc_aux, misc_enable, tsc_adjust, spec_ctrl, debugctl;
    uint64_t mtrr_def_type, mtrr_fixed[X86_MTRR_FIXED], mtrr_base[X86_MTRR_VAR], mtrr_mask[X86_MTRR_VAR];
    uint64_t mcg_status;
    uint64_t kvmclock_system_time, kvmclock_wall; // MSR 0x4b564d01 and 0x4b564d00 as written
    uint64_t tsc_offset;                          // guest TSC = host TSC + tsc_offset
    // Events and shadows
    uint8_t activity;    // enum x86_activity
    uint8_t intr_shadow; // bit 0: after STI, bit 1: after MOV SS / POP SS; until the next instruction ends
    uint8_t nmi_pending;
    uint8_t nmi_blocked; // in an NMI handler, until IRET
    uint8_t sipi_vector;
    uint8_t debug_pending; // a #DB trap waits for the instruction boundary; bits for DR6 in debug_pending_dr6
    uint8_t intr_taken;    // an external interrupt left its controller (ISR is set) and waits for its delivery:
    uint8_t intr_vector;   // KVM may stop so; an engine that never does leaves both 0, and delivers it when set
    uint64_t debug_pending_dr6;
    // XSAVE area, standard format
    uint8_t xsave[1024] __attribute__((aligned(64)));
};

// State after power-on or INIT (SDM vol. 3A table 9-1). apic_bsp: the boot processor starts active, others wait for
// SIPI.
void x86_state_reset(struct cpu_state *s, bool apic_bsp, bool init);
// Start-up IPI: real mode at vector << 12.
void x86_state_sipi(struct cpu_state *s, uint8_t vector);

#endif
