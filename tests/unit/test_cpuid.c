// SPDX-License-Identifier: Apache-2.0
// The CPUID policy: what is hidden, what is offered, and the answers that depend on the vCPU's state.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86/cpuid.h"
#include "arch/x86/cpuid_models.h"
#include "arch/x86/state.h"

static struct cpuid_policy policy;
static uint32_t out[4];

static void build(enum cpu_model model, unsigned vcpus) {
    struct error err;

    assert_int_equal(cpuid_policy_init(&policy, model, vcpus, 2600000000ull, &err), 0);
}

static void query(unsigned vcpu, uint32_t function, uint32_t index) {
    cpuid_query(&policy, vcpu, 0, 1, function, index, out);
}

static void test_hidden_features(void **state) {
    static const enum cpu_model all[] = {CPU_MOVABLE, CPU_HOST, CPU_X86_64_V2};

    for (unsigned i = 0; i < 3; i++) {
        build(all[i], 2);
        query(0, 1, 0);
        assert_int_equal(out[2] & (BIT(3) | BIT(5) | BIT(27)), 0); // MONITOR, VMX, OSXSAVE with CR4 clear
        assert_true(out[2] & F1C_HYPERVISOR);
        query(0, 7, 0);
        assert_int_equal(out[1] & (BIT(4) | BIT(11) | BIT(14) | BIT(16)), 0); // HLE, RTM, MPX, AVX-512F
        assert_int_equal(out[2] & (BIT(3) | BIT(7) | BIT(16)), 0);            // PKU, CET, LA57
        assert_int_equal(out[3] & (BIT(20) | BIT(24)), 0);                    // CET, AMX
        query(0, 0xa, 0);
        assert_int_equal(out[0], 0);
        query(0, 0xd, 1);
        assert_int_equal(out[0] & BIT(3), 0); // XSAVES
        query(0, 0xd, 9);
        assert_int_equal(out[0] | out[1], 0);
    }
}

static void test_v2_has_no_avx_and_v3_is_refused_without(void **state) {
    struct cpu_features host = {0}, f;
    struct error err;

    build(CPU_X86_64_V2, 1);
    assert_false(policy.has_avx || policy.has_xsave);
    query(0, 1, 0);
    assert_int_equal(out[2] & (F1C_AVX | F1C_XSAVE | F1C_FMA), 0);
    host.word[FEAT_1_ECX] = ~0u & ~F1C_AVX;
    host.word[FEAT_7_EBX] = ~0u;
    host.word[FEAT_EXT1_ECX] = ~0u;
    assert_int_equal(cpu_features_model(CPU_X86_64_V3, &host, &f, &err), -22);
    assert_non_null(strstr(err.text, "avx"));
    assert_int_equal(cpu_features_model(CPU_MOVABLE, &host, &f, &err), 0);
    assert_int_equal(f.word[FEAT_1_ECX] & F1C_FMA, 0); // it needs AVX state
    assert_int_equal(f.word[FEAT_7_EBX] & F7B_AVX2, 0);
}

static void test_topology(void **state) {
    build(CPU_MOVABLE, 6);
    query(5, 1, 0);
    assert_int_equal(out[1] >> 24, 5);
    assert_int_equal(out[1] >> 16 & 0xff, 8);
    assert_true(out[3] & F1D_HTT);
    for (uint32_t leaf = 0xb; leaf; leaf = leaf == 0xb ? 0x1f : 0) {
        query(5, leaf, 0);
        assert_int_equal(out[0], 0);
        assert_int_equal(out[2], 1 << 8);
        query(5, leaf, 1);
        assert_int_equal(out[0], 3);
        assert_int_equal(out[1], 6);
        assert_int_equal(out[2], 2 << 8 | 1);
        assert_int_equal(out[3], 5);
        query(5, leaf, 2);
        assert_int_equal(out[0] | out[1], 0);
        assert_int_equal(out[2], 2); // level type 0: invalid
    }
    build(CPU_MOVABLE, 1);
    query(0, 1, 0);
    assert_false(out[3] & F1D_HTT);
}

static void test_dynamic_bits(void **state) {
    build(CPU_MOVABLE, 1);
    if (!policy.has_avx)
        skip();
    cpuid_query(&policy, 0, CR4_OSXSAVE, 7, 1, 0, out);
    assert_true(out[2] & F1C_OSXSAVE);
    cpuid_query(&policy, 0, CR4_OSXSAVE, 3, 0xd, 0, out);
    assert_int_equal(out[0], 7);
    assert_int_equal(out[1], 576);
    assert_int_equal(out[2], X86_XSAVE_SIZE);
    cpuid_query(&policy, 0, CR4_OSXSAVE, 7, 0xd, 0, out);
    assert_int_equal(out[1], X86_XSAVE_SIZE);
}

static void test_hypervisor_and_range(void **state) {
    uint32_t last[4];

    build(CPU_MOVABLE, 1);
    query(0, 0x40000000, 0);
    assert_memory_equal(&out[1], "KVMKVMKVM\0\0\0", 12);
    assert_int_equal(out[0], 0x40000010);
    query(0, 0x40000001, 0);
    assert_int_equal(out[0], BIT(1) | BIT(3) | BIT(24));
    query(0, 0x40000010, 0);
    assert_int_equal(out[0], 2600000);
    assert_int_equal(out[1], 1000000);
    query(0, 0x15, 0);
    assert_int_equal((uint64_t)out[2] * out[1] / out[0], 2600000000ull);
    assert_int_equal(out[2], 1000000000); // the APIC timer's clock
    assert_true((uint64_t)(out[2] / 1000) * out[1] <= UINT32_MAX);
    query(0, 0x80000008, 0);
    assert_int_equal(out[0], policy.phys_bits | 48 << 8);
    query(0, 0x80000007, 0);
    assert_true(out[3] & BIT(8));
    query(0, 0, 0);
    if (out[1] != 0x756e6547)
        skip(); // what follows is Intel's rule
    query(0, 0x1f, 0);
    memcpy(last, out, sizeof(last));
    query(0, 0x12345, 0);
    assert_memory_equal(out, last, sizeof(last));
}

static void test_mitigations_off_for_intel(void **state) {
    build(CPU_MOVABLE, 1);
    query(0, 0, 0);
    if (out[1] != 0x756e6547)
        skip();
    query(0, 7, 0);
    assert_true(out[3] & F7D_ARCH_CAP);
    assert_true(out[3] & F7D_SPEC_CTRL);
    assert_true(policy.arch_capabilities & 1);       // RDCL_NO: no PTI
    assert_true(policy.arch_capabilities & 2);       // IBRS_ALL: no retpolines
    assert_false(policy.arch_capabilities & 4);      // RSBA
    assert_true(policy.arch_capabilities >> 62 & 1); // ITS_NO
    assert_true(cpuid_policy_has_spec_ctrl(&policy));
}

static void test_model_names(void **state) {
    enum cpu_model m;

    assert_int_equal(cpu_model_parse("x86-64-v3", &m), 0);
    assert_int_equal(m, CPU_X86_64_V3);
    assert_true(cpu_model_parse("x86-64-v4", &m) < 0);
    assert_true(cpu_model_parse("", &m) < 0);
}

// What an engine lacks goes, with what rests on it; the machine's own (topology, hypervisor) stays.
static void test_limit(void **state) {
    const struct cpuid_leaf have[] = {
        {1, CPUID_NO_INDEX, 0, 0, ~F1C_XSAVE, UINT32_MAX},
        {7, 0, 0, ~F7B_SMEP, UINT32_MAX, UINT32_MAX},
        {0x80000001, CPUID_NO_INDEX, 0, 0, 0, UINT32_MAX},
    };

    build(CPU_HOST, 2);
    assert_true(policy.has_smep);
    cpuid_policy_limit(&policy, have, 3, "the test");
    query(0, 1, 0);
    assert_int_equal(out[2] & (F1C_XSAVE | F1C_AVX | F1C_FMA | F1C_F16C), 0);
    assert_true(out[2] & F1C_HYPERVISOR);
    assert_true(out[3] & F1D_HTT);
    query(0, 7, 0);
    assert_int_equal(out[1] & (F7B_SMEP | F7B_AVX2), 0);
    query(0, 0xd, 0);
    assert_int_equal(out[0] | out[2], 0);
    query(0, 0xd, 2);
    assert_int_equal(out[0] | out[1], 0);
    query(0, 0x80000007, 0); // a leaf that the engine does not have at all
    assert_int_equal(out[3], 0);
    assert_false(policy.has_smep || policy.has_avx || policy.has_xsave || policy.has_auto_ibrs);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hidden_features),
        cmocka_unit_test(test_v2_has_no_avx_and_v3_is_refused_without),
        cmocka_unit_test(test_topology),
        cmocka_unit_test(test_dynamic_bits),
        cmocka_unit_test(test_hypervisor_and_range),
        cmocka_unit_test(test_mitigations_off_for_intel),
        cmocka_unit_test(test_model_names),
        cmocka_unit_test(test_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
