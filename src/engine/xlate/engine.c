// SPDX-License-Identifier: Apache-2.0
// xlate behind core/engine.h: creation, state, kicks, counters.
#include <asm/prctl.h>
#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/xlate/asm.h"
#include "engine/xlate/cache.h"
#include "engine/xlate/debugger.h"
#include "engine/xlate/emul.h"
#include "engine/xlate/fp.h"
#include "engine/xlate/hostsig.h"
#include "engine/xlate/mmu.h"
#include "engine/xlate/perf_map.h"
#include "engine/xlate/profile.h"
#include "engine/xlate/run.h"
#include "engine/xlate/stats.h"
#include "engine/xlate/tctx.h"

#define MSR_TSC 0x10u // as a register of the interrupt controller: the offset

bool asm_have_bmi2;

// ---- options ----

static const struct {
    const char *name;
    size_t offset;
} switches[] = {
    {"exact-flags", offsetof(struct xlate_opts, exact_flags)}, {"no-chain", offsetof(struct xlate_opts, no_chain)},
    {"no-jcache", offsetof(struct xlate_opts, no_jcache)},     {"no-groups", offsetof(struct xlate_opts, no_groups)},
    {"no-sites", offsetof(struct xlate_opts, no_sites)},       {"no-hoist", offsetof(struct xlate_opts, no_hoist)},
    {"emulate", offsetof(struct xlate_opts, emulate)},
};

static int number_option(const char *value, unsigned max, unsigned *out, const char *name, struct error *err) {
    char *end;
    unsigned long v = strtoul(value, &end, 10);
    if (*end || v < 1 || v > max)
        return error_set(err, -EINVAL, "--xlate-opts %s: '%s' is not a number from 1 to %u", name, value, max);
    *out = (unsigned)v;
    return 0;
}

static int parse_option(struct xlate_opts *o, char *word, struct error *err) {
    for (unsigned i = 0; i < ARRAY_LEN(switches); i++) {
        if (!strcmp(word, switches[i].name)) {
            *((bool *)((char *)o + switches[i].offset)) = true;
            return 0;
        }
    }
    if (!strncmp(word, "max-jcc=", 8))
        return number_option(word + 8, TB_MAX_JCC_LIMIT, &o->max_jcc, "max-jcc", err);
    if (!strncmp(word, "max-insns=", 10))
        return number_option(word + 10, TB_MAX_INSNS, &o->max_insns, "max-insns", err);
    return error_set(
        err, -EINVAL,
        "--xlate-opts: unknown option '%s' (exact-flags, no-chain, no-jcache, no-groups, no-sites, no-hoist, emulate, "
        "max-jcc=N, max-insns=N)",
        word);
}

static int parse_options(struct engine *e, const char *list, struct error *err) {
    char text[256], *save = NULL;
    e->opts = (struct xlate_opts){.max_jcc = TB_MAX_JCC, .max_insns = TB_MAX_INSNS};
    if (!list)
        return 0;
    if (strlen(list) >= sizeof(text))
        return error_set(err, -EINVAL, "--xlate-opts: too long");
    strcpy(text, list);
    for (char *w = strtok_r(text, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
        int r = parse_option(&e->opts, w, err);
        if (r)
            return r;
    }
    return 0;
}

// ---- engine ----

static void xlate_destroy(struct engine *e) {
    if (!e)
        return;
    if (e->listener)
        mem_remove_listener(e->host->mem, e->listener);
    cache_destroy(e);
    perf_map_close(e);
    debugger_destroy(e);
    free(e->cpus);
    free(e->listener);
    free(e);
}

static int add_listener(struct engine *e, struct error *err) {
    e->listener = calloc(1, sizeof(*e->listener));
    if (!e->listener)
        return error_set(err, -ENOMEM, "allocate the engine");
    e->listener->written = cache_written;
    e->listener->ctx = e;
    mem_add_listener(e->host->mem, e->listener);
    return 0;
}

static int xlate_create(const struct engine_host *host, const struct engine_options *opt, struct engine **out,
                        struct error *err) {
    unsigned a, b, c, d;
    struct engine *e = calloc(1, sizeof(*e));
    if (!e || !(e->cpus = calloc(host->vcpus, sizeof(*e->cpus)))) {
        free(e);
        return error_set(err, -ENOMEM, "allocate the engine");
    }
    asm_have_bmi2 = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_BMI2);
    e->host = host;
    e->ncpus = host->vcpus;
    e->profile_hz = opt ? opt->profile_hz : 0;
    int r = parse_options(e, opt ? opt->features : NULL, err);
    if (!r)
        r = signal_install(err);
    if (!r)
        r = cache_create(e, opt ? opt->code_cache_bytes : 0, err);
    if (!r && opt && opt->perf_map)
        r = perf_map_open(e, err);
    if (!r)
        r = add_listener(e, err);
    if (r) {
        xlate_destroy(e);
        return r;
    }
    *out = e;
    return 0;
}

// ---- vCPUs ----

static struct xcpu *xcpu_of(struct engine_vcpu *v) {
    return (struct xcpu *)v;
}

static void xlate_vcpu_destroy(struct engine_vcpu *v) {
    struct xcpu *x = xcpu_of(v);
    if (!x)
        return;
    x->engine->cpus[x->index] = NULL;
    profile_destroy(x);
    native_destroy(x);
    emul_cache_destroy(x->emul_cache);
    munmap(x, sizeof(*x));
}

static int xlate_vcpu_create(struct engine *e, unsigned index, struct engine_vcpu **out, struct error *err) {
    const struct cpuid_policy *p = e->host->cpu_policy;
    struct xcpu *x = mmap(NULL, sizeof(*x), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (x == MAP_FAILED)
        return error_set(err, -ENOMEM, "allocate vCPU %u", index);
    x->engine = e;
    x->engine_mem = e->host->mem;
    x->index = index;
    x->self = (uint64_t)x;
    x->irqchip = &e->host->irqchips[index];
    x->has_1g = p->has_1g_pages;
    x->phys_reserved = 0x000ffffffffff000ull & ~((1ull << p->phys_bits) - 1);
    e->cpus[index] = x;
    *out = (struct engine_vcpu *)x;
    x->emul_cache = emul_cache_create();
    if (!x->emul_cache || native_init(x) != 0) {
        xlate_vcpu_destroy(*out);
        return error_set(err, -ENOMEM, "allocate the emulator of vCPU %u", index);
    }
    int r = e->profile_hz ? profile_create(x, e->profile_hz, err) : 0;
    if (r) {
        xlate_vcpu_destroy(*out);
        return r;
    }
    x86_state_reset(&x->s, index == 0, false);
    mode_update(x);
    return 0;
}

static int xlate_enter_thread(struct engine_vcpu *v, struct error *err) {
    struct xcpu *x = xcpu_of(v);
    if (!x->entered) // not before, so that an engine that only stands by has touched no tables
        tlb_init(x);
    x->entered = true;
    signal_set_vcpu(x);
    if (syscall(SYS_arch_prctl, ARCH_SET_GS, x) < 0)
        return error_set(err, -errno, "set the GS base of a vCPU thread");
    return profile_start_thread(x, err);
}

static void xlate_run(struct engine_vcpu *v, uint64_t budget, struct vm_exit *exit) {
    run_vcpu(xcpu_of(v), budget, exit);
}

static void xlate_kick(struct engine_vcpu *v) {
    struct xcpu *x = xcpu_of(v);
    atomic_store(&x->kicked, 1);
    request_exit(x);
}

static void xlate_poke(struct engine_vcpu *v) {
    request_exit(xcpu_of(v));
}

static int xlate_get_state(struct engine_vcpu *v, void *state, size_t size) {
    if (size != sizeof(struct cpu_state))
        return -EINVAL;
    memcpy(state, &xcpu_of(v)->s, size);
    return 0;
}

static int xlate_set_state(struct engine_vcpu *v, const void *state, size_t size) {
    struct xcpu *x = xcpu_of(v);
    if (size != sizeof(struct cpu_state))
        return -EINVAL;
    memcpy(&x->s, state, size);
    x->fpu_live = false;
    mode_update(x);
    mmu_flush_all(x);
    if (mmu_restore_pdptrs(x))
        return -EINVAL;
    (void)x->irqchip->ops->reg_write(x->irqchip->ctx, MSR_TSC, x->s.tsc_offset); // its TSC deadlines follow
    request_exit(x);
    return 0;
}

static void xlate_dirty_sync(struct engine *e) {
    for (unsigned i = 0; i < e->ncpus; i++)
        if (e->cpus[i])
            tlb_drop_all_write_tags(e->cpus[i]);
}

static void xlate_debug_step(struct engine_vcpu *v, enum debug_step step) {
    struct xcpu *x = xcpu_of(v);
    x->debug_step = step;
    x->watch_hit = NULL;
    request_exit(x); // interrupts that were masked
}

static unsigned xlate_stats(struct engine *e, struct engine_stat *out, unsigned max) {
    unsigned n = 0;
    for (unsigned s = 0; s < XS_COUNT && n < max; s++, n++) {
        out[n] = (struct engine_stat){.name = xstat_names[s]};
        for (unsigned i = 0; i < e->ncpus; i++)
            if (e->cpus[i])
                out[n].value += e->cpus[i]->stat[s];
    }
    return n;
}

const struct engine_ops xlate_engine_ops = {
    .name = "xlate",
    .counts_instructions = true,
    .before_seal = true,
    .create = xlate_create,
    .destroy = xlate_destroy,
    .vcpu_create = xlate_vcpu_create,
    .vcpu_destroy = xlate_vcpu_destroy,
    .vcpu_enter_thread = xlate_enter_thread,
    .run = xlate_run,
    .kick = xlate_kick,
    .poke = xlate_poke,
    .forget = cache_forget,
    .get_state = xlate_get_state,
    .set_state = xlate_set_state,
    .dirty_sync = xlate_dirty_sync,
    .debug_points = debugger_set_points,
    .debug_step = xlate_debug_step,
    .profile_walk = profile_walk,
    .stats = xlate_stats,
};
