// SPDX-License-Identifier: Apache-2.0
// The source's side of guest memory: which pages the target still lacks, and the messages that carry them. In
// post-copy, with the guest stopped for good, the same list is worked off while the target asks for single pages of it.
//
// Invariant: a page is in `todo`, or its bit is in the dirty log of core/mem.h, or what was sent of it is what it
// holds. Pages are read while the guest writes to them: whatever was torn is written again, so it is in the next round.
// Pages fetched from the log stay known to core/mem.h as written since the last checkpoint, whatever becomes of the
// migration. Loop thread.
#ifndef CICADA_STATE_MIGRATE_PRECOPY_H
#define CICADA_STATE_MIGRATE_PRECOPY_H

#include "core/machine.h"
#include "state/migrate/wire.h"

struct precopy_block {
    const struct mem_slot *slot;
    unsigned long *todo, *fresh; // a bit a page: to be sent in this round; work space
};

struct precopy {
    struct machine *machine;
    struct precopy_block *blocks; // one for each of mem_slots
    unsigned count;
    unsigned block; // where the round stands
    uint64_t page;
    uint64_t left;          // pages in todo
    uint64_t pages, zeroes; // sent so far
    uint64_t total;         // pages of RAM
};

// 0, or -ENOMEM with err set; on failure nothing is left.
int precopy_create(struct machine *m, struct precopy *pc, struct error *err);
void precopy_destroy(struct precopy *pc);
// The guest stays here: ends the dirty log, unless snapshots live on it.
void precopy_give_up(struct precopy *pc);
// Begins: every page with content is to be sent. Stops the vCPUs for as long as the engine needs to start its log. 0,
// or negative errno with err set.
int precopy_begin(struct precopy *pc, struct error *err);
// Adds what was written since the last call and begins a round. Stops the vCPUs for a moment.
void precopy_sync(struct precopy *pc);
// Queues some pages (at most about 256 KiB). True; false where the round is at its end; or -ENOMEM in *ret.
bool precopy_send(struct precopy *pc, struct wire *w, int *ret);
// The same, and from the beginning again where pages are left there.
bool precopy_send_rest(struct precopy *pc, struct wire *w, int *ret);
// Post-copy: tells the target which pages it lacks.
int precopy_send_pending(const struct precopy *pc, struct wire *w);
// WIRE_REQUEST: queues that page, unless it is on its way already; the round goes on behind it. 0, -ENOMEM, or -EINVAL
// where there is no such page.
int precopy_request(struct precopy *pc, struct wire *w, const struct wire_message *m);

// ---- the target's side ----

struct precopy_sink {
    struct machine *machine;
    unsigned long **filled; // a bit a page: not known to be zero; one map a block
    unsigned count;
    uint64_t pages;
};

int precopy_sink_create(struct machine *m, struct precopy_sink *r, struct error *err);
void precopy_sink_destroy(struct precopy_sink *r);
// WIRE_PAGES and WIRE_ZEROES into guest memory. 0, or -EINVAL with err set where the message does not fit the memory.
int precopy_receive(struct precopy_sink *r, const struct wire_message *m, struct error *err);

#endif
