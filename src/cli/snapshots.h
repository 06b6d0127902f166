// SPDX-License-Identifier: Apache-2.0
// Snapshots on the disk, for people. All print to standard output; 0, or negative errno with err set.
#ifndef CICADA_CLI_SNAPSHOTS_H
#define CICADA_CLI_SNAPSHOTS_H

#include <stdbool.h>

#include "util/error.h"

int snapshots_info(const char *path, bool json, struct error *err);
// Compares all checksums, those of the memory and of the parents too.
int snapshots_verify(const char *path, struct error *err);
// All in a directory, the oldest first.
int snapshots_list(const char *dir, bool json, struct error *err);
// The same as a tree of differences.
int snapshots_tree(const char *dir, struct error *err);
// -EBUSY where a difference beside it refers to it.
int snapshots_rm(const char *path, struct error *err);

#endif
