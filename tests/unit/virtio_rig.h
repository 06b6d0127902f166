// SPDX-License-Identifier: Apache-2.0
// For the tests of PCI and virtio: a machine without vCPUs, its event loop on a thread of its own, and a driver that
// does what a guest's would, register by register and ring by ring. Include after cmocka.h.
#ifndef CICADA_TESTS_VIRTIO_RIG_H
#define CICADA_TESTS_VIRTIO_RIG_H

#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <time.h>

#include "bus/pci.h"
#include "virtio/virtio_pci.h"

#define RIG_RAM  (16u << 20)
#define RIG_MSIS 64

struct rig {
    struct machine m;
    struct bus *pio, *mmio;
    struct pci_host *host;
    pthread_t loop_thread;
    bool loop_running;
    atomic_uint msis[RIG_MSIS]; // by data value
    atomic_int gsis[IRQ_GSI_COUNT];
    struct error err;
};

static void rig_msi(void *ctx, uint64_t addr, uint32_t data) {
    struct rig *r = ctx;
    if (addr == 0xfee00000 && data < RIG_MSIS)
        atomic_fetch_add(&r->msis[data], 1);
}

static void rig_gsi(void *ctx, unsigned gsi, bool level) {
    struct rig *r = ctx;
    atomic_store(&r->gsis[gsi], level);
}

static void *rig_loop(void *ctx) {
    struct rig *r = ctx;
    event_loop_run(r->m.loop);
    return NULL;
}

static inline void rig_loop_start(struct rig *r) {
    assert_int_equal(pthread_create(&r->loop_thread, NULL, rig_loop, r), 0);
    r->loop_running = true;
}

static inline void rig_loop_stop(struct rig *r) {
    if (!r->loop_running)
        return;
    event_loop_quit(r->m.loop, 0);
    pthread_join(r->loop_thread, NULL);
    r->loop_running = false;
}

static inline struct rig *rig_new(void) {
    struct rig *r = calloc(1, sizeof(*r));
    assert_non_null(r);
    assert_int_equal(machine_init(&r->m, &r->err), 0);
    assert_int_equal(mem_add_ram(r->m.mem, GPA(0), RIG_RAM, "ram", &r->err), 0);
    assert_int_equal(bus_create(&r->pio, "pio", &r->err), 0);
    assert_int_equal(bus_create(&r->mmio, "mmio", &r->err), 0);
    irq_set_msi_sink(&r->m.irq, rig_msi, r);
    assert_int_equal(irq_add_sink(&r->m.irq, rig_gsi, r), 0);
    assert_int_equal(pci_host_create(&r->m, r->pio, r->mmio, &r->host, &r->err), 0);
    clock_resume(&r->m.clock);
    return r;
}

static inline void rig_free(struct rig *r) {
    rig_loop_stop(r);
    machine_destroy(&r->m);
    bus_destroy(r->pio);
    bus_destroy(r->mmio);
    free(r);
}

static inline uint64_t rig_read(struct rig *r, uint64_t addr, unsigned size) {
    uint64_t v;
    bus_read(r->mmio, addr, size, 0, &v);
    return v;
}

static inline void rig_write(struct rig *r, uint64_t addr, unsigned size, uint64_t v) {
    bus_write(r->mmio, addr, size, 0, v);
}

static inline uint64_t rig_ecam(unsigned slot, unsigned reg) {
    return PCI_ECAM_BASE + (slot << 15) + reg;
}

static inline void rig_put(struct rig *r, uint64_t gpa, const void *p, size_t n) {
    assert_int_equal(mem_write(r->m.mem, GPA(gpa), p, n), 0);
}

static inline void rig_get(struct rig *r, uint64_t gpa, void *p, size_t n) {
    assert_int_equal(mem_read(r->m.mem, GPA(gpa), p, n), 0);
}

static inline uint16_t rig_get16(struct rig *r, uint64_t gpa) {
    uint16_t v;
    rig_get(r, gpa, &v, 2);
    return v;
}

static inline void rig_put16(struct rig *r, uint64_t gpa, uint16_t v) {
    rig_put(r, gpa, &v, 2);
}

// ---- the driver ----

struct drv_queue {
    uint64_t desc, avail, used;
    uint16_t size, next_desc, avail_idx, used_seen;
};

struct drv {
    struct rig *rig;
    unsigned slot;
    uint64_t bar;
    uint64_t features;
    struct drv_queue q[VIRTIO_QUEUES_MAX];
};

struct drv_seg {
    uint64_t gpa;
    uint32_t len;
    bool write;
};

static inline uint64_t drv_common(struct drv *d, unsigned reg, unsigned size) {
    return rig_read(d->rig, d->bar + VIRTIO_PCI_BAR_COMMON + reg, size);
}

static inline void drv_common_set(struct drv *d, unsigned reg, unsigned size, uint64_t v) {
    rig_write(d->rig, d->bar + VIRTIO_PCI_BAR_COMMON + reg, size, v);
}

static inline void drv_status_add(struct drv *d, uint8_t bits) {
    drv_common_set(d, VIRTIO_PCI_COMMON_STATUS, 1, drv_common(d, VIRTIO_PCI_COMMON_STATUS, 1) | bits);
}

static inline uint64_t drv_features(struct drv *d) {
    drv_common_set(d, VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
    uint64_t high = drv_common(d, VIRTIO_PCI_COMMON_DF, 4);
    drv_common_set(d, VIRTIO_PCI_COMMON_DFSELECT, 4, 0);
    return high << 32 | drv_common(d, VIRTIO_PCI_COMMON_DF, 4);
}

static inline void drv_queue_setup(struct drv *d, unsigned i, uint64_t gpa) {
    struct drv_queue *q = &d->q[i];
    drv_common_set(d, VIRTIO_PCI_COMMON_Q_SELECT, 2, i);
    q->size = (uint16_t)drv_common(d, VIRTIO_PCI_COMMON_Q_SIZE, 2);
    q->desc = gpa;
    q->avail = gpa + 0x8000;
    q->used = gpa + 0xa000;
    const uint8_t zero[0x1000] = {0};
    for (unsigned page = 0; page < 16; page++)
        rig_put(d->rig, gpa + page * 0x1000, zero, sizeof(zero));
    q->next_desc = q->avail_idx = q->used_seen = 0;
    drv_common_set(d, VIRTIO_PCI_COMMON_Q_DESCLO, 4, q->desc);
    drv_common_set(d, VIRTIO_PCI_COMMON_Q_DESCHI, 4, 0);
    drv_common_set(d, VIRTIO_PCI_COMMON_Q_AVAILLO, 8, q->avail); // 64 bits at once work too
    drv_common_set(d, VIRTIO_PCI_COMMON_Q_USEDLO, 4, q->used);
    drv_common_set(d, VIRTIO_PCI_COMMON_Q_USEDHI, 4, 0);
    drv_common_set(d, VIRTIO_PCI_COMMON_Q_MSIX, 2, i + 1);
    drv_common_set(d, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
}

// Vector i sends data base + i.
static inline void drv_msix_on(struct drv *d, unsigned cap, unsigned base) {
    for (unsigned v = 0; v <= VIRTIO_QUEUES_MAX; v++) {
        uint64_t e = d->bar + VIRTIO_PCI_BAR_MSIX_TABLE + v * 16;
        rig_write(d->rig, e, 4, 0xfee00000);
        rig_write(d->rig, e + 4, 4, 0);
        rig_write(d->rig, e + 8, 4, base + v);
        rig_write(d->rig, e + 12, 4, 0);
    }
    rig_write(d->rig, rig_ecam(d->slot, cap + PCI_MSIX_FLAGS), 2, PCI_MSIX_FLAGS_ENABLE);
}

static inline unsigned drv_find_cap(struct drv *d, uint8_t id) {
    unsigned pos = (unsigned)rig_read(d->rig, rig_ecam(d->slot, PCI_CAPABILITY_LIST), 1);
    for (int i = 0; pos && i < 48; i++) {
        if (rig_read(d->rig, rig_ecam(d->slot, pos), 1) == id)
            return pos;
        pos = (unsigned)rig_read(d->rig, rig_ecam(d->slot, pos + 1), 1);
    }
    return 0;
}

static inline void drv_attach(struct drv *d, struct rig *r, unsigned slot) {
    *d = (struct drv){.rig = r, .slot = slot};
    rig_write(r, rig_ecam(slot, PCI_COMMAND), 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    d->bar = rig_read(r, rig_ecam(slot, PCI_BASE_ADDRESS_0), 4) & ~15ull;
}

// From reset to DRIVER_OK with the device's features less `without`.
static inline void drv_start(struct drv *d, uint64_t without, bool msix) {
    drv_common_set(d, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    drv_status_add(d, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    d->features = drv_features(d) & ~without;
    drv_common_set(d, VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
    drv_common_set(d, VIRTIO_PCI_COMMON_GF, 4, (uint32_t)d->features);
    drv_common_set(d, VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
    drv_common_set(d, VIRTIO_PCI_COMMON_GF, 4, d->features >> 32);
    drv_status_add(d, VIRTIO_CONFIG_S_FEATURES_OK);
    assert_true(drv_common(d, VIRTIO_PCI_COMMON_STATUS, 1) & VIRTIO_CONFIG_S_FEATURES_OK);
    if (msix) {
        drv_msix_on(d, drv_find_cap(d, PCI_CAP_ID_MSIX), 16);
        drv_common_set(d, VIRTIO_PCI_COMMON_MSIX, 2, 0);
    }
    unsigned n = (unsigned)drv_common(d, VIRTIO_PCI_COMMON_NUMQ, 2);
    for (unsigned i = 0; i < n; i++)
        drv_queue_setup(d, i, 0x100000 + i * 0x10000);
    drv_status_add(d, VIRTIO_CONFIG_S_DRIVER_OK);
}

static inline void drv_desc(struct drv *d, unsigned queue, unsigned i, struct vring_desc desc) {
    rig_put(d->rig, d->q[queue].desc + i * 16, &desc, 16);
}

// Makes a head available without looking at what it is.
static inline void drv_offer(struct drv *d, unsigned queue, uint16_t head) {
    struct drv_queue *q = &d->q[queue];
    rig_put16(d->rig, q->avail + 4 + 2 * (q->avail_idx % q->size), head);
    q->avail_idx++;
    atomic_thread_fence(memory_order_seq_cst);
    rig_put16(d->rig, q->avail + 2, q->avail_idx);
}

static inline uint16_t drv_add(struct drv *d, unsigned queue, const struct drv_seg *s, unsigned n) {
    struct drv_queue *q = &d->q[queue];
    uint16_t head = q->next_desc;
    for (unsigned i = 0; i < n; i++) {
        uint16_t at = (uint16_t)((head + i) % q->size), next = (uint16_t)((at + 1) % q->size);
        drv_desc(d, queue, at,
                 (struct vring_desc){
                     .addr = s[i].gpa,
                     .len = s[i].len,
                     .flags = (uint16_t)((s[i].write ? VRING_DESC_F_WRITE : 0) | (i + 1 < n ? VRING_DESC_F_NEXT : 0)),
                     .next = next});
    }
    q->next_desc = (uint16_t)((head + n) % q->size);
    drv_offer(d, queue, head);
    return head;
}

static inline void drv_kick(struct drv *d, unsigned queue) {
    rig_write(d->rig, d->bar + VIRTIO_PCI_BAR_NOTIFY + queue * VIRTIO_PCI_NOTIFY_MULTIPLIER, 2, queue);
}

static inline void rig_sleep_ms(unsigned ms) {
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&ts, NULL);
}

// Waits for the next used entry; false after two seconds.
static inline bool drv_wait(struct drv *d, unsigned queue, struct vring_used_elem *u) {
    struct drv_queue *q = &d->q[queue];
    for (int i = 0; i < 2000; i++) {
        if (rig_get16(d->rig, q->used + 2) != q->used_seen) {
            rig_get(d->rig, q->used + 4 + (uint64_t)(q->used_seen++ % q->size) * 8, u, 8);
            return true;
        }
        rig_sleep_ms(1);
    }
    return false;
}

static inline bool drv_needs_reset(struct drv *d) {
    return drv_common(d, VIRTIO_PCI_COMMON_STATUS, 1) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

// Waits, because some devices look at their rings on the loop thread.
static inline bool drv_wait_needs_reset(struct drv *d) {
    for (int i = 0; i < 1000 && !drv_needs_reset(d); i++)
        rig_sleep_ms(1);
    return drv_needs_reset(d);
}

#endif
