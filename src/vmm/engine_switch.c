// SPDX-License-Identifier: Apache-2.0
// Changing the engine in place; see the header.
//
// The new engine is complete before the guest stops, and the old one is there until the new one has taken everything:
// so every failure ends on the old engine, whose state nobody has touched. What stops the guest is saving and loading
// the vCPUs and the interrupt controllers.
#define LOG_UNIT "engine"
#include "vmm/engine_switch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arch/x86/cpuid.h"
#include "core/mem_lazy.h"
#include "core/spare_engine.h"
#include "core/stateio.h"
#include "util/log.h"
#include "vmm/engine_choice.h"

struct engine_switch {
    struct machine *machine;
    const struct vm_config *cfg;
    struct chips *chips;
    struct spare_engine *standby; // one that only an unsealed process can make; NULL: none, or it runs
};

// ---- life ----

static int make_standby(struct engine_switch *s, const char *name) {
    const struct engine_ops *ops = engine_find(name);
    struct error err = {0};
    if (!ops || !ops->before_seal || ops == s->machine->engine_ops)
        return 0;
    struct engine_options opt = engine_options(s->cfg, ops);
    int ret = spare_engine_create(s->machine, ops, &opt, &s->standby, &err);
    if (ret)
        log_info("the engine of this VM cannot be changed to %s: %s", name, err.text);
    return ret;
}

int engine_switch_create(struct machine *m, const struct vm_config *cfg, struct chips *chips,
                         struct engine_switch **out, struct error *err) {
    struct engine_switch *s = calloc(1, sizeof(*s));
    if (!s)
        return error_set(err, -ENOMEM, "prepare for another engine");
    *s = (struct engine_switch){.machine = m, .cfg = cfg, .chips = chips};
    make_standby(s, "xlate");
    *out = s;
    return 0;
}

void engine_switch_destroy(struct engine_switch *s) {
    if (!s)
        return;
    spare_engine_destroy(s->standby);
    free(s);
}

// ---- may it be? ----

static int refuse_processor(const struct engine_ops *ops, const struct cpuid_leaf *has, const struct cpuid_leaf *gives,
                            struct error *err) {
    return error_set(
        err, -EINVAL,
        "the %s engine cannot give the processor that the guest has seen: CPUID leaf 0x%x.%x is %x %x %x %x, "
        "there it would be %x %x %x %x (--cpu movable or x86-64-v2 may do)",
        ops->name, has->function, has->index == CPUID_NO_INDEX ? 0 : has->index, has->eax, has->ebx, has->ecx, has->edx,
        gives->eax, gives->ebx, gives->ecx, gives->edx);
}

// Nothing that the guest has seen may be missing on the other engine.
static int check_processor(const struct engine_switch *s, const struct engine_ops *ops,
                           const struct engine_options *opt, struct error *err) {
    const struct cpuid_policy *has = s->machine->host.cpu_policy;
    struct cpuid_policy *gives = ops->limit_policy ? malloc(sizeof(*gives)) : NULL;
    if (!gives)
        return ops->limit_policy ? error_set(err, -ENOMEM, "compare processors") : 0;
    *gives = *has;
    int ret = ops->limit_policy(gives, opt, err);
    for (unsigned i = 0; ret == 0 && i < has->count; i++)
        if (memcmp(&has->leaf[i], &gives->leaf[i], sizeof(has->leaf[i])))
            ret = refuse_processor(ops, &has->leaf[i], &gives->leaf[i], err);
    if (ret == 0 && has->arch_capabilities != gives->arch_capabilities)
        ret = error_set(err, -EINVAL, "the %s engine cannot give IA32_ARCH_CAPABILITIES 0x%llx, only 0x%llx", ops->name,
                        (unsigned long long)has->arch_capabilities, (unsigned long long)gives->arch_capabilities);
    free(gives);
    return ret;
}

static int check(const struct engine_switch *s, const struct engine_ops *ops, const struct engine_options *opt,
                 struct error *err) {
    const struct machine *m = s->machine;
    if (ops == m->engine_ops)
        return error_set(err, -EINVAL, "this VM runs on %s already", ops->name);
    if (m->debugger.stopped)
        return error_set(err, -EINVAL, "the debugger (--gdb) has its points in the engine %s", m->engine_ops->name);
    if (mem_lazy(m->mem)) // whose faults must be served is decided when it begins
        return error_set(err, -EBUSY, "memory of this VM still comes from elsewhere as it is used");
    if (s->cfg->profile || s->cfg->perf_map)
        return error_set(err, -EINVAL, "--%s is of the engine %s", s->cfg->profile ? "profile" : "perf-map",
                         m->engine_ops->name);
    if (ops->before_seal && (!s->standby || spare_engine_ops(s->standby) != ops))
        return error_set(err, -ENODEV, "the %s engine could not be prepared when the VM was started (see its log)",
                         ops->name);
    if (ops->open_device && opt->device <= 0)
        return error_set(err, -EINVAL, "the %s engine needs its device, which must come with the request", ops->name);
    return check_processor(s, ops, opt, err);
}

// ---- the state of an engine ----

struct carried {
    const struct component *component;
    struct state_writer writer;
};

static unsigned count_carried(const struct machine *m) {
    unsigned n = 0;
    for (const struct component *c = m->components.head; c; c = c->next)
        n += c->ops->of_engine;
    return n;
}

static int save(const struct machine *m, struct carried *list, struct error *err) {
    unsigned n = 0;
    for (const struct component *c = m->components.head; c; c = c->next) {
        if (!c->ops->of_engine)
            continue;
        struct carried *e = &list[n++];
        e->component = c;
        c->ops->save(c->ctx, &e->writer);
        int ret = state_writer_error(&e->writer);
        if (ret)
            return error_set(err, ret, "read %s %u from the engine %s", c->ops->name, c->instance, m->engine_ops->name);
    }
    return 0;
}

static int load(const struct carried *list, unsigned n, struct error *err) {
    for (unsigned i = 0; i < n; i++) {
        const struct component *c = list[i].component;
        struct state_reader r = {.buf = list[i].writer.buf, .len = list[i].writer.len, .version = c->ops->version};
        int ret = c->ops->load(c->ctx, &r, err);
        if (ret)
            return ret;
    }
    return 0;
}

// ---- the change ----

static enum engine_irqchip whose_chips(const struct engine_ops *ops, const struct engine_options *opt) {
    return ops->has_irqchip ? ops->has_irqchip(opt) : ENGINE_IRQCHIP_NONE;
}

// From here on `next` holds the engine that the machine had, or, where it fails, still the new one.
static int change(struct engine_switch *s, struct spare_engine *next, enum engine_irqchip whose,
                  const struct carried *list, unsigned n, struct error *err) {
    enum engine_irqchip before = chips_whose(s->chips);
    int ret = spare_engine_swap(next, err);
    if (ret)
        return ret;
    chips_use(s->chips, whose);
    ret = load(list, n, err);
    if (ret) {
        spare_engine_swap_back(next);
        chips_use(s->chips, before);
    }
    chips_park(s->chips);
    return ret;
}

static int carry_over(struct engine_switch *s, struct spare_engine *next, enum engine_irqchip whose,
                      struct error *err) {
    struct machine *m = s->machine;
    unsigned n = count_carried(m);
    struct carried *list = calloc(n, sizeof(*list));
    if (!list)
        return error_set(err, -ENOMEM, "change the engine");
    int ret = save(m, list, err);
    if (ret == 0) {
        m->engine_ops->dirty_sync(m->engine); // what it knows of pages written goes with it
        ret = change(s, next, whose, list, n, err);
    }
    for (unsigned i = 0; i < n; i++)
        state_writer_free(&list[i].writer);
    free(list);
    return ret;
}

// The engine that does not run (any more): kept where it cannot be made again.
static void put_away(struct engine_switch *s, struct spare_engine *e) {
    if (!spare_engine_ops(e)->before_seal) {
        spare_engine_destroy(e);
        return;
    }
    spare_engine_forget(e);
    s->standby = e;
}

static int take_next(struct engine_switch *s, const struct engine_ops *ops, struct engine_options *opt,
                     struct spare_engine **next, struct error *err) {
    if (ops->before_seal) {
        *next = s->standby;
        s->standby = NULL;
        return 0;
    }
    int ret = spare_engine_create(s->machine, ops, opt, next, err);
    opt->device = -1; // it belongs to the engine
    return ret;
}

int engine_switch_to(struct engine_switch *s, const struct engine_ops *ops, int device, struct engine_switched *done,
                     struct error *err) {
    struct machine *m = s->machine;
    struct engine_options opt = engine_options(s->cfg, ops);
    struct spare_engine *next = NULL;
    *done = (struct engine_switched){.from = m->engine_ops->name};
    opt.device = device;
    int ret = check(s, ops, &opt, err);
    if (ret == 0)
        ret = take_next(s, ops, &opt, &next, err);
    if (opt.device > 0)
        close(opt.device);
    if (ret)
        return ret;
    uint64_t begin = nondet_monotonic_ns(&m->nondet);
    machine_pause(m);
    ret = carry_over(s, next, whose_chips(ops, &opt), err);
    machine_resume(m);
    done->pause_ns = nondet_monotonic_ns(&m->nondet) - begin;
    put_away(s, next);
    if (ret)
        error_prefix(err, "the guest goes on on the engine it had");
    else
        log_info("engine %s instead of %s, the guest stood for %llu us", ops->name, done->from,
                 (unsigned long long)(done->pause_ns / 1000));
    return ret;
}
