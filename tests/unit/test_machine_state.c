// SPDX-License-Identifier: Apache-2.0
// Save and load of a whole microvm board on xlate: a guest that counts moves into a second machine and goes on there;
// no component's load crashes or hangs on what a damaged or hostile snapshot holds.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <stdio.h>
#include <unistd.h>

#include "arch/x86/state_io.h"
#include "backend/char_host.h"
#include "vmm/board.h"

#define MEMORY         (16u << 20)
#define LOAD_ADDR      0x100000u
#define COUNTER        0x200000u
#define MAX_COMPONENTS 32
#define FLIPS          300 // of each section
#define MACHINES       20  // that run with damaged sections
#define MS             1000000ull

// ---- the guest: a multiboot kernel that leaves traces in the chips, then counts in EBX and stores it ----

struct code {
    uint8_t buf[512];
    size_t len;
};

static void put(struct code *c, const void *p, size_t n) {
    assert_true(c->len + n <= sizeof(c->buf));
    memcpy(c->buf + c->len, p, n);
    c->len += n;
}

#define PUT(c, ...) put(c, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void put32(struct code *c, uint32_t v) {
    put(c, &v, sizeof(v));
}

static void put_out(struct code *c, uint16_t port, uint8_t value) {
    PUT(c, 0x66, 0xba, (uint8_t)port, (uint8_t)(port >> 8), 0xb0, value, 0xee); // mov dx, port; mov al, value; out
}

static void put_store(struct code *c, uint32_t addr, uint32_t value) {
    PUT(c, 0xc7, 0x05); // mov dword [addr], value
    put32(c, addr);
    put32(c, value);
}

static void put_chips(struct code *c) {
    static const struct {
        uint16_t port;
        uint8_t value;
    } outs[] = {
        {0x43, 0x34}, {0x40, 0x34},  {0x40, 0x12},                // PIT channel 0: rate generator
        {0x20, 0x11}, {0x21, 0x20},  {0x21, 0x04},  {0x21, 0x01}, // PIC: vectors from 20h, all masked
        {0x21, 0xff}, {0x3fb, 0x03}, {0x3f9, 0x01}, {0x70, 0x0b}, // UART: 8n1, receive interrupt; CMOS index
        {0x60, 0xf4}, {0x92, 0x02},  {0x602, 0x21},
    };
    for (unsigned i = 0; i < sizeof(outs) / sizeof(outs[0]); i++)
        put_out(c, outs[i].port, outs[i].value);
    put_store(c, 0xfee000f0, 0x1ff);   // local APIC: software enable
    put_store(c, 0xfee00320, 0x20040); // periodic timer, vector 40h: pends, since IF = 0
    put_store(c, 0xfee003e0, 0xb);
    put_store(c, 0xfee00380, 1000000);
    put_store(c, 0xfec00000, 0x12); // I/O APIC: pin 1
    put_store(c, 0xfec00010, 0x8931);
}

static void write_kernel(const char *path) {
    struct code c = {.len = 0};
    const uint32_t header[] = {0x1badb002, 0x10000,       0u - 0x1badb002 - 0x10000, LOAD_ADDR, LOAD_ADDR, 0,
                               0,          LOAD_ADDR + 32};
    put(&c, header, sizeof(header));
    put_chips(&c);
    PUT(&c, 0xdb, 0xe3, 0xd9, 0xeb, 0x31, 0xdb); // fninit; fldpi; xor ebx, ebx
    PUT(&c, 0x43, 0x89, 0x1d);                   // inc ebx; mov [COUNTER], ebx
    put32(&c, COUNTER);
    PUT(&c, 0xeb, 0xf7); // back to inc ebx
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(c.buf, 1, c.len, f), c.len);
    assert_int_equal(fclose(f), 0);
}

// ---- machines and what they save ----

struct section {
    const struct component_ops *ops;
    unsigned instance;
    struct state_writer w;
};

struct snapshot {
    struct section sections[MAX_COMPONENTS];
    unsigned count;
    uint8_t *ram;
};

struct vm {
    struct vm_config cfg;
    struct board *board;
    struct machine *machine;
    struct char_host *serial, *console;
    struct event_timer timer;
    void (*step)(struct vm *vm); // what the timer does
    uint32_t counted;
    uint64_t moved_ns; // since the load began, at the end
};

static char kernel_path[] = "/tmp/test_machine_state.XXXXXX", disk_path[] = "/tmp/test_machine_disk.XXXXXX";
static struct snapshot saved, again;

static void timer_step(void *ctx) {
    struct vm *vm = ctx;
    vm->step(vm);
}

static void vm_in(struct vm *vm, uint64_t ns, void (*step)(struct vm *vm)) {
    vm->step = step;
    event_timer_arm(&vm->timer, event_now_ns() + ns);
}

static void vm_create(struct vm *vm) {
    struct error err = {0};
    memset(vm, 0, sizeof(*vm));
    config_init(&vm->cfg);
    vm->cfg.engine = CONFIG_ENGINE_XLATE;
    vm->cfg.boot = CONFIG_BOOT_MULTIBOOT;
    vm->cfg.memory = MEMORY;
    vm->cfg.cpus = 2;
    vm->cfg.kernel = strdup(kernel_path);
    vm->cfg.disks[vm->cfg.ndisks++].path = strdup(disk_path);
    vm->cfg.nnets = 1;
    assert_int_equal(config_validate(&vm->cfg, &err), 0);
    if (board_create(&vm->cfg, &vm->board, &err))
        fail_msg("%s", err.text);
    vm->machine = board_machine(vm->board);
    assert_int_equal(char_null_open(&vm->serial, &err), 0);
    assert_int_equal(char_null_open(&vm->console, &err), 0);
    assert_int_equal(board_serial_attach(vm->board, &vm->serial->dev, &err), 0);
    assert_int_equal(board_console_attach(vm->board, &vm->console->dev, &err), 0);
    assert_int_equal(machine_start_threads(vm->machine, &err), 0);
    event_timer_init(&vm->timer, vm->machine->loop, timer_step, vm);
}

static void vm_destroy(struct vm *vm) {
    event_timer_cancel(&vm->timer);
    char_host_close(vm->serial);
    char_host_close(vm->console);
    board_destroy(vm->board);
    char_host_destroy(vm->serial);
    char_host_destroy(vm->console);
    config_destroy(&vm->cfg);
}

static enum machine_end vm_run_to_end(struct vm *vm, uint64_t ns, void (*step)(struct vm *vm)) {
    struct error err = {0};
    vm_in(vm, ns, step);
    enum machine_end end = machine_run(vm->machine, &err);
    if (err.text[0])
        fail_msg("power-on: %s", err.text);
    return end;
}

static void vm_run(struct vm *vm, uint64_t ns, void (*step)(struct vm *vm)) {
    assert_int_equal(vm_run_to_end(vm, ns, step), MACHINE_STOPPED);
}

static uint32_t counter(struct vm *vm) {
    uint32_t v;
    assert_int_equal(mem_read(vm->machine->mem, GPA(COUNTER), &v, sizeof(v)), 0);
    return v;
}

static void snapshot_free(struct snapshot *s) {
    for (unsigned i = 0; i < s->count; i++)
        state_writer_free(&s->sections[i].w);
    free(s->ram);
    *s = (struct snapshot){0};
}

static void snapshot_take(struct snapshot *s, struct vm *vm) {
    snapshot_free(s);
    for (struct component *c = vm->machine->components.head; c; c = c->next) {
        struct section *sec = &s->sections[s->count++];
        assert_true(s->count < MAX_COMPONENTS);
        *sec = (struct section){.ops = c->ops, .instance = c->instance};
        if (c->ops->save)
            c->ops->save(c->ctx, &sec->w);
        assert_int_equal(state_writer_error(&sec->w), 0);
    }
    s->ram = malloc(MEMORY);
    assert_non_null(s->ram);
    assert_int_equal(mem_read(vm->machine->mem, GPA(0), s->ram, MEMORY), 0);
}

static int load(struct component *c, const uint8_t *buf, size_t len, size_t *used, struct error *err) {
    struct state_reader r = {.buf = buf, .len = len, .version = c->ops->version};
    *err = (struct error){0};
    int ret = c->ops->load(c->ctx, &r, err);
    if (used)
        *used = r.pos;
    // Nothing but 0 or an error with a reason for a person.
    if (ret > 0 || (ret < 0 && !err->text[0]))
        fail_msg("%s: load returns %d, '%s'", c->ops->name, ret, err->text);
    return ret;
}

static void snapshot_load(const struct snapshot *s, struct vm *vm) {
    struct error err;
    unsigned i = 0;
    assert_int_equal(mem_write(vm->machine->mem, GPA(0), s->ram, MEMORY), 0);
    for (struct component *c = vm->machine->components.head; c; c = c->next, i++) {
        const struct section *sec = &s->sections[i];
        size_t used;
        assert_string_equal(sec->ops->name, c->ops->name);
        if (!c->ops->load)
            continue;
        if (load(c, sec->w.buf, sec->w.len, &used, &err))
            fail_msg("%s %u: %s", c->ops->name, c->instance, err.text);
        if (used != sec->w.len)
            fail_msg("%s: %zu bytes saved, %zu loaded", c->ops->name, sec->w.len, used);
    }
}

static void assert_same_sections(const struct snapshot *a, const struct snapshot *b) {
    assert_int_equal(a->count, b->count);
    for (unsigned i = 0; i < a->count; i++) {
        const struct state_writer *x = &a->sections[i].w, *y = &b->sections[i].w;
        size_t at = 0;
        while (at < x->len && at < y->len && x->buf[at] == y->buf[at])
            at++;
        if (x->len != y->len || at < x->len)
            fail_msg("%s %u: differs at byte %zu of %zu (other: %zu)", a->sections[i].ops->name,
                     a->sections[i].instance, at, x->len, y->len);
    }
    assert_memory_equal(a->ram, b->ram, MEMORY);
}

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

static const struct section *find(const struct snapshot *s, const char *name) {
    for (unsigned i = 0; i < s->count; i++)
        if (strcmp(s->sections[i].ops->name, name) == 0)
            return &s->sections[i];
    return NULL;
}

static void take_running_snapshot(void) {
    struct vm vm;
    vm_create(&vm);
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
    vm_create(&vm);
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
    vm_create(&vm);
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
        vm_create(&vm);
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

static int setup(void **state) {
    int fd = mkstemp(kernel_path), disk = mkstemp(disk_path);
    if (fd < 0 || disk < 0 || ftruncate(disk, 1 << 20))
        return -1;
    close(fd);
    close(disk);
    write_kernel(kernel_path);
    return 0;
}

static int teardown(void **state) {
    snapshot_free(&saved);
    snapshot_free(&again);
    unlink(kernel_path);
    unlink(disk_path);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_guest_moves),
        cmocka_unit_test(test_all_components_save),
        cmocka_unit_test(test_damaged_sections_are_refused),
        cmocka_unit_test(test_damaged_machines_run),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
