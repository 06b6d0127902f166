// SPDX-License-Identifier: Apache-2.0
// fw_cfg. Items are fixed once the vCPUs run; selector and position are under `lock`. Past the end of an item,
// and for keys that do not exist, data reads as zero.
#include "dev/fw_cfg.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define ID_PORT_INTERFACE 1      // bit 1 would announce DMA
#define KEY_MASK          0x3fff // bit 14 asks for writing, bit 15 for the architecture's own keys: none here
#define MAX_FILES         (FW_CFG_KEYS - FW_CFG_FILE_FIRST)
#define DIR_ENTRY         64 // u32 size, u16 key, u16 reserved, name; big-endian

struct item {
    uint8_t *data; // owned
    uint32_t len;
};

struct fw_cfg {
    pthread_mutex_t lock;
    uint16_t key;
    uint32_t pos;
    struct item items[FW_CFG_KEYS];
    unsigned nfiles;
    uint8_t dir[4 + MAX_FILES * DIR_ENTRY];
};

static void put_be(uint8_t *p, uint32_t val, unsigned bytes) {
    while (bytes--) {
        p[bytes] = (uint8_t)val;
        val >>= 8;
    }
}

int fw_cfg_add_bytes(struct fw_cfg *f, uint16_t key, const void *data, uint32_t len) {
    struct item *item;

    if (key >= FW_CFG_KEYS || key == FW_CFG_FILE_DIR)
        return -EINVAL;
    item = &f->items[key];
    if (item->data)
        return -EEXIST;
    item->data = malloc(len ? len : 1);
    if (!item->data)
        return -ENOMEM;
    memcpy(item->data, data, len);
    item->len = len;
    return 0;
}

static const char *file_name(const struct fw_cfg *f, unsigned i) {
    return (const char *)f->dir + 4 + i * DIR_ENTRY + 8;
}

int fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, uint32_t len) {
    uint16_t key = (uint16_t)(FW_CFG_FILE_FIRST + f->nfiles);
    uint8_t *entry = f->dir + 4 + f->nfiles * DIR_ENTRY;
    int ret;

    if (!*name || strlen(name) >= FW_CFG_NAME_SIZE)
        return -EINVAL;
    if (f->nfiles == MAX_FILES)
        return -ENOSPC;
    for (unsigned i = 0; i < f->nfiles; i++)
        if (!strcmp(file_name(f, i), name))
            return -EEXIST;
    ret = fw_cfg_add_bytes(f, key, data, len);
    if (ret)
        return ret;
    put_be(entry, len, 4);
    put_be(entry + 4, key, 2);
    strcpy((char *)entry + 8, name);
    put_be(f->dir, ++f->nfiles, 4);
    return 0;
}

static uint8_t next_byte(struct fw_cfg *f) {
    const uint8_t *data = NULL;
    uint32_t len = 0;

    if (f->key == FW_CFG_FILE_DIR) {
        data = f->dir;
        len = 4 + f->nfiles * DIR_ENTRY;
    } else if (f->key < FW_CFG_KEYS) {
        data = f->items[f->key].data;
        len = f->items[f->key].len;
    }
    return data && f->pos < len ? data[f->pos++] : 0;
}

// Data is a byte wide; the selector reads as nothing.
static void fw_cfg_read(void *ctx, struct bus_access *a) {
    struct fw_cfg *f = ctx;

    if (a->offset != 1) {
        a->data = UINT64_MAX;
        return;
    }
    pthread_mutex_lock(&f->lock);
    a->data = next_byte(f);
    pthread_mutex_unlock(&f->lock);
}

static void fw_cfg_write(void *ctx, const struct bus_access *a) {
    struct fw_cfg *f = ctx;

    if (a->offset || a->size != 2)
        return;
    pthread_mutex_lock(&f->lock);
    f->key = (a->data & ~(uint64_t)KEY_MASK) & 0x8000 ? FW_CFG_KEYS : a->data & KEY_MASK;
    f->pos = 0;
    pthread_mutex_unlock(&f->lock);
}

static void fw_cfg_reset(void *ctx) {
    struct fw_cfg *f = ctx;

    f->key = 0;
    f->pos = 0;
}

static void fw_cfg_save(void *ctx, struct state_writer *w) {
    struct fw_cfg *f = ctx;

    state_put_u16(w, f->key);
    state_put_u32(w, f->pos);
}

static int fw_cfg_load(void *ctx, struct state_reader *r, struct error *err) {
    struct fw_cfg *f = ctx;

    f->key = state_get_u16(r);
    f->pos = state_get_u32(r);
    return r->error ? error_set(err, r->error, "saved fw_cfg state is damaged") : 0;
}

static void fw_cfg_destroy(void *ctx) {
    struct fw_cfg *f = ctx;

    for (unsigned i = 0; i < FW_CFG_KEYS; i++)
        free(f->items[i].data);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

static const struct component_ops component_ops = {
    .name = "fw_cfg",
    .version = 1,
    .reset = fw_cfg_reset,
    .save = fw_cfg_save,
    .load = fw_cfg_load,
    .destroy = fw_cfg_destroy,
};

static const struct bus_ops port_ops = {.name = "fw_cfg", .read = fw_cfg_read, .write = fw_cfg_write};

static int add_le(struct fw_cfg *f, uint16_t key, uint64_t val, uint32_t bytes) {
    uint8_t buf[8];

    for (unsigned i = 0; i < 8; i++)
        buf[i] = (uint8_t)(val >> 8 * i);
    return fw_cfg_add_bytes(f, key, buf, bytes);
}

static int add_standard(struct fw_cfg *f, uint64_t ram_size, uint16_t cpus, uint16_t max_cpus) {
    if (fw_cfg_add_bytes(f, FW_CFG_SIGNATURE, "QEMU", 4) || add_le(f, FW_CFG_ID, ID_PORT_INTERFACE, 4) ||
        add_le(f, FW_CFG_RAM_SIZE, ram_size, 8) || add_le(f, FW_CFG_NB_CPUS, cpus, 2) ||
        add_le(f, FW_CFG_MAX_CPUS, max_cpus, 2))
        return -ENOMEM;
    return 0;
}

int fw_cfg_create(struct dev_env *env, uint64_t ram_size, uint16_t cpus, uint16_t max_cpus, struct fw_cfg **out,
                  struct error *err) {
    const struct dev_range range = {env->pio, FW_CFG_PORT, 2, &port_ops};
    struct fw_cfg *f = calloc(1, sizeof(*f));
    int ret;

    if (!f)
        return error_set(err, -ENOMEM, "create fw_cfg");
    pthread_mutex_init(&f->lock, NULL);
    ret = add_standard(f, ram_size, cpus, max_cpus);
    if (ret)
        error_set(err, ret, "create fw_cfg");
    else
        ret = dev_attach(env, &component_ops, f, 0, &range, 1, err);
    if (ret) {
        fw_cfg_destroy(f);
        return ret;
    }
    *out = f;
    return 0;
}
