// SPDX-License-Identifier: Apache-2.0
// Connecting and listening; see the header.
#include "cli/endpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/listen.h"

#define UNIX_BUFFER (1 << 20) // of the kernel's, each way: the default makes many short writes
#define LOST_MS     10000     // what was sent and not acknowledged for so long: the connection is broken

// ---- names ----

static int split_tcp(const char *text, struct endpoint *e) {
    const char *colon = strrchr(text, ':');
    char *end;
    if (!colon || colon == text || strlen(colon + 1) >= sizeof(e->port))
        return -EINVAL;
    size_t n = (size_t)(colon - text);
    if (text[0] == '[' && text[n - 1] == ']') {
        text++;
        n -= 2;
    } else if (memchr(text, ':', n)) {
        return -EINVAL; // an IPv6 address without brackets
    }
    if (n == 0 || n >= sizeof(e->host))
        return -EINVAL;
    memcpy(e->host, text, n);
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (colon[1] < '0' || colon[1] > '9' || *end || port > 65535)
        return -EINVAL;
    snprintf(e->port, sizeof(e->port), "%lu", port);
    return 0;
}

int endpoint_parse(const char *text, struct endpoint *e, struct error *err) {
    *e = (struct endpoint){0};
    e->is_unix = strncmp(text, "unix:", 5) == 0;
    if (e->is_unix && text[5] && strlen(text + 5) < sizeof(e->path)) {
        strcpy(e->path, text + 5);
        return 0;
    }
    if (strncmp(text, "tcp:", 4) == 0 && split_tcp(text + 4, e) == 0)
        return 0;
    return error_set(err, -EINVAL, "'%.200s': expected tcp:HOST:PORT or unix:PATH%s", text,
                     e->is_unix && text[5] ? " of less than 108 bytes" : "");
}

void endpoint_name(const struct endpoint *e, int listener, char *buf, unsigned size) {
    struct sockaddr_storage addr;
    socklen_t len = sizeof(addr);
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (e->is_unix)
        snprintf(buf, size, "unix:%s", e->path);
    else if (getsockname(listener, (struct sockaddr *)&addr, &len) == 0 &&
             getnameinfo((struct sockaddr *)&addr, len, host, sizeof(host), port, sizeof(port),
                         NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        snprintf(buf, size, strchr(host, ':') ? "tcp:[%s]:%s" : "tcp:%s:%s", host, port);
    else
        snprintf(buf, size, "tcp:%s:%s", e->host, e->port);
}

// ---- sockets ----

// A peer that is gone without a word is noticed; both sides do their own waiting beyond that.
static void tune(const struct endpoint *e, int fd) {
    int on = 1, lost = LOST_MS, bytes = UNIX_BUFFER;
    if (e->is_unix) {
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &lost, sizeof(lost));
}

static int resolve(const struct endpoint *e, bool passive, struct addrinfo **list, struct error *err) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0)};
    int ret = getaddrinfo(e->host, e->port, &hints, list);
    return ret == 0 ? 0 : error_set(err, -EINVAL, "tcp:%s:%s: %s", e->host, e->port, gai_strerror(ret));
}

static int wait_connected(int fd, int timeout_ms) {
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    int code = 0, n;
    socklen_t len = sizeof(code);
    while ((n = poll(&p, 1, timeout_ms)) < 0 && errno == EINTR) {
    }
    if (n == 0)
        return -ETIMEDOUT;
    if (n < 0 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len) != 0)
        return -errno;
    return -code;
}

static int connect_address(int family, const struct sockaddr *addr, socklen_t len, int timeout_ms) {
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    int ret = connect(fd, addr, len) == 0 ? 0 : -errno;
    if (ret == -EINPROGRESS)
        ret = wait_connected(fd, timeout_ms);
    if (ret == 0)
        return fd;
    close(fd);
    return ret;
}

static void unix_address(const struct endpoint *e, struct sockaddr_un *addr) {
    *addr = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(addr->sun_path, e->path, sizeof(e->path));
}

int endpoint_connect(const struct endpoint *e, int timeout_ms, struct error *err) {
    struct addrinfo *list = NULL;
    struct sockaddr_un addr;
    int fd = -EINVAL;
    if (e->is_unix) {
        unix_address(e, &addr);
        fd = connect_address(AF_UNIX, (struct sockaddr *)&addr, sizeof(addr), timeout_ms);
    } else {
        int ret = resolve(e, false, &list, err);
        if (ret)
            return ret;
        for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
            fd = connect_address(a->ai_family, a->ai_addr, a->ai_addrlen, timeout_ms);
        freeaddrinfo(list);
    }
    if (fd < 0)
        return error_set(err, fd, e->is_unix ? "connect to unix:%s%s" : "connect to tcp:%s:%s",
                         e->is_unix ? e->path : e->host, e->is_unix ? "" : e->port);
    tune(e, fd);
    return fd;
}

static int listen_address(const struct addrinfo *a) {
    int on = 1, fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, 1) == 0)
        return fd;
    int ret = -errno;
    close(fd);
    return ret;
}

int endpoint_listen(const struct endpoint *e, struct error *err) {
    struct addrinfo *list = NULL;
    int fd = -EINVAL;
    if (e->is_unix) {
        int ret = listen_unix(e->path, "socket", 1, &fd, err);
        return ret ? ret : fd;
    }
    int ret = resolve(e, true, &list, err);
    if (ret)
        return ret;
    for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
        fd = listen_address(a);
    freeaddrinfo(list);
    return fd >= 0 ? fd : error_set(err, fd, "listen at tcp:%s:%s", e->host, e->port);
}

int endpoint_accept(const struct endpoint *e, int listener, struct error *err) {
    struct pollfd p = {.fd = listener, .events = POLLIN};
    for (;;) {
        int fd = poll(&p, 1, -1) < 0 ? -1 : accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            tune(e, fd);
            return fd;
        }
        if (errno != EINTR && errno != EAGAIN && errno != ECONNABORTED)
            return error_set(err, -errno, "accept a connection");
    }
}

void endpoint_close(const struct endpoint *e, int listener) {
    if (listener >= 0)
        close(listener);
    if (listener >= 0 && e->is_unix)
        unlink(e->path);
}
