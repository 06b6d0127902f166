// SPDX-License-Identifier: Apache-2.0
// virtio-blk from the driver's registers and rings down to a file, and what a bad driver does to it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <stdio.h>
#include <unistd.h>

#include "virtio/blk.h"
#include "virtio_rig.h"

#define SLOT   3
#define DISK   (1u << 20)
#define HDR    0x200000
#define STATUS 0x200100
#define DATA   0x210000

struct fixture {
    struct rig *r;
    struct drv d;
    char path[64];
    struct block_backend *backend;
};

static struct fixture *fixture_new(bool read_only, bool no_uring) {
    struct fixture *f = calloc(1, sizeof(*f));
    const struct raw_options opt = {.read_only = read_only, .no_uring = no_uring};
    strcpy(f->path, "/tmp/cicada-blk-XXXXXX");
    int fd = mkstemp(f->path);
    assert_true(fd >= 0);
    for (unsigned i = 0; i < DISK / 4096; i++) {
        uint8_t page[4096];
        memset(page, (int)i, sizeof(page));
        assert_int_equal(write(fd, page, sizeof(page)), sizeof(page));
    }
    close(fd);
    f->r = rig_new();
    assert_int_equal(raw_open(f->path, &opt, f->r->m.loop, &f->backend, &f->r->err), 0);
    assert_int_equal(virtio_blk_create(f->r->host, SLOT, f->backend, "serial-0815", &f->r->err), 0);
    rig_loop_start(f->r);
    drv_attach(&f->d, f->r, SLOT);
    return f;
}

static void fixture_free(struct fixture *f) {
    rig_free(f->r);
    unlink(f->path);
    free(f);
}

static int setup(void **state) {
    *state = fixture_new(false, false);
    return 0;
}

static int setup_thread(void **state) {
    *state = fixture_new(false, true);
    return 0;
}

static int setup_ro(void **state) {
    *state = fixture_new(true, false);
    return 0;
}

static int teardown(void **state) {
    fixture_free(*state);
    return 0;
}

// Offers one request with its data in one segment (len 0: none); returns its status.
static int request(struct fixture *f, uint32_t type, uint64_t sector, uint64_t gpa, uint32_t len, bool write) {
    const struct virtio_blk_outhdr hdr = {.type = type, .sector = sector};
    struct vring_used_elem u;
    uint8_t status = 0xee;
    struct drv_seg s[3] = {{HDR, sizeof(hdr), false}};
    unsigned n = 1;
    rig_put(f->r, HDR, &hdr, sizeof(hdr));
    rig_put(f->r, STATUS, &status, 1);
    if (len)
        s[n++] = (struct drv_seg){gpa, len, write};
    s[n++] = (struct drv_seg){STATUS, 1, true};
    uint16_t head = drv_add(&f->d, 0, s, n);
    drv_kick(&f->d, 0);
    assert_true(drv_wait(&f->d, 0, &u));
    assert_int_equal(u.id, head);
    assert_int_equal(u.len, 1 + (write ? len : 0));
    rig_get(f->r, STATUS, &status, 1);
    return status;
}

static void test_identity(void **state) {
    struct fixture *f = *state;
    assert_int_equal(rig_read(f->r, rig_ecam(SLOT, 0), 4), 0x10421af4);
    assert_int_equal(rig_read(f->r, rig_ecam(SLOT, PCI_CLASS_REVISION), 4), 0x01000001);
    assert_int_equal(rig_read(f->r, f->d.bar + VIRTIO_PCI_BAR_DEVICE, 8), DISK / 512);
    assert_int_equal(rig_read(f->r, f->d.bar + VIRTIO_PCI_BAR_DEVICE + 20, 4), 512);
    assert_int_equal(drv_common(&f->d, VIRTIO_PCI_COMMON_NUMQ, 2), 1);
    uint64_t features = drv_features(&f->d);
    assert_true(features & 1ull << VIRTIO_F_VERSION_1);
    assert_true(features & 1ull << VIRTIO_BLK_F_FLUSH);
    assert_false(features & 1ull << VIRTIO_BLK_F_RO);
    drv_common_set(&f->d, VIRTIO_PCI_COMMON_DFSELECT, 4, 2);
    assert_int_equal(drv_common(&f->d, VIRTIO_PCI_COMMON_DF, 4), 0);
    drv_common_set(&f->d, VIRTIO_PCI_COMMON_Q_SELECT, 2, 1); // no such queue
    assert_int_equal(drv_common(&f->d, VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
    drv_common_set(&f->d, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
}

static void test_features_refused(void **state) {
    struct fixture *f = *state;
    struct drv *d = &f->d;
    drv_status_add(d, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK);
    assert_false(drv_common(d, VIRTIO_PCI_COMMON_STATUS, 1) & VIRTIO_CONFIG_S_FEATURES_OK); // no VERSION_1
    drv_common_set(d, VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
    drv_common_set(d, VIRTIO_PCI_COMMON_GF, 4, 1 | 1 << 30); // VERSION_1 and one that was not offered
    drv_status_add(d, VIRTIO_CONFIG_S_FEATURES_OK);
    assert_false(drv_common(d, VIRTIO_PCI_COMMON_STATUS, 1) & VIRTIO_CONFIG_S_FEATURES_OK);
    drv_common_set(d, VIRTIO_PCI_COMMON_GF, 4, 1);
    drv_status_add(d, VIRTIO_CONFIG_S_FEATURES_OK);
    assert_true(drv_common(d, VIRTIO_PCI_COMMON_STATUS, 1) & VIRTIO_CONFIG_S_FEATURES_OK);
    drv_common_set(d, VIRTIO_PCI_COMMON_GF, 4, 0); // too late
    assert_int_equal(drv_common(d, VIRTIO_PCI_COMMON_GF, 4), 1);
}

static void io_cycle(struct fixture *f) {
    uint8_t buf[8192], file[8192];
    drv_start(&f->d, 0, true);
    assert_int_equal(request(f, VIRTIO_BLK_T_IN, 16, DATA, 8192, true), VIRTIO_BLK_S_OK);
    rig_get(f->r, DATA, buf, sizeof(buf));
    assert_int_equal(buf[0], 2);
    assert_int_equal(buf[8191], 3);
    memset(buf, 0x5a, sizeof(buf));
    rig_put(f->r, DATA, buf, sizeof(buf));
    assert_int_equal(request(f, VIRTIO_BLK_T_OUT, 100, DATA, 8192, false), VIRTIO_BLK_S_OK);
    assert_int_equal(request(f, VIRTIO_BLK_T_FLUSH, 0, 0, 0, false), VIRTIO_BLK_S_OK);
    int fd = open(f->path, O_RDONLY);
    assert_int_equal(pread(fd, file, sizeof(file), 100 * 512), sizeof(file));
    close(fd);
    assert_memory_equal(file, buf, sizeof(buf));
    assert_in_range(f->r->msis[17], 1, 3); // vector 1: the queue's
    assert_int_equal(f->r->msis[16], 0);
}

static void test_io(void **state) {
    io_cycle(*state);
}

static void test_id_discard_zeroes(void **state) {
    struct fixture *f = *state;
    struct virtio_blk_discard_write_zeroes seg = {.sector = 8, .num_sectors = 8};
    char id[20];
    uint8_t buf[512];
    drv_start(&f->d, 0, true);
    assert_int_equal(request(f, VIRTIO_BLK_T_GET_ID, 0, DATA, 20, true), VIRTIO_BLK_S_OK);
    rig_get(f->r, DATA, id, sizeof(id));
    assert_string_equal(id, "serial-0815");
    rig_put(f->r, DATA, &seg, sizeof(seg));
    assert_int_equal(request(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 16, false), VIRTIO_BLK_S_OK);
    assert_int_equal(request(f, VIRTIO_BLK_T_IN, 8, DATA + 4096, 512, true), VIRTIO_BLK_S_OK);
    rig_get(f->r, DATA + 4096, buf, sizeof(buf));
    assert_int_equal(buf[0] | buf[511], 0);
    seg.sector = 16;
    rig_put(f->r, DATA, &seg, sizeof(seg));
    assert_int_equal(request(f, VIRTIO_BLK_T_DISCARD, 0, DATA, 16, false), VIRTIO_BLK_S_OK);
    seg.flags = 1; // unmap means nothing to a discard
    rig_put(f->r, DATA, &seg, sizeof(seg));
    assert_int_equal(request(f, VIRTIO_BLK_T_DISCARD, 0, DATA, 16, false), VIRTIO_BLK_S_UNSUPP);
    seg = (struct virtio_blk_discard_write_zeroes){.sector = UINT64_MAX, .num_sectors = 8};
    rig_put(f->r, DATA, &seg, sizeof(seg));
    assert_int_equal(request(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 16, false), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(f, VIRTIO_BLK_T_DISCARD, 0, DATA, 8, false), VIRTIO_BLK_S_IOERR);
}

static void test_bad_requests(void **state) {
    struct fixture *f = *state;
    drv_start(&f->d, 0, true);
    assert_int_equal(request(f, VIRTIO_BLK_T_IN, DISK / 512, DATA, 512, true), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(f, VIRTIO_BLK_T_IN, DISK / 512 - 1, DATA, 1024, true), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(f, VIRTIO_BLK_T_IN, UINT64_MAX, DATA, 512, true), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(f, VIRTIO_BLK_T_OUT, UINT64_MAX / 512, DATA, 512, false), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, DATA, 100, true), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(f, 77, 0, DATA, 512, true), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(request(f, 0xffffffff, 0, 0, 0, true), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(request(f, VIRTIO_BLK_T_GET_ID, 0, DATA, 10, true), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 0, 0, true), VIRTIO_BLK_S_OK); // nothing asked for
    assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, DATA, 512, true), VIRTIO_BLK_S_OK);
    assert_false(drv_needs_reset(&f->d));
}

// Header and status cut in the middle of descriptors, as the standard allows.
static void test_any_layout(void **state) {
    struct fixture *f = *state;
    const struct virtio_blk_outhdr hdr = {.type = VIRTIO_BLK_T_IN, .sector = 24};
    const struct drv_seg s[] = {{HDR, 5, false}, {HDR + 5, 11, false}, {DATA, 300, true}, {DATA + 300, 213, true}};
    struct vring_used_elem u;
    uint8_t got[513];
    drv_start(&f->d, 0, true);
    rig_put(f->r, HDR, &hdr, sizeof(hdr));
    drv_add(&f->d, 0, s, 4);
    drv_kick(&f->d, 0);
    assert_true(drv_wait(&f->d, 0, &u));
    rig_get(f->r, DATA, got, sizeof(got));
    assert_int_equal(got[0], 3);
    assert_int_equal(got[511], 3);
    assert_int_equal(got[512], VIRTIO_BLK_S_OK);
}

static void test_bad_driver(void **state) {
    struct fixture *f = *state;
    const struct drv_seg no_status[] = {{HDR, 16, false}}, no_header[] = {{HDR, 8, false}, {STATUS, 1, true}};
    drv_start(&f->d, 0, true);
    drv_add(&f->d, 0, no_status, 1);
    drv_kick(&f->d, 0);
    assert_true(drv_needs_reset(&f->d));
    assert_int_equal(f->r->msis[16], 1); // configuration interrupt, vector 0
    drv_kick(&f->d, 0);                  // dead until reset
    drv_start(&f->d, 0, true);
    assert_false(drv_needs_reset(&f->d));
    assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, DATA, 512, true), VIRTIO_BLK_S_OK);
    drv_add(&f->d, 0, no_header, 2);
    drv_kick(&f->d, 0);
    assert_true(drv_needs_reset(&f->d));
    drv_start(&f->d, 0, true);
    drv_offer(&f->d, 0, 0xffff);
    drv_kick(&f->d, 0);
    assert_true(drv_needs_reset(&f->d));
    drv_start(&f->d, 0, false);
    assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, DATA, 512, true), VIRTIO_BLK_S_OK);
}

static void test_no_bus_master(void **state) {
    struct fixture *f = *state;
    const struct drv_seg s[] = {{HDR, 16, false}, {DATA, 512, true}, {STATUS, 1, true}};
    drv_start(&f->d, 0, true);
    rig_write(f->r, rig_ecam(SLOT, PCI_COMMAND), 2, PCI_COMMAND_MEMORY);
    drv_add(&f->d, 0, s, 3);
    drv_kick(&f->d, 0);
    rig_sleep_ms(5);
    assert_int_equal(rig_get16(f->r, f->d.q[0].used + 2), 0); // no DMA, as after a kexec
}

static void test_intx(void **state) {
    struct fixture *f = *state;
    drv_start(&f->d, 0, false);
    assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, DATA, 512, true), VIRTIO_BLK_S_OK);
    unsigned gsi = pci_intx_gsi(SLOT, 0);
    for (int i = 0; i < 1000 && !f->r->gsis[gsi]; i++)
        rig_sleep_ms(1);
    assert_int_equal(f->r->gsis[gsi], 1);
    assert_int_equal(rig_read(f->r, f->d.bar + VIRTIO_PCI_BAR_ISR, 1), 1);
    assert_int_equal(f->r->gsis[gsi], 0); // reading lowers the line
    assert_int_equal(rig_read(f->r, f->d.bar + VIRTIO_PCI_BAR_ISR, 1), 0);
}

// The registers through configuration space, without the BAR (VIRTIO 1.2, 4.1.4.9).
static void test_config_window(void **state) {
    struct fixture *f = *state;
    struct rig *r = f->r;
    unsigned cap = 0, pos = (unsigned)rig_read(r, rig_ecam(SLOT, PCI_CAPABILITY_LIST), 1), seen = 0;
    for (; pos; pos = (unsigned)rig_read(r, rig_ecam(SLOT, pos + 1), 1)) {
        if (rig_read(r, rig_ecam(SLOT, pos), 1) != PCI_CAP_ID_VNDR)
            continue;
        unsigned type = (unsigned)rig_read(r, rig_ecam(SLOT, pos + 3), 1);
        seen |= 1u << type;
        if (type == VIRTIO_PCI_CAP_PCI_CFG)
            cap = pos;
    }
    assert_int_equal(seen, 0x3e); // all five
    rig_write(r, rig_ecam(SLOT, cap + 8), 4, VIRTIO_PCI_BAR_DEVICE);
    rig_write(r, rig_ecam(SLOT, cap + 12), 4, 4);
    assert_int_equal(rig_read(r, rig_ecam(SLOT, cap + 16), 4), DISK / 512);
    rig_write(r, rig_ecam(SLOT, cap + 8), 4, VIRTIO_PCI_BAR_COMMON + VIRTIO_PCI_COMMON_STATUS);
    rig_write(r, rig_ecam(SLOT, cap + 12), 4, 1);
    rig_write(r, rig_ecam(SLOT, cap + 16), 1, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    assert_int_equal(drv_common(&f->d, VIRTIO_PCI_COMMON_STATUS, 1), VIRTIO_CONFIG_S_ACKNOWLEDGE);
    rig_write(r, rig_ecam(SLOT, cap + 12), 4, 3); // no such width
    rig_write(r, rig_ecam(SLOT, cap + 16), 4, 0);
    rig_write(r, rig_ecam(SLOT, cap + 8), 4, 0xfffffffc);
    rig_write(r, rig_ecam(SLOT, cap + 12), 4, 4);
    rig_read(r, rig_ecam(SLOT, cap + 16), 4);
    assert_int_equal(drv_common(&f->d, VIRTIO_PCI_COMMON_STATUS, 1), VIRTIO_CONFIG_S_ACKNOWLEDGE);
}

// A reset waits for what is under way: after it nothing writes to the old buffers.
static void test_reset_in_flight(void **state) {
    struct fixture *f = *state;
    const struct virtio_blk_outhdr hdr = {.type = VIRTIO_BLK_T_IN};
    drv_start(&f->d, 0, true);
    rig_put(f->r, HDR, &hdr, sizeof(hdr));
    for (unsigned i = 0; i < 60; i++) {
        const struct drv_seg s[] = {{HDR, 16, false}, {DATA + i * 8192, 8192, true}, {STATUS + i, 1, true}};
        drv_add(&f->d, 0, s, 3);
    }
    drv_kick(&f->d, 0);
    drv_common_set(&f->d, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    assert_int_equal(drv_common(&f->d, VIRTIO_PCI_COMMON_STATUS, 1), 0);
    uint16_t used = rig_get16(f->r, f->d.q[0].used + 2);
    assert_int_equal(used, 60);
    assert_int_equal(drv_common(&f->d, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
    drv_start(&f->d, 0, true);
    assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, DATA, 512, true), VIRTIO_BLK_S_OK);
}

static void test_read_only(void **state) {
    struct fixture *f = *state;
    assert_true(drv_features(&f->d) & 1ull << VIRTIO_BLK_F_RO);
    drv_start(&f->d, 0, true);
    assert_int_equal(request(f, VIRTIO_BLK_T_OUT, 0, DATA, 512, false), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 16, false), VIRTIO_BLK_S_IOERR);
    assert_int_equal(request(f, VIRTIO_BLK_T_FLUSH, 0, 0, 0, false), VIRTIO_BLK_S_OK);
    assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, DATA, 512, true), VIRTIO_BLK_S_OK);
}

// Saved in the middle of a driver's life and loaded into another machine with the same memory.
static void test_save_load(void **state) {
    struct fixture *f = *state, *g;
    static uint8_t ram[RIG_RAM];
    struct error err;
    drv_start(&f->d, 0, true);
    assert_int_equal(request(f, VIRTIO_BLK_T_IN, 8, DATA, 512, true), VIRTIO_BLK_S_OK);
    rig_loop_stop(f->r); // pause and save run on the loop thread: stand in for it
    component_pause_all(&f->r->m.components);
    const struct drv_seg s[] = {{HDR, 16, false}, {DATA + 512, 512, true}, {STATUS, 1, true}};
    drv_add(&f->d, 0, s, 3); // left in the ring, its doorbell gone
    drv_kick(&f->d, 0);
    assert_int_equal(rig_get16(f->r, f->d.q[0].used + 2), 1);

    g = fixture_new(false, false);
    rig_loop_stop(g->r);
    component_pause_all(&g->r->m.components);
    rig_get(f->r, 0, ram, RIG_RAM);
    rig_put(g->r, 0, ram, RIG_RAM);
    const struct component *to = g->r->m.components.head;
    for (const struct component *c = f->r->m.components.head; c; c = c->next, to = to->next) {
        struct state_writer w = {0};
        if (c->ops->save)
            c->ops->save(c->ctx, &w);
        struct state_reader rd = {.buf = w.buf, .len = w.len, .version = c->ops->version};
        if (c->ops->load)
            assert_int_equal(to->ops->load(to->ctx, &rd, &err), 0);
        assert_int_equal(rd.pos, w.len);
        for (size_t cut = 0; cut < w.len && !strcmp(c->ops->name, "virtio-blk"); cut += 7) {
            struct state_reader part = {.buf = w.buf, .len = cut, .version = 1};
            struct error ignored;
            assert_true(to->ops->load(to->ctx, &part, &ignored) < 0);
        }
        rd = (struct state_reader){.buf = w.buf, .len = w.len, .version = c->ops->version};
        if (c->ops->load)
            assert_int_equal(to->ops->load(to->ctx, &rd, &err), 0);
        state_writer_free(&w);
    }
    component_resume_all(&g->r->m.components);
    rig_loop_start(g->r);
    g->d = f->d;
    g->d.rig = g->r;
    struct vring_used_elem u;
    assert_true(drv_wait(&g->d, 0, &u)); // what was left is done on resume
    assert_int_equal(request(g, VIRTIO_BLK_T_IN, 40, DATA, 512, true), VIRTIO_BLK_S_OK);
    uint8_t byte;
    rig_get(g->r, DATA, &byte, 1);
    assert_int_equal(byte, 5);
    fixture_free(g);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        T(test_identity),
        T(test_features_refused),
        T(test_io),
        cmocka_unit_test_setup_teardown(test_io, setup_thread, teardown),
        T(test_id_discard_zeroes),
        T(test_bad_requests),
        T(test_any_layout),
        T(test_bad_driver),
        T(test_no_bus_master),
        T(test_intx),
        T(test_config_window),
        T(test_reset_in_flight),
        cmocka_unit_test_setup_teardown(test_reset_in_flight, setup_thread, teardown),
        cmocka_unit_test_setup_teardown(test_read_only, setup_ro, teardown),
        T(test_save_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
