// SPDX-License-Identifier: Apache-2.0
// Keyboard controller with nothing attached. Everything is under `lock`. The A20 gate is remembered, but A20 is
// always open: no guest that needs it closed runs here.
#include "dev/i8042.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define KEYBOARD_GSI 1

enum { STATUS_FULL = 0x01, STATUS_SYSTEM = 0x04, STATUS_COMMAND = 0x08, STATUS_UNLOCKED = 0x10, STATUS_TIMEOUT = 0x40 };
enum { CONFIG_IRQ = 0x01, CONFIG_SYSTEM = 0x04, CONFIG_KEYBOARD_OFF = 0x10, CONFIG_AUX_OFF = 0x20 };
enum { OUTPUT_NOT_RESET = 0x01, OUTPUT_A20 = 0x02, OUTPUT_FULL = 0x10 };

enum {
    CMD_READ_RAM = 0x20, // ..0x3f, of which 0 is the configuration byte
    CMD_WRITE_RAM = 0x60,
    CMD_TEST_AUX = 0xa9,
    CMD_SELF_TEST = 0xaa,
    CMD_TEST_KEYBOARD = 0xab,
    CMD_KEYBOARD_OFF = 0xad,
    CMD_KEYBOARD_ON = 0xae,
    CMD_READ_INPUT = 0xc0,
    CMD_READ_OUTPUT = 0xd0,
    CMD_WRITE_OUTPUT = 0xd1,
    CMD_LOOP_KEYBOARD = 0xd2,
    CMD_LOOP_AUX = 0xd3,
    CMD_WRITE_AUX = 0xd4,
    CMD_PULSE = 0xf0, // ..0xff: output lines of zero bits 3:0 go low for a moment
};

struct i8042 {
    struct machine *machine;
    pthread_mutex_t lock;
    uint8_t ram[32];      // [0] is the configuration byte
    uint8_t output_port;  // as written by 0xd1
    uint8_t data, status; // status without the lines that are always the same
    uint8_t command;      // that waits for its data byte, 0 for none
    bool irq;
};

static void update_irq(struct i8042 *k) {
    bool irq = k->status & STATUS_FULL && k->ram[0] & CONFIG_IRQ;

    if (irq == k->irq)
        return;
    k->irq = irq;
    irq_set(&k->machine->irq, KEYBOARD_GSI, irq);
}

static void answer(struct i8042 *k, uint8_t val, uint8_t flags) {
    k->data = val;
    k->status = (k->status & STATUS_COMMAND) | STATUS_FULL | flags;
    update_irq(k);
}

// A device that is not there does not answer: the controller says so at once, so probes end soon.
static void absent_device(struct i8042 *k) {
    answer(k, 0xfe, STATUS_TIMEOUT);
}

static void write_config(struct i8042 *k, uint8_t val) {
    k->ram[0] = val | CONFIG_AUX_OFF; // an AT controller: no auxiliary port
    update_irq(k);
}

// Returns true where the machine is to be reset.
static bool write_command(struct i8042 *k, uint8_t cmd) {
    k->command = 0;
    k->status |= STATUS_COMMAND;
    switch (cmd) {
    case CMD_READ_RAM ... CMD_READ_RAM + 0x1f: answer(k, k->ram[cmd & 0x1f], 0); break;
    case CMD_WRITE_RAM ... CMD_WRITE_RAM + 0x1f:
    case CMD_WRITE_OUTPUT:
    case CMD_LOOP_KEYBOARD:
    case CMD_LOOP_AUX:
    case CMD_WRITE_AUX: k->command = cmd; break;
    case CMD_TEST_AUX: answer(k, 0x01, 0); break; // clock line stuck: nothing there
    case CMD_SELF_TEST: answer(k, 0x55, 0); break;
    case CMD_TEST_KEYBOARD: answer(k, 0x00, 0); break;
    case CMD_KEYBOARD_OFF: k->ram[0] |= CONFIG_KEYBOARD_OFF; break;
    case CMD_KEYBOARD_ON: k->ram[0] &= ~CONFIG_KEYBOARD_OFF; break;
    case CMD_READ_INPUT: answer(k, 0x80, 0); break; // keyboard not locked
    case CMD_READ_OUTPUT:
        answer(k, k->output_port | OUTPUT_NOT_RESET | (k->status & STATUS_FULL ? OUTPUT_FULL : 0), 0);
        break;
    case CMD_PULSE ... CMD_PULSE + 0x0f: return !(cmd & OUTPUT_NOT_RESET);
    }
    return false;
}

static bool write_data(struct i8042 *k, uint8_t val) {
    uint8_t cmd = k->command;

    k->command = 0;
    k->status &= ~STATUS_COMMAND;
    switch (cmd) {
    case CMD_WRITE_RAM: write_config(k, val); break;
    case CMD_WRITE_RAM + 1 ... CMD_WRITE_RAM + 0x1f: k->ram[cmd & 0x1f] = val; break;
    case CMD_WRITE_OUTPUT: k->output_port = val & OUTPUT_A20; return !(val & OUTPUT_NOT_RESET);
    case CMD_LOOP_KEYBOARD:
    case CMD_LOOP_AUX: answer(k, val, 0); break; // never with the auxiliary flag: tells that there is no such port
    default: absent_device(k); break;
    }
    return false;
}

static void data_read(void *ctx, struct bus_access *a) {
    struct i8042 *k = ctx;

    pthread_mutex_lock(&k->lock);
    a->data = k->data;
    k->status &= ~(STATUS_FULL | STATUS_TIMEOUT);
    update_irq(k);
    pthread_mutex_unlock(&k->lock);
}

static void status_read(void *ctx, struct bus_access *a) {
    struct i8042 *k = ctx;

    pthread_mutex_lock(&k->lock);
    a->data = k->status | STATUS_UNLOCKED | (k->ram[0] & CONFIG_SYSTEM ? STATUS_SYSTEM : 0);
    pthread_mutex_unlock(&k->lock);
}

static void port_write(struct i8042 *k, bool (*write)(struct i8042 *, uint8_t), uint8_t val) {
    bool reset;

    pthread_mutex_lock(&k->lock);
    reset = write(k, val);
    pthread_mutex_unlock(&k->lock);
    if (reset)
        machine_reset_request(k->machine);
}

static void port60_write(void *ctx, const struct bus_access *a) {
    port_write(ctx, write_data, a->data & 0xff);
}
static void port64_write(void *ctx, const struct bus_access *a) {
    port_write(ctx, write_command, a->data & 0xff);
}

static void i8042_reset(void *ctx) {
    struct i8042 *k = ctx;

    for (unsigned i = 0; i < ARRAY_LEN(k->ram); i++)
        k->ram[i] = 0;
    k->ram[0] = CONFIG_SYSTEM | CONFIG_AUX_OFF;
    k->output_port = OUTPUT_A20;
    k->data = k->status = k->command = 0;
    update_irq(k);
}

static void i8042_save(void *ctx, struct state_writer *w) {
    struct i8042 *k = ctx;

    state_put_bytes(w, k->ram, sizeof(k->ram));
    state_put_u8(w, k->output_port);
    state_put_u8(w, k->data);
    state_put_u8(w, k->status);
    state_put_u8(w, k->command);
    state_put_u8(w, k->irq);
}

static int i8042_load(void *ctx, struct state_reader *r, struct error *err) {
    struct i8042 *k = ctx;

    state_get_bytes(r, k->ram, sizeof(k->ram));
    k->output_port = state_get_u8(r);
    k->data = state_get_u8(r);
    k->status = state_get_u8(r) & (STATUS_FULL | STATUS_COMMAND | STATUS_TIMEOUT);
    k->command = state_get_u8(r);
    k->irq = state_get_u8(r);
    return r->error ? error_set(err, r->error, "saved 8042 state is damaged") : 0;
}

static void i8042_destroy(void *ctx) {
    struct i8042 *k = ctx;

    pthread_mutex_destroy(&k->lock);
    free(k);
}

static const struct component_ops component_ops = {
    .name = "i8042",
    .version = 1,
    .reset = i8042_reset,
    .save = i8042_save,
    .load = i8042_load,
    .destroy = i8042_destroy,
};

static const struct bus_ops port60_ops = {.name = "i8042-data", .read = data_read, .write = port60_write};
static const struct bus_ops port64_ops = {.name = "i8042-command", .read = status_read, .write = port64_write};

int i8042_create(struct dev_env *env, struct i8042 **out, struct error *err) {
    const struct dev_range ranges[] = {{env->pio, 0x60, 1, &port60_ops}, {env->pio, 0x64, 1, &port64_ops}};
    struct i8042 *k = calloc(1, sizeof(*k));
    int ret;

    if (!k)
        return error_set(err, -ENOMEM, "create keyboard controller");
    pthread_mutex_init(&k->lock, NULL);
    k->machine = env->machine;
    i8042_reset(k);
    ret = dev_attach(env, &component_ops, k, 0, ranges, ARRAY_LEN(ranges), err);
    if (ret) {
        i8042_destroy(k);
        return ret;
    }
    *out = k;
    return 0;
}
