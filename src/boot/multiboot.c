// SPDX-License-Identifier: Apache-2.0
// Multiboot Specification 0.6.96 (version 1): ELF kernels and those that give their addresses in the header
// ("a.out kludge"), modules, command line, memory map. EAX = magic, EBX = information structure.
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "boot/image.h"
#include "boot/le.h"

#define HEADER_SEARCH 8192 // 3.1: the header lies in the first 8192 bytes, 4-byte aligned
#define HEADER_MAGIC  0x1badb002u
#define LOADER_MAGIC  0x2badb002u

#define HEADER_PAGE_ALIGN     0x1
#define HEADER_MEMORY_INFO    0x2
#define HEADER_VIDEO          0x4
#define HEADER_KLUDGE         0x10000
#define HEADER_REQUIRED_KNOWN (HEADER_PAGE_ALIGN | HEADER_MEMORY_INFO | HEADER_VIDEO)
#define HEADER_REQUIRED_MASK  0xffffu

// Information structure, 3.3.
#define INFO_FLAGS           0
#define INFO_MEM_LOWER       4
#define INFO_MEM_UPPER       8
#define INFO_CMDLINE         16
#define INFO_MODS_COUNT      20
#define INFO_MODS_ADDR       24
#define INFO_MMAP_LENGTH     44
#define INFO_MMAP_ADDR       48
#define INFO_LOADER_NAME     64
#define INFO_HAS_MEMORY      (1u << 0)
#define INFO_HAS_CMDLINE     (1u << 2)
#define INFO_HAS_MODS        (1u << 3)
#define INFO_HAS_MMAP        (1u << 6)
#define INFO_HAS_LOADER_NAME (1u << 9)

#define MODS_OFFSET     0x80 // in LAYOUT_INFO: entries of 16 bytes, then the loader's name, then module names
#define MODS_ENTRY      16
#define NAMES_OFFSET    0x200
#define MODULE_NAME_MAX 255
#define MMAP_ENTRY      24 // size (20), base, length, type

static const char loader_name[] = "cicada";

_Static_assert(MODS_OFFSET + BOOT_MODULES_MAX * MODS_ENTRY <= NAMES_OFFSET, "module list fits");
_Static_assert(NAMES_OFFSET + sizeof(loader_name) + BOOT_MODULES_MAX * (MODULE_NAME_MAX + 1) <= LAYOUT_INFO_SIZE,
               "names fit");
_Static_assert(BOOT_E820_MAX *MMAP_ENTRY <= LAYOUT_PARAMS_SIZE, "memory map fits");

bool multiboot_find(struct boot_blob f, size_t *offset) {
    size_t end = f.size < HEADER_SEARCH ? f.size : HEADER_SEARCH;
    for (size_t at = 0; at + 12 <= end; at += 4) {
        const uint8_t *h = f.data + at;
        if (le32_get(h) == HEADER_MAGIC && HEADER_MAGIC + le32_get(h + 4) + le32_get(h + 8) == 0) {
            *offset = at;
            return true;
        }
    }
    return false;
}

// 3.1.3: the file from `load_addr - (header_addr - header's offset)` on goes to load_addr.
static int multiboot_parse_kludge(struct boot_blob f, size_t at, struct multiboot_image *m, struct error *err) {
    if (at + 32 > f.size)
        return error_set(err, -EINVAL, "the multiboot kernel is truncated in its header");
    uint32_t header = le32_get(f.data + at + 12), load = le32_get(f.data + at + 16);
    uint32_t load_end = le32_get(f.data + at + 20), bss_end = le32_get(f.data + at + 24);
    m->entry = le32_get(f.data + at + 28);
    m->load_addr = load;
    if (header < load || header - load > at)
        return error_set(err, -EINVAL, "the multiboot header has load address %#x behind its own address %#x", load,
                         header);
    m->offset = at - (header - load);
    m->filesz = load_end ? (uint64_t)load_end - load : f.size - m->offset;
    if (load_end && load_end < load)
        return error_set(err, -EINVAL, "the multiboot header has load end %#x below load address %#x", load_end, load);
    if (m->filesz > f.size - m->offset)
        return error_set(err, -EINVAL, "the multiboot kernel is truncated: %zu bytes of %llu", f.size,
                         (unsigned long long)(m->offset + m->filesz));
    m->memsz = m->filesz;
    if (bss_end && bss_end < load + m->filesz)
        return error_set(err, -EINVAL, "the multiboot header has bss end %#x inside of the loaded file", bss_end);
    if (bss_end)
        m->memsz = bss_end - load;
    if (m->entry < load || m->entry - load >= m->memsz)
        return error_set(err, -EINVAL, "the multiboot entry point %#x lies outside of the kernel", m->entry);
    return 0;
}

static int multiboot_parse_elf(struct boot_blob f, struct multiboot_image *m, struct error *err) {
    int ret = elf_parse(f, &m->elf, err);
    if (ret)
        return ret;
    if (!elf_contains(&m->elf, m->elf.entry) || m->elf.entry > UINT32_MAX)
        return error_set(err, -EINVAL, "the entry point %#llx of the multiboot kernel lies outside of its segments",
                         (unsigned long long)m->elf.entry);
    m->entry = (uint32_t)m->elf.entry;
    return 0;
}

int multiboot_parse(struct boot_blob f, struct multiboot_image *m, struct error *err) {
    size_t at;
    memset(m, 0, sizeof(*m));
    if (!multiboot_find(f, &at))
        return error_set(err, -EINVAL, "no multiboot header in its first %u bytes", HEADER_SEARCH);
    m->flags = le32_get(f.data + at + 4);
    uint32_t unknown = m->flags & HEADER_REQUIRED_MASK & ~HEADER_REQUIRED_KNOWN;
    if (unknown)
        return error_set(err, -EINVAL, "the multiboot header requires features that are not there (flags %#x)",
                         unknown);
    m->kludge = m->flags & HEADER_KLUDGE;
    return m->kludge ? multiboot_parse_kludge(f, at, m, err) : multiboot_parse_elf(f, m, err);
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

// Kernels expect their own name as the first word.
static uint64_t multiboot_cmdline_max(const struct boot_image *img) {
    return LAYOUT_CMDLINE_SIZE - 2 - strlen(base_name(img->name));
}

static int multiboot_put_cmdline(const struct boot_image *img, struct boot_layout *l, struct error *err) {
    char line[LAYOUT_CMDLINE_SIZE]; // boot_open checked the length
    snprintf(line, sizeof(line), "%s%s%s", base_name(img->name), img->cmdline[0] ? " " : "", img->cmdline);
    return layout_put_cmdline(l, line, err);
}

static int multiboot_put_kernel(const struct boot_image *img, struct boot_layout *l, struct error *err) {
    const struct multiboot_image *m = &img->multiboot;
    if (!m->kludge)
        return elf_load(&m->elf, img->kernel, l, err);
    int ret = layout_claim(l, m->load_addr, m->memsz, "kernel", err);
    if (!ret)
        ret = layout_write_blob(l, m->load_addr, img->kernel, m->offset, m->filesz, err);
    return ret ? ret : layout_zero(l, m->load_addr + m->filesz, m->memsz - m->filesz, err);
}

// Modules with their names as strings.
static int multiboot_put_modules(uint8_t *info, const struct boot_image *img, struct boot_layout *l,
                                 struct error *err) {
    uint32_t name_at = NAMES_OFFSET + sizeof(loader_name);
    for (unsigned i = 0; i < img->module_count; i++) {
        const struct boot_module *mod = &img->modules[i];
        uint8_t *e = info + MODS_OFFSET + i * MODS_ENTRY;
        uint64_t gpa = 0;
        int ret = layout_put_high(l, UINT32_MAX, mod->blob.data, mod->blob.size, "module", &gpa, err);
        if (ret)
            return error_prefix(err, "module '%s'", mod->name);
        snprintf((char *)info + name_at, MODULE_NAME_MAX + 1, "%s", base_name(mod->name));
        le32_put(e, (uint32_t)gpa);
        le32_put(e + 4, (uint32_t)(gpa + mod->blob.size));
        le32_put(e + 8, LAYOUT_INFO + name_at);
        name_at += (uint32_t)strlen((char *)info + name_at) + 1;
    }
    return 0;
}

static void multiboot_fill_mmap(uint8_t *table, const struct boot_machine *bm) {
    for (unsigned i = 0; i < bm->e820_count; i++, table += MMAP_ENTRY) {
        le32_put(table, MMAP_ENTRY - 4);
        le64_put(table + 4, bm->e820[i].base);
        le64_put(table + 12, bm->e820[i].size);
        le32_put(table + 20, bm->e820[i].type);
    }
}

static void multiboot_fill_info(uint8_t *info, const struct boot_image *img, const struct boot_machine *bm) {
    uint64_t lower = bm->e820_count ? bm->e820[0].size / 1024 : 0;
    uint64_t upper = bm->ram_low > 0x100000 ? (bm->ram_low - 0x100000) / 1024 : 0;
    le32_put(info + INFO_FLAGS, INFO_HAS_MEMORY | INFO_HAS_CMDLINE | INFO_HAS_MMAP | INFO_HAS_LOADER_NAME |
                                    (img->module_count ? INFO_HAS_MODS : 0));
    le32_put(info + INFO_MEM_LOWER, (uint32_t)lower);
    le32_put(info + INFO_MEM_UPPER, (uint32_t)upper);
    le32_put(info + INFO_CMDLINE, LAYOUT_CMDLINE);
    le32_put(info + INFO_MODS_COUNT, img->module_count);
    le32_put(info + INFO_MODS_ADDR, LAYOUT_INFO + MODS_OFFSET);
    le32_put(info + INFO_MMAP_LENGTH, bm->e820_count * MMAP_ENTRY);
    le32_put(info + INFO_MMAP_ADDR, LAYOUT_PARAMS);
    le32_put(info + INFO_LOADER_NAME, LAYOUT_INFO + NAMES_OFFSET);
    memcpy(info + NAMES_OFFSET, loader_name, sizeof(loader_name));
}

static int multiboot_load(const struct boot_image *img, struct boot_layout *l, const struct boot_machine *bm,
                          struct boot_entry *entry, struct error *err) {
    uint8_t info[LAYOUT_INFO_SIZE] = {0}, mmap[LAYOUT_PARAMS_SIZE] = {0};
    int ret = entry_init_prot32(entry, l, img->multiboot.entry, err);
    entry->rax = LOADER_MAGIC;
    entry->rbx = LAYOUT_INFO;
    multiboot_fill_mmap(mmap, bm);
    if (!ret)
        ret = layout_claim(l, LAYOUT_INFO, sizeof(info), "multiboot information", err);
    if (!ret)
        ret = layout_put(l, LAYOUT_PARAMS, mmap, sizeof(mmap), "multiboot memory map", err);
    if (!ret)
        ret = multiboot_put_kernel(img, l, err);
    if (!ret)
        ret = multiboot_put_cmdline(img, l, err);
    if (!ret)
        ret = multiboot_put_modules(info, img, l, err);
    multiboot_fill_info(info, img, bm);
    return ret ? ret : layout_write(l, LAYOUT_INFO, info, sizeof(info), err);
}

const struct boot_protocol_ops multiboot_ops = {multiboot_cmdline_max, BOOT_MODULES_MAX, multiboot_load};
