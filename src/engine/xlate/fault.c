// SPDX-License-Identifier: Apache-2.0
// Filling in the fault or exit of a vCPU.
#include "engine/xlate/xlate.h"

enum xres fault_raise(struct xcpu *x, enum x86_vector v) {
    x->fault = (struct xfault){.vector = (uint8_t)v};
    return X_FAULT;
}

enum xres fault_raise_err(struct xcpu *x, enum x86_vector v, uint32_t error) {
    x->fault = (struct xfault){.vector = (uint8_t)v, .has_error = true, .error = error};
    return X_FAULT;
}

enum xres fault_page(struct xcpu *x, uint64_t lin, uint32_t error) {
    x->fault = (struct xfault){.vector = X86_PF, .has_error = true, .error = error, .cr2 = lin};
    return X_FAULT;
}

enum xres fault_debug(struct xcpu *x, uint64_t dr6_bits) {
    x->fault = (struct xfault){.vector = X86_DB, .dr6 = dr6_bits};
    return X_FAULT;
}

static char *put_text(char *p, const char *end, const char *s) {
    while (*s && p < end)
        *p++ = *s++;
    return p;
}

static char *put_hex(char *p, const char *end, uint64_t v) {
    p = put_text(p, end, " 0x");
    int shift = 60;
    while (shift > 0 && !(v >> shift))
        shift -= 4;
    for (; shift >= 0 && p < end; shift -= 4)
        *p++ = "0123456789abcdef"[(v >> shift) & 15];
    return p;
}

enum xres fail_exit(struct xcpu *x, const char *what, uint64_t a, uint64_t b) {
    char *p = x->exit.fail.text, *end = p + sizeof(x->exit.fail.text) - 1;
    x->exit.reason = EXIT_FAIL;
    p = put_text(p, end, what);
    p = put_hex(p, end, a);
    p = put_hex(p, end, b);
    *p = 0;
    return X_EXIT;
}
