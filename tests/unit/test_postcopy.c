// SPDX-License-Identifier: Apache-2.0
// Migration by post-copy, over a connection that is cut anywhere: before the target may run, the guest goes on at the
// source; behind that it is lost until its last page has come, and never runs in two places.
#include "migrate_rig.h"

static bool postcopy_permitted(void) {
    struct mem *mem;
    struct error err = {0};
    assert_int_equal(mem_create(&mem, &err), 0);
    bool permitted = mem_lazy_open(mem, false, &err) == 0;
    mem_destroy(mem);
    return permitted;
}

struct cut {
    enum wire_type type;
    enum when when;
};

// Who runs is told by the stages, but for a target that is lost.
static void check_cut(const struct cut *cut, enum source_stage source, enum target_stage target, bool lost) {
    struct rig rig;
    migrate(&rig, cut->type, cut->when);
    assert_string_equal(source_stage_name(source_stage(&rig)), source_stage_name(source));
    assert_string_equal(target_stage_name(stage_of_target(&rig)), target_stage_name(target));
    assert_int_equal(atomic_load(&rig.b.lost), lost);
    assert_runs(&rig.a, source == SOURCE_FAILED);
    if (!lost)
        assert_runs(&rig.b, target == TARGET_RUNNING);
    if (target == TARGET_RUNNING)
        assert_pattern(&rig.b);
    if (source == SOURCE_DOUBT && !lost) { // a person has seen that the target never ran
        atomic_store(&disks, 0);           // nor has its process any locks
        call(&rig.a, resume_source);
        assert_int_equal(rig.a.result, 0);
        assert_runs(&rig.a, true);
    }
    end(&rig);
}

static void test_postcopy_moves(void **state) {
    static const enum source_postcopy kinds[] = {SOURCE_POSTCOPY_NOW, SOURCE_POSTCOPY_LATER};
    if (!postcopy_permitted())
        skip();
    for (unsigned i = 0; i < 2; i++) {
        struct rig rig;
        struct source_progress p;
        postcopy = kinds[i];
        migrate(&rig, WIRE_HELLO, NEVER);
        check(&rig, SOURCE_MOVED, TARGET_RUNNING);
        assert_true(counter(&rig.b) - counter(&rig.a) < 1u << 31); // it went on from there
        source_progress(rig.a.source, &p);
        assert_true(p.left_bytes == 0 && p.pages > 0);
        assert_false(mem_lazy(rig.b.machine->mem));
        end(&rig);
    }
}

static void test_postcopy_cut(void **state) {
    static const struct cut early[] = {{WIRE_PENDING, BEFORE},  {WIRE_PENDING, WITHIN}, {WIRE_PENDING, BEHIND},
                                       {WIRE_PENDING, DAMAGED}, {WIRE_STATE, WITHIN},   {WIRE_STATE, DAMAGED},
                                       {WIRE_STATE, BEHIND},    {WIRE_LOADED, BEFORE}};
    static const struct cut commit[] = {{WIRE_COMMIT, BEFORE}, {WIRE_COMMIT, WITHIN}};
    static const struct cut running[] = {{WIRE_RUNNING, BEFORE}, {WIRE_RUNNING, WITHIN}};
    static const struct cut late = {WIRE_RUNNING, BEHIND};
    static const struct cut all_there[] = {{WIRE_COMPLETE, BEFORE}, {WIRE_COMPLETE, WITHIN}};
    if (!postcopy_permitted())
        skip();
    postcopy = SOURCE_POSTCOPY_NOW; // so that pages are left which nobody asks for
    for (unsigned i = 0; i < sizeof(early) / sizeof(early[0]); i++)
        check_cut(&early[i], SOURCE_FAILED, TARGET_FAILED, false);
    for (unsigned i = 0; i < sizeof(commit) / sizeof(commit[0]); i++)
        check_cut(&commit[i], SOURCE_DOUBT, TARGET_FAILED, false);
    for (unsigned i = 0; i < sizeof(running) / sizeof(running[0]); i++)
        check_cut(&running[i], SOURCE_DOUBT, TARGET_POSTCOPY, true);
    check_cut(&late, SOURCE_LOST, TARGET_POSTCOPY, true);
    for (unsigned i = 0; i < sizeof(all_there) / sizeof(all_there[0]); i++)
        check_cut(&all_there[i], SOURCE_LOST, TARGET_RUNNING, false);
}

static void test_requests_outside_of_memory(void **state) {
    static const struct {
        uint32_t block;
        uint64_t page;
        size_t len;
    } bad[] = {{1, 0, 12}, {UINT32_MAX, 0, 12}, {0, MEMORY / 4096, 12}, {0, UINT64_MAX, 12}, {0, 0, 11}, {0, 0, 0}};
    struct vm vm;
    struct precopy pc;
    struct wire w = {.fd = -1};
    struct error err = {0};
    uint8_t body[12];
    const struct wire_message good = {.type = WIRE_REQUEST, .body = body, .len = sizeof(body)};
    vm_create(&vm, 'a', -1);
    assert_int_equal(precopy_create(vm.machine, &pc, &err), 0);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct wire_message m = {.type = WIRE_REQUEST, .body = body, .len = bad[i].len};
        wire_set32(body, bad[i].block);
        wire_set64(body + 4, bad[i].page);
        assert_int_equal(precopy_request(&pc, &w, &m), -EINVAL);
    }
    // One that is on its way already is not sent twice.
    pc.blocks[0].todo[0] = 1ul << 3;
    pc.left = 1;
    wire_set32(body, 0);
    wire_set64(body + 4, 3);
    assert_int_equal(precopy_request(&pc, &w, &good), 0);
    size_t queued = wire_queued(&w);
    assert_true(queued > 4096);
    assert_int_equal(pc.left, 0);
    assert_int_equal(precopy_request(&pc, &w, &good), 0);
    assert_int_equal(wire_queued(&w), queued);
    wire_fini(&w);
    precopy_destroy(&pc);
    pthread_create(&vm.thread, NULL, run_source, &vm);
    vm_destroy(&vm);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_postcopy_moves),
        cmocka_unit_test(test_postcopy_cut),
        cmocka_unit_test(test_requests_outside_of_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
