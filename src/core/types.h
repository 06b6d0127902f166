// SPDX-License-Identifier: Apache-2.0
// The three address spaces that a VMM must never mix up, as three types.
#ifndef CICADA_CORE_TYPES_H
#define CICADA_CORE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Guest-physical address in bytes.
typedef struct {
    uint64_t v;
} gpa_t;

// Guest-virtual (x86: linear) address in bytes.
typedef struct {
    uint64_t v;
} gva_t;

#define GPA(x) ((gpa_t){(x)})
#define GVA(x) ((gva_t){(x)})

#define PAGE_SHIFT 12
#define PAGE_SIZE  ((uint64_t)1 << PAGE_SHIFT)
#define PAGE_MASK  (~(PAGE_SIZE - 1))

#define ARRAY_LEN(a)                 (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(p, type, field) ((type *)((char *)(p)-offsetof(type, field)))

#endif
