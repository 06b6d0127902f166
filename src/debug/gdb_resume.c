// SPDX-License-Identifier: Apache-2.0
// Stop and go: stop replies, c, s and vCont (gdb manual E.2, E.3). Signals that gdb wants delivered mean nothing to a
// guest and are dropped.
#include <errno.h>
#include <string.h>

#include "debug/gdb_private.h"

// ---- stop replies ----

static void put_cause(struct gdb_session *s) {
    switch (s->event.kind) {
    case DEBUG_STEPPED: break;
    case DEBUG_SOFT: gdb_put(&s->out, "%s", s->tells_breaks ? "swbreak:;" : ""); break;
    case DEBUG_EXEC: gdb_put(&s->out, "%s", s->tells_breaks ? "hwbreak:;" : ""); break;
    case DEBUG_WRITE: gdb_put(&s->out, "watch:%llx;", (unsigned long long)s->event.addr); break;
    case DEBUG_READ: gdb_put(&s->out, "rwatch:%llx;", (unsigned long long)s->event.addr); break;
    case DEBUG_ACCESS: gdb_put(&s->out, "awatch:%llx;", (unsigned long long)s->event.addr); break;
    }
}

void gdb_stop_reply(struct gdb_session *s) {
    gdb_put(&s->out, "T%02xthread:%x;", s->signal, s->event.vcpu + 1);
    put_cause(s);
}

// ---- going on ----

static void go(struct gdb_session *s) {
    s->silent = true;
    s->waiting = true;
    debug_resume(s->target); // may report an event at once
}

static void act_on_all(struct gdb_session *s, enum debug_action action) {
    for (unsigned i = 0; i < debug_vcpus(s->target); i++)
        debug_set_action(s->target, i, action);
}

// "ADDR" of c and s: where to go on.
static bool jump_to(struct gdb_session *s, const char *p) {
    const struct cpu_state *now = gdb_state(s);
    uint64_t rip;
    int ret = 0;
    if (!now)
        return false;
    if (!gdb_get_hex(&p, &rip) || *p)
        ret = -EINVAL;
    struct cpu_state state = *now;
    if (ret == 0) {
        state.rip = rip;
        ret = debug_set_state(s->target, s->cpu, &state);
    }
    if (ret)
        gdb_error(s, ret);
    return ret == 0;
}

static void resume_one(struct gdb_session *s, const char *p, enum debug_action action) {
    if (*p && !jump_to(s, p))
        return;
    act_on_all(s, DEBUG_CONTINUE);
    if (action == DEBUG_STEP_ONE)
        debug_set_action(s->target, s->resume_cpu >= 0 ? (unsigned)s->resume_cpu : s->cpu, action);
    go(s);
}

void gdb_cmd_continue(struct gdb_session *s, const char *p) {
    resume_one(s, p, DEBUG_CONTINUE);
}

void gdb_cmd_step(struct gdb_session *s, const char *p) {
    resume_one(s, p, DEBUG_STEP_ONE);
}

// "SIGNAL[;ADDR]"
static const char *skip_signal(const char *p) {
    const char *semicolon = strchr(p, ';');
    return semicolon ? semicolon + 1 : "";
}

void gdb_cmd_continue_signal(struct gdb_session *s, const char *p) {
    resume_one(s, skip_signal(p), DEBUG_CONTINUE);
}

void gdb_cmd_step_signal(struct gdb_session *s, const char *p) {
    resume_one(s, skip_signal(p), DEBUG_STEP_ONE);
}

// One ";ACTION[:THREAD]". The first action that names a vCPU, or all, is the one it gets.
static bool vcont_action(struct gdb_session *s, const char **p, bool *decided) {
    uint64_t signal;
    int cpu = -1;
    if (!gdb_get_char(p, ';') || !**p)
        return false;
    char what = *(*p)++;
    if ((what == 'C' || what == 'S') && !gdb_get_hex(p, &signal))
        return false;
    if (!strchr("cCsS", what) || (gdb_get_char(p, ':') && !gdb_get_thread(s, p, true, (int)s->cpu, &cpu)))
        return false;
    enum debug_action action = what == 's' || what == 'S' ? DEBUG_STEP_ONE : DEBUG_CONTINUE;
    for (unsigned i = 0; i < debug_vcpus(s->target); i++) {
        if (decided[i] || (cpu >= 0 && (unsigned)cpu != i))
            continue;
        debug_set_action(s->target, i, action);
        decided[i] = true;
    }
    return true;
}

void gdb_cmd_vcont(struct gdb_session *s, const char *p) {
    bool decided[256] = {false}; // as many vCPUs as a machine may have
    if (strcmp(p, "?") == 0) {
        gdb_put(&s->out, "vCont;c;C;s;S");
        return;
    }
    act_on_all(s, DEBUG_HOLD);
    bool good = *p;
    while (good && *p)
        good = vcont_action(s, &p, decided);
    if (good)
        go(s);
    else
        gdb_error(s, -EINVAL);
}
