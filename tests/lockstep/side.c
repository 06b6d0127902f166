// SPDX-License-Identifier: Apache-2.0
// One side of a pair: memory, engine, a vCPU, and its runs.
//
// kick() from within an access stops the vCPU behind the instruction that made it: KVM at once, xlate at the end of
// the block at the latest, so compare.c's callers let the other one catch up.
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lockstep/lockstep.h"
#include "vmm/cpu_start.h"

// ---- an interrupt controller that never interrupts ----

static int no_vector(void *ctx) {
    return -1;
}
static uint32_t no_events(void *ctx) {
    return 0;
}
static uint8_t tpr_get(void *ctx) {
    return ((struct side *)ctx)->tpr;
}
static void tpr_set(void *ctx, uint8_t tpr) {
    ((struct side *)ctx)->tpr = tpr;
}
static int reg_read(void *ctx, uint32_t reg, uint64_t *val) {
    return -ENOENT;
}
static int reg_write(void *ctx, uint32_t reg, uint64_t val) {
    return -ENOENT;
}
static void chip_reset(void *ctx, bool init) {
    tpr_set(ctx, 0);
}

static const struct irqchip_cpu_ops chip_ops = {.pending = no_vector,
                                                .ack = no_vector,
                                                .take_events = no_events,
                                                .tpr_get = tpr_get,
                                                .tpr_set = tpr_set,
                                                .reg_read = reg_read,
                                                .reg_write = reg_write,
                                                .reset = chip_reset};

// ---- creation ----

// What both engines can give, so that CPUID answers alike.
static int find_engine(struct pair *p, unsigned i, const struct options *o, struct error *err) {
    struct engine_options opt = {.features = o->features[i]};
    struct side *s = &p->side[i];
    uint64_t speed;

    s->name = o->engine[i];
    s->ops = engine_find(s->name);
    if (!s->ops)
        return error_set(err, -ENODEV, "engine '%s' is not built", s->name);
    if (s->ops->probe && s->ops->probe(&speed, err))
        return -ENODEV;
    return s->ops->limit_policy ? s->ops->limit_policy(&p->cpuid, &opt, err) : 0;
}

static int create_engine(struct side *s, const char *features, struct error *err) {
    struct engine_options opt = {.features = features};
    int r = s->ops->create(&s->host, &opt, &s->engine, err);

    return r ? r : s->ops->vcpu_create(s->engine, 0, &s->vcpu, err);
}

static int load_guest(struct side *s, const struct options *o, struct error *err) {
    struct boot_machine machine;
    struct boot_entry entry;
    int r;

    boot_machine_init(&machine, RAM_BYTES, 0, 0, 1, 0);
    r = boot_load(s->pair->image, s->mem, &machine, &entry, err);
    if (r)
        return r;
    cpu_start_state(&s->now, &entry);
    r = side_set(s);
    return r ? error_set(err, r, "%s: set the first state", s->name) : 0;
}

static int side_create(struct pair *p, unsigned i, const struct options *o, struct error *err) {
    struct side *s = &p->side[i];
    unsigned count;
    int r;

    s->pair = p;
    s->chip = (struct irqchip_cpu){&chip_ops, s};
    if ((r = mem_create(&s->mem, err)) || (r = mem_add_ram(s->mem, GPA(0), RAM_BYTES, "ram", err)))
        return r;
    s->ram = mem_slots(s->mem, &count)->hva;
    p->dirty[i] = calloc(RAM_BYTES / PAGE_SIZE / 64, 8);
    if (!p->dirty[i])
        return error_set(err, -ENOMEM, "allocate a dirty log");
    s->host = (struct engine_host){.ctx = s,
                                   .exit = devices_access,
                                   .mem = s->mem,
                                   .nondet = &p->nondet,
                                   .irqchips = &s->chip,
                                   .cpu_policy = &p->cpuid,
                                   .vcpus = 1};
    r = create_engine(s, o->features[i], err);
    return r ? r : load_guest(s, o, err);
}

static void side_destroy(struct side *s) {
    if (s->vcpu)
        s->ops->vcpu_destroy(s->vcpu);
    if (s->engine)
        s->ops->destroy(s->engine);
    mem_destroy(s->mem);
}

void pair_destroy(struct pair *p) {
    for (unsigned i = 0; i < 2; i++) {
        side_destroy(&p->side[i]);
        free(p->dirty[i]);
    }
    if (p->image)
        boot_close(p->image);
    free(p->log);
    memset(p, 0, sizeof(*p));
}

int pair_create(struct pair *p, const struct options *o, struct error *err) {
    struct boot_config boot = {.kernel = o->kernel, .cmdline = o->cmdline, .ram_bytes = RAM_BYTES};
    int r;

    memset(p, 0, sizeof(*p));
    nondet_init_live(&p->nondet);
    r = cpuid_policy_init(&p->cpuid, CPU_MOVABLE, 1, p->nondet.tsc_hz, err);
    if (r == 0)
        r = boot_open(&boot, &p->image, err);
    for (unsigned i = 0; r == 0 && i < 2; i++)
        r = find_engine(p, i, o, err);
    for (unsigned i = 0; r == 0 && i < 2; i++)
        r = side_create(p, i, o, err);
    if (r)
        pair_destroy(p);
    return r;
}

// ---- runs ----

static struct side *running; // for the alarm, whose handler may only kick

static void on_alarm(int sig) {
    if (running)
        running->ops->kick(running->vcpu);
}

static bool side_run(struct side *s, uint64_t budget) {
    uint64_t before = s->accesses;
    struct error err;
    bool left;

    if (s->ops->vcpu_enter_thread(s->vcpu, &err)) // one thread for both: it belongs to whose turn it is
        return false;
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_alarm, .sa_flags = SA_ONSTACK}, NULL);
    running = s;
    alarm(RUN_LIMIT);
    do {
        s->exit = (struct vm_exit){0};
        left = s->kicked;
        s->kicked = false;
        s->ops->run(s->vcpu, budget, &s->exit);
        // A kick whose run had already ended for another reason ends the next one at its start.
    } while (left && s->exit.reason == EXIT_KICKED && s->accesses == before);
    if (s->exit.reason == EXIT_KICKED)
        s->kicked = false;
    alarm(0);
    running = NULL;
    s->accessed = s->accesses != before;
    return s->ops->get_state(s->vcpu, &s->now, sizeof(s->now)) == 0 && s->accessed;
}

bool side_to_access(struct side *s) {
    return side_run(s, BUDGET_UNLIMITED);
}

bool side_step(struct side *s, uint64_t budget) {
    s->steps += budget;
    return side_run(s, budget) || s->exit.reason == EXIT_BUDGET;
}

int side_set(struct side *s) {
    return s->ops->set_state(s->vcpu, &s->now, sizeof(s->now));
}

const char *side_end(const struct side *s) {
    if (s->accessed)
        return "an access";
    switch (s->exit.reason) {
    case EXIT_KICKED: return "ran for too long without an access";
    case EXIT_FAIL: return s->exit.fail.text;
    default: return exit_reason_name(s->exit.reason);
    }
}
