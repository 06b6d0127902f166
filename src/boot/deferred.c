// SPDX-License-Identifier: Apache-2.0
// Boot images read late; see the header.
#include "boot/deferred.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "boot/image.h"

struct boot_deferred {
    struct boot_config cfg;   // strings owned
    int kernel_fd, initrd_fd; // -1: not opened; negative errno otherwise
};

static char *copy(const char *s, bool *ok) {
    char *c = s ? strdup(s) : NULL;
    *ok &= !s || c;
    return c;
}

static int open_file(const char *path) {
    int fd = path && *path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) : -1;
    return fd < 0 && path && *path ? -errno : fd;
}

int boot_defer(const struct boot_config *cfg, struct boot_deferred **out, struct error *err) {
    struct boot_deferred *d = calloc(1, sizeof(*d));
    bool ok = d != NULL;
    if (ok) {
        d->cfg = (struct boot_config){.kernel = copy(cfg->kernel, &ok),
                                      .initrd = copy(cfg->initrd, &ok),
                                      .cmdline = copy(cfg->cmdline, &ok),
                                      .protocol = cfg->protocol,
                                      .ram_bytes = cfg->ram_bytes};
        d->kernel_fd = open_file(cfg->kernel);
        d->initrd_fd = open_file(cfg->initrd);
    }
    if (!ok) {
        boot_deferred_close(d);
        return error_set(err, -ENOMEM, "open kernel '%s'", cfg->kernel);
    }
    *out = d;
    return 0;
}

static int read_file(int fd, const char *path, const char *what, uint64_t max, struct boot_blob *out,
                     struct error *err) {
    if (fd < 0)
        return error_set(err, fd, "open %s '%s'", what, path);
    return boot_file_read_fd(fd, path, what, max, out, err);
}

int boot_deferred_open(struct boot_deferred *d, struct boot_image **img, struct error *err) {
    struct boot_blob kernel = {0}, module = {0};
    unsigned count = d->cfg.initrd && *d->cfg.initrd;
    int ret = read_file(d->kernel_fd, d->cfg.kernel, "kernel", BOOT_KERNEL_MAX, &kernel, err);
    if (ret == 0 && count) {
        ret = read_file(d->initrd_fd, d->cfg.initrd, "initrd", BOOT_MODULE_MAX, &module, err);
        if (ret)
            free((void *)kernel.data);
    }
    return ret ? ret : boot_open_buffers(&d->cfg, kernel, &module, count, img, err);
}

void boot_deferred_close(struct boot_deferred *d) {
    if (!d)
        return;
    if (d->kernel_fd >= 0)
        close(d->kernel_fd);
    if (d->initrd_fd >= 0)
        close(d->initrd_fd);
    free((char *)d->cfg.kernel);
    free((char *)d->cfg.initrd);
    free((char *)d->cfg.cmdline);
    free(d);
}
