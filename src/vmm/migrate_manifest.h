// SPDX-License-Identifier: Apache-2.0
// The manifest of a migration: JSON from which the target builds its machine and sees, before a byte of the guest has
// come, whether the state of the source's will fit it.
#ifndef CICADA_VMM_MIGRATE_MANIFEST_H
#define CICADA_VMM_MIGRATE_MANIFEST_H

#include <jansson.h>

#include "arch/x86/cpuid.h"
#include "core/machine.h"
#include "util/error.h"
#include "vmm/config.h"

// What the guest sees of this machine: options (of config_to_json, borrowed), memory, components with their versions,
// CPUID, frequency of the TSC. A new reference, or NULL: out of memory.
json_t *migrate_manifest_make(const struct machine *m, const char *name, const json_t *options);

// A manifest from the other side, which may be anything. NULL with err set where it is none.
json_t *migrate_manifest_parse(const char *text, struct error *err);
// Its configuration into cfg (initialised): what the guest sees, and the name. -EINVAL with err set.
int migrate_manifest_config(const json_t *manifest, struct vm_config *cfg, struct error *err);
// Its processor, as far as cpuid_policy_limit looks at one. -EINVAL with err set.
int migrate_manifest_cpuid(const json_t *manifest, struct cpuid_policy *p, struct error *err);
// Disks whose contents come with the guest, in the order of the configuration: "copy_disks", a list of their sizes in
// bytes, 0 for one that is not copied; NULL where none is.
const json_t *migrate_manifest_copied(const json_t *manifest);
// Does the source ask for post-copy?
bool migrate_manifest_postcopy(const json_t *manifest);
// Would the state of the source fit this machine? -EINVAL with the difference in err.
int migrate_manifest_check(const json_t *manifest, const struct machine *m, struct error *err);

#endif
