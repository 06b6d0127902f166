// SPDX-License-Identifier: Apache-2.0
// Doorbells of a virtio device on an engine that takes them: where they are placed, and that they ring.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "virtio/rng.h"
#include "virtio_rig.h"

#define SLOT      3
#define ELSEWHERE 0xd0000000u

// An engine that knows one doorbell.
struct engine {
    uint64_t gpa; // 0: none
    int fd;
    int refuses; // errno
    unsigned adds, removes;
};

static int fake_add(struct engine *e, gpa_t gpa, int fd, bool on_loop) {
    assert_false(on_loop); // this device answers where it is asked
    if (e->refuses)
        return -e->refuses;
    assert_int_equal(e->gpa, 0); // one at a time
    e->gpa = gpa.v;
    e->fd = fd;
    e->adds++;
    return 0;
}

static void fake_remove(struct engine *e, gpa_t gpa, int fd) {
    assert_int_equal(e->gpa, gpa.v);
    assert_int_equal(e->fd, fd);
    e->gpa = 0;
    e->removes++;
}

static const struct engine_ops with_doorbells = {
    .name = "fake", .doorbell_add = fake_add, .doorbell_remove = fake_remove};
static const struct engine_ops without = {.name = "fake"};

struct fixture {
    struct rig *r;
    struct drv d;
    struct engine engines[2];
};

static void use(struct fixture *f, unsigned engine, const struct engine_ops *ops) {
    f->r->m.engine = &f->engines[engine];
    f->r->m.engine_ops = ops;
}

static int setup(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    f->r = rig_new();
    use(f, 0, &with_doorbells);
    assert_int_equal(virtio_rng_create(f->r->host, SLOT, 1000000, &f->r->err), 0);
    drv_attach(&f->d, f->r, SLOT);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;
    f->r->m.engine = NULL; // not one that machine_destroy could end
    rig_free(f->r);
    free(f);
    return 0;
}

static void move_bar(struct fixture *f, uint32_t to) {
    rig_write(f->r, rig_ecam(SLOT, PCI_BASE_ADDRESS_0), 4, to);
    f->d.bar = to;
}

static void decode(struct fixture *f, bool on) {
    rig_write(f->r, rig_ecam(SLOT, PCI_COMMAND), 2, PCI_COMMAND_MASTER | (on ? PCI_COMMAND_MEMORY : 0));
}

static void expect_at(struct fixture *f, unsigned engine, uint64_t bar) {
    assert_int_equal(f->engines[engine].gpa, bar ? bar + VIRTIO_PCI_BAR_NOTIFY : 0);
}

// A request for random bytes is answered, by way of ring().
static void expect_answer(struct fixture *f, void (*ring)(struct fixture *f)) {
    const struct drv_seg seg = {.gpa = 0x200000, .len = 16, .write = true};
    struct vring_used_elem u;

    drv_add(&f->d, 0, &seg, 1);
    ring(f);
    assert_true(drv_wait(&f->d, 0, &u));
    assert_int_equal(u.len, 16);
}

static void ring_engine(struct fixture *f) {
    assert_int_equal(eventfd_write(f->engines[0].fd, 1), 0); // what KVM does
}

static void ring_register(struct fixture *f) {
    drv_kick(&f->d, 0);
}

static void test_rings(void **state) {
    struct fixture *f = *state;

    expect_at(f, 0, 0); // not before the driver is up
    rig_loop_start(f->r);
    drv_start(&f->d, 0, true);
    expect_at(f, 0, f->d.bar);
    expect_answer(f, ring_engine);
    expect_answer(f, ring_register); // by the configuration window, say
    expect_answer(f, ring_engine);
}

static void test_follows_the_bar(void **state) {
    struct fixture *f = *state;

    drv_start(&f->d, 0, true);
    move_bar(f, ELSEWHERE);
    expect_at(f, 0, ELSEWHERE);
    decode(f, false);
    expect_at(f, 0, 0);
    move_bar(f, ELSEWHERE + VIRTIO_PCI_BAR_SIZE);
    expect_at(f, 0, 0);
    decode(f, true);
    expect_at(f, 0, ELSEWHERE + VIRTIO_PCI_BAR_SIZE);
    assert_int_equal(f->engines[0].adds, 3);
    assert_int_equal(f->engines[0].removes, 2);
}

static void test_stays_over_a_reset(void **state) {
    struct fixture *f = *state;

    drv_start(&f->d, 0, true);
    drv_start(&f->d, 0, true);
    expect_at(f, 0, f->d.bar);
    assert_int_equal(f->engines[0].adds, 1);
    drv_common_set(&f->d, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    move_bar(f, ELSEWHERE); // without a driver it does not come along
    expect_at(f, 0, 0);
    drv_start(&f->d, 0, true);
    expect_at(f, 0, ELSEWHERE);
}

// A machine that has changed its engine places them there when it goes on, and asks nothing of the one before.
static void test_another_engine(void **state) {
    struct fixture *f = *state;

    drv_start(&f->d, 0, true);
    component_pause_all(&f->r->m.components);
    use(f, 1, &with_doorbells);
    component_resume_all(&f->r->m.components);
    expect_at(f, 1, f->d.bar);
    component_pause_all(&f->r->m.components);
    use(f, 0, &without);
    component_resume_all(&f->r->m.components);
    assert_int_equal(f->engines[0].removes + f->engines[1].removes, 0);
    f->engines[1] = (struct engine){0};
    component_pause_all(&f->r->m.components);
    use(f, 1, &with_doorbells); // a new one where an old one was
    component_resume_all(&f->r->m.components);
    expect_at(f, 1, f->d.bar);
}

static void test_engines_that_do_not(void **state) {
    static const int refusals[] = {EOPNOTSUPP, EEXIST};
    struct fixture *f = *state;

    rig_loop_start(f->r);
    for (unsigned i = 0; i < 2; i++) {
        f->engines[0].refuses = refusals[i];
        drv_start(&f->d, 0, true);
        expect_answer(f, ring_register);
    }
    use(f, 0, &without);
    drv_start(&f->d, 0, true);
    expect_answer(f, ring_register);
    assert_int_equal(f->engines[0].adds, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        T(test_rings),          T(test_follows_the_bar),     T(test_stays_over_a_reset),
        T(test_another_engine), T(test_engines_that_do_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
