// SPDX-License-Identifier: Apache-2.0
// The allow-list of the seal: which system calls, with which arguments, when, and why.
#ifndef CICADA_SANDBOX_SYSCALLS_H
#define CICADA_SANDBOX_SYSCALLS_H

#include <stddef.h>
#include <stdint.h>

enum seal_need {
    SEAL_ALWAYS,
    SEAL_NETWORK, // seal_options.network
    SEAL_KVM,     // seal_options.kvm
};

enum seal_argument {
    SEAL_ARG_ANY,
    SEAL_ARG_NO_EXEC, // argument `arg` has no PROT_EXEC
    SEAL_ARG_OWN_PID, // argument `arg` is our PID
    SEAL_ARG_EQUAL,   // argument `arg` is `value`
    SEAL_ARG_SOCKET,  // IPv4 or IPv6
};

struct seal_rule {
    int nr; // SCMP_SYS(name)
    enum seal_need need;
    enum seal_argument check;
    unsigned arg;
    uint64_t value;
};

extern const struct seal_rule seal_rules[];
extern const size_t seal_rule_count;
// Calls that a library may try late and can do without: they fail with EACCES instead of ending the process.
extern const int seal_refused[];
extern const size_t seal_refused_count;

#endif
