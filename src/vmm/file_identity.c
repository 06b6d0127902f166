// SPDX-License-Identifier: Apache-2.0
// Identity of files. No inode number: a disk that was copied or moved with its times (cp -p, rsync -t, mv) is the same.
#include "vmm/file_identity.h"

#include <errno.h>
#include <sys/stat.h>

static json_int_t mtime_ns(const struct stat *st) {
    return (json_int_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

static json_t *identity(const struct stat *st) {
    return json_pack("{s:I, s:I}", "size", (json_int_t)st->st_size, "mtime_ns", mtime_ns(st));
}

json_t *file_identity_of_fd(int fd) {
    struct stat st;
    return fstat(fd, &st) == 0 ? identity(&st) : NULL;
}

json_t *file_identity_of_path(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 ? identity(&st) : NULL;
}

int file_identity_check(const char *what, const char *path, const json_t *wanted, struct error *err) {
    struct stat st;
    json_t *size = json_object_get(wanted, "size"), *mtime = json_object_get(wanted, "mtime_ns");
    if (!json_is_integer(size) || !json_is_integer(mtime))
        return error_set(err, -EINVAL, "the manifest does not identify %s '%s'", what, path);
    if (stat(path, &st) != 0)
        return error_set(err, -errno, "%s '%s' of the snapshot", what, path);
    if (st.st_size != json_integer_value(size))
        return error_set(err, -EINVAL, "%s '%s' has %lld bytes, %lld when the snapshot was taken", what, path,
                         (long long)st.st_size, (long long)json_integer_value(size));
    if (!S_ISBLK(st.st_mode) && mtime_ns(&st) != json_integer_value(mtime))
        return error_set(err, -EINVAL, "%s '%s' has been changed since the snapshot was taken", what, path);
    return 0;
}
