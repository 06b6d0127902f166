// SPDX-License-Identifier: Apache-2.0
// A configuration as JSON: the options of `cicada run` by name, as strings, those that may be repeated as arrays. So
// what reads it is the parser of the command line with all its checks, and an option of later has nothing to do but be
// written here where it changes what the guest sees.
#ifndef CICADA_VMM_CONFIG_JSON_H
#define CICADA_VMM_CONFIG_JSON_H

#include <jansson.h>

#include "vmm/config.h"

// What the guest sees, complete: also what was not asked for but chosen (MAC addresses), file names made absolute. What
// is of the host's side only (consoles, log, engine, name) is left out. A new reference, or NULL: out of memory, or a
// file name is not UTF-8.
json_t *config_to_json(const struct vm_config *cfg);

// Sets the options in an object as config_to_json gives it; cfg is initialised, and keeps what the object does not
// name. -EINVAL with the option in err.
int config_from_json(const json_t *object, struct vm_config *cfg, struct error *err);

#endif
