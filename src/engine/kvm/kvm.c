// SPDX-License-Identifier: Apache-2.0
// KVM behind core/engine.h: creation, counters.
#define LOG_UNIT "kvm"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "engine/kvm/kvm.h"
#include "util/log.h"

static const enum engine_irqchip irqchip_kinds[] = {[KVM_CHIPS_KERNEL] = ENGINE_IRQCHIP_ALL,
                                                    [KVM_CHIPS_SPLIT] = ENGINE_IRQCHIP_LOCAL,
                                                    [KVM_CHIPS_USER] = ENGINE_IRQCHIP_NONE};

static enum engine_irqchip kvm_has_irqchip(const struct engine_options *opt) {
    struct kvm_options o;
    struct error ignored; // create reports it

    return kvm_options_parse(&o, opt, &ignored) ? ENGINE_IRQCHIP_NONE : irqchip_kinds[o.chips];
}

// ---- engine ----

static void kvm_destroy(struct engine *e) {
    if (!e)
        return;
    if (e->vm_fd >= 0)
        close(e->vm_fd);
    if (e->sys_fd >= 0)
        close(e->sys_fd);
    kvm_points_destroy(e);
    free(e->vcpus);
    free(e);
}

static void on_kick(int sig) {}

// A handler is all it takes for the signal to interrupt KVM_RUN; no SA_RESTART.
static int install_kick(struct error *err) {
    struct sigaction sa = {.sa_handler = on_kick};

    sigemptyset(&sa.sa_mask);
    return sigaction(SIGUSR1, &sa, NULL) ? error_set(err, -errno, "install the handler of the kick signal") : 0;
}

static int check_vcpus(struct engine *e, struct error *err) {
    int max = kvm_has(e->sys_fd, KVM_CAP_MAX_VCPUS);

    if (max > 0 && e->host->vcpus > (unsigned)max)
        return error_set(err, -EINVAL, "--cpus %u: KVM on this host takes at most %d", e->host->vcpus, max);
    return 0;
}

static int open_vm(struct engine *e, struct error *err) {
    int size, r;

    r = e->sys_fd < 0 ? kvm_open(err) : kvm_check(e->sys_fd, err);
    if (r < 0)
        return r;
    if (e->sys_fd < 0)
        e->sys_fd = r;
    size = ioctl(e->sys_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (size < (int)sizeof(struct kvm_run))
        return error_set(err, -EIO, "kvm: size of a vCPU's mapping");
    e->run_size = (size_t)size;
    do
        e->vm_fd = ioctl(e->sys_fd, KVM_CREATE_VM, 0);
    while (e->vm_fd < 0 && errno == EINTR); // the kernel gives up on a pending signal
    return e->vm_fd < 0 ? error_set(err, -errno, "kvm: create the VM") : 0;
}

static void look_at_capabilities(struct engine *e) {
    struct kvm_enable_cap payload = {.cap = KVM_CAP_EXCEPTION_PAYLOAD, .args = {1}};

    e->has_xsave = kvm_has(e->vm_fd, KVM_CAP_XSAVE);
    e->blocks_irqs = kvm_has(e->vm_fd, KVM_CAP_SET_GUEST_DEBUG2) & KVM_GUESTDBG_BLOCKIRQ;
    e->has_xcrs = kvm_has(e->vm_fd, KVM_CAP_XCRS);
    e->has_payload = kvm_has(e->vm_fd, KVM_CAP_EXCEPTION_PAYLOAD) && kvm_ioctl(e->vm_fd, KVM_ENABLE_CAP, &payload) == 0;
}

static int kvm_create(const struct engine_host *host, const struct engine_options *opt, struct engine **out,
                      struct error *err) {
    static const char *const where[] = {"the kernel", "the kernel and in user space", "user space"};
    struct engine *e = calloc(1, sizeof(*e));
    struct kvm_options o;
    int r;

    if (!e || !(e->vcpus = calloc(host->vcpus, sizeof(struct kvm_vcpu *)))) {
        if (opt && opt->device > 0)
            close(opt->device);
        free(e);
        return error_set(err, -ENOMEM, "allocate the engine");
    }
    e->host = host;
    e->sys_fd = opt && opt->device > 0 ? opt->device : -1;
    e->vm_fd = -1;
    r = kvm_options_parse(&o, opt, err);
    e->chips = o.chips;
    if (r || (r = install_kick(err)) || (r = open_vm(e, err)) || (r = check_vcpus(e, err))) {
        kvm_destroy(e);
        return r;
    }
    look_at_capabilities(e);
    e->ioeventfd = kvm_has(e->vm_fd, KVM_CAP_IOEVENTFD_ANY_LENGTH) ? o.ioeventfd : KVM_IOEVENTFD_OFF;
    if ((r = kvm_dirty_init(e, o.dirty, err)) || (r = kvm_memory_create(e, err)) || (r = kvm_chips_create(e, err))) {
        kvm_destroy(e);
        return r;
    }
    log_debug("interrupt controllers in %s", where[e->chips]);
    *out = e;
    return 0;
}

// ---- state ----

static int kvm_get_state(struct engine_vcpu *v, void *state, size_t size) {
    return size == sizeof(struct cpu_state) ? kvm_state_get((struct kvm_vcpu *)v, state) : -EINVAL;
}

static int kvm_set_state(struct engine_vcpu *v, const void *state, size_t size) {
    return size == sizeof(struct cpu_state) ? kvm_state_set((struct kvm_vcpu *)v, state) : -EINVAL;
}

static void kvm_debug_step(struct engine_vcpu *v, enum debug_step step) {
    ((struct kvm_vcpu *)v)->debug_step = step;
}

static unsigned kvm_stats(struct engine *e, struct engine_stat *out, unsigned max) {
    unsigned n = 0;

    for (unsigned c = 0; c < KC_COUNT && n < max; c++, n++) {
        out[n] = (struct engine_stat){.name = kvm_counter_names[c]};
        for (unsigned i = 0; i < e->host->vcpus; i++)
            if (e->vcpus[i])
                out[n].value += atomic_load_explicit(&e->vcpus[i]->counter[c], memory_order_relaxed);
    }
    return n;
}

const struct engine_ops kvm_engine_ops = {
    .name = "kvm",
    .faults_in_kernel = true,
    .counts_instructions = false,
    .probe = kvm_probe_speed,
    .open_device = kvm_open,
    .limit_policy = kvm_limit_policy,
    .create = kvm_create,
    .destroy = kvm_destroy,
    .vcpu_create = kvm_vcpu_create,
    .vcpu_destroy = kvm_vcpu_destroy,
    .vcpu_enter_thread = kvm_vcpu_enter_thread,
    .run = kvm_vcpu_run,
    .kick = kvm_vcpu_kick,
    .poke = kvm_vcpu_poke,
    .get_state = kvm_get_state,
    .set_state = kvm_set_state,
    .has_irqchip = kvm_has_irqchip,
    .irq_line = kvm_chips_line,
    .irq_msi = kvm_chips_msi,
    .irq_route = kvm_routes_level,
    .irqchip_get = kvm_chips_get,
    .irqchip_set = kvm_chips_set,
    .irqchip_resume = kvm_chips_resume,
    .irqchip_reset = kvm_chips_reset,
    .doorbell_add = kvm_doorbell_add,
    .doorbell_remove = kvm_doorbell_remove,
    .dirty_sync = kvm_dirty_sync,
    .dirty_stop = kvm_dirty_stop,
    .debug_points = kvm_points_set,
    .debug_step = kvm_debug_step,
    .stats = kvm_stats,
};
