// SPDX-License-Identifier: Apache-2.0
// Clones; see the header. The pipe tells the parent how it went: a '+' when the guest runs, else the reason.
#include "cli/clones.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/nondet.h"
#include "util/io.h"
#include "vmm/run.h"

// ---- the clone ----

static void nothing(void) {}

static void tell_ready(void *ctx) {
    int fd = *(int *)ctx;
    if (write(fd, "+", 1) == 1)
        close(fd);
}

static int own_path(char **path, unsigned index) {
    char *name;
    if (!*path || asprintf(&name, "%s.%u", *path, index) < 0)
        return *path ? -ENOMEM : 0;
    free(*path);
    *path = name;
    return 0;
}

// What two machines cannot have in common.
static int make_own(struct vm_config *cfg, const char *prefix, unsigned index) {
    char *name = NULL;
    if (asprintf(&name, "%s-%u", prefix, index) < 0)
        return -ENOMEM;
    free(cfg->name);
    cfg->name = name;
    for (unsigned i = 0; i < cfg->nnets; i++) {
        cfg->nets[i].has_mac = false;
        cfg->nets[i].nfwds = 0;
    }
    for (unsigned i = 0; i < cfg->ndisks; i++)
        cfg->disks[i].overlay = !cfg->disks[i].read_only;
    if (cfg->serial.kind == CONFIG_CHAR_NONE || cfg->serial.kind == CONFIG_CHAR_STDIO)
        cfg->serial.kind = CONFIG_CHAR_NULL;
    int ret = own_path(&cfg->serial.path, index);
    return ret ? ret : own_path(&cfg->console.path, index);
}

static void leave_terminal(void) {
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    setsid();
    for (int fd = STDIN_FILENO; null >= 0 && fd <= STDERR_FILENO; fd++)
        dup2(null, fd);
    if (null > STDERR_FILENO)
        close(null);
}

static void clone_main(struct restore *r, struct vm_config *cfg, const char *prefix, unsigned index, int fd) {
    struct run_terminal term = {.enter = nothing, .leave = nothing, .resumed = nothing};
    struct error err = {0};
    leave_terminal();
    restore_when_running(r, tell_ready, &fd);
    int ret = make_own(cfg, prefix, index);
    int code = ret ? run_error_code(error_set(&err, ret, "configure")) : run_vm_restored(cfg, &term, r, &err);
    const char *why = err.code ? err.text : "it ended before the guest ran";
    if (write(fd, why, strlen(why)) < 0) { // gone, or told already that it runs
    }
    exit(code);
}

// ---- the template ----

// Waits for the clone's word. 0 when it runs.
static int hear(int fd, const char *name, struct error *err) {
    char text[sizeof(err->text)];
    size_t len = 0;
    ssize_t n;
    while (len < sizeof(text) - 1 && (n = read(fd, text + len, sizeof(text) - 1 - len)) != 0) {
        if (n < 0 && errno != EINTR)
            break;
        len += n > 0 ? (size_t)n : 0;
        if (len && text[0] == '+')
            return 0;
    }
    text[len] = 0;
    return error_set(err, -EINVAL, "clone '%s': %s", name, len ? text : "it died");
}

static int start_one(struct restore *r, struct vm_config *cfg, const char *prefix, unsigned index, pid_t *pid,
                     struct error *err) {
    char name[CONFIG_MAX_NAME + 16];
    int fds[2];
    snprintf(name, sizeof(name), "%s-%u", prefix, index);
    if (pipe2(fds, O_CLOEXEC) < 0)
        return error_set(err, -errno, "clone '%s'", name);
    *pid = fork();
    if (*pid == 0) {
        close(fds[0]);
        clone_main(r, cfg, prefix, index, fds[1]);
    }
    int ret = *pid < 0 ? error_set(err, -errno, "clone '%s'", name) : 0;
    close(fds[1]);
    if (ret == 0 && (ret = hear(fds[0], name, err)))
        waitpid(*pid, NULL, 0);
    close(fds[0]);
    return ret;
}

int clones_start(struct restore *r, struct vm_config *cfg, const struct clones_options *opt, struct error *err) {
    json_t *list = json_array();
    struct nondet measured;
    int ret = 0;
    nondet_init_live(&measured); // once for all
    signal(SIGPIPE, SIG_IGN);
    if (!opt->json)
        printf("%-24s %8s %10s\n", "NAME", "PID", "START");
    for (unsigned i = 1; ret == 0 && i <= opt->count; i++) {
        char name[CONFIG_MAX_NAME + 16];
        pid_t pid = -1;
        fflush(stdout); // or the clone would write it, too
        uint64_t begin = io_now_ns();
        ret = start_one(r, cfg, opt->prefix, i, &pid, err);
        uint64_t ns = io_now_ns() - begin;
        snprintf(name, sizeof(name), "%s-%u", opt->prefix, i);
        if (ret == 0 && !opt->json)
            printf("%-24s %8d %7.2f ms\n", name, (int)pid, (double)ns / 1e6);
        if (ret == 0)
            json_array_append_new(
                list, json_pack("{s:s, s:i, s:I}", "name", name, "pid", (int)pid, "start_ns", (json_int_t)ns));
    }
    if (opt->json) {
        json_dumpf(list, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(list);
    return ret;
}
