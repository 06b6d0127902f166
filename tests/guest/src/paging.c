// SPDX-License-Identifier: Apache-2.0
// Paging in long mode: every permission combination against the rules of SDM vol. 3A 4.6, page sizes, reserved bits,
// accessed and dirty bits, global pages, INVLPG, PCID, INVPCID.
// beds: xlate kvm-amd kvm-intel (docs/BEDS.md)
#include "pagetables.h"

// ---- all permissions: level that denies, RW, US, NX, WP, SMEP, SMAP, AC, CPL and kind of access ----

BLOB(touch_read, 64, "mov (%rdi), %al; int $0x80");
BLOB(touch_write, 64, "mov %al, (%rdi); int $0x80");
BLOB(touch_exec, 64, "jmp *%rdi");

enum access { READ, WRITE, EXEC };
struct perm {
    bool present, rw, us, nx, user, wp, smep, smap, ac;
    enum access access;
};

// SDM vol. 3A 4.6.1; the error code that comes, or NONE.
static int expected_error(const struct perm *p) {
    int code = (p->user ? PF_U : 0) | (p->access == WRITE ? PF_W : 0) | (p->access == EXEC ? PF_I : 0);
    bool ok = p->present;

    if (p->access == EXEC) {
        ok &= !p->nx && (p->user ? p->us : !(p->us && p->smep));
    } else {
        ok &= p->user ? p->us : !(p->us && p->smap && !p->ac);
        ok &= p->access == READ || p->rw || (!p->user && !p->wp);
    }
    return ok ? NONE : code | (p->present ? PF_P : 0);
}

static int do_access(const struct perm *p, u64 va) {
    if (p->user) {
        entry.flags = 2;
        return user64(p->access == READ ? touch_read : p->access == WRITE ? touch_write : touch_exec, va, 0, 0);
    }
    if (p->ac) // restored by the handler's frame and by what follows here
        asm volatile("stac" ::: "memory", "cc");
    switch (p->access) {
    case READ: (void)TRY("mov (%%rdi), %%al", va, 0, 0); break;
    case WRITE: (void)TRY("mov %%al, (%%rdi)", va, 0, 0); break;
    case EXEC: (void)TRY("call *%%rdi", va, 0, 0); break;
    }
    if (p->smap)
        asm volatile("clac" ::: "memory", "cc");
    return (int)trap.vector;
}

static bool perm_case(const struct perm *p, u64 va, unsigned level) {
    u64 flags = (p->present ? P : 0) | (p->rw ? RW : 0) | (p->us ? US : 0) | (p->nx ? NX : 0);
    u64 *e = pte_of(va, level);
    int want = expected_error(p), got;

    *e = (*e & PTE_ADDR) | flags | (level == 1 ? 0 : (*e & PSE));
    invlpg(va);
    write_cr0((read_cr0() & ~(word)CR0_WP) | (p->wp ? CR0_WP : 0));
    write_cr4(CR4_PAE | (p->smep ? CR4_SMEP : 0) | (p->smap ? CR4_SMAP : 0));
    got = do_access(p, va);
    if (want == NONE)
        return got == NONE || got == LEAVE;
    return got == PF && (int)trap.error == want && trap.cr2 == va;
}

static void print_perm(const struct perm *p, unsigned level) {
    print("  level ");
    print_dec(level);
    print(p->present ? " P" : " -");
    print(p->rw ? " RW" : "");
    print(p->us ? " US" : "");
    print(p->nx ? " NX" : "");
    print(p->wp ? " WP" : "");
    print(p->smep ? " SMEP" : "");
    print(p->smap ? " SMAP" : "");
    print(p->ac ? " AC" : "");
    print(p->user ? " user" : " supervisor");
    print(p->access == READ ? " read" : p->access == WRITE ? " write" : " exec");
    print(": vector ");
    print_hex((u64)trap.vector & 0xff);
    print(" error ");
    print_hex(trap.error);
    print(" wanted ");
    print_hex((u64)expected_error(p) & 0xff);
    print("\n");
}

// All 2^9 * 3 combinations at one level of the tables; the other levels allow everything. The page holds what both
// privileges can run: RET returns to the TRY, for the user INT 0x80 comes before it.
static void all_permissions(unsigned level) {
    static u64 *page;
    unsigned bad = 0;

    user_setup();
    if (!page) {
        page = page_alloc();
        map(FREE, (word)page, P | RW | US);
        map(FREE_LOW, (word)page, P | RW | US);
    }
    map(FREE, (word)page, P | RW | US);
    for (unsigned bits = 0; bits < 512 * 3; bits++) {
        struct perm p = {.present = bits & 1,
                         .rw = bits & 2,
                         .us = bits & 4,
                         .nx = bits & 8,
                         .user = bits & 16,
                         .wp = bits & 32,
                         .smep = bits & 64,
                         .smap = bits & 128,
                         .ac = bits & 256,
                         .access = (enum access)(bits >> 9)};

        if ((p.smep && !HAS_SMEP) || ((p.smap || p.ac) && !HAS_SMAP) || (p.ac && (!p.smap || p.user)))
            continue;
        *(volatile u32 *)page = p.user ? 0xc380cd : 0xc3; // INT 0x80 or RET
        if (!perm_case(&p, FREE, level) && bad++ < 4)
            print_perm(&p, level);
    }
    *pte_of(FREE, level) |= P | RW | US;
    *pte_of(FREE, level) &= ~NX;
    invlpg(FREE);
    EQ(bad, 0);
}
TEST(permissions_in_the_pte) {
    all_permissions(1);
}
TEST(permissions_in_the_pde) {
    all_permissions(2);
}
TEST(permissions_in_the_pdpte) {
    all_permissions(3);
}
TEST(permissions_in_the_pml4e) {
    all_permissions(4);
}

// ---- reserved bits ----

#define RESERVED_CASE(name, level, bit)                                                                                \
    TEST(name) {                                                                                                       \
        u64 *e;                                                                                                        \
        map(FREE, (word)page_alloc(), P | RW);                                                                         \
        e = pte_of(FREE, level);                                                                                       \
        EQ(TRY("mov (%%rdi), %%al", FREE, 0, 0), NONE);                                                                \
        *e |= 1ull << (bit);                                                                                           \
        invlpg(FREE);                                                                                                  \
        EQ(TRY("mov (%%rdi), %%al", FREE, 0, 0), PF);                                                                  \
        EQ(trap.error, PF_P | PF_RSVD);                                                                                \
        EQ(TRY("mov %%al, (%%rdi)", FREE, 0, 0), PF);                                                                  \
        EQ(trap.error, PF_P | PF_RSVD | PF_W);                                                                         \
        *e &= ~(1ull << (bit));                                                                                        \
        invlpg(FREE);                                                                                                  \
        EQ(TRY("mov (%%rdi), %%al", FREE, 0, 0), NONE);                                                                \
    }
RESERVED_CASE(reserved_bit_51_of_a_pte, 1, 51)
RESERVED_CASE(reserved_bit_51_of_a_pde, 2, 51)
RESERVED_CASE(reserved_bit_51_of_a_pdpte, 3, 51)
RESERVED_CASE(reserved_bit_51_of_a_pml4e, 4, 51)
RESERVED_CASE(page_size_bit_of_a_pml4e, 4, 7)

TEST(reserved_bits_of_a_2m_page) {
    map_level(FREE_LOW, 0, P | RW | PSE | 1 << 13, 2);
    EQ(TRY("mov (%%rdi), %%al", FREE_LOW, 0, 0), PF);
    EQ(trap.error, PF_P | PF_RSVD);
    map_level(FREE_LOW, 0, P | RW | PSE, 2);
    EQ(TRY("mov (%%rdi), %%al", FREE_LOW, 0, 0), NONE);
}
TEST(nx_is_reserved_without_nxe) {
    map(FREE, (word)page_alloc(), P | RW | NX);
    wrmsr(0xc0000080, rdmsr(0xc0000080) & ~0x800ull);
    EQ(TRY("mov (%%rdi), %%al", FREE, 0, 0), PF);
    EQ(trap.error, PF_P | PF_RSVD);
    map(FREE, (word)page_alloc(), P | RW);
    EQ(TRY("call *%%rdi", 0x700000001000, 0, 0), PF);
    EQ(trap.error, 0); // no I bit without NXE and SMEP
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);
}

// ---- page sizes ----

TEST(page_of_2_mib) {
    volatile u64 *in = (volatile u64 *)0x1800000;

    map_level(FREE_LOW, 0x1800000, P | RW | PSE, 2);
    *(volatile u64 *)(FREE_LOW + 0x1ff000) = 0x1234;
    EQ(in[0x1ff000 / 8], 0x1234);
    *(volatile u64 *)(FREE_LOW) = 0x5678;
    EQ(in[0], 0x5678);
}
TEST(page_of_1_gib) {
    if (!HAS_1G) {
        skip_test("no 1 GiB pages");
        return;
    }
    map_level(FREE + (1ull << 30), 0, P | RW | PSE, 3);
    *(volatile u64 *)(FREE + (1ull << 30) + 0x1801000) = 0x4321;
    EQ(*(volatile u64 *)0x1801000, 0x4321);
}
TEST(reserved_bits_of_a_1g_page) {
    if (!HAS_1G) {
        skip_test("no 1 GiB pages");
        return;
    }
    map_level(FREE + (1ull << 30), 0, P | RW | PSE | 1 << 21, 3);
    EQ(TRY("mov (%%rdi), %%al", FREE + (1ull << 30), 0, 0), PF);
    EQ(trap.error, PF_P | PF_RSVD);
}
TEST(high_canonical_half) {
    u64 *page = page_alloc();

    map(0xffffffffffffe000, (word)page, P | RW);
    *(volatile u64 *)0xffffffffffffeff8 = 0x77;
    EQ(page[511], 0x77);
}
TEST(alias_shows_the_same_bytes) {
    volatile u32 *a = (volatile u32 *)FREE, *b = (volatile u32 *)(FREE + 8192);
    word page = (word)page_alloc();

    map(FREE, page, P | RW);
    map(FREE + 8192, page, P | RW);
    *a = 9;
    EQ(*b, 9);
    *b = 10;
    EQ(*a, 10);
}
TEST(load_and_store_across_two_pages) {
    u8 *p = page_alloc(), *q = page_alloc();

    map(FREE, (word)q, P | RW); // not in the order of their addresses
    map(FREE + 4096, (word)p, P | RW);
    *(volatile u64 *)(FREE + 4093) = 0x1122334455667788;
    EQ(q[4095], 0x66);
    EQ(p[0], 0x55);
    EQ(*(volatile u64 *)(FREE + 4093), 0x1122334455667788);
    EQ(TRY("lock incq 4093(%%rdi); lock addq $0x10, 4093(%%rdi)", FREE, 0, 0), NONE);
    EQ(*(volatile u64 *)(FREE + 4093), 0x1122334455667799);
}

// ---- accessed and dirty ----

#define LEVELS(va) (*pte_of(va, 4) & *pte_of(va, 3) & *pte_of(va, 2))
static void fresh(u64 va) {
    for (unsigned level = 4; level > 1; level--)
        *pte_of(va, level) &= ~(u64)(A | D);
    map(va, (word)page_alloc(), P | RW);
}
TEST(load_sets_accessed_at_all_levels) {
    fresh(FREE);
    *(volatile u8 *)FREE;
    EQ(*pte_of(FREE, 1) & (A | D), A);
    EQ(LEVELS(FREE) & A, A);
}
TEST(store_sets_dirty_in_the_leaf_only) {
    fresh(FREE);
    *(volatile u8 *)FREE = 1;
    EQ(*pte_of(FREE, 1) & (A | D), A | D);
    EQ(*pte_of(FREE, 2) & D, 0);
}
TEST(store_after_load_sets_dirty) {
    fresh(FREE);
    *(volatile u8 *)FREE;
    *(volatile u8 *)FREE = 1;
    EQ(*pte_of(FREE, 1) & D, D);
}
TEST(fetch_sets_accessed_only) {
    fresh(FREE);
    *(u8 *)(*pte_of(FREE, 1) & PTE_ADDR) = 0xc3;
    EQ(TRY("call *%%rdi", FREE, 0, 0), NONE);
    EQ(*pte_of(FREE, 1) & (A | D), A);
}
TEST(fault_sets_no_dirty) {
    fresh(FREE);
    *pte_of(FREE, 1) &= ~(u64)RW;
    EQ(TRY("mov %%al, (%%rdi)", FREE, 0, 0), PF);
    EQ(*pte_of(FREE, 1) & D, 0);
}
TEST(dirty_of_a_2m_page) {
    map_level(FREE_LOW, 0x1800000, P | RW | PSE, 2);
    *(volatile u8 *)(FREE_LOW + 0x5000);
    EQ(*pte_of(FREE_LOW, 2) & (A | D), A);
    *(volatile u8 *)(FREE_LOW + 0x5000) = 1;
    EQ(*pte_of(FREE_LOW, 2) & (A | D), A | D);
}
TEST(cleared_dirty_bit_is_set_again_after_invlpg) {
    fresh(FREE);
    *(volatile u8 *)FREE = 1;
    *pte_of(FREE, 1) &= ~(u64)(A | D);
    invlpg(FREE);
    *(volatile u8 *)FREE = 2;
    EQ(*pte_of(FREE, 1) & (A | D), A | D);
}
TEST(failed_cmpxchg_sets_dirty) {
    fresh(FREE);
    EQ(TRY("mov $1, %%eax; lock cmpxchg %%ecx, (%%rdi)", FREE, 0, 0), NONE);
    EQ(*pte_of(FREE, 1) & D, D);
}

// ---- what flushes the TLB ----

static word page_a, page_b;
static u8 probe(void) {
    return *(volatile u8 *)FREE;
}
static void two_pages(u64 flags) {
    if (!page_a) {
        page_a = (word)page_alloc();
        page_b = (word)page_alloc();
        *(u8 *)page_a = 'a';
        *(u8 *)page_b = 'b';
    }
    map(FREE, page_a, P | RW | flags);
    EQ(probe(), 'a');
}
static void switch_to_b(u64 flags) {
    *pte_of(FREE, 1) = page_b | P | RW | flags;
}

TEST(invlpg_flushes) {
    two_pages(0);
    switch_to_b(0);
    invlpg(FREE + 5);
    EQ(probe(), 'b');
}
TEST(mov_cr3_flushes) {
    two_pages(0);
    switch_to_b(0);
    write_cr3(read_cr3());
    EQ(probe(), 'b');
}
TEST(invlpg_flushes_a_global_page) {
    write_cr4(read_cr4() | CR4_PGE);
    two_pages(G);
    switch_to_b(G);
    invlpg(FREE);
    EQ(probe(), 'b');
}
TEST(change_of_pge_flushes_global_pages) {
    write_cr4(read_cr4() | CR4_PGE);
    two_pages(G);
    switch_to_b(G);
    write_cr4(read_cr4() & ~(word)CR4_PGE);
    EQ(probe(), 'b');
}
TEST(mov_cr3_flushes_pages_that_are_not_global) {
    write_cr4(read_cr4() | CR4_PGE);
    two_pages(0);
    switch_to_b(0);
    write_cr3(read_cr3());
    EQ(probe(), 'b');
}
TEST(global_bit_does_nothing_without_pge) {
    two_pages(G);
    switch_to_b(G);
    write_cr3(read_cr3());
    EQ(probe(), 'b');
}
TEST(invlpg_anywhere_in_a_2m_page) {
    map_level(FREE_LOW, 0x1800000, P | RW | PSE, 2);
    *(u8 *)0x1805000 = 1;
    *(u8 *)0x1a05000 = 2;
    EQ(*(volatile u8 *)(FREE_LOW + 0x5000), 1);
    *pte_of(FREE_LOW, 2) = 0x1a00000 | P | RW | PSE;
    invlpg(FREE_LOW + 0x1ff000);
    EQ(*(volatile u8 *)(FREE_LOW + 0x5000), 2);
}
TEST(invlpg_of_a_non_canonical_address_does_nothing) {
    EQ(TRY("invlpg (%%rdi)", 0x900000000000, 0, 0), NONE);
}
TEST(page_fault_drops_the_stale_entry) { // SDM vol. 3A 4.10.4.1
    fresh(FREE);
    *pte_of(FREE, 1) &= ~(u64)RW;
    invlpg(FREE);
    EQ(TRY("mov %%al, (%%rdi)", FREE, 0, 0), PF);
    *pte_of(FREE, 1) |= RW;
    EQ(TRY("mov %%al, (%%rdi)", FREE, 0, 0), NONE);
}
TEST(not_present_is_never_cached) {
    map(FREE, page_a, 0);
    EQ(TRY("mov (%%rdi), %%al", FREE, 0, 0), PF);
    *pte_of(FREE, 1) = page_a | P;
    EQ(TRY("mov (%%rdi), %%al", FREE, 0, 0), NONE);
}
TEST(code_follows_a_remap) {
    u8 *a = page_alloc(), *b = page_alloc();

    *(u32 *)a = 0xc3c0ff48 - 0x0; // inc %rax; ret
    *(u32 *)b = 0xc3c8ff48;       // dec %rax; ret
    map(FREE, (word)a, P | RW);
    for (unsigned i = 0; i < 50; i++) {
        EQ(TRY("mov $10, %%eax; call *%%rdi", FREE, 0, 0), NONE);
        EQ(trap.ax, i & 1 ? 9 : 11);
        map(FREE, (word)(i & 1 ? a : b), P | RW);
    }
}
TEST(code_follows_mov_cr3) {
    u64 *other = page_alloc(), old = read_cr3();
    u8 *a = page_alloc(), *b = page_alloc();

    *(u32 *)a = 0xc3c0ff48; // inc %rax; ret
    *(u32 *)b = 0xc3c8ff48; // dec %rax; ret
    for (unsigned i = 0; i < 512; i++)
        other[i] = pml4[i];
    other[1] = 0;
    map(FREE, (word)a, P | RW);
    write_cr3((word)other);
    map(FREE, (word)b, P | RW);
    for (unsigned i = 0; i < 50; i++) {
        write_cr3(i & 1 ? old : (word)other);
        EQ(TRY("mov $10, %%eax; call *%%rdi", FREE, 0, 0), NONE);
        EQ(trap.ax, i & 1 ? 11 : 9);
    }
    write_cr3(old);
}

// ---- PCID ----

#define INVPCID(type, pcid, addr)                                                                                      \
    ({                                                                                                                 \
        u64 desc_[2] = {pcid, addr};                                                                                   \
        TRY("invpcid (%%rdi), %%rsi", desc_, type, 0);                                                                 \
    })
static bool pcid_on(void) {
    if (!HAS_PCID || !has(7, 1, 10)) {
        skip_test("no PCID or no INVPCID");
        return false;
    }
    write_cr3(read_cr3() & ~0xfffull);
    write_cr4(read_cr4() | CR4_PCIDE);
    return true;
}
static void pcid_off(void) {
    write_cr3(read_cr3() & ~0xfffull);
    write_cr4(read_cr4() & ~(word)CR4_PCIDE);
}
TEST(pcide_needs_pcid_0) {
    if (!HAS_PCID) {
        skip_test("no PCID");
        return;
    }
    write_cr3(read_cr3() | 0x18); // PWT, PCD
    EQ(TRY("mov %%rdi, %%cr4", read_cr4() | CR4_PCIDE, 0, 0), GP);
    write_cr3(read_cr3() & ~0xfffull);
}
TEST(cr3_reads_back_without_bit_63) {
    if (!pcid_on())
        return;
    write_cr3(read_cr3() | 5 | 1ull << 63);
    EQ(read_cr3() & 0xfff, 5);
    EQ(read_cr3() >> 63, 0);
    pcid_off();
}
TEST(mov_cr3_with_pcid_flushes_that_pcid) {
    if (!pcid_on())
        return;
    two_pages(0);
    switch_to_b(0);
    write_cr3(read_cr3());
    EQ(probe(), 'b');
    pcid_off();
}
TEST(pages_of_two_pcids_do_not_mix) {
    u64 *other, cr3;

    if (!pcid_on())
        return;
    cr3 = read_cr3();
    other = page_alloc();
    for (unsigned i = 0; i < 512; i++)
        other[i] = pml4[i];
    other[1] = 0;
    two_pages(0);
    write_cr3((word)other | 1);
    map(FREE, page_b, P | RW);
    EQ(probe(), 'b');
    for (unsigned i = 0; i < 10; i++) {
        write_cr3(cr3 | 1ull << 63);
        EQ(probe(), 'a');
        write_cr3((word)other | 1 | 1ull << 63);
        EQ(probe(), 'b');
    }
    write_cr3(cr3);
    pcid_off();
}
#define INVPCID_CASE(name, type, pcid, addr, flags)                                                                    \
    TEST(name) {                                                                                                       \
        if (!pcid_on())                                                                                                \
            return;                                                                                                    \
        write_cr4(read_cr4() | CR4_PGE);                                                                               \
        two_pages(flags);                                                                                              \
        switch_to_b(flags);                                                                                            \
        EQ(INVPCID(type, pcid, addr), NONE);                                                                           \
        EQ(probe(), 'b');                                                                                              \
        pcid_off();                                                                                                    \
    }
INVPCID_CASE(invpcid_of_an_address, 0, 0, FREE, 0)
INVPCID_CASE(invpcid_of_a_context, 1, 0, 0, 0)
INVPCID_CASE(invpcid_of_all_with_globals, 2, 0, 0, G)
INVPCID_CASE(invpcid_of_all_but_globals, 3, 0, 0, 0)
TEST(invpcid_refuses) {
    if (!pcid_on())
        return;
    EQ(INVPCID(4, 0, 0), GP);
    EQ(INVPCID(0, 0x1000, 0), GP);
    EQ(INVPCID(0, 0, 0x900000000000), GP);
    pcid_off();
    EQ(INVPCID(1, 1, 0), GP); // PCID must be 0 while CR4.PCIDE is off
    EQ(INVPCID(1, 0, 0), NONE);
}
TEST(pcid_flushes_when_switched_off) {
    if (!pcid_on())
        return;
    two_pages(0);
    switch_to_b(0);
    pcid_off();
    EQ(probe(), 'b');
}
TEST(cr3_reserved_bits) {
    EQ(TRY("mov %%rdi, %%cr3", read_cr3() | 1ull << 52, 0, 0), GP);
    EQ(TRY("mov %%rdi, %%cr3", read_cr3() | 1ull << 63, 0, 0), GP);
    EQ(TRY("mov %%rdi, %%cr3", read_cr3() | 1ull << 51, 0, 0), GP);
}

// ---- SMAP and SMEP beside the permission tables ----

TEST(smap_guards_implicit_accesses_in_spite_of_ac) {
    if (!HAS_SMAP) {
        skip_test("no SMAP");
        return;
    }
    // An LDT in a user page: loading a selector from it is a supervisor access that AC does not open.
    u64 *page = page_alloc();

    page[1] = 0x00cf93000000ffff;
    map(FREE, (word)page, P | RW | US);
    pml4[1] |= US;
    gdt[SEL_FREE / 8] = 0xff | (FREE & 0xffffff) << 16 | 0x82ull << 40;
    gdt[SEL_FREE / 8 + 1] = FREE >> 32;
    asm volatile("lldt %w0" ::"r"(SEL_FREE));
    EQ(TRY("mov $0xc, %%eax; mov %%eax, %%ds", 0, 0, 0), NONE);
    write_cr4(read_cr4() | CR4_SMAP);
    EQ(TRY("stac; mov (%%rdi), %%rax; mov $0xc, %%eax; mov %%eax, %%ds; clac", FREE, 0, 0), PF);
    EQ(trap.error, PF_P);
    EQ(trap.cr2, FREE + 8);
    EQ(trap.off, 11);
}
TEST(stac_without_smap_is_legal_at_cpl0) {
    if (!HAS_SMAP) {
        skip_test("no SMAP");
        return;
    }
    EQ(TRY0("stac; pushf; pop %%rax; clac"), NONE);
    EQ(trap.ax & FL_AC, FL_AC);
}
BLOB(user_stac, 64, "stac; int $0x80");
TEST(stac_at_cpl3_is_undefined) {
    EQ(user64(user_stac, 0, 0, 0), UD);
}
TEST(popf_ac_opens_smap_too) {
    if (!HAS_SMAP) {
        skip_test("no SMAP");
        return;
    }
    map(FREE, (word)page_alloc(), P | RW | US);
    write_cr4(read_cr4() | CR4_SMAP);
    EQ(TRY("mov (%%rdi), %%al", FREE, 0, 0), PF);
    EQ(trap.error, PF_P);
    EQ(TRY("pushf; orl $0x40000, (%%rsp); popf; mov (%%rdi), %%al; pushf; andl $~0x40000, (%%rsp); popf", FREE, 0, 0),
       NONE);
    EQ(TRY("mov (%%rdi), %%al", FREE, 0, 0), PF);
}
TEST(exception_clears_ac_only_through_its_frame) { // AC survives delivery; the kernel clears it itself
    EQ(TRY0("pushf; orl $0x40000, (%%rsp); popf; ud2"), UD);
    EQ(trap.f.flags & FL_AC, FL_AC);
}
