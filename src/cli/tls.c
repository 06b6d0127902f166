// SPDX-License-Identifier: Apache-2.0
// Starting cicada-tls; see the header.
#include "cli/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define HANDSHAKE_MS 15000 // the program itself gives up earlier

struct ends {
    int net, plain[2], status[2]; // [0] ours, [1] the program's
};

static int program_path(char *buf, size_t size) {
    ssize_t n = readlink("/proc/self/exe", buf, size - 1);
    if (n < 0)
        return -errno;
    buf[n] = 0;
    char *slash = strrchr(buf, '/');
    if (!slash || (size_t)(slash + 1 - buf) + sizeof("cicada-tls") > size)
        return -ENAMETOOLONG;
    strcpy(slash + 1, "cicada-tls");
    return access(buf, X_OK) == 0 ? 0 : -errno;
}

static void keep(int fd) {
    fcntl(fd, F_SETFD, 0); // over exec
}

// In the grandchild: no way back.
static void exec_program(const char *path, const struct tls_options *opt, bool server, const char *name,
                         const struct ends *e) {
    char net[16], plain[16], status[16];
    snprintf(net, sizeof(net), "%d", e->net);
    snprintf(plain, sizeof(plain), "%d", e->plain[1]);
    snprintf(status, sizeof(status), "%d", e->status[1]);
    keep(e->net);
    keep(e->plain[1]);
    keep(e->status[1]);
    setsid();
    execl(path, path, server ? "server" : "client", opt->dir, name, net, plain, status, (char *)NULL);
    dprintf(e->status[1], "start '%s': %s\n", path, strerror(errno));
    _exit(1);
}

// Twice forked, so that nobody has to wait for it.
static int start(const struct tls_options *opt, bool server, const char *name, const struct ends *e,
                 struct error *err) {
    char path[PATH_MAX];
    int ret = program_path(path, sizeof(path));
    if (ret)
        return error_set(err, ret, "TLS needs the program cicada-tls beside this one");
    pid_t child = fork();
    if (child < 0)
        return error_set(err, -errno, "start cicada-tls");
    if (child == 0) {
        if (fork() == 0)
            exec_program(path, opt, server, name, e);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    return 0;
}

static int wait_ok(int status, struct error *err) {
    char text[512];
    size_t len = 0;
    struct pollfd p = {.fd = status, .events = POLLIN};
    while (len < sizeof(text) - 1 && poll(&p, 1, HANDSHAKE_MS) > 0) {
        ssize_t n = read(status, text + len, sizeof(text) - 1 - len);
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    text[len] = 0;
    text[strcspn(text, "\n")] = 0;
    if (strcmp(text, "ok") == 0)
        return 0;
    return error_set(err, -EINVAL, "TLS: %s", len ? text : "no connection");
}

static void close_ends(struct ends *e, unsigned side) {
    if (e->plain[side] >= 0)
        close(e->plain[side]);
    if (e->status[side] >= 0)
        close(e->status[side]);
}

int tls_wrap(const struct tls_options *opt, bool server, const char *host, int net, struct error *err) {
    struct ends e = {.net = net, .plain = {-1, -1}, .status = {-1, -1}};
    if (!opt->dir)
        return net;
    const char *name = opt->name ? opt->name : server ? "" : host;
    int ret = 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, e.plain) != 0 || pipe2(e.status, O_CLOEXEC) != 0)
        ret = error_set(err, -errno, "TLS");
    if (ret == 0)
        ret = start(opt, server, name, &e, err);
    close(net);
    close_ends(&e, 1);
    if (ret == 0)
        ret = wait_ok(e.status[0], err);
    if (ret == 0) {
        close(e.status[0]);
        return e.plain[0];
    }
    close_ends(&e, 0);
    return ret;
}
