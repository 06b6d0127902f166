// SPDX-License-Identifier: Apache-2.0
// The inside of the code cache, shared by cache.c and smc.c.
#ifndef CICADA_XLATE_CACHE_PRIV_H
#define CICADA_XLATE_CACHE_PRIV_H

#include "engine/xlate/cache.h"
#include "engine/xlate/tb.h"

#define TB_HASH_BITS   17
#define PAGE_HASH_BITS 13

struct phys_code {
    uint64_t gpa_page;
    struct code_page *pages;
    struct phys_code *hash_next;
    uint64_t granules[PAGE_SIZE >> CODE_GRANULE_SHIFT >> 6]; // bytes that some block was made from
};

// How far the pages of a growing table are there already.
struct ahead {
    size_t bytes;
};

struct code_cache {
    struct xlock lock;
    struct engine *engine;
    uint8_t *rw, *rx;
    size_t size, used, reserved;  // reserved: the trampolines, kept over flushes
    size_t cold_start, cold_used; // stubs lie behind all bodies, so that these are close together
    struct ahead hot_ahead, cold_ahead, meta_ahead, exits_ahead;
    uint8_t *meta;
    size_t meta_size, meta_used;
    struct tb *tb_hash[1u << TB_HASH_BITS];
    struct phys_code *page_hash[1u << PAGE_HASH_BITS];
    struct tb **order; // by address, for cache_find_pc
    size_t order_max;
    atomic_size_t order_count;
    struct tb_exit *exits;
    uint32_t exit_count, exit_max;
    uint32_t next_id;
    atomic_uint generation;
    atomic_uint gate;            // non-zero: nobody may enter translated code
    atomic_uint protected_pages; // counts smc_protect
    uint8_t *page_flags;         // PAGE_* by guest-physical page number
    uint64_t page_flags_count;
    struct trampolines tramps;
};

struct phys_code *phys_find(struct code_cache *c, uint64_t gpa_page);
// Makes gpa_page a code page: no vCPU has a write tag or an unfinished store for it when this returns.
void smc_protect(struct code_cache *c, struct xcpu *self, uint64_t gpa_page);
// Before bytes beside existing code are translated: true if no store of translated code can be under way there;
// otherwise waits for the stores and returns false.
bool smc_quiesce_beside(struct code_cache *c, struct xcpu *self, uint64_t gpa_page);
#define EXIT_LAST UINT32_MAX // in tb_exit.next: linked, end of the list
void cache_unlink_incoming(struct code_cache *c, struct tb *t);
void smc_kill_page(struct code_cache *c, struct phys_code *p);
// Waits until every other vCPU has passed a safe point or is outside of translated code.
void smc_barrier(struct engine *e, struct xcpu *self);

#endif
