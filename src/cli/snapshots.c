// SPDX-License-Identifier: Apache-2.0
// Snapshots on the disk; see the header. Each list reads the manifests alone; what is in a directory and has none, or a
// damaged one, is no snapshot and is left out.
#include "cli/snapshots.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "state/snapshot.h"
#include "vmm/config_value.h"

// ---- what a manifest says ----

static const char *text(const json_t *m, const char *key) {
    const char *s = json_string_value(json_object_get(m, key));
    return s ? s : "-";
}

static const json_t *vm_options(const json_t *m) {
    return json_object_get(json_object_get(json_object_get(m, "machine"), "manifest"), "options");
}

// Bytes on the disk of all files, disks included.
static uint64_t used_bytes(const char *path) {
    struct dirent *d;
    uint64_t sum = 0;
    DIR *dir = opendir(path);
    while (dir && (d = readdir(dir))) {
        struct stat st;
        if (fstatat(dirfd(dir), d->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
            sum += (uint64_t)st.st_blocks * 512;
    }
    if (dir)
        closedir(dir);
    return sum;
}

// ---- one ----

static void print_sections(const struct snapshot *s) {
    printf("sections:");
    for (unsigned i = 0; i < s->sections.count; i++) {
        const struct section *sec = &s->sections.list[i];
        printf("%s %-14s %2u  version %u %10zu bytes\n", i ? "         " : "", sec->name, sec->instance, sec->version,
               sec->len);
    }
}

static void print_disks(const json_t *options) {
    size_t i;
    json_t *disk;
    json_array_foreach(json_object_get(options, "disk"), i, disk) printf("disk:     %s\n", json_string_value(disk));
}

static void print_info(const struct snapshot *s) {
    const json_t *m = s->manifest, *o = vm_options(m);
    const json_t *machine = json_object_get(json_object_get(m, "machine"), "manifest");
    char memory[32], used[32];
    value_format_size(strtoull(text(o, "memory"), NULL, 10), memory, sizeof(memory));
    value_format_size(used_bytes(s->path), used, sizeof(used));
    printf("snapshot: %s\nid:       %s\nparent:   %s\ncreated:  %s\nvm:       %s\nprogram:  cicada %s\n", s->path,
           s->id, s->parent ? s->parent->path : "none", text(m, "created"), text(m, "vm"), text(machine, "program"));
    printf("machine:  board %s, cpu %s, %s vCPUs, memory %s, engine %s\n", text(o, "board"), text(o, "cpu"),
           text(o, "cpus"), memory, text(machine, "engine"));
    printf("size:     %s on the disk, memory %s\nkernel:   %s\n", used,
           strcmp(text(m, "compression"), "zstd") == 0 ? "compressed by zstd" : "not compressed", text(o, "kernel"));
    print_disks(o);
    print_sections(s);
}

int snapshots_info(const char *path, bool json, struct error *err) {
    struct snapshot *s;
    int ret = snapshot_open(path, &s, err);
    if (ret)
        return ret;
    if (json) {
        json_dumpf(s->manifest, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        print_info(s);
    }
    snapshot_close(s);
    return 0;
}

int snapshots_verify(const char *path, struct error *err) {
    struct snapshot *s;
    int ret = snapshot_open(path, &s, err);
    if (ret)
        return ret;
    ret = snapshot_verify(s, err);
    if (ret == 0)
        printf("%s: all checksums are right\n", s->path);
    snapshot_close(s);
    return ret;
}

// ---- many ----

struct entry {
    char *path; // owned
    json_t *manifest;
    bool printed;
};

struct listing {
    struct entry *list;
    unsigned count;
};

static int by_age(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    int order = strcmp(text(x->manifest, "created"), text(y->manifest, "created"));
    return order ? order : strcmp(x->path, y->path);
}

static void listing_free(struct listing *l) {
    for (unsigned i = 0; i < l->count; i++) {
        free(l->list[i].path);
        json_decref(l->list[i].manifest);
    }
    free(l->list);
    *l = (struct listing){0};
}

static int listing_add(struct listing *l, const char *dir, const char *name) {
    struct entry e = {0};
    struct error ignored;
    if (asprintf(&e.path, "%s/%s", dir, name) < 0)
        return -ENOMEM;
    if (snapshot_manifest_read(e.path, &e.manifest, &ignored)) {
        free(e.path);
        return 0;
    }
    struct entry *grown = realloc(l->list, (l->count + 1) * sizeof(*grown));
    if (!grown) {
        free(e.path);
        json_decref(e.manifest);
        return -ENOMEM;
    }
    l->list = grown;
    l->list[l->count++] = e;
    return 0;
}

static int listing_read(const char *dir, struct listing *l, struct error *err) {
    struct dirent *d;
    int ret = 0;
    *l = (struct listing){0};
    DIR *handle = opendir(dir);
    if (!handle)
        return error_set(err, -errno, "directory '%s'", dir);
    while (ret == 0 && (d = readdir(handle)))
        if (d->d_name[0] != '.')
            ret = listing_add(l, dir, d->d_name);
    closedir(handle);
    if (ret) {
        listing_free(l);
        return error_set(err, ret, "read directory '%s'", dir);
    }
    if (l->count)
        qsort(l->list, l->count, sizeof(*l->list), by_age);
    return 0;
}

static void print_row(const struct entry *e, const char *indent) {
    char used[32], path[64];
    value_format_size(used_bytes(e->path) >> 10 << 10, used, sizeof(used));
    const char *name = strrchr(e->path, '/') + 1;
    snprintf(path, sizeof(path), "%s%.40s", indent, name);
    printf("%-24s %-20s %-12s %-5s %9s\n", path, text(e->manifest, "created"), text(e->manifest, "vm"),
           json_object_get(e->manifest, "parent") ? "diff" : "full", used);
}

static void print_header(void) {
    printf("%-24s %-20s %-12s %-5s %9s\n", "SNAPSHOT", "CREATED", "VM", "KIND", "SIZE");
}

int snapshots_list(const char *dir, bool json, struct error *err) {
    struct listing l;
    int ret = listing_read(dir, &l, err);
    if (ret)
        return ret;
    json_t *array = json_array();
    if (!json)
        print_header();
    for (unsigned i = 0; i < l.count; i++) {
        const json_t *m = l.list[i].manifest;
        if (!json)
            print_row(&l.list[i], "");
        json_array_append_new(array, json_pack("{s:s, s:s, s:s, s:s, s:I}", "path", l.list[i].path, "id", text(m, "id"),
                                               "created", text(m, "created"), "vm", text(m, "vm"), "bytes",
                                               (json_int_t)used_bytes(l.list[i].path)));
    }
    if (json) {
        json_dumpf(array, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(array);
    listing_free(&l);
    return 0;
}

static const char *parent_id(const struct entry *e) {
    return text(json_object_get(e->manifest, "parent"), "id");
}

static void print_tree(struct listing *l, struct entry *e, unsigned depth) {
    char indent[2 * SNAPSHOT_DEPTH_MAX + 1] = "";
    if (e->printed || depth > SNAPSHOT_DEPTH_MAX)
        return;
    for (unsigned i = 0; i < depth && i < 16; i++)
        strcat(indent, "  ");
    e->printed = true;
    print_row(e, indent);
    for (unsigned i = 0; i < l->count; i++)
        if (strcmp(parent_id(&l->list[i]), text(e->manifest, "id")) == 0)
            print_tree(l, &l->list[i], depth + 1);
}

static bool has_parent_here(const struct listing *l, const struct entry *e) {
    for (unsigned i = 0; i < l->count; i++)
        if (strcmp(text(l->list[i].manifest, "id"), parent_id(e)) == 0)
            return true;
    return false;
}

int snapshots_tree(const char *dir, struct error *err) {
    struct listing l;
    int ret = listing_read(dir, &l, err);
    if (ret)
        return ret;
    print_header();
    for (unsigned i = 0; i < l.count; i++)
        if (!has_parent_here(&l, &l.list[i]))
            print_tree(&l, &l.list[i], 0);
    listing_free(&l);
    return 0;
}

// ---- rm ----

static int check_children(const char *path, struct error *err) {
    char copy[PATH_MAX];
    json_t *manifest = NULL;
    struct listing l = {0};
    int ret = snapshot_manifest_read(path, &manifest, err);
    if (ret)
        return ret;
    if (!realpath(path, copy))
        ret = error_set(err, -errno, "snapshot '%s'", path);
    if (ret == 0)
        ret = listing_read(dirname(copy), &l, err);
    for (unsigned i = 0; ret == 0 && i < l.count; i++)
        if (strcmp(parent_id(&l.list[i]), text(manifest, "id")) == 0)
            ret =
                error_set(err, -EINVAL, "snapshot '%s' is the parent of '%s': remove that first", path, l.list[i].path);
    listing_free(&l);
    json_decref(manifest);
    return ret;
}

int snapshots_rm(const char *path, struct error *err) {
    int ret = check_children(path, err);
    return ret ? ret : snapshot_remove(path, err);
}
