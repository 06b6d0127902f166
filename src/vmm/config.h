// SPDX-License-Identifier: Apache-2.0
// What a VM is to be: the one description that every front end fills and boards read. Strings are owned by the
// struct. A struct vm_config that config_validate accepted keeps every limit below.
#ifndef CICADA_VMM_CONFIG_H
#define CICADA_VMM_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "util/error.h"
#include "util/log.h"
#include "vmm/option.h"

enum config_engine { CONFIG_ENGINE_AUTO, CONFIG_ENGINE_KVM, CONFIG_ENGINE_XLATE };
enum config_board { CONFIG_BOARD_MICROVM, CONFIG_BOARD_PC };
enum config_cpu { CONFIG_CPU_MOVABLE, CONFIG_CPU_HOST, CONFIG_CPU_X86_64_V2, CONFIG_CPU_X86_64_V3 };
enum config_boot {
    CONFIG_BOOT_AUTO,
    CONFIG_BOOT_BZIMAGE32,
    CONFIG_BOOT_BZIMAGE64,
    CONFIG_BOOT_PAYLOAD,
    CONFIG_BOOT_PVH,
    CONFIG_BOOT_MULTIBOOT,
    CONFIG_BOOT_ELF64,
};
// Host side of a console. NONE: there is no such device.
enum config_char { CONFIG_CHAR_NONE, CONFIG_CHAR_STDIO, CONFIG_CHAR_NULL, CONFIG_CHAR_FILE, CONFIG_CHAR_UNIX };
enum config_disk_format { CONFIG_DISK_RAW };

#define CONFIG_MAX_CPUS       128
#define CONFIG_MIN_MEMORY     ((uint64_t)1 << 20)
#define CONFIG_MAX_MEMORY     ((uint64_t)512 << 30)
#define CONFIG_DEFAULT_MEMORY ((uint64_t)512 << 20)
#define CONFIG_MIN_CODE_CACHE ((uint64_t)1 << 20)
#define CONFIG_MAX_CODE_CACHE ((uint64_t)1 << 30) // a direct branch reaches 2 GiB, helpers and stubs included
#define CONFIG_MAX_DISKS      8
#define CONFIG_MAX_NETS       4
#define CONFIG_MAX_HOSTFWDS   16
#define CONFIG_MAX_CMDLINE    65535 // the kernel's own, smaller limit is checked by boot/
#define CONFIG_MAX_NAME       63

struct cpuid_policy;

struct disk_config {
    char *path;
    bool read_only;
    bool overlay; // the file is only read, what is written is gone with the VM
    enum config_disk_format format;
};

struct char_config {
    enum config_char kind;
    char *path; // FILE and UNIX
};

struct hostfwd_config {
    bool udp;
    uint16_t host_port; // on 127.0.0.1 of the host
    uint16_t guest_port;
};

struct net_config { // user-mode network is the only kind so far
    struct hostfwd_config fwds[CONFIG_MAX_HOSTFWDS];
    unsigned nfwds;
    bool has_mac; // otherwise the board chooses one
    uint8_t mac[6];
};

struct gdb_config {
    bool enabled;
    char *path;    // of a unix socket; NULL: TCP at 127.0.0.1
    uint16_t port; // then
    bool wait;     // for a debugger, before the first instruction
};

struct vm_config {
    enum config_engine engine;
    enum config_board board;
    enum config_cpu cpu;
    unsigned cpus;
    uint64_t memory;                 // bytes
    char *kernel, *initrd, *cmdline; // NULL where not given
    enum config_boot boot;
    struct disk_config disks[CONFIG_MAX_DISKS];
    unsigned ndisks;
    struct net_config nets[CONFIG_MAX_NETS];
    unsigned nnets;
    struct char_config serial;  // the board always has the port: not NONE once config_validate was there
    struct char_config console; // virtio-console
    bool no_reboot, debug_exit;
    bool restored; // no option: the state comes from a snapshot, the kernel is wanted at a reset only
    bool incoming; // no option: the machine comes in by a migration, its disks are locked when it may run
    const struct cpuid_policy *like; // no option: of a VM that comes in; what its processor lacked, this one lacks
    bool incoming_disks;             // no option: and their contents come, too: they are locked at once
    char *name;                      // NULL until config_validate, which makes vm-PID of it
    bool has_log_level;
    enum log_level log_level;
    unsigned verbose;    // how often -v was given
    char *xlate_opts;    // comma list, checked by the engine; NULL
    char *kvm_opts;      // the same of the kvm engine
    uint64_t code_cache; // bytes; 0: the engine's default
    struct gdb_config gdb;
    char *profile; // file for what the profiler finds; NULL: off
    bool perf_map;
};

void config_init(struct vm_config *cfg);
void config_destroy(struct vm_config *cfg);

// The options of `cicada run`; their target is a struct vm_config.
extern const struct option_table config_options;

// Checks what one option alone cannot know and fills in the name. 0 or negative errno with err set.
int config_validate(struct vm_config *cfg, struct error *err);
// Can the caller's files be read (and written)? So that a wrong name is told as such before anything is built.
int config_check_files(const struct vm_config *cfg, struct error *err);

// Log level that --log and -v ask for.
enum log_level config_log_level(const struct vm_config *cfg);

// The MAC address of network card `index`: the one asked for, else one made from the name of the VM and the index.
void config_net_mac(const struct vm_config *cfg, unsigned index, uint8_t mac[6]);

// The words of the options, for people and for `info`.
const char *config_engine_name(enum config_engine engine);
const char *config_board_name(enum config_board board);
const char *config_cpu_name(enum config_cpu cpu);

#endif
