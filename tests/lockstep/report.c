// SPDX-License-Identifier: Apache-2.0
// A difference for a person: what, the instruction it came with, the registers before and after.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "arch/x86/page_walk.h"
#include "tests/lockstep/lockstep.h"

static const char *const gpr_names[] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                        "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15"};

// Bytes at CS:RIP as far as they are mapped.
static unsigned fetch(struct side *s, const struct cpu_state *at, uint8_t *out, unsigned max) {
    unsigned n = 0;

    for (; n < max; n++) {
        gva_t lin = {at->seg[X86_CS].base + at->rip + n};
        gpa_t gpa;

        if (!(at->efer & EFER_LMA))
            lin.v &= 0xffffffff;
        if (x86_page_walk(at, s->mem, lin, &gpa) || mem_read(s->mem, gpa, out + n, 1))
            break;
    }
    return n;
}

static void decoder_init(ZydisDecoder *d, const struct cpu_state *s) {
    uint32_t cs = s->seg[X86_CS].attr;

    if ((s->efer & EFER_LMA) && (cs & SEG_L))
        ZydisDecoderInit(d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    else if (cs & SEG_DB)
        ZydisDecoderInit(d, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    else
        ZydisDecoderInit(d, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
}

bool instruction_decode(struct side *s, const struct cpu_state *at, ZydisDecodedInstruction *z,
                        ZydisDecodedOperand *op) {
    uint8_t bytes[15];
    ZydisDecoder d;
    unsigned n = fetch(s, at, bytes, sizeof(bytes));

    decoder_init(&d, at);
    return n && ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, bytes, n, z, op));
}

void report_instruction(struct side *s, const struct cpu_state *at) {
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    ZydisFormatter f;
    char text[128] = "no instruction";
    uint8_t bytes[15];
    unsigned n = fetch(s, at, bytes, sizeof(bytes));

    ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
    if (instruction_decode(s, at, &z, op)) {
        n = z.length;
        (void)ZydisFormatterFormatInstruction(&f, &z, op, z.operand_count_visible, text, sizeof(text), at->rip, NULL);
    }
    printf("  %04x:%" PRIx64 ":", at->seg[X86_CS].sel, at->rip);
    for (unsigned i = 0; i < n; i++)
        printf(" %02x", bytes[i]);
    printf("  %s\n", text);
}

static void print_registers(const char *who, const struct cpu_state *s) {
    printf("%s: RIP %" PRIx64 " RFLAGS %" PRIx64 " CPL %u CR0 %" PRIx64 " CR2 %" PRIx64 " CR3 %" PRIx64 " CR4 %" PRIx64
           " EFER %" PRIx64 "\n",
           who, s->rip, s->rflags, SEG_DPL(s->seg[X86_SS].attr), s->cr0, s->cr2, s->cr3, s->cr4, s->efer);
    for (unsigned i = 0; i < 16; i++)
        printf("  %-3s %016" PRIx64 "%s", gpr_names[i], s->gpr[i], i % 4 == 3 ? "\n" : "");
    printf("  CS %04x SS %04x DS %04x ES %04x FS %04x GS %04x DR6 %" PRIx64 " DR7 %" PRIx64 "\n", s->seg[X86_CS].sel,
           s->seg[X86_SS].sel, s->seg[X86_DS].sel, s->seg[X86_ES].sel, s->seg[X86_FS].sel, s->seg[X86_GS].sel, s->dr6,
           s->dr7);
}

void report_difference(struct pair *p, const struct cpu_state *before) {
    struct side *a = &p->side[FIRST], *b = &p->side[SECOND];

    printf("%s and %s differ after %" PRIu64 " accesses", a->name, b->name, a->accesses);
    printf(": %s\n", p->why);
    if (before) {
        print_registers("before", before);
        report_instruction(a, before);
    }
    print_registers(a->name, &a->now);
    report_instruction(a, &a->now);
    print_registers(b->name, &b->now);
    report_instruction(b, &b->now);
}
