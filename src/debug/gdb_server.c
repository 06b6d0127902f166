// SPDX-License-Identifier: Apache-2.0
// gdb's socket on the event loop. What a client can hold is bounded: while an answer has not left, nothing is read, and
// the buffer takes what the session may say to one packet. All state is the loop thread's.
#define LOG_UNIT "gdb"
#include "debug/gdb_server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/listen.h"
#include "core/types.h"
#include "debug/gdb.h"
#include "util/log.h"

#define OUT_MAX (2 * GDB_FRAME_MAX + 64) // a reply, a stop on its heels, acknowledgements

struct gdb_server {
    struct event_loop *loop;
    struct gdb_session *session; // owned
    char *path;                  // owned; NULL: TCP
    int listener;
    struct event_source *listen_src; // NULL while a client is there
    int client;                      // -1: none
    struct event_source *client_src;
    bool closing; // once what was sent has left
    size_t in_pos, in_len, out_pos, out_len;
    uint8_t in[4096];
    char out[OUT_MAX];
};

static void accept_ready(void *ctx, uint32_t events);

static void listen_again(struct gdb_server *g) {
    if (event_add(g->loop, g->listener, EPOLLIN, accept_ready, g, &g->listen_src))
        log_warn("no more debuggers are taken");
}

static void close_client(struct gdb_server *g) {
    event_remove(g->client_src);
    g->client_src = NULL;
    close(g->client);
    g->client = -1;
}

static void drop_client(struct gdb_server *g) {
    close_client(g);
    log_info("the debugger has left");
    gdb_session_end(g->session);
    listen_again(g);
}

// ---- bytes ----

// False where the client is gone.
static bool flush(struct gdb_server *g) {
    while (g->out_pos < g->out_len) {
        ssize_t n = send(g->client, g->out + g->out_pos, g->out_len - g->out_pos, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0)
            return false;
        g->out_pos += (size_t)n;
    }
    if (g->out_pos == g->out_len)
        g->out_pos = g->out_len = 0;
    return true;
}

static void session_send(void *ctx, const char *bytes, size_t len) {
    struct gdb_server *g = ctx;
    if (g->client < 0)
        return;
    if (len > sizeof(g->out) - g->out_len) { // it has asked for more than it reads: a client that is none
        g->closing = true;
        return;
    }
    memcpy(g->out + g->out_len, bytes, len);
    g->out_len += len;
    if (!flush(g))
        g->closing = true;
    event_modify(g->client_src, g->out_len ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void session_close(void *ctx) {
    ((struct gdb_server *)ctx)->closing = true;
}

// Hands out what was read, as long as the answers leave.
static void work(struct gdb_server *g) {
    while (g->in_pos < g->in_len && !g->out_len && !g->closing)
        gdb_session_receive(g->session, g->in[g->in_pos++]);
}

// False where the client is gone.
static bool receive(struct gdb_server *g) {
    ssize_t n = recv(g->client, g->in, sizeof(g->in), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n <= 0)
        return false;
    g->in_pos = 0;
    g->in_len = (size_t)n;
    work(g);
    return true;
}

static void client_ready(void *ctx, uint32_t events) {
    struct gdb_server *g = ctx;
    bool alive = true;
    if (g->out_len)
        alive = !(events & (EPOLLERR | EPOLLHUP)) && flush(g);
    if (alive)
        work(g);
    if (alive && !g->closing && g->in_pos == g->in_len && !g->out_len)
        alive = receive(g);
    if (!alive || (g->closing && !g->out_len)) {
        drop_client(g);
        return;
    }
    event_modify(g->client_src, g->out_len ? EPOLLOUT : EPOLLIN);
}

static void accept_ready(void *ctx, uint32_t events) {
    struct gdb_server *g = ctx;
    int fd = accept4(g->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (event_add(g->loop, fd, EPOLLIN, client_ready, g, &g->client_src)) {
        close(fd);
        return;
    }
    event_remove(g->listen_src);
    g->listen_src = NULL;
    g->client = fd;
    g->closing = false;
    g->in_pos = g->in_len = g->out_pos = g->out_len = 0;
    log_info("a debugger has come");
    gdb_session_begin(g->session);
}

// ---- life ----

static int open_listener(struct gdb_server *g, const struct gdb_options *opt, struct error *err) {
    int ret = opt->path ? listen_unix(opt->path, "gdb socket", 1, &g->listener, err)
                        : listen_loopback(opt->port, "gdb socket", 1, &g->listener, err);
    if (ret || !opt->path)
        return ret;
    g->path = strdup(opt->path);
    if (!g->path)
        unlink(opt->path);
    return g->path ? 0 : error_set(err, -ENOMEM, "gdb socket");
}

int gdb_server_create(struct machine *m, const struct gdb_options *opt, struct gdb_server **server, struct error *err) {
    struct gdb_server *g = calloc(1, sizeof(*g));
    if (!g)
        return error_set(err, -ENOMEM, "gdb socket");
    g->loop = m->loop;
    g->listener = g->client = -1;
    struct gdb_io io = {.send = session_send, .close = session_close, .ctx = g};
    int ret = gdb_session_create(m, &io, &g->session, err);
    if (ret == 0)
        ret = open_listener(g, opt, err);
    if (ret == 0 && (ret = event_add(g->loop, g->listener, EPOLLIN, accept_ready, g, &g->listen_src)))
        error_set(err, ret, "watch the gdb socket");
    if (ret) {
        gdb_server_destroy(g);
        return ret;
    }
    if (opt->wait)
        gdb_session_stop(g->session);
    *server = g;
    return 0;
}

void gdb_server_exited(struct gdb_server *g, int code) {
    if (g && g->client >= 0)
        gdb_session_exited(g->session, code);
}

void gdb_server_destroy(struct gdb_server *g) {
    if (!g)
        return;
    if (g->client >= 0)
        close_client(g);
    event_remove(g->listen_src);
    if (g->listener >= 0)
        close(g->listener);
    if (g->path)
        unlink(g->path);
    gdb_session_destroy(g->session);
    free(g->path);
    free(g);
}
