// SPDX-License-Identifier: Apache-2.0
// gdb's "monitor" command: what the protocol has no packet for.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "debug/gdb_private.h"
#include "debug/gdb_regs.h"

// Each writes what gdb shows; argument is NULL where there is none.
typedef void monitor_fn(struct gdb_session *s, const char *argument, FILE *out);

static monitor_fn mon_help;

// ---- switches ----

// "on" and "off" set it, nothing shows it. What else there is gets a hint.
static bool switch_value(const char *argument, bool now, FILE *out) {
    if (argument && strcmp(argument, "on") != 0 && strcmp(argument, "off") != 0) {
        fprintf(out, "expected on or off\n");
        return now;
    }
    bool value = argument ? argument[1] == 'n' : now;
    fprintf(out, "%s\n", value ? "on" : "off");
    return value;
}

static void mon_physical(struct gdb_session *s, const char *argument, FILE *out) {
    s->physical = switch_value(argument, s->physical, out);
}

static void mon_interrupts(struct gdb_session *s, const char *argument, FILE *out) {
    debug_mask_interrupts(s->target, !switch_value(argument, !debug_masks_interrupts(s->target), out));
}

// ---- what there is ----

static void mon_info(struct gdb_session *s, const char *argument, FILE *out) {
    const struct machine *m = s->machine;
    fprintf(out, "engine %s, %u vCPUs, %" PRIu64 " MiB of memory, up %" PRIu64 " ms\n", m->engine_ops->name,
            m->host.vcpus, mem_ram_size(m->mem) >> 20, clock_now_ns(&s->machine->clock) / 1000000);
    for (unsigned i = 0; i < debug_vcpus(s->target); i++) {
        const struct cpu_state *c = debug_state(s->target, i);
        if (c)
            fprintf(out, "vCPU %u: rip %016" PRIx64 " cr3 %016" PRIx64 " cpl %u activity %u\n", i, c->rip, c->cr3,
                    (unsigned)SEG_DPL(c->seg[X86_SS].attr), c->activity);
    }
}

static void mon_registers(struct gdb_session *s, const char *argument, FILE *out) {
    const struct cpu_state *c = debug_state(s->target, s->cpu);
    unsigned column = 0;
    for (unsigned n = 0; c && n < gdb_reg_count(false); n++) {
        uint8_t bytes[GDB_REG_MAX_BYTES];
        unsigned size = gdb_reg_size(n);
        if (size > 8)
            continue; // vectors and x87: gdb shows them better
        gdb_reg_get(c, n, bytes);
        fprintf(out, "%s%-10s ", column ? "  " : "", gdb_reg_name(n));
        for (unsigned i = size; i-- > 0;)
            fprintf(out, "%02x", bytes[i]);
        fprintf(out, "%*s", 2 * (int)(8 - size), "");
        column = (column + 1) % 3;
        if (!column)
            fputc('\n', out);
    }
    fputs(column ? "\n" : "", out);
}

static void mon_translate(struct gdb_session *s, const char *argument, FILE *out) {
    uint64_t addr, gpa;
    const char *p = argument ? argument : "";
    if (strncmp(p, "0x", 2) == 0)
        p += 2;
    if (!gdb_get_hex(&p, &addr) || *p)
        fprintf(out, "expected a linear address in hexadecimal\n");
    else if (debug_translate(s->target, s->cpu, addr, &gpa))
        fprintf(out, "0x%" PRIx64 " is not mapped\n", addr);
    else
        fprintf(out, "0x%" PRIx64 " -> 0x%" PRIx64 "\n", addr, gpa);
}

static void mon_reset(struct gdb_session *s, const char *argument, FILE *out) {
    debug_reset(s->target);
    fprintf(out, "reset; say \"maintenance flush register-cache\" before you look at registers\n");
}

// ---- commands ----

static const struct {
    const char *name, *help;
    monitor_fn *fn;
} commands[] = {
    {"help", "this list", mon_help},
    {"info", "the machine and its vCPUs", mon_info},
    {"interrupts", "[on|off]: single steps let interrupts in (off at first)", mon_interrupts},
    {"physical", "[on|off]: addresses are guest-physical (off at first)", mon_physical},
    {"registers", "all of the selected vCPU, the hidden ones too", mon_registers},
    {"reset", "power-on state, as by the reset button", mon_reset},
    {"translate", "ADDRESS: the guest-physical address of a linear one", mon_translate},
};

static void mon_help(struct gdb_session *s, const char *argument, FILE *out) {
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        fprintf(out, "%-10s %s\n", commands[i].name, commands[i].help);
}

static void run_command(struct gdb_session *s, char *command, FILE *out) {
    char *save = NULL, *name = strtok_r(command, " \t", &save), *argument = strtok_r(NULL, " \t", &save);
    for (size_t i = 0; name && i < ARRAY_LEN(commands); i++) {
        if (strcmp(name, commands[i].name) == 0) {
            commands[i].fn(s, argument, out);
            return;
        }
    }
    fprintf(out, "unknown command; try \"monitor help\"\n");
}

void gdb_monitor(struct gdb_session *s, char *command) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) {
        gdb_error(s, -ENOMEM);
        return;
    }
    run_command(s, command, out);
    if (fclose(out) == 0)
        gdb_put_hex(&s->out, text, size < GDB_PACKET_MAX / 2 ? size : GDB_PACKET_MAX / 2);
    else
        gdb_error(s, -ENOMEM);
    free(text);
}
