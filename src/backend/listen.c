// SPDX-License-Identifier: Apache-2.0
// Listening sockets; see the header.
#include "backend/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

// Removes a socket that nobody listens at any more; leaves anything else alone.
static int remove_stale(const struct sockaddr_un *addr, const char *what, struct error *err) {
    struct stat st;
    if (lstat(addr->sun_path, &st) != 0)
        return errno == ENOENT ? 0 : error_set(err, -errno, "%s '%s'", what, addr->sun_path);
    if (!S_ISSOCK(st.st_mode))
        return error_set(err, -EEXIST, "%s '%s': is not a socket", what, addr->sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_set(err, -errno, "%s '%s'", what, addr->sun_path);
    int ret = connect(fd, (const struct sockaddr *)addr, sizeof(*addr));
    bool stale = ret != 0 && errno == ECONNREFUSED;
    close(fd);
    if (!stale)
        return error_set(err, -EADDRINUSE, "%s '%s'", what, addr->sun_path);
    return unlink(addr->sun_path) == 0 ? 0 : error_set(err, -errno, "remove stale %s '%s'", what, addr->sun_path);
}

int listen_unix(const char *path, const char *what, int backlog, int *listener, struct error *err) {
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(addr.sun_path))
        return error_set(err, -ENAMETOOLONG, "%s '%s'", what, path);
    memcpy(addr.sun_path, path, strlen(path) + 1);
    int ret = remove_stale(&addr, what, err);
    if (ret)
        return ret;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    mode_t mask = umask(0177);
    ret = fd >= 0 ? bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) : -1;
    int saved = errno;
    umask(mask);
    if (ret == 0 && (ret = listen(fd, backlog)) != 0)
        saved = errno;
    if (ret == 0) {
        *listener = fd;
        return 0;
    }
    if (fd >= 0)
        close(fd);
    return error_set(err, -saved, "%s '%s'", what, path);
}

int listen_loopback(uint16_t port, const char *what, int backlog, int *listener, struct error *err) {
    struct sockaddr_in addr = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool good = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0 &&
                bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) == 0 && listen(fd, backlog) == 0;
    int saved = errno;
    if (good) {
        *listener = fd;
        return 0;
    }
    if (fd >= 0)
        close(fd);
    return error_set(err, -saved, "%s at 127.0.0.1:%u", what, port);
}
