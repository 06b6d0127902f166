// SPDX-License-Identifier: Apache-2.0
// Configuration space, BARs, INTx and MSI-X of a small device on the PCI bus.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <errno.h>

#include "bus/msix.h"
#include "virtio_rig.h"

#define VECTORS 3
#define TABLE   0x0000
#define PBA     0x1000

struct card {
    struct pci_device pci;
    struct msix msix;
    unsigned writes; // to the second BAR
};

static void msix_bar_read(void *ctx, struct bus_access *a) {
    struct card *c = ctx;
    if (a->offset < PBA) {
        msix_table_read(&c->msix, a);
        return;
    }
    a->offset -= PBA;
    msix_pba_read(&c->msix, a);
}

static void msix_bar_write(void *ctx, const struct bus_access *a) {
    msix_table_write(&((struct card *)ctx)->msix, a);
}

static void data_bar_read(void *ctx, struct bus_access *a) {
    a->data = 0xcafe;
}
static void data_bar_write(void *ctx, const struct bus_access *a) {
    ((struct card *)ctx)->writes++;
}

static void card_config_written(struct pci_device *dev, unsigned offset, unsigned size) {
    msix_config_written(&CONTAINER_OF(dev, struct card, pci)->msix);
}

static const struct bus_ops msix_bar = {.name = "msix", .read = msix_bar_read, .write = msix_bar_write};
static const struct bus_ops data_bar = {.name = "data", .read = data_bar_read, .write = data_bar_write};
static const struct pci_device_ops card_ops = {.name = "card", .config_written = card_config_written};
static const struct pci_id card_id = {.vendor = 0x1af4, .device = 0x1234, .class_code = 0x020000, .pin = 1};

struct fixture {
    struct rig *r;
    struct card card;
};

static int setup(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    f->r = rig_new();
    pci_device_init(&f->card.pci, &card_ops, &card_id);
    pci_device_add_bar(&f->card.pci, 0, 0x2000, &msix_bar, &f->card);
    pci_device_add_bar(&f->card.pci, 2, 0x10000, &data_bar, &f->card);
    assert_int_equal(msix_init(&f->card.msix, &f->card.pci, VECTORS, 0, TABLE, PBA), 0);
    assert_int_equal(pci_host_attach(f->r->host, &f->card.pci, 5, &f->r->err), 0);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;
    pci_device_fini(&f->card.pci);
    msix_fini(&f->card.msix);
    rig_free(f->r);
    free(f);
    return 0;
}

static uint32_t cfg(struct fixture *f, unsigned reg, unsigned size) {
    return (uint32_t)rig_read(f->r, rig_ecam(5, reg), size);
}

static void cfg_set(struct fixture *f, unsigned reg, unsigned size, uint32_t v) {
    rig_write(f->r, rig_ecam(5, reg), size, v);
}

static uint32_t bar(struct fixture *f, unsigned i) {
    return cfg(f, PCI_BASE_ADDRESS_0 + 4 * i, 4) & ~15u;
}

static void test_identity(void **state) {
    struct fixture *f = *state;
    assert_int_equal(cfg(f, 0, 4), 0x12341af4);
    assert_int_equal(cfg(f, PCI_CLASS_REVISION, 4) >> 8, 0x020000);
    assert_int_equal(cfg(f, PCI_INTERRUPT_LINE, 1), pci_intx_gsi(5, 0));
    assert_int_equal(rig_read(f->r, rig_ecam(0, PCI_CLASS_DEVICE), 2), 0x0600);
    assert_int_equal(rig_read(f->r, rig_ecam(6, 0), 4), 0xffffffff);          // nobody there
    assert_int_equal(rig_read(f->r, rig_ecam(5, 0) + 0x1000, 4), 0xffffffff); // function 1
    assert_int_equal(cfg(f, 0x100, 4), 0xffffffff);                           // no extended configuration space
    cfg_set(f, 0, 4, 0);                                                      // read-only
    assert_int_equal(cfg(f, 0, 4), 0x12341af4);
    assert_int_equal(rig_read(f->r, rig_ecam(5, 0), 8) >> 32, cfg(f, 4, 4));
}

static void test_ports(void **state) {
    struct fixture *f = *state;
    uint64_t v;
    bus_write(f->r->pio, 0xcf8, 4, 0, 0x80000000 | 5 << 11);
    bus_read(f->r->pio, 0xcfc, 4, 0, &v);
    assert_int_equal(v, 0x12341af4);
    bus_read(f->r->pio, 0xcfe, 2, 0, &v);
    assert_int_equal(v, 0x1234);
    bus_write(f->r->pio, 0xcf8, 1, 0, 0); // not a dword: not for us
    bus_read(f->r->pio, 0xcf8, 4, 0, &v);
    assert_int_equal(v, 0x80000000 | 5 << 11);
    bus_write(f->r->pio, 0xcf8, 4, 0, 5 << 11); // disabled
    bus_read(f->r->pio, 0xcfc, 4, 0, &v);
    assert_int_equal(v, 0xffffffff);
    bus_write(f->r->pio, 0xcf8, 4, 0, 0x80010000 | 5 << 11); // bus 1
    bus_read(f->r->pio, 0xcfc, 4, 0, &v);
    assert_int_equal(v, 0xffffffff);
}

static void test_bar_sizing(void **state) {
    struct fixture *f = *state;
    uint32_t home = bar(f, 2);
    assert_in_range(home, PCI_MMIO_BASE, PCI_MMIO_LAST);
    assert_int_equal(home % 0x10000, 0);
    assert_int_equal(rig_read(f->r, home, 2), 0xcafe); // decoded from the start
    cfg_set(f, PCI_BASE_ADDRESS_2, 4, 0xffffffff);
    assert_int_equal(cfg(f, PCI_BASE_ADDRESS_2, 4), 0xffff0000);
    assert_int_equal(rig_read(f->r, home, 2), 0xffff);
    cfg_set(f, PCI_BASE_ADDRESS_2, 4, home);
    assert_int_equal(rig_read(f->r, home, 2), 0xcafe);
    cfg_set(f, PCI_BASE_ADDRESS_1, 4, 0xffffffff); // there is none
    assert_int_equal(cfg(f, PCI_BASE_ADDRESS_1, 4), 0);
}

static void test_bar_moves(void **state) {
    struct fixture *f = *state;
    uint32_t home = bar(f, 2);
    cfg_set(f, PCI_BASE_ADDRESS_2, 4, 0xd0000000);
    assert_int_equal(rig_read(f->r, 0xd0000000, 2), 0xcafe);
    assert_int_equal(rig_read(f->r, home, 2), 0xffff);
    cfg_set(f, PCI_COMMAND, 2, 0);
    assert_int_equal(rig_read(f->r, 0xd0000000, 2), 0xffff);
    cfg_set(f, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_int_equal(rig_read(f->r, 0xd0000000, 2), 0xcafe);
    // Over RAM, over the ECAM window, over the local APICs: nowhere.
    const uint32_t bad[] = {0, 0x100000, PCI_ECAM_BASE, 0xfee00000, 0xffff0000};
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        cfg_set(f, PCI_BASE_ADDRESS_2, 4, bad[i]);
        assert_int_equal(rig_read(f->r, 0xd0000000, 2), 0xffff);
    }
    assert_int_equal(cfg(f, 0, 4), 0x12341af4); // ECAM is still itself
    component_reset_all(&f->r->m.components);
    assert_int_equal(bar(f, 2), home);
    assert_int_equal(rig_read(f->r, home, 2), 0xcafe);
}

// Two BARs that change places one after the other, as a guest does that reassigns all of them.
static void test_bar_swap(void **state) {
    struct fixture *f = *state;
    uint32_t a = bar(f, 0) & ~0xffffu, b = bar(f, 2);
    cfg_set(f, PCI_BASE_ADDRESS_0, 4, b); // onto the other: the first one there keeps it
    assert_int_equal(rig_read(f->r, b, 2), 0xcafe);
    cfg_set(f, PCI_BASE_ADDRESS_2, 4, a + 0x100000);
    assert_int_equal(rig_read(f->r, a + 0x100000, 2), 0xcafe);
    assert_int_equal(rig_read(f->r, b + PCI_MSIX_ENTRY_VECTOR_CTRL, 4), 1); // the MSI-X table, masked
}

static void test_intx(void **state) {
    struct fixture *f = *state;
    unsigned gsi = pci_intx_gsi(5, 0);
    pci_intx_set(&f->card.pci, true);
    assert_int_equal(f->r->gsis[gsi], 1);
    assert_true(cfg(f, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
    cfg_set(f, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE);
    assert_int_equal(f->r->gsis[gsi], 0);
    assert_true(cfg(f, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT); // still asked for
    cfg_set(f, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_int_equal(f->r->gsis[gsi], 1);
    component_reset_all(&f->r->m.components);
    assert_int_equal(f->r->gsis[gsi], 0);
    assert_int_equal(pci_intx_gsi(0, 0), 16);
    assert_int_equal(pci_intx_gsi(7, 3), 16 + 2);
}

static void vector_write(struct fixture *f, unsigned v, uint32_t data, bool masked) {
    uint64_t e = bar(f, 0) + TABLE + v * 16;
    rig_write(f->r, e, 8, 0xfee00000);
    rig_write(f->r, e + 8, 4, data);
    rig_write(f->r, e + 12, 4, masked);
}

static void test_msix(void **state) {
    struct fixture *f = *state;
    unsigned cap = f->card.msix.cap;
    assert_int_equal(cfg(f, cap + PCI_MSIX_FLAGS, 2), VECTORS - 1);
    cfg_set(f, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    vector_write(f, 1, 7, false);
    msix_notify(&f->card.msix, 1); // MSI-X is off
    assert_int_equal(f->r->msis[7], 0);
    cfg_set(f, cap + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
    assert_int_equal(f->r->msis[7], 0); // and what came while it was is lost
    msix_notify(&f->card.msix, 1);
    assert_int_equal(f->r->msis[7], 1);
    msix_notify(&f->card.msix, VECTORS); // no such vector

    vector_write(f, 1, 8, true);
    msix_notify(&f->card.msix, 1);
    msix_notify(&f->card.msix, 1);
    assert_int_equal(f->r->msis[8], 0);
    assert_int_equal(rig_read(f->r, bar(f, 0) + PBA, 8), 2);
    rig_write(f->r, bar(f, 0) + TABLE + 16 + 12, 4, 0);
    assert_int_equal(f->r->msis[8], 1); // once
    assert_int_equal(rig_read(f->r, bar(f, 0) + PBA, 8), 0);

    cfg_set(f, cap + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    msix_notify(&f->card.msix, 1);
    assert_int_equal(f->r->msis[8], 1);
    cfg_set(f, cap + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
    assert_int_equal(f->r->msis[8], 2);

    cfg_set(f, PCI_COMMAND, 2, PCI_COMMAND_MEMORY); // no bus master: no message either
    msix_notify(&f->card.msix, 1);
    assert_int_equal(f->r->msis[8], 2);
    cfg_set(f, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_int_equal(f->r->msis[8], 3);
}

static void test_msix_widths(void **state) {
    struct fixture *f = *state;
    uint64_t table = bar(f, 0) + TABLE;
    rig_write(f->r, table, 2, 0x1234); // undefined: dropped
    rig_write(f->r, table + 2, 4, 0x1234);
    assert_int_equal(rig_read(f->r, table, 8), 0);
    rig_write(f->r, table + 12, 4, 0xfffffffe); // reserved bits do not stick
    assert_int_equal(rig_read(f->r, table + 12, 4), 0);
    assert_int_equal(rig_read(f->r, table + VECTORS * 16, 4), 0xffffffff);
    rig_write(f->r, table + VECTORS * 16, 8, 0);
}

static void test_attach_errors(void **state) {
    struct fixture *f = *state;
    struct pci_device d;
    struct error err = {0};
    pci_device_init(&d, &card_ops, &card_id);
    assert_int_equal(pci_host_attach(f->r->host, &d, 5, &err), -EBUSY);
    assert_int_equal(pci_host_attach(f->r->host, &d, 32, &err), -EINVAL);
    pci_device_add_bar(&d, 0, 0x40000000, &data_bar, NULL); // larger than the window
    assert_int_equal(pci_host_attach(f->r->host, &d, 6, &err), -ENOSPC);
    assert_int_equal(pci_device_add_capability(&d, PCI_CAP_ID_VNDR, 0xc1), -ENOSPC);
    assert_int_equal(pci_device_add_capability(&d, PCI_CAP_ID_VNDR, 0xc0), 0x40);
    pci_device_fini(&d);
}

static const struct component *find_component(struct rig *r, const char *name) {
    for (const struct component *c = r->m.components.head; c; c = c->next)
        if (!strcmp(c->ops->name, name))
            return c;
    return NULL;
}

static void test_save_load(void **state) {
    struct fixture *f = *state;
    const struct component *pci = find_component(f->r, "pci");
    struct state_writer w = {0};
    struct error err = {0};
    cfg_set(f, PCI_BASE_ADDRESS_2, 4, 0xd0000000);
    pci->ops->save(pci->ctx, &w);
    component_reset_all(&f->r->m.components);
    assert_int_equal(rig_read(f->r, 0xd0000000, 2), 0xffff);
    struct state_reader r = {.buf = w.buf, .len = w.len, .version = 1};
    assert_int_equal(pci->ops->load(pci->ctx, &r, &err), 0);
    assert_int_equal(r.pos, w.len);
    assert_int_equal(rig_read(f->r, 0xd0000000, 2), 0xcafe);
    r = (struct state_reader){.buf = w.buf, .len = w.len - 1, .version = 1};
    assert_int_equal(pci->ops->load(pci->ctx, &r, &err), -EINVAL);
    w.buf[4 + 1 + 256 + 4 + 1] ^= 1; // slot 5's vendor: behind the bridge and four empty slots
    r = (struct state_reader){.buf = w.buf, .len = w.len, .version = 1};
    assert_int_equal(pci->ops->load(pci->ctx, &r, &err), -EINVAL);
    state_writer_free(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_identity, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ports, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bar_sizing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bar_moves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bar_swap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_intx, setup, teardown),
        cmocka_unit_test_setup_teardown(test_msix, setup, teardown),
        cmocka_unit_test_setup_teardown(test_msix_widths, setup, teardown),
        cmocka_unit_test_setup_teardown(test_attach_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_save_load, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
