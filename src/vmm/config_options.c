// SPDX-License-Identifier: Apache-2.0
// The table of options of `cicada run` and the setter of each. A setter checks what its value alone can tell;
// config_validate checks the whole. Every message names the option, the value and what is allowed.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/config.h"
#include "vmm/config_value.h"

static int set_string(char **field, const char *option, const char *value, struct error *err) {
    char *copy = strdup(value);
    if (!copy)
        return error_set(err, -ENOMEM, "--%s", option);
    free(*field);
    *field = copy;
    return 0;
}

static int set_path(char **field, const char *option, const char *value, struct error *err) {
    if (!*value)
        return error_set(err, -EINVAL, "--%s '': expected the name of a file", option);
    return set_string(field, option, value, err);
}

static int set_engine(void *t, const char *value, int index, struct error *err) {
    ((struct vm_config *)t)->engine = (enum config_engine)index;
    return 0;
}

static int set_board(void *t, const char *value, int index, struct error *err) {
    ((struct vm_config *)t)->board = (enum config_board)index;
    return 0;
}

static int set_cpu(void *t, const char *value, int index, struct error *err) {
    ((struct vm_config *)t)->cpu = (enum config_cpu)index;
    return 0;
}

static int set_boot(void *t, const char *value, int index, struct error *err) {
    ((struct vm_config *)t)->boot = (enum config_boot)index;
    return 0;
}

static int set_cpus(void *t, const char *value, int index, struct error *err) {
    uint64_t n;
    if (value_parse_u64(value, &n) != 0 || n < 1 || n > CONFIG_MAX_CPUS)
        return error_set(err, -EINVAL, "--cpus '%.80s': expected a number from 1 to %d", value, CONFIG_MAX_CPUS);
    ((struct vm_config *)t)->cpus = (unsigned)n;
    return 0;
}

static int set_memory(void *t, const char *value, int index, struct error *err) {
    uint64_t n;
    int ret = value_parse_size(value, &n);
    if (ret == -EINVAL)
        return error_set(err, -EINVAL, "--memory '%.80s': expected a size such as 512M or 2G", value);
    if (ret == -ERANGE || n > CONFIG_MAX_MEMORY)
        return error_set(err, -EINVAL, "--memory '%.80s': too large, at most 512G", value);
    if (n < CONFIG_MIN_MEMORY)
        return error_set(err, -EINVAL, "--memory '%.80s': too small, at least 1M (a plain number is in bytes)", value);
    if (n % 4096)
        return error_set(err, -EINVAL, "--memory '%.80s': not a multiple of the page size, 4096 bytes", value);
    ((struct vm_config *)t)->memory = n;
    return 0;
}

static int set_code_cache(void *t, const char *value, int index, struct error *err) {
    uint64_t n;
    int ret = value_parse_size(value, &n);
    if (ret || n < CONFIG_MIN_CODE_CACHE || n > CONFIG_MAX_CODE_CACHE || n % 4096)
        return error_set(err, -EINVAL, "--code-cache '%.80s': expected a size from 1M to 1G in whole pages", value);
    ((struct vm_config *)t)->code_cache = n;
    return 0;
}

static int set_kernel(void *t, const char *value, int index, struct error *err) {
    return set_path(&((struct vm_config *)t)->kernel, "kernel", value, err);
}

static int set_initrd(void *t, const char *value, int index, struct error *err) {
    return set_path(&((struct vm_config *)t)->initrd, "initrd", value, err);
}

static int set_cmdline(void *t, const char *value, int index, struct error *err) {
    if (strlen(value) > CONFIG_MAX_CMDLINE)
        return error_set(err, -EINVAL, "--cmdline '%.20s...' is %zu bytes long, at most %d are allowed", value,
                         strlen(value), CONFIG_MAX_CMDLINE);
    return set_string(&((struct vm_config *)t)->cmdline, "cmdline", value, err);
}

// "raw" and "ro" of "--disk FILE,ro,format=raw".
static int set_disk_flag(struct disk_config *d, const char *item, struct error *err) {
    if (strcmp(item, "ro") == 0) {
        d->read_only = true;
        return 0;
    }
    if (strcmp(item, "overlay") == 0) {
        d->overlay = true;
        return 0;
    }
    if (strcmp(item, "format=raw") == 0)
        return 0;
    if (strncmp(item, "format=", 7) == 0)
        return error_set(err, -EINVAL, "--disk: format '%.40s' is not known; only raw is", item + 7);
    return error_set(err, -EINVAL,
                     "--disk: '%.80s' is not one of ro, overlay or format=raw (write ,, for a comma in a name)", item);
}

static int set_disk(void *t, const char *value, int index, struct error *err) {
    struct vm_config *cfg = t;
    if (cfg->ndisks == CONFIG_MAX_DISKS)
        return error_set(err, -EINVAL, "--disk '%.80s': at most %d disks", value, CONFIG_MAX_DISKS);
    struct disk_config d = {.format = CONFIG_DISK_RAW};
    d.path = value_next_item(&value);
    int ret = 0;
    if (!d.path)
        ret = error_set(err, -ENOMEM, "--disk");
    else if (!*d.path)
        ret = error_set(err, -EINVAL, "--disk '': expected the name of a file");
    while (ret == 0 && value) {
        char *item = value_next_item(&value);
        ret = item ? set_disk_flag(&d, item, err) : error_set(err, -ENOMEM, "--disk");
        free(item);
    }
    if (ret)
        free(d.path);
    else
        cfg->disks[cfg->ndisks++] = d;
    return ret;
}

// "tcp:8080:80"
static int set_hostfwd(struct net_config *net, const char *spec, struct error *err) {
    struct hostfwd_config f = {.udp = strncmp(spec, "udp:", 4) == 0};
    const char *colon = strlen(spec) > 4 ? strchr(spec + 4, ':') : NULL;
    char host[8] = "";
    bool good = colon && (f.udp || strncmp(spec, "tcp:", 4) == 0) && (size_t)(colon - spec - 4) < sizeof(host);
    if (good) {
        memcpy(host, spec + 4, (size_t)(colon - spec - 4));
        good = value_parse_port(host, &f.host_port) == 0 && value_parse_port(colon + 1, &f.guest_port) == 0;
    }
    if (!good)
        return error_set(err, -EINVAL,
                         "--net: hostfwd '%.80s': expected tcp:HOSTPORT:GUESTPORT or udp:..., ports from 1 to 65535",
                         spec);
    if (net->nfwds == CONFIG_MAX_HOSTFWDS)
        return error_set(err, -EINVAL, "--net: hostfwd '%.80s': at most %d of them", spec, CONFIG_MAX_HOSTFWDS);
    net->fwds[net->nfwds++] = f;
    return 0;
}

static int set_net_item(struct net_config *net, const char *item, struct error *err) {
    if (strncmp(item, "hostfwd=", 8) == 0)
        return set_hostfwd(net, item + 8, err);
    if (strncmp(item, "mac=", 4) == 0) {
        int ret = value_parse_mac(item + 4, net->mac);
        if (ret == -EADDRNOTAVAIL)
            return error_set(err, -EINVAL, "--net: mac '%.40s' is not the address of one card (group or zero)",
                             item + 4);
        if (ret)
            return error_set(err, -EINVAL, "--net: mac '%.40s': expected one like 52:54:00:12:34:56", item + 4);
        net->has_mac = true;
        return 0;
    }
    return error_set(err, -EINVAL, "--net: '%.80s' is not one of hostfwd=... or mac=...", item);
}

static int set_net(void *t, const char *value, int index, struct error *err) {
    struct vm_config *cfg = t;
    if (cfg->nnets == CONFIG_MAX_NETS)
        return error_set(err, -EINVAL, "--net '%.80s': at most %d networks", value, CONFIG_MAX_NETS);
    struct net_config net = {0};
    int ret = 0;
    for (unsigned i = 0; ret == 0 && value; i++) {
        char *item = value_next_item(&value);
        if (!item)
            return error_set(err, -ENOMEM, "--net");
        if (i > 0)
            ret = set_net_item(&net, item, err);
        else if (strcmp(item, "user") != 0)
            ret = error_set(err, -EINVAL, "--net: '%.80s' is not known; only user is", item);
        free(item);
    }
    if (ret == 0)
        cfg->nets[cfg->nnets++] = net;
    return ret;
}

static int set_char(struct char_config *c, const char *option, const char *value, struct error *err) {
    bool file = strncmp(value, "file:", 5) == 0, sock = strncmp(value, "unix:", 5) == 0;
    if ((file || sock) && value[5]) {
        c->kind = file ? CONFIG_CHAR_FILE : CONFIG_CHAR_UNIX;
        return set_string(&c->path, option, value + 5, err);
    }
    if (strcmp(value, "stdio") != 0 && strcmp(value, "null") != 0)
        return error_set(err, -EINVAL, "--%s: '%.80s' is not one of stdio, null, file:PATH or unix:PATH", option,
                         value);
    c->kind = value[0] == 's' ? CONFIG_CHAR_STDIO : CONFIG_CHAR_NULL;
    return 0;
}

static int set_serial(void *t, const char *value, int index, struct error *err) {
    return set_char(&((struct vm_config *)t)->serial, "serial", value, err);
}

static int set_console(void *t, const char *value, int index, struct error *err) {
    return set_char(&((struct vm_config *)t)->console, "console", value, err);
}

static int set_no_reboot(void *t, const char *value, int index, struct error *err) {
    ((struct vm_config *)t)->no_reboot = true;
    return 0;
}

static int set_debug_exit(void *t, const char *value, int index, struct error *err) {
    ((struct vm_config *)t)->debug_exit = true;
    return 0;
}

static int set_name(void *t, const char *value, int index, struct error *err) {
    if (!value_name_ok(value))
        return error_set(err, -EINVAL,
                         "--name '%.80s': expected 1 to %d letters, digits, '.', '_' or '-', a letter or digit first",
                         value, CONFIG_MAX_NAME);
    return set_string(&((struct vm_config *)t)->name, "name", value, err);
}

static int set_log(void *t, const char *value, int index, struct error *err) {
    struct vm_config *cfg = t;
    cfg->has_log_level = true;
    cfg->log_level = (enum log_level)index; // choices in the order of enum log_level
    return 0;
}

static int set_verbose(void *t, const char *value, int index, struct error *err) {
    ((struct vm_config *)t)->verbose++;
    return 0;
}

static int set_xlate_opts(void *t, const char *value, int index, struct error *err) {
    if (!*value || strlen(value) > 1024)
        return error_set(err, -EINVAL, "--xlate-opts '%.40s': expected a comma list of 1 to 1024 bytes", value);
    return set_string(&((struct vm_config *)t)->xlate_opts, "xlate-opts", value, err);
}

static int set_profile(void *t, const char *value, int index, struct error *err) {
    return set_path(&((struct vm_config *)t)->profile, "profile", value, err);
}

static int set_perf_map(void *t, const char *value, int index, struct error *err) {
    ((struct vm_config *)t)->perf_map = true;
    return 0;
}

static int set_kvm_opts(void *t, const char *value, int index, struct error *err) {
    if (!*value || strlen(value) > 255)
        return error_set(err, -EINVAL, "--kvm-opts '%.40s': expected a comma list of 1 to 255 bytes", value);
    return set_string(&((struct vm_config *)t)->kvm_opts, "kvm-opts", value, err);
}

// "unix:PATH" or "tcp:127.0.0.1:PORT".
static int set_gdb_address(struct gdb_config *gdb, const char *item, struct error *err) {
    static const char tcp[] = "tcp:127.0.0.1:";
    size_t n = sizeof(tcp) - 1;
    gdb->enabled = true;
    if (strncmp(item, "unix:", 5) == 0 && item[5])
        return set_string(&gdb->path, "gdb", item + 5, err);
    if (strncmp(item, tcp, n) == 0 && value_parse_port(item + n, &gdb->port) == 0) {
        free(gdb->path);
        gdb->path = NULL;
        return 0;
    }
    return error_set(err, -EINVAL, "--gdb '%.80s': expected unix:PATH or tcp:127.0.0.1:PORT", item);
}

static int set_gdb(void *t, const char *value, int index, struct error *err) {
    struct gdb_config *gdb = &((struct vm_config *)t)->gdb;
    int ret = 0;
    gdb->wait = false;
    for (unsigned i = 0; ret == 0 && value; i++) {
        char *item = value_next_item(&value);
        if (!item)
            return error_set(err, -ENOMEM, "--gdb");
        if (i == 0)
            ret = set_gdb_address(gdb, item, err);
        else if (strcmp(item, "wait") == 0)
            gdb->wait = true;
        else
            ret = error_set(err, -EINVAL, "--gdb: '%.80s' is not known; only wait is", item);
        free(item);
    }
    return ret;
}

static const struct option_def defs[] = {
    {"engine", .metavar = "ENGINE", .choices = "auto|kvm|xlate", .set = set_engine,
     .help = "what executes guest code: auto (default), kvm, xlate"},
    {"board", .metavar = "BOARD", .choices = "microvm|pc", .set = set_board,
     .help = "hardware of the virtual machine: microvm (default), pc"},
    {"cpu", .metavar = "MODEL", .choices = "movable|host|x86-64-v2|x86-64-v3", .set = set_cpu,
     .help = "CPU features: movable (default), host, x86-64-v2,\nx86-64-v3"},
    {"cpus", 'c', .metavar = "N", .set = set_cpus, .help = "number of virtual CPUs (default 1)"},
    {"memory", 'm', .metavar = "SIZE", .set = set_memory, .help = "guest memory, e.g. 512M (default) or 2G"},
    {"kernel", 'k', .metavar = "FILE", .complete = OPTION_COMPLETE_FILE, .set = set_kernel,
     .help = "kernel to boot: bzImage, ELF or multiboot (needed)"},
    {"boot", .metavar = "PROTOCOL", .choices = "auto|bzimage32|bzimage64|payload|pvh|multiboot|elf64", .set = set_boot,
     .help = "how to enter the kernel: auto (default), bzimage32,\nbzimage64, payload (the ELF in a bzImage), pvh,\n"
             "multiboot, elf64 (the ELF by the 64-bit entry of Linux)"},
    {"initrd", 'i', .metavar = "FILE", .complete = OPTION_COMPLETE_FILE, .set = set_initrd,
     .help = "initial RAM disk, or multiboot module"},
    {"cmdline", 'a', .metavar = "STRING", .set = set_cmdline, .help = "command line of the kernel"},
    {"disk", 'd', .repeat = true, .metavar = "FILE[,ro|,overlay][,format=raw]", .complete = OPTION_COMPLETE_FILE,
     .set = set_disk,
     .help =
         "add a virtio disk (write ,, for a comma in FILE);\noverlay: writes go beside FILE and are gone at the end"},
    {"net", 'n', .repeat = true, .metavar = "user[,hostfwd=tcp:HPORT:GPORT][,mac=MAC]", .set = set_net,
     .help = "add a virtio network card on a user-mode network"},
    {"serial", .metavar = "stdio|null|file:PATH|unix:PATH", .set = set_serial,
     .help = "where the serial console goes (default stdio)"},
    {"console", .metavar = "stdio|null|file:PATH|unix:PATH", .set = set_console,
     .help = "add a virtio console (hvc0 in Linux) that goes there"},
    {"no-reboot", .set = set_no_reboot, .help = "a guest reset ends the VM with exit code 4"},
    {"debug-exit", .set = set_debug_exit,
     .help = "add the debug-exit port: a write of V ends the VM with\ncode 64 + V % 64"},
    {"gdb", .metavar = "unix:PATH|tcp:127.0.0.1:PORT[,wait]", .set = set_gdb,
     .help = "let gdb debug the guest; wait: before its first\ninstruction"},
    {"name", .metavar = "NAME", .set = set_name, .help = "name of the VM for ps and stop (default vm-PID)"},
    {"log", .metavar = "LEVEL", .choices = "error|warn|info|debug|trace", .set = set_log,
     .help = "log to stderr: error, warn (default), info, debug, trace"},
    {"verbose", 'v', .set = set_verbose, .help = "log more: -v is info, -v -v is debug"},
    {"xlate-opts", .metavar = "LIST", .set = set_xlate_opts, .help = "switches of the xlate engine, by commas"},
    {"kvm-opts", .metavar = "LIST", .set = set_kvm_opts,
     .help = "switches of the kvm engine, by commas:\nirqchip=kernel|split|user, ioeventfd=auto|on|off,\n"
             "dirty=auto|bitmap|ring (the first is the default)"},
    {"code-cache", .metavar = "SIZE", .set = set_code_cache, .help = "translated code of the xlate engine, 1M to 1G"},
    {"profile", .metavar = "FILE", .complete = OPTION_COMPLETE_FILE, .set = set_profile,
     .help = "sample where the guest spends its time, write folded\nstacks to FILE at the end (xlate)"},
    {"perf-map", .set = set_perf_map, .help = "name translated code for perf in /tmp/perf-PID.map (xlate)"},
};

const struct option_table config_options = {.defs = defs, .count = sizeof(defs) / sizeof(defs[0])};
