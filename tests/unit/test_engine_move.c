// SPDX-License-Identifier: Apache-2.0
// A running guest is saved on one engine and goes on on the other: every section that one writes the other reads and
// writes again as it was, and the guest, its interrupt controllers and its timer go on. Skips without /dev/kvm.
#include "arch/x86/irqchip.h"
#include "arch/x86/state_io.h"
#include "board_rig.h"

#define HARDWARE_INSNS_PER_SECOND 20000000u

static bool has_kvm;
static bool has_tsc_offset; // KVM without hardware behind it takes any and ignores it

static void read_cpu(const struct section *sec, struct cpu_state *s) {
    struct state_reader r = {.buf = sec->w.buf, .len = sec->w.len, .version = X86_STATE_VERSION};
    struct cpuid_policy p;
    struct error err = {0};

    assert_int_equal(cpuid_policy_init(&p, CPU_MOVABLE, 2, 1000000000, &err), 0);
    state_get_u64(&r); // frequency
    if (x86_state_load(s, 0, &p, &r, &err))
        fail_msg("%s", err.text);
}

// All but the counter, which a KVM without an offset cannot take exactly.
static void assert_same_cpu(const struct section *a, const struct section *b) {
    struct cpu_state x __attribute__((aligned(64))), y __attribute__((aligned(64)));
    const uint8_t *p = (const uint8_t *)&x, *q = (const uint8_t *)&y;

    read_cpu(a, &x);
    read_cpu(b, &y);
    if (!has_tsc_offset)
        x.tsc_offset = y.tsc_offset = 0;
    for (size_t i = 0; i < sizeof(x); i++)
        if (p[i] != q[i])
            fail_msg("cpu %u: byte %zu of struct cpu_state: %02x was saved, %02x is read back", a->instance, i, p[i],
                     q[i]);
}

static void assert_same_machine(const struct snapshot *a, const struct snapshot *b) {
    assert_int_equal(a->count, b->count);
    for (unsigned i = 0; i < a->count; i++) {
        assert_string_equal(a->sections[i].ops->name, b->sections[i].ops->name);
        assert_int_equal(a->sections[i].ops->version, b->sections[i].ops->version);
        if (strcmp(a->sections[i].ops->name, "cpu") == 0)
            assert_same_cpu(&a->sections[i], &b->sections[i]);
        else
            assert_same_section(&a->sections[i], &b->sections[i]);
    }
}

static void save_and_end(struct vm *vm) {
    machine_pause(vm->machine);
    snapshot_take(&saved, vm);
    machine_end(vm->machine, MACHINE_STOPPED);
}

static void load_and_go(struct vm *vm) {
    machine_pause(vm->machine);
    snapshot_load(&saved, vm);
    usleep(2000); // no clock goes on in between
    snapshot_take(&again, vm);
    assert_same_machine(&saved, &again);
    machine_resume(vm->machine);
    vm_in(vm, 50 * MS, save_and_end);
}

static void read_lapics(const struct snapshot *s, struct x86_lapic_state lapics[2]) {
    const struct section *sec = find(s, X86_LAPIC_SECTION);
    struct state_reader r = {.buf = sec->w.buf, .len = sec->w.len, .version = X86_LAPIC_VERSION};
    struct error err = {0};
    bool lint1;

    if (x86_lapics_load(lapics, 2, &lint1, &r, &err))
        fail_msg("%s", err.text);
}

// What the guest has programmed is still there, its interrupt waits, and the period of its timer is the same.
static void assert_chips_go_on(uint32_t timer_before, struct vm *vm) {
    struct x86_lapic_state l[2];

    read_lapics(&saved, l);
    assert_int_equal(l[0].lvt[X86_LVT_TIMER], 0x20040);
    assert_int_equal(l[0].initial, 1000000);
    assert_true(l[0].counting);
    assert_int_equal(l[0].irr[1], 1); // vector 40h
    assert_true(guest_word(vm, TIMER) != timer_before);
    assert_in_range(guest_word(vm, TIMER), 0, 1000000);
    assert_same_section(find(&again, X86_IOAPIC_SECTION), find(&saved, X86_IOAPIC_SECTION));
}

static void begin_on(enum config_engine engine) {
    struct vm vm;

    vm_create_on(&vm, engine);
    vm_run(&vm, 100 * MS, save_and_end);
    assert_true(counter(&vm) > 10);
    vm_destroy(&vm);
}

static void go_on_on(enum config_engine engine) {
    struct vm vm;
    uint32_t before, timer;

    memcpy(&before, saved.ram + COUNTER, sizeof(before));
    memcpy(&timer, saved.ram + TIMER, sizeof(timer));
    vm_create_on(&vm, engine);
    vm_run(&vm, MS, load_and_go);
    assert_true(counter(&vm) > before); // it would be behind had it begun anew: it ran for less time
    assert_chips_go_on(timer, &vm);
    vm_destroy(&vm);
}

static void need_kvm(void) {
    if (has_kvm)
        return;
    print_message("SKIP: no KVM here\n");
    skip();
}

// KVM without hardware behind it runs no x87 in kernel mode.
static void look_at_kvm(void) {
    uint64_t speed = 0;
    struct error err = {0};

    has_kvm = engine_find("kvm")->probe(&speed, &err) == 0;
    has_tsc_offset = guest_has_x87 = speed >= HARDWARE_INSNS_PER_SECOND;
}

static void test_kvm_to_xlate_and_back(void **state) {
    need_kvm();
    begin_on(CONFIG_ENGINE_KVM);
    go_on_on(CONFIG_ENGINE_XLATE);
    go_on_on(CONFIG_ENGINE_KVM);
    go_on_on(CONFIG_ENGINE_KVM);
}

static void test_xlate_to_kvm_and_back(void **state) {
    need_kvm();
    begin_on(CONFIG_ENGINE_XLATE);
    go_on_on(CONFIG_ENGINE_KVM);
    go_on_on(CONFIG_ENGINE_XLATE);
}

// Whosever the interrupt controllers are: the sections are the same.
static void test_kinds_of_chips(void **state) {
    static const char *const kinds[] = {"irqchip=split", NULL, "irqchip=user", "irqchip=split"};

    need_kvm();
    begin_on(CONFIG_ENGINE_XLATE);
    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
        rig_kvm_opts = kinds[i];
        go_on_on(CONFIG_ENGINE_KVM);
    }
    rig_kvm_opts = NULL;
    go_on_on(CONFIG_ENGINE_XLATE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kvm_to_xlate_and_back),
        cmocka_unit_test(test_xlate_to_kvm_and_back),
        cmocka_unit_test(test_kinds_of_chips),
    };

    look_at_kvm();
    return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
