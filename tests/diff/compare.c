// SPDX-License-Identifier: Apache-2.0
// What must be equal after a run, the few exceptions with their reasons, and the report of a difference.
#include <stdio.h>
#include <string.h>

#include "tests/diff/diff.h"

static const char *const gpr_names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

// ---- what is not compared ----

// Fault or trap within REP CMPS or SCAS: the flags are those from before the instruction (SDM vol. 2 REP), which after
// a restart is any iteration. RF is then set, so that instruction breakpoints do not hit again.
static bool rep_stopped(const struct input *in, const struct outcome *host, const struct test_case *t) {
    struct decoded d;
    uint64_t off = host->rip - t->va;
    return off < t->len && decode(in->mode != MODE_32, t->code + off, t->len - (unsigned)off, &d) &&
           d.z.meta.category == ZYDIS_CATEGORY_STRINGOP &&
           (d.z.attributes & (ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE));
}

// Bits of RFLAGS. In supervisor mode POPF may change more than in the process that is the oracle. A fault in the
// middle of a block shows arithmetic flags that nothing reads any more (docs/ENGINE.md), unless exact flags are asked
// for.
static uint64_t flags_compared(const struct input *in, const struct outcome *host, unsigned engine,
                               const struct test_case *t) {
    uint64_t m = ~0ull;
    if (in->mode == MODE_64_KERNEL)
        m &= ~(RFLAGS_IF | RFLAGS_IOPL | RFLAGS_VIF | RFLAGS_VIP);
    if (engine == ENGINE_DEFAULT && host->rip >= t->va && host->rip < t->va + t->len)
        m &= ~RFLAGS_ARITH;
    if (rep_stopped(in, host, t))
        m &= ~(RFLAGS_ARITH | RFLAGS_RF);
    return m;
}

// Bits of a page fault's error code: the process runs at CPL 3 always; Linux sets P for addresses of its own half.
static uint32_t error_compared(const struct input *in, const struct outcome *host) {
    uint32_t m = ~0u;
    if (host->vector != X86_PF)
        return m;
    if (in->mode == MODE_64_KERNEL)
        m &= ~4u;
    if (host->cr2 >= 0x7ffffffff000)
        m &= ~1u;
    return m;
}

// Instructions of several accesses, whose order, and so the first bad address in the page, is the processor's own; and
// what is left in the registers when they fault.
static bool many_accesses(ZydisMnemonic m) {
    switch (m) {
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_CMPSB:
    case ZYDIS_MNEMONIC_CMPSW:
    case ZYDIS_MNEMONIC_CMPSD:
    case ZYDIS_MNEMONIC_CMPSQ:
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD:
    case ZYDIS_MNEMONIC_ENTER:
    case ZYDIS_MNEMONIC_BOUND: return true;
    default: return false;
    }
}

static bool x87_store(ZydisMnemonic m) {
    return m == ZYDIS_MNEMONIC_FST || m == ZYDIS_MNEMONIC_FSTP || m == ZYDIS_MNEMONIC_FIST ||
           m == ZYDIS_MNEMONIC_FISTP || m == ZYDIS_MNEMONIC_FISTTP || m == ZYDIS_MNEMONIC_FBSTP;
}

// The instruction that the host or the guest stopped at; of a test of one instruction that one.
static bool stopped_at(const struct input *in, const struct outcome *host, const struct outcome *got,
                       const struct test_case *t, struct decoded *d) {
    uint64_t at = host->rip - t->va < t->len && host->rip < got->rip ? host->rip : got->rip;
    unsigned off = t->ninsns == 1 ? 0 : (unsigned)(at - t->va);
    if (t->ninsns != 1 && at - t->va >= t->len)
        return false;
    return decode(in->mode != MODE_32, t->code + off, t->len - off, d);
}

static bool is_branch(const ZydisDecodedInstruction *z) {
    return z->meta.category == ZYDIS_CATEGORY_CALL || z->meta.category == ZYDIS_CATEGORY_RET ||
           z->meta.category == ZYDIS_CATEGORY_UNCOND_BR;
}

static bool is_maskmov(ZydisMnemonic m) {
    return m == ZYDIS_MNEMONIC_MASKMOVQ || m == ZYDIS_MNEMONIC_MASKMOVDQU || m == ZYDIS_MNEMONIC_VMASKMOVDQU;
}

static bool is_gather(const struct decoded *d) {
    return d->z.operand_count > 1 && d->op[1].type == ZYDIS_OPERAND_TYPE_MEMORY &&
           d->op[1].mem.type == ZYDIS_MEMOP_TYPE_VSIB;
}

static bool is_integer(const struct decoded *d) {
    enum insn_class c = insn_classify(&d->z, d->op);
    return c == CLASS_INT || c == CLASS_FLOW || c == CLASS_STRING;
}

static bool is_access_fault(const struct outcome *o) {
    return o->vector == X86_PF || o->vector == X86_GP || o->vector == X86_SS_FAULT;
}

// With a 67 prefix, processors zero-extend RCX even before a first iteration that faults, and for a count of 0.
static bool string_a32(const struct input *in, const struct decoded *d, bool faulted) {
    bool upper = in->gpr[X86_RCX] >> 32 || in->gpr[X86_RSI] >> 32 || in->gpr[X86_RDI] >> 32;
    return d->z.meta.category == ZYDIS_CATEGORY_STRINGOP && d->z.address_width == 32 && in->mode != MODE_32 && upper &&
           (faulted || !(uint32_t)in->gpr[X86_RCX]);
}

#define CANONICAL_END (1ull << 47)

// Outcomes that may differ, the whole of them.
static bool may_differ(const struct input *in, const struct outcome *host, const struct outcome *got,
                       const struct test_case *t) {
    bool faulted = is_access_fault(host), both = faulted && is_access_fault(got);
    struct decoded d;
    bool known = stopped_at(in, host, got, t, &d);
    // Which x87 environments and vectors an alignment check looks at is the processor's own.
    if ((host->vector == X86_AC || got->vector == X86_AC) && (t->ninsns > 1 || !known || !is_integer(&d)))
        return true;
    if (!known)
        return false;
    // A gather may be interrupted by a trap after each element.
    if (host->vector == X86_DB && is_gather(&d))
        return true;
    // An x87 store that raises an unmasked exception accesses no memory; the emulator looks at the memory first.
    if (x87_store(d.z.mnemonic) && is_access_fault(got) && (host->xsave[2] & 0x80))
        return true;
    // A store of 80 bits that faults may have written a part; of converted numbers, have set MXCSR.
    if (both && ((x87_store(d.z.mnemonic) && d.op[0].size == 80) || d.z.mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH))
        return true;
    if (many_accesses(d.z.mnemonic) && is_access_fault(got) && (faulted || host->vector == X86_BR))
        return true;
    // With a mask of zeros, whether there is a fault is the processor's own.
    if (is_maskmov(d.z.mnemonic) && faulted)
        return true;
    // MMX stores that fault may have set TOP and the tags.
    if (both && insn_classify(&d.z, d.op) == CLASS_MMX)
        return true;
    // A branch to an address that is not canonical: #GP is the branch's; CALL may have pushed. Translated code
    // raises it at the target.
    if (is_branch(&d.z) && both && got->vector == X86_GP)
        return true;
    // The emulator looks at memory before it converts.
    if (d.z.mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH && is_access_fault(got) && host->vector == X86_XM)
        return true;
    // How far a gather that faults has come with the upper half of its destination.
    if (both && is_gather(&d))
        return true;
    // Access over the end of 4 GiB: "may or may not cause the exceptions" (SDM vol. 3A 5.3).
    if (in->mode == MODE_32 && both && (host->cr2 >= 0xffff0000 || host->cr2 < 64))
        return true;
    // Access over the end of the lower canonical half: no manual says whether the page's fault or that of the address
    // comes first. Processors that split it (FBLD: 8 bytes and 2) meet the page first.
    if (both && host->vector == X86_PF && host->cr2 > CANONICAL_END - 64 && host->cr2 < CANONICAL_END)
        return true;
    return string_a32(in, &d, faulted);
}

// Not the x87 opcode and operand pointer: translated code has another ModRM byte and other addresses (the engine shows
// 0). The instruction pointer is compared.
static bool xsave_byte_compared(unsigned i) {
    return i < 6 || (i >= 8 && i < 16) || i >= 24;
}

// ---- comparison ----

static bool differs(char *why, size_t size, const char *what, uint64_t got, uint64_t host) {
    snprintf(why, size, "%s is %#lx, the host has %#lx", what, got, host);
    return false;
}

static bool data_equal(const struct outcome *host, const struct outcome *got, char *why, size_t size) {
    if (!memcmp(host->data, got->data, DATA_BYTES))
        return true;
    for (unsigned i = 0; i < DATA_BYTES; i++)
        if (host->data[i] != got->data[i]) {
            char what[40];
            snprintf(what, sizeof(what), "memory at %llx", DATA_VA + i);
            return differs(why, size, what, got->data[i], host->data[i]);
        }
    return true;
}

static void xsave_name(unsigned i, char *out, size_t size) {
    if (i < 24)
        snprintf(out, size, "%s", i < 2 ? "FCW" : i < 4 ? "FSW" : i < 6 ? "FTW" : "FIP");
    else if (i < 32)
        snprintf(out, size, "MXCSR byte %u", i - 24);
    else if (i < 160)
        snprintf(out, size, "ST%u byte %u", (i - 32) / 16, i % 16);
    else if (i < 416)
        snprintf(out, size, "XMM%u byte %u", (i - 160) / 16, i % 16);
    else
        snprintf(out, size, "YMM%u byte %u", (i - 576) / 16, 16 + i % 16);
}

static bool xsave_equal(const uint8_t *host, const uint8_t *got, char *why, size_t size) {
    for (unsigned i = 0; i < X86_XSAVE_SIZE; i++)
        if (host[i] != got[i] && xsave_byte_compared(i)) {
            char what[40];
            xsave_name(i, what, sizeof(what));
            return differs(why, size, what, got[i], host[i]);
        }
    return true;
}

bool outcome_equal(const struct input *in, const struct outcome *host, const struct outcome *got, unsigned engine,
                   const struct test_case *t, char *why, size_t size) {
    if (may_differ(in, host, got, t))
        return true;
    if (got->failure[0])
        return snprintf(why, size, "%s", got->failure), false;
    if (host->vector != got->vector)
        return differs(why, size, "vector", got->vector, host->vector);
    if (host->rip != got->rip)
        return differs(why, size, "RIP", got->rip, host->rip);
    if (host->cr2 != got->cr2)
        return differs(why, size, "CR2", got->cr2, host->cr2);
    if ((host->error ^ got->error) & error_compared(in, host))
        return differs(why, size, "error code", got->error, host->error);
    for (unsigned i = 0; i < 16; i++)
        if (host->gpr[i] != got->gpr[i])
            return differs(why, size, gpr_names[i], got->gpr[i], host->gpr[i]);
    if ((host->rflags ^ got->rflags) & flags_compared(in, host, engine, t))
        return differs(why, size, "RFLAGS", got->rflags, host->rflags);
    return data_equal(host, got, why, size) && xsave_equal(host->xsave, got->xsave, why, size);
}

// ---- report ----

void insn_text(const struct decoded *d, uint64_t rip, char *out, size_t size) {
    ZydisFormatter f;
    ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
    if (!ZYAN_SUCCESS(
            ZydisFormatterFormatInstruction(&f, &d->z, d->op, d->z.operand_count_visible, out, size, rip, NULL)))
        snprintf(out, size, "?");
}

static void print_code(const struct test_case *t, bool is64) {
    for (unsigned i = 0; i < t->ninsns; i++) {
        struct decoded d;
        char text[128] = "?";
        uint64_t rip = t->va + t->offset[i];
        if (decode(is64, t->code + t->offset[i], t->size[i], &d))
            insn_text(&d, rip, text, sizeof(text));
        printf("  %lx: ", rip);
        for (unsigned k = 0; k < t->size[i]; k++)
            printf("%02x", t->code[t->offset[i] + k]);
        printf("  %s\n", text);
    }
}

static void print_outcome(const char *who, const struct outcome *o, const struct input *in) {
    if (o->failure[0]) {
        printf("  %s: %s\n", who, o->failure);
        return;
    }
    printf("  %s: vector %u error %x CR2 %lx RIP %lx RFLAGS %lx\n   ", who, o->vector, o->error, o->cr2, o->rip,
           o->rflags);
    for (unsigned i = 0; i < 16; i++)
        if (o->gpr[i] != in->gpr[i])
            printf(" %s=%lx", gpr_names[i], o->gpr[i]);
    printf("  FCW,FSW,FTW %02x%02x %02x%02x %02x MXCSR %02x%02x\n", o->xsave[1], o->xsave[0], o->xsave[3], o->xsave[2],
           o->xsave[4], o->xsave[25], o->xsave[24]);
}

void case_print(const struct test_case *t, const struct input *in, const struct outcome *host,
                const struct outcome *got, const char *engine, const char *why) {
    printf("%s, %s: %s\n", engine, mode_name(in->mode), why);
    print_code(t, in->mode != MODE_32);
    printf("  in: RFLAGS %lx FS %lx GS %lx\n   ", in->rflags, in->fs_base, in->gs_base);
    for (unsigned i = 0; i < 16; i++)
        printf(" %s=%lx%s", gpr_names[i], in->gpr[i], i == 7 ? "\n   " : "");
    printf("\n    FCW,FSW,FTW %02x%02x %02x%02x %02x MXCSR %02x%02x\n", in->xsave[1], in->xsave[0], in->xsave[3],
           in->xsave[2], in->xsave[4], in->xsave[25], in->xsave[24]);
    print_outcome("host", host, in);
    print_outcome(engine, got, in);
}
