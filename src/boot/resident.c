// SPDX-License-Identifier: Apache-2.0
// The bytes of a boot image are needed for a moment at power-on and at each reset. In between only the open files are
// kept: a kernel and its initrd are the largest thing in the process beside the guest's memory.
//
// Invariants: what was parsed (headers, segments) is of the first reading and stays; a second one is only taken from a
// file of the same size and time of its last write, so its bytes are as many and, but for a writer who hides, the same.
// Renaming or removing the file, as an upgrade does, changes neither.
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot/image.h"

static int source_note(struct boot_source *src, struct error *err) {
    struct stat st;
    if (fstat(src->fd, &st) < 0)
        return error_set(err, -errno, "look at an open file");
    src->size = (uint64_t)st.st_size;
    src->written = st.st_mtim;
    return 0;
}

static int read_bytes(int fd, const char *path, bool kernel, uint64_t max, struct boot_blob *out, struct error *err) {
    return kernel ? boot_file_read_kernel(fd, path, max, out, err)
                  : boot_file_read_fd(fd, path, "initrd", max, out, err);
}

int boot_source_read(struct boot_source *src, const char *path, bool kernel, uint64_t max, struct boot_blob *out,
                     struct error *err) {
    struct boot_source s = {.fd = boot_file_open(path, kernel ? "kernel" : "initrd", err)};
    if (s.fd < 0)
        return s.fd;
    int ret = source_note(&s, err); // before it is read: a change meanwhile shows the next time
    if (!ret)
        ret = read_bytes(s.fd, path, kernel, max, out, err);
    if (ret)
        close(s.fd);
    else
        *src = s;
    return ret;
}

void boot_source_close(struct boot_source *src) {
    if (src->fd > 0)
        close(src->fd);
    *src = (struct boot_source){0};
}

static int source_reread(const struct boot_source *src, const char *path, bool kernel, struct boot_blob *out,
                         struct error *err) {
    struct boot_source now = {.fd = src->fd};
    int ret = source_note(&now, err);
    if (ret)
        return ret;
    if (now.size != src->size || now.written.tv_sec != src->written.tv_sec ||
        now.written.tv_nsec != src->written.tv_nsec)
        return error_set(err, -ESTALE, "%s '%s' was changed since the machine started: it cannot be loaded again",
                         kernel ? "kernel" : "initrd", path);
    return read_bytes(src->fd, path, kernel, src->size, out, err);
}

static void blob_drop(struct boot_blob *blob) {
    free((void *)blob->data);
    blob->data = NULL; // the size stays
}

void image_drop_bytes(struct boot_image *img) {
    if (img->source.fd > 0)
        blob_drop(&img->kernel);
    for (unsigned i = 0; i < img->module_count; i++)
        if (img->modules[i].source.fd > 0)
            blob_drop(&img->modules[i].blob);
}

static int kernel_need_bytes(struct boot_image *img, struct error *err) {
    struct boot_blob file, elf;
    int ret = source_reread(&img->source, img->name, true, &file, err);
    if (ret || !img->extracted) {
        if (!ret)
            img->kernel = file;
        return ret;
    }
    ret = payload_extract((struct boot_blob){.data = file.data + img->bz.payload_offset, .size = img->bz.payload_size},
                          &elf, err);
    free((void *)file.data);
    if (ret)
        return ret;
    if (elf.size != img->kernel.size) {
        free((void *)elf.data);
        return error_set(err, -ESTALE, "kernel '%s' was changed since the machine started", img->name);
    }
    img->kernel = elf;
    return 0;
}

int image_need_bytes(struct boot_image *img, struct error *err) {
    int ret = img->kernel.data ? 0 : kernel_need_bytes(img, err);
    for (unsigned i = 0; !ret && i < img->module_count; i++) {
        struct boot_module *m = &img->modules[i];
        struct boot_blob blob;
        if (m->blob.data)
            continue;
        ret = source_reread(&m->source, m->name, false, &blob, err);
        if (!ret)
            m->blob = blob;
    }
    return ret;
}
