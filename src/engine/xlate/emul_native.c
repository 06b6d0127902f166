// SPDX-License-Identifier: Apache-2.0
// Instructions that run on the host as they are: checks of SDM vol. 2A 2.4 and vol. 3A 13 first, then a thunk.
//
// Nothing of the guest changes before the memory operand has been read, or found writable. Host signals inside a thunk
// (#XM, #MF, #GP from LDMXCSR) become the guest's faults: native_handle_sigfpe moves the thread to the thunk's end.
// The x87 instruction pointers that the host keeps are those of the thunk; native_fix_pointers corrects them when the
// state is saved.
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#undef X_OK // access(2)'s, not ours

#include "engine/xlate/cache.h"
#include "engine/xlate/thunk.h"

#define THUNK_COUNT 256u
#define THUNK_BYTES ((size_t)THUNK_SIZE * THUNK_COUNT)

struct native_ctx {
    struct thunk_frame frame;
    uint8_t *rw, *rx; // the thunks' code, mapped twice; never writable and executable at one address
    struct thunk thunk[THUNK_COUNT];
    int signal_vector; // set by the signal handler: enum x86_vector, -1 none
    // Guest's FIP and FDP of the last x87 instruction in a thunk, and the opcode's ModRM that was replaced.
    uint64_t fip, fdp;
    uint16_t fop;
};

int native_init(struct xcpu *x) {
    struct native_ctx *n = aligned_alloc(64, (sizeof(*n) + 63) & ~(size_t)63);
    int fd = -1, err = 0;

    if (!n)
        return -ENOMEM;
    for (size_t i = 0; i < sizeof(*n); i++)
        ((volatile uint8_t *)n)[i] = 0;
    n->rw = n->rx = MAP_FAILED;
    fd = memfd_create("cicada-thunks", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)THUNK_BYTES) < 0)
        goto fail;
    n->rw = mmap(NULL, THUNK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    n->rx = mmap(NULL, THUNK_BYTES, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    if (n->rw == MAP_FAILED || n->rx == MAP_FAILED)
        goto fail;
    close(fd);
    n->signal_vector = -1;
    x->native = n;
    return 0;
fail:
    err = -errno;
    if (fd >= 0)
        close(fd);
    x->native = n;
    native_destroy(x);
    return err;
}

void native_destroy(struct xcpu *x) {
    struct native_ctx *n = x->native;

    if (!n)
        return;
    if (n->rw != MAP_FAILED)
        munmap(n->rw, THUNK_BYTES);
    if (n->rx != MAP_FAILED)
        munmap(n->rx, THUNK_BYTES);
    free(n);
    x->native = NULL;
}

// ---- signals ----

bool native_handle_sigfpe(struct xcpu *x, ucontext_t *uc) {
    struct native_ctx *n = x->native;
    uint64_t off;

    if (!n)
        return false;
    off = (uint64_t)uc->uc_mcontext.gregs[REG_RIP] - (uint64_t)n->rx;
    if (off >= THUNK_BYTES)
        return false;
    switch (uc->uc_mcontext.gregs[REG_TRAPNO]) {
    case X86_XM: n->signal_vector = X86_XM; break;
    case X86_MF: n->signal_vector = X86_MF; break;
    case X86_UD: n->signal_vector = X86_UD; break;
    case X86_GP:
    case X86_SS_FAULT:
    case X86_PF:
    case X86_AC: n->signal_vector = X86_GP; break;
    default: return false;
    }
    uc->uc_mcontext.gregs[REG_RIP] =
        (greg_t)(n->rx + off / THUNK_SIZE * THUNK_SIZE + n->thunk[off / THUNK_SIZE].exit_off);
    return true;
}

static enum xres signal_fault(struct xcpu *x, int vector) {
    switch (vector) {
    case X86_GP: return gp0(x);
    case X86_XM: return x->s.cr4 & CR4_OSXMMEXCPT ? fault_raise(x, X86_XM) : ud(x);
    default: return fault_raise(x, (enum x86_vector)vector);
    }
}

// ---- what an instruction needs ----

static unsigned unit_of_register(ZydisRegister reg) {
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_X87: return FP_X87;
    case ZYDIS_REGCLASS_MMX: return FP_MMX;
    case ZYDIS_REGCLASS_XMM: return FP_SSE;
    case ZYDIS_REGCLASS_YMM: return FP_AVX;
    default: return 0;
    }
}

static bool converts_to_gpr(ZydisMnemonic m) {
    return m == ZYDIS_MNEMONIC_CVTSS2SI || m == ZYDIS_MNEMONIC_CVTTSS2SI || m == ZYDIS_MNEMONIC_CVTSD2SI ||
           m == ZYDIS_MNEMONIC_CVTTSD2SI;
}

static unsigned units_of(const struct insn *in) {
    bool vex = in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    unsigned k = 0;

    switch (in->z.meta.isa_set) {
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_SSE3X87: return in->z.mnemonic == ZYDIS_MNEMONIC_FWAIT ? FP_WAIT : FP_X87;
    case ZYDIS_ISA_SET_PENTIUMMMX: k = FP_MMX; break; // EMMS has no operand
    case ZYDIS_ISA_SET_SSEMXCSR: k = FP_SSE; break;
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSE2: k = converts_to_gpr(in->z.mnemonic) ? FP_SSE : 0; break; // [memory] names no register
    case ZYDIS_ISA_SET_AVX: k = FP_AVX; break;                                        // VZEROUPPER
    case ZYDIS_ISA_SET_BMI1:
    case ZYDIS_ISA_SET_BMI2: return vex ? FP_VEX_GPR : 0;
    default: break;
    }
    for (unsigned i = 0; i < in->z.operand_count; i++)
        if (in->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER)
            k |= unit_of_register(in->op[i].reg.value);
    return vex ? FP_AVX : k;
}

// Alignment that the memory operand must have, 1 for none (SDM vol. 2A 2.4, exception types 1, 2, 4).
static unsigned required_alignment(const struct insn *in, unsigned bytes) {
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTDQA:
    case ZYDIS_MNEMONIC_VMOVNTPS:
    case ZYDIS_MNEMONIC_VMOVNTPD: return bytes;
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM: return 1;
    default: return in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && bytes == 16 ? 16 : 1;
    }
}

struct mem_operand {
    bool present, read, write;
    unsigned bytes;
    enum x86_seg seg;
    uint64_t ea, lin;
};

static enum xres mem_operand_prepare(struct xcpu *x, struct insn *in, struct mem_operand *m) {
    for (unsigned i = 0; i < in->z.operand_count && !m->present; i++) {
        const ZydisDecodedOperand *op = &in->op[i];

        if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || op->mem.type != ZYDIS_MEMOP_TYPE_MEM)
            continue;
        *m = (struct mem_operand){.present = true, .seg = insn_seg(op), .ea = insn_ea(x, in, op)};
        m->bytes = op->size / 8u;
        m->read = op->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
        m->write = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    }
    if (!m->present)
        return X_OK;
    if (m->bytes > sizeof(x->native->frame.bounce))
        return ud(x);
    // Alignment first, as processors have it: before #SS, #PF and #GP of the address.
    if ((x->s.seg[m->seg].base + m->ea) & (required_alignment(in, m->bytes) - 1))
        return gp0(x);
    TRY(seg_access(x, m->seg, m->ea, m->bytes, m->write ? MMU_WRITE : MMU_READ, &m->lin));
    if (m->write)
        TRY(mmu_probe(x, m->lin, m->bytes, MMU_WRITE));
    if (m->read)
        TRY(mmu_read(x, m->lin, x->native->frame.bounce, m->bytes, m->write ? MMU_RMW : MMU_READ));
    return X_OK;
}

// ---- running ----

static unsigned hash(const struct insn *in) {
    uint32_t h = 2166136261u;

    for (unsigned i = 0; i < in->z.length; i++)
        h = (h ^ in->bytes[i]) * 16777619u;
    return (h ^ h >> 15) % THUNK_COUNT;
}

static bool thunk_is_for(const struct thunk *t, const struct insn *in, bool code64) {
    if (t->length != in->z.length || t->code64 != code64)
        return false;
    for (unsigned i = 0; i < t->length; i++)
        if (t->bytes[i] != in->bytes[i])
            return false;
    return true;
}

// The slot for the instruction, filled; NULL if it cannot be encoded.
static struct thunk *thunk_get(struct xcpu *x, const struct insn *in, bool implicit_mem) {
    struct native_ctx *n = x->native;
    unsigned slot = hash(in);
    struct thunk *t = &n->thunk[slot];

    if (thunk_is_for(t, in, cpu_64bit(x)))
        return t;
    t->length = 0;
    t->code64 = cpu_64bit(x);
    if (!thunk_generate(t, in, implicit_mem, n->rw + slot * THUNK_SIZE))
        return NULL;
    for (unsigned i = 0; i < in->z.length; i++)
        t->bytes[i] = in->bytes[i];
    t->length = in->z.length;
    return t;
}

static enum xres thunk_run(struct xcpu *x, const struct thunk *t) {
    struct native_ctx *n = x->native;
    uint8_t *code = n->rx + (size_t)(t - n->thunk) * THUNK_SIZE;

    for (unsigned i = 0; i < 16; i++)
        if (t->regs >> i & 1)
            n->frame.gpr[i] = x->s.gpr[i];
    n->frame.rflags = (x->s.rflags & RFLAGS_ARITH) | RFLAGS_FIXED1;
    n->signal_vector = -1;
    ((void (*)(struct thunk_frame *))code)(&n->frame);
    __asm__ volatile("" ::: "memory");
    return n->signal_vector < 0 ? X_OK : signal_fault(x, n->signal_vector);
}

static void thunk_commit(struct xcpu *x, const struct thunk *t) {
    struct native_ctx *n = x->native;

    for (unsigned i = 0; i < 16; i++)
        if (t->writes >> i & 1)
            x->s.gpr[i] = n->frame.gpr[i];
    x->s.rflags = (x->s.rflags & ~RFLAGS_ARITH) | (n->frame.rflags & RFLAGS_ARITH);
}

// ---- x87 ----

// Instructions that leave the x87 instruction and data pointers alone (SDM vol. 1 8.1.8).
static bool x87_control(ZydisMnemonic m) {
    switch (m) {
    case ZYDIS_MNEMONIC_FNINIT:
    case ZYDIS_MNEMONIC_FNCLEX:
    case ZYDIS_MNEMONIC_FLDCW:
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTSW:
    case ZYDIS_MNEMONIC_FENI8087_NOP:
    case ZYDIS_MNEMONIC_FDISI8087_NOP:
    case ZYDIS_MNEMONIC_FSETPM287_NOP:
    case ZYDIS_MNEMONIC_FWAIT: return true;
    default: return false;
    }
}

// FWAIT raises by itself; the others with N in their name and operand do not wait.
static bool x87_waits(ZydisMnemonic m) {
    switch (m) {
    case ZYDIS_MNEMONIC_FNINIT:
    case ZYDIS_MNEMONIC_FNCLEX:
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTSW:
    case ZYDIS_MNEMONIC_FENI8087_NOP:
    case ZYDIS_MNEMONIC_FDISI8087_NOP:
    case ZYDIS_MNEMONIC_FSETPM287_NOP: return false;
    default: return true;
    }
}

// An unmasked exception waits in the live x87 state.
static bool x87_pending(void) {
    uint16_t sw;

    __asm__ volatile("fnstsw %0" : "=m"(sw));
    return sw & 0x80;
}

static void x87_note(struct xcpu *x, const struct insn *in, const struct mem_operand *m) {
    struct native_ctx *n = x->native;

    n->fip = in->rip;
    n->fop = (uint16_t)((in->z.opcode & 7) << 8 |
                        (in->z.raw.modrm.mod << 6 | in->z.raw.modrm.reg << 3 | in->z.raw.modrm.rm));
    if (m->present)
        n->fdp = m->ea;
}

static bool is_host_address(const struct xcpu *x, uint64_t a) {
    unsigned n;
    const struct mem_slot *s = mem_slots(x->engine_mem, &n);

    for (unsigned i = 0; i < n; i++)
        if (a - (uint64_t)s[i].hva < s[i].size)
            return true;
    return a - (uint64_t)x < sizeof(*x);
}

void native_fix_pointers(struct xcpu *x) {
    struct native_ctx *n = x->native;
    uint64_t *fip = (uint64_t *)(x->s.xsave + XS_FIP), *fdp = (uint64_t *)(x->s.xsave + XS_FDP);

    if (!n)
        return;
    if (*fip - (uint64_t)n->rx < THUNK_BYTES) {
        *fip = n->fip;
        if (fp_get16(x, XS_FOP))
            fp_set16(x, XS_FOP, n->fop);
    }
    if (*fdp == (uint64_t)n->frame.bounce)
        *fdp = n->fdp;
    // Translated code: the instruction is found again; its operand is not, and the host's address is no answer.
    if (cache_guest_pc(x, *fip, fip) && is_host_address(x, *fdp))
        *fdp = 0;
}

// An x87 store with an unmasked exception that comes before the store leaves memory alone (SDM vol. 1 8.7).
static bool x87_store_suppressed(void) {
    uint16_t sw, cw;

    __asm__ volatile("fnstsw %0\n\tfnstcw %1" : "=m"(sw), "=m"(cw));
    return sw & ~cw & 0x1f;
}

static bool x87_is_store(const struct insn *in) {
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_FST:
    case ZYDIS_MNEMONIC_FSTP:
    case ZYDIS_MNEMONIC_FIST:
    case ZYDIS_MNEMONIC_FISTP:
    case ZYDIS_MNEMONIC_FISTTP:
    case ZYDIS_MNEMONIC_FBSTP: return true;
    default: return false;
    }
}

enum xres emul_native(struct xcpu *x, struct insn *in) {
    unsigned units = units_of(in);
    struct mem_operand m = {0};
    struct thunk *t;

    TRY(fp_check(x, units));
    if (units & ~(unsigned)FP_VEX_GPR)
        fpu_load(x);
    if (units & (FP_X87 | FP_MMX) && x87_waits(in->z.mnemonic) && x87_pending())
        return fault_raise(x, X86_MF); // before any fault of the memory operand
    TRY(mem_operand_prepare(x, in, &m));
    t = thunk_get(x, in, false);
    if (!t)
        return ud(x);
    if (units & ~(unsigned)FP_VEX_GPR)
        fpu_load(x); // an access of a device has saved it
    if (units == FP_X87 && !x87_control(in->z.mnemonic))
        x87_note(x, in, &m);
    TRY(thunk_run(x, t));
    if (m.write && !(x87_is_store(in) && x87_store_suppressed()))
        TRY(mmu_write(x, m.lin, x->native->frame.bounce, m.bytes, MMU_WRITE));
    thunk_commit(x, t);
    return X_OK;
}

// ---- MASKMOVQ, MASKMOVDQU ----

static enum xres masked_run(struct xcpu *x, struct insn *in, unsigned bytes, uint8_t fill) {
    struct native_ctx *n = x->native;
    uint64_t rdi = x->s.gpr[X86_RDI];
    struct thunk *t = thunk_get(x, in, true);
    enum xres r;

    if (!t)
        return ud(x);
    for (unsigned i = 0; i < bytes; i++)
        n->frame.bounce[i] = fill;
    x->s.gpr[X86_RDI] = (uint64_t)n->frame.bounce;
    r = thunk_run(x, t);
    x->s.gpr[X86_RDI] = rdi;
    return r;
}

// Runs twice on different fillings: a byte that comes out the same was written. Only those are written to the guest,
// all probed before the first.
enum xres native_maskmov(struct xcpu *x, struct insn *in) {
    unsigned bytes = in->z.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ? 8 : 16, units = units_of(in), mask = 0;
    const uint8_t *bounce = x->native->frame.bounce;
    uint64_t ea = x->s.gpr[X86_RDI] & addr_mask(in->z.address_width), lin;
    enum x86_seg seg = X86_DS;
    uint8_t val[16];

    TRY(fp_check(x, units));
    for (unsigned i = 0; i < in->z.operand_count; i++)
        if (op_is_mem(in, i))
            seg = insn_seg(&in->op[i]);
    fpu_load(x);
    TRY(masked_run(x, in, bytes, 0));
    for (unsigned i = 0; i < bytes; i++)
        val[i] = bounce[i];
    TRY(masked_run(x, in, bytes, 0xff));
    for (unsigned i = 0; i < bytes; i++)
        mask |= val[i] == bounce[i] ? 1u << i : 0;
    for (unsigned i = 0; i < bytes; i++)
        if (mask >> i & 1) {
            TRY(seg_linear(x, seg, (ea + i) & addr_mask(in->z.address_width), 1, MMU_WRITE, &lin));
            TRY(mmu_probe(x, lin, 1, MMU_WRITE));
        }
    for (unsigned i = 0; i < bytes; i++)
        if (mask >> i & 1)
            TRY(seg_write(x, seg, (ea + i) & addr_mask(in->z.address_width), &val[i], 1, MMU_WRITE));
    return X_OK;
}
