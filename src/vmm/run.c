// SPDX-License-Identifier: Apache-2.0
// The four phases of a VM's process: parse (the caller did), open everything, seal, run. Order matters:
// signals are blocked before the first thread, privileges dropped before the vCPU threads, the system call filter
// set after them; what the event loop watches is taken off it before the machine destroys it; the host side of the
// console outlives the device on it.
#define LOG_UNIT "run"
#include "vmm/run.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backend/char_host.h"
#include "debug/gdb_server.h"
#include "debug/profile.h"
#include "sandbox/seal.h"
#include "state/migrate/target.h"
#include "util/log.h"
#include "vmm/board.h"
#include "vmm/control.h"
#include "vmm/instance.h"
#include "vmm/migrate_control.h"
#include "vmm/migrate_manifest.h"
#include "vmm/restore.h"
#include "vmm/signals.h"

struct run {
    struct vm_config *cfg;
    const struct run_terminal *term;
    struct instance instance;
    struct board *board;
    struct machine *machine;
    struct char_host *serial, *console; // console: of virtio, NULL where there is none
    struct snapshot_control *snapshot;
    struct migrate_control *migrate;
    const struct run_incoming *in; // NULL: powered on or restored here
    struct restore *restore;       // NULL: not from a snapshot
    struct control_target target;
    struct control_server *server;
    struct gdb_server *gdb; // NULL without --gdb
    FILE *profile;          // NULL without --profile
    struct signals signals;
};

int run_exit_code(enum machine_end end, int debug_exit, int end_signal) {
    switch (end) {
    case MACHINE_POWEROFF:
    case MACHINE_STOPPED: return RUN_POWEROFF;
    case MACHINE_HOST_FAILURE: return RUN_HOST;
    case MACHINE_CRASH: return RUN_CRASH;
    case MACHINE_RESET: return RUN_RESET;
    case MACHINE_SUSPENDED: return RUN_SUSPENDED;
    case MACHINE_DEBUG_EXIT:
        // 64 alone means success; a V that would look like it must not.
        return debug_exit != 0 && (debug_exit & 63) == 0 ? 127 : 64 + (debug_exit & 63);
    case MACHINE_SIGNAL: return 128 + end_signal;
    case MACHINE_KILLED: return RUN_KILLED;
    case MACHINE_RUNNING:
    case MACHINE_INTERNAL: break;
    }
    return RUN_INTERNAL;
}

int run_error_code(int negative_errno) {
    static const int host[] = {ENOMEM, EMFILE, ENFILE, EAGAIN, EIO, ENOSYS, EPERM, EOVERFLOW, ENOBUFS, EINTR};
    for (unsigned i = 0; i < ARRAY_LEN(host); i++)
        if (negative_errno == -host[i])
            return RUN_HOST;
    return RUN_CALLER;
}

// ---- the console's keys ----

static const char key_help[] = "\r\n"
                               "Ctrl-A x       end the VM at once (exit code 130)\r\n"
                               "Ctrl-A h       this help\r\n"
                               "Ctrl-A Ctrl-A  send Ctrl-A to the guest\r\n";

static void console_key(void *ctx, uint8_t key) {
    struct run *r = ctx;
    if (key == 'x' || key == 'X')
        machine_end(r->machine, MACHINE_KILLED);
    else if (write(STDERR_FILENO, key_help, sizeof(key_help) - 1) < 0)
        log_debug("help could not be written");
}

// ---- open ----

static int open_char(struct run *r, const struct char_config *c, struct char_host **host, struct error *err) {
    struct event_loop *loop = r->machine->loop;
    struct char_stdio_options opt = {
        .input = r->term->input, .escape = r->term->interactive, .command = console_key, .ctx = r};
    switch (c->kind) {
    case CONFIG_CHAR_STDIO: return char_stdio_open(loop, &opt, host, err);
    case CONFIG_CHAR_FILE: return char_file_open(c->path, host, err);
    case CONFIG_CHAR_UNIX: return char_unix_open(loop, c->path, host, err);
    case CONFIG_CHAR_NULL:
    case CONFIG_CHAR_NONE: break;
    }
    return char_null_open(host, err);
}

static int open_consoles(struct run *r, struct error *err) {
    int ret = open_char(r, &r->cfg->serial, &r->serial, err);
    if (ret == 0)
        ret = board_serial_attach(r->board, &r->serial->dev, err);
    if (ret || r->cfg->console.kind == CONFIG_CHAR_NONE)
        return ret;
    ret = open_char(r, &r->cfg->console, &r->console, err);
    return ret ? ret : board_console_attach(r->board, &r->console->dev, err);
}

static void press_power_button(void *ctx) {
    board_power_button(ctx);
}

static void peer_gone(const struct control_target *target, const struct control_peer *peer) {
    snapshot_control_peer_gone(target->snapshot, peer);
}

static int open_control(struct run *r, struct error *err) {
    int ret = snapshot_control_create(r->board, r->cfg, &r->snapshot, err);
    if (ret == 0)
        ret = migrate_control_create(r->board, r->cfg, &r->migrate, err);
    if (ret)
        return ret;
    r->target = (struct control_target){.machine = r->machine,
                                        .config = r->cfg,
                                        .power_button = press_power_button,
                                        .ctx = r->board,
                                        .engine_switch = board_engine_switch(r->board),
                                        .snapshot = r->snapshot,
                                        .migrate = r->migrate,
                                        .peer_gone = peer_gone};
    control_init();
    return control_server_create(r->machine->loop, &r->instance, &r->target, &r->server, err);
}

static int open_gdb(struct run *r, struct error *err) {
    const struct gdb_config *c = &r->cfg->gdb;
    struct gdb_options opt = {.path = c->path, .port = c->port, .wait = c->wait};
    return c->enabled ? gdb_server_create(r->machine, &opt, &r->gdb, err) : 0;
}

static int open_profile(struct run *r, struct error *err) {
    const char *path = r->cfg->profile;
    r->profile = path ? fopen(path, "we") : NULL;
    return path && !r->profile ? error_set(err, -errno, "--profile: create '%s'", path) : 0;
}

// A disk that is full is told at the end only; the exit code is the guest's.
static void close_profile(struct run *r, bool write) {
    if (!r->profile)
        return;
    int ret = write ? profile_write(r->machine, r->profile, stderr) : 0;
    if (fclose(r->profile) && !ret)
        ret = -errno;
    if (ret)
        fprintf(stderr, "cicada: --profile: write '%s': %s\n", r->cfg->profile, strerror(-ret));
    r->profile = NULL;
}

// A page will not come any more, and threads may wait for it inside the kernel: there is nobody to be asked to end.
static void memory_lost(void *ctx, const char *why) {
    struct run *r = ctx;
    if (r->term->interactive)
        r->term->leave();
    fprintf(stderr, "cicada: the guest of '%s' is lost: %s\n", r->cfg->name, why);
    instance_release(&r->instance);
    _exit(RUN_HOST);
}

static int open_all(struct run *r, struct error *err) {
    int ret = board_create(r->cfg, &r->board, err);
    if (ret)
        return ret;
    r->machine = board_machine(r->board);
    r->machine->no_reboot = r->cfg->no_reboot;
    ret = open_consoles(r, err);
    if (ret == 0)
        ret = signals_watch(&r->signals, r->machine, r->term->resumed, err);
    if (ret == 0)
        ret = open_control(r, err);
    if (ret == 0)
        ret = open_gdb(r, err);
    if (ret == 0)
        ret = open_profile(r, err);
    if (ret == 0 && r->in)
        ret = migrate_manifest_check(r->in->manifest, r->machine, err);
    if (ret == 0 && r->in)
        ret = migrate_control_prepare(r->migrate, r->in->manifest, memory_lost, r, err);
    if (ret == 0 && r->restore)
        ret = restore_prepare(r->restore, r->machine, r->snapshot, err);
    return ret;
}

// ---- seal ----

static int seal_all(struct run *r, struct error *err) {
    struct seal_options opt = {.network = r->cfg->nnets > 0, .kvm = engine_find("kvm")};
    int ret = seal_privileges(err);
    if (ret == 0)
        ret = machine_start_threads(r->machine, err);
    if (ret == 0)
        ret = snapshot_control_start(r->snapshot, err);
    if (ret == 0)
        ret = migrate_control_start(r->migrate, err);
    if (ret == 0 && r->restore)
        ret = restore_start(r->restore, memory_lost, r, err);
    return ret ? ret : seal_syscalls(&opt, err);
}

// ---- run, and all the way back ----

static void close_consoles(struct run *r) {
    char_host_close(r->serial);
    char_host_close(r->console);
}

static void close_all(struct run *r) {
    restore_stop(r->restore);
    close_profile(r, false);
    gdb_server_destroy(r->gdb);
    control_server_destroy(r->server);
    snapshot_control_destroy(r->snapshot);
    migrate_control_destroy(r->migrate);
    signals_unwatch(&r->signals);
    close_consoles(r);
    board_destroy(r->board);
    char_host_destroy(r->serial);
    char_host_destroy(r->console);
    instance_release(&r->instance);
}

static void tell_end(enum machine_end end, const struct machine *m) {
    switch (end) {
    case MACHINE_CRASH: fprintf(stderr, "cicada: the guest crashed\n"); break;
    case MACHINE_RESET: fprintf(stderr, "cicada: the guest asked for a reset (--no-reboot)\n"); break;
    case MACHINE_INTERNAL:
        fprintf(stderr, "cicada: internal error; the last log lines:\n");
        log_dump_ring(STDERR_FILENO);
        break;
    case MACHINE_SIGNAL:
        fprintf(stderr, "cicada: ended by signal %d (%s)\n", m->end_signal, sigabbrev_np(m->end_signal));
        break;
    case MACHINE_KILLED: fprintf(stderr, "cicada: ended by Ctrl-A x\n"); break;
    default: break;
    }
}

// What the engine counted, for whoever asked for that much log.
static void log_counters(struct machine *m) {
    struct engine_stat stat[64];
    unsigned n = m->engine_ops->stats ? m->engine_ops->stats(m->engine, stat, ARRAY_LEN(stat)) : 0;
    for (unsigned i = 0; i < n; i++)
        log_info("%s: %" PRIu64, stat[i].name, stat[i].value);
}

static enum machine_end run_incoming(struct run *r, struct error *err) {
    int ret = migrate_control_receive(r->migrate, r->in->wire, err);
    if (ret)
        return MACHINE_HOST_FAILURE;
    enum machine_end end = machine_run_incoming(r->machine);
    const char *why = migrate_control_failure(r->migrate);
    if (end == MACHINE_HOST_FAILURE && *why)
        error_set(err, -EINVAL, "receive '%s': %s", r->cfg->name, why);
    return end;
}

static int run_machine(struct run *r, struct error *err) {
    bool stdio = r->cfg->serial.kind == CONFIG_CHAR_STDIO || r->cfg->console.kind == CONFIG_CHAR_STDIO;
    bool console = stdio && r->term->interactive;
    if (console)
        r->term->enter();
    enum machine_end end = r->in        ? run_incoming(r, err)
                           : r->restore ? restore_run(r->restore, r->machine, err)
                                        : machine_run(r->machine, err);
    log_counters(r->machine);
    close_consoles(r); // their last lines come before ours
    if (console)
        r->term->leave();
    if (err->code) // it did not even start: a kernel that cannot be booted is the caller's
        return r->in ? RUN_HOST : run_error_code(err->code);
    close_profile(r, true);
    tell_end(end, r->machine);
    int code = run_exit_code(end, r->machine->debug_exit, r->machine->end_signal);
    gdb_server_exited(r->gdb, code);
    return code;
}

static int run(struct run *r, struct error *err) {
    log_set_level(config_log_level(r->cfg));
    if (config_validate(r->cfg, err) || config_check_files(r->cfg, err) ||
        (r->restore && restore_check_disks(r->restore, r->cfg, err)))
        return RUN_CALLER;
    signals_block();
    if (instance_claim(r->cfg->name, &r->instance, err))
        return run_error_code(err->code);
    int code, ret = open_all(r, err);
    if (ret == 0)
        ret = seal_all(r, err);
    code = ret ? run_error_code(ret) : run_machine(r, err);
    close_all(r);
    return code;
}

int run_vm(struct vm_config *cfg, const struct run_terminal *term, struct error *err) {
    struct run r = {.cfg = cfg, .term = term, .instance.lock_fd = -1};
    return run(&r, err);
}

int run_vm_restored(struct vm_config *cfg, const struct run_terminal *term, struct restore *restore,
                    struct error *err) {
    struct run r = {.cfg = cfg, .term = term, .instance.lock_fd = -1, .restore = restore};
    return run(&r, err);
}

int run_vm_incoming(struct vm_config *cfg, const struct run_terminal *term, const struct run_incoming *in,
                    struct error *err) {
    struct run r = {.cfg = cfg, .term = term, .instance.lock_fd = -1, .in = in};
    cfg->incoming = true;
    int code = run(&r, err);
    target_refuse(in->wire, err->text); // closed already, unless it could not be built
    return code;
}
