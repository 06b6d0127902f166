// SPDX-License-Identifier: Apache-2.0
// The translator's working state for one block, shared by translate.c, emit_mem.c, emit_insn.c and emit_flow.c.
#ifndef CICADA_XLATE_TCTX_H
#define CICADA_XLATE_TCTX_H

#include "engine/xlate/asm.h"
#include "engine/xlate/tdecode.h"

#define TB_MAX_INSNS     32
#define TB_MAX_STUBS     160
#define TB_MAX_JCC       3
#define TB_MAX_JCC_LIMIT 16 // of the option

// Where the arithmetic flags are. FL_MEM: the host's are garbage; the value is in flags_mem, unless nobody needs it.
enum flags_at { FL_HOST, FL_BOTH, FL_MEM };

enum stub_kind { STUB_MISS, STUB_CONST_MISS, STUB_GROUP_MISS, STUB_EXIT, STUB_LEAVE, STUB_HOIST };

// Accesses that share a check, see group.c. Offsets are relative to the versions of the group's registers.
#define TB_GROUPS 8
struct group {
    int64_t start, end;
    bool write;        // some member writes
    bool first_writes; // the first does
    unsigned members;
};

// A host memory operand: [base + index * scale + disp], index NOREG: none.
struct hmem {
    int base, index;
    int32_t disp;
    unsigned scale; // log2
};

// Where an access leads to: with fixed sites, in their order, or anywhere.
enum place {
    PLACE_KERNEL_STACK,
    PLACE_USER_STACK,
    PLACE_THREAD,       // user code, FS or GS and a displacement,
    PLACE_THREAD_BELOW, // or a negative one
    PLACE_CPU,          // supervisor code, GS: four by the displacement's page
    PLACE_ANY = SITES_FIXED / 2,
};

// Out-of-line code at the end of the block.
struct stub {
    enum stub_kind kind;
    uint8_t *jump;    // rel32 in the body that leads here
    uint8_t insn;     // index of the instruction; set by emit_stub
    uint8_t *back;    // STUB_MISS: where the body goes on
    uint64_t tramp;   // of the misses
    uint64_t address; // STUB_CONST_MISS: guest address
    uint32_t tag;     // STUB_CONST_MISS: offset of the tag of slot 0
    uint32_t limit;   // with a site: last offset in the page that passes
    uint32_t site;    // offset of the struct site, 0: none
    uint32_t range;   // group misses: xcpu.group_range
    bool loop_site;   // it is not a fixed one
    bool in_group;    // STUB_CONST_MISS
    uint64_t target;  // STUB_EXIT, STUB_LEAVE, STUB_HOIST: guest address
    enum exit_kind exit;
    bool save_flags; // STUB_EXIT to another page: the flags are in the host's register and must be saved
};

struct tctx {
    struct xcpu *x;
    struct engine *engine;
    struct trampolines *tramps;
    uint32_t mode;
    bool is64;
    uint64_t page;           // linear page of the block
    struct code_page *page2; // struct tb
    struct emit e;
    uint8_t *cold, *cold_end; // writable space for stubs
    enum flags_at flags;
    bool insn_flags_in_host; // when the current instruction's own code runs, the flags are only in the host's
    struct tinsn *t;         // current
    struct stub stubs[TB_MAX_STUBS];
    unsigned nstubs;
    struct tinsn insns[TB_MAX_INSNS];
    unsigned ninsns;
    bool ungrouped; // make the variant without groups
    bool loop;      // hoist.c: the block is a loop that may run without checks; plan is filled
    bool hoisted;   // make that variant
    bool turns;     // lay it out as the head of a loop
    unsigned next_hoist;
    struct hoist_plan plan;
    uint8_t *header, *body; // executable addresses
    struct group groups[TB_GROUPS];
    unsigned ngroups;
    struct byte_range peeks[TB_MAX_JCC_LIMIT + 2];
    unsigned npeeks;
    bool sites;    // checks of this block remember their page
    bool any_site; // some check has done so
    unsigned next_site;
    int s0_group; // group whose host address is in S0 now, or NOGROUP
    struct tdecoder dec;
};

// group.c
void find_groups(struct tctx *c);

// hoist_header.c: code in front of the variant without checks that looks its pages up and falls into it, NULL where it
// cannot be written so. The block is current while the word at itlb is id.
uint8_t *hoist_header(struct tctx *c, uint32_t itlb, uint32_t id);

// hoist.c; the last three do something in the variant without checks only.
// hoist_analyse: does such a loop begin c's block? Fills c->plan, and ends the block with it. The flags must be dead at
// its start, which is for the caller to find out.
bool hoist_analyse(struct tctx *c);
struct hmem hoist_operand(struct tctx *c, const struct tinsn *t);
void hoist_prologue(struct tctx *c); // registers that the variant takes
void hoist_restore(struct tctx *c);  // and gives back where it is left; changes no flags

// emit_mem.c
// Host register that holds guest register `guest` for reading; displaced ones are loaded to scratch.
int address_reg(struct tctx *c, int guest, int scratch);
void emit_ea(struct tctx *c, const struct tinsn *t); // S0 = linear address of the operand (S1 clobbered)
// Offsets in struct xcpu of the tag and the host page in TLB slot 0 of the block's mode.
uint32_t tag_offset(const struct tctx *c, bool write);
uint32_t host_offset(const struct tctx *c);
void emit_check(struct tctx *c, unsigned size, bool write, enum place place); // S0 -> S1 = host page, S0 = offset
// Makes an access of the instruction and answers where it is on the host. May clobber S0, S1 and the host's flags.
struct hmem emit_operand_access(struct tctx *c, struct tinsn *t);
struct hmem emit_stack_access(struct tctx *c, struct tinsn *t, int guest_reg, int32_t disp, bool write);
struct hmem hmem_free_s1(struct tctx *c, struct hmem m); // the same operand without S1 in it
void op_hmem(struct tctx *c, bool w, unsigned opcode, int reg, struct hmem m);
static inline void s0_clobbered(struct tctx *c) {
    c->s0_group = NOGROUP;
}
void emit_stub(struct tctx *c, struct stub s);
bool has_check(const struct tinsn *t); // emits a TLB check or calls C: clobbers the host's flags
// Flags discipline.
void flags_before_check(struct tctx *c); // the next code clobbers the host's flags (S1 is free)
void flags_need_host(struct tctx *c, bool scratch_free);
void flags_need_mem(struct tctx *c); // S1 is free

// emit_insn.c
void emit_insn(struct tctx *c, struct tinsn *t);
int host_reg(int guest); // host register of a guest GPR, NOREG for the displaced ones
void emit_read_gpr(struct tctx *c, int host_dst, int guest, bool w);

// emit_string.c: calls of helpers, MOVS and STOS in place
void emit_string(struct tctx *c, struct tinsn *t);

// emit_sys.c
void emit_system(struct tctx *c, struct tinsn *t);

// emit_flow.c
void emit_flow(struct tctx *c, struct tinsn *t);
void emit_helper(struct tctx *c, struct tinsn *t);
void emit_exit(struct tctx *c, uint64_t target, uint64_t from_rip); // unconditional direct exit
void emit_indirect(struct tctx *c);                                 // to the guest address in S0

#endif
