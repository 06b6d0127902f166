// SPDX-License-Identifier: Apache-2.0
// Opens a boot image: reads the files, chooses the protocol, checks what can be checked without the machine.
// After boot_open the image never changes but for its bytes coming and going (resident.c): every reset loads the same.
#include "boot/boot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "boot/image.h"

static const struct {
    const char *name;
    const struct boot_protocol_ops *ops; // NULL: resolved to another one
} boot_protocols[BOOT_PROTOCOL_COUNT] = {
    [BOOT_AUTO] = {"auto", NULL},
    [BOOT_BZIMAGE32] = {"bzimage32", &bzimage32_ops},
    [BOOT_BZIMAGE64] = {"bzimage64", &bzimage64_ops},
    [BOOT_PAYLOAD] = {"payload", NULL},
    [BOOT_PVH] = {"pvh", &elf_pvh_ops},
    [BOOT_MULTIBOOT] = {"multiboot", &multiboot_ops},
    [BOOT_ELF64] = {"elf64", &elf_linux_ops},
};

int boot_protocol_parse(const char *name, enum boot_protocol *protocol) {
    for (unsigned i = 0; i < BOOT_PROTOCOL_COUNT; i++) {
        if (strcmp(name, boot_protocols[i].name) == 0) {
            *protocol = (enum boot_protocol)i;
            return 0;
        }
    }
    return -EINVAL;
}

const char *boot_protocol_name(enum boot_protocol protocol) {
    return (unsigned)protocol < BOOT_PROTOCOL_COUNT ? boot_protocols[protocol].name : "unknown";
}

enum boot_protocol boot_image_protocol(const struct boot_image *img) {
    return img->protocol;
}

// ---- which protocol ----

static int image_set_protocol(struct boot_image *img, enum boot_protocol p) {
    img->protocol = p;
    img->ops = boot_protocols[p].ops;
    return 0;
}

static int image_refuse(enum boot_protocol wanted, const char *what, struct error *err) {
    return error_set(err, -EINVAL, "%s cannot be booted by protocol '%s'", what, boot_protocol_name(wanted));
}

// elf64 and pvh, and which of them where the caller left it open.
static int image_resolve_elf(struct boot_image *img, enum boot_protocol wanted, struct error *err) {
    bool open = wanted == BOOT_AUTO || wanted == BOOT_PAYLOAD;
    if (wanted == BOOT_PVH && !img->elf.pvh)
        return error_set(err, -EINVAL, "the ELF kernel has no PVH entry note (XEN_ELFNOTE_PHYS32_ENTRY)");
    if (wanted == BOOT_PVH || (open && img->elf.pvh))
        return image_set_protocol(img, BOOT_PVH);
    if (img->elf.linux_kernel)
        return image_set_protocol(img, BOOT_ELF64);
    if (wanted == BOOT_ELF64)
        return error_set(err, -EINVAL, "the ELF file is not a 64-bit Linux kernel (vmlinux)");
    if (img->elf.user)
        return error_set(err, -EINVAL, "is a dynamically linked ELF program, not a kernel");
    return error_set(err, -EINVAL, "is %s ELF file without PVH note or multiboot header and not a 64-bit vmlinux",
                     img->elf.is64 ? "an x86-64" : "an i386");
}

static int image_parse_multiboot(struct boot_image *img, struct error *err) {
    image_set_protocol(img, BOOT_MULTIBOOT);
    return multiboot_parse(img->kernel, &img->multiboot, err);
}

static int image_parse_elf(struct boot_image *img, enum boot_protocol wanted, struct error *err) {
    size_t offset;
    if (wanted == BOOT_BZIMAGE32 || wanted == BOOT_BZIMAGE64 || (wanted == BOOT_PAYLOAD && !img->has_bz))
        return image_refuse(wanted, "an ELF file", err);
    if (wanted == BOOT_MULTIBOOT)
        return image_parse_multiboot(img, err);
    int ret = elf_parse(img->kernel, &img->elf, err);
    if (ret)
        return ret;
    if (wanted == BOOT_AUTO && !img->elf.pvh && multiboot_find(img->kernel, &offset))
        return image_parse_multiboot(img, err);
    return image_resolve_elf(img, wanted, err);
}

// Replaces the file by the ELF kernel in it.
static int image_extract(struct boot_image *img, struct error *err) {
    struct boot_blob elf, packed = {.data = img->kernel.data + img->bz.payload_offset, .size = img->bz.payload_size};
    if (img->bz.payload_size == 0)
        return error_set(err, -EINVAL, "the bzImage does not say where its payload is (boot protocol below 2.08)");
    int ret = payload_extract(packed, &elf, err);
    if (ret)
        return ret;
    free((void *)img->kernel.data);
    img->kernel = elf;
    img->extracted = true;
    return 0;
}

static int image_parse_bzimage(struct boot_image *img, enum boot_protocol wanted, struct error *err) {
    int ret = bzimage_parse(img->kernel, &img->bz, err);
    if (ret)
        return ret;
    img->has_bz = true;
    switch (wanted) {
    case BOOT_AUTO: return image_set_protocol(img, img->bz.entry64 ? BOOT_BZIMAGE64 : BOOT_BZIMAGE32);
    case BOOT_BZIMAGE32: return image_set_protocol(img, BOOT_BZIMAGE32);
    case BOOT_BZIMAGE64:
        if (!img->bz.entry64)
            return error_set(err, -EINVAL, "the bzImage has no 64-bit entry (XLF_KERNEL_64)");
        return image_set_protocol(img, BOOT_BZIMAGE64);
    case BOOT_MULTIBOOT: return image_refuse(wanted, "a bzImage", err);
    default: break;
    }
    ret = image_extract(img, err);
    return ret ? ret : image_parse_elf(img, wanted, err);
}

static int image_parse(struct boot_image *img, enum boot_protocol wanted, struct error *err) {
    enum boot_format format;
    int ret = boot_detect(img->kernel, &format, err);
    if (ret)
        return ret;
    switch (format) {
    case FORMAT_BZIMAGE: return image_parse_bzimage(img, wanted, err);
    case FORMAT_ELF: return image_parse_elf(img, wanted, err);
    case FORMAT_MULTIBOOT:
        if (wanted != BOOT_AUTO && wanted != BOOT_MULTIBOOT)
            return image_refuse(wanted, "a multiboot kernel", err);
        return image_parse_multiboot(img, err);
    }
    return -EINVAL;
}

// ---- opening ----

static int image_check_limits(const struct boot_image *img, struct error *err) {
    uint64_t max = img->ops->cmdline_max(img), len = strlen(img->cmdline);
    if (max > LAYOUT_CMDLINE_SIZE - 1)
        max = LAYOUT_CMDLINE_SIZE - 1;
    if (len > max)
        return error_set(err, -EINVAL, "the command line has %llu bytes, the kernel takes at most %llu",
                         (unsigned long long)len, (unsigned long long)max);
    if (img->module_count > img->ops->modules_max)
        return error_set(err, -EINVAL, "protocol '%s' takes at most %u initrd or module, not %u",
                         boot_protocol_name(img->protocol), img->ops->modules_max, img->module_count);
    return 0;
}

static bool has_initrd(const struct boot_config *cfg) {
    return cfg->initrd && cfg->initrd[0];
}

// Path of module i, where the initrd is the first.
static const char *module_path(const struct boot_config *cfg, unsigned i) {
    if (has_initrd(cfg))
        return i == 0 ? cfg->initrd : cfg->modules[i - 1];
    return cfg->modules[i];
}

static bool image_copy_names(struct boot_image *img, const struct boot_config *cfg) {
    img->name = strdup(cfg->kernel);
    img->cmdline = strdup(cfg->cmdline ? cfg->cmdline : "");
    for (unsigned i = 0; i < img->module_count; i++) {
        img->modules[i].name = strdup(module_path(cfg, i));
        if (!img->modules[i].name)
            return false;
    }
    return img->name && img->cmdline;
}

static void blobs_free(struct boot_blob kernel, const struct boot_blob *modules, unsigned count) {
    free((void *)kernel.data);
    for (unsigned i = 0; i < count; i++)
        free((void *)modules[i].data);
}

int boot_open_buffers(const struct boot_config *cfg, struct boot_blob kernel, const struct boot_blob *modules,
                      unsigned module_count, struct boot_image **out, struct error *err) {
    struct boot_image *img = calloc(1, sizeof(*img));
    if (!img) {
        blobs_free(kernel, modules, module_count);
        return error_set(err, -ENOMEM, "open kernel '%s'", cfg->kernel);
    }
    img->kernel = kernel;
    img->module_count = module_count;
    for (unsigned i = 0; i < module_count; i++)
        img->modules[i].blob = modules[i];

    int ret = 0;
    if (!image_copy_names(img, cfg))
        ret = error_set(err, -ENOMEM, "out of memory");
    if (!ret)
        ret = image_parse(img, cfg->protocol, err);
    if (!ret)
        ret = image_check_limits(img, err);
    if (ret) {
        error_prefix(err, "kernel '%s'", cfg->kernel);
        boot_close(img);
        return ret;
    }
    *out = img;
    return 0;
}

static uint64_t limit_size(const struct boot_config *cfg, uint64_t max) {
    return cfg->ram_bytes && cfg->ram_bytes < max ? cfg->ram_bytes : max;
}

struct boot_files {
    struct boot_blob kernel, modules[BOOT_MODULES_MAX];
    struct boot_source kernel_source, module_sources[BOOT_MODULES_MAX];
    unsigned modules_read;
};

static int files_read(const struct boot_config *cfg, unsigned wanted, struct boot_files *f, struct error *err) {
    int ret = boot_source_read(&f->kernel_source, cfg->kernel, true, limit_size(cfg, BOOT_KERNEL_MAX), &f->kernel, err);
    for (unsigned *n = &f->modules_read; !ret && *n < wanted; *n += !ret)
        ret = boot_source_read(&f->module_sources[*n], module_path(cfg, *n), false, limit_size(cfg, BOOT_MODULE_MAX),
                               &f->modules[*n], err);
    return ret;
}

static void sources_close(struct boot_files *f) {
    boot_source_close(&f->kernel_source);
    for (unsigned i = 0; i < f->modules_read; i++)
        boot_source_close(&f->module_sources[i]);
}

int boot_open(const struct boot_config *cfg, struct boot_image **img, struct error *err) {
    struct boot_files f = {0};
    unsigned wanted = (has_initrd(cfg) ? 1 : 0) + cfg->module_count;

    if (!cfg->kernel || !cfg->kernel[0])
        return error_set(err, -EINVAL, "no kernel given");
    if (cfg->module_count > BOOT_MODULES_MAX || wanted > BOOT_MODULES_MAX)
        return error_set(err, -EINVAL, "%u modules are more than %u", wanted, BOOT_MODULES_MAX);
    int ret = files_read(cfg, wanted, &f, err);
    if (ret)
        blobs_free(f.kernel, f.modules, f.modules_read);
    else
        ret = boot_open_buffers(cfg, f.kernel, f.modules, wanted, img, err);
    if (ret) {
        sources_close(&f);
        return ret;
    }
    (*img)->source = f.kernel_source;
    for (unsigned i = 0; i < wanted; i++)
        (*img)->modules[i].source = f.module_sources[i];
    return 0;
}

void boot_close(struct boot_image *img) {
    if (!img)
        return;
    for (unsigned i = 0; i < img->module_count; i++) {
        free((void *)img->modules[i].blob.data);
        free(img->modules[i].name);
        boot_source_close(&img->modules[i].source);
    }
    free((void *)img->kernel.data);
    boot_source_close(&img->source);
    free(img->cmdline);
    free(img->name);
    free(img);
}

// ---- loading ----

static int image_load(const struct boot_image *img, struct mem *mem, const struct boot_machine *bm,
                      struct boot_entry *entry, struct error *err) {
    struct boot_layout l;
    layout_init(&l, mem, bm);
    int ret = img->ops->load(img, &l, bm, entry, err);
    if (ret)
        error_prefix(err, "load kernel '%s'", img->name);
    return ret;
}

int boot_check(const struct boot_image *img, const struct boot_machine *bm, struct error *err) {
    struct boot_entry entry;
    return image_load(img, NULL, bm, &entry, err);
}

int boot_load(struct boot_image *img, struct mem *mem, const struct boot_machine *bm, struct boot_entry *entry,
              struct error *err) {
    int ret = image_need_bytes(img, err);
    if (!ret)
        ret = image_load(img, mem, bm, entry, err);
    image_drop_bytes(img);
    return ret;
}
