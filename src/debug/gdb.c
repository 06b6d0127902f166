// SPDX-License-Identifier: Apache-2.0
// A gdb session: packets in and out, registers, memory, points; see the header.
//
// Invariant: while the machine runs, no state is looked at: only 0x03 is obeyed, packets get an error.
#define LOG_UNIT "gdb"
#include "debug/gdb_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86/cpuid.h"
#include "debug/gdb_regs.h"
#include "util/log.h"

#define MEMORY_MAX ((GDB_PACKET_MAX - 64) / 2) // bytes of memory in one packet of hexadecimal

void gdb_error(struct gdb_session *s, int negative_errno) {
    gdb_put(&s->out, "E%02x", (unsigned)-negative_errno & 0xff);
}

// ---- threads ----

bool gdb_get_thread(struct gdb_session *s, const char **p, bool all, int any, int *cpu) {
    uint64_t id;
    if (gdb_get_char(p, '-')) {
        *cpu = -1;
        return all && gdb_get_char(p, '1');
    }
    if (!gdb_get_hex(p, &id) || id > debug_vcpus(s->target))
        return false;
    *cpu = id ? (int)id - 1 : any;
    return true;
}

static void cmd_select(struct gdb_session *s, const char *p) {
    char what = *p ? *p++ : 0;
    int cpu;
    if ((what != 'g' && what != 'c') || !gdb_get_thread(s, &p, what == 'c', (int)s->cpu, &cpu)) {
        gdb_error(s, -EINVAL);
        return;
    }
    if (what == 'c')
        s->resume_cpu = cpu;
    else
        s->cpu = (unsigned)cpu;
    gdb_ok(s);
}

static void cmd_alive(struct gdb_session *s, const char *p) {
    int cpu;
    if (gdb_get_thread(s, &p, false, 0, &cpu))
        gdb_ok(s);
    else
        gdb_error(s, -ESRCH);
}

// ---- registers ----

const struct cpu_state *gdb_state(struct gdb_session *s) {
    const struct cpu_state *state = debug_state(s->target, s->cpu);
    if (!state)
        gdb_error(s, -EIO);
    return state;
}

static void put_state(struct gdb_session *s, const struct cpu_state *state) {
    int ret = debug_set_state(s->target, s->cpu, state);
    if (ret)
        gdb_error(s, ret);
    else
        gdb_ok(s);
}

static void cmd_get_registers(struct gdb_session *s, const char *p) {
    const struct cpu_state *state = gdb_state(s);
    uint8_t bytes[GDB_REG_MAX_BYTES];
    for (unsigned n = 0; state && n < s->regs; n++) {
        gdb_reg_get(state, n, bytes);
        gdb_put_hex(&s->out, bytes, gdb_reg_size(n));
    }
}

static void cmd_set_registers(struct gdb_session *s, const char *p) {
    const struct cpu_state *now = gdb_state(s);
    uint8_t bytes[GDB_REG_MAX_BYTES];
    if (!now)
        return;
    struct cpu_state state = *now;
    for (unsigned n = 0; n < s->regs && *p; n++) { // what is missing at the end stays
        if (!gdb_get_bytes(&p, bytes, gdb_reg_size(n))) {
            gdb_error(s, -EINVAL);
            return;
        }
        gdb_reg_set(&state, n, bytes);
    }
    put_state(s, &state);
}

static void cmd_get_register(struct gdb_session *s, const char *p) {
    const struct cpu_state *state = gdb_state(s);
    uint8_t bytes[GDB_REG_MAX_BYTES];
    uint64_t n;
    if (!state)
        return;
    if (!gdb_get_hex(&p, &n) || *p || n >= s->regs) {
        gdb_error(s, -EINVAL);
        return;
    }
    gdb_reg_get(state, (unsigned)n, bytes);
    gdb_put_hex(&s->out, bytes, gdb_reg_size((unsigned)n));
}

static void cmd_set_register(struct gdb_session *s, const char *p) {
    const struct cpu_state *now = gdb_state(s);
    uint8_t bytes[GDB_REG_MAX_BYTES];
    uint64_t n;
    if (!now)
        return;
    if (!gdb_get_hex(&p, &n) || n >= s->regs || !gdb_get_char(&p, '=') ||
        !gdb_get_bytes(&p, bytes, gdb_reg_size((unsigned)n)) || *p) {
        gdb_error(s, -EINVAL);
        return;
    }
    struct cpu_state state = *now;
    gdb_reg_set(&state, (unsigned)n, bytes);
    put_state(s, &state);
}

// ---- memory ----

// "ADDR,LENGTH"
static bool get_range(const char **p, uint64_t *addr, uint64_t *len) {
    return gdb_get_hex(p, addr) && gdb_get_char(p, ',') && gdb_get_hex(p, len);
}

static void cmd_read_memory(struct gdb_session *s, const char *p) {
    uint64_t addr, len;
    uint8_t buf[MEMORY_MAX];
    if (!get_range(&p, &addr, &len) || *p) {
        gdb_error(s, -EINVAL);
        return;
    }
    if (len > sizeof(buf)) // an answer may be shorter than what was asked for
        len = sizeof(buf);
    int got = debug_read(s->target, s->cpu, s->physical, addr, buf, len);
    if (got < 0)
        gdb_error(s, got);
    else
        gdb_put_hex(&s->out, buf, (size_t)got);
}

static void write_memory(struct gdb_session *s, uint64_t addr, const void *bytes, size_t len) {
    int ret = debug_write(s->target, s->cpu, s->physical, addr, bytes, len);
    if (ret)
        gdb_error(s, ret);
    else
        gdb_ok(s);
}

static void cmd_write_memory(struct gdb_session *s, const char *p) {
    uint64_t addr, len;
    uint8_t buf[MEMORY_MAX];
    if (!get_range(&p, &addr, &len) || !gdb_get_char(&p, ':') || len > sizeof(buf) || !gdb_get_bytes(&p, buf, len) ||
        *p)
        gdb_error(s, -EINVAL);
    else
        write_memory(s, addr, buf, len);
}

static void cmd_write_binary(struct gdb_session *s, const char *p) {
    uint64_t addr, len;
    if (!get_range(&p, &addr, &len) || !gdb_get_char(&p, ':') || len != (size_t)(s->reader.data + s->reader.len - p))
        gdb_error(s, -EINVAL);
    else
        write_memory(s, addr, p, len);
}

// ---- points ----

// "KIND,ADDR,LENGTH", as in Z and z.
static bool get_point(const char *p, enum debug_kind *kind, uint64_t *addr, uint64_t *len) {
    static const enum debug_kind kinds[] = {DEBUG_SOFT, DEBUG_EXEC, DEBUG_WRITE, DEBUG_READ, DEBUG_ACCESS};
    uint64_t k;
    if (!gdb_get_hex(&p, &k) || k >= ARRAY_LEN(kinds) || !gdb_get_char(&p, ',') || !get_range(&p, addr, len) || *p)
        return false;
    *kind = kinds[k];
    return true;
}

static void change_point(struct gdb_session *s, const char *p, bool add) {
    enum debug_kind kind;
    uint64_t addr, len;
    int ret = -EINVAL;
    if (get_point(p, &kind, &addr, &len))
        ret =
            add ? debug_add_point(s->target, s->cpu, kind, addr, len) : debug_remove_point(s->target, kind, addr, len);
    if (ret == 0)
        gdb_ok(s);
    else if (ret != -EOPNOTSUPP) // the empty reply: gdb tries another kind
        gdb_error(s, ret);
}

static void cmd_add_point(struct gdb_session *s, const char *p) {
    change_point(s, p, true);
}

static void cmd_remove_point(struct gdb_session *s, const char *p) {
    change_point(s, p, false);
}

// ---- the end ----

static void cmd_detach(struct gdb_session *s, const char *p) {
    gdb_ok(s);
    s->io.close(s->io.ctx);
}

static void cmd_kill(struct gdb_session *s, const char *p) {
    s->silent = true;
    log_info("ended by the debugger");
    machine_end(s->machine, MACHINE_STOPPED);
    s->io.close(s->io.ctx);
}

static void cmd_v(struct gdb_session *s, const char *p) {
    if (strncmp(p, "Cont", 4) == 0) {
        gdb_cmd_vcont(s, p + 4);
    } else if (strncmp(p, "Kill", 4) == 0 && (!p[4] || p[4] == ';')) {
        cmd_kill(s, p);
        s->silent = false;
        gdb_ok(s);
    }
}

static void cmd_why(struct gdb_session *s, const char *p) {
    gdb_stop_reply(s);
}

// ---- packets ----

static void dispatch(struct gdb_session *s) {
    static void (*const commands[128])(struct gdb_session *, const char *) = {
        ['?'] = cmd_why,
        ['c'] = gdb_cmd_continue,
        ['C'] = gdb_cmd_continue_signal,
        ['D'] = cmd_detach,
        ['g'] = cmd_get_registers,
        ['G'] = cmd_set_registers,
        ['H'] = cmd_select,
        ['k'] = cmd_kill,
        ['m'] = cmd_read_memory,
        ['M'] = cmd_write_memory,
        ['p'] = cmd_get_register,
        ['P'] = cmd_set_register,
        ['q'] = gdb_cmd_query,
        ['Q'] = gdb_cmd_set,
        ['s'] = gdb_cmd_step,
        ['S'] = gdb_cmd_step_signal,
        ['T'] = cmd_alive,
        ['v'] = cmd_v,
        ['X'] = cmd_write_binary,
        ['Z'] = cmd_add_point,
        ['z'] = cmd_remove_point,
    };
    uint8_t letter = (uint8_t)s->reader.data[0];
    if (s->waiting)
        gdb_error(s, -EBUSY);
    else if (letter < 128 && commands[letter])
        commands[letter](s, s->reader.data + 1);
    // What is not known gets the empty reply.
}

static void send_reply(struct gdb_session *s) {
    char frame[GDB_FRAME_MAX];
    if (s->out.overflow) {
        s->out.len = 0;
        s->out.overflow = false;
        gdb_error(s, -EMSGSIZE);
    }
    s->io.send(s->io.ctx, frame, gdb_frame(&s->out, frame));
}

static void acknowledge(struct gdb_session *s, const char *how) {
    if (!s->no_ack)
        s->io.send(s->io.ctx, how, 1);
}

static void compose_begin(struct gdb_session *s) {
    s->out.len = 0;
    s->out.overflow = false;
}

static void on_packet(struct gdb_session *s) {
    acknowledge(s, "+");
    log_trace("< %.120s", s->reader.data);
    compose_begin(s);
    s->silent = false;
    dispatch(s);
    if (!s->silent)
        send_reply(s);
}

void gdb_session_receive(struct gdb_session *s, uint8_t byte) {
    switch (gdb_read_byte(&s->reader, byte)) {
    case GDB_PACKET: on_packet(s); break;
    case GDB_BROKEN: acknowledge(s, "-"); break;
    case GDB_NAK:
        if (!s->no_ack && s->out.len)
            send_reply(s);
        break;
    case GDB_INTERRUPT: gdb_interrupt(s); break;
    case GDB_ACK:
    case GDB_NOTHING: break;
    }
}

// The reply to the packet that let the machine go on. Also from within that packet, which has none of its own then.
static void send_stop(struct gdb_session *s) {
    compose_begin(s);
    gdb_stop_reply(s);
    s->waiting = false;
    send_reply(s);
}

void gdb_on_event(void *ctx, const struct debug_event *event) {
    struct gdb_session *s = ctx;
    s->event = *event;
    s->signal = GDB_SIGTRAP;
    s->cpu = event->vcpu;
    if (s->waiting)
        send_stop(s);
}

void gdb_interrupt(struct gdb_session *s) {
    if (!s->waiting)
        return;
    debug_stop(s->target);
    s->event = (struct debug_event){.kind = DEBUG_STEPPED, .vcpu = s->cpu};
    s->signal = GDB_SIGINT;
    send_stop(s);
}

void gdb_session_exited(struct gdb_session *s, int code) {
    if (!s->waiting)
        return;
    compose_begin(s);
    gdb_put(&s->out, "W%02x", (unsigned)code & 0xff);
    s->waiting = false;
    send_reply(s);
}

// ---- life ----

int gdb_session_create(struct machine *m, const struct gdb_io *io, struct gdb_session **session, struct error *err) {
    const struct cpuid_policy *policy = m->host.cpu_policy;
    struct gdb_session *s = calloc(1, sizeof(*s));
    if (!s || !(s->xml = gdb_target_xml(policy->has_avx))) {
        free(s);
        return error_set(err, -ENOMEM, "debugger");
    }
    struct debug_client client = {.stopped = gdb_on_event, .ctx = s};
    int ret = debug_target_create(m, &client, &s->target, err);
    if (ret) {
        free(s->xml);
        free(s);
        return ret;
    }
    s->io = *io;
    s->machine = m;
    s->regs = gdb_reg_count(policy->has_avx);
    *session = s;
    return 0;
}

void gdb_session_destroy(struct gdb_session *s) {
    if (!s)
        return;
    debug_target_destroy(s->target);
    free(s->xml);
    free(s);
}

void gdb_session_stop(struct gdb_session *s) {
    debug_stop(s->target);
}

void gdb_session_begin(struct gdb_session *s) {
    debug_stop(s->target);
    debug_mask_interrupts(s->target, true);
    s->no_ack = s->waiting = s->tells_breaks = s->physical = false;
    s->cpu = 0;
    s->resume_cpu = -1;
    s->event = (struct debug_event){.kind = DEBUG_STEPPED};
    s->signal = GDB_SIGTRAP;
    s->out.len = 0;
    memset(&s->reader, 0, offsetof(struct gdb_reader, data));
}

void gdb_session_end(struct gdb_session *s) {
    s->waiting = false;
    debug_detach(s->target);
}
