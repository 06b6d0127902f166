// SPDX-License-Identifier: Apache-2.0
// One list of fields for both directions of core/stateio.h.
#include "core/state_fields.h"

void state_field_u8(const struct state_fields *f, uint8_t *v) {
    if (f->w)
        state_put_u8(f->w, *v);
    else
        *v = state_get_u8(f->r);
}

void state_field_u16(const struct state_fields *f, uint16_t *v) {
    if (f->w)
        state_put_u16(f->w, *v);
    else
        *v = state_get_u16(f->r);
}

void state_field_u32(const struct state_fields *f, uint32_t *v) {
    if (f->w)
        state_put_u32(f->w, *v);
    else
        *v = state_get_u32(f->r);
}

void state_field_u64(const struct state_fields *f, uint64_t *v) {
    if (f->w)
        state_put_u64(f->w, *v);
    else
        *v = state_get_u64(f->r);
}

void state_field_flag(const struct state_fields *f, bool *v) {
    uint8_t byte = f->w ? *v : 0; // what is read over may be anything, also no bool

    state_field_u8(f, &byte);
    *v = byte != 0;
}

void state_field_bytes(const struct state_fields *f, uint8_t *v, size_t n) {
    if (f->w)
        state_put_bytes(f->w, v, n);
    else
        state_get_bytes(f->r, v, n);
}

void state_field_u64s(const struct state_fields *f, uint64_t *v, unsigned n) {
    for (unsigned i = 0; i < n; i++)
        state_field_u64(f, &v[i]);
}
