// SPDX-License-Identifier: Apache-2.0
// System instructions: what the emulator's other half calls, and what the files of this half share.
#ifndef CICADA_XLATE_SYS_H
#define CICADA_XLATE_SYS_H

#include "engine/xlate/emul.h"

// ---- for the integer and string half ----

// Whether the current privilege may access ports [port, port+size): IOPL, else the TSS bitmap (SDM vol. 1 19.5).
// #GP(0) when not. Reports I/O breakpoints.
enum xres io_check(struct xcpu *x, uint16_t port, unsigned size);

// Instructions that share a mnemonic with integer ones. Each takes the whole instruction.
enum xres sys_insn_mov_seg(struct xcpu *x, struct insn *in);    // MOV to or from a segment register
enum xres sys_insn_mov_crdr(struct xcpu *x, struct insn *in);   // MOV to or from CRn/DRn
enum xres sys_insn_push_seg(struct xcpu *x, struct insn *in);   // PUSH Sreg
enum xres sys_insn_pop_seg(struct xcpu *x, struct insn *in);    // POP Sreg
enum xres sys_insn_far_branch(struct xcpu *x, struct insn *in); // far JMP, CALL, RET (z.meta.branch_type FAR)

// ---- descriptors (seg.c) ----
#define DESC_EXT 1u // error code bit 0: the event that is being delivered is external to the program
#define DESC_IDT 2u

#define DESC_TYPE_LDT        2u
#define DESC_TYPE_TASK_GATE  5u
#define DESC_TYPE_TSS16      1u
#define DESC_TYPE_TSS16_BUSY 3u
#define DESC_TYPE_CALL16     4u
#define DESC_TYPE_INT16      6u
#define DESC_TYPE_TRAP16     7u
#define DESC_TYPE_TSS32      9u // and 64-bit
#define DESC_TYPE_TSS32_BUSY 11u
#define DESC_TYPE_CALL32     12u // and 64-bit
#define DESC_TYPE_INT32      14u
#define DESC_TYPE_TRAP32     15u

static inline uint32_t desc_attr(uint64_t d) {
    return (uint32_t)(d >> 40) & 0xf0ff;
}
static inline unsigned desc_type(uint64_t d) {
    return (unsigned)(d >> 40) & 15;
}
static inline unsigned desc_dpl(uint64_t d) {
    return (unsigned)(d >> 45) & 3;
}
static inline bool desc_is_segment(uint64_t d) {
    return d >> 44 & 1;
}
static inline bool desc_present(uint64_t d) {
    return d >> 47 & 1;
}
static inline bool desc_is_code(uint64_t d) {
    return (d >> 43 & 3) == 3;
}
static inline bool desc_conforming(uint64_t d) {
    return d >> 42 & 1;
} // of a code segment
static inline bool desc_writable_data(uint64_t d) {
    return (d >> 40 & 0x1a) == 0x12;
}
static inline bool desc_long(uint64_t d) {
    return d >> 53 & 1;
}
static inline bool desc_db(uint64_t d) {
    return d >> 54 & 1;
}
static inline uint32_t desc_base(uint64_t d) {
    return ((uint32_t)(d >> 16) & 0xffffff) | (uint32_t)(d >> 56) << 24;
}
static inline uint32_t desc_limit(uint64_t d) {
    uint32_t l = (uint32_t)(d & 0xffff) | ((uint32_t)(d >> 32) & 0xf0000);

    return d >> 55 & 1 ? l << 12 | 0xfff : l;
}

// A gate in the form that all its kinds share.
struct gate {
    uint64_t offset;
    uint16_t sel;
    uint8_t type, dpl, ist, params;
    bool present;
};

// Reads the descriptor of a non-null selector. Outside its table: `vector` with error (sel & ~3) | ext.
enum xres desc_read(struct xcpu *x, uint16_t sel, uint32_t ext, enum x86_vector vector, uint64_t *d);
// Ditto, without a fault for a bad selector: *ok says whether it is inside its table. Page faults still come.
enum xres desc_peek(struct xcpu *x, uint16_t sel, uint64_t *d, bool *ok);
// Linear address of the descriptor of a selector that desc_read accepted.
uint64_t desc_linear(const struct xcpu *x, uint16_t sel);
// Upper half of a 16-byte system descriptor (long mode).
enum xres desc_read_high(struct xcpu *x, uint16_t sel, uint32_t ext, uint64_t *high);
// Sets the accessed bit in memory when it is not set, and in *d.
enum xres desc_set_accessed(struct xcpu *x, uint16_t sel, uint64_t *d);
struct gate gate_parse(uint64_t low, uint64_t high, bool long_mode);

// Fills a segment register from a checked descriptor.
void seg_set(struct xcpu *x, enum x86_seg seg, uint16_t sel, uint64_t d);
void seg_set_null(struct xcpu *x, enum x86_seg seg, uint16_t sel);
// Null SS of 64-bit mode: unusable, but it keeps the DPL that defines the CPL.
void seg_set_null_ss(struct xcpu *x, uint16_t sel, unsigned cpl);
void seg_set_real(struct xcpu *x, enum x86_seg seg, uint16_t sel); // real and virtual-8086 mode
// After a return to an outer level: data segments that the new CPL may not use become null (SDM vol. 2 IRET, RET).
void seg_drop_inner(struct xcpu *x, unsigned cpl);
// Checks a stack segment for privilege level cpl. `vector`, `ext`: the fault for a bad selector (#TS or #GP).
enum xres seg_check_ss(struct xcpu *x, uint16_t sel, unsigned cpl, uint32_t ext, enum x86_vector vector, uint64_t *d);
// Checks a code segment for a direct far jump or call at the current CPL.
enum xres seg_check_cs_direct(struct xcpu *x, uint16_t sel, uint64_t d);
// A non-null selector into ES, DS, FS or GS with the checks of protected mode; `bad`: #GP, or #TS in a task switch.
enum xres seg_load_data(struct xcpu *x, enum x86_seg seg, uint16_t sel, enum x86_vector bad);
enum xres seg_load_ldtr(struct xcpu *x, uint16_t sel, enum x86_vector bad);

// ---- a stack that is being switched to or built up (xstack.c) ----
struct xstack {
    uint64_t base; // of the segment
    uint64_t mask; // of the stack pointer
    uint64_t sp;   // moves with each push and pop
    uint32_t limit;
    uint32_t attr;
    bool flat64;    // 64-bit: no limit, canonical check
    unsigned flags; // mmu_flags
    uint32_t error; // of the #SS that a limit violation raises
};
void xstack_current(const struct xcpu *x, struct xstack *st);
void xstack_from_desc(struct xstack *st, uint64_t ss_desc, uint64_t sp, unsigned cpl);
enum xres xstack_push(struct xcpu *x, struct xstack *st, uint64_t val, unsigned size);
enum xres xstack_pop(struct xcpu *x, struct xstack *st, uint64_t *val, unsigned size);
// Writes the stack pointer to RSP within the mask.
void xstack_commit(struct xcpu *x, const struct xstack *st);

// Stack for a change to privilege level cpl from the TSS: legacy (SS:ESP) and long mode (RSP or IST 1..7).
enum xres tss_stack_legacy(struct xcpu *x, unsigned cpl, uint32_t ext, uint16_t *ss, uint32_t *esp);
enum xres tss_stack_long(struct xcpu *x, unsigned cpl, unsigned ist, uint32_t ext, uint64_t *rsp);

// ---- delivery (intr.c, intr_prot.c, intr_long.c) ----
enum intr_kind { INTR_EXCEPTION, INTR_EXTERNAL, INTR_SOFTWARE, INTR_ICEBP };
struct intr_event {
    enum intr_kind kind;
    uint8_t vector;
    bool has_error;
    uint32_t error;
    uint64_t return_rip;
    uint64_t rflags; // image to push
    uint32_t ext;    // DESC_EXT or 0
};
enum xres intr_deliver_long(struct xcpu *x, const struct intr_event *ev);
enum xres intr_deliver_legacy(struct xcpu *x, const struct intr_event *ev);
enum xres intr_deliver_real(struct xcpu *x, const struct intr_event *ev);
// Virtual-8086 mode with CR4.VME: INT n through the vm86 IVT.
enum xres intr_deliver_vme(struct xcpu *x, const struct intr_event *ev);
enum xres intr_icebp(struct xcpu *x, uint64_t next_rip);

// RFLAGS.IF became 1, or the TPR sank, or NMIs are open again: looks whether an interrupt can be taken now.
static inline void intr_window(struct xcpu *x) {
    if (x->s.nmi_pending || x->irqchip->ops->pending(x->irqchip->ctx) >= 0)
        request_exit_here(x);
}

// ---- control transfers (xfer.c, xfer_ret.c, task.c) ----
enum xres xfer_ret_far(struct xcpu *x, unsigned op_size, uint16_t imm);
enum task_reason { TASK_JMP, TASK_CALL, TASK_IRET, TASK_INTR };
// Task switch (SDM vol. 3A 8.3); old_rip is saved in the outgoing TSS. has_error: an exception's code to push.
enum xres task_switch(struct xcpu *x, uint16_t tss_sel, enum task_reason reason, uint64_t old_rip, bool has_error,
                      uint32_t error, uint32_t ext);
// What an instruction does with an X_FAULT of a task switch, old_task being the TR selector before: the fault is the
// instruction's, or the new task has begun and it has to be delivered there.
enum xres task_fault(struct xcpu *x, uint16_t old_task);

// Flags on which mode_update depends: TF, because stepped code is emulated.
#define MODE_FLAGS (RFLAGS_AC | RFLAGS_VM | RFLAGS_TF)
// Replaces RFLAGS and updates the mode when it depends on what changed. IF rising opens an interrupt window.
void flags_set(struct xcpu *x, uint64_t rflags);

static inline bool is_vendor_intel(const struct xcpu *x) {
    const struct cpuid_policy *p = xcpu_policy(x);

    return p->leaf[0].ebx == 0x756e6547; // "Genu"; leaf 0 is the first of the table
}
static inline enum xres gp0(struct xcpu *x) {
    return fault_raise_err(x, X86_GP, 0);
}
static inline enum xres ud(struct xcpu *x) {
    return fault_raise(x, X86_UD);
}

// ---- model-specific registers (msr.c) ----
enum xres msr_read(struct xcpu *x, uint32_t msr, uint64_t *val);
enum xres msr_write(struct xcpu *x, uint32_t msr, uint64_t val);

// ---- entries of the dispatch table (sys_entries.c names them) ----
enum xres insn_int(struct xcpu *x, struct insn *in);
enum xres insn_int3(struct xcpu *x, struct insn *in);
enum xres insn_int1(struct xcpu *x, struct insn *in);
enum xres insn_into(struct xcpu *x, struct insn *in);
enum xres insn_iret(struct xcpu *x, struct insn *in);
enum xres insn_syscall(struct xcpu *x, struct insn *in);
enum xres insn_sysret(struct xcpu *x, struct insn *in);
enum xres insn_sysenter(struct xcpu *x, struct insn *in);
enum xres insn_sysexit(struct xcpu *x, struct insn *in);
enum xres insn_cli(struct xcpu *x, struct insn *in);
enum xres insn_sti(struct xcpu *x, struct insn *in);
enum xres insn_pushf(struct xcpu *x, struct insn *in);
enum xres insn_popf(struct xcpu *x, struct insn *in);
enum xres insn_clts(struct xcpu *x, struct insn *in);
enum xres insn_hlt(struct xcpu *x, struct insn *in);
enum xres insn_invlpg(struct xcpu *x, struct insn *in);
enum xres insn_invpcid(struct xcpu *x, struct insn *in);
enum xres insn_cache(struct xcpu *x, struct insn *in);
enum xres insn_clflush(struct xcpu *x, struct insn *in);
enum xres insn_rdtsc(struct xcpu *x, struct insn *in);
enum xres insn_rdtscp(struct xcpu *x, struct insn *in);
enum xres insn_rdpmc(struct xcpu *x, struct insn *in);
enum xres insn_rdpid(struct xcpu *x, struct insn *in);
enum xres insn_xgetbv(struct xcpu *x, struct insn *in);
enum xres insn_xsetbv(struct xcpu *x, struct insn *in);
enum xres insn_cpuid(struct xcpu *x, struct insn *in);
enum xres insn_monitor(struct xcpu *x, struct insn *in);
enum xres insn_pause(struct xcpu *x, struct insn *in);
enum xres insn_stac(struct xcpu *x, struct insn *in);
enum xres insn_clac(struct xcpu *x, struct insn *in);
enum xres insn_rdfsbase(struct xcpu *x, struct insn *in);
enum xres insn_wrfsbase(struct xcpu *x, struct insn *in);
enum xres insn_swapgs(struct xcpu *x, struct insn *in);
enum xres insn_in(struct xcpu *x, struct insn *in);
enum xres insn_out(struct xcpu *x, struct insn *in);
enum xres insn_rdrand(struct xcpu *x, struct insn *in);
enum xres insn_lfs(struct xcpu *x, struct insn *in);
enum xres insn_arpl(struct xcpu *x, struct insn *in);
enum xres insn_ud(struct xcpu *x, struct insn *in);
enum xres insn_vmcall(struct xcpu *x, struct insn *in);
enum xres insn_lar(struct xcpu *x, struct insn *in);
enum xres insn_lsl(struct xcpu *x, struct insn *in);
enum xres insn_verr(struct xcpu *x, struct insn *in);
enum xres insn_lldt(struct xcpu *x, struct insn *in);
enum xres insn_ltr(struct xcpu *x, struct insn *in);
enum xres insn_sldt(struct xcpu *x, struct insn *in);
enum xres insn_str(struct xcpu *x, struct insn *in);
enum xres insn_lgdt(struct xcpu *x, struct insn *in);
enum xres insn_sgdt(struct xcpu *x, struct insn *in);
enum xres insn_smsw(struct xcpu *x, struct insn *in);
enum xres insn_lmsw(struct xcpu *x, struct insn *in);
enum xres insn_rdmsr(struct xcpu *x, struct insn *in);
enum xres insn_wrmsr(struct xcpu *x, struct insn *in);

#endif
