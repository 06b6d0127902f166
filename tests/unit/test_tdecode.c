// SPDX-License-Identifier: Apache-2.0
// What the translator lets run natively on the host: every opcode of the four maps with all ModRM bytes and the common
// prefixes. It must be computation only: an instruction that asks the host's kernel, its ports, its segments, its flags
// IF, TF, DF or IOPL, or its control registers for anything would be the guest's way out of the translator.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "engine/xlate/tdecode.h"

// The only thing that tdecode asks for: a processor with everything.
const struct cpuid_policy *xcpu_policy(const struct xcpu *x) {
    static struct cpuid_policy p = {.has_smap = true};

    (void)x;
    return &p;
}

static const char *const harmless[] = {
    "BINARY",    "LOGICAL", "DATAXFER",   "SSE",   "AVX",        "AVX2",      "VFMA",       "X87_ALU",
    "MMX",       "SHIFT",   "ROTATE",     "SETCC", "CMOV",       "BITBYTE",   "AES",        "SHA",
    "SEMAPHORE", "FCMOV",   "BMI1",       "BMI2",  "LZCNT",      "PCLMULQDQ", "CONVERT",    "ADOX_ADCX",
    "FMA4",      "DECIMAL", "LOGICAL_FP", "VAES",  "VPCLMULQDQ", "GFNI",      "AVX2GATHER", "BROADCAST",
};
static const ZydisMnemonic harmless_others[] = {
    ZYDIS_MNEMONIC_SAHF,   ZYDIS_MNEMONIC_LAHF,  ZYDIS_MNEMONIC_CMC,     ZYDIS_MNEMONIC_CLC,
    ZYDIS_MNEMONIC_STC,    ZYDIS_MNEMONIC_PAUSE, ZYDIS_MNEMONIC_LFENCE,  ZYDIS_MNEMONIC_MFENCE,
    ZYDIS_MNEMONIC_SFENCE, ZYDIS_MNEMONIC_LEA,   ZYDIS_MNEMONIC_CRC32,   ZYDIS_MNEMONIC_POPCNT,
    ZYDIS_MNEMONIC_MOVBE,  ZYDIS_MNEMONIC_EMMS,  ZYDIS_MNEMONIC_LDMXCSR, ZYDIS_MNEMONIC_STMXCSR,
};

static bool names_system_register(const struct tdecoder *d) {
    for (unsigned i = 0; i < d->z.operand_count_visible; i++) {
        ZydisRegisterClass c = ZydisRegisterGetClass(d->op[i].reg.value);

        if (d->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            (c == ZYDIS_REGCLASS_SEGMENT || c == ZYDIS_REGCLASS_CONTROL || c == ZYDIS_REGCLASS_DEBUG))
            return true;
    }
    return false;
}

static bool is_harmless(const struct tdecoder *d) {
    const ZydisDecodedInstruction *z = &d->z;
    const char *category = ZydisCategoryGetString(z->meta.category);

    if (names_system_register(d) || (z->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED))
        return false;
    for (unsigned i = 0; i < sizeof(harmless_others) / sizeof(*harmless_others); i++)
        if (z->mnemonic == harmless_others[i])
            return true;
    for (unsigned i = 0; i < sizeof(harmless) / sizeof(*harmless); i++)
        if (!strcmp(category, harmless[i]))
            return true;
    return false;
}

static bool is_native(const struct tinsn *t) {
    switch (t->cls) {
    case T_COPY:
    case T_MEM:
    case T_LEA:
    case T_MOFFS:
    case T_BT_MEM: return true;
    default: return false;
    }
}

static struct xcpu cpu;
static struct tdecoder decoder;

// Every byte after the opcode once; the rest of the instruction is zero.
static unsigned check_opcode(const uint8_t *front, unsigned n) {
    unsigned native = 0;

    for (unsigned modrm = 0; modrm < 256; modrm++) {
        struct tinsn t = {.rip = 0x1000};

        memcpy(t.bytes, front, n);
        t.bytes[n] = (uint8_t)modrm;
        if (!tdecode(&decoder, &cpu, &t, 15) || !is_native(&t))
            continue;
        native++;
        if (!is_harmless(&decoder))
            fail_msg("%s (%s) would run natively, mode %#x", ZydisMnemonicGetString(decoder.z.mnemonic),
                     ZydisCategoryGetString(decoder.z.meta.category), cpu.tb_mode);
    }
    return native;
}

static void test_native_is_harmless(void **state) {
    static const uint8_t prefixes[] = {0, 0x66, 0xf2, 0xf3, 0x48, 0x67, 0xf0};
    static const uint8_t maps[4][3] = {{0}, {1, 0x0f}, {2, 0x0f, 0x38}, {2, 0x0f, 0x3a}};
    static const uint32_t modes[] = {TBM_64, TBM_64 | TBM_USER | TLB_USER << TBM_KIND_SHIFT, TBM_32,
                                     TBM_32 | TBM_USER | TLB_USER << TBM_KIND_SHIFT};
    unsigned native = 0;

    (void)state;
    tdecode_init(&decoder);
    for (unsigned m = 0; m < 4; m++)
        for (unsigned p = 0; p < sizeof(prefixes); p++)
            for (unsigned map = 0; map < 4; map++)
                for (unsigned op = 0; op < 256; op++) {
                    uint8_t front[5];
                    unsigned n = 0;

                    cpu.tb_mode = modes[m];
                    if (prefixes[p])
                        front[n++] = prefixes[p];
                    memcpy(front + n, maps[map] + 1, maps[map][0]);
                    n += maps[map][0];
                    front[n++] = (uint8_t)op;
                    native += check_opcode(front, n);
                }
    assert_true(native > 100000); // else it is not the translator that was looked at
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_native_is_harmless)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
