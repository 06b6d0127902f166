// SPDX-License-Identifier: Apache-2.0
// The engine of a running machine is changed in place: the guest, its chips and its memory are what they were, and
// every failure on the way leaves it on the engine it had. The other engine is a second xlate with faults to order;
// with /dev/kvm also the real one, and chips of src/dev for those in the kernel.
#include <errno.h>
#include <fcntl.h>

#include "arch/x86/cpuid.h"
#include "arch/x86/irqchip.h"
#include "board_rig.h"
#include "vmm/engine_switch.h"

// ---- an engine that fails where it is told to ----

enum fault { NO_FAULT, FAIL_CREATE, FAIL_VCPU, FAIL_ENTER, FAIL_STATE, FAIL_LIMIT };
static enum fault fault;
static int created, destroyed, forgotten;
static struct engine_ops other;

static const struct engine_ops *xlate(void) {
    return engine_find("xlate");
}

static int other_create(const struct engine_host *host, const struct engine_options *opt, struct engine **e,
                        struct error *err) {
    if (opt->device > 0)
        close(opt->device);
    if (fault == FAIL_CREATE)
        return error_set(err, -EIO, "create fails");
    created++;
    return xlate()->create(host, opt, e, err);
}

static void other_destroy(struct engine *e) {
    destroyed++;
    xlate()->destroy(e);
}

static int other_vcpu_create(struct engine *e, unsigned index, struct engine_vcpu **v, struct error *err) {
    if (fault == FAIL_VCPU && index == 1)
        return error_set(err, -EIO, "vcpu_create fails");
    return xlate()->vcpu_create(e, index, v, err);
}

static int other_enter(struct engine_vcpu *v, struct error *err) {
    return fault == FAIL_ENTER ? error_set(err, -EIO, "vcpu_enter_thread fails") : xlate()->vcpu_enter_thread(v, err);
}

static int other_set_state(struct engine_vcpu *v, const void *state, size_t size) {
    static unsigned calls;
    if (fault == FAIL_STATE && ++calls % 2 == 0) // the second of two vCPUs
        return -EIO;
    return xlate()->set_state(v, state, size);
}

static int other_limit(void *policy, const struct engine_options *opt, struct error *err) {
    if (fault == FAIL_LIMIT)
        ((struct cpuid_policy *)policy)->leaf[1].ecx &= 1;
    return 0;
}

static void other_forget(struct engine *e) {
    forgotten++;
    xlate()->forget(e);
}

static void order(enum fault f) {
    fault = f;
    created = destroyed = forgotten = 0;
    other = *xlate();
    other.name = "other";
    other.before_seal = false;
    other.create = other_create;
    other.destroy = other_destroy;
    other.vcpu_create = other_vcpu_create;
    other.vcpu_enter_thread = other_enter;
    other.set_state = other_set_state;
    other.limit_policy = other_limit;
    other.forget = other_forget;
}

// ---- what the guest is ----

static void read_lapics(const struct section *sec, struct x86_lapic_state lapics[2]) {
    struct state_reader r = {.buf = sec->w.buf, .len = sec->w.len, .version = X86_LAPIC_VERSION};
    struct error err = {0};
    bool lint1;
    if (x86_lapics_load(lapics, 2, &lint1, &r, &err))
        fail_msg("%s", err.text);
    for (unsigned i = 0; i < 2; i++) // a periodic timer may count from a later period
        if (lapics[i].counting)
            lapics[i].start_ns %= x86_lapic_period_ns(&lapics[i]);
}

static void assert_same_lapics(const struct section *a, const struct section *b) {
    struct x86_lapic_state x[2] = {0}, y[2] = {0};
    read_lapics(a, x);
    read_lapics(b, y);
    assert_memory_equal(x, y, sizeof(x));
}

static void assert_same_machine(const struct snapshot *a, const struct snapshot *b) {
    assert_int_equal(a->count, b->count);
    for (unsigned i = 0; i < a->count; i++) {
        if (strcmp(a->sections[i].ops->name, X86_LAPIC_SECTION) == 0)
            assert_same_lapics(&a->sections[i], &b->sections[i]);
        else
            assert_same_section(&a->sections[i], &b->sections[i]);
    }
    assert_memory_equal(a->ram, b->ram, MEMORY);
}

static uint32_t counted;

static unsigned tries;

// It has gone on; on a busy host later.
static void end(struct vm *vm) {
    if (counter(vm) <= counted && tries++ < 400)
        vm_in(vm, 50 * MS, end);
    else
        machine_end(vm->machine, MACHINE_STOPPED);
    assert_true(tries < 400);
}

static void goes_on(struct vm *vm) {
    counted = counter(vm);
    tries = 0;
    vm_in(vm, 50 * MS, end);
}

static int switch_to(struct vm *vm, const struct engine_ops *ops, int device, struct error *err) {
    struct engine_switched done;
    return engine_switch_to(board_engine_switch(vm->board), ops, device, &done, err);
}

// Paused around it, so that what it was before can be compared with what it is behind.
static int switch_and_compare(struct vm *vm, struct error *err) {
    machine_pause(vm->machine);
    snapshot_take(&saved, vm);
    int ret = switch_to(vm, &other, -1, err);
    snapshot_take(&again, vm);
    assert_same_machine(&saved, &again);
    machine_resume(vm->machine);
    goes_on(vm);
    return ret;
}

// ---- it works ----

static void change(struct vm *vm) {
    struct error err = {0};
    if (switch_and_compare(vm, &err))
        fail_msg("%s", err.text);
    assert_ptr_equal(vm->machine->engine_ops, &other);
    assert_int_equal(created, 1);
}

static void test_changes(void **state) {
    struct vm vm;
    order(NO_FAULT);
    vm_create_on(&vm, CONFIG_ENGINE_XLATE);
    vm_run(&vm, 50 * MS, change);
    vm_destroy(&vm);
    assert_int_equal(destroyed, 1);
    assert_int_equal(forgotten, 0); // it went with the machine
}

// What was left is kept where it may not be made again, and taken again.
static void there_and_back(struct vm *vm) {
    struct error err = {0};
    const struct engine *before = vm->machine->engine;
    if (switch_to(vm, &other, -1, &err) || switch_to(vm, xlate(), -1, &err))
        fail_msg("%s", err.text);
    assert_ptr_equal(vm->machine->engine, before);
    assert_int_equal(destroyed, 1);
    goes_on(vm);
}

static void test_keeps_what_only_an_unsealed_process_can_make(void **state) {
    struct vm vm;
    order(NO_FAULT);
    vm_create_on(&vm, CONFIG_ENGINE_XLATE);
    vm_run(&vm, 50 * MS, there_and_back);
    vm_destroy(&vm);
}

// ---- it does not ----

static const char *expected;

static void fail_to_change(struct vm *vm) {
    struct error err = {0};
    assert_int_not_equal(switch_and_compare(vm, &err), 0);
    if (!strstr(err.text, expected))
        fail_msg("'%s' does not tell '%s'", err.text, expected);
    assert_ptr_equal(vm->machine->engine_ops, xlate());
    assert_int_equal(created, destroyed);
}

static void fails(enum fault f, const char *text) {
    struct vm vm;
    order(f);
    expected = text;
    vm_create_on(&vm, CONFIG_ENGINE_XLATE);
    vm_run(&vm, 50 * MS, fail_to_change);
    vm_destroy(&vm);
}

static void test_goes_back(void **state) {
    fails(FAIL_CREATE, "create fails");
    fails(FAIL_VCPU, "vcpu_create fails");
    fails(FAIL_ENTER, "the guest goes on on the engine it had: vcpu_enter_thread fails");
    fails(FAIL_STATE, "the guest goes on on the engine it had: the other engine refuses the saved state of vCPU 1");
    fails(FAIL_LIMIT, "cannot give the processor that the guest has seen: CPUID leaf 0x1.0");
}

static void debugger_stopped(void *ctx, struct vcpu *v, const struct vm_exit *exit) {}

static void refuse(struct vm *vm) {
    struct error err = {0};
    int device = open("/dev/null", O_RDWR);
    assert_int_equal(switch_to(vm, xlate(), device, &err), -EINVAL); // runs on it already
    assert_int_equal(fcntl(device, F_GETFD), -1);                    // taken over all the same
    other.before_seal = true;
    assert_int_equal(switch_to(vm, &other, -1, &err), -ENODEV);
    assert_non_null(strstr(err.text, "could not be prepared"));
    other.before_seal = false;
    other.open_device = engine_find("kvm")->open_device;
    assert_int_equal(switch_to(vm, &other, -1, &err), -EINVAL);
    assert_non_null(strstr(err.text, "must come with the request"));
    vm->machine->debugger.stopped = debugger_stopped;
    assert_int_equal(switch_to(vm, &other, -1, &err), -EINVAL);
    vm->machine->debugger.stopped = NULL;
    assert_int_equal(created, 0);
    goes_on(vm);
}

static void test_refuses(void **state) {
    struct vm vm;
    order(NO_FAULT);
    vm_create_on(&vm, CONFIG_ENGINE_XLATE);
    vm_run(&vm, 50 * MS, refuse);
    vm_destroy(&vm);
}

// ---- chips of src/dev for those in the kernel ----

static void to_kvm(struct vm *vm) {
    struct error err = {0};
    int device = engine_find("kvm")->open_device(&err);
    if (device < 0 || switch_to(vm, engine_find("kvm"), device, &err))
        fail_msg("%s", err.text);
    goes_on(vm);
}

static void to_xlate(struct vm *vm) {
    struct error err = {0};
    machine_pause(vm->machine);
    snapshot_take(&saved, vm);
    if (switch_to(vm, xlate(), -1, &err))
        fail_msg("%s", err.text);
    snapshot_take(&again, vm);
    assert_same_section(find(&saved, "i82093aa"), find(&again, "i82093aa"));
    assert_same_section(find(&saved, "i8259"), find(&again, "i8259"));
    machine_resume(vm->machine);
    vm_in(vm, 100 * MS, to_kvm);
}

static void test_kvm(void **state) {
    struct vm vm;
    struct error err = {0};
    uint64_t speed;
    if (engine_find("kvm")->probe(&speed, &err)) {
        print_message("SKIP: no KVM here\n");
        skip();
    }
    vm_create_on(&vm, CONFIG_ENGINE_KVM);
    vm_run(&vm, 100 * MS, to_xlate);
    assert_ptr_equal(vm.machine->engine_ops, engine_find("kvm"));
    vm_destroy(&vm);
}

// KVM without hardware behind it runs no x87 in kernel mode.
static int setup(void **state) {
    uint64_t speed = 0;
    struct error err = {0};
    guest_has_x87 = engine_find("kvm")->probe(&speed, &err) != 0 || speed >= 20000000u;
    return rig_setup(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_changes),   cmocka_unit_test(test_keeps_what_only_an_unsealed_process_can_make),
        cmocka_unit_test(test_goes_back), cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_kvm),
    };
    return cmocka_run_group_tests(tests, setup, rig_teardown);
}
