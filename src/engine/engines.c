// SPDX-License-Identifier: Apache-2.0
// The one table that names the engines.
#include <string.h>

#include "core/engine.h"

extern const struct engine_ops kvm_engine_ops, xlate_engine_ops;

static const struct engine_ops *const engines[] = {&kvm_engine_ops, &xlate_engine_ops};

const struct engine_ops *engine_find(const char *name) {
    for (unsigned i = 0; i < ARRAY_LEN(engines); i++)
        if (!strcmp(engines[i]->name, name))
            return engines[i];
    return NULL;
}
