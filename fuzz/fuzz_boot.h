// SPDX-License-Identifier: Apache-2.0
// Shared by the fuzzers of boot/: opens the input as a kernel by one protocol and loads it into a small guest.
#ifndef CICADA_FUZZ_BOOT_H
#define CICADA_FUZZ_BOOT_H

#include <stdlib.h>
#include <string.h>

#include "boot/image.h"

#define FUZZ_RAM (32ull << 20)

static struct mem *fuzz_guest(void) {
    static struct mem *mem;
    struct error err = {0};
    if (!mem && (mem_create(&mem, &err) || mem_add_ram(mem, GPA(0), FUZZ_RAM, "ram", &err)))
        abort();
    return mem;
}

static void fuzz_boot_once(const uint8_t *data, size_t size, enum boot_protocol protocol) {
    struct boot_config cfg = {.kernel = "fuzz", .cmdline = "quiet", .protocol = protocol};
    struct boot_image *img = NULL;
    struct boot_machine bm;
    struct boot_entry entry;
    struct error err = {0};
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        return;
    memcpy(copy, data, size);
    if (boot_open_buffers(&cfg, (struct boot_blob){.data = copy, .size = size}, NULL, 0, &img, &err)) {
        if (err.code >= 0 || !err.text[0]) // every refusal has its reason
            abort();
        return;
    }
    boot_machine_init(&bm, FUZZ_RAM, 0xe0000000, 1 << 20, 1, 0xe0000);
    boot_load(img, fuzz_guest(), &bm, &entry, &err);
    boot_close(img);
}

#endif
