// SPDX-License-Identifier: Apache-2.0
// fw_cfg, the firmware configuration device of QEMU (docs/specs/fw_cfg of that project), port interface without
// DMA: a 16-bit selector at 0x510, a data byte at 0x511. Read-only for the guest.
#ifndef CICADA_DEV_FW_CFG_H
#define CICADA_DEV_FW_CFG_H

#include "dev/dev.h"

#define FW_CFG_PORT 0x510

enum fw_cfg_key {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_RAM_SIZE = 0x03,
    FW_CFG_NB_CPUS = 0x05,
    FW_CFG_MAX_CPUS = 0x0f,
    FW_CFG_FILE_DIR = 0x19,
    FW_CFG_FILE_FIRST = 0x20,
};
#define FW_CFG_KEYS      0x80 // keys below this exist: room for 96 files
#define FW_CFG_NAME_SIZE 56

struct fw_cfg;

int fw_cfg_create(struct dev_env *env, uint64_t ram_size, uint16_t cpus, uint16_t max_cpus, struct fw_cfg **out,
                  struct error *err);
// While the board is built. The bytes are copied. 0, -EEXIST for a key or name taken, -EINVAL for a key out of
// range or a bad name, -ENOSPC, -ENOMEM.
int fw_cfg_add_bytes(struct fw_cfg *f, uint16_t key, const void *data, uint32_t len);
int fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, uint32_t len);

#endif
