// SPDX-License-Identifier: Apache-2.0
// What tells that a file is still the one that it was: its size and the time of its last change.
#ifndef CICADA_VMM_FILE_IDENTITY_H
#define CICADA_VMM_FILE_IDENTITY_H

#include <jansson.h>

#include "util/error.h"

// {"size":, "mtime_ns":}; of an open file, or of a named one. A new reference, NULL where it cannot be told.
json_t *file_identity_of_fd(int fd);
json_t *file_identity_of_path(const char *path);

// Is the file as `identity` says? 0, or -EINVAL (-ENOENT and others where it cannot be looked at) with the reason in
// err.
int file_identity_check(const char *what, const char *path, const json_t *identity, struct error *err);

#endif
