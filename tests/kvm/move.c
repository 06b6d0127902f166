// SPDX-License-Identifier: Apache-2.0
// Runs one guest on several engines, one after the other: move SECONDS CPUS KERNEL INITRD CMDLINE ENGINE...
// After SECONDS on an engine the machine is saved into memory and goes on in a new machine on the next; on the last it
// runs until the guest powers off. The serial port is standard output, what the program does goes to standard error.
// Exit code 0: the guest has powered off.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/char_host.h"
#include "state/sections.h"
#include "vmm/board.h"

#define MEMORY (128u << 20)
#define SECOND 1000000000ull

struct vm {
    struct vm_config cfg;
    struct board *board;
    struct machine *machine;
    struct char_host *serial, *console;
    struct event_timer timer;
    struct vm *from; // where its state comes from, or NULL
    uint64_t runs_ns;
};

static void must(int ret, const struct error *err) {
    if (ret == 0)
        return;
    fprintf(stderr, "move: %s\n", err->text);
    exit(1);
}

// ---- what the loops do ----

static void stop(void *ctx) {
    struct vm *vm = ctx;

    machine_pause(vm->machine);
    machine_end(vm->machine, MACHINE_STOPPED);
}

static void copy_ram(struct vm *to, struct vm *from, struct error *err) {
    unsigned count;
    const struct mem_slot *slots = mem_slots(from->machine->mem, &count);

    for (unsigned i = 0; i < count; i++)
        if (!slots[i].rom)
            must(mem_write(to->machine->mem, GPA(slots[i].gpa), slots[i].hva, slots[i].size), err);
}

static void take_over(void *ctx) {
    struct vm *vm = ctx, *from = vm->from;
    struct state_writer w = {0};
    struct error err = {0};

    copy_ram(vm, from, &err);
    sections_begin(&w);
    must(sections_save(&w, &from->machine->components, &err), &err);
    must(sections_end(&w, &err), &err);
    must(sections_restore(w.buf, w.len, &vm->machine->components, &err), &err);
    fprintf(stderr, "move: %zu bytes of state go from %s to %s\n", w.len, config_engine_name(from->cfg.engine),
            config_engine_name(vm->cfg.engine));
    state_writer_free(&w);
    machine_resume(vm->machine);
    event_timer_init(&vm->timer, vm->machine->loop, stop, vm);
    event_timer_arm(&vm->timer, event_now_ns() + vm->runs_ns);
}

// ---- machines ----

static struct vm *create(const char *engine, unsigned cpus, char **files, struct error *err) {
    struct vm *vm = calloc(1, sizeof(*vm));
    struct char_stdio_options out = {0};

    if (!vm)
        exit(1);
    config_init(&vm->cfg);
    vm->cfg.engine = strcmp(engine, "kvm") == 0 ? CONFIG_ENGINE_KVM : CONFIG_ENGINE_XLATE;
    vm->cfg.memory = MEMORY;
    vm->cfg.cpus = cpus;
    vm->cfg.kernel = strdup(files[0]);
    vm->cfg.initrd = strdup(files[1]);
    vm->cfg.cmdline = strdup(files[2]);
    must(config_validate(&vm->cfg, err), err);
    must(board_create(&vm->cfg, &vm->board, err), err);
    vm->machine = board_machine(vm->board);
    must(char_stdio_open(vm->machine->loop, &out, &vm->serial, err), err);
    must(char_null_open(&vm->console, err), err);
    must(board_serial_attach(vm->board, &vm->serial->dev, err), err);
    must(board_console_attach(vm->board, &vm->console->dev, err), err);
    must(machine_start_threads(vm->machine, err), err);
    return vm;
}

static void destroy(struct vm *vm) {
    event_timer_cancel(&vm->timer);
    char_host_close(vm->serial);
    char_host_close(vm->console);
    board_destroy(vm->board);
    char_host_destroy(vm->serial);
    char_host_destroy(vm->console);
    config_destroy(&vm->cfg);
    free(vm);
}

static enum machine_end run(struct vm *vm, struct vm *from, struct error *err) {
    vm->from = from;
    event_timer_init(&vm->timer, vm->machine->loop, from ? take_over : stop, vm);
    event_timer_arm(&vm->timer, event_now_ns() + (from ? 0 : vm->runs_ns));
    return from ? machine_run_incoming(vm->machine) : machine_run(vm->machine, err);
}

int main(int argc, char **argv) {
    struct vm *vm = NULL, *from = NULL;
    enum machine_end end = MACHINE_STOPPED;
    struct error err = {0};

    for (int i = 6; i < argc && end == MACHINE_STOPPED; i++) {
        vm = create(argv[i], (unsigned)atoi(argv[2]), argv + 3, &err);
        vm->runs_ns = i + 1 < argc ? (uint64_t)atoi(argv[1]) * SECOND : 3600 * SECOND;
        end = run(vm, from, &err);
        if (from)
            destroy(from);
        from = vm;
    }
    if (from)
        destroy(from);
    fprintf(stderr, "move: end %d %s\n", (int)end, err.text);
    return end == MACHINE_POWEROFF ? 0 : 1;
}
