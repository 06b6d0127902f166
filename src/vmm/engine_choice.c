// SPDX-License-Identifier: Apache-2.0
// The choice of the engine. A /dev/kvm that is not backed by hardware emulates kernel code at a few million
// instructions a second, the translator manages hundreds of millions, and hardware more than that: the limit stands
// where no real machine is near it.
//
// The measured speed is kept in ROOT/.kvm-speed (run directory, see instance.h) as "BOOT-ID SPEED": a hint that anyone
// who can write there can falsify, which costs that user speed and nothing else. It is replaced by rename.
#define LOG_UNIT "engine"
#include "vmm/engine_choice.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "debug/profile.h"
#include "util/log.h"
#include "vmm/instance.h"

#define WORTH_INSNS_PER_SECOND UINT64_C(20000000)
#define BOOT_ID_FILE           "/proc/sys/kernel/random/boot_id"
#define BOOT_ID_SIZE           37

// ---- the note of the measurement ----

static ssize_t read_file(const char *path, char *buf, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);
    if (fd >= 0)
        close(fd);
    buf[n > 0 ? n : 0] = 0;
    return n;
}

// False: there is no boot id, and so no note.
static bool note_names(const struct vm_config *cfg, char *path, size_t size, char boot_id[BOOT_ID_SIZE]) {
    struct instance inst;
    struct error ignored;
    if (read_file(BOOT_ID_FILE, boot_id, BOOT_ID_SIZE) != BOOT_ID_SIZE - 1)
        return false;
    if (instance_locate(cfg->name, &inst, &ignored))
        return false;
    int n = snprintf(path, size, "%s/.kvm-speed", inst.root);
    return n > 0 && (size_t)n < size;
}

static bool note_read(const char *path, const char *boot_id, uint64_t *speed) {
    char text[80], *end;
    size_t len = strlen(boot_id);
    if (read_file(path, text, sizeof(text)) <= 0 || strncmp(text, boot_id, len) || text[len] != ' ')
        return false;
    *speed = strtoull(text + len + 1, &end, 10);
    return *speed && *end == '\n';
}

static void note_write(const char *path, const char *boot_id, uint64_t speed) {
    char temporary[PATH_MAX + 16];
    snprintf(temporary, sizeof(temporary), "%s.%d", path, (int)getpid());
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return; // measured again next time
    bool ok = dprintf(fd, "%s %" PRIu64 "\n", boot_id, speed) > 0;
    close(fd);
    if (!ok || rename(temporary, path))
        unlink(temporary);
}

// ---- the choice ----

static int kvm_speed(const struct vm_config *cfg, const struct engine_ops *kvm, uint64_t *speed, bool *noted,
                     struct error *err) {
    char path[PATH_MAX], boot_id[BOOT_ID_SIZE];
    bool names = note_names(cfg, path, sizeof(path), boot_id);
    *noted = names && note_read(path, boot_id, speed);
    // A device that went away or was forbidden since is noticed by create; a note must not hide that from `auto`.
    if (*noted && access("/dev/kvm", R_OK | W_OK) == 0)
        return 0;
    *noted = false;
    int r = kvm->probe(speed, err);
    if (r == 0 && names)
        note_write(path, boot_id, *speed);
    return r;
}

static const struct engine_ops *choose_auto(const struct vm_config *cfg) {
    const struct engine_ops *kvm = engine_find("kvm"), *xlate = engine_find("xlate");
    struct error err = {0};
    uint64_t speed = 0;
    bool noted;
    if (kvm_speed(cfg, kvm, &speed, &noted, &err)) {
        log_info("engine xlate: %s", err.text);
        return xlate;
    }
    bool worth = speed >= WORTH_INSNS_PER_SECOND;
    log_info("engine %s: KVM runs kernel code at %" PRIu64 " million instructions/s (%s)%s", worth ? "kvm" : "xlate",
             speed / 1000000, noted ? "measured earlier" : "measured now",
             worth ? "" : ", it has no hardware behind it");
    return worth ? kvm : xlate;
}

int engine_choose(const struct vm_config *cfg, const struct engine_ops **ops, struct error *err) {
    *ops = cfg->engine == CONFIG_ENGINE_AUTO ? choose_auto(cfg) : engine_find(config_engine_name(cfg->engine));
    if (!*ops)
        return error_set(err, -EINVAL, "--engine %s: not built", config_engine_name(cfg->engine));
    if (cfg->engine != CONFIG_ENGINE_AUTO)
        log_info("engine %s: as --engine says", (*ops)->name);
    return 0;
}

struct engine_options engine_options(const struct vm_config *cfg, const struct engine_ops *ops) {
    bool xlate = strcmp(ops->name, "xlate") == 0;
    return (struct engine_options){.code_cache_bytes = cfg->code_cache,
                                   .profile_hz = cfg->profile ? PROFILE_HZ : 0,
                                   .perf_map = cfg->perf_map,
                                   .features = xlate ? cfg->xlate_opts : cfg->kvm_opts};
}

// ---- what the guest sees of the processor ----

// VMX or SVM: the sign that KVM runs on hardware. Without it a guest is not moved there, and need not do without what a
// KVM that emulates lacks.
static bool has_virtualization(void) {
    unsigned a, b, c, d;
    bool vmx = __get_cpuid(1, &a, &b, &c, &d) && (c & 1u << 5);
    return vmx || (__get_cpuid(0x80000001, &a, &b, &c, &d) && (c & 1u << 2));
}

static int limit_to_chosen(enum cpu_model model, const struct engine_ops *chosen, const struct engine_options *opt,
                           struct cpuid_policy *policy, struct error *err) {
    int r = chosen->limit_policy(policy, opt, err);
    if (r || (model != CPU_X86_64_V2 && model != CPU_X86_64_V3))
        return r;
    char who[64];
    snprintf(who, sizeof(who), "the %s engine on this host", chosen->name);
    return cpuid_policy_check(policy, model, who, err);
}

int engine_limit_policy(enum cpu_model model, const struct engine_ops *chosen, const struct engine_options *opt,
                        struct cpuid_policy *policy, struct error *err) {
    const struct engine_ops *kvm = engine_find("kvm");
    struct error ignored = {0};
    if (chosen->limit_policy)
        return limit_to_chosen(model, chosen, opt, policy, err);
    if (model != CPU_MOVABLE || !kvm || chosen == kvm || !has_virtualization())
        return 0;
    if (kvm->limit_policy(policy, NULL, &ignored))
        log_info("no KVM to move to: %s", ignored.text);
    return 0;
}
