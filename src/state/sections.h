// SPDX-License-Identifier: Apache-2.0
// The state of all components of a machine as one run of bytes: the file `state` of a snapshot, and what a migration
// sends last. Little-endian:
//   header   magic "CICADAST", u32 format version, u32 number of sections, u64 bytes in all, u32 CRC-32C of these
//   section  u8 length of the name, name, u32 instance, u32 version, u64 length, u32 CRC-32C, then `length` bytes;
//            the checksum is of the whole section, itself left out
// Names of components are those of struct component_ops. Names that begin with '.' belong to whoever wrote the run
// (".ram" of a snapshot) and are of no component.
//
// All functions: on the loop thread with the machine paused where they touch components, else on any thread.
#ifndef CICADA_STATE_SECTIONS_H
#define CICADA_STATE_SECTIONS_H

#include "core/component.h"
#include "core/stateio.h"
#include "util/error.h"

#define SECTIONS_VERSION  1
#define SECTIONS_NAME_MAX 31
#define SECTIONS_MAX      4096              // in one run
#define SECTIONS_BYTES    ((size_t)1 << 30) // of one run

// ---- writing ----

// Appends to w: begin, any number of put and save, then end, which completes the header. w->error is checked by end.
void sections_begin(struct state_writer *w);
void sections_put(struct state_writer *w, const char *name, uint32_t instance, uint32_t version, const void *data,
                  size_t len);
// One section for each component that saves, in the order of the list. Negative errno with the component in err.
int sections_save(struct state_writer *w, const struct component_list *list, struct error *err);
// 0, or -ENOMEM.
int sections_end(struct state_writer *w, struct error *err);

// ---- reading ----

struct section {
    char name[SECTIONS_NAME_MAX + 1];
    uint32_t instance, version;
    const uint8_t *data; // borrowed from the run
    size_t len;
};

struct sections {
    struct section *list; // owned; in the order of the run
    unsigned count;
};

// Takes the run apart and verifies all of it: lengths, checksums, names unique with their instance. buf is borrowed
// until sections_free. -EINVAL with the reason in err: truncated, corrupt, not such a run, of a newer format.
int sections_parse(const uint8_t *buf, size_t len, struct sections *s, struct error *err);
void sections_free(struct sections *s); // a zeroed one is legal
const struct section *sections_find(const struct sections *s, const char *name, uint32_t instance); // or NULL

// Would it load? Every component that loads has its section, no section is left over, none is of a newer version than
// this program writes. Touches nothing. -EINVAL with the reason in err.
int sections_check(const struct sections *s, const struct component_list *list, struct error *err);

// Loads all components in the order of the list; guest RAM is in place before. Refuses what a component leaves unread.
// A failure leaves the machine in no defined state: it must not run.
int sections_load(const struct sections *s, const struct component_list *list, struct error *err);

// The three in a row, for a run that is only this: parse, check, load.
int sections_restore(const uint8_t *buf, size_t len, const struct component_list *list, struct error *err);

#endif
