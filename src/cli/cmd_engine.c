// SPDX-License-Identifier: Apache-2.0
// `cicada engine NAME kvm|xlate`: changes the engine of a running VM in place. The VM is sealed, so what the engine
// needs opened comes from here.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/remote.h"
#include "core/engine.h"
#include "vmm/run.h"

struct engine_target {
    const char *name;
    const char *engine;
};

static int set_positional(void *t, const char *value, struct error *err) {
    struct engine_target *target = t;
    if (!target->name)
        return remote_set_name(&target->name, value, err);
    if (target->engine)
        return error_set(err, -EINVAL, "unexpected argument '%.80s': NAME and ENGINE are enough", value);
    if (strcmp(value, "kvm") != 0 && strcmp(value, "xlate") != 0)
        return error_set(err, -EINVAL, "'%.80s' is no engine: kvm or xlate", value);
    target->engine = value;
    return 0;
}

static const struct option_table options = {.positional = "NAME kvm|xlate",
                                            .positional_complete = OPTION_COMPLETE_VM,
                                            .positional_choices = "kvm|xlate",
                                            .set_positional = set_positional};

// Descriptor of what the engine needs, or -1 where it needs nothing.
static int open_device(const struct engine_target *t, int *device, struct error *err) {
    const struct engine_ops *ops = engine_find(t->engine);
    if (!ops)
        return error_set(err, -EINVAL, "the engine %s is not built", t->engine);
    *device = ops->open_device ? ops->open_device(err) : -1;
    return ops->open_device && *device < 0 ? *device : 0;
}

static int change(const struct engine_target *t, struct control_client *c, json_t **result, struct error *err) {
    int device, ret = open_device(t, &device, err);
    if (ret)
        return ret;
    json_t *request = json_pack("{s:s, s:s}", "action", "engine", "engine", t->engine);
    ret = control_client_call_fds(c, request, &device, device >= 0, REMOTE_TIMEOUT_MS, result, err);
    json_decref(request);
    if (device >= 0)
        close(device);
    return ret;
}

static void print_result(const struct engine_target *t, const json_t *result) {
    json_int_t us = json_integer_value(json_object_get(result, "pause_us"));
    const char *from = json_string_value(json_object_get(result, "from"));
    printf("%s runs on %s instead of %s: stood for %lld.%lld ms\n", t->name, t->engine, from ? from : "?",
           (long long)us / 1000, (long long)us / 100 % 10);
}

static int run(const struct cli_command *cmd, int argc, char *const *argv) {
    struct engine_target t = {0};
    struct instance inst;
    struct control_client c = {.fd = -1};
    struct error err = {0};
    json_t *result = NULL;
    pid_t pid;
    int code = cli_parse(cmd, argc, argv, &t);
    if (code != CLI_GO_ON)
        return code;
    int ret = remote_open(t.name, &inst, &pid, &c, &err);
    if (ret == 0 && !t.engine)
        ret = error_set(&err, -EINVAL, "engine: which one? kvm or xlate");
    if (ret == 0)
        ret = change(&t, &c, &result, &err);
    if (ret == 0)
        print_result(&t, result);
    json_decref(result);
    control_client_close(&c);
    return ret ? cli_fail(&err, run_error_code(ret)) : cli_finish_output();
}

const struct cli_command cmd_engine = {
    .name = "engine",
    .summary = "Change the engine of a running virtual machine in place",
    .usage = "NAME kvm|xlate",
    .options = &options,
    .run = run,
};
