// SPDX-License-Identifier: Apache-2.0
// An example of a handler for `cicada restore --uffd`, and what its test uses: serves pages of the file `memory` of a
// snapshot to every VM that connects, one page for each fault.
//
//   page_handler SOCKET MEMORY [LIMIT|close]
//
// It ends with the last VM. LIMIT: after so many pages, as if it had crashed. close: it hangs up on each VM at once, as
// handlers for Firecracker may, and goes on serving until it is killed.
//
// It serves what connected VMs ask for and trusts them no more than that: a region outside of the file ends it.
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define VMS_MAX     64
#define REGIONS_MAX 16
#define PAGE        4096u

struct region {
    uint64_t base, size, offset;
};

struct vm {
    int connection, uffd;
    struct region regions[REGIONS_MAX];
    size_t nregions;
};

static const uint8_t *memory;
static uint64_t memory_bytes, served, limit;
static bool hangs_up;

static void fail(const char *what) {
    fprintf(stderr, "page_handler: %s: %s\n", what, strerror(errno));
    exit(1);
}

// ---- a new VM ----

static uint64_t number(const json_t *region, const char *name) {
    const json_t *v = json_object_get(region, name);
    if (!json_is_integer(v) || json_integer_value(v) < 0) {
        fprintf(stderr, "page_handler: no \"%s\" in a region\n", name);
        exit(1);
    }
    return (uint64_t)json_integer_value(v);
}

static void read_regions(struct vm *vm, const char *text, size_t len) {
    json_t *list = json_loadb(text, len, 0, NULL), *one;
    size_t i;
    if (!json_is_array(list) || json_array_size(list) == 0 || json_array_size(list) > REGIONS_MAX) {
        fprintf(stderr, "page_handler: no list of regions: %.*s\n", (int)len, text);
        exit(1);
    }
    json_array_foreach(list, i, one) {
        struct region *r = &vm->regions[vm->nregions++];
        *r = (struct region){number(one, "base_host_virt_addr"), number(one, "size"), number(one, "offset")};
        if (number(one, "page_size") != PAGE || r->size > memory_bytes || r->offset > memory_bytes - r->size) {
            fprintf(stderr, "page_handler: a region does not fit the file\n");
            exit(1);
        }
    }
    json_decref(list);
}

static void greet(struct vm *vm, int listener) {
    static char text[65536];
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {.iov_base = text, .iov_len = sizeof(text)};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof(control.buf)};
    *vm = (struct vm){.connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC), .uffd = -1};
    ssize_t n = vm->connection < 0 ? -1 : recvmsg(vm->connection, &msg, MSG_CMSG_CLOEXEC);
    if (n <= 0)
        fail("receive the regions");
    const struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (!c || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(int)))
        fail("no descriptor came with the regions");
    memcpy(&vm->uffd, CMSG_DATA(c), sizeof(int));
    read_regions(vm, text, (size_t)n);
}

// ---- pages ----

static void serve_page(const struct vm *vm, uint64_t at) {
    for (size_t i = 0; i < vm->nregions; i++) {
        const struct region *r = &vm->regions[i];
        if (at < r->base || at - r->base >= r->size)
            continue;
        uint64_t in = (at - r->base) & ~(uint64_t)(PAGE - 1);
        struct uffdio_copy copy = {.dst = r->base + in, .src = (uintptr_t)memory + r->offset + in, .len = PAGE};
        while (ioctl(vm->uffd, UFFDIO_COPY, &copy) < 0 && errno == EAGAIN) {
        }
        if (++served == limit)
            _exit(3);
        return;
    }
}

// False: the VM has ended.
static bool serve(const struct vm *vm) {
    struct uffd_msg msg;
    ssize_t n = read(vm->uffd, &msg, sizeof(msg));
    if (n == sizeof(msg) && msg.event == UFFD_EVENT_PAGEFAULT)
        serve_page(vm, msg.arg.pagefault.address);
    return n == sizeof(msg) || errno == EAGAIN;
}

// ---- set-up ----

static int listen_at(const char *path) {
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, VMS_MAX) < 0)
        fail(path);
    return fd;
}

static void map_memory(const char *path) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        fail(path);
    memory_bytes = (uint64_t)st.st_size;
    memory = mmap(NULL, memory_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (memory == MAP_FAILED)
        fail(path);
    close(fd);
}

struct vms {
    struct vm vm[VMS_MAX];
    struct pollfd fds[1 + 2 * VMS_MAX]; // the listener; then two for each VM
    unsigned count;
};

static void add(struct vms *v) {
    struct vm *vm = &v->vm[v->count];
    greet(vm, v->fds[0].fd);
    if (hangs_up) {
        close(vm->connection);
        vm->connection = -1;
    }
    v->fds[1 + 2 * v->count] = (struct pollfd){.fd = vm->uffd, .events = POLLIN};
    v->fds[2 + 2 * v->count] = (struct pollfd){.fd = vm->connection, .events = POLLRDHUP}; // open while the VM lives
    v->count++;
}

static void drop(struct vms *v, unsigned i) {
    unsigned last = --v->count;
    close(v->vm[i].uffd);
    if (v->vm[i].connection >= 0)
        close(v->vm[i].connection);
    v->vm[i] = v->vm[last];
    memcpy(&v->fds[1 + 2 * i], &v->fds[1 + 2 * last], 2 * sizeof(v->fds[0]));
}

// False: the last VM has ended.
static bool work(struct vms *v) {
    if (poll(v->fds, 1 + 2 * v->count, -1) < 0)
        fail("poll");
    bool more = v->fds[0].revents && v->count < VMS_MAX;
    for (unsigned i = v->count; i-- > 0;) {
        bool alive = !(v->fds[1 + 2 * i].revents & POLLIN) || serve(&v->vm[i]);
        if (!alive || v->fds[2 + 2 * i].revents)
            drop(v, i);
    }
    bool over = v->count == 0 && !v->fds[0].revents;
    if (more)
        add(v);
    return !over;
}

int main(int argc, char **argv) {
    static struct vms vms;
    if (argc < 3 || argc > 4)
        return fprintf(stderr, "usage: page_handler SOCKET MEMORY [LIMIT|close]\n"), 1;
    hangs_up = argc == 4 && strcmp(argv[3], "close") == 0;
    limit = argc == 4 && !hangs_up ? strtoull(argv[3], NULL, 10) : 0;
    map_memory(argv[2]);
    vms.fds[0] = (struct pollfd){.fd = listen_at(argv[1]), .events = POLLIN};
    while (work(&vms)) {
    }
    printf("%llu pages served\n", (unsigned long long)served);
    return 0;
}
