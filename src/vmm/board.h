// SPDX-License-Identifier: Apache-2.0
// What vmm/run.c asks of a board: a function that builds the whole machine from a configuration.
#ifndef CICADA_VMM_BOARD_H
#define CICADA_VMM_BOARD_H

#include "backend/block.h"
#include "backend/chardev.h"
#include "core/machine.h"
#include "util/error.h"
#include "vmm/config.h"

struct board;
struct engine_switch;

// Opens every file, creates all devices and vCPUs (machine_create_vcpus), and sets machine.ops. It does not start
// the vCPU threads: vmm/run.c does, after privileges are dropped. cfg is borrowed and outlives the board.
// On failure nothing is left, and *b is not set.
int board_create(const struct vm_config *cfg, struct board **b, struct error *err);
struct machine *board_machine(struct board *b);
// Connects the first serial port, or adds a virtio console; the host side outlives the board. Before machine_run.
int board_serial_attach(struct board *b, struct chardev *host, struct error *err);
int board_console_attach(struct board *b, struct chardev *host, struct error *err);
// Disk `index` in the order of the configuration, NULL behind the last. It belongs to its device.
struct block_backend *board_disk(struct board *b, unsigned index);
// The machine's past is not unique any more: it gets a new generation ID, and the guest is told. Loop thread, paused.
int board_new_generation(struct board *b, struct error *err);
// What changes the engine of its machine (engine_switch.h). It belongs to the board.
struct engine_switch *board_engine_switch(struct board *b);
// Presses the ACPI power button. Loop thread.
void board_power_button(struct board *b);
// Joins the threads and destroys the machine. NULL is legal.
void board_destroy(struct board *b);

#endif
