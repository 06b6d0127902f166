// SPDX-License-Identifier: Apache-2.0
// Page tables of a long-mode test guest. Free for tests: 2 to 3 GiB, and everything from 512 GiB on. USER, at 1 GiB, is
// for code and stacks of user mode, also of compatibility mode.
#ifndef PAGETABLES_H
#define PAGETABLES_H

#include "guest.h"

enum { P = 1, RW = 2, US = 4, PWT = 8, PCD = 16, A = 32, D = 64, PSE = 128, G = 256 };
#define NX       (1ull << 63)
#define PTE_ADDR 0x000ffffffffff000ull

#define USER       0x40000000ull // the section .blob
#define USER_STACK 0x40200000ull // top, one page
#define USER_DATA  0x40300000ull // one page
#define FREE_LOW   0x80000000ull
#define FREE       0x8000000000ull

extern u64 pml4[512];
// The entry of va at a level (1: 4 KiB ... 4: PML4); makes what is missing above it with P | RW | US.
u64 *pte_of(u64 va, unsigned level);
void map_level(u64 va, u64 pa, u64 flags, unsigned level); // and INVLPG
static inline void map(u64 va, u64 pa, u64 flags) {
    map_level(va, pa, flags, 1);
}
void user_setup(void);                // maps .blob, the stack and the data page, once
extern u64 *user_data;                // the physical page behind USER_DATA
u64 user_address(const void *symbol); // where user mode sees it
// Runs blob code at CPL 3, 64-bit or 32-bit, until it leaves.
int user64(const void *code, word a, word b, word c);
int user32(const void *code, word a, word b, word c);
#endif
