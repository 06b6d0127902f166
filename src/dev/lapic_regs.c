// SPDX-License-Identifier: Apache-2.0
// Local APIC: register access by MMIO (xAPIC, SDM 3A 11.4) and by MSR (x2APIC, 11.12).
// One register file behind both; what differs: ID, LDR and ICR formats, and that x2APIC faults on what xAPIC
// ignores. The MMIO page does not move: IA32_APIC_BASE keeps another base but the registers stay at the default.
#include "dev/lapic_priv.h"

#include <errno.h>

GPR_ONLY_BEGIN

// As KVM's: an EOI is always broadcast (bit 24 clear).
#define VERSION (0x14u | (uint32_t)(X86_LVT_COUNT - 1) << 16)

#define ICR_LOW_WRITABLE    0xccfffu // vector, mode, destination mode, (delivery status), level, trigger, shorthand
#define ICR_DELIVERY_STATUS (1u << 12)

static uint32_t vector_word(const uint64_t *words, unsigned reg) {
    return (uint32_t)(words[reg / 2] >> 32 * (reg & 1));
}

static uint32_t posted_word(_Atomic uint64_t *words, unsigned reg) {
    uint64_t word = atomic_load_explicit(&words[reg / 2], memory_order_relaxed);

    return (uint32_t)(word >> 32 * (reg & 1));
}

static uint32_t x2apic_ldr(const struct lapic_cpu *c) {
    return (c->index >> 4) << 16 | 1u << (c->index & 15);
}

// Registers that read the same in both modes. -EPERM for what is not one.
static int common_read(struct lapic_cpu *c, unsigned reg, uint32_t *val) {
    switch (reg) {
    case X86_APIC_VERSION: *val = VERSION; return 0;
    case X86_APIC_TPR: *val = c->tpr; return 0;
    case X86_APIC_PPR: *val = c->ppr; return 0;
    case X86_APIC_SVR: *val = c->svr; return 0;
    case X86_APIC_ISR ... X86_APIC_ISR + 7: *val = vector_word(c->isr, reg - X86_APIC_ISR); return 0;
    case X86_APIC_TMR ... X86_APIC_TMR + 7: *val = posted_word(c->tmr, reg - X86_APIC_TMR); return 0;
    case X86_APIC_IRR ... X86_APIC_IRR + 7: *val = posted_word(c->irr, reg - X86_APIC_IRR); return 0;
    case X86_APIC_ESR: *val = c->esr; return 0;
    case X86_APIC_LVT ... X86_APIC_LVT + X86_LVT_COUNT - 1: *val = lapic_lvt(c, reg - X86_APIC_LVT); return 0;
    case X86_APIC_TIMER_INITIAL: *val = c->initial; return 0;
    case X86_APIC_TIMER_CURRENT: *val = lapic_timer_current(c); return 0;
    case X86_APIC_TIMER_DIVIDE: *val = c->divide; return 0;
    default: return -EPERM;
    }
}

static uint32_t xapic_read(struct lapic_cpu *c, unsigned reg) {
    uint32_t val = 0;

    switch (reg) {
    case X86_APIC_ID: return c->index << 24;
    case X86_APIC_LDR: return c->ldr;
    case X86_APIC_DFR: return c->dfr;
    case X86_APIC_ICR: return (uint32_t)c->icr;
    case X86_APIC_ICR_HIGH: return (uint32_t)(c->icr >> 32);
    case X86_APIC_APR:
    case X86_APIC_RRD:
    case X86_APIC_EOI: return 0;
    }
    if (common_read(c, reg, &val))
        lapic_cpu_error(c, ESR_ILLEGAL_REGISTER);
    return val;
}

static uint32_t lvt_writable(unsigned entry) {
    switch (entry) {
    case X86_LVT_TIMER: return 0x700ff;
    case X86_LVT_LINT0:
    case X86_LVT_LINT1: return 0x1a7ff;
    case X86_LVT_ERROR: return 0x100ff;
    default: return 0x107ff;
    }
}

// SDM 3A 11.4.7.2: while the APIC is software-disabled, mask bits stay set.
static void lvt_write(struct lapic_cpu *c, unsigned entry, uint32_t val) {
    val &= lvt_writable(entry);
    if (!(c->svr & SVR_ENABLE))
        val |= X86_LVT_MASKED;
    if (entry == X86_LVT_TIMER)
        lapic_timer_set_lvt(c, val);
    else
        atomic_store_explicit(&c->lvt[entry], val, memory_order_relaxed);
    if (entry == X86_LVT_LINT0)
        lapic_cpu_update_extint(c);
}

static void svr_write(struct lapic_cpu *c, uint32_t val) {
    atomic_store_explicit(&c->svr, val & (0xff | SVR_ENABLE), memory_order_relaxed);
    if (val & SVR_ENABLE)
        return;
    for (unsigned i = 0; i < X86_LVT_COUNT; i++)
        lvt_write(c, i, lapic_lvt(c, i));
}

static int common_write(struct lapic_cpu *c, unsigned reg, uint32_t val) {
    switch (reg) {
    case X86_APIC_TPR:
        c->tpr = val & 0xff;
        lapic_cpu_update_ppr(c);
        return 0;
    case X86_APIC_EOI: lapic_cpu_eoi(c); return 0;
    case X86_APIC_SVR: svr_write(c, val); return 0;
    case X86_APIC_ESR: c->esr = atomic_exchange(&c->esr_pending, 0); return 0;
    case X86_APIC_LVT ... X86_APIC_LVT + X86_LVT_COUNT - 1: lvt_write(c, reg - X86_APIC_LVT, val); return 0;
    case X86_APIC_TIMER_INITIAL: lapic_timer_set_initial(c, val); return 0;
    case X86_APIC_TIMER_DIVIDE: lapic_timer_set_divide(c, val); return 0;
    default: return -EPERM;
    }
}

static void xapic_write(struct lapic_cpu *c, unsigned reg, uint32_t val) {
    switch (reg) {
    case X86_APIC_LDR: atomic_store_explicit(&c->ldr, val & 0xff000000, memory_order_relaxed); return;
    case X86_APIC_DFR: atomic_store_explicit(&c->dfr, val | 0x0fffffff, memory_order_relaxed); return;
    case X86_APIC_ICR_HIGH: c->icr = (uint32_t)c->icr | (uint64_t)(val & 0xff000000) << 32; return;
    case X86_APIC_ICR:
        c->icr = c->icr >> 32 << 32 | (val & ICR_LOW_WRITABLE & ~ICR_DELIVERY_STATUS);
        lapic_cpu_send_ipi(c, c->icr, false);
        return;
    case X86_APIC_ID: // fixed, as in processors with x2APIC
    case X86_APIC_VERSION:
    case X86_APIC_APR:
    case X86_APIC_PPR:
    case X86_APIC_RRD:
    case X86_APIC_ISR ... X86_APIC_IRR + 7:
    case X86_APIC_TIMER_CURRENT: return; // read-only
    }
    if (common_write(c, reg, val))
        lapic_cpu_error(c, ESR_ILLEGAL_REGISTER);
}

// Bits that a WRMSR may set; an unwritable register has none and faults in common_write (SDM 3A 11.12.1.2).
static uint64_t x2apic_writable(unsigned reg) {
    switch (reg) {
    case X86_APIC_TPR:
    case X86_APIC_SELF_IPI: return 0xff;
    case X86_APIC_SVR: return 0xff | SVR_ENABLE;
    case X86_APIC_ICR: return UINT64_C(0xffffffff) << 32 | ICR_LOW_WRITABLE | ICR_DELIVERY_STATUS;
    case X86_APIC_LVT ... X86_APIC_LVT + X86_LVT_COUNT - 1:
        return lvt_writable(reg - X86_APIC_LVT) | ICR_DELIVERY_STATUS | LVT_REMOTE_IRR;
    case X86_APIC_TIMER_INITIAL: return UINT32_MAX;
    case X86_APIC_TIMER_DIVIDE: return 0xb;
    default: return 0; // EOI and ESR take zero only
    }
}

static int x2apic_write(struct lapic_cpu *c, unsigned reg, uint64_t val) {
    if (val & ~x2apic_writable(reg))
        return -EPERM;
    switch (reg) {
    case X86_APIC_ICR:
        c->icr = val & ~(uint64_t)ICR_DELIVERY_STATUS;
        lapic_cpu_send_ipi(c, val, true);
        return 0;
    case X86_APIC_SELF_IPI:
        if (val < 16)
            lapic_cpu_error(c, ESR_SEND_ILLEGAL);
        else
            lapic_cpu_accept(c, (uint8_t)val, false);
        return 0;
    default: return common_write(c, reg, (uint32_t)val);
    }
}

static int x2apic_read(struct lapic_cpu *c, unsigned reg, uint64_t *val) {
    uint32_t low = 0;
    int ret = 0;

    switch (reg) {
    case X86_APIC_ID: low = c->index; break;
    case X86_APIC_LDR: low = x2apic_ldr(c); break;
    case X86_APIC_ICR: *val = c->icr; return 0;
    default: ret = common_read(c, reg, &low); break;
    }
    *val = low;
    return ret;
}

// SDM 3A 11.12.5.1, figure 11-28. Off and on again resets the APIC; x2APIC mode is left through off only.
static int base_write(struct lapic_cpu *c, uint64_t val) {
    const uint64_t modes = X86_APIC_BASE_ENABLE | X86_APIC_BASE_X2APIC, old = c->base;
    const uint64_t reserved = ~(UINT64_C(0x000ffffffffff000) | modes | X86_APIC_BASE_BSP);

    if (val & reserved || (val & modes) == X86_APIC_BASE_X2APIC)
        return -EPERM;
    if ((old & modes) == modes && (val & modes) == X86_APIC_BASE_ENABLE)
        return -EPERM;
    if (!(old & X86_APIC_BASE_ENABLE) && (val & modes) == modes)
        return -EPERM;
    atomic_store(&c->base, (val & ~X86_APIC_BASE_BSP) | (c->index == 0 ? X86_APIC_BASE_BSP : 0));
    if ((old & ~val) & X86_APIC_BASE_ENABLE)
        lapic_cpu_reset(c, true);
    lapic_cpu_update_extint(c);
    return 0;
}

int lapic_cpu_reg_read(void *ctx, uint32_t reg, uint64_t *val) {
    struct lapic_cpu *c = ctx;

    switch (reg) {
    case LAPIC_MSR_TSC_DEADLINE: *val = lapic_timer_deadline(c); return 0;
    case LAPIC_MSR_APIC_BASE: *val = c->base; return 0;
    case LAPIC_MSR_X2APIC ... LAPIC_MSR_X2APIC + 0xff:
        return lapic_is_x2apic(c) ? x2apic_read(c, reg - LAPIC_MSR_X2APIC, val) : -EPERM;
    default: return -ENOENT;
    }
}

int lapic_cpu_reg_write(void *ctx, uint32_t reg, uint64_t val) {
    struct lapic_cpu *c = ctx;
    int ret = 0;

    switch (reg) {
    case LAPIC_MSR_TSC_DEADLINE: lapic_timer_set_deadline(c, val); return 0;
    case LAPIC_MSR_TSC_OFFSET: lapic_set_tsc_offset(c->lapic, c->index, val); return 0;
    case LAPIC_MSR_APIC_BASE: ret = base_write(c, val); break;
    case LAPIC_MSR_X2APIC ... LAPIC_MSR_X2APIC + 0xff:
        ret = lapic_is_x2apic(c) ? x2apic_write(c, reg - LAPIC_MSR_X2APIC, val) : -EPERM;
        break;
    default: return -ENOENT;
    }
    lapic_cpu_recheck(c);
    return ret;
}

// The page answers its own vCPU only, and only in xAPIC mode.
static struct lapic_cpu *mmio_cpu(struct lapic *l, unsigned vcpu) {
    if (vcpu >= l->nvcpus || !lapic_is_enabled(&l->cpus[vcpu]) || lapic_is_x2apic(&l->cpus[vcpu]))
        return NULL;
    return &l->cpus[vcpu];
}

// Registers are the low 4 bytes of each 16; SDM 3A 11.4.1 leaves other accesses undefined: reads see the lane.
static void mmio_read(void *ctx, struct bus_access *a) {
    struct lapic_cpu *c = mmio_cpu(ctx, a->vcpu);

    if (c)
        a->data = dev_lane(xapic_read(c, (unsigned)(a->offset >> 4)), a->offset & 15);
    else
        a->data = UINT64_MAX;
}

static void mmio_write(void *ctx, const struct bus_access *a) {
    struct lapic_cpu *c = mmio_cpu(ctx, a->vcpu);

    if (!c || a->offset & 15 || a->size < 4)
        return;
    xapic_write(c, (unsigned)(a->offset >> 4), (uint32_t)a->data);
    lapic_cpu_recheck(c);
}

GPR_ONLY_END

const struct bus_ops lapic_mmio_ops = {.name = "lapic", .read = mmio_read, .write = mmio_write};
