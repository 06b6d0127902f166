// SPDX-License-Identifier: Apache-2.0
// Instruction tests whose oracle is the bare host CPU.
//
// One piece of code is run three ways from one input: natively in this process, in the emulator, and translated. All
// see the same bytes at the same linear addresses: the pages of the guest's RAM that the code and its data live in are
// mapped into this process as well. Every run ends with an exception - natively a signal - whose vector, error code,
// CR2 and saved registers are the outcome that is compared.
#ifndef CICADA_TESTS_DIFF_H
#define CICADA_TESTS_DIFF_H

#include <Zydis/Zydis.h>

#include "arch/x86/state.h"
#include "core/engine.h"

// ---- the linear addresses that guest and host share (world.c) ----
#define CODE_VA    0x20000000ull
#define CODE_PAGES 32
#define DATA_VA    0x20100000ull
#define DATA_PAGES 12                    // what each is: data_page_kind
#define GPA_CODE   0x100000u             // guest-physical, of CODE_VA
#define KERNEL_VA  0xffff888000000000ull // all guest RAM, for the guest's supervisor only

enum page_kind { PAGE_RW, PAGE_RO, PAGE_HOLE };
enum page_kind data_page_kind(unsigned page);
#define DATA_BYTES (DATA_PAGES * 4096u)

enum code_mode { MODE_64, MODE_32, MODE_64_KERNEL, MODE_COUNT };
const char *mode_name(enum code_mode m);

// What a run starts from. Memory comes from world.data.
struct input {
    enum code_mode mode;
    uint64_t gpr[16], rip, rflags, fs_base, gs_base;
    uint8_t xsave[X86_XSAVE_SIZE] __attribute__((aligned(64)));
};

struct outcome {
    uint64_t gpr[16], rip, rflags;
    unsigned vector;
    uint32_t error;
    uint64_t cr2;
    char failure[200]; // not empty: the engine did not end in an exception, why
    uint8_t xsave[X86_XSAVE_SIZE] __attribute__((aligned(64))); // all components in memory
    uint8_t data[DATA_BYTES];
};

enum { ENGINE_EMULATE, ENGINE_DEFAULT, ENGINE_EXACT, ENGINE_KVM, ENGINE_COUNT }; // KVM: only where it is asked for
extern const char *const engine_names[ENGINE_COUNT];

struct world {
    struct mem *mem;
    uint8_t *ram;
    uint8_t data[DATA_BYTES]; // contents of the data pages before each run
    const struct engine_ops *ops, *kvm;
    unsigned engines; // in use: ENGINE_KVM or ENGINE_COUNT
    struct engine *engine[ENGINE_COUNT];
    struct engine_vcpu *vcpu[ENGINE_COUNT];
};
extern struct world world;

void world_create(void);
// Replaces what the code pages hold from va on; the rest of them is INT3.
void world_set_code(uint64_t va, const uint8_t *bytes, unsigned len);
void world_reset_data(void);
bool world_compares(unsigned engine, const struct input *in, const struct outcome *host);
uint8_t *world_data_at(uint64_t va); // in world.data; NULL outside
// From the input to the end of the budget or of the guest.
void world_run(unsigned engine, const struct input *in, uint64_t budget, struct cpu_state *s, struct vm_exit *e);
const uint8_t *world_frame(void);    // what the last exception pushed, 48 bytes
const uint8_t *world_ram_data(void); // the data pages as the last run left them
void world_run_guest(unsigned engine, const struct input *in, struct outcome *out);
void guest_state(const struct input *in, struct cpu_state *s);

// ---- the bare CPU (bare.c) ----
void bare_init(void);
bool bare_interrupted(void); // in a signal handler: makes this process's own segment bases current; was code running?
void bare_run(const struct input *in, struct outcome *out);
// Components whose XSTATE_BV bit is clear get their initial values, so that areas can be compared.
void xsave_canonicalise(uint8_t *area);

// ---- random numbers (random.c) ----
void random_seed(uint64_t seed);
uint64_t random_u64(void);
unsigned random_below(unsigned n);
bool random_chance(unsigned percent);
uint64_t random_value(void); // values at the edges more often than chance would have them
void random_vector(uint8_t *p, unsigned len);
void random_xsave(uint8_t *area, bool mask_all);

// ---- instructions (templates.c, build.c) ----
enum insn_class {
    CLASS_INT,
    CLASS_FLOW,
    CLASS_STRING,
    CLASS_X87,
    CLASS_MMX,
    CLASS_SSE,
    CLASS_AVX,
    CLASS_PRIV,
    CLASS_COUNT
};
extern const char *const class_names[CLASS_COUNT];

struct insn_template {
    bool vex, mem, has_modrm;
    uint8_t map, opcode, pp, w, l;
    uint8_t reg;  // ModRM.reg, 0xff: any
    uint8_t byte; // x87 register forms: the whole ModRM, else 0
};
void templates_create(void);
unsigned templates_mnemonics(bool is64, enum insn_class c);
const struct insn_template *templates_pick(bool is64, enum insn_class c); // every mnemonic equally often
// The class of a decoded instruction, CLASS_COUNT when the tests leave it out.
enum insn_class insn_classify(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op);

struct decoded {
    uint8_t bytes[15];
    uint8_t len;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
};
bool decode(bool is64, const uint8_t *bytes, unsigned len, struct decoded *d);
void insn_text(const struct decoded *d, uint64_t rip, char *out, size_t size);

// Registers of a sequence that its instructions address memory by: not written, so that addresses stay sensible.
struct pointers {
    bool fixed; // false: a single instruction, whose registers are set to suit it
    uint8_t base[3];
    uint8_t index; // holds a small number
};
// Makes one instruction of a class that decodes at rip. false: this try gave none.
bool build_insn(bool is64, enum insn_class c, uint64_t rip, const struct pointers *p, struct decoded *d);

// ---- operands (operands.c) ----
void input_random(struct input *in, enum code_mode mode, bool mask_fp);
// Sets registers and memory so that the instruction's accesses and branches go where tests want them.
void input_suit(struct input *in, const struct decoded *d);

uint64_t pick_address(unsigned size, bool low); // low: below 4 GiB
uint64_t code_address(void);

// ---- sequences (sequence.c) ----
struct test_case;
// Makes 2 to 6 instructions and an input for them.
bool sequence_build(struct test_case *t, struct input *in, enum code_mode mode);
void sequence_input(const struct test_case *t, struct input *in, enum code_mode mode);
// A longer one for supervisor mode, with system instructions among the others; to be compared between engines.
bool program_build(struct test_case *t, struct input *in);
bool differs_at_cpl0(const struct decoded *d); // selectors are others, more is allowed

// ---- loops (loops.c) ----
void loop_build(struct test_case *t);
void loop_input(const struct test_case *t, struct input *in);

// ---- lockstep (lockstep.c) ----
bool lockstep_once(struct test_case *t, struct input *in, uint64_t *compared);
unsigned lockstep_finished(void); // percent of the programs that ran to their end

// ---- comparison (compare.c) ----
struct test_case {
    uint8_t code[1280];
    unsigned len;
    unsigned ninsns;
    uint16_t offset[96]; // of each instruction
    uint8_t size[96];
    uint64_t va;
    struct pointers pointers; // of a sequence
    int counter;              // register that counts a loop, -1 for none
};
// true when the engine's outcome is the host's; else fills why.
bool outcome_equal(const struct input *in, const struct outcome *host, const struct outcome *got, unsigned engine,
                   const struct test_case *t, char *why, size_t size);
void case_print(const struct test_case *t, const struct input *in, const struct outcome *host,
                const struct outcome *got, const char *engine, const char *why);

#endif
