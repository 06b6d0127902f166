// SPDX-License-Identifier: Apache-2.0
// Fuzzes ELF kernels, PVH notes: open and load must end with success or an error text, whatever the file holds.
#include "fuzz_boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const enum boot_protocol protocols[] = {BOOT_AUTO, BOOT_PVH, BOOT_ELF64};
    for (size_t i = 0; i < ARRAY_LEN(protocols); i++)
        fuzz_boot_once(data, size, protocols[i]);
    return 0;
}
