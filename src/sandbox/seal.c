// SPDX-License-Identifier: Apache-2.0
// The system call filter, made by libseccomp from the table in syscalls.c. A call outside the list raises SIGSYS
// (SECCOMP_RET_TRAP) and is not executed: the crash handler names it, restores the terminal and the process dies.
// A process that has taken SIGSYS over gains nothing, the call is refused all the same; a thread that blocks SIGSYS
// is killed by the kernel.
#define LOG_UNIT "seal"
#include "sandbox/seal.h"

#include <errno.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sandbox/syscalls.h"
#include "util/log.h"

static int add_sockets(scmp_filter_ctx ctx, const struct seal_rule *r) {
    int ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, r->nr, 1, SCMP_CMP64(r->arg, SCMP_CMP_EQ, AF_INET));
    if (ret == 0)
        ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, r->nr, 1, SCMP_CMP64(r->arg, SCMP_CMP_EQ, AF_INET6));
    return ret;
}

static int add_rule(scmp_filter_ctx ctx, const struct seal_rule *r) {
    switch (r->check) {
    case SEAL_ARG_ANY: return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, r->nr, 0);
    case SEAL_ARG_NO_EXEC:
        return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, r->nr, 1, SCMP_CMP64(r->arg, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    case SEAL_ARG_OWN_PID:
        return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, r->nr, 1, SCMP_CMP64(r->arg, SCMP_CMP_EQ, (scmp_datum_t)getpid()));
    case SEAL_ARG_EQUAL:
        // ioctl and fcntl numbers are 32 bits wide; the kernel ignores what is above.
        return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, r->nr, 1, SCMP_CMP32(r->arg, SCMP_CMP_EQ, (uint32_t)r->value));
    case SEAL_ARG_SOCKET: return add_sockets(ctx, r);
    }
    return -EINVAL;
}

static bool needed(const struct seal_rule *r, const struct seal_options *opt) {
    return r->need == SEAL_ALWAYS || (r->need == SEAL_NETWORK && opt->network) || (r->need == SEAL_KVM && opt->kvm);
}

// Is there an unconditional rule for the call? Then conditional ones beside it are of no use.
static bool allowed_always(int nr, const struct seal_options *opt) {
    for (size_t i = 0; i < seal_rule_count; i++)
        if (seal_rules[i].nr == nr && seal_rules[i].check == SEAL_ARG_ANY && needed(&seal_rules[i], opt))
            return true;
    return false;
}

// Refuses a call with EACCES where no rule allows it. With one rule that wants a value of an argument, every other
// value is refused so; with several, what matches none raises SIGSYS (libseccomp takes one condition an argument).
static int add_refusal(scmp_filter_ctx ctx, int nr, const struct seal_options *opt) {
    const struct seal_rule *only = NULL;
    unsigned count = 0;
    for (size_t i = 0; i < seal_rule_count; i++) {
        if (seal_rules[i].nr == nr && needed(&seal_rules[i], opt)) {
            only = &seal_rules[i];
            count++;
        }
    }
    if (count == 0)
        return seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EACCES), nr, 0);
    if (count > 1 || only->check != SEAL_ARG_EQUAL)
        return 0;
    return seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EACCES), nr, 1,
                            SCMP_CMP32(only->arg, SCMP_CMP_NE, (uint32_t)only->value));
}

static int add_all(scmp_filter_ctx ctx, const struct seal_options *opt, struct error *err) {
    for (size_t i = 0; i < seal_rule_count; i++) {
        const struct seal_rule *r = &seal_rules[i];
        if (!needed(r, opt) || (r->check != SEAL_ARG_ANY && allowed_always(r->nr, opt)))
            continue;
        int ret = add_rule(ctx, r);
        if (ret)
            return error_set(err, ret, "system call filter: rule %zu (call %d)", i, r->nr);
    }
    for (size_t i = 0; i < seal_refused_count; i++) {
        int ret = add_refusal(ctx, seal_refused[i], opt);
        if (ret)
            return error_set(err, ret, "system call filter: refusal of call %d", seal_refused[i]);
    }
    return 0;
}

static void set_attributes(scmp_filter_ctx ctx) {
    seccomp_attr_set(ctx, SCMP_FLTATR_API_SYSRAWRC, 1); // the kernel's errno, not -ECANCELED for all
    seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);    // all threads, or none
    seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); // a binary tree instead of a list
    seccomp_attr_set(ctx, SCMP_FLTATR_CTL_LOG, 1);      // the audit log learns of refused calls
    // Before Linux 5.16 a filter switched speculative store bypass off for its threads, which costs the guest dear;
    // guest code can read this process speculatively anyway (docs/ARCHITECTURE.md), it holds no secrets.
    seccomp_attr_set(ctx, SCMP_FLTATR_CTL_SSB, 1);
}

// The host cannot filter: a container forbids it, or the kernel is built without.
static bool host_lacks_seccomp(int ret) {
    return ret == -ENOSYS || ret == -EPERM || ret == -EACCES || ret == -EOPNOTSUPP || ret == -EINVAL;
}

// The run-time libraries of the sanitizers open files, start threads and trace at any time.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SEAL_SANITIZER 1
#else
#define SEAL_SANITIZER 0
#endif

int seal_syscalls(const struct seal_options *opt, struct error *err) {
    if (SEAL_SANITIZER) {
        log_info("built with a sanitizer: no system call filter");
        return 0;
    }
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_TRAP);
    if (!ctx)
        return error_set(err, -ENOMEM, "system call filter");
    set_attributes(ctx);
    int ret = add_all(ctx, opt, err);
    if (ret == 0) {
        ret = seccomp_load(ctx);
        if (ret && host_lacks_seccomp(ret)) {
            log_warn("no system call filter: %s; the VM runs without one", strerror(-ret));
            ret = 0;
        } else if (ret) {
            error_set(err, ret, "load the system call filter");
        }
    }
    seccomp_release(ctx);
    return ret;
}
