// SPDX-License-Identifier: Apache-2.0
// An engine failure, told so that it can be understood from the log alone: registers, mode, the bytes at RIP.
#define LOG_UNIT "kvm"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/kvm/kvm.h"
#include "util/log.h"

#define CODE_BYTES 15

static void log_registers(const struct kvm_vcpu *v, const struct cpu_state *s) {
    static const char *const names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

    for (unsigned i = 0; i < 16; i += 4)
        log_error("vCPU %u: %s=%016llx %s=%016llx %s=%016llx %s=%016llx", v->index, names[i],
                  (unsigned long long)s->gpr[i], names[i + 1], (unsigned long long)s->gpr[i + 1], names[i + 2],
                  (unsigned long long)s->gpr[i + 2], names[i + 3], (unsigned long long)s->gpr[i + 3]);
    log_error(
        "vCPU %u: rip=%016llx rflags=%llx cs=%04x/%llx/%x ss=%04x/%x cr0=%llx cr2=%llx cr3=%llx cr4=%llx efer=%llx",
        v->index, (unsigned long long)s->rip, (unsigned long long)s->rflags, s->seg[X86_CS].sel,
        (unsigned long long)s->seg[X86_CS].base, s->seg[X86_CS].attr, s->seg[X86_SS].sel, s->seg[X86_SS].attr,
        (unsigned long long)s->cr0, (unsigned long long)s->cr2, (unsigned long long)s->cr3, (unsigned long long)s->cr4,
        (unsigned long long)s->efer);
}

// Hexadecimal bytes at CS:RIP through the guest's page tables, or why there are none.
static void code_at_rip(struct kvm_vcpu *v, const struct cpu_state *s, char *text, size_t size) {
    uint64_t linear = s->rip + (s->seg[X86_CS].attr & SEG_L ? 0 : s->seg[X86_CS].base);
    uint8_t code[CODE_BYTES];
    size_t n = 0;

    for (unsigned i = 0; i < CODE_BYTES; i++) {
        struct kvm_translation t = {.linear_address = linear + i};
        if (kvm_ioctl(v->fd, KVM_TRANSLATE, &t) || !t.valid ||
            mem_read(v->engine->host->mem, GPA(t.physical_address), &code[i], 1)) {
            snprintf(text + n, size - n, n ? "..." : "(not mapped)");
            return;
        }
        n += (size_t)snprintf(text + n, size - n, "%s%02x", n ? " " : "", code[i]);
    }
}

void kvm_report_failure(struct kvm_vcpu *v, struct vm_exit *exit, const char *fmt, ...) {
    struct cpu_state s;
    char what[96], code[3 * CODE_BYTES + 16];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    exit->reason = EXIT_FAIL;
    v->unfinished = false;
    if (kvm_state_get(v, &s)) {
        snprintf(exit->fail.text, sizeof(exit->fail.text), "%s; its registers cannot be read", what);
        return;
    }
    code_at_rip(v, &s, code, sizeof(code));
    log_registers(v, &s);
    log_error("vCPU %u: code at rip: %s", v->index, code);
    snprintf(exit->fail.text, sizeof(exit->fail.text), "%.90s at %llx: %.48s", what, (unsigned long long)s.rip, code);
}
