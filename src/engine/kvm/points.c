// SPDX-License-Identifier: Apache-2.0
// A debugger's points: watchpoints and hardware breakpoints take debug registers (SDM vol. 3B 18.2), software
// breakpoints what is left of them, because nobody sees those, and INT3 in memory when there are no more.
#include <errno.h>
#include <stdlib.h>

#include "engine/kvm/kvm.h"

#define INT3       0xccu
#define DR7_ALWAYS 0x600u // reserved bit 10, GE

// ---- debug registers ----

static int take_register(struct kvm_points *k, const struct debug_point *p, uint64_t addr, unsigned size) {
    static const uint8_t kinds[] = {[DEBUG_SOFT] = 0, [DEBUG_EXEC] = 0, [DEBUG_WRITE] = 1, [DEBUG_ACCESS] = 3};
    static const uint8_t lengths[] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};
    unsigned i = 0;

    while (i < 4 && k->dr_point[i])
        i++;
    if (i == 4)
        return -ENOSPC;
    k->dr_point[i] = p;
    k->dr[i] = addr;
    k->dr7 |= DR7_ALWAYS | 2ull << 2 * i | (uint64_t)(kinds[p->kind] | lengths[size] << 2) << (16 + 4 * i);
    return 0;
}

// In pieces that a register can hold: aligned, of 1, 2, 4 or 8 bytes.
static int watch(struct kvm_points *k, const struct debug_point *p) {
    uint64_t addr = p->addr, left = p->len;
    int r = p->kind == DEBUG_READ ? -EOPNOTSUPP : 0; // x86 cannot watch for reads alone

    while (left && r == 0) {
        unsigned size = 8;
        while (size > left || (addr & (size - 1)))
            size /= 2;
        r = take_register(k, p, addr, size);
        addr += size, left -= size;
    }
    return r;
}

// ---- memory ----

static int patch(struct engine *e, struct kvm_points *k, const struct debug_point *p) {
    uint8_t byte = INT3;

    if (k->patches == KVM_MAX_PATCHES)
        return -ENOSPC;
    if (p->gpa == DEBUG_UNMAPPED || mem_read(e->host->mem, GPA(p->gpa), &k->original[k->patches], 1) ||
        mem_write(e->host->mem, GPA(p->gpa), &byte, 1))
        return -EFAULT;
    k->patched[k->patches++] = p;
    return 0;
}

// What the guest has overwritten meanwhile stays.
static void unpatch(struct engine *e, struct kvm_points *k) {
    for (unsigned i = k->patches; i-- > 0;) {
        uint8_t byte = 0;
        if (mem_read(e->host->mem, GPA(k->patched[i]->gpa), &byte, 1) == 0 && byte == INT3)
            mem_write(e->host->mem, GPA(k->patched[i]->gpa), &k->original[i], 1);
    }
    k->patches = 0;
}

// ---- both ----

static int place(struct engine *e, struct kvm_points *k) {
    int r = 0;

    for (unsigned i = 0; i < k->count && r == 0; i++)
        if (k->points[i].kind != DEBUG_SOFT)
            r = watch(k, &k->points[i]);
    for (unsigned i = 0; i < k->count && r == 0; i++)
        if (k->points[i].kind == DEBUG_SOFT && take_register(k, &k->points[i], k->points[i].addr, 1))
            r = patch(e, k, &k->points[i]);
    return r;
}

int kvm_points_set(struct engine *e, const struct debug_point *points, unsigned count) {
    struct kvm_points fresh = {.count = count}, *old = &e->points;
    int r = 0;

    if (count && !(fresh.points = calloc(count, sizeof(*points))))
        return -ENOMEM;
    for (unsigned i = 0; i < count; i++)
        fresh.points[i] = points[i];
    unpatch(e, old);
    r = place(e, &fresh);
    if (r) {
        unpatch(e, &fresh);
        free(fresh.points);
        *old = (struct kvm_points){.points = old->points, .count = old->count};
        (void)place(e, old); // as before: it could be placed then
        return r;
    }
    free(old->points);
    *old = fresh;
    return 0;
}

void kvm_points_destroy(struct engine *e) {
    free(e->points.points);
}

const struct debug_point *kvm_points_find(const struct engine *e, unsigned vector, uint64_t pc, uint64_t dr6) {
    const struct kvm_points *k = &e->points;

    for (unsigned i = 0; i < 4 && vector == X86_DB; i++)
        if ((dr6 >> i & 1) && k->dr_point[i])
            return k->dr_point[i];
    for (unsigned i = 0; i < k->patches && vector == X86_BP; i++)
        if (k->patched[i]->addr == pc)
            return k->patched[i];
    return NULL;
}
