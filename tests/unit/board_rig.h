// SPDX-License-Identifier: Apache-2.0
// Whole microvm boards with a small guest in them, whose components' states are taken and given: for tests that move a
// guest from one machine into another. saved and again are the two snapshots such a test needs.
#ifndef CICADA_TESTS_BOARD_RIG_H
#define CICADA_TESTS_BOARD_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/char_host.h"
#include "temp.h"
#include "vmm/board.h"

#define MEMORY         (16u << 20)
#define LOAD_ADDR      0x100000u
#define COUNTER        0x200000u
#define TIMER          0x200004u
#define MAX_COMPONENTS 32
#define MS             1000000ull

static bool guest_has_x87 = true; // before rig_setup

// ---- the guest: a multiboot kernel that leaves traces in the chips, then counts in EBX and
// stores that and the count of its timer ----

struct code {
    uint8_t buf[512];
    size_t len;
};

static inline void put(struct code *c, const void *p, size_t n) {
    assert_true(c->len + n <= sizeof(c->buf));
    memcpy(c->buf + c->len, p, n);
    c->len += n;
}

#define PUT(c, ...) put(c, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static inline void put32(struct code *c, uint32_t v) {
    put(c, &v, sizeof(v));
}

static inline void put_out(struct code *c, uint16_t port, uint8_t value) {
    PUT(c, 0x66, 0xba, (uint8_t)port, (uint8_t)(port >> 8), 0xb0, value, 0xee); // mov dx, port; mov al, value; out
}

static inline void put_store(struct code *c, uint32_t addr, uint32_t value) {
    PUT(c, 0xc7, 0x05); // mov dword [addr], value
    put32(c, addr);
    put32(c, value);
}

static inline void put_chips(struct code *c) {
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

static inline void write_kernel(const char *path) {
    struct code c = {.len = 0};
    const uint32_t header[] = {0x1badb002, 0x10000,       0u - 0x1badb002 - 0x10000, LOAD_ADDR, LOAD_ADDR, 0,
                               0,          LOAD_ADDR + 32};
    put(&c, header, sizeof(header));
    put_chips(&c);
    if (guest_has_x87)
        PUT(&c, 0xdb, 0xe3, 0xd9, 0xeb); // fninit; fldpi
    PUT(&c, 0x31, 0xdb);                 // xor ebx, ebx
    PUT(&c, 0xa1);                       // mov eax, [current count of the local APIC's timer]
    put32(&c, 0xfee00390);
    PUT(&c, 0xa3); // mov [TIMER], eax
    put32(&c, TIMER);
    PUT(&c, 0x43, 0x89, 0x1d); // inc ebx; mov [COUNTER], ebx
    put32(&c, COUNTER);
    PUT(&c, 0xeb, 0xed); // back to the count
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

static char kernel_path[TEMP_PATH_MAX], disk_path[TEMP_PATH_MAX];
static struct snapshot saved, again;

static inline void timer_step(void *ctx) {
    struct vm *vm = ctx;
    vm->step(vm);
}

static inline void vm_in(struct vm *vm, uint64_t ns, void (*step)(struct vm *vm)) {
    vm->step = step;
    event_timer_arm(&vm->timer, event_now_ns() + ns);
}

static const char *rig_kvm_opts; // for vm_create_on; NULL: the defaults

// engine: CONFIG_ENGINE_*.
static inline void vm_create_on(struct vm *vm, enum config_engine engine) {
    struct error err = {0};
    memset(vm, 0, sizeof(*vm));
    config_init(&vm->cfg);
    vm->cfg.engine = engine;
    vm->cfg.kvm_opts = rig_kvm_opts ? strdup(rig_kvm_opts) : NULL;
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

static inline void vm_destroy(struct vm *vm) {
    event_timer_cancel(&vm->timer);
    char_host_close(vm->serial);
    char_host_close(vm->console);
    board_destroy(vm->board);
    char_host_destroy(vm->serial);
    char_host_destroy(vm->console);
    config_destroy(&vm->cfg);
}

static inline enum machine_end vm_run_to_end(struct vm *vm, uint64_t ns, void (*step)(struct vm *vm)) {
    struct error err = {0};
    vm_in(vm, ns, step);
    enum machine_end end = machine_run(vm->machine, &err);
    if (err.text[0])
        fail_msg("power-on: %s", err.text);
    return end;
}

static inline void vm_run(struct vm *vm, uint64_t ns, void (*step)(struct vm *vm)) {
    assert_int_equal(vm_run_to_end(vm, ns, step), MACHINE_STOPPED);
}

static inline uint32_t guest_word(struct vm *vm, uint32_t addr) {
    uint32_t v;
    assert_int_equal(mem_read(vm->machine->mem, GPA(addr), &v, sizeof(v)), 0);
    return v;
}

static inline uint32_t counter(struct vm *vm) {
    return guest_word(vm, COUNTER);
}

static inline void snapshot_free(struct snapshot *s) {
    for (unsigned i = 0; i < s->count; i++)
        state_writer_free(&s->sections[i].w);
    free(s->ram);
    *s = (struct snapshot){0};
}

static inline void snapshot_take(struct snapshot *s, struct vm *vm) {
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

static inline int load(struct component *c, const uint8_t *buf, size_t len, size_t *used, struct error *err) {
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

static inline void snapshot_load(const struct snapshot *s, struct vm *vm) {
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

static inline void assert_same_section(const struct section *a, const struct section *b) {
    const struct state_writer *x = &a->w, *y = &b->w;
    size_t at = 0;
    while (at < x->len && at < y->len && x->buf[at] == y->buf[at])
        at++;
    if (x->len != y->len || at < x->len)
        fail_msg("%s %u: differs at byte %zu of %zu (other: %zu)", a->ops->name, a->instance, at, x->len, y->len);
}

static inline void assert_same_sections(const struct snapshot *a, const struct snapshot *b) {
    assert_int_equal(a->count, b->count);
    for (unsigned i = 0; i < a->count; i++)
        assert_same_section(&a->sections[i], &b->sections[i]);
    assert_memory_equal(a->ram, b->ram, MEMORY);
}

static inline const struct section *find(const struct snapshot *s, const char *name) {
    for (unsigned i = 0; i < s->count; i++)
        if (strcmp(s->sections[i].ops->name, name) == 0)
            return &s->sections[i];
    return NULL;
}

// ---- set-up of the group ----

static inline int rig_setup(void **state) {
    int fd = mkstemp(temp_template(kernel_path, "kernel")), disk = mkstemp(temp_template(disk_path, "disk"));
    if (fd < 0 || disk < 0 || ftruncate(disk, 1 << 20))
        return -1;
    close(fd);
    close(disk);
    write_kernel(kernel_path);
    return 0;
}

static inline int rig_teardown(void **state) {
    snapshot_free(&saved);
    snapshot_free(&again);
    unlink(kernel_path);
    unlink(disk_path);
    return 0;
}

#endif
