// SPDX-License-Identifier: Apache-2.0
// String instructions (SDM vol. 1 7.3.9, vol. 2 REP): see strings.h.
//
// Work is done in chunks that cross no page on either side. A chunk runs on host pointers with the host's own REP
// instruction of the same element size (so that overlaps come out the same) if both pages are RAM and DF is 0; else
// element by element. Registers are moved after each element or chunk, so they are exact when a fault is raised.
#include "engine/xlate/debugger.h"
#include "engine/xlate/emul_int.h"

// One side of a string instruction.
struct side {
    enum x86_seg seg;
    unsigned reg; // X86_RSI or X86_RDI
    bool write;
};

struct str {
    unsigned elem, addr_bits;
    enum string_rep rep;
    bool src, dst; // which sides there are
    struct side s, d;
};

static uint64_t str_reg(const struct xcpu *x, const struct str *t, unsigned reg) {
    return x->s.gpr[reg] & addr_mask(t->addr_bits);
}

static void str_move(struct xcpu *x, const struct str *t, uint64_t count) {
    uint64_t delta = count * t->elem;
    unsigned bytes = t->addr_bits / 8;

    if (x->s.rflags & RFLAGS_DF)
        delta = -delta;
    if (t->src)
        gpr_write(x, X86_RSI, bytes, x->s.gpr[X86_RSI] + delta);
    if (t->dst)
        gpr_write(x, X86_RDI, bytes, x->s.gpr[X86_RDI] + delta);
    if (t->rep != STR_ONCE)
        gpr_write(x, X86_RCX, bytes, x->s.gpr[X86_RCX] - count);
}

// Elements from this side's pointer to the end of its page, going up.
static uint64_t side_room(struct xcpu *x, const struct str *t, const struct side *p, uint64_t *lin) {
    uint64_t off = str_reg(x, t, p->reg), room = seg_room(x, p->seg, off, t->addr_bits, p->write), page;
    struct xfault saved = x->fault;

    if (room < t->elem)
        return 0;
    if (seg_linear(x, p->seg, off, t->elem, p->write ? MMU_WRITE : MMU_READ, lin) != X_OK) {
        x->fault = saved; // the slow path raises it in its place
        return 0;
    }
    page = PAGE_SIZE - (*lin & ~PAGE_MASK);
    return (room < page ? room : page) / t->elem;
}

static bool single_element(const struct xcpu *x) {
    return (x->s.rflags & RFLAGS_TF) || debug_data_active(x);
}

// The alignment of each element has to be checked.
static bool checks_alignment(const struct xcpu *x) {
    return (x->s.rflags & RFLAGS_AC) && x->cpl == 3 && (x->s.cr0 & CR0_AM);
}

// Could the instruction itself lie in these bytes? RIP stands at it or behind it. The processor sees its own store
// before the next iteration (SDM vol. 3A 11.6), so the chunk ends there.
#define OWN_REACH 15u // longest instruction

static bool near_own_code(const struct xcpu *x, uint64_t lin, uint64_t len) {
    uint64_t from = x->s.seg[X86_CS].base + x->s.rip - OWN_REACH;

    return lin - from < 2 * OWN_REACH || from - lin < len;
}

// Elements before that place.
static uint64_t before_own_code(const struct xcpu *x, const struct str *t, uint64_t lin, uint64_t n) {
    uint64_t from = x->s.seg[X86_CS].base + x->s.rip - OWN_REACH;

    if (!near_own_code(x, lin, n * t->elem))
        return n;
    return lin < from ? (from - lin) / t->elem : 0;
}

struct chunk {
    uint64_t count;
    uint8_t *src, *dst; // host pointers, NULL: slow path
};

// How much can be done at once, and where. The caller holds smc_writer when there is a destination that is written.
static void chunk_find(struct xcpu *x, const struct str *t, struct chunk *c) {
    uint64_t n = t->rep == STR_ONCE ? 1 : str_reg(x, t, X86_RCX), room, ls = 0, ld = 0;

    *c = (struct chunk){.count = 1};
    if (t->rep == STR_ONCE || (x->s.rflags & RFLAGS_DF) || single_element(x) || checks_alignment(x))
        return;
    if (t->src && (room = side_room(x, t, &t->s, &ls)) < n)
        n = room;
    if (t->dst && (room = side_room(x, t, &t->d, &ld)) < n)
        n = room;
    if (t->d.write)
        n = before_own_code(x, t, ld, n);
    if (!n || (t->src && debugger_watches(x->engine, ls)) || (t->dst && debugger_watches(x->engine, ld)))
        return;
    if (t->src && !(c->src = mmu_page_ptr(x, ls, MMU_READ)))
        return;
    if (t->dst && !(c->dst = mmu_page_ptr(x, ld, t->d.write ? MMU_WRITE : MMU_READ))) {
        c->src = NULL;
        return;
    }
    c->count = n;
}

bool string_done(const struct xcpu *x, unsigned addr_bits, enum string_rep rep, bool compares) {
    if (rep == STR_ONCE || !(x->s.gpr[X86_RCX] & addr_mask(addr_bits)))
        return true;
    return compares && !(x->s.rflags & RFLAGS_ZF) == (rep == STR_REPE);
}

typedef void (*chunk_fn)(struct xcpu *x, const struct str *t, struct chunk *c); // sets c->count to what it did
typedef enum xres (*elem_fn)(struct xcpu *x, const struct str *t);

static enum xres str_chunk(struct xcpu *x, const struct str *t, chunk_fn fast, elem_fn slow) {
    struct chunk c;
    bool done = false;

    if (t->d.write)
        smc_writer_enter(x);
    chunk_find(x, t, &c);
    if (c.src || c.dst) {
        fast(x, t, &c);
        done = true;
    }
    if (t->d.write)
        smc_writer_leave(x);
    if (!done)
        TRY(slow(x, t));
    str_move(x, t, done ? c.count : 1);
    return X_OK;
}

#define SLOW_BURST 512 // elements between two looks at exit_requested when there is no host pointer

// Does the next element of a repeated instruction fall on itself?
static bool writes_own_code(const struct xcpu *x, const struct str *t) {
    return t->d.write && near_own_code(x, x->s.seg[X86_ES].base + str_reg(x, t, X86_RDI), t->elem);
}

static enum xres str_run(struct xcpu *x, const struct str *t, bool compares, chunk_fn fast, elem_fn slow) {
    if (t->rep != STR_ONCE && !str_reg(x, t, X86_RCX))
        return X_OK;
    do {
        uint64_t before = str_reg(x, t, X86_RCX);

        for (unsigned i = 0; i < SLOW_BURST; i++) {
            bool own = writes_own_code(x, t);

            TRY(str_chunk(x, t, fast, slow));
            if (string_done(x, t->addr_bits, t->rep, compares))
                return X_OK;
            if (own || single_element(x) || x->watch_hit)
                return X_OK;
            if (before - str_reg(x, t, X86_RCX) > SLOW_BURST)
                break;
        }
    } while (!exit_requested(x));
    return X_OK;
}

// ---- elements through the mmu ----

static enum xres elem_read(struct xcpu *x, const struct str *t, const struct side *p, uint64_t *val) {
    *val = 0;
    return seg_read(x, p->seg, str_reg(x, t, p->reg), val, t->elem, MMU_READ);
}

static enum xres elem_write(struct xcpu *x, const struct str *t, uint64_t val) {
    return seg_write(x, t->d.seg, str_reg(x, t, t->d.reg), &val, t->elem, MMU_WRITE);
}

// ---- MOVS, STOS, LODS ----

#define HOST_STRING(op)                                                                                                \
    switch (t->elem) {                                                                                                 \
    case 1: __asm__ volatile("rep " op "b" : "+D"(d), "+S"(s), "+c"(n) : "a"(val) : "memory"); break;                  \
    case 2: __asm__ volatile("rep " op "w" : "+D"(d), "+S"(s), "+c"(n) : "a"(val) : "memory"); break;                  \
    case 4: __asm__ volatile("rep " op "l" : "+D"(d), "+S"(s), "+c"(n) : "a"(val) : "memory"); break;                  \
    case 8: __asm__ volatile("rep " op "q" : "+D"(d), "+S"(s), "+c"(n) : "a"(val) : "memory"); break;                  \
    }

static void movs_fast(struct xcpu *x, const struct str *t, struct chunk *c) {
    uint8_t *d = c->dst, *s = c->src;
    uint64_t n = c->count, val = 0;

    HOST_STRING("movs")
}

static void stos_fast(struct xcpu *x, const struct str *t, struct chunk *c) {
    uint8_t *d = c->dst, *s = NULL;
    uint64_t n = c->count, val = x->s.gpr[X86_RAX];

    HOST_STRING("stos")
}

// Only the last element matters.
static void lods_fast(struct xcpu *x, const struct str *t, struct chunk *c) {
    const uint8_t *p = c->src + (c->count - 1) * t->elem;
    uint64_t val = 0;

    switch (t->elem) {
    case 1: val = *(const volatile uint8_t *)p; break;
    case 2: val = *(const volatile uint16_t *)p; break;
    case 4: val = *(const volatile uint32_t *)p; break;
    case 8: val = *(const volatile uint64_t *)p; break;
    }
    gpr_write(x, X86_RAX, t->elem, val);
}

static enum xres movs_slow(struct xcpu *x, const struct str *t) {
    uint64_t val;

    TRY(elem_read(x, t, &t->s, &val));
    return elem_write(x, t, val);
}

static enum xres stos_slow(struct xcpu *x, const struct str *t) {
    return elem_write(x, t, x->s.gpr[X86_RAX]);
}

static enum xres lods_slow(struct xcpu *x, const struct str *t) {
    uint64_t val;

    TRY(elem_read(x, t, &t->s, &val));
    gpr_write(x, X86_RAX, t->elem, val);
    return X_OK;
}

// ---- SCAS, CMPS ----

#define HOST_SCAN(rep_op)                                                                                              \
    switch (t->elem) {                                                                                                 \
    case 1: SCAN_ASM(rep_op "b"); break;                                                                               \
    case 2: SCAN_ASM(rep_op "w"); break;                                                                               \
    case 4: SCAN_ASM(rep_op "l"); break;                                                                               \
    case 8: SCAN_ASM(rep_op "q"); break;                                                                               \
    }
#define SCAN_ASM(text) __asm__ volatile(text FLAGS_OUT : "+D"(d), "+S"(s), "+c"(n), "+a"(val)::"cc", "memory")

static void scan_commit(struct xcpu *x, struct chunk *c, uint64_t left, uint64_t ax) {
    c->count -= left;
    x->s.rflags = flags_unpack(x->s.rflags, (unsigned)ax);
}

static void scas_fast(struct xcpu *x, const struct str *t, struct chunk *c) {
    uint8_t *d = c->dst, *s = NULL;
    uint64_t n = c->count, val = x->s.gpr[X86_RAX];

    if (t->rep == STR_REPE)
        HOST_SCAN("repe scas")
    else
        HOST_SCAN("repne scas")
    scan_commit(x, c, n, val);
}

static void cmps_fast(struct xcpu *x, const struct str *t, struct chunk *c) {
    uint8_t *d = c->dst, *s = c->src;
    uint64_t n = c->count, val = 0;

    if (t->rep == STR_REPE)
        HOST_SCAN("repe cmps")
    else
        HOST_SCAN("repne cmps")
    scan_commit(x, c, n, val);
}

ALU_BINARY(string_cmp, "cmp")

static enum xres scas_slow(struct xcpu *x, const struct str *t) {
    uint64_t val;

    TRY(elem_read(x, t, &t->d, &val));
    string_cmp(x->s.gpr[X86_RAX], val, t->elem, &x->s.rflags);
    return X_OK;
}

static enum xres cmps_slow(struct xcpu *x, const struct str *t) {
    uint64_t a, b;

    TRY(elem_read(x, t, &t->s, &a));
    TRY(elem_read(x, t, &t->d, &b));
    string_cmp(a, b, t->elem, &x->s.rflags);
    return X_OK;
}

// ---- INS, OUTS ----

// Devices answer one element at a time: never a fast path. The store is checked before the port is read.
static enum xres ins_slow(struct xcpu *x, const struct str *t) {
    uint64_t off = str_reg(x, t, X86_RDI), lin;
    uint16_t port = (uint16_t)x->s.gpr[X86_RDX];

    TRY(seg_linear(x, X86_ES, off, t->elem, MMU_WRITE, &lin));
    TRY(mmu_probe(x, lin, t->elem, MMU_WRITE));
    return elem_write(x, t, host_pio_read(x, port, t->elem));
}

static enum xres outs_slow(struct xcpu *x, const struct str *t) {
    uint64_t val;

    TRY(elem_read(x, t, &t->s, &val));
    host_pio_write(x, (uint16_t)x->s.gpr[X86_RDX], t->elem, (uint32_t)val);
    return X_OK;
}

static enum xres io_run(struct xcpu *x, const struct str *t, elem_fn slow) {
    TRY(io_check(x, (uint16_t)x->s.gpr[X86_RDX], t->elem));
    if (t->rep != STR_ONCE && !str_reg(x, t, X86_RCX))
        return X_OK;
    do {
        for (unsigned i = 0; i < SLOW_BURST; i++) {
            TRY(slow(x, t));
            str_move(x, t, 1);
            if (string_done(x, t->addr_bits, t->rep, false) || single_element(x))
                return X_OK;
        }
    } while (!exit_requested(x));
    return X_OK;
}

// ---- entry points ----

static struct str str_make(unsigned elem, unsigned addr_bits, enum string_rep rep) {
    return (struct str){.elem = elem, .addr_bits = addr_bits, .rep = rep};
}
static void str_from(struct str *t, enum x86_seg seg) {
    t->src = true;
    t->s = (struct side){.seg = seg, .reg = X86_RSI};
}
static void str_to(struct str *t, bool write) { // always ES, no override
    t->dst = true;
    t->d = (struct side){.seg = X86_ES, .reg = X86_RDI, .write = write};
}

enum xres string_movs(struct xcpu *x, unsigned elem, unsigned addr_bits, enum x86_seg src_seg, bool rep) {
    struct str t = str_make(elem, addr_bits, rep ? STR_REP : STR_ONCE);

    str_from(&t, src_seg);
    str_to(&t, true);
    return str_run(x, &t, false, movs_fast, movs_slow);
}

enum xres string_stos(struct xcpu *x, unsigned elem, unsigned addr_bits, bool rep) {
    struct str t = str_make(elem, addr_bits, rep ? STR_REP : STR_ONCE);

    str_to(&t, true);
    return str_run(x, &t, false, stos_fast, stos_slow);
}

enum xres string_lods(struct xcpu *x, unsigned elem, unsigned addr_bits, enum x86_seg src_seg, bool rep) {
    struct str t = str_make(elem, addr_bits, rep ? STR_REP : STR_ONCE);

    str_from(&t, src_seg);
    return str_run(x, &t, false, lods_fast, lods_slow);
}

enum xres string_scas(struct xcpu *x, unsigned elem, unsigned addr_bits, enum string_rep rep) {
    struct str t = str_make(elem, addr_bits, rep);

    str_to(&t, false);
    return str_run(x, &t, true, scas_fast, scas_slow);
}

enum xres string_cmps(struct xcpu *x, unsigned elem, unsigned addr_bits, enum x86_seg src_seg, enum string_rep rep) {
    struct str t = str_make(elem, addr_bits, rep);

    str_from(&t, src_seg);
    str_to(&t, false);
    return str_run(x, &t, true, cmps_fast, cmps_slow);
}

enum xres string_ins(struct xcpu *x, unsigned elem, unsigned addr_bits, bool rep) {
    struct str t = str_make(elem, addr_bits, rep ? STR_REP : STR_ONCE);

    str_to(&t, true);
    return io_run(x, &t, ins_slow);
}

enum xres string_outs(struct xcpu *x, unsigned elem, unsigned addr_bits, enum x86_seg src_seg, bool rep) {
    struct str t = str_make(elem, addr_bits, rep ? STR_REP : STR_ONCE);

    str_from(&t, src_seg);
    return io_run(x, &t, outs_slow);
}

// ---- dispatch ----

// The last of the prefixes F2 and F3 counts; F2 means REP where nothing is compared.
static enum string_rep insn_rep(const struct insn *in, bool compares) {
    enum string_rep rep = STR_ONCE;

    for (unsigned i = 0; i < in->z.raw.prefix_count; i++) {
        uint8_t p = in->z.raw.prefixes[i].value;

        if (p == 0xf3)
            rep = STR_REP;
        else if (p == 0xf2)
            rep = compares ? STR_REPNE : STR_REP;
    }
    return rep;
}

static enum x86_seg insn_src_seg(const struct insn *in) {
    static const struct {
        ZydisInstructionAttributes attr;
        enum x86_seg seg;
    } over[] = {
        {ZYDIS_ATTRIB_HAS_SEGMENT_FS, X86_FS}, {ZYDIS_ATTRIB_HAS_SEGMENT_GS, X86_GS},
        {ZYDIS_ATTRIB_HAS_SEGMENT_ES, X86_ES}, {ZYDIS_ATTRIB_HAS_SEGMENT_CS, X86_CS},
        {ZYDIS_ATTRIB_HAS_SEGMENT_SS, X86_SS},
    };

    for (unsigned i = 0; i < ARRAY_LEN(over); i++)
        if (in->z.attributes & over[i].attr)
            return over[i].seg;
    return X86_DS;
}

// Opcodes a4..a7, aa..af, 6c..6f: bit 0 clear means bytes.
static enum xres emul_string(struct xcpu *x, struct insn *in) {
    uint8_t opcode = in->z.opcode;
    unsigned elem = opcode & 1 ? in->z.operand_width / 8u : 1, bits = in->z.address_width;
    bool compares = (opcode & 0xfe) == 0xa6 || (opcode & 0xfe) == 0xae;
    enum string_rep rep = insn_rep(in, compares);
    enum x86_seg seg = insn_src_seg(in);
    enum xres r;

    if (in->z.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT) // MOVSD and CMPSD of SSE2 share the mnemonic
        return emul_native(x, in);
    switch (opcode & 0xfe) {
    case 0xa4: r = string_movs(x, elem, bits, seg, rep); break;
    case 0xa6: r = string_cmps(x, elem, bits, seg, rep); break;
    case 0xaa: r = string_stos(x, elem, bits, rep); break;
    case 0xac: r = string_lods(x, elem, bits, seg, rep); break;
    case 0xae: r = string_scas(x, elem, bits, rep); break;
    // Ports have no 64-bit form: REX.W is ignored.
    case 0x6c: r = string_ins(x, elem > 4 ? 4 : elem, bits, rep); break;
    case 0x6e: r = string_outs(x, elem > 4 ? 4 : elem, bits, seg, rep); break;
    default: return ud(x);
    }
    if (r == X_OK && !string_done(x, bits, rep, compares))
        x->s.rip = in->rip;
    return r;
}

EMUL_TABLE(emul_string_entries, E(MOVSB, emul_string), E(MOVSW, emul_string), E(MOVSD, emul_string),
           E(MOVSQ, emul_string), E(CMPSB, emul_string), E(CMPSW, emul_string), E(CMPSD, emul_string),
           E(CMPSQ, emul_string), E(STOSB, emul_string), E(STOSW, emul_string), E(STOSD, emul_string),
           E(STOSQ, emul_string), E(LODSB, emul_string), E(LODSW, emul_string), E(LODSD, emul_string),
           E(LODSQ, emul_string), E(SCASB, emul_string), E(SCASW, emul_string), E(SCASD, emul_string),
           E(SCASQ, emul_string), E(INSB, emul_string), E(INSW, emul_string), E(INSD, emul_string),
           E(OUTSB, emul_string), E(OUTSW, emul_string), E(OUTSD, emul_string));
