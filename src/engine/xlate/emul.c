// SPDX-License-Identifier: Apache-2.0
// Decoding, the decode cache, and one step of the emulator.
//
// A cached instruction is used again only if the bytes at its address are still the same, so the cache needs no
// invalidation: it saves Zydis (which uses vector registers, so the guest's would have to be saved), nothing else.
#include <stdlib.h>

#include "engine/xlate/emul_int.h"

#define EMUL_CACHE_SIZE 1024u
#define INSN_MAX        15u

// What decides the meaning of bytes: index into emul_cache.decoder.
enum dec_mode { DEC_64, DEC_32_SS32, DEC_32_SS16, DEC_16_SS16, DEC_16_SS32, DEC_REAL, DEC_REAL_SS32, DEC_MODES };

struct emul_slot {
    uint64_t lin;
    uint8_t mode;   // enum dec_mode
    uint8_t length; // 0: empty
    struct insn in;
};

struct emul_cache {
    bool ready;
    bool allowed[ZYDIS_ISA_SET_MAX_VALUE + 1];
    ZydisDecoder decoder[DEC_MODES];
    struct emul_slot slot[EMUL_CACHE_SIZE];
};

struct emul_cache *emul_cache_create(void) {
    emul_table_init();
    return calloc(1, sizeof(struct emul_cache));
}

void emul_cache_destroy(struct emul_cache *c) {
    free(c);
}

static void decoder_init(ZydisDecoder *d, ZydisMachineMode mode, ZydisStackWidth stack, bool lzcnt, bool tzcnt) {
    ZydisDecoderInit(d, mode, stack);
    // Sets that no guest is offered decode as the NOPs (or BSF, BSR, WBINVD) that they are on older processors.
    ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
    ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
    ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_FALSE);
    ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
    ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_LZCNT, lzcnt);
    ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_TZCNT, tzcnt);
}

static void cache_prepare(struct xcpu *x, struct emul_cache *c) {
    static const struct {
        ZydisMachineMode mode;
        ZydisStackWidth stack;
    } modes[DEC_MODES] = {
        [DEC_64] = {ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64},
        [DEC_32_SS32] = {ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
        [DEC_32_SS16] = {ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_16},
        [DEC_16_SS16] = {ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
        [DEC_16_SS32] = {ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_32},
        [DEC_REAL] = {ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16},
        [DEC_REAL_SS32] = {ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_32},
    };

    isa_fill(xcpu_policy(x), c->allowed);
    for (unsigned i = 0; i < DEC_MODES; i++)
        decoder_init(&c->decoder[i], modes[i].mode, modes[i].stack, c->allowed[ZYDIS_ISA_SET_LZCNT],
                     c->allowed[ZYDIS_ISA_SET_BMI1]);
    c->ready = true;
}

static enum dec_mode current_mode(const struct xcpu *x) {
    if (x->code_bits == 64)
        return DEC_64;
    if (x->code_bits == 32)
        return x->stack_bits == 16 ? DEC_32_SS16 : DEC_32_SS32;
    if (!cpu_protected(x) || cpu_vm86(x))
        return x->stack_bits == 16 ? DEC_REAL : DEC_REAL_SS32;
    return x->stack_bits == 16 ? DEC_16_SS16 : DEC_16_SS32;
}

// Linear address of RIP and how many bytes the code segment allows there.
static enum xres fetch_window(struct xcpu *x, uint64_t *lin, unsigned *max) {
    const struct x86_segment *cs = &x->s.seg[X86_CS];
    uint64_t rip = x->s.rip;

    *max = INSN_MAX;
    if (cpu_64bit(x)) {
        *lin = rip;
        return is_canonical(rip) ? X_OK : gp0(x);
    }
    if (rip > cs->limit)
        return gp0(x);
    if (cs->limit != UINT32_MAX && cs->limit - rip < INSN_MAX) // a segment of 4 GiB goes on at offset 0
        *max = (unsigned)(cs->limit - rip) + 1;
    *lin = (uint32_t)(cs->base + rip);
    return X_OK;
}

static bool bytes_equal(const uint8_t *a, const uint8_t *b, unsigned n) {
    for (unsigned i = 0; i < n; i++)
        if (a[i] != b[i])
            return false;
    return true;
}

// Why Zydis did not take the bytes.
static enum xres decode_error(struct xcpu *x, ZyanStatus status, uint64_t lin, unsigned got, unsigned max) {
    if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
        return gp0(x);
    if (status != ZYDIS_STATUS_NO_MORE_DATA)
        return ud(x);
    if (got == max) // the limit of the code segment, or 15 bytes
        return gp0(x);
    TRY(mmu_fetch_fault(x, lin + got));
    return gp0(x); // the page was mapped meanwhile; never seen on hardware, but never loop here
}

static enum xres decode_fresh(struct xcpu *x, struct emul_cache *c, struct emul_slot *slot, enum dec_mode mode,
                              const uint8_t *buf, unsigned got, unsigned max, uint64_t lin) {
    struct insn *in = &slot->in;
    ZyanStatus status;

    slot->length = 0;
    fpu_save(x);
    if (!c->ready)
        cache_prepare(x, c);
    status = ZydisDecoderDecodeFull(&c->decoder[mode], buf, got, &in->z, in->op);
    if (!ZYAN_SUCCESS(status))
        return decode_error(x, status, lin, got, max);
    if (!c->allowed[in->z.meta.isa_set])
        return ud(x);
    for (unsigned i = 0; i < in->z.length; i++)
        in->bytes[i] = buf[i];
    in->lock = in->z.attributes & ZYDIS_ATTRIB_HAS_LOCK;
    slot->lin = lin;
    slot->mode = (uint8_t)mode;
    slot->length = in->z.length;
    return X_OK;
}

enum xres emul_decode_ref(struct xcpu *x, struct insn **out) {
    struct emul_cache *c = x->emul_cache;
    uint8_t buf[INSN_MAX];
    unsigned max, got = 0;
    uint64_t lin = 0;

    TRY(fetch_window(x, &lin, &max));
    TRY(mmu_fetch(x, lin, buf, max, &got));
    struct emul_slot *slot = &c->slot[(lin ^ lin >> 10) % EMUL_CACHE_SIZE];
    enum dec_mode mode = current_mode(x);
    if (slot->lin != lin || slot->mode != mode || !slot->length || slot->length > got ||
        !bytes_equal(slot->in.bytes, buf, slot->length))
        TRY(decode_fresh(x, c, slot, mode, buf, got, max, lin));
    slot->in.rip = x->s.rip;
    slot->in.next_rip = (x->s.rip + slot->length) & addr_mask(x->code_bits);
    *out = &slot->in;
    return X_OK;
}

enum xres emul_decode(struct xcpu *x, struct insn *in) {
    struct insn *ref;

    TRY(emul_decode_ref(x, &ref));
    *in = *ref;
    return X_OK;
}

static bool is_string(const struct insn *in) {
    return in->z.meta.category == ZYDIS_CATEGORY_STRINGOP || in->z.meta.category == ZYDIS_CATEGORY_IOSTRINGOP;
}

// RIP is moved first, so that an instruction that goes somewhere simply overwrites it (a jump to itself included).
// RF is cleared by every instruction that completes, except those that load it (SDM vol. 3B 18.3.1.1).
enum xres emul_exec(struct xcpu *x, struct insn *in) {
    uint64_t rf = x->s.rflags & RFLAGS_RF;
    enum xres r;

    x->s.rip = in->next_rip;
    x->s.rflags &= ~RFLAGS_RF;
    r = emul_lookup(in)(x, in);
    if (r == X_FAULT) {
        x->s.rip = in->rip;
        x->s.rflags |= rf;
    } else if (rf && x->s.rip == in->rip && is_string(in)) {
        x->s.rflags |= rf; // to be repeated
    }
    return r;
}

static enum xres step_insn(struct xcpu *x) {
    struct insn *in;

    if (x->s.dr7 & DR7_ENABLE_MASK)
        TRY(debug_before(x, cpu_64bit(x) ? x->s.rip : (uint32_t)(x->s.seg[X86_CS].base + x->s.rip)));
    x->s.intr_shadow = 0; // ends with this instruction, which may open a new one
    TRY(emul_decode_ref(x, &in));
    return emul_exec(x, in);
}

enum xres emul_step(struct xcpu *x) {
    bool tf = x->s.rflags & RFLAGS_TF;
    enum xres r;

    r = step_insn(x);
    if (r == X_FAULT)
        return intr_deliver_fault(x);
    if (tf || x->s.debug_pending || (x->s.dr7 & DR7_ENABLE_MASK))
        debug_after(x, tf);
    return r;
}
