// SPDX-License-Identifier: Apache-2.0
// The table of registers and the target description; see the header. gdb knows the features org.gnu.gdb.i386.* and
// wants their registers by these names, first in this order; the last feature is our own.
#include "debug/gdb_regs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Offsets in the XSAVE area (Intel SDM vol. 1 10.5.1, 13.4).
#define FP_CW     0
#define FP_SW     2
#define FP_TAGS   4 // abridged: a bit set is a register in use
#define FP_OPCODE 6
#define FP_IP     8
#define FP_CS     12
#define FP_DP     16
#define FP_DS     20
#define SSE_MXCSR 24
#define FP_ST0    32
#define SSE_XMM0  160
#define XSTATE_BV 512
#define AVX_YMMH0 576
#define FCW_INIT  0x37f
#define TAG_EMPTY 3

enum feature { CORE, SEGMENTS, SSE, AVX, SYSTEM, FEATURES };

struct reg {
    const char *name;
    enum feature feature;
    uint8_t size;      // as gdb sees it
    uint8_t held;      // bytes in struct cpu_state, the rest is 0
    uint8_t component; // of the XSAVE area: XCR0_*, 0 for all others
    bool tags;         // the x87 tag word, which the XSAVE area abridges
    uint16_t offset;   // in struct cpu_state
    const char *type;  // of gdb
};

#define AT(field) offsetof(struct cpu_state, field)
#define U64(label, part, field)                                                                                        \
    { label, part, 8, 8, 0, false, AT(field), "int64" }
#define CODE(label, field)                                                                                             \
    { label, CORE, 8, 8, 0, false, AT(field), "code_ptr" }
#define DATA(label, field)                                                                                             \
    { label, CORE, 8, 8, 0, false, AT(field), "data_ptr" }
#define SEL(label, seg_index)                                                                                          \
    { label, CORE, 4, 2, 0, false, AT(seg[seg_index].sel), "int32" }
#define X(off) (AT(xsave) + (off))
#define ST(label, i)                                                                                                   \
    { label, CORE, 10, 10, XCR0_X87, false, X(FP_ST0 + 16 * (i)), "i387_ext" }
#define FP(label, off, n)                                                                                              \
    { label, CORE, 4, n, XCR0_X87, false, X(off), "int" }
#define XMM(label, i)                                                                                                  \
    { label, SSE, 16, 16, XCR0_SSE, false, X(SSE_XMM0 + 16 * (i)), "vec128" }
#define YMMH(label, i)                                                                                                 \
    { label, AVX, 16, 16, XCR0_AVX, false, X(AVX_YMMH0 + 16 * (i)), "uint128" }
#define SYS(label, field, n)                                                                                           \
    { label, SYSTEM, n, n, 0, false, AT(field), n == 2 ? "int16" : n == 4 ? "int32" : "int64" }
#define SEG(label, i)                                                                                                  \
    SYS(label "_base", seg[i].base, 8), SYS(label "_limit", seg[i].limit, 4), SYS(label "_attr", seg[i].attr, 4)

static const struct reg regs[] = {
    U64("rax", CORE, gpr[X86_RAX]),
    U64("rbx", CORE, gpr[X86_RBX]),
    U64("rcx", CORE, gpr[X86_RCX]),
    U64("rdx", CORE, gpr[X86_RDX]),
    U64("rsi", CORE, gpr[X86_RSI]),
    U64("rdi", CORE, gpr[X86_RDI]),
    DATA("rbp", gpr[X86_RBP]),
    DATA("rsp", gpr[X86_RSP]),
    U64("r8", CORE, gpr[8]),
    U64("r9", CORE, gpr[9]),
    U64("r10", CORE, gpr[10]),
    U64("r11", CORE, gpr[11]),
    U64("r12", CORE, gpr[12]),
    U64("r13", CORE, gpr[13]),
    U64("r14", CORE, gpr[14]),
    U64("r15", CORE, gpr[15]),
    CODE("rip", rip),
    {"eflags", CORE, 4, 4, 0, false, AT(rflags), "i386_eflags"},
    SEL("cs", X86_CS),
    SEL("ss", X86_SS),
    SEL("ds", X86_DS),
    SEL("es", X86_ES),
    SEL("fs", X86_FS),
    SEL("gs", X86_GS),
    ST("st0", 0),
    ST("st1", 1),
    ST("st2", 2),
    ST("st3", 3),
    ST("st4", 4),
    ST("st5", 5),
    ST("st6", 6),
    ST("st7", 7),
    FP("fctrl", FP_CW, 2),
    FP("fstat", FP_SW, 2),
    {"ftag", CORE, 4, 1, XCR0_X87, true, X(FP_TAGS), "int"},
    FP("fiseg", FP_CS, 2),
    FP("fioff", FP_IP, 4),
    FP("foseg", FP_DS, 2),
    FP("fooff", FP_DP, 4),
    FP("fop", FP_OPCODE, 2),
    U64("fs_base", SEGMENTS, seg[X86_FS].base),
    U64("gs_base", SEGMENTS, seg[X86_GS].base),
    XMM("xmm0", 0),
    XMM("xmm1", 1),
    XMM("xmm2", 2),
    XMM("xmm3", 3),
    XMM("xmm4", 4),
    XMM("xmm5", 5),
    XMM("xmm6", 6),
    XMM("xmm7", 7),
    XMM("xmm8", 8),
    XMM("xmm9", 9),
    XMM("xmm10", 10),
    XMM("xmm11", 11),
    XMM("xmm12", 12),
    XMM("xmm13", 13),
    XMM("xmm14", 14),
    XMM("xmm15", 15),
    {"mxcsr", SSE, 4, 4, 0, false, X(SSE_MXCSR), "i386_mxcsr"},
    SYS("cr0", cr0, 8),
    SYS("cr2", cr2, 8),
    SYS("cr3", cr3, 8),
    SYS("cr4", cr4, 8),
    SYS("efer", efer, 8),
    SYS("xcr0", xcr0, 8),
    SYS("k_gs_base", kernel_gs_base, 8),
    SYS("star", star, 8),
    SYS("lstar", lstar, 8),
    SYS("cstar", cstar, 8),
    SYS("fmask", fmask, 8),
    SYS("dr0", dr[0], 8),
    SYS("dr1", dr[1], 8),
    SYS("dr2", dr[2], 8),
    SYS("dr3", dr[3], 8),
    SYS("dr6", dr6, 8),
    SYS("dr7", dr7, 8),
    SYS("gdtr_base", gdtr.base, 8),
    SYS("gdtr_limit", gdtr.limit, 2),
    SYS("idtr_base", idtr.base, 8),
    SYS("idtr_limit", idtr.limit, 2),
    SYS("ldtr", seg[X86_LDTR].sel, 2),
    SEG("ldtr", X86_LDTR),
    SYS("tr", seg[X86_TR].sel, 2),
    SEG("tr", X86_TR),
    SEG("cs", X86_CS),
    SEG("ss", X86_SS),
    SEG("ds", X86_DS),
    SEG("es", X86_ES),
    // Last, because not every processor model has them.
    YMMH("ymm0h", 0),
    YMMH("ymm1h", 1),
    YMMH("ymm2h", 2),
    YMMH("ymm3h", 3),
    YMMH("ymm4h", 4),
    YMMH("ymm5h", 5),
    YMMH("ymm6h", 6),
    YMMH("ymm7h", 7),
    YMMH("ymm8h", 8),
    YMMH("ymm9h", 9),
    YMMH("ymm10h", 10),
    YMMH("ymm11h", 11),
    YMMH("ymm12h", 12),
    YMMH("ymm13h", 13),
    YMMH("ymm14h", 14),
    YMMH("ymm15h", 15),
};
#define YMMH_COUNT 16

unsigned gdb_reg_count(bool with_avx) {
    return (unsigned)(sizeof(regs) / sizeof(regs[0])) - (with_avx ? 0 : YMMH_COUNT);
}

unsigned gdb_reg_size(unsigned n) {
    return regs[n].size;
}

const char *gdb_reg_name(unsigned n) {
    return regs[n].name;
}

// ---- values ----

static uint64_t xstate_bv(const struct cpu_state *s) {
    uint64_t bv;
    memcpy(&bv, s->xsave + XSTATE_BV, sizeof(bv));
    return bv;
}

static bool initial(const struct cpu_state *s, const struct reg *r) {
    return r->component && !(xstate_bv(s) & r->component);
}

// Of one x87 register in use: 0 valid, 1 zero, 2 special (SDM vol. 1 8.1.7).
static unsigned tag_of(const uint8_t *st) {
    uint64_t mantissa;
    uint16_t exponent;
    memcpy(&mantissa, st, 8);
    memcpy(&exponent, st + 8, 2);
    exponent &= 0x7fff;
    if (exponent == 0 && mantissa == 0)
        return 1;
    return exponent == 0 || exponent == 0x7fff || !(mantissa >> 63) ? 2 : 0;
}

// Tags are by physical register, the area's registers count from the top of the stack.
static uint16_t full_tags(const uint8_t *area) {
    unsigned top = area[FP_SW + 1] >> 3 & 7;
    uint16_t tags = 0;
    for (unsigned i = 0; i < 8; i++) {
        bool used = area[FP_TAGS] >> i & 1;
        unsigned tag = used ? tag_of(area + FP_ST0 + 16 * ((i - top) & 7)) : TAG_EMPTY;
        tags |= (uint16_t)(tag << 2 * i);
    }
    return tags;
}

static uint8_t abridged_tags(const uint8_t *bytes) {
    uint16_t tags;
    uint8_t used = 0;
    memcpy(&tags, bytes, sizeof(tags));
    for (unsigned i = 0; i < 8; i++)
        used |= (uint8_t)(((tags >> 2 * i & 3) != TAG_EMPTY) << i);
    return used;
}

void gdb_reg_get(const struct cpu_state *s, unsigned n, uint8_t *bytes) {
    const struct reg *r = &regs[n];
    uint16_t word = r->tags ? 0xffff : FCW_INIT;
    memset(bytes, 0, r->size);
    if (initial(s, r)) {
        if (r->tags || r->offset == X(FP_CW))
            memcpy(bytes, &word, sizeof(word));
    } else if (r->tags) {
        word = full_tags(s->xsave);
        memcpy(bytes, &word, sizeof(word));
    } else {
        memcpy(bytes, (const char *)s + r->offset, r->held);
    }
}

// A component in its initial state gets that state in the area, and is no longer taken for initial.
static void materialize(struct cpu_state *s, const struct reg *r) {
    static const struct {
        uint8_t component;
        uint16_t offset, size;
    } parts[] = {
        {XCR0_X87, 0, SSE_MXCSR}, {XCR0_X87, FP_ST0, 128}, {XCR0_SSE, SSE_XMM0, 256}, {XCR0_AVX, AVX_YMMH0, 256}};
    uint16_t fcw = FCW_INIT;
    uint64_t bv = xstate_bv(s) | r->component;
    for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (parts[i].component == r->component)
            memset(s->xsave + parts[i].offset, 0, parts[i].size);
    if (r->component == XCR0_X87)
        memcpy(s->xsave + FP_CW, &fcw, sizeof(fcw));
    memcpy(s->xsave + XSTATE_BV, &bv, sizeof(bv));
}

void gdb_reg_set(struct cpu_state *s, unsigned n, const uint8_t *bytes) {
    const struct reg *r = &regs[n];
    uint8_t now[GDB_REG_MAX_BYTES];
    gdb_reg_get(s, n, now);
    if (memcmp(now, bytes, r->size) == 0) // also keeps an initial component initial
        return;
    if (initial(s, r))
        materialize(s, r);
    if (r->tags)
        s->xsave[FP_TAGS] = abridged_tags(bytes);
    else
        memcpy((char *)s + r->offset, bytes, r->held);
}

// ---- target description ----

static const char types_core[] =
    "<flags id=\"i386_eflags\" size=\"4\">"
    "<field name=\"CF\" start=\"0\" end=\"0\"/><field name=\"\" start=\"1\" end=\"1\"/>"
    "<field name=\"PF\" start=\"2\" end=\"2\"/><field name=\"AF\" start=\"4\" end=\"4\"/>"
    "<field name=\"ZF\" start=\"6\" end=\"6\"/><field name=\"SF\" start=\"7\" end=\"7\"/>"
    "<field name=\"TF\" start=\"8\" end=\"8\"/><field name=\"IF\" start=\"9\" end=\"9\"/>"
    "<field name=\"DF\" start=\"10\" end=\"10\"/><field name=\"OF\" start=\"11\" end=\"11\"/>"
    "<field name=\"NT\" start=\"14\" end=\"14\"/><field name=\"RF\" start=\"16\" end=\"16\"/>"
    "<field name=\"VM\" start=\"17\" end=\"17\"/><field name=\"AC\" start=\"18\" end=\"18\"/>"
    "<field name=\"VIF\" start=\"19\" end=\"19\"/><field name=\"VIP\" start=\"20\" end=\"20\"/>"
    "<field name=\"ID\" start=\"21\" end=\"21\"/></flags>";

static const char types_sse[] =
    "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/><vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
    "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/><vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
    "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/><vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
    "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" type=\"v2d\"/>"
    "<field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v8_int16\" type=\"v8i16\"/>"
    "<field name=\"v4_int32\" type=\"v4i32\"/><field name=\"v2_int64\" type=\"v2i64\"/>"
    "<field name=\"uint128\" type=\"uint128\"/></union>"
    "<flags id=\"i386_mxcsr\" size=\"4\">"
    "<field name=\"IE\" start=\"0\" end=\"0\"/><field name=\"DE\" start=\"1\" end=\"1\"/>"
    "<field name=\"ZE\" start=\"2\" end=\"2\"/><field name=\"OE\" start=\"3\" end=\"3\"/>"
    "<field name=\"UE\" start=\"4\" end=\"4\"/><field name=\"PE\" start=\"5\" end=\"5\"/>"
    "<field name=\"DAZ\" start=\"6\" end=\"6\"/><field name=\"IM\" start=\"7\" end=\"7\"/>"
    "<field name=\"DM\" start=\"8\" end=\"8\"/><field name=\"ZM\" start=\"9\" end=\"9\"/>"
    "<field name=\"OM\" start=\"10\" end=\"10\"/><field name=\"UM\" start=\"11\" end=\"11\"/>"
    "<field name=\"PM\" start=\"12\" end=\"12\"/><field name=\"FZ\" start=\"15\" end=\"15\"/></flags>";

static const struct {
    const char *name, *types;
} features[FEATURES] = {
    [CORE] = {"org.gnu.gdb.i386.core", types_core}, [SEGMENTS] = {"org.gnu.gdb.i386.segments", ""},
    [SSE] = {"org.gnu.gdb.i386.sse", types_sse},    [AVX] = {"org.gnu.gdb.i386.avx", ""},
    [SYSTEM] = {"cicada.x86.system", ""},
};

static const char *group_of(const struct reg *r) {
    if (r->feature == SYSTEM)
        return " group=\"system\"";
    if (r->feature == SSE || r->feature == AVX)
        return " group=\"vector\"";
    return r->component ? " group=\"float\"" : " group=\"general\"";
}

static void put_feature(FILE *out, enum feature f, unsigned count) {
    fprintf(out, "<feature name=\"%s\">%s\n", features[f].name, features[f].types);
    for (unsigned i = 0; i < count; i++)
        if (regs[i].feature == f)
            fprintf(out, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\" regnum=\"%u\"%s/>\n", regs[i].name,
                    8u * regs[i].size, regs[i].type, i, group_of(&regs[i]));
    fputs("</feature>\n", out);
}

char *gdb_target_xml(bool with_avx) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    fputs("<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n"
          "<target><architecture>i386:x86-64</architecture>\n",
          out);
    for (enum feature f = CORE; f < FEATURES; f++)
        if (f != AVX || with_avx)
            put_feature(out, f, gdb_reg_count(with_avx));
    fputs("</target>\n", out);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}
