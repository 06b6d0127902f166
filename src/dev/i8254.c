// SPDX-License-Identifier: Apache-2.0
// 8254: nothing counts; each channel knows when its count began, and count and OUT follow from the clock.
// Channel 0 has a vtimer for its next rising edge. Edges that came too late merge into one. A new count takes
// effect at once also in modes 2 and 3 (hardware waits for the end of the period). All is under `lock`.
#include "dev/i8254.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "arch/x86/irqchip.h"

#define REFRESH_NS 15085 // half period of the memory refresh signal in port 0x61 bit 4

struct i8254 {
    struct machine *machine;
    pthread_mutex_t lock;
    struct vtimer timer;
    struct x86_pit_state s;
};

static uint64_t pit_now(struct i8254 *p) {
    return clock_now_ns(&p->machine->clock);
}

static bool is_periodic(const struct x86_pit_channel *c) {
    return c->mode == 2 || c->mode == 3;
}
static bool is_triggered(const struct x86_pit_channel *c) {
    return c->mode == 1 || c->mode == 5;
}
// In these modes a low gate stops the count; in 2 and 3 it does too, and a high one starts it over.
static bool gate_holds(const struct x86_pit_channel *c) {
    return c->mode == 0 || c->mode == 4;
}

static uint64_t ticks(const struct x86_pit_channel *c, uint64_t now) {
    if (!c->gate && gate_holds(c))
        return c->held_ticks;
    return dev_ns_to_ticks(now - c->start_ns, X86_PIT_HZ);
}

static bool channel_out(const struct x86_pit_channel *c, uint64_t now) {
    uint64_t t = ticks(c, now);

    if (!c->running)
        return c->mode != 0;
    if (!c->gate && is_periodic(c))
        return true;
    switch (c->mode) {
    case 0:
    case 1: return t >= c->count;
    case 2: return t % c->count != c->count - 1;
    case 3: return t % c->count < (c->count + 1) / 2;
    default: return t != c->count; // 4 and 5: a strobe of one tick
    }
}

static uint32_t channel_count(const struct x86_pit_channel *c, uint64_t now) {
    uint64_t t = ticks(c, now);

    if (!c->running)
        return c->count;
    if (c->mode == 2)
        return (uint32_t)(c->count - t % c->count);
    if (c->mode == 3)
        return (uint32_t)(c->count - 2 * t % c->count) & ~1u;
    if (c->bcd)
        return (uint32_t)((c->count + 10000 - t % 10000) % 10000);
    return (uint32_t)(c->count - t);
}

static uint16_t to_bcd(uint32_t v) {
    return (uint16_t)(v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 % 10 << 12);
}

static uint32_t from_bcd(uint32_t v) {
    return (v & 15) + (v >> 4 & 15) * 10 + (v >> 8 & 15) * 100 + (v >> 12 & 15) * 1000;
}

static uint16_t visible_count(const struct x86_pit_channel *c, uint64_t now) {
    uint32_t count = channel_count(c, now);

    return c->bcd ? to_bcd(count) : (uint16_t)count;
}

// ---- channel 0: interrupt ----

static uint64_t edges_until(const struct x86_pit_channel *c, uint64_t t) {
    return is_periodic(c) ? t / c->count : t >= c->count;
}

// Raises what is due and arms the vtimer for the next edge.
static void check_irq(struct i8254 *p) {
    struct x86_pit_channel *c = &p->s.ch[0];
    uint64_t now = pit_now(p), edges, next;

    if (!c->running) {
        vtimer_cancel(&p->timer);
        return;
    }
    edges = edges_until(c, ticks(c, now));
    if (edges != p->s.edges) {
        irq_set(&p->machine->irq, 0, false);
        irq_set(&p->machine->irq, 0, true);
    }
    p->s.edges = edges;
    if (edges && !is_periodic(c))
        return;
    next = c->start_ns + dev_ticks_to_ns((edges + 1) * c->count, X86_PIT_HZ);
    vtimer_arm(&p->timer, edges && next < now + DEV_MIN_PERIOD_NS ? now + DEV_MIN_PERIOD_NS : next);
}

static void timer_fired(void *ctx) {
    struct i8254 *p = ctx;

    pthread_mutex_lock(&p->lock);
    check_irq(p);
    pthread_mutex_unlock(&p->lock);
}

static void restart(struct i8254 *p, struct x86_pit_channel *c) {
    c->start_ns = pit_now(p);
    c->held_ticks = 0;
    c->running = true;
    if (c != &p->s.ch[0])
        return;
    p->s.edges = 0;
    if (!is_periodic(c))
        irq_set(&p->machine->irq, 0, false);
    check_irq(p);
}

// ---- registers ----

static void load_count(struct i8254 *p, struct x86_pit_channel *c, uint16_t val) {
    if (c->bcd)
        c->count = val ? from_bcd(val) : 10000;
    else
        c->count = val ? val : 0x10000;
    if (!is_triggered(c))
        restart(p, c);
}

static void write_count(struct i8254 *p, struct x86_pit_channel *c, uint8_t val) {
    switch (c->access) {
    case X86_PIT_LOW: load_count(p, c, val); break;
    case X86_PIT_HIGH: load_count(p, c, (uint16_t)(val << 8)); break;
    default:
        if (c->write_high)
            load_count(p, c, (uint16_t)(val << 8 | c->write_low));
        else
            c->write_low = val;
        c->write_high = !c->write_high;
        break;
    }
}

static void latch_count(struct x86_pit_channel *c, uint64_t now) {
    if (c->latched) // a latch holds until it is read
        return;
    c->latch = visible_count(c, now);
    c->latched = c->access;
}

static void latch_status(struct x86_pit_channel *c, uint64_t now) {
    if (c->status_latched)
        return;
    c->status_latched = true;
    c->status = (uint8_t)(channel_out(c, now) << 7 | !c->running << 6 | c->access << 4 | c->mode << 1 | c->bcd);
}

static void read_back(struct i8254 *p, uint8_t val) {
    uint64_t now = pit_now(p);

    for (int i = 0; i < X86_PIT_CHANNELS; i++) {
        if (!(val & 2 << i))
            continue;
        if (!(val & 0x20))
            latch_count(&p->s.ch[i], now);
        if (!(val & 0x10))
            latch_status(&p->s.ch[i], now);
    }
}

static void write_control(struct i8254 *p, uint8_t val) {
    struct x86_pit_channel *c;

    if (val >> 6 == 3) {
        read_back(p, val);
        return;
    }
    c = &p->s.ch[val >> 6];
    if (!(val >> 4 & 3)) {
        latch_count(c, pit_now(p));
        return;
    }
    *c = (struct x86_pit_channel){.gate = c->gate, .count = c->count, .access = val >> 4 & 3, .bcd = val & 1};
    c->mode = val >> 1 & 7;
    if (c->mode > 5)
        c->mode -= 4; // 6 and 7 are 2 and 3
    if (c == &p->s.ch[0]) {
        irq_set(&p->machine->irq, 0, c->mode != 0);
        check_irq(p);
    }
}

static uint8_t read_count(struct i8254 *p, struct x86_pit_channel *c) {
    bool high;
    uint16_t val;

    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    if (c->latched) {
        high = !(c->latched & X86_PIT_LOW);
        c->latched &= high ? 0 : ~X86_PIT_LOW;
        return (uint8_t)(high ? c->latch >> 8 : c->latch);
    }
    val = visible_count(c, pit_now(p));
    high = c->access == X86_PIT_HIGH || (c->access == X86_PIT_BOTH && c->read_high);
    c->read_high = c->access == X86_PIT_BOTH && !c->read_high;
    return (uint8_t)(high ? val >> 8 : val);
}

static void set_gate(struct i8254 *p, struct x86_pit_channel *c, bool gate) {
    if (gate == c->gate)
        return;
    if (!gate)
        c->held_ticks = ticks(c, pit_now(p));
    c->gate = gate;
    if (gate && gate_holds(c))
        c->start_ns = pit_now(p) - dev_ticks_to_ns(c->held_ticks, X86_PIT_HZ);
    else if (gate && (c->running || is_triggered(c)))
        restart(p, c);
}

static void pit_read(void *ctx, struct bus_access *a) {
    struct i8254 *p = ctx;

    pthread_mutex_lock(&p->lock);
    a->data = a->offset < X86_PIT_CHANNELS ? read_count(p, &p->s.ch[a->offset]) : 0xff; // control is write-only
    pthread_mutex_unlock(&p->lock);
}

static void pit_write(void *ctx, const struct bus_access *a) {
    struct i8254 *p = ctx;
    uint8_t val = a->data & 0xff;

    pthread_mutex_lock(&p->lock);
    if (a->offset < X86_PIT_CHANNELS)
        write_count(p, &p->s.ch[a->offset], val);
    else
        write_control(p, val);
    pthread_mutex_unlock(&p->lock);
}

static void port61_read(void *ctx, struct bus_access *a) {
    struct i8254 *p = ctx;
    uint64_t now;

    pthread_mutex_lock(&p->lock);
    now = pit_now(p);
    a->data = p->s.port61 | (now / REFRESH_NS & 1) << 4 | (uint64_t)channel_out(&p->s.ch[2], now) << 5;
    pthread_mutex_unlock(&p->lock);
}

static void port61_write(void *ctx, const struct bus_access *a) {
    struct i8254 *p = ctx;

    pthread_mutex_lock(&p->lock);
    p->s.port61 = a->data & 0x0f;
    set_gate(p, &p->s.ch[2], p->s.port61 & 1);
    pthread_mutex_unlock(&p->lock);
}

// ---- component ----

static void pit_reset(void *ctx) {
    struct i8254 *p = ctx;

    x86_pit_reset(&p->s);
    vtimer_cancel(&p->timer);
    irq_set(&p->machine->irq, 0, false);
}

static void pit_resume(void *ctx) {
    timer_fired(ctx);
}

static void pit_save(void *ctx, struct state_writer *w) {
    struct i8254 *p = ctx;

    x86_pit_save(&p->s, w);
}

static int pit_load(void *ctx, struct state_reader *r, struct error *err) {
    struct i8254 *p = ctx;
    struct x86_pit_state s;
    int ret = x86_pit_load(&s, r, err);

    if (ret == 0)
        p->s = s;
    return ret;
}

static void pit_destroy(void *ctx) {
    struct i8254 *p = ctx;

    vtimer_fini(&p->timer);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static const struct component_ops component_ops = {
    .name = X86_PIT_SECTION,
    .version = X86_PIT_VERSION,
    .reset = pit_reset,
    .resume = pit_resume,
    .save = pit_save,
    .load = pit_load,
    .destroy = pit_destroy,
};

static const struct bus_ops pit_ops = {.name = "i8254", .read = pit_read, .write = pit_write};
static const struct bus_ops port61_ops = {.name = "port61", .read = port61_read, .write = port61_write};

int i8254_create(struct dev_env *env, struct i8254 **out, struct error *err) {
    const struct dev_range ranges[] = {{env->pio, 0x40, 4, &pit_ops}, {env->pio, 0x61, 1, &port61_ops}};
    struct i8254 *p = calloc(1, sizeof(*p));
    int ret;

    if (!p)
        return error_set(err, -ENOMEM, "create 8254");
    pthread_mutex_init(&p->lock, NULL);
    p->machine = env->machine;
    vtimer_init(&p->timer, &env->machine->clock, timer_fired, p);
    pit_reset(p);
    ret = dev_attach(env, &component_ops, p, 0, ranges, ARRAY_LEN(ranges), err);
    if (ret) {
        pit_destroy(p);
        return ret;
    }
    *out = p;
    return 0;
}
