// SPDX-License-Identifier: Apache-2.0
// A guest on KVM whose memory comes when it is used (core/mem_lazy.h): it waits inside the kernel, for its code and for
// its data, and can be kicked meanwhile.
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#include "core/mem_lazy.h"
#include "kvm_rig.h"

#define CODE 0x1000u
#define DATA 0x3000u

struct server {
    struct rig *rig;
    pthread_t thread;
    unsigned kicks; // before each page
    atomic_uint served;
    atomic_bool quit;
};

static void put(struct server *s, const struct mem_slot *slot, uint64_t page) {
    static const uint8_t code[] = {0xa1, DATA & 0xff, DATA >> 8, 0xe7, 0x42, 0xf4}; // mov ax, [DATA]; out 42, ax; hlt
    uint8_t data[PAGE_SIZE] = {0};
    if (page == CODE / PAGE_SIZE)
        memcpy(data, code, sizeof(code));
    if (page == DATA / PAGE_SIZE)
        memcpy(data, "\x34\x12", 2);
    for (unsigned i = 0; i < s->kicks; i++)
        s->rig->ops->kick(s->rig->vcpu[0]);
    if (mem_lazy_put(s->rig->host.mem, slot, page, data) == 0)
        atomic_fetch_add(&s->served, 1);
}

static void *serve(void *arg) {
    struct server *s = arg;
    struct pollfd p = {.fd = mem_lazy_fd(s->rig->host.mem), .events = POLLIN};
    const struct mem_slot *slot;
    uint64_t page;
    while (!atomic_load(&s->quit))
        if (poll(&p, 1, 10) == 1 && mem_lazy_fault(s->rig->host.mem, &slot, &page) == 1)
            put(s, slot, page);
    return NULL;
}

static void run_guest(unsigned kicks) {
    struct rig *r = rig_new("irqchip=user");
    struct server s = {.rig = r, .kicks = kicks};
    struct vm_exit e = {.reason = EXIT_NONE};
    struct cpu_state state;
    struct error err = {0};
    if (mem_lazy_open(r->host.mem, true, &err)) {
        rig_free(r);
        print_message("SKIP: %s\n", err.text);
        skip();
    }
    assert_int_equal(mem_lazy_begin_empty(r->host.mem, &err), 0);
    x86_state_reset(&state, true, false);
    for (unsigned i = X86_ES; i <= X86_GS; i++)
        state.seg[i].base = state.seg[i].sel = 0;
    state.rip = CODE;
    rig_set(r, 0, &state);
    assert_int_equal(pthread_create(&s.thread, NULL, serve, &s), 0);
    do
        r->ops->run(r->vcpu[0], BUDGET_UNLIMITED, &e);
    while (e.reason == EXIT_KICKED);
    atomic_store(&s.quit, true);
    pthread_join(s.thread, NULL);
    assert_int_equal(e.reason, EXIT_HALT);
    assert_int_equal(r->nlog, 1);
    assert_int_equal(r->log[0].pio.data, 0x1234);
    assert_true(atomic_load(&s.served) >= 2);
    rig_get(r, 0, &state);
    assert_int_equal(state.activity, X86_HALTED);
    rig_free(r);
}

static void test_guest_waits_for_its_pages(void **state) {
    run_guest(0);
}

static void test_kicked_while_it_waits(void **state) {
    run_guest(3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_guest_waits_for_its_pages),
        cmocka_unit_test(test_kicked_while_it_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
