// SPDX-License-Identifier: Apache-2.0
// A second engine over the memory and the devices of a machine, complete with vCPUs, that does not run: what a machine
// changes to, or has changed from. Loop thread only.
#ifndef CICADA_CORE_SPARE_ENGINE_H
#define CICADA_CORE_SPARE_ENGINE_H

#include "core/machine.h"

struct spare_engine;

// The machine has its vCPUs and may run. What opt points to is borrowed for the time of the call; opt->device is taken
// over in any case. Negative errno with err set; nothing is left then.
int spare_engine_create(struct machine *m, const struct engine_ops *ops, const struct engine_options *opt,
                        struct spare_engine **out, struct error *err);
const struct engine_ops *spare_engine_ops(const struct spare_engine *s);
// The machine's engine and the spare one change places; states do not move. Machine paused, vCPU threads started. Where
// it fails nothing has changed.
int spare_engine_swap(struct spare_engine *s, struct error *err);
// The same for what the machine had before the last swap.
void spare_engine_swap_back(struct spare_engine *s);
// It may wait for long: see engine_ops.forget.
void spare_engine_forget(struct spare_engine *s);
void spare_engine_destroy(struct spare_engine *s); // NULL is legal

#endif
