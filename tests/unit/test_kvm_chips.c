// SPDX-License-Identifier: Apache-2.0
// Canonical state of the interrupt controllers into KVM's and out again: what goes in comes out, field by field.
#include "arch/x86/irqchip.h"
#include "core/irqchip.h"
#include "kvm_rig.h"

#define SAME(a, b, field) same(#field, (uint64_t)(a)->field, (uint64_t)(b)->field)

static void same(const char *name, uint64_t in, uint64_t out) {
    if (in != out)
        fail_msg("%s: 0x%llx went in, 0x%llx came out", name, (unsigned long long)in, (unsigned long long)out);
}

static void set(struct rig *r, enum x86_chip chip, unsigned instance, const void *state, size_t size) {
    assert_int_equal(r->ops->irqchip_set(r->engine, chip, instance, state, size), 0);
}

static void get(struct rig *r, enum x86_chip chip, unsigned instance, void *state, size_t size) {
    assert_int_equal(r->ops->irqchip_get(r->engine, chip, instance, state, size), 0);
}

// ---- local APIC ----

static void same_lapic(const struct x86_lapic_state *a, const struct x86_lapic_state *b) {
    SAME(a, b, base), SAME(a, b, esr), SAME(a, b, svr), SAME(a, b, ldr), SAME(a, b, dfr), SAME(a, b, tpr);
    SAME(a, b, icr), SAME(a, b, initial), SAME(a, b, divide), SAME(a, b, counting), SAME(a, b, start_ns);
    SAME(a, b, tsc_deadline), SAME(a, b, events);
    for (unsigned i = 0; i < 4; i++)
        SAME(a, b, irr[i]), SAME(a, b, isr[i]), SAME(a, b, tmr[i]);
    for (unsigned i = 0; i < X86_LVT_COUNT; i++)
        SAME(a, b, lvt[i]);
}

static void lapic_round_trip(struct rig *r, unsigned vcpu, const struct x86_lapic_state *in) {
    struct x86_lapic_state out;

    set(r, X86_CHIP_LAPIC, vcpu, in, sizeof(*in));
    get(r, X86_CHIP_LAPIC, vcpu, &out, sizeof(out));
    same_lapic(in, &out);
}

static struct x86_lapic_state busy_lapic(unsigned vcpu) {
    struct x86_lapic_state s;

    x86_lapic_reset(&s, vcpu);
    s.svr = 0x1f0;
    s.ldr = 0x04000000;
    s.dfr = 0x0fffffff;
    s.tpr = 0x20;
    s.icr = UINT64_C(0x01000000000040fb);
    s.irr[0] = UINT64_C(1) << 0x31;
    s.irr[3] = UINT64_C(1) << (0xfd - 192);
    s.isr[1] = UINT64_C(1) << (0x61 - 64);
    s.tmr[1] = UINT64_C(1) << (0x61 - 64);
    s.lvt[X86_LVT_LINT1] = 0x400;
    s.lvt[X86_LVT_ERROR] = 0xfe;
    s.lvt[X86_LVT_TIMER] = 0x200ec; // periodic
    s.divide = 0xb;
    s.initial = 1000000;
    s.counting = true;
    s.start_ns = 777;
    return s;
}

static void lapics(const char *features) {
    struct rig *r = rig_new(features);

    for (unsigned i = 0; i < RIG_VCPUS; i++) {
        struct x86_lapic_state s;
        x86_lapic_reset(&s, i);
        lapic_round_trip(r, i, &s);
        s = busy_lapic(i);
        lapic_round_trip(r, i, &s);
        s.lvt[X86_LVT_TIMER] = 0x400ec; // TSC deadline
        s.initial = 0;
        s.counting = false;
        s.start_ns = 0;
        s.tsc_deadline = UINT64_C(0x7000000000000000);
        lapic_round_trip(r, i, &s);
        s.base |= X86_APIC_BASE_X2APIC;
        s.ldr = 0; // follows from the ID
        s.dfr = UINT32_MAX;
        s.icr = UINT64_C(0x00000001000040fb);
        lapic_round_trip(r, i, &s);
    }
    rig_free(r);
}

static void test_lapic(void **state) {
    lapics("irqchip=kernel");
    lapics("irqchip=split");
}

// After the machine goes on, the time that is left is the same; without the machine's clock it begins at 0.
static void test_lapic_timer_goes_on(void **state) {
    struct rig *r = rig_new(NULL);
    struct x86_lapic_state s = busy_lapic(0), out;
    const uint64_t hour_ns = 3600000000000ull;

    s.divide = 0xa; // 128
    s.initial = 0xffffffff;
    s.start_ns = -(hour_ns / 60); // a minute of nine has gone
    set(r, X86_CHIP_LAPIC, 0, &s, sizeof(s));
    r->ops->irqchip_resume(r->engine);
    get(r, X86_CHIP_LAPIC, 0, &out, sizeof(out));
    assert_int_equal(out.initial, s.initial);
    assert_true(out.counting);
    assert_in_range(-out.start_ns, hour_ns / 60 - 1000, hour_ns / 60 + hour_ns / 100); // and the time of this test
    s.lvt[X86_LVT_TIMER] = 0x400ec;
    s.initial = 0;
    s.counting = false;
    s.tsc_deadline = UINT64_C(0x7000000000000000);
    set(r, X86_CHIP_LAPIC, 0, &s, sizeof(s));
    r->ops->irqchip_resume(r->engine);
    get(r, X86_CHIP_LAPIC, 0, &out, sizeof(out));
    assert_int_equal(out.tsc_deadline, s.tsc_deadline);
    rig_free(r);
}

// An INIT and a start-up message that waited are taken by the vCPU.
static void test_lapic_events(void **state) {
    struct rig *r = rig_new(NULL);
    struct x86_lapic_state s;
    struct cpu_state cpu;

    x86_state_reset(&cpu, false, false);
    cpu.activity = X86_ACTIVE;
    cpu.gpr[X86_RBX] = 1;
    rig_set(r, 1, &cpu);
    x86_lapic_reset(&s, 1);
    s.events = IRQCHIP_INIT;
    set(r, X86_CHIP_LAPIC, 1, &s, sizeof(s));
    rig_get(r, 1, &cpu);
    assert_int_equal(cpu.activity, X86_WAIT_SIPI);
    assert_int_equal(cpu.gpr[X86_RBX], 0);
    s.events = IRQCHIP_SIPI | 9 << 8;
    set(r, X86_CHIP_LAPIC, 1, &s, sizeof(s));
    rig_get(r, 1, &cpu);
    assert_int_equal(cpu.activity, X86_ACTIVE);
    assert_int_equal(cpu.seg[X86_CS].base, 0x9000);
    rig_free(r);
}

// ---- the others ----

static struct x86_pic_state busy_pic(void) {
    struct x86_pic_state s = {0};

    x86_pic_reset(&s);
    s.chips[0] = (struct x86_pic_chip){.lines = 0x12,
                                       .irr = 0x02,
                                       .isr = 0x10,
                                       .imr = 0xa8,
                                       .vector_base = 0x30,
                                       .first = 3,
                                       .need_icw4 = true,
                                       .special_mask = true};
    s.chips[1] = (struct x86_pic_chip){
        .lines = 0x08, .irr = 0x08, .imr = 0xff, .elcr = 0x08, .vector_base = 0x38, .read_isr = true, .step = 2};
    return s;
}

static void test_pic(void **state) {
    struct rig *r = rig_new(NULL);
    struct x86_pic_state in = busy_pic(), out;

    set(r, X86_CHIP_PIC, 0, &in, sizeof(in));
    get(r, X86_CHIP_PIC, 0, &out, sizeof(out));
    for (unsigned i = 0; i < 2; i++) {
        const struct x86_pic_chip *a = &in.chips[i], *b = &out.chips[i];
        SAME(a, b, lines), SAME(a, b, irr), SAME(a, b, isr), SAME(a, b, imr), SAME(a, b, elcr);
        SAME(a, b, vector_base), SAME(a, b, first), SAME(a, b, step), SAME(a, b, need_icw4), SAME(a, b, auto_eoi);
        SAME(a, b, rotate_on_auto_eoi), SAME(a, b, special_mask), SAME(a, b, special_nested);
        SAME(a, b, read_isr), SAME(a, b, poll);
    }
    rig_free(r);
}

// An edge that was delivered does not come again, a level that is held stays; the lines are those of both.
static void test_ioapic(void **state) {
    struct rig *r = rig_new(NULL);
    struct x86_ioapic_state in = {.index = 0x12, .lines = 1u << 4 | 1u << 17}, out;
    struct x86_pic_state pic = {0};
    struct x86_lapic_state lapic;

    x86_ioapic_reset(&in);
    in.index = 0x12;
    in.entries[4] = 0x0000000000000034;                                             // edge
    in.entries[17] = 0x0100000000000051 | X86_IOAPIC_LEVEL | X86_IOAPIC_REMOTE_IRR; // level, not yet ended
    pic.chips[0].lines = 1u << 4;
    set(r, X86_CHIP_PIC, 0, &pic, sizeof(pic));
    set(r, X86_CHIP_IOAPIC, 0, &in, sizeof(in));
    get(r, X86_CHIP_IOAPIC, 0, &out, sizeof(out));
    SAME(&in, &out, index), SAME(&in, &out, id), SAME(&in, &out, lines);
    for (unsigned pin = 0; pin < X86_IOAPIC_PINS; pin++)
        SAME(&in, &out, entries[pin]);
    get(r, X86_CHIP_LAPIC, 0, &lapic, sizeof(lapic));
    assert_int_equal(lapic.irr[0] | lapic.irr[1], 0);
    rig_free(r);
}

static void test_pit(void **state) {
    struct rig *r = rig_new(NULL);
    struct x86_pit_state in, out;

    x86_pit_reset(&in);
    in.ch[0] = (struct x86_pit_channel){.count = 11932,
                                        .mode = 2,
                                        .access = X86_PIT_BOTH,
                                        .gate = true,
                                        .running = true,
                                        .write_high = true,
                                        .write_low = 0x34,
                                        .latched = X86_PIT_HIGH,
                                        .latch = 0x1234,
                                        .status_latched = true,
                                        .status = 0x34};
    in.ch[2] = (struct x86_pit_channel){.count = 5, .mode = 0, .access = X86_PIT_LOW, .running = true, .gate = true};
    in.port61 = 3;
    for (unsigned resumed = 0; resumed < 2; resumed++) {
        set(r, X86_CHIP_PIT, 0, &in, sizeof(in));
        if (resumed)
            r->ops->irqchip_resume(r->engine);
        get(r, X86_CHIP_PIT, 0, &out, sizeof(out));
        for (unsigned i = 0; i < X86_PIT_CHANNELS; i++) {
            const struct x86_pit_channel *a = &in.ch[i], *b = &out.ch[i];
            SAME(a, b, count), SAME(a, b, running), SAME(a, b, gate), SAME(a, b, bcd), SAME(a, b, mode);
            SAME(a, b, access), SAME(a, b, write_high), SAME(a, b, read_high), SAME(a, b, write_low);
            SAME(a, b, latched), SAME(a, b, latch), SAME(a, b, status_latched), SAME(a, b, status);
        }
        SAME(&in, &out, port61);
    }
    rig_free(r);
}

static void test_reset(void **state) {
    struct rig *r = rig_new(NULL);
    struct x86_lapic_state lapic = busy_lapic(0), fresh;
    struct x86_pic_state pic = busy_pic();
    struct x86_ioapic_state ioapic = {.entries = {[3] = 0x33}};
    struct x86_pit_state pit;

    set(r, X86_CHIP_LAPIC, 0, &lapic, sizeof(lapic));
    set(r, X86_CHIP_PIC, 0, &pic, sizeof(pic));
    set(r, X86_CHIP_IOAPIC, 0, &ioapic, sizeof(ioapic));
    r->ops->irqchip_reset(r->engine);
    get(r, X86_CHIP_LAPIC, 0, &lapic, sizeof(lapic));
    x86_lapic_reset(&fresh, 0);
    same_lapic(&fresh, &lapic);
    get(r, X86_CHIP_PIC, 0, &pic, sizeof(pic));
    assert_int_equal(pic.chips[0].imr & pic.chips[1].imr, 0xff);
    assert_int_equal(pic.chips[0].lines, 0x12); // not the guest's
    get(r, X86_CHIP_IOAPIC, 0, &ioapic, sizeof(ioapic));
    assert_int_equal(ioapic.entries[3], X86_IOAPIC_MASKED);
    get(r, X86_CHIP_PIT, 0, &pit, sizeof(pit));
    assert_false(pit.ch[0].running);
    rig_free(r);
}

// Local APICs alone: they alone are reset, and the others are not the engine's.
static void test_split(void **state) {
    struct rig *r = rig_new("irqchip=split");
    struct x86_lapic_state lapic = busy_lapic(0), fresh;
    struct x86_pic_state pic = busy_pic();

    set(r, X86_CHIP_LAPIC, 0, &lapic, sizeof(lapic));
    r->ops->irqchip_reset(r->engine);
    get(r, X86_CHIP_LAPIC, 0, &lapic, sizeof(lapic));
    x86_lapic_reset(&fresh, 0);
    same_lapic(&fresh, &lapic);
    assert_true(r->ops->irqchip_get(r->engine, X86_CHIP_PIC, 0, &pic, sizeof(pic)) < 0);
    assert_true(r->ops->irqchip_set(r->engine, X86_CHIP_PIC, 0, &pic, sizeof(pic)) < 0);
    rig_free(r);
}

static void test_wrong_chip_or_size(void **state) {
    struct rig *r = rig_new(NULL);
    struct x86_lapic_state s;

    x86_lapic_reset(&s, 0);
    assert_true(r->ops->irqchip_get(r->engine, X86_CHIP_LAPIC, RIG_VCPUS, &s, sizeof(s)) < 0);
    assert_true(r->ops->irqchip_set(r->engine, X86_CHIP_LAPIC, RIG_VCPUS, &s, sizeof(s)) < 0);
    assert_true(r->ops->irqchip_set(r->engine, X86_CHIP_LAPIC, 0, &s, sizeof(s) - 1) < 0);
    assert_true(r->ops->irqchip_get(r->engine, 99, 0, &s, sizeof(s)) < 0);
    rig_free(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lapic),        cmocka_unit_test(test_lapic_timer_goes_on),
        cmocka_unit_test(test_lapic_events), cmocka_unit_test(test_pic),
        cmocka_unit_test(test_ioapic),       cmocka_unit_test(test_pit),
        cmocka_unit_test(test_reset),        cmocka_unit_test(test_wrong_chip_or_size),
        cmocka_unit_test(test_split),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
