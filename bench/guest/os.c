// SPDX-License-Identifier: Apache-2.0
// What programs ask of the kernel all day: the shortest system call, time, pipes within and between processes, files.
#include "bench.h"
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t null_call(uint64_t work) {
    uint64_t same = 0;
    pid_t pid = getpid();
    for (uint64_t i = 0; i < work; i++)
        same += syscall(SYS_getpid) == pid;
    return same;
}

static uint64_t clock_reads(uint64_t work) {
    struct timespec last = {0}, now;
    uint64_t ordered = 0;
    for (uint64_t i = 0; i < work; i++) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        ordered += now.tv_sec > last.tv_sec || (now.tv_sec == last.tv_sec && now.tv_nsec >= last.tv_nsec);
        last = now;
    }
    return ordered;
}

static uint64_t pipe_self(uint64_t work) {
    int fd[2];
    char buf[64] = "pipe";
    uint64_t moved = 0;
    bench_need(!pipe(fd), "pipe");
    for (uint64_t i = 0; i < work; i++) {
        buf[i % 64] ^= (char)i;
        moved += (uint64_t)write(fd[1], buf, sizeof(buf));
        moved += (uint64_t)read(fd[0], buf, sizeof(buf));
    }
    close(fd[0]), close(fd[1]);
    return bench_mix(moved, (unsigned char)buf[5]);
}

// A byte goes to a child and comes back: two context switches and four system calls a turn on one CPU.
static uint64_t ping_pong(uint64_t work) {
    int there[2], back[2];
    unsigned char c = 1;
    uint64_t sum = 0;
    bench_need(!pipe(there) && !pipe(back), "pipe");
    pid_t child = fork();
    bench_need(child >= 0, "fork");
    if (!child) {
        close(there[1]);
        while (read(there[0], &c, 1) == 1) {
            c = (unsigned char)(c * 5 + 1);
            bench_need(write(back[1], &c, 1) == 1, "write to pipe");
        }
        _exit(0);
    }
    for (uint64_t i = 0; i < work; i++) {
        c ^= (unsigned char)i;
        bench_need(write(there[1], &c, 1) == 1 && read(back[0], &c, 1) == 1, "turn of the pipe");
        sum += c;
    }
    close(there[1]);
    waitpid(child, NULL, 0);
    return sum;
}

// Three processes that do nothing but give way, each with some of its own memory touched in between.
static uint64_t switches(uint64_t work) {
    enum { PROCESSES = 3 };
    static unsigned char own[8][4096];
    pid_t child[PROCESSES];
    uint64_t sum = 0;
    for (unsigned p = 0; p < PROCESSES; p++) {
        child[p] = fork();
        bench_need(child[p] >= 0, "fork");
        if (child[p])
            continue;
        for (uint64_t i = 0; i < work; i++) {
            own[i % 8][i % 4096] += (unsigned char)p + 1;
            sched_yield();
        }
        _exit(own[0][0] ^ own[3][8 * 5 + 3]);
    }
    for (unsigned p = 0; p < PROCESSES; p++) {
        int status = 0;
        waitpid(child[p], &status, 0);
        sum = bench_mix(sum, (uint64_t)WEXITSTATUS(status));
    }
    return sum;
}

static uint64_t file_create(uint64_t work) {
    char name[32], buf[512];
    uint64_t sum = 0;
    bench_fill_text(buf, sizeof(buf), 2);
    for (uint64_t i = 0; i < work; i++) {
        snprintf(name, sizeof(name), "bench-file-%llu", (unsigned long long)i % 64);
        int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0600);
        bench_need(fd >= 0, name);
        sum += (uint64_t)write(fd, buf, 1 + i % sizeof(buf));
        close(fd);
        struct stat st;
        bench_need(!stat(name, &st) && !unlink(name), name);
        sum += (uint64_t)st.st_size;
    }
    return sum;
}

static uint64_t file_read(uint64_t work) {
    static char buf[4096];
    uint64_t sum = 0;
    int fd = open("bench-read", O_CREAT | O_TRUNC | O_RDWR, 0600);
    bench_need(fd >= 0, "bench-read");
    for (unsigned i = 0; i < 256; i++) {
        bench_fill_text(buf, sizeof(buf), i + 1);
        bench_need(write(fd, buf, sizeof(buf)) == sizeof(buf), "write");
    }
    for (uint64_t i = 0; i < work; i++) {
        sum += (uint64_t)pread(fd, buf, sizeof(buf), (off_t)(i * 7 % 256 * 4096));
        sum = bench_mix(sum, (unsigned char)buf[i % 4096]);
    }
    close(fd);
    unlink("bench-read");
    return sum;
}

const struct bench_case bench_os[] = {
    {"null-call", null_call}, {"clock", clock_reads},       {"pipe", pipe_self},      {"ping-pong", ping_pong},
    {"switch", switches},     {"file-create", file_create}, {"file-read", file_read}, {0},
};
