// SPDX-License-Identifier: Apache-2.0
// `cicada stop NAME`: ends a VM at once and cleanly, asks its guest to shut down, or kills it.
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/remote.h"
#include "vmm/run.h"

#define FORCE_PATIENCE_MS 2000

struct stop_target {
    const char *name;
    bool force, acpi;
};

static int set_force(void *t, const char *value, int index, struct error *err) {
    ((struct stop_target *)t)->force = true;
    return 0;
}

static int set_acpi(void *t, const char *value, int index, struct error *err) {
    ((struct stop_target *)t)->acpi = true;
    return 0;
}

static int set_name(void *t, const char *value, struct error *err) {
    return remote_set_name(&((struct stop_target *)t)->name, value, err);
}

static const struct option_def defs[] = {
    {"acpi", .set = set_acpi, .help = "press the power button and return: the guest decides"},
    {"force", 'f', .set = set_force, .help = "kill the VM's process where it does not end in 2 seconds"},
};
static const struct option_table options = {.defs = defs,
                                            .count = 2,
                                            .positional = "NAME",
                                            .positional_complete = OPTION_COMPLETE_VM,
                                            .set_positional = set_name};

// Waits until the VM has given its lock back.
static int wait_gone(const struct instance *inst, int timeout_ms) {
    for (int waited = 0; waited < timeout_ms; waited += 10) {
        if (instance_check(inst) == -ENOENT)
            return 0;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    return -ETIMEDOUT;
}

static int ask(const struct stop_target *t, struct control_client *c, int timeout_ms, struct error *err) {
    json_t *result = NULL, *request = json_pack("{s:s, s:s}", "action", "stop", "how", t->acpi ? "acpi" : "now");
    int ret = control_client_call(c, request, timeout_ms, &result, err);
    json_decref(request);
    json_decref(result);
    return ret;
}

static int kill_process(const struct instance *inst, pid_t pid, struct error *err) {
    if (pid <= 0 || kill(pid, SIGKILL) != 0)
        return error_set(err, pid > 0 ? -errno : -ESRCH, "kill VM '%s' (PID %d)", inst->name, (int)pid);
    return wait_gone(inst, REMOTE_TIMEOUT_MS);
}

static int stop(const struct stop_target *t, struct error *err) {
    struct instance inst;
    struct control_client c = {.fd = -1};
    pid_t pid = 0;
    int timeout = t->force ? FORCE_PATIENCE_MS : REMOTE_TIMEOUT_MS;
    if (t->force && t->acpi)
        return error_set(err, -EINVAL, "--force and --acpi exclude each other");
    int ret = remote_open(t->name, &inst, &pid, &c, err);
    bool alive = pid >= 0 && ret != -EINVAL && t->name;
    if (ret == 0)
        ret = ask(t, &c, timeout, err);
    if (ret == 0 && !t->acpi) {
        ret = wait_gone(&inst, timeout);
        if (ret)
            error_set(err, ret, "VM '%s' has not ended (--force kills it)", inst.name);
    }
    control_client_close(&c);
    return ret && t->force && alive ? kill_process(&inst, pid, err) : ret;
}

static int run(const struct cli_command *cmd, int argc, char *const *argv) {
    struct stop_target target = {0};
    struct error err = {0};
    int code = cli_parse(cmd, argc, argv, &target);
    if (code != CLI_GO_ON)
        return code;
    int ret = stop(&target, &err);
    if (ret == 0)
        return 0;
    return cli_fail(&err, ret == -ETIMEDOUT ? RUN_HOST : run_error_code(ret));
}

const struct cli_command cmd_stop = {
    .name = "stop",
    .summary = "End a running virtual machine",
    .usage = "NAME [--acpi | --force]",
    .options = &options,
    .run = run,
};
