// SPDX-License-Identifier: Apache-2.0
// A handler of missing pages outside of this process; see the header. Everything is opened before the seal; the watch
// calls poll(2) only.
#include "state/page_handler.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "core/mem_lazy.h"
#include "state/ram.h"
#include "util/thread.h"

#define ANSWER_S 10 // for the first page

struct page_handler {
    int socket, pidfd; // pidfd: of the process that listened, -1 where the host does not tell
    int quit;          // eventfd
    pthread_t thread;
    bool watched;
    void (*lost)(void *ctx, const char *why);
    void *ctx;
};

// ---- the message ----

static int add_region(json_t *list, const struct mem_slot *slot, uint64_t offset) {
    return json_array_append_new(list, json_pack("{s:I, s:I, s:I, s:I, s:I}", "base_host_virt_addr",
                                                 (json_int_t)(uintptr_t)slot->hva, "size", (json_int_t)slot->size,
                                                 "offset", (json_int_t)offset, "page_size", (json_int_t)PAGE_SIZE,
                                                 "page_size_kib", (json_int_t)PAGE_SIZE));
}

// A string to free; NULL: out of memory.
static char *describe_regions(const struct sections *sections, const struct mem *mem) {
    unsigned nslots, instance = 0;
    const struct mem_slot *slots = mem_slots(mem, &nslots);
    json_t *list = json_array();
    struct ram_section ram;
    struct error ignored;
    int ret = list ? 0 : -ENOMEM;
    for (unsigned i = 0; ret == 0 && i < nslots; i++) {
        if (slots[i].rom)
            continue;
        ret = ram_section_get(sections, instance++, &ram, &ignored);
        if (ret == 0)
            ret = add_region(list, &slots[i], ram.offset);
    }
    char *text = ret ? NULL : json_dumps(list, JSON_COMPACT);
    json_decref(list);
    return text;
}

static int send_fd(int socket, int fd, const char *text) {
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec iov = {.iov_base = (char *)text, .iov_len = strlen(text)};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof(control.buf)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof(int));
    ssize_t n = sendmsg(socket, &msg, MSG_NOSIGNAL);
    return n < 0 ? -errno : (size_t)n == iov.iov_len ? 0 : -EIO;
}

// ---- the connection ----

static int pidfd_of_peer(int socket) {
    struct ucred peer;
    socklen_t len = sizeof(peer);
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.pid <= 0)
        return -1;
    return (int)syscall(SYS_pidfd_open, peer.pid, 0);
}

static int connect_to(struct page_handler *h, const char *path, struct error *err) {
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (!*path || strlen(path) >= sizeof(addr.sun_path))
        return error_set(err, -EINVAL, "--uffd '%.80s': not the path of a socket", path);
    strcpy(addr.sun_path, path);
    h->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    h->quit = eventfd(0, EFD_CLOEXEC);
    if (h->socket < 0 || h->quit < 0)
        return error_set(err, -errno, "--uffd");
    if (connect(h->socket, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        return error_set(err, -errno, "--uffd: no handler at '%s'", path);
    h->pidfd = pidfd_of_peer(h->socket);
    return 0;
}

// ---- does it answer? ----

struct first_page {
    struct mem *mem;
    uint8_t byte;
};

static void *touch(void *arg) {
    struct first_page *f = arg;
    unsigned count;
    mem_read(f->mem, GPA(mem_slots(f->mem, &count)[0].gpa), &f->byte, 1);
    return NULL;
}

// Later the loop thread may be the one that waits, and nobody could tell why nothing happens.
static int check_answer(struct mem *mem, const char *path, struct error *err) {
    struct first_page first = {.mem = mem};
    struct timespec until;
    pthread_t thread;
    int ret = pthread_create(&thread, NULL, touch, &first);
    if (ret)
        return error_set(err, -ret, "--uffd");
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ANSWER_S;
    if (pthread_clockjoin_np(thread, NULL, CLOCK_MONOTONIC, &until) == 0)
        return 0;
    mem_lazy_end(mem); // lets it go
    pthread_join(thread, NULL);
    return error_set(err, -ETIMEDOUT, "--uffd: the handler at '%s' serves no page", path);
}

int page_handler_connect(const char *path, const struct sections *sections, struct mem *mem, bool kernel,
                         struct page_handler **out, struct error *err) {
    struct page_handler *h = calloc(1, sizeof(*h));
    if (!h)
        return error_set(err, -ENOMEM, "--uffd");
    *h = (struct page_handler){.socket = -1, .pidfd = -1, .quit = -1};
    char *text = describe_regions(sections, mem);
    int ret = text ? connect_to(h, path, err) : error_set(err, -ENOMEM, "--uffd");
    if (ret == 0 && (ret = mem_lazy_open(mem, kernel, err)))
        error_prefix(err, "--uffd");
    if (ret == 0)
        ret = mem_lazy_begin_empty(mem, err);
    if (ret == 0 && (ret = send_fd(h->socket, mem_lazy_fd(mem), text)))
        error_set(err, ret, "--uffd: the handler at '%s'", path);
    free(text);
    if (ret == 0)
        ret = check_answer(mem, path, err);
    if (ret)
        page_handler_destroy(h);
    else
        *out = h;
    return ret;
}

// ---- the watch ----

// Until fd reports one of `events`: true; false where the watch is to end.
static bool wait_for(const struct page_handler *h, int fd, short events) {
    struct pollfd fds[] = {{.fd = h->quit, .events = POLLIN}, {.fd = fd, .events = events}};
    while (fds[0].revents == 0 && fds[1].revents == 0)
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return false;
    return fds[0].revents == 0;
}

static void *watch(void *arg) {
    struct page_handler *h = arg;
    pthread_setname_np(pthread_self(), "page-handler");
    if (wait_for(h, h->socket, POLLRDHUP) && (h->pidfd < 0 || wait_for(h, h->pidfd, POLLIN)))
        h->lost(h->ctx, "the handler of its missing pages (--uffd) has gone");
    return NULL;
}

int page_handler_watch(struct page_handler *h, void (*lost)(void *ctx, const char *why), void *ctx, struct error *err) {
    h->lost = lost;
    h->ctx = ctx;
    int ret = thread_start(&h->thread, watch, h);
    h->watched = ret == 0;
    return ret ? error_set(err, ret, "start the watch over the handler of missing pages") : 0;
}

void page_handler_destroy(struct page_handler *h) {
    const uint64_t one = 1;
    if (!h)
        return;
    if (h->watched && write(h->quit, &one, sizeof(one)) == sizeof(one))
        pthread_join(h->thread, NULL);
    const int fds[] = {h->socket, h->pidfd, h->quit};
    for (unsigned i = 0; i < ARRAY_LEN(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    free(h);
}
