// SPDX-License-Identifier: Apache-2.0
// The version, from the one place that states it: include/cicada.h.
#include "cicada.h"

#define STRING_(x) #x
#define STRING(x)  STRING_(x)

const char *cicada_version(void) {
    return STRING(CICADA_VERSION_MAJOR) "." STRING(CICADA_VERSION_MINOR) "." STRING(CICADA_VERSION_PATCH);
}
