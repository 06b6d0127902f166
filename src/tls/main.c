// SPDX-License-Identifier: Apache-2.0
// cicada-tls: a program of its own that stands between a migration's socket and the network and speaks TLS 1.3 there.
// So the virtual machine's process holds no keys and none of a TLS library's code, and starts without loading one.
//
// usage: cicada-tls client|server DIRECTORY NAME NET PLAIN STATUS
//   DIRECTORY  ca-cert.pem, and client-cert.pem with client-key.pem or server-cert.pem with server-key.pem
//   NAME       the name or address that the other side's certificate must have; "" for the server: any that the CA
//   signed NET, PLAIN, STATUS  descriptors: the network, the socket of the VM, and a pipe that gets "ok" when the
//   connection
//                       stands, or the reason why it does not; it is then closed
//
// Both sides prove who they are. The end of either stream is passed on behind what was sent before it. A stream that
// ends without TLS's own end is passed on as an end, too: the migration's messages are framed and checksummed, and none
// is left out without being noticed.
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HANDSHAKE_MS 10000
#define BUFFER       (256 * 1024)
#define READY        'C'

struct arguments {
    bool server;
    const char *dir, *name;
    int net, plain, status;
};

// ---- telling how it went ----

// The end, before the connection stands.
__attribute__((noreturn, format(printf, 2, 3))) static void give_up(const struct arguments *a, const char *fmt, ...) {
    char text[400], reason[200] = "";
    unsigned long code = ERR_peek_last_error();
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (code)
        ERR_error_string_n(code, reason, sizeof(reason));
    const char *last = strrchr(reason, ':');
    dprintf(a->status, "%s%s%s\n", text, last ? ": " : "", last ? last + 1 : "");
    _exit(1);
}

static void tell_ok(const struct arguments *a) {
    if (write(a->status, "ok\n", 3) != 3)
        _exit(1);
    close(a->status);
}

// ---- credentials ----

static void path_of(const struct arguments *a, const char *file, char *buf, size_t size) {
    int n = snprintf(buf, size, "%s/%s", a->dir, file);
    if (n < 0 || (size_t)n >= size)
        give_up(a, "the name of the directory of certificates is too long");
}

static void load_credentials(const struct arguments *a, SSL_CTX *ctx) {
    char path[4096];
    path_of(a, "ca-cert.pem", path, sizeof(path));
    if (SSL_CTX_load_verify_file(ctx, path) != 1)
        give_up(a, "'%s'", path);
    path_of(a, a->server ? "server-cert.pem" : "client-cert.pem", path, sizeof(path));
    if (SSL_CTX_use_certificate_chain_file(ctx, path) != 1)
        give_up(a, "'%s'", path);
    path_of(a, a->server ? "server-key.pem" : "client-key.pem", path, sizeof(path));
    if (SSL_CTX_use_PrivateKey_file(ctx, path, SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(ctx) != 1)
        give_up(a, "'%s'", path);
}

static SSL_CTX *make_context(const struct arguments *a) {
    SSL_CTX *ctx = SSL_CTX_new(a->server ? TLS_server_method() : TLS_client_method());
    if (!ctx || SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1)
        give_up(a, "TLS");
    load_credentials(a, ctx);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_num_tickets(ctx, 0); // there is no second connection to resume
    return ctx;
}

static SSL *make_connection(const struct arguments *a, SSL_CTX *ctx) {
    SSL *ssl = SSL_new(ctx);
    if (!ssl || SSL_set_fd(ssl, a->net) != 1)
        give_up(a, "TLS");
    X509_VERIFY_PARAM *verify = SSL_get0_param(ssl);
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (*a->name && X509_VERIFY_PARAM_set1_ip_asc(verify, a->name) != 1 && SSL_set1_host(ssl, a->name) != 1)
        give_up(a, "'%s' cannot be the name in a certificate", a->name);
    ERR_clear_error(); // a name that is no address leaves an error
    if (a->server)
        SSL_set_accept_state(ssl);
    else
        SSL_set_connect_state(ssl);
    return ssl;
}

// ---- handshake ----

static void explain_failure(const struct arguments *a, const SSL *ssl) {
    long verified = SSL_get_verify_result(ssl);
    if (verified != X509_V_OK) {
        ERR_clear_error();
        give_up(a, "the certificate of the other side: %s", X509_verify_cert_error_string(verified));
    }
    give_up(a, "TLS handshake");
}

// Does one step of TLS until it is done; ret is what the step gave.
static bool again(const struct arguments *a, SSL *ssl, int ret) {
    if (ret == 1)
        return false;
    int want = SSL_get_error(ssl, ret);
    struct pollfd p = {.fd = a->net, .events = want == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN};
    if (want != SSL_ERROR_WANT_READ && want != SSL_ERROR_WANT_WRITE)
        explain_failure(a, ssl);
    if (poll(&p, 1, HANDSHAKE_MS) == 0)
        give_up(a, "the other side does not speak TLS: no answer in %d s", HANDSHAKE_MS / 1000);
    return true;
}

// With TLS 1.3 a client is done before the server has looked at its certificate. So each side says one byte when it is
// content, and waits for the other's: a refusal comes as an alert in place of it.
static void shake_hands(const struct arguments *a, SSL *ssl) {
    char byte = READY;
    size_t n;
    while (again(a, ssl, SSL_do_handshake(ssl))) {
    }
    while (again(a, ssl, SSL_write_ex(ssl, &byte, 1, &n))) {
    }
    while (again(a, ssl, SSL_read_ex(ssl, &byte, 1, &n))) {
    }
    if (byte != READY)
        give_up(a, "the other side is no cicada");
}

// ---- passing on ----

// Bytes on their way in one direction.
struct flow {
    char *data;
    size_t begin, end;
    bool ended;  // nothing more comes in
    bool closed; // and the other side was told
};

struct pump {
    const struct arguments *a;
    SSL *ssl;
    struct flow out, in; // to the network, from it
    bool want_write;     // TLS has something of its own to send before it can read
};

static bool room(const struct flow *f) {
    return !f->ended && f->end < BUFFER;
}

static void consume(struct flow *f, size_t n) {
    f->begin += n;
    if (f->begin == f->end)
        f->begin = f->end = 0;
}

static void from_plain(struct pump *p) {
    struct flow *f = &p->out;
    ssize_t n = read(p->a->plain, f->data + f->end, BUFFER - f->end);
    if (n > 0)
        f->end += (size_t)n;
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        f->ended = true;
}

static void to_plain(struct pump *p) {
    struct flow *f = &p->in;
    ssize_t n = send(p->a->plain, f->data + f->begin, f->end - f->begin, MSG_NOSIGNAL);
    if (n > 0)
        consume(f, (size_t)n);
    else if (errno != EAGAIN && errno != EINTR)
        f->begin = f->end = 0, f->ended = p->out.ended = true; // nobody takes it any more
}

static void from_net(struct pump *p) {
    struct flow *f = &p->in;
    size_t n;
    while (room(f) && SSL_read_ex(p->ssl, f->data + f->end, BUFFER - f->end, &n) == 1)
        f->end += n;
    if (!room(f))
        return;
    int why = SSL_get_error(p->ssl, 0);
    p->want_write = why == SSL_ERROR_WANT_WRITE;
    if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
        f->ended = true;
    ERR_clear_error();
}

static void to_net(struct pump *p) {
    struct flow *f = &p->out;
    size_t n;
    while (f->begin < f->end && SSL_write_ex(p->ssl, f->data + f->begin, f->end - f->begin, &n) == 1)
        consume(f, n);
    if (f->begin == f->end)
        return;
    int why = SSL_get_error(p->ssl, 0);
    if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
        f->begin = f->end = 0, f->ended = p->in.ended = true;
    ERR_clear_error();
}

// Ends of streams go on behind the last byte.
static void pass_ends(struct pump *p) {
    if (p->out.ended && p->out.begin == p->out.end && !p->out.closed) {
        p->out.closed = true;
        SSL_shutdown(p->ssl);
    }
    if (p->in.ended && p->in.begin == p->in.end && !p->in.closed) {
        p->in.closed = true;
        shutdown(p->a->plain, SHUT_WR);
    }
}

static void pump_run(struct pump *p) {
    while (!p->out.closed || !p->in.closed) {
        struct pollfd fds[] = {{.fd = p->a->net}, {.fd = p->a->plain}};
        if (room(&p->in))
            fds[0].events |= POLLIN;
        if (p->out.begin < p->out.end || p->want_write)
            fds[0].events |= POLLOUT;
        if (room(&p->out))
            fds[1].events |= POLLIN;
        if (p->in.begin < p->in.end)
            fds[1].events |= POLLOUT;
        // One side has ended for good: what is left goes to the other, which then ends by itself.
        if (poll(fds, 2,
                 SSL_pending(p->ssl) && room(&p->in) ? 0
                 : p->out.closed || p->in.closed     ? HANDSHAKE_MS
                                                     : -1) == 0 &&
            !SSL_pending(p->ssl))
            return;
        if (room(&p->out) && fds[1].revents & (POLLIN | POLLHUP | POLLERR))
            from_plain(p);
        if (room(&p->in))
            from_net(p);
        if (p->out.begin < p->out.end)
            to_net(p);
        if (p->in.begin < p->in.end)
            to_plain(p);
        pass_ends(p);
    }
}

// ---- start ----

static int descriptor(const char *text) {
    char *end;
    long fd = strtol(text, &end, 10);
    return *text && !*end && fd > STDERR_FILENO && fd < 65536 && fcntl((int)fd, F_GETFD) >= 0 ? (int)fd : -1;
}

static bool parse(int argc, char **argv, struct arguments *a) {
    if (argc != 7)
        return false;
    *a = (struct arguments){.server = strcmp(argv[1], "server") == 0,
                            .dir = argv[2],
                            .name = argv[3],
                            .net = descriptor(argv[4]),
                            .plain = descriptor(argv[5]),
                            .status = descriptor(argv[6])};
    return (a->server || strcmp(argv[1], "client") == 0) && a->net >= 0 && a->plain >= 0 && a->status >= 0;
}

static void make_non_blocking(int fd) {
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

int main(int argc, char **argv) {
    struct arguments a;
    if (!parse(argc, argv, &a)) {
        fprintf(stderr, "cicada-tls: a helper of 'cicada migrate --tls' and 'cicada receive --tls'\n");
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    make_non_blocking(a.net);
    make_non_blocking(a.plain);
    struct pump p = {.a = &a, .out.data = malloc(BUFFER), .in.data = malloc(BUFFER)};
    if (!p.out.data || !p.in.data)
        give_up(&a, "out of memory");
    p.ssl = make_connection(&a, make_context(&a));
    shake_hands(&a, p.ssl);
    tell_ok(&a);
    pump_run(&p);
    return 0;
}
