// SPDX-License-Identifier: Apache-2.0
// The 8254 inside KVM to its canonical state and back (4.71 KVM_CREATE_PIT2, 4.72, 4.73).
//
// A state that was set counts no time until kvm_pit_resume and is read back as it was set. KVM does not tell how far
// channel 0 has counted, so its period begins anew with a move; it has no held counts (a gate that closes does not stop
// it) and no BCD. Its mode 0xff is "not programmed since reset".
#define LOG_UNIT "kvm"
#include <errno.h>

#include "core/clock.h"
#include "engine/kvm/kvm.h"
#include "util/log.h"

#define NOT_PROGRAMMED 0xffu
#define WORD_HIGH      4u // read_state, write_state: the high byte of a two-byte access is next

// Both clocks in nanoseconds. KVM's is CLOCK_MONOTONIC.
struct now {
    uint64_t machine, host;
};

static struct now now_of(struct engine *e) {
    return (struct now){.machine = kvm_clock_now(e), .host = nondet_monotonic_ns(e->host->nondet)};
}

// ---- get ----

static struct x86_pit_channel channel_from_kvm(const struct kvm_pit_channel_state *k, const struct now *now) {
    struct x86_pit_channel c = {
        .count = k->count ? k->count : 0x10000,
        .start_ns = now->machine - (now->host - (uint64_t)k->count_load_time),
        .running = k->mode <= 5,
        .gate = k->gate,
        .bcd = k->bcd,
        .mode = k->mode <= 5 ? k->mode : 3,
        .access = k->rw_mode ? k->rw_mode : X86_PIT_BOTH,
        .write_high = k->write_state == WORD_HIGH,
        .read_high = k->read_state == WORD_HIGH,
        .write_low = k->write_latch,
        .latched = k->count_latched == WORD_HIGH ? X86_PIT_HIGH : k->count_latched,
        .latch = k->latched_count,
        .status_latched = k->status_latched,
        .status = k->status,
    };

    if (!c.running)
        c.start_ns = 0;
    return c;
}

int kvm_pit_get(struct engine *e, struct x86_pit_state *s) {
    struct now now = now_of(e);
    struct kvm_pit_state2 k;
    int r = e->pit_held ? 0 : kvm_ioctl(e->vm_fd, KVM_GET_PIT2, &k);

    if (e->pit_held)
        *s = e->pit;
    if (r || e->pit_held)
        return r;
    *s = (struct x86_pit_state){.port61 =
                                    (k.channels[2].gate ? 1 : 0) | (k.flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON ? 2 : 0)};
    k.channels[0].count_load_time = (int64_t)now.host; // KVM does not keep it
    for (unsigned i = 0; i < X86_PIT_CHANNELS; i++)
        s->ch[i] = channel_from_kvm(&k.channels[i], &now);
    return 0;
}

// ---- set ----

static bool is_programmed(const struct x86_pit_channel *c) {
    return c->running || c->mode != 3 || c->count != 0x10000;
}

static uint8_t byte_state(const struct x86_pit_channel *c, bool high) {
    return c->access == X86_PIT_BOTH && high ? WORD_HIGH : c->access;
}

static struct kvm_pit_channel_state channel_to_kvm(const struct x86_pit_channel *c, const struct now *now) {
    return (struct kvm_pit_channel_state){
        .count = c->count,
        .count_load_time = (int64_t)(now->host - (now->machine - c->start_ns)),
        .gate = c->gate,
        .bcd = c->bcd,
        .mode = is_programmed(c) ? c->mode : (uint8_t)NOT_PROGRAMMED,
        .rw_mode = c->access,
        .write_state = byte_state(c, c->write_high),
        .read_state = byte_state(c, c->read_high),
        .write_latch = c->write_low,
        .count_latched = c->latched,
        .latched_count = c->latch,
        .status_latched = c->status_latched,
        .status = c->status,
    };
}

// Channel 0 counts from the call on; one that is not to count yet is not programmed.
static int write_all(struct engine *e, const struct x86_pit_state *s, bool counting) {
    struct now now = now_of(e);
    struct kvm_pit_state2 k = {.flags = s->port61 & 2 ? KVM_PIT_FLAGS_SPEAKER_DATA_ON : 0};

    for (unsigned i = 0; i < X86_PIT_CHANNELS; i++)
        k.channels[i] = channel_to_kvm(&s->ch[i], &now);
    if (!counting)
        k.channels[0].mode = NOT_PROGRAMMED;
    return kvm_ioctl(e->vm_fd, KVM_SET_PIT2, &k);
}

int kvm_pit_set(struct engine *e, const struct x86_pit_state *s) {
    e->pit = *s;
    e->pit_held = true;
    return write_all(e, s, false);
}

void kvm_pit_resume(struct engine *e) {
    int r = e->pit_held ? write_all(e, &e->pit, true) : 0;

    if (r)
        log_error("start the interval timer: error %d", r);
    e->pit_held = false;
}
