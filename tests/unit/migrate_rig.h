// SPDX-License-Identifier: Apache-2.0
// The two state machines of a migration, each with a machine and a guest that counts, and between them a relay that
// breaks the connection at a chosen message: before it, in the middle of it, behind it. Included once by a test.
#ifndef CICADA_TESTS_MIGRATE_RIG_H
#define CICADA_TESTS_MIGRATE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "backend/char_host.h"
#include "core/mem_lazy.h"
#include "state/migrate/postcopy.h"
#include "state/migrate/precopy.h"
#include "state/migrate/source.h"
#include "state/migrate/target.h"
#include "temp.h"
#include "vmm/board.h"

#define MEMORY    (16u << 20)
#define LOAD_ADDR 0x100000u
#define COUNTER   0x200000u
#define PATTERN   0x400000u // that the guest does not touch
#define PATTERNS  64u       // pages
#define MS        1000000ull
#define WAIT_MS   20000

static char kernel_path[TEMP_PATH_MAX];

// A multiboot kernel that counts at COUNTER.
static void write_kernel(void) {
    static const uint8_t code[] = {0x31, 0xdb, 0x43, 0x89, 0x1d, 0, 0, 0x20, 0, 0xeb, 0xf7}; // xor; inc; mov; jmp
    const uint32_t header[] = {0x1badb002, 0x10000,       0u - 0x1badb002 - 0x10000, LOAD_ADDR, LOAD_ADDR, 0,
                               0,          LOAD_ADDR + 32};
    int fd = mkstemp(temp_template(kernel_path, "kernel"));
    assert_true(fd >= 0);
    assert_int_equal(write(fd, header, sizeof(header)), sizeof(header));
    assert_int_equal(write(fd, code, sizeof(code)), sizeof(code));
    close(fd);
}

// ---- the disks, as a lock that only one side can hold ----

static atomic_int disks; // 0: nobody's; 'a' or 'b'

static enum source_postcopy postcopy; // of the next migration

// ---- a machine on its own thread ----

struct vm {
    char side;
    struct vm_config cfg;
    struct board *board;
    struct machine *machine;
    struct char_host *serial;
    pthread_t thread;
    int fd;
    struct source *source;
    struct target *target;
    struct source_host source_host;
    struct target_host target_host;
    struct postcopy *postcopy; // of a target; NULL: userfaultfd is not permitted
    atomic_bool ended;         // a last stage is reached
    atomic_bool lost;          // postcopy says so
    struct event_timer timer;
    void (*call)(struct vm *vm); // what the loop is to do next
    int result;
    atomic_bool called;
};

static int take(void *ctx, struct error *err) {
    struct vm *vm = ctx;
    int nobody = 0;
    return atomic_compare_exchange_strong(&disks, &nobody, vm->side) ? 0 : error_set(err, -EBUSY, "disks");
}

static void give(void *ctx) {
    assert_int_equal(atomic_exchange(&disks, 0), ((struct vm *)ctx)->side);
}

static int flush(void *ctx, struct error *err) {
    return 0;
}

static void on_end(void *ctx) {
    struct vm *vm = ctx;
    atomic_store(&vm->ended, true);
}

// In place of the end of the process.
static void on_lost(void *ctx, const char *why) {
    struct vm *vm = ctx;
    mem_lazy_end(vm->machine->mem);
    atomic_store(&vm->lost, true);
    atomic_store(&vm->ended, true);
}

// The source's engine, as it is but for this.
static atomic_uint log_stops;
static void count_log_stop(struct engine *e) {
    atomic_fetch_add(&log_stops, 1);
}
static struct engine_ops source_ops;

static void watch_log(struct machine *m) {
    source_ops = *m->engine_ops;
    source_ops.dirty_stop = count_log_stop;
    m->engine_ops = &source_ops;
    atomic_store(&log_stops, 0);
}

static void vm_create(struct vm *vm, char side, int fd) {
    struct error err = {0};
    *vm = (struct vm){.side = side, .fd = fd};
    config_init(&vm->cfg);
    vm->cfg.engine = CONFIG_ENGINE_XLATE;
    vm->cfg.boot = CONFIG_BOOT_MULTIBOOT;
    vm->cfg.memory = MEMORY;
    vm->cfg.kernel = strdup(kernel_path);
    assert_int_equal(config_validate(&vm->cfg, &err), 0);
    if (board_create(&vm->cfg, &vm->board, &err))
        fail_msg("%s", err.text);
    vm->machine = board_machine(vm->board);
    if (side == 'a')
        watch_log(vm->machine);
    assert_int_equal(char_null_open(&vm->serial, &err), 0);
    assert_int_equal(board_serial_attach(vm->board, &vm->serial->dev, &err), 0);
    assert_int_equal(machine_start_threads(vm->machine, &err), 0);
    vm->source_host = (struct source_host){.flush = flush, .give = give, .take = take, .ended = on_end, .ctx = vm};
    vm->target_host = (struct target_host){.take = take, .ended = on_end, .ctx = vm};
    if (side == 'b' && postcopy != SOURCE_NO_POSTCOPY) {
        assert_int_equal(postcopy_create(vm->machine, on_lost, vm, &vm->postcopy, &err), 0);
        assert_int_equal(postcopy_start(vm->postcopy, &err), 0);
        vm->target_host.postcopy = vm->postcopy;
    }
}

static void vm_destroy(struct vm *vm) {
    machine_end(vm->machine, MACHINE_STOPPED);
    pthread_join(vm->thread, NULL);
    source_destroy(vm->source);
    target_destroy(vm->target);
    postcopy_destroy(vm->postcopy);
    char_host_close(vm->serial);
    board_destroy(vm->board);
    char_host_destroy(vm->serial);
    config_destroy(&vm->cfg);
}

static void *run_source(void *arg) {
    struct vm *vm = arg;
    struct error err = {0};
    machine_run(vm->machine, &err);
    return NULL;
}

static void *run_target(void *arg) {
    struct vm *vm = arg;
    struct error err = {0};
    struct wire w = {.fd = -1};
    char *manifest = NULL;
    if (target_greet(vm->fd, &w, &manifest, &err) == 0 &&
        target_create(vm->machine, &w, &vm->target_host, &vm->target, &err) == 0)
        machine_run_incoming(vm->machine);
    else
        on_end(vm);
    wire_fini(&w);
    free(manifest);
    return NULL;
}

static void on_loop(void *ctx) {
    struct vm *vm = ctx;
    vm->call(vm);
    atomic_store(&vm->called, true);
}

static void wait_for(atomic_bool *flag, const char *what) {
    for (int i = 0; !atomic_load(flag); i++) {
        if (i > WAIT_MS)
            fail_msg("waited too long for %s", what);
        nanosleep(&(struct timespec){.tv_nsec = MS}, NULL);
    }
}

// Has the loop thread of the machine do something and waits.
static void call(struct vm *vm, void (*fn)(struct vm *vm)) {
    vm->call = fn;
    atomic_store(&vm->called, false);
    assert_int_equal(event_post(vm->machine->loop, on_loop, vm), 0);
    wait_for(&vm->called, "the event loop");
}

static uint32_t counter(struct vm *vm) {
    uint32_t v;
    assert_int_equal(mem_read(vm->machine->mem, GPA(COUNTER), &v, sizeof(v)), 0);
    return v;
}

// Counts it on within so many milliseconds?
static bool counts_within(struct vm *vm, int ms) {
    uint32_t before = counter(vm);
    for (int i = 0; i < ms; i++) {
        nanosleep(&(struct timespec){.tv_nsec = MS}, NULL);
        if (counter(vm) != before)
            return true;
    }
    return false;
}

// A host that is busy may let one that runs wait for long; one that stands is not waited for as long.
static void assert_runs(struct vm *vm, bool expected) {
    assert_int_equal(counts_within(vm, expected ? WAIT_MS : 100), expected);
}

// ---- the relay ----

enum when { NEVER, BEFORE, WITHIN, BEHIND, DAMAGED };

struct relay {
    int a, b; // ends at source and target
    enum wire_type type;
    enum when when;
    pthread_t thread;
};

// One message from one side to the other. False: the connection is to be cut.
static bool relay_message(struct relay *r, int from, int to) {
    static uint8_t body[1 << 20];
    uint8_t head[16];
    if (recv(from, head, sizeof(head), MSG_WAITALL) != sizeof(head))
        return false;
    bool here = wire_get32(head) == (uint32_t)r->type;
    size_t len = wire_get32(head + 4);
    assert_true(len <= sizeof(body));
    if (here && r->when == BEFORE)
        return false;
    if (len && recv(from, body, len, MSG_WAITALL) != (ssize_t)len)
        return false;
    if (here && r->when == DAMAGED && len)
        body[len / 2] ^= 0x10;
    if (here && r->when == WITHIN) {
        send(to, head, len ? sizeof(head) : sizeof(head) / 2, MSG_NOSIGNAL);
        send(to, body, len / 2, MSG_NOSIGNAL);
        return false;
    }
    bool sent = send(to, head, sizeof(head), MSG_NOSIGNAL) == (ssize_t)sizeof(head) &&
                (!len || send(to, body, len, MSG_NOSIGNAL) == (ssize_t)len);
    return sent && !(here && r->when == BEHIND);
}

static void *relay_run(void *arg) {
    struct relay *r = arg;
    struct pollfd fds[] = {{.fd = r->a, .events = POLLIN}, {.fd = r->b, .events = POLLIN}};
    bool go = true;
    while (go && poll(fds, 2, WAIT_MS) > 0) {
        if (fds[0].revents)
            go = relay_message(r, r->a, r->b);
        if (go && fds[1].revents)
            go = relay_message(r, r->b, r->a);
    }
    close(r->a);
    close(r->b);
    return NULL;
}

// ---- a migration ----

struct rig {
    struct vm a, b;
    struct relay relay;
};

static void start_source(struct vm *vm) {
    const struct source_options opt = {.downtime_ns = 1000 * MS, .rounds = 5, .postcopy = postcopy};
    struct error err = {0};
    vm->result = source_create(vm->machine, vm->fd, "{}", &opt, &vm->source_host, &vm->source, &err);
}

static void write_pattern(struct vm *vm) {
    uint8_t page[4096];
    for (unsigned i = 0; i < PATTERNS; i++) {
        memset(page, 0x40 + (int)i, sizeof(page));
        assert_int_equal(mem_write(vm->machine->mem, GPA(PATTERN + i * 4096), page, sizeof(page)), 0);
    }
}

static void assert_pattern(struct vm *vm) {
    uint8_t page[4096], expected[4096];
    for (unsigned i = 0; i < PATTERNS; i++) {
        memset(expected, 0x40 + (int)i, sizeof(expected));
        assert_int_equal(mem_read(vm->machine->mem, GPA(PATTERN + i * 4096), page, sizeof(page)), 0);
        assert_memory_equal(page, expected, sizeof(page));
    }
}

static void migrate(struct rig *rig, enum wire_type type, enum when when) {
    int left[2], right[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, left), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, right), 0);
    atomic_store(&disks, 'a');
    vm_create(&rig->a, 'a', left[0]);
    vm_create(&rig->b, 'b', right[1]);
    rig->relay = (struct relay){.a = left[1], .b = right[0], .type = type, .when = when};
    write_pattern(&rig->a);
    pthread_create(&rig->a.thread, NULL, run_source, &rig->a);
    for (int i = 0; counter(&rig->a) == 0 && i < WAIT_MS; i++)
        nanosleep(&(struct timespec){.tv_nsec = MS}, NULL);
    assert_runs(&rig->a, true);
    pthread_create(&rig->b.thread, NULL, run_target, &rig->b);
    pthread_create(&rig->relay.thread, NULL, relay_run, &rig->relay);
    call(&rig->a, start_source);
    assert_int_equal(rig->a.result, 0);
    wait_for(&rig->a.ended, "the source");
    wait_for(&rig->b.ended, "the target");
    pthread_join(rig->relay.thread, NULL);
}

static void end(struct rig *rig) {
    vm_destroy(&rig->a);
    vm_destroy(&rig->b);
}

static enum source_stage source_stage(const struct rig *rig) {
    struct source_progress p;
    source_progress(rig->a.source, &p);
    return p.stage;
}

static enum target_stage stage_of_target(const struct rig *rig) {
    return rig->b.target ? target_stage(rig->b.target) : TARGET_FAILED;
}

// What must be true of every outcome; and what this one should be.
static void check(struct rig *rig, enum source_stage source, enum target_stage target) {
    assert_string_equal(source_stage_name(source_stage(rig)), source_stage_name(source));
    assert_string_equal(target_stage_name(stage_of_target(rig)), target_stage_name(target));
    assert_runs(&rig->a, source == SOURCE_FAILED);
    assert_runs(&rig->b, target == TARGET_RUNNING);
    if (target == TARGET_RUNNING)
        assert_pattern(&rig->b);
    assert_int_equal(atomic_load(&disks), source == SOURCE_FAILED ? 'a' : target == TARGET_RUNNING ? 'b' : 0);
}

static void resume_source(struct vm *vm) {
    struct error err = {0};
    vm->result = source_resume(vm->source, &err);
}

// Of the group: all its machines boot one kernel file.
static int setup(void **state) {
    write_kernel();
    return 0;
}

static int teardown(void **state) {
    unlink(kernel_path);
    return 0;
}

#endif
