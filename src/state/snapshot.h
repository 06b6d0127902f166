// SPDX-License-Identifier: Apache-2.0
// A snapshot on the disk: a directory with
//   manifest.json   what it is: format, id, parent, the machine (JSON)
//   state           sections of all components and the maps of RAM (state/sections.h, state/ram.h)
//   memory          pages of guest RAM, each at its place (sparse); or
//   memory.zst      the pages one behind the other, compressed by zstd
//   disk0 ...       copies of disks, where the snapshot has its own
// It is written under another name and renamed when everything is on the disk: what has its name is complete. It is
// never changed afterwards; a difference refers to its parent by path and id.
#ifndef CICADA_STATE_SNAPSHOT_H
#define CICADA_STATE_SNAPSHOT_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>

#include "state/ram.h"
#include "state/sections.h"

#define SNAPSHOT_FORMAT    "cicada-snapshot"
#define SNAPSHOT_VERSION   1
#define SNAPSHOT_ID_LENGTH 32 // hexadecimal digits
#define SNAPSHOT_DISKS_MAX 16
#define SNAPSHOT_DEPTH_MAX 64 // differences in a row

// ---- reading ----

struct snapshot {
    char path[PATH_MAX]; // absolute
    char id[SNAPSHOT_ID_LENGTH + 1];
    json_t *manifest; // owned
    bool diff;
    int memory_fd;  // owned; of zstd: a memfd once snapshot_unpack was there, -1 before
    int packed_fd;  // owned; -1 unless memory.zst
    uint8_t *state; // owned
    size_t state_bytes;
    struct sections sections; // of state
    struct snapshot *parent;  // owned; NULL unless diff
};

// Reads the manifest alone: for lists. -ENOENT, -EINVAL... with the reason in err.
int snapshot_manifest_read(const char *path, json_t **manifest, struct error *err);

// Opens a snapshot and its parents and verifies all but the pages themselves: format versions, sizes, checksums of
// `state`, ids of the parents. Single-threaded or not; touches nothing.
int snapshot_open(const char *path, struct snapshot **s, struct error *err);
void snapshot_close(struct snapshot *s); // NULL is legal

// Pages into guest memory, the parents' first. The maps were checked against mem by snapshot_check_memory.
int snapshot_check_memory(const struct snapshot *s, const struct mem *mem, struct error *err);
int snapshot_load_memory(const struct snapshot *s, struct mem *mem, enum ram_load_how how, struct error *err);
// Compares the checksums of all pages, the parents' too.
int snapshot_verify(const struct snapshot *s, struct error *err);

// ---- writing ----

struct snapshot_draft {
    char path[PATH_MAX];      // where it will be
    char temporary[PATH_MAX]; // where it is
    int dir_fd, state_fd, memory_fd;
    int disk_fds[SNAPSHOT_DISKS_MAX]; // -1: none
    char id[SNAPSHOT_ID_LENGTH + 1];  // made at random
};

// Makes the directory under a temporary name beside `path`, with empty files. -EEXIST where `path` exists.
int snapshot_draft_create(const char *path, struct snapshot_draft *d, struct error *err);
// Makes the file disk`index`. Its descriptor is the draft's.
int snapshot_draft_add_disk(struct snapshot_draft *d, unsigned index, struct error *err);
// Replaces `memory`, complete by now, by memory.zst.
int snapshot_draft_compress(struct snapshot_draft *d, int level, struct error *err);
// Writes the manifest (borrowed; format, version and id are added), brings everything to the disk and renames. On
// success the draft is closed; on failure it is as it was.
int snapshot_draft_publish(struct snapshot_draft *d, json_t *manifest, struct error *err);
void snapshot_draft_discard(struct snapshot_draft *d); // removes it, unless published; a zeroed one is legal

// Removes a published snapshot: renames it away first, so that no half of it ever has its name.
int snapshot_remove(const char *path, struct error *err);

#endif
