// SPDX-License-Identifier: Apache-2.0
// Registers and memory of a stopped machine. A vCPU's state is got once a stop, changed here, and set when the machine
// goes on.
#define LOG_UNIT "debug"
#include <errno.h>
#include <string.h>

#include "arch/x86/page_walk.h"
#include "arch/x86/state_io.h"
#include "debug/target_private.h"
#include "util/log.h"

// ---- registers ----

const struct cpu_state *debug_state(struct debug_target *t, unsigned vcpu) {
    struct debug_vcpu *v = &t->vcpu[vcpu];
    struct machine *m = t->machine;
    if (!v->valid && m->engine_ops->get_state(m->vcpus[vcpu].engine, v->state, sizeof(*v->state)))
        return NULL;
    v->valid = true;
    return v->state;
}

int debug_set_state(struct debug_target *t, unsigned vcpu, const struct cpu_state *s) {
    struct debug_vcpu *v = &t->vcpu[vcpu];
    struct error err = {0};
    int ret = x86_state_check(s, t->machine->host.cpu_policy, &err);
    if (ret) {
        log_info("registers refused: %s", err.text);
        return ret;
    }
    if (s != v->state)
        memcpy(v->state, s, sizeof(*s));
    v->valid = v->changed = true;
    return 0;
}

void debug_flush_state(struct debug_target *t, unsigned vcpu) {
    struct debug_vcpu *v = &t->vcpu[vcpu];
    struct machine *m = t->machine;
    if (v->changed && m->engine_ops->set_state(m->vcpus[vcpu].engine, v->state, sizeof(*v->state)))
        log_warn("vCPU %u: the engine refuses the registers", vcpu);
    v->valid = v->changed = false;
}

void debug_forget_states(struct debug_target *t) {
    for (unsigned i = 0; i < t->nvcpus; i++)
        t->vcpu[i].valid = t->vcpu[i].changed = false;
}

// ---- memory ----

int debug_translate(struct debug_target *t, unsigned vcpu, uint64_t addr, uint64_t *gpa) {
    const struct cpu_state *s = debug_state(t, vcpu);
    gpa_t at;
    int ret = s ? x86_page_walk(s, t->machine->mem, GVA(addr), &at) : -EFAULT;
    if (ret == 0)
        *gpa = at.v;
    return ret;
}

// The guest-physical run that addr begins: at most len bytes, within one page.
static int piece_at(struct debug_target *t, unsigned vcpu, bool physical, uint64_t addr, size_t len, gpa_t *gpa,
                    size_t *n) {
    uint64_t room = PAGE_SIZE - (addr & ~PAGE_MASK);
    *n = len < room ? len : (size_t)room;
    *gpa = GPA(addr);
    return physical ? 0 : debug_translate(t, vcpu, addr, &gpa->v);
}

int debug_read(struct debug_target *t, unsigned vcpu, bool physical, uint64_t addr, void *buf, size_t len) {
    size_t done = 0, n;
    gpa_t gpa;
    while (done < len) {
        if (piece_at(t, vcpu, physical, addr + done, len - done, &gpa, &n) ||
            mem_read(t->machine->mem, gpa, (char *)buf + done, n))
            return done ? (int)done : -EFAULT;
        done += n;
    }
    return (int)done;
}

static bool writable(struct debug_target *t, gpa_t gpa) {
    struct iovec iov;
    if (mem_map(t->machine->mem, gpa, 1, MEM_WRITE, &iov, 1) != 1)
        return false;
    mem_unmap(t->machine->mem, gpa, 0, false);
    return true;
}

int debug_write(struct debug_target *t, unsigned vcpu, bool physical, uint64_t addr, const void *buf, size_t len) {
    size_t done, n;
    gpa_t gpa;
    for (done = 0; done < len; done += n)
        if (piece_at(t, vcpu, physical, addr + done, len - done, &gpa, &n) || !writable(t, gpa))
            return -EFAULT;
    for (done = 0; done < len; done += n)
        if (piece_at(t, vcpu, physical, addr + done, len - done, &gpa, &n) ||
            mem_write(t->machine->mem, gpa, (const char *)buf + done, n))
            return -EFAULT;
    return 0;
}
