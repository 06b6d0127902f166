// SPDX-License-Identifier: Apache-2.0
// The microvm board: the chips a 64-bit OS expects without firmware, virtio devices on PCI, a kernel booted directly.
// add_chips and add_virtio list the whole machine.
#define LOG_UNIT "board"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86/cpuid.h"
#include "backend/block.h"
#include "backend/net.h"
#include "boot/acpi.h"
#include "boot/boot.h"
#include "boot/deferred.h"
#include "bus/bus.h"
#include "bus/pci.h"
#include "dev/acpi_pm.h"
#include "dev/debug_exit.h"
#include "dev/fw_cfg.h"
#include "dev/i8042.h"
#include "dev/mc146818.h"
#include "dev/ns16550.h"
#include "dev/port92.h"
#include "dev/pvpanic.h"
#include "util/log.h"
#include "virtio/blk.h"
#include "virtio/console.h"
#include "virtio/net.h"
#include "virtio/rng.h"
#include "vmm/board.h"
#include "vmm/chips.h"
#include "vmm/cpu_component.h"
#include "vmm/cpu_start.h"
#include "vmm/engine_choice.h"
#include "vmm/engine_switch.h"
#include "vmm/exits.h"

#define RNG_BYTES_PER_SECOND (1u << 20)

struct board {
    struct machine machine;
    const struct vm_config *cfg; // borrowed
    struct dev_env env;
    struct cpuid_policy cpuid;
    const struct engine_ops *engine;
    struct engine_options engine_options;
    struct engine_switch *engine_switch;
    struct chips *chips;
    struct acpi_pm *acpi_pm;
    struct pci_host *pci;
    unsigned next_slot;
    struct block_backend *disks[CONFIG_MAX_DISKS]; // owned by their devices
    unsigned ndisks;
    struct boot_image *image; // owned; NULL while it is deferred
    struct boot_deferred *deferred;
    struct boot_machine layout;
    struct acpi_config acpi;
};

// ---- memory and processor ----

static int add_memory(struct board *b, struct error *err) {
    int r;
    boot_machine_init(&b->layout, b->cfg->memory, PCI_ECAM_BASE, PCI_ECAM_SIZE, b->cfg->cpus, ACPI_AREA_BASE);
    r = mem_add_ram(b->machine.mem, GPA(0), b->layout.ram_low, "ram", err);
    if (r == 0 && b->layout.ram_high)
        r = mem_add_ram(b->machine.mem, GPA(BOOT_RAM_HIGH_BASE), b->layout.ram_high, "ram-high", err);
    return r;
}

static int choose_engine(struct board *b, struct error *err) {
    int r = engine_choose(b->cfg, &b->engine, err);
    if (r)
        return r;
    if ((b->cfg->profile || b->cfg->perf_map) && !b->engine->profile_walk)
        return error_set(err, -EINVAL, "--%s: the engine '%s' cannot be profiled, use --engine xlate",
                         b->cfg->profile ? "profile" : "perf-map", b->engine->name);
    b->engine_options = engine_options(b->cfg, b->engine);
    return 0;
}

static int add_processors(struct board *b, struct error *err) {
    static const enum cpu_model models[] = {[CONFIG_CPU_MOVABLE] = CPU_MOVABLE,
                                            [CONFIG_CPU_HOST] = CPU_HOST,
                                            [CONFIG_CPU_X86_64_V2] = CPU_X86_64_V2,
                                            [CONFIG_CPU_X86_64_V3] = CPU_X86_64_V3};
    struct machine *m = &b->machine;
    int r = cpuid_policy_init(&b->cpuid, models[b->cfg->cpu], b->cfg->cpus, m->nondet.tsc_hz, err);
    if (r == 0)
        r = engine_limit_policy(models[b->cfg->cpu], b->engine, &b->engine_options, &b->cpuid, err);
    if (r)
        return r;
    if (b->cfg->like) {
        cpuid_policy_limit(&b->cpuid, b->cfg->like->leaf, b->cfg->like->count, "the source");
        b->cpuid.arch_capabilities &= b->cfg->like->arch_capabilities;
    }
    m->host.vcpus = b->cfg->cpus;
    m->host.cpu_policy = &b->cpuid;
    m->host.irqchips = chips_irqchips(b->chips);
    m->host.exit = exits_answer;
    m->host.ctx = m;
    r = machine_create_vcpus(m, b->engine, &b->engine_options, err);
    return r ? r : engine_switch_create(m, b->cfg, b->chips, &b->engine_switch, err);
}

// ---- devices ----

// Local APICs, I/O APIC, PIC and PIT: ours, or the engine's.
static int add_interrupt_controllers(struct board *b, struct error *err) {
    enum engine_irqchip whose =
        b->engine->has_irqchip ? b->engine->has_irqchip(&b->engine_options) : ENGINE_IRQCHIP_NONE;
    return chips_create(&b->env, b->cfg->cpus, whose, &b->chips, err);
}

static int add_chips(struct board *b, struct error *err) {
    struct dev_env *env = &b->env;
    struct mc146818 *rtc;
    struct i8042 *kbd;
    struct fw_cfg *fw;
    unsigned cpus = b->cfg->cpus;
    int r;
    if ((r = add_interrupt_controllers(b, err)) ||
        (r = mc146818_create(env, b->layout.ram_low, b->layout.ram_high, &rtc, err)) ||
        (r = i8042_create(env, &kbd, err)) || (r = port92_create(env, err)) ||
        (r = acpi_pm_create(env, &b->acpi_pm, err)) || (r = pvpanic_create(env, err)) ||
        (r = fw_cfg_create(env, b->cfg->memory, (uint16_t)cpus, (uint16_t)cpus, &fw, err)))
        return r;
    return b->cfg->debug_exit ? debug_exit_create(env, err) : 0;
}

static int add_disk(struct board *b, unsigned index, struct error *err) {
    const struct disk_config *d = &b->cfg->disks[index];
    struct raw_options opt = {.read_only = d->read_only, .unlocked = b->cfg->incoming && !b->cfg->incoming_disks};
    struct block_backend *backend;
    char serial[21];
    int r = d->overlay && !d->read_only ? overlay_open(d->path, &backend, err)
                                        : raw_open(d->path, &opt, b->machine.loop, &backend, err);
    if (r)
        return r;
    snprintf(serial, sizeof(serial), "cicada-disk%u", index);
    r = virtio_blk_create(b->pci, b->next_slot++, backend, serial, err);
    if (r)
        block_destroy(backend);
    else
        b->disks[b->ndisks++] = backend;
    return r;
}

static int add_net(struct board *b, unsigned index, struct error *err) {
    const struct net_config *n = &b->cfg->nets[index];
    struct net_forward fwds[CONFIG_MAX_HOSTFWDS] = {0};
    struct net_backend *backend;
    uint8_t mac[6];
    for (unsigned i = 0; i < n->nfwds; i++)
        fwds[i] = (struct net_forward){
            .udp = n->fwds[i].udp, .host_port = n->fwds[i].host_port, .guest_port = n->fwds[i].guest_port};
    struct net_user_options opt = {.forwards = fwds, .nforwards = n->nfwds};
    int r = net_user_open(&opt, b->machine.loop, &b->machine.clock, &backend, err);
    if (r)
        return r;
    config_net_mac(b->cfg, index, mac);
    r = virtio_net_create(b->pci, b->next_slot++, backend, mac, err);
    if (r)
        net_destroy(backend);
    return r;
}

static int add_virtio(struct board *b, struct error *err) {
    int r = pci_host_create(&b->machine, b->env.pio, b->env.mmio, &b->pci, err);
    b->next_slot = 1;
    if (r == 0)
        r = virtio_rng_create(b->pci, b->next_slot++, RNG_BYTES_PER_SECOND, err);
    for (unsigned i = 0; r == 0 && i < b->cfg->ndisks; i++)
        r = add_disk(b, i, err);
    for (unsigned i = 0; r == 0 && i < b->cfg->nnets; i++)
        r = add_net(b, i, err);
    return r;
}

// ---- boot ----

static int open_kernel(struct board *b, struct error *err) {
    static const enum boot_protocol protocols[] = {[CONFIG_BOOT_AUTO] = BOOT_AUTO,
                                                   [CONFIG_BOOT_BZIMAGE32] = BOOT_BZIMAGE32,
                                                   [CONFIG_BOOT_BZIMAGE64] = BOOT_BZIMAGE64,
                                                   [CONFIG_BOOT_PAYLOAD] = BOOT_PAYLOAD,
                                                   [CONFIG_BOOT_PVH] = BOOT_PVH,
                                                   [CONFIG_BOOT_MULTIBOOT] = BOOT_MULTIBOOT,
                                                   [CONFIG_BOOT_ELF64] = BOOT_ELF64};
    struct boot_config bc = {.kernel = b->cfg->kernel,
                             .initrd = b->cfg->initrd,
                             .cmdline = b->cfg->cmdline,
                             .protocol = protocols[b->cfg->boot],
                             .ram_bytes = b->cfg->memory};
    int r = b->cfg->restored ? boot_defer(&bc, &b->deferred, err) : boot_open(&bc, &b->image, err);
    if (r == 0 && b->image)
        r = boot_check(b->image, &b->layout, err);
    b->acpi = (struct acpi_config){.cpus = b->cfg->cpus,
                                   .ecam_base = PCI_ECAM_BASE,
                                   .buses = 1,
                                   .pci32_first = PCI_MMIO_BASE,
                                   .pci32_last = PCI_MMIO_LAST,
                                   .com1 = true,
                                   .rtc = true,
                                   .i8042 = false,
                                   .pvpanic = true,
                                   .fw_cfg = true,
                                   .vmgenid = true};
    return r;
}

static int write_generation(struct board *b, struct error *err) {
    struct machine *m = &b->machine;
    uint8_t id[ACPI_VMGENID_BYTES];
    nondet_random(&m->nondet, id, sizeof(id));
    int r = mem_load(m->mem, GPA(ACPI_VMGENID_GPA), id, sizeof(id));
    return r ? error_set(err, r, "write the generation ID") : 0;
}

int board_new_generation(struct board *b, struct error *err) {
    int r = write_generation(b, err);
    irq_set(&b->machine.irq, ACPI_VMGENID_GSI, true);
    irq_set(&b->machine.irq, ACPI_VMGENID_GSI, false);
    return r;
}

static int power_on(struct machine *m, struct error *err) {
    struct board *b = m->board;
    struct boot_entry entry;
    uint64_t rsdp;
    int r = b->image ? 0 : boot_deferred_open(b->deferred, &b->image, err);
    if (r == 0)
        r = acpi_load(&b->acpi, m->mem, &rsdp, err);
    if (r == 0)
        r = write_generation(b, err);
    if (r == 0)
        r = boot_load(b->image, m->mem, &b->layout, &entry, err);
    return r ? r : cpu_start(m, &entry, err);
}

static const struct machine_ops microvm_ops = {.exit_table = exits_table, .power_on = power_on};

// ---- the board ----

static int build(struct board *b, struct error *err) {
    struct machine *m = &b->machine;
    int r = machine_init(m, err);
    m->board = b;
    m->ops = &microvm_ops;
    if (r || (r = bus_create(&b->env.pio, "pio", err)) || (r = bus_create(&b->env.mmio, "mmio", err)))
        return r;
    b->env.machine = m;
    exits_set_buses(m, b->env.pio, b->env.mmio);
    if ((r = choose_engine(b, err)) || (r = add_memory(b, err)) || (r = open_kernel(b, err)) ||
        (r = cpu_component_add(m, b->cfg->cpus, err)) || (r = add_chips(b, err)) || (r = add_virtio(b, err)))
        return r;
    return add_processors(b, err);
}

int board_create(const struct vm_config *cfg, struct board **out, struct error *err) {
    struct board *b = calloc(1, sizeof(*b));
    if (!b)
        return error_set(err, -ENOMEM, "allocate the board");
    b->cfg = cfg;
    int r = build(b, err);
    if (r) {
        board_destroy(b);
        return r;
    }
    *out = b;
    return 0;
}

struct machine *board_machine(struct board *b) {
    return &b->machine;
}

int board_serial_attach(struct board *b, struct chardev *host, struct error *err) {
    struct ns16550 *uart;
    return ns16550_create(&b->env, 0x3f8, 4, 0, host, &uart, err);
}

int board_console_attach(struct board *b, struct chardev *host, struct error *err) {
    return virtio_console_create(b->pci, b->next_slot++, host, err);
}

struct block_backend *board_disk(struct board *b, unsigned index) {
    return index < b->ndisks ? b->disks[index] : NULL;
}

struct engine_switch *board_engine_switch(struct board *b) {
    return b->engine_switch;
}

void board_power_button(struct board *b) {
    acpi_pm_power_button(b->acpi_pm);
}

void board_destroy(struct board *b) {
    if (!b)
        return;
    engine_switch_destroy(b->engine_switch);
    machine_destroy(&b->machine);
    bus_destroy(b->env.pio);
    bus_destroy(b->env.mmio);
    boot_close(b->image);
    boot_deferred_close(b->deferred);
    free(b);
}
