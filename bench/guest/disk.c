// SPDX-License-Identifier: Apache-2.0
// Reads and writes of a disk with the kernel's asynchronous interface, around the page cache: sequential in blocks of
// 256 KiB, random in blocks of 4 KiB at depth 1 and 32. usage: bench disk-CASE WORK DISK; work counts requests.
//
// The first half of the disk is only read; writes go to the second half, always the same bytes to the same place, and
// are read back and summed at the end, so that a run leaves nothing behind that the next one could see.
#define _GNU_SOURCE
#include "bench.h"
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DEPTH_MAX = 32, PAGE = 4096 };

struct disk {
    int fd;
    uint64_t half; // bytes in each half
    aio_context_t aio;
    struct slot {
        struct iocb cb;
        unsigned char *buf;
    } slots[DEPTH_MAX];
};

struct plan {
    uint64_t requests;
    unsigned block, depth;
    int write, random;
};

static void disk_open(struct disk *d, const struct plan *p) {
    const char *path = bench_extra(0);
    struct stat st;
    bench_need(path != NULL, "no disk given");
    bench_need(!stat(path, &st), path);
    // A plain file, on the host, goes through the page cache: the guests' disks do as well, on their host side.
    d->fd = open(path, O_RDWR | (S_ISBLK(st.st_mode) ? O_DIRECT : 0));
    bench_need(d->fd >= 0, path);
    d->half = (uint64_t)lseek(d->fd, 0, SEEK_END) / 2;
    bench_need(d->half >= p->block, "a disk that is too small");
    d->aio = 0;
    bench_need(!syscall(SYS_io_setup, DEPTH_MAX, &d->aio), "io_setup");
    for (unsigned i = 0; i < p->depth; i++)
        bench_need(!posix_memalign((void **)&d->slots[i].buf, PAGE, p->block), "memory for the buffers");
}

// What is written at `offset`: depends on nothing else.
static void pattern(unsigned char *buf, uint64_t offset, unsigned len) {
    for (unsigned i = 0; i < len; i += 512) {
        uint64_t value = (offset + i) * 0x9e3779b97f4a7c15;
        memcpy(buf + i, &value, sizeof(value));
    }
}

static uint64_t block_at(const struct disk *d, const struct plan *p, uint64_t number, uint64_t *state) {
    uint64_t blocks = d->half / p->block, block = p->random ? bench_random(state) % blocks : number % blocks;
    return block * p->block + (p->write ? d->half : 0);
}

static void submit(struct disk *d, const struct plan *p, struct slot *s, uint64_t offset) {
    struct iocb *cb = &s->cb;
    memset(cb, 0, sizeof(*cb));
    cb->aio_fildes = (uint32_t)d->fd;
    cb->aio_lio_opcode = p->write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
    cb->aio_buf = (uintptr_t)s->buf;
    cb->aio_nbytes = p->block;
    cb->aio_offset = (int64_t)offset;
    cb->aio_data = (uintptr_t)s;
    if (p->write)
        pattern(s->buf, offset, p->block);
    bench_need(syscall(SYS_io_submit, d->aio, 1, &cb) == 1, "io_submit");
}

// The sum must not depend on the order of completion: plain addition of what each block holds, mixed with its place.
static uint64_t block_sum(const struct slot *s, unsigned len) {
    uint64_t sum = (uint64_t)s->cb.aio_offset;
    for (unsigned i = 0; i < len; i += 512) {
        uint64_t value;
        memcpy(&value, s->buf + i, sizeof(value));
        sum = bench_mix(sum, value);
    }
    return sum;
}

static uint64_t disk_run(const struct plan *p) {
    static struct disk d;
    uint64_t state = 321, sent = 0, done = 0, sum = 0;
    disk_open(&d, p);
    for (; sent < p->depth && sent < p->requests; sent++)
        submit(&d, p, &d.slots[sent], block_at(&d, p, sent, &state));
    while (done < p->requests) {
        struct io_event events[DEPTH_MAX];
        long n = syscall(SYS_io_getevents, d.aio, 1, (long)p->depth, events, NULL);
        bench_need(n > 0, "io_getevents");
        for (long i = 0; i < n; i++, done++) {
            struct slot *s = (struct slot *)(uintptr_t)events[i].data;
            bench_need(events[i].res == (int64_t)p->block, "a request failed");
            sum += block_sum(s, p->block);
            if (sent < p->requests)
                submit(&d, p, s, block_at(&d, p, sent++, &state));
        }
    }
    if (p->write)
        bench_need(!fdatasync(d.fd), "fdatasync");
    syscall(SYS_io_destroy, d.aio);
    close(d.fd);
    return sum;
}

static uint64_t seq_read(uint64_t work) {
    return disk_run(&(struct plan){work, 256 << 10, 4, 0, 0});
}
static uint64_t seq_write(uint64_t work) {
    return disk_run(&(struct plan){work, 256 << 10, 4, 1, 0});
}
static uint64_t read_1(uint64_t work) {
    return disk_run(&(struct plan){work, PAGE, 1, 0, 1});
}
static uint64_t read_32(uint64_t work) {
    return disk_run(&(struct plan){work, PAGE, 32, 0, 1});
}
static uint64_t write_1(uint64_t work) {
    return disk_run(&(struct plan){work, PAGE, 1, 1, 1});
}
static uint64_t write_32(uint64_t work) {
    return disk_run(&(struct plan){work, PAGE, 32, 1, 1});
}

// Reads back what the write cases wrote: every block of the second half holds its pattern or was never written (zero).
static uint64_t verify(uint64_t work) {
    static struct disk d;
    struct plan p = {work, PAGE, 1, 1, 0};
    unsigned char expected[PAGE] = {0};
    uint64_t wrong = 0;
    disk_open(&d, &p);
    for (uint64_t at = 0; at < d.half; at += PAGE) {
        unsigned char *buf = d.slots[0].buf;
        bench_need(pread(d.fd, buf, PAGE, (off_t)(d.half + at)) == PAGE, "read");
        pattern(expected, d.half + at, PAGE);
        uint64_t value, want;
        for (unsigned i = 0; i < PAGE; i += 512) {
            memcpy(&value, buf + i, sizeof(value));
            memcpy(&want, expected + i, sizeof(want));
            wrong += value && value != want;
        }
    }
    return wrong;
}

const struct bench_case bench_disk[] = {
    {"disk-seq-read", seq_read}, {"disk-seq-write", seq_write}, {"disk-read-1", read_1}, {"disk-read-32", read_32},
    {"disk-write-1", write_1},   {"disk-write-32", write_32},   {"disk-verify", verify}, {0},
};
