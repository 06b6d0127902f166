// SPDX-License-Identifier: Apache-2.0
// A client of a VM's control socket, for ps, stop and stats. The VM may be stuck or gone: every wait has an end.
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/io.h"
#include "vmm/control.h"

#define ANSWER_MAX (1u << 20)

int control_client_open(const struct instance *inst, struct control_client *c, struct error *err) {
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return error_set(err, -errno, "control socket");
    if (connect(c->fd, (const struct sockaddr *)&inst->addr, sizeof(inst->addr)) == 0)
        return 0;
    int ret = -errno;
    control_client_close(c);
    return error_set(err, ret, "connect to VM '%s'", inst->name);
}

void control_client_close(struct control_client *c) {
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

static int send_all(int fd, const char *buf, size_t len, int64_t until) {
    while (len) {
        ssize_t n = send(fd, buf, len, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return -errno;
        if (n > 0) {
            buf += n;
            len -= (size_t)n;
        } else {
            int ret = io_wait(fd, POLLOUT, until);
            if (ret)
                return ret;
        }
    }
    return 0;
}

// Reads a line of at most ANSWER_MAX bytes into a string for the caller to free.
static int receive_line(int fd, char **line, int64_t until) {
    size_t len = 0, cap = 0;
    char *buf = NULL;
    int ret;
    while ((ret = io_wait(fd, POLLIN, until)) == 0) {
        if (len == cap) {
            char *grown = cap < ANSWER_MAX ? realloc(buf, cap + 8192) : NULL;
            ret = grown ? 0 : -ENOMEM;
            if (ret)
                break;
            buf = grown;
            cap += 8192;
        }
        ssize_t n = recv(fd, buf + len, cap - len, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        ret = n < 0 ? -errno : n == 0 ? -ECONNRESET : 0;
        if (ret)
            break;
        len += (size_t)n;
        if (buf[len - 1] == '\n') {
            buf[len - 1] = 0;
            *line = buf;
            return 0;
        }
    }
    free(buf);
    return ret;
}

static int unpack_answer(const char *line, json_t **result, struct error *err) {
    json_t *root = json_loads(line, 0, NULL);
    if (!json_is_object(root)) {
        json_decref(root);
        return error_set(err, -EPROTO, "answer of the VM");
    }
    int ret = 0;
    if (json_is_true(json_object_get(root, "ok"))) {
        json_t *got = json_object_get(root, "result");
        *result = got ? json_incref(got) : json_null();
    } else {
        const char *text = json_string_value(json_object_get(root, "error"));
        ret = error_set(err, -EINVAL, "%.300s", text ? text : "the VM refused without a reason");
    }
    json_decref(root);
    return ret;
}

// The first byte of a request, with the descriptors.
static int send_first(int fd, const char *byte, const int *fds, unsigned nfds) {
    char ancillary[CMSG_SPACE(CONTROL_FDS_MAX * sizeof(int))] __attribute__((aligned(sizeof(struct cmsghdr)))) = {0};
    struct iovec iov = {.iov_base = (char *)byte, .iov_len = 1};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = ancillary, .msg_controllen = CMSG_SPACE(nfds * sizeof(int))};
    struct cmsghdr *h = CMSG_FIRSTHDR(&msg);
    *h = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(nfds * sizeof(int))};
    memcpy(CMSG_DATA(h), fds, nfds * sizeof(int));
    return sendmsg(fd, &msg, MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

int control_client_call(struct control_client *c, const json_t *request, int timeout_ms, json_t **result,
                        struct error *err) {
    return control_client_call_fds(c, request, NULL, 0, timeout_ms, result, err);
}

int control_client_call_fds(struct control_client *c, const json_t *request, const int *fds, unsigned nfds,
                            int timeout_ms, json_t **result, struct error *err) {
    int64_t until = io_now_ms() + timeout_ms;
    char *text = json_dumps(request, JSON_COMPACT), *line = NULL;
    if (!text)
        return error_set(err, -ENOMEM, "request");
    bool with = nfds > 0 && nfds <= CONTROL_FDS_MAX;
    int ret = nfds > CONTROL_FDS_MAX ? -E2BIG : with ? send_first(c->fd, text, fds, nfds) : 0;
    if (ret == 0)
        ret = send_all(c->fd, text + with, strlen(text + with), until);
    if (ret == 0)
        ret = send_all(c->fd, "\n", 1, until);
    if (ret == 0)
        ret = receive_line(c->fd, &line, until);
    free(text);
    if (ret)
        return error_set(err, ret, "the VM does not answer");
    ret = unpack_answer(line, result, err);
    free(line);
    return ret;
}

int control_client_wait_end(struct control_client *c, int timeout_ms) {
    int64_t until = io_now_ms() + timeout_ms;
    char buf[256];
    for (;;) {
        int ret = io_wait(c->fd, POLLIN, until);
        if (ret)
            return ret;
        ssize_t n = recv(c->fd, buf, sizeof(buf), 0);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return 0;
    }
}
