// SPDX-License-Identifier: Apache-2.0
// Trampolines: the few pieces of host code through which translated code and C call each other.
//
// Translated code runs with host RSP 16-byte aligned at xcpu.host_rsp. Every way to C saves all guest registers to
// xcpu.s.gpr first, so a C function sees (and may change) the whole state and may also leave for good.
// A C function answers: 0 = go on behind the call; 1 + enum leave_reason = leave; anything else = a code address.
#include "engine/xlate/asm.h"
#include "engine/xlate/tb.h"

static bool displaced(int r) {
    return r >= 13;
}

static void save_guest(struct emit *e) {
    for (int r = 0; r < 13; r++)
        if (r != X86_RSP)
            mov_store_gs(e, XGPR(r), r);
    mov_store_gs(e, XGPR(X86_RSP), HOST_RSP_HOME);
}

static void load_guest(struct emit *e, bool caller_saved_only) {
    for (int r = 0; r < 13; r++) {
        bool kept = r == X86_RBX || r == X86_RBP || r == X86_R12;
        if (r != X86_RSP && !displaced(r) && !(kept && caller_saved_only))
            mov_load_gs(e, r, XGPR(r));
    }
    if (!caller_saved_only)
        mov_load_gs(e, HOST_RSP_HOME, XGPR(X86_RSP));
}

static void call_c(struct emit *e, const void *fn) {
    mov_imm(e, X86_RAX, (uint64_t)fn);
    put8(e, 0xff), put8(e, 0xd0); // call rax
}

static void sub_rsp(struct emit *e, int n) {
    put8(e, 0x48), put8(e, 0x83), put8(e, 0xec), put8(e, n & 0xff);
}
static void add_rsp(struct emit *e, int n) {
    put8(e, 0x48), put8(e, 0x83), put8(e, 0xc4), put8(e, n & 0xff);
}

// uint64_t enter(struct xcpu *x, const void *code): RSI = code. Returns the leave reason.
static void gen_enter(struct emit *e, struct trampolines *t) {
    static const int kept[] = {X86_RBX, X86_RBP, X86_R12, X86_R13, X86_R14, X86_R15};
    t->enter = (enter_fn)(uintptr_t)emit_xaddr(e);
    for (unsigned i = 0; i < 6; i++)
        rex(e, false, 0, 0, kept[i], false), put8(e, 0x50 | (kept[i] & 7));
    sub_rsp(e, 8);
    mov_store_gs(e, XOFF(host_rsp), X86_RSP);
    mov_rr(e, true, S0, X86_RSI);
    load_guest(e, false);
    put8(e, 0x41), put8(e, 0xff), put8(e, 0xe0 | (S0 & 7)); // jmp S0
}

// RAX = 1 + reason
static uint64_t gen_leave(struct emit *e) {
    static const int kept[] = {X86_R15, X86_R14, X86_R13, X86_R12, X86_RBP, X86_RBX};
    uint64_t at = (uint64_t)emit_xaddr(e);
    mov_load_gs(e, X86_RSP, XOFF(host_rsp));
    add_rsp(e, 8);
    for (unsigned i = 0; i < 6; i++)
        rex(e, false, 0, 0, kept[i], false), put8(e, 0x58 | (kept[i] & 7));
    put8(e, 0x48), put8(e, 0x83), put8(e, 0xe8), put8(e, 1); // sub rax, 1
    put8(e, 0xc3);
    return at;
}

// RAX = answer of a C function that cannot go on behind a call.
static uint64_t gen_continue(struct emit *e, uint64_t leave, bool flags) {
    uint64_t at = (uint64_t)emit_xaddr(e);
    put8(e, 0x48), put8(e, 0x3d), put32(e, 16);       // cmp rax, 16
    put8(e, 0x0f), put8(e, 0x82), rel32_to(e, leave); // jb
    mov_rr(e, true, S0, X86_RAX);
    if (flags)
        flags_load_mem(e, S1);
    load_guest(e, false);
    put8(e, 0x41), put8(e, 0xff), put8(e, 0xe0 | (S0 & 7));
    return at;
}

static void gen_link(struct emit *e, uint64_t *at, bool flags_in_host, uint64_t go_on) {
    *at = (uint64_t)emit_xaddr(e);
    if (flags_in_host)
        flags_save_mem(e, S1);
    save_guest(e);
    mov_load_gs(e, X86_RDI, XOFF(self));
    mov_rr(e, false, X86_RSI, S0);
    call_c(e, (const void *)xl_link);
    jmp_to(e, go_on);
}

// S0 = guest address, for a C function that answers with where to go on.
static uint64_t gen_by_address(struct emit *e, const void *function, uint64_t go_on) {
    uint64_t at = (uint64_t)emit_xaddr(e);
    save_guest(e);
    mov_load_gs(e, X86_RDI, XOFF(self));
    mov_rr(e, true, X86_RSI, S0);
    call_c(e, function);
    jmp_to(e, go_on);
    return at;
}

static void gen_helper(struct emit *e, struct trampolines *t, uint64_t go_on) {
    t->helper = (uint64_t)emit_xaddr(e);
    save_guest(e);
    mov_store_gs(e, XOFF(s.rip), S1);
    mov_load_gs(e, X86_RDI, XOFF(self));
    mov_rr(e, false, X86_RSI, S0);
    sub_rsp(e, 8);
    call_c(e, (const void *)xl_helper);
    add_rsp(e, 8);
    op_rr(e, true, 0x85, X86_RAX, X86_RAX); // test
    uint8_t *other = jcc_forward(e, CC_NE);
    load_guest(e, false);
    put8(e, 0xc3);
    patch_here(e, other);
    add_rsp(e, 8);
    jmp_to(e, go_on);
}

// The second level of the TLB, with two registers put aside. S0 = address. Hit: S1 = host page, S0 = offset, returns.
// Returns the places that lead to the miss.
static void gen_second_level(struct emit *e, unsigned kind, unsigned size, bool write, bool smp, uint8_t *miss[5]) {
    uint32_t tlb2 = (uint32_t)(offsetof(struct xcpu, tlb2) + kind * sizeof(struct tlb2_entry) * TLB2_SIZE);
    put8(e, 0x65), put8(e, 0x83), put8(e, 0x2c), put8(e, 0x25), put32(e, XOFF(tlb2_turn)), put8(e, 1); // sub, 1
    miss[0] = jcc_forward(e, CC_E);
    mov_rr(e, false, X86_RAX, S0);
    alu_imm(e, false, 4, X86_RAX, PAGE_SIZE - 1);
    alu_imm(e, false, 7, X86_RAX, (uint32_t)PAGE_SIZE - size);
    miss[1] = jcc_forward(e, CC_A);
    mov_rr(e, true, X86_RCX, S0);
    if (smp) { // the address may be torn, see lin_is_torn
        mov_rr(e, false, X86_RAX, S0);
        put8(e, 0xc1), put8(e, 0xe8), put8(e, PAGE_SHIFT - 5); // shr eax, 7
        alu_imm(e, false, 4, X86_RAX, (TLB_SIZE - 1) << 5);
        op_rr(e, false, 0x3b, X86_RAX, S1);
        miss[4] = jcc_forward(e, CC_NE);
    }
    put8(e, 0xc1), put8(e, 0xe9), put8(e, PAGE_SHIFT);          // shr ecx, 12
    op_gs(e, false, 0x33, X86_RCX, XOFF(tlb2_salt) + 4 * kind); // xor
    put8(e, 0xc1), put8(e, 0xe1), put8(e, 4);                   // shl ecx, 4: index * 16
    alu_imm(e, false, 4, X86_RCX, (TLB2_SIZE - 1) << 4);
    mov_rr(e, true, X86_RAX, S0);
    alu_imm(e, true, 4, X86_RAX, (uint32_t)PAGE_MASK);
    op_gs(e, true, 0x0b, X86_RAX, XOFF(tlb2_generation) + 8 * kind);
    op_gs_base(e, true, 0x3b, X86_RAX, X86_RCX, tlb2 + (uint32_t)offsetof(struct tlb2_entry, tag));
    miss[2] = jcc_forward(e, CC_NE);
    op_gs_base(e, true, 0x8b, X86_RCX, X86_RCX, tlb2 + (uint32_t)offsetof(struct tlb2_entry, host));
    if (write) {
        put8(e, 0xf6), put8(e, 0xc1), put8(e, TLB2_WRITABLE); // test cl, 1
        miss[3] = jcc_forward(e, CC_E);
    }
    alu_imm(e, true, 4, X86_RCX, (uint32_t)PAGE_MASK);
    mov_rr(e, true, S1, X86_RCX);
    alu_imm(e, false, 4, S0, (uint32_t)~PAGE_MASK);
    mov_load_gs(e, X86_RAX, XOFF(spill[3]));
    mov_load_gs(e, X86_RCX, XOFF(spill[4]));
    put8(e, 0xc3);
}

// A failed TLB check. S0 = address ^ tag, S1 = offset of the slot. Returns with S1 = host page, S0 = offset in it.
static void gen_miss(struct emit *e, struct trampolines *t, unsigned kind, unsigned log_size, bool write, bool smp,
                     uint64_t leave) {
    uint32_t tlb = (uint32_t)(offsetof(struct xcpu, tlb) + kind * sizeof(struct tlb_entry) * TLB_SIZE);
    uint32_t tag = tlb + (write ? offsetof(struct tlb_entry, wtag) : offsetof(struct tlb_entry, rtag));
    uint8_t *miss[5] = {NULL};
    t->miss[kind][log_size][write] = (uint64_t)emit_xaddr(e);
    op_gs_base(e, true, 0x33, S0, S1, tag);
    mov_store_gs(e, XOFF(spill[3]), X86_RAX);
    mov_store_gs(e, XOFF(spill[4]), X86_RCX);
    gen_second_level(e, kind, 1u << log_size, write, smp, miss);
    for (unsigned i = 0; i < 5; i++)
        if (miss[i])
            patch_here(e, miss[i]);
    store_imm_gs(e, XOFF(tlb2_turn), TLB2_TURNS);
    mov_load_gs(e, X86_RAX, XOFF(spill[3]));
    mov_load_gs(e, X86_RCX, XOFF(spill[4]));
    save_guest(e);
    mov_load_gs(e, X86_RDI, XOFF(self));
    mov_rr(e, true, X86_RSI, S0);
    mov_imm(e, X86_RDX, (1u << log_size) | (write ? 0x100u : 0) | kind << 16);
    op_mem(e, true, 0x8b, X86_RCX, X86_RSP, -1, 0, 0); // return address
    mov_rr(e, false, X86_R8, S1);
    sub_rsp(e, 8);
    call_c(e, (const void *)xl_tlb_miss);
    add_rsp(e, 8);
    put8(e, 0x48), put8(e, 0x3d), put32(e, 16); // cmp rax, 16
    put8(e, 0x0f), put8(e, 0x82), rel32_to(e, leave);
    mov_rr(e, true, S1, X86_RAX);
    alu_imm(e, false, 4, S0, (uint32_t)~PAGE_MASK);
    load_guest(e, true);
    put8(e, 0xc3);
}

// A failed check of a group: as gen_miss, but where the answer is 0 the block is left for one without groups.
static void gen_group_miss(struct emit *e, struct trampolines *t, unsigned kind, bool write, uint64_t go_on) {
    uint32_t tlb = (uint32_t)(offsetof(struct xcpu, tlb) + kind * sizeof(struct tlb_entry) * TLB_SIZE);
    uint32_t tag = tlb + (write ? offsetof(struct tlb_entry, wtag) : offsetof(struct tlb_entry, rtag));
    t->group_miss[kind][write] = (uint64_t)emit_xaddr(e);
    save_guest(e);
    op_gs_base(e, true, 0x33, S0, S1, tag);
    mov_load_gs(e, X86_RDI, XOFF(self));
    mov_rr(e, true, X86_RSI, S0);
    mov_imm(e, X86_RDX, kind);
    op_mem(e, true, 0x8b, X86_RCX, X86_RSP, -1, 0, 0);
    mov_rr(e, false, X86_R8, S1);
    sub_rsp(e, 8);
    call_c(e, (const void *)xl_group_miss);
    add_rsp(e, 8);
    op_rr(e, true, 0x85, X86_RAX, X86_RAX);
    uint8_t *failed = jcc_forward(e, CC_E);
    mov_rr(e, true, S1, X86_RAX);
    alu_imm(e, false, 4, S0, (uint32_t)~PAGE_MASK);
    load_guest(e, true);
    put8(e, 0xc3);
    patch_here(e, failed);
    add_rsp(e, 8);
    mov_load_gs(e, X86_RDI, XOFF(self));
    call_c(e, (const void *)xl_ungrouped);
    jmp_to(e, go_on);
}

#define SITE_TLB_MISS 8 // misses that one of the TLB, too, counts for in addition

// Many misses of a site: C looks how fast they came.
static void gen_site_often(struct emit *e, uint64_t leave, uint64_t go_on) {
    save_guest(e);
    mov_store_gs(e, XOFF(spill[2]), S0);
    mov_load_gs(e, X86_RDI, XOFF(self));
    op_mem(e, true, 0x8b, X86_RSI, X86_RSP, -1, 0, 0); // return address
    sub_rsp(e, 8);
    call_c(e, (const void *)xl_site_often);
    add_rsp(e, 8);
    op_rr(e, true, 0x85, X86_RAX, X86_RAX);           // test
    put8(e, 0x0f), put8(e, 0x85), rel32_to(e, leave); // jne
    load_guest(e, false);
    mov_load_gs(e, S0, XOFF(spill[2]));
    op_gs(e, false, 0x8b, S1, XOFF(site_arg));
    jmp_to(e, go_on);
}

// A site's page is another one: S0 = address ^ its tag. Asks the TLB; where that has the page the site learns it, and
// S1 = host page, S0 = offset. Otherwise goes on as a failed TLB check.
static uint64_t gen_site(struct emit *e, unsigned kind, bool write, unsigned size, uint64_t miss, uint64_t leave) {
    uint32_t tlb = (uint32_t)(offsetof(struct xcpu, tlb) + kind * sizeof(struct tlb_entry) * TLB_SIZE);
    uint32_t tag = tlb + (uint32_t)(write ? offsetof(struct tlb_entry, wtag) : offsetof(struct tlb_entry, rtag));
    uint64_t at = (uint64_t)emit_xaddr(e);
    op_gs(e, false, 0x8b, S1, XOFF(site_arg));
    op_gs_base(e, false, 0x83, 5, S1, (uint32_t)offsetof(struct site, left)), put8(e, 1); // sub dword, 1
    uint8_t *often = jcc_forward(e, CC_S);
    uint64_t go_on = (uint64_t)emit_xaddr(e);
    op_gs_base(e, true, 0x33, S0, S1, (uint32_t)offsetof(struct site, tag));
    rorx32(e, S1, S0, PAGE_SHIFT - 5);
    alu_imm(e, false, 4, S1, (TLB_SIZE - 1) << 5);
    op_gs_base(e, true, 0x33, S0, S1, tag);
    if (size)
        alu_imm(e, true, 7, S0, (uint32_t)PAGE_SIZE - size);
    else
        op_gs(e, true, 0x3b, S0, XOFF(site_limit));
    uint8_t *both = jcc_forward(e, CC_A);
    mov_store_gs(e, XOFF(spill[2]), X86_RAX);
    mov_store_gs(e, XOFF(spill[5]), X86_RCX);
    op_gs(e, false, 0x8b, X86_RCX, XOFF(site_arg));
    op_gs_base(e, true, 0x8b, X86_RAX, S1, tag);
    op_gs_base(e, true, 0x8b, S1, S1, tlb + (uint32_t)offsetof(struct tlb_entry, host));
    // Pages 0 and 1 are not remembered: theirs are the tags of an empty slot, and another vCPU may have emptied this
    // one.
    alu_imm(e, true, 7, X86_RAX, 2 * (uint32_t)PAGE_SIZE);
    uint8_t *empty = jcc_forward(e, CC_B);
    store_imm_gs(e, XOFF(sites_used), 1);
    op_gs_base(e, true, 0x89, X86_RAX, X86_RCX, (uint32_t)offsetof(struct site, tag));
    op_gs_base(e, true, 0x89, S1, X86_RCX, (uint32_t)offsetof(struct site, host));
    patch_here(e, empty);
    mov_load_gs(e, X86_RAX, XOFF(spill[2]));
    mov_load_gs(e, X86_RCX, XOFF(spill[5]));
    put8(e, 0xc3);
    patch_here(e, both); // the TLB has not got it either: that much worse
    mov_store_gs(e, XOFF(spill[5]), X86_RAX);
    op_gs(e, false, 0x8b, X86_RAX, XOFF(site_arg));
    op_gs_base(e, false, 0x83, 5, X86_RAX, (uint32_t)offsetof(struct site, left)), put8(e, SITE_TLB_MISS);
    mov_load_gs(e, X86_RAX, XOFF(spill[5]));
    jmp_to(e, miss);
    patch_here(e, often);
    gen_site_often(e, leave, go_on);
    return at;
}

static void gen_sites(struct emit *e, struct trampolines *t, enum tlb_kind kind, uint64_t leave) {
    for (unsigned write = 0; write < 2; write++) {
        for (unsigned size = 0; size < 6; size++)
            t->site[kind][size][write] = gen_site(e, kind, write, 1u << size, t->miss[kind][size][write], leave);
        t->site_group[kind][write] = gen_site(e, kind, write, 0, t->group_miss[kind][write], leave);
    }
}

void tramp_generate(struct engine *eng, struct emit_space *s, struct trampolines *t) {
    struct emit e = {.p = s->rw, .end = s->end, .delta = s->delta};
    gen_enter(&e, t);
    uint64_t leave = t->leave = gen_leave(&e);
    uint64_t go_on = gen_continue(&e, leave, false);
    uint64_t go_on_flags = gen_continue(&e, leave, true);
    gen_link(&e, &t->link_host, true, go_on_flags);
    gen_link(&e, &t->link_mem, false, go_on);
    t->indirect_miss = gen_by_address(&e, (const void *)xl_indirect, go_on);
    t->hoist = gen_by_address(&e, (const void *)xl_hoist, go_on);
    gen_helper(&e, t, go_on);
    for (unsigned kind = 0; kind < TLB_KINDS; kind++)
        for (unsigned size = 0; size < 6; size++)
            for (unsigned write = 0; write < 2; write++)
                gen_miss(&e, t, kind, size, write, eng->ncpus > 1, leave);
    for (unsigned kind = 0; kind < TLB_KINDS; kind++)
        for (unsigned write = 0; write < 2; write++)
            gen_group_miss(&e, t, kind, write, go_on);
    gen_sites(&e, t, TLB_KERNEL, leave);
    gen_sites(&e, t, TLB_USER, leave);
    s->rw = e.p;
}
