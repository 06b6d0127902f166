// SPDX-License-Identifier: Apache-2.0
// From the neutral description of a boot protocol to the canonical state of the boot processor.
#include "vmm/cpu_start.h"

#include <stdlib.h>

#include "arch/x86/state.h"

static struct x86_segment segment(const struct boot_segment *s) {
    return (struct x86_segment){.base = s->base, .limit = s->limit, .attr = s->attr, .sel = s->selector};
}

void cpu_start_state(struct cpu_state *s, const struct boot_entry *e) {
    static const enum x86_seg data[] = {X86_DS, X86_ES, X86_SS, X86_FS, X86_GS};
    x86_state_reset(s, true, false);
    s->rip = e->rip;
    s->gpr[X86_RSP] = e->rsp;
    s->gpr[X86_RAX] = e->rax;
    s->gpr[X86_RBX] = e->rbx;
    s->gpr[X86_RSI] = e->rsi;
    s->gpr[X86_RDI] = e->rdi;
    s->gpr[X86_RBP] = e->rbp;
    s->gpr[X86_RDX] = 0;
    s->rflags = RFLAGS_FIXED1;
    if (e->mode == BOOT_REAL)
        return;
    s->seg[X86_CS] = segment(&e->cs);
    for (unsigned i = 0; i < ARRAY_LEN(data); i++)
        s->seg[data[i]] = segment(&e->ds);
    if (e->tr.attr)
        s->seg[X86_TR] = segment(&e->tr);
    s->gdtr = (struct x86_table){.base = e->gdt_base, .limit = e->gdt_limit};
    s->idtr = (struct x86_table){0};
    s->cr0 = CR0_PE | CR0_ET;
    if (e->mode != BOOT_LONG64)
        return;
    s->cr0 |= CR0_PG | CR0_NE | CR0_MP;
    s->cr3 = e->cr3;
    s->cr4 = CR4_PAE;
    s->efer = EFER_LME | EFER_LMA;
}

int cpu_start(struct machine *m, const struct boot_entry *entry, struct error *err) {
    struct cpu_state *s = aligned_alloc(64, sizeof(*s));
    int r = s ? 0 : -12;
    for (unsigned i = 0; r == 0 && i < m->host.vcpus; i++) {
        if (i == 0)
            cpu_start_state(s, entry);
        else
            x86_state_reset(s, false, false);
        r = m->engine_ops->set_state(m->vcpus[i].engine, s, sizeof(*s));
    }
    free(s);
    return r ? error_set(err, r, "set the state of the processors") : 0;
}
