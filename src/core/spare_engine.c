// SPDX-License-Identifier: Apache-2.0
// The engine that a machine does not run on; see the header. Invariant: the last engine whose vcpu_enter_thread was
// called on a vCPU's thread is the one that the machine runs on.
#define LOG_UNIT "engine"
#include "core/spare_engine.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "util/log.h"

struct spare_engine {
    struct machine *machine;
    const struct engine_ops *ops;
    struct engine *engine;
    struct engine_vcpu *vcpus[]; // host.vcpus of them
};

static int create_vcpus(struct spare_engine *s, struct error *err) {
    for (unsigned i = 0; i < s->machine->host.vcpus; i++) {
        int ret = s->ops->vcpu_create(s->engine, i, &s->vcpus[i], err);
        if (ret) {
            s->vcpus[i] = NULL;
            return ret;
        }
    }
    return 0;
}

int spare_engine_create(struct machine *m, const struct engine_ops *ops, const struct engine_options *opt,
                        struct spare_engine **out, struct error *err) {
    struct spare_engine *s = calloc(1, sizeof(*s) + m->host.vcpus * sizeof(s->vcpus[0]));
    if (!s) {
        if (opt && opt->device > 0)
            close(opt->device);
        return error_set(err, -ENOMEM, "allocate the %s engine", ops->name);
    }
    s->machine = m;
    s->ops = ops;
    int ret = ops->create(&m->host, opt, &s->engine, err);
    if (ret)
        s->engine = NULL;
    else
        ret = create_vcpus(s, err);
    if (ret) {
        spare_engine_destroy(s);
        return ret;
    }
    *out = s;
    return 0;
}

const struct engine_ops *spare_engine_ops(const struct spare_engine *s) {
    return s->ops;
}

struct entry {
    const struct engine_ops *ops;
    struct engine_vcpu *vcpu;
};

// On the vCPU's thread.
static int enter(void *ctx, struct error *err) {
    const struct entry *e = ctx;
    return e->ops->vcpu_enter_thread ? e->ops->vcpu_enter_thread(e->vcpu, err) : 0;
}

static int enter_all(struct spare_engine *s, struct error *err) {
    int ret = 0;
    for (unsigned i = 0; ret == 0 && i < s->machine->host.vcpus; i++) {
        struct entry e = {s->ops, s->vcpus[i]};
        ret = vcpu_call(&s->machine->vcpus[i], enter, &e, err);
    }
    return ret;
}

static void exchange(struct spare_engine *s) {
    struct machine *m = s->machine;
    const struct engine_ops *ops = m->engine_ops;
    struct engine *engine = m->engine;
    m->engine_ops = s->ops;
    m->engine = s->engine;
    s->ops = ops;
    s->engine = engine;
    for (unsigned i = 0; i < m->host.vcpus; i++) {
        struct engine_vcpu *v = m->vcpus[i].engine;
        m->vcpus[i].engine = s->vcpus[i];
        s->vcpus[i] = v;
    }
}

int spare_engine_swap(struct spare_engine *s, struct error *err) {
    int ret = enter_all(s, err);
    exchange(s);
    if (ret)
        spare_engine_swap_back(s);
    return ret;
}

// The threads have had it before, so what can fail has worked once.
void spare_engine_swap_back(struct spare_engine *s) {
    struct error err = {0};
    if (enter_all(s, &err)) {
        log_error("back to the engine %s: %s", s->ops->name, err.text);
        machine_end(s->machine, MACHINE_INTERNAL);
    }
    exchange(s);
}

void spare_engine_forget(struct spare_engine *s) {
    if (s->ops->forget)
        s->ops->forget(s->engine);
}

void spare_engine_destroy(struct spare_engine *s) {
    if (!s)
        return;
    for (unsigned i = 0; i < s->machine->host.vcpus; i++)
        if (s->vcpus[i])
            s->ops->vcpu_destroy(s->vcpus[i]);
    if (s->engine)
        s->ops->destroy(s->engine);
    free(s);
}
