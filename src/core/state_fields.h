// SPDX-License-Identifier: Apache-2.0
// One list of fields for both directions of core/stateio.h, so that what is written is what is read. The order of the
// calls is the format. Errors stay in the writer or reader, as there; a reader's overrun gives zeroes.
#ifndef CICADA_CORE_STATE_FIELDS_H
#define CICADA_CORE_STATE_FIELDS_H

#include <stdbool.h>

#include "core/stateio.h"

// Exactly one of the two is set. A writer leaves the fields as they are.
struct state_fields {
    struct state_writer *w;
    struct state_reader *r;
};

void state_field_u8(const struct state_fields *f, uint8_t *v);
void state_field_u16(const struct state_fields *f, uint16_t *v);
void state_field_u32(const struct state_fields *f, uint32_t *v);
void state_field_u64(const struct state_fields *f, uint64_t *v);
void state_field_flag(const struct state_fields *f, bool *v); // a byte; any but 0 reads as true
void state_field_bytes(const struct state_fields *f, uint8_t *v, size_t n);
void state_field_u64s(const struct state_fields *f, uint64_t *v, unsigned n);

#endif
