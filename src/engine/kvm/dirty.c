// SPDX-License-Identifier: Apache-2.0
// The dirty log (api.rst 4.8 KVM_GET_DIRTY_LOG, 4.117 KVM_CLEAR_DIRTY_LOG, 7.14 manual protection) into core/mem.h; or
// the rings of dirty_ring.c, from RING_FROM bytes of memory on, where a look at every bit costs more than the pages
// that were written: 0.3 to 1.3 ms for 64 GiB, while the vCPUs stand.
//
// Logging costs the guest large pages, so it starts with the first sync, which reports every page: until then nothing
// was recorded. With manual protection reading and protecting are two calls: only pages that were written are protected
// again, and a range at a time, so that KVM's lock is never held for all of a large guest.
#define LOG_UNIT "kvm"
#include <errno.h>
#include <stdlib.h>

#include "engine/kvm/kvm.h"
#include "util/log.h"

#define RING_FROM   (UINT64_C(16) << 30)
#define WORD_PAGES  64
#define RANGE_WORDS 1024 // of one KVM_CLEAR_DIRTY_LOG: 256 MiB

static bool much_memory(struct engine *e) {
    uint64_t bytes = 0;
    unsigned count;
    const struct mem_slot *slots = mem_slots(e->host->mem, &count);

    for (unsigned i = 0; i < count; i++)
        bytes += slots[i].size;
    return bytes >= RING_FROM;
}

static bool enable_manual(struct engine *e) {
    int offered = kvm_has(e->vm_fd, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2);
    struct kvm_enable_cap cap = {.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
                                 .args = {KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE}};

    return offered > 0 && (offered & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) &&
           kvm_ioctl(e->vm_fd, KVM_ENABLE_CAP, &cap) == 0;
}

int kvm_dirty_init(struct engine *e, enum kvm_dirty_kind kind, struct error *err) {
    int r = -EOPNOTSUPP;

    if (kind == KVM_DIRTY_RING || (kind == KVM_DIRTY_AUTO && much_memory(e)))
        r = kvm_ring_enable(e);
    if (r && kind == KVM_DIRTY_RING)
        return error_set(err, r, "kvm: have the dirty log as rings (--kvm-opts dirty=ring)");
    e->dirty_ring = r == 0;
    e->dirty_manual = !e->dirty_ring && enable_manual(e);
    return 0;
}

static void mark_word(struct engine *e, const struct mem_slot *s, uint64_t first_page, unsigned long word) {
    for (; word; word &= word - 1) {
        uint64_t page = first_page + (unsigned)__builtin_ctzl(word);
        mem_mark_dirty(e->host->mem, GPA(s->gpa + (page << PAGE_SHIFT)), PAGE_SIZE);
    }
}

// Protects the pages of `bits` again. The range begins and ends at a word, or at the end of the slot (4.117).
static int clear_range(struct engine *e, unsigned index, const struct mem_slot *s, unsigned long *bits, uint64_t word) {
    uint64_t pages = s->size >> PAGE_SHIFT, first = word * WORD_PAGES, n = RANGE_WORDS * WORD_PAGES;
    struct kvm_clear_dirty_log c = {
        .slot = index,
        .first_page = first,
        .num_pages = (uint32_t)(n < pages - first ? n : pages - first),
        .dirty_bitmap = bits + word,
    };
    return kvm_ioctl(e->vm_fd, KVM_CLEAR_DIRTY_LOG, &c);
}

// Marks what the log holds. In manual mode protection comes first for a range and counts only when all of it worked: a
// page that stays unprotected stays in KVM's log.
static int take_log(struct engine *e, unsigned index, const struct mem_slot *s, unsigned long *bits, uint64_t words) {
    int r = 0;
    for (uint64_t word = 0; r == 0 && word < words; word += RANGE_WORDS) {
        uint64_t end = word + RANGE_WORDS < words ? word + RANGE_WORDS : words;
        unsigned long any = 0;
        for (uint64_t i = word; i < end; i++) {
            any |= bits[i];
            mark_word(e, s, i * WORD_PAGES, bits[i]);
        }
        if (any && e->dirty_manual)
            r = clear_range(e, index, s, bits, word);
    }
    return r;
}

static int fetch_slot(struct engine *e, unsigned index, const struct mem_slot *s) {
    uint64_t words = mem_bitmap_words(s);
    unsigned long *bits = calloc(words, sizeof(*bits));
    struct kvm_dirty_log log = {.slot = index, .dirty_bitmap = bits};
    int r = bits ? kvm_ioctl(e->vm_fd, KVM_GET_DIRTY_LOG, &log) : -ENOMEM;

    if (r == 0)
        r = take_log(e, index, s, bits, words);
    free(bits);
    return r;
}

static int log_all(struct engine *e, bool on) {
    unsigned count;
    const struct mem_slot *slots = mem_slots(e->host->mem, &count);
    int r = 0;

    for (unsigned i = 0; r == 0 && i < count; i++)
        if (!slots[i].rom)
            r = kvm_memory_set_slot(e, i, &slots[i], on);
    return r;
}

static void fetch_all(struct engine *e) {
    unsigned count;
    const struct mem_slot *slots = mem_slots(e->host->mem, &count);

    for (unsigned i = 0; i < count; i++) {
        int r = slots[i].rom ? 0 : fetch_slot(e, i, &slots[i]);
        if (r == 0)
            continue;
        log_warn("dirty log of '%s': error %d, all of it counts as written", slots[i].name, r);
        mem_mark_dirty(e->host->mem, GPA(slots[i].gpa), slots[i].size);
    }
}

void kvm_dirty_all(struct engine *e) {
    unsigned count;
    const struct mem_slot *slots = mem_slots(e->host->mem, &count);

    for (unsigned i = 0; i < count; i++)
        if (!slots[i].rom)
            mem_mark_dirty(e->host->mem, GPA(slots[i].gpa), slots[i].size);
}

// The first one: nothing was recorded so far.
static void start(struct engine *e) {
    int r = log_all(e, true);

    if (r)
        log_warn("start of the dirty log: error %d, all memory counts as written", r);
    e->dirty_logging = r == 0;
    kvm_dirty_all(e);
}

void kvm_dirty_sync(struct engine *e) {
    if (!e->dirty_logging)
        start(e);
    else if (e->dirty_ring)
        kvm_ring_sync(e);
    else
        fetch_all(e);
}

void kvm_dirty_stop(struct engine *e) {
    int r = e->dirty_logging ? log_all(e, false) : 0;

    if (r)
        log_warn("end of the dirty log: error %d", r);
    e->dirty_logging = false;
}
