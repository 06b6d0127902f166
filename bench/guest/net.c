// SPDX-License-Identifier: Apache-2.0
// TCP to a server on the host: bulk both ways, and small requests that wait for their answers.
// usage: bench net-CASE WORK ADDRESS PORT; `bench serve` is the server: it prints its port and serves until its
// standard input ends. Every connection starts with a header that says what the client will do.
#include "bench.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNK = 64 << 10, MESSAGE = 64 };

struct header {
    char mode[8]; // "send", "receive" or "ask", from the client's side
    uint64_t bytes;
};

static void put(int fd, const void *data, size_t len) {
    for (const char *at = data; len;) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        bench_need(n > 0, "send");
        at += n;
        len -= (size_t)n;
    }
}

static int get(int fd, void *data, size_t len) {
    for (char *at = data; len;) {
        ssize_t n = recv(fd, at, len, 0);
        if (n <= 0)
            return 0;
        at += n;
        len -= (size_t)n;
    }
    return 1;
}

// Both ends know what is sent: the text, repeated; the receiver sums what arrives.
static const unsigned char *chunk(void) {
    static unsigned char text[CHUNK];
    if (!text[0])
        bench_fill_text((char *)text, CHUNK, 12);
    return text;
}

static void put_bulk(int fd, uint64_t bytes) {
    for (; bytes >= CHUNK; bytes -= CHUNK)
        put(fd, chunk(), CHUNK);
}

static uint64_t get_bulk(int fd, uint64_t bytes) {
    static unsigned char buf[CHUNK];
    uint64_t sum = 0, value;
    for (uint64_t at = 0; at + CHUNK <= bytes; at += CHUNK) {
        bench_need(get(fd, buf, CHUNK), "receive");
        for (unsigned i = 0; i < CHUNK; i += 64) {
            memcpy(&value, buf + i, sizeof(value));
            sum = bench_mix(sum, value);
        }
    }
    return sum;
}

static int dial(const char *mode, uint64_t bytes) {
    const char *address = bench_extra(0), *port = bench_extra(1);
    bench_need(address && port, "address and port");
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    inet_pton(AF_INET, address, &to.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    bench_need(fd >= 0 && !connect(fd, (struct sockaddr *)&to, sizeof(to)), "connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    struct header h = {.bytes = bytes};
    strcpy(h.mode, mode);
    put(fd, &h, sizeof(h));
    return fd;
}

static uint64_t net_send(uint64_t work) {
    uint64_t sum, bytes = work * CHUNK;
    int fd = dial("send", bytes);
    put_bulk(fd, bytes);
    bench_need(get(fd, &sum, sizeof(sum)), "the server's sum");
    close(fd);
    return sum;
}

static uint64_t net_receive(uint64_t work) {
    int fd = dial("receive", work * CHUNK);
    uint64_t sum = get_bulk(fd, work * CHUNK);
    close(fd);
    return sum;
}

static uint64_t net_ask(uint64_t work) {
    unsigned char message[MESSAGE] = "question";
    uint64_t sum = 0, value;
    int fd = dial("ask", 0);
    for (uint64_t i = 0; i < work; i++) {
        put(fd, message, MESSAGE);
        bench_need(get(fd, message, MESSAGE), "an answer");
        memcpy(&value, message, sizeof(value));
        sum = bench_mix(sum, value);
    }
    close(fd);
    return sum;
}

static uint64_t net_connect(uint64_t work) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < work; i++) {
        int fd = dial("receive", CHUNK);
        sum += get_bulk(fd, CHUNK);
        close(fd);
    }
    return sum;
}

static void serve_one(int fd) {
    struct header h;
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (!get(fd, &h, sizeof(h)))
        return;
    if (!strncmp(h.mode, "send", sizeof(h.mode))) {
        uint64_t sum = get_bulk(fd, h.bytes);
        put(fd, &sum, sizeof(sum));
    } else if (!strncmp(h.mode, "receive", sizeof(h.mode))) {
        put_bulk(fd, h.bytes);
    } else {
        unsigned char message[MESSAGE];
        while (get(fd, message, MESSAGE)) {
            for (unsigned i = 0; i < MESSAGE; i++)
                message[i] = (unsigned char)(message[i] * 3 + i);
            put(fd, message, MESSAGE);
        }
    }
}

int net_serve(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    bench_need(listener >= 0 && !bind(listener, (struct sockaddr *)&at, len) && !listen(listener, 64), "listen");
    getsockname(listener, (struct sockaddr *)&at, &len);
    printf("%u\n", ntohs(at.sin_port));
    fflush(stdout);
    signal(SIGCHLD, SIG_IGN);
    struct pollfd fds[2] = {{.fd = listener, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
    for (;;) {
        poll(fds, 2, -1);
        if (fds[1].revents)
            return 0;
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            continue;
        if (!fork()) {
            serve_one(fd);
            _exit(0);
        }
        close(fd);
    }
}

const struct bench_case bench_net[] = {
    {"net-send", net_send}, {"net-receive", net_receive}, {"net-ask", net_ask}, {"net-connect", net_connect}, {0}};
