// SPDX-License-Identifier: Apache-2.0
// Tiny real-mode guests on KVM: accesses, kicks, interrupts from chips in user space, start-up, failures, dirty log.
// Only instructions that every KVM can run (docs: the machine without hardware behind its /dev/kvm emulates them).
#include <errno.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "arch/x86/irqchip.h"
#include "kvm_rig.h"

#define CODE 0x1000u

// vCPU `vcpu` at CODE in real mode, with a stack and flat 64 KiB segments at 0.
static void load(struct rig *r, unsigned vcpu, const uint8_t *code, size_t size) {
    struct cpu_state s;

    x86_state_reset(&s, true, false);
    for (unsigned i = X86_ES; i <= X86_GS; i++)
        s.seg[i].base = s.seg[i].sel = 0;
    s.rip = CODE;
    s.gpr[X86_RSP] = 0x8000;
    assert_int_equal(mem_write(r->host.mem, GPA(CODE), code, size), 0);
    rig_set(r, vcpu, &s);
}
#define LOAD(r, ...) load(r, 0, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static enum exit_reason run(struct rig *r, struct vm_exit *e) {
    e->reason = EXIT_NONE;
    r->ops->run(r->vcpu[0], BUDGET_UNLIMITED, e);
    return e->reason;
}

static void test_accesses(void **state) {
    struct rig *r = rig_new("irqchip=user");
    struct vm_exit e;
    struct cpu_state s;

    r->answer = 0x1234;
    LOAD(r, 0xb8, 0xcd, 0xab,          // mov ax, abcd
         0xe7, 0x42,                   // out 42, ax
         0xe5, 0x43,                   // in ax, 43
         0xbb, 0xff, 0xff, 0x8e, 0xdb, // mov bx, ffff; mov ds, bx
         0xa3, 0x10, 0x40,             // mov [ffff:4010], ax: 104000h, beyond RAM
         0xf4);                        // hlt
    assert_int_equal(run(r, &e), EXIT_HALT);
    assert_int_equal(r->nlog, 3);
    assert_int_equal(r->log[0].pio.port, 0x42);
    assert_true(r->log[0].pio.write);
    assert_int_equal(r->log[0].pio.size, 2);
    assert_int_equal(r->log[0].pio.data, 0xabcd);
    assert_false(r->log[1].pio.write);
    assert_int_equal(r->log[2].reason, EXIT_MMIO);
    assert_int_equal(r->log[2].mmio.gpa.v, 0x104000);
    assert_int_equal(r->log[2].mmio.size, 2);
    assert_int_equal(r->log[2].mmio.data, 0x1234);
    rig_get(r, 0, &s);
    assert_int_equal(s.activity, X86_HALTED);
    rig_free(r);
}

static void test_string_io(void **state) {
    struct rig *r = rig_new("irqchip=user");
    struct vm_exit e;

    assert_int_equal(mem_write(r->host.mem, GPA(0x2000), "guest", 5), 0);
    LOAD(r, 0xbe, 0x00, 0x20, 0xb9, 0x05, 0x00, 0xba, 0xf8, 0x03, // mov si, 2000; mov cx, 5; mov dx, 3f8
         0xf3, 0x6e, 0xf4);                                       // rep outsb; hlt
    assert_int_equal(run(r, &e), EXIT_HALT);
    assert_int_equal(r->nlog, 5);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(r->log[i].pio.data, "guest"[i]);
    rig_free(r);
}

static void kick_self(struct rig *r, unsigned vcpu) {
    r->ops->kick(r->vcpu[vcpu]);
}

// A kick from the handler of an access (a device that ends or pauses the machine): the access is complete when run()
// returns, and nothing after it has run.
static void test_kick_inside_access(void **state) {
    static const char *const options[] = {"irqchip=kernel", "irqchip=split", "irqchip=user"};

    for (unsigned i = 0; i < ARRAY_LEN(options); i++) {
        struct rig *r = rig_new(options[i]);
        struct vm_exit e;
        struct cpu_state s;

        r->answer = 0x77;
        r->on_access = kick_self;
        LOAD(r, 0xe4, 0x10, 0x40, 0xeb, 0xfe); // in al, 10; inc ax; jmp $
        assert_int_equal(run(r, &e), EXIT_KICKED);
        rig_get(r, 0, &s);
        assert_int_equal(s.rip, CODE + 2);
        assert_int_equal(s.gpr[X86_RAX] & 0xff, 0x77);
        assert_int_equal(r->nlog, 1);
        rig_free(r);
    }
}

static void *kick_later(void *arg) {
    struct rig *r = arg;

    usleep(20000);
    r->ops->kick(r->vcpu[0]);
    return NULL;
}

static void kick_while_it_runs(struct rig *r) {
    struct vm_exit e;
    pthread_t t;

    pthread_create(&t, NULL, kick_later, r);
    assert_int_equal(run(r, &e), EXIT_KICKED);
    pthread_join(t, NULL);
}

static void test_kick_stops_a_spinning_guest(void **state) {
    struct rig *r = rig_new("irqchip=kernel");

    // sti; cli; again. Not jmp $ behind cli: Bochs forgets at a VM entry with IF clear that external interrupts exit
    // all the same (SDM 3C 25.2), until IF changes.
    LOAD(r, 0xfb, 0xfa, 0xeb, 0xfc);
    kick_while_it_runs(r);
    rig_free(r);
}

// It sleeps in HLT inside KVM (chips in the kernel).
static void test_kick_wakes_a_halted_guest(void **state) {
    struct rig *r = rig_new("irqchip=kernel");

    LOAD(r, 0xfb, 0xf4, 0xeb, 0xfc); // sti; hlt; again
    kick_while_it_runs(r);
    rig_free(r);
}

static void test_kick_before_run_is_not_lost(void **state) {
    struct rig *r = rig_new("irqchip=kernel");
    struct vm_exit e;

    LOAD(r, 0xfa, 0xeb, 0xfe);
    r->ops->kick(r->vcpu[0]);
    assert_int_equal(run(r, &e), EXIT_KICKED);
    rig_free(r);
}

static void test_interrupt_from_user_space(void **state) {
    struct rig *r = rig_new("irqchip=user");
    struct vm_exit e;

    assert_int_equal(mem_write(r->host.mem, GPA(4 * 0x21), "\x00\x20\x00\x00", 4), 0); // vector 21h: 0:2000
    assert_int_equal(mem_write(r->host.mem, GPA(0x2000), "\xe6\x55\xcf", 3), 0);       // out 55, al; iret
    LOAD(r, 0xfa, 0xe6, 0x01, 0xfb, 0xf4, 0xe6, 0x02, 0xf4); // cli; out 1; sti; hlt; out 2; hlt
    r->chip[0].vector = 0x21;                                // waits from the start, with interrupts off
    assert_int_equal(run(r, &e), EXIT_HALT);
    assert_int_equal(r->nlog, 3);
    assert_int_equal(r->log[0].pio.port, 0x01); // not before STI
    assert_int_equal(r->log[1].pio.port, 0x55);
    assert_int_equal(r->log[2].pio.port, 0x02);
    assert_int_equal(run(r, &e), EXIT_HALT); // still halted: nothing has come
    assert_int_equal(r->nlog, 3);
    r->chip[0].vector = 0x21;
    assert_int_equal(run(r, &e), EXIT_HALT);
    assert_int_equal(r->log[3].pio.port, 0x55);
    rig_free(r);
}

static void start_lapic(struct rig *r) {
    struct x86_lapic_state s;

    x86_lapic_reset(&s, 0);
    s.svr |= 0x100;
    assert_int_equal(r->ops->irqchip_set(r->engine, X86_CHIP_LAPIC, 0, &s, sizeof(s)), 0);
    r->ops->irqchip_resume(r->engine);
}

// The PIC's interrupt, with the local APIC in the kernel: into a guest that spins and into one that halts there.
static void test_extint_into_split_chips(void **state) {
    static const uint8_t waits[][3] = {{0xeb, 0xfe, 0x90}, {0xf4, 0xeb, 0xfd}}; // jmp $; hlt, jmp

    for (unsigned i = 0; i < ARRAY_LEN(waits); i++) {
        struct rig *r = rig_new("irqchip=split");
        struct vm_exit e;

        assert_int_equal(mem_write(r->host.mem, GPA(4 * 0x21), "\x00\x20\x00\x00", 4), 0); // vector 21h: 0:2000
        assert_int_equal(mem_write(r->host.mem, GPA(0x2000), "\xe6\x55\xcf", 3), 0);       // out 55, al; iret
        start_lapic(r);
        LOAD(r, 0xfa, 0xe6, 0x01, 0xfb, waits[i][0], waits[i][1], waits[i][2]); // cli; out 1; sti; wait
        r->chip[0].vector = 0x21;
        r->on_access = kick_self;
        assert_int_equal(run(r, &e), EXIT_KICKED);
        assert_int_equal(r->log[0].pio.port, 0x01); // not before STI
        assert_int_equal(run(r, &e), EXIT_KICKED);
        assert_int_equal(r->log[1].pio.port, 0x55);
        assert_int_equal(r->chip[0].vector, -1);
        rig_free(r);
    }
}

// The EOI of a level-triggered message is reported, but only while its pin has the route.
static void test_eoi_from_split_chips(void **state) {
    struct rig *r = rig_new("irqchip=split");
    struct cpu_state s;
    struct vm_exit e;

    assert_int_equal(mem_write(r->host.mem, GPA(4 * 0x41), "\x00\x20\x00\x00", 4), 0);
    // mov dword [b0], 0 (EOI); out 55, al; out 56, al; iret
    static const uint8_t handler[] = {0x66, 0xc7, 0x06, 0xb0, 0, 0, 0, 0, 0, 0xe6, 0x55, 0xe6, 0x56, 0xcf};
    assert_int_equal(mem_write(r->host.mem, GPA(0x2000), handler, sizeof(handler)), 0);
    start_lapic(r);
    LOAD(r, 0xfb, 0xeb, 0xfe); // sti; jmp $
    rig_get(r, 0, &s);
    s.seg[X86_DS].base = 0xfee00000;
    rig_set(r, 0, &s);
    r->on_access = kick_self;
    for (unsigned routed = 0; routed < 2; routed++) {
        r->ops->irq_route(r->engine, 5, routed ? 0xfee00000 : 0, routed ? 0x8041 : 0);
        r->ops->irq_msi(r->engine, 0xfee00000, 0x8041);
        assert_int_equal(run(r, &e), EXIT_KICKED); // the EOI may still be on its way out
        assert_int_equal(run(r, &e), EXIT_KICKED);
        assert_int_equal(r->log[2 * routed + 1].pio.port, 0x56);
        assert_int_equal(r->chip[0].eois, routed);
    }
    assert_int_equal(r->chip[0].eoi, 0x41);
    rig_free(r);
}

static void test_init_and_sipi(void **state) {
    struct rig *r = rig_new("irqchip=user");
    struct vm_exit e;
    struct cpu_state s;

    assert_int_equal(mem_write(r->host.mem, GPA(0x9000), "\xe6\x33\xf4", 3), 0); // out 33, al; hlt
    x86_state_reset(&s, false, false);
    rig_set(r, 1, &s);
    r->ops->run(r->vcpu[1], BUDGET_UNLIMITED, &e);
    assert_int_equal(e.reason, EXIT_WAIT_SIPI);
    r->chip[1].events = IRQCHIP_INIT;
    r->ops->run(r->vcpu[1], BUDGET_UNLIMITED, &e);
    assert_int_equal(e.reason, EXIT_WAIT_SIPI);
    assert_int_equal(r->chip[1].resets, 1);
    r->chip[1].events = IRQCHIP_SIPI | 9 << 8;
    r->ops->run(r->vcpu[1], BUDGET_UNLIMITED, &e);
    assert_int_equal(e.reason, EXIT_HALT);
    assert_int_equal(r->nlog, 1);
    assert_int_equal(r->log[0].pio.port, 0x33);
    rig_free(r);
}

// In protected mode with an empty IDT. (In real mode KVM's emulator does not look at the limit of the IDT.)
static void test_triple_fault(void **state) {
    struct rig *r = rig_new(NULL);
    struct vm_exit e;
    struct cpu_state s;

    LOAD(r, 0x0f, 0x0b); // ud2
    rig_get(r, 0, &s);
    s.cr0 |= CR0_PE;
    s.idtr.limit = 0;
    s.seg[X86_CS] = (struct x86_segment){.limit = 0xffffffff, .attr = 0xc09b, .sel = 8};
    s.seg[X86_SS] = s.seg[X86_DS] = (struct x86_segment){.limit = 0xffffffff, .attr = 0xc093, .sel = 16};
    rig_set(r, 0, &s);
    assert_int_equal(run(r, &e), EXIT_SHUTDOWN);
    rig_free(r);
}

// Code where there is no memory cannot be run by any KVM: the report names the place.
static void test_failure_is_reported(void **state) {
    struct rig *r = rig_new(NULL);
    struct vm_exit e;

    LOAD(r, 0xea, 0x10, 0x40, 0xff, 0xff); // jmp ffff:4010, 104000h
    assert_int_equal(run(r, &e), EXIT_FAIL);
    assert_non_null(strstr(e.fail.text, "4010"));
    assert_non_null(strstr(e.fail.text, "not mapped"));
    rig_free(r);
}

static uint64_t fetch(struct rig *r, unsigned long *bits) {
    r->ops->dirty_sync(r->engine);
    return mem_dirty_fetch(r->host.mem, mem_find_slot(r->host.mem, 0), bits);
}

static void dirty_log(const char *features) {
    struct rig *r = rig_new(features);
    unsigned long bits[RIG_RAM / 4096 / 64];
    struct vm_exit e;

    assert_int_equal(fetch(r, bits), RIG_RAM / 4096); // nothing was recorded before: all of it
    for (unsigned turn = 0; turn < 2; turn++) {       // a page that was fetched is recorded again
        LOAD(r, 0xc6, 0x06, 0x00, 0x50, 0x11, 0xf4);  // mov byte [5000], 11; hlt
        assert_int_equal(run(r, &e), EXIT_HALT);
        fetch(r, bits);
        assert_true(bits[0] & 1ul << 5);
        assert_true(bits[0] & 1ul << 1); // ours, through core/mem.h
        assert_int_equal(bits[1], 0);
        fetch(r, bits);
        assert_int_equal(bits[0] & 1ul << 5, 0); // fetched is gone
    }
    r->ops->dirty_stop(r->engine);
    assert_int_equal(fetch(r, bits), RIG_RAM / 4096); // nothing was recorded meanwhile
    fetch(r, bits);
    assert_int_equal(bits[0] & 1ul << 5, 0);
    rig_free(r);
}

static void test_dirty_log(void **state) {
    dirty_log("irqchip=user,dirty=bitmap");
    dirty_log("irqchip=user,dirty=ring");
    dirty_log("irqchip=user,dirty=auto");
}

// More pages than a ring holds, before anyone fetches: none is lost. A KVM without hardware behind it emulates on past
// the end of the ring; then all memory counts.
static void test_full_ring(void **state) {
    enum { PAGES = 6000 };
    struct rig *r = rig_new_with("irqchip=user,dirty=ring", 32u << 20);
    unsigned long bits[(32u << 20) / 4096 / 64];
    struct cpu_state s;
    struct vm_exit e;

    fetch(r, bits);
    LOAD(r, 0xc6, 0x03, 0x11,                // mov byte [ebx], 11
         0x81, 0xc3, 0x00, 0x10, 0x00, 0x00, // add ebx, 1000
         0x49, 0x75, 0xf4, 0xf4);            // dec ecx; jnz; hlt
    rig_get(r, 0, &s);
    s.cr0 |= CR0_PE;
    for (unsigned i = X86_ES; i <= X86_GS; i++)
        s.seg[i] = (struct x86_segment){.limit = 0xffffffff, .attr = i == X86_CS ? 0xc09b : 0xc093, .sel = 8};
    s.gpr[X86_RBX] = 0x10000;
    s.gpr[X86_RCX] = PAGES;
    rig_set(r, 0, &s);
    assert_int_equal(run(r, &e), EXIT_HALT);
    assert_in_range(fetch(r, bits), PAGES, r->speed < 20000000 ? (32u << 20) / 4096 : PAGES + 1); // and the code
    for (unsigned page = 16; page < 16 + PAGES; page++)
        assert_true(bits[page / 64] >> page % 64 & 1);
    rig_free(r);
}

// One step is one instruction; accesses in it are answered and complete.
static void test_budget(void **state) {
    struct rig *r = rig_new("irqchip=user");
    struct cpu_state s;
    struct vm_exit e;

    r->answer = 0x66;
    LOAD(r, 0x90, 0x40, 0xe4, 0x07, 0x40, 0xf4); // nop; inc ax; in al, 7; inc ax; hlt
    r->ops->run(r->vcpu[0], 2, &e);
    assert_int_equal(e.reason, EXIT_BUDGET);
    rig_get(r, 0, &s);
    assert_int_equal(s.rip, CODE + 2);
    assert_int_equal(s.gpr[X86_RAX], 1);
    r->ops->run(r->vcpu[0], 1, &e);
    rig_get(r, 0, &s);
    assert_int_equal(s.rip, CODE + 4);
    assert_int_equal(r->nlog, 1);
    assert_int_equal(s.gpr[X86_RAX], 0x66);
    assert_int_equal(s.rflags & RFLAGS_TF, 0); // KVM's own flag is not the guest's
    assert_int_equal(run(r, &e), EXIT_HALT);   // and without a budget it runs freely
    rig_free(r);
}

static void doorbell_is_taken(const char *options, bool on_loop, int result) {
    struct rig *r = rig_new(options);
    int fd = eventfd(0, EFD_NONBLOCK);

    assert_int_equal(r->ops->doorbell_add(r->engine, GPA(0x104000), fd, on_loop), result);
    rig_free(r);
    close(fd);
}

// A doorbell counts in its eventfd, whatever the size of the write, and does not come as an access; taken away, or
// left out by the options, it does.
static void test_doorbell(void **state) {
    struct rig *r = rig_new("irqchip=user");
    int fd = eventfd(0, EFD_NONBLOCK);
    eventfd_t count = 0;
    struct vm_exit e;
    static const uint8_t code[] = {0xbb, 0xff, 0xff, 0x8e, 0xdb, // mov bx, ffff; mov ds, bx
                                   0xa3, 0x10, 0x40,             // mov [ffff:4010], ax: 104000h, beyond RAM
                                   0xa2, 0x10, 0x40,             // the same, a byte
                                   0xa3, 0x14, 0x40,             // another address
                                   0xf4};                        // hlt

    assert_int_equal(r->ops->doorbell_add(r->engine, GPA(0x104000), fd, true), 0);
    assert_int_equal(r->ops->doorbell_add(r->engine, GPA(0x104000), fd, true), -EEXIST);
    load(r, 0, code, sizeof(code));
    assert_int_equal(run(r, &e), EXIT_HALT);
    assert_int_equal(r->nlog, 1);
    assert_int_equal(r->log[0].mmio.gpa.v, 0x104004);
    assert_int_equal(eventfd_read(fd, &count), 0);
    assert_int_equal(count, 2);
    r->ops->doorbell_remove(r->engine, GPA(0x104000), fd);
    load(r, 0, code, sizeof(code));
    assert_int_equal(run(r, &e), EXIT_HALT);
    assert_int_equal(r->nlog, 4);
    assert_int_equal(eventfd_read(fd, &count), -1);
    rig_free(r);
    doorbell_is_taken("ioeventfd=auto", false, -EOPNOTSUPP);
    doorbell_is_taken("ioeventfd=on", false, 0);
    doorbell_is_taken("ioeventfd=off", true, -EOPNOTSUPP);
    close(fd);
}

static void test_bad_options(void **state) {
    struct rig *r = rig_new(NULL); // for the skip
    struct engine_options opt = {.features = "irqchip=none"};
    struct error err = {0};
    struct engine *e;

    assert_true(r->ops->create(&r->host, &opt, &e, &err) < 0);
    assert_non_null(strstr(err.text, "irqchip=none"));
    opt.features = NULL;
    r->host.vcpus = 100000;
    assert_true(r->ops->create(&r->host, &opt, &e, &err) < 0);
    assert_non_null(strstr(err.text, "100000"));
    r->host.vcpus = RIG_VCPUS;
    rig_free(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accesses),
        cmocka_unit_test(test_string_io),
        cmocka_unit_test(test_kick_inside_access),
        cmocka_unit_test(test_kick_stops_a_spinning_guest),
        cmocka_unit_test(test_kick_wakes_a_halted_guest),
        cmocka_unit_test(test_kick_before_run_is_not_lost),
        cmocka_unit_test(test_interrupt_from_user_space),
        cmocka_unit_test(test_extint_into_split_chips),
        cmocka_unit_test(test_eoi_from_split_chips),
        cmocka_unit_test(test_init_and_sipi),
        cmocka_unit_test(test_triple_fault),
        cmocka_unit_test(test_failure_is_reported),
        cmocka_unit_test(test_dirty_log),
        cmocka_unit_test(test_full_ring),
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_doorbell),
        cmocka_unit_test(test_bad_options),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
