// SPDX-License-Identifier: Apache-2.0
// `cicada ps`: the VMs that run, as a table or as JSON. A VM that does not answer in time is shown as such.
#include <string.h>

#include "cli/cli.h"
#include "cli/remote.h"
#include "vmm/config_value.h"
#include "vmm/run.h"

#define PS_TIMEOUT_MS 2000

static int set_json(void *t, const char *value, int index, struct error *err) {
    *(bool *)t = true;
    return 0;
}

static const struct option_def defs[] = {
    {"json", .set = set_json, .help = "print a JSON array of objects instead of a table"},
};
static const struct option_table options = {.defs = defs, .count = 1};

// What the VM tells of itself, or the little that is known without it.
static json_t *ask(const struct instance *inst, pid_t pid) {
    struct control_client c;
    struct error err;
    json_t *info = NULL;
    if (control_client_open(inst, &c, &err) == 0) {
        json_t *request = json_pack("{s:s}", "action", "info");
        if (control_client_call(&c, request, PS_TIMEOUT_MS, &info, &err) != 0)
            info = NULL;
        json_decref(request);
        control_client_close(&c);
    }
    if (!json_is_object(info)) {
        json_decref(info);
        info = json_pack("{s:s, s:i, s:s}", "name", inst->name, "pid", (int)pid, "state", "unresponsive");
    }
    return info;
}

static int collect(void *list, const struct instance *inst, pid_t pid) {
    return json_array_append_new(list, ask(inst, pid));
}

static const char *text(json_t *vm, const char *key) {
    const char *s = json_string_value(json_object_get(vm, key));
    return s ? s : "-";
}

static void print_row(json_t *vm) {
    char memory[32] = "-", uptime[32] = "-";
    json_int_t bytes = json_integer_value(json_object_get(vm, "memory"));
    json_t *ns = json_object_get(vm, "uptime_ns");
    if (bytes > 0)
        value_format_size((uint64_t)bytes, memory, sizeof(memory));
    if (ns) {
        unsigned long s = (unsigned long)(json_integer_value(ns) / 1000000000);
        snprintf(uptime, sizeof(uptime), "%lu:%02lu:%02lu", s / 3600, s / 60 % 60, s % 60);
    }
    printf("%-20s %7d %-12s %4d %8s %10s %-6s %s\n", text(vm, "name"),
           (int)json_integer_value(json_object_get(vm, "pid")), text(vm, "state"),
           (int)json_integer_value(json_object_get(vm, "cpus")), memory, uptime, text(vm, "engine"),
           text(vm, "kernel"));
}

static void print_table(json_t *list) {
    size_t i;
    json_t *vm;
    printf("%-20s %7s %-12s %4s %8s %10s %-6s %s\n", "NAME", "PID", "STATE", "CPUS", "MEMORY", "UPTIME", "ENGINE",
           "KERNEL");
    json_array_foreach(list, i, vm) print_row(vm);
}

static int run(const struct cli_command *cmd, int argc, char *const *argv) {
    bool json = false;
    struct error err = {0};
    int code = cli_parse(cmd, argc, argv, &json);
    if (code != CLI_GO_ON)
        return code;
    json_t *list = json_array();
    int ret = instance_list(collect, list, &err);
    if (ret == 0 && json) {
        json_dumpf(list, stdout, JSON_INDENT(2));
        putchar('\n');
    } else if (ret == 0) {
        print_table(list);
    }
    json_decref(list);
    return ret ? cli_fail(&err, run_error_code(ret)) : cli_finish_output();
}

const struct cli_command cmd_ps = {
    .name = "ps",
    .summary = "List the running virtual machines",
    .usage = "[--json]",
    .options = &options,
    .run = run,
};
