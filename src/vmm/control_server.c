// SPDX-License-Identifier: Apache-2.0
// The control socket's server, on the event loop. Everything a client can hold is bounded: the number of clients,
// the length of a line, and one answer at a time; a client that does not read its answer is not read either.
// A line that is too long is answered with an error and the connection is closed. All state is the loop thread's.
#define LOG_UNIT "control"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/types.h"
#include "util/log.h"
#include "vmm/control.h"

#define ACCEPT_PAUSE_NS 500000000u // after a failed accept (no file descriptors left)

struct client {
    struct control_server *server;
    int fd; // -1: free
    struct event_source *src;
    char *in; // CONTROL_LINE_MAX bytes
    size_t in_len;
    char *out; // the rest of an answer, or NULL
    size_t out_pos, out_len;
    bool closing; // after the answer
    struct control_peer peer;
};

struct control_server {
    struct event_loop *loop;
    const struct control_target *target;
    int listener;
    struct event_source *src;
    struct event_timer retry; // of accept
    struct client clients[CONTROL_CLIENTS_MAX];
};

static void fds_close(struct control_peer *p) {
    for (unsigned i = 0; i < p->nfds; i++)
        if (p->fds[i] >= 0)
            close(p->fds[i]);
    p->nfds = 0;
}

static void client_drop(struct client *c) {
    if (c->server->target->peer_gone)
        c->server->target->peer_gone(c->server->target, &c->peer);
    fds_close(&c->peer);
    event_remove(c->src);
    close(c->fd);
    free(c->in);
    free(c->out);
    *c = (struct client){.server = c->server, .fd = -1};
}

// Sends what is left of the answer. False where the client is gone.
static bool client_flush(struct client *c) {
    while (c->out_pos < c->out_len) {
        ssize_t n = send(c->fd, c->out + c->out_pos, c->out_len - c->out_pos, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            event_modify(c->src, EPOLLOUT);
            return true;
        }
        if (n <= 0)
            return false;
        c->out_pos += (size_t)n;
    }
    free(c->out);
    c->out = NULL;
    event_modify(c->src, EPOLLIN);
    return !c->closing;
}

static bool client_reply(struct client *c, char *answer) {
    if (!answer)
        return false;
    c->out = answer;
    c->out_pos = 0;
    c->out_len = strlen(answer);
    return client_flush(c);
}

// Answers complete lines until one answer has to wait. False where the client is to be dropped.
static bool client_lines(struct client *c) {
    while (!c->out) {
        char *end = memchr(c->in, '\n', c->in_len);
        if (!end && c->in_len < CONTROL_LINE_MAX)
            return true;
        if (!end) {
            c->closing = true;
            return client_reply(c, strdup("{\"ok\":false,\"error\":\"the line is too long\",\"code\":-90}\n"));
        }
        size_t line = (size_t)(end - c->in);
        bool blank = line == 0 || (line == 1 && c->in[0] == '\r');
        char *answer = blank ? NULL : control_answer(c->server->target, &c->peer, c->in, line);
        if (!blank)
            fds_close(&c->peer); // those that the action did not take
        c->in_len -= line + 1;
        memmove(c->in, end + 1, c->in_len);
        if (!blank && !client_reply(c, answer))
            return false;
    }
    return true;
}

// Keeps the descriptors that came with a message; they go with the next complete line.
static void take_fds(struct client *c, struct msghdr *msg) {
    for (struct cmsghdr *h = CMSG_FIRSTHDR(msg); h; h = CMSG_NXTHDR(msg, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(int));
            if (c->peer.nfds < CONTROL_FDS_MAX)
                c->peer.fds[c->peer.nfds++] = fd;
            else
                close(fd);
        }
    }
}

static bool client_read(struct client *c) {
    char ancillary[CMSG_SPACE(CONTROL_FDS_MAX * sizeof(int))] __attribute__((aligned(sizeof(struct cmsghdr))));
    struct iovec iov = {.iov_base = c->in + c->in_len, .iov_len = CONTROL_LINE_MAX - c->in_len};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = ancillary, .msg_controllen = sizeof(ancillary)};
    ssize_t n = recvmsg(c->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n >= 0)
        take_fds(c, &msg);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n <= 0)
        return false;
    c->in_len += (size_t)n;
    return client_lines(c);
}

static void client_ready(void *ctx, uint32_t events) {
    struct client *c = ctx;
    bool alive = true;
    if (c->out)
        alive = !(events & (EPOLLERR | EPOLLHUP)) && (!(events & EPOLLOUT) || (client_flush(c) && client_lines(c)));
    else
        alive = client_read(c); // also tells of a hang-up
    if (!alive)
        client_drop(c);
}

static struct client *free_slot(struct control_server *s) {
    for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
        if (s->clients[i].fd < 0)
            return &s->clients[i];
    return NULL;
}

static void refuse(int fd) {
    static const char text[] = "{\"ok\":false,\"error\":\"too many clients\",\"code\":-11}\n";
    if (send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        log_debug("refused a client: %d", errno);
    close(fd);
}

static void accept_ready(void *ctx, uint32_t events) {
    struct control_server *s = ctx;
    int fd = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
            return;
        // Level-triggered, it would come back at once for as long as there is no descriptor.
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        log_warn("control socket: %s", strerror(errno));
        event_modify(s->src, 0);
        event_timer_arm(&s->retry, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec + ACCEPT_PAUSE_NS);
        return;
    }
    struct client *c = free_slot(s);
    char *in = c ? malloc(CONTROL_LINE_MAX) : NULL;
    if (!in || event_add(s->loop, fd, EPOLLIN, client_ready, c, &c->src) != 0) {
        free(in);
        refuse(fd);
        return;
    }
    c->fd = fd;
    c->in = in;
}

static void accept_again(void *ctx) {
    event_modify(((struct control_server *)ctx)->src, EPOLLIN);
}

static int listen_at(const struct instance *inst, struct error *err) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_set(err, -errno, "control socket");
    mode_t mask = umask(0177); // the directory's mode 0700 keeps others out as well
    int ret = bind(fd, (const struct sockaddr *)&inst->addr, sizeof(inst->addr));
    int saved = errno;
    umask(mask);
    if (ret == 0 && listen(fd, CONTROL_CLIENTS_MAX) == 0)
        return fd;
    if (ret == 0)
        saved = errno;
    close(fd);
    return error_set(err, -saved, "control socket '%s'", inst->addr.sun_path);
}

int control_server_create(struct event_loop *loop, const struct instance *inst, const struct control_target *target,
                          struct control_server **server, struct error *err) {
    struct control_server *s = calloc(1, sizeof(*s));
    if (!s)
        return error_set(err, -ENOMEM, "control socket");
    s->loop = loop;
    s->target = target;
    for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
        s->clients[i] = (struct client){.server = s, .fd = -1};
    event_timer_init(&s->retry, loop, accept_again, s);
    int ret = s->listener = listen_at(inst, err);
    if (ret >= 0) {
        ret = event_add(loop, s->listener, EPOLLIN, accept_ready, s, &s->src);
        if (ret) {
            error_set(err, ret, "watch control socket");
            close(s->listener);
        }
    }
    if (ret < 0) {
        free(s);
        return ret;
    }
    *server = s;
    return 0;
}

void control_server_destroy(struct control_server *s) {
    if (!s)
        return;
    for (unsigned i = 0; i < CONTROL_CLIENTS_MAX; i++)
        if (s->clients[i].fd >= 0)
            client_drop(&s->clients[i]);
    event_timer_cancel(&s->retry);
    event_remove(s->src);
    close(s->listener);
    free(s);
}
