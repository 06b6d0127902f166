// SPDX-License-Identifier: Apache-2.0
// Inside of boot/: the opened image, the parsers on buffers (also the doors of the fuzzers) and the protocols.
#ifndef CICADA_BOOT_IMAGE_H
#define CICADA_BOOT_IMAGE_H

#include <elf.h>
#include <time.h>

#include "boot/boot.h"
#include "boot/layout.h"

#define BOOT_KERNEL_MAX        (1ull << 30)     // bytes of a kernel file
#define BOOT_MODULE_MAX        BOOT_RAM_LOW_MAX // bytes of an initrd or module
#define BOOT_PAYLOAD_MAX       (512ull << 20)   // bytes of an extracted kernel
#define BOOT_LINUX_CMDLINE_MAX 2047             // COMMAND_LINE_SIZE of Linux/x86 without its NUL
#define BOOT_LINUX_INITRD_MAX  0x7fffffffull    // highest address, where no setup header says it

// Bytes of a file in memory. With fd (borrowed, never 0) only what parsing needs is there, the rest is zero: the file
// itself has what is to be loaded.
struct boot_blob {
    const uint8_t *data;
    size_t size;
    int fd;
};

// ---- file.c ----
// Memory for the bytes of a file, in large pages where it is much and the host gives them. Freed with free().
uint8_t *boot_blob_alloc(size_t size);
// `what` and path name the file in errors. boot_file_open returns a descriptor or a negative errno; phase "open".
int boot_file_open(const char *path, const char *what, struct error *err);
// Reads a regular file that is not empty and not larger than max, from its start. The caller frees data. Any phase.
int boot_file_read_fd(int fd, const char *path, const char *what, uint64_t max, struct boot_blob *out,
                      struct error *err);

// The same for a kernel: of an ELF file the beginning and the notes; out->fd is fd then.
int boot_file_read_kernel(int fd, const char *path, uint64_t max, struct boot_blob *out, struct error *err);

// ---- resident.c ----
// The file that a blob was read from, so that it can be read again. Zero (fd 0 is never one): there is none.
struct boot_source {
    int fd; // owned
    uint64_t size;
    struct timespec written; // mtime
};
// Opens and reads a file and remembers it. On failure nothing is left open. With `kernel` as boot_file_read_kernel.
int boot_source_read(struct boot_source *src, const char *path, bool kernel, uint64_t max, struct boot_blob *out,
                     struct error *err);
void boot_source_close(struct boot_source *src);
struct boot_image;
// Frees the bytes of the files, where they can be read again.
void image_drop_bytes(struct boot_image *img);
// Brings them back. -ESTALE when a file is not what it was.
int image_need_bytes(struct boot_image *img, struct error *err);

// ---- detect.c ----
enum boot_format { FORMAT_BZIMAGE, FORMAT_ELF, FORMAT_MULTIBOOT };
// -EINVAL with a text about what the file is instead, where it is none of them.
int boot_detect(struct boot_blob file, enum boot_format *format, struct error *err);

// ---- bzimage.c ----
#define BZIMAGE_HDR_START 0x1f1 // of the setup header, in the file and in the zero page
#define BZIMAGE_HDR_END   0x290 // where the zero page goes on with other fields

struct bzimage {
    uint16_t version;                      // of the boot protocol, 0x020c = 2.12
    bool entry64;                          // XLF_KERNEL_64
    uint64_t code_offset, code_size;       // protected-mode kernel in the file
    uint64_t load_addr, init_size;         // where it goes and what it needs there, init_size >= code_size
    uint64_t initrd_max;                   // highest address of the last byte of the initrd
    uint32_t cmdline_max;                  // without the NUL
    uint64_t payload_offset, payload_size; // in the file; size 0 = none
    uint8_t header[BZIMAGE_HDR_END - BZIMAGE_HDR_START]; // as in the file, zero-padded
};
int bzimage_parse(struct boot_blob file, struct bzimage *out, struct error *err);

// ---- payload.c ----
// Unpacks the payload of a bzImage (format by its magic; the last 4 bytes are the unpacked size). Caller frees data.
int payload_extract(struct boot_blob packed, struct boot_blob *out, struct error *err);

// ---- elf.c ----
#define ELF_SEGMENTS_MAX 32

struct elf_segment {
    uint64_t paddr, vaddr, offset, filesz, memsz;
};

struct elf_image {
    bool is64;
    bool user;         // dynamically linked: a program, not a kernel
    bool linux_kernel; // 64-bit and linked into the upper half like vmlinux
    bool pvh;          // has XEN_ELFNOTE_PHYS32_ENTRY
    uint64_t entry, pvh_entry;
    unsigned segment_count; // loadable ones with memsz > 0; ranges checked, without overlap
    struct elf_segment segments[ELF_SEGMENTS_MAX];
};
// Program header i, if it lies in the first `head` bytes. The file begins as an ELF file does; nothing else was
// checked.
bool elf_peek_phdr(struct boot_blob file, unsigned i, size_t head, Elf64_Phdr *p);
int elf_parse(struct boot_blob file, struct elf_image *out, struct error *err);
bool elf_contains(const struct elf_image *elf, uint64_t paddr);
uint64_t elf_end(const struct elf_image *elf); // first address after the highest segment
int elf_load(const struct elf_image *elf, struct boot_blob file, struct boot_layout *l, struct error *err);
const char *elf_machine_name(uint16_t machine); // "aarch64"; "unknown" for others

// ---- multiboot.c ----
struct multiboot_image {
    uint32_t flags; // of the header
    bool kludge;    // the header's own addresses instead of ELF
    uint32_t load_addr, entry;
    uint64_t offset, filesz, memsz; // kludge only
    struct elf_image elf;           // without kludge
};
bool multiboot_find(struct boot_blob file, size_t *offset);
int multiboot_parse(struct boot_blob file, struct multiboot_image *out, struct error *err);

// ---- the image ----
struct boot_module {
    struct boot_blob blob; // owned; data NULL while dropped
    struct boot_source source;
    char *name; // owned; path as given
};

struct boot_image {
    enum boot_protocol protocol; // resolved
    const struct boot_protocol_ops *ops;
    char *cmdline;           // owned
    char *name;              // owned; path of the kernel as given
    struct boot_blob kernel; // owned; the file, or the ELF extracted from it; data NULL while dropped
    struct boot_source source;
    bool extracted; // kernel is the ELF of the bzImage
    bool has_bz;    // bz is valid (also after extraction: the setup header serves the ELF)
    struct bzimage bz;
    struct elf_image elf;
    struct multiboot_image multiboot;
    unsigned module_count;
    struct boot_module modules[BOOT_MODULES_MAX];
};

// One protocol. load writes through the layout, which may be dry (boot_check).
struct boot_protocol_ops {
    uint64_t (*cmdline_max)(const struct boot_image *img);
    unsigned modules_max;
    int (*load)(const struct boot_image *img, struct boot_layout *l, const struct boot_machine *bm,
                struct boot_entry *entry, struct error *err);
};
extern const struct boot_protocol_ops bzimage32_ops, bzimage64_ops, elf_linux_ops, elf_pvh_ops, multiboot_ops;

// boot_open on buffers; takes over kernel.data and every modules[i].data (malloc'ed) also on failure.
// cfg->initrd and cfg->modules only give the names.
int boot_open_buffers(const struct boot_config *cfg, struct boot_blob kernel, const struct boot_blob *modules,
                      unsigned module_count, struct boot_image **img, struct error *err);

#endif
