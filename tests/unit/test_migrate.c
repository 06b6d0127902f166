// SPDX-License-Identifier: Apache-2.0
// Migration by pre-copy, over a connection that is cut anywhere: whatever is cut where, the guest never runs in two
// places, and it is lost nowhere.
#include "migrate_rig.h"

static void resume_target(struct vm *vm) {
    struct error err = {0};
    vm->result = target_resume(vm->target, &err);
}

// ---- tests ----

static void test_moves(void **state) {
    struct rig rig;
    struct source_progress p;
    migrate(&rig, WIRE_HELLO, NEVER);
    check(&rig, SOURCE_MOVED, TARGET_RUNNING);
    assert_true(counter(&rig.b) - counter(&rig.a) < 1u << 31); // it went on from there
    source_progress(rig.a.source, &p);
    assert_true(p.pages > 0 && p.zeroes + p.pages < MEMORY / 4096 && p.downtime_ns > 0);
    call(&rig.a, resume_source);
    assert_int_equal(rig.a.result, -EINVAL);
    assert_runs(&rig.a, false);
    assert_int_equal(log_stops, 0);
    end(&rig);
}

static void test_cut_before_the_target_has_all(void **state) {
    static const struct {
        enum wire_type type;
        enum when when;
    } cuts[] = {{WIRE_MANIFEST, BEFORE}, {WIRE_MANIFEST, WITHIN}, {WIRE_MANIFEST, BEHIND}, {WIRE_ACCEPT, BEFORE},
                {WIRE_ACCEPT, BEHIND},   {WIRE_PAGES, BEFORE},    {WIRE_PAGES, WITHIN},    {WIRE_PAGES, BEHIND},
                {WIRE_PAGES, DAMAGED},   {WIRE_STATE, BEFORE},    {WIRE_STATE, WITHIN},    {WIRE_STATE, DAMAGED}};
    for (unsigned i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        struct rig rig;
        migrate(&rig, cuts[i].type, cuts[i].when);
        check(&rig, SOURCE_FAILED, TARGET_FAILED);
        assert_int_equal(log_stops, 1); // the guest that stays does not go on paying for the dirty log
        end(&rig);
    }
}

// The target has everything but must not run: the source does.
static void test_cut_before_the_commit(void **state) {
    static const struct {
        enum wire_type type;
        enum when when;
    } cuts[] = {{WIRE_STATE, BEHIND}, {WIRE_LOADED, BEFORE}, {WIRE_LOADED, WITHIN}};
    for (unsigned i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        struct rig rig;
        migrate(&rig, cuts[i].type, cuts[i].when);
        check(&rig, SOURCE_FAILED, TARGET_DOUBT);
        call(&rig.b, resume_target); // a person who is wrong: the disks say so
        assert_int_equal(rig.b.result, -EBUSY);
        assert_runs(&rig.b, false);
        end(&rig);
    }
}

// The source has given it up and the target has not heard of it: nobody runs until a person decides, and then one does.
static void test_lost_commit(void **state) {
    static const struct {
        enum wire_type type;
        enum when when;
    } cuts[] = {{WIRE_COMMIT, BEFORE}, {WIRE_COMMIT, WITHIN}};
    for (unsigned i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        struct rig rig;
        migrate(&rig, cuts[i].type, cuts[i].when);
        check(&rig, SOURCE_DOUBT, TARGET_DOUBT);
        struct vm *first = i ? &rig.a : &rig.b, *second = i ? &rig.b : &rig.a;
        call(first, i ? resume_source : resume_target);
        assert_int_equal(first->result, 0);
        assert_runs(first, true);
        call(second, i ? resume_target : resume_source);
        assert_int_equal(second->result, -EBUSY);
        assert_runs(second, false);
        end(&rig);
    }
}

static void test_cut_behind_the_commit(void **state) {
    static const struct {
        enum wire_type type;
        enum when when;
    } cuts[] = {{WIRE_COMMIT, BEHIND}, {WIRE_RUNNING, BEFORE}, {WIRE_RUNNING, WITHIN}};
    for (unsigned i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        struct rig rig;
        migrate(&rig, cuts[i].type, cuts[i].when);
        check(&rig, SOURCE_DOUBT, TARGET_RUNNING);
        call(&rig.a, resume_source);
        assert_int_equal(rig.a.result, -EBUSY);
        assert_runs(&rig.a, false);
        end(&rig);
    }
}

// ---- pages that a hostile source sends ----

static int receive_pages(struct precopy_sink *sink, enum wire_type type, uint32_t block, uint32_t count, uint64_t first,
                         uint64_t n, size_t len) {
    static uint8_t body[8 + 16 + 4096];
    struct wire_message m = {.type = type, .body = body, .len = len};
    struct error err = {0};
    wire_set32(body, block);
    wire_set32(body + 4, count);
    wire_set64(body + 8, first);
    wire_set64(body + 16, n);
    int ret = precopy_receive(sink, &m, &err);
    assert_int_equal(ret, err.code);
    return ret;
}

static void test_pages_outside_of_memory(void **state) {
    struct vm vm;
    struct precopy_sink sink;
    struct error err = {0};
    uint64_t pages = MEMORY / 4096;
    const size_t one = 8 + 8 + 4096, run = 8 + 16;
    vm_create(&vm, 'a', -1);
    assert_int_equal(precopy_sink_create(vm.machine, &sink, &err), 0);
    assert_int_equal(receive_pages(&sink, WIRE_PAGES, 0, 1, pages - 1, 0, one), 0);
    assert_int_equal(receive_pages(&sink, WIRE_PAGES, 0, 1, pages, 0, one), -EINVAL);
    assert_int_equal(receive_pages(&sink, WIRE_PAGES, 0, 1, UINT64_MAX, 0, one), -EINVAL);
    assert_int_equal(receive_pages(&sink, WIRE_PAGES, 1, 1, 0, 0, one), -EINVAL);
    assert_int_equal(receive_pages(&sink, WIRE_PAGES, UINT32_MAX, 1, 0, 0, one), -EINVAL);
    assert_int_equal(receive_pages(&sink, WIRE_PAGES, 0, 2, 0, 0, one), -EINVAL);
    assert_int_equal(receive_pages(&sink, WIRE_PAGES, 0, UINT32_MAX, 0, 0, one), -EINVAL);
    assert_int_equal(receive_pages(&sink, WIRE_PAGES, 0, 1, 0, 0, 4), -EINVAL);
    assert_int_equal(receive_pages(&sink, WIRE_ZEROES, 0, 1, 0, pages, run), 0);
    assert_int_equal(receive_pages(&sink, WIRE_ZEROES, 0, 1, 1, pages, run), -EINVAL);
    assert_int_equal(receive_pages(&sink, WIRE_ZEROES, 0, 1, 1, UINT64_MAX, run), -EINVAL);
    assert_int_equal(receive_pages(&sink, WIRE_ZEROES, 0, 1, pages, 0, run), -EINVAL);
    precopy_sink_destroy(&sink);
    pthread_create(&vm.thread, NULL, run_source, &vm);
    vm_destroy(&vm);
}

// A page that became zero behind the first round is zero at the target.
static void test_zero_page_after_content(void **state) {
    struct vm vm;
    struct precopy_sink sink;
    struct error err = {0};
    uint64_t word = 1;
    vm_create(&vm, 'a', -1);
    assert_int_equal(precopy_sink_create(vm.machine, &sink, &err), 0);
    assert_int_equal(receive_pages(&sink, WIRE_PAGES, 0, 1, 7, 0x1122334455667788, 8 + 8 + 4096), 0);
    assert_int_equal(mem_read(vm.machine->mem, GPA(7 * 4096), &word, sizeof(word)), 0);
    assert_true(word == 0x1122334455667788);
    assert_int_equal(receive_pages(&sink, WIRE_ZEROES, 0, 1, 6, 3, 8 + 16), 0);
    assert_int_equal(mem_read(vm.machine->mem, GPA(7 * 4096), &word, sizeof(word)), 0);
    assert_true(word == 0);
    precopy_sink_destroy(&sink);
    pthread_create(&vm.thread, NULL, run_source, &vm);
    vm_destroy(&vm);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moves),
        cmocka_unit_test(test_cut_before_the_target_has_all),
        cmocka_unit_test(test_cut_before_the_commit),
        cmocka_unit_test(test_lost_commit),
        cmocka_unit_test(test_cut_behind_the_commit),
        cmocka_unit_test(test_pages_outside_of_memory),
        cmocka_unit_test(test_zero_page_after_content),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
