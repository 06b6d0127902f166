// SPDX-License-Identifier: Apache-2.0
// Operands of the emulator: general registers, segments, memory, the stack. All sizes in bytes.
#include "engine/xlate/debugger.h"
#include "engine/xlate/emul_int.h"

// ---- general registers ----

unsigned gpr_index(ZydisRegister reg) {
    if (reg >= ZYDIS_REGISTER_RAX)
        return (unsigned)(reg - ZYDIS_REGISTER_RAX);
    if (reg >= ZYDIS_REGISTER_EAX)
        return (unsigned)(reg - ZYDIS_REGISTER_EAX);
    return (unsigned)(reg - ZYDIS_REGISTER_AX);
}

uint64_t gpr_read(const struct xcpu *x, unsigned reg, unsigned bytes) {
    return x->s.gpr[reg] & mask_bytes(bytes);
}

void gpr_write(struct xcpu *x, unsigned reg, unsigned bytes, uint64_t val) {
    uint64_t m = mask_bytes(bytes);

    if (bytes == 4)
        x->s.gpr[reg] = val & m;
    else
        x->s.gpr[reg] = (x->s.gpr[reg] & ~m) | (val & m);
}

// Byte registers in Zydis's order: AL CL DL BL AH CH DH BH SPL BPL SIL DIL R8B..R15B.
static unsigned gpr8_index(ZydisRegister reg, unsigned *shift) {
    unsigned n = (unsigned)(reg - ZYDIS_REGISTER_AL);

    *shift = n >= 4 && n < 8 ? 8 : 0;
    return n < 4 ? n : n - 4;
}

static unsigned gpr_bytes(ZydisRegister reg) {
    return reg >= ZYDIS_REGISTER_RAX ? 8 : reg >= ZYDIS_REGISTER_EAX ? 4 : reg >= ZYDIS_REGISTER_AX ? 2 : 1;
}

uint64_t reg_read(struct xcpu *x, ZydisRegister reg) {
    unsigned bytes = gpr_bytes(reg), shift;

    if (bytes > 1)
        return gpr_read(x, gpr_index(reg), bytes);
    unsigned n = gpr8_index(reg, &shift);
    return x->s.gpr[n] >> shift & 0xff;
}

void reg_write(struct xcpu *x, ZydisRegister reg, uint64_t val) {
    unsigned bytes = gpr_bytes(reg), shift;

    if (bytes > 1) {
        gpr_write(x, gpr_index(reg), bytes, val);
        return;
    }
    unsigned n = gpr8_index(reg, &shift);
    x->s.gpr[n] = (x->s.gpr[n] & ~(0xffull << shift)) | (val & 0xff) << shift;
}

// ---- segments ----

enum x86_seg insn_seg(const ZydisDecodedOperand *op) {
    ZydisRegister seg = op->mem.segment;

    return seg >= ZYDIS_REGISTER_ES && seg <= ZYDIS_REGISTER_GS ? (enum x86_seg)(seg - ZYDIS_REGISTER_ES) : X86_DS;
}

uint64_t insn_ea(struct xcpu *x, struct insn *in, const ZydisDecodedOperand *op) {
    const ZydisDecodedOperandMem *m = &op->mem;
    uint64_t ea = (uint64_t)m->disp.value;

    if (m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP)
        ea += in->next_rip;
    else if (m->base != ZYDIS_REGISTER_NONE)
        ea += reg_read(x, m->base);
    if (m->index != ZYDIS_REGISTER_NONE)
        ea += reg_read(x, m->index) * m->scale;
    return ea & addr_mask(in->z.address_width);
}

static enum xres seg_fault(struct xcpu *x, enum x86_seg seg) {
    return fault_raise_err(x, seg == X86_SS ? X86_SS_FAULT : X86_GP, 0);
}

// Type rules of SDM vol. 3A 5.5 for data accesses in protected mode.
static bool seg_type_ok(uint32_t attr, bool write) {
    unsigned type = SEG_TYPE(attr);

    if (type & 8) // code: never written; read only if readable
        return !write && (type & 2);
    return !write || (type & 2);
}

// First and last valid offset (SDM vol. 3A 5.3); false if there is none.
static bool seg_bounds(const struct x86_segment *s, uint64_t *first, uint64_t *last) {
    bool expand_down = (SEG_TYPE(s->attr) & 0xc) == 4;

    *first = 0;
    *last = s->limit;
    if (!expand_down)
        return true;
    *first = (uint64_t)s->limit + 1;
    *last = s->attr & SEG_DB ? 0xffffffff : 0xffff;
    return *first <= *last;
}

static bool seg_usable(struct xcpu *x, enum x86_seg seg, bool write) {
    const struct x86_segment *s = &x->s.seg[seg];

    if (!cpu_protected(x) || cpu_vm86(x))
        return true;
    return !(s->attr & SEG_UNUSABLE) && seg_type_ok(s->attr, write);
}

static enum xres linear64(struct xcpu *x, enum x86_seg seg, uint64_t off, unsigned size, uint64_t *lin) {
    uint64_t a = off;

    if (seg == X86_FS || seg == X86_GS)
        a += x->s.seg[seg].base;
    if (__builtin_expect(!is_canonical(a) || !is_canonical(a + size - 1), 0))
        return seg_fault(x, seg);
    *lin = a;
    return X_OK;
}

enum xres seg_linear(struct xcpu *x, enum x86_seg seg, uint64_t off, unsigned size, unsigned mmu_flags, uint64_t *lin) {
    if (cpu_64bit(x))
        return linear64(x, seg, off, size, lin);

    const struct x86_segment *s = &x->s.seg[seg];
    uint64_t first, last;

    if (!seg_usable(x, seg, mmu_flags & (MMU_WRITE | MMU_RMW)) || !seg_bounds(s, &first, &last) || off < first ||
        off + size - 1 > last)
        return seg_fault(x, seg);
    *lin = (uint32_t)(s->base + off);
    return X_OK;
}

unsigned seg_room(struct xcpu *x, enum x86_seg seg, uint64_t off, unsigned addr_bits, bool write) {
    uint64_t first = 0, last = addr_mask(addr_bits), room;

    if (!cpu_64bit(x)) {
        uint64_t seg_last;

        if (!seg_usable(x, seg, write) || !seg_bounds(&x->s.seg[seg], &first, &seg_last))
            return 0;
        if (seg_last < last)
            last = seg_last;
    }
    if (off < first || off > last)
        return 0;
    room = last - off;
    return room >= PAGE_SIZE ? (unsigned)PAGE_SIZE : (unsigned)room + 1;
}

// ---- memory ----

// Alignment check (SDM vol. 3A 6.15, interrupt 17): user mode, CR0.AM, RFLAGS.AC; operands of 2, 4 and 8 bytes, and
// of 10, which want 8.
static bool misaligned(const struct xcpu *x, uint64_t lin, unsigned size, unsigned flags) {
    if (__builtin_expect(!(x->s.rflags & RFLAGS_AC) || x->cpl != 3, 1))
        return false;
    if (size == 10)
        size = 8;
    return (x->s.cr0 & CR0_AM) && !(flags & MMU_SYSTEM) && size <= 8 && !(size & (size - 1)) && (lin & (size - 1));
}

static enum xres access_check(struct xcpu *x, enum x86_seg seg, uint64_t off, unsigned size, unsigned flags,
                              uint64_t *lin) {
    TRY(seg_linear(x, seg, off, size, flags, lin));
    if (misaligned(x, *lin, size, flags))
        return fault_raise_err(x, X86_AC, 0);
    return X_OK;
}

static inline void access_report(struct xcpu *x, uint64_t lin, unsigned size, bool write) {
    if (__builtin_expect(debug_data_active(x), 0))
        debug_data_access(x, lin, size, write);
    if (__builtin_expect(x->engine->debugger.watchpoints, 0))
        debugger_access(x, lin, size, write);
}

enum xres seg_access(struct xcpu *x, enum x86_seg seg, uint64_t off, unsigned size, unsigned flags, uint64_t *lin) {
    TRY(access_check(x, seg, off, size, flags, lin));
    access_report(x, *lin, size, flags & (MMU_WRITE | MMU_RMW));
    return X_OK;
}

enum xres seg_read(struct xcpu *x, enum x86_seg seg, uint64_t off, void *buf, unsigned size, unsigned mmu_flags) {
    uint64_t lin;

    TRY(access_check(x, seg, off, size, mmu_flags, &lin));
    TRY(mmu_read(x, lin, buf, size, mmu_flags));
    access_report(x, lin, size, false);
    return X_OK;
}

enum xres seg_write(struct xcpu *x, enum x86_seg seg, uint64_t off, const void *buf, unsigned size,
                    unsigned mmu_flags) {
    uint64_t lin;

    TRY(access_check(x, seg, off, size, mmu_flags | MMU_WRITE, &lin));
    TRY(mmu_write(x, lin, buf, size, mmu_flags | MMU_WRITE));
    access_report(x, lin, size, true);
    return X_OK;
}

enum xres op_read(struct xcpu *x, struct insn *in, unsigned i, uint64_t *val) {
    const ZydisDecodedOperand *op = &in->op[i];

    *val = 0;
    if (op->type == ZYDIS_OPERAND_TYPE_REGISTER)
        *val = reg_read(x, op->reg.value);
    else if (op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        *val = op->imm.value.u;
    else
        return seg_read(x, insn_seg(op), insn_ea(x, in, op), val, op->size / 8u, MMU_READ);
    return X_OK;
}

enum xres op_write(struct xcpu *x, struct insn *in, unsigned i, uint64_t val) {
    const ZydisDecodedOperand *op = &in->op[i];

    if (op->type == ZYDIS_OPERAND_TYPE_MEMORY)
        return seg_write(x, insn_seg(op), insn_ea(x, in, op), &val, op->size / 8u, MMU_WRITE);
    reg_write(x, op->reg.value, val);
    return X_OK;
}

// ---- read-modify-write ----

#define CAS_CASE(n, type)                                                                                              \
    case n: {                                                                                                          \
        type was = (type)*old, now = (type)val;                                                                        \
        bool ok = __atomic_compare_exchange_n((type *)host, &was, now, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);     \
        *old = was;                                                                                                    \
        return ok;                                                                                                     \
    }
// LOCK CMPXCHG on the host; *old becomes what is there when it fails. Works over cache lines as the guest's would.
static bool host_cas(void *host, unsigned size, uint64_t *old, uint64_t val) {
    switch (size) {
        CAS_CASE(1, uint8_t)
        CAS_CASE(2, uint16_t)
        CAS_CASE(4, uint32_t)
        CAS_CASE(8, uint64_t)
    }
    return true;
}

static void host_modify(void *host, unsigned size, alu_fn f, uint64_t src, uint64_t *old, uint64_t *rflags) {
    uint64_t was = 0, flags;

    host_cas(host, size, &was, 0); // reads; 0 -> 0 changes nothing
    do {
        flags = *rflags;
    } while (!host_cas(host, size, &was, f(was, src, size, &flags)));
    *old = was;
    *rflags = flags;
}

static enum xres plain_modify(struct xcpu *x, uint64_t lin, unsigned size, alu_fn f, uint64_t src, uint64_t *old,
                              uint64_t *rflags) {
    uint64_t was = 0, now;

    TRY(mmu_read(x, lin, &was, size, MMU_RMW));
    now = f(was, src, size, rflags);
    TRY(mmu_write(x, lin, &now, size, MMU_WRITE));
    *old = was;
    return X_OK;
}

static enum xres locked_modify(struct xcpu *x, uint64_t lin, unsigned size, alu_fn f, uint64_t src, uint64_t *old,
                               uint64_t *rflags) {
    void *host = NULL;
    enum xres r;

    smc_writer_enter(x);
    r = mmu_rmw_host(x, lin, size, &host);
    if (r == X_OK && host)
        host_modify(host, size, f, src, old, rflags);
    smc_writer_leave(x);
    if (r != X_OK || host)
        return r;
    emul_lock(x);
    r = plain_modify(x, lin, size, f, src, old, rflags);
    emul_unlock(x);
    return r;
}

enum xres mem_modify(struct xcpu *x, enum x86_seg seg, uint64_t off, unsigned size, bool locked, alu_fn f, uint64_t src,
                     uint64_t *old) {
    uint64_t lin, was, flags = x->s.rflags;

    TRY(access_check(x, seg, off, size, MMU_RMW, &lin));
    if (locked)
        TRY(locked_modify(x, lin, size, f, src, &was, &flags));
    else
        TRY(plain_modify(x, lin, size, f, src, &was, &flags));
    access_report(x, lin, size, true);
    x->s.rflags = flags;
    if (old)
        *old = was;
    return X_OK;
}

enum xres op_modify(struct xcpu *x, struct insn *in, unsigned i, alu_fn f, uint64_t src, uint64_t *old) {
    const ZydisDecodedOperand *op = &in->op[i];

    if (op->type == ZYDIS_OPERAND_TYPE_MEMORY)
        return mem_modify(x, insn_seg(op), insn_ea(x, in, op), op->size / 8u, in->lock, f, src, old);
    uint64_t was = reg_read(x, op->reg.value);
    reg_write(x, op->reg.value, f(was, src, op->size / 8u, &x->s.rflags));
    if (old)
        *old = was;
    return X_OK;
}

// ---- stack ----

uint64_t stack_mask(const struct xcpu *x) {
    return addr_mask(x->stack_bits);
}

void stack_set(struct xcpu *x, uint64_t sp) {
    uint64_t m = stack_mask(x);

    x->s.gpr[X86_RSP] = x->stack_bits == 16 ? (x->s.gpr[X86_RSP] & ~m) | (sp & m) : sp & m;
}

enum xres stack_get(struct xcpu *x, uint64_t sp, uint64_t *val, unsigned size) {
    *val = 0;
    return seg_read(x, X86_SS, sp & stack_mask(x), val, size, MMU_READ);
}

enum xres stack_put(struct xcpu *x, uint64_t sp, uint64_t val, unsigned size) {
    return seg_write(x, X86_SS, sp & stack_mask(x), &val, size, MMU_WRITE);
}

enum xres stack_push(struct xcpu *x, uint64_t val, unsigned size) {
    uint64_t sp = x->s.gpr[X86_RSP] - size;

    TRY(stack_put(x, sp, val, size));
    stack_set(x, sp);
    return X_OK;
}

enum xres stack_pop(struct xcpu *x, uint64_t *val, unsigned size) {
    uint64_t sp = x->s.gpr[X86_RSP];

    TRY(stack_get(x, sp, val, size));
    stack_set(x, sp + size);
    return X_OK;
}
