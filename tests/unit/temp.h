// SPDX-License-Identifier: Apache-2.0
// Names for temporary files of tests.
#ifndef CICADA_TESTS_UNIT_TEMP_H
#define CICADA_TESTS_UNIT_TEMP_H

#include <stdio.h>
#include <stdlib.h>

#define TEMP_PATH_MAX 256

// A template for mkstemp or mkdtemp in $TMPDIR, as the shell tests have it; `path` is returned.
static inline char *temp_template(char path[TEMP_PATH_MAX], const char *name) {
    const char *dir = getenv("TMPDIR");
    snprintf(path, TEMP_PATH_MAX, "%s/cicada-%s.XXXXXX", dir && *dir ? dir : "/tmp", name);
    return path;
}

#endif
