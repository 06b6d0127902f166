// SPDX-License-Identifier: Apache-2.0
// Range tables of the port and memory buses.
//
// Invariants: each table is sorted by base and its ranges do not overlap; a handler is called without the lock,
// so that it may itself map and unmap (a PCI BAR that moves).
#include "bus/bus.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct bus_range {
    uint64_t base, last; // both inclusive, so that a range may end at the top of the address space
    const struct bus_ops *ops;
    void *ctx;
};

struct range_table {
    struct bus_range *ranges;
    unsigned count, capacity;
};

struct bus {
    const char *name;
    pthread_rwlock_t lock;          // guards both tables
    struct range_table front, back; // bus_map, bus_map_background
};

static uint64_t ones(unsigned size) {
    return size >= 8 ? UINT64_MAX : (UINT64_C(1) << (size * 8)) - 1;
}

static bool size_valid(unsigned size) {
    return size == 1 || size == 2 || size == 4 || size == 8;
}

// Index of the first range with base > addr.
static unsigned table_upper(const struct range_table *t, uint64_t addr) {
    unsigned lo = 0, hi = t->count;
    while (lo < hi) {
        unsigned mid = lo + (hi - lo) / 2;
        if (t->ranges[mid].base <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

// The range that holds all of [addr, addr+size), or NULL.
static const struct bus_range *table_find(const struct range_table *t, uint64_t addr, unsigned size) {
    unsigned i = table_upper(t, addr);
    if (!i)
        return NULL;
    const struct bus_range *r = &t->ranges[i - 1];
    return addr <= r->last && size - 1 <= r->last - addr ? r : NULL;
}

static int table_grow(struct range_table *t) {
    if (t->count < t->capacity)
        return 0;
    unsigned capacity = t->capacity ? t->capacity * 2 : 32;
    struct bus_range *ranges = realloc(t->ranges, capacity * sizeof(*ranges));
    if (!ranges)
        return -ENOMEM;
    t->ranges = ranges;
    t->capacity = capacity;
    return 0;
}

static int table_insert(struct range_table *t, const struct bus_range *r) {
    unsigned i = table_upper(t, r->last); // first range that starts after r ends
    if (i && t->ranges[i - 1].last >= r->base)
        return -EEXIST;
    int ret = table_grow(t);
    if (ret)
        return ret;
    memmove(&t->ranges[i + 1], &t->ranges[i], (t->count - i) * sizeof(*r));
    t->ranges[i] = *r;
    t->count++;
    return 0;
}

static bool table_remove(struct range_table *t, uint64_t base) {
    unsigned i = table_upper(t, base);
    if (!i || t->ranges[i - 1].base != base)
        return false;
    memmove(&t->ranges[i - 1], &t->ranges[i], (t->count - i) * sizeof(*t->ranges));
    t->count--;
    return true;
}

int bus_create(struct bus **bus, const char *name, struct error *err) {
    struct bus *b = calloc(1, sizeof(*b));
    if (!b)
        return error_set(err, -ENOMEM, "create bus '%s'", name);
    b->name = name;
    pthread_rwlock_init(&b->lock, NULL);
    *bus = b;
    return 0;
}

void bus_destroy(struct bus *bus) {
    if (!bus)
        return;
    free(bus->front.ranges);
    free(bus->back.ranges);
    pthread_rwlock_destroy(&bus->lock);
    free(bus);
}

static int bus_insert(struct bus *bus, struct range_table *t, uint64_t base, uint64_t len, const struct bus_ops *ops,
                      void *ctx) {
    if (!len || len - 1 > UINT64_MAX - base)
        return -EINVAL;
    struct bus_range r = {.base = base, .last = base + (len - 1), .ops = ops, .ctx = ctx};
    pthread_rwlock_wrlock(&bus->lock);
    int ret = table_insert(t, &r);
    pthread_rwlock_unlock(&bus->lock);
    return ret;
}

int bus_map(struct bus *bus, uint64_t base, uint64_t len, const struct bus_ops *ops, void *ctx) {
    return bus_insert(bus, &bus->front, base, len, ops, ctx);
}

int bus_map_background(struct bus *bus, uint64_t base, uint64_t len, const struct bus_ops *ops, void *ctx) {
    return bus_insert(bus, &bus->back, base, len, ops, ctx);
}

void bus_unmap(struct bus *bus, uint64_t base) {
    pthread_rwlock_wrlock(&bus->lock);
    if (!table_remove(&bus->front, base))
        table_remove(&bus->back, base);
    pthread_rwlock_unlock(&bus->lock);
}

// Copies the range out, so that the handler runs without the lock.
static bool bus_find(struct bus *bus, uint64_t addr, unsigned size, struct bus_range *out) {
    pthread_rwlock_rdlock(&bus->lock);
    const struct bus_range *r = table_find(&bus->front, addr, size);
    if (!r)
        r = table_find(&bus->back, addr, size);
    if (r)
        *out = *r;
    pthread_rwlock_unlock(&bus->lock);
    return r != NULL;
}

static bool bus_read_bytes(struct bus *bus, uint64_t addr, unsigned size, unsigned vcpu, uint64_t *data) {
    bool any = false;
    uint64_t all = 0;
    for (unsigned i = 0; i < size; i++) {
        uint64_t byte;
        any |= bus_read(bus, addr + i, 1, vcpu, &byte);
        all |= byte << (i * 8);
    }
    *data = all;
    return any;
}

bool bus_read(struct bus *bus, uint64_t addr, unsigned size, unsigned vcpu, uint64_t *data) {
    struct bus_range r;
    *data = ones(size);
    if (!size_valid(size))
        return false;
    if (!bus_find(bus, addr, size, &r))
        return size > 1 && bus_read_bytes(bus, addr, size, vcpu, data);
    struct bus_access a = {.offset = addr - r.base, .data = ones(size), .size = (uint8_t)size, .vcpu = vcpu};
    if (r.ops->read)
        r.ops->read(r.ctx, &a);
    *data = a.data & ones(size);
    return true;
}

static bool bus_write_bytes(struct bus *bus, uint64_t addr, unsigned size, unsigned vcpu, uint64_t data) {
    bool any = false;
    for (unsigned i = 0; i < size; i++)
        any |= bus_write(bus, addr + i, 1, vcpu, (data >> (i * 8)) & 0xff);
    return any;
}

bool bus_write(struct bus *bus, uint64_t addr, unsigned size, unsigned vcpu, uint64_t data) {
    struct bus_range r;
    if (!size_valid(size))
        return false;
    if (!bus_find(bus, addr, size, &r))
        return size > 1 && bus_write_bytes(bus, addr, size, vcpu, data);
    struct bus_access a = {.offset = addr - r.base, .data = data & ones(size), .size = (uint8_t)size, .vcpu = vcpu};
    if (r.ops->write)
        r.ops->write(r.ctx, &a);
    return true;
}
