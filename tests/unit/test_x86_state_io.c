// SPDX-License-Identifier: Apache-2.0
// The vCPU state as bytes: all fields survive, and each rule of x86_state_check refuses what breaks it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>

#include "arch/x86/state_io.h"

#define NOT_CANONICAL 0x0000800000000000ull
#define NCHECKS(a)    (sizeof(a) / sizeof((a)[0]))

static const struct cpuid_policy policy = {
    .phys_bits = 40, .has_avx = true, .has_xsave = true, .has_pcid = true, .has_smep = true, .has_fsgsbase = true};

// A 64-bit kernel with everything on.
static void long_mode(struct cpu_state *s) {
    x86_state_reset(s, true, false);
    s->cr0 = CR0_PG | CR0_PE | CR0_ET | CR0_WP | CR0_NE;
    s->cr3 = 0x123000;
    s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXSAVE | CR4_PCIDE;
    s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    s->seg[X86_CS] = (struct x86_segment){.limit = 0xffffffff, .attr = 0xa09b, .sel = 0x10};
    s->seg[X86_GS].base = 0xffff888000000000ull;
    s->rip = 0xffffffff81000000ull;
    s->lstar = 0xffffffff81800000ull;
    s->xcr0 = 7;
}

static int round_trip(const struct cpu_state *in, struct cpu_state *out, struct error *err) {
    struct state_writer w = {0};
    *err = (struct error){0};
    x86_state_save(in, 1000, &w);
    struct state_reader r = {.buf = w.buf, .len = w.len, .version = X86_STATE_VERSION};
    int ret = x86_state_load(out, 5000, &policy, &r, err);
    assert_int_equal(r.pos, w.len);
    state_writer_free(&w);
    return ret;
}

static void test_every_field_survives(void **state) {
    struct cpu_state in, out;
    struct state_writer w = {0};
    struct error err;
    // Every byte of every field differs from its neighbours: a field that is forgotten or swapped shows up. Such a
    // state is refused, but only after it has been read.
    for (size_t i = 0; i < sizeof(in); i++)
        ((uint8_t *)&in)[i] = (uint8_t)(i * 37 + i / 256 + 1);
    for (unsigned i = 0; i < X86_SEG_COUNT; i++)
        memset(in.seg[i].pad, 0, sizeof(in.seg[i].pad));
    memset(in.gdtr.pad, 0, sizeof(in.gdtr.pad));
    memset(in.idtr.pad, 0, sizeof(in.idtr.pad));
    size_t gap = offsetof(struct cpu_state, debug_pending_dr6) + sizeof(in.debug_pending_dr6);
    memset((uint8_t *)&in + gap, 0, offsetof(struct cpu_state, xsave) - gap);
    memset(in.xsave + X86_XSAVE_SIZE, 0, sizeof(in.xsave) - X86_XSAVE_SIZE);
    x86_state_save(&in, 1000, &w);
    struct state_reader r = {.buf = w.buf, .len = w.len, .version = X86_STATE_VERSION};
    assert_int_equal(x86_state_load(&out, 1000, &policy, &r, &err), -EINVAL);
    assert_memory_equal(&in, &out, sizeof(in));
    state_writer_free(&w);
}

static void test_the_guests_tsc_is_kept(void **state) {
    struct cpu_state in, out;
    struct error err;
    long_mode(&in);
    in.tsc_offset = 77;
    assert_int_equal(round_trip(&in, &out, &err), 0);
    assert_int_equal(out.tsc_offset + 5000, 1077);
}

static void test_reset_states_are_accepted(void **state) {
    struct cpu_state in, out;
    struct error err;
    x86_state_reset(&in, true, false);
    assert_int_equal(round_trip(&in, &out, &err), 0);
    x86_state_reset(&in, false, false);
    assert_int_equal(round_trip(&in, &out, &err), 0);
    x86_state_sipi(&in, 0x9f);
    assert_int_equal(round_trip(&in, &out, &err), 0);
    x86_state_reset(&in, true, true);
    assert_int_equal(round_trip(&in, &out, &err), 0);
    long_mode(&in);
    assert_int_equal(round_trip(&in, &out, &err), 0);
}

// One field of a good state, changed.
#define X(field, v, reason)                                                                                            \
    { offsetof(struct cpu_state, field), sizeof(((struct cpu_state *)0)->field), v, reason }
static const struct {
    size_t offset, size;
    uint64_t value;
    const char *reason;
} bad[] = {
    X(cr0, 1ull << 32 | CR0_PG | CR0_PE, "CR0"),
    X(cr0, CR0_PG, "CR0"),
    X(cr0, CR0_PG | CR0_PE | CR0_NW, "CR0"),
    X(cr0, CR0_PE, "EFER.LMA"),
    X(cr4, CR4_PAE | 1ull << 12, "CR4"),
    X(cr4, CR4_PAE | CR4_SMAP, "CR4"), // not of this model
    X(cr4, 0, "CR4.PAE"),
    X(cr3, 1ull << 40, "CR3"),
    X(efer, EFER_LME | EFER_LMA | 2, "EFER"),
    X(efer, EFER_LMA, "EFER.LMA"),
    X(efer, EFER_LME, "EFER.LMA"),
    X(efer, 0, "PCIDE"),
    X(rflags, 0, "RFLAGS"),
    X(rflags, 2 | 1 << 15, "RFLAGS"),
    X(rflags, 2 | 1ull << 22, "RFLAGS"),
    X(rflags, 2 | RFLAGS_VM, "virtual-8086"),
    X(dr6, 1ull << 32, "DR6"),
    X(dr7, 1ull << 63, "DR6 or DR7"),
    X(seg[X86_DS].attr, 0x100, "attributes"),
    X(seg[X86_TR].attr, 0x2008b, "attributes"),
    X(seg[X86_CS].attr, 0xe09b, "code segment"),
    X(seg[X86_CS].attr, 0xc09b, "RIP"),
    X(seg[X86_CS].limit, 0xfffff000, "granularity"),
    X(seg[X86_DS].limit, 0x100000, "granularity"),
    X(seg[X86_SS].base, 1ull << 32, "base of a segment"),
    X(seg[X86_TR].base, NOT_CANONICAL, "base of a segment"),
    X(seg[X86_FS].base, NOT_CANONICAL, "FS or GS"),
    X(gdtr.base, NOT_CANONICAL, "GDTR"),
    X(idtr.base, 1ull << 63, "IDTR"),
    X(pat, 2, "PAT"),
    X(mtrr_def_type, 0x1006, "MTRR_DEF_TYPE"),
    X(mtrr_fixed[10], 0x0700, "fixed MTRR"),
    X(mtrr_base[7], 0x100, "variable MTRR"),
    X(mtrr_mask[0], 1ull << 40, "MTRR beyond"),
    X(lstar, NOT_CANONICAL, "canonical"),
    X(kernel_gs_base, NOT_CANONICAL, "canonical"),
    X(sysenter_eip, NOT_CANONICAL, "canonical"),
    X(fmask, 1ull << 32, "FMASK"),
    X(tsc_aux, 1ull << 32, "TSC_AUX"),
    X(xcr0, 0, "XCR0"),
    X(xcr0, 5, "XCR0"),
    X(xcr0, 0xe7, "XCR0"),
    X(xsave[26], 1, "MXCSR"),
    X(xsave[512], 8, "XSAVE"),
    X(xsave[527], 0x80, "XSAVE"), // compacted format
    X(xsave[575], 1, "XSAVE"),
    X(activity, X86_IN_SHUTDOWN + 1, "activity"),
    X(intr_shadow, 4, "pending"),
    X(nmi_pending, 2, "pending"),
    X(nmi_blocked, 0xff, "pending"),
    X(debug_pending, 2, "pending"),
    X(intr_taken, 2, "pending"),
    X(intr_vector, 32, "vector"),
    X(debug_pending_dr6, 1ull << 20, "debug trap"),
};

static void test_impossible_states_are_refused(void **state) {
    struct cpu_state in, out;
    struct error err;
    for (unsigned i = 0; i < NCHECKS(bad); i++) {
        long_mode(&in);
        memcpy((uint8_t *)&in + bad[i].offset, &bad[i].value, bad[i].size);
        if (round_trip(&in, &out, &err) != -EINVAL || !strstr(err.text, bad[i].reason))
            fail_msg("%u (%s): '%s'", i, bad[i].reason, err.text);
    }
}

static void test_truncated_and_unknown_versions(void **state) {
    struct cpu_state in, out;
    struct state_writer w = {0};
    struct error err;
    long_mode(&in);
    x86_state_save(&in, 0, &w);
    for (size_t len = 0; len < w.len; len++) {
        struct state_reader r = {.buf = w.buf, .len = len, .version = X86_STATE_VERSION};
        assert_int_equal(x86_state_load(&out, 0, &policy, &r, &err), -EINVAL);
        assert_non_null(strstr(err.text, "truncated"));
    }
    struct state_reader r = {.buf = w.buf, .len = w.len, .version = X86_STATE_VERSION + 1};
    assert_int_equal(x86_state_load(&out, 0, &policy, &r, &err), -EINVAL);
    assert_non_null(strstr(err.text, "version 2"));
    state_writer_free(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_field_survives),           cmocka_unit_test(test_the_guests_tsc_is_kept),
        cmocka_unit_test(test_reset_states_are_accepted),      cmocka_unit_test(test_impossible_states_are_refused),
        cmocka_unit_test(test_truncated_and_unknown_versions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
