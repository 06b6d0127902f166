// SPDX-License-Identifier: Apache-2.0
// The console on a listening unix socket, one client at a time; the next one waits in the backlog.
// `lock` guards client, blocked and their event sources' interest, because guest output comes on vCPU threads;
// sources are added and removed on the loop thread only. A client that does not read holds the guest's UART off;
// one that goes away never disturbs the VM.
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOG_UNIT "char"
#include "backend/char_host.h"
#include "backend/listen.h"
#include "core/types.h"
#include "util/log.h"

struct char_unix {
    struct char_host host;
    struct event_loop *loop;
    char *path;
    int listener;
    struct event_source *listen_src; // NULL while a client is there
    pthread_mutex_t lock;
    int client;   // -1: none
    bool blocked; // output was refused: the device waits for chardev_writable
    bool full;    // input was refused: the client is not read
    struct event_source *client_src;
    atomic_bool posted;
    uint8_t buf[1024];
    size_t pos, len; // input that the device has not taken yet; loop thread
};

static void unix_listen(struct char_unix *u);

// The events wanted from the client now. Under lock.
static uint32_t interest(const struct char_unix *u) {
    return (u->full ? 0 : EPOLLIN) | (u->blocked ? EPOLLOUT : 0);
}

// Stops watching the client; its source dies outside the lock, but no vCPU sees it any more.
static void unwatch_client(struct char_unix *u) {
    pthread_mutex_lock(&u->lock);
    struct event_source *src = u->client_src;
    u->client_src = NULL;
    bool tell = u->blocked;
    u->blocked = false;
    pthread_mutex_unlock(&u->lock);
    if (src)
        event_remove(src);
    if (tell)
        chardev_writable(&u->host.dev);
}

static void drop_client(struct char_unix *u) {
    unwatch_client(u);
    pthread_mutex_lock(&u->lock);
    close(u->client);
    u->client = -1;
    u->full = false;
    pthread_mutex_unlock(&u->lock);
    u->pos = u->len = 0;
}

// Offers what was read to the device. False where it did not take all.
static bool offer(struct char_unix *u) {
    u->pos += chardev_receive(&u->host.dev, u->buf + u->pos, u->len - u->pos);
    bool full = u->pos < u->len;
    pthread_mutex_lock(&u->lock);
    if (full != u->full) {
        u->full = full;
        if (u->client_src)
            event_modify(u->client_src, interest(u));
    }
    pthread_mutex_unlock(&u->lock);
    return !full;
}

// Reads once. False where the client has sent everything it ever will.
static bool client_read(struct char_unix *u) {
    ssize_t n = recv(u->client, u->buf, sizeof(u->buf), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n <= 0)
        return false;
    u->pos = 0;
    u->len = (size_t)n;
    offer(u);
    return true;
}

// The client has hung up: what it sent before still goes to the guest, then the next client's turn comes.
static void client_finish(struct char_unix *u) {
    unwatch_client(u);
    while (u->pos == u->len && client_read(u))
        ;
    if (u->pos < u->len)
        return; // input_resume goes on
    drop_client(u);
    unix_listen(u);
}

static void client_ready(void *ctx, uint32_t events) {
    struct char_unix *u = ctx;
    if (events & EPOLLOUT) {
        pthread_mutex_lock(&u->lock);
        u->blocked = false;
        event_modify(u->client_src, interest(u));
        pthread_mutex_unlock(&u->lock);
        chardev_writable(&u->host.dev);
    }
    // A hang-up is reported even where nothing is asked for, so the source must go.
    if (events & (EPOLLERR | EPOLLHUP) || (events & EPOLLIN && u->pos == u->len && !client_read(u)))
        client_finish(u);
}

static void client_accept(void *ctx, uint32_t events) {
    struct char_unix *u = ctx;
    int fd = accept4(u->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    pthread_mutex_lock(&u->lock);
    int ret = event_add(u->loop, fd, EPOLLIN, client_ready, u, &u->client_src);
    if (ret == 0)
        u->client = fd;
    pthread_mutex_unlock(&u->lock);
    if (ret) {
        close(fd);
        return;
    }
    event_remove(u->listen_src);
    u->listen_src = NULL;
}

static void unix_listen(struct char_unix *u) {
    if (event_add(u->loop, u->listener, EPOLLIN, client_accept, u, &u->listen_src) != 0)
        log_warn("serial socket '%s' takes no more clients", u->path);
}

static void input_resume(void *ctx) {
    struct char_unix *u = ctx;
    atomic_store(&u->posted, false);
    if (u->client >= 0 && u->pos < u->len && offer(u) && !u->client_src)
        client_finish(u);
}

static void unix_rx_ready(void *ctx) {
    struct char_unix *u = ctx;
    if (!atomic_exchange(&u->posted, true) && event_post(u->loop, input_resume, u) != 0)
        atomic_store(&u->posted, false);
}

static size_t unix_write(void *ctx, const uint8_t *buf, size_t n) {
    struct char_unix *u = ctx;
    pthread_mutex_lock(&u->lock);
    ssize_t done = (ssize_t)n;
    if (u->client_src) {
        done = send(u->client, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (done < 0 && (errno == EAGAIN || errno == EINTR))
            done = 0;
        else if (done < 0)
            done = (ssize_t)n; // the client is going away; the loop will see it
        if ((size_t)done < n && !u->blocked) {
            u->blocked = true;
            event_modify(u->client_src, interest(u));
        }
    }
    pthread_mutex_unlock(&u->lock);
    return (size_t)done;
}

static void unix_close(struct char_host *h) {
    struct char_unix *u = CONTAINER_OF(h, struct char_unix, host);
    if (u->client >= 0)
        drop_client(u);
    if (u->listen_src)
        event_remove(u->listen_src);
    u->listen_src = NULL;
    if (u->listener >= 0) {
        close(u->listener);
        unlink(u->path);
    }
    u->listener = -1;
}

static void unix_destroy(struct char_host *h) {
    struct char_unix *u = CONTAINER_OF(h, struct char_unix, host);
    if (u->listener >= 0)
        close(u->listener);
    pthread_mutex_destroy(&u->lock);
    free(u->path);
    free(u);
}

static const struct char_host_ops unix_ops = {.close = unix_close, .destroy = unix_destroy};

int char_unix_open(struct event_loop *loop, const char *path, struct char_host **h, struct error *err) {
    struct char_unix *u = calloc(1, sizeof(*u));
    char *copy = strdup(path);
    if (!u || !copy) {
        free(u);
        free(copy);
        return error_set(err, -ENOMEM, "serial socket '%s'", path);
    }
    *u = (struct char_unix){.host = {.ops = &unix_ops}, .loop = loop, .path = copy, .listener = -1, .client = -1};
    u->host.dev = (struct chardev){.write = unix_write, .rx_ready = unix_rx_ready, .ctx = u};
    pthread_mutex_init(&u->lock, NULL);
    int ret = listen_unix(path, "serial socket", 1, &u->listener, err);
    if (ret == 0) {
        ret = event_add(loop, u->listener, EPOLLIN, client_accept, u, &u->listen_src);
        if (ret)
            error_set(err, ret, "watch serial socket '%s'", path);
    }
    if (ret) {
        if (u->listener >= 0)
            unlink(path);
        unix_destroy(&u->host);
        return ret;
    }
    *h = &u->host;
    return 0;
}
