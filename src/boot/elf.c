// SPDX-License-Identifier: Apache-2.0
// ELF executables as kernels: loadable segments by physical address and the PVH entry note. Every offset and size
// comes from a hostile file: checked against the file and for wrap-around here, once; users need no checks.
// System V ABI (gabi 4.1), xen/include/public/elfnote.h.
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "boot/image.h"
#include "boot/le.h"

#define ELF_PHNUM_MAX            256
#define ELF_PADDR_MAX            (1ull << 52)
#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define KERNEL_HALF              0xffffffff80000000ull // where Linux/x86-64 links its text

static const struct {
    uint16_t machine;
    const char *name;
} elf_machines[] = {
    {EM_386, "i386"},      {EM_X86_64, "x86-64"},   {EM_AARCH64, "aarch64"}, {EM_ARM, "arm"},
    {EM_RISCV, "riscv"},   {EM_PPC64, "powerpc64"}, {EM_PPC, "powerpc"},     {EM_S390, "s390"},
    {EM_SPARCV9, "sparc"}, {EM_MIPS, "mips"},       {EM_IA_64, "ia64"},      {EM_LOONGARCH, "loongarch"},
};

const char *elf_machine_name(uint16_t machine) {
    for (size_t i = 0; i < ARRAY_LEN(elf_machines); i++) {
        if (elf_machines[i].machine == machine)
            return elf_machines[i].name;
    }
    return "unknown";
}

static int elf_check_ident(struct boot_blob f, struct error *err) {
    if (f.size < EI_NIDENT || memcmp(f.data, ELFMAG, SELFMAG) != 0)
        return error_set(err, -EINVAL, "not an ELF file");
    uint8_t class = f.data[EI_CLASS];
    if (class != ELFCLASS32 && class != ELFCLASS64)
        return error_set(err, -EINVAL, "unknown ELF class %u", class);
    if (f.data[EI_DATA] != ELFDATA2LSB)
        return error_set(err, -EINVAL, "is a big-endian ELF file; this machine is x86-64");
    if (f.size < (class == ELFCLASS64 ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr)))
        return error_set(err, -EINVAL, "the ELF file is truncated in its header (%zu bytes)", f.size);
    return 0;
}

// Both classes in the wide form. The class was checked.
static void elf_read_header(struct boot_blob f, Elf64_Ehdr *h) {
    if (f.data[EI_CLASS] == ELFCLASS64) {
        memcpy(h, f.data, sizeof(*h));
        return;
    }
    Elf32_Ehdr n;
    memcpy(&n, f.data, sizeof(n));
    *h = (Elf64_Ehdr){.e_type = n.e_type,
                      .e_machine = n.e_machine,
                      .e_entry = n.e_entry,
                      .e_phoff = n.e_phoff,
                      .e_phentsize = n.e_phentsize,
                      .e_phnum = n.e_phnum};
}

static void elf_read_phdr(struct boot_blob f, bool is64, uint64_t offset, Elf64_Phdr *p) {
    if (is64) {
        memcpy(p, f.data + offset, sizeof(*p));
        return;
    }
    Elf32_Phdr n;
    memcpy(&n, f.data + offset, sizeof(n));
    *p = (Elf64_Phdr){.p_type = n.p_type,
                      .p_offset = n.p_offset,
                      .p_vaddr = n.p_vaddr,
                      .p_paddr = n.p_paddr,
                      .p_filesz = n.p_filesz,
                      .p_memsz = n.p_memsz,
                      .p_align = n.p_align};
}

static int elf_check_header(struct boot_blob f, const Elf64_Ehdr *h, bool is64, struct error *err) {
    size_t phentsize = is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
    if (h->e_machine != EM_X86_64 && h->e_machine != EM_386)
        return error_set(err, -EINVAL, "is an ELF file for %s (machine %u); this machine is x86-64",
                         elf_machine_name(h->e_machine), h->e_machine);
    if (h->e_type != ET_EXEC && h->e_type != ET_DYN)
        return error_set(err, -EINVAL, "is an ELF %s, not an executable kernel",
                         h->e_type == ET_REL ? "object or module" : "file of another type");
    if (h->e_phnum == 0 || h->e_phnum > ELF_PHNUM_MAX || h->e_phentsize != phentsize)
        return error_set(err, -EINVAL, "the ELF file has a bad program header table (%u entries of %u bytes)",
                         h->e_phnum, h->e_phentsize);
    if (h->e_phoff > f.size || h->e_phnum * phentsize > f.size - h->e_phoff)
        return error_set(err, -EINVAL, "the ELF file is truncated: its program headers lie behind its end");
    return 0;
}

// Overlapping segments would load differently depending on their order.
static int elf_check_overlap(const struct elf_image *e, const struct elf_segment *s, struct error *err) {
    for (unsigned i = 0; i < e->segment_count; i++) {
        const struct elf_segment *o = &e->segments[i];
        if (s->paddr < o->paddr + o->memsz && o->paddr < s->paddr + s->memsz)
            return error_set(err, -EINVAL, "the ELF file has overlapping segments at %#llx and %#llx",
                             (unsigned long long)o->paddr, (unsigned long long)s->paddr);
    }
    return 0;
}

static int elf_add_segment(struct elf_image *e, struct boot_blob f, const Elf64_Phdr *p, struct error *err) {
    if (p->p_memsz == 0 && p->p_filesz == 0)
        return 0;
    if (p->p_filesz > p->p_memsz)
        return error_set(err, -EINVAL, "the ELF file has a segment with more bytes in the file than in memory");
    if (p->p_offset > f.size || p->p_filesz > f.size - p->p_offset)
        return error_set(err, -EINVAL, "the ELF file is truncated: a segment ends behind its %zu bytes", f.size);
    if (p->p_paddr > ELF_PADDR_MAX || p->p_memsz > ELF_PADDR_MAX)
        return error_set(err, -EINVAL, "the ELF file has a segment of %#llx bytes at %#llx, out of the address space",
                         (unsigned long long)p->p_memsz, (unsigned long long)p->p_paddr);
    if (e->segment_count == ELF_SEGMENTS_MAX)
        return error_set(err, -EINVAL, "the ELF file has more than %u loadable segments", ELF_SEGMENTS_MAX);

    struct elf_segment s = {p->p_paddr, p->p_vaddr, p->p_offset, p->p_filesz, p->p_memsz};
    int ret = elf_check_overlap(e, &s, err);
    if (ret)
        return ret;
    e->segments[e->segment_count++] = s;
    return 0;
}

static bool elf_note_is_pvh(const uint8_t *name, uint32_t namesz, uint32_t type, uint32_t descsz) {
    return namesz == 4 && memcmp(name, "Xen", 4) == 0 && type == XEN_ELFNOTE_PHYS32_ENTRY &&
           (descsz == 4 || descsz == 8);
}

// Notes are a hint: what does not parse is skipped, and then there is no PVH entry.
static void elf_parse_notes(struct elf_image *e, struct boot_blob f, const Elf64_Phdr *p) {
    if (p->p_offset > f.size || p->p_filesz > f.size - p->p_offset)
        return;
    const uint8_t *note = f.data + p->p_offset;
    uint64_t left = p->p_filesz, align = p->p_align == 8 ? 8 : 4;
    while (left >= 12) {
        uint32_t namesz = le32_get(note), descsz = le32_get(note + 4), type = le32_get(note + 8);
        uint64_t desc = (12 + (uint64_t)namesz + align - 1) & ~(align - 1);
        uint64_t next = (desc + descsz + align - 1) & ~(align - 1);
        if (desc + descsz > left)
            return;
        if (elf_note_is_pvh(note + 12, namesz, type, descsz)) {
            e->pvh = true;
            e->pvh_entry = descsz == 4 ? le32_get(note + desc) : le64_get(note + desc);
            return;
        }
        if (next >= left)
            return;
        note += next;
        left -= next;
    }
}

static int elf_parse_phdr(struct elf_image *e, struct boot_blob f, const Elf64_Phdr *p, struct error *err) {
    switch (p->p_type) {
    case PT_LOAD: return elf_add_segment(e, f, p, err);
    case PT_NOTE: elf_parse_notes(e, f, p); return 0;
    case PT_INTERP: e->user = true; return 0;
    default: return 0;
    }
}

bool elf_peek_phdr(struct boot_blob f, unsigned i, size_t head, Elf64_Phdr *p) {
    Elf64_Ehdr h;
    if (f.size < sizeof(h) || head > f.size)
        return false;
    bool is64 = f.data[EI_CLASS] == ELFCLASS64;
    size_t size = is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
    elf_read_header(f, &h);
    if (i >= h.e_phnum || h.e_phentsize != size || h.e_phoff > head || (i + 1) * size > head - h.e_phoff)
        return false;
    elf_read_phdr(f, is64, h.e_phoff + i * size, p);
    return true;
}

int elf_parse(struct boot_blob f, struct elf_image *e, struct error *err) {
    Elf64_Ehdr h;
    memset(e, 0, sizeof(*e));
    int ret = elf_check_ident(f, err);
    if (ret)
        return ret;
    e->is64 = f.data[EI_CLASS] == ELFCLASS64;
    elf_read_header(f, &h);
    ret = elf_check_header(f, &h, e->is64, err);
    if (ret)
        return ret;
    e->entry = h.e_entry;
    for (unsigned i = 0; i < h.e_phnum; i++) {
        Elf64_Phdr p;
        elf_read_phdr(f, e->is64, h.e_phoff + (uint64_t)i * h.e_phentsize, &p);
        ret = elf_parse_phdr(e, f, &p, err);
        if (ret)
            return ret;
    }
    if (e->segment_count == 0)
        return error_set(err, -EINVAL, "the ELF file has nothing to load");
    e->linux_kernel = e->is64 && h.e_machine == EM_X86_64 && !e->user && e->segments[0].vaddr >= KERNEL_HALF;
    return 0;
}

bool elf_contains(const struct elf_image *e, uint64_t paddr) {
    for (unsigned i = 0; i < e->segment_count; i++) {
        if (paddr >= e->segments[i].paddr && paddr - e->segments[i].paddr < e->segments[i].memsz)
            return true;
    }
    return false;
}

uint64_t elf_end(const struct elf_image *e) {
    uint64_t end = 0;
    for (unsigned i = 0; i < e->segment_count; i++) {
        uint64_t s = e->segments[i].paddr + e->segments[i].memsz;
        end = s > end ? s : end;
    }
    return end;
}

int elf_load(const struct elf_image *e, struct boot_blob f, struct boot_layout *l, struct error *err) {
    for (unsigned i = 0; i < e->segment_count; i++) {
        const struct elf_segment *s = &e->segments[i];
        int ret = layout_claim(l, s->paddr, s->memsz, "kernel segment", err);
        if (!ret)
            ret = layout_write_blob(l, s->paddr, f, s->offset, s->filesz, err);
        if (!ret)
            ret = layout_zero(l, s->paddr + s->filesz, s->memsz - s->filesz, err);
        if (ret)
            return ret;
    }
    return 0;
}
