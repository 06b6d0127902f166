// SPDX-License-Identifier: Apache-2.0
// MC146818A. The guest's time is the wall clock plus `offset_ns`, which a guest that sets the clock moves; while
// it holds SET (or the divider in reset) time stands still in `frozen_ns`. Flags in register C are found out
// when asked for or when the vtimer fires, from what happened since `checked_ns`. All is under `lock`.
// The wall clock may jump (the host's is set): then flags of the time between are lost or early, no more.
#include "dev/mc146818.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "dev/rtc_time.h"

#define RTC_GSI   8
#define CMOS_SIZE 128
#define NS_PER_S  INT64_C(1000000000)
#define UIP_NS    244000 // update-in-progress precedes the update by this (datasheet, "Update cycle")

enum {
    REG_SECONDS = 0x00,
    REG_SECONDS_ALARM = 0x01,
    REG_MINUTES = 0x02,
    REG_MINUTES_ALARM = 0x03,
    REG_HOURS = 0x04,
    REG_HOURS_ALARM = 0x05,
    REG_WEEKDAY = 0x06,
    REG_DAY = 0x07,
    REG_MONTH = 0x08,
    REG_YEAR = 0x09,
    REG_A = 0x0a,
    REG_B = 0x0b,
    REG_C = 0x0c,
    REG_D = 0x0d,
    REG_CENTURY = 0x32,
};

#define A_UIP           0x80
#define A_DIVIDER       0x70
#define A_DIVIDER_RESET 0x60 // 110 and 111
#define B_SET           0x80
#define B_INTERRUPTS    0x70 // PIE, AIE, UIE: the same bits as their flags in C
#define B_BINARY        0x04
#define B_24H           0x02
#define C_IRQ           0x80
#define C_PERIODIC      0x40
#define C_ALARM         0x20
#define C_UPDATE        0x10
#define D_VALID         0x80

struct mc146818 {
    struct machine *machine;
    pthread_mutex_t lock;
    struct vtimer timer;
    uint8_t index;
    uint8_t cmos[CMOS_SIZE]; // alarm registers, A, B, C and RAM; the time registers are derived
    int64_t offset_ns;       // guest time - wall clock
    int64_t frozen_ns;       // guest time while the clock is stopped
    int64_t checked_ns;      // guest time up to which flags were found out
};

// ---- time ----

static bool is_stopped(const struct mc146818 *rtc) {
    return rtc->cmos[REG_B] & B_SET || (rtc->cmos[REG_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;
}

static int64_t wall_ns(struct mc146818 *rtc) {
    return (int64_t)clock_realtime_ns(&rtc->machine->clock);
}

static int64_t guest_ns(struct mc146818 *rtc) {
    return is_stopped(rtc) ? rtc->frozen_ns : (int64_t)((uint64_t)wall_ns(rtc) + (uint64_t)rtc->offset_ns);
}

static int64_t floor_s(int64_t ns) {
    return ns / NS_PER_S - (ns % NS_PER_S < 0);
}

static void set_guest_ns(struct mc146818 *rtc, int64_t ns) {
    rtc->frozen_ns = ns;
    rtc->offset_ns = (int64_t)((uint64_t)ns - (uint64_t)wall_ns(rtc));
    rtc->checked_ns = ns;
}

static uint8_t encode(const struct mc146818 *rtc, unsigned v) {
    return (uint8_t)(rtc->cmos[REG_B] & B_BINARY ? v : v / 10 << 4 | v % 10);
}

static unsigned decode(const struct mc146818 *rtc, uint8_t v) {
    return rtc->cmos[REG_B] & B_BINARY ? v : (v >> 4) * 10u + (v & 15);
}

// 12-hour mode: 1..12 with bit 7 for the afternoon; midnight is 12 am.
static uint8_t encode_hour(const struct mc146818 *rtc, unsigned hour) {
    if (rtc->cmos[REG_B] & B_24H)
        return encode(rtc, hour);
    return encode(rtc, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0);
}

static unsigned decode_hour(const struct mc146818 *rtc, uint8_t v) {
    if (rtc->cmos[REG_B] & B_24H)
        return decode(rtc, v);
    return decode(rtc, v & 0x7f) % 12 + (v & 0x80 ? 12 : 0);
}

static bool is_time_register(uint8_t reg) {
    return reg == REG_SECONDS || reg == REG_MINUTES || reg == REG_HOURS || (reg >= REG_WEEKDAY && reg <= REG_YEAR) ||
           reg == REG_CENTURY;
}

static uint8_t read_time(struct mc146818 *rtc, uint8_t reg) {
    struct rtc_time t;

    rtc_time_from_unix(floor_s(guest_ns(rtc)), &t);
    switch (reg) {
    case REG_SECONDS: return encode(rtc, t.second);
    case REG_MINUTES: return encode(rtc, t.minute);
    case REG_HOURS: return encode_hour(rtc, t.hour);
    case REG_WEEKDAY: return encode(rtc, t.weekday);
    case REG_DAY: return encode(rtc, t.day);
    case REG_MONTH: return encode(rtc, t.month);
    case REG_YEAR: return encode(rtc, (unsigned)t.year % 100);
    default: return (uint8_t)((unsigned)t.year / 100 / 10 << 4 | (unsigned)t.year / 100 % 10); // always BCD
    }
}

static void write_time(struct mc146818 *rtc, uint8_t reg, uint8_t val) {
    int64_t now = guest_ns(rtc), second = floor_s(now);
    unsigned v = decode(rtc, val);
    struct rtc_time t;

    rtc_time_from_unix(second, &t);
    switch (reg) {
    case REG_SECONDS: t.second = v % 60; break;
    case REG_MINUTES: t.minute = v % 60; break;
    case REG_HOURS: t.hour = decode_hour(rtc, val) % 24; break;
    case REG_WEEKDAY: return; // follows from the date
    case REG_DAY: t.day = (uint8_t)v; break;
    case REG_MONTH: t.month = (uint8_t)v; break;
    case REG_YEAR: t.year = t.year / 100 * 100 + (int)(v % 100); break;
    default: t.year = ((val >> 4) * 10 + (val & 15)) * 100 + t.year % 100; break;
    }
    // Years before 1970 and after 2262 do not fit nanoseconds since 1970.
    if (t.year >= 1970 && t.year < 2262)
        set_guest_ns(rtc, rtc_time_to_unix(&t) * NS_PER_S + (now - second * NS_PER_S));
}

// ---- flags and interrupts ----

// Rates 1 and 2 are those of 8 and 9 with a 32768 Hz base.
static int64_t periodic_ns(const struct mc146818 *rtc) {
    unsigned rate = rtc->cmos[REG_A] & 15;

    if (!rate || is_stopped(rtc))
        return 0;
    if (rate <= 2)
        rate += 7;
    return (NS_PER_S << (rate - 1)) / 32768;
}

// An alarm byte with both top bits set matches anything.
static bool alarm_byte_matches(uint8_t alarm, uint8_t now) {
    return (alarm & 0xc0) == 0xc0 || alarm == now;
}

static bool alarm_matches(const struct mc146818 *rtc, int64_t second) {
    struct rtc_time t;

    rtc_time_from_unix(second, &t);
    return alarm_byte_matches(rtc->cmos[REG_SECONDS_ALARM], encode(rtc, t.second)) &&
           alarm_byte_matches(rtc->cmos[REG_MINUTES_ALARM], encode(rtc, t.minute)) &&
           alarm_byte_matches(rtc->cmos[REG_HOURS_ALARM], encode_hour(rtc, t.hour));
}

// At most a day back: every alarm time comes in a day.
static bool alarm_between(const struct mc146818 *rtc, int64_t from, int64_t to) {
    if (to - from > 86400)
        from = to - 86400;
    for (int64_t s = from + 1; s <= to; s++)
        if (alarm_matches(rtc, s))
            return true;
    return false;
}

static uint8_t flags_between(struct mc146818 *rtc, int64_t from, int64_t to) {
    int64_t period = periodic_ns(rtc);
    uint8_t flags = 0;

    if (period && from / period != to / period)
        flags |= C_PERIODIC;
    if (floor_s(from) == floor_s(to))
        return flags;
    return flags | C_UPDATE | (alarm_between(rtc, floor_s(from), floor_s(to)) ? C_ALARM : 0);
}

static void update_irq(struct mc146818 *rtc) {
    bool irq = rtc->cmos[REG_C] & rtc->cmos[REG_B] & B_INTERRUPTS;

    if (irq == !!(rtc->cmos[REG_C] & C_IRQ))
        return;
    rtc->cmos[REG_C] ^= C_IRQ;
    irq_set(&rtc->machine->irq, RTC_GSI, irq);
}

// Time from now to the next event that may interrupt.
static int64_t next_event_ns(struct mc146818 *rtc, int64_t now) {
    int64_t period = periodic_ns(rtc), wait = NS_PER_S - (now - floor_s(now) * NS_PER_S);

    if (rtc->cmos[REG_B] & C_PERIODIC && period && period - now % period < wait)
        wait = period - now % period;
    return wait < (int64_t)DEV_MIN_PERIOD_NS ? (int64_t)DEV_MIN_PERIOD_NS : wait;
}

static void check(struct mc146818 *rtc) {
    int64_t now = guest_ns(rtc);

    if (now > rtc->checked_ns)
        rtc->cmos[REG_C] |= flags_between(rtc, rtc->checked_ns, now);
    rtc->checked_ns = now;
    update_irq(rtc);
    // While the interrupt is pending nothing new can be told; the read of C checks and arms again.
    if (rtc->cmos[REG_B] & B_INTERRUPTS && !is_stopped(rtc) && !(rtc->cmos[REG_C] & C_IRQ))
        vtimer_arm(&rtc->timer, clock_now_ns(&rtc->machine->clock) + (uint64_t)next_event_ns(rtc, now));
    else
        vtimer_cancel(&rtc->timer);
}

static void timer_fired(void *ctx) {
    struct mc146818 *rtc = ctx;

    pthread_mutex_lock(&rtc->lock);
    check(rtc);
    pthread_mutex_unlock(&rtc->lock);
}

// ---- registers ----

static uint8_t read_a(struct mc146818 *rtc) {
    int64_t now = guest_ns(rtc);
    bool uip = !is_stopped(rtc) && now - floor_s(now) * NS_PER_S >= NS_PER_S - UIP_NS;

    return (rtc->cmos[REG_A] & 0x7f) | (uip ? A_UIP : 0);
}

static uint8_t read_c(struct mc146818 *rtc) {
    uint8_t val;

    check(rtc);
    val = rtc->cmos[REG_C];
    rtc->cmos[REG_C] &= C_IRQ;
    update_irq(rtc);
    check(rtc);
    return val;
}

static uint8_t read_register(struct mc146818 *rtc, uint8_t reg) {
    if (is_time_register(reg))
        return read_time(rtc, reg);
    switch (reg) {
    case REG_A: return read_a(rtc);
    case REG_C: return read_c(rtc);
    case REG_D: return D_VALID;
    default: return rtc->cmos[reg];
    }
}

// Changes A or B. A stopped clock goes on from where it was; out of divider reset the first update comes
// after half a second.
static void write_control(struct mc146818 *rtc, uint8_t reg, uint8_t val) {
    int64_t now = guest_ns(rtc);
    bool was_reset = (rtc->cmos[REG_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;

    check(rtc);
    rtc->cmos[reg] = reg == REG_A ? val & 0x7f : val;
    if (reg == REG_B && val & B_SET)
        rtc->cmos[REG_B] &= ~C_UPDATE; // datasheet: SET clears UIE
    if (was_reset && (rtc->cmos[REG_A] & A_DIVIDER_RESET) != A_DIVIDER_RESET)
        now = floor_s(now) * NS_PER_S + NS_PER_S / 2;
    set_guest_ns(rtc, now);
    check(rtc);
}

static void write_register(struct mc146818 *rtc, uint8_t reg, uint8_t val) {
    if (is_time_register(reg))
        write_time(rtc, reg, val);
    else if (reg == REG_A || reg == REG_B)
        write_control(rtc, reg, val);
    else if (reg != REG_C && reg != REG_D)
        rtc->cmos[reg] = val;
}

static void rtc_read(void *ctx, struct bus_access *a) {
    struct mc146818 *rtc = ctx;

    pthread_mutex_lock(&rtc->lock);
    a->data = a->offset ? read_register(rtc, rtc->index) : 0xff; // the index is write-only
    pthread_mutex_unlock(&rtc->lock);
}

// Bit 7 of the index port gates NMIs, which nothing on our boards sends through it.
static void rtc_write(void *ctx, const struct bus_access *a) {
    struct mc146818 *rtc = ctx;

    pthread_mutex_lock(&rtc->lock);
    if (a->offset)
        write_register(rtc, rtc->index, a->data & 0xff);
    else
        rtc->index = a->data & (CMOS_SIZE - 1);
    pthread_mutex_unlock(&rtc->lock);
}

// ---- component ----

// RAM and time are battery-backed: a machine reset clears interrupts only (datasheet, RESET pin).
static void rtc_reset(void *ctx) {
    struct mc146818 *rtc = ctx;

    rtc->index = 0;
    rtc->cmos[REG_B] &= ~B_INTERRUPTS;
    rtc->cmos[REG_C] &= C_IRQ;
    check(rtc);
}

static void rtc_save(void *ctx, struct state_writer *w) {
    struct mc146818 *rtc = ctx;

    state_put_u8(w, rtc->index);
    state_put_bytes(w, rtc->cmos, sizeof(rtc->cmos));
    state_put_u64(w, (uint64_t)rtc->offset_ns);
    state_put_u64(w, (uint64_t)rtc->frozen_ns);
    state_put_u64(w, (uint64_t)rtc->checked_ns);
}

static int rtc_load(void *ctx, struct state_reader *r, struct error *err) {
    struct mc146818 *rtc = ctx;

    rtc->index = state_get_u8(r) & (CMOS_SIZE - 1);
    state_get_bytes(r, rtc->cmos, sizeof(rtc->cmos));
    rtc->offset_ns = (int64_t)state_get_u64(r);
    rtc->frozen_ns = (int64_t)state_get_u64(r);
    rtc->checked_ns = (int64_t)state_get_u64(r);
    if (!r->error && rtc->frozen_ns >= 0 && rtc->checked_ns >= 0 && guest_ns(rtc) >= 0)
        return 0;
    set_guest_ns(rtc, wall_ns(rtc));
    return error_set(err, -EINVAL, "saved RTC state is damaged");
}

static void rtc_destroy(void *ctx) {
    struct mc146818 *rtc = ctx;

    vtimer_fini(&rtc->timer);
    pthread_mutex_destroy(&rtc->lock);
    free(rtc);
}

static const struct component_ops component_ops = {
    .name = "mc146818",
    .version = 1,
    .reset = rtc_reset,
    .resume = timer_fired,
    .save = rtc_save,
    .load = rtc_load,
    .destroy = rtc_destroy,
};

static const struct bus_ops rtc_ops = {.name = "mc146818", .read = rtc_read, .write = rtc_write};

static void set_le(struct mc146818 *rtc, uint8_t reg, uint64_t val, unsigned bytes) {
    for (unsigned i = 0; i < bytes; i++)
        rtc->cmos[reg + i] = (uint8_t)(val >> 8 * i);
}

static uint64_t at_most(uint64_t v, uint64_t max) {
    return v < max ? v : max;
}

static void set_memory_sizes(struct mc146818 *rtc, uint64_t below_4g, uint64_t above_4g) {
    uint64_t over_1m = below_4g > 1 << 20 ? (below_4g - (1 << 20)) >> 10 : 0;
    uint64_t over_16m = below_4g > 16 << 20 ? (below_4g - (16 << 20)) >> 16 : 0;

    set_le(rtc, 0x15, 640, 2);                               // base memory, KiB
    set_le(rtc, 0x17, at_most(over_1m, 0xffff), 2);          // extended memory, KiB
    set_le(rtc, 0x30, at_most(over_1m, 0xffff), 2);          // the same, as found by the power-on test
    set_le(rtc, 0x34, at_most(over_16m, 0xffff), 2);         // above 16 MiB, 64 KiB
    set_le(rtc, 0x5b, at_most(above_4g >> 16, 0xffffff), 3); // above 4 GiB, 64 KiB
}

void mc146818_set_cmos(struct mc146818 *rtc, uint8_t index, uint8_t val) {
    if (index > REG_D && index < CMOS_SIZE && index != REG_CENTURY)
        rtc->cmos[index] = val;
}

int mc146818_create(struct dev_env *env, uint64_t ram_below_4g, uint64_t ram_above_4g, struct mc146818 **out,
                    struct error *err) {
    const struct dev_range range = {env->pio, 0x70, 2, &rtc_ops};
    struct mc146818 *rtc = calloc(1, sizeof(*rtc));
    int ret;

    if (!rtc)
        return error_set(err, -ENOMEM, "create RTC");
    pthread_mutex_init(&rtc->lock, NULL);
    rtc->machine = env->machine;
    vtimer_init(&rtc->timer, &env->machine->clock, timer_fired, rtc);
    rtc->cmos[REG_A] = 0x26; // 32768 Hz crystal, 1024 Hz
    rtc->cmos[REG_B] = B_24H;
    set_guest_ns(rtc, wall_ns(rtc));
    set_memory_sizes(rtc, ram_below_4g, ram_above_4g);
    ret = dev_attach(env, &component_ops, rtc, 0, &range, 1, err);
    if (ret) {
        rtc_destroy(rtc);
        return ret;
    }
    *out = rtc;
    return 0;
}
