// SPDX-License-Identifier: Apache-2.0
// Runs programs for the benchmark's driver, which talks to it over standard input and output: the serial console where
// it is the guest's first process, pipes where the driver runs it on the host. One line asks for one program:
//
//   run PROGRAM ARGUMENT...     (words divided by single blanks)      quit
//
// and these lines answer: `@ready` once; `@begin`, after which it waits for one byte, so that the driver can read its
// clocks at a moment when the guest is idle; `@stop` the moment the program has ended; and
// `@end STATUS WALL_NS CPU_NS HASH BYTES TEXT`: the exit code (or 256 + signal), elapsed and processor time by the
// guest's own clocks, a hash and the length of all that the program wrote, and the start of it with blanks as `_`.
//
// What a program writes goes to a file in memory, so that no serial port is driven while the time is taken.
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 1024, WORDS = 48, TEXT = 120 };

static void say(const char *text) {
    for (size_t len = strlen(text); len;) {
        ssize_t n = write(1, text, len);
        if (n < 0 && errno != EINTR)
            exit(1);
        text += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
}

static int read_byte(void) {
    unsigned char c;
    ssize_t n;
    do
        n = read(0, &c, 1);
    while (n < 0 && errno == EINTR);
    return n == 1 ? c : -1;
}

// A line without its end; false at the end of input.
static int read_line(char *line) {
    unsigned len = 0;
    for (;;) {
        int c = read_byte();
        if (c < 0)
            return 0;
        if (c == '\n') {
            line[len] = 0;
            return 1;
        }
        if (len < LINE - 1)
            line[len++] = (char)c;
    }
}

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t children_ns(void) {
    struct rusage u;
    getrusage(RUSAGE_CHILDREN, &u);
    return ((uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
            (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec)) *
           1000;
}

static void exec_words(char **argv, int out) {
    int null = open("/dev/null", O_RDONLY);
    if (null >= 0)
        dup2(null, 0);
    dup2(out, 1);
    dup2(out, 2);
    execv(argv[0], argv);
    dprintf(2, "%s: %s", argv[0], strerror(errno));
    _exit(127);
}

static void report(int status, uint64_t wall, uint64_t cpu, int out) {
    char line[LINE], text[TEXT + 1] = "-", buf[4096];
    uint64_t hash = 0xcbf29ce484222325, total = 0;
    ssize_t n;
    lseek(out, 0, SEEK_SET);
    while ((n = read(out, buf, sizeof(buf))) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            if (total < TEXT)
                text[total] = isgraph((unsigned char)buf[i]) ? buf[i] : '_', text[total + 1] = 0;
            hash = (hash ^ (unsigned char)buf[i]) * 0x100000001b3;
            total++;
        }
    }
    snprintf(line, sizeof(line), "@end %d %llu %llu %016llx %llu %s\n",
             WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status), (unsigned long long)wall,
             (unsigned long long)cpu, (unsigned long long)hash, (unsigned long long)total, text);
    say(line);
}

static void run(char **argv) {
    int out = memfd_create("output", MFD_CLOEXEC), status = 0;
    say("@begin\n");
    if (read_byte() < 0)
        exit(1);
    uint64_t begin = now(), cpu = children_ns();
    pid_t child = fork();
    if (!child)
        exec_words(argv, out);
    while (waitpid(child, &status, 0) != child && errno == EINTR)
        ;
    uint64_t end = now();
    say("@stop\n");
    report(status, end - begin, children_ns() - cpu, out);
    close(out);
}

static unsigned split(char *line, char **words) {
    unsigned n = 0;
    for (char *save, *w = strtok_r(line, " ", &save); w && n < WORDS - 1; w = strtok_r(NULL, " ", &save))
        words[n++] = w;
    words[n] = NULL;
    return n;
}

// What a first process owes its guest: file systems, a console that passes bytes as they are, and silence.
static void become_init(void) {
    mkdir("/proc", 0755), mkdir("/sys", 0755), mkdir("/dev", 0755), mkdir("/tmp", 01777);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    klogctl(8, NULL, 1);
    struct termios t;
    if (!tcgetattr(0, &t)) {
        cfmakeraw(&t);
        tcsetattr(0, TCSANOW, &t);
    }
    setenv("PATH", "/usr/bin:/bin", 1);
    setenv("LC_ALL", "C", 1);
    if (chdir("/bench"))
        say("@error no /bench\n");
}

int main(void) {
    char line[LINE], *words[WORDS];
    int first = getpid() == 1;
    if (first)
        become_init();
    say("@ready\n");
    while (read_line(line)) {
        unsigned n = split(line, words);
        if (n >= 2 && !strcmp(words[0], "run"))
            run(words + 1);
        else if (n && !strcmp(words[0], "quit"))
            break;
    }
    if (first) {
        sync();
        reboot(RB_POWER_OFF);
    }
    return 0;
}
