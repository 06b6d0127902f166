// SPDX-License-Identifier: Apache-2.0
// Page tables of a long-mode test guest.
#include "pagetables.h"

u64 *user_data;

u64 *pte_of(u64 va, unsigned level) {
    u64 *table = (u64 *)(read_cr3() & PTE_ADDR);

    for (unsigned l = 4;; l--) {
        u64 *e = &table[va >> (12 + 9 * (l - 1)) & 511];

        if (l == level)
            return e;
        if (!(*e & P))
            *e = (word)page_alloc() | P | RW | US;
        table = (u64 *)(*e & PTE_ADDR);
    }
}

void map_level(u64 va, u64 pa, u64 flags, unsigned level) {
    *pte_of(va, level) = pa | flags;
    invlpg(va);
}

void user_setup(void) {
    if (user_data)
        return;
    pml4[0] |= US;
    for (u64 off = 0; off < (u64)(blob_end - blob_begin); off += 4096)
        map(USER + off, (u64)blob_begin + off, P | RW | US);
    map(USER_STACK - 4096, (u64)page_alloc(), P | RW | US);
    user_data = page_alloc();
    map(USER_DATA, (u64)user_data, P | RW | US);
}

u64 user_address(const void *symbol) {
    return USER + (u64)((const char *)symbol - blob_begin);
}

static int user_enter(const void *code, u16 cs, word a, word b, word c) {
    user_setup();
    entry.ip = user_address(code);
    entry.cs = cs;
    entry.sp = USER_STACK;
    return (int)ENTER(a, b, c);
}

int user64(const void *code, word a, word b, word c) {
    return user_enter(code, UCS64, a, b, c);
}

int user32(const void *code, word a, word b, word c) {
    return user_enter(code, UCS32, a, b, c);
}
