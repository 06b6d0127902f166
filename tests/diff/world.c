// SPDX-License-Identifier: Apache-2.0
// The guest of the instruction tests: 4 MiB of RAM, page tables, an IDT whose every entry halts, three engines.
//
//   guest-physical                                     linear
//   0x001000 page tables, GDT, IDT, TSS, handlers      KERNEL_VA + gpa, supervisor
//   0x100000 code                                      CODE_VA, user, read-only, also in this process
//   0x200000 data                                      DATA_VA, user, also in this process
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "arch/x86/cpuid.h"
#include "core/nondet.h"
#include "tests/diff/diff.h"

#define RAM_BYTES   0x400000u
#define GPA_PML4    0x1000u
#define GPA_PDPT    0x2000u
#define GPA_PD      0x3000u
#define GPA_PT      0x4000u // of the first 2 MiB from CODE_VA
#define GPA_KPDPT   0x5000u
#define GPA_KPD     0x6000u
#define GPA_GDT     0x8000u
#define GPA_IDT     0x9000u
#define GPA_TSS     0xa000u
#define GPA_HANDLER 0xb000u // 16 bytes a vector
#define GPA_STACK   0xe000u // top of the stack of all handlers
#define GPA_DATA    0x200000u

// The selectors that Linux gives a process, so that code which reads them sees the same.
#define SEL_KCODE  0x10
#define SEL_KDATA  0x18
#define SEL_CODE32 0x23
#define SEL_DATA   0x2b
#define SEL_CODE64 0x33
#define SEL_TSS    0x40

struct world world;
const char *const engine_names[ENGINE_COUNT] = {"emulator", "translated", "translated, exact-flags", "KVM"};
static const char *const engine_features[ENGINE_COUNT] = {"emulate", NULL, "exact-flags", "irqchip=user"};
static struct nondet nondet;
static struct cpuid_policy policy;
static struct engine_host host;

const char *mode_name(enum code_mode m) {
    static const char *const names[] = {"64-bit, CPL 3", "32-bit, CPL 3", "64-bit, CPL 0"};
    return names[m];
}

static void die(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

// RW RW RW RW | RO | hole | RW RW | hole | RO RW | hole
enum page_kind data_page_kind(unsigned page) {
    static const uint8_t kinds[DATA_PAGES] = {PAGE_RW, PAGE_RW, PAGE_RW,   PAGE_RW, PAGE_RO, PAGE_HOLE,
                                              PAGE_RW, PAGE_RW, PAGE_HOLE, PAGE_RO, PAGE_RW, PAGE_HOLE};
    return (enum page_kind)kinds[page];
}

// ---- the interrupt controller that never has anything ----

static int chip_none(void *ctx) {
    return -1;
}
static uint32_t chip_no_events(void *ctx) {
    return 0;
}
static uint8_t chip_tpr_get(void *ctx) {
    return 0;
}
static void chip_tpr_set(void *ctx, uint8_t tpr) {}
static int chip_reg_read(void *ctx, uint32_t reg, uint64_t *val) {
    return -2;
}
static int chip_reg_write(void *ctx, uint32_t reg, uint64_t val) {
    return -2;
}
static void chip_eoi(void *ctx, uint8_t vector) {}
static void chip_reset(void *ctx, bool init) {}
static const struct irqchip_cpu_ops chip_ops = {chip_none,      chip_none,    chip_no_events,
                                                chip_tpr_get,   chip_tpr_set, chip_reg_read,
                                                chip_reg_write, chip_eoi,     chip_reset};
static const struct irqchip_cpu chip = {.ops = &chip_ops};

static void on_exit_request(void *ctx, unsigned vcpu, struct vm_exit *e) {
    if (e->reason == EXIT_PIO && !e->pio.write)
        e->pio.data = 0xffffffff;
    if (e->reason == EXIT_MMIO && !e->mmio.write)
        e->mmio.data = ~0ull;
}

// ---- tables ----

static void put64(uint32_t gpa, uint64_t v) {
    memcpy(world.ram + gpa, &v, 8);
}

static void make_page_tables(void) {
    put64(GPA_PML4, GPA_PDPT | 7);
    put64(GPA_PML4 + 8 * (KERNEL_VA >> 39 & 511), GPA_KPDPT | 3);
    put64(GPA_KPDPT, GPA_KPD | 3);
    put64(GPA_KPD, 0x83);
    put64(GPA_KPD + 8, 0x200083);
    put64(GPA_PDPT + 8 * (CODE_VA >> 30), GPA_PD | 7);
    put64(GPA_PD + 8 * (CODE_VA >> 21 & 511), GPA_PT | 7);
    for (unsigned i = 0; i < CODE_PAGES; i++)
        put64(GPA_PT + 8 * i, (GPA_CODE + i * 4096) | 5);
    for (unsigned i = 0; i < DATA_PAGES; i++)
        if (data_page_kind(i) != PAGE_HOLE)
            put64(GPA_PT + 8 * (unsigned)((DATA_VA - CODE_VA) / 4096 + i),
                  (GPA_DATA + i * 4096) | (data_page_kind(i) == PAGE_RW ? 7 : 5) | 1ull << 63);
}

static void make_gate(unsigned vector) {
    uint64_t at = KERNEL_VA + GPA_HANDLER + vector * 16;
    unsigned dpl = vector == 3 || vector == 4 ? 3 : 0; // as Linux has them
    put64(GPA_IDT + vector * 16,
          (at & 0xffff) | SEL_KCODE << 16 | 1ull << 32 | (0x8eull | dpl << 5) << 40 | (at >> 16 & 0xffff) << 48);
    put64(GPA_IDT + vector * 16 + 8, at >> 32);
    memcpy(world.ram + GPA_HANDLER + vector * 16, "\xf4\xeb\xfd", 3); // hlt; jmp to it
}

static void make_tables(void) {
    make_page_tables();
    put64(GPA_GDT + SEL_KCODE, 0x00af9b000000ffff);
    put64(GPA_GDT + SEL_KDATA, 0x00cf93000000ffff);
    put64(GPA_GDT + (SEL_CODE32 & ~7), 0x00cffb000000ffff);
    put64(GPA_GDT + (SEL_DATA & ~7), 0x00cff3000000ffff);
    put64(GPA_GDT + (SEL_CODE64 & ~7), 0x00affb000000ffff);
    for (unsigned v = 0; v < 256; v++)
        make_gate(v);
    put64(GPA_TSS + 0x24, KERNEL_VA + GPA_STACK); // IST1
    put64(GPA_TSS + 0x60, 0x68ull << 48);         // no I/O permission bitmap
}

// ---- RAM in this process ----

static void map_here(uint64_t va, uint32_t gpa, unsigned pages, int prot) {
    void *p = mmap((void *)va, pages * 4096ul, prot, MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE,
                   mem_slots(world.mem, &(unsigned){0})->fd, gpa);
    if (p != (void *)va)
        die("cannot map the guest's pages at their linear address");
    mlock(p, pages * 4096ul);
}

static void map_pages_here(void) {
    map_here(CODE_VA, GPA_CODE, CODE_PAGES, PROT_READ | PROT_EXEC);
    for (unsigned i = 0; i < DATA_PAGES; i++)
        if (data_page_kind(i) != PAGE_HOLE)
            map_here(DATA_VA + i * 4096, GPA_DATA + i * 4096, 1,
                     data_page_kind(i) == PAGE_RW ? PROT_READ | PROT_WRITE : PROT_READ);
}

// ---- engines ----

static const struct engine_ops *ops_of(unsigned i) {
    return i == ENGINE_KVM ? world.kvm : world.ops;
}

// CICADA_DIFF_KVM=all: the same code on this machine's /dev/kvm as well. CICADA_DIFF_KVM=64: only what a /dev/kvm
// without hardware runs natively: 64-bit code at CPL 3 that comes to its end, an UD2. Its emulator makes #UD of other
// exceptions.
bool world_compares(unsigned engine, const struct input *in, const struct outcome *bare) {
    if (engine != ENGINE_KVM || !strcmp(getenv("CICADA_DIFF_KVM"), "all"))
        return true;
    return in->mode == MODE_64 && bare->vector == X86_UD;
}

static void choose_engines(struct error *err) {
    uint64_t speed;
    world.engines = ENGINE_KVM;
    if (!getenv("CICADA_DIFF_KVM"))
        return;
    world.kvm = engine_find("kvm");
    if (!world.kvm)
        die("no engine kvm");
    if (world.kvm->probe(&speed, err)) {
        fprintf(stderr, "SKIP: %s\n", err->text);
        exit(77);
    }
    world.engines = ENGINE_COUNT;
}

static void create_engine(unsigned i, struct error *err) {
    struct engine_options opt = {.features = i == ENGINE_DEFAULT ? getenv("CICADA_DIFF_FEATURES") : engine_features[i]};
    if (ops_of(i)->create(&host, &opt, &world.engine[i], err) ||
        ops_of(i)->vcpu_create(world.engine[i], 0, &world.vcpu[i], err))
        die(err->text);
}

void world_create(void) {
    struct error err = {0};
    unsigned n;
    if (mem_create(&world.mem, &err) || mem_add_ram(world.mem, (gpa_t){0}, RAM_BYTES, "ram", &err))
        die(err.text);
    world.ram = mem_slots(world.mem, &n)->hva;
    nondet_init_live(&nondet);
    if (cpuid_policy_init(&policy, CPU_HOST, 1, nondet.tsc_hz, &err))
        die(err.text);
    host = (struct engine_host){.exit = on_exit_request,
                                .mem = world.mem,
                                .nondet = &nondet,
                                .irqchips = &chip,
                                .cpu_policy = &policy,
                                .vcpus = 1};
    world.ops = engine_find("xlate");
    if (!world.ops)
        die("no engine xlate");
    make_tables();
    memset(world.ram + GPA_CODE, 0xcc, CODE_PAGES * 4096);
    map_pages_here();
    choose_engines(&err);
    for (unsigned i = 0; i < world.engines; i++)
        create_engine(i, &err);
}

// ---- memory of a run ----

// Pages after the code's are missing: what would lie there is dropped.
static void write_code(uint64_t va, const uint8_t *bytes, unsigned len) {
    uint64_t room = CODE_VA + CODE_PAGES * 4096 - va;
    mem_write(world.mem, (gpa_t){GPA_CODE + va - CODE_VA}, bytes, len < room ? len : room);
}

void world_set_code(uint64_t va, const uint8_t *bytes, unsigned len) {
    static uint64_t last_va;
    static unsigned last_len;
    uint8_t fill[sizeof(((struct test_case *)0)->code)];
    memset(fill, 0xcc, sizeof(fill));
    if (last_len)
        write_code(last_va, fill, last_len);
    write_code(va, bytes, len);
    last_va = va;
    last_len = len;
}

void world_reset_data(void) {
    memcpy(world.ram + GPA_DATA, world.data, DATA_BYTES);
}

uint8_t *world_data_at(uint64_t va) {
    return va >= DATA_VA && va < DATA_VA + DATA_BYTES ? world.data + (va - DATA_VA) : NULL;
}

// ---- a run in the guest ----

static struct x86_segment code_segment(enum code_mode m) {
    static const struct x86_segment segments[] = {
        [MODE_64] = {.limit = 0xffffffff, .attr = 0xa0fb, .sel = SEL_CODE64},
        [MODE_32] = {.limit = 0xffffffff, .attr = 0xc0fb, .sel = SEL_CODE32},
        [MODE_64_KERNEL] = {.limit = 0xffffffff, .attr = 0xa09b, .sel = SEL_KCODE},
    };
    return segments[m];
}

static void control_registers(struct cpu_state *s) {
    s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
    s->cr3 = GPA_PML4;
    s->cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE;
    s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    s->xcr0 = 7;
}

void guest_state(const struct input *in, struct cpu_state *s) {
    bool kernel = in->mode == MODE_64_KERNEL;
    struct x86_segment data = {
        .limit = 0xffffffff, .attr = kernel ? 0xc093 : 0xc0f3, .sel = kernel ? SEL_KDATA : SEL_DATA};
    x86_state_reset(s, true, false);
    control_registers(s);
    memcpy(s->gpr, in->gpr, sizeof(s->gpr));
    s->rip = in->rip;
    s->rflags = in->rflags | RFLAGS_FIXED1;
    s->seg[X86_CS] = code_segment(in->mode);
    s->seg[X86_SS] = s->seg[X86_DS] = s->seg[X86_ES] = data;
    s->seg[X86_FS] = (struct x86_segment){.base = in->fs_base, .attr = SEG_UNUSABLE};
    s->seg[X86_GS] = (struct x86_segment){.base = in->gs_base, .attr = SEG_UNUSABLE};
    s->seg[X86_TR] = (struct x86_segment){.base = KERNEL_VA + GPA_TSS, .limit = 0x67, .attr = 0x8b, .sel = SEL_TSS};
    s->gdtr = (struct x86_table){.base = KERNEL_VA + GPA_GDT, .limit = 0x4f};
    s->idtr = (struct x86_table){.base = KERNEL_VA + GPA_IDT, .limit = 0xfff};
    memcpy(s->xsave, in->xsave, sizeof(in->xsave));
}

const uint8_t *world_frame(void) {
    return world.ram + GPA_STACK - 48;
}

const uint8_t *world_ram_data(void) {
    return world.ram + GPA_DATA;
}

static bool has_error_code(unsigned v) {
    return v == 8 || (v >= 10 && v <= 14) || v == 17;
}

static void read_frame(const struct cpu_state *s, struct outcome *out) {
    uint64_t frame[6];
    out->vector = (unsigned)(s->rip - 1 - KERNEL_VA - GPA_HANDLER) / 16;
    memcpy(frame, world.ram + GPA_STACK - 48, 48); // error, RIP, CS, RFLAGS, RSP, SS
    out->error = has_error_code(out->vector) ? (uint32_t)frame[0] : 0;
    out->rip = frame[1];
    out->rflags = frame[3];
    out->gpr[X86_RSP] = frame[4];
    out->cr2 = out->vector == X86_PF ? s->cr2 : 0;
}

void world_run(unsigned i, const struct input *in, uint64_t budget, struct cpu_state *s, struct vm_exit *e) {
    struct error err = {0};
    world_reset_data();
    guest_state(in, s);
    ops_of(i)->vcpu_enter_thread(world.vcpu[i], &err);
    ops_of(i)->set_state(world.vcpu[i], s, sizeof(*s));
    ops_of(i)->run(world.vcpu[i], budget, e);
    ops_of(i)->get_state(world.vcpu[i], s, sizeof(*s));
}

void world_run_guest(unsigned i, const struct input *in, struct outcome *out) {
    static struct cpu_state s;
    struct vm_exit e;
    uint64_t first = KERNEL_VA + GPA_HANDLER;
    out->failure[0] = 0;
    world_run(i, in, BUDGET_UNLIMITED, &s, &e);
    memcpy(out->gpr, s.gpr, sizeof(s.gpr));
    memcpy(out->xsave, s.xsave, sizeof(out->xsave));
    xsave_canonicalise(out->xsave);
    memcpy(out->data, world.ram + GPA_DATA, DATA_BYTES);
    if (e.reason == EXIT_HALT && s.rip > first && s.rip <= first + 256 * 16)
        read_frame(&s, out);
    else
        snprintf(out->failure, sizeof(out->failure), "run ends with %s %s, RIP %lx", exit_reason_name(e.reason),
                 e.reason == EXIT_FAIL ? e.fail.text : "", s.rip);
}
