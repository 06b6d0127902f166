// SPDX-License-Identifier: Apache-2.0
// Boot protocols: opens a kernel and its modules once (phase "open"), then loads them into guest memory at every
// power-on or reset and says in neutral terms with which CPU state to start. The addresses used are listed in
// docs/memory-map.md.
//
// Errors: what is wrong with a file or does not fit gives -EINVAL with a text that says everything; -ENOENT, -EACCES,
// -EISDIR... come from opening it; -ENOMEM is a failed allocation on the host.
#ifndef CICADA_BOOT_BOOT_H
#define CICADA_BOOT_BOOT_H

#include "core/mem.h"
#include "util/error.h"

enum boot_protocol {
    BOOT_AUTO,      // by what the file is: bzImage 64-bit or 32-bit entry; ELF: PVH, multiboot, 64-bit Linux
    BOOT_BZIMAGE32, // Linux/x86 boot protocol, 32-bit entry
    BOOT_BZIMAGE64, // Linux/x86 boot protocol, 64-bit entry (XLF_KERNEL_64)
    BOOT_PAYLOAD,   // the ELF kernel extracted from a bzImage; PVH where it has the note, else BOOT_ELF64
    BOOT_PVH,       // Xen PVH direct boot: ELF with XEN_ELFNOTE_PHYS32_ENTRY (a bzImage is extracted first)
    BOOT_MULTIBOOT, // Multiboot 1
    BOOT_ELF64,     // vmlinux entered by the 64-bit Linux protocol (a bzImage is extracted first)
    BOOT_PROTOCOL_COUNT
};

#define BOOT_MODULES_MAX 8

// Strings are borrowed during boot_open only.
struct boot_config {
    const char *kernel;  // path
    const char *initrd;  // path, NULL or "" = none; the first module of PVH and multiboot
    const char *cmdline; // NULL = ""
    enum boot_protocol protocol;
    const char *const *modules; // more modules (PVH and multiboot only), paths
    unsigned module_count;
    uint64_t ram_bytes; // files larger than this are refused before they are read; 0 = only the built-in limits
};

enum boot_e820_type { E820_RAM = 1, E820_RESERVED = 2 };

struct boot_e820 {
    uint64_t base, size;
    uint32_t type; // enum boot_e820_type
};

#define BOOT_E820_MAX      32
#define BOOT_RAM_LOW_MAX   0xc0000000ull  // RAM below 4 GiB ends here, the PCI window begins
#define BOOT_RAM_HIGH_BASE 0x100000000ull // the rest of RAM begins here

// The machine as a boot protocol describes it to the guest.
struct boot_machine {
    uint64_t ram_low;  // bytes of RAM from address 0, at most BOOT_RAM_LOW_MAX
    uint64_t ram_high; // bytes of RAM from BOOT_RAM_HIGH_BASE
    uint64_t rsdp;     // GPA of the ACPI RSDP, 0 = none
    unsigned cpus;
    unsigned e820_count;
    struct boot_e820 e820[BOOT_E820_MAX]; // sorted, without overlap
};

enum boot_mode { BOOT_REAL, BOOT_PROT32_FLAT, BOOT_LONG64 };

// Hidden part of a segment register: attr in the format of the VMX access rights (SDM 3C 25.4.1), limit in bytes.
struct boot_segment {
    uint16_t selector;
    uint16_t attr;
    uint32_t limit;
    uint64_t base;
};

// State of the boot processor. All general registers that are not here are 0, RFLAGS is 2 (interrupts off),
// the IDT is empty (limit 0). PROT32_FLAT: CR0 = PE|ET, CR4 = EFER = 0. LONG64: CR0 = PG|PE|ET (and NE, MP as the
// board likes), CR4 = PAE, EFER = LME|LMA.
struct boot_entry {
    enum boot_mode mode;
    uint64_t rip, rsp, rax, rbx, rsi, rdi, rbp;
    uint64_t cr3; // LONG64: page tables that map the first 4 GiB one to one
    uint64_t gdt_base;
    uint16_t gdt_limit;
    struct boot_segment cs, ds, tr; // es, ss, fs, gs are as ds
};

struct boot_image; // opened and parsed

// "auto", "bzimage32", "bzimage64", "payload", "pvh", "multiboot", "elf64". -EINVAL for anything else.
int boot_protocol_parse(const char *name, enum boot_protocol *protocol);
const char *boot_protocol_name(enum boot_protocol protocol);

// Reads and checks all files. The image owns copies of everything; free with boot_close. Any thread.
int boot_open(const struct boot_config *cfg, struct boot_image **img, struct error *err);
void boot_close(struct boot_image *img);
// The protocol that was chosen; never BOOT_AUTO or BOOT_PAYLOAD.
enum boot_protocol boot_image_protocol(const struct boot_image *img);

// The standard memory map of the microvm board (docs/memory-map.md). ecam_size 0 = no ECAM.
void boot_machine_init(struct boot_machine *bm, uint64_t ram_bytes, uint64_t ecam_base, uint64_t ecam_size,
                       unsigned cpus, uint64_t rsdp);

// Would boot_load fit into this machine? Writes nothing; for phase "open", before the first boot_load, so that the
// error comes before the seal.
int boot_check(const struct boot_image *img, const struct boot_machine *bm, struct error *err);
// Writes the kernel, the modules and the tables of the protocol into guest memory and fills *entry. vCPUs stopped.
// May be called again after a reset: whatever the guest did to memory, the loaded ranges are as new.
// The files' bytes are held until it is called and read again for each further call, from the files as opened: -ESTALE
// when one was written to since.
int boot_load(struct boot_image *img, struct mem *mem, const struct boot_machine *bm, struct boot_entry *entry,
              struct error *err);

#endif
