// SPDX-License-Identifier: Apache-2.0
// The configuration as a whole: defaults, ownership, and the checks that need more than one option.
#include "vmm/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void config_init(struct vm_config *cfg) {
    *cfg = (struct vm_config){.cpus = 1, .memory = CONFIG_DEFAULT_MEMORY};
}

void config_destroy(struct vm_config *cfg) {
    for (unsigned i = 0; i < cfg->ndisks; i++)
        free(cfg->disks[i].path);
    char *strings[] = {cfg->kernel, cfg->initrd,     cfg->cmdline,  cfg->serial.path, cfg->console.path,
                       cfg->name,   cfg->xlate_opts, cfg->kvm_opts, cfg->gdb.path,    cfg->profile};
    for (unsigned i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
        free(strings[i]);
    config_init(cfg);
}

static const char *name_of(const char *const *names, unsigned count, unsigned i) {
    return i < count ? names[i] : "?";
}

const char *config_engine_name(enum config_engine engine) {
    static const char *const names[] = {"auto", "kvm", "xlate"};
    return name_of(names, 3, engine);
}

const char *config_board_name(enum config_board board) {
    static const char *const names[] = {"microvm", "pc"};
    return name_of(names, 2, board);
}

const char *config_cpu_name(enum config_cpu cpu) {
    static const char *const names[] = {"movable", "host", "x86-64-v2", "x86-64-v3"};
    return name_of(names, 4, cpu);
}

enum log_level config_log_level(const struct vm_config *cfg) {
    if (cfg->has_log_level)
        return cfg->log_level;
    return cfg->verbose == 0 ? LOG_WARN : cfg->verbose == 1 ? LOG_INFO : cfg->verbose == 2 ? LOG_DEBUG : LOG_TRACE;
}

// Stable for a name, so that a guest finds its interface again: 52:54:00 and 24 bits of an FNV-1a hash.
void config_net_mac(const struct vm_config *cfg, unsigned index, uint8_t mac[6]) {
    uint32_t h = 2166136261u + index;
    if (cfg->nets[index].has_mac) {
        memcpy(mac, cfg->nets[index].mac, 6);
        return;
    }
    for (const char *name = cfg->name ? cfg->name : ""; *name; name++)
        h = (h ^ (uint8_t)*name) * 16777619u;
    memcpy(mac, (uint8_t[]){0x52, 0x54, 0x00, (uint8_t)(h >> 16), (uint8_t)(h >> 8), (uint8_t)h}, 6);
}

static int check_fwds(const struct vm_config *cfg, unsigned n, unsigned k, struct error *err) {
    const struct hostfwd_config *f = &cfg->nets[n].fwds[k];
    for (unsigned i = 0; i <= n; i++) {
        unsigned end = i == n ? k : cfg->nets[i].nfwds;
        for (unsigned j = 0; j < end; j++) {
            const struct hostfwd_config *g = &cfg->nets[i].fwds[j];
            if (f->udp == g->udp && f->host_port == g->host_port)
                return error_set(err, -EINVAL, "--net: host port %s:%u is forwarded twice", f->udp ? "udp" : "tcp",
                                 f->host_port);
        }
    }
    return 0;
}

static int check_nets(const struct vm_config *cfg, struct error *err) {
    for (unsigned n = 0; n < cfg->nnets; n++) {
        const struct net_config *net = &cfg->nets[n];
        for (unsigned i = 0; i < n; i++)
            if (net->has_mac && cfg->nets[i].has_mac && memcmp(net->mac, cfg->nets[i].mac, 6) == 0)
                return error_set(err, -EINVAL, "--net: two cards have the same mac");
        for (unsigned k = 0; k < net->nfwds; k++) {
            int ret = check_fwds(cfg, n, k, err);
            if (ret)
                return ret;
        }
    }
    return 0;
}

// Standard input and output are the serial port's unless the virtio console has them.
static int check_consoles(struct vm_config *cfg, struct error *err) {
    bool taken = cfg->console.kind == CONFIG_CHAR_STDIO;
    if (taken && cfg->serial.kind == CONFIG_CHAR_STDIO)
        return error_set(err, -EINVAL, "--serial stdio and --console stdio: only one of them can have the terminal");
    if (cfg->serial.kind == CONFIG_CHAR_NONE)
        cfg->serial.kind = taken ? CONFIG_CHAR_NULL : CONFIG_CHAR_STDIO;
    return 0;
}

int config_validate(struct vm_config *cfg, struct error *err) {
    if (cfg->board == CONFIG_BOARD_PC)
        return error_set(err, -EINVAL, "--board pc: the pc board is not built; use microvm");
    if (!cfg->kernel)
        return error_set(err, -EINVAL, "no kernel: --kernel FILE is needed");
    int ret = check_nets(cfg, err);
    if (ret == 0)
        ret = check_consoles(cfg, err);
    if (ret)
        return ret;
    if (!cfg->name && asprintf(&cfg->name, "vm-%d", (int)getpid()) < 0) {
        cfg->name = NULL;
        return error_set(err, -ENOMEM, "--name");
    }
    return 0;
}

static int check_file(const char *what, const char *path, bool device_ok, bool write, struct error *err) {
    struct stat st;
    if (stat(path, &st) != 0)
        return error_set(err, -errno, "%s '%s'", what, path);
    if (S_ISDIR(st.st_mode))
        return error_set(err, -EISDIR, "%s '%s'", what, path);
    if (!S_ISREG(st.st_mode) && !(device_ok && S_ISBLK(st.st_mode)))
        return error_set(err, -EINVAL, "%s '%s': not a regular file%s", what, path,
                         device_ok ? " or block device" : "");
    if (st.st_size == 0 && S_ISREG(st.st_mode))
        return error_set(err, -EINVAL, "%s '%s': the file is empty", what, path);
    if (faccessat(AT_FDCWD, path, write ? R_OK | W_OK : R_OK, AT_EACCESS) != 0)
        return error_set(err, -errno, "%s '%s'%s", what, path, write ? " for writing (',ro' opens it read-only)" : "");
    return 0;
}

int config_check_files(const struct vm_config *cfg, struct error *err) {
    int ret = cfg->restored ? 0 : check_file("kernel", cfg->kernel, false, false, err);
    if (ret == 0 && cfg->initrd && !cfg->restored)
        ret = check_file("initrd", cfg->initrd, false, false, err);
    for (unsigned i = 0; ret == 0 && i < cfg->ndisks; i++)
        ret = check_file("disk", cfg->disks[i].path, true, !cfg->disks[i].read_only && !cfg->disks[i].overlay, err);
    return ret;
}
