// SPDX-License-Identifier: Apache-2.0
// Missing pages by userfaultfd(2); see the header.
//
// Invariants: mem->lazy_fd is set once, before the seal. mem->lazy is true exactly while RAM is registered: it is set
// before any other thread looks at guest memory, and cleared once, behind the last page, on whatever thread that is.
// RAM is then a shared mapping of a memfd, for which the kernel calls a page missing that the file has a hole for.
#define LOG_UNIT "mem"
#include "core/mem_lazy.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/mem_private.h"
#include "util/log.h"

// ---- the descriptor ----

static int open_device(int flags) {
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (device < 0)
        return -errno;
    int fd = ioctl(device, USERFAULTFD_IOC_NEW, flags), ret = fd < 0 ? -errno : fd;
    close(device);
    return ret;
}

static int open_call(int flags) {
    int fd = (int)syscall(SYS_userfaultfd, flags);
    return fd < 0 ? -errno : fd;
}

// The better kind first: by privilege, then by the permissions of the device, then what anybody may have.
static int open_fd(bool kernel) {
    const int flags = O_CLOEXEC | O_NONBLOCK;
    int first = open_call(flags), fd = first;
    if (fd < 0)
        fd = open_device(flags);
    if (fd < 0 && !kernel)
        fd = open_call(flags | UFFD_USER_MODE_ONLY);
    return fd < 0 ? first : fd; // the first refusal says most
}

static int not_permitted(bool kernel, int ret, struct error *err) {
    if (kernel)
        return error_set(err, ret,
                         "userfaultfd for faults of the kernel, which this engine needs (--engine xlate does not): "
                         "allow the user /dev/userfaultfd, or set vm.unprivileged_userfaultfd=1");
    return error_set(err, ret,
                     "userfaultfd is forbidden here: allow the user /dev/userfaultfd, or the container the system call "
                     "userfaultfd");
}

int mem_lazy_open(struct mem *mem, bool kernel, struct error *err) {
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM};
    int fd = open_fd(kernel);
    if (fd < 0)
        return not_permitted(kernel, fd, err);
    if (ioctl(fd, UFFDIO_API, &api) < 0) {
        int ret = -errno;
        close(fd);
        return error_set(err, ret, "this host's userfaultfd does not know shared memory");
    }
    mem->lazy_fd = fd;
    return 0;
}

int mem_lazy_fd(const struct mem *mem) {
    return mem->lazy_fd;
}

// ---- which memory ----

static int for_each(struct mem *mem, bool rom, int (*fn)(struct mem *mem, const struct mem_slot *s)) {
    for (unsigned i = 0; i < mem->nslots; i++) {
        int ret = mem->slots[i].rom && !rom ? 0 : fn(mem, &mem->slots[i]);
        if (ret)
            return ret;
    }
    return 0;
}

static int register_slot(struct mem *mem, const struct mem_slot *s) {
    struct uffdio_register reg = {.range = {.start = (uintptr_t)s->hva, .len = s->size},
                                  .mode = UFFDIO_REGISTER_MODE_MISSING};
    return ioctl(mem->lazy_fd, UFFDIO_REGISTER, &reg) < 0 ? -errno : 0;
}

static int unregister_slot(struct mem *mem, const struct mem_slot *s) {
    struct uffdio_range range = {.start = (uintptr_t)s->hva, .len = s->size};
    if (ioctl(mem->lazy_fd, UFFDIO_UNREGISTER, &range) < 0)
        log_warn("userfaultfd does not let '%s' go: %s", s->name, strerror(errno));
    return 0;
}

static int empty_slot(struct mem *mem, const struct mem_slot *s) {
    struct mem_backing *b = &mem->backing[s - mem->slots];
    memset(b->own, 0, mem_bitmap_words(s) * sizeof(*b->own));
    memset(b->since, 0, mem_bitmap_words(s) * sizeof(*b->since));
    memset(s->dirty, 0, mem_bitmap_words(s) * sizeof(*s->dirty));
    return mem_lazy_drop(mem, s, 0, s->size >> PAGE_SHIFT);
}

static int begin(struct mem *mem, bool rom, struct error *err) {
    int ret = for_each(mem, rom, register_slot);
    if (ret)
        return error_set(err, ret, "userfaultfd does not take guest memory");
    __atomic_store_n(&mem->lazy, true, __ATOMIC_RELEASE);
    return 0;
}

int mem_lazy_begin(struct mem *mem, struct error *err) {
    return begin(mem, true, err);
}

int mem_lazy_begin_empty(struct mem *mem, struct error *err) {
    int ret = for_each(mem, false, empty_slot);
    return ret ? error_set(err, ret, "empty guest memory") : begin(mem, false, err);
}

int mem_lazy_drop(struct mem *mem, const struct mem_slot *slot, uint64_t page, uint64_t count) {
    return fallocate(slot->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(page << PAGE_SHIFT),
                     (off_t)(count << PAGE_SHIFT)) < 0
               ? -errno
               : 0;
}

void mem_lazy_end(struct mem *mem) {
    if (__atomic_exchange_n(&mem->lazy, false, __ATOMIC_ACQ_REL))
        for_each(mem, true, unregister_slot);
}

bool mem_lazy(const struct mem *mem) {
    return __atomic_load_n(&mem->lazy, __ATOMIC_ACQUIRE);
}

// ---- faults and pages ----

static const struct mem_slot *slot_of_hva(const struct mem *mem, uint64_t hva) {
    for (unsigned i = 0; i < mem->nslots; i++)
        if (hva - (uintptr_t)mem->slots[i].hva < mem->slots[i].size)
            return &mem->slots[i];
    return NULL;
}

int mem_lazy_fault(struct mem *mem, const struct mem_slot **slot, uint64_t *page) {
    struct uffd_msg msg;
    for (;;) {
        ssize_t n = read(mem->lazy_fd, &msg, sizeof(msg));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? 0 : -errno;
        if (n != sizeof(msg))
            return -EIO;
        *slot = msg.event == UFFD_EVENT_PAGEFAULT ? slot_of_hva(mem, msg.arg.pagefault.address) : NULL;
        if (!*slot)
            continue;
        *page = (msg.arg.pagefault.address - (uintptr_t)(*slot)->hva) >> PAGE_SHIFT;
        return 1;
    }
}

static void wake(struct mem *mem, uintptr_t hva, uint64_t len) {
    struct uffdio_range range = {.start = hva, .len = len};
    if (ioctl(mem->lazy_fd, UFFDIO_WAKE, &range) < 0)
        log_debug("userfaultfd: wake: %s", strerror(errno));
}

// EAGAIN: the kernel is changing the mappings and wants to be asked again, from where it stopped.
int mem_lazy_put(struct mem *mem, const struct mem_slot *slot, uint64_t page, const void *data) {
    struct uffdio_copy copy = {
        .dst = (uintptr_t)slot->hva + (page << PAGE_SHIFT), .src = (uintptr_t)data, .len = PAGE_SIZE};
    while (ioctl(mem->lazy_fd, UFFDIO_COPY, &copy) < 0) {
        if (errno == EEXIST) {
            wake(mem, copy.dst, PAGE_SIZE);
            return 0;
        }
        if (errno != EAGAIN)
            return -errno;
    }
    return 0;
}

static int zero_page(struct mem *mem, uintptr_t hva) {
    struct uffdio_zeropage zero = {.range = {.start = hva, .len = PAGE_SIZE}};
    while (ioctl(mem->lazy_fd, UFFDIO_ZEROPAGE, &zero) < 0) {
        if (errno == EEXIST) {
            wake(mem, hva, PAGE_SIZE);
            return 0;
        }
        if (errno != EAGAIN)
            return -errno;
    }
    return 0;
}

int mem_lazy_zero(struct mem *mem, const struct mem_slot *slot, uint64_t page, uint64_t count) {
    int ret = 0;
    for (uint64_t i = 0; ret == 0 && i < count; i++)
        ret = zero_page(mem, (uintptr_t)slot->hva + ((page + i) << PAGE_SHIFT));
    return ret;
}
