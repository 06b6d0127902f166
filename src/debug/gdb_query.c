// SPDX-License-Identifier: Apache-2.0
// Queries (q) and settings (Q) (gdb manual E.4).
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "debug/gdb_private.h"

// ---- q ----

static void q_supported(struct gdb_session *s, const char *p) {
    s->tells_breaks = strstr(p, "swbreak+") && strstr(p, "hwbreak+");
    gdb_put(&s->out,
            "PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;qXfer:threads:read+;vContSupported+;swbreak+;"
            "hwbreak+",
            GDB_PACKET_MAX - 1);
}

// "OFFSET,LENGTH" of a text: l for the last piece, m for the others.
static void put_piece(struct gdb_session *s, const char *p, const char *text, size_t size) {
    uint64_t offset, len;
    if (!gdb_get_hex(&p, &offset) || !gdb_get_char(&p, ',') || !gdb_get_hex(&p, &len) || *p || offset > size) {
        gdb_error(s, -EINVAL);
        return;
    }
    size_t rest = size - (size_t)offset, most = GDB_PACKET_MAX / 2 - 1; // each byte may need an escape
    size_t n = len < most ? (size_t)len : most;
    n = n < rest ? n : rest;
    gdb_put(&s->out, "%c", n == rest ? 'l' : 'm');
    gdb_put_binary(&s->out, text + offset, n);
}

static void q_features(struct gdb_session *s, const char *p) {
    if (strncmp(p, "target.xml:", 11) == 0)
        put_piece(s, p + 11, s->xml, strlen(s->xml));
    else
        gdb_error(s, -ENOENT);
}

static const char *activity(struct gdb_session *s, unsigned cpu) {
    const struct cpu_state *state = debug_state(s->target, cpu);
    if (!state)
        return "?";
    switch (state->activity) {
    case X86_HALTED: return "halted";
    case X86_WAIT_SIPI: return "not started";
    case X86_IN_SHUTDOWN: return "shut down";
    default: return SEG_DPL(state->seg[X86_SS].attr) == 3 && state->cr0 & CR0_PE ? "user" : "kernel";
    }
}

static void q_threads_xml(struct gdb_session *s, const char *p) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) {
        gdb_error(s, -ENOMEM);
        return;
    }
    fputs("<threads>", out);
    for (unsigned i = 0; i < debug_vcpus(s->target); i++)
        fprintf(out, "<thread id=\"%x\" core=\"%u\" name=\"vCPU %u\">%s</thread>", i + 1, i, i, activity(s, i));
    fputs("</threads>", out);
    if (fclose(out) == 0 && gdb_get_char(&p, ':')) // the annex is empty
        put_piece(s, p, text, size);
    else
        gdb_error(s, -EINVAL);
    free(text);
}

static void q_current(struct gdb_session *s, const char *p) {
    gdb_put(&s->out, "QC%x", s->cpu + 1);
}

static void q_attached(struct gdb_session *s, const char *p) {
    gdb_put(&s->out, "1"); // to leave is to detach, not to kill
}

static void q_threads(struct gdb_session *s, const char *p) {
    gdb_put(&s->out, "m");
    for (unsigned i = 0; i < debug_vcpus(s->target); i++)
        gdb_put(&s->out, "%s%x", i ? "," : "", i + 1);
}

static void q_threads_end(struct gdb_session *s, const char *p) {
    gdb_put(&s->out, "l");
}

static void q_thread_info(struct gdb_session *s, const char *p) {
    const char *text;
    int cpu;
    if (!gdb_get_thread(s, &p, false, (int)s->cpu, &cpu)) {
        gdb_error(s, -ESRCH);
        return;
    }
    text = activity(s, (unsigned)cpu);
    gdb_put_hex(&s->out, text, strlen(text));
}

static void q_command(struct gdb_session *s, const char *p) {
    char command[256];
    size_t n = strlen(p) / 2;
    if (n >= sizeof(command) || !gdb_get_bytes(&p, command, n) || *p) {
        gdb_error(s, -EINVAL);
        return;
    }
    command[n] = 0;
    gdb_monitor(s, command);
}

static void q_physical(struct gdb_session *s, const char *p) {
    gdb_put(&s->out, "%d", s->physical);
}

// ---- Q ----

// The packet itself is still acknowledged.
static void set_no_ack(struct gdb_session *s, const char *p) {
    s->no_ack = true;
    gdb_ok(s);
}

static void set_physical(struct gdb_session *s, const char *p) {
    if ((*p != '0' && *p != '1') || p[1]) {
        gdb_error(s, -EINVAL);
        return;
    }
    s->physical = *p == '1';
    gdb_ok(s);
}

// ---- tables ----

struct query {
    const char *prefix; // with the separator behind it, where there are parameters
    void (*fn)(struct gdb_session *s, const char *p);
};

// Physical addresses as in QEMU: nobody else has a packet for it.
static const struct query queries[] = {
    {"Supported", q_supported},
    {"Xfer:features:read:", q_features},
    {"Xfer:threads:read:", q_threads_xml},
    {"fThreadInfo", q_threads},
    {"sThreadInfo", q_threads_end},
    {"ThreadExtraInfo,", q_thread_info},
    {"Attached", q_attached},
    {"Rcmd,", q_command},
    {"qemu.PhyMemMode", q_physical},
    {"C", q_current},
};

static const struct query settings[] = {
    {"StartNoAckMode", set_no_ack},
    {"qemu.PhyMemMode:", set_physical},
};

static void find(const struct query *table, size_t count, struct gdb_session *s, const char *p) {
    for (size_t i = 0; i < count; i++) {
        size_t n = strlen(table[i].prefix);
        char next = strncmp(p, table[i].prefix, n) == 0 ? p[n] : 'x';
        bool parameters = strchr(":,", table[i].prefix[n - 1]);
        if (strncmp(p, table[i].prefix, n) == 0 && (parameters || !next || next == ':')) {
            table[i].fn(s, p + n);
            return;
        }
    }
}

void gdb_cmd_query(struct gdb_session *s, const char *p) {
    find(queries, ARRAY_LEN(queries), s, p);
}

void gdb_cmd_set(struct gdb_session *s, const char *p) {
    find(settings, ARRAY_LEN(settings), s, p);
}
