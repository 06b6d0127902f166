// SPDX-License-Identifier: Apache-2.0
// Writing snapshots: under a temporary name, renamed when complete. A process that dies leaves ".NAME.XXXXXX.partial",
// which no command takes for a snapshot.
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "state/pack.h"
#include "state/snapshot.h"

// Parent directory and last part of a path, without what ends in '/'.
static int split(const char *path, char dir[PATH_MAX], char name[NAME_MAX + 1]) {
    char copy[PATH_MAX];
    if (strlen(path) >= sizeof(copy))
        return -ENAMETOOLONG;
    strcpy(copy, path);
    const char *base = basename(copy);
    if (strlen(base) > NAME_MAX - 20)
        return -ENAMETOOLONG;
    if (!*base || strcmp(base, "/") == 0 || strcmp(base, ".") == 0 || strcmp(base, "..") == 0)
        return -EINVAL;
    strcpy(name, base);
    strcpy(copy, path);
    strcpy(dir, dirname(copy));
    return 0;
}

static int make_id(char id[SNAPSHOT_ID_LENGTH + 1]) {
    uint8_t raw[SNAPSHOT_ID_LENGTH / 2];
    if (getrandom(raw, sizeof(raw), 0) != sizeof(raw))
        return -EIO;
    for (unsigned i = 0; i < sizeof(raw); i++)
        snprintf(id + 2 * i, 3, "%02x", raw[i]);
    return 0;
}

static int make_file(int dir, const char *name) {
    int fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return fd < 0 ? -errno : fd;
}

static int fill(struct snapshot_draft *d, struct error *err) {
    d->dir_fd = open(d->temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->dir_fd < 0)
        return error_set(err, -errno, "open '%s'", d->temporary);
    d->state_fd = make_file(d->dir_fd, "state");
    d->memory_fd = d->state_fd < 0 ? d->state_fd : make_file(d->dir_fd, "memory");
    return d->memory_fd < 0 ? error_set(err, d->memory_fd, "make files in '%s'", d->temporary) : 0;
}

int snapshot_draft_create(const char *path, struct snapshot_draft *d, struct error *err) {
    char dir[PATH_MAX], name[NAME_MAX + 1], full[PATH_MAX];
    struct stat st;
    *d = (struct snapshot_draft){.dir_fd = -1, .state_fd = -1, .memory_fd = -1};
    for (unsigned i = 0; i < SNAPSHOT_DISKS_MAX; i++)
        d->disk_fds[i] = -1;
    int ret = split(path, dir, name);
    if (ret)
        return error_set(err, ret, "'%.200s' cannot be the name of a snapshot", path);
    if (lstat(path, &st) == 0)
        return error_set(err, -EEXIST, "snapshot '%s'", path);
    if (!realpath(dir, full))
        return error_set(err, -errno, "directory '%s'", dir);
    int n = snprintf(d->path, sizeof(d->path), "%s/%s", strcmp(full, "/") ? full : "", name);
    int m = snprintf(d->temporary, sizeof(d->temporary), "%s/.%s.XXXXXX.partial", strcmp(full, "/") ? full : "", name);
    if (n >= (int)sizeof(d->path) || m >= (int)sizeof(d->temporary))
        return error_set(err, -ENAMETOOLONG, "snapshot '%.200s'", path);
    if (make_id(d->id))
        return error_set(err, -EIO, "random numbers");
    memcpy(strrchr(d->temporary, 'X') - 5, d->id, 6); // a name is taken once in 16 million; mkdir tells
    if (mkdir(d->temporary, 0700) < 0)
        ret = error_set(err, -errno, "make directory '%s'", d->temporary);
    else
        ret = fill(d, err);
    if (ret)
        snapshot_draft_discard(d);
    return ret;
}

static void disk_name(unsigned index, char name[16]) {
    snprintf(name, 16, "disk%u", index);
}

int snapshot_draft_add_disk(struct snapshot_draft *d, unsigned index, struct error *err) {
    char name[16];
    if (index >= SNAPSHOT_DISKS_MAX)
        return error_set(err, -EINVAL, "more than %d disks", SNAPSHOT_DISKS_MAX);
    disk_name(index, name);
    d->disk_fds[index] = make_file(d->dir_fd, name);
    return d->disk_fds[index] < 0 ? error_set(err, d->disk_fds[index], "make %s", name) : 0;
}

// ---- completing ----

static int read_sections(int fd, uint8_t **buf, struct sections *s, struct error *err) {
    struct stat st;
    if (fstat(fd, &st) < 0 || !(*buf = malloc((size_t)st.st_size + 1)))
        return error_set(err, -ENOMEM, "read the state");
    if (pread(fd, *buf, (size_t)st.st_size, 0) != st.st_size)
        return error_set(err, -EIO, "read the state");
    return sections_parse(*buf, (size_t)st.st_size, s, err);
}

int snapshot_draft_compress(struct snapshot_draft *d, int level, struct error *err) {
    struct sections s = {0};
    uint8_t *buf = NULL;
    int ret = 0, fd = make_file(d->dir_fd, "memory.zst");
    if (fd < 0)
        return error_set(err, fd, "make memory.zst");
    ret = read_sections(d->state_fd, &buf, &s, err);
    if (ret == 0)
        ret = pack_compress(&s, d->memory_fd, fd, level, err);
    if (ret == 0 && fsync(fd) < 0)
        ret = error_set(err, -errno, "write memory.zst");
    if (ret == 0 && unlinkat(d->dir_fd, "memory", 0) < 0)
        ret = error_set(err, -errno, "remove the uncompressed memory");
    sections_free(&s);
    free(buf);
    close(fd);
    return ret;
}

static int write_manifest(struct snapshot_draft *d, const json_t *manifest, struct error *err) {
    int fd = make_file(d->dir_fd, "manifest.json");
    if (fd < 0)
        return error_set(err, fd, "make manifest.json");
    int ret = json_dumpfd(manifest, fd, JSON_INDENT(2)) ? -EIO : 0;
    if (ret == 0 && (write(fd, "\n", 1) != 1 || fsync(fd) < 0))
        ret = -errno;
    close(fd);
    return ret ? error_set(err, ret, "write manifest.json") : 0;
}

static void close_all(struct snapshot_draft *d) {
    int *fds[] = {&d->state_fd, &d->memory_fd, &d->dir_fd};
    for (unsigned i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
    for (unsigned i = 0; i < SNAPSHOT_DISKS_MAX; i++) {
        if (d->disk_fds[i] >= 0)
            close(d->disk_fds[i]);
        d->disk_fds[i] = -1;
    }
}

static void sync_parent(const char *path) {
    char dir[PATH_MAX], name[NAME_MAX + 1];
    int fd = split(path, dir, name) ? -1 : open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (fsync(fd) < 0) {
        // Some file systems cannot; the rename is then as durable as they make it.
    }
    close(fd);
}

int snapshot_draft_publish(struct snapshot_draft *d, json_t *manifest, struct error *err) {
    json_object_set_new(manifest, "format", json_string(SNAPSHOT_FORMAT));
    json_object_set_new(manifest, "version", json_integer(SNAPSHOT_VERSION));
    json_object_set_new(manifest, "id", json_string(d->id));
    int ret = write_manifest(d, manifest, err);
    if (ret)
        return ret;
    // Read-only from here on: a file that is mapped by guests must not be cut.
    for (unsigned i = 0; i < SNAPSHOT_DISKS_MAX; i++)
        if (d->disk_fds[i] >= 0 && (fchmod(d->disk_fds[i], 0400) < 0 || fsync(d->disk_fds[i]) < 0))
            return error_set(err, -errno, "write '%s'", d->temporary);
    if (fchmod(d->state_fd, 0400) < 0 || fchmod(d->memory_fd, 0400) < 0 || fsync(d->dir_fd) < 0)
        return error_set(err, -errno, "write '%s'", d->temporary);
    if (renameat2(AT_FDCWD, d->temporary, AT_FDCWD, d->path, RENAME_NOREPLACE) < 0 &&
        (errno != EINVAL || rename(d->temporary, d->path) < 0)) // EINVAL: the file system knows no flags
        return error_set(err, -errno, "rename '%s' to '%s'", d->temporary, d->path);
    sync_parent(d->path);
    d->temporary[0] = 0;
    close_all(d);
    return 0;
}

// ---- removing ----

static const char *const all_files[] = {"manifest.json", "state", "memory", "memory.zst"};

// Only what is ours; a directory with other files in it stays, without a manifest.
static int remove_files(const char *path) {
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return -errno;
    for (unsigned i = 0; i < sizeof(all_files) / sizeof(all_files[0]); i++)
        unlinkat(dir, all_files[i], 0);
    for (unsigned i = 0; i < SNAPSHOT_DISKS_MAX; i++) {
        char name[16];
        disk_name(i, name);
        unlinkat(dir, name, 0);
    }
    close(dir);
    return rmdir(path) < 0 ? -errno : 0;
}

void snapshot_draft_discard(struct snapshot_draft *d) {
    if (!d->temporary[0])
        return;
    close_all(d);
    remove_files(d->temporary);
    d->temporary[0] = 0;
}

int snapshot_remove(const char *path, struct error *err) {
    char dir[PATH_MAX], name[NAME_MAX + 1], away[PATH_MAX + NAME_MAX + 32];
    json_t *manifest = NULL;
    int ret = snapshot_manifest_read(path, &manifest, err); // not a directory that merely has the name
    json_decref(manifest);
    if (ret == 0 && (ret = split(path, dir, name)))
        error_set(err, ret, "snapshot '%s'", path);
    if (ret)
        return ret;
    snprintf(away, sizeof(away), "%s/.%s.removed.partial", dir, name);
    if (rename(path, away) < 0)
        return error_set(err, -errno, "remove '%s'", path);
    ret = remove_files(away);
    return ret ? error_set(err, ret, "remove '%s'", away) : 0;
}
