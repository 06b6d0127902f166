// SPDX-License-Identifier: Apache-2.0
// The virtqueue alone: good chains, the rules about notifications, and rings that a hostile guest would write.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <errno.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "virtio/iov.h"
#include "virtio/virtq.h"

#define SIZE         8
#define DESC         0x1000
#define AVAIL        0x2000
#define USED         0x3000
#define TABLE        0x4000 // indirect
#define DATA         0x10000
#define RAM          0x100000
#define ALL_FEATURES ((1ull << VIRTIO_RING_F_INDIRECT_DESC) | (1ull << VIRTIO_RING_F_EVENT_IDX))

#define NEXT     VRING_DESC_F_NEXT
#define WRITE    VRING_DESC_F_WRITE
#define INDIRECT VRING_DESC_F_INDIRECT

struct fixture {
    struct mem *mem;
    struct virtq vq;
    unsigned fails;
    const char *why;
    uint16_t avail_idx;
    unsigned writes_seen; // by the memory listener
    uint64_t data_writes;
    struct mem_listener listener;
};

static void on_fail(void *ctx, const char *why) {
    struct fixture *f = ctx;
    f->fails++;
    f->why = why;
}

static void on_written(void *ctx, gpa_t gpa, uint64_t len) {
    struct fixture *f = ctx;
    f->writes_seen++;
    if (gpa.v >= DATA)
        f->data_writes += len;
}

static void queue_start(struct fixture *f, uint64_t features) {
    const uint8_t zero[0x4000] = {0};
    mem_write(f->mem, GPA(0x1000), zero, sizeof(zero));
    virtq_reset(&f->vq);
    f->vq.size = SIZE;
    f->vq.desc_gpa = DESC;
    f->vq.avail_gpa = AVAIL;
    f->vq.used_gpa = USED;
    f->avail_idx = 0;
    f->fails = 0;
    f->why = NULL;
    assert_int_equal(virtq_enable(&f->vq, features), 0);
    f->writes_seen = 0;
    f->data_writes = 0;
}

static int setup(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err;
    assert_int_equal(mem_create(&f->mem, &err), 0);
    assert_int_equal(mem_add_ram(f->mem, GPA(0), RAM, "ram", &err), 0);
    assert_int_equal(mem_add_rom(f->mem, GPA(RAM), 0x1000, "rom", &err), 0);
    f->listener = (struct mem_listener){.written = on_written, .ctx = f};
    mem_add_listener(f->mem, &f->listener);
    assert_int_equal(virtq_init(&f->vq, f->mem, 256, on_fail, f), 0);
    queue_start(f, ALL_FEATURES);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;
    virtq_fini(&f->vq);
    mem_destroy(f->mem);
    free(f);
    return 0;
}

static void desc_at(struct fixture *f, uint64_t table, unsigned i, uint64_t addr, uint32_t len, unsigned flags,
                    unsigned next) {
    struct vring_desc d = {.addr = addr, .len = len, .flags = (uint16_t)flags, .next = (uint16_t)next};
    assert_int_equal(mem_write(f->mem, GPA(table + i * 16), &d, sizeof(d)), 0);
}

static void put16(struct fixture *f, uint64_t gpa, uint16_t v) {
    mem_write(f->mem, GPA(gpa), &v, 2);
}

static uint16_t get16(struct fixture *f, uint64_t gpa) {
    uint16_t v;
    mem_read(f->mem, GPA(gpa), &v, 2);
    return v;
}

static void offer(struct fixture *f, unsigned head) {
    put16(f, AVAIL + 4 + 2 * (f->avail_idx % SIZE), (uint16_t)head);
    put16(f, AVAIL + 2, ++f->avail_idx);
}

static void assert_bad(struct fixture *f, const char *word) {
    assert_null(virtq_pop(&f->vq));
    assert_int_equal(f->fails, 1);
    assert_true(f->vq.broken);
    assert_non_null(strstr(f->why, word));
    assert_null(virtq_pop(&f->vq)); // stays silent, complains once
    assert_int_equal(f->fails, 1);
    assert_false(virtq_publish(&f->vq));
    assert_false(virtq_doorbell_on(&f->vq));
    assert_int_equal(f->vq.inflight, 0);
}

static void test_chain(void **state) {
    struct fixture *f = *state;
    struct vring_used_elem u;
    char text[8] = {0};
    mem_write(f->mem, GPA(DATA), "hello", 5);
    desc_at(f, DESC, 3, DATA, 2, NEXT, 5);
    desc_at(f, DESC, 5, DATA + 2, 3, NEXT, 0);
    desc_at(f, DESC, 0, DATA + 0x1000, 100, WRITE | NEXT, 7);
    desc_at(f, DESC, 7, DATA + 0x2000, 0x1800, WRITE, 0);
    assert_null(virtq_pop(&f->vq));
    offer(f, 3);
    struct virtq_elem *e = virtq_pop(&f->vq);
    assert_non_null(e);
    assert_int_equal(e->out_len, 5);
    assert_int_equal(e->in_len, 100 + 0x1800);
    assert_int_equal(iov_to_buf(e->out, e->nout, 0, text, sizeof(text)), 5);
    assert_string_equal(text, "hello");
    f->writes_seen = 0;
    f->data_writes = 0;
    assert_int_equal(iov_from_buf(e->in, e->nin, 98, "abcd", 4), 4);
    virtq_push(&f->vq, e, 102);
    assert_int_equal(f->data_writes, 102);   // exactly what was written is announced
    assert_int_equal(get16(f, USED + 2), 0); // not yet visible
    assert_true(virtq_publish(&f->vq));
    assert_int_equal(get16(f, USED + 2), 1);
    mem_read(f->mem, GPA(USED + 4), &u, sizeof(u));
    assert_int_equal(u.id, 3);
    assert_int_equal(u.len, 102);
    mem_read(f->mem, GPA(DATA + 0x2000), text, 2);
    assert_memory_equal(text, "cd", 2);
    assert_int_equal(f->fails, 0);
}

static void test_indirect(void **state) {
    struct fixture *f = *state;
    desc_at(f, DESC, 1, DATA, 16, NEXT, 2);
    desc_at(f, DESC, 2, TABLE, 3 * 16, INDIRECT, 0); // at the end of a chain: allowed
    desc_at(f, TABLE, 0, DATA + 16, 16, NEXT, 2);
    desc_at(f, TABLE, 2, DATA + 32, 16, WRITE, 0);
    offer(f, 1);
    struct virtq_elem *e = virtq_pop(&f->vq);
    assert_non_null(e);
    assert_int_equal(e->out_len, 32);
    assert_int_equal(e->in_len, 16);
    virtq_push(&f->vq, e, 0);
}

static void test_unpop(void **state) {
    struct fixture *f = *state;
    desc_at(f, DESC, 0, DATA, 16, 0, 0);
    desc_at(f, DESC, 1, DATA, 32, 0, 0);
    offer(f, 0);
    offer(f, 1);
    struct virtq_elem *a = virtq_pop(&f->vq), *b = virtq_pop(&f->vq);
    virtq_unpop(&f->vq, b);
    virtq_unpop(&f->vq, a);
    a = virtq_pop(&f->vq);
    assert_int_equal(a->out_len, 16);
    virtq_push(&f->vq, a, 0);
    b = virtq_pop(&f->vq);
    assert_int_equal(b->out_len, 32);
    virtq_push(&f->vq, b, 0);
}

static void test_segment_over_two_blocks(void **state) {
    struct fixture *f = *state;
    desc_at(f, DESC, 0, RAM - 16, 32, 0, 0); // reads may go on into the ROM behind
    offer(f, 0);
    struct virtq_elem *e = virtq_pop(&f->vq);
    assert_non_null(e);
    assert_int_equal(e->nout, 2);
    assert_int_equal(e->out_len, 32);
    virtq_push(&f->vq, e, 0);
    desc_at(f, DESC, 1, RAM - 16, 32, WRITE, 0); // writes may not
    offer(f, 1);
    assert_bad(f, "not in memory");
}

static void test_event_idx(void **state) {
    struct fixture *f = *state;
    desc_at(f, DESC, 0, DATA, 16, 0, 0);
    put16(f, AVAIL + 4 + 2 * SIZE, 1); // used_event: interrupt when entry 1 is used
    for (unsigned i = 0; i < 3; i++) {
        offer(f, 0);
        virtq_push(&f->vq, virtq_pop(&f->vq), 0);
        assert_int_equal(virtq_publish(&f->vq), i == 1);
    }
    assert_false(virtq_publish(&f->vq)); // nothing new
    assert_false(virtq_doorbell_on(&f->vq));
    assert_int_equal(get16(f, USED + 4 + 8 * SIZE), 3); // avail_event
    offer(f, 0);
    assert_true(virtq_doorbell_on(&f->vq));
}

static void test_flags(void **state) {
    struct fixture *f = *state;
    queue_start(f, 0);
    desc_at(f, DESC, 0, DATA, 16, 0, 0);
    virtq_doorbell_off(&f->vq);
    assert_int_equal(get16(f, USED), VRING_USED_F_NO_NOTIFY);
    assert_false(virtq_doorbell_on(&f->vq));
    assert_int_equal(get16(f, USED), 0);
    for (unsigned i = 0; i < 2; i++) {
        put16(f, AVAIL, i ? VRING_AVAIL_F_NO_INTERRUPT : 0);
        offer(f, 0);
        virtq_push(&f->vq, virtq_pop(&f->vq), 0);
        assert_int_equal(virtq_publish(&f->vq), !i);
    }
}

// Both indices pass 65535 many times over.
static void test_wrap(void **state) {
    struct fixture *f = *state;
    desc_at(f, DESC, 0, DATA, 16, 0, 0);
    for (unsigned i = 0; i < 70000; i++) {
        offer(f, 0);
        struct virtq_elem *e = virtq_pop(&f->vq);
        assert_non_null(e);
        virtq_push(&f->vq, e, 0);
        virtq_publish(&f->vq);
    }
    assert_int_equal(get16(f, USED + 2), (uint16_t)70000);
}

static void test_save_load(void **state) {
    struct fixture *f = *state;
    struct state_writer w = {0};
    desc_at(f, DESC, 0, DATA, 16, 0, 0);
    offer(f, 0);
    virtq_push(&f->vq, virtq_pop(&f->vq), 0);
    virtq_publish(&f->vq);
    virtq_save(&f->vq, &w);
    virtq_reset(&f->vq);
    struct state_reader r = {.buf = w.buf, .len = w.len};
    virtq_load(&f->vq, &r, ALL_FEATURES);
    assert_int_equal(r.error, 0);
    assert_true(f->vq.ready);
    assert_null(virtq_pop(&f->vq)); // not taken again
    offer(f, 0);
    virtq_push(&f->vq, virtq_pop(&f->vq), 0);
    virtq_publish(&f->vq);
    assert_int_equal(get16(f, USED + 2), 2);
    state_writer_free(&w);
}

// ---- hostile ----

static void test_head_out_of_range(void **state) {
    struct fixture *f = *state;
    offer(f, SIZE);
    assert_bad(f, "out of range");
}

static void test_next_out_of_range(void **state) {
    struct fixture *f = *state;
    desc_at(f, DESC, 0, DATA, 16, NEXT, 0xffff);
    offer(f, 0);
    assert_bad(f, "out of range");
}

static void test_loop(void **state) {
    struct fixture *f = *state;
    desc_at(f, DESC, 0, DATA, 16, NEXT, 1);
    desc_at(f, DESC, 1, DATA, 16, NEXT, 0);
    offer(f, 0);
    assert_bad(f, "loop");
}

static void test_loop_of_empty_buffers(void **state) {
    struct fixture *f = *state;
    desc_at(f, DESC, 0, DATA, 0, NEXT, 0);
    offer(f, 0);
    assert_bad(f, "loop");
}

static void test_too_many_available(void **state) {
    struct fixture *f = *state;
    put16(f, AVAIL + 2, SIZE + 1);
    assert_bad(f, "more available");
}

// The same head again and again, while the first is still in use: bounded by the queue's size.
static void test_head_in_use_twice(void **state) {
    struct fixture *f = *state;
    struct virtq_elem *e[SIZE];
    desc_at(f, DESC, 0, DATA, 16, 0, 0);
    for (unsigned i = 0; i < SIZE; i++) {
        offer(f, 0);
        assert_non_null(e[i] = virtq_pop(&f->vq));
    }
    offer(f, 0);
    assert_null(virtq_pop(&f->vq));
    assert_int_equal(f->fails, 1);
    for (unsigned i = 0; i < SIZE; i++)
        virtq_push(&f->vq, e[i], 0);
    assert_int_equal(get16(f, USED + 2), 0); // a broken ring is not written any more
    assert_int_equal(f->vq.inflight, 0);
}

static void test_huge_length(void **state) {
    struct fixture *f = *state;
    desc_at(f, DESC, 0, DATA, 0xffffffff, 0, 0);
    offer(f, 0);
    assert_bad(f, "not in memory");
    queue_start(f, ALL_FEATURES);
    desc_at(f, DESC, 0, DATA, 0xf0000000, NEXT, 1);
    desc_at(f, DESC, 1, DATA, 0x10000000, 0, 0);
    offer(f, 0);
    assert_bad(f, "4 GiB");
}

static void test_address_wraps(void **state) {
    struct fixture *f = *state;
    desc_at(f, DESC, 0, UINT64_MAX - 8, 16, 0, 0);
    offer(f, 0);
    assert_bad(f, "wraps");
}

static void test_not_memory(void **state) {
    struct fixture *f = *state;
    desc_at(f, DESC, 0, DATA, 16, NEXT, 1);
    desc_at(f, DESC, 1, 0xc0000000, 16, WRITE, 0);
    offer(f, 0);
    assert_bad(f, "not in memory");
}

static void test_read_after_write(void **state) {
    struct fixture *f = *state;
    desc_at(f, DESC, 0, DATA, 16, WRITE | NEXT, 1);
    desc_at(f, DESC, 1, DATA, 16, 0, 0);
    offer(f, 0);
    assert_bad(f, "after a writable");
}

static void test_bad_indirect(void **state) {
    struct fixture *f = *state;
    const struct {
        uint64_t addr;
        uint32_t len;
        unsigned flags;
        const char *why;
    } cases[] = {
        {TABLE, 16, INDIRECT | NEXT, "with a next"},
        {TABLE, 0, INDIRECT, "bad size"},
        {TABLE, 24, INDIRECT, "bad size"},
        {TABLE, 0xfffffff0, INDIRECT, "bad size"},
        {0xc0000000, 16, INDIRECT, "is not in memory"},
        {RAM + 0xff8, 16, INDIRECT, "is not in memory"},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        queue_start(f, ALL_FEATURES);
        desc_at(f, DESC, 0, cases[i].addr, cases[i].len, cases[i].flags, 1);
        offer(f, 0);
        assert_bad(f, cases[i].why);
    }
}

static void test_bad_indirect_entries(void **state) {
    struct fixture *f = *state;
    desc_at(f, DESC, 0, TABLE, 32, INDIRECT, 0);
    desc_at(f, TABLE, 0, TABLE, 32, INDIRECT, 0);
    offer(f, 0);
    assert_bad(f, "inside an indirect");

    queue_start(f, ALL_FEATURES);
    desc_at(f, DESC, 0, TABLE, 32, INDIRECT, 0);
    desc_at(f, TABLE, 0, DATA, 16, NEXT, 1);
    desc_at(f, TABLE, 1, DATA, 16, NEXT, 0);
    offer(f, 0);
    assert_bad(f, "loop");

    queue_start(f, ALL_FEATURES);
    desc_at(f, DESC, 0, TABLE, 32, INDIRECT, 0);
    desc_at(f, TABLE, 0, DATA, 16, NEXT, 2);
    offer(f, 0);
    assert_bad(f, "out of the indirect");

    queue_start(f, 0); // not negotiated
    desc_at(f, DESC, 0, TABLE, 32, INDIRECT, 0);
    offer(f, 0);
    assert_bad(f, "without the feature");
}

static void test_bad_rings(void **state) {
    struct fixture *f = *state;
    const struct {
        uint16_t size;
        uint64_t desc, avail, used;
    } cases[] = {
        {0, DESC, AVAIL, USED},        {3, DESC, AVAIL, USED},
        {512, DESC, AVAIL, USED},      {SIZE, DESC + 8, AVAIL, USED},
        {SIZE, DESC, AVAIL + 1, USED}, {SIZE, DESC, AVAIL, USED + 2},
        {SIZE, RAM * 2, AVAIL, USED},  {SIZE, DESC, RAM * 2, USED},
        {SIZE, DESC, AVAIL, RAM},      {SIZE, DESC, AVAIL, UINT64_MAX - 3},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        virtq_reset(&f->vq);
        f->fails = 0;
        f->vq.size = cases[i].size;
        f->vq.desc_gpa = cases[i].desc;
        f->vq.avail_gpa = cases[i].avail;
        f->vq.used_gpa = cases[i].used;
        assert_true(virtq_enable(&f->vq, 0) < 0);
        assert_false(f->vq.ready);
        assert_int_equal(f->fails, 1);
        assert_null(virtq_pop(&f->vq));
    }
}

static void test_iov(void **state) {
    char a[4] = "abcd", b[4] = "efgh", out[9] = {0};
    struct iovec iov[3] = {{a, 4}, {NULL, 0}, {b, 4}}, *p = iov;
    unsigned n = 3;
    assert_int_equal(iov_to_buf(p, n, 2, out, 100), 6);
    assert_string_equal(out, "cdefgh");
    iov_drop_front(&p, &n, 4);
    assert_int_equal(n, 1); // the empty one goes too
    iov_drop_back(p, &n, 1);
    assert_int_equal(p->iov_len, 3);
    iov_drop_front(&p, &n, 100);
    assert_int_equal(n, 0);
    iov_drop_back(p, &n, 100);
    assert_int_equal(iov_from_buf(p, n, 0, "x", 1), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        T(test_chain),
        T(test_indirect),
        T(test_unpop),
        T(test_segment_over_two_blocks),
        T(test_event_idx),
        T(test_flags),
        T(test_wrap),
        T(test_save_load),
        T(test_head_out_of_range),
        T(test_next_out_of_range),
        T(test_loop),
        T(test_loop_of_empty_buffers),
        T(test_too_many_available),
        T(test_head_in_use_twice),
        T(test_huge_length),
        T(test_address_wraps),
        T(test_not_memory),
        T(test_read_after_write),
        T(test_bad_indirect),
        T(test_bad_indirect_entries),
        T(test_bad_rings),
        T(test_iov),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
