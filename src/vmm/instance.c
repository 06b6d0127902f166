// SPDX-License-Identifier: Apache-2.0
// The run directory; see the header. Races between a VM that starts, one that ends and a `ps` that cleans up are
// decided by the lock: who removes files holds it, and who gets it looks whether the file is still the one in the
// directory.
#include "vmm/instance.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOG_UNIT "instance"
#include "util/log.h"
#include "vmm/config_value.h"

#define CLAIM_TRIES 20 // of 10 ms: somebody else is removing what a dead VM left

static int root_path(char *buf, size_t size, struct error *err) {
    const char *xdg = getenv("XDG_RUNTIME_DIR");
    int n;
    if (xdg && xdg[0] == '/')
        n = snprintf(buf, size, "%s/cicada", xdg);
    else if (geteuid() == 0)
        n = snprintf(buf, size, "/run/cicada");
    else
        n = snprintf(buf, size, "/tmp/cicada-%u", (unsigned)geteuid());
    if (n < 0 || (size_t)n >= size)
        return error_set(err, -ENAMETOOLONG, "XDG_RUNTIME_DIR");
    return 0;
}

int instance_locate(const char *name, struct instance *inst, struct error *err) {
    *inst = (struct instance){.lock_fd = -1, .addr.sun_family = AF_UNIX};
    if (!value_name_ok(name))
        return error_set(err, -EINVAL, "'%.80s' cannot be the name of a VM", name);
    int ret = root_path(inst->root, sizeof(inst->root), err);
    if (ret)
        return ret;
    snprintf(inst->name, sizeof(inst->name), "%s", name);
    int n = snprintf(inst->dir, sizeof(inst->dir), "%s/%s", inst->root, name);
    if (n > 0 && (size_t)n < sizeof(inst->dir))
        n = snprintf(inst->addr.sun_path, sizeof(inst->addr.sun_path), "%.90s/control.sock", inst->dir);
    if (n < 0 || strlen(inst->dir) > 90)
        return error_set(err, -ENAMETOOLONG, "control socket in '%.200s' (set XDG_RUNTIME_DIR to a shorter directory)",
                         inst->dir);
    return 0;
}

static void file_path(const struct instance *inst, const char *file, char *buf, size_t size) {
    snprintf(buf, size, "%.4000s/%s", inst->dir, file);
}

// Makes a directory that only we can use, or accepts the one there if it is such.
static int make_private_dir(const char *path, struct error *err) {
    struct stat st;
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return error_set(err, -errno, "make run directory '%s'", path);
    if (lstat(path, &st) != 0)
        return error_set(err, -errno, "run directory '%s'", path);
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022))
        return error_set(err, -EINVAL, "run directory '%s' is not a directory that only user %u may write", path,
                         (unsigned)geteuid());
    return 0;
}

static pid_t read_pid(int fd) {
    char buf[16] = "";
    uint64_t pid;
    ssize_t n = pread(fd, buf, sizeof(buf) - 1, 0);
    if (n <= 0)
        return 0;
    buf[strcspn(buf, "\n")] = 0;
    return value_parse_u64(buf, &pid) == 0 && pid <= INT_MAX ? (pid_t)pid : 0;
}

// Is fd still the lock file in the directory?
static bool is_linked(int fd, const char *path) {
    struct stat a, b;
    return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

// Removes everything, the lock file last, so that its lock guards the rest. The caller holds the lock.
static void remove_files(const struct instance *inst) {
    char lock[PATH_MAX];
    unlink(inst->addr.sun_path);
    file_path(inst, "lock", lock, sizeof(lock));
    unlink(lock);
    rmdir(inst->dir);
}

// One try. 0, -EAGAIN where somebody is cleaning up or holds the lock, or an error with err set.
static int try_claim(struct instance *inst, const char *lock, pid_t *holder, struct error *err) {
    int ret = make_private_dir(inst->dir, err);
    if (ret)
        return ret;
    int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return errno == ENOENT ? -EAGAIN : error_set(err, -errno, "lock file '%s'", lock);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        ret = errno == EWOULDBLOCK ? -EAGAIN : error_set(err, -errno, "lock '%s'", lock);
        *holder = read_pid(fd);
    } else if (!is_linked(fd, lock)) {
        ret = -EAGAIN;
    }
    if (ret) {
        close(fd);
        return ret;
    }
    unlink(inst->addr.sun_path); // of a VM that died
    inst->lock_fd = fd;
    return 0;
}

int instance_claim(const char *name, struct instance *inst, struct error *err) {
    char lock[PATH_MAX], text[16];
    int ret = instance_locate(name, inst, err);
    if (ret == 0)
        ret = make_private_dir(inst->root, err);
    if (ret)
        return ret;
    file_path(inst, "lock", lock, sizeof(lock));
    pid_t holder = 0;
    for (int i = 0; i < CLAIM_TRIES; i++) {
        ret = try_claim(inst, lock, &holder, err);
        if (ret != -EAGAIN)
            break;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    if (ret == -EAGAIN)
        return error_set(err, -EINVAL, "--name '%s' is taken by a running VM (PID %d)", name, (int)holder);
    if (ret)
        return ret;
    int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    if (ftruncate(inst->lock_fd, 0) != 0 || pwrite(inst->lock_fd, text, (size_t)n, 0) != n) {
        ret = error_set(err, -EIO, "write '%s'", lock);
        instance_release(inst);
    }
    return ret;
}

void instance_release(struct instance *inst) {
    if (inst->lock_fd < 0)
        return;
    remove_files(inst);
    close(inst->lock_fd);
    inst->lock_fd = -1;
}

pid_t instance_check(const struct instance *inst) {
    char lock[PATH_MAX];
    file_path(inst, "lock", lock, sizeof(lock));
    int fd = open(lock, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return -ENOENT;
    pid_t pid = -ENOENT;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0)
        pid = read_pid(fd);
    else if (is_linked(fd, lock))
        remove_files(inst);
    close(fd);
    return pid;
}

static int visible_name(const struct dirent *d) {
    return value_name_ok(d->d_name);
}

int instance_list(int (*fn)(void *ctx, const struct instance *inst, pid_t pid), void *ctx, struct error *err) {
    char root[PATH_MAX];
    struct dirent **names;
    int ret = root_path(root, sizeof(root), err);
    if (ret)
        return ret;
    int n = scandir(root, &names, visible_name, alphasort);
    if (n < 0)
        return errno == ENOENT ? 0 : error_set(err, -errno, "run directory '%s'", root);
    for (int i = 0; i < n; i++) {
        struct instance inst;
        struct error ignored;
        if (ret == 0 && instance_locate(names[i]->d_name, &inst, &ignored) == 0) {
            pid_t pid = instance_check(&inst);
            if (pid >= 0)
                ret = fn(ctx, &inst, pid);
        }
        free(names[i]);
    }
    free(names);
    return ret;
}
