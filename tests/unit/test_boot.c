// SPDX-License-Identifier: Apache-2.0
// Boot protocols on synthetic images: what lands in guest memory, which CPU state comes out, and that broken images
// are refused with a text that names the fault.
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "boot/image.h"
#include "boot/le.h"
#include "temp.h"

#define MIB  (1ull << 20)
#define RAM  (64 * MIB)
#define RSDP 0xe0000

static struct mem *guest_create(uint64_t ram) {
    struct error err = {0};
    struct mem *mem = NULL;
    assert_int_equal(mem_create(&mem, &err), 0);
    assert_int_equal(mem_add_ram(mem, GPA(0), ram, "ram", &err), 0);
    return mem;
}

static uint64_t guest_get(struct mem *mem, uint64_t gpa, unsigned bytes) {
    uint64_t v = 0;
    assert_int_equal(mem_read(mem, GPA(gpa), &v, bytes), 0);
    return v;
}

static void machine_fill(struct boot_machine *bm, uint64_t ram) {
    boot_machine_init(bm, ram, 0xe0000000, MIB, 1, RSDP);
}

// ---- images ----

// 2 KiB setup, `code` bytes of kernel filled with 0xcc, wants 4 MiB at 16 MiB.
static struct boot_blob make_bzimage(size_t code) {
    size_t size = 4 * 512 + code;
    uint8_t *b = calloc(1, size);
    assert_non_null(b);
    memset(b + 4 * 512, 0xcc, code);
    b[0x1f1] = 3;
    le32_put(b + 0x1f4, (uint32_t)((code + 15) / 16));
    le16_put(b + 0x1fe, 0xaa55);
    b[0x200] = 0xeb;
    b[0x201] = 0x66; // header ends at 0x268
    memcpy(b + 0x202, "HdrS", 4);
    le16_put(b + 0x206, 0x20f);
    b[0x211] = 0x01 | 0x20 | 0x40;
    le32_put(b + 0x22c, 0x7fffffff);
    le32_put(b + 0x230, 0x200000);
    b[0x234] = 1;
    le16_put(b + 0x236, 1); // XLF_KERNEL_64
    le32_put(b + 0x238, 2047);
    le64_put(b + 0x258, 16 * MIB);
    le32_put(b + 0x260, 4 * MIB);
    return (struct boot_blob){.data = b, .size = size};
}

#define ELF_CODE_PADDR  0x200000ull
#define ELF_NOTE_OFFSET 0x200
#define ELF_CODE_OFFSET 0x400
#define ELF_SIZE        0x800

// ELF64 with a note segment and one loadable one: 0x400 bytes in the file, 0x1000 in memory.
static struct boot_blob make_elf64(uint16_t machine, bool pvh, uint64_t vaddr) {
    uint8_t *b = calloc(1, ELF_SIZE);
    assert_non_null(b);
    Elf64_Ehdr h = {.e_type = ET_EXEC,
                    .e_machine = machine,
                    .e_version = 1,
                    .e_entry = ELF_CODE_PADDR + 0x10,
                    .e_phoff = sizeof(h),
                    .e_phentsize = sizeof(Elf64_Phdr),
                    .e_phnum = 2};
    memcpy(h.e_ident, ELFMAG, SELFMAG);
    h.e_ident[EI_CLASS] = ELFCLASS64;
    h.e_ident[EI_DATA] = ELFDATA2LSB;
    Elf64_Phdr p[2] = {
        {.p_type = PT_LOAD,
         .p_offset = ELF_CODE_OFFSET,
         .p_vaddr = vaddr,
         .p_paddr = ELF_CODE_PADDR,
         .p_filesz = 0x400,
         .p_memsz = 0x1000},
        {.p_type = pvh ? PT_NOTE : PT_NULL, .p_offset = ELF_NOTE_OFFSET, .p_filesz = 0x40, .p_align = 4},
    };
    memcpy(b, &h, sizeof(h));
    memcpy(b + sizeof(h), p, sizeof(p));
    uint8_t *n = b + ELF_NOTE_OFFSET; // one foreign note, then the PVH one
    le32_put(n, 5), le32_put(n + 4, 3), le32_put(n + 8, 7), memcpy(n + 12, "Test", 5);
    n += 12 + 8 + 4;
    le32_put(n, 4), le32_put(n + 4, 8), le32_put(n + 8, 18), memcpy(n + 12, "Xen", 4);
    le64_put(n + 16, ELF_CODE_PADDR + 0x20);
    memset(b + ELF_CODE_OFFSET, 0x90, 0x400);
    return (struct boot_blob){.data = b, .size = ELF_SIZE};
}

static Elf64_Phdr *elf_phdr(struct boot_blob f, unsigned i) {
    return (Elf64_Phdr *)(f.data + sizeof(Elf64_Ehdr)) + i;
}

// a.out kludge: header at 0x10, loads the whole file at 1 MiB with 64 KiB of bss.
static struct boot_blob make_multiboot(void) {
    size_t size = 0x1000;
    uint8_t *b = calloc(1, size);
    assert_non_null(b);
    memset(b + 0x100, 0x90, size - 0x100);
    uint8_t *h = b + 0x10;
    le32_put(h, 0x1badb002), le32_put(h + 4, 0x10003), le32_put(h + 8, 0u - 0x1badb002u - 0x10003u);
    le32_put(h + 12, 0x100010), le32_put(h + 16, 0x100000), le32_put(h + 20, 0);
    le32_put(h + 24, 0x110000), le32_put(h + 28, 0x100100);
    return (struct boot_blob){.data = b, .size = size};
}

// ---- helpers ----

static int open_image(struct boot_blob kernel, enum boot_protocol p, const char *cmdline, size_t initrd_size,
                      struct boot_image **img, struct error *err) {
    struct boot_config cfg = {.kernel = "dir/kernel", .cmdline = cmdline, .protocol = p};
    struct boot_blob initrd = {.data = NULL, .size = initrd_size};
    if (initrd_size) {
        uint8_t *d = malloc(initrd_size);
        assert_non_null(d);
        memset(d, 0x5a, initrd_size);
        initrd.data = d;
        cfg.initrd = "dir/initrd";
    }
    memset(err, 0, sizeof(*err));
    return boot_open_buffers(&cfg, kernel, &initrd, initrd_size ? 1 : 0, img, err);
}

static struct boot_image *open_good(struct boot_blob kernel, enum boot_protocol p, const char *cmdline,
                                    size_t initrd_size) {
    struct error err;
    struct boot_image *img = NULL;
    if (open_image(kernel, p, cmdline, initrd_size, &img, &err))
        fail_msg("%s", err.text);
    return img;
}

static void expect_bad(struct boot_blob kernel, enum boot_protocol p, const char *text) {
    struct error err;
    struct boot_image *img = NULL;
    assert_int_equal(open_image(kernel, p, "", 0, &img, &err), -EINVAL);
    assert_int_equal(err.code, -EINVAL);
    if (!strstr(err.text, text) || !strstr(err.text, "dir/kernel"))
        fail_msg("'%s' does not say '%s'", err.text, text);
}

static void load_good(struct boot_image *img, struct mem *mem, uint64_t ram, struct boot_entry *e) {
    struct boot_machine bm;
    struct error err = {0};
    machine_fill(&bm, ram);
    if (boot_check(img, &bm, &err) || boot_load(img, mem, &bm, e, &err))
        fail_msg("%s", err.text);
}

static void expect_no_fit(struct boot_image *img, uint64_t ram, const char *text) {
    struct boot_machine bm;
    struct error err = {0};
    machine_fill(&bm, ram);
    assert_int_equal(boot_check(img, &bm, &err), -EINVAL);
    if (!strstr(err.text, text))
        fail_msg("'%s' does not say '%s'", err.text, text);
}

// ---- memory map ----

static void test_memory_map(void **state) {
    struct boot_machine bm;
    machine_fill(&bm, 512 * MIB);
    assert_int_equal(bm.e820_count, 4);
    assert_int_equal(bm.e820[0].size, 0x9fc00);
    assert_int_equal(bm.e820[1].base + bm.e820[1].size, 0x100000);
    assert_int_equal(bm.e820[2].base + bm.e820[2].size, 512 * MIB);
    assert_int_equal(bm.e820[3].base, 0xe0000000);

    machine_fill(&bm, 8192 * MIB);
    assert_int_equal(bm.ram_low, 3072 * MIB);
    assert_int_equal(bm.ram_high, 5120 * MIB);
    assert_int_equal(bm.e820[2].base + bm.e820[2].size, 0xc0000000);
    assert_int_equal(bm.e820[4].base, 0x100000000);
    assert_int_equal(bm.e820[4].size, 5120 * MIB);

    machine_fill(&bm, 0x10000); // less than the hole: no entry with a negative size
    assert_int_equal(bm.e820[0].size, 0x10000);
    assert_int_equal(bm.e820[2].base, 0xe0000000);
}

static void test_layout(void **state) {
    struct boot_machine bm;
    struct boot_layout l;
    struct error err = {0};
    uint64_t gpa = 0;
    machine_fill(&bm, RAM);
    layout_init(&l, NULL, &bm);
    assert_int_equal(layout_claim(&l, 0x100000, 0x1000, "a", &err), 0);
    assert_int_equal(layout_claim(&l, 0x100fff, 1, "b", &err), -EINVAL);
    assert_non_null(strstr(err.text, "overlaps a"));
    assert_int_equal(layout_claim(&l, 0x101000, 1, "b", &err), 0);
    assert_int_equal(layout_claim(&l, 0x9fbff, 2, "c", &err), -EINVAL); // into the BIOS hole
    assert_int_equal(layout_claim(&l, RAM - 1, 2, "c", &err), -EINVAL);
    assert_int_equal(layout_claim(&l, UINT64_MAX, 2, "c", &err), -EINVAL);
    // Highest place, then below what is taken.
    assert_int_equal(layout_put_high(&l, UINT32_MAX, "x", 0x1800, "d", &gpa, &err), 0);
    assert_int_equal(gpa, RAM - 0x2000);
    assert_int_equal(layout_put_high(&l, UINT32_MAX, "x", 0x1000, "e", &gpa, &err), 0);
    assert_int_equal(gpa, RAM - 0x3000);
    assert_int_equal(layout_put_high(&l, 0x102fff, "x", 0x1000, "f", &gpa, &err), 0);
    assert_int_equal(gpa, 0x102000);
    assert_int_equal(layout_put_high(&l, 0x102fff, "x", 0x1000, "g", &gpa, &err), -EINVAL);
    assert_int_equal(layout_put_high(&l, UINT32_MAX, "x", RAM, "h", &gpa, &err), -EINVAL);
}

// ---- bzImage ----

static void test_bzimage64(void **state) {
    struct mem *mem = guest_create(RAM);
    struct boot_image *img = open_good(make_bzimage(0x3000), BOOT_AUTO, "console=ttyS0", 0x1234);
    struct boot_entry e;
    assert_int_equal(boot_image_protocol(img), BOOT_BZIMAGE64);
    load_good(img, mem, RAM, &e);

    assert_int_equal(e.mode, BOOT_LONG64);
    assert_int_equal(e.rip, 16 * MIB + 0x200);
    assert_int_equal(guest_get(mem, 16 * MIB, 4), 0xcccccccc);
    assert_int_equal(guest_get(mem, 16 * MIB + 0x2fff, 1), 0xcc);
    assert_int_equal(guest_get(mem, 16 * MIB + 0x3000, 1), 0);
    // Segments and GDT say the same.
    assert_int_equal(e.cs.selector, 0x10);
    assert_int_equal(e.ds.selector, 0x18);
    assert_int_equal(guest_get(mem, e.gdt_base + 0x10, 8), 0x00af9b000000ffff);
    assert_int_equal(guest_get(mem, e.gdt_base + 0x18, 8), 0x00cf93000000ffff);
    // Page tables: the last 2 MiB of 4 GiB map to themselves.
    uint64_t pdpt = guest_get(mem, e.cr3, 8) & ~0xfffull, pd = guest_get(mem, pdpt + 3 * 8, 8) & ~0xfffull;
    assert_int_equal(guest_get(mem, pd + 511 * 8, 8), 0xffe00083);
    assert_int_equal(guest_get(mem, pdpt + 4 * 8, 8), 0);
    // Zero page.
    uint64_t zp = e.rsi, initrd = guest_get(mem, zp + 0x218, 4);
    assert_int_equal(guest_get(mem, zp + 0x202, 4), 0x53726448);
    assert_int_equal(guest_get(mem, zp + 0x210, 1), 0xff);
    assert_int_equal(guest_get(mem, zp + 0x211, 1), 0x01); // quiet and keep-segments cleared
    assert_int_equal(guest_get(mem, zp + 0x070, 8), RSDP);
    assert_int_equal(guest_get(mem, zp + 0x1e8, 1), 4);
    assert_int_equal(guest_get(mem, zp + 0x2d0 + 2 * 20, 8), 0x100000);
    assert_int_equal(guest_get(mem, zp + 0x268, 8), 0); // behind the end of the header
    char line[14];
    assert_int_equal(mem_read(mem, GPA(guest_get(mem, zp + 0x228, 4)), line, sizeof(line)), 0);
    assert_string_equal(line, "console=ttyS0");
    // Initrd: page aligned, at the top, whole.
    assert_int_equal(initrd, RAM - 0x2000);
    assert_int_equal(guest_get(mem, zp + 0x21c, 4), 0x1234);
    assert_int_equal(guest_get(mem, initrd + 0x1233, 1), 0x5a);
    assert_int_equal(guest_get(mem, initrd + 0x1234, 1), 0);

    // A reset loads the same again over what the guest has done.
    uint64_t junk = 0x1122334455667788;
    mem_write(mem, GPA(16 * MIB + 0x200), &junk, 8);
    mem_write(mem, GPA(zp), &junk, 8);
    load_good(img, mem, RAM, &e);
    assert_int_equal(guest_get(mem, 16 * MIB + 0x200, 8), 0xcccccccccccccccc);
    assert_int_equal(guest_get(mem, zp, 8), 0);
    boot_close(img);
    mem_destroy(mem);
}

static void test_bzimage32(void **state) {
    struct mem *mem = guest_create(RAM);
    struct boot_blob k = make_bzimage(0x1000);
    le16_put((uint8_t *)k.data + 0x236, 0); // 32-bit kernel: AUTO takes the 32-bit entry
    struct boot_image *img = open_good(k, BOOT_AUTO, NULL, 0);
    struct boot_entry e;
    assert_int_equal(boot_image_protocol(img), BOOT_BZIMAGE32);
    load_good(img, mem, RAM, &e);
    assert_int_equal(e.mode, BOOT_PROT32_FLAT);
    assert_int_equal(e.rip, 16 * MIB);
    assert_int_equal(e.rsi, 0x7000);
    assert_int_equal(e.rbx | e.rdi | e.rbp, 0); // boot.rst: these must be 0
    assert_int_equal(guest_get(mem, e.gdt_base + 0x10, 8), 0x00cf9b000000ffff);
    assert_int_equal(guest_get(mem, e.rsi + 0x21c, 4), 0);
    boot_close(img);
    mem_destroy(mem);
}

static void test_bzimage_old_protocol(void **state) {
    struct mem *mem = guest_create(RAM);
    struct boot_blob k = make_bzimage(0x1000);
    le16_put((uint8_t *)k.data + 0x206, 0x206); // knows no pref_address, xloadflags, payload
    struct boot_image *img = open_good(k, BOOT_AUTO, NULL, 0);
    struct boot_entry e;
    load_good(img, mem, RAM, &e);
    assert_int_equal(e.mode, BOOT_PROT32_FLAT);
    assert_int_equal(e.rip, MIB);
    boot_close(img);
    mem_destroy(mem);
}

static struct boot_blob bad_bzimage(size_t at, uint64_t value, unsigned bytes) {
    struct boot_blob k = make_bzimage(0x1000);
    memcpy((uint8_t *)k.data + at, &value, bytes);
    return k;
}

static void test_bzimage_bad(void **state) {
    struct boot_blob k = make_bzimage(0x1000);
    k.size -= 16;
    expect_bad(k, BOOT_AUTO, "truncated");
    k = make_bzimage(0x1000);
    k.size = 0x240;
    expect_bad(k, BOOT_AUTO, "truncated");
    expect_bad(bad_bzimage(0x206, 0x205, 2), BOOT_AUTO, "too old");
    expect_bad(bad_bzimage(0x211, 0, 1), BOOT_AUTO, "zImage");
    expect_bad(bad_bzimage(0x1f4, 0, 4), BOOT_AUTO, "syssize");
    expect_bad(bad_bzimage(0x1f4, UINT32_MAX, 4), BOOT_AUTO, "truncated");
    expect_bad(bad_bzimage(0x1f1, 255, 1), BOOT_AUTO, "truncated");
    expect_bad(bad_bzimage(0x1fe, 0, 2), BOOT_AUTO, "setup header");
    expect_bad(bad_bzimage(0x248, UINT32_MAX, 4), BOOT_AUTO, "payload");
    expect_bad(bad_bzimage(0x24c, 0x1001, 4), BOOT_AUTO, "payload");
    expect_bad(bad_bzimage(0x236, 0, 2), BOOT_BZIMAGE64, "no 64-bit entry");
    expect_bad(make_bzimage(0x1000), BOOT_MULTIBOOT, "cannot be booted by protocol 'multiboot'");
    expect_bad(make_bzimage(0x1000), BOOT_PAYLOAD, "payload");
}

static void test_bzimage_no_fit(void **state) {
    struct boot_image *img = open_good(make_bzimage(0x1000), BOOT_AUTO, NULL, 0);
    expect_no_fit(img, 20 * MIB - 4096, "kernel needs 0x1000000..0x13fffff"); // init_size counts
    expect_no_fit(img, 0, "not all memory");
    boot_close(img);

    img = open_good(make_bzimage(0x1000), BOOT_AUTO, NULL, 45 * MIB);
    expect_no_fit(img, RAM, "initrd 'dir/initrd': initrd of 46080 KiB does not fit");
    boot_close(img);
    img = open_good(make_bzimage(0x1000), BOOT_AUTO, NULL, 43 * MIB);
    struct boot_machine bm;
    struct error err = {0};
    machine_fill(&bm, RAM);
    assert_int_equal(boot_check(img, &bm, &err), 0);
    boot_close(img);

    // Load addresses that overflow or hit what is reserved.
    img = open_good(bad_bzimage(0x258, UINT64_MAX - 0x100, 8), BOOT_AUTO, NULL, 0);
    expect_no_fit(img, RAM, "above 4 GiB");
    boot_close(img);
    img = open_good(bad_bzimage(0x258, 0x7000, 8), BOOT_AUTO, NULL, 0);
    expect_no_fit(img, RAM, "kernel");
    boot_close(img);
}

static void test_cmdline_limit(void **state) {
    char line[3000];
    struct error err;
    struct boot_image *img = NULL;
    memset(line, 'x', sizeof(line));
    line[2047] = 0;
    boot_close(open_good(make_bzimage(0x1000), BOOT_AUTO, line, 0));
    line[2047] = 'x';
    line[2048] = 0;
    assert_int_equal(open_image(make_bzimage(0x1000), BOOT_AUTO, line, 0, &img, &err), -EINVAL);
    assert_non_null(strstr(err.text, "2048 bytes, the kernel takes at most 2047"));
}

// ---- ELF ----

static void test_pvh(void **state) {
    struct mem *mem = guest_create(RAM);
    struct boot_image *img = open_good(make_elf64(EM_X86_64, true, ELF_CODE_PADDR), BOOT_AUTO, "hello", 0x1000);
    struct boot_entry e;
    uint64_t junk = UINT64_MAX;
    assert_int_equal(boot_image_protocol(img), BOOT_PVH);
    mem_write(mem, GPA(ELF_CODE_PADDR + 0x800), &junk, 8); // bss must be cleared
    load_good(img, mem, RAM, &e);
    assert_int_equal(e.mode, BOOT_PROT32_FLAT);
    assert_int_equal(e.rip, ELF_CODE_PADDR + 0x20);
    assert_int_equal(e.tr.limit, 0x67);
    assert_int_equal(guest_get(mem, ELF_CODE_PADDR + 0x3ff, 1), 0x90);
    assert_int_equal(guest_get(mem, ELF_CODE_PADDR + 0x400, 1), 0);
    assert_int_equal(guest_get(mem, ELF_CODE_PADDR + 0x800, 8), 0);

    uint64_t si = e.rbx;
    assert_int_equal(guest_get(mem, si, 4), 0x336ec578);
    assert_int_equal(guest_get(mem, si + 4, 4), 1);
    assert_int_equal(guest_get(mem, si + 12, 4), 1);
    uint64_t mod = guest_get(mem, si + 16, 8), map = guest_get(mem, si + 40, 8);
    assert_int_equal(guest_get(mem, mod, 8), RAM - 0x1000);
    assert_int_equal(guest_get(mem, mod + 8, 8), 0x1000);
    assert_int_equal(guest_get(mem, guest_get(mem, si + 24, 8), 4), 0x6c6c6568); // "hell"
    assert_int_equal(guest_get(mem, si + 32, 8), RSDP);
    assert_int_equal(guest_get(mem, si + 48, 4), 4);
    assert_int_equal(guest_get(mem, map + 24 + 16, 4), 2); // second entry is reserved
    boot_close(img);
    mem_destroy(mem);
}

static void test_elf_linux(void **state) {
    struct mem *mem = guest_create(RAM);
    struct boot_image *img = open_good(make_elf64(EM_X86_64, false, 0xffffffff81000000), BOOT_AUTO, "a=b", 0);
    struct boot_entry e;
    assert_int_equal(boot_image_protocol(img), BOOT_ELF64);
    load_good(img, mem, RAM, &e);
    assert_int_equal(e.mode, BOOT_LONG64);
    assert_int_equal(e.rip, ELF_CODE_PADDR + 0x10);
    assert_int_equal(guest_get(mem, e.rsi + 0x202, 4), 0x53726448);
    assert_int_equal(guest_get(mem, e.rsi + 0x1fe, 2), 0xaa55);
    boot_close(img);
    mem_destroy(mem);
}

static void test_elf_bad(void **state) {
    struct boot_blob k;
    expect_bad(make_elf64(EM_AARCH64, true, 0), BOOT_AUTO, "aarch64");
    expect_bad(make_elf64(0x1234, true, 0), BOOT_AUTO, "unknown");
    expect_bad(make_elf64(EM_X86_64, false, 0x400000), BOOT_AUTO, "without PVH note");
    expect_bad(make_elf64(EM_X86_64, false, 0xffffffff81000000), BOOT_PVH, "no PVH entry note");
    expect_bad(make_elf64(EM_X86_64, true, 0), BOOT_ELF64, "not a 64-bit Linux kernel");
    expect_bad(make_elf64(EM_X86_64, true, 0), BOOT_BZIMAGE64, "cannot be booted by protocol 'bzimage64'");
    expect_bad(make_elf64(EM_X86_64, true, 0), BOOT_MULTIBOOT, "no multiboot header");

    k = make_elf64(EM_X86_64, true, 0);
    k.size = ELF_SIZE - 1;
    expect_bad(k, BOOT_AUTO, "truncated");
    k = make_elf64(EM_X86_64, true, 0);
    k.size = 40;
    expect_bad(k, BOOT_AUTO, "truncated in its header");
    k = make_elf64(EM_X86_64, true, 0);
    k.size = 100;
    expect_bad(k, BOOT_AUTO, "program headers");

    k = make_elf64(EM_X86_64, true, 0);
    elf_phdr(k, 0)->p_offset = UINT64_MAX - 0x10; // offset + filesz wraps
    expect_bad(k, BOOT_AUTO, "truncated");
    k = make_elf64(EM_X86_64, true, 0);
    elf_phdr(k, 0)->p_memsz = UINT64_MAX;
    expect_bad(k, BOOT_AUTO, "address space");
    k = make_elf64(EM_X86_64, true, 0);
    elf_phdr(k, 0)->p_memsz = 0x10;
    expect_bad(k, BOOT_AUTO, "more bytes in the file");
    k = make_elf64(EM_X86_64, true, 0);
    *elf_phdr(k, 1) = *elf_phdr(k, 0);
    elf_phdr(k, 1)->p_paddr += 0xfff;
    expect_bad(k, BOOT_AUTO, "overlapping");
    k = make_elf64(EM_X86_64, true, 0);
    ((Elf64_Ehdr *)k.data)->e_phoff = UINT64_MAX;
    expect_bad(k, BOOT_AUTO, "program headers");
    k = make_elf64(EM_X86_64, true, 0);
    ((Elf64_Ehdr *)k.data)->e_phnum = 0xffff;
    expect_bad(k, BOOT_AUTO, "program header table");
    k = make_elf64(EM_X86_64, true, 0);
    ((Elf64_Ehdr *)k.data)->e_type = ET_REL;
    expect_bad(k, BOOT_AUTO, "object");
    k = make_elf64(EM_X86_64, false, 0x400000);
    elf_phdr(k, 1)->p_type = PT_INTERP;
    expect_bad(k, BOOT_AUTO, "dynamically linked");
}

static void test_elf_no_fit(void **state) {
    struct boot_blob k = make_elf64(EM_X86_64, true, 0);
    elf_phdr(k, 0)->p_memsz = 1ull << 40;
    struct boot_image *img = open_good(k, BOOT_AUTO, NULL, 0);
    expect_no_fit(img, RAM, "kernel segment needs");
    boot_close(img);

    k = make_elf64(EM_X86_64, true, 0); // the entry note points nowhere
    le64_put((uint8_t *)k.data + ELF_NOTE_OFFSET + 24 + 16, ELF_CODE_PADDR + 0x1000);
    img = open_good(k, BOOT_AUTO, NULL, 0);
    expect_no_fit(img, RAM, "outside of its segments");
    boot_close(img);
}

// Damaged notes: no PVH, no crash.
static void test_elf_notes(void **state) {
    struct error err;
    struct elf_image elf;
    struct boot_blob k = make_elf64(EM_X86_64, true, 0);
    uint8_t *n = (uint8_t *)k.data + ELF_NOTE_OFFSET;
    assert_int_equal(elf_parse(k, &elf, &err), 0);
    assert_true(elf.pvh);
    le32_put(n, UINT32_MAX); // namesz
    assert_int_equal(elf_parse(k, &elf, &err), 0);
    assert_false(elf.pvh);
    le32_put(n, 5), le32_put(n + 4, UINT32_MAX - 2); // descsz
    assert_int_equal(elf_parse(k, &elf, &err), 0);
    assert_false(elf.pvh);
    le32_put(n + 4, 3);
    elf_phdr(k, 1)->p_filesz = 24 + 20; // cut in the descriptor
    assert_int_equal(elf_parse(k, &elf, &err), 0);
    assert_false(elf.pvh);
    elf_phdr(k, 1)->p_filesz = UINT64_MAX;
    assert_int_equal(elf_parse(k, &elf, &err), 0);
    assert_false(elf.pvh);
    free((void *)k.data);
}

// ---- multiboot ----

static void test_multiboot(void **state) {
    struct mem *mem = guest_create(RAM);
    struct boot_image *img = open_good(make_multiboot(), BOOT_AUTO, "arg", 0x1800);
    struct boot_entry e;
    uint64_t junk = UINT64_MAX;
    assert_int_equal(boot_image_protocol(img), BOOT_MULTIBOOT);
    mem_write(mem, GPA(0x10fff8), &junk, 8);
    load_good(img, mem, RAM, &e);
    assert_int_equal(e.mode, BOOT_PROT32_FLAT);
    assert_int_equal(e.rip, 0x100100);
    assert_int_equal(e.rax, 0x2badb002);
    assert_int_equal(guest_get(mem, 0x100010, 4), 0x1badb002);
    assert_int_equal(guest_get(mem, 0x10fff8, 8), 0); // bss

    uint64_t mb = e.rbx, mods = guest_get(mem, mb + 24, 4), map = guest_get(mem, mb + 48, 4);
    assert_int_equal(guest_get(mem, mb, 4), 0x24d);
    assert_int_equal(guest_get(mem, mb + 4, 4), 639);
    assert_int_equal(guest_get(mem, mb + 8, 4), 63 * 1024);
    assert_int_equal(guest_get(mem, mb + 20, 4), 1);
    assert_int_equal(guest_get(mem, mods + 4, 4) - guest_get(mem, mods, 4), 0x1800);
    char text[11];
    assert_int_equal(mem_read(mem, GPA(guest_get(mem, mb + 16, 4)), text, 11), 0);
    assert_string_equal(text, "kernel arg");
    assert_int_equal(mem_read(mem, GPA(guest_get(mem, mods + 8, 4)), text, 7), 0);
    assert_string_equal(text, "initrd");
    assert_int_equal(guest_get(mem, mb + 44, 4), 4 * 24);
    assert_int_equal(guest_get(mem, map, 4), 20);
    assert_int_equal(guest_get(mem, map + 2 * 24 + 4, 8), MIB);
    boot_close(img);
    mem_destroy(mem);
}

static struct boot_blob bad_multiboot(size_t at, uint32_t value) {
    struct boot_blob k = make_multiboot();
    uint8_t *h = (uint8_t *)k.data + 0x10;
    le32_put(h + at, value);
    le32_put(h + 8, 0u - le32_get(h) - le32_get(h + 4)); // checksum
    return k;
}

static void test_multiboot_bad(void **state) {
    expect_bad(bad_multiboot(4, 0x10010), BOOT_AUTO, "requires features");
    expect_bad(bad_multiboot(16, 0x200000), BOOT_AUTO, "behind its own address");
    expect_bad(bad_multiboot(16, 0x1000), BOOT_AUTO, "behind its own address"); // before the file's start
    expect_bad(bad_multiboot(20, 0x101001), BOOT_AUTO, "truncated");
    expect_bad(bad_multiboot(20, 0xfffff), BOOT_AUTO, "load end");
    expect_bad(bad_multiboot(24, 0x100800), BOOT_AUTO, "bss end");
    expect_bad(bad_multiboot(28, 0x110000), BOOT_AUTO, "entry point");
    expect_bad(bad_multiboot(28, 0xfffff), BOOT_AUTO, "entry point");
    expect_bad(bad_multiboot(4, 3), BOOT_MULTIBOOT, "not an ELF"); // no kludge, so it must be ELF
    expect_bad(make_multiboot(), BOOT_PVH, "cannot be booted by protocol 'pvh'");
    struct boot_image *img = open_good(bad_multiboot(24, 0xfffffff0), BOOT_AUTO, NULL, 0);
    expect_no_fit(img, RAM, "kernel needs");
    boot_close(img);
}

// ---- files ----

static void expect_file_error(const char *path, uint64_t ram, int code, const char *text) {
    struct boot_config cfg = {.kernel = path, .ram_bytes = ram};
    struct boot_image *img = NULL;
    struct error err = {0};
    assert_int_equal(boot_open(&cfg, &img, &err), code);
    if (!strstr(err.text, text) || !strstr(err.text, path))
        fail_msg("'%s' does not say '%s'", err.text, text);
}

static void write_file(const char *path, const void *data, size_t size) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), size);
    close(fd);
}

static void test_files(void **state) {
    char dir[TEMP_PATH_MAX], path[TEMP_PATH_MAX + 2];
    assert_non_null(mkdtemp(temp_template(dir, "boot")));
    snprintf(path, sizeof(path), "%s/k", dir);
    expect_file_error(path, 0, -ENOENT, "No such file");
    expect_file_error(dir, 0, -EISDIR, "directory");
    expect_file_error("/dev/null", 0, -EINVAL, "not a regular file");
    write_file(path, "", 0);
    expect_file_error(path, 0, -EINVAL, "empty");
    write_file(path, "x", 1);
    expect_file_error(path, 0, -EINVAL, "not a kernel");
    write_file(path, "\x1f\x8b\x08", 3);
    expect_file_error(path, 0, -EINVAL, "gzip");
    write_file(path, "#!/bin/sh\n", 10);
    expect_file_error(path, 0, -EINVAL, "script");
    uint8_t image[64] = "MZ";
    memcpy(image + 0x38, "ARM\x64", 4);
    write_file(path, image, sizeof(image));
    expect_file_error(path, 0, -EINVAL, "aarch64");
    assert_int_equal(truncate(path, 128 * (off_t)MIB), 0); // sparse, and larger than the guest
    expect_file_error(path, 64 * MIB, -EINVAL, "more than the guest's memory");

    // A missing initrd is named, and a good pair opens.
    struct boot_blob k = make_bzimage(0x1000);
    write_file(path, k.data, k.size);
    free((void *)k.data);
    struct boot_config cfg = {.kernel = path, .initrd = "/nonexistent/initrd"};
    struct boot_image *img = NULL;
    struct error err = {0};
    assert_int_equal(boot_open(&cfg, &img, &err), -ENOENT);
    assert_non_null(strstr(err.text, "initrd '/nonexistent/initrd'"));
    cfg.initrd = path;
    assert_int_equal(boot_open(&cfg, &img, &err), 0);
    boot_close(img);
    cfg = (struct boot_config){.kernel = ""};
    assert_int_equal(boot_open(&cfg, &img, &err), -EINVAL);
    unlink(path);
    rmdir(dir);
}

static void load_into(struct boot_image *img, struct mem *mem, int code, const char *text) {
    struct boot_machine bm;
    struct boot_entry entry;
    struct error err = {0};
    boot_machine_init(&bm, RAM, 0, 0, 1, 0);
    assert_int_equal(boot_load(img, mem, &bm, &entry, &err), code);
    assert_true(!text || strstr(err.text, text));
}

// A reset loads the same bytes again, though they are not kept in memory; from a file that was written to it does not.
static void test_loaded_again(void **state) {
    enum { CODE = 0x1000 };
    char dir[TEMP_PATH_MAX], path[TEMP_PATH_MAX + 2];
    static uint8_t first[CODE], second[CODE], junk[CODE];
    struct boot_image *img = NULL;
    struct mem *mem = NULL;
    struct error err = {0};
    assert_non_null(mkdtemp(temp_template(dir, "boot")));
    snprintf(path, sizeof(path), "%s/k", dir);
    struct boot_blob k = make_bzimage(CODE);
    write_file(path, k.data, k.size);
    assert_int_equal(boot_open(&(struct boot_config){.kernel = path, .initrd = path}, &img, &err), 0);
    assert_int_equal(mem_create(&mem, &err), 0);
    assert_int_equal(mem_add_ram(mem, GPA(0), RAM, "ram", &err), 0);

    load_into(img, mem, 0, NULL);
    assert_null(img->kernel.data);
    assert_null(img->modules[0].blob.data);
    assert_int_equal(mem_read(mem, GPA(img->bz.load_addr), first, CODE), 0);
    memset(junk, 0xa5, sizeof(junk));
    assert_int_equal(mem_write(mem, GPA(img->bz.load_addr), junk, CODE), 0);
    assert_int_equal(unlink(path), 0); // what a package manager does to a kernel that runs
    // Its ctime changes with that, its bytes do not: it must still load.
    load_into(img, mem, 0, NULL);
    assert_int_equal(mem_read(mem, GPA(img->bz.load_addr), second, CODE), 0);
    assert_memory_equal(first, second, CODE);
    assert_memory_not_equal(first, junk, CODE);
    boot_close(img);

    write_file(path, k.data, k.size);
    assert_int_equal(boot_open(&(struct boot_config){.kernel = path}, &img, &err), 0);
    load_into(img, mem, 0, NULL);
    usleep(20000); // the granularity of a file's time
    write_file(path, junk, sizeof(junk));
    load_into(img, mem, -ESTALE, "was changed since the machine started");
    boot_close(img);
    mem_destroy(mem);
    free((void *)k.data);
    unlink(path);
    rmdir(dir);
}

static void test_protocol_names(void **state) {
    enum boot_protocol p;
    for (unsigned i = 0; i < BOOT_PROTOCOL_COUNT; i++) {
        assert_int_equal(boot_protocol_parse(boot_protocol_name((enum boot_protocol)i), &p), 0);
        assert_int_equal(p, i);
    }
    assert_int_equal(boot_protocol_parse("grub", &p), -EINVAL);
    boot_close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_map),
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_bzimage64),
        cmocka_unit_test(test_bzimage32),
        cmocka_unit_test(test_bzimage_old_protocol),
        cmocka_unit_test(test_bzimage_bad),
        cmocka_unit_test(test_bzimage_no_fit),
        cmocka_unit_test(test_cmdline_limit),
        cmocka_unit_test(test_pvh),
        cmocka_unit_test(test_elf_linux),
        cmocka_unit_test(test_elf_bad),
        cmocka_unit_test(test_elf_no_fit),
        cmocka_unit_test(test_elf_notes),
        cmocka_unit_test(test_multiboot),
        cmocka_unit_test(test_multiboot_bad),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_loaded_again),
        cmocka_unit_test(test_protocol_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
