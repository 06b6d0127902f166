// SPDX-License-Identifier: Apache-2.0
// The two state machines of a migration, each with a machine and a guest that counts, and between them a relay that
// breaks the connection at a chosen message: before it, in the middle of it, behind it. Whatever is cut where, the
// guest never runs in two places, and it is lost nowhere.
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
#include "state/migrate/precopy.h"
#include "state/migrate/source.h"
#include "state/migrate/target.h"
#include "temp.h"
#include "vmm/board.h"

#define MEMORY    (16u << 20)
#define LOAD_ADDR 0x100000u
#define COUNTER   0x200000u
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
    atomic_bool ended; // a last stage is reached
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
    assert_int_equal(char_null_open(&vm->serial, &err), 0);
    assert_int_equal(board_serial_attach(vm->board, &vm->serial->dev, &err), 0);
    assert_int_equal(machine_start_threads(vm->machine, &err), 0);
    vm->source_host = (struct source_host){.flush = flush, .give = give, .take = take, .ended = on_end, .ctx = vm};
    vm->target_host = (struct target_host){.take = take, .ended = on_end, .ctx = vm};
}

static void vm_destroy(struct vm *vm) {
    machine_end(vm->machine, MACHINE_STOPPED);
    pthread_join(vm->thread, NULL);
    source_destroy(vm->source);
    target_destroy(vm->target);
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

static bool runs(struct vm *vm) {
    uint32_t before = counter(vm);
    for (int i = 0; i < 100; i++) {
        nanosleep(&(struct timespec){.tv_nsec = MS}, NULL);
        if (counter(vm) != before)
            return true;
    }
    return false;
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
    const struct source_options opt = {.downtime_ns = 1000 * MS, .rounds = 5};
    struct error err = {0};
    vm->result = source_create(vm->machine, vm->fd, "{}", &opt, &vm->source_host, &vm->source, &err);
}

static void migrate(struct rig *rig, enum wire_type type, enum when when) {
    int left[2], right[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, left), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, right), 0);
    atomic_store(&disks, 'a');
    vm_create(&rig->a, 'a', left[0]);
    vm_create(&rig->b, 'b', right[1]);
    rig->relay = (struct relay){.a = left[1], .b = right[0], .type = type, .when = when};
    pthread_create(&rig->a.thread, NULL, run_source, &rig->a);
    for (int i = 0; counter(&rig->a) == 0 && i < WAIT_MS; i++)
        nanosleep(&(struct timespec){.tv_nsec = MS}, NULL);
    assert_true(runs(&rig->a));
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
    assert_int_equal(runs(&rig->a), source == SOURCE_FAILED);
    assert_int_equal(runs(&rig->b), target == TARGET_RUNNING);
    assert_int_equal(atomic_load(&disks), source == SOURCE_FAILED ? 'a' : target == TARGET_RUNNING ? 'b' : 0);
}

static void resume_source(struct vm *vm) {
    struct error err = {0};
    vm->result = source_resume(vm->source, &err);
}

static void resume_target(struct vm *vm) {
    struct error err = {0};
    vm->result = target_resume(vm->target, &err);
}

// ---- tests ----

static void test_moves(void **state) {
    struct rig rig;
    struct source_progress p;
    migrate(&rig, WIRE_HELLO, NEVER);
    check(&rig, SOURCE_MOVED, TARGET_RUNNING);
    assert_true(counter(&rig.b) - counter(&rig.a) < 1u << 31); // it went on from there
    source_progress(rig.a.source, &p);
    assert_true(p.pages > 0 && p.zeroes + p.pages < MEMORY / 4096 && p.downtime_ns > 0);
    call(&rig.a, resume_source);
    assert_int_equal(rig.a.result, -EINVAL);
    assert_false(runs(&rig.a));
    end(&rig);
}

static void test_cut_before_the_target_has_all(void **state) {
    static const struct {
        enum wire_type type;
        enum when when;
    } cuts[] = {{WIRE_MANIFEST, BEFORE}, {WIRE_MANIFEST, WITHIN}, {WIRE_MANIFEST, BEHIND}, {WIRE_ACCEPT, BEFORE},
                {WIRE_ACCEPT, BEHIND},   {WIRE_PAGES, BEFORE},    {WIRE_PAGES, WITHIN},    {WIRE_PAGES, BEHIND},
                {WIRE_PAGES, DAMAGED},   {WIRE_STATE, BEFORE},    {WIRE_STATE, WITHIN},    {WIRE_STATE, DAMAGED}};
    for (unsigned i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        struct rig rig;
        migrate(&rig, cuts[i].type, cuts[i].when);
        check(&rig, SOURCE_FAILED, TARGET_FAILED);
        end(&rig);
    }
}

// The target has everything but must not run: the source does.
static void test_cut_before_the_commit(void **state) {
    static const struct {
        enum wire_type type;
        enum when when;
    } cuts[] = {{WIRE_STATE, BEHIND}, {WIRE_LOADED, BEFORE}, {WIRE_LOADED, WITHIN}};
    for (unsigned i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        struct rig rig;
        migrate(&rig, cuts[i].type, cuts[i].when);
        check(&rig, SOURCE_FAILED, TARGET_DOUBT);
        call(&rig.b, resume_target); // a person who is wrong: the disks say so
        assert_int_equal(rig.b.result, -EBUSY);
        assert_false(runs(&rig.b));
        end(&rig);
    }
}

// The source has given it up and the target has not heard of it: nobody runs until a person decides, and then one does.
static void test_lost_commit(void **state) {
    static const struct {
        enum wire_type type;
        enum when when;
    } cuts[] = {{WIRE_COMMIT, BEFORE}, {WIRE_COMMIT, WITHIN}};
    for (unsigned i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        struct rig rig;
        migrate(&rig, cuts[i].type, cuts[i].when);
        check(&rig, SOURCE_DOUBT, TARGET_DOUBT);
        struct vm *first = i ? &rig.a : &rig.b, *second = i ? &rig.b : &rig.a;
        call(first, i ? resume_source : resume_target);
        assert_int_equal(first->result, 0);
        assert_true(runs(first));
        call(second, i ? resume_target : resume_source);
        assert_int_equal(second->result, -EBUSY);
        assert_false(runs(second));
        end(&rig);
    }
}

static void test_cut_behind_the_commit(void **state) {
    static const struct {
        enum wire_type type;
        enum when when;
    } cuts[] = {{WIRE_COMMIT, BEHIND}, {WIRE_RUNNING, BEFORE}, {WIRE_RUNNING, WITHIN}};
    for (unsigned i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        struct rig rig;
        migrate(&rig, cuts[i].type, cuts[i].when);
        check(&rig, SOURCE_DOUBT, TARGET_RUNNING);
        call(&rig.a, resume_source);
        assert_int_equal(rig.a.result, -EBUSY);
        assert_false(runs(&rig.a));
        end(&rig);
    }
}

// ---- pages that a hostile source sends ----

static int receive_pages(struct precopy_sink *sink, enum wire_type type, uint32_t block, uint32_t count, uint64_t first,
                         uint64_t n, size_t len) {
    static uint8_t body[8 + 16 + 4096];
    struct wire_message m = {.type = type, .body = body, .len = len};
    struct error err = {0};
    wire_set32(body, block);
    wire_set32(body + 4, count);
    wire_set64(body + 8, first);
    wire_set64(body + 16, n);
    int ret = precopy_receive(sink, &m, &err);
    assert_int_equal(ret, err.code);
    return ret;
}

static void test_pages_outside_of_memory(void **state) {
    struct vm vm;
    struct precopy_sink sink;
    struct error err = {0};
    uint64_t pages = MEMORY / 4096;
    const size_t one = 8 + 8 + 4096, run = 8 + 16;
    vm_create(&vm, 'a', -1);
    assert_int_equal(precopy_sink_create(vm.machine, &sink, &err), 0);
    assert_int_equal(receive_pages(&sink, WIRE_PAGES, 0, 1, pages - 1, 0, one), 0);
    assert_int_equal(receive_pages(&sink, WIRE_PAGES, 0, 1, pages, 0, one), -EINVAL);
    assert_int_equal(receive_pages(&sink, WIRE_PAGES, 0, 1, UINT64_MAX, 0, one), -EINVAL);
    assert_int_equal(receive_pages(&sink, WIRE_PAGES, 1, 1, 0, 0, one), -EINVAL);
    assert_int_equal(receive_pages(&sink, WIRE_PAGES, UINT32_MAX, 1, 0, 0, one), -EINVAL);
    assert_int_equal(receive_pages(&sink, WIRE_PAGES, 0, 2, 0, 0, one), -EINVAL);
    assert_int_equal(receive_pages(&sink, WIRE_PAGES, 0, UINT32_MAX, 0, 0, one), -EINVAL);
    assert_int_equal(receive_pages(&sink, WIRE_PAGES, 0, 1, 0, 0, 4), -EINVAL);
    assert_int_equal(receive_pages(&sink, WIRE_ZEROES, 0, 1, 0, pages, run), 0);
    assert_int_equal(receive_pages(&sink, WIRE_ZEROES, 0, 1, 1, pages, run), -EINVAL);
    assert_int_equal(receive_pages(&sink, WIRE_ZEROES, 0, 1, 1, UINT64_MAX, run), -EINVAL);
    assert_int_equal(receive_pages(&sink, WIRE_ZEROES, 0, 1, pages, 0, run), -EINVAL);
    precopy_sink_destroy(&sink);
    pthread_create(&vm.thread, NULL, run_source, &vm);
    vm_destroy(&vm);
}

// A page that became zero behind the first round is zero at the target.
static void test_zero_page_after_content(void **state) {
    struct vm vm;
    struct precopy_sink sink;
    struct error err = {0};
    uint64_t word = 1;
    vm_create(&vm, 'a', -1);
    assert_int_equal(precopy_sink_create(vm.machine, &sink, &err), 0);
    assert_int_equal(receive_pages(&sink, WIRE_PAGES, 0, 1, 7, 0x1122334455667788, 8 + 8 + 4096), 0);
    assert_int_equal(mem_read(vm.machine->mem, GPA(7 * 4096), &word, sizeof(word)), 0);
    assert_true(word == 0x1122334455667788);
    assert_int_equal(receive_pages(&sink, WIRE_ZEROES, 0, 1, 6, 3, 8 + 16), 0);
    assert_int_equal(mem_read(vm.machine->mem, GPA(7 * 4096), &word, sizeof(word)), 0);
    assert_true(word == 0);
    precopy_sink_destroy(&sink);
    pthread_create(&vm.thread, NULL, run_source, &vm);
    vm_destroy(&vm);
}

static int setup(void **state) {
    write_kernel();
    return 0;
}

static int teardown(void **state) {
    unlink(kernel_path);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moves),
        cmocka_unit_test(test_cut_before_the_target_has_all),
        cmocka_unit_test(test_cut_before_the_commit),
        cmocka_unit_test(test_lost_commit),
        cmocka_unit_test(test_cut_behind_the_commit),
        cmocka_unit_test(test_pages_outside_of_memory),
        cmocka_unit_test(test_zero_page_after_content),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
