// SPDX-License-Identifier: Apache-2.0
// The manifest of a migration; see the header. Both sides make the same lists of what they have; the target compares.
#include "vmm/migrate_manifest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86/cpuid.h"
#include "cicada.h"
#include "vmm/config_json.h"
#include "vmm/config_value.h"

#define MANIFEST_VERSION   1
#define TSC_HZ_TOLERANCE   1000 // as in vmm/cpu_component.c
#define CPUID_TSC          0x15u
#define CPUID_FREQUENCY    0x16u
#define CPUID_HV_FREQUENCY 0x40000010u

// ---- making ----

static json_t *list_memory(const struct machine *m) {
    unsigned count;
    const struct mem_slot *slots = mem_slots(m->mem, &count);
    json_t *list = json_array();
    for (unsigned i = 0; i < count; i++)
        json_array_append_new(list,
                              json_pack("{s:s, s:I, s:I, s:b}", "name", slots[i].name, "gpa", (json_int_t)slots[i].gpa,
                                        "size", (json_int_t)slots[i].size, "rom", slots[i].rom));
    return list;
}

static json_t *list_components(const struct machine *m) {
    json_t *list = json_array();
    for (const struct component *c = m->components.head; c; c = c->next)
        if (c->ops->save)
            json_array_append_new(list, json_pack("{s:s, s:i, s:i}", "name", c->ops->name, "instance", (int)c->instance,
                                                  "version", (int)c->ops->version));
    return list;
}

// Frequencies are measured by each host and compared with a tolerance instead.
static bool of_frequency(const struct cpuid_leaf *l) {
    return l->function == CPUID_TSC || l->function == CPUID_FREQUENCY || l->function == CPUID_HV_FREQUENCY;
}

static json_t *list_cpuid(const struct machine *m) {
    const struct cpuid_policy *p = m->host.cpu_policy;
    json_t *list = json_array();
    for (unsigned i = 0; i < p->count; i++) {
        const struct cpuid_leaf *l = &p->leaf[i];
        if (!of_frequency(l))
            json_array_append_new(list, json_pack("[I, I, I, I, I, I]", (json_int_t)l->function, (json_int_t)l->index,
                                                  (json_int_t)l->eax, (json_int_t)l->ebx, (json_int_t)l->ecx,
                                                  (json_int_t)l->edx));
    }
    return list;
}

json_t *migrate_manifest_make(const struct machine *m, const char *name, const json_t *options) {
    const struct cpuid_policy *cpu = m->host.cpu_policy;
    return json_pack("{s:i, s:s, s:s, s:s, s:O, s:I, s:I, s:o, s:o, s:o}", "manifest", MANIFEST_VERSION, "program",
                     cicada_version(), "name", name, "engine", m->engine_ops->name, "options", options, "tsc_hz",
                     (json_int_t)m->nondet.tsc_hz, "arch_capabilities", (json_int_t)cpu->arch_capabilities, "memory",
                     list_memory(m), "components", list_components(m), "cpuid", list_cpuid(m));
}

// ---- reading ----

static unsigned long long item(const json_t *list, size_t i) {
    return (unsigned long long)json_integer_value(json_array_get(list, i));
}

json_t *migrate_manifest_parse(const char *text, struct error *err) {
    json_error_t where;
    json_t *manifest = json_loads(text, JSON_REJECT_DUPLICATES, &where);
    const json_t *version = json_object_get(manifest, "manifest");
    if (!json_is_integer(version)) {
        error_set(err, -EINVAL, "the manifest of the source is damaged");
    } else if (json_integer_value(version) != MANIFEST_VERSION) {
        error_set(err, -EINVAL, "the manifest of the source is of version %lld, this program reads %d",
                  (long long)json_integer_value(version), MANIFEST_VERSION);
    } else {
        return manifest;
    }
    json_decref(manifest);
    return NULL;
}

// The source says what its guest sees, and nothing about this host's files, ports and logs beside that. Disks and
// kernel are named by it all the same: cicada-receive(1) tells who may be let in.
static int check_options(const json_t *options, struct error *err) {
    static const char *const allowed[] = {"board",   "cpu",  "cpus", "memory",     "kernel",    "initrd", "boot",
                                          "cmdline", "disk", "net",  "debug-exit", "no-reboot", "console"};
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)options, name, value) {
        bool known = false;
        for (unsigned i = 0; i < ARRAY_LEN(allowed); i++)
            known |= strcmp(name, allowed[i]) == 0;
        const char *text = json_string_value(value);
        if (!known || (strcmp(name, "console") == 0 && (!text || strcmp(text, "null") != 0)))
            return error_set(err, -EINVAL, "the manifest of the source sets '%.40s', which is not its to say", name);
    }
    return 0;
}

int migrate_manifest_config(const json_t *manifest, struct vm_config *cfg, struct error *err) {
    const char *name = json_string_value(json_object_get(manifest, "name"));
    if (!name || !value_name_ok(name))
        return error_set(err, -EINVAL, "the manifest of the source names no VM");
    int ret = check_options(json_object_get(manifest, "options"), err);
    if (ret == 0)
        ret = config_from_json(json_object_get(manifest, "options"), cfg, err);
    if (ret)
        return error_prefix(err, "the source's VM");
    free(cfg->name);
    cfg->name = strdup(name);
    return cfg->name ? 0 : error_set(err, -ENOMEM, "read the manifest");
}

int migrate_manifest_cpuid(const json_t *manifest, struct cpuid_policy *p, struct error *err) {
    const json_t *list = json_object_get(manifest, "cpuid");
    *p = (struct cpuid_policy){.count = (unsigned)json_array_size(list)};
    if (p->count == 0 || p->count > CPUID_MAX_LEAVES)
        return error_set(err, -EINVAL, "the manifest of the source has no processor");
    for (unsigned i = 0; i < p->count; i++) {
        const json_t *l = json_array_get(list, i);
        p->leaf[i] = (struct cpuid_leaf){(uint32_t)item(l, 0), (uint32_t)item(l, 1), (uint32_t)item(l, 2),
                                         (uint32_t)item(l, 3), (uint32_t)item(l, 4), (uint32_t)item(l, 5)};
    }
    p->arch_capabilities = (uint64_t)json_integer_value(json_object_get(manifest, "arch_capabilities"));
    return 0;
}

const json_t *migrate_manifest_copied(const json_t *manifest) {
    const json_t *list = json_object_get(manifest, "copy_disks");
    return json_is_array(list) ? list : NULL;
}

bool migrate_manifest_postcopy(const json_t *manifest) {
    return json_is_true(json_object_get(manifest, "postcopy"));
}

// ---- comparing ----

static int check_frequency(const json_t *manifest, const struct machine *m, struct error *err) {
    json_int_t theirs = json_integer_value(json_object_get(manifest, "tsc_hz"));
    json_int_t ours = (json_int_t)m->nondet.tsc_hz, diff = theirs > ours ? theirs - ours : ours - theirs;
    if (theirs > 0 && diff <= ours / TSC_HZ_TOLERANCE)
        return 0;
    return error_set(err, -EINVAL, "its TSC runs at %lld Hz, this host's at %lld Hz", (long long)theirs,
                     (long long)ours);
}

static int check_memory(const json_t *manifest, const struct machine *m, struct error *err) {
    json_t *ours = list_memory(m);
    bool same = json_equal(ours, json_object_get(manifest, "memory"));
    json_decref(ours);
    return same ? 0 : error_set(err, -EINVAL, "it has memory at other addresses than this one");
}

static int check_cpuid(const json_t *manifest, const struct machine *m, struct error *err) {
    json_t *ours = list_cpuid(m), *theirs = json_object_get(manifest, "cpuid");
    size_t i, n = json_array_size(ours);
    int ret = 0;
    for (i = 0; i < n; i++)
        if (!json_equal(json_array_get(ours, i), json_array_get(theirs, i)))
            break;
    if (i == n && json_integer_value(json_object_get(manifest, "arch_capabilities")) !=
                      (json_int_t)((const struct cpuid_policy *)m->host.cpu_policy)->arch_capabilities)
        ret = error_set(err, -EINVAL, "its processor differs from this one's in IA32_ARCH_CAPABILITIES");
    const json_t *a = json_array_get(theirs, i), *b = json_array_get(ours, i);
    if (i < n || json_array_size(theirs) != n)
        ret = error_set(
            err, -EINVAL,
            "its processor differs from this one's (--cpu movable?): CPUID leaf 0x%llx has %llx %llx %llx %llx "
            "there, leaf 0x%llx has %llx %llx %llx %llx here",
            item(a, 0), item(a, 2), item(a, 3), item(a, 4), item(a, 5), item(b, 0), item(b, 2), item(b, 3), item(b, 4),
            item(b, 5));
    json_decref(ours);
    return ret;
}

static const char *component_name(const json_t *c) {
    const char *name = json_string_value(json_object_get(c, "name"));
    return name ? name : "?";
}

static bool same_component(const json_t *a, const json_t *b) {
    return json_equal(json_object_get(a, "name"), json_object_get(b, "name")) &&
           json_equal(json_object_get(a, "instance"), json_object_get(b, "instance"));
}

// Is everything in `a` in `b`, too, and in no newer version than `newest` allows?
static int check_subset(const json_t *a, const json_t *b, bool versions, const char *what, struct error *err) {
    size_t i, k;
    json_t *c, *d;
    json_array_foreach((json_t *)a, i, c) {
        const json_t *found = NULL;
        json_array_foreach((json_t *)b, k, d) if (same_component(c, d)) found = d;
        if (!found)
            return error_set(err, -EINVAL, "%s has a %.40s %d, the other has none", what, component_name(c),
                             (int)json_integer_value(json_object_get(c, "instance")));
        if (versions &&
            json_integer_value(json_object_get(c, "version")) > json_integer_value(json_object_get(found, "version")))
            return error_set(err, -EINVAL, "its %.40s is of a newer version than this program reads",
                             component_name(c));
    }
    return 0;
}

static int check_components(const json_t *manifest, const struct machine *m, struct error *err) {
    json_t *ours = list_components(m), *theirs = json_object_get(manifest, "components");
    int ret = check_subset(theirs, ours, true, "it", err);
    if (ret == 0)
        ret = check_subset(ours, theirs, false, "this machine", err);
    json_decref(ours);
    return ret;
}

int migrate_manifest_check(const json_t *manifest, const struct machine *m, struct error *err) {
    int ret = check_memory(manifest, m, err);
    if (ret == 0)
        ret = check_components(manifest, m, err);
    if (ret == 0)
        ret = check_cpuid(manifest, m, err);
    if (ret == 0)
        ret = check_frequency(manifest, m, err);
    return ret ? error_prefix(err, "the source's machine does not fit") : 0;
}
