// SPDX-License-Identifier: Apache-2.0
// Configuration to and from JSON; see the header.
#include "vmm/config_json.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPTIONS_MAX 128 // of one object

// ---- writing ----

// A file name as --disk wants it: commas doubled.
static char *escape_commas(const char *path) {
    char *out = malloc(2 * strlen(path) + 1), *p = out;
    for (; out && *path; path++) {
        *p++ = *path;
        if (*path == ',')
            *p++ = ',';
    }
    if (out)
        *p = 0;
    return out;
}

// A string to free, or NULL. A name that cannot be resolved stays as it is: the file may be gone by now.
static char *absolute(const char *path) {
    char *full = realpath(path, NULL);
    return full ? full : strdup(path);
}

static bool put(json_t *object, const char *name, const char *value) {
    return json_object_set_new(object, name, json_string(value)) == 0;
}

static bool put_number(json_t *object, const char *name, uint64_t value) {
    char text[24];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    return put(object, name, text);
}

static bool put_path(json_t *object, const char *name, const char *path) {
    char *full = path ? absolute(path) : NULL;
    bool ok = !path || (full && put(object, name, full));
    free(full);
    return ok;
}

static bool append(json_t *object, const char *name, const char *value) {
    json_t *list = json_object_get(object, name);
    if (!list && json_object_set_new(object, name, list = json_array()))
        return false;
    return json_array_append_new(list, json_string(value)) == 0;
}

static bool put_disk(json_t *object, const struct disk_config *d) {
    char *full = absolute(d->path), *name = full ? escape_commas(full) : NULL, *value = NULL;
    bool ok = name && asprintf(&value, "%s%s,format=raw", name,
                               d->read_only ? ",ro"
                               : d->overlay ? ",overlay"
                                            : "") >= 0;
    ok = ok && append(object, "disk", value);
    free(value);
    free(name);
    free(full);
    return ok;
}

static bool put_net(json_t *object, const struct vm_config *cfg, unsigned index) {
    const struct net_config *n = &cfg->nets[index];
    char text[64 + CONFIG_MAX_HOSTFWDS * 32];
    uint8_t mac[6];
    config_net_mac(cfg, index, mac);
    int len = snprintf(text, sizeof(text), "user,mac=%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
                       mac[4], mac[5]);
    for (unsigned i = 0; i < n->nfwds; i++)
        len += snprintf(text + len, sizeof(text) - (size_t)len, ",hostfwd=%s:%u:%u", n->fwds[i].udp ? "udp" : "tcp",
                        n->fwds[i].host_port, n->fwds[i].guest_port);
    return append(object, "net", text);
}

json_t *config_to_json(const struct vm_config *cfg) {
    static const char *const boots[] = {"auto", "bzimage32", "bzimage64", "payload", "pvh", "multiboot", "elf64"};
    json_t *o = json_object();
    bool ok = put(o, "board", config_board_name(cfg->board)) && put(o, "cpu", config_cpu_name(cfg->cpu)) &&
              put_number(o, "cpus", cfg->cpus) && put_number(o, "memory", cfg->memory) &&
              put_path(o, "kernel", cfg->kernel) && put_path(o, "initrd", cfg->initrd) &&
              put(o, "boot", boots[cfg->boot]) && (!cfg->cmdline || put(o, "cmdline", cfg->cmdline));
    for (unsigned i = 0; ok && i < cfg->ndisks; i++)
        ok = put_disk(o, &cfg->disks[i]);
    for (unsigned i = 0; ok && i < cfg->nnets; i++)
        ok = put_net(o, cfg, i);
    if (ok && cfg->console.kind != CONFIG_CHAR_NONE)
        ok = put(o, "console", "null");
    if (ok && cfg->debug_exit)
        ok = json_object_set_new(o, "debug-exit", json_true()) == 0;
    if (ok && cfg->no_reboot)
        ok = json_object_set_new(o, "no-reboot", json_true()) == 0;
    if (!ok) {
        json_decref(o);
        return NULL;
    }
    return o;
}

// ---- reading ----

struct arguments {
    char *list[OPTIONS_MAX];
    unsigned count;
};

static int add_argument(struct arguments *a, const char *name, const json_t *value, struct error *err) {
    char *text = NULL;
    int n = -1;
    if (json_is_true(value))
        n = asprintf(&text, "--%s", name);
    else if (json_is_string(value))
        n = asprintf(&text, "--%s=%s", name, json_string_value(value));
    else
        return error_set(err, -EINVAL, "\"%.40s\" is neither a string nor true", name);
    if (n < 0)
        return error_set(err, -ENOMEM, "read the configuration");
    if (a->count == OPTIONS_MAX) {
        free(text);
        return error_set(err, -EINVAL, "more than %d options", OPTIONS_MAX);
    }
    a->list[a->count++] = text;
    return 0;
}

int config_from_json(const json_t *object, struct vm_config *cfg, struct error *err) {
    struct arguments a = {.count = 0};
    const char *name;
    json_t *value, *item;
    size_t i;
    int ret = json_is_object(object) ? 0 : error_set(err, -EINVAL, "the configuration is not an object");
    json_object_foreach((json_t *)object, name, value) {
        if (ret)
            break;
        if (!json_is_array(value))
            ret = add_argument(&a, name, value, err);
        else
            json_array_foreach(value, i, item) if (ret == 0) ret = add_argument(&a, name, item, err);
    }
    if (ret == 0)
        ret = option_parse(&config_options, (int)a.count, a.list, cfg, err);
    if (ret == OPTION_HELP)
        ret = error_set(err, -EINVAL, "the configuration names no option 'help'");
    for (unsigned k = 0; k < a.count; k++)
        free(a.list[k]);
    return ret;
}
