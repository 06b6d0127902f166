// SPDX-License-Identifier: Apache-2.0
// Save and load of a whole microvm board on xlate: a guest that counts moves into a second machine and goes on there;
// no component's load crashes or hangs on what a damaged or hostile snapshot holds.
#include "arch/x86/state_io.h"
#include "board_rig.h"

#define FLIPS    300 // of each section
#define MACHINES 20  // that run with damaged sections

// ---- moving ----

static void save_and_end(struct vm *vm) {
    machine_pause(vm->machine);
    snapshot_take(&saved, vm);
    vm->counted = counter(vm);
    machine_end(vm->machine, MACHINE_STOPPED);
}

static void end(struct vm *vm) {
    machine_pause(vm->machine);
    vm->moved_ns = event_now_ns() - vm->moved_ns;
    machine_end(vm->machine, MACHINE_STOPPED);
}

static void load_and_go(struct vm *vm) {
    vm->moved_ns = event_now_ns();
    machine_pause(vm->machine);
    snapshot_load(&saved, vm);
    usleep(2000); // neither clock goes on in between
    snapshot_take(&again, vm);
    assert_same_sections(&saved, &again);
    machine_resume(vm->machine);
    vm_in(vm, 20 * MS, end);
}

static void take_running_snapshot(void) {
    struct vm vm;
    vm_create_on(&vm, CONFIG_ENGINE_XLATE);
    vm_run(&vm, 30 * MS, save_and_end);
    assert_true(vm.counted > 1000);
    vm_destroy(&vm);
}

static uint64_t saved_tsc(const struct snapshot *s) {
    struct cpu_state cpu __attribute__((aligned(64)));
    struct error err = {0};
    struct cpuid_policy p;
    const struct section *sec = find(s, "cpu");
    struct state_reader r = {.buf = sec->w.buf, .len = sec->w.len, .version = X86_STATE_VERSION};
    assert_int_equal(cpuid_policy_init(&p, CPU_MOVABLE, 2, 1000000000, &err), 0);
    state_get_u64(&r); // frequency
    assert_int_equal(x86_state_load(&cpu, 0, &p, &r, &err), 0);
    return cpu.tsc_offset;
}

static void test_a_guest_moves(void **state) {
    struct vm vm;
    take_running_snapshot();
    uint32_t before;
    memcpy(&before, saved.ram + COUNTER, sizeof(before));
    usleep(50000);
    vm_create_on(&vm, CONFIG_ENGINE_XLATE);
    vm_run(&vm, 5 * MS, load_and_go);
    assert_true(counter(&vm) > before); // it would be behind had it begun anew: it ran for less time
    snapshot_take(&again, &vm);
    uint64_t ticks = saved_tsc(&again) - saved_tsc(&saved), hz = vm.machine->nondet.tsc_hz;
    // The guest's TSC ran while the guest did, not while it lay in memory (50 ms and more).
    assert_in_range(ticks, hz / 1000 * 15, hz / 1000 * (vm.moved_ns / MS + 5));
    vm_destroy(&vm);
}

// ---- damage ----

static uint64_t rng = 0x9e3779b97f4a7c15ull;

static uint32_t random32(void) {
    rng = rng * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(rng >> 32);
}

static void truncated(struct component *c, const struct state_writer *w) {
    struct error err;
    for (size_t len = 0; len < w->len; len++) {
        uint8_t *copy = malloc(len ? len : 1); // of its own, so that ASan sees a byte too many
        assert_non_null(copy);
        memcpy(copy, w->buf, len);
        if (load(c, copy, len, NULL, &err) == 0)
            fail_msg("%s: %zu of %zu bytes are accepted", c->ops->name, len, w->len);
        free(copy);
    }
}

static void damage(uint8_t *buf, size_t len) {
    for (unsigned n = 1 + random32() % 4; n; n--) {
        unsigned at = random32() % (unsigned)len;
        switch (random32() % 3) {
        case 0: buf[at] ^= (uint8_t)(1u << random32() % 8); break;
        case 1: buf[at] = 0xff; break;
        default: buf[at] = (uint8_t)random32(); break;
        }
    }
}

// What load has accepted, save writes and load accepts again; and the device can go on from there.
static void accepted(struct component *c) {
    struct state_writer first = {0}, second = {0};
    struct error err;
    c->ops->save(c->ctx, &first);
    if (load(c, first.buf, first.len, NULL, &err))
        fail_msg("%s: refuses what it saved after a load: %s", c->ops->name, err.text);
    c->ops->save(c->ctx, &second);
    assert_int_equal(first.len, second.len);
    if (memcmp(first.buf, second.buf, first.len))
        fail_msg("%s: load and save change the state", c->ops->name);
    if (c->ops->resume)
        c->ops->resume(c->ctx);
    if (c->ops->pause)
        c->ops->pause(c->ctx);
    state_writer_free(&first);
    state_writer_free(&second);
}

static void flipped(struct component *c, const struct state_writer *w) {
    uint8_t *copy = malloc(w->len);
    struct error err;
    assert_non_null(copy);
    for (unsigned i = 0; i < FLIPS; i++) {
        memcpy(copy, w->buf, w->len);
        damage(copy, w->len);
        if (load(c, copy, w->len, NULL, &err) == 0)
            accepted(c);
    }
    free(copy);
}

static int load_patched(struct vm *vm, const char *name, size_t at, uint64_t value, size_t n) {
    const struct section *sec = find(&saved, name);
    struct component *c = vm->machine->components.head;
    struct error err;
    while (strcmp(c->ops->name, name) != 0)
        c = c->next;
    uint8_t *copy = malloc(sec->w.len);
    assert_non_null(copy);
    memcpy(copy, sec->w.buf, sec->w.len);
    memcpy(copy + at, &value, n);
    int ret = load(c, copy, sec->w.len, NULL, &err);
    free(copy);
    return ret;
}

// Values in the middle of well-formed sections that no guest can bring about.
static void impossible(struct vm *vm) {
    // virtio-rng: features (8 bytes), status. Up with features that are not offered, with and without FEATURES_OK;
    // but a driver that has not chosen yet may have written anything.
    uint64_t offered_not = UINT64_MAX;
    assert_int_equal(load_patched(vm, "virtio-rng", 0, offered_not, 8), 0);
    const uint8_t up[] = {0x0b, 0x07, 0x0f};
    for (unsigned i = 0; i < sizeof(up); i++) {
        struct state_writer *w = &((struct section *)find(&saved, "virtio-rng"))->w;
        uint8_t good = w->buf[8];
        w->buf[8] = up[i];
        assert_true(load_patched(vm, "virtio-rng", 0, offered_not, 8) < 0);
        w->buf[8] = good;
    }
    // Local APIC: number of vCPUs (4), LINT1 (1), then the base of the first.
    assert_int_equal(load_patched(vm, "lapic", 5, 0xfee00900, 8), 0);
    assert_true(load_patched(vm, "lapic", 5, 0xfee00901, 8) < 0);
    assert_true(load_patched(vm, "lapic", 5, 0xfee00500, 8) < 0);
    // A TSC of another frequency; a CR0 (of the cpu section) is tests/unit/test_x86_state_io.c's.
    assert_true(load_patched(vm, "cpu", 0, vm->machine->nondet.tsc_hz / 2, 8) < 0);
}

static void damage_all_and_end(struct vm *vm) {
    struct error err;
    unsigned i = 0;
    machine_pause(vm->machine);
    impossible(vm);
    for (struct component *c = vm->machine->components.head; c; c = c->next, i++) {
        const struct state_writer *w = &saved.sections[i].w;
        if (!c->ops->load)
            continue;
        truncated(c, w);
        flipped(c, w);
        if (load(c, w->buf, w->len, NULL, &err)) // and after all that, the good one is accepted
            fail_msg("%s: %s", c->ops->name, err.text);
    }
    machine_end(vm->machine, MACHINE_STOPPED);
}

static void test_damaged_sections_are_refused(void **state) {
    struct vm vm;
    vm_create_on(&vm, CONFIG_ENGINE_XLATE);
    vm_run(&vm, 5 * MS, damage_all_and_end);
    vm_destroy(&vm);
}

// A machine made of damaged sections that are all accepted is a guest that behaves oddly, no more.
static void go_damaged(struct vm *vm) {
    uint8_t *copy = malloc(1 << 16);
    struct error err;
    unsigned i = 0;
    assert_non_null(copy);
    machine_pause(vm->machine);
    for (struct component *c = vm->machine->components.head; c; c = c->next, i++) {
        const struct state_writer *w = &saved.sections[i].w;
        if (!c->ops->load)
            continue;
        assert_true(w->len <= 1 << 16);
        int ret = -1;
        for (unsigned tries = 0; ret && tries < 8; tries++) {
            memcpy(copy, w->buf, w->len);
            damage(copy, w->len);
            ret = load(c, copy, w->len, NULL, &err);
        }
        if (ret && load(c, w->buf, w->len, NULL, &err))
            fail_msg("%s: %s", c->ops->name, err.text);
    }
    free(copy);
    machine_resume(vm->machine);
    vm_in(vm, 2 * MS, end);
}

static void test_damaged_machines_run(void **state) {
    for (unsigned i = 0; i < MACHINES; i++) {
        struct vm vm;
        vm_create_on(&vm, CONFIG_ENGINE_XLATE);
        enum machine_end how = vm_run_to_end(&vm, MS, go_damaged);
        if (how == MACHINE_INTERNAL || how == MACHINE_HOST_FAILURE)
            fail_msg("machine %u ended with %d", i, how);
        vm_destroy(&vm);
    }
}

// A component with state has both directions; only these have none.
static void test_all_components_save(void **state) {
    static const char *const stateless[] = {"pvpanic", "debug_exit"};
    for (unsigned i = 0; i < saved.count; i++) {
        const struct component_ops *ops = saved.sections[i].ops;
        bool none = false;
        for (unsigned k = 0; k < sizeof(stateless) / sizeof(stateless[0]); k++)
            none |= strcmp(ops->name, stateless[k]) == 0;
        if (!none && (!ops->save || !ops->load || !saved.sections[i].w.len))
            fail_msg("%s saves nothing", ops->name);
        for (unsigned k = 0; k < i; k++)
            assert_false(strcmp(ops->name, saved.sections[k].ops->name) == 0 &&
                         saved.sections[i].instance == saved.sections[k].instance);
    }
}

// ---- main ----

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_guest_moves),
        cmocka_unit_test(test_all_components_save),
        cmocka_unit_test(test_damaged_sections_are_refused),
        cmocka_unit_test(test_damaged_machines_run),
    };
    return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
